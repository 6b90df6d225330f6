"""The head: fused features -> one number per pixel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .ambient import autocasts, without_autocast
from .modules import float_dtype


class Metres(nn.Module):
    """sigmoid(x) * max_depth, the output of the metric Depth-Anything models."""

    def __init__(self, max_depth: float):
        """Creates the module.

        Args:
            max_depth: Largest distance in metres.
        """
        super().__init__()
        self.max_depth = max_depth

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x) * self.max_depth

    def extra_repr(self) -> str:
        return f"max_depth={self.max_depth:g}"


class ToSingle(nn.Conv2d):
    """(B, C, h, w) -> (B, 1, h, w), at least in float32.

    Depth in bfloat16, with 128 steps per octave, would show terraces.
    """

    def __init__(self, channels: int):
        """Creates the module.

        Args:
            channels: Channels of the input.
        """
        super().__init__(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.float32)
        bias = None if self.bias is None else self.bias.to(dtype)
        return F.conv2d(x.to(dtype), self.weight.to(dtype), bias)


class Head(nn.Module):
    """(B, F, h, w) -> (B, *size): inverse depth >= 0, or metres. At least in float32.

    The head runs outside autocast: its input is converted to the dtype of its weights.
    """

    def __init__(self, channels: int, max_depth: float | None = None):
        """Creates the module.

        Args:
            channels: Channels of the fused map.
            max_depth: Largest distance in metres for metric models; None for inverse depth.
        """
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels // 2, 3, padding=1)
        self.conv2 = nn.Conv2d(channels // 2, 32, 3, padding=1)
        self.conv3 = ToSingle(32)
        self.activation = nn.ReLU() if max_depth is None else Metres(max_depth)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Computes the depth.

        Args:
            x: Fused map (B, F, h, w).
            size: (height, width) of the model's input.

        Returns:
            (B, *size).
        """
        if autocasts(x.device):
            with without_autocast(x.device):
                return self._depth(x.to(float_dtype(self)), size)
        return self._depth(x, size)

    def _depth(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        x = self.conv1(x)  # (B, F/2, h, w)
        x = F.interpolate(x, size, mode="bilinear", align_corners=True)  # (B, F/2, *size)
        x = F.relu(self.conv2(x))  # (B, 32, *size)
        return self.activation(self.conv3(x)).squeeze(1)  # (B, *size)
