"""The position explorer: how a model encodes where a token is. It shows weights, so it needs no image.

    PositionExplorer(model)                          # shows the widget
    PositionExplorer(model, size=(280, 392)).size    # the input size that the positions are for
    explorer.to_html("positions.html")               # works without a kernel

This folder holds the widget: `PositionExplorer` in this module, `data` (encoding) and its JavaScript. The numbers come
from `probes.positions`.

A table (DINOv2) is shown as one image per channel, a page of them at a time. Next to them: the similarity of the
position under the pointer with all others, and the power spectrum. Relative biases (BEiT, SwinV2) are shown as one
offset image per head, with the query in the middle. The pointer moves the query, and the cut of the offset image that
applies to this query is drawn on the grid.

The kernel sends a table with its spectra, or the biases of a block, once per input size in float32. The browser
computes similarities and cuts.

Limit: a view shows the weights as they were when it asked. After a change of weights, create a new explorer.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, SupportsIndex, TypeAlias

import numpy as np
import traitlets

import dpt
from dpt.image import Size
from probes.positions import PositionTable, offered_sizes, positions

from ...errors import InvalidValueError
from ...scalars import whole
from ..shared import pages
from ..shared.answering import Answer, Request
from ..shared.arguments import checked_model
from ..shared.attributes import Derived
from ..shared.base import ModelExplorer
from ..shared.controls import COLORMAPS, ControlError, Flag, Items, Proposal, Real, Whole, whole_number
from ..shared.copied import model_code
from ..shared.progress import Status
from ..shared.replacing import token_of
from ..shared.summary import Summary, block_words, model_words
from . import picture
from .data import bytes_of_parts, encode_bias, encode_table, has_table

ORDERS = ("index", "strength", "frequency")
SCALES = ("own", "shared")
VIEWS = ("values", "spectrum")


Sizes: TypeAlias = Sequence[Sequence[SupportsIndex]] | np.ndarray | Literal["all"] | None
"""Input sizes that a page holds; None for the native one and the current one."""


class PositionExplorer(ModelExplorer):
    """Shows position tables by channel, or relative biases by block and head, for the position under the pointer.

    All attributes are two-way: setting one moves the widget, and using the widget changes it. Each is also a keyword
    argument.

    Args:
        model: A model from `dpt.load`.
        size: Input size in pixels: (height, width), or one number for a square. Default: the size that the table or
            the windows were trained for.
        **controls: Initial values of the attributes below.

    Attributes:
        size (list[int]): (height, width) of the input in pixels.
        place (list[float]): The position (or query) shown while nothing is hovered: fractions of the image's height and
            width from its top left corner.
        pinned (bool): Whether the display ignores the pointer and stays at `place`.
        order (str): Order of the images: "index", "strength" (largest variation first) or, for tables, "frequency"
            (slowest waves first).
        scale (str): "own" (each image spans its own range) or "shared".
        colormap (str): "viridis", "cividis", "magma" or "grey".
        first (int): Index in that order of the first image shown.
        channel (int | None): Tables: the enlarged channel, None for none.
        view (str): Tables: what the images show, "values" or "spectrum".
        centred (bool): Tables: whether similarity subtracts the mean vector first.
        block (int): Biases: the block.
        head (int | None): Biases: the head that is enlarged and drawn on the grid. -1 for the enlarged mean of all
            heads, None for the mean without enlarging.

    Raises:
        InvalidTypeError: `model` is not a DPT model (also a TypeError).
        InvalidValueError: The model cannot take the size (also a ValueError).
        UnknownControlError: A keyword argument is not an attribute (also a TypeError).
        ControlError: An attribute does not accept its value (also a traitlets.TraitError).
        UnsupportedModelError: The encoder adds neither a table nor relative biases (also a NotImplementedError).

    Example:
        explorer = PositionExplorer(model, order="frequency")
        explorer.patch = (3, 5)
        explorer                                # the last line of a cell
    """

    _name = "positions"
    _esm = pages.script_of(_name)
    _css = pages.style_of(_name)

    size = Items(Whole(), minlen=2, maxlen=2).tag(sync=True, ui=True)
    place = Items(Real(min=0.0, max=1.0), default_value=[0.5, 0.5], minlen=2, maxlen=2).tag(sync=True, ui=True)
    pinned = Flag(False).tag(sync=True, ui=True)
    order = traitlets.Enum(ORDERS, default_value="index").tag(sync=True, ui=True)
    scale = traitlets.Enum(SCALES, default_value="own").tag(sync=True, ui=True)
    colormap = traitlets.Enum(COLORMAPS, default_value="viridis").tag(sync=True, ui=True)
    first = Whole(0, min=0).tag(sync=True, ui=True)
    channel = Whole(None, allow_none=True).tag(sync=True, ui=True)
    view = traitlets.Enum(VIEWS, default_value="values").tag(sync=True, ui=True)
    centred = Flag(False).tag(sync=True, ui=True)
    block = Whole(0).tag(sync=True, ui=True)
    head = Whole(None, allow_none=True).tag(sync=True, ui=True)

    def __init__(self, model: dpt.DPT, size: Size = None, **controls: Any):
        shown = positions(checked_model(model), size)  # checks the size before any widget exists
        self._sizes = list(dict.fromkeys([*offered_sizes(model), shown.size]))
        super().__init__(model, size=list(shown.size), **controls)
        self.observe(self._replace_missing_head, "block")

    patch = Derived[tuple[int, int]](
        lambda self: self._span().patch_at(*self.place, size=(1, 1)),
        lambda self, place: self._show_patch(place),
        "place",
        "size",
        "block",
        help="(row, col) of `place` on the grid, or in a window of windowed attention. Can be set.",
    ).tag(sync=True, last=True)

    model = Derived[dpt.DPT](
        lambda self: self._model,
        lambda self, model: self._replace_model(model),
        help="The model. Setting it updates every view.",
    )

    def _replace_model(self, given: object) -> None:
        model = checked_model(given)
        try:
            shown = positions(model, (self.size[0], self.size[1]))
        except ValueError:  # only the former model can take the size
            shown = positions(model, None)
        before, config, biased = self._model, model.config, not has_table(model)
        controls: dict[str, object] = {"size": list(shown.size), "block": min(self.block, config.depth - 1)}
        if biased:
            controls |= {"channel": None, "view": "values"}
            if self.order == "frequency":
                controls["order"] = "index"
            if self.head is not None and self.head >= config.block_heads(min(self.block, config.depth - 1)):
                controls["head"] = -1
        else:
            controls["head"] = None
            if self.channel is not None and self.channel >= config.width:
                controls["channel"] = None
        with self._replacing():
            self._model = model
            self._sizes = list(dict.fromkeys([*offered_sizes(model), shown.size]))
            self.first = 0
            for name, value in controls.items():
                setattr(self, name, value)
        self._notify_derived(*self.traits())
        if model is not before:
            self._notify_trait("model", before, model)

    def _show_patch(self, patch: object) -> None:
        span = self._span()
        row, col = span.patch(token_of("patch", span, patch)) or (0, 0)
        self.place = [(row + 0.5) / span.rows, (col + 0.5) / span.cols]

    def _span(self) -> dpt.TokenGrid:
        """The grid whose positions are shown, or the window if attention is windowed."""
        grid = self._model.token_grid(*self.size)
        at = self._model.config.block_grid(self.block, grid)
        return grid if at.window is None else dpt.TokenGrid(*at.window)

    @property
    def _biased(self) -> bool:
        return not has_table(self._model)

    def _replace_missing_head(self, _: object) -> None:
        """Shows the mean if the new block lacks the current head."""
        if self.head is not None and self.head >= self._model.config.block_heads(self.block):
            self.head = -1

    # ----------------------------------------------------------------------------------------------------- validation

    @traitlets.validate("size")
    def _check_size(self, proposal: Proposal) -> list[int]:
        size: list[int] = proposal["value"]
        try:
            self._model.token_grid(*size)
        except ValueError as error:
            raise ControlError("size", size, "a size that the model can take", f"size: {error}") from error
        return size

    @traitlets.validate("block")
    def _check_block(self, proposal: Proposal) -> int:
        return whole_number("block", proposal["value"], 0, self._model.config.depth)

    @traitlets.validate("head")
    def _check_head(self, proposal: Proposal) -> int | None:
        value: int | None = proposal["value"]
        if value is None:
            return None
        if not self._biased:
            why = "a position table has no heads. To enlarge a channel: explorer.channel = 3"
            raise ControlError("head", value, "None", why)
        return whole_number("head", value, -1, self._model.config.block_heads(self.block))

    @traitlets.validate("channel")
    def _check_channel(self, proposal: Proposal) -> int | None:
        value: int | None = proposal["value"]
        if value is None:
            return None
        if self._biased:
            why = "relative biases have no channels. To enlarge a head: explorer.head = 3"
            raise ControlError("channel", value, "None", why)
        return whole_number("channel", value, 0, self._model.config.width)

    @traitlets.validate("order", "view")
    def _check_for_tables(self, proposal: Proposal) -> str:
        name, value = proposal["trait"].name, proposal["value"]
        if self._biased and value in ("frequency", "spectrum"):
            values = [one for one in (ORDERS if name == "order" else VIEWS) if one not in ("frequency", "spectrum")]
            why = f"{name} {value!r} applies to position tables only, and this model uses relative biases"
            raise ControlError(name, value, f"one of {values}", why)
        return str(value)

    # -------------------------------------------------------------------------------------------------------- answers

    def _answer_about(self, request: Request, status: Status) -> Answer:
        config = self._model.config
        message = {
            "encoding": "bias" if self._biased else "table",
            "code": model_code(self._model),
            "family": config.family,
            "variant": config.variant,
            "sizes": list(dict.fromkeys([*self._sizes, (self.size[0], self.size[1])])),
            "native": self._sizes[0],
            "patch": config.patch_size,
            "blocks": config.depth if self._biased else 0,
        }
        return message, []

    def _answer_table(self, request: Request, status: Status) -> Answer:
        size = _size_in(request)
        status("Computing the table")
        return encode_table(self._model, size)

    def _answer_bias(self, request: Request, status: Status) -> Answer:
        size = _size_in(request)
        block = whole_number("block", request.get("block"), 0, self._model.config.depth)
        return encode_bias(self._model, size, block)

    # -------------------------------------------------------------------------------------------------------- summary

    def _summary(self) -> Summary:
        height, width = self.size
        row, col = self.patch
        at = f"position ({row}, {col})"
        if self._biased:
            at = f"{block_words(self.block, self._model.config.depth)}, query ({row}, {col})"
        words = model_words(self._model, self._model.config)
        return Summary("Position encoding", words, "", f"{at} of an input of {width} x {height} pixels")

    def _draw(self, summary: Summary, note: str) -> bytes:
        found = positions(self._model, (self.size[0], self.size[1]))
        look = picture.Look(order=self.order, shared=self.scale == "shared", colormap=self.colormap)
        if isinstance(found, PositionTable):
            return picture.draw_table(
                summary,
                found,
                self.patch,
                look,
                first=self.first,
                channel=self.channel,
                spectrum=self.view == "spectrum",
                centred=self.centred,
                note=note,
            )
        return picture.draw_biases(summary, found, self.block, self.patch, look, head=self.head, note=note)

    # ----------------------------------------------------------------------------------------------------------- page

    def to_html(
        self,
        path: str | os.PathLike[str],
        sizes: Sizes = None,
        *,
        limit: int = pages.PAGE_LIMIT,
        title: str | None = None,
    ) -> Path:
        """Writes a page that works like the widget, without a kernel and a network.

        The page starts in the widget's state.

        Args:
            path: The file to write.
            sizes: Input sizes to embed, each with all blocks, or "all" for every size that the widget offers. Default:
                the native size and the current one.
            limit: Largest page in bytes.
            title: The page's title. Default: what the page shows, and the model.

        Returns:
            The path of the page.

        Raises:
            PageTooLargeError: The page would exceed `limit`. Nothing is written (also a ValueError).
            InvalidValueError: `sizes` is empty, or the model cannot take one of them (also a ValueError).
            dpt.DPTError: The file cannot be written (also an OSError).
        """
        return self._write_page(path, self._plan_page(sizes, limit), title)

    def _page_of_state(self, request: Request) -> pages.PagePlan:
        return self._plan_page(None, pages.PAGE_LIMIT)

    def _plan_page(self, sizes: Sizes, limit: int) -> pages.PagePlan:
        """What a page with these input sizes contains.

        Raises:
            PageTooLargeError: The page would exceed `limit`.
            InvalidValueError: `sizes` is empty, or the model cannot take one of them.
        """
        own = (self.size[0], self.size[1])
        if isinstance(sizes, str) and sizes == "all":
            chosen = [*self._sizes, own]
        elif isinstance(sizes, str):
            raise InvalidValueError(f'sizes must be a list of (height, width), "all" or None, got {sizes!r}')
        else:
            chosen = (
                [self._sizes[0], own]
                if sizes is None
                else [(whole(h, "a height"), whole(w, "a width")) for h, w in sizes]
            )
        chosen = list(dict.fromkeys(chosen))
        if not chosen:
            raise InvalidValueError("sizes is empty. Give at least one (height, width)")
        pages.check_size(
            f"positions for {len(chosen)} sizes",
            bytes_of_parts(self._model, chosen),
            limit,
            "Choose fewer or smaller sizes=, or raise limit=",
        )
        requests: list[Request] = [{"kind": "about"}]
        for height, width in chosen:
            size = {"height": height, "width": width}
            if self._biased:
                requests += [{"kind": "bias", **size, "block": block} for block in range(self._model.config.depth)]
            else:
                requests.append({"kind": "table", **size})
        words = ", ".join(f"{width} x {height}" for height, width in chosen)
        return pages.PagePlan(
            requests=requests,
            extent=f"Input sizes: {words} pixels",
            state={"size": list(own if own in chosen else chosen[0])},
            changes={"sizes": chosen},
        )


def _size_in(request: Request) -> tuple[int, int]:
    height, width = (whole_number(name, request.get(name), 1, 2**16) for name in ("height", "width"))
    return height, width
