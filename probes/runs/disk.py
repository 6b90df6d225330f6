"""What a store does to the disk: sealed lines of JSON, and files that are whole or not there.

A sealed line ends with the checksum of what stands before it, so that a flipped bit is noticed in records as it is in
arrays. The writing functions return when the data is on the disk (fsync), not when the system has promised to put it
there. They use the plain calls of `os`, so that a test can make each of them fail, or kill the process at it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InvalidValueError

TEMPORARY = ".tmp-"  # how names begin of what is not finished


class StoreError(OSError):
    """A run on disk that cannot be written, or cannot be trusted. (errno, what is the matter)"""

    def __str__(self) -> str:
        return str(self.strerror)


class Damaged(StoreError):
    """Something stored is not what was written."""


def seal(record: Mapping[str, Any]) -> str:
    """A record as one line of JSON that ends with the sha256 of what stands before."""
    # ASCII: file names need not be valid Unicode
    body = json.dumps(record, ensure_ascii=True, separators=(",", ":"))
    return f'{body[:-1]},"sha256":"{hashlib.sha256(body.encode()).hexdigest()}"}}'


def unseal(line: str) -> dict[str, Any]:
    """The record of a sealed line; ValueError if the line is not what was sealed."""
    body, mark, end = line.rpartition(',"sha256":"')
    body += "}"
    if not mark or end != f'{hashlib.sha256(body.encode(errors="replace")).hexdigest()}"}}':
        raise InvalidValueError("it does not match its checksum")
    record: dict[str, Any] = json.loads(body)
    return record


def write_file(path: Path, data: bytes | memoryview) -> None:
    """A new file, on the disk when this returns."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o644)
    try:
        _write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append_line(path: Path, line: str) -> None:
    """A line at the end of a file, on the disk when this returns."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o644)
    try:
        before = os.fstat(descriptor).st_size
        try:
            _write_all(descriptor, (line + "\n").encode())
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, before)  # half a line would be in the way of the next one
            raise
    finally:
        os.close(descriptor)


def replace_file(path: Path, data: bytes) -> None:
    """A file in place of the one that is there, if any: readers see the old one or the new one."""
    # random: in containers every process has the same number, and one that was killed has left its file
    beside = path.with_name(f"{TEMPORARY}{path.name}-{secrets.token_hex(4)}")
    try:
        write_file(beside, data)
        os.replace(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there, and renames are journalled
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that has no such thing for folders
            raise
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    os.mkdir(path)


def _write_all(descriptor: int, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest[: 2**30]) :]
