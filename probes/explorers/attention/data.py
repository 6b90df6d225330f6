"""The attention of a subject's blocks, captured on demand and encoded for the browser.

The subject captures and keeps queries and keys (see `live_subject`).
"""

from __future__ import annotations

from typing import NotRequired, TypedDict, cast

import probes
from dpt import TokenGrid
from dpt.attention import OffsetBias

from ...errors import UnsupportedModelError
from ..shared.packing import pack_attention, packed_bytes
from ..shared.progress import Status
from ..shared.subject import Subject


class UnsupportedBiasError(UnsupportedModelError):
    """The attention explorer cannot draw the bias or mask of a block."""


class BlockMessage(TypedDict):
    """The reply to a request for a block. Its parts are those of `PackedAttention.parts`."""

    block: int
    heads: int
    tokens: int
    dim: int
    rows: int
    cols: int
    prefix: int
    entropy: list[float]  # nats, per head
    window: NotRequired[tuple[int, int]]
    shift: NotRequired[tuple[int, int]]
    biased: NotRequired[bool]


class BlockAttention:
    """Attention of the blocks of one subject. Callers hold the lock of the subject's owner."""

    def __init__(self, subject: Subject):
        self._subject = subject

    def grid(self, block: int) -> TokenGrid:
        """The token grid of a block."""
        return self._subject.config.block_grid(block, self._subject.grid)

    def maps(self, block: int, status: Status) -> probes.AttentionMaps:
        """Queries and keys of a block, from the pass shared by all blocks or from a pass of its own."""
        return cast(probes.AttentionMaps, self._subject.captured("attention", block, status))

    def encode(self, block: int, status: Status) -> tuple[BlockMessage, list[bytes]]:
        """The message and binary parts that a view needs to draw a block.

        Raises:
            UnsupportedBiasError: The block adds a bias that is not an `OffsetBias`, or a mask that does not follow
                from its windows.
        """
        maps = self.maps(block, status)
        grid, bias = maps.grid, maps.bias
        # The view derives the mask of shifted windows from their geometry, and `bias.bands` hides the same tokens.
        masked = isinstance(bias, OffsetBias) and bias.bands is not None
        if not (bias is None or isinstance(bias, OffsetBias)) or masked != any(grid.shift):
            raise UnsupportedBiasError(
                f"{maps.name} adds a bias or mask that does not follow from offsets and windows alone. The explorer "
                "cannot show it; probes.capture returns its exact rows"
            )
        status(f"Packing block {block}")
        # (windows, heads, T, d) -> (heads, tokens window by window, d)
        q, k = (tensor.transpose(0, 1).flatten(1, 2) for tensor in (maps.q, maps.k))
        packed = pack_attention(q, k, maps.scale, bias, windows=len(maps.q))
        heads, tokens, dim = packed.q.shape
        message = BlockMessage(
            block=block,
            heads=heads,
            tokens=tokens,
            dim=dim,
            rows=grid.rows,
            cols=grid.cols,
            prefix=grid.prefix,
            entropy=packed.entropy,
        )
        if grid.window is not None:
            message["window"], message["shift"] = grid.window, grid.shift
        if bias is not None:
            message["biased"] = True
        return message, packed.parts()

    def bytes_of_parts(self, block: int) -> int:
        """Bytes of the binary parts of an encoded block."""
        config = self._subject.config
        heads = config.block_heads(block)
        dim = config.block_width(block) // heads
        return packed_bytes(heads, self.grid(block), dim, self._subject.biased(block))
