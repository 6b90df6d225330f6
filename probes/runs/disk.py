"""Sealed JSON lines, and appending a line that survives a crash. `dpt.writing` writes whole files.

A sealed line ends with the SHA-256 of the text before it, so a flipped bit is noticed in records as well as in arrays.
`append_line` returns when the data is on disk (fsync). It calls `os.open`, `os.write` and so on through the module
`os`, so tests can make each call fail or kill the process at it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dpt.writing import write_all

from ..errors import InvalidValueError


def sha256(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def seal(record: Mapping[str, Any]) -> str:
    """One line of ASCII JSON that ends with the SHA-256 of the text before it."""
    body = json.dumps(record, ensure_ascii=True, separators=(",", ":"))  # ASCII: names can hold lone surrogates
    return f'{body[:-1]},"sha256":"{sha256(body.encode())}"}}'


def unseal(line: str) -> dict[str, Any]:
    """The record of a sealed line.

    Raises:
        InvalidValueError: The line does not match its checksum, or is not a JSON object.
    """
    body, mark, end = line.rpartition(',"sha256":"')
    body += "}"
    if not mark or end != f'{sha256(body.encode(errors="replace"))}"}}':
        raise InvalidValueError("it does not match its checksum")
    try:
        record = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidValueError(f"it is not valid JSON: {error}") from error
    if not isinstance(record, dict):
        raise InvalidValueError(f"it holds a {type(record).__name__} instead of an object")
    return record


def append_line(path: Path, line: str) -> None:
    """Appends a line to a file, which is created if needed. The line is on disk when this returns.

    Raises:
        OSError: As the system raises it. The file then ends where it ended before.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
    try:
        before = os.fstat(descriptor).st_size
        try:
            write_all(descriptor, (line + "\n").encode())
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, before)  # an incomplete line would merge with the next one
            raise
    finally:
        os.close(descriptor)
