"""The attention explorer: a picture, the patch under the pointer, and what every head of a block does there.

    AttentionExplorer(model, image)                 # shows the widget
    AttentionExplorer(run["photo.jpg"])             # the same of what a run has stored, with no model
    explorer.block = 5                              # moves its slider; explorer.pins, .direction, ... likewise
    explorer.to_html("attention.html", blocks="all")

The model runs once over the picture, when the first view asks; of a run's picture, blocks are read instead. Queries and
keys stay, by reference, for as long as the explorer lives; a block is packed (fp16, see `packing`) and sent when a view
wants it. What the pointer does then is computed in the browser from the packed block: its rows are within a few
thousandths of the exact ones (relative), and `probes.capture` gives the exact ones; "Copy Python" in the widget writes
that code, or the code that reads them from the run.

Tokens and heads are those of the block on display. Where the grid shrinks from stage to stage (SwinV2), a change of
block takes the token and the pins along: to the patch of the new grid that holds the old patch's centre (the one below
and to the right, if the centre lies between patches). The browser remembers where they came from, so that its slider
leads there and back to the same patch. Attention in windows is shown on the block's whole grid; the window of a patch
is outlined, and where a shifted window hangs over the border, solid around the piece that the patch can see.

Memory: what the queries, keys and (in the same storage) values of all blocks take, e.g. 0.4 GB for ViT-L at 518 pixels.
Where that would pass `MEMORY_BUDGET`, only the block on display is kept, and each new one costs a pass that ends there.

Limit: a bias that is neither none nor an `OffsetBias`, as no model of ours has, is refused.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import traitlets

import dpt
import probes
from dpt import TokenGrid
from dpt.attention import OffsetBias

from ...capture import NotCaptured
from ...errors import InvalidTypeError, InvalidValueError
from ...runs.stored import StoredCapture
from ..shared import pages
from ..shared.base import PAGE_LIMIT, Answer, Explorer, Status
from ..shared.packing import pack_attention, packed_bytes
from ..shared.subject import Subject

MEMORY_BUDGET = 2 * 2**30

DIRECTIONS = ("row", "column")
SCALES = ("head", "shared", "log")
COLORMAPS = ("viridis", "cividis", "magma", "grey")


class AttentionExplorer(Explorer):
    """Attention of every head of a block, for the patch under the pointer.

    source: a model as `dpt.load` returns it, or a picture of a run that holds "attention", e.g. ``run["photo.jpg"]``:
    no model is needed then, and the blocks are those that were captured. image: (H, W, 3) uint8, or anything
    `dpt.read_image` takes; of a run's picture only where its file is gone. block: the block shown first, counted from 0
    (default: two thirds down). size, keep_aspect: as for `model.predict`.

    Attributes (two-way: setting one moves the widget, using the widget changes it):

    block: int. direction: "row" (what the patch looks at: query -> keys) or "column" (who looks at it: key <- queries).
    token: the token on display while nothing is pinned or hovered, counted on the block's grid, prefix tokens first
    (class token 0); `patch` is the same as (row, col), None for a prefix token.
    pins: up to two tokens, A and B. compare: "a", "b" or "difference", what is shown while something is pinned.
    Both follow a change of block to another grid; pins that meet on one patch there become one.
    head: an enlarged head, -1 for the mean, None for none; a head that the next block does not have becomes the mean.
    order: heads by "index" or by "entropy", most focused first.
    scale: "head" (each tile to its own largest patch), "shared" or "log" (shared, four decades).
    colormap: viridis, cividis, magma or grey. opacity: of the overlay, 0 to 1. base: "picture" or "depth".

    Raises TypeError, ImageError, ValueError, NotCaptured, StoreError or traitlets.TraitError, before anything is run.
    """

    _name = "attention"
    _esm = pages.script_of(_name)
    _css = pages.style_of(_name)

    block = traitlets.Int().tag(sync=True, ui=True)
    direction = traitlets.Enum(DIRECTIONS, default_value="row").tag(sync=True, ui=True)
    token = traitlets.Int().tag(sync=True, ui=True)
    pins = traitlets.List(traitlets.Int(), maxlen=2).tag(sync=True, ui=True)
    compare = traitlets.Enum(("a", "b", "difference"), default_value="a").tag(sync=True, ui=True)
    head = traitlets.Int(None, allow_none=True).tag(sync=True, ui=True)
    order = traitlets.Enum(("index", "entropy"), default_value="index").tag(sync=True, ui=True)
    scale = traitlets.Enum(SCALES, default_value="head").tag(sync=True, ui=True)
    colormap = traitlets.Enum(COLORMAPS, default_value="viridis").tag(sync=True, ui=True)
    opacity = traitlets.Float(0.6, min=0.0, max=1.0).tag(sync=True, ui=True)
    base = traitlets.Enum(("picture", "depth"), default_value="picture").tag(sync=True, ui=True)

    # The block on whose grid token and pins count: the same as `block`, but for the moment of a change. Whoever changes
    # the block, Python or a view, moves the tokens and sets this in one go; so neither moves them a second time.
    _placed = traitlets.Int().tag(sync=True, ui=True)

    def __init__(
        self,
        source: dpt.DPT | StoredCapture | Subject,
        image: Any = None,
        block: int | None = None,
        *,
        size: int | tuple[int, int] | None = None,
        keep_aspect: bool = True,
        **controls: Any,
    ):
        known = sorted(name for name in self.class_trait_names(ui=True) if not name.startswith("_"))
        if unknown := sorted(set(controls) - set(known) - {"layout"}):
            raise InvalidTypeError(f"AttentionExplorer has no {', '.join(unknown)}; there are {', '.join(known)}")
        self._capture: probes.Capture | None = None
        if block is not None:
            controls["block"] = block
        super().__init__(source, image, size=size, keep_aspect=keep_aspect, **controls)
        self._placed = self.block
        self.observe(self._follow, "block")

    @traitlets.default("block")
    def _default_block(self) -> int:
        blocks = self._subject.blocks("attention")
        if not blocks:
            raise NotCaptured(self._subject.absent("attention"))
        return blocks[len(blocks) * 2 // 3]

    @traitlets.default("token")
    def _default_token(self) -> int:
        grid = self._grid_of(self.block)
        return grid.token(grid.rows // 2, grid.cols // 2)

    @traitlets.default("_placed")
    def _default_placed(self) -> int:
        return self.block

    @property
    def patch(self) -> tuple[int, int] | None:
        return self._grid_of(self.block).patch(self.token)

    @patch.setter
    def patch(self, place: tuple[int, int]) -> None:
        self.token = self._grid_of(self.block).token(*place)

    def _grid_of(self, block: int) -> TokenGrid:
        return self._subject.config.block_grid(block, self._subject.grid)

    def notify_change(self, change: Any) -> None:
        if change["name"] != "block":
            super().notify_change(change)
            return
        with self.hold_sync():  # a block and what follows in one message: no view has tokens of one grid on another
            super().notify_change(change)

    def _follow(self, _: object) -> None:
        """After a change of block: what goes with it, unless a view that made the change has seen to that."""
        if self._placed != self.block:
            for name, value in self._moved_to(self.block).items():
                setattr(self, name, value)

    def _moved_to(self, block: int) -> dict[str, Any]:
        """The traits that another block changes: tokens on its grid, a head that it has."""
        before, after = self._grid_of(self._placed), self._grid_of(block)
        pins = list(dict.fromkeys(_moved(pin, before, after) for pin in self.pins))
        moved = {"_placed": block, "token": _moved(self.token, before, after), "pins": pins}
        if len(pins) < len(self.pins):
            moved["compare"] = "a"
        if self.head is not None and self.head >= self._subject.config.block_heads(block):
            moved["head"] = -1
        return moved

    # ----------------------------------------------------------------------------------------------------- validation

    def _block(self, value: Any) -> int:
        """A block's number; TraitError for one that does not exist or was not captured."""
        block = _within("block", value, 0, self._subject.config.depth)
        if block not in self._subject.blocks("attention"):
            raise traitlets.TraitError(f"block {block} cannot be shown: {self._subject.absent('attention')}")
        return block

    def _checked_block(self) -> int:
        """For the checks of what depends on the block: those of several traits set at once run in no order."""
        return self._block(self.block)

    @traitlets.validate("block", "_placed")
    def _check_block(self, proposal: Mapping[str, Any]) -> int:
        return self._block(proposal["value"])

    @traitlets.validate("base")
    def _check_base(self, proposal: Mapping[str, Any]) -> str:
        return self._checked_base(proposal["value"])

    @traitlets.validate("token")
    def _check_token(self, proposal: Mapping[str, Any]) -> int:
        return _within("token", proposal["value"], 0, self._grid_of(self._checked_block()).tokens)

    @traitlets.validate("pins")
    def _check_pins(self, proposal: Mapping[str, Any]) -> list[int]:
        tokens = self._grid_of(self._checked_block()).tokens
        pins = [_within("a pinned token", pin, 0, tokens) for pin in proposal["value"]]
        if len(set(pins)) != len(pins):
            raise traitlets.TraitError(f"pins must be two different tokens, not {pins}")
        return pins

    @traitlets.validate("head")
    def _check_head(self, proposal: Mapping[str, Any]) -> int | None:
        value = proposal["value"]
        if value is None:
            return None
        return _within("head", value, -1, self._subject.config.block_heads(self._checked_block()))

    # -------------------------------------------------------------------------------------------------------- answers

    def _answer_picture(self, request: Mapping[str, Any], status: Status) -> Answer:
        """With what a view must know of a block before its data comes: (heads, rows, cols) of each."""
        message, parts = super()._answer_picture(request, status)
        grids = [self._grid_of(block) for block in range(self._subject.config.depth)]
        heads = [self._subject.config.block_heads(block) for block in range(self._subject.config.depth)]
        shapes = [(n, grid.rows, grid.cols) for n, grid in zip(heads, grids, strict=True)]
        return {**message, "shapes": shapes, "blocks": self._subject.blocks("attention")}, parts

    def _answer_block(self, request: Mapping[str, Any], status: Status) -> Answer:
        block = self._block(request.get("block"))
        maps = self._maps(block, status)
        grid, bias = maps.grid, maps.bias
        # A view tells shifted windows from their geometry alone, and hides there what `bias.bands` hides here.
        masked = isinstance(bias, OffsetBias) and bias.bands is not None
        if not (bias is None or isinstance(bias, OffsetBias)) or masked != any(grid.shift):
            raise NotImplementedError(
                f"{maps.name} adds a bias or a mask that does not follow from offsets and windows alone, which this "
                "explorer cannot show; probes.capture has its exact rows"
            )
        status(f"Packing block {block}")
        # (windows, heads, T, d) -> (heads, tokens window by window, d)
        q, k = (tensor.transpose(0, 1).flatten(1, 2) for tensor in (maps.q, maps.k))
        packed = pack_attention(q, k, maps.scale, bias, windows=len(maps.q))
        heads, tokens, dim = packed.q.shape
        message: dict[str, Any] = {
            "block": block,
            "heads": heads,
            "tokens": tokens,
            "dim": dim,
            "rows": grid.rows,
            "cols": grid.cols,
            "prefix": grid.prefix,
            "entropy": packed.entropy,
        }
        if grid.window is not None:
            message |= {"window": grid.window, "shift": grid.shift}
        if bias is not None:
            message["biased"] = True
        return message, packed.parts()

    def _maps(self, block: int, status: Status) -> probes.AttentionMaps:
        """The block's queries and keys, from the one pass that all blocks share, or from one of its own."""
        name = f"encoder.blocks.{block}.attention"
        if self._capture is None or name not in self._capture:
            everything = self._all_blocks_bytes() <= MEMORY_BUDGET
            self._capture = None  # frees the block before
            names = self._subject.names("attention") if everything else [name]
            until = None if everything else name
            self._capture = self._subject.capture(*names, status=status, until=until)
        maps = self._capture[name]
        assert isinstance(maps, probes.AttentionMaps)
        return maps

    def _all_blocks_bytes(self) -> int:
        """q, k and v of all blocks: one storage a block, kept alive as a whole. (Cosine attention and runs lack v.)"""
        config, blocks = self._subject.config, self._subject.blocks("attention")
        numbers = sum(self._grid_of(block).tokens * config.block_width(block) for block in blocks)
        return 3 * self._subject.itemsize * numbers

    def _packed_bytes(self, block: int) -> int:
        config = self._subject.config
        heads = config.block_heads(block)
        dim = config.block_width(block) // heads
        return packed_bytes(heads, self._grid_of(block), dim, self._subject.biased(block))

    # ----------------------------------------------------------------------------------------------------------- page

    def to_html(
        self,
        path: str | os.PathLike[str],
        blocks: int | Sequence[int] | Literal["all"] | None = None,
        *,
        limit: int = PAGE_LIMIT,
    ) -> Path:
        """Writes a page that does what the widget does, with no kernel and no network; returns its path.

        blocks: those to embed; default the one on display, "all" for every one. The page starts in the widget's state.
        limit: bytes; ValueError, before anything is written, if the page would be larger.
        """
        held = self._subject.blocks("attention")
        if blocks is None or isinstance(blocks, int):
            chosen = [self.block if blocks is None else blocks]
        else:
            chosen = list(held if blocks == "all" else blocks)
        if not chosen or (isinstance(blocks, str) and blocks != "all"):
            raise InvalidValueError(
                f'blocks is a list of block numbers, "all", or None for the one shown; not {blocks!r}'
            )
        chosen = sorted({self._block(block) for block in chosen})
        config = self._subject.config
        total = sum(map(self._packed_bytes, chosen)) * 4 // 3  # base64
        if total > limit:
            counts = {self._grid_of(block).tokens for block in chosen}
            tokens = f"up to {max(counts)}" if len(counts) > 1 else max(counts)
            raise InvalidValueError(
                f"a page with {len(chosen)} blocks of {tokens} tokens takes {total / 2**20:.1f} MiB, above the limit "
                f"of {limit / 2**20:.1f} MiB; choose fewer blocks, a smaller size=, or raise limit="
            )
        requests: list[dict[str, Any]] = [{"kind": "picture"}]
        requests += [{"kind": "block", "block": block} for block in chosen]
        if not self._subject.absent("depth"):
            requests.append({"kind": "depth"})  # after the blocks: their pass has it already
        shown = self.block if self.block in chosen else chosen[0]
        title = f"Attention of {config.family} {config.variant}, block {shown}"
        state = {"block": shown, **self._moved_to(shown)}
        return self._write_page(path, title, requests, state, {"blocks": chosen})


def _moved(token: int, before: TokenGrid, after: TokenGrid) -> int:
    """The token of another grid over the same picture that holds this one's centre; prefix tokens stay."""
    place = before.patch(token)
    if place is None:
        return token
    # Centres are halves of a patch: whole numbers of half patches divide without rounding, as in the browser.
    row = (2 * place[0] + 1) * after.rows // (2 * before.rows)
    col = (2 * place[1] + 1) * after.cols // (2 * before.cols)
    return after.token(row, col)


def _within(what: str, value: Any, first: int, stop: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = first - 1
    if isinstance(value, bool) or not first <= number < stop:
        raise traitlets.TraitError(f"{what} must be a whole number from {first} to {stop - 1}, not {value!r}")
    return number
