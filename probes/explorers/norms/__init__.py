"""The norm explorer: token norms of every block, outliers, single channels, and similarity between patches.

    NormExplorer(model, image)                      # shows the widget
    NormExplorer(run["photo.jpg"])                  # shows what a run has stored, without a model
    explorer.block = 5                              # moves the slider; the other controls work the same way
    explorer.attention(direction="column")          # opens the attention explorer below, in the next block
    explorer.to_html("norms.html", channels=[5])

This folder holds the widget: `NormExplorer` in this module, `data` (capturing and encoding) and its JavaScript. The
rule for outliers and the similarity are defined in `probes.tokens`; the JavaScript repeats them for the pointer.

The model runs once, when the first view asks. The norms of all blocks travel together (12 blocks of 601 tokens take
29 kB). The browser computes outliers, ranges and histograms from them, so no slider waits for the kernel. The channels
of a block travel in fp16 when a view shows one or computes similarities.

Problem: "one click opens attention at that token" needs a second widget, and a widget cannot create another one in the
browser. Approach: as the last line of a cell, the explorer is shown as the first child of a box. The attention explorer
becomes the second child. Limits: if you place the explorer in a layout of your own, the click says that it cannot open
attention. `attention()` then returns the widget for you to place.

The norms of block k are those of its output, which block k + 1 reads. Attention therefore opens in block k + 1 (see
`readers`). Where SwinV2 merges patches in between, it opens on the merged patch that contains the patch.

Memory: references to the tokens of all blocks, e.g. 0.14 GB for ViT-L at 518 pixels (see `data` for larger ones).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, SupportsIndex, TypeAlias, cast

import ipywidgets
import numpy as np
import traitlets
from torch import Tensor

import dpt
from dpt.image import Size
from dpt.scalars import is_whole
from probes.tokens import K

from ...captured import NotCaptured
from ...errors import InvalidValueError, UnavailableError
from ...runs.stored import StoredCapture
from ...scalars import wholes
from ..attention import AttentionExplorer
from ..shared import lifetime, pages, saved
from ..shared.answering import Answer, Request
from ..shared.attributes import Derived
from ..shared.base import Explorer
from ..shared.controls import BASES, COLORMAPS, DIRECTIONS, ControlError, Flag, Proposal, Real, Whole, whole_number
from ..shared.progress import Status, silent
from ..shared.replacing import central_token, moved_token, token_of
from ..shared.subject import ImageLike, Subject
from ..shared.summary import Summary, block_words, image_words, token_words
from . import picture
from .data import BlockTokens
from .readers import read_words, reader_of

Channels: TypeAlias = Sequence[SupportsIndex] | np.ndarray | Tensor | Literal["all"]
"""Numbers of the blocks whose channels a page holds."""

QUANTITIES = ("norm", "channel", "similarity")
SCALES = ("block", "shared", "log")


class BoxError(UnavailableError):
    """The view cannot open the attention explorer: no cell output of its own holds the norm explorer."""


class UnreadError(UnavailableError):
    """No block reads the output of the last block, so no attention follows from its norms."""


class NormExplorer(Explorer):
    """Shows the token norms of all blocks side by side, with outliers marked, and one block in detail.

    The detail is the block's norm map, one of its channels or the similarity of its patches, with a histogram. All
    attributes are two-way: setting one moves the widget, and using the widget changes it. Each is also a keyword
    argument.

    Args:
        source: A model from `dpt.load`, or an image of a run that holds "norms" or "tokens", e.g. ``run["photo.jpg"]``.
            A run needs no model. Channels need "tokens" and attention needs "attention" in the run.
        image: (H, W, 3) uint8, or anything `dpt.read_image` takes. For an image of a run, only needed if its file is
            gone.
        block: Number of the first block to show, counted from 0. Default: two thirds down.
        size: Input size, as for `model.predict`.
        keep_aspect: As for `model.predict`.
        **controls: Initial values of the attributes below.

    Attributes:
        block (int): The current block. Its map lies over the image.
        enlarged (bool): Whether the current block is also shown large, with a histogram. Setting it to False also sets
            `what` to "norm".
        what (str): What is shown of the current block: "norm", "channel" or "similarity" (the cosine with the pinned
            token, or with the token under the pointer). Channels and similarities also enlarge the block.
        channel (int): The channel to show. A block with fewer channels shows its last.
        centred (bool): Whether similarity subtracts the mean of all patches first, as in `probes.tokens.similarity`.
        k (float): Outlier threshold: a patch is an outlier if its norm exceeds the block's median + k MADs (see
            `probes.tokens.threshold`).
        marks (bool): Whether outliers are outlined.
        token (int): The token shown while nothing is pinned or hovered. It counts on the model's patch grid, prefix
            tokens first (class token 0), even where a SwinV2 block has a coarser grid.
        pin (int | None): A token that stays on display.
        scale (str): "block" (each map spans its own range), "shared" or "log" (shared, logarithmic).
        colormap (str): "viridis", "cividis", "magma" or "grey".
        opacity (float): Opacity of the overlay, 0 to 1.
        base (str): What lies under the overlay: "picture" or "depth".

    Raises:
        InvalidTypeError: `source` is neither a model nor an image of a run (also a TypeError).
        dpt.ImageError: The image is not usable (also a ValueError).
        InvalidValueError: The model cannot take the size, or the image is not the captured one (also a ValueError).
        NotCaptured: The run holds neither norms nor tokens.
        StoreError: The run's image cannot be read.
        UnknownControlError: A keyword argument is not an attribute (also a TypeError).
        ControlError: An attribute does not accept its value (also a traitlets.TraitError).

    Example:
        explorer = NormExplorer(model, image, k=8.0)
        explorer.what = "similarity"
        explorer                                # the last line of a cell
    """

    _name = "norms"
    _LIGHT = ("picture", "attention", "close")
    _esm = pages.script_of(_name)
    _css = pages.style_of(_name)

    block = Whole().tag(sync=True, ui=True)
    enlarged = Flag(False).tag(sync=True, ui=True)
    what = traitlets.Enum(QUANTITIES, default_value="norm").tag(sync=True, ui=True)
    centred = Flag(False).tag(sync=True, ui=True)
    channel = Whole(0).tag(sync=True, ui=True)
    k = Real(K, min=0.0, max=1000.0).tag(sync=True, ui=True)
    marks = Flag(True).tag(sync=True, ui=True)
    token = Whole().tag(sync=True, ui=True)
    pin = Whole(None, allow_none=True).tag(sync=True, ui=True)
    scale = traitlets.Enum(SCALES, default_value="block").tag(sync=True, ui=True)
    colormap = traitlets.Enum(COLORMAPS, default_value="viridis").tag(sync=True, ui=True)
    opacity = Real(0.6, min=0.0, max=1.0).tag(sync=True, ui=True)
    base = traitlets.Enum(BASES, default_value="picture").tag(sync=True, ui=True)
    _attending = Flag(False).tag(sync=True)  # whether an attention explorer is shown below

    def __init__(
        self,
        source: dpt.DPT | StoredCapture,
        image: ImageLike | None = None,
        block: SupportsIndex | None = None,
        *,
        size: Size = None,
        keep_aspect: bool = True,
        **controls: Any,
    ):
        self._attention: AttentionExplorer | None = None
        self._box: ipywidgets.VBox | None = None
        if block is not None:
            controls["block"] = block
        super().__init__(source, image, size=size, keep_aspect=keep_aspect, **controls)

    @property
    def _tokens(self) -> BlockTokens:
        return BlockTokens(self._subject)

    def close(self) -> None:
        """Removes the explorer and the attention explorer that it opened, and frees model, image and captures."""
        for name in ("_attention", "_box"):
            if (part := self.__dict__.get(name)) is not None:
                part.close()
        super().close()

    def _retain(self) -> None:
        super()._retain()
        if self._box is not None:
            lifetime.hold(self._box)

    def _release(self) -> None:
        super()._release()
        if self._attention is not None:
            self._attention._let_go()
        if self._box is not None:
            lifetime.hold_weakly(self._box)

    @traitlets.default("block")
    def _default_block(self) -> int:
        if not self._blocks:
            raise NotCaptured(self._subject.absent("norms"))
        return self._blocks[len(self._blocks) * 2 // 3]

    @property
    def _blocks(self) -> list[int]:
        """Numbers of the blocks that have norms, captured or computed from captured tokens."""
        return self._subject.blocks("norms", "tokens")

    @traitlets.default("token")
    def _default_token(self) -> int:
        return central_token(self._subject.grid)

    @traitlets.observe("enlarged", "what")
    def _keep_to_enlarged(self, change: Any) -> None:  # traitlets' Bunch
        """Channels and similarities are shown only while the block is enlarged: their controls are there."""
        if self.what == "norm" or self.enlarged:
            return
        if change["name"] == "what":
            self.enlarged = True
        else:
            self.what = "norm"

    patch = Derived[tuple[int, int] | None](
        lambda self: self._subject.grid.patch(self.token),
        lambda self, place: self._show_patch(place),
        "token",
        help="(row, col) of `token` on the model's patch grid, or None for a prefix token. Can be set.",
    ).tag(sync=True, last=True)

    def _show_patch(self, place: object) -> None:
        self.token = token_of("patch", self._subject.grid, place)

    def _controls_for(self, subject: Subject) -> dict[str, object]:
        available, config = subject.blocks("norms", "tokens"), subject.config
        if not available:
            raise NotCaptured(subject.absent("norms"))
        before, after = self._subject.grid, subject.grid
        token = moved_token(before, after, self.token)
        controls: dict[str, object] = {
            "block": self.block if self.block in available else available[len(available) * 2 // 3],
            "token": central_token(after) if token is None else token,
            "pin": None if self.pin is None else moved_token(before, after, self.pin),
            "channel": min(self.channel, max(map(config.block_width, range(config.depth))) - 1),
        }
        if not subject.blocks("tokens"):
            controls["what"] = "norm"
        if self.base == "depth" and subject.absent("depth"):
            controls["base"] = "picture"
        return controls

    def _replace(self, subject: Subject) -> None:
        super()._replace(subject)
        if self._attention is None:
            return
        if subject.blocks("attention"):
            self._attention._replace(subject.another())
        else:
            self._answer_close({}, silent)

    # ----------------------------------------------------------------------------------------------------- validation

    @traitlets.validate("block")
    def _check_block(self, proposal: Proposal) -> int:
        block = whole_number("block", proposal["value"], 0, self._subject.config.depth)
        if block not in self._blocks:
            why = f"block {block} cannot be shown: {self._subject.absent('norms')}"
            raise ControlError("block", block, f"one of {self._blocks}", why)
        return block

    @traitlets.validate("what")
    def _check_what(self, proposal: Proposal) -> str:
        value: str = proposal["value"]
        if value != "norm" and not self._subject.blocks("tokens"):
            why = f'what cannot be "{value}": {self._subject.absent("tokens")}'
            raise ControlError("what", value, '"norm"', why)
        return value

    @traitlets.validate("base")
    def _check_base(self, proposal: Proposal) -> str:
        return self._checked_base(proposal["value"])

    @traitlets.validate("channel")
    def _check_channel(self, proposal: Proposal) -> int:
        config = self._subject.config
        return whole_number("channel", proposal["value"], 0, max(map(config.block_width, range(config.depth))))

    @traitlets.validate("token")
    def _check_token(self, proposal: Proposal) -> int:
        return whole_number("token", proposal["value"], 0, self._subject.grid.tokens)

    @traitlets.validate("pin")
    def _check_pin(self, proposal: Proposal) -> int | None:
        value = proposal["value"]
        return None if value is None else whole_number("pin", value, 0, self._subject.grid.tokens)

    # -------------------------------------------------------------------------------------------------------- answers

    def _absent(self) -> dict[str, str]:
        absent = super()._absent()
        if len(self._blocks) < self._subject.config.depth:
            absent["norms"] = self._subject.absent("norms")
        return absent

    def _answer_picture(self, request: Request, status: Status) -> Answer:
        """Adds the blocks that have norms, channels and attention, and what reads the output of every block."""
        message, parts = super()._answer_picture(request, status)
        config = self._subject.config
        grids = [config.block_grid(block, self._subject.grid) for block in range(config.depth)]
        available = {
            "grids": [(grid.rows, grid.cols) for grid in grids],
            "reads": [read_words(config, block) for block in range(config.depth)],
            "blocks": self._blocks,
            "channels": self._subject.blocks("tokens"),
            "attention": self._subject.blocks("attention"),
        }
        return {**message, **available}, parts

    def _answer_norms(self, request: Request, status: Status) -> Answer:
        return self._tokens.encode_norms(status)

    def _answer_tokens(self, request: Request, status: Status) -> Answer:
        block = whole_number("block", request.get("block"), 0, self._subject.config.depth)
        return self._tokens.encode_tokens(block, status)

    def _answer_attention(self, request: Request, status: Status) -> Answer:
        if self._box is None:
            raise BoxError(
                "cannot open attention below this widget, because it is not the output of a cell. Show "
                "explorer.attention() yourself"
            )
        status("Opening the attention explorer")
        direction = cast(Literal["row", "column"], request.get("direction", "column"))  # checked by attention()
        token, block = (cast("int | None", request.get(name)) for name in ("token", "block"))
        explorer = self.attention(token, direction, block=block)
        return {"block": explorer.block, "token": explorer.token}, []

    def _answer_close(self, request: Request, status: Status) -> Answer:
        """Removes the attention explorer and its captures."""
        if self._box is not None:
            self._box.children = (self,)
        if self._attention is not None:
            self._attention.close()
            self._attention = None
        self._attending = False
        return {}, []

    # ------------------------------------------------------------------------------------------------------ attention

    def attention(
        self,
        token: SupportsIndex | None = None,
        direction: Literal["row", "column"] = "column",
        *,
        block: SupportsIndex | None = None,
    ) -> AttentionExplorer:
        """Opens the attention explorer of the same model and image at a token, in the block that reads the norms.

        The norms of block k are those of its output, and block k + 1 reads that output: the default is block + 1. If
        SwinV2 merges patches in between, the token is the merged one that contains the patch.

        If a cell shows this widget as its output, the attention explorer appears below it. A second call moves the
        existing attention explorer.

        Args:
            token: Number of the token, as for the attribute `token`. Default: the pinned token, else the current one.
            direction: "column" (who looks at the token) or "row" (what the token looks at).
            block: Number of the block whose attention is shown. Default: the block after the current one.

        Returns:
            The attention explorer.

        Raises:
            InvalidValueError: `direction` is neither "row" nor "column" (also a ValueError).
            ControlError: The token or block does not exist (also a traitlets.TraitError).
            UnreadError: The current block is the last one, and `block` is not given (also a RuntimeError).
            NotCaptured: The run holds no attention of the block.
        """
        if direction not in DIRECTIONS:
            raise InvalidValueError(
                f'direction must be "row" (what the token looks at) or "column" (who looks at it), got {direction!r}'
            )
        shown = self.token if self.pin is None else self.pin
        token = shown if token is None else whole_number("token", token, 0, self._subject.grid.tokens)
        block = self._reader() if block is None else whole_number("block", block, 0, self._subject.config.depth)
        if self._attention is None:
            if not self._subject.blocks("attention"):
                raise NotCaptured(self._subject.absent("attention"))
            self._attention = AttentionExplorer(self._subject, block=block, colormap=self.colormap)
        explorer = self._attention
        if not explorer._subject.same(self._subject):  # the user gave it another image
            explorer._replace(self._subject.another())
        explorer.pins = []  # they count on the old block's grid
        explorer.block = block
        explorer.direction = direction
        explorer.show_token(token, self._subject.grid)
        if self._box is not None:
            self._box.children = (self, explorer)
            self._attending = True
        return explorer

    def _reader(self) -> int:
        """The block that reads the current block's output."""
        config = self._subject.config
        reader = reader_of(config, self.block)
        said = read_words(config, self.block)
        if reader is None:
            raise UnreadError(f"{said}. Choose an earlier block, or pass block= to open the attention of any block")
        if reader not in self._subject.blocks("attention"):
            raise NotCaptured(f"{said}, and {self._subject.absent('attention')}")
        return reader

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        if self._box is None:
            self._box = ipywidgets.VBox([self] if self._attention is None else [self, self._attention])
            self._box.layout.overflow = "visible"  # focus outlines extend beyond the widget
            self._attending = self._attention is not None
        lifetime.note_shown(self)
        return saved.output(self, self._box._repr_mimebundle_(**kwargs))

    # -------------------------------------------------------------------------------------------------------- summary

    def _summary(self) -> Summary:
        subject = self._subject
        return Summary(
            "Token norms",
            subject.model_words,
            image_words(subject.name, subject.image.shape),
            f"{block_words(self.block, subject.config.depth)}, {self._what_words()}; outliers lie more than {self.k:g} "
            "MADs above the median of their block",
        )

    @property
    def _chosen(self) -> int:
        """The pinned token, else the current one."""
        return self.token if self.pin is None else self.pin

    @property
    def _shown_channel(self) -> int:
        return min(self.channel, self._subject.config.block_width(self.block) - 1)

    def _what_words(self) -> str:
        if self.what == "norm":
            return "norms of the tokens"
        if self.what == "channel":
            return f"channel {self._shown_channel}"
        centred = "centred " if self.centred else ""
        return f"{centred}similarity with {token_words(self._subject.grid, self._chosen)}"

    def _draw(self, summary: Summary, note: str) -> bytes:
        subject = self._subject
        norms = self._tokens.norms(silent)
        grids = {block: subject.config.block_grid(block, subject.grid) for block in norms}
        anchor = subject.grid.token_in(grids[self.block], self._chosen)
        detail = None
        if self.what == "channel":
            detail = self._tokens.channel(self.block, self._shown_channel, silent), "RdBu_r", True
        elif self.what == "similarity":
            values = self._tokens.similarity(self.block, anchor, self.centred, silent)
            detail = values, "RdBu_r" if self.centred else self.colormap, self.centred
        return picture.draw(
            summary,
            self._base_pixels(self.base),
            norms,
            grids,
            self.block,
            picture.detail_of(self._what_words(), *detail) if detail else None,
            anchor if self.pin is not None or self.what == "similarity" else None,
            k=self.k,
            marks=self.marks,
            scale=self.scale,
            colormap=self.colormap,
            opacity=self.opacity,
            note=note,
        )

    # ----------------------------------------------------------------------------------------------------------- page

    def to_html(
        self,
        path: str | os.PathLike[str],
        channels: Channels = (),
        *,
        limit: int = pages.PAGE_LIMIT,
        title: str | None = None,
    ) -> Path:
        """Writes a page that works like the widget, without a kernel and a network.

        The page contains the norms of all blocks and everything computed from them. It does not contain attention:
        `attention().to_html()` writes a page for that.

        Args:
            path: The file to write.
            channels: Numbers of the blocks whose channels, and therefore similarities, are embedded, or "all".
            limit: Largest page in bytes.
            title: The page's title. Default: what the page shows, and the model.

        Returns:
            The path of the page.

        Raises:
            PageTooLargeError: The page would exceed `limit`. Nothing is written (also a ValueError).
            InvalidValueError: `channels` is not a list of blocks, or the run lacks their tokens (also a ValueError).
            ControlError: A block does not exist (also a traitlets.TraitError).
            dpt.DPTError: The file cannot be written (also an OSError).
        """
        return self._write_page(path, self._plan_page(channels, limit), title)

    def _page_of_state(self, request: Request) -> pages.PagePlan:
        return self._plan_page(() if self.what == "norm" else [self.block], pages.PAGE_LIMIT)

    def _plan_page(self, channels: Channels, limit: int) -> pages.PagePlan:
        """What a page with the channels of these blocks contains.

        Raises:
            PageTooLargeError: The page would exceed `limit`.
            InvalidValueError: `channels` is not a list of blocks, or the run lacks their tokens.
            ControlError: A block does not exist.
        """
        config = self._subject.config
        available = self._subject.blocks("tokens")
        chosen: list[int] = available
        if not isinstance(channels, str) and not is_whole(channels):
            chosen = sorted(set(wholes(channels, "channels")))
        elif channels != "all":
            raise InvalidValueError(f'channels must be a list of block numbers or "all", got {channels!r}')
        for block in chosen:
            whole_number("block", block, 0, config.depth)
        if not set(chosen) <= set(available):
            raise InvalidValueError(f"channels={channels!r} cannot be written: {self._subject.absent('tokens')}")
        pages.check_size(
            f"the channels of {len(chosen)} blocks",
            self._tokens.bytes_of_tokens(chosen),
            limit,
            "Choose fewer blocks or a smaller size=, or raise limit=",
        )
        requests: list[Request] = [{"kind": "picture"}, {"kind": "norms"}]
        requests += [{"kind": "tokens", "block": block} for block in chosen]
        if not self._subject.absent("depth"):
            requests.append({"kind": "depth"})  # after the norms, whose pass computes it
        state: dict[str, object] = {"_attending": False}
        if self.what != "norm" and self.block not in chosen:
            state["what"] = "norm"
        held = pages.extent_words("block", chosen, config.depth) if chosen else "no block"
        return pages.PagePlan(
            requests=requests,
            extent=f"Norms of all {config.depth} blocks; channels of {held[:1].lower()}{held[1:]}",
            state=state,
            changes={"page": True, "channels": chosen},
        )
