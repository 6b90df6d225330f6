"""One image of a stored run as a `Capture`, whose values are read when they are asked for."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dpt import Config, TokenGrid
from dpt.attention import OffsetBias
from dpt.errors import ImageError
from dpt.image import restore
from dpt.opening import open_file
from dpt.printable import printable

from ..actions import Edit
from ..attention import AttentionMaps
from ..captured import Capture, Setting
from ..errors import InvalidValueError
from .decode_worker import file_sha256, pixels_sha256, read_once
from .errors import Damaged, UnavailableImageError
from .part_reader import PartReader
from .recording import BIAS_PARTS
from .records import ArrayAttributes, CaptureRecord, to_json
from .store import RESTORE, SETTINGS
from .video import VideoError, frame

LARGEST_IMAGE = 2**28  # pixels, 1 GiB of depth
Value = Tensor | AttentionMaps


class _Values(Mapping[str, Any]):  # Value, but beartype would check the type of a value, and so read it
    """The values of a stored capture. Each is read when it is first asked for, then kept."""

    def __init__(self, part: PartReader, grid: str, row: int, points: Sequence[str], arrays: set[str]):
        self._part, self._grid, self._row, self._points, self._arrays = part, grid, row, points, arrays
        self.read: dict[str, Value] = {}

    def __getitem__(self, name: str) -> Value:
        if name not in self._points:
            raise KeyError(name)
        if name not in self.read:
            self.read[name] = self._attention(name) if f"{name}.q" in self._arrays else self._tensor(name)
        return self.read[name]

    def __contains__(self, name: object) -> bool:  # Mapping would read the value
        return name in self._points

    def __iter__(self) -> Iterator[str]:
        return iter(self._points)

    def __len__(self) -> int:
        return len(self._points)

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)

    def grid(self, name: str) -> TokenGrid:
        """How the tokens of a point lie on the image."""
        about = self._about(name)
        if about.grid is None:
            raise self._part.damage(f"{self._grid}/{name} states no grid")
        return about.grid

    def _about(self, name: str) -> ArrayAttributes:
        return self._part.attributes(self._grid, f"{name}.q" if f"{name}.q" in self._arrays else name)

    def _tensor(self, name: str) -> Tensor:
        return torch.from_numpy(self._part.read(self._grid, name, slice(self._row, self._row + 1)))

    def _attention(self, name: str) -> AttentionMaps:
        scale = self._about(name).scale
        if scale is None:
            raise self._part.damage(f"{self._grid}/{name}.q states no scale")
        q, k = (torch.from_numpy(self._part.read(self._grid, f"{name}.{part}", self._row)) for part in "qk")
        bias: dict[str, Tensor | None] = dict.fromkeys(BIAS_PARTS)
        for part in BIAS_PARTS:
            if f"{name}.bias.{part}" in self._arrays:
                bias[part] = torch.from_numpy(self._part.read(self._grid, f"{name}.bias.{part}"))
        offsets = OffsetBias(bias["table"], bias["prefix"], bias["bands"]) if bias["table"] is not None else None
        return AttentionMaps(q, k, scale, self.grid(name), offsets, name)


def _edits(root: Path, capture: CaptureRecord) -> Iterator[tuple[str, Edit]]:
    for point, edit in capture.edits:
        try:
            yield point, Edit.from_json(to_json(edit))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Damaged.of_file(root / SETTINGS, f"the edit of {point} is not valid: {error}", RESTORE) from error


class StoredCapture(Capture):
    """A captured image of a run: a `Capture` of batch size 1. `run[name]` creates it.

    Attributes:
        name: Of the image.
        record: The image's record: size, file, SHA-256.
        config: Of the model.
        root: Folder of the run.
        dtype: Of the stored values, or of the model.
        size, keep_aspect: Of the model's input, as given to `probes.run`.
    """

    _values: _Values  # type: ignore[assignment]  # read-only: a stored capture records nothing

    def __init__(self, name: str, part: PartReader, capture: CaptureRecord, config: Config):
        super().__init__(list(capture.points))
        record = part.image(name)
        group = part.group(record.grid)
        self.name, self.record, self.config, self.root = name, record, config, part.root
        self.dtype: str = capture.dtype or capture.model.dtype
        self.size, self.keep_aspect = capture.size, capture.keep_aspect
        self._part, self._arrays = part, part.arrays(record.grid)
        self._values = self._read_lazily(self._wanted)
        self._edits = list(_edits(part.root, capture))
        self._setting = Setting(group.grid, group.input_size, 1)
        self._finished = True

    def _read_lazily(self, points: list[str]) -> _Values:
        return _Values(self._part, self.record.grid, self.record.row, points, self._arrays)

    def grid_of(self, name: str) -> TokenGrid:
        """How the tokens of one captured point lie on the image. Reads no values."""
        self._check_captured(name)
        return self._values.grid(name)

    def _check_captured(self, name: str) -> None:
        if name not in self._wanted:
            self[name]  # raises NotCaptured

    @property
    def nbytes(self) -> int:
        """Bytes of memory of the values read so far."""
        total = 0
        for value in self._values.read.values():
            tensors = (value.q, value.k) if isinstance(value, AttentionMaps) else (value,)
            total += sum(tensor.nbytes for tensor in tensors)
        return total

    def only(self, *names: str) -> StoredCapture:
        """The same image with some of the points. None of their values is read yet.

        Raises:
            NotCaptured: A point is not stored.
        """
        for name in names:
            self._check_captured(name)
        other = copy.copy(self)
        other._wanted = list(names)
        other._values = self._read_lazily(other._wanted)
        return other

    def has_bias(self, name: str) -> bool:
        """Whether the attention at a point adds a bias. Reads no values."""
        return f"{name}.bias.table" in self._arrays

    def depth(self, size: tuple[int, int] | None = None) -> NDArray[np.float32]:
        """The depth as `model.predict` returns it, resized from the stored output.

        Args:
            size: (height, width) of the result in pixels. Default: the image's.

        Returns:
            (H, W) float32.

        Raises:
            NotCaptured: The run does not hold "depth".
            InvalidValueError: The image has so many pixels that `size` must be given.
        """
        height, width = size or self.record.size
        if size is None and height * width > LARGEST_IMAGE:
            raise InvalidValueError(
                f"{self.name} has {height} x {width} pixels according to the run. Give the size of the result, e.g. "
                f"depth(size={self.input_size})"
            )
        values = restore(self["depth"], size or self.record.size, self.config.preprocess)
        return values[0].numpy()

    def image(self) -> NDArray[np.uint8]:
        """The image, (H, W, 3) uint8: from its file if unchanged, else at the input's size if the run stores it.

        Raises:
            UnavailableImageError: Neither is available. The message says how to pass the image.
        """
        try:
            return self._from_file()
        except UnavailableImageError:
            if "picture" not in self._arrays:
                raise
            return self._part.read(self.record.grid, "picture", self.record.row)

    def _from_file(self) -> NDArray[np.uint8]:
        source = self.record.source
        if source is None:
            raise self._unavailable(f"{self.name} was given as an array and is not stored")
        where = printable(source, 1000)
        if not os.path.isabs(source) or "\0" in source:
            raise self._unavailable(f"{self.name} was captured from {where}, which is not an absolute path")
        if not os.path.exists(source):
            raise self._unavailable(f"{self.name} is no longer at {where}")
        try:
            pixels, digest = self._read_source(source)
        except (VideoError, ImageError) as error:
            raise self._unavailable(str(error)) from error
        except OSError as error:
            said = f"cannot read {where}, from which {self.name} was captured: {error.strerror or error}"
            raise self._unavailable(said) from error
        if digest != self.record.sha256:
            raise self._unavailable(f"{where} has changed since {self.name} was captured")
        return pixels

    def _read_source(self, source: str) -> tuple[NDArray[np.uint8], str]:
        """(pixels, SHA-256) of the same bytes, from a regular file."""
        if self.record.frame is None:
            if file_sha256(source) != self.record.sha256:  # bytes that were not captured are not decoded
                raise self._unavailable(f"{printable(source, 1000)} has changed since {self.name} was captured")
            reading, digest, _ = read_once(source)
            return reading.pixels, digest
        open_file(source).close()  # not a pipe or a device
        pixels = frame(source, self.record.frame)
        return pixels, pixels_sha256(pixels)

    def _unavailable(self, reason: str) -> UnavailableImageError:
        advice = f"Pass the image, e.g. AttentionExplorer(run[{self.name!r}], image), or capture with keep_images=True"
        return UnavailableImageError(f"{reason}. {advice}", self.name)

    def __repr__(self) -> str:
        lines = [f"Stored capture of {self.name}, {self.input_size[0]} x {self.input_size[1]} pixels:"]
        return "\n".join([*lines, *(f"  {name}" for name in self._wanted)])
