"""The subject of an explorer: an image, and what a model computes from it.

    Live(model, image)            # `live_subject`: every request runs the model if it must
    Stored(run["photo.jpg"])      # `stored_subject`: everything is read from the run, without a model

Explorers ask a subject for captures and for the depth, and treat both kinds alike. `blocks` and `absent` say what is
available: a run holds only the probe points it was asked to keep, and explorers disable controls for the others.

    subject.captured("attention", block, status)     # the value of a point
    subject.kept("walk", make, bytes_of)             # anything else that follows from the model and the image
    subject.release()                                # no view is left: frees everything that can be computed again
    subject.forget()                                 # the same, and starts over at another moment of the model
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

import dpt
from dpt.image import PlainSize
from dpt.reading import Source

from ...errors import InvalidValueError
from .copied import Code, call_code
from .moments import BUDGET
from .progress import Status
from .summary import model_words

ImageLike: TypeAlias = "Source | np.ndarray | Tensor"
"""An (H, W, 3) uint8 array, or anything `dpt.read_image` takes. Tensors are refused with advice."""

MEMORY_BUDGET = BUDGET
"""Bytes of captured tensors that a subject keeps of a group. Above it, it keeps one block and runs a pass each."""

Kept = TypeVar("Kept")


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
    def advice(self) -> str:
        """One line below the view about what the model is not made for, or ""."""
        return ""

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
    def captured(self, group: str, block: int, status: Status) -> Any:
        """The captured value of a block's point.

        One pass captures the group in all blocks, if it fits into `MEMORY_BUDGET`. Else each block costs a pass, and
        only one is kept.

        Args:
            group: "attention", "norms" or "tokens".
            block: The block's number.
            status: Shows progress.

        Raises:
            NotCaptured: The run does not hold the point.
        """

    @abstractmethod
    def held(self) -> list[str]:
        """Full names of the points whose values are in memory."""

    def kept(self, name: str, make: Callable[[], Kept], bytes_of: Callable[[Kept], int]) -> Kept:
        """What `make` returns, from memory if it is kept.

        Args:
            name: What it is.
            make: Computes it from the model and the image.
            bytes_of: The memory that it takes.
        """
        return make()

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

    def another(self) -> Subject:
        """The same subject, for another explorer: releasing one does not release the other."""
        return self

    def same(self, other: Subject) -> bool:
        """Whether another subject is the same model and image, or the same stored image."""
        return self is other

    def adopt(self) -> None:  # noqa: B027 # only live subjects compute something
        """Holds what other subjects have computed from the same image, for the case that they let go of it now."""

    def release(self) -> None:  # noqa: B027
        """Frees what can be computed again. What is computed later must belong to the same weights."""

    def forget(self) -> None:
        """Frees what can be computed again, and starts over at another moment of the model."""
        self.release()

    def bytes_of(self, group: str) -> int:
        """Bytes of a group in all blocks, an upper bound.

        Queries and keys are views of one storage per block, which holds the values, too.
        """
        numbers = 0
        for block in self.blocks(group):
            tokens = self.config.block_grid(block, self.grid).tokens
            width = {"attention": 3, "tokens": 1, "norms": 0}[group] * self.config.block_width(block)
            numbers += tokens * max(1, width)
        return self.itemsize * numbers

    def fits(self, group: str) -> bool:
        """Whether the group may be in memory in all blocks at once."""
        return self.bytes_of(group) <= MEMORY_BUDGET

    def names(self, group: str) -> list[str]:
        """Full names of a group's points in all blocks that have them."""
        return [f"encoder.blocks.{block}.{group}" for block in self.blocks(group)]


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
