"""What vision transformers have in common (Dosovitskiy et al. 2021); all but the MLP is DINOv2's and BEiT's alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .config import TokenGrid


class PatchEmbed(nn.Module):
    """(B, 3, h, w) -> (B, N, C): each square patch through one linear map, row by row."""

    def __init__(self, width: int, patch_size: int):
        super().__init__()
        self.projection = nn.Conv2d(3, width, patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(x).flatten(2).transpose(1, 2)


class MLP(nn.Module):
    """Two layers around the exact (erf) GELU."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Readout(nn.Module):
    """Tells every patch what the class token knows: GELU(Linear([patch, class])), as in DPT's "project" readout.

    (B, 1+N, C) -> (B, N, C). The class token's half of the product is computed once, not once a patch.
    """

    def __init__(self, width: int):
        super().__init__()
        self.project = nn.Linear(2 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        of_patch, of_class = self.project.weight.chunk(2, dim=1)
        class_part = F.linear(tokens[:, :1], of_class, self.project.bias)  # (B, 1, C)
        return F.gelu(F.linear(tokens[:, 1:], of_patch) + class_part)


def as_map(tokens: Tensor, rows: int, cols: int) -> Tensor:
    """(B, rows*cols, C) -> (B, C, rows, cols), a view.

    Channels stay side by side in memory, from here to the head: convolutions and resizing are up to four times faster
    so on a CPU. Transposing the tokens first would hide the order from torch in a batch of one.
    """
    return tokens.unflatten(1, (rows, cols)).permute(0, 3, 1, 2)


class Reassembly(nn.Module):
    """Token sets -> image-like maps at 4, 2, 1 and 1/2 times the patch grid, in the fusion's channels.

    The class token is dropped, or read out first. Odd grids are rounded up at the coarsest map: 37 -> 19.
    """

    def __init__(self, width: int, channels: Sequence[int], fusion_channels: int, readout: bool = False):
        super().__init__()
        self.readouts = nn.ModuleList(Readout(width) for _ in channels) if readout else None
        self.projects = nn.ModuleList(nn.Conv2d(width, c, 1) for c in channels)
        self.resize = nn.ModuleList(
            (
                nn.ConvTranspose2d(channels[0], channels[0], 4, stride=4),
                nn.ConvTranspose2d(channels[1], channels[1], 2, stride=2),
                nn.Identity(),
                nn.Conv2d(channels[3], channels[3], 3, stride=2, padding=1),
            )
        )
        self.to_fusion = nn.ModuleList(nn.Conv2d(c, fusion_channels, 3, padding=1, bias=False) for c in channels)

    def forward(self, stages: Sequence[Tensor], grid: TokenGrid) -> tuple[Tensor, ...]:
        maps = []
        for s, stage in enumerate(stages):
            x = stage[:, grid.prefix :] if self.readouts is None else self.readouts[s](stage)  # (B, N, C)
            x = as_map(x, grid.rows, grid.cols)
            maps.append(self.to_fusion[s](self.resize[s](self.projects[s](x))))  # (B, F, h_s, w_s)
        return tuple(maps)
