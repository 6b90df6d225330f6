"""What an explorer looks at: a picture that a model is run on, or what a run has stored of one.

    subject_of(model, image)                 # Live: whatever is asked for comes of a pass
    subject_of(run["photo.jpg"])             # Stored: it is read, with no model; what was not captured is absent

Explorers ask a subject for captures and for the depth, and do not care which of the two it is. They do have to ask what
there is (`blocks`, `absent`): a run holds what it was told to keep, and a control for anything else would be dead.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

import dpt
from dpt.image import as_image, network_size

from ...capture import Capture, NotCaptured, capture
from ...errors import InvalidTypeError, InvalidValueError
from ...runs.stored import Run, StoredCapture

Status: TypeAlias = Callable[[str], None]


class Subject(ABC):
    """A picture, and what a model makes of it. Called under the lock of `owner`.

    image: (H, W, 3) uint8. size, keep_aspect, input_size: of the model's input. grid: how its patches lie.
    call: Python for the depth; opened: Python for what is stored of the picture, or None where a pass gives it.
    itemsize: bytes of one number that `capture` keeps, at most.
    """

    config: dpt.Config
    image: NDArray[np.uint8]
    size: Any
    keep_aspect: bool
    input_size: tuple[int, int]
    grid: dpt.TokenGrid
    itemsize: int
    call: str
    opened: str | None

    @property
    @abstractmethod
    def owner(self) -> object:
        """What two explorers must not use at the same time."""

    @abstractmethod
    def blocks(self, *groups: str) -> list[int]:
        """Blocks of which a point of one of these groups can be had."""

    @abstractmethod
    def absent(self, group: str) -> str:
        """Why points of a group, or some of them, cannot be had, and what to do; "" if all can."""

    @abstractmethod
    def capture(self, *names: str, status: Status, until: str | None = None) -> Capture:
        """These points. until: the last of them, where a pass may end if it is not needed for the depth, too.

        Raises NotCaptured for what cannot be had.
        """

    @abstractmethod
    def depth(self, status: Status) -> NDArray[np.float32]:
        """The depth, (H, W), at the size of `image`."""

    @abstractmethod
    def biased(self, block: int) -> bool:
        """Whether a block's attention adds a bias."""

    def names(self, group: str) -> list[str]:
        return [f"encoder.blocks.{block}.{group}" for block in self.blocks(group)]


class Live(Subject):
    """A model and a picture."""

    opened = None

    def __init__(self, model: dpt.DPT, image: Any, size: Any = None, keep_aspect: bool = True):
        self.model, self.config = model, model.config
        self.image = as_image(image)  # ImageError says what was given and how to mend it
        self.size, self.keep_aspect = size, keep_aspect
        height, width = self.image.shape[:2]
        self.input_size = network_size(height, width, model.config.preprocess, size, keep_aspect)
        self.grid = model.token_grid(*self.input_size)
        more = ["image"]
        if size is not None:
            more.append(f"size={size!r}")
        if not keep_aspect:
            more.append("keep_aspect=False")
        self.call = f"model.predict({', '.join(more)})"
        self._depth: NDArray[np.float32] | None = None

    @property
    def owner(self) -> object:
        return self.model

    @property
    def itemsize(self) -> int:  # type: ignore[override]
        return next(self.model.parameters()).element_size()

    def blocks(self, *groups: str) -> list[int]:
        return list(range(self.config.depth))

    def absent(self, group: str) -> str:
        return ""

    def capture(self, *names: str, status: Status, until: str | None = None) -> Capture:
        with capture(self.model, *names, stop_after=None if self._depth is None else until) as captured:
            self._predict(status)
        return captured

    def depth(self, status: Status) -> NDArray[np.float32]:
        if self._depth is None:
            self._predict(status)
        assert self._depth is not None
        return self._depth

    def _predict(self, status: Status) -> None:
        height, width = self.input_size
        status(f"Running the model on the picture ({width} × {height} pixels)")
        self._depth = self.model.predict(self.image, self.size, self.keep_aspect)

    def biased(self, block: int) -> bool:
        return hasattr(self.model.encoder.blocks[block].attention, "positions")  # what BEiT and SwinV2 make it of


class Stored(Subject):
    """What a run has stored of a picture.

    image: the picture, or anything `dpt.read_image` takes; default: from its file, or as the run kept it.

    Raises dpt.ImageError and ValueError for a picture that is not the one captured, StoreError where none is to be had.
    """

    def __init__(self, stored: StoredCapture, image: Any = None):
        self.stored, self.config, self.grid = stored, stored.config, stored.grid
        self.size, self.keep_aspect, self.input_size = stored.size, stored.keep_aspect, stored.input_size
        self.image = stored.image() if image is None else as_image(image)
        height, width = self.image.shape[:2]
        own = tuple(stored.record["size"])
        if (height, width) not in (own, self.input_size):
            raise InvalidValueError(
                f"the picture is {height} x {width}, but {stored.name} was captured as {own[0]} x {own[1]}; give the "
                "picture that was captured, or leave it out"
            )
        self.opened = f"probes.open_run({str(stored.root)!r})[{stored.name!r}]"
        self.call = f"{self.opened}.depth({'' if (height, width) == own else f'size={(height, width)}'})"
        self.itemsize = max(4, getattr(torch, stored.dtype).itemsize)

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
            f"the run {self.stored.root} holds {held}; to have it, capture into another folder with the selector "
            f'"{group}"'
        )

    def capture(self, *names: str, status: Status, until: str | None = None) -> Capture:
        for name in names:
            if name not in self.stored:
                raise NotCaptured(f"{name} is not stored: {self.absent(name.rpartition('.')[2])}")
        return self.stored.only(*names)

    def depth(self, status: Status) -> NDArray[np.float32]:
        if missing := self.absent("depth"):
            raise NotCaptured(missing)
        return self.stored.depth(self.image.shape[:2])

    def biased(self, block: int) -> bool:
        return self.stored.has_bias(f"encoder.blocks.{block}.attention")


def subject_of(source: Any, image: Any, size: Any, keep_aspect: bool) -> Subject:
    """From what an explorer was given: a model and a picture, or a picture of a run; or another's subject, to share it.

    Raises TypeError for anything else.
    """
    if isinstance(source, Subject):
        return source
    if not isinstance(source, StoredCapture):
        return Live(checked_model(source), image, size, keep_aspect)
    if size is not None or not keep_aspect:
        raise InvalidTypeError(
            f"{source.name} was captured as {source.input_size[0]} x {source.input_size[1]} pixels; size and "
            "keep_aspect are for a model, leave them out"
        )
    return Stored(source, image)


def checked_model(model: Any) -> dpt.DPT:
    """The model, or a TypeError that says how to come by one."""
    if isinstance(model, dpt.DPT):
        return model
    hint = ""
    if isinstance(model, StoredCapture):
        hint = (
            "; this explorer runs the model, and a run holds none: load the one that was captured, with dpt.load; "
            f"the picture is run[{model.name!r}].image()"
        )
    elif isinstance(model, Run):
        hint = '; choose a picture of it: run["photo.jpg"]; list(run) has their names'
    elif isinstance(model, Capture):
        hint = '; a capture alone has no picture: a run keeps both, probes.open_run("run/")["photo.jpg"]'
    elif isinstance(model, str) or hasattr(model, "__fspath__"):
        hint = f"; load it first: dpt.load({str(model)!r})"
    raise InvalidTypeError(f"model must be a DPT model as dpt.load returns it, not {type(model).__name__}{hint}")
