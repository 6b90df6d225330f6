"""The subject of an explorer: an image that a model runs on now, or one that a run has stored.

    subject_of(model, image)                 # Live: every request runs the model if it must
    subject_of(run["photo.jpg"])             # Stored: everything is read from the run, without a model

Explorers ask a subject for captures and for the depth, and treat both kinds alike. `blocks` and `absent` say what is
available: a run holds only the probe points it was asked to keep, and explorers disable controls for the others.

A live subject keeps nothing itself. What it computes is an entry of a moment (see `moments`), which subjects of the
same model and image share and which may be dropped at any time. Ask for it each time, and keep no reference:

    subject.captured("attention", block, status)     # the value of a point, from memory or from a pass
    subject.kept("walk", make, bytes_of)             # anything else that follows from the model and the image
    subject.release()                                # no view is left: frees everything that can be computed again
    subject.forget()                                 # the same, and starts over at another moment of the model
"""

from __future__ import annotations

import copy
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import dpt
from dpt.image import PlainSize, Size, as_image, network_size, plain_size, silent_about_nan
from dpt.points import points
from dpt.reading import Source

from ...capture import capture
from ...captured import Capture, NotCaptured
from ...errors import InvalidTypeError, InvalidValueError, UnavailableError
from ...runs.stored import Run, StoredCapture
from . import moments
from .copied import Code, call_code, path_of, subject_code
from .moments import BUDGET, Moment, State
from .progress import Status
from .speed import pass_seconds
from .summary import model_words, name_of
from .turns import model_lock

ImageLike: TypeAlias = "Source | np.ndarray | Tensor"
"""An (H, W, 3) uint8 array, or anything `dpt.read_image` takes. Tensors are refused with advice."""

MEMORY_BUDGET = BUDGET
"""Bytes of captured tensors that a subject keeps of a group. Above it, it keeps one block and runs a pass each."""

ALONG = 2**30
"""Bytes of tensors that one pass captures at most for other explorers of the same image, which then need no pass."""

GROUPS = ("attention", "norms", "tokens")
"""The probe points of blocks that explorers show."""

MAPS = tuple(f"reassembly.{stage}" for stage in range(4))
"""The probe points that a `FusionReplay` starts from."""

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

    def names(self, group: str) -> list[str]:
        """Full names of a group's points in all blocks that have them."""
        return [f"encoder.blocks.{block}.{group}" for block in self.blocks(group)]


class Live(Subject):
    """A model and an image, at one moment of the model.

    What was computed is kept in a moment, together with other subjects of the same model and image. A later pass of a
    model whose weights have changed is refused: its values do not belong to those that are shown.

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
        self._state: State | None = None  # at the first pass
        self._moment: Moment | None = None
        self._adopted: list[Moment] = []

    @property
    def advice(self) -> str:
        return dpt.demo.advice(self.model, self.image)

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

    def captured(self, group: str, block: int, status: Status) -> Any:
        name = f"encoder.blocks.{block}.{group}"
        with model_lock(self.model):
            if self.bytes_of(group) <= MEMORY_BUDGET:
                return self._captured(self.names(group), status)[name]
            moment = self._now()
            found = moment.captured((name,))
            if found is None:
                moment.pop(f"one block's {group}")  # frees the previous block before the next is computed
                found = self._capture(
                    moment, [name], f"one block's {group}", status, end=moment.get("depth") is not None
                )
            return found[name]

    def maps(self, status: Status) -> tuple[Tensor, ...]:
        """The four reassembled maps, finest first. A pass for them ends there."""
        with model_lock(self.model):
            captured = self._captured(MAPS, status, end=True, what="encoder")
            return tuple(captured[name] for name in MAPS)

    def held(self) -> list[str]:
        moment = self._moment
        return [] if moment is None else [name for captured in moment.captures() for name in captured]

    def depth(self, status: Status) -> NDArray[np.float32]:
        with model_lock(self.model):
            moment = self._now()
            depth: NDArray[np.float32] | None = moment.get("depth")
            return self._predict(moment, status) if depth is None else depth

    def kept(self, name: str, make: Callable[[], Kept], bytes_of: Callable[[Kept], int]) -> Kept:
        with model_lock(self.model):
            moment = self._now()
            found: Kept | None = moment.get(name)
            if found is None:
                self._check(moment)
                found = make()
                moment.put(name, found, bytes_of(found))
            return found

    def drop(self, name: str) -> None:
        """Frees what `kept` keeps by this name, which no other explorer uses."""
        if (moment := self._moment) is not None:
            moment.pop(name)

    def state(self) -> State:
        """The state of the model that everything of this subject belongs to."""
        with model_lock(self.model):
            return self._now().state

    def renew(self) -> None:
        """Starts over at another moment of the model if its weights have changed, or if nobody can tell."""
        with model_lock(self.model):
            state = self._state
            if state is not None and (state.weights is None or not state.same_weights(self.model)):
                self.forget()

    def another(self) -> Live:
        other = copy.copy(self)
        other._adopted = []
        return other

    def same(self, other: Subject) -> bool:
        if not isinstance(other, Live) or self.model is not other.model or self.image is not other.image:
            return False
        return (self.size, self.keep_aspect) == (other.size, other.keep_aspect)

    def adopt(self) -> None:
        if self._moment is None and self._state is None and moments.known(self.model):
            self._adopted = moments.find(self.model, self._picture())

    def release(self) -> None:
        self._moment, self._adopted = None, []

    def forget(self) -> None:
        self.release()
        self._state = None

    def _picture(self) -> moments.Picture:
        return moments.picture_of(self.image, self.input_size)

    def _now(self) -> Moment:
        """The moment that this subject belongs to: the one of another subject, if the model is still in its state."""
        moment = self._moment
        if moment is None:
            picture = self._picture()
            found = (one for one in moments.find(self.model, picture) if one.state.same(self.model))
            moment = next(found, None)
            if moment is None:
                moment = Moment(State(self.model), picture)
                moments.offer(self.model, moment)
            if self._state is not None and not self._state.same_weights(self.model):
                raise _changed()
            self._moment, self._state, self._adopted = moment, moment.state, []
        return moment

    def _check(self, moment: Moment) -> None:
        """Refuses a pass whose values do not belong to those of the moment."""
        if not moment.state.same_weights(self.model):
            raise _changed()

    def _captured(
        self, names: Sequence[str], status: Status, *, end: bool = False, what: str = "model"
    ) -> Mapping[str, Any]:
        """The values of these points, from memory or from a pass, which captures points of other explorers along."""
        moment = self._now()
        found: Mapping[str, Any] | None = moment.captured(tuple(names))
        if found is not None:
            return found
        wanted = [*names, *self._along(moment, names)]
        end = end or moment.get("depth") is not None
        return self._capture(moment, wanted, names[0], status, end=end, what=what)

    def _along(self, moment: Moment, names: Sequence[str]) -> list[str]:
        """Further points that a pass captures, because another explorer of the image will ask for them."""
        if not moment.state.shared:  # nobody else will ask
            pair = self.names("norms"), self.names("tokens")
            other = pair[1] if names[0] in pair[0] else pair[0] if names[0] in pair[1] else []
            return other if self.bytes_of("tokens") <= MEMORY_BUDGET else []
        table = {point.name: point for point in points(self.model)}
        shapes = [table[name].shape(1, self.grid) or () for name in MAPS]
        groups = {group: (self.names(group), self.bytes_of(group)) for group in GROUPS}
        groups["maps"] = list(MAPS), self.itemsize * sum(map(math.prod, shapes))
        chosen: list[str] = []
        room = ALONG
        for others, size in groups.values():
            if others[0] in names or size > room or moment.captured(tuple(others)) is not None:
                continue
            chosen += others
            room -= size
        return chosen

    def _capture(
        self, moment: Moment, names: Sequence[str], entry: str, status: Status, *, end: bool, what: str = "model"
    ) -> Capture:
        """Runs the model and adds the captured values to a moment.

        Args:
            moment: The moment.
            names: Full names of the points.
            entry: The name of the entry.
            status: Shows progress.
            end: Whether the pass ends at the last point. Else it computes the depth, too.
            what: What runs, for the progress.
        """
        last = [point.name for point in points(self.model) if point.name in names][-1] if end else None
        with capture(self.model, *names, stop_after=last) as captured:
            self._predict(moment, status, what)
        moment.put(entry, captured, captured.nbytes)
        return captured

    def _predict(self, moment: Moment, status: Status, what: str = "model") -> NDArray[np.float32]:
        self._check(moment)
        height, width = self.input_size
        status(f"Running the {what} on the image ({width} × {height} pixels)")
        with silent_about_nan():  # finite_depth says it where the depth is shown
            depth: NDArray[np.float32] = self.model.predict(self.image, self.size, self.keep_aspect)
        moment.put("depth", depth, depth.nbytes)
        return depth

    def seconds(self) -> float:
        return pass_seconds(self.model, self.grid)

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
            every = self.bytes_of(group) <= MEMORY_BUDGET
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


def _changed() -> UnavailableError:
    return UnavailableError(
        "The model's weights have changed since this explorer first ran the model, so another pass would mix old and "
        "new values. Run the cell that makes the explorer again."
    )


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
        return source.another()
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
