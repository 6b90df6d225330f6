"""Depth to work on: thresholds, a plane taken away, contrast, and two maps side by side, all in the browser.

    explorer = DepthExplorer(model, image)               # shows the widget
    explorer.far, explorer.plane = 0.2, True             # moves its controls
    explorer.mask, explorer.map                          # what is left, and the map as shown, as arrays
    DepthExplorer(model, image, others={"140 px": model.predict(image, size=140)})

The map travels once, as float32; thresholds, plane and contrast are worked out from it in the browser, and once more
here when `mask` and `map` are asked for. Thresholds are shares of the map's range: 0 its farthest pixel, 1 its nearest.
They cut what is shown and what plane and contrast are worked out from, in this order: mask, plane, contrast.

Limit: the browser gets at most 1000 pixels along a side, means of the map's own; `map` and `mask` are of all pixels.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import traitlets

import dpt

from ... import depth as numbers
from ...capture import NotCaptured
from ...errors import InvalidTypeError, InvalidValueError
from ...runs.stored import StoredCapture
from ..shared import pages
from ..shared.base import PICTURE_SIDE, Answer, Explorer, Status

COLORMAPS = ("magma", "viridis", "cividis", "grey")


class DepthExplorer(Explorer):
    """A picture and its depth, or two depth maps, under common thresholds.

    source: a model as `dpt.load` returns it, or a picture of a run that holds "depth", e.g. ``run["photo.jpg"]``.
    image: (H, W, 3) uint8, or anything `dpt.read_image` takes; of a run's picture only where its file is gone. others:
    further maps of the picture by name, (H, W) each, of the same meaning: another model's, another size's. size,
    keep_aspect: as for `model.predict`.

    Attributes (two-way): far, near: thresholds, 0 <= far <= near <= 1. plane: take away the plane that fits best.
    equalise: spread the colours evenly over the pixels. left, right: what the panes show: "picture", "depth", or a name
    of others. colormap. nearest, farthest: distances in metres of the map's ends, for the readout and `metres`.

    Raises TypeError, ImageError, ValueError, NotCaptured, StoreError or traitlets.TraitError, before anything is run.
    """

    _name = "depth"
    _esm = pages.script_of(_name)
    _css = pages.style_of(_name)

    far = traitlets.Float(0.0, min=0.0, max=1.0).tag(sync=True, ui=True)
    near = traitlets.Float(1.0, min=0.0, max=1.0).tag(sync=True, ui=True)
    plane = traitlets.Bool(False).tag(sync=True, ui=True)
    equalise = traitlets.Bool(False).tag(sync=True, ui=True)
    left = traitlets.Unicode("picture").tag(sync=True, ui=True)
    right = traitlets.Unicode("depth").tag(sync=True, ui=True)
    colormap = traitlets.Enum(COLORMAPS, default_value="magma").tag(sync=True, ui=True)
    nearest = traitlets.Float(1.0, min=1e-3).tag(sync=True, ui=True)
    farthest = traitlets.Float(20.0, min=1e-3).tag(sync=True, ui=True)

    def __init__(
        self,
        source: dpt.DPT | StoredCapture,
        image: Any = None,
        others: Mapping[str, np.ndarray] | None = None,
        *,
        size: int | tuple[int, int] | None = None,
        keep_aspect: bool = True,
        **controls: Any,
    ):
        known = sorted(self.class_trait_names(ui=True))
        if unknown := sorted(set(controls) - set(known) - {"layout"}):
            raise InvalidTypeError(f"DepthExplorer has no {', '.join(unknown)}; there are {', '.join(known)}")
        self._others = {str(name): np.asarray(values) for name, values in (others or {}).items()}
        if taken := {"picture", "depth"} & set(self._others):
            raise InvalidValueError(f"the name {taken.pop()!r} is taken; call the other map something else")
        if others and "left" not in controls:
            controls["left"] = next(iter(self._others))
        super().__init__(source, image, size=size, keep_aspect=keep_aspect, **controls)
        if why := self._subject.absent("depth"):
            raise NotCaptured(why)
        for name, values in self._others.items():
            if values.shape != self._subject.image.shape[:2]:
                raise InvalidValueError(f"{name} is {values.shape}, but the picture is {self._subject.image.shape[:2]}")
            if not np.isfinite(values).all():
                raise InvalidValueError(f"{name} holds NaN or infinity; give a map of finite numbers")

    @traitlets.validate("left", "right")
    def _check_pane(self, proposal: Mapping[str, Any]) -> str:
        name = str(proposal["value"])
        if name not in ("picture", "depth", *self._others):
            raise traitlets.TraitError(f"a pane shows {', '.join(('picture', 'depth', *self._others))}, not {name!r}")
        return name

    # -------------------------------------------------------------------------------------------------------- results

    @property
    def depth(self) -> np.ndarray:
        """The model's map, (H, W) float32, as `model.predict` gives it."""
        return self._subject.depth(lambda text: None)

    @property
    def mask(self) -> np.ndarray:
        """(H, W) bool: what the thresholds leave of the model's map."""
        return numbers.within(self.depth, self.far, max(self.far, self.near), self._subject.config.metric)

    @property
    def map(self) -> np.ndarray:
        """(H, W) float32: the model's map as shown; NaN outside the thresholds."""
        mask, shown = self.mask, self.depth
        if self.plane and mask.any():
            shown = shown - numbers.plane(shown, mask)
        if self.equalise:
            return numbers.equalise(shown, mask)
        return np.where(mask, shown, np.float32(np.nan))

    @property
    def metres(self) -> np.ndarray:
        """(H, W) float32: distances, from `nearest` and `farthest` (metric models: their own)."""
        if self._subject.config.metric:
            return self.depth
        return numbers.metres(self.depth, self.nearest, self.farthest)

    # ------------------------------------------------------------------------------------------------------- requests

    def _answer_map(self, request: Mapping[str, Any], status: Status) -> Answer:
        """A map by its name: float32, at most `PICTURE_SIDE` pixels along a side."""
        name = request.get("name")
        if name != "depth" and name not in self._others:
            raise InvalidValueError(f"there is no map {name!r}; there are {', '.join(('depth', *self._others))}")
        whole = self._subject.depth(status) if name == "depth" else self._others[str(name)]
        values = torch.from_numpy(np.ascontiguousarray(whole, np.float32))
        height, width = self._subject.image.shape[:2]
        scale = min(1.0, PICTURE_SIDE / max(height, width))
        if scale < 1:
            size = [max(1, round(side * scale)) for side in (height, width)]
            values = F.interpolate(values[None, None], size, mode="area")[0, 0]
        message = {
            "name": name,
            "height": values.shape[0],
            "width": values.shape[1],
            "metric": self._subject.config.metric,
            "names": ["depth", *self._others],
        }
        return message, [values.numpy().astype("<f4").tobytes()]

    # ---------------------------------------------------------------------------------------------------------- pages

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        """Writes the explorer as one page with picture and maps inside; no kernel, no network. Returns its path."""
        requests: list[dict[str, Any]] = [{"kind": "picture"}]
        requests += [{"kind": "map", "name": name} for name in ("depth", *self._others)]
        return self._write_page(path, "Depth", requests, {}, {})
