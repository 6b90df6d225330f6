"""The depth explorer: thresholds, levelling, contrast and side-by-side comparison of depth maps.

    explorer = DepthExplorer(model, image)               # shows the widget
    explorer.far, explorer.plane = 0.2, True             # moves its controls
    explorer.mask, explorer.map                          # the mask and the processed map, as arrays
    DepthExplorer(model, image, others={"140 px": model.predict(image, size=140)})

This folder holds two widgets, `DepthExplorer` in this module and `upload.DepthUpload`, and the JavaScript of the first;
that of the second is in `explorers/upload`.
The computations are defined in `probes.depth`.

A map travels once, as float32. The browser applies thresholds, plane and contrast; `mask` and `map` repeat the
computation in Python on request. Thresholds are fractions of the map's range: 0 is its farthest pixel, 1 its nearest.
The steps run in this order: mask, plane, contrast. Plane and contrast use the pixels inside the mask only.

Limit: the browser gets at most 1000 pixels along a side, as means of the map's pixels. `map` and `mask` use all pixels.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
import traitlets
from numpy.typing import NDArray

import dpt
from dpt.image import Size, check_finite

from ... import depth as numbers
from ...captured import NotCaptured
from ...errors import InvalidTypeError, InvalidValueError
from ...runs.stored import StoredCapture
from ..shared import pages
from ..shared.answering import Answer, Request
from ..shared.attributes import Derived
from ..shared.base import PICTURE_SIDE, Explorer
from ..shared.controls import COLORMAPS, ControlError, Flag, Proposal, Real
from ..shared.progress import Status, silent
from ..shared.subject import ImageLike, Subject, finite_depth
from ..shared.summary import Summary, image_words
from . import picture

SPANS = ("shared", "own")


class MapMessage(TypedDict):
    """The reply to a request for a map. Its part is (height, width) float32."""

    name: str
    height: int
    width: int
    metric: bool
    names: list[str]  # of all maps


class DepthExplorer(Explorer):
    """Shows an image and its depth, or two depth maps, under common thresholds.

    All attributes are two-way: setting one moves the widget, and using the widget changes it. The traits are also
    keyword arguments.

    Args:
        source: A model from `dpt.load`, or an image of a run that holds "depth", e.g. ``run["photo.jpg"]``.
        image: (H, W, 3) uint8, or anything `dpt.read_image` takes. For an image of a run, only needed if its file is
            gone.
        others: Further maps of the image by name, each (H, W) and in the same unit, e.g. of another model or size.
        size: Input size, as for `model.predict`.
        keep_aspect: As for `model.predict`.
        **controls: Initial values of the attributes below.

    Attributes:
        far (float): Lower threshold, 0 to 1. Pixels farther away are masked.
        near (float): Upper threshold, `far` to 1. Nearer pixels are masked.
        plane (bool): Whether the best-fitting plane is subtracted.
        equalise (bool): Whether the histogram is equalised.
        left (str): What the left pane shows: "picture", "depth" or a name of `others`.
        right (str): What the right pane shows.
        span (str): Range of the colours of two maps side by side: "shared", or its "own" for each.
        colormap (str): "magma", "viridis", "cividis" or "grey".
        nearest (float): Distance of the nearest pixel in metres, for the readout and `metres`.
        farthest (float): Distance of the farthest pixel in metres.

    Raises:
        InvalidTypeError: `source` is neither a model nor an image of a run (also a TypeError).
        dpt.ImageError: The image is not usable (also a ValueError).
        InvalidValueError: The model cannot take the size, or a map of `others` has another size, values that are not
            finite, or a reserved name (also a ValueError).
        NotCaptured: The run holds no depth.
        StoreError: The run's image cannot be read.
        UnknownControlError: A keyword argument is not a trait (also a TypeError).
        ControlError: A trait does not accept its value (also a traitlets.TraitError).

    Example:
        explorer = DepthExplorer(model, image, far=0.2)
        explorer.mask.mean()                    # fraction of pixels that remain
        explorer                                # the last line of a cell
    """

    _name = "depth"
    _esm = pages.script_of(_name)
    _css = pages.style_of(_name)

    far = Real(0.0, min=0.0, max=1.0).tag(sync=True, ui=True)
    near = Real(1.0, min=0.0, max=1.0).tag(sync=True, ui=True)
    plane = Flag(False).tag(sync=True, ui=True)
    equalise = Flag(False).tag(sync=True, ui=True)
    left = traitlets.Unicode("picture").tag(sync=True, ui=True)
    right = traitlets.Unicode("depth").tag(sync=True, ui=True)
    span = traitlets.Enum(SPANS, default_value="shared").tag(sync=True, ui=True)
    colormap = traitlets.Enum(COLORMAPS, default_value="magma").tag(sync=True, ui=True)
    nearest = Real(1.0, min=1e-3).tag(sync=True, ui=True)
    farthest = Real(20.0, min=1e-3).tag(sync=True, ui=True)

    def __init__(
        self,
        source: dpt.DPT | StoredCapture,
        image: ImageLike | None = None,
        others: Mapping[str, np.ndarray] | None = None,
        *,
        size: Size = None,
        keep_aspect: bool = True,
        **controls: Any,
    ):
        self._others = _named(others or {})
        if others and "left" not in controls:
            controls["left"] = next(iter(self._others))
        super().__init__(source, image, size=size, keep_aspect=keep_aspect, **controls)
        if why := self._subject.absent("depth"):
            raise NotCaptured(why)
        _check_maps(self._others, self._subject.image)

    others = Derived[dict[str, np.ndarray]](
        lambda self: dict(self._others),
        lambda self, others: self._set_others(others),
        help="Further maps of the image by name. Setting it updates every view; another image removes them.",
    )

    def _set_others(self, others: Mapping[str, np.ndarray]) -> None:
        before, maps = self.others, _named(others)
        _check_maps(maps, self._subject.image)
        with self._replacing():
            self._show_others(maps)
        self._notify_trait("others", before, self.others)

    def _show_others(self, maps: dict[str, np.ndarray]) -> None:
        self._others = maps
        for pane, usual in (("left", "picture"), ("right", "depth")):
            if getattr(self, pane) not in ("picture", "depth", *maps):
                setattr(self, pane, usual)

    def _replace(self, subject: Subject) -> None:
        before, same_image = self.others, subject.image is self._subject.image
        super()._replace(subject)
        if before and not same_image:  # they are maps of the former image
            self._set_others({})

    def _controls_for(self, subject: Subject) -> dict[str, object]:
        if why := subject.absent("depth"):
            raise NotCaptured(why)
        return {}

    @traitlets.validate("left", "right")
    def _check_pane(self, proposal: Proposal) -> str:
        pane, name = proposal["trait"].name, str(proposal["value"])
        names = ("picture", "depth", *self._others)
        if name not in names:
            raise ControlError(pane, name, f"one of {', '.join(names)}")
        return name

    # -------------------------------------------------------------------------------------------------------- results

    @property
    def depth(self) -> NDArray[np.float32]:
        """The model's depth map, (H, W), as `model.predict` returns it."""
        depth = self._subject.depth(silent)
        check_finite(depth)
        return depth

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(H, W): the pixels of the model's map between the thresholds."""
        return numbers.within(self.depth, self.far, max(self.far, self.near), self._subject.config.metric)

    @property
    def map(self) -> NDArray[np.float32]:
        """(H, W): the model's map as the view shows it, NaN outside the thresholds `far` and `near`.

        With `plane`, the fitted plane is subtracted. With `equalise`, values are shares of pixels, 0 to 1, which give
        the colours, and no longer depth. For depth as it is, use `depth`; for distances, `metres`.
        """
        return self._processed(self.depth, self.mask)

    def _processed(self, values: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        if self.plane and mask.any():
            values = values - numbers.plane(values, mask)
        if self.equalise:
            return numbers.equalise(values, mask)
        return np.where(mask, values, np.float32(np.nan))

    @property
    def metres(self) -> NDArray[np.float32]:
        """(H, W): distances in metres from `nearest` and `farthest`. Metric models return their own."""
        if self._subject.config.metric:
            return self.depth
        return numbers.metres(self.depth, self.nearest, self.farthest)

    # ------------------------------------------------------------------------------------------------------- requests

    def _answer_map(self, request: Request, status: Status) -> Answer:
        """A map, float32, at most `PICTURE_SIDE` pixels along a side."""
        name, names = str(request.get("name")), ["depth", *self._others]
        if name not in names:
            raise InvalidValueError(f"name must be one of {', '.join(names)}, got {name!r}")
        full = finite_depth(self._subject, status) if name == "depth" else self._others[name]
        values = torch.from_numpy(np.ascontiguousarray(full, np.float32))
        height, width = self._subject.image.shape[:2]
        scale = min(1.0, PICTURE_SIDE / max(height, width))
        if scale < 1:
            size = [max(1, round(side * scale)) for side in (height, width)]
            values = F.interpolate(values[None, None], size, mode="area")[0, 0]
        metric = self._subject.config.metric
        message = MapMessage(name=name, height=values.shape[0], width=values.shape[1], metric=metric, names=names)
        return message, [values.numpy().astype("<f4").tobytes()]

    # -------------------------------------------------------------------------------------------------------- summary

    def _summary(self) -> Summary:
        subject = self._subject
        words = [f"{self.left} and {self.right}" if self.left != self.right else self.left]
        if self.far > 0 or self.near < 1:
            words.append(f"pixels from {self.far:g} to {max(self.far, self.near):g} of the range, far to near")
        words += ["plane subtracted"] * self.plane + ["even colours"] * self.equalise
        return Summary("Depth", subject.model_words, image_words(subject.name, subject.image.shape), ", ".join(words))

    def _draw(self, summary: Summary, note: str) -> bytes:
        depth = finite_depth(self._subject, silent)
        panes = []
        for name in dict.fromkeys((self.left, self.right)):
            values = np.asarray(self._others.get(name, depth), np.float32)
            mask = numbers.within(values, self.far, max(self.far, self.near), self._subject.config.metric)
            panes.append((name, self._subject.image if name == "picture" else self._processed(values, mask), mask))
        metric = self._subject.config.metric
        look = picture.Look(
            metric=metric,
            colormap=self.colormap,
            signed=self.plane and not self.equalise,
            shared=self.span == "shared",
        )
        return picture.draw(summary, panes, look, note)

    # ---------------------------------------------------------------------------------------------------------- pages

    def to_html(self, path: str | os.PathLike[str], *, title: str | None = None) -> Path:
        """Writes a page with the image and all maps that works without a kernel and a network.

        Args:
            path: The file to write.
            title: The page's title. Default: what the page shows.

        Returns:
            The path of the page.

        Raises:
            PageTooLargeError: The page would exceed 100 MiB. Nothing is written (also a ValueError).
            dpt.DPTError: The file cannot be written (also an OSError).
        """
        return self._write_page(path, self._page_of_state({}), title)

    def _page_of_state(self, request: Request) -> pages.PagePlan:
        requests: list[Request] = [{"kind": "picture"}]
        requests += [{"kind": "map", "name": name} for name in ("depth", *self._others)]
        return pages.PagePlan(requests, advice="Compare fewer maps, or use a smaller image")


def _named(others: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    if not isinstance(others, Mapping):
        raise InvalidTypeError(f"others must be maps by name, e.g. {{'140 px': depth}}, got {type(others).__name__}")
    maps = {str(name): np.asanyarray(values) for name, values in others.items()}
    if taken := {"picture", "depth"} & set(maps):
        raise InvalidValueError(f"the name {taken.pop()!r} is reserved. Choose another name for the map")
    return maps


def _check_maps(maps: Mapping[str, np.ndarray], image: np.ndarray) -> None:
    shape = image.shape[:2]
    for name, values in maps.items():
        if values.shape != shape:
            raise InvalidValueError(f"map {name!r} must have the image's shape {shape}, got {values.shape}")
        with np.errstate(over="ignore"):  # views get float32
            finite = np.ma.filled(np.isfinite(values.astype(np.float32)), False).all()
        if not finite:
            raise InvalidValueError(
                f"map {name!r} contains NaN or infinity, or is masked. Give a map of finite numbers, in the range of "
                "float32"
            )
