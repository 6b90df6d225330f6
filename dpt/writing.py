"""Writes whole files: readers see the old content or the new content, never a part of it.

    write_file(path, data)                    # bytes at hand

    with replacing(path) as temporary:        # a library that writes to a path
        save_file(tensors, temporary)

Both write a temporary file in the same folder, flush it to disk (fsync), rename it over `path` and flush the folder.
A crash or a full disk therefore leaves the old file intact. A killed process can leave a temporary file, whose name
starts with `TEMPORARY`. Errors name `path`, not the temporary file. Permissions follow the umask, as for any new file.

`create_file` and `sync_folder` are the two steps for callers that rename a whole folder instead of a file. `write_all`
writes to a file that the caller opened.

All functions call `os.open`, `os.write`, `os.fsync`, `os.replace` and so on through the module `os`, so tests can make
each call fail.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from .errors import AddressError, WriteError, WritePermissionError, WriteToFolderError, WriteToMissingFolderError

TEMPORARY = ".tmp-"
"""Prefix of the names of unfinished files and folders."""

_CHUNK = 2**30  # some systems write at most 2 GiB per call
# "s3://bucket/run", or "s3:/bucket/run" after `Path` has joined the slashes. One letter is a drive of Windows. fsspec
# chains protocols: "zip::s3://bucket/run".
_ADDRESS = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*::)*[A-Za-z][A-Za-z0-9+.-]+:[/\\]")


def local_path(path: str | os.PathLike[str]) -> Path:
    """The path that a caller gave for output, or for a run to read, if it is one of this machine.

    Without this check, "s3://bucket/run" would become a folder named "s3:" in the working directory.

    Args:
        path: A path.

    Returns:
        The path as a `Path`, otherwise unchanged.

    Raises:
        AddressError: It is an address such as s3://bucket/run or file:///tmp/run (also a ValueError).
    """
    text = os.fsdecode(path)
    if _ADDRESS.match(text) or "://" in text:
        before, chain, last = text.rpartition("::")
        scheme, _, rest = last.partition(":")
        given = f"{before}{chain}{scheme}:{'///' if scheme.lower() == 'file' else '//'}{rest.lstrip('/')}"
        advice = "Use a folder of this machine and copy it afterwards, or mount the remote storage"
        if scheme.lower() == "file" and not chain:
            advice = f"Give the path /{rest.lstrip('/')}"
        raise AddressError(f"{given} is an address, expected a path of this machine. {advice}")
    return Path(path)


def check_place(path: Path) -> None:
    """Checks that a file can exist at a path, before any work is done for it.

    Args:
        path: The file to write.

    Raises:
        AddressError: `path` is an address such as s3://bucket/file.
        WriteToFolderError: `path` is an existing folder (also an IsADirectoryError).
        WriteToMissingFolderError: The folder of `path` does not exist (also a FileNotFoundError).
    """
    local_path(path)
    if path.is_dir():
        raise write_error(path, errno.EISDIR, "it is a folder. Give the name of a file")
    if not path.parent.is_dir():
        raise write_error(path, errno.ENOENT, f"folder {path.parent} does not exist. Create it first")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Provides an empty temporary file that replaces `path` when the block ends.

    If the block raises, `path` keeps its old content and the temporary file is deleted. An OSError (and safetensors'
    own error) becomes a WriteError that names `path`; other exceptions pass through unchanged.

    Args:
        path: The file to write. Its folder must exist.

    Yields:
        Path of the temporary file, which exists and is empty. Its name ends with the name of `path`, so libraries that
        choose a format by the suffix choose the same one.

    Raises:
        WriteError: The file cannot be written; for known causes see its subclasses. Raised on entry where possible.

    Example:
        with replacing(Path("weights.safetensors")) as temporary:
            safetensors.torch.save_file(tensors, temporary)
    """
    with _renamed_to(path) as temporary:
        os.close(_create(temporary))
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # safetensors makes files that only their owner can read
        descriptor = os.open(temporary, os.O_RDWR | getattr(os, "O_BINARY", 0))  # Windows flushes writable files only
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_file(path: Path, data: bytes | memoryview) -> None:
    """Writes or replaces a file as a whole. The data is on disk when the function returns.

    Args:
        path: The file to write. Its folder must exist.
        data: The new content.

    Raises:
        WriteError: The file cannot be written; for known causes see its subclasses. The old file, if any, is intact.
    """
    with _renamed_to(path) as temporary:
        create_file(temporary, data)


def create_file(path: Path, data: bytes | memoryview) -> None:
    """Creates a file under its final name. The data, but not yet the file's name, is on disk when this returns.

    For files in a folder that other processes do not see yet; call `sync_folder` afterwards. A failed call can leave an
    incomplete file.

    Args:
        path: The file to create.
        data: Its content.

    Raises:
        OSError: As the system raises it; FileExistsError if the file exists.
    """
    descriptor = _create(path)
    try:
        write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Writes all of the data to an open file. One `os.write` can write less than it was given.

    Args:
        descriptor: The file.
        data: What to write.

    Raises:
        OSError: As the system raises it. A part of the data may be written.
    """
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest[:_CHUNK]) :]


def sync_folder(path: Path) -> None:
    """Flushes the names in a folder to disk, as far as the system can do so.

    Args:
        path: The folder. Windows journals renames and cannot open folders; the function does nothing there.

    Raises:
        OSError: As the system raises it.
    """
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # the file system does not support fsync for folders
            raise
    finally:
        os.close(descriptor)


@contextmanager
def _renamed_to(path: Path) -> Iterator[Path]:
    """Yields an unused name beside `path`; the file that the block creates there replaces `path`."""
    check_place(path)
    # The same folder, because a rename cannot cross file systems. A random name, because process ids repeat in
    # containers and a killed process leaves its file.
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(4)}-{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
        sync_folder(path.parent)
    except SafetensorError as error:  # raised by safetensors for a full disk
        raise write_error(path, errno.EIO, str(error)) from error
    except OSError as error:
        raise write_error(path, error.errno, error.strerror or str(error)) from error
    finally:
        with suppress(OSError):  # renamed, or never created
            os.unlink(temporary)


def _create(path: Path) -> int:
    """Opens a new file for writing and returns its descriptor."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)


def write_error(path: Path, code: int | None, reason: str) -> WriteError:
    """Creates the error for a file that cannot be written.

    Args:
        path: The file that the caller requested.
        code: The errno of the cause; chooses the subclass of WriteError.
        reason: The cause in words.
    """
    kinds: dict[int | None, type[WriteError]] = {
        errno.EISDIR: WriteToFolderError,
        errno.ENOENT: WriteToMissingFolderError,
        errno.EACCES: WritePermissionError,
        errno.EPERM: WritePermissionError,
    }
    error = kinds.get(code, WriteError)(code, f"cannot write {path}: {reason}")
    error.path = str(path)
    return error
