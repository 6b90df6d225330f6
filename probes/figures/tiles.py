"""Tensors as small pictures: a picture cut into its patches, tokens in colour, channels side by side.

Everything returns (height, width, 4) uint8 RGBA, transparent between tiles, so that it lies on a page of any colour.
Cells of a token grid are enlarged by whole numbers: what is a square of one colour is one token.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from dpt import TokenGrid

from ..errors import InvalidValueError

Tile = UInt8[np.ndarray, "_ _ 4"]
Maps = Float[Tensor, "channels rows cols"]


def maps_of(tokens: Float[Tensor, "tokens channels"], grid: TokenGrid) -> Maps:
    """A picture's tokens laid on their grid, without the prefix tokens."""
    if len(tokens) != grid.tokens:
        raise InvalidValueError(
            f"{len(tokens)} tokens do not fill a grid of {grid.prefix} and {grid.rows} x {grid.cols}"
        )
    return tokens[grid.prefix :].T.unflatten(1, (grid.rows, grid.cols)).float()


def dice(picture: UInt8[np.ndarray, "height width 3"], patch: int, gap: int | None = None) -> Tile:
    """The picture cut into squares of patch x patch pixels, pulled apart by a gap. Its sides are multiples of patch."""
    height, width = picture.shape[:2]
    if height % patch or width % patch:
        raise InvalidValueError(
            f"patches of {patch} pixels do not fill a picture of {height} x {width}; prepare it first"
        )
    gap = max(1, patch // 5) if gap is None else gap
    rows, cols = height // patch, width // patch
    cells = np.zeros((rows, patch + gap, cols, patch + gap, 4), np.uint8)
    cells[:, :patch, :, :patch, :3] = picture.reshape(rows, patch, cols, patch, 3)
    cells[:, :patch, :, :patch, 3] = 255
    whole = cells.reshape(rows * (patch + gap), cols * (patch + gap), 4)
    return np.ascontiguousarray(whole[: -gap or None, : -gap or None])


def coloured(values: Float[Tensor, "rows cols"], colormap: str = "viridis", zero: bool = False) -> Tile:
    """A map through a colormap over its own range; zero: a range as wide on both sides of zero."""
    import matplotlib

    values = values.float().cpu()
    top = float(values.abs().max()) if zero else float(values.max())
    low = -top if zero else float(values.min())
    unit = (values - low) / (top - low if top > low else 1.0)
    return np.asarray(matplotlib.colormaps[colormap](unit.numpy(), bytes=True))


def principal(maps: Maps) -> Tile:
    """Tokens in colour: their first three principal components as red, green and blue.

    Patches of like colour hold alike tokens. Every component spans its own 1st to 99th percentile, so that a few
    outliers do not leave the rest grey; its sign, which is arbitrary, is the one that grows down the picture.
    """
    rows, cols = maps.shape[1:]
    x = maps.flatten(1).T.float().cpu()
    x = x - x.mean(dim=0)
    _, vectors = torch.linalg.eigh(x.T @ x)
    x = x @ vectors[:, -3:].flip(1)  # (patches, up to 3), the largest first
    down = torch.arange(rows, dtype=x.dtype).repeat_interleave(cols) + torch.arange(cols).repeat(rows) / (2 * cols)
    x = x * torch.where((x * (down - down.mean())[:, None]).sum(dim=0) < 0, -1.0, 1.0)
    low, high = (torch.quantile(x, q, dim=0) for q in (0.01, 0.99))
    unit = ((x - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    rgb = torch.full((rows * cols, 3), 0.5, dtype=x.dtype)
    rgb[:, : unit.shape[1]] = unit
    tile = np.full((rows, cols, 4), 255, np.uint8)
    tile[..., :3] = (rgb * 255).round().byte().reshape(rows, cols, 3).numpy()
    return tile


def liveliest(maps: Maps, count: int) -> list[int]:
    """The channels that vary most over the picture, the liveliest first."""
    order = maps.flatten(1).var(dim=1, correction=0).argsort(descending=True, stable=True)
    return [int(n) for n in order[:count]]


def enlarged(tile: Tile, side: int) -> Tile:
    """By a whole number, to at most side pixels along the longer side; larger ones are reduced to it."""
    factor = side // max(tile.shape[:2])
    if factor >= 1:
        return tile.repeat(factor, axis=0).repeat(factor, axis=1)
    scale = side / max(tile.shape[:2])
    size = [max(1, round(length * scale)) for length in tile.shape[:2]]
    reduced = F.interpolate(torch.from_numpy(tile).permute(2, 0, 1)[None].float(), size, mode="area")
    return np.ascontiguousarray(reduced[0].round().byte().permute(1, 2, 0).numpy())


def mosaic(tiles: Sequence[Tile], columns: int, side: int, gap: int = 6) -> Tile:
    """Tiles of one size side by side, row by row; each is enlarged or reduced to about side pixels."""
    scaled = [enlarged(tile, side) for tile in tiles]
    height, width = scaled[0].shape[:2]
    lines = -(-len(scaled) // columns)
    whole = np.zeros((lines * (height + gap) - gap, min(columns, len(scaled)) * (width + gap) - gap, 4), np.uint8)
    for n, tile in enumerate(scaled):
        y, x = n // columns * (height + gap), n % columns * (width + gap)
        whole[y : y + height, x : x + width] = tile
    return whole


def tinted_windows(picture: UInt8[np.ndarray, "height width 3"], grid: TokenGrid) -> Tile:
    """The picture with every attention window in a tint of its own, by the palette's order; one window: as it is."""
    if grid.window is None:
        return np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)])
    import matplotlib

    number = np.empty(grid.tokens, np.int64)
    for n, tokens in enumerate(grid.windows()):
        number[tokens.numpy()] = n
    palette = (matplotlib.colormaps["tab20"](number % 20)[:, :3] * 255).reshape(grid.rows, grid.cols, 3)
    height, width = picture.shape[:2]
    rows, cols = grid.patches_of_pixels((height, width))
    number = number.reshape(grid.rows, grid.cols)[rows][:, cols]
    edges = np.zeros((height, width), bool)
    edges[1:] |= number[1:] != number[:-1]
    edges[:, 1:] |= number[:, 1:] != number[:, :-1]
    mixed = 0.6 * picture + 0.4 * palette[rows][:, cols]
    mixed[edges] = 255
    return np.dstack([mixed.round().astype(np.uint8), np.full((height, width), 255, np.uint8)])
