"""MiDaS v3.1 with a BEiT encoder: relative positions in every block, and a readout of the class token.

Birkl et al. 2023, "MiDaS v3.1"; Bao et al. 2022, "BEiT". There is no table of absolute positions: each block adds a
bias of its own that depends on how far, and in which direction, the key lies from the query.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Attend, OffsetBias
from .config import Config, TokenGrid
from .errors import InvalidValueError
from .image import Preprocess
from .kept import KeptPerGrid
from .vit import MLP, PatchEmbed, Reassembly

PATCH = 16
HEAD_WIDTH = 64
# Grids whose biases are kept. A bias in full is heads x tokens x tokens: 24 blocks of BEiT-L at 512 pixels take 1.6 GB.
BIASES_KEPT = 2


@dataclass(frozen=True)
class BeitConfig(Config):
    """Sizes of one MiDaS BEiT model. `beit` fills in what follows from the rest."""

    _: KW_ONLY
    taps: tuple[int, int, int, int]  # 0-based blocks handed to reassembly, finest map first
    reassembly_channels: tuple[int, int, int, int]
    hidden: int  # width of the MLP's hidden layer
    table_side: int  # the relative position tables were made for a grid of table_side x table_side patches

    def stage_block(self, stage: int) -> int:
        return self.taps[stage]

    def parts(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        reassembly = Reassembly(self.width, self.reassembly_channels, self.fusion_channels, readout=True)
        return PatchEmbed(self.width, PATCH), Encoder(self), reassembly


def beit(
    *,
    variant: str,
    width: int,
    depth: int,
    table_side: int,
    reassembly_channels: Sequence[int],
    fusion_channels: int = 256,
    hidden: int | None = None,
) -> BeitConfig:
    """The configuration of a BEiT model from the sizes that vary. ValueError for impossible ones."""
    if width % HEAD_WIDTH or width <= 0:
        raise InvalidValueError(f"width is {width}; BEiT heads are {HEAD_WIDTH} wide, so it must be a multiple of that")
    if depth < 4 or depth % 4:
        raise InvalidValueError(
            f"depth is {depth}; every quarter of the blocks is tapped, so it must be a multiple of 4"
        )
    return BeitConfig(
        family="beit",
        variant=variant,
        width=width,
        depth=depth,
        heads=width // HEAD_WIDTH,
        patch_size=PATCH,
        prefix=1,
        multiple=PATCH,
        fusion_channels=fusion_channels,
        preprocess=Preprocess(
            base=table_side * PATCH,
            multiple=2 * PATCH,  # what MiDaS feeds; the model itself takes odd grids, too
            exact_multiple=PATCH,
            method="minimal",
            keep_aspect=True,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            restore=("bicubic", False),
        ),
        taps=(depth // 4 - 1, depth // 2 - 1, 3 * depth // 4 - 1, depth - 1),
        reassembly_channels=tuple(reassembly_channels),  # type: ignore[arg-type]
        hidden=4 * width if hidden is None else hidden,
        table_side=table_side,
    )


class RelativePositions(nn.Module):
    """A block's bias by offset: a table for one grid, resized to the grid at hand and kept for the next picture."""

    def __init__(self, heads: int, side: int):
        super().__init__()
        self.side = side
        self.dense = True  # work the bias out in full, once a grid; see dpt.compiled
        # One row an offset (dr, dc), dr first; then class to patches, patches to class, class to itself.
        self.table = nn.Parameter(torch.zeros((2 * side - 1) ** 2 + 3, heads))
        self._kept: KeptPerGrid[OffsetBias] = KeptPerGrid(BIASES_KEPT)

    def forward(self, grid: TokenGrid) -> OffsetBias:
        return self._kept((self.table,), grid, lambda: self._made(grid))

    def _made(self, grid: TokenGrid) -> OffsetBias:
        bias = self.offsets(grid)
        return bias.in_full() if self.dense else bias

    def offsets(self, grid: TokenGrid) -> OffsetBias:
        """The bias as its table alone, which is small; nothing is kept."""
        stored = 2 * self.side - 1
        offsets, prefix = self.table.mT.split((stored**2, 3), dim=1)
        offsets = offsets.unflatten(1, (stored, stored))  # (heads, 2 side - 1, 2 side - 1)
        size = (2 * grid.rows - 1, 2 * grid.cols - 1)
        if size != (stored, stored):
            resized = F.interpolate(offsets[None].float(), size, mode="bilinear", align_corners=False)
            offsets = resized[0].to(self.table.dtype)
        return OffsetBias(offsets.contiguous(), prefix.contiguous())


class Attention(nn.Module):
    """Multi-head self-attention with a relative position bias; the keys have no bias of their own."""

    def __init__(self, width: int, heads: int, side: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.positions = RelativePositions(heads, side)
        self.attend = Attend(scale=1 / math.sqrt(width // heads))
        self.projection = nn.Linear(width, width)

    def forward(self, x: Tensor, grid: TokenGrid) -> Tensor:
        bias = torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))
        qkv = F.linear(x, self.qkv.weight, bias).unflatten(2, (3, self.heads, -1))  # (B, N, 3, heads, d)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # 3 x (B, heads, N, d), views
        x = self.attend(q, k, v, self.positions(grid))  # (B, heads, N, d)
        return self.projection(x.transpose(1, 2).flatten(2))  # (B, N, C)


class Block(nn.Module):
    """Pre-norm transformer block with a learned scale on each branch: (B, 1+N, C) -> same."""

    def __init__(self, config: BeitConfig):
        super().__init__()
        width = config.width
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attention = Attention(width, config.heads, config.table_side)
        self.scale1 = nn.Parameter(torch.ones(width))
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = MLP(width, config.hidden)
        self.scale2 = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor, grid: TokenGrid) -> Tensor:
        return self.joined(x, self.attention(self.norm1(x), grid))

    def joined(self, x: Tensor, attended: Tensor) -> Tensor:
        """All that follows attention."""
        x = x + self.scale1 * attended
        return x + self.scale2 * self.mlp(self.norm2(x))


class Encoder(nn.Module):
    """BEiT: patch tokens (B, N, C) -> four token sets (B, 1+N, C), class token first, finest stage first.

    The sets are the blocks' outputs as they are; there is no norm at the end.
    """

    def __init__(self, config: BeitConfig):
        super().__init__()
        self.taps = config.taps
        self.class_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))

    def forward(self, patches: Tensor, grid: TokenGrid) -> tuple[Tensor, ...]:
        x = torch.cat((self.class_token.expand(patches.shape[0], -1, -1), patches), dim=1)  # (B, 1+N, C)
        stages = []
        for i, block in enumerate(self.blocks):
            x = block(x, grid)
            if i in self.taps:
                stages.append(x)
        return tuple(stages)
