"""Depth maps as numbers: fit one map to another, threshold, remove a plane, convert inverse depth to metres.

A relative model predicts inverse depth up to an unknown scale and offset. `nearness` maps it to the range from 0, the
farthest pixel of the image, to 1, the nearest. Thresholds are given in nearness. `metres` converts inverse depth to
distances, given the distances of the nearest and the farthest pixel.

Pixels without a value may be NaN, infinite or masked (`numpy.ma`); results have NaN there.
"""

from __future__ import annotations

from typing import SupportsFloat

import numpy as np
from jaxtyping import Bool, Float, Float32

from .errors import InvalidValueError
from .scalars import real


def fit(depth: Float[np.ndarray, "h w"], truth: Float[np.ndarray, "H W"]) -> tuple[Float[np.ndarray, "H W"], float]:
    """Scales and shifts a depth map to fit the true map by least squares.

    Args:
        depth: (h, w) predicted inverse depth.
        truth: (h, w) true inverse depth.

    Returns:
        (fitted, r2). fitted is the scaled and shifted map. r2 is the share of the true map's variance that it explains:
        1 is perfect, and a constant map scores 0.

    Raises:
        InvalidValueError: The shapes differ, a map has NaN, infinite or masked pixels, or the true map is constant,
            which leaves R² undefined.
    """
    depth, truth = _filled(depth), _filled(truth)
    if depth.shape != truth.shape:
        raise InvalidValueError(f"the maps must have the same shape, got {depth.shape} and {truth.shape}; resize one")
    for name, values in (("depth", depth), ("truth", truth)):
        if missing := int(values.size - np.count_nonzero(np.isfinite(values))):
            raise InvalidValueError(
                f"{name} is NaN, infinite or masked in {missing:,} of {values.size:,} pixels. Crop both maps to pixels "
                "that both have, e.g. depth[where][None] and truth[where][None] for a mask"
            )
    x, y = (m.astype(np.float64) - m.mean(dtype=np.float64) for m in (depth, truth))
    if not y.any():
        raise InvalidValueError("R² is undefined because the true map is constant. Choose an image with some depth.")
    scale = (x * y).sum() / max((x * x).sum(), np.finfo(np.float64).tiny)
    r2 = 1 - np.square(y - scale * x).sum() / np.square(y).sum()
    fitted = scale * x + truth.mean(dtype=np.float64)
    return fitted.astype(truth.dtype), float(r2)


def nearness(depth: Float[np.ndarray, "h w"], metric: bool = False) -> Float32[np.ndarray, "h w"]:
    """Rescales a depth map linearly to 0 at its farthest pixel and 1 at its nearest. A constant map becomes 0.

    Args:
        depth: (h, w) inverse depth, or metres if metric.
        metric: True if the map is in metres, so small values are near.

    Returns:
        (h, w) nearness. NaN and infinity become NaN.

    Raises:
        InvalidValueError: The map has no finite value.
    """
    wide = _filled(depth).astype(np.float64)
    known = np.isfinite(wide)
    if not known.any():
        raise InvalidValueError("the depth map must contain a finite value, got only NaN or infinity")
    low, high = wide[known].min(), wide[known].max()
    unit = np.where(known, (wide - low) / (high - low if high > low else 1.0), np.nan)
    return (1 - unit if metric and high > low else unit).astype(np.float32)


def within(
    depth: Float[np.ndarray, "h w"], far: SupportsFloat = 0.0, near: SupportsFloat = 1.0, metric: bool = False
) -> Bool[np.ndarray, "h w"]:
    """Masks the pixels with far <= nearness <= near. ``far=0.2`` removes the farthest fifth of the depth range.

    Args:
        depth: (h, w) inverse depth, or metres if metric.
        far: Lowest nearness to keep, from 0 to 1.
        near: Highest nearness to keep, from 0 to 1.
        metric: True if the map is in metres.

    Returns:
        (h, w) True for pixels to keep. NaN and infinity are False.

    Raises:
        InvalidValueError: The thresholds are not ordered 0 <= far <= near <= 1, or the map has no finite value.
    """
    far, near = real(far, "far"), real(near, "near")
    if not 0 <= far <= near <= 1:
        raise InvalidValueError(f"thresholds must satisfy 0 <= far <= near <= 1, got far={far}, near={near}")
    unit = nearness(depth, metric)
    with np.errstate(invalid="ignore"):
        return (unit >= np.float32(far)) & (unit <= np.float32(near))


def metres(
    inverse_depth: Float[np.ndarray, "h w"], near: SupportsFloat, far: SupportsFloat
) -> Float32[np.ndarray, "h w"]:
    """Converts inverse depth to distances z, given the distances of the nearest and the farthest pixel.

        1/z = d (1/near - 1/far) + 1/far,    d = nearness of the pixel, 0 (farthest) to 1 (nearest)

    Two known distances determine the scale and the offset that relative inverse depth lacks. Metric models predict
    metres directly and do not need this function.

    Args:
        inverse_depth: (h, w) relative inverse depth.
        near: Distance of the nearest pixel in metres.
        far: Distance of the farthest pixel in metres. It may be infinity, e.g. for a sky, and maps to infinity.

    Returns:
        (h, w) distances in metres.

    Raises:
        InvalidValueError: The distances are not ordered 0 < near < far, or the map has no finite value.
    """
    near, far = real(near, "near"), real(far, "far", finite=False)
    if not 0 < near < far:
        raise InvalidValueError(f"distances must satisfy 0 < near < far in metres, got near={near}, far={far}")
    d = nearness(inverse_depth).astype(np.float64)
    with np.errstate(divide="ignore"):
        return (1 / (d * (1 / near - 1 / far) + 1 / far)).astype(np.float32)


def plane(depth: Float[np.ndarray, "h w"], where: Bool[np.ndarray, "H W"] | None = None) -> Float[np.ndarray, "h w"]:
    """Fits the plane a x + b y + c to a map by least squares.

    ``depth - plane(depth)`` removes the slope of the scene. A flat floor is exactly such a plane in inverse depth, so
    the objects that stand on it become visible.

    Args:
        depth: (h, w) any map.
        where: (h, w) mask of the pixels to fit. NaN and infinity never count.

    Returns:
        (h, w) the plane, over the whole image.

    Raises:
        InvalidValueError: Fewer than three pixels remain, or all of them lie on one line, or the shapes differ.
    """
    depth = _filled(depth)
    chosen = _valid_pixels(depth, where)
    y, x = np.nonzero(chosen)
    height, width = depth.shape
    # Centred and scaled: the normal equations of raw pixel indices lose half their digits.
    columns, rows = (np.arange(width) - width / 2) / width, (np.arange(height) - height / 2) / height
    known = np.stack([columns[x], rows[y], np.ones(len(x))], axis=1)
    if len(x) < 3 or np.linalg.matrix_rank(known) < 3:
        got = f"{len(x)} pixels" + (" on one line" if len(x) >= 3 else "")
        raise InvalidValueError(f"a plane needs 3 pixels that are not on one line, got {got}; widen the mask")
    (a, b, c), *_ = np.linalg.lstsq(known, depth[chosen].astype(np.float64), rcond=None)
    return (a * columns + b * rows[:, None] + c).astype(depth.dtype)


def equalise(
    depth: Float[np.ndarray, "h w"], where: Bool[np.ndarray, "H W"] | None = None
) -> Float32[np.ndarray, "h w"]:
    """Equalises a map's histogram: each pixel becomes the share of selected pixels below it, 0 to 1.

    The order of pixels is preserved, distances between values are not. Common values get more of the colour range.
    Equal pixels stay equal.

    Args:
        depth: (h, w) any map.
        where: (h, w) mask of the pixels that count.

    Returns:
        (h, w) shares. Pixels outside the mask, NaN and infinity are NaN.

    Raises:
        InvalidValueError: The mask has another shape than the map.
    """
    depth = _filled(depth)
    chosen = _valid_pixels(depth, where)
    values = depth[chosen]
    shares = np.full(depth.shape, np.nan, np.float32)
    if not len(values):
        return shares
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    below = np.cumsum(counts) - counts
    shares[chosen] = (below / max(below[-1], 1))[place.ravel()]
    return shares


def _filled(depth: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """The map with NaN in masked pixels."""
    return np.ma.filled(depth, np.nan) if isinstance(depth, np.ma.MaskedArray) else depth


def _valid_pixels(depth: Float[np.ndarray, "h w"], where: np.ndarray | None) -> Bool[np.ndarray, "h w"]:
    """Finite pixels inside the mask."""
    if where is not None and where.shape != depth.shape:
        raise InvalidValueError(f"the mask must have the map's shape {depth.shape}, got {where.shape}")
    known = np.isfinite(depth)
    return known if where is None else known & where
