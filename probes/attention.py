"""Attention read from queries and keys, without the tokens x tokens matrix.

Fused attention never forms the softmax matrix, so there is none to record; forming it costs N x N numbers for each
head and block. Queries and keys are there anyway, and hold the same information in 2 N d numbers: one row is one
small product and a softmax, exact and in well under a millisecond.

A column needs the normalisation of every row, log sum_j exp(logit_ij), which is computed once, in chunks of rows, and
kept. Statistics over all rows go through the same chunks; at no time is more than `CHUNK_BYTES` of matrix alive.
`matrix()` forms it all, and refuses above a stated budget.

Windowed attention (SwinV2) is kept as the windows' queries and keys, and reported on the block's whole, unshifted grid:
rows and columns are zero outside the window of their token, rows sum to 1, and nothing has to be rolled back by hand.

Logits are summed in float64 (float32 where the device has no float64): logits of 30 and more are common, and float32
would leave errors of several 1e-6 in the weights. Results are float32, and within 1e-6 of the exact softmax of the
model's queries and keys. In half precision those are themselves rounded, and the model's kernel rounds in its own way.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, Literal, SupportsIndex

import numpy as np
import torch
import xarray
from jaxtyping import Float
from torch import Tensor

from dpt import TokenGrid
from dpt.attention import OffsetBias

from .errors import InvalidTypeError, InvalidValueError, OutOfRangeError

CHUNK_BYTES = 32 * 2**20
MATRIX_BUDGET = 256 * 2**20

Direction = Literal["row", "column"]
Tokens = SupportsIndex | Sequence[int] | np.ndarray | Tensor


class AttentionMaps:
    """softmax(scale * q k^T + bias) of one block, for every head, computed when asked.

    Tokens are counted as the model has them: prefix tokens (class token, registers) first, then patches row by row.
    ``row`` means what a token looks at (query -> keys, sums to 1); ``column`` who looks at it (key <- queries).
    """

    def __init__(
        self,
        q: Float[Tensor, "batch heads tokens d"],
        k: Float[Tensor, "batch heads tokens d"],
        scale: float,
        grid: TokenGrid,
        bias: OffsetBias | Tensor | None = None,
        name: str = "attention",
    ):
        """With windows, as `Attend` sees them: q, k (batch x windows, heads, tokens of a window, d)."""
        inside = grid.tokens if grid.window is None else grid.window[0] * grid.window[1]
        self._count = count = grid.tokens // inside  # of windows
        if q.shape != k.shape or q.ndim != 4 or q.shape[2] != inside or q.shape[0] % count:
            expected = f"(batch, heads, {inside}, d)" if count == 1 else f"(batch x {count}, heads, {inside}, d)"
            raise InvalidValueError(
                f"queries {tuple(q.shape)} and keys {tuple(k.shape)} do not fit a grid of {grid.tokens} tokens; "
                f"expected both as {expected}"
            )
        self.q, self.k, self.bias = q, k, bias
        self.scale, self.grid, self.name = scale, grid, name
        self._log_sum_exp: Tensor | None = None

    @property
    def batch(self) -> int:
        return self.q.shape[0] // self._count

    @property
    def heads(self) -> int:
        return self.q.shape[1]

    @property
    def tokens(self) -> int:
        return self.grid.tokens

    @property
    def matrix_bytes(self) -> int:
        """What the whole matrix would take in float32."""
        return self.batch * self.heads * self.tokens**2 * 4

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> AttentionMaps:
        """The same with queries and keys on another device or in another precision."""
        bias = None if self.bias is None else self.bias.to(device=device, dtype=dtype)
        q, k = (t.to(device=device, dtype=dtype) for t in (self.q, self.k))
        return AttentionMaps(q, k, self.scale, self.grid, bias, self.name)

    def rows(self, queries: Tokens) -> Float[Tensor, "batch heads n tokens"]:
        """What each of these tokens looks at: exact softmax rows, each summing to 1."""
        return self._gather(self._indices(queries), lambda w, places: self._row_logits(w, places).softmax(dim=-1))

    def columns(self, keys: Tokens) -> Float[Tensor, "batch heads n tokens"]:
        """Who looks at each of these tokens: entry [.., i, t] is the attention that token t pays to keys[i]."""
        normaliser = self._normaliser()

        def weights(w: int, places: Tensor) -> Tensor:
            queries, keys = self._window(self.q, w), self._window(self.k, w)[:, :, places]
            logits = self._exact(keys) * self.scale @ self._exact(queries).mT  # (B, heads, n, T)
            if self.bias is not None:
                logits = logits + self._exact(self._bias(w, self._places, places)).mT
            return (logits - normaliser[:, :, None, self._windows[w]]).exp()

        return self._gather(self._indices(keys), weights)

    def window(self, token: int) -> Tensor:
        """(n,) the tokens that share a window with this one, itself included; all of them without windows."""
        return self._windows[int(self._window_of[self._indices(token)])]

    def log_sum_exp(self) -> Float[Tensor, "batch heads tokens"]:
        """log of each row's softmax denominator."""
        return self._normaliser().float()

    def _normaliser(self) -> Tensor:
        if self._log_sum_exp is None:
            self._log_sum_exp = self._by_token([logits.logsumexp(dim=-1) for _, _, logits in self._chunks()])
        return self._log_sum_exp

    def entropy(self) -> Float[Tensor, "batch heads tokens"]:
        """Entropy of each row in nats: 0 for one key, log(tokens) for an even spread."""
        return self._by_token([_entropy(logits) for _, _, logits in self._chunks()]).float()

    def mean(self) -> Float[Tensor, "batch heads tokens"]:
        """Attention that each token receives, averaged over all queries; sums to 1 over the tokens."""
        received = self.q.new_zeros((self.batch, self.heads, self.tokens), dtype=torch.float32)
        for _, keys, logits in self._chunks():
            received[..., keys] += logits.softmax(dim=-1).sum(dim=-2).float()
        return received / self.tokens

    def statistics(self) -> xarray.Dataset:
        """Figures of each head, averaged over the queries, in one pass over the rows. Dimensions (batch, head).

        entropy: nats. peak: the largest weight of a row. prefix: the weight on prefix tokens. itself: the weight on
        the query's own token. distance: how far patch queries look, in patches: the mean distance from query to key
        patch, weighted by attention (weight on prefix tokens left out).
        """
        prefix = self.grid.prefix
        at = torch.arange(self.grid.patches, device=self.q.device)
        xy = torch.stack((at // self.grid.cols, at % self.grid.cols), dim=1).float()  # (N, 2), in patches
        figures = ("entropy", "peak", "prefix", "itself", "distance")
        sums = {name: self.q.new_zeros(self.batch, self.heads, dtype=torch.float32) for name in figures}
        for queries, keys, logits in self._chunks():
            p = logits.softmax(dim=-1).float()  # (B, heads, n, T)
            sums["entropy"] += _entropy(logits).sum(-1).float()
            sums["peak"] += p.amax(-1).sum(-1)
            sums["prefix"] += p[..., keys < prefix].sum((-1, -2))
            sums["itself"] += (p * (queries[:, None] == keys)).sum((-1, -2))
            of_patches, to_patches = queries >= prefix, keys >= prefix
            far = torch.cdist(xy[queries[of_patches] - prefix], xy[keys[to_patches] - prefix])  # (n', T')
            seen = p[:, :, of_patches][..., to_patches]
            share = seen.sum(-1).clamp_min(torch.finfo(torch.float32).tiny)
            sums["distance"] += ((seen * far).sum(-1) / share).sum(-1)
        counts = dict.fromkeys(sums, self.tokens) | {"distance": self.grid.patches}
        values = {name: (("batch", "head"), (total / counts[name]).cpu().numpy()) for name, total in sums.items()}
        return xarray.Dataset(values, coords={"head": np.arange(self.heads)}, attrs={"name": self.name})

    def matrix(self, max_bytes: int = MATRIX_BUDGET) -> Float[Tensor, "batch heads tokens tokens"]:
        """The whole softmax matrix. ValueError above max_bytes: rows, columns and statistics need no matrix."""
        if self.matrix_bytes > max_bytes:
            raise InvalidValueError(
                f"the matrix of {self.name} takes {self.matrix_bytes:,} bytes ({self.batch} x {self.heads} heads x "
                f"{self.tokens} x {self.tokens} float32), over the budget of {max_bytes:,}; use rows(), columns(), "
                f"map(), entropy() or mean(), or say matrix(max_bytes={self.matrix_bytes})"
            )
        return self.rows(torch.arange(self.tokens))

    def map(
        self,
        patch: Sequence[int] | np.ndarray | Tensor | None = None,
        *,
        token: SupportsIndex | None = None,
        direction: Direction = "row",
        batch: int = 0,
    ) -> xarray.DataArray:
        """One token's row or column, laid on the patch grid: dimensions (head, row, col).

        Give patch=(row, col) or token=index (0 is the class token). What falls on prefix tokens stands beside the map
        as coordinates: ``class_token``, ``register_1``, ...
        """
        if direction not in ("row", "column"):
            raise InvalidValueError(
                f"direction is {direction!r}; use 'row' (what it looks at) or 'column' (who looks at it)"
            )
        if not 0 <= batch < self.batch:
            raise OutOfRangeError(f"batch is {batch}, but {self.batch} pictures were captured (0..{self.batch - 1})")
        index = token_of(self.grid, patch, token)
        values = (self.rows if direction == "row" else self.columns)([index])[batch, :, 0].cpu().numpy()
        prefix, rows, cols = self.grid.prefix, self.grid.rows, self.grid.cols
        beside = {"class_token" if i == 0 else f"register_{i}": ("head", values[:, i]) for i in range(prefix)}
        return xarray.DataArray(
            values[:, prefix:].reshape(self.heads, rows, cols),
            dims=("head", "row", "col"),
            coords={"head": np.arange(self.heads), "row": np.arange(rows), "col": np.arange(cols), **beside},
            name="attention",
            attrs={"point": self.name, "direction": direction, "token": index, "batch": batch},
        )

    def _indices(self, tokens: Any) -> Tensor:
        try:
            if hasattr(tokens, "__index__") and np.ndim(tokens) == 0 and not isinstance(tokens, bool):
                tokens = [operator.index(tokens)]
            index = torch.as_tensor(tokens if len(tokens) else np.zeros(0, np.int64))
        except (TypeError, ValueError, RuntimeError):
            raise InvalidTypeError(f"expected token indices as a list of integers, not {tokens!r}") from None
        if index.ndim != 1 or index.is_floating_point() or index.dtype == torch.bool:
            raise InvalidTypeError(f"expected token indices as a list of integers, not {tokens!r}")
        outside = index[(index < 0) | (index >= self.tokens)]
        if len(outside):
            raise OutOfRangeError(
                f"token {int(outside[0])} is outside 0..{self.tokens - 1}: {self.grid.prefix} prefix tokens, then "
                f"{self.grid.rows} x {self.grid.cols} patches row by row"
            )
        return index.long().to(self.q.device)

    @cached_property
    def _windows(self) -> Tensor:
        """(windows, T) which token stands where."""
        return self.grid.windows().to(self.q.device)

    @cached_property
    def _places(self) -> Tensor:
        """(T,) the places of a window."""
        return torch.arange(self._windows.shape[1], device=self.q.device)

    @cached_property
    def _at(self) -> Tensor:
        """(N,) where each token stands, counted window by window."""
        return self._windows.flatten().argsort()

    @property
    def _window_of(self) -> Tensor:
        """(N,) the window of each token."""
        return self._at // self._windows.shape[1]

    def _window(self, t: Tensor, w: int) -> Tensor:
        """(B, heads, T, d) of one window; a view."""
        return t.unflatten(0, (-1, self._count))[:, w]

    def _bias(self, w: int, queries: Tensor, keys: Tensor) -> Tensor:
        """(heads, n, m), or with a leading batch."""
        if isinstance(self.bias, OffsetBias):
            return self.bias.between(queries, keys, w)
        assert self.bias is not None
        whole = self.bias.expand(*self.bias.shape[:-2], self.tokens, self.tokens)
        return whole[..., queries[:, None], keys]

    def _row_logits(self, w: int, places: Tensor) -> Tensor:
        queries, keys = self._window(self.q, w)[:, :, places], self._window(self.k, w)
        logits = self._exact(queries) * self.scale @ self._exact(keys).mT  # (B, heads, n, T)
        return logits if self.bias is None else logits + self._exact(self._bias(w, places, self._places))

    def _gather(self, tokens: Tensor, weights: Callable[[int, Tensor], Tensor]) -> Tensor:
        """(B, heads, n, N) from weights(window, places of n tokens) -> (B, heads, n, T)."""
        if self._count == 1:
            return weights(0, tokens).float()
        found = self.q.new_zeros((self.batch, self.heads, len(tokens), self.tokens), dtype=torch.float32)
        for w in self._window_of[tokens].unique().tolist():
            those = (self._window_of[tokens] == w).nonzero()[:, 0]
            inside = weights(w, self._at[tokens[those]] - w * len(self._places)).float()
            # Masked pairs are left with exp(-100), which the fused kernel's float32 does not tell from nothing.
            inside = torch.where(inside < torch.finfo(torch.float32).tiny, 0.0, inside)
            found[:, :, those[:, None], self._windows[w]] = inside
        return found

    def _by_token(self, parts: list[Tensor]) -> Tensor:
        """(B, heads, N) in the tokens' order, from the parts of all chunks."""
        whole = torch.cat(parts, dim=-1)
        return whole if self._count == 1 else whole[..., self._at]

    def _chunks(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """(queries, keys, logits (B, heads, n, T)) over all queries window by window, within CHUNK_BYTES."""
        inside = len(self._places)
        step = max(1, CHUNK_BYTES // (self.batch * self.heads * inside * 8))
        for w, members in enumerate(self._windows):
            for places in self._places.split(step):
                yield members[places], members, self._row_logits(w, places)

    @staticmethod
    def _exact(t: Tensor) -> Tensor:
        return t.detach().to(torch.float32 if t.device.type == "mps" else torch.float64)

    def __repr__(self) -> str:
        windows = "" if self._count == 1 else f" in {self._count} windows"
        held = sum(t.numel() * t.element_size() for t in (self.q, self.k))
        return (
            f"AttentionMaps({self.name}: batch {self.batch}, {self.heads} heads, {self.tokens} tokens = "
            f"{self.grid.prefix} + {self.grid.rows} x {self.grid.cols}{windows}; {held / 2**20:.1f} MiB of queries "
            f"and keys stand for {self.matrix_bytes / 2**20:.1f} MiB of matrix)"
        )


def token_of(grid: TokenGrid, patch: Any, token: Any) -> int:
    """The token that a caller means by one of patch=(row, col) and token=index; the index may lie outside the grid."""
    if (patch is None) == (token is None):
        raise InvalidValueError("give either patch=(row, col) or token=index, e.g. patch=(12, 20) or token=0")
    if patch is None:
        try:
            return operator.index(token)
        except TypeError:
            raise InvalidTypeError(f"token is {token!r}; expected a whole number (0 is the class token)") from None
    if not isinstance(patch, Sequence | np.ndarray | Tensor) or len(patch) != 2:
        raise InvalidTypeError(f"patch is {patch!r}; expected (row, col), e.g. patch=(12, 20)")
    return grid.token(*patch)


def _entropy(logits: Tensor) -> Tensor:
    """Entropy of softmax(logits) along the last axis: log-sum-exp minus the mean logit, which needs no log of zero."""
    return logits.logsumexp(dim=-1) - (logits.softmax(dim=-1) * logits).sum(dim=-1)
