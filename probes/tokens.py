"""What a block's tokens look like on the picture: norms, single channels, outliers, which are alike, and PCA.

Problem: a captured token sequence is a row of numbers; the picture it belongs to has rows and columns, the first tokens
may stand for no patch at all, and in SwinV2 every stage has another grid. And "this token is an outlier" needs a rule
that the outliers themselves cannot move.

Approach: values are laid on their block's own grid, as xarray; what falls on prefix tokens stands beside the map as
coordinates (``class_token``, ``register_1``, ...). A token is an outlier where its norm lies more than k median
absolute deviations above the median of its block's patches: half of the tokens would have to be outliers before either
moves. Prefix tokens take no part: they are meant to differ. Likeness is the cosine of two tokens; with what all patches
have in common taken off, it is that of what tells them apart. PCA is of one block's patches of one picture.

    with probes.capture(model, "norms") as cap:
        model.predict(image)
    norms = probes.tokens.norms(cap)                    # {block: DataArray (row, col)}
    probes.tokens.outliers(norms[7], k=6.0).sum()       # how many patches of block 7 stand out
    with probes.capture(model, "tokens") as cap:
        model.predict(image)
    probes.tokens.similarity(cap, 7, patch=(12, 20))    # DataArray (row, col): cosine of each patch with that one
    probes.tokens.pca(cap, 7)                           # DataArray (component, row, col)

Limits: one picture of a batch at a time, so that components of two pictures do not compare; only norms above the median
can be outliers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, SupportsIndex, TypeVar

import numpy as np
import xarray
from jaxtyping import Float
from torch import Tensor

from dpt import TokenGrid

from .attention import token_of
from .capture import Capture
from .errors import InvalidValueError, OutOfRangeError

K = 6.0  # of a normal distribution, 1 in 40,000 lies above the median + 6 MAD

# What a mean absolute deviation is to a median one in a normal distribution: sqrt(2 / pi) against 0.6745.
MEAN_TO_MEDIAN = 0.6744897501960817 / math.sqrt(2 / math.pi)

Norms = TypeVar("Norms", xarray.DataArray, np.ndarray)


def norms(cap: Capture, batch: int = 0) -> dict[int, xarray.DataArray]:
    """L2 norm of each block's output tokens on the block's grid, (row, col), for every block the capture holds.

    The capture holds "norms" or "tokens" of a block; with both, "norms" is read. batch: which picture.

    ProbeError if it holds neither for any block; IndexError for a picture that it does not hold.
    """
    found: dict[int, xarray.DataArray] = {}
    for group in ("norms", "tokens"):
        for name in cap:
            match = re.fullmatch(rf"encoder\.blocks\.(\d+)\.{group}", name)
            if match is None or int(match[1]) in found:
                continue
            values: Tensor = cap[name][_picture(cap, batch)]
            if group == "tokens":
                values = values.float().norm(dim=-1)  # as the registry computes "norms"
            map_ = on_grid(values.float().cpu().numpy()[None], cap.grid_of(name))[0].drop_vars("channel")
            found[int(match[1])] = map_.rename("norm").assign_attrs(block=int(match[1]), batch=batch)
    if not found:
        raise InvalidValueError('this capture holds no norms; select "norms" (or "tokens") when capturing')
    return dict(sorted(found.items()))


def channels(cap: Capture, block: int, batch: int = 0) -> xarray.DataArray:
    """Every channel of a block's output tokens on the block's grid: (channel, row, col).

    ProbeError if the capture lacks ``encoder.blocks.{block}.tokens``; IndexError for a picture that it does not hold.
    """
    name = f"encoder.blocks.{block}.tokens"
    values: Tensor = cap[name][_picture(cap, batch)]
    maps = on_grid(values.float().cpu().numpy().T, cap.grid_of(name))
    return maps.rename("tokens").assign_attrs(block=block, batch=batch)


def similarity(
    cap: Capture,
    block: int,
    patch: Sequence[int] | np.ndarray | Tensor | None = None,
    *,
    token: SupportsIndex | None = None,
    centred: bool = False,
    batch: int = 0,
) -> xarray.DataArray:
    """Cosine of each of a block's output tokens with one of them, on the block's grid: (row, col), -1 to 1.

    patch: (row, col) on that grid; or token: its number, 0 the class token where there is one. centred: with the mean
    over the patches taken off every token first. What all patches have in common makes every cosine large and says
    nothing about the picture. Where nothing is left of a token, its cosine is 0.

    ProbeError if the capture lacks ``encoder.blocks.{block}.tokens``; IndexError for a patch, a token or a picture that
    it does not hold; ValueError for tokens with NaN or infinity.
    """
    vectors, grid = _vectors(cap, block, batch)
    at = token_of(grid, patch, token)
    if not 0 <= at < grid.tokens:
        raise OutOfRangeError(f"token is {at}, but block {block} has {grid.tokens} (0..{grid.tokens - 1})")
    cosines = cosines_with(vectors[at], vectors, vectors[grid.prefix :].mean(0) if centred else None)
    found = on_grid(cosines[None].astype(np.float32), grid)[0].drop_vars("channel").rename("cosine similarity")
    return found.assign_attrs(block=block, batch=batch, token=at, centred=centred)


def cosines_with(
    one: Float[np.ndarray, " channels"],
    vectors: Float[np.ndarray, "tokens channels"],
    mean: Float[np.ndarray, " channels"] | None = None,
) -> Float[np.ndarray, " tokens"]:
    """Cosine of each vector with one, all of them less `mean`; 0 where a vector has no length."""
    if mean is not None:
        one, vectors = one - mean, vectors - mean
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(one)
    cosines: np.ndarray = vectors @ one / np.maximum(lengths, 1e-24)
    return cosines


def pca(cap: Capture, block: int, components: int = 3, *, batch: int = 0) -> xarray.DataArray:
    """Principal components of a block's output tokens over its patches: (component, row, col), the strongest first.

    Values are coordinates along the components, of tokens less the mean of the patches; ``explained`` stands beside
    them, each component's share of the patches' variance, and what prefix tokens have, which take no part in finding
    the components. Of a component's two directions the one is taken in which its largest channel grows.

    ProbeError if the capture lacks ``encoder.blocks.{block}.tokens``; IndexError for a picture that it does not hold;
    ValueError for more components than there are channels, or patches less one, and for tokens with NaN or infinity.
    """
    vectors, grid = _vectors(cap, block, batch)
    most = min(vectors.shape[1], grid.patches - 1)
    if not hasattr(components, "__index__") or not 1 <= components <= most:
        raise InvalidValueError(
            f"components is {components!r}; block {block} has {grid.patches} patches of {vectors.shape[1]} channels, "
            f"which give 1 to {most}"
        )
    away = vectors - vectors[grid.prefix :].mean(0)
    patches = away[grid.prefix :]
    variances, axes = np.linalg.eigh(patches.T @ patches)  # the smallest first
    axes = axes[:, ::-1][:, :components]
    axes = axes * np.sign(axes[abs(axes).argmax(axis=0), np.arange(components)])
    total = max(float((patches**2).sum()), 1e-300)
    found = on_grid((away @ axes).T.astype(np.float32), grid).rename(channel="component").rename("principal components")
    found["explained"] = ("component", np.maximum(variances[::-1][:components], 0.0) / total)
    return found.assign_attrs(block=block, batch=batch)


def _vectors(cap: Capture, block: int, batch: int) -> tuple[Float[np.ndarray, "tokens channels"], TokenGrid]:
    name = f"encoder.blocks.{block}.tokens"
    values: Tensor = cap[name][_picture(cap, batch)]
    if not values.isfinite().all():
        raise InvalidValueError(
            f"tokens of block {block} hold NaN or infinity; the model overflowed on this picture. A model in half "
            "precision may not do so in float32 (model.float())"
        )
    return values.double().cpu().numpy(), cap.grid_of(name)


def on_grid(values: Float[np.ndarray, "channels tokens"], grid: TokenGrid) -> xarray.DataArray:
    """(channel, row, col); beside it as coordinates what prefix tokens have: ``class_token``, ``register_1``, ..."""
    if values.shape[1] != grid.tokens:
        raise InvalidValueError(
            f"{values.shape[1]} tokens do not fill a grid of {grid.prefix} prefix tokens and {grid.rows} x {grid.cols} "
            "patches; give the grid of the same block (Capture.grid_of)"
        )
    names = prefix_names(grid.prefix)
    beside: dict[str, Any] = {name: ("channel", values[:, n]) for n, name in enumerate(names)}
    return xarray.DataArray(
        values[:, grid.prefix :].reshape(-1, grid.rows, grid.cols),
        dims=("channel", "row", "col"),
        coords={"channel": np.arange(len(values)), "row": np.arange(grid.rows), "col": np.arange(grid.cols), **beside},
    )


def prefix_names(prefix: int) -> list[str]:
    """What the coordinates of tokens before the patches are called."""
    return ["class_token" if n == 0 else f"register_{n}" for n in range(prefix)]


def threshold(norms: xarray.DataArray | np.ndarray, k: float = K) -> float:
    """Norm above which a token of this block is an outlier: median + k * MAD.

    Where more than half of the norms are the same, the MAD is 0 and would make an outlier of every other; the mean
    absolute deviation, scaled to agree with it on a normal distribution, then takes its place (Iglewicz and Hoaglin
    1993, "How to Detect and Handle Outliers"). It is 0 only if all are the same, and then nothing lies above.
    """
    if not math.isfinite(k) or k < 0:
        raise InvalidValueError(f"k is a finite number of deviations, 0 or more, not {k}")
    values = np.asarray(norms, dtype=np.float64).ravel()
    if not values.size or not np.isfinite(values).all():
        what = "NaN or infinity; the model overflowed" if values.size else "no tokens"
        raise InvalidValueError(f"the norms hold {what}; outliers cannot be told")
    median, spread = centre_and_spread(values)
    return median + k * spread


def centre_and_spread(values: Float[np.ndarray, " tokens"]) -> tuple[float, float]:
    """(median, median absolute deviation, or what takes its place where that is 0)."""
    median = float(np.median(values))
    away = np.abs(values - median)
    return median, float(np.median(away)) or float(away.mean()) * MEAN_TO_MEDIAN


def outliers(norms: Norms, k: float = K) -> Norms:
    """True where a token's norm stands out, in the form of what was given: one block's norms as `norms` gives them.

    See `threshold` for the rule. ``numpy.argwhere(outliers(...))`` lists the patches as (row, col).
    """
    return norms > threshold(norms, k)


def _picture(cap: Capture, batch: int) -> int:
    if not 0 <= batch < cap.batch:
        raise OutOfRangeError(f"batch is {batch}, but {cap.batch} pictures were captured (0..{cap.batch - 1})")
    return batch
