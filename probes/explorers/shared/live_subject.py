"""An image that a model runs on now.

A live subject keeps nothing itself. What it computes is an entry of a moment (see `moments`), which subjects of the
same model and image share and which may be dropped at any time. Ask for it each time, and keep no reference.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

import dpt
from dpt.image import Size, as_image, network_size, plain_size, silent_about_nan
from dpt.points import points

from ...capture import capture
from ...captured import Capture
from ...errors import UnavailableError
from . import moments
from .copied import Code, path_of, subject_code
from .moments import Moment, State
from .progress import Status
from .speed import pass_seconds
from .subject import ImageLike, Kept, Subject
from .summary import model_words, name_of
from .turns import model_lock

ALONG = 2**30
"""Bytes of tensors that one pass captures at most for other explorers of the same image, which then need no pass."""

GROUPS = ("attention", "norms", "tokens")
"""The probe points of blocks that explorers show."""

MAPS = tuple(f"reassembly.{stage}" for stage in range(4))
"""The probe points that a `FusionReplay` starts from."""


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
            if self.fits(group):
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
            return other if self.fits("tokens") else []
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


def _changed() -> UnavailableError:
    return UnavailableError(
        "The model's weights have changed since this explorer first ran the model, so another pass would mix old and "
        "new values. Run the cell that makes the explorer again."
    )
