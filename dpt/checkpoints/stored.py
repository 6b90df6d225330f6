"""An open checkpoint file, and the places of tensors in it.

A checkpoint is checked and read through one descriptor. A file that replaces it under the same path is therefore never
read, and a change of the file itself shows in its size and times (`StoredFile.check_unchanged`).
"""

from __future__ import annotations

import copy
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import torch

from .. import opening
from ..errors import NotAFileError
from .errors import CheckpointError

_PIECE = 1 << 20  # bytes
_SPARSE_FROM = 1 << 26  # bytes; smaller files cost little, whatever they claim
_MOST_HOLES = 10_000
_SHARE_OF_DATA = 8  # a file with less than one byte of data in 8 is an unfinished download, or made to cost memory


class Identity(NamedTuple):
    """Tells whether two open files are the same one, with the same bytes."""

    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        """From what os.stat or os.fstat says."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class StoredFile:
    """A checkpoint file that is open for reading.

    Attributes:
        path: The path that was opened.
        size: Bytes when it was opened.
    """

    def __init__(self, path: Path):
        """Opens a file.

        Args:
            path: A regular file. Links are followed.

        Raises:
            CheckpointError: It cannot be opened or is not a regular file.
        """
        self.path = path
        try:
            self._file = opening.open_file(path)
        except NotAFileError as error:  # its message names the path
            raise CheckpointError(f"{path} is not a regular file: {error.strerror}") from error
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
        self._status = os.fstat(self._file.fileno())
        self.size = self._status.st_size

    def __enter__(self) -> StoredFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file. Maps of it stay valid."""
        self._file.close()

    @property
    def identity(self) -> Identity:
        """Which bytes the file had when it was opened."""
        return Identity.of(self._status)

    def pieces(self) -> Iterator[memoryview]:
        """Reads the whole file. Each piece is overwritten by the next one."""
        buffer = memoryview(bytearray(min(_PIECE, self.size)))
        for at in range(0, self.size, _PIECE):
            piece = buffer[: min(_PIECE, self.size - at)]
            self.read_into(at, piece)
            yield piece

    def read(self, start: int, count: int) -> bytes:
        """Reads bytes; CheckpointError if the file has fewer."""
        if not 0 <= start <= start + count <= self.size:
            raise self._short(start + count)
        data = bytearray(count)
        self.read_into(start, memoryview(data))
        return bytes(data)

    def read_into(self, start: int, target: memoryview) -> None:
        """Fills a buffer of bytes from a place in the file; CheckpointError if the file ends earlier."""
        while target:
            try:
                if hasattr(os, "preadv"):
                    count = os.preadv(self._file.fileno(), [target], start)
                else:
                    self._file.seek(start)
                    count = self._file.readinto(target)  # type: ignore[attr-defined]  # BinaryIO does not declare it
            except OSError as error:
                raise CheckpointError(f"{self.path} cannot be read: {error.strerror or error}") from error
            if count == 0:
                raise self._short(start + len(target))
            start += count
            target = target[count:]

    def duplicate(self) -> StoredFile:
        """The same open file with a descriptor of its own."""
        other = copy.copy(self)
        other._file = os.fdopen(os.dup(self._file.fileno()), "rb")
        return other

    def map(self) -> mmap.mmap:
        """Maps the file privately: what is written to the map does not reach the file."""
        try:
            return mmap.mmap(self._file.fileno(), self.size, access=mmap.ACCESS_COPY)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{self.path} cannot be mapped: {error}. Load it without mmap=True") from error

    def changes(self) -> str:
        """What says that the file changed since it was opened: "size", "content" or "attributes"; "" if nothing."""
        before, now = self._status, os.fstat(self._file.fileno())
        if now.st_size != before.st_size:
            return "size"
        if now.st_mtime_ns != before.st_mtime_ns:
            return "content"
        # The time of modification can be set back; the time of the last change of the inode cannot. It also changes
        # when another file replaces this one by a rename, which leaves the bytes that we read as they are.
        if now.st_ctime_ns != before.st_ctime_ns and now.st_nlink == before.st_nlink and os.name != "nt":
            return "attributes"
        return ""

    def accept(self) -> None:
        """Takes the present state of the file as unchanged."""
        self._status = os.fstat(self._file.fileno())

    def check_unchanged(self) -> None:
        """CheckpointError if somebody wrote to the file since it was opened."""
        if self.changes():
            raise CheckpointError(f"{self.path} was changed while it was read. Load it again when nothing writes to it")

    def _short(self, end: int) -> CheckpointError:
        return CheckpointError(
            f"{self.path} is not complete: it has {self.size} bytes, expected {end} or more. Get the file again and "
            "compare its size or sha256"
        )

    def check_holes(self) -> None:
        """Refuses a file that is mostly holes, which read as zeros: they would cost memory that the file does not."""
        if self.size < _SPARSE_FROM or not hasattr(os, "SEEK_DATA"):
            return
        descriptor, at, data = self._file.fileno(), 0, 0
        try:
            for _ in range(_MOST_HOLES):
                start = os.lseek(descriptor, at, os.SEEK_DATA)
                at = os.lseek(descriptor, start, os.SEEK_HOLE)
                data += at - start
                if data * _SHARE_OF_DATA >= self.size:
                    break
        except OSError:  # no data after this place
            pass
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
        if data * _SHARE_OF_DATA < self.size:
            raise CheckpointError(
                f"{self.path} has {self.size} bytes, but only {data} of them were ever written. The download is not "
                "complete. Get the file again"
            )


@dataclass(frozen=True, slots=True)
class Place:
    """Where the values of a tensor lie in a file.

    A tensor is a view of a storage, a run of bytes of the file. No two elements of the view are the same one, and all
    of them lie inside the storage; `pickles` and `safetensors_files` check that.
    """

    file: StoredFile
    start: int  # of the storage in the file, bytes
    size: int  # of the storage, bytes
    offset: int  # of the first element, bytes from the start of the storage
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]  # in elements
    crc: int | None = None  # crc32 of the storage, if the file states one
    swapped: bool = False  # whether the byte order is not that of this machine

    @property
    def contiguous(self) -> bool:
        """Whether the elements lie one after another in the order of their indices."""
        run = 1
        for size, stride in zip(reversed(self.shape), reversed(self.stride), strict=True):
            if size > 1 and stride != run:
                return False
            run *= size
        return True

    @property
    def span(self) -> int:
        """Bytes from the first to the last element. For a contiguous tensor these are its bytes."""
        if 0 in self.shape:
            return 0
        last = sum((size - 1) * stride for size, stride in zip(self.shape, self.stride, strict=True))
        return (last + 1) * self.dtype.itemsize

    @property
    def fills_storage(self) -> bool:
        """Whether the tensor covers its storage from the first to the last byte."""
        return self.offset == 0 and self.span == self.size
