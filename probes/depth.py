"""Depth maps as numbers: comparing, masking, levelling, and metres out of inverse depth.

Inverse depth d of a relative model is known up to scale and offset. `nearness` puts it on 0 (farthest of the picture)
to 1 (nearest), which is what thresholds are given in; `metres` turns it into distances once somebody says how far the
nearest and the farthest thing are.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float32

from .errors import InvalidValueError


def fit(depth: Float[np.ndarray, "h w"], truth: Float[np.ndarray, "H W"]) -> tuple[Float[np.ndarray, "H W"], float]:
    """(depth scaled and shifted to fit truth by least squares, R²), both maps in inverse depth.

    R² is the share of the true map's variance that the fitted map explains: 1 is perfect, 0 is what one flat value
    scores. ValueError if the sizes differ or the true map is flat, where no share can be told.
    """
    if depth.shape != truth.shape:
        raise InvalidValueError(
            f"the maps differ in size: {depth.shape} and {truth.shape}; resize one to the other first"
        )
    x, y = (m.astype(np.float64) - m.mean(dtype=np.float64) for m in (depth, truth))
    if not y.any():
        raise InvalidValueError(
            "the true map is flat, so there is nothing to explain; choose a picture with some depth"
        )
    scale = (x * y).sum() / max((x * x).sum(), np.finfo(np.float64).tiny)
    r2 = 1 - np.square(y - scale * x).sum() / np.square(y).sum()
    fitted = scale * x + truth.mean(dtype=np.float64)
    return fitted.astype(truth.dtype), float(r2)


def nearness(depth: Float[np.ndarray, "h w"], metric: bool = False) -> Float32[np.ndarray, "h w"]:
    """0 at the farthest pixel of the map, 1 at the nearest, linear in the map's numbers between; a flat map is 0.

    metric: the map is in metres, so that small values are near. NaN and infinity become NaN.
    """
    wide = depth.astype(np.float64)
    known = np.isfinite(wide)
    if not known.any():
        raise InvalidValueError("the depth map holds no finite number; there is nothing near or far in it")
    low, high = wide[known].min(), wide[known].max()
    unit = np.where(known, (wide - low) / (high - low if high > low else 1.0), np.nan)
    return (1 - unit if metric and high > low else unit).astype(np.float32)


def within(
    depth: Float[np.ndarray, "h w"], far: float = 0.0, near: float = 1.0, metric: bool = False
) -> Bool[np.ndarray, "h w"]:
    """True where far <= nearness <= near; NaN and infinity are outside. far=0.2 takes the farthest fifth away."""
    if not 0 <= far <= near <= 1:
        raise InvalidValueError(
            f"thresholds are shares of the map's range, 0 <= far <= near <= 1, not far={far}, near={near}"
        )
    unit = nearness(depth, metric)
    with np.errstate(invalid="ignore"):
        return (unit >= np.float32(far)) & (unit <= np.float32(near))


def metres(inverse_depth: Float[np.ndarray, "h w"], near: float, far: float) -> Float32[np.ndarray, "h w"]:
    """Distances z, given those of the map's nearest and farthest pixel in metres.

        1/z = d (1/near - 1/far) + 1/far,    d the map on 0 (farthest) to 1 (nearest)

    Two known distances are what it takes: inverse depth lacks a scale and an offset. far may be infinity (a sky); what
    lies there is infinity, too. Not for metric models, whose maps are metres already.
    """
    if not 0 < near < far:
        raise InvalidValueError(f"distances in metres are 0 < near < far, not near={near}, far={far}")
    d = nearness(inverse_depth).astype(np.float64)
    with np.errstate(divide="ignore"):
        return (1 / (d * (1 / near - 1 / far) + 1 / far)).astype(np.float32)


def plane(depth: Float[np.ndarray, "h w"], where: Bool[np.ndarray, "H W"] | None = None) -> Float[np.ndarray, "h w"]:
    """The plane a x + b y + c that fits the map best by least squares, over the whole picture.

    where: the pixels to fit; those of NaN and infinity never count. ``depth - plane(depth)`` is the map without its
    slope: in inverse depth, a flat floor is exactly such a plane, and what stands on it comes forward.
    ValueError where fewer than three pixels, or pixels of one line alone, are left to fit.
    """
    chosen = _chosen(depth, where)
    y, x = np.nonzero(chosen)
    height, width = depth.shape
    # Centred and scaled: the normal equations of raw pixel numbers lose half their digits.
    columns, rows = (np.arange(width) - width / 2) / width, (np.arange(height) - height / 2) / height
    known = np.stack([columns[x], rows[y], np.ones(len(x))], axis=1)
    if len(x) < 3 or np.linalg.matrix_rank(known) < 3:
        raise InvalidValueError(f"{len(x)} pixels are left to fit a plane to, and they fix none; widen the mask")
    (a, b, c), *_ = np.linalg.lstsq(known, depth[chosen].astype(np.float64), rcond=None)
    return (a * columns + b * rows[:, None] + c).astype(depth.dtype)


def equalise(
    depth: Float[np.ndarray, "h w"], where: Bool[np.ndarray, "H W"] | None = None
) -> Float32[np.ndarray, "h w"]:
    """The map with its histogram flat: every pixel becomes the share of chosen pixels that are below it, 0 to 1.

    Order stays, distances go: what differs little but is common gets more of the colours. Equal pixels stay equal.
    where: the pixels that count; others are NaN, as are NaN and infinity.
    """
    chosen = _chosen(depth, where)
    values = depth[chosen]
    shares = np.full(depth.shape, np.nan, np.float32)
    if not len(values):
        return shares
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    below = np.cumsum(counts) - counts
    shares[chosen] = (below / max(below[-1], 1))[place.ravel()]
    return shares


def _chosen(depth: Float[np.ndarray, "h w"], where: np.ndarray | None) -> Bool[np.ndarray, "h w"]:
    if where is not None and where.shape != depth.shape:
        raise InvalidValueError(f"the mask is {where.shape}, but the map is {depth.shape}; give one of its size")
    known = np.isfinite(depth)
    return known if where is None else known & where
