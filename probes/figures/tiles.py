"""Turns tensors into small images: an image cut into patches, tokens in colour, channels side by side.

Every function returns (height, width, 4) uint8 RGBA. Gaps between tiles are transparent, so tiles fit on a page of any
colour. Cells of a token grid are enlarged by whole numbers: a square of one colour is one token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import SupportsIndex

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from dpt import TokenGrid

from ..errors import InvalidValueError
from ..scalars import whole

RGB = UInt8[np.ndarray, "height width 3"]
Tile = UInt8[np.ndarray, "_ _ 4"]
Maps = Float[Tensor, "channels rows cols"]


def maps_of(tokens: Float[Tensor, "tokens channels"], grid: TokenGrid) -> Maps:
    """Arranges the tokens of one image on their grid, without the prefix tokens.

    Args:
        tokens: Prefix and patch tokens, (tokens, channels).
        grid: Their grid.

    Returns:
        (channels, rows, cols) float32.

    Raises:
        InvalidValueError: The number of tokens is not that of the grid.
    """
    if len(tokens) != grid.tokens:
        raise InvalidValueError(
            f"expected {grid.tokens} tokens ({grid.prefix} + {grid.rows} x {grid.cols}), got {len(tokens)}"
        )
    return tokens[grid.prefix :].T.unflatten(1, (grid.rows, grid.cols)).float()


def dice(image: RGB, patch: SupportsIndex, gap: SupportsIndex | None = None) -> Tile:
    """Cuts an image into its patches and pulls them apart.

    Args:
        image: RGB image, (height, width, 3). Its sides are multiples of `patch`.
        patch: Side of a patch in pixels.
        gap: Pixels between patches. Default: a fifth of a patch.

    Returns:
        The patches on a transparent background.

    Raises:
        InvalidValueError: A side is not a multiple of `patch`.
    """
    height, width = image.shape[:2]
    patch = whole(patch, "patch", least=1)
    if height % patch or width % patch:
        raise InvalidValueError(
            f"the sides of the image must be multiples of {patch} pixels, got {height} x {width}. Use model.prepare"
        )
    gap = max(1, patch // 5) if gap is None else whole(gap, "gap", least=0)
    rows, cols = height // patch, width // patch
    cells = np.zeros((rows, patch + gap, cols, patch + gap, 4), np.uint8)
    cells[:, :patch, :, :patch, :3] = image.reshape(rows, patch, cols, patch, 3)
    cells[:, :patch, :, :patch, 3] = 255
    joined = cells.reshape(rows * (patch + gap), cols * (patch + gap), 4)
    return np.ascontiguousarray(joined[: -gap or None, : -gap or None])


def coloured(values: Float[Tensor, "rows cols"], colormap: str = "viridis", zero: bool = False) -> Tile:
    """Colours a map over its own range.

    Args:
        values: The map, (rows, cols).
        colormap: A matplotlib colormap.
        zero: Use a range that is symmetric about zero, for diverging colormaps.

    Returns:
        A tile of one pixel per value.
    """
    import matplotlib

    values = values.float().cpu()
    top = float(values.abs().max()) if zero else float(values.max())
    low = -top if zero else float(values.min())
    unit = (values - low) / (top - low if top > low else 1.0)
    return np.asarray(matplotlib.colormaps[colormap](unit.numpy(), bytes=True))


def principal(maps: Maps) -> Tile:
    """Colours tokens by their first three principal components, as red, green and blue.

    Patches of similar colour have similar tokens. Each component covers its own 1st to 99th percentile, so a few
    outliers do not leave the rest grey. The sign of a component is arbitrary; the chosen sign grows down the image.

    Args:
        maps: Tokens on their grid, (channels, rows, cols).

    Returns:
        A tile of one pixel per token.
    """
    rows, cols = maps.shape[1:]
    x = maps.flatten(1).T.float().cpu()
    x = x - x.mean(dim=0)
    _, vectors = torch.linalg.eigh(x.T @ x)
    x = x @ vectors[:, -3:].flip(1)  # (patches, up to 3), the largest component first
    row, col = (torch.arange(side, dtype=x.dtype, device=x.device) for side in (rows, cols))
    down = row.repeat_interleave(cols) + col.repeat(rows) / (2 * cols)
    upward = (x * (down - down.mean())[:, None]).sum(dim=0) < 0
    x = torch.where(upward, -x, x)
    low, high = (torch.quantile(x, q, dim=0) for q in (0.01, 0.99))
    unit = ((x - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    rgb = torch.full((rows * cols, 3), 0.5, dtype=x.dtype, device=x.device)
    rgb[:, : unit.shape[1]] = unit
    tile = np.full((rows, cols, 4), 255, np.uint8)
    tile[..., :3] = (rgb * 255).round().byte().reshape(rows, cols, 3).numpy()
    return tile


def liveliest(maps: Maps, count: SupportsIndex) -> list[int]:
    """Returns the channels with the largest variance over the image.

    Args:
        maps: (channels, rows, cols).
        count: Largest number of channels to return.

    Returns:
        Channel numbers, the largest variance first.
    """
    order = maps.flatten(1).var(dim=1, correction=0).argsort(descending=True, stable=True)
    return [int(n) for n in order[: whole(count, "count", least=0)]]


def enlarged(tile: Tile, side: SupportsIndex) -> Tile:
    """Enlarges a tile by a whole number, or reduces it if it is larger than `side`.

    Args:
        tile: The tile.
        side: Largest length of the longer side in pixels.

    Returns:
        The tile in its new size.
    """
    side = whole(side, "side", least=1)
    factor = side // max(tile.shape[:2])
    if factor >= 1:
        return tile.repeat(factor, axis=0).repeat(factor, axis=1)
    scale = side / max(tile.shape[:2])
    size = [max(1, round(length * scale)) for length in tile.shape[:2]]
    reduced = F.interpolate(torch.from_numpy(tile).permute(2, 0, 1)[None].float(), size, mode="area")
    return np.ascontiguousarray(reduced[0].round().byte().permute(1, 2, 0).numpy())


def stretched(tile: Tile, side: SupportsIndex) -> Tile:
    """Resizes a tile to exactly `side` pixels along its longer side, repeating cells unevenly if necessary.

    Tiles of one mosaic must have one size, and the grids of SwinV2's stages differ.
    """
    height, width = tile.shape[:2]
    side = whole(side, "side", least=1)
    sizes = [max(1, side * length // max(height, width)) for length in (height, width)]
    rows, cols = (np.arange(size) * length // size for size, length in zip(sizes, (height, width), strict=True))
    return np.ascontiguousarray(tile[rows][:, cols])


def opaque(image: RGB) -> Tile:
    """Adds an opaque alpha channel to an RGB image."""
    return np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])


def mosaic(tiles: Sequence[Tile], columns: SupportsIndex, side: SupportsIndex, gap: SupportsIndex = 6) -> Tile:
    """Lays tiles side by side, row by row.

    Args:
        tiles: Tiles of one size.
        columns: Tiles per row.
        side: Length to which the longer side of each tile is enlarged or reduced, in pixels; see `enlarged`.
        gap: Transparent pixels between tiles.

    Returns:
        One tile.
    """
    columns, gap = whole(columns, "columns", least=1), whole(gap, "gap", least=0)
    scaled = [enlarged(tile, side) for tile in tiles]
    height, width = scaled[0].shape[:2]
    lines = -(-len(scaled) // columns)
    joined = np.zeros((lines * (height + gap) - gap, min(columns, len(scaled)) * (width + gap) - gap, 4), np.uint8)
    for n, tile in enumerate(scaled):
        y, x = n // columns * (height + gap), n % columns * (width + gap)
        joined[y : y + height, x : x + width] = tile
    return joined


def tinted_windows(image: RGB, grid: TokenGrid) -> Tile:
    """Tints every attention window of an image in a different colour.

    Args:
        image: RGB image, (height, width, 3).
        grid: The token grid of a block.

    Returns:
        The tinted image with white borders. Without windows, the image itself.
    """
    if grid.window is None:
        return opaque(image)
    import matplotlib

    number = np.empty(grid.tokens, np.int64)
    for n, tokens in enumerate(grid.windows()):
        number[tokens.numpy()] = n
    palette = (matplotlib.colormaps["tab20"](number % 20)[:, :3] * 255).reshape(grid.rows, grid.cols, 3)
    height, width = image.shape[:2]
    rows, cols = (np.arange(s) * g // s for s, g in ((height, grid.rows), (width, grid.cols)))
    number = number.reshape(grid.rows, grid.cols)[rows][:, cols]
    edges = np.zeros((height, width), bool)
    edges[1:] |= number[1:] != number[:-1]
    edges[:, 1:] |= number[:, 1:] != number[:, :-1]
    mixed = 0.6 * image + 0.4 * palette[rows][:, cols]
    mixed[edges] = 255
    return opaque(mixed.round().astype(np.uint8))
