"""The norm explorer: how long every token is in every block, which stand out, single channels, and which are alike.

    NormExplorer(model, image)                      # shows the widget
    NormExplorer(run["photo.jpg"])                  # the same of what a run has stored, with no model
    explorer.block = 5                              # moves its slider; explorer.k, .channel, .enlarged, ... likewise
    explorer.attention(direction="column")          # the attention explorer below it, on the token shown here
    explorer.to_html("norms.html", channels=[5])

The model runs once over the picture, when the first view asks. The norms of all blocks go to the browser together (12
blocks of 601 tokens are 29 kB); outliers, ranges and histograms are worked out there, so that no slider waits for the
kernel. The channels of one block are sent in fp16 when a view wants them, to show one or to work out similarities:
those follow the pointer.

Problem: "one click opens attention on that token" takes a second widget, which the first cannot make in the browser.
Approach: shown as the last line of a cell, the explorer is the first child of a box, and the attention explorer becomes
the second. Limits: inside a box of the user's own there is no such place; the click then says so, and `attention()`
returns the widget to show elsewhere.

Memory: the tokens of all blocks by reference, e.g. 0.14 GB for ViT-L at 518 pixels. Where that would pass
`MEMORY_BUDGET`, only the block whose channels are on display is kept, and each new one costs a pass that ends there.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import ipywidgets
import numpy as np
import torch
import traitlets
from jaxtyping import Float
from torch import Tensor

import dpt
import probes
from probes.tokens import K

from ...capture import NotCaptured
from ...errors import InvalidTypeError, InvalidValueError, UnavailableError
from ...runs.stored import StoredCapture
from ..attention import COLORMAPS, DIRECTIONS, MEMORY_BUDGET, AttentionExplorer, _within
from ..shared import pages
from ..shared.base import PAGE_LIMIT, Answer, Explorer, Status
from ..shared.packing import HALF_MAX

SCALES = ("block", "shared", "log")


class NormExplorer(Explorer):
    """Token norms of all blocks side by side; one of them enlarged, or a channel of it, or which of its patches are
    alike, with a histogram; outliers.

    source: a model as `dpt.load` returns it, or a picture of a run that holds "norms" or "tokens", e.g.
    ``run["photo.jpg"]``: no model is needed then; channels need "tokens", attention needs "attention". image: (H, W, 3)
    uint8, or anything `dpt.read_image` takes; of a run's picture only where its file is gone. block: the block chosen
    first, counted from 0 (default: two thirds down). size, keep_aspect: as for `model.predict`.

    Attributes (two-way: setting one moves the widget, using the widget changes it):

    block: the chosen block; its map lies over the picture. enlarged: whether it is also shown large, with a histogram.
    what: "norm", "channel" or "similarity", what is shown of the chosen block. channel: which; a block with fewer shows
    its last. Similarity is the cosine with the pinned token, or with the one under the pointer; centred: with what all
    patches have in common taken off first, as in `probes.tokens.similarity`.
    k: a patch is an outlier where its norm is above its block's median + k MADs; see `probes.tokens.threshold`.
    marks: whether outliers are outlined.
    token: the token on display while nothing is pinned or hovered, counted on the model's patch grid with prefix tokens
    (class token 0), also where a SwinV2 block has a coarser one; `patch` is the same as (row, col).
    pin: a token that stays on display, or None.
    scale: "block" (each map spans its own range), "shared" or "log" (shared, logarithmic).
    colormap: viridis, cividis, magma or grey. opacity: of the overlay, 0 to 1. base: "picture" or "depth".

    Raises TypeError, ImageError, ValueError, NotCaptured, StoreError or traitlets.TraitError, before anything is run.
    """

    _name = "norms"
    _esm = pages.script_of(_name)
    _css = pages.style_of(_name)

    block = traitlets.Int().tag(sync=True, ui=True)
    enlarged = traitlets.Bool(False).tag(sync=True, ui=True)
    what = traitlets.Enum(("norm", "channel", "similarity"), default_value="norm").tag(sync=True, ui=True)
    centred = traitlets.Bool(False).tag(sync=True, ui=True)
    channel = traitlets.Int(0).tag(sync=True, ui=True)
    k = traitlets.Float(K, min=0.0, max=1000.0).tag(sync=True, ui=True)
    marks = traitlets.Bool(True).tag(sync=True, ui=True)
    token = traitlets.Int().tag(sync=True, ui=True)
    pin = traitlets.Int(None, allow_none=True).tag(sync=True, ui=True)
    scale = traitlets.Enum(SCALES, default_value="block").tag(sync=True, ui=True)
    colormap = traitlets.Enum(COLORMAPS, default_value="viridis").tag(sync=True, ui=True)
    opacity = traitlets.Float(0.6, min=0.0, max=1.0).tag(sync=True, ui=True)
    base = traitlets.Enum(("picture", "depth"), default_value="picture").tag(sync=True, ui=True)
    _attending = traitlets.Bool(False).tag(sync=True)  # an attention explorer is below

    def __init__(
        self,
        source: dpt.DPT | StoredCapture,
        image: Any = None,
        block: int | None = None,
        *,
        size: int | tuple[int, int] | None = None,
        keep_aspect: bool = True,
        **controls: Any,
    ):
        if unknown := sorted(set(controls) - set(self.class_trait_names(ui=True)) - {"layout"}):
            known = ", ".join(sorted(self.class_trait_names(ui=True)))
            raise InvalidTypeError(f"NormExplorer has no {', '.join(unknown)}; there are {known}")
        self._norms: dict[int, Float[np.ndarray, " tokens"]] | None = None
        self._capture: probes.Capture | None = None
        self._attention: AttentionExplorer | None = None
        self._box: ipywidgets.VBox | None = None
        if block is not None:
            controls["block"] = block
        super().__init__(source, image, size=size, keep_aspect=keep_aspect, **controls)

    @traitlets.default("block")
    def _default_block(self) -> int:
        if not self._blocks:
            raise NotCaptured(self._subject.absent("norms"))
        return self._blocks[len(self._blocks) * 2 // 3]

    @property
    def _blocks(self) -> list[int]:
        """Those that have norms: as such, or worked out from their tokens."""
        return self._subject.blocks("norms", "tokens")

    @traitlets.default("token")
    def _default_token(self) -> int:
        return self._subject.grid.token(self._subject.grid.rows // 2, self._subject.grid.cols // 2)

    @property
    def patch(self) -> tuple[int, int] | None:
        return self._subject.grid.patch(self.token)

    @patch.setter
    def patch(self, place: tuple[int, int]) -> None:
        self.token = self._subject.grid.token(*place)

    # ----------------------------------------------------------------------------------------------------- validation

    @traitlets.validate("block")
    def _check_block(self, proposal: Mapping[str, Any]) -> int:
        block = _within("block", proposal["value"], 0, self._subject.config.depth)
        if block not in self._blocks:
            raise traitlets.TraitError(f"block {block} cannot be shown: {self._subject.absent('norms')}")
        return block

    @traitlets.validate("what")
    def _check_what(self, proposal: Mapping[str, Any]) -> str:
        if proposal["value"] != "norm" and not self._subject.blocks("tokens"):
            raise traitlets.TraitError(f'what cannot be "{proposal["value"]}": {self._subject.absent("tokens")}')
        return str(proposal["value"])

    @traitlets.validate("base")
    def _check_base(self, proposal: Mapping[str, Any]) -> str:
        return self._checked_base(proposal["value"])

    @traitlets.validate("channel")
    def _check_channel(self, proposal: Mapping[str, Any]) -> int:
        config = self._subject.config
        return _within("channel", proposal["value"], 0, max(map(config.block_width, range(config.depth))))

    @traitlets.validate("token")
    def _check_token(self, proposal: Mapping[str, Any]) -> int:
        return _within("token", proposal["value"], 0, self._subject.grid.tokens)

    @traitlets.validate("pin")
    def _check_pin(self, proposal: Mapping[str, Any]) -> int | None:
        value = proposal["value"]
        return None if value is None else _within("pin", value, 0, self._subject.grid.tokens)

    # -------------------------------------------------------------------------------------------------------- answers

    def _answer_picture(self, request: Mapping[str, Any], status: Status) -> Answer:
        """With the blocks that have norms, those that have channels, and those that have attention."""
        message, parts = super()._answer_picture(request, status)
        held = {"channels": self._subject.blocks("tokens"), "attention": self._subject.blocks("attention")}
        if len(self._blocks) < self._subject.config.depth:
            message["absent"]["norms"] = self._subject.absent("norms")
        return {**message, "blocks": self._blocks, **held}, parts

    def _answer_norms(self, request: Mapping[str, Any], status: Status) -> Answer:
        """The norms of all blocks, one after the other, float32; `blocks` has each one's (rows, cols, channels)."""
        if self._norms is None:
            self._run(status)
        assert self._norms is not None
        config = self._subject.config
        grids = {block: config.block_grid(block, self._subject.grid) for block in self._norms}
        for block, values in self._norms.items():
            if not np.isfinite(values).all():
                raise InvalidValueError(
                    f"tokens of block {block} hold NaN or infinity; the model overflowed on this picture. A model in "
                    "half precision may not do so in float32 (model.float())"
                )
        message = {
            "prefix": self._subject.grid.prefix,
            "numbers": list(grids),
            "blocks": [(grid.rows, grid.cols, config.block_width(block)) for block, grid in grids.items()],
        }
        return message, [np.concatenate(list(self._norms.values())).astype("<f4").tobytes()]

    def _answer_tokens(self, request: Mapping[str, Any], status: Status) -> Answer:
        """A block's channels, each one's tokens in a run: (channels, tokens) fp16, to be multiplied by `unit`."""
        block = _within("block", request.get("block"), 0, self._subject.config.depth)
        values = self._tokens(block, status)
        top = float(values.abs().max())
        if not math.isfinite(top):
            raise InvalidValueError(
                f"tokens of block {block} hold NaN or infinity; the model overflowed on this picture"
            )
        unit = 2.0 ** max(0, math.ceil(math.log2(top / HALF_MAX))) if top else 1.0
        half = (values / unit).half().T.contiguous().cpu().numpy()
        return {"block": block, "channels": len(half), "tokens": half.shape[1], "unit": unit}, [half.tobytes()]

    def _answer_attention(self, request: Mapping[str, Any], status: Status) -> Answer:
        if self._box is None:
            raise UnavailableError(
                "there is no room below this widget for another, as it was not shown by a cell of its own; show "
                "explorer.attention() instead"
            )
        status("Opening the attention explorer")
        self.attention(request.get("token"), request.get("direction", "column"), block=request.get("block"))
        return {}, []

    def _answer_close(self, request: Mapping[str, Any], status: Status) -> Answer:
        """Takes the attention explorer away again, and its captures with it."""
        if self._box is not None:
            self._box.children = (self,)
        if self._attention is not None:
            self._attention.close()
            self._attention = None
        self._attending = False
        return {}, []

    def _run(self, status: Status) -> None:
        subject = self._subject
        config, grid = subject.config, subject.grid
        tokens = subject.names("tokens")
        numbers = sum(config.block_grid(b, grid).tokens * config.block_width(b) for b in subject.blocks("tokens"))
        fits = subject.itemsize * numbers <= MEMORY_BUDGET
        self._capture = subject.capture(*subject.names("norms"), *(tokens if fits else []), status=status)
        self._norms = {block: self._norms_of(block, status).float().cpu().numpy() for block in self._blocks}

    def _norms_of(self, block: int, status: Status) -> Float[Tensor, " tokens"]:
        """After `_run` began: as captured, or from the tokens of a run that holds only these."""
        assert self._capture is not None
        name = f"encoder.blocks.{block}.norms"
        if name in self._capture:
            norms: Tensor = self._capture[name][0]
            return norms
        return self._tokens(block, status).norm(dim=-1)

    def _tokens(self, block: int, status: Status) -> Float[Tensor, "tokens channels"]:
        """A block's output, from the one pass that all blocks share, or from one of its own."""
        name = f"encoder.blocks.{block}.tokens"
        if self._capture is None:
            self._run(status)
        assert self._capture is not None
        if name not in self._capture:
            self._capture = None  # frees the block before
            self._capture = self._subject.capture(name, status=status, until=name)
        tokens: Tensor = self._capture[name][0]
        return tokens.detach().to(torch.float32)

    # ------------------------------------------------------------------------------------------------------ attention

    def attention(
        self,
        token: int | None = None,
        direction: Literal["row", "column"] = "column",
        *,
        block: int | None = None,
    ) -> AttentionExplorer:
        """The attention explorer of the same model and picture, moved to a token and a block; returns it.

        It appears below this widget, where that was shown by a cell of its own. There is one: called again, it moves.
        token: as `NormExplorer.token`; default the pinned one, else the one on display. direction: "column" (who looks
        at it) or "row" (what it looks at). block: default the chosen one.
        """
        if direction not in DIRECTIONS:
            raise InvalidValueError(
                f"direction is {direction!r}; use 'row' (what it looks at) or 'column' (who looks at it)"
            )
        shown = self.token if self.pin is None else self.pin
        token = shown if token is None else _within("token", token, 0, self._subject.grid.tokens)
        block = self.block if block is None else _within("block", block, 0, self._subject.config.depth)
        if self._attention is None:
            if not self._subject.blocks("attention"):
                raise NotCaptured(self._subject.absent("attention"))
            self._attention = AttentionExplorer(self._subject, block=block, colormap=self.colormap)
        explorer = self._attention
        # Without pins while blocks change: they are tokens of the old block's grid.
        explorer.pins = []
        explorer.block = block
        place = self._subject.grid.patch(token)
        if place is None:
            explorer.token = token
        else:
            grid = self._subject.config.block_grid(block, self._subject.grid)
            # The patch that holds the other's centre; in half patches, nothing is rounded.
            row = (2 * place[0] + 1) * grid.rows // (2 * self._subject.grid.rows)
            col = (2 * place[1] + 1) * grid.cols // (2 * self._subject.grid.cols)
            explorer.token = grid.token(row, col)
        explorer.direction = direction
        explorer.pins = [explorer.token]  # the tiles stay on it while the pointer passes
        if self._box is not None:
            self._box.children = (self, explorer)
            self._attending = True
        return explorer

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        if self._box is None:
            self._box = ipywidgets.VBox([self] if self._attention is None else [self, self._attention])
            self._box.layout.overflow = "visible"  # outlines of focus are wider than the widget
            self._attending = self._attention is not None
        return self._box._repr_mimebundle_(**kwargs)

    # ----------------------------------------------------------------------------------------------------------- page

    def to_html(
        self,
        path: str | os.PathLike[str],
        channels: Sequence[int] | Literal["all"] = (),
        *,
        limit: int = PAGE_LIMIT,
    ) -> Path:
        """Writes a page that does what the widget does, with no kernel and no network; returns its path.

        Norms of all blocks and everything that follows from them are in it. channels: blocks whose channels are, too,
        and with them similarities; default none, "all" for every one. Attention is not: `attention().to_html()` writes
        a page of it.
        limit: bytes; ValueError, before anything is written, if the page would be larger.
        """
        config = self._subject.config
        held = self._subject.blocks("tokens")
        chosen = held if isinstance(channels, str) and channels == "all" else channels
        if isinstance(chosen, str | int):
            raise InvalidValueError(f'channels is a list of block numbers or "all", not {channels!r}')
        chosen = sorted({_within("block", block, 0, config.depth) for block in chosen})
        if not set(chosen) <= set(held):
            raise InvalidValueError(f"channels={channels!r} cannot be written: {self._subject.absent('tokens')}")
        grids = [config.block_grid(block, self._subject.grid) for block in chosen]
        numbers = sum(grid.tokens * config.block_width(block) for block, grid in zip(chosen, grids, strict=True))
        total = 2 * numbers * 4 // 3  # fp16 in base64
        if total > limit:
            raise InvalidValueError(
                f"a page with the channels of {len(chosen)} blocks takes {total / 2**20:.1f} MiB, above the limit of "
                f"{limit / 2**20:.1f} MiB; choose fewer blocks, a smaller size=, or raise limit="
            )
        requests: list[dict[str, Any]] = [{"kind": "picture"}, {"kind": "norms"}]
        requests += [{"kind": "tokens", "block": block} for block in chosen]
        if not self._subject.absent("depth"):
            requests.append({"kind": "depth"})  # after the norms: their pass has it already
        state: dict[str, Any] = {"_attending": False}
        if self.what != "norm" and self.block not in chosen:
            state["what"] = "norm"
        title = f"Token norms of {config.family} {config.variant}"
        return self._write_page(path, title, requests, state, {"page": True, "channels": chosen})
