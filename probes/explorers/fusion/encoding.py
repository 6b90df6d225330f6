"""Encodes depth maps and thumbnails of fusion levels for the browser, in levels of their range."""

from __future__ import annotations

import math
from typing import Literal, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ...errors import InvalidValueError
from ...figures.depth_files import grey_depth

THUMBNAIL_SIDE = 96
"""Pixels along the longer side of a thumbnail."""


class MapMessage(TypedDict):
    """Describes a map. Its part holds (height, width) unsigned integers: 0 is `low`, the largest value is `high`."""

    width: int
    height: int
    low: float
    high: float
    bits: Literal[8, 16]


class ThumbnailMessage(TypedDict):
    """Describes a thumbnail. Its part holds (height, width) bytes: 0 is `low`, 255 is `high`."""

    width: int
    height: int
    low: float
    high: float
    mean: float  # of the full map


def encode_map(depth: Tensor, bits: Literal[8, 16]) -> tuple[MapMessage, bytes]:
    """A depth map (h, w) in 16- or 8-bit levels of its range."""
    levels, low, high = grey_depth(depth.float().cpu().numpy())
    height, width = levels.shape
    part = levels.astype("<u2") if bits == 16 else np.round(levels / 257).astype(np.uint8)
    return MapMessage(width=width, height=height, low=low, high=high, bits=bits), part.tobytes()


def encode_thumbnail(fused: Tensor) -> tuple[ThumbnailMessage, bytes]:
    """The norm over channels of a fusion level's output (1, F, h, w), shrunk, in 8-bit levels of its range.

    Raises:
        InvalidValueError: The output is not finite.
    """
    norms = torch.linalg.vector_norm(fused.float(), dim=1, keepdim=True)
    small = _shrunk(norms)
    height, width = small.shape
    low, high = float(small.min()), float(small.max())
    if not math.isfinite(high - low):
        raise InvalidValueError("a fusion level returned NaN or infinity with these scales. Choose factors closer to 1")
    levels = ((small - low) / (high - low if high > low else 1.0) * 255).round().to(torch.uint8).numpy()
    message = ThumbnailMessage(width=width, height=height, low=low, high=high, mean=float(norms.mean()))
    return message, levels.tobytes()


def level_of(fused: Tensor) -> NDArray[np.float32]:
    """The norm over channels of a fusion block's output (1, F, h, w), shrunk to a thumbnail's size."""
    shrunk: NDArray[np.float32] = _shrunk(torch.linalg.vector_norm(fused.float(), dim=1, keepdim=True)).numpy()
    return shrunk


def _shrunk(norms: Tensor) -> Tensor:
    scale = min(1.0, THUMBNAIL_SIDE / max(norms.shape[-2:]))
    height, width = (max(1, round(side * scale)) for side in norms.shape[-2:])
    return F.interpolate(norms, (height, width), mode="area")[0, 0].cpu()
