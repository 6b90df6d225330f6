"""Parts that several encoders share. SwinV2 uses the MLP and `as_map`; DINOv2 and BEiT use all of them.

Source:
    Dosovitskiy et al. 2021, "An Image Is Worth 16x16 Words".
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .ambient import transformed
from .config import TokenGrid
from .modules import is_plain


class PatchEmbed(nn.Module):
    """(B, 3, h, w) -> (B, N, C): one linear map applied to each square patch, row by row."""

    def __init__(self, width: int, patch_size: int):
        """Creates the module.

        Args:
            width: Channels of a token.
            patch_size: Side of a patch in pixels.
        """
        super().__init__()
        self.projection = nn.Conv2d(3, width, patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(x).flatten(2).transpose(1, 2)


def with_bias(layer: nn.Module, x: Tensor, bias: Tensor) -> Tensor:
    """layer(x) + bias, for a bias that is stored outside the layer."""
    y = layer(x)
    bias = bias.to(y.dtype)
    # A plain layer's output is new and nobody else holds it. Writing to it saves the memory of another one.
    return y.add_(bias) if is_plain(layer, nn.Linear) and not transformed() else y + bias


class MLP(nn.Module):
    """Two linear layers with the exact (erf) GELU between them."""

    def __init__(self, width: int, hidden: int):
        """Creates the module.

        Args:
            width: Channels of a token.
            hidden: Channels of the hidden layer.
        """
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Readout(nn.Module):
    """Adds the class token's information to every patch: GELU(Linear([patch, class])), DPT's "project" readout.

    (B, 1+N, C) -> (B, N, C).

    Source:
        Ranftl et al. 2021, "Vision Transformers for Dense Prediction", section 3.1.
    """

    def __init__(self, width: int):
        super().__init__()
        self.project = nn.Linear(2 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        patches = tokens[:, 1:]
        # The class token's half of the product could be computed once per image. That would read the layer's weight
        # instead of calling the layer, which may be an adapter or quantised.
        pairs = torch.cat((patches, tokens[:, :1].expand_as(patches)), dim=2)  # (B, N, 2C)
        return F.gelu(self.project(pairs))


def as_map(tokens: Tensor, rows: int, cols: int) -> Tensor:
    """Lays patch tokens on their grid.

    Channels stay adjacent in memory from this view to the head, which makes convolutions and resizing up to four times
    as fast on a CPU. A transpose before the unflatten would hide that memory order from torch in a batch of one.

    Args:
        tokens: (B, rows*cols, C), without prefix tokens.
        rows: Rows of the grid.
        cols: Columns of the grid.

    Returns:
        (B, C, rows, cols), a view.
    """
    return tokens.unflatten(1, (rows, cols)).permute(0, 3, 1, 2)


class Reassembly(nn.Module):
    """Token sets -> image-like maps at 4, 2, 1 and 1/2 times the patch grid, in the fusion's channels.

    The class token is dropped, or first read out into the patches. The coarsest map rounds odd grids up: 37 -> 19.
    """

    def __init__(self, width: int, channels: Sequence[int], fusion_channels: int, readout: bool = False):
        """Creates the module.

        Args:
            width: Channels of a token.
            channels: Channels of the four maps before the fusion projection, finest first.
            fusion_channels: Channels of the maps that are returned.
            readout: True adds the class token to every patch; False drops it.
        """
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
