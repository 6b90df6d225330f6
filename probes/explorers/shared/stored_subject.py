"""An image that a run has stored, and what it holds of it. No model runs."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dpt.image import as_image

from ...captured import NotCaptured
from ...errors import InvalidValueError
from ...runs.stored import StoredCapture
from .copied import Code
from .progress import Status
from .subject import ImageLike, Subject


class Stored(Subject):
    """What a run has stored of an image.

    Args:
        stored: One image of a run, e.g. ``run["photo.jpg"]``.
        image: The captured image. By default it is read from its file or from the run.

    Raises:
        dpt.ImageError: The image is not usable.
        InvalidValueError: The image has another size than the captured one.
        StoreError: The image is neither given nor readable from its file or the run.
    """

    def __init__(self, stored: StoredCapture, image: ImageLike | None = None):
        self.stored, self.config, self.grid = stored, stored.config, stored.grid
        self.name = stored.name
        self.size, self.keep_aspect, self.input_size = stored.size, stored.keep_aspect, stored.input_size
        self.image = stored.image() if image is None else as_image(image)
        height, width = self.image.shape[:2]
        own = stored.record.size
        if (height, width) not in (own, self.input_size):
            raise InvalidValueError(
                f"the image is {height} x {width} pixels, but {stored.name} was captured as {own[0]} x {own[1]}. Pass "
                "the captured image, or leave the argument out"
            )
        self.opened = f"probes.open_run({os.path.abspath(stored.root)!r})[{stored.name!r}]"
        self._size_argument = "" if (height, width) == own else f"size={(height, width)}"
        self.itemsize = max(4, getattr(torch, stored.dtype).itemsize)
        self._read: dict[str, StoredCapture] = {}  # by group; values are read when they are asked for

    @property
    def code(self) -> Code:
        return Code(setup=[], model="", image="")

    @property
    def call(self) -> str:
        return f"{self.opened}.depth({self._size_argument})"

    @property
    def owner(self) -> object:
        return self

    def blocks(self, *groups: str) -> list[int]:
        every = range(self.config.depth)
        return [b for b in every if any(f"encoder.blocks.{b}.{group}" in self.stored for group in groups)]

    def absent(self, group: str) -> str:
        if group == "depth":
            if "depth" in self.stored:
                return ""
            held = "no depth"
        else:
            blocks = self.blocks(group)
            if len(blocks) == self.config.depth:
                return ""
            listed = ", ".join(map(str, blocks))
            held = f"{group} of block{'s' * (len(blocks) > 1)} {listed} only" if blocks else f"no {group}"
        return (
            f'the run {self.stored.root} holds {held}. Capture into another folder with the selector "{group}" to '
            "have it"
        )

    def captured(self, group: str, block: int, status: Status) -> Any:
        name = f"encoder.blocks.{block}.{group}"
        if name not in self.stored:
            raise NotCaptured(f"{name} is not stored: {self.absent(group)}")
        if group not in self._read or name not in self._read[group]:
            every = self.fits(group)
            self._read.pop(group, None)  # frees the previous block
            self._read[group] = self.stored.only(*(self.names(group) if every else [name]))
        return self._read[group][name]

    def held(self) -> list[str]:
        return [name for captured in self._read.values() for name in captured]

    def release(self) -> None:
        self._read = {}

    def depth(self, status: Status) -> NDArray[np.float32]:
        if missing := self.absent("depth"):
            raise NotCaptured(missing)
        return self.stored.depth(self.image.shape[:2])

    def biased(self, block: int) -> bool:
        return self.stored.has_bias(f"encoder.blocks.{block}.attention")
