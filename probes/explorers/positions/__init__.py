"""The position explorer: how a model tells places apart, with no picture in play.

    PositionExplorer(model)                          # shows the widget
    PositionExplorer(model, size=(280, 392)).size    # the input that the positions are for; two-way, as all below
    explorer.to_html("positions.html")               # keeps working with no kernel

A table (DINOv2) is shown as channel images, a page at a time, beside the similarity of the position under the pointer
with all others, and the table's spectrum. Relative biases (BEiT, SwinV2) are shown as offset images of a block's heads,
with the query in the middle; the pointer moves the query, and the cut of the image that it sees is laid on the grid.

The kernel sends a table, or a block's biases, once for each size of input, in float32; the rest, similarity and the
spectra of channels included, is worked out in the browser.

Limit: weights that are changed later are shown as they were when a view asked; a new explorer shows them as they are.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import traitlets

import dpt
from probes.positions import PositionBiases, PositionTable, frequencies, offered_sizes, positions, strengths

from ...errors import InvalidTypeError, InvalidValueError
from ..attention import COLORMAPS, _within
from ..shared import pages
from ..shared.base import PAGE_LIMIT, Answer, ModelExplorer, Status, checked_model


class PositionExplorer(ModelExplorer):
    """Position tables by channel, or relative biases by block and head, for the position under the pointer.

    model: as `dpt.load` returns it. size: of the input in pixels, (height, width) or one number for a square; default:
    the one that the table, or the windows, were made for.

    Attributes (two-way: setting one moves the widget, using the widget changes it):

    size: (height, width). place: of the position, or query, on display while nothing is hovered, as fractions of the
    picture from its top left corner; `patch` is the same as (row, col). pinned: whether the pointer leaves it there.
    order: images by "index", "strength" (those that vary most first) or, of a table, "frequency" (slowest waves first).
    scale: "own" (each image to its own range) or "shared". colormap: viridis, cividis, magma or grey.
    first: place in that order of the first image shown.

    Tables: channel: an enlarged channel, None for none. view: "values" or "spectrum", what the images show. centred:
    whether the similarity is that of the vectors less their mean.
    Biases: block: int. head: the head laid on the grid and enlarged; -1 for the enlarged mean, None for the mean.

    Raises TypeError, ValueError, NotImplementedError or traitlets.TraitError.
    """

    _name = "positions"
    _esm = pages.script_of(_name)
    _css = pages.style_of(_name)

    size = traitlets.List(traitlets.Int(), minlen=2, maxlen=2).tag(sync=True, ui=True)
    place = traitlets.List(traitlets.Float(min=0.0, max=1.0), default_value=[0.5, 0.5], minlen=2, maxlen=2).tag(
        sync=True, ui=True
    )
    pinned = traitlets.Bool(False).tag(sync=True, ui=True)
    order = traitlets.Enum(("index", "strength", "frequency"), default_value="index").tag(sync=True, ui=True)
    scale = traitlets.Enum(("own", "shared"), default_value="own").tag(sync=True, ui=True)
    colormap = traitlets.Enum(COLORMAPS, default_value="viridis").tag(sync=True, ui=True)
    first = traitlets.Int(0, min=0).tag(sync=True, ui=True)
    channel = traitlets.Int(None, allow_none=True).tag(sync=True, ui=True)
    view = traitlets.Enum(("values", "spectrum"), default_value="values").tag(sync=True, ui=True)
    centred = traitlets.Bool(False).tag(sync=True, ui=True)
    block = traitlets.Int(0).tag(sync=True, ui=True)
    head = traitlets.Int(None, allow_none=True).tag(sync=True, ui=True)

    def __init__(self, model: dpt.DPT, size: int | tuple[int, int] | None = None, **controls: Any):
        known = sorted(name for name in self.class_trait_names(ui=True) if name != "size")
        if unknown := sorted(set(controls) - set(known) - {"layout"}):
            raise InvalidTypeError(f"PositionExplorer has no {', '.join(unknown)}; there are {', '.join(known)}")
        shown = positions(checked_model(model), size)  # says what was wrong with a size, before any widget stands
        self._sizes = list(dict.fromkeys([*offered_sizes(model), shown.size]))
        super().__init__(model, size=list(shown.size), **controls)
        self.observe(self._follow, "block")

    @property
    def patch(self) -> tuple[int, int]:
        span = self._span()
        row, col = (min(int(share * n), n - 1) for share, n in zip(self.place, (span.rows, span.cols), strict=True))
        return row, col

    @patch.setter
    def patch(self, patch: tuple[int, int]) -> None:
        span = self._span()
        span.token(*patch)  # IndexError where there is no such patch
        self.place = [(at + 0.5) / n for at, n in zip(patch, (span.rows, span.cols), strict=True)]

    def _span(self) -> dpt.TokenGrid:
        """The grid, or the window, whose positions are on display."""
        grid = self._model.token_grid(*self.size)
        at = self._model.config.block_grid(self.block, grid)
        return grid if at.window is None else dpt.TokenGrid(*at.window)

    @property
    def _biased(self) -> bool:
        return getattr(self._model.encoder, "positions", None) is None

    def _follow(self, _: object) -> None:
        """A head that the block does not have becomes the mean."""
        if self.head is not None and self.head >= self._model.config.block_heads(self.block):
            self.head = -1

    # ----------------------------------------------------------------------------------------------------- validation

    @traitlets.validate("size")
    def _check_size(self, proposal: Mapping[str, Any]) -> list[int]:
        size: list[int] = proposal["value"]
        try:
            self._model.token_grid(*size)
        except ValueError as error:
            raise traitlets.TraitError(f"size is {tuple(size)}: {error}") from error
        return size

    @traitlets.validate("block")
    def _check_block(self, proposal: Mapping[str, Any]) -> int:
        return _within("block", proposal["value"], 0, self._model.config.depth)

    @traitlets.validate("head")
    def _check_head(self, proposal: Mapping[str, Any]) -> int | None:
        value: int | None = proposal["value"]
        if value is None or self._biased:
            return None if value is None else _within("head", value, -1, self._model.config.block_heads(self.block))
        raise traitlets.TraitError("a position table has no heads; enlarge a channel: explorer.channel = 3")

    @traitlets.validate("channel")
    def _check_channel(self, proposal: Mapping[str, Any]) -> int | None:
        value: int | None = proposal["value"]
        if value is None or not self._biased:
            return None if value is None else _within("channel", value, 0, self._model.config.width)
        raise traitlets.TraitError("relative biases have no channels; enlarge a head: explorer.head = 3")

    @traitlets.validate("order", "view")
    def _check_for_tables(self, proposal: Mapping[str, Any]) -> str:
        value: str = proposal["value"]
        if self._biased and value in ("frequency", "spectrum"):
            raise traitlets.TraitError(f"{proposal['trait'].name} {value!r} is for position tables, not for biases")
        return value

    # -------------------------------------------------------------------------------------------------------- answers

    def _answer_about(self, request: Mapping[str, Any], status: Status) -> Answer:
        config = self._model.config
        sizes = list(dict.fromkeys([*self._sizes, tuple(self.size)]))
        message: dict[str, Any] = {
            "encoding": "bias" if self._biased else "table",
            "family": config.family,
            "variant": config.variant,
            "sizes": sizes,
            "native": self._sizes[0],
            "patch": config.patch_size,
            "blocks": config.depth if self._biased else 0,
        }
        return message, []

    def _answer_table(self, request: Mapping[str, Any], status: Status) -> Answer:
        size = self._size_in(request)
        status("Working out the table")
        found = positions(self._model, size)
        assert isinstance(found, PositionTable)
        images, spectrum = found.table.values, found.spectrum()
        count, rows, cols = images.shape
        message = {"height": size[0], "width": size[1], "count": count, "rows": rows, "cols": cols}
        parts = [
            images,
            found.table["class_token"].values,
            strengths(images),
            frequencies(spectrum),
            spectrum.mean("channel").values,
        ]
        return {**message, "stored": found.stored}, [_bytes(part) for part in parts]

    def _answer_bias(self, request: Mapping[str, Any], status: Status) -> Answer:
        size = self._size_in(request)
        block = _within("block", request.get("block"), 0, self._model.config.depth)
        found = positions(self._model, size)
        assert isinstance(found, PositionBiases)
        bias, span = found[block], found.span(block)
        message = {
            "height": size[0],
            "width": size[1],
            "block": block,
            "count": len(bias),
            "rows": span.rows,
            "cols": span.cols,
            "windowed": found.grid(block).window is not None,
            "shifted": any(found.grid(block).shift),
            "prefix": "class_to_class" in bias.coords,
        }
        parts = [bias.values, strengths(bias.values)]
        if message["prefix"]:
            names = ("class_to_patches", "patches_to_class", "class_to_class")
            parts.append(np.stack([bias[name].values for name in names], axis=1))
        return message, [_bytes(part) for part in parts]

    def _size_in(self, request: Mapping[str, Any]) -> tuple[int, int]:
        height, width = (_within(name, request.get(name), 1, 2**16) for name in ("height", "width"))
        return height, width

    # ----------------------------------------------------------------------------------------------------------- page

    def to_html(
        self,
        path: str | os.PathLike[str],
        sizes: Sequence[tuple[int, int]] | Literal["all"] | None = None,
        *,
        limit: int = PAGE_LIMIT,
    ) -> Path:
        """Writes a page that does what the widget does, with no kernel and no network; returns its path.

        sizes: the inputs whose positions are embedded, of all blocks; default the native one and the one on display,
        "all" for every one that the widget offers. The page starts in the widget's state. limit: bytes; ValueError,
        before anything is written, if the page would be larger.
        """
        own = (self.size[0], self.size[1])
        if sizes == "all":
            chosen = [*self._sizes, own]
        elif isinstance(sizes, str):
            raise InvalidValueError(f'sizes is a list of (height, width), "all", or None; not {sizes!r}')
        else:
            chosen = [self._sizes[0], own] if sizes is None else [(int(h), int(w)) for h, w in sizes]
        chosen = list(dict.fromkeys(chosen))
        if not chosen:
            raise InvalidValueError("sizes is empty; a page needs at least one")
        blocks = range(self._model.config.depth)
        total = sum(self._bytes_of(size) for size in chosen) * 4 // 3  # base64
        if total > limit:
            raise InvalidValueError(
                f"a page with positions for {len(chosen)} sizes takes {total / 2**20:.1f} MiB, above the limit of "
                f"{limit / 2**20:.1f} MiB; choose fewer or smaller sizes=, or raise limit="
            )
        requests: list[dict[str, Any]] = [{"kind": "about"}]
        for height, width in chosen:
            size = {"height": height, "width": width}
            if self._biased:
                requests += [{"kind": "bias", **size, "block": block} for block in blocks]
            else:
                requests.append({"kind": "table", **size})
        config = self._model.config
        state = {"size": list(own if own in chosen else chosen[0])}
        title = f"Positions of {config.family} {config.variant}"
        return self._write_page(path, title, requests, state, {"sizes": chosen})

    def _bytes_of(self, size: tuple[int, int]) -> int:
        config = self._model.config
        grid = self._model.token_grid(*size)
        if not self._biased:
            return 4 * (config.width + 1) * (grid.patches + 3)
        total = 0
        for block in range(config.depth):
            at = config.block_grid(block, grid)
            rows, cols = at.window or (at.rows, at.cols)
            total += 4 * config.block_heads(block) * ((2 * rows - 1) * (2 * cols - 1) + 4)
        return total


def _bytes(values: np.ndarray) -> bytes:
    """Little endian float32, row by row."""
    return np.ascontiguousarray(values, dtype="<f4").tobytes()
