"""Notices when a file changes from which a model was mapped (`dpt.load(..., mmap=True)`).

A mapped weight is read from the file when it is used. Writing to the file therefore changes the model, and truncating
it kills the process (SIGBUS). Nothing can prevent that. This module compares the file's size and times with those at
loading: before and after each part of the model runs, when its state dict is taken, before its weights are converted or
moved, and when it is copied or pickled.
The comparison costs about a microsecond per file. A model that owns its memory is not touched.

A write and the comparison may fall into the same tick of the file system's clock (a few milliseconds), and a file may
change and be truncated while a layer runs. Both go unnoticed until the next comparison.
"""

from __future__ import annotations

import mmap
import weakref
import zlib
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UnavailableError
from .errors import CheckpointError
from .stored import Place, StoredFile


class ChangedFileError(UnavailableError):
    """A file from which a model is mapped was changed."""


class Mapped:
    """Memory maps of checkpoint files, one per file."""

    def __init__(self) -> None:
        self.maps: dict[StoredFile, mmap.mmap] = {}

    def tensor(self, place: Place, dtype: torch.dtype) -> Tensor | None:
        """The values of a place as a view of the map; None if they must be converted or copied."""
        at = place.start + place.offset
        if dtype != place.dtype or not place.contiguous or place.swapped or at % dtype.itemsize or not place.span:
            return None
        if place.file not in self.maps:
            self.maps[place.file] = place.file.map()
        # One storage per tensor: torch.save and safetensors would store, or refuse, a shared one as a whole.
        flat = torch.frombuffer(self.maps[place.file], dtype=dtype, count=place.span // dtype.itemsize, offset=at)
        return flat.view(place.shape)

    def watch(self, model: nn.Module) -> None:
        """Notices changes of the mapped files from now on. The files stay open as long as the model exists."""
        starts = [torch.frombuffer(found, dtype=torch.uint8).data_ptr() for found in self.maps.values()]
        ranges = [(start, start + file.size) for start, file in zip(starts, self.maps, strict=True)]
        Guard([file.duplicate() for file in self.maps], ranges).attach(model)


class Guard:
    """The mapped files of a model, kept open. It is called as a hook before and after the parts of the model."""

    before_conversion = True  # DPT._apply calls it

    def __init__(self, files: list[StoredFile], ranges: list[tuple[int, int]]):
        """Takes over open files.

        Args:
            files: Files whose maps the model uses.
            ranges: First and last address of each map.
        """
        self._files = files
        self._ranges = ranges
        self._sums = [_checksum(file) for file in files]
        self._model: weakref.ref[nn.Module] | None = None

    def attach(self, model: nn.Module) -> None:
        """Compares the files whenever the model, or a part of it, is called or copied."""
        self._model = weakref.ref(model)
        for part in (model, *model.children()):
            part.register_forward_pre_hook(self)
            part.register_forward_hook(self)
        model.register_state_dict_pre_hook(self)

    def __call__(self, module: nn.Module, *arguments: Any) -> None:
        if torch.compiler.is_compiling():
            return
        for file, expected in zip(self._files, self._sums, strict=True):
            change = file.changes()
            if change == "attributes" and _checksum(file) == expected:  # renamed, or its permissions changed
                file.accept()
            elif change and any(self._is_mapped(tensor) for tensor in (*module.parameters(), *module.buffers())):
                raise ChangedFileError(
                    f"{file.path} was changed while a model uses it in place (mmap=True), so the model's weights are "
                    "no longer those that were loaded. Load it again, without mmap=True if the file is written to"
                )

    def _is_mapped(self, tensor: Tensor) -> bool:
        return tensor.device.type == "cpu" and any(a <= tensor.data_ptr() < b for a, b in self._ranges)

    def __reduce__(self) -> tuple[type[Guard], tuple[list[StoredFile], list[tuple[int, int]]]]:
        model = self._model() if self._model else None
        if model is not None:
            self(model)
        return Guard, ([], [])  # a copy of the model owns its memory

    def __del__(self) -> None:
        for file in self._files:
            file.close()


def _checksum(file: StoredFile) -> int:
    """crc32 of the whole file; -1 if it is shorter than it was."""
    crc = 0
    try:
        for piece in file.pieces():
            crc = zlib.crc32(piece, crc)
    except CheckpointError:
        return -1
    return crc
