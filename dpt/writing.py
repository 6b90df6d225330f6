"""Files that appear whole or not at all.

    with replacing(path) as temporary:
        temporary.write_bytes(content)

A reader sees the old file or the new one, a crash leaves one of them, and what goes wrong is said of the path that was
asked for. The new file may be read by whom any new file may be.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from .errors import MissingFileError


def check_place(path: Path) -> None:
    """FileNotFoundError or IsADirectoryError where no file of that path can be written, whatever is in it."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, f"cannot write {path}: it is a folder; give the name of a file")
    if not path.parent.is_dir():
        raise MissingFileError(errno.ENOENT, f"cannot write {path}: there is no folder {path.parent}; make it first")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """An empty file beside the path, which takes its place at the end of the block.

    Raises OSError, on entering where that can be known: as `check_place`, and PermissionError. An exception inside
    comes through, and leaves what was there before.
    """
    check_place(path)
    # The same folder: a rename must not cross disks. Random: in containers every process has the same number.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # safetensors makes files that nobody else may read
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        if os.name == "posix":  # so that the name, too, survives a power cut
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except SafetensorError as error:  # its name for a full disk
        raise OSError(errno.EIO, f"cannot write {path}: {error}") from error
    except OSError as error:
        raise OSError(error.errno, f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # where it could not be made, it cannot be looked for either
            temporary.unlink()
