"""A block's attention in the form in which it travels to the browser: fp16 queries and keys, exactly usable.

Problem: the browser computes softmax(q k^T + bias) itself, so q, k and the bias must get there, small. Rounding q and k
to fp16 shifts every score by up to 2^-11 of its terms, and attention layers often carry a large common part in all keys
(a bias direction that the softmax cancels): what is rounded away there is not cancelled any more.

Approach, per head:

* the softmax scale is folded into q;
* the mean key is subtracted, of each window by itself. All scores of a row fall by the same q_i . mean, which the
  softmax ignores; the rounding error falls with the size of the keys (seven times on Depth-Anything v2);
* q and k are balanced by a power of two, so that both use the same part of fp16's range; products do not change;
* a bias goes as its table of offsets in float32, exact: 16 x 63 x 63 numbers for BEiT-L at 512 pixels, where the bias
  itself is 16 x 1025 x 1025. The mask of shifted windows does not go at all: it follows from their geometry.

Tokens in windows (SwinV2) travel window by window, so that each window's queries and keys are one run of memory.

A column needs each row's log-sum-exp. It is computed here from the rounded numbers, bias and mask included, as the
browser will see them: then exp(score_ij - lse_i) sums to 1 over j whatever the rounding did, and rows and columns agree
with each other.

Limit: one picture; a bias that is no `OffsetBias` and scores beyond 65504^2 are refused. Weights are off
by some thousandths of themselves where scores reach 30, and by up to three hundredths in cosine attention at its
largest scale, 100.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dpt import TokenGrid
from dpt.attention import OffsetBias

from ...errors import InvalidValueError

CHUNK_BYTES = 64 * 2**20  # of the score matrix alive at a time
HALF_MAX = 65504.0


@dataclass(frozen=True)
class PackedAttention:
    """A block of one picture, its tokens window by window.

    q, k: (heads, tokens, dim) float16. log_sum_exp: (heads, tokens) float32. entropy: of each head, bits, mean of rows.
    bias: its table and prefix in float32, or None.
    """

    q: Tensor
    k: Tensor
    log_sum_exp: Tensor
    entropy: list[float]
    bias: OffsetBias | None = None

    def parts(self) -> list[bytes]:
        """The binary parts of a message, little endian: q, k, log-sum-exp; with a bias its table, and its prefix."""
        tensors = [self.q, self.k, self.log_sum_exp]
        if self.bias is not None:
            tensors += [tensor for tensor in (self.bias.table, self.bias.prefix) if tensor is not None]
        return [tensor.cpu().contiguous().numpy().tobytes() for tensor in tensors]


def packed_bytes(heads: int, grid: TokenGrid, dim: int, biased: bool) -> int:
    """Size of the parts of a block."""
    rows, cols = grid.window or (grid.rows, grid.cols)
    bias = (2 * rows - 1) * (2 * cols - 1) + 3 * grid.prefix
    return heads * (grid.tokens * (2 * dim * 2 + 4) + 4 * bias * biased)


def pack_attention(
    q: Tensor, k: Tensor, scale: float, bias: OffsetBias | None = None, windows: int = 1
) -> PackedAttention:
    """Folds, centres, balances and rounds the queries and keys of one picture: q, k (heads, tokens, dim).

    windows: how many there are; the tokens come window by window. bias: of one window's tokens.
    """
    if q.ndim != 3 or q.shape != k.shape:
        shapes = f"{tuple(q.shape)} and {tuple(k.shape)}"
        raise InvalidValueError(f"expected queries and keys as (heads, tokens, dim), not {shapes}")
    if bias is not None and bias.tokens * windows != q.shape[1]:
        raise InvalidValueError(f"a bias of {bias.tokens} tokens does not fit {q.shape[1]} tokens in {windows} windows")
    with torch.no_grad():
        q, k = q.float() * scale, k.float()
        inside = k.unflatten(1, (windows, -1))
        k = (inside - inside.mean(dim=2, keepdim=True)).flatten(1, 2)
        top_q, top_k = (tensor.abs().amax(dim=(1, 2)) for tensor in (q, k))  # (heads,)
        if not bool(torch.isfinite(top_q + top_k).all()):
            raise InvalidValueError(
                "queries or keys of this block hold NaN or infinity; the model overflowed on this picture"
            )
        balance = torch.exp2(torch.round(torch.log2(top_k.clamp_min(1e-30) / top_q.clamp_min(1e-30)) / 2))
        balance = torch.where((top_q > 0) & (top_k > 0), balance, 1.0)
        q, k = q * balance[:, None, None], k / balance[:, None, None]
        top = max(float(q.abs().max()), float(k.abs().max()))
        if top > HALF_MAX:
            raise InvalidValueError(
                f"balanced queries and keys of this block reach {top:.3g}, beyond fp16's {HALF_MAX:g}"
            )
        q, k = q.half(), k.half()
        bias = None if bias is None else bias.to(dtype=torch.float32)
        log_sum_exp, entropy = _row_statistics(q.float(), k.float(), bias, windows)
    return PackedAttention(q, k, log_sum_exp, entropy, bias)


def _row_statistics(q: Tensor, k: Tensor, bias: OffsetBias | None, windows: int) -> tuple[Tensor, list[float]]:
    """(heads, tokens) log-sum-exp of the scores, and each head's mean row entropy in bits, in chunks of rows."""
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
            # entropy = lse - sum_j p_j score_j, in nats
            expected = ((scores - lse[..., None]).exp() * scores).sum(dim=-1)
            entropies.append((lse - expected) / math.log(2))
    return torch.cat(sums, dim=1), torch.cat(entropies, dim=1).mean(dim=1).tolist()
