"""The subject of an explorer: an image that a model runs on now, or one that a run has stored.

    subject_of(model, image)                 # Live: every request runs the model if it must
    subject_of(run["photo.jpg"])             # Stored: everything is read from the run, without a model

Explorers ask a subject for captures and for the depth, and treat both kinds alike. `blocks` and `absent` say what is
available: a run holds only the probe points it was asked to keep, and explorers disable controls for the others.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import dpt
from dpt.image import PlainSize, Size, as_image, network_size, plain_size, silent_about_nan
from dpt.kept import Checksums
from dpt.modules import tensors_of
from dpt.reading import Source

from ...capture import capture
from ...captured import Capture, NotCaptured
from ...errors import InvalidTypeError, InvalidValueError, UnavailableError
from ...runs.stored import Run, StoredCapture
from .copied import Code, call_code, path_of, subject_code
from .progress import Status
from .speed import pass_seconds
from .summary import model_words, name_of

ImageLike: TypeAlias = "Source | np.ndarray | Tensor"
"""An (H, W, 3) uint8 array, or anything `dpt.read_image` takes. Tensors are refused with advice."""

MEMORY_BUDGET = 2 * 2**30
"""Bytes of captured tensors that an explorer keeps. Above it, the explorer keeps one block and runs a pass each."""


class Subject(ABC):
    """An image and what a model computes from it. Callers hold the lock of `owner`.

    Attributes:
        config: The model's configuration.
        image: (H, W, 3) uint8.
        name: The name of the image's file, or None if it was given as an array.
        size: The requested input size, or None for the model's own.
        keep_aspect: Whether the input keeps the image's aspect ratio.
        input_size: (height, width) of the model's input in pixels.
        grid: The token grid of that input.
        itemsize: Upper bound of the bytes per number in a capture.
        opened: Python code that opens the stored image, or None for a live subject.
    """

    config: dpt.Config
    image: NDArray[np.uint8]
    name: str | None
    size: PlainSize
    keep_aspect: bool
    input_size: tuple[int, int]
    grid: dpt.TokenGrid
    itemsize: int
    opened: str | None

    @property
    @abstractmethod
    def code(self) -> Code:
        """How copied Python gets the model and the image."""

    @property
    def call(self) -> str:
        """Python code that computes the depth."""
        return call_code(self.code, self.size, self.keep_aspect)

    @property
    @abstractmethod
    def owner(self) -> object:
        """The object that two explorers must not use at the same time."""

    @abstractmethod
    def blocks(self, *groups: str) -> list[int]:
        """Numbers of the blocks that have a point of at least one of these groups."""

    @abstractmethod
    def absent(self, group: str) -> str:
        """Says why points of a group are missing, and what to do. Returns "" if none is missing."""

    @abstractmethod
    def capture(self, *names: str, status: Status, until: str | None = None) -> Capture:
        """Captures probe points.

        Args:
            *names: Full names of the points.
            status: Shows progress.
            until: The last of the points. A pass ends there unless the depth is still needed.

        Raises:
            NotCaptured: The run does not hold a point.
        """

    @abstractmethod
    def depth(self, status: Status) -> NDArray[np.float32]:
        """The predicted depth, (H, W), at the size of `image`.

        Raises:
            NotCaptured: The run does not hold the depth.
        """

    @abstractmethod
    def biased(self, block: int) -> bool:
        """Whether the attention of a block adds a position bias."""

    @property
    def model_words(self) -> str:
        """The model in words."""
        return model_words(None, self.config)

    def seconds(self) -> float:
        """About how long a capture takes."""
        return 0.0

    def forget(self) -> None:  # noqa: B027 # most subjects keep nothing
        """Frees what can be computed again."""

    def names(self, group: str) -> list[str]:
        """Full names of a group's points in all blocks that have them."""
        return [f"encoder.blocks.{block}.{group}" for block in self.blocks(group)]


class Live(Subject):
    """A model and an image, at one moment of the model.

    The depth and what a first pass captured are kept. A later pass of a model whose weights have changed is refused:
    its values do not belong to those that are shown.

    Raises:
        dpt.ImageError: The image is not usable. The message says how to convert it.
        dpt.DPTError: The model cannot take an input of this size.
    """

    opened = None

    def __init__(
        self,
        model: dpt.DPT,
        image: ImageLike | None,
        size: Size = None,
        keep_aspect: bool = True,
        name: str | None = None,
    ):
        self.model, self.config, self.name = model, model.config, name or name_of(image)
        self.image = as_image(image)  # type: ignore[arg-type]  # None gets the ImageError of other wrong values
        size = plain_size(size)
        self.size, self.keep_aspect = size, keep_aspect
        height, width = self.image.shape[:2]
        self.input_size = network_size(height, width, model.config.preprocess, size, keep_aspect)
        self.grid = model.token_grid(*self.input_size)
        self.path = path_of(image)
        self._depth: NDArray[np.float32] | None = None
        self._weights: Checksums | None = None

    @property
    def code(self) -> Code:
        return subject_code(self.model, self.image, self.path)

    @property
    def owner(self) -> object:
        return self.model

    @property
    def model_words(self) -> str:
        return model_words(self.model, self.config)

    @property
    def itemsize(self) -> int:  # type: ignore[override]
        return self.model.dtype.itemsize

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

    def forget(self) -> None:
        self._depth = self._weights = None

    def _predict(self, status: Status) -> None:
        self._check_weights()
        height, width = self.input_size
        status(f"Running the model on the image ({width} × {height} pixels)")
        with silent_about_nan():  # finite_depth says it where the depth is shown
            self._depth = self.model.predict(self.image, self.size, self.keep_aspect)

    def seconds(self) -> float:
        return pass_seconds(self.model, self.grid)

    def _check_weights(self) -> None:
        tensors = list(tensors_of(self.model))
        if any(tensor.is_meta for tensor in tensors):
            return  # offloaded weights hold no data to read
        if self._weights is None:
            self._weights = Checksums(tensors)
        elif not self._weights.same(tensors):
            raise UnavailableError(
                "The model's weights have changed since this explorer first ran the model, so another pass would mix "
                "old and new values. Run the cell that makes the explorer again."
            )

    def biased(self, block: int) -> bool:
        # BEiT and SwinV2 compute their biases in a submodule `positions`.
        return hasattr(self.model.encoder.blocks[block].attention, "positions")


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


def finite_depth(subject: Subject, status: Status) -> NDArray[np.float32]:
    """The depth for a view, which could not draw NaN or infinity.

    Raises:
        InvalidValueError: The depth contains NaN or infinity.
        NotCaptured: The run does not hold the depth.
    """
    depth = subject.depth(status)
    if not np.isfinite(depth).all():
        bad = depth.size - int(np.isfinite(depth).sum())
        raise InvalidValueError(
            f"the depth map contains NaN or infinity in {bad:,} of {depth.size:,} pixels. If the model computes in "
            "half precision, use model.float()"
        )
    return depth


def subject_of(source: object, image: ImageLike | None, size: Size, keep_aspect: bool) -> Subject:
    """The subject that an explorer's arguments describe.

    Args:
        source: A model, one image of a run, or the subject of another explorer, which both then share.
        image: The image to run the model on. For a run, only needed if the image's file is gone.
        size: Input size, for a model only.
        keep_aspect: Whether the input keeps the aspect ratio, for a model only.

    Raises:
        InvalidTypeError: `source` is something else, or a size was given for an image of a run.
    """
    if isinstance(source, Subject):
        return source
    if not isinstance(source, StoredCapture):
        return Live(checked_model(source), image, size, keep_aspect)
    if size is not None or not keep_aspect:
        raise InvalidTypeError(
            f"{source.name} was captured as {source.input_size[0]} x {source.input_size[1]} pixels. size and "
            "keep_aspect apply to a model only. Leave them out"
        )
    return Stored(source, image)


def checked_model(model: object) -> dpt.DPT:
    """Returns the model, or raises an InvalidTypeError that says how to get one."""
    if isinstance(model, dpt.DPT):
        return model
    hint = ""
    if isinstance(model, StoredCapture):
        hint = (
            ". This explorer runs the model, and a run does not contain one. Load the captured model with dpt.load; "
            f"the image is run[{model.name!r}].image()"
        )
    elif isinstance(model, Run):
        hint = '. Choose an image of the run: run["photo.jpg"]. list(run) returns their names'
    elif isinstance(model, Capture):
        hint = '. A capture does not contain the image. A run contains both: probes.open_run("run/")["photo.jpg"]'
    elif isinstance(model, str) or hasattr(model, "__fspath__"):
        hint = f". Load it first: dpt.load({str(model)!r})"
    raise InvalidTypeError(f"model must be a DPT model from dpt.load, got {type(model).__name__}{hint}")
