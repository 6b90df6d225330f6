"""A walk through a model as a diagram to click: every part shows its tensors, what they hold, and why it is there.

    ModelTour(model, image)                   # shows the widget
    tour.part = "fusion.2"                    # goes there; tour.view likewise: "colour", "channels", "norm", ...
    tour.to_html("tour.html")                 # all parts inside, no kernel needed

The model runs once over the picture, when the first view asks; see `probes.tour.walk`, which makes words, shapes and
pictures. The diagram with its thumbnails travels once, a picture of a part when somebody looks at it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import traitlets
from PIL import Image

import dpt

from ...errors import InvalidTypeError, InvalidValueError
from ...figures import tiles
from ...tour.walk import VIEWS, Part, Walk, parts
from ..shared import pages
from ..shared.base import PAGE_LIMIT, Answer, RunningExplorer, Status


class ModelTour(RunningExplorer):
    """The model's parts in a diagram; the chosen one with its formula, tensors and pictures beside it.

    model: as `dpt.load` returns it, of any family. image: (H, W, 3) uint8, or anything `dpt.read_image` takes. size,
    keep_aspect: as for `model.predict`.

    Attributes (two-way): part: a name such as "input", "encoder.blocks.5", "reassembly.1" (`tour.parts` lists them).
    view: which picture of the part, or "" for its first.

    Raises TypeError, dpt.ImageError, ValueError or traitlets.TraitError, before anything is run.
    """

    _name = "tour"
    _esm = pages.script_of(_name)
    _css = pages.style_of(_name)

    part = traitlets.Unicode("picture").tag(sync=True, ui=True)
    view = traitlets.Unicode("").tag(sync=True, ui=True)

    def __init__(
        self,
        model: dpt.DPT,
        image: Any = None,
        *,
        size: int | tuple[int, int] | None = None,
        keep_aspect: bool = True,
        **controls: Any,
    ):
        if unknown := sorted(set(controls) - {"part", "view", "layout"}):
            raise InvalidTypeError(f"ModelTour has no {', '.join(unknown)}; there are part, view")
        self._walk: Walk | None = None
        super().__init__(model, image, size=size, keep_aspect=keep_aspect, **controls)

    @property
    def parts(self) -> list[str]:
        """Names of the parts, in the order of the pass."""
        return [part.name for part in parts(self._model.config)]

    @traitlets.validate("part")
    def _check_part(self, proposal: Mapping[str, Any]) -> str:
        name = str(proposal["value"])
        if name not in self.parts:
            raise traitlets.TraitError(f"{name!r} is no part of this model; parts are {', '.join(self.parts)}")
        return name

    @traitlets.validate("view")
    def _check_view(self, proposal: Mapping[str, Any]) -> str:
        view = str(proposal["value"])
        if view not in ("", *VIEWS):
            raise traitlets.TraitError(f"view is one of {', '.join(VIEWS)}, not {view!r}")
        return view

    # ------------------------------------------------------------------------------------------------------ requests

    def _walked(self, status: Status) -> Walk:
        """Called under the lock."""
        if self._walk is None:
            height, width = self._input_size
            status(f"Running the model on the picture ({width} × {height} pixels)")
            self._walk = Walk(self._model, self._image, self._subject.size, self._subject.keep_aspect)
        return self._walk

    def _answer_tour(self, request: Mapping[str, Any], status: Status) -> Answer:
        """The diagram: all parts with their words, shapes and thumbnails."""
        walk = self._walked(status)
        config = self._model.config
        described: list[dict[str, Any]] = []
        thumbnails: list[bytes] = []
        for n, part in enumerate(walk.parts):
            status(f"Drawing the diagram: {n + 1} of {len(walk.parts)}")
            thumbnail = walk.thumbnail(part.name)
            described.append({**_described(walk, part), "thumbnail": -1 if thumbnail is None else len(thumbnails)})
            if thumbnail is not None:
                thumbnails.append(_png(thumbnail))
        message = {
            "title": f"{config.family} {config.variant}",
            "untrained": config.variant == "untrained",
            "line": self._line(),
            "parts": described,
            "aspect": self._input_size[1] / self._input_size[0],
            "call": self._subject.call,
        }
        return message, thumbnails

    def _line(self) -> str:
        c = self._model.config
        count = sum(p.numel() for p in self._model.parameters())
        height, width = self._input_size
        return f"{count / 1e6:.3g} million parameters · {c.depth} blocks · input {height} × {width}"

    def _answer_shot(self, request: Mapping[str, Any], status: Status) -> Answer:
        """A picture of a part."""
        walk = self._walked(status)
        part, view = str(request.get("part")), str(request.get("view"))
        tile, caption = walk.shot(part, view)
        return {"type": "image/png", "part": part, "view": view, "caption": caption}, [_png(tile)]

    # --------------------------------------------------------------------------------------------------------- pages

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        """Writes the tour as one page with every picture inside; it needs neither kernel nor network. Returns its path.

        ValueError where the pictures would make the page larger than a browser opens with ease (100 MB).
        """
        requests: list[dict[str, Any]] = [{"kind": "tour"}]
        for part in parts(self._model.config):
            requests += [{"kind": "shot", "part": part.name, "view": view} for view in part.views]
        path = self._write_page(path, f"Tour of {self._model.config.family}", requests, {}, {})
        if (size := path.stat().st_size) > PAGE_LIMIT:
            path.unlink()
            raise InvalidValueError(f"the page would be {size / 2**20:.0f} MB; give the tour a smaller size=")
        return path


def _described(walk: Walk, part: Part) -> dict[str, Any]:
    config = walk.config
    shapes = walk.shapes(part.name)
    group = part.number
    if part.kind == "block":
        group = next((s for s in range(4) if part.number <= config.stage_block(s)), 3)
    return {
        "name": part.name,
        "kind": part.kind,
        "title": part.title,
        "group": group,
        "number": part.number,
        "formula": part.words.formula,
        "why": part.words.why,
        "family": part.words.family,
        "shapes": shapes,
        "points": part.points,
        "views": [(view, VIEWS[view]) for view in part.views],
    }


def _png(tile: tiles.Tile) -> bytes:
    content = io.BytesIO()
    Image.fromarray(tile).save(content, format="PNG")
    return content.getvalue()
