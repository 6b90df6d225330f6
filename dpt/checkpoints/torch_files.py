"""PyTorch's .pth and .pt files: zip archives, and the format before PyTorch 1.6.

Both formats hold a pickle, which `pickles` reads as data, and the bytes of the storages that it refers to. What a
pickle claims is compared with what the file holds before any memory is allocated.

A zip archive stores a checksum of each entry, which is compared while the values are read (`values`). The older format
has no checksum. There, tensors that share memory or skip elements are refused, because that is what a damaged offset or
stride looks like.
"""

from __future__ import annotations

import io
import sys
import zlib
from typing import NamedTuple

from torch import Tensor

from .contents import first_line
from .errors import CheckpointError, first_few
from .pickle_values import RefusedError, View
from .pickles import LARGEST, Reader
from .relatives import name_of_class
from .stored import Place, StoredFile
from .zip_files import Entry, read_directory, start_of

MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of the format before 1.6
PROTOCOL = 1001  # second pickle

Places = dict[int, "Place | str"]
"""Where the values of a tensor are, or why they cannot be read, by id() of the meta tensor."""


class _Storage(NamedTuple):
    """Bytes of a storage in the file."""

    start: int
    size: int
    crc: int | None


def read_torch(file: StoredFile, zipped: bool) -> tuple[object, Places, list[Tensor]]:
    """Reads what torch.save wrote, without the values of its tensors.

    Args:
        file: The file.
        zipped: Whether it is a zip archive.

    Returns:
        The object that was saved, with tensors on the meta device; the places of their values; and all the tensors,
        whose id() is unique as long as they exist.

    Raises:
        CheckpointError: The file is damaged, or it needs code to be run.
    """
    try:
        return _read_zip(file) if zipped else _read_legacy(file)
    except RefusedError as error:
        if kind := name_of_class(error.name):
            raise CheckpointError(f"{file.path} is {kind}") from error
        raise CheckpointError(
            f"{file.path} is not a plain file of weights ({error}). Files that need code to be run are never loaded. "
            "Save the state dict alone, preferably as .safetensors"
        ) from error
    except CheckpointError:
        raise
    except Exception as error:  # a damaged pickle can raise almost any exception
        raise CheckpointError(
            f"{file.path} is not a complete PyTorch or safetensors file ({first_line(error)}). Get the file again and "
            "compare its size or sha256"
        ) from error


def _read_zip(file: StoredFile) -> tuple[object, Places, list[Tensor]]:
    entries = read_directory(file)
    pickled = [name for name in entries if name.endswith("/data.pkl")]
    if not pickled:
        raise CheckpointError(f"{file.path} is a zip archive that PyTorch did not write: {first_few(entries)}")
    folder = pickled[0].removesuffix("data.pkl")
    if len(pickled) > 1 or any(name.startswith(f"{folder}constants.pkl") for name in entries):
        raise CheckpointError(
            f"{file.path} is a TorchScript archive, which holds code, not a plain file of weights. Files that need "
            "code to be run are never loaded. Save the state dict alone, preferably as .safetensors"
        )
    # torch.serialization.set_crc32_options can leave the checksums out; all of them are 0 then.
    checked = any(entry.crc for entry in entries.values())
    order = (
        _content(file, entries[f"{folder}byteorder"], checked, 100) if f"{folder}byteorder" in entries else b"little"
    )
    if order not in (b"little", b"big"):
        raise CheckpointError(f"{file.path} is damaged: its byte order is {order[:20]!r}. Get the file again")
    reader = Reader(io.BytesIO(_content(file, entries[pickled[0]], checked, LARGEST)))
    loaded = reader.read()
    storages: dict[str, _Storage] = {}
    for key in reader.storages:
        entry = entries.get(f"{folder}data/{key}")
        if entry is None:
            raise CheckpointError(f"{file.path} is damaged: it lacks the values of a tensor. Get the file again")
        storages[key] = _Storage(start_of(file, entry), entry.size, entry.crc if checked else None)
    places = _places(file, reader.tensors, storages, order == b"big")
    return loaded, places, [tensor for tensor, _ in reader.tensors]


def _content(file: StoredFile, entry: Entry, checked: bool, largest: int) -> bytes:
    """The bytes of a small entry, compared with its checksum."""
    if entry.size > largest:
        raise CheckpointError(
            f"{file.path} is not a file of weights: its entry {first_few([entry.name])} has {entry.size} bytes, "
            f"expected {largest} at most"
        )
    data = file.read(start_of(file, entry), entry.size)
    if checked and zlib.crc32(data) != entry.crc:
        raise CheckpointError(
            f"{file.path} is damaged: the checksum of {first_few([entry.name])} does not match. Get the file again"
        )
    return data


class _Stream(io.RawIOBase):
    """The bytes of a file as a stream."""

    def __init__(self, file: StoredFile):
        self.file = file
        self.at = 0

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves to a place, which BufferedReader.tell needs."""
        self.at = offset + (0, self.at, self.file.size)[whence]
        return self.at

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        count = min(len(view), self.file.size - self.at)
        self.file.read_into(self.at, view[:count])
        self.at += count
        return count


def _read_legacy(file: StoredFile) -> tuple[object, Places, list[Tensor]]:
    """Five pickles (magic number, protocol, system, object, keys of storages), then each storage with its length."""
    stream = io.BufferedReader(_Stream(file))
    magic = Reader(stream).read()
    if magic != MAGIC:
        raise RefusedError("a pickle that torch.save did not write")
    if Reader(stream).read() != PROTOCOL:
        raise CheckpointError(f"{file.path} is damaged: its protocol is not {PROTOCOL}. Get the file again")
    system = Reader(stream).read()
    reader = Reader(stream)
    loaded = reader.read()
    keys = Reader(stream).read()
    if not (isinstance(keys, list) and all(isinstance(key, str) for key in keys) and len(set(keys)) == len(keys)):
        raise CheckpointError(f"{file.path} is damaged: it lacks its list of storages. Get the file again")
    big = isinstance(system, dict) and system.get("little_endian") is False
    at = stream.tell()
    storages: dict[str, _Storage] = {}
    for key in keys:
        if key not in reader.storages:
            raise CheckpointError(f"{file.path} is damaged: a storage belongs to no tensor. Get the file again")
        count = int.from_bytes(file.read(at, 8), "big" if big else "little", signed=True)
        size = count * reader.storages[key].itemsize
        if count < 0 or size > file.size - at - 8:
            raise CheckpointError(f"{file.path} is damaged: a storage claims {count} elements. Get the file again")
        storages[key] = _Storage(at + 8, size, None)
        at += 8 + size
    places = _places(file, reader.tensors, storages, big)
    return loaded, places, [tensor for tensor, _ in reader.tensors]


def _places(
    file: StoredFile, tensors: list[tuple[Tensor, View | str]], storages: dict[str, _Storage], big: bool
) -> Places:
    """The place of each tensor; CheckpointError if a storage has another size than the pickle says."""
    places: Places = {}
    for tensor, view in tensors:
        if isinstance(view, str):
            places[id(tensor)] = view
            continue
        storage = storages.get(view.storage.key)
        if storage is None:
            raise CheckpointError(f"{file.path} is damaged: it lacks the values of a tensor. Get the file again")
        claimed = view.storage.total * view.storage.itemsize
        if claimed != storage.size:
            raise CheckpointError(
                f"{file.path} is damaged: a tensor claims {claimed} bytes, and {storage.size} are stored. Get the file "
                "again"
            )
        places[id(tensor)] = Place(
            file,
            storage.start,
            storage.size,
            view.storage.begin * view.storage.itemsize + view.offset * view.dtype.itemsize,
            view.dtype,
            view.shape,
            view.stride,
            storage.crc,
            big != (sys.byteorder == "big"),
        )
    return places
