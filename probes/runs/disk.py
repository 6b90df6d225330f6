"""Reads and writes the files of a run: sealed JSON lines, whole records, one line at the end of a list.

Problem. A run may come from somebody else, or from a disk that has changed it. A link or a name in it must not lead to
another place of the machine, a device in place of a file must not be read without end, and a flipped bit must not be
read as a record.

Approach. A sealed line ends with the SHA-256 of the text before it. `read_inside` and `open_inside` open regular files
only, up to a size, and follow no link that leads out of the run. `append_line` returns when the data is on disk
(fsync). `dpt.writing` writes whole files. All of them call `os.open`, `os.write` and so on through the module `os`, so
tests can make each call fail or kill the process at it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from dpt.opening import open_file, read_file
from dpt.writing import TEMPORARY, create_file, sync_folder, write_all

from ..errors import InvalidValueError

LONGEST_RECORD = 64 * 2**20  # bytes of a sealed record, about 200,000 images in one part
_REPARSE = getattr(stat, "FILE_ATTRIBUTE_REPARSE_POINT", 0)


def sha256(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def seal(record: Mapping[str, Any]) -> str:
    """One line of ASCII JSON that ends with the SHA-256 of the text before it.

    Raises:
        InvalidValueError: The record is longer than `LONGEST_RECORD`, so it could not be read back.
    """
    body = json.dumps(record, ensure_ascii=True, separators=(",", ":"))  # ASCII: names can hold lone surrogates
    if len(body) + 80 > LONGEST_RECORD:
        raise InvalidValueError(
            f"the record of this part or run takes {len(body):,} bytes, more than {LONGEST_RECORD:,}. Use fewer images "
            "per part (part=), or a shorter source="
        )
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


# Reading --------------------------------------------------------------------------------------------------------------


def check_inside(root: Path, key: str) -> None:
    """Checks that no link on the way from a run's folder to a file or folder in it leads out of the run.

    The folder of the run may be a link itself.

    Args:
        root: Folder of the run.
        key: Path below it, with "/" as separator. It need not exist.

    Raises:
        OSError: ELOOP: a link leads out of the run.
    """
    path = root
    for name in key.split("/"):
        path = path / name
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return
        if not is_link(status):
            continue
        top, target = os.path.realpath(root), os.path.realpath(path)
        if os.path.commonpath([top, target]) != top or target == top:
            what = "it is a link that leads out of the run. Link the folder of the run instead"
            raise OSError(errno.ELOOP, what, str(path))


def is_link(status: os.stat_result) -> bool:
    """Whether `os.lstat` describes a link, or on Windows a junction."""
    return stat.S_ISLNK(status.st_mode) or bool(getattr(status, "st_file_attributes", 0) & _REPARSE)


def open_inside(root: Path, key: str) -> BinaryIO:
    """Opens a regular file of a run for reading.

    Args:
        root: Folder of the run.
        key: Path below it.

    Raises:
        OSError: The file cannot be read, is not a regular file (`dpt.errors.NotAFileError`) or lies elsewhere.
    """
    check_inside(root, key)
    return open_file(root / key)


def read_inside(root: Path, key: str, largest: int = LONGEST_RECORD) -> bytes:
    """Reads a regular file of a run that has at most `largest` bytes. Raises OSError as `open_inside` does."""
    check_inside(root, key)
    return read_file(root / key, largest)


def lines_inside(root: Path, key: str) -> Iterator[bytes]:
    """Yields the lines of a file with their ends. The last line of a torn file has none.

    A line that is longer than a record is cut and ends the iteration: the file is not one of ours.
    """
    with open_inside(root, key) as file:
        while line := file.readline(LONGEST_RECORD + 1):
            yield line
            if not line.endswith(b"\n"):
                return


# Writing --------------------------------------------------------------------------------------------------------------


def append_line(path: Path, line: str) -> None:
    """Appends a line to a file, which is created if needed. The line is on disk when this returns.

    Raises:
        OSError: As the system raises it. The file then ends where it ended before.
    """
    descriptor = os.open(path, _APPEND, 0o666)
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


_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)


def replace_file(path: Path, data: bytes, writer: str) -> None:
    """Writes or replaces a file of a run as a whole, like `dpt.writing.write_file`.

    The name of the temporary file says who writes it, so that another writer can tell whether it is abandoned.

    Raises:
        OSError: As the system raises it. The old file, if any, is intact.
    """
    temporary = path.with_name(f"{TEMPORARY}{writer}-{secrets.token_hex(4)}-{path.name}")
    try:
        create_file(temporary, data)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):  # never created
            os.unlink(temporary)
        raise
    sync_folder(path.parent)
