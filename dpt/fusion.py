"""Fusion: merges four maps of different resolution into one, from coarse to fine (RefineNet blocks as in DPT).

Each of the four levels is a `FusionBlock` without batch norm, as in all released Depth-Anything and MiDaS v3.1 models.
Index 0 is the finest map.

    maps[3] ─────────▶ level 3 ─┐
    maps[2] ─────────▶ level 2 ◀┘─┐
    maps[1] ─────────▶ level 1 ◀──┘─┐
    maps[0] ─────────▶ level 0 ◀────┘──▶ head

Source:
    Ranftl et al. 2021, "Vision Transformers for Dense Prediction", section 3 and figure 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class ResidualUnit(nn.Module):
    """x + conv(relu(conv(relu(x)))). The skip connection adds x before the first ReLU."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class FusionBlock(nn.Module):
    """One fusion level: adds a reassembled map to the output of the coarser level, refines the sum and resizes it."""

    def __init__(self, channels: int, coarsest: bool):
        """Creates the module.

        Args:
            channels: Channels of all maps.
            coarsest: True for the first level, which has no coarser level before it.
        """
        super().__init__()
        # The first unit refines a map before it is added to the coarser level's output.
        self.unit1 = None if coarsest else ResidualUnit(channels)
        self.unit2 = ResidualUnit(channels)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, coarser: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Merges one map.

        Args:
            x: The reassembled map (B, F, h, w).
            coarser: Output of the coarser level, of the same shape; None for the coarsest level.
            size: (height, width) of the output.

        Returns:
            (B, F, *size).
        """
        if self.unit1 is not None and coarser is not None:
            x = coarser + self.unit1(x)  # (B, F, h, w)
        # The original resizes before `out`. A 1 x 1 convolution and bilinear resizing commute, so this order computes
        # the same function with a quarter of the products.
        x = self.out(self.unit2(x))
        return F.interpolate(x, size, mode="bilinear", align_corners=True)  # (B, F, *size)


class Fusion(nn.Module):
    """Four maps (B, F, h, w), finest first -> (B, F, 2 h0, 2 w0)."""

    def __init__(self, channels: int):
        super().__init__()
        self.blocks = nn.ModuleList(FusionBlock(channels, coarsest=s == 3) for s in range(4))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        height, width = maps[0].shape[-2:]
        # Each level resizes to the exact size of the next finer map, which is not twice its own for odd grids (37, 19).
        sizes = [(2 * height, 2 * width), *(tuple(m.shape[-2:]) for m in maps[:3])]
        fused = self.blocks[3](maps[3], None, sizes[3])
        for s in (2, 1, 0):
            fused = self.blocks[s](maps[s], fused, sizes[s])
        return fused
