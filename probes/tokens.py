"""Maps of a block's tokens on the image: norms, channels, outliers, similarity and principal components.

Problem: a captured token sequence is a list of vectors, while the image has rows and columns. The first tokens may not
belong to any patch, and in SwinV2 every stage has its own grid. "This token is an outlier" needs a rule that the
outliers themselves cannot shift.

Approach: values are placed on their block's own grid, as xarray. Values of prefix tokens are coordinates of the map:
``class_token``, ``register_1``, ... A token is an outlier if its norm exceeds the median of its block's patches by more
than k median absolute deviations (MAD). Half of the tokens would have to be outliers to shift either statistic. Prefix
tokens do not count, because their norms are expected to differ. Similarity is the cosine of two tokens. With
centred=True the mean of all patches is subtracted first, so the cosine reflects how patches differ. PCA covers the
patches of one block and one image.

    with probes.capture(model, "norms") as cap:
        model.predict(image)
    norms = probes.tokens.norms(cap)                    # {block: DataArray (row, col)}
    probes.tokens.outliers(norms[7], k=6.0).sum()       # number of outlier patches in block 7
    with probes.capture(model, "tokens") as cap:
        model.predict(image)
    probes.tokens.similarity(cap, 7, patch=(12, 20))    # DataArray (row, col): cosine of each patch with this patch
    probes.tokens.pca(cap, 7)                           # DataArray (component, row, col)

Limits: each call covers one image of a batch, so components of two images are not comparable. Only norms above the
median can be outliers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import SupportsFloat, SupportsIndex, TypeVar

import numpy as np
import xarray
from jaxtyping import Float
from torch import Tensor

from dpt import TokenGrid
from dpt.scalars import is_whole

from .attention import token_of
from .captured import Capture, NotCaptured
from .errors import InvalidTypeError, InvalidValueError, OutOfRangeError
from .scalars import real, whole

K = 6.0  # in a normal distribution, 1 in 40,000 values exceeds the median by 6 MAD

# Factor from the mean to the median absolute deviation in a normal distribution: 0.6745 / sqrt(2 / pi).
MEAN_TO_MEDIAN = 0.6744897501960817 / math.sqrt(2 / math.pi)

Norms = TypeVar("Norms", xarray.DataArray, np.ndarray)


def norms(cap: Capture, batch: SupportsIndex = 0) -> dict[int, xarray.DataArray]:
    """Computes the L2 norm of each output token, on the block's grid, for every captured block.

    Args:
        cap: A capture of "norms" or "tokens". Blocks with both use "norms".
        batch: Index of the image in the batch.

    Returns:
        Maps each block index to its norms (row, col).

    Raises:
        NotCaptured: The capture holds neither norms nor tokens of any block.
        OutOfRangeError: The batch has no such image.
    """
    found: dict[int, xarray.DataArray] = {}
    batch = _checked_batch(cap, batch)
    for group in ("norms", "tokens"):
        for name in cap:
            match = re.fullmatch(rf"encoder\.blocks\.(\d+)\.{group}", name)
            if match is None or int(match[1]) in found:
                continue
            values: Tensor = cap[name][batch]
            if group == "tokens":
                values = values.float().norm(dim=-1)  # the same computation as the point "norms"
            map_ = on_grid(values.float().cpu().numpy()[None], cap.grid_of(name))[0].drop_vars("channel")
            found[int(match[1])] = map_.rename("norm").assign_attrs(block=int(match[1]), batch=batch)
    if not found:
        raise NotCaptured('The capture holds no norms. Capture with the selector "norms" or "tokens".')
    return dict(sorted(found.items()))


def channels(cap: Capture, block: SupportsIndex, batch: SupportsIndex = 0) -> xarray.DataArray:
    """Places every channel of a block's output tokens on the block's grid.

    Args:
        cap: A capture that holds ``encoder.blocks.{block}.tokens``.
        block: Index of the block.
        batch: Index of the image in the batch.

    Returns:
        The channels (channel, row, col).

    Raises:
        NotCaptured: The capture does not hold the tokens of the block.
        OutOfRangeError: The batch has no such image.
    """
    block, batch = whole(block, "block"), _checked_batch(cap, batch)
    name = f"encoder.blocks.{block}.tokens"
    values: Tensor = cap[name][batch]
    maps = on_grid(values.float().cpu().numpy().T, cap.grid_of(name))
    return maps.rename("tokens").assign_attrs(block=block, batch=batch)


def similarity(
    cap: Capture,
    block: SupportsIndex,
    patch: Sequence[SupportsIndex] | np.ndarray | Tensor | None = None,
    *,
    token: SupportsIndex | None = None,
    centred: bool = False,
    batch: SupportsIndex = 0,
) -> xarray.DataArray:
    """Computes the cosine of each output token of a block with one of them, on the block's grid.

    Args:
        cap: A capture that holds ``encoder.blocks.{block}.tokens``.
        block: Index of the block.
        patch: (row, col) of the reference patch on the block's grid. Give either patch or token.
        token: Index of the reference token. 0 is the class token, if the model has one.
        centred: Subtract the mean of the patches from every token first. The component that all patches share makes
            every cosine large and says nothing about the image.
        batch: Index of the image in the batch.

    Returns:
        Cosines (row, col), from -1 to 1. A token of length 0 (after centring) has cosine 0.

    Raises:
        NotCaptured: The capture does not hold the tokens of the block.
        OutOfRangeError: The patch, token or image does not exist. `dpt.DPTError` reports a patch outside the grid.
        InvalidValueError: The tokens contain NaN or infinity, or not exactly one of patch and token is given.
    """
    block, batch = whole(block, "block"), _checked_batch(cap, batch)
    vectors, grid = _vectors(cap, block, batch)
    index = token_of(grid, patch, token)
    if not 0 <= index < grid.tokens:
        raise OutOfRangeError(f"block {block} has tokens 0 to {grid.tokens - 1}, got token {index}")
    cosines = cosines_with(vectors[index], vectors, vectors[grid.prefix :].mean(0) if centred else None)
    found = on_grid(cosines[None].astype(np.float32), grid)[0].drop_vars("channel").rename("cosine similarity")
    return found.assign_attrs(block=block, batch=batch, token=index, centred=centred)


def cosines_with(
    one: Float[np.ndarray, " channels"],
    vectors: Float[np.ndarray, "tokens channels"],
    mean: Float[np.ndarray, " channels"] | None = None,
) -> Float[np.ndarray, " tokens"]:
    """Computes the cosine of each vector with `one`, after subtracting `mean`. Vectors of length 0 have cosine 0."""
    if mean is not None:
        one, vectors = one - mean, vectors - mean
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(one)
    cosines: np.ndarray = vectors @ one / np.maximum(lengths, 1e-24)
    return cosines


def pca(
    cap: Capture, block: SupportsIndex, components: SupportsIndex = 3, *, batch: SupportsIndex = 0
) -> xarray.DataArray:
    """Computes principal components of a block's output tokens over its patches, strongest first.

    The mean of the patches is subtracted first. Prefix tokens do not influence the components. The sign of a component
    is chosen so that its largest channel is positive.

    Args:
        cap: A capture that holds ``encoder.blocks.{block}.tokens``.
        block: Index of the block.
        components: Number of components, at most the number of channels and the number of patches minus 1.
        batch: Index of the image in the batch.

    Returns:
        Coordinates of each patch along the components (component, row, col). The coordinate ``explained`` is each
        component's share of the variance over the patches. ``class_token``, ``register_1``, ... are the values of
        prefix tokens.

    Raises:
        NotCaptured: The capture does not hold the tokens of the block.
        OutOfRangeError: The batch has no such image.
        InvalidTypeError: components is not an integer.
        InvalidValueError: The number of components is too small or too large, or the tokens contain NaN or infinity.
    """
    block, batch = whole(block, "block"), _checked_batch(cap, batch)
    vectors, grid = _vectors(cap, block, batch)
    most = min(vectors.shape[1], grid.patches - 1)
    if not is_whole(components):
        raise InvalidTypeError(f"components must be an integer from 1 to {most}, got {components!r}")
    components = whole(components, "components")
    if not 1 <= components <= most:
        raise InvalidValueError(
            f"components must be 1 to {most} for the {grid.patches} patches x {vectors.shape[1]} channels of block "
            f"{block}, got {components}"
        )
    centred = vectors - vectors[grid.prefix :].mean(0)
    patches = centred[grid.prefix :]
    variances, axes = np.linalg.eigh(patches.T @ patches)  # ascending
    axes = axes[:, ::-1][:, :components]
    axes = axes * np.sign(axes[abs(axes).argmax(axis=0), np.arange(components)])
    total = max(float((patches**2).sum()), 1e-300)
    coordinates = (centred @ axes).T.astype(np.float32)
    found = on_grid(coordinates, grid).rename(channel="component").rename("principal components")
    found["explained"] = ("component", np.maximum(variances[::-1][:components], 0.0) / total)
    return found.assign_attrs(block=block, batch=batch)


def _vectors(cap: Capture, block: int, batch: int) -> tuple[Float[np.ndarray, "tokens channels"], TokenGrid]:
    name = f"encoder.blocks.{block}.tokens"
    values: Tensor = cap[name][batch]
    if not values.isfinite().all():
        raise InvalidValueError(
            f"The tokens of block {block} contain NaN or infinity: the model overflowed on this image. "
            "If the model runs in half precision, try float32: model.float()."
        )
    return values.double().cpu().numpy(), cap.grid_of(name)


def on_grid(values: Float[np.ndarray, "channels tokens"], grid: TokenGrid) -> xarray.DataArray:
    """Places token values on a grid.

    Args:
        values: (channels, tokens), prefix tokens first.
        grid: The grid of the tokens, from `Capture.grid_of`.

    Returns:
        The values (channel, row, col). Values of prefix tokens are the coordinates ``class_token``, ``register_1``, ...

    Raises:
        InvalidValueError: The number of tokens does not match the grid.
    """
    if values.shape[1] != grid.tokens:
        raise InvalidValueError(
            f"a grid of {grid.prefix} prefix tokens and {grid.rows} x {grid.cols} patches needs {grid.tokens} tokens, "
            f"got {values.shape[1]}; use the grid of the same block (Capture.grid_of)"
        )
    prefixes = {name: ("channel", values[:, n]) for n, name in enumerate(prefix_names(grid.prefix))}
    return xarray.DataArray(
        values[:, grid.prefix :].reshape(-1, grid.rows, grid.cols),
        dims=("channel", "row", "col"),
        coords={
            "channel": np.arange(len(values)),
            "row": np.arange(grid.rows),
            "col": np.arange(grid.cols),
            **prefixes,
        },
    )


def prefix_names(prefix: int) -> list[str]:
    """Returns the coordinate names of the prefix tokens: ``class_token``, ``register_1``, ..."""
    return ["class_token" if n == 0 else f"register_{n}" for n in range(prefix)]


def threshold(norms: xarray.DataArray | np.ndarray, k: SupportsFloat = K) -> float:
    """Computes the norm above which a token is an outlier: median + k * MAD.

    If more than half of the norms are equal, the MAD is 0 and every other token would be an outlier. The mean absolute
    deviation then replaces it, scaled to agree with the MAD on a normal distribution. It is 0 only if all norms are
    equal, and then no token is an outlier.

    Args:
        norms: The norms of one block's patches, any shape.
        k: Number of deviations above the median, finite and >= 0.

    Returns:
        The threshold, in the unit of the norms.

    Raises:
        InvalidValueError: k is negative or not finite, or the norms are empty or contain NaN or infinity.

    Source:
        Iglewicz and Hoaglin, "How to Detect and Handle Outliers", 1993.
    """
    k = real(k, "k", least=0)
    values = np.asarray(norms, dtype=np.float64).ravel()
    if not values.size:
        raise InvalidValueError("Cannot detect outliers: there are no norms.")
    if not np.isfinite(values).all():
        raise InvalidValueError("Cannot detect outliers: the norms contain NaN or infinity. The model overflowed.")
    median, spread = centre_and_spread(values)
    return median + k * spread


def centre_and_spread(values: Float[np.ndarray, " tokens"]) -> tuple[float, float]:
    """Returns the median and the MAD. If the MAD is 0, the scaled mean absolute deviation replaces it."""
    median = float(np.median(values))
    deviations = np.abs(values - median)
    return median, float(np.median(deviations)) or float(deviations.mean()) * MEAN_TO_MEDIAN


def outliers(norms: Norms, k: SupportsFloat = K) -> Norms:
    """Marks the tokens whose norm exceeds the threshold.

    Args:
        norms: The norms of one block, e.g. ``norms(cap)[7]``.
        k: As for `threshold`.

    Returns:
        True for outliers, in the same type and shape as the norms. ``numpy.argwhere`` lists them as (row, col).

    Raises:
        InvalidValueError: As for `threshold`.
    """
    return norms > threshold(norms, k)


def _checked_batch(cap: Capture, batch: SupportsIndex) -> int:
    batch = whole(batch, "batch")
    if not 0 <= batch < cap.batch:
        raise OutOfRangeError(f"batch must be 0 to {cap.batch - 1} ({cap.batch} images were captured), got {batch}")
    return batch
