"""Norms and channels of a subject's blocks, captured on demand and encoded for the browser.

The subject captures and keeps norms and tokens (see `live_subject`).
"""

from __future__ import annotations

import math
from typing import TypedDict

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ...errors import InvalidValueError
from ...tokens import cosines_with
from ..shared.packing import HALF_MAX
from ..shared.progress import Status
from ..shared.subject import Subject


class NormsMessage(TypedDict):
    """The reply to a request for the norms. Its part holds the norms of all blocks, float32, one after the other."""

    prefix: int
    numbers: list[int]  # of the blocks
    blocks: list[tuple[int, int, int]]  # (rows, cols, channels) of each


class TokensMessage(TypedDict):
    """The reply to a request for the channels of a block. Its part is (channels, tokens) fp16, in units of `unit`."""

    block: int
    channels: int
    tokens: int
    unit: float


class BlockTokens:
    """Norms and tokens of the blocks of one subject. Callers hold the lock of the subject's owner."""

    def __init__(self, subject: Subject):
        self._subject = subject

    def encode_norms(self, status: Status) -> tuple[NormsMessage, list[bytes]]:
        """The norms of all blocks.

        Raises:
            InvalidValueError: Norms are not finite.
        """
        norms, config = self.norms(status), self._subject.config
        grids = {block: config.block_grid(block, self._subject.grid) for block in norms}
        message = NormsMessage(
            prefix=self._subject.grid.prefix,
            numbers=list(grids),
            blocks=[(grid.rows, grid.cols, config.block_width(block)) for block, grid in grids.items()],
        )
        return message, [np.concatenate(list(norms.values())).astype("<f4").tobytes()]

    def norms(self, status: Status) -> dict[int, Float[np.ndarray, " tokens"]]:
        """The token norms of each block, prefix tokens first.

        Raises:
            InvalidValueError: Norms are not finite.
        """
        blocks = self._subject.blocks("norms", "tokens")
        norms = {block: self._norms_of(block, status).float().cpu().numpy() for block in blocks}
        for block, values in norms.items():
            if not np.isfinite(values).all():
                raise InvalidValueError(
                    f"the tokens of block {block} contain NaN or infinity: the model overflowed on this image. If it "
                    "runs in half precision, try float32 (model.float())"
                )
        return norms

    def channel(self, block: int, channel: int, status: Status) -> Float[np.ndarray, "rows cols"]:
        """One channel of a block on its grid."""
        return self._on_grid(block, self._tokens(block, status)[:, channel].cpu().numpy())

    def similarity(self, block: int, token: int, centred: bool, status: Status) -> Float[np.ndarray, "rows cols"]:
        """The cosine of each patch of a block with one of its tokens, as `probes.tokens.similarity`."""
        vectors = self._tokens(block, status).double().cpu().numpy()
        mean = vectors[self._subject.grid.prefix :].mean(0) if centred else None
        return self._on_grid(block, cosines_with(vectors[token], vectors, mean).astype(np.float32))

    def _on_grid(self, block: int, values: Float[np.ndarray, " tokens"]) -> Float[np.ndarray, "rows cols"]:
        grid = self._subject.config.block_grid(block, self._subject.grid)
        return values[grid.prefix :].reshape(grid.rows, grid.cols)

    def encode_tokens(self, block: int, status: Status) -> tuple[TokensMessage, list[bytes]]:
        """The channels of a block, each channel's tokens contiguous.

        Raises:
            InvalidValueError: Tokens are not finite.
        """
        values = self._tokens(block, status)
        top = float(values.abs().max())
        if not math.isfinite(top):
            raise InvalidValueError(
                f"the tokens of block {block} contain NaN or infinity: the model overflowed on this image"
            )
        unit = 2.0 ** max(0, math.ceil(math.log2(top / HALF_MAX))) if top else 1.0
        half = (values / unit).half().T.contiguous().cpu().numpy()
        return TokensMessage(block=block, channels=len(half), tokens=half.shape[1], unit=unit), [half.tobytes()]

    def bytes_of_tokens(self, blocks: list[int]) -> int:
        """Bytes of the channels of these blocks as sent to the browser."""
        return 2 * self._numbers_in(blocks)

    def _numbers_in(self, blocks: list[int]) -> int:
        config, grid = self._subject.config, self._subject.grid
        return sum(config.block_grid(block, grid).tokens * config.block_width(block) for block in blocks)

    def _norms_of(self, block: int, status: Status) -> Float[Tensor, " tokens"]:
        """The captured norms, or norms of the tokens if a run holds only those."""
        if block not in self._subject.blocks("norms"):
            return self._tokens(block, status).norm(dim=-1)
        norms: Tensor = self._subject.captured("norms", block, status)[0]
        return norms

    def _tokens(self, block: int, status: Status) -> Float[Tensor, "tokens channels"]:
        tokens: Tensor = self._subject.captured("tokens", block, status)[0]
        return tokens.detach().to(torch.float32)
