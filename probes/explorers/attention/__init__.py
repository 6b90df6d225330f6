"""The attention explorer: what every head of a block does at the patch under the pointer.

    AttentionExplorer(model, image)                 # shows the widget
    AttentionExplorer(run["photo.jpg"])             # shows what a run has stored, without a model
    explorer.block = 5                              # moves the slider; the other controls work the same way
    explorer.to_html("attention.html", blocks="all")

This folder holds the widget: `AttentionExplorer` in this module, `data` (capturing and encoding blocks) and its
JavaScript. The encoding itself is in `shared.packing`; exact rows come from `probes.capture`.

The model runs once, when the first view asks; for an image of a run, blocks are read from disk. The explorer keeps
references to queries and keys. It packs a block in fp16 and sends it when a view needs it. The browser then computes
rows and columns for each pointer move. They agree with the exact rows to a few thousandths (relative). "Copy Python" in
the widget writes code for the exact ones.

Tokens and heads belong to the current block. Where the grid shrinks from stage to stage (SwinV2), a change of block
moves the token and the pins to the patch of the new grid that contains the centre of the old patch (the lower right
patch if the centre lies on a border). The browser remembers the start, so moving the slider there and back returns to
the same patch. Windowed attention is shown on the block's whole grid with the window outlined. If a shifted window
wraps around the border, the outline is solid around the part that the patch can see.

Memory: queries, keys and values of all blocks, e.g. 0.4 GB for ViT-L at 518 pixels (see `data` for larger ones).

Limit: biases other than `OffsetBias` are refused. None of the supported models has one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, SupportsIndex, TypeAlias

import numpy as np
import traitlets
from torch import Tensor

import dpt
from dpt import TokenGrid
from dpt.image import Size

from ...captured import NotCaptured
from ...errors import InvalidValueError
from ...runs.stored import StoredCapture
from ...scalars import whole, wholes
from ..shared import pages
from ..shared.answering import Answer, Request
from ..shared.attributes import Derived
from ..shared.base import Explorer
from ..shared.controls import BASES, COLORMAPS, DIRECTIONS, ControlError, Items, Proposal, Real, Whole, whole_number
from ..shared.progress import Status, silent
from ..shared.replacing import central_token, moved_token, moved_tokens, token_of
from ..shared.subject import ImageLike, Subject
from ..shared.summary import Summary, block_words, image_words, token_words
from . import picture
from .data import BlockAttention

Blocks: TypeAlias = SupportsIndex | Sequence[SupportsIndex] | np.ndarray | Tensor | Literal["all"] | None
"""Numbers of the blocks that a page holds; None for the current one."""

COMPARISONS = ("a", "b", "difference")
ORDERS = ("index", "entropy")
SCALES = ("head", "shared", "log")


class AttentionExplorer(Explorer):
    """Shows the attention of every head of a block for the patch under the pointer.

    All attributes are two-way: setting one moves the widget, and using the widget changes it. Each is also a keyword
    argument.

    Args:
        source: A model from `dpt.load`, or an image of a run that holds "attention", e.g. ``run["photo.jpg"]``. A run
            needs no model and offers the captured blocks.
        image: (H, W, 3) uint8, or anything `dpt.read_image` takes. For an image of a run, only needed if its file is
            gone.
        block: Number of the first block to show, counted from 0. Default: two thirds down.
        size: Input size, as for `model.predict`.
        keep_aspect: As for `model.predict`.
        **controls: Initial values of the attributes below.

    Attributes:
        block (int): The current block.
        direction (str): "row" (what the patch looks at: query -> keys) or "column" (who looks at it: key <- queries).
        token (int): The token shown while nothing is pinned or hovered. It counts on the block's grid, prefix tokens
            first (class token 0).
        pins (list[int]): Up to two tokens, A and B. A change of block moves them to the new grid. Pins that meet on one
            patch become one.
        compare (str): What is shown while something is pinned: "a", "b" or "difference".
        head (int | None): The enlarged head; -1 for the mean, None for none. If the next block lacks the head, the mean
            replaces it.
        order (str): Order of the heads: "index" or "entropy" (most focused first).
        scale (str): "head" (each tile spans its own range), "shared" or "log" (shared, four decades).
        colormap (str): "viridis", "cividis", "magma" or "grey".
        opacity (float): Opacity of the overlay, 0 to 1.
        base (str): What lies under the overlay: "picture" or "depth".

    Raises:
        InvalidTypeError: `source` is neither a model nor an image of a run (also a TypeError).
        dpt.ImageError: The image is not usable (also a ValueError).
        InvalidValueError: The model cannot take the size, or the image is not the captured one (also a ValueError).
        NotCaptured: The run holds no attention.
        StoreError: The run's image cannot be read.
        UnknownControlError: A keyword argument is not an attribute (also a TypeError).
        ControlError: An attribute does not accept its value (also a traitlets.TraitError).

    Example:
        explorer = AttentionExplorer(model, image, block=7, direction="column")
        explorer.pins = [explorer.token]
        explorer                                # the last line of a cell
    """

    _name = "attention"
    _esm = pages.script_of(_name)
    _css = pages.style_of(_name)

    block = Whole().tag(sync=True, ui=True)
    direction = traitlets.Enum(DIRECTIONS, default_value="row").tag(sync=True, ui=True)
    token = Whole().tag(sync=True, ui=True)
    pins = Items(Whole(), maxlen=2).tag(sync=True, ui=True)
    compare = traitlets.Enum(COMPARISONS, default_value="a").tag(sync=True, ui=True)
    head = Whole(None, allow_none=True).tag(sync=True, ui=True)
    order = traitlets.Enum(ORDERS, default_value="index").tag(sync=True, ui=True)
    scale = traitlets.Enum(SCALES, default_value="head").tag(sync=True, ui=True)
    colormap = traitlets.Enum(COLORMAPS, default_value="viridis").tag(sync=True, ui=True)
    opacity = Real(0.6, min=0.0, max=1.0).tag(sync=True, ui=True)
    base = traitlets.Enum(BASES, default_value="picture").tag(sync=True, ui=True)

    # The block whose grid `token` and `pins` count on. It differs from `block` only during a change. Whoever changes
    # the block (Python or a view) moves the tokens and sets this in one step, so the other side does not move them too.
    _placed = Whole().tag(sync=True, ui=True)

    def __init__(
        self,
        source: dpt.DPT | StoredCapture | Subject,
        image: ImageLike | None = None,
        block: SupportsIndex | None = None,
        *,
        size: Size = None,
        keep_aspect: bool = True,
        **controls: Any,
    ):
        if block is not None:
            controls["block"] = block
        super().__init__(source, image, size=size, keep_aspect=keep_aspect, **controls)
        self._placed = self.block
        self.observe(self._move_tokens, "block")

    @property
    def _attention(self) -> BlockAttention:
        return BlockAttention(self._subject)

    @traitlets.default("block")
    def _default_block(self) -> int:
        blocks = self._subject.blocks("attention")
        if not blocks:
            raise NotCaptured(self._subject.absent("attention"))
        return blocks[len(blocks) * 2 // 3]

    @traitlets.default("token")
    def _default_token(self) -> int:
        return central_token(self._grid_of(self.block))

    @traitlets.default("_placed")
    def _default_placed(self) -> int:
        return self.block

    patch = Derived[tuple[int, int] | None](
        lambda self: self._grid_of(self.block).patch(self.token),
        lambda self, place: self._show_patch(place),
        "token",
        "block",
        help="(row, col) of `token` on the block's grid, or None for a prefix token. Can be set.",
    ).tag(sync=True, last=True)

    def _show_patch(self, place: object) -> None:
        self.token = token_of("patch", self._grid_of(self.block), place)

    def _grid_of(self, block: int) -> TokenGrid:
        return self._subject.config.block_grid(block, self._subject.grid)

    def _controls_for(self, subject: Subject) -> dict[str, object]:
        available = subject.blocks("attention")
        if not available:
            raise NotCaptured(subject.absent("attention"))
        block = self.block if self.block in available else available[len(available) * 2 // 3]
        before, after = self._grid_of(self.block), subject.config.block_grid(block, subject.grid)
        token, pins = moved_token(before, after, self.token), moved_tokens(before, after, self.pins)
        controls: dict[str, object] = {"_placed": block, "block": block, "pins": pins}
        controls["token"] = central_token(after) if token is None else token
        if len(pins) < len(self.pins):
            controls["compare"] = "a"
        if self.head is not None and self.head >= subject.config.block_heads(block):
            controls["head"] = -1
        if self.base == "depth" and subject.absent("depth"):
            controls["base"] = "picture"
        return controls

    def show_token(self, token: SupportsIndex, grid: TokenGrid) -> None:
        """Shows and pins a token that counts on another grid over the same image.

        Args:
            token: The token's number on `grid`.
            grid: The grid that the token belongs to.
        """
        self.token = grid.token_in(self._grid_of(self.block), whole(token, "token"))
        self.pins = [self.token]  # keeps the tiles on this token while the pointer passes

    # ------------------------------------------------------------------------------------------------ changes of block

    def notify_change(self, change: Any) -> None:  # traitlets' Bunch
        if change["name"] != "block":
            super().notify_change(change)
            return
        # One message for the block and all that follows from it: no view may see tokens of one grid on another.
        with self.hold_sync():
            super().notify_change(change)

    def _move_tokens(self, _: object) -> None:
        """Moves tokens and head to the new block, unless the view that changed the block has done so."""
        if self._placed != self.block:
            for name, value in self._moved_to(self.block).items():
                setattr(self, name, value)

    def _moved_to(self, block: int) -> dict[str, object]:
        """The traits that change with the block: tokens on its grid, and a head that it has."""
        before, after = self._grid_of(self._placed), self._grid_of(block)
        pins = list(dict.fromkeys(before.token_in(after, pin) for pin in self.pins))
        moved: dict[str, object] = {"_placed": block, "token": before.token_in(after, self.token), "pins": pins}
        if len(pins) < len(self.pins):
            moved["compare"] = "a"
        if self.head is not None and self.head >= self._subject.config.block_heads(block):
            moved["head"] = -1
        return moved

    # ----------------------------------------------------------------------------------------------------- validation

    def _available_block(self, value: object) -> int:
        """Number of a block that has attention; else a ControlError."""
        block = whole_number("block", value, 0, self._subject.config.depth)
        available = self._subject.blocks("attention")
        if block not in available:
            why = f"block {block} cannot be shown: {self._subject.absent('attention')}"
            raise ControlError("block", block, f"one of {available}", why)
        return block

    def _checked_block(self) -> int:
        """The block, checked: traitlets validates traits that are set together in no particular order."""
        return self._available_block(self.block)

    @traitlets.validate("block", "_placed")
    def _check_block(self, proposal: Proposal) -> int:
        return self._available_block(proposal["value"])

    @traitlets.validate("base")
    def _check_base(self, proposal: Proposal) -> str:
        return self._checked_base(proposal["value"])

    @traitlets.validate("token")
    def _check_token(self, proposal: Proposal) -> int:
        return whole_number("token", proposal["value"], 0, self._grid_of(self._checked_block()).tokens)

    @traitlets.validate("pins")
    def _check_pins(self, proposal: Proposal) -> list[int]:
        tokens = self._grid_of(self._checked_block()).tokens
        pins: list[int] = proposal["value"]
        if len(set(pins)) != len(pins) or not all(0 <= pin < tokens for pin in pins):
            raise ControlError("pins", pins, f"up to two different tokens from 0 to {tokens - 1}")
        return pins

    @traitlets.validate("head")
    def _check_head(self, proposal: Proposal) -> int | None:
        value = proposal["value"]
        if value is None:
            return None
        return whole_number("head", value, -1, self._subject.config.block_heads(self._checked_block()))

    # -------------------------------------------------------------------------------------------------------- answers

    def _answer_picture(self, request: Request, status: Status) -> Answer:
        """Adds (heads, rows, cols) of every block, which a view needs before the block's data arrives."""
        message, parts = super()._answer_picture(request, status)
        config = self._subject.config
        grids = [self._grid_of(block) for block in range(config.depth)]
        shapes = [(config.block_heads(block), grid.rows, grid.cols) for block, grid in enumerate(grids)]
        return {**message, "shapes": shapes, "blocks": self._subject.blocks("attention")}, parts

    def _answer_block(self, request: Request, status: Status) -> Answer:
        return self._attention.encode(self._available_block(request.get("block")), status)

    # -------------------------------------------------------------------------------------------------------- summary

    def _summary(self) -> Summary:
        subject, grid = self._subject, self._grid_of(self.block)
        a, b, mode = self._shown()
        words = [token_words(grid, token) for token in (a, b)]
        what = {"a": words[0], "b": words[1], "difference": f"{words[0]} less {words[1]}"}[mode]
        does = "what it looks at" if self.direction == "row" else "who looks at it"
        head = f", head {self.head} enlarged" if self.head is not None and self.head >= 0 else ""
        return Summary(
            "Attention",
            subject.model_words,
            image_words(subject.name, subject.image.shape),
            f"{block_words(self.block, subject.config.depth)}, {what}: {does}{head}",
        )

    def _shown(self) -> tuple[int, int, str]:
        """(A, B, mode) as the view chooses them while no pointer is on it; see `selection.js`."""
        a, b = (self.pins[n] if len(self.pins) > n else self.token for n in (0, 1))
        return a, b, self.compare if self.pins else "a"

    def _draw(self, summary: Summary, note: str) -> bytes:
        a, b, mode = self._shown()
        return picture.draw(
            summary,
            self._base_pixels(self.base),
            self._attention.maps(self.block, silent),
            (a, b),
            direction=self.direction,
            mode=mode,
            head=self.head,
            by_entropy=self.order == "entropy",
            scale=self.scale,
            colormap=self.colormap,
            opacity=self.opacity,
            note=note,
        )

    # ----------------------------------------------------------------------------------------------------------- page

    def to_html(
        self,
        path: str | os.PathLike[str],
        blocks: Blocks = None,
        *,
        limit: int = pages.PAGE_LIMIT,
        title: str | None = None,
    ) -> Path:
        """Writes a page that works like the widget, without a kernel and a network.

        The page starts in the widget's state.

        Args:
            path: The file to write.
            blocks: Numbers of the blocks to embed, or "all". Default: the current block.
            limit: Largest page in bytes.
            title: The page's title. Default: what the page shows, and the model.

        Returns:
            The path of the page.

        Raises:
            PageTooLargeError: The page would exceed `limit`. Nothing is written (also a ValueError).
            InvalidValueError: `blocks` is empty or a string other than "all" (also a ValueError).
            ControlError: A block does not exist or was not captured (also a traitlets.TraitError).
            dpt.DPTError: The file cannot be written (also an OSError).
        """
        return self._write_page(path, self._plan_page(blocks, limit), title)

    def _page_of_state(self, request: Request) -> pages.PagePlan:
        return self._plan_page("all" if request.get("blocks") == "all" else None, pages.PAGE_LIMIT)

    def _plan_page(self, blocks: Blocks, limit: int) -> pages.PagePlan:
        """What a page with these blocks contains.

        Raises:
            PageTooLargeError: The page would exceed `limit`.
            InvalidValueError: `blocks` is empty or a string other than "all".
            ControlError: A block does not exist or was not captured.
        """
        available = self._subject.blocks("attention")
        if blocks is None:
            chosen = [self.block]
        elif isinstance(blocks, str):
            chosen = available if blocks == "all" else []
        else:
            chosen = list(wholes(blocks, "blocks"))
        if not chosen:
            raise InvalidValueError(
                f'blocks must be block numbers, "all", or None for the current block, got {blocks!r}'
            )
        chosen = sorted({self._available_block(block) for block in chosen})
        counts = {self._grid_of(block).tokens for block in chosen}
        tokens = f"up to {max(counts)}" if len(counts) > 1 else max(counts)
        pages.check_size(
            f"{len(chosen)} blocks of {tokens} tokens",
            self._bytes_of(chosen),
            limit,
            "Choose fewer blocks or a smaller size=, or raise limit=",
        )
        requests: list[Request] = [{"kind": "picture"}]
        requests += [{"kind": "block", "block": block} for block in chosen]
        if not self._subject.absent("depth"):
            requests.append({"kind": "depth"})  # after the blocks, whose pass computes it
        config = self._subject.config
        shown = self.block if self.block in chosen else chosen[0]
        return pages.PagePlan(
            requests=requests,
            extent=pages.extent_words("block", chosen, config.depth),
            state={"block": shown, **self._moved_to(shown)},
            changes={"blocks": chosen},
            more=self._larger_page(chosen, available),
        )

    def _larger_page(self, chosen: Sequence[int], available: Sequence[int]) -> pages.LargerPage | None:
        """A page with all blocks, if the chosen ones are fewer and it is not too large."""
        size = pages.size_of_page(self._bytes_of(available))
        if len(chosen) == len(available) or size > pages.PAGE_LIMIT:
            return None
        return {
            "words": f"all {len(available)} blocks",
            "bytes": size + pages.size_of_code(self._name),
            "payload": {"blocks": "all"},
        }

    def _bytes_of(self, blocks: Sequence[int]) -> int:
        return sum(map(self._attention.bytes_of_parts, blocks))
