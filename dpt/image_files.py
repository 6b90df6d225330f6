"""Opens what can hold an image: a path, the bytes of a file, or a binary stream."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from .errors import ImageError, NotAFileError
from .opening import open_file

LARGEST_STREAM = 2**31  # bytes of a stream that cannot seek, which is read into memory


@contextmanager
def opened(source: object) -> Iterator[tuple[BinaryIO, str]]:
    """Yield (binary file, its name in messages). A file of the caller stays open."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        with io.BytesIO(source) as buffer:
            yield buffer, f"the given data ({len(buffer.getbuffer())} bytes)"
    elif isinstance(source, (str, os.PathLike)):
        path = os.fsdecode(source)
        _check_path(path)
        try:
            file = open_file(path)
        except NotAFileError as error:
            raise _not_a_file(path) from error
        except OSError as error:
            raise ImageError(f"{path} cannot be opened: {error.strerror or error}. Check its permissions") from error
        with file:
            yield file, path
    elif isinstance(source, io.TextIOBase):
        raise ImageError(f"{_file_name(source)} is open as text. Open it with open(path, 'rb')")
    elif callable(getattr(source, "read", None)):
        yield cast(BinaryIO, source), _file_name(source)
    elif hasattr(source, "shape"):
        raise ImageError(
            f"source must be an image file, got an array of shape {tuple(source.shape)}. An (H, W, 3) uint8 array "
            "needs no reading: use it directly"
        )
    else:
        given = f"{type(source).__name__} {source!r:.80}"
        raise ImageError(f"source must be a path, bytes, a binary file object or a PIL image, got {given}")


def _check_path(path: str) -> None:
    """ImageError, with advice, if nothing can be reached under a path."""
    try:
        os.stat(path)
    except FileNotFoundError as error:
        if os.path.islink(path):
            raise ImageError(f"{path} is a link to {os.readlink(path)}, which does not exist. Fix the link") from error
        if "://" in path:
            raise ImageError(f"{path} is a URL, which read_image does not download. Download it first") from error
        if path.startswith("~"):
            raise ImageError(f"{path} does not exist. Expand a leading ~ with os.path.expanduser(path)") from error
        where = "" if os.path.isabs(path) else f" in {os.getcwd()}"
        raise ImageError(f"{path!r} does not exist{where}. Check the path") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL character
        raise ImageError(f"{path!r} cannot be reached: {error}. Check the path and its permissions") from error


def _not_a_file(path: str) -> ImageError:
    if os.path.isdir(path):
        return ImageError(f"{path!r} is a folder. Pass one image in it")
    return ImageError(f"{path} is a pipe, socket or device, not a file. Save the image to a file first")


def _file_name(file: object) -> str:
    """What messages call a file object."""
    name = getattr(file, "name", None)
    return name if isinstance(name, str) and name else f"the given {type(file).__name__}"


def from_its_start(file: BinaryIO) -> tuple[BinaryIO, bytes]:
    """(the file in a seekable form, as Pillow needs it, and its first bytes)."""
    try:
        file.seek(0)
    except (AttributeError, io.UnsupportedOperation):  # a download or a pipe
        file = _in_memory(file)
    return file, file.read(256)


def _in_memory(stream: BinaryIO) -> io.BytesIO:
    """The rest of a stream. ValueError if it does not end."""
    content = io.BytesIO()
    while data := stream.read(2**20):
        content.write(data)
        if content.tell() > LARGEST_STREAM:
            raise ValueError(f"the stream has more than {LARGEST_STREAM} bytes")
    content.seek(0)
    return content
