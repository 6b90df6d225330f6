"""Opens files that others may have prepared: only regular files, and never more bytes than expected.

Problem. A plain ``open`` waits for ever on a pipe that nobody writes to, and reading a device such as /dev/zero takes
all memory. Checking the path first leaves a moment in which the file can be replaced.

Approach. The kind of file is read from the path, so that no device is opened, and again from the open file, which
cannot be replaced any more. The file is opened without waiting. `read_file` stops at a limit, whatever the size of the
file claims to be.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from .errors import FileTooLargeError, NotAFileError

_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISLNK, "a link"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_file(path: str | os.PathLike[str], *, follow_links: bool = True) -> BinaryIO:
    """Opens a regular file for reading.

    Args:
        path: The file.
        follow_links: False refuses a symbolic link at the end of the path. Use it for names that were read from disk.

    Returns:
        The open file. `os.fstat` of its descriptor describes the bytes that it reads.

    Raises:
        NotAFileError: The path leads to something else than a regular file (also an OSError).
        OSError: The file does not exist or cannot be opened.
        ValueError: The path contains a NUL character.

    Example:
        >>> with open_file("weights.pth") as file:
        ...     start = file.read(16)
    """
    check_kind(path, os.stat(path, follow_symlinks=follow_links))
    # A link that takes the file's place after this check fails with ELOOP.
    descriptor = os.open(path, _FLAGS | (0 if follow_links else getattr(os, "O_NOFOLLOW", 0)))
    try:
        check_kind(path, os.fstat(descriptor))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_file(path: str | os.PathLike[str], largest: int, *, follow_links: bool = True) -> bytes:
    """Reads a whole regular file that has at most `largest` bytes.

    Args:
        path: The file.
        largest: Number of bytes that a healthy file of this kind never exceeds.
        follow_links: As for `open_file`.

    Raises:
        NotAFileError: The path leads to something else than a regular file (also an OSError).
        FileTooLargeError: The file has more bytes (also an OSError).
        OSError: The file does not exist or cannot be read.
        ValueError: The path contains a NUL character.
    """
    with open_file(path, follow_links=follow_links) as file:
        data = file.read(largest + 1)
    if len(data) > largest:
        raise FileTooLargeError(
            errno.EFBIG,
            f"the file has more than {largest} bytes, more than a healthy file of its kind",
            os.fspath(path),
        )
    return data


def check_kind(path: str | os.PathLike[str], status: os.stat_result) -> None:
    """Checks that a path leads to a regular file.

    Args:
        path: The path, for the message.
        status: What `os.stat` or `os.fstat` says of it.

    Raises:
        NotAFileError: It is something else (also an OSError).
    """
    if stat.S_ISREG(status.st_mode):
        return
    kind = next((name for is_kind, name in _KINDS if is_kind(status.st_mode)), "no regular file")
    number = errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.EINVAL
    raise NotAFileError(number, f"expected a regular file, found {kind}", str(Path(path)))
