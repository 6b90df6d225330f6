"""Resizes tables to a grid whose size is known only when the graph runs.

`torch.nn.functional.interpolate` cannot be exported with scale factors that depend on the input, and runtimes disagree
on ONNX Resize at borders. Resizing is linear, so this module writes it as two small matrix products: one along the
rows, one along the columns. Sampling positions are computed in float32, as in torch.
"""

from __future__ import annotations

import torch
from torch import Tensor

CUBIC = -0.75  # coefficient of the cubic kernel in torch and OpenCV


def resize(table: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """Resizes a table.

    Args:
        table: (C, h, w).
        rows: (H, h), from `cubic` or `linear`.
        cols: (W, w), from `cubic` or `linear`.

    Returns:
        (C, H, W).
    """
    return rows @ table @ cols.mT


def cubic(size: int, stored: int, step: Tensor) -> Tensor:
    """Returns the matrix (size, stored) of bicubic resampling.

    Args:
        size: Number of results.
        stored: Number of source values.
        step: Distance between results in source values, a float32 scalar.
    """
    at = (torch.arange(size, dtype=torch.float32) + 0.5) * step - 0.5
    first = at.floor()
    taps = torch.arange(-1, 3, dtype=torch.float32)
    far = ((at - first)[:, None] - taps).abs()  # (size, 4)
    near = ((CUBIC + 2) * far - (CUBIC + 3)) * far * far + 1
    outer = ((CUBIC * far - 5 * CUBIC) * far + 8 * CUBIC) * far - 4 * CUBIC
    return _placed(first[:, None] + taps, torch.where(far <= 1, near, outer), stored)


def linear(size: int, stored: int) -> Tensor:
    """Returns the matrix (size, stored) of bilinear resampling without aligned corners.

    Args:
        size: Number of results.
        stored: Number of source values.
    """
    # torch divides in float32. Python numbers would be divided in float64.
    step = torch.scalar_tensor(stored, dtype=torch.float32) / torch.scalar_tensor(size, dtype=torch.float32)
    at = ((torch.arange(size, dtype=torch.float32) + 0.5) * step - 0.5).clamp(min=0)
    first = at.floor()
    share = (at - first)[:, None]
    taps = torch.arange(2, dtype=torch.float32)
    return _placed(first[:, None] + taps, torch.cat((1 - share, share), dim=1), stored)


def _placed(index: Tensor, weight: Tensor, stored: int) -> Tensor:
    """Turns weights (size, taps) at indices (size, taps) into a matrix (size, stored). Clamps indices to the border."""
    columns = torch.arange(stored, dtype=torch.float32)
    hit = index.clamp(0, stored - 1)[..., None] == columns  # (size, taps, stored)
    return (weight[..., None] * hit).sum(1)
