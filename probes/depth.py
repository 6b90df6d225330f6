"""Comparing depth maps that are known only up to scale and offset."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def fit(depth: Float[np.ndarray, "h w"], truth: Float[np.ndarray, "H W"]) -> tuple[Float[np.ndarray, "H W"], float]:
    """(depth scaled and shifted to fit truth by least squares, R²), both maps in inverse depth.

    R² is the share of the true map's variance that the fitted map explains: 1 is perfect, 0 is what one flat value
    scores. ValueError if the sizes differ or the true map is flat, where no share can be told.
    """
    if depth.shape != truth.shape:
        raise ValueError(f"the maps differ in size: {depth.shape} and {truth.shape}; resize one to the other first")
    x, y = (m.astype(np.float64) - m.mean(dtype=np.float64) for m in (depth, truth))
    if not y.any():
        raise ValueError("the true map is flat, so there is nothing to explain; choose a picture with some depth")
    scale = (x * y).sum() / max((x * x).sum(), np.finfo(np.float64).tiny)
    r2 = 1 - np.square(y - scale * x).sum() / np.square(y).sum()
    fitted = scale * x + truth.mean(dtype=np.float64)
    return fitted.astype(truth.dtype), float(r2)
