"""The model tour: a diagram of the model to click. Every part shows its tensors, their content and its purpose.

    ModelTour(model, image)                   # shows the widget
    tour.part = "fusion.2"                    # selects a part; tour.view selects one of its images
    tour.to_html("tour.html")                 # works without a kernel, with all parts embedded

This folder holds the widget: `ModelTour` in this module and its JavaScript. Texts, shapes and images come from
`probes.tour`.

The model runs once, when the first view asks. The diagram with its thumbnails travels once; the images of a part travel
when the part is selected.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, TypedDict

import traitlets
from PIL import Image

import dpt
from dpt.image import Size

from ...figures import tiles
from ...tour.walk import VIEWS, Part, Walk, parts
from ..shared import pages
from ..shared.answering import Answer, Request
from ..shared.base import RunningExplorer
from ..shared.controls import ControlError, Proposal
from ..shared.progress import Status, silent
from ..shared.subject import ImageLike, Subject
from ..shared.summary import Summary, image_words
from . import picture


class PartMessage(TypedDict):
    """What the diagram needs of a part."""

    name: str
    kind: str
    title: str
    group: int  # stage of a block
    number: int
    formula: str
    why: str
    family: str
    shapes: list[tuple[str, str, str]]
    points: tuple[str, ...]
    views: list[tuple[str, str]]  # name and label
    thumbnail: int  # index of the binary part, -1 for none


class ModelTour(RunningExplorer):
    """Shows a model as a diagram, with the formula, tensors and images of the selected part.

    Both attributes are two-way: setting one moves the widget, and using the widget changes it. Each is also a keyword
    argument.

    Args:
        model: A model of any family, from `dpt.load`.
        image: (H, W, 3) uint8, or anything `dpt.read_image` takes.
        size: Input size, as for `model.predict`.
        keep_aspect: As for `model.predict`.
        **controls: Initial values of the attributes below.

    Attributes:
        part (str): Name of the selected part, e.g. "input", "encoder.blocks.5", "reassembly.1". `parts` lists them.
        view (str): Which image of the part is shown, e.g. "colour", "channels" or "norm"; "" for the first.

    Raises:
        InvalidTypeError: `model` is not a DPT model (also a TypeError).
        dpt.ImageError: The image is not usable (also a ValueError).
        dpt.DPTError: The model cannot take the size (also a ValueError).
        UnknownControlError: A keyword argument is not an attribute (also a TypeError).
        ControlError: The part or view does not exist (also a traitlets.TraitError).

    Example:
        tour = ModelTour(model, image, part="encoder.blocks.5")
        tour                                    # the last line of a cell
    """

    _name = "tour"
    _esm = pages.script_of(_name)
    _css = pages.style_of(_name)

    part = traitlets.Unicode("picture").tag(sync=True, ui=True)
    view = traitlets.Unicode("").tag(sync=True, ui=True)

    def __init__(
        self,
        model: dpt.DPT,
        image: ImageLike | None = None,
        *,
        size: Size = None,
        keep_aspect: bool = True,
        **controls: Any,
    ):
        super().__init__(model, image, size=size, keep_aspect=keep_aspect, **controls)

    def _controls_for(self, subject: Subject) -> dict[str, object]:
        if self.part in (part.name for part in parts(subject.config)):
            return {}
        return {"part": "picture", "view": ""}

    @property
    def parts(self) -> list[str]:
        """Names of the parts, in the order of the forward pass."""
        return [part.name for part in parts(self._model.config)]

    @traitlets.validate("part")
    def _check_part(self, proposal: Proposal) -> str:
        name = str(proposal["value"])
        if name not in self.parts:
            raise ControlError("part", name, f"one of {', '.join(self.parts)}")
        return name

    @traitlets.validate("view")
    def _check_view(self, proposal: Proposal) -> str:
        view = str(proposal["value"])
        if view not in ("", *VIEWS):
            raise ControlError("view", view, f"one of {', '.join(VIEWS)}")
        return view

    # ------------------------------------------------------------------------------------------------------- requests

    def _walk_of(self, status: Status) -> Walk:
        """The walk through the model, created if no explorer of the image has created it. Callers hold the lock."""

        def walk() -> Walk:
            height, width = self._input_size
            status(f"Running the model on the image ({width} × {height} pixels)")
            return Walk(self._model, self._image, self._subject.size, self._subject.keep_aspect)

        return self._subject.kept("walk", walk, lambda walk: walk.nbytes)

    def _answer_tour(self, request: Request, status: Status) -> Answer:
        """The diagram: texts, shapes and thumbnails of all parts."""
        walk = self._walk_of(status)
        config = self._model.config
        described: list[PartMessage] = []
        thumbnails: list[bytes] = []
        for n, part in enumerate(walk.parts):
            status(f"Drawing the diagram: {n + 1} of {len(walk.parts)}")
            thumbnail = walk.thumbnail(part.name)
            described.append(_describe(walk, part, -1 if thumbnail is None else len(thumbnails)))
            if thumbnail is not None:
                thumbnails.append(_png(thumbnail))
        message = {
            "title": f"{config.family} {config.variant}",
            "untrained": config.variant == "untrained",
            "line": self._facts(),
            "parts": described,
            "aspect": self._input_size[1] / self._input_size[0],
            "call": self._subject.call,
            "code": self._subject.code,
            "advice": self._subject.advice,
        }
        return message, thumbnails

    def _facts(self) -> str:
        count = sum(p.numel() for p in self._model.parameters())
        height, width = self._input_size
        return f"{count / 1e6:.3g} million parameters · {self._model.config.depth} blocks · input {height} × {width}"

    def _answer_shot(self, request: Request, status: Status) -> Answer:
        """One image of a part."""
        walk = self._walk_of(status)
        part, view = str(request.get("part")), str(request.get("view"))
        tile, caption = walk.shot(part, view)
        return {"type": "image/png", "part": part, "view": view, "caption": caption}, [_png(tile)]

    # -------------------------------------------------------------------------------------------------------- summary

    def _summary(self) -> Summary:
        part, view = self._selected()
        words = part.title if part.title.lower() == part.name else f"{part.title} ({part.name})"
        if view and VIEWS[view].lower() != part.title.lower():
            words += f", {VIEWS[view].lower()}"
        image = image_words(self._subject.name, self._image.shape)
        return Summary("Tour", self._subject.model_words, image, f"{words}; {self._facts()}")

    def _selected(self) -> tuple[Part, str]:
        """The selected part and its view on display, "" for a part without views."""
        part = next(part for part in parts(self._model.config) if part.name == self.part)
        return part, self.view if self.view in part.views else next(iter(part.views), "")

    def _draw(self, summary: Summary, note: str) -> bytes:
        part, view = self._selected()
        return picture.draw(summary, self._walk_of(silent), part.name, view, note)

    # ---------------------------------------------------------------------------------------------------------- pages

    def to_html(self, path: str | os.PathLike[str], *, title: str | None = None) -> Path:
        """Writes a page with every image of the tour that works without a kernel and a network.

        Args:
            path: The file to write.
            title: The page's title. Default: what the page shows, and the model.

        Returns:
            The path of the page.

        Raises:
            PageTooLargeError: The page would exceed 100 MiB. Nothing is written (also a ValueError).
            dpt.DPTError: The file cannot be written (also an OSError).
        """
        return self._write_page(path, self._page_of_state({}), title)

    def _page_of_state(self, request: Request) -> pages.PagePlan:
        requests: list[Request] = [{"kind": "tour"}]
        for part in parts(self._model.config):
            requests += [{"kind": "shot", "part": part.name, "view": view} for view in part.views]
        return pages.PagePlan(requests, extent="All parts and views", advice="Choose a smaller size=")


def _describe(walk: Walk, part: Part, thumbnail: int) -> PartMessage:
    config = walk.config
    group = part.number
    if part.kind == "block":
        group = next((s for s in range(4) if part.number <= config.stage_block(s)), 3)
    return PartMessage(
        name=part.name,
        kind=part.kind,
        title=part.title,
        group=group,
        number=part.number,
        formula=part.words.formula,
        why=part.words.why,
        family=part.words.family,
        shapes=walk.shapes(part.name),
        points=part.points,
        views=[(view, VIEWS[view]) for view in part.views],
        thumbnail=thumbnail,
    )


def _png(tile: tiles.Tile) -> bytes:
    content = io.BytesIO()
    Image.fromarray(tile).save(content, format="PNG")
    return content.getvalue()
