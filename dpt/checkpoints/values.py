"""Reads the values of a checkpoint into memory of the model's own.

Problem. A tensor that is mapped from a file changes, or kills the process, when somebody writes to the file. Reading a
file as a whole and converting it afterwards takes twice the memory.

Approach. Each parameter is allocated in its final dtype and filled from the file piece by piece. A piece is small
enough to stay in the processor's cache while it is checked for NaN, added to the checksums and converted, so the file
is read once, and memory holds the weights and one piece. Query, key and value of a block are read into the thirds of
one parameter.

With `Mapped`, contiguous values of the requested dtype are used in place. They are checked the same way.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import torch
from torch import Tensor

from .contents import Contents
from .errors import CheckpointError, first_few
from .mapped import Mapped
from .stored import Place, StoredFile

PIECE = 1 << 20  # bytes

Bytes = Callable[[memoryview], None]


def _ignore(data: memoryview) -> None:
    """For formats without a checksum of ours."""


class Values:
    """Reads values, and checks them while it reads."""

    def __init__(self, contents: Contents, mapped: Mapped | None = None):
        """Creates a reader.

        Args:
            contents: The contents of open files, or of a state dict.
            mapped: Uses values in place where possible. None reads all of them into memory.
        """
        self._contents = contents
        self._mapped = mapped
        self._buffer = torch.empty(PIECE, dtype=torch.uint8, device="cpu")
        self._compared: set[tuple[StoredFile, int]] = set()

    def read(
        self, keys: tuple[str, ...], dtype: torch.dtype | None, device: torch.device, seen: Bytes = _ignore
    ) -> Tensor:
        """Reads one parameter.

        Args:
            keys: Keys of the tensors that it consists of, joined along the first axis.
            dtype: Its dtype. None keeps the stored one.
            device: Where it goes.
            seen: Called with the stored bytes, in order. Not called for a state dict.

        Returns:
            The values. Those of a state dict that already has this dtype and device share its memory.

        Raises:
            CheckpointError: The file ends early, or a checksum does not match.
            NotFiniteError: A value is NaN or infinite.
        """
        if not self._contents.places:
            return self._from_memory(keys, dtype, device)
        places = [self._contents.places[key] for key in keys]
        dtype = dtype or places[0].dtype
        if self._mapped and len(places) == 1 and device.type == "cpu":
            tensor = self._mapped.tensor(places[0], dtype)
            if tensor is not None:
                self._check(keys[0], places[0], seen)
                return tensor
        first = places[0].shape
        shape = (len(places) * first[0], *first[1:]) if len(places) > 1 else first
        target = torch.empty(shape, dtype=dtype, device="cpu")
        for key, place, part in zip(keys, places, target.chunk(len(places)) if first else [target], strict=True):
            self._fill(key, place, part, seen)
        return target.to(device)

    def _from_memory(self, keys: tuple[str, ...], dtype: torch.dtype | None, device: torch.device) -> Tensor:
        # Detached: the state dict may share its tensors with another model, whose parameters must not be frozen.
        tensors = [self._contents.tensors[key].detach() for key in keys]
        for key, tensor in zip(keys, tensors, strict=True):
            if tensor.is_meta:
                raise CheckpointError(f"{self._contents.name} holds shapes without values: {key} is on the meta device")
            self._check_finite(key, tensor)
        joined = tensors[0] if len(tensors) == 1 else torch.cat(tensors)
        return joined.to(device, dtype or joined.dtype)

    def _check(self, key: str, place: Place, seen: Bytes) -> None:
        """Checks the values of a contiguous place. They are not read from the map: truncating it kills the process."""
        crc = 0
        for at in range(0, place.span, PIECE):
            piece = self._buffer[: min(PIECE, place.span - at)]
            data = piece.numpy().data
            place.file.read_into(place.start + place.offset + at, data)
            crc = self._crc(place, data, crc)
            seen(data)
            self._check_finite(key, piece.view(place.dtype))
        self._compare(key, place, crc)

    def _fill(self, key: str, place: Place, target: Tensor, seen: Bytes) -> None:
        """Reads the values of a place into a contiguous tensor of the same shape."""
        if not place.contiguous:
            self._fill_strided(key, place, target, seen)
            return
        flat = target.view(-1)
        in_place = target.dtype == place.dtype and not place.swapped
        count = PIECE // place.dtype.itemsize
        crc = 0
        for at in range(0, len(flat), count):
            part = flat[at : at + count]
            size = len(part) * place.dtype.itemsize
            data = part.view(torch.uint8) if in_place else self._buffer[:size]
            view = data.numpy().data
            place.file.read_into(place.start + place.offset + at * place.dtype.itemsize, view)
            crc = self._crc(place, view, crc)
            seen(view)
            piece = (_swapped(data, place.dtype) if place.swapped else data).view(place.dtype)
            self._check_finite(key, piece)
            if not in_place:
                part.copy_(piece)
        self._compare(key, place, crc)

    def _fill_strided(self, key: str, place: Place, target: Tensor, seen: Bytes) -> None:
        data = torch.empty(place.span, dtype=torch.uint8, device="cpu")
        view = data.numpy().data
        place.file.read_into(place.start + place.offset, view)
        crc = self._crc(place, view, 0)
        seen(view)
        piece = (_swapped(data, place.dtype) if place.swapped else data).view(place.dtype)
        values = piece.as_strided(place.shape, place.stride)
        self._check_finite(key, values)
        target.copy_(values)
        self._compare(key, place, crc)

    def _check_finite(self, key: str, values: Tensor) -> None:
        # The smallest and largest value are NaN or infinite if any value is. Finding them takes no memory.
        if values.numel() and not all(bound.isfinite() for bound in torch.aminmax(values)):
            raise NotFiniteError(key)

    def _crc(self, place: Place, data: memoryview, crc: int) -> int:
        return zlib.crc32(data, crc) if place.crc is not None and place.fills_storage else crc

    def _compare(self, key: str, place: Place, crc: int) -> None:
        """Compares the checksum of a storage. One that several tensors share is read once more, as a whole."""
        if place.crc is None:
            return
        if not place.fills_storage:
            if (place.file, place.start) in self._compared:
                return
            self._compared.add((place.file, place.start))
            crc = 0
            view = self._buffer.numpy().data
            for at in range(0, place.size, PIECE):
                data = view[: min(PIECE, place.size - at)]
                place.file.read_into(place.start + at, data)
                crc = zlib.crc32(data, crc)
        if crc != place.crc:
            raise CheckpointError(
                f"{place.file.path} is damaged: the checksum of {first_few([key])} does not match. Get the file again"
            )


class NotFiniteError(CheckpointError):
    """Weights that contain NaN or infinity."""


def _swapped(data: Tensor, dtype: torch.dtype) -> Tensor:
    """The bytes of numbers in the other byte order."""
    return data.view(-1, dtype.itemsize).flip(1).reshape(-1)
