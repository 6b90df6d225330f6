"""Encodes a block's attention for the browser: queries and keys in fp16, accurate enough to compute softmax from.

Problem: the browser computes softmax(q k^T + bias), so queries, keys and bias must travel, and must be small. Rounding
to fp16 changes every score by up to 2^-11 of its terms. Many attention layers add a large common part to all keys (a
bias direction that cancels in the softmax). After rounding, it no longer cancels.

Approach, per head:

* The softmax scale is folded into q.
* The mean key of each window is subtracted. All scores of a row fall by the same q_i . mean, which the softmax ignores.
  The rounding error shrinks with the size of the keys (seven times on Depth-Anything v2).
* A power of two balances q and k, so both use the same part of the fp16 range. Products do not change.
* A bias travels as its table of offsets in float32, exact. For BEiT-L at 512 pixels that is 16 x 63 x 63 numbers, not
  16 x 1025 x 1025. The mask of shifted windows does not travel: the browser derives it from their geometry.

Windowed tokens (SwinV2) travel window by window, so the queries and keys of a window are contiguous.

A column needs the log-sum-exp of every row. It is computed from the rounded numbers, bias and mask included. The
browser uses the same numbers, so exp(score_ij - lse_i) sums to 1 over j, and rows agree with columns.

Limits: one image. Only `OffsetBias` biases and scores below 65504^2 are supported. Weights are off by a few thousandths
(relative) where scores reach 30, and by up to 3 % in cosine attention at its largest scale, 100.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dpt import TokenGrid
from dpt.attention import OffsetBias

from ...errors import InvalidValueError

CHUNK_BYTES = 64 * 2**20  # largest piece of the score matrix in memory
HALF_MAX = 65504.0  # largest fp16 value


@dataclass(frozen=True)
class PackedAttention:
    """The attention of one block for one image, tokens window by window.

    Attributes:
        q: (heads, tokens, dim) float16, scaled and balanced queries.
        k: (heads, tokens, dim) float16, centred and balanced keys.
        log_sum_exp: (heads, tokens) float32.
        entropy: Mean entropy of the rows in nats, per head.
        bias: The position bias in float32, or None.
    """

    q: Tensor
    k: Tensor
    log_sum_exp: Tensor
    entropy: list[float]
    bias: OffsetBias | None = None

    def parts(self) -> list[bytes]:
        """Binary parts of a message, little-endian: q, k, log-sum-exp, then the bias' table and prefix if any."""
        tensors = [self.q, self.k, self.log_sum_exp]
        if self.bias is not None:
            tensors += [tensor for tensor in (self.bias.table, self.bias.prefix) if tensor is not None]
        return [tensor.cpu().contiguous().numpy().tobytes() for tensor in tensors]


def packed_bytes(heads: int, grid: TokenGrid, dim: int, biased: bool) -> int:
    """Bytes of the parts of a block."""
    rows, cols = grid.window or (grid.rows, grid.cols)
    bias = (2 * rows - 1) * (2 * cols - 1) + 3 * grid.prefix
    return heads * (grid.tokens * (2 * dim * 2 + 4) + 4 * bias * biased)


def pack_attention(
    q: Tensor, k: Tensor, scale: float, bias: OffsetBias | None = None, windows: int = 1
) -> PackedAttention:
    """Scales, centres, balances and rounds the queries and keys of one image.

    Args:
        q: (heads, tokens, dim) queries, window by window.
        k: (heads, tokens, dim) keys, window by window.
        scale: Softmax scale.
        bias: Position bias of the tokens in one window.
        windows: Number of windows.

    Raises:
        InvalidValueError: Shapes do not match, values are not finite, or they exceed the fp16 range.
    """
    if q.ndim != 3 or q.shape != k.shape:
        shapes = f"{tuple(q.shape)} and {tuple(k.shape)}"
        raise InvalidValueError(f"queries and keys must both be (heads, tokens, dim), got {shapes}")
    if bias is not None and bias.tokens * windows != q.shape[1]:
        raise InvalidValueError(
            f"a bias for {bias.tokens} tokens does not fit {q.shape[1]} tokens in {windows} windows"
        )
    with torch.no_grad():
        q, k = q.float() * scale, k.float()
        inside = k.unflatten(1, (windows, -1))
        k = (inside - inside.mean(dim=2, keepdim=True)).flatten(1, 2)
        top_q, top_k = (tensor.abs().amax(dim=(1, 2)) for tensor in (q, k))  # (heads,)
        if not bool(torch.isfinite(top_q + top_k).all()):
            raise InvalidValueError(
                "the queries or keys of this block contain NaN or infinity: the model overflowed on this image"
            )
        balance = torch.exp2(torch.round(torch.log2(top_k.clamp_min(1e-30) / top_q.clamp_min(1e-30)) / 2))
        balance = torch.where((top_q > 0) & (top_k > 0), balance, 1.0)
        q, k = q * balance[:, None, None], k / balance[:, None, None]
        top = max(float(q.abs().max()), float(k.abs().max()))
        if top > HALF_MAX:
            raise InvalidValueError(
                f"the balanced queries and keys of this block reach {top:.3g}, the largest fp16 value is {HALF_MAX:g}"
            )
        q, k = q.half(), k.half()
        bias = None if bias is None else bias.to(dtype=torch.float32)
        log_sum_exp, entropy = _row_statistics(q.float(), k.float(), bias, windows)
    return PackedAttention(q, k, log_sum_exp, entropy, bias)


def _row_statistics(q: Tensor, k: Tensor, bias: OffsetBias | None, windows: int) -> tuple[Tensor, list[float]]:
    """(heads, tokens) log-sum-exp of the scores, and the mean row entropy of each head in nats."""
    heads, tokens, _ = q.shape
    inside = tokens // windows
    places = torch.arange(inside, device=q.device)
    step = max(1, CHUNK_BYTES // (4 * heads * inside))
    sums, entropies = [], []
    for w in range(windows):
        queries, keys = (tensor[:, w * inside : (w + 1) * inside] for tensor in (q, k))
        for start in range(0, inside, step):
            scores = queries[:, start : start + step] @ keys.mT  # (heads, step, inside)
            if bias is not None:
                scores += bias.between(places[start : start + step], places, w)
            lse = torch.logsumexp(scores, dim=-1)
            sums.append(lse)
            # entropy = lse - sum_j p_j score_j
            expected = ((scores - lse[..., None]).exp() * scores).sum(dim=-1)
            entropies.append(lse - expected)
    return torch.cat(sums, dim=1), torch.cat(entropies, dim=1).mean(dim=1).tolist()
