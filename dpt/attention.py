"""Attention: the one module that computes it for all families.

Fused attention never forms the tokens x tokens matrix. Probes therefore read the queries and keys that `Attend` is
called with, and compute the rows they need. A bias that depends only on the offset between two tokens is passed as a
table (`OffsetBias`) for the same reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import machine
from .ambient import transformed
from .config import TokenGrid

MASKED = -100.0  # Swin's bias between tokens of a shifted window that are not neighbours in the image


@dataclass(frozen=True, eq=False)
class OffsetBias:
    """A bias on attention logits that depends on the offset from query to key: a table instead of an N x N matrix.

    Attributes:
        table: (heads, 2 rows - 1, 2 cols - 1). Entry [dr + rows-1, dc + cols-1] is the bias for the offset
            (dr, dc) = query - key in a grid (or window) of rows x cols tokens.
        prefix: (heads, 3), if the sequence starts with a class token: the bias from class to patches, from patches to
            class, and from class to itself. Otherwise None.
        bands: (windows, tokens per window), if windows are shifted: `MASKED` is added between tokens of a window whose
            bands differ. Otherwise None.
    """

    table: Tensor
    prefix: Tensor | None = None
    bands: Tensor | None = None

    @property
    def rows(self) -> int:
        """Rows of the grid or window."""
        return (self.table.shape[1] + 1) // 2

    @property
    def cols(self) -> int:
        """Columns of the grid or window."""
        return (self.table.shape[2] + 1) // 2

    @property
    def tokens(self) -> int:
        """Tokens of the grid or window, class token included."""
        return self.rows * self.cols + int(self.prefix is not None)

    @cached_property
    def dense(self) -> Tensor:
        """The full bias (1 or windows, heads, tokens, tokens), as the fused kernel takes it. Computed once."""
        every = torch.arange(self.tokens, device=self.table.device)
        bias = self._offsets(every, every)  # (heads, T, T)
        if self.bands is None:
            return bias[None]
        return bias + self._apart(self.bands, self.bands)[:, None]

    def in_full(self) -> OffsetBias:
        """Returns itself with `dense` computed. For cached biases that need no gradient."""
        self.dense  # noqa: B018
        return self

    def between(self, queries: Tensor, keys: Tensor, window: int = 0) -> Tensor:
        """Computes part of the bias.

        Args:
            queries: Token indices (n,) inside the window.
            keys: Token indices (m,) inside the window.
            window: Number of the window. Matters only for shifted windows.

        Returns:
            (heads, n, m).
        """
        bias = self._offsets(queries, keys)
        if self.bands is None:
            return bias
        bands = self.bands[window]
        return bias + self._apart(bands[queries], bands[keys])

    def _offsets(self, queries: Tensor, keys: Tensor) -> Tensor:
        first = int(self.prefix is not None)
        q, k = (queries - first)[:, None], (keys - first)[None]
        q_row, k_row = (at.div(self.cols, rounding_mode="floor") for at in (q, k))
        row = q_row - k_row + self.rows - 1
        col = (q - q_row * self.cols) - (k - k_row * self.cols) + self.cols - 1
        index = row * (2 * self.cols - 1) + col  # (n, m)
        entries = self.table.flatten(1)
        if self.prefix is not None:
            last = entries.shape[1]
            index = torch.where(q < 0, last + 2 * (k < 0), torch.where(k < 0, last + 1, index))
            entries = torch.cat((entries, self.prefix), dim=1)
        return entries[:, index]

    def _apart(self, queries: Tensor, keys: Tensor) -> Tensor:
        return (queries[..., :, None] != keys[..., None, :]).to(self.table.dtype) * MASKED

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> OffsetBias:
        """Converts all tensors, like `torch.Tensor.to`."""
        prefix = None if self.prefix is None else self.prefix.to(device=device, dtype=dtype)
        bands = None if self.bands is None else self.bands.to(device=device)
        return replace(self, table=self.table.to(device=device, dtype=dtype), prefix=prefix, bands=bands)


class Attend(nn.Module):
    """softmax(scale * q k^T + bias) v through PyTorch's fused kernel.

    Source:
        Vaswani et al. 2017, "Attention Is All You Need", equation 1.
    """

    def __init__(self, scale: float):
        """Creates the module.

        Args:
            scale: Factor on the products of queries and keys; 1 / sqrt(head width) in most models.
        """
        super().__init__()
        self.scale = scale
        self.kernel: Callable[[Tensor, Tensor, Tensor, OffsetBias, float], Tensor] | None = None  # set by dpt.compiled

    def forward(self, q: Tensor, k: Tensor, v: Tensor, bias: OffsetBias | Tensor | None = None) -> Tensor:
        """Computes attention.

        Args:
            q: Queries (B, heads, N, d). For windowed attention, B counts the windows of all images.
            k: Keys, of the same shape.
            v: Values, of the same shape.
            bias: An offset bias, or a tensor that broadcasts to (B, heads, N, N).

        Returns:
            (B, heads, N, d).
        """
        kernel = None if transformed() else self.kernel
        if kernel is not None and isinstance(bias, OffsetBias) and not _wants_gradient(q, k, v, bias.table):
            return kernel(q, k, v, bias, self.scale)
        mask = bias.dense if isinstance(bias, OffsetBias) else bias
        if mask is not None and 1 < len(mask) < len(q):  # the windows of several images, image by image
            mask = mask.repeat(len(q) // len(mask), 1, 1, 1)
        if machine.BFLOAT16_WITHOUT_TILES and _worth_it(q, k, v, mask):
            return by_rows(q, k, v, mask, self.scale)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scale)

    def rows(self, args: tuple, grid: TokenGrid, tokens: Tensor) -> Tensor:
        """Computes softmax rows in float32 from a call's queries, keys and bias.

        Only traceable operations are used, so the rows can be an output of an exported graph.

        Args:
            args: What `forward` was called with: q, k, v and perhaps a bias.
            grid: The block's token grid, with its windows.
            tokens: Indices (n,) of the query tokens.

        Returns:
            (B, heads, n, N); 0 for keys outside a token's window.
        """
        q, k, _, *bias = args
        if grid.window is not None:
            return _windowed_rows(q, k, bias[0], grid, tokens)
        logits = q.index_select(2, tokens).float() * self.scale @ k.float().mT  # (B, heads, n, N)
        if bias:
            keys = torch.arange(k.shape[2], device=tokens.device)
            logits = logits + bias[0].between(tokens, keys).float()
        return logits.softmax(dim=-1)

    def extra_repr(self) -> str:
        return f"scale={self.scale:.6g}"


def _windowed_rows(q: Tensor, k: Tensor, bias: OffsetBias, grid: TokenGrid, tokens: Tensor) -> Tensor:
    """(B, heads, n, N) from q, k (B windows, heads, T, d), scale included, as SwinV2 calls `Attend`."""
    order = grid.windows(q.device)  # (windows, T)
    count, inside = order.shape
    q, k = (t.unflatten(0, (-1, count)) for t in (q, k))  # (B, windows, heads, T, d)
    found = q.new_zeros((len(q), q.shape[2], len(tokens), grid.tokens), dtype=torch.float32)
    at = order.flatten().argsort()
    for row, token in enumerate(tokens.tolist()):
        window, place = divmod(int(at[token]), inside)
        logits = q[:, window, :, place : place + 1].float() @ k[:, window].float().mT
        places = torch.arange(inside, device=q.device)
        logits = logits + bias.between(places[place : place + 1], places, window).float()
        found[:, :, row, order[window]] = logits.softmax(dim=-1)[:, :, 0]
    return found


ROWS_FROM = 512  # tokens; for fewer, the fused kernel is as fast
BUDGET = 9 << 18  # bytes of logits per step: 2.25 MiB fit the caches of two cores
LEAST_ROWS = 128  # rows per step that matrix products need for full speed


def _wants_gradient(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def _worth_it(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> bool:
    if q.device.type != "cpu" or q.dtype != torch.bfloat16 or q.shape[2] < ROWS_FROM:
        return False
    if transformed() or _wants_gradient(q, k, v):
        return False
    # The fused kernel handles windows, masks that broadcast over heads, and masks of another type.
    return mask is None or (mask.shape == (1, *q.shape[1:3], k.shape[2]) and mask.dtype == q.dtype)


def by_rows(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Computes the same as `Attend`, a few rows of the matrix per step, with one product over several heads.

    PyTorch's fused kernel is fast in bfloat16 on processors that multiply matrix tiles (AMX). On processors with dot
    products only (AVX512-BF16) it is no faster than in float32; this function is 1.3 to 1.5 times as fast. The logits
    are rounded to bfloat16. Subtracting the mean key first changes all logits of a row by the same amount, so the
    softmax is unchanged, and makes the logits smaller, so they round more finely.

    Args:
        q: Queries (B, heads, N, d).
        k: Keys, of the same shape.
        v: Values, of the same shape.
        mask: Bias (1, heads, N, N) in the same dtype, or None.
        scale: As in `Attend`.

    Returns:
        (B, heads, N, d).
    """
    batch, heads, tokens, _ = q.shape
    keys = ((k - k.mean(dim=2, keepdim=True)) * scale).mT.contiguous()  # (B, heads, d, N)
    out = q.new_empty(batch, tokens, heads, v.shape[3]).transpose(1, 2)  # heads' channels are adjacent
    row = tokens * q.element_size()
    group = max(1, min(heads, BUDGET // (LEAST_ROWS * row)))
    while heads % group:
        group -= 1
    rows = max(16, BUDGET // (group * row) // 16 * 16)
    for b in range(batch):
        for first in range(0, heads, group):
            some = slice(first, first + group)
            for start in range(0, tokens, rows):
                at = slice(start, start + rows)
                if mask is None:
                    logits = torch.bmm(q[b, some, at], keys[b, some])  # (group, rows, N)
                else:
                    logits = torch.baddbmm(mask[0, some, at], q[b, some, at], keys[b, some])
                out[b, some, at] = torch.bmm(logits.softmax(dim=-1), v[b, some])
    return out
