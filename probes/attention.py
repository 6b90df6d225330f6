"""AttentionMaps computes attention from queries and keys, without the tokens x tokens matrix.

Fused attention never forms the softmax matrix, so a hook cannot record it. The matrix has N x N numbers per head and
block. Queries and keys exist anyway and hold the same information in 2 N d numbers. One row is a small product and a
softmax: exact, in well under a millisecond.

A column needs the normalisation of every row, log sum_j exp(logit_ij). It is computed once, in chunks of rows, and
cached. Statistics over all rows use the same chunks, so at most `CHUNK_BYTES` of the matrix exist at a time. `matrix()`
forms the whole matrix and refuses above a stated budget.

For windowed attention (SwinV2), AttentionMaps keeps the queries and keys of the windows and reports rows and columns on
the block's whole, unshifted grid. They are zero outside the window of their token, and rows sum to 1. Callers never
undo the window shift.

Logits are summed in float64, or in float32 on devices without float64. Logits of 30 and more are common, and float32
sums would cause errors of several 1e-6 in the weights. Results are float32, within 1e-6 of the exact softmax of the
model's queries and keys. In half precision the queries and keys are rounded, and the model's kernel rounds differently.

Gradients flow to queries, keys and bias where they are enabled and one of them needs them. No graph is kept otherwise,
and a graph keeps no logits: the backward pass computes them again, chunk by chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Literal, SupportsFloat, SupportsIndex

import numpy as np
import torch
import xarray
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from dpt import TokenGrid
from dpt.attention import OffsetBias
from dpt.scalars import is_whole

from .errors import InvalidTypeError, InvalidValueError, OutOfRangeError
from .narrowed import Narrowed, checked_device, checked_dtype
from .scalars import real, whole

CHUNK_BYTES = 32 * 2**20
MATRIX_BUDGET = 256 * 2**20

Direction = Literal["row", "column"]
Tokens = SupportsIndex | Sequence[SupportsIndex] | np.ndarray | Tensor


class AttentionMaps:
    """softmax(scale * q k^T + bias) of one block, for every head, computed on demand.

    Token indices follow the model's order: prefix tokens (class token, registers) first, then patches in row-major
    order. A *row* holds the weights of one query over all keys and sums to 1: what the token looks at. A *column* holds
    the weights of all queries on one key: who looks at the token.

    Args:
        q: Queries as `dpt.attention.Attend` receives them. With windows the batch axis is batch x windows, and tokens
            are those of one window.
        k: Keys, the same shape.
        scale: Factor of the logits.
        grid: Where the tokens lie, including windows.
        bias: Added to the logits: a table of offsets, or a tensor that broadcasts to (batch, heads, tokens, tokens).
        name: The point's name, for messages and results.

    Raises:
        InvalidValueError: The shapes of q, k and grid do not match.

    Example:
        >>> with probes.capture(model, "attention") as cap:
        ...     model.predict(image)
        >>> maps = cap["encoder.blocks.7.attention"]
        >>> maps.map(patch=(12, 20))  # (head, row, col): what the patch at row 12, column 20 looks at
        >>> maps.statistics()["entropy"].sel(head=3)

    Source:
        Vaswani et al., "Attention Is All You Need", 2017, equation 1.
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
        inside = grid.tokens if grid.window is None else grid.window[0] * grid.window[1]
        self._window_count = count = grid.tokens // inside
        if q.shape != k.shape or q.ndim != 4 or q.shape[2] != inside or q.shape[0] % count:
            expected = f"(batch, heads, {inside}, d)" if count == 1 else f"(batch x {count}, heads, {inside}, d)"
            raise InvalidValueError(
                f"queries and keys of a grid of {grid.tokens} tokens must have shape {expected}, got {tuple(q.shape)} "
                f"and {tuple(k.shape)}"
            )
        self.q, self.k, self.bias = q, k, bias
        self.scale, self.grid, self.name = scale, grid, name
        self._log_sum_exp: tuple[tuple[object, ...], Tensor] | None = None  # (of what, the values)

    @property
    def batch(self) -> int:
        """Number of images."""
        return self.q.shape[0] // self._window_count

    @property
    def heads(self) -> int:
        """Number of attention heads."""
        return self.q.shape[1]

    @property
    def tokens(self) -> int:
        """Number of tokens of the whole grid, prefix tokens included."""
        return self.grid.tokens

    @property
    def matrix_bytes(self) -> int:
        """Size of the whole matrix in bytes, in float32."""
        return self.batch * self.heads * self.tokens**2 * 4

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> AttentionMaps:
        """Returns a copy with queries, keys and bias on another device or in another precision.

        Raises:
            InvalidTypeError: dtype is not a floating-point type, or device is not a device.
            InvalidValueError: A finite value would become infinite in dtype, or this machine has no such device.
        """
        narrowed = Narrowed(checked_dtype(dtype), checked_device(device))
        maps = self.converted(narrowed)
        narrowed.check("dtype")
        return maps

    def converted(self, narrowed: Narrowed) -> AttentionMaps:
        """Returns a copy with converted queries, keys and bias. The caller checks `narrowed`."""
        q, k = narrowed(self.q, self.name), narrowed(self.k, self.name)
        bias = self.bias
        if isinstance(bias, OffsetBias):
            prefix = None if bias.prefix is None else narrowed(bias.prefix, self.name)
            bands = None if bias.bands is None else bias.bands.to(device=narrowed.device)
            bias = OffsetBias(narrowed(bias.table, self.name), prefix, bands)
        elif bias is not None:
            bias = narrowed(bias, self.name)
        return AttentionMaps(q, k, self.scale, self.grid, bias, self.name)

    def rows(self, queries: Tokens) -> Float[Tensor, "batch heads n tokens"]:
        """Computes exact softmax rows: what each of the given tokens looks at.

        Args:
            queries: One token index, or n of them.

        Returns:
            Weights (batch, heads, n, tokens). Each row sums to 1.

        Raises:
            InvalidTypeError: An index is not an integer.
            OutOfRangeError: An index lies outside the tokens.
        """
        return self._gather(self._indices(queries), lambda w, slots: self._row_logits(w, slots).softmax(dim=-1))

    def columns(self, keys: Tokens) -> Float[Tensor, "batch heads n tokens"]:
        """Computes exact columns: who looks at each of the given tokens.

        Args:
            keys: One token index, or n of them.

        Returns:
            Weights (batch, heads, n, tokens). Entry [..., i, t] is the attention of query t to keys[i].

        Raises:
            InvalidTypeError: An index is not an integer.
            OutOfRangeError: An index lies outside the tokens.
        """
        normaliser = self._normaliser()

        def weights(w: int, slots: Tensor) -> Tensor:
            queries, keys = self._window(self.q, w), self._window(self.k, w)[:, :, slots]
            logits = self._wide(keys) * self.scale @ self._wide(queries).mT  # (B, heads, n, T)
            if self.bias is not None:
                logits = logits + self._wide(self._bias(w, self._all_slots, slots)).mT
            return (logits - normaliser[:, :, None, self._windows[w]]).exp()

        return self._gather(self._indices(keys), weights)

    def window(self, token: SupportsIndex) -> Tensor:
        """Returns the indices (n,) of all tokens in the window of a token; all tokens if attention is not windowed."""
        return self._windows[int(self._window_of[self._indices(whole(token, "token"))])]

    def log_sum_exp(self) -> Float[Tensor, "batch heads tokens"]:
        """Returns the log of each row's softmax denominator."""
        return self._normaliser().float()

    def _normaliser(self) -> Tensor:
        if self.wants_gradient:  # a graph is built for one caller and not kept
            return self._by_token(self._each_chunk(_log_sum_exp))
        state = tuple((tensor, 0 if tensor.is_inference() else tensor._version) for tensor in self._tensors())
        if self._log_sum_exp is None or not _same(self._log_sum_exp[0], state):
            with torch.inference_mode(False), torch.no_grad():
                self._log_sum_exp = (state, self._by_token(self._each_chunk(_log_sum_exp)))
        return self._log_sum_exp[1]

    @property
    def wants_gradient(self) -> bool:
        """Whether results will pass gradients on to queries, keys or bias: gradients are enabled and one needs them."""
        return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in self._tensors())

    def _tensors(self) -> list[Tensor]:
        bias = self.bias
        offsets = (bias.table, bias.prefix, bias.bands) if isinstance(bias, OffsetBias) else (bias,)
        return [tensor for tensor in (self.q, self.k, *offsets) if tensor is not None]

    def entropy(self) -> Float[Tensor, "batch heads tokens"]:
        """Computes each row's entropy in nats, from 0 (one key has all the weight) to log(tokens) (equal weights)."""
        return self._by_token(self._each_chunk(_entropy)).float()

    def mean(self) -> Float[Tensor, "batch heads tokens"]:
        """Computes the attention that each token receives, averaged over all queries. It sums to 1 over the tokens."""
        received = self.q.new_zeros((self.batch, self.heads, self.tokens), dtype=torch.float32)
        for (_, _, keys), sums in zip(self._places(), self._each_chunk(_column_sums), strict=True):
            received = received.index_add(2, keys, sums) if self.wants_gradient else received.index_add_(2, keys, sums)
        return received / self.tokens

    @torch.no_grad()
    def statistics(self) -> xarray.Dataset:
        """Computes statistics of each head, averaged over the queries, in one pass over the rows.

        Returns:
            Variables (batch, head):

            - entropy: Entropy of the row, in nats.
            - peak: Largest weight of the row.
            - prefix: Weight on prefix tokens.
            - itself: Weight on the query's own token.
            - distance: Mean distance from query to key patch, in patches, weighted by attention. Only patch queries and
              patch keys count.
        """
        prefix = self.grid.prefix
        patch = torch.arange(self.grid.patches, device=self.q.device)
        centres = torch.stack((patch // self.grid.cols, patch % self.grid.cols), dim=1).float()  # (N, 2), in patches
        names = ("entropy", "peak", "prefix", "itself", "distance")
        sums = {name: self.q.new_zeros(self.batch, self.heads, dtype=torch.float32) for name in names}
        for queries, keys, logits in self._chunks():
            p = logits.softmax(dim=-1).float()  # (B, heads, n, T)
            sums["entropy"] += _entropy(logits).sum(-1).float()
            sums["peak"] += p.amax(-1).sum(-1)
            sums["prefix"] += p[..., keys < prefix].sum((-1, -2))
            sums["itself"] += (p * (queries[:, None] == keys)).sum((-1, -2))
            from_patches, to_patches = queries >= prefix, keys >= prefix
            distances = torch.cdist(centres[queries[from_patches] - prefix], centres[keys[to_patches] - prefix])
            between = p[:, :, from_patches][..., to_patches]  # (B, heads, n', T')
            total = between.sum(-1).clamp_min(torch.finfo(torch.float32).tiny)
            sums["distance"] += ((between * distances).sum(-1) / total).sum(-1)
        counts = dict.fromkeys(sums, self.tokens) | {"distance": self.grid.patches}
        units = {"entropy": {"units": "nats"}, "distance": {"units": "patches"}}
        values = {
            name: (("batch", "head"), (of_all / counts[name]).cpu().numpy(), units.get(name, {}))
            for name, of_all in sums.items()
        }
        return xarray.Dataset(values, coords={"head": np.arange(self.heads)}, attrs={"name": self.name})

    def matrix(self, max_bytes: SupportsFloat = MATRIX_BUDGET) -> Float[Tensor, "batch heads tokens tokens"]:
        """Computes the whole softmax matrix.

        Args:
            max_bytes: Budget in bytes. Rows, columns and statistics do not need the matrix.

        Returns:
            Weights (batch, heads, tokens, tokens).

        Raises:
            InvalidTypeError: max_bytes is not a number.
            InvalidValueError: The matrix exceeds the budget.
        """
        max_bytes = real(max_bytes, "max_bytes", least=0, finite=False)
        if self.matrix_bytes > max_bytes:
            raise InvalidValueError(
                f"The matrix of {self.name} needs {self.matrix_bytes:,} bytes ({self.batch} x {self.heads} heads x "
                f"{self.tokens} x {self.tokens} float32), more than max_bytes={max_bytes:,.0f}. Use rows(), columns(), "
                f"map(), entropy() or mean(), or call matrix(max_bytes={self.matrix_bytes})."
            )
        return self.rows(torch.arange(self.tokens, device=self.q.device))

    def map(
        self,
        patch: Sequence[SupportsIndex] | np.ndarray | Tensor | None = None,
        *,
        token: SupportsIndex | None = None,
        direction: Direction = "row",
        batch: SupportsIndex = 0,
    ) -> xarray.DataArray:
        """Places one token's row or column on the patch grid.

        Args:
            patch: (row, col) of the token's patch. Give either patch or token.
            token: Index of the token. 0 is the class token, if the model has one.
            direction: "row" for what the token looks at, "column" for who looks at it.
            batch: Index of the image in the batch.

        Returns:
            Weights (head, row, col). Weights on prefix tokens are the coordinates ``class_token``, ``register_1``, ...
            The attributes "token" and "prefix" hold the token's index and the number of prefix tokens. The values are
            numbers without gradients; take gradients from `rows` or `columns`.

        Raises:
            InvalidValueError: The direction is unknown, or not exactly one of patch and token is given.
            InvalidTypeError: patch or token is not made of integers.
            OutOfRangeError: The batch or token does not exist. `dpt.DPTError` reports a patch outside the grid.
        """
        if direction not in ("row", "column"):
            raise InvalidValueError(
                f"direction must be 'row' (what the token looks at) or 'column' (who looks at it), got {direction!r}"
            )
        batch = whole(batch, "batch")
        if not 0 <= batch < self.batch:
            raise OutOfRangeError(f"batch must be 0 to {self.batch - 1} ({self.batch} images), got {batch}")
        index = token_of(self.grid, patch, token)
        with torch.no_grad():
            values = (self.rows if direction == "row" else self.columns)([index])[batch, :, 0].cpu().numpy()
        prefix, rows, cols = self.grid.prefix, self.grid.rows, self.grid.cols
        prefixes = {"class_token" if i == 0 else f"register_{i}": ("head", values[:, i]) for i in range(prefix)}
        return xarray.DataArray(
            values[:, prefix:].reshape(self.heads, rows, cols),
            dims=("head", "row", "col"),
            coords={"head": np.arange(self.heads), "row": np.arange(rows), "col": np.arange(cols), **prefixes},
            name="attention",
            attrs={"point": self.name, "direction": direction, "token": index, "prefix": prefix, "batch": batch},
        )

    def _indices(self, tokens: object) -> Tensor:
        """(n,) token indices, checked, on the device of the queries."""
        try:
            if is_whole(tokens):
                tokens = [whole(tokens, "a token")]
            elif isinstance(tokens, list | tuple):
                tokens = [whole(token, "a token") for token in tokens]
            device = tokens.device if isinstance(tokens, Tensor) else "cpu"
            index = torch.as_tensor(tokens if len(tokens) else np.zeros(0, np.int64), device=device)  # type: ignore[arg-type]
        except (TypeError, ValueError, RuntimeError):
            raise InvalidTypeError(f"token indices must be integers, got {tokens!r}") from None
        if index.ndim != 1 or index.is_floating_point() or index.dtype == torch.bool:
            raise InvalidTypeError(f"token indices must be integers, got {tokens!r}")
        outside = index[(index < 0) | (index >= self.tokens)]
        if len(outside):
            raise OutOfRangeError(
                f"tokens must be 0 to {self.tokens - 1} ({self.grid.prefix} prefix tokens, then {self.grid.rows} x "
                f"{self.grid.cols} patches), got {int(outside[0])}"
            )
        return index.long().to(self.q.device)

    @cached_property
    def _windows(self) -> Tensor:
        """(windows, T): the token in each slot of each window."""
        with torch.inference_mode(False):  # an index of inference mode cannot be saved for a backward pass
            return self.grid.windows().to(self.q.device)

    @cached_property
    def _all_slots(self) -> Tensor:
        """(T,): the slots of a window."""
        with torch.inference_mode(False):
            return torch.arange(self._windows.shape[1], device=self.q.device)

    @cached_property
    def _slot_of(self) -> Tensor:
        """(N,): each token's slot, counted window by window."""
        with torch.inference_mode(False):
            return self._windows.flatten().argsort()

    @property
    def _window_of(self) -> Tensor:
        """(N,): the window of each token."""
        return self._slot_of // self._windows.shape[1]

    def _window(self, t: Tensor, w: int) -> Tensor:
        """(B, heads, T, d): a view of one window."""
        return t.unflatten(0, (-1, self._window_count))[:, w]

    def _bias(self, w: int, queries: Tensor, keys: Tensor) -> Tensor:
        """(heads, n, m), or with a leading batch axis."""
        if isinstance(self.bias, OffsetBias):
            return self.bias.between(queries, keys, w)
        assert self.bias is not None
        dense = self.bias.expand(*self.bias.shape[:-2], self.tokens, self.tokens)
        return dense[..., queries[:, None], keys]

    def _row_logits(self, w: int, slots: Tensor) -> Tensor:
        queries, keys = self._window(self.q, w)[:, :, slots], self._window(self.k, w)
        logits = self._wide(queries) * self.scale @ self._wide(keys).mT  # (B, heads, n, T)
        return logits if self.bias is None else logits + self._wide(self._bias(w, slots, self._all_slots))

    def _gather(self, tokens: Tensor, weights: Callable[[int, Tensor], Tensor]) -> Tensor:
        """(B, heads, n, N) from weights(window, n slots) -> (B, heads, n, T), zero outside each token's window."""
        if self._window_count == 1:
            return weights(0, tokens).float()
        gathered = self.q.new_zeros((self.batch, self.heads, len(tokens), self.tokens), dtype=torch.float32)
        for w in self._window_of[tokens].unique().tolist():
            members = (self._window_of[tokens] == w).nonzero()[:, 0]
            inside = weights(w, self._slot_of[tokens[members]] - w * len(self._all_slots)).float()
            # Masked pairs still have weights near exp(-100), which the fused kernel's float32 rounds to 0.
            inside = torch.where(inside < torch.finfo(torch.float32).tiny, 0.0, inside)
            gathered[:, :, members[:, None], self._windows[w]] = inside
        return gathered

    def _by_token(self, parts: list[Tensor]) -> Tensor:
        """(B, heads, N) in token order, from the parts of all chunks."""
        whole = torch.cat(parts, dim=-1)
        return whole if self._window_count == 1 else whole[..., self._slot_of]

    def _places(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yields (window, slots of the queries, tokens of the window) of each chunk of rows, within CHUNK_BYTES."""
        inside = len(self._all_slots)
        step = max(1, CHUNK_BYTES // (self.batch * self.heads * inside * 8))
        for w, members in enumerate(self._windows):
            for slots in self._all_slots.split(step):
                yield w, slots, members

    def _chunks(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yields (queries, keys, logits (B, heads, n, T)) of each chunk."""
        for w, slots, members in self._places():
            yield members[slots], members, self._row_logits(w, slots)

    def _each_chunk(self, reduce: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """The reduced logits (B, heads, n, T) of each chunk. A graph keeps no logits: backward computes them again."""
        found = []
        for w, slots, _ in self._places():

            def reduced(w: int = w, slots: Tensor = slots) -> Tensor:
                return reduce(self._row_logits(w, slots))

            found.append(checkpoint(reduced, use_reentrant=False) if self.wants_gradient else reduced())
        return found

    @staticmethod
    def _wide(t: Tensor) -> Tensor:
        """Float64, or float32 on Apple GPUs, which have no float64."""
        return t.to(torch.float32 if t.device.type == "mps" else torch.float64)

    def __repr__(self) -> str:
        windows = "" if self._window_count == 1 else f" in {self._window_count} windows"
        kept = sum(t.numel() * t.element_size() for t in (self.q, self.k))
        return (
            f"AttentionMaps({self.name}: batch {self.batch}, {self.heads} heads, {self.tokens} tokens = "
            f"{self.grid.prefix} + {self.grid.rows} x {self.grid.cols}{windows}; {kept / 2**20:.1f} MiB of queries "
            f"and keys instead of a matrix of {self.matrix_bytes / 2**20:.1f} MiB)"
        )


def token_of(grid: TokenGrid, patch: object, token: object) -> int:
    """Returns the token index for either patch=(row, col) or token=index.

    Args:
        grid: The grid of the patch.
        patch: A sequence or array (row, col), or None.
        token: An integer, or None. The caller checks its range.

    Raises:
        InvalidValueError: Both or neither are given.
        InvalidTypeError: patch is not a pair, or token is not an integer.
        dpt.DPTError: The patch lies outside the grid, or is not made of integers.
    """
    if (patch is None) == (token is None):
        raise InvalidValueError("give either patch=(row, col) or token=index, e.g. patch=(12, 20) or token=0")
    if patch is None:
        if not is_whole(token):
            raise InvalidTypeError(f"token must be an integer (0 is the class token), got {token!r}")
        return whole(token, "token")
    if not isinstance(patch, Sequence | np.ndarray | Tensor) or isinstance(patch, str) or len(patch) != 2:
        raise InvalidTypeError(f"patch must be (row, col), e.g. patch=(12, 20), got {patch!r}")
    return grid.token(*patch)


def _entropy(logits: Tensor) -> Tensor:
    """Entropy of softmax(logits) along the last axis: log-sum-exp minus the mean logit, which avoids log(0)."""
    return logits.logsumexp(dim=-1) - (logits.softmax(dim=-1) * logits).sum(dim=-1)


def _log_sum_exp(logits: Tensor) -> Tensor:
    return logits.logsumexp(dim=-1)


def _column_sums(logits: Tensor) -> Tensor:
    """What each key receives from the queries of a chunk."""
    return logits.softmax(dim=-1).sum(dim=-2).float()


def _same(one: tuple[object, ...], other: tuple[object, ...]) -> bool:
    """Whether two lists of (tensor, version) name the same tensors, unchanged."""
    return len(one) == len(other) and all(a[0] is b[0] and a[1] == b[1] for a, b in zip(one, other, strict=True))  # type: ignore[index]
