"""Tables resized to a grid whose size is known only when the graph runs.

`torch.nn.functional.interpolate` cannot be exported with scale factors that depend on the input, and what an ONNX
Resize does at borders differs between runtimes. Resizing is linear, so it is written as two small matrix products here:
one matrix along the rows, one along the columns. The positions are the ones that torch computes, in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

CUBIC = -0.75  # torch's coefficient, which is OpenCV's


def resize(table: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """(C, h, w) by matrices (H, h) and (W, w) -> (C, H, W)."""
    return rows @ table @ cols.mT


def cubic(size: int, stored: int, step: Tensor) -> Tensor:
    """(size, stored): bicubic resampling, `step` source pixels from one result to the next (a float32 scalar)."""
    at = (torch.arange(size, dtype=torch.float32) + 0.5) * step - 0.5
    first = at.floor()
    taps = torch.arange(-1, 3, dtype=torch.float32)
    far = ((at - first)[:, None] - taps).abs()  # (size, 4)
    near = ((CUBIC + 2) * far - (CUBIC + 3)) * far * far + 1
    outer = ((CUBIC * far - 5 * CUBIC) * far + 8 * CUBIC) * far - 4 * CUBIC
    return _placed(first[:, None] + taps, torch.where(far <= 1, near, outer), stored)


def linear(size: int, stored: int) -> Tensor:
    """(size, stored): bilinear resampling of `stored` to `size` values, corners not aligned."""
    # The division in float32, as torch has it; a division of Python numbers would be one in float64.
    step = torch.scalar_tensor(stored, dtype=torch.float32) / torch.scalar_tensor(size, dtype=torch.float32)
    at = ((torch.arange(size, dtype=torch.float32) + 0.5) * step - 0.5).clamp(min=0)
    first = at.floor()
    share = (at - first)[:, None]
    taps = torch.arange(2, dtype=torch.float32)
    return _placed(first[:, None] + taps, torch.cat((1 - share, share), dim=1), stored)


def _placed(index: Tensor, weight: Tensor, stored: int) -> Tensor:
    """Weights (size, taps) at places (size, taps) as a matrix (size, stored); places outside fall on the border."""
    columns = torch.arange(stored, dtype=torch.float32)
    hit = index.clamp(0, stored - 1)[..., None] == columns  # (size, taps, stored)
    return (weight[..., None] * hit).sum(1)
