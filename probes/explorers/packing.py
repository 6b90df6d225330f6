"""A block's attention in the form in which it travels to the browser: fp16 queries and keys, exactly usable.

Problem: the browser computes softmax(q k^T) itself, so q and k must get there, small. Rounding them to fp16 shifts
every score by up to 2^-11 of its terms, and attention layers often carry a large common part in all keys (a bias
direction that the softmax cancels): what is rounded away there is not cancelled any more.

Approach, per head:

* the softmax scale is folded into q;
* the mean key is subtracted. All scores of a row fall by the same q_i . mean, which the softmax ignores; the rounding
  error falls with the size of the keys (seven times on Depth-Anything v2);
* q and k are balanced by a power of two, so that both use the same part of fp16's range; products do not change.

A column needs each row's log-sum-exp. It is computed here from the rounded numbers, as the browser will see them: then
exp(q_i . k_j - lse_i) sums to 1 over j whatever the rounding did, and rows and columns agree with each other.

Limit: one picture, no bias and no windows; scores beyond 65504^2 are refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK_BYTES = 64 * 2**20  # of the score matrix alive at a time
HALF_MAX = 65504.0


@dataclass(frozen=True)
class PackedAttention:
    """A block of one picture.

    q, k: (heads, tokens, dim) float16. log_sum_exp: (heads, tokens) float32. entropy: of each head, bits, mean of rows.
    """

    q: Tensor
    k: Tensor
    log_sum_exp: Tensor
    entropy: list[float]

    def parts(self) -> list[bytes]:
        """The three binary parts of a message, little endian."""
        return [tensor.cpu().contiguous().numpy().tobytes() for tensor in (self.q, self.k, self.log_sum_exp)]


def packed_bytes(heads: int, tokens: int, dim: int) -> int:
    """Size of the parts of a block."""
    return heads * tokens * (2 * dim * 2 + 4)


def pack_attention(q: Tensor, k: Tensor, scale: float) -> PackedAttention:
    """Folds, centres, balances and rounds the queries and keys of one picture: q, k (heads, tokens, dim)."""
    if q.ndim != 3 or q.shape != k.shape:
        shapes = f"{tuple(q.shape)} and {tuple(k.shape)}"
        raise ValueError(f"expected queries and keys as (heads, tokens, dim), not {shapes}")
    with torch.no_grad():
        q, k = q.float() * scale, k.float()
        k = k - k.mean(dim=1, keepdim=True)
        top_q, top_k = (tensor.abs().amax(dim=(1, 2)) for tensor in (q, k))  # (heads,)
        if not bool(torch.isfinite(top_q + top_k).all()):
            raise ValueError("queries or keys of this block hold NaN or infinity; the model overflowed on this picture")
        balance = torch.exp2(torch.round(torch.log2(top_k.clamp_min(1e-30) / top_q.clamp_min(1e-30)) / 2))
        balance = torch.where((top_q > 0) & (top_k > 0), balance, 1.0)
        q, k = q * balance[:, None, None], k / balance[:, None, None]
        top = max(float(q.abs().max()), float(k.abs().max()))
        if top > HALF_MAX:
            raise ValueError(f"balanced queries and keys of this block reach {top:.3g}, beyond fp16's {HALF_MAX:g}")
        q, k = q.half(), k.half()
        log_sum_exp, entropy = _row_statistics(q.float(), k.float())
    return PackedAttention(q, k, log_sum_exp, entropy)


def _row_statistics(q: Tensor, k: Tensor) -> tuple[Tensor, list[float]]:
    """(heads, tokens) log-sum-exp of the scores, and each head's mean row entropy in bits, in chunks of rows."""
    heads, tokens, _ = q.shape
    step = max(1, CHUNK_BYTES // (4 * heads * tokens))
    sums, entropies = [], []
    for start in range(0, tokens, step):
        scores = q[:, start : start + step] @ k.mT  # (heads, step, tokens)
        lse = torch.logsumexp(scores, dim=-1)
        sums.append(lse)
        # entropy = lse - sum_j p_j score_j, in nats
        expected = ((scores - lse[..., None]).exp() * scores).sum(dim=-1)
        entropies.append((lse - expected) / math.log(2))
    return torch.cat(sums, dim=1), torch.cat(entropies, dim=1).mean(dim=1).tolist()
