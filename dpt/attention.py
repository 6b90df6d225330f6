"""The only place where attention is computed, and so the only place where a probe has to look.

Fused attention never forms the tokens x tokens matrix. Whoever wants to see attention takes the queries and keys that
`Attend` is called with (a forward pre-hook sees them) and works out the rows of interest from those.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Attend(nn.Module):
    """softmax(scale * q k^T + bias) v through PyTorch's fused kernel (Vaswani et al. 2017, equation 1)."""

    def __init__(self, scale: float):
        super().__init__()
        self.scale = scale

    def forward(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        # q, k, v: (B, heads, N, d); bias: broadcastable to (B, heads, N, N) -> (B, heads, N, d)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=self.scale)

    def extra_repr(self) -> str:
        return f"scale={self.scale:.6g}"
