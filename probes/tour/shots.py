"""Draws the views of a tour: one image with a caption per part and view.

Every function in `SHOTS` takes the recorded pass and a part, and returns a `Shot`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dpt import SwinV2Config, TokenGrid

from ..figures import tiles
from .parts import Part
from .recorded import BLOCK_INPUT, RecordedPass, as_picture, readout_name

CHANNELS = 12  # channels of a tensor in one mosaic
SIDE = 640  # pixels of the longer side of a single image
TILE_SIDE = 200  # pixels of the longer side of one image in a mosaic
THUMB_SIDE = 132


class Shot(NamedTuple):
    """One view of a part.

    Attributes:
        tile: RGBA image, (height, width, 4) uint8.
        caption: One line of text.
    """

    tile: tiles.Tile
    caption: str


def _picture(walk: RecordedPass, part: Part) -> Shot:
    if part.kind == "picture":
        height, width = walk.image.shape[:2]
        return Shot(tiles.enlarged(tiles.opaque(walk.image), SIDE), f"{width} × {height} pixels, before resizing")
    image = walk.resized()
    height, width = image.shape[:2]
    kept = "the aspect ratio is kept, up to rounding" if _aspect_kept(walk) else "stretched to the model's size"
    return Shot(tiles.enlarged(tiles.opaque(image), SIDE), f"{width} × {height} pixels: {kept}")


def _aspect_kept(walk: RecordedPass) -> bool:
    (height, width), (h, w) = walk.image.shape[:2], walk.input.shape[-2:]
    return abs(h / w * width / height - 1) < 0.12


def _stretched(walk: RecordedPass, part: Part) -> Shot:
    side = walk.size if isinstance(walk.size, int) else walk.config.preprocess.base
    x = walk.model.prepare(walk.image, side, keep_aspect=False)
    height, width = x.shape[-2:]
    tile = tiles.enlarged(tiles.opaque(as_picture(x, walk.config)), SIDE)
    return Shot(tile, f"{width} × {height} pixels with keep_aspect=False: circles become ovals")


def _values(walk: RecordedPass, part: Part) -> Shot:
    x = walk.input[0].float()
    shown = tiles.mosaic([tiles.coloured(x[c], "RdBu_r", zero=True) for c in range(3)], 3, 2 * TILE_SIDE)
    low, high = float(x.min()), float(x.max())
    return Shot(shown, f"red, green and blue after normalising: {low:.2f} to {high:.2f}; white is 0")


def _patches(walk: RecordedPass, part: Part) -> Shot:
    p = walk.config.patch_size
    caption = f"{walk.grid.rows} × {walk.grid.cols} = {walk.grid.patches} patches of {p} × {p} pixels"
    return Shot(tiles.enlarged(tiles.dice(walk.resized(), p), 2 * SIDE), caption)


def _closer(walk: RecordedPass, part: Part) -> Shot:
    p = walk.config.patch_size
    image = walk.resized()
    rows, cols = min(4, walk.grid.rows), min(6, walk.grid.cols)
    top, left = (walk.grid.rows - rows) // 2 * p, (walk.grid.cols - cols) // 2 * p
    cut = np.ascontiguousarray(image[top : top + rows * p, left : left + cols * p])
    caption = f"{rows} × {cols} patches from the middle; each is a vector of 3·{p}·{p} = {3 * p * p} numbers"
    return Shot(tiles.enlarged(tiles.dice(cut, p), SIDE), caption)


def _colour(walk: RecordedPass, part: Part) -> Shot:
    maps = walk.maps_of(part)
    caption = f"first three principal components of {len(maps)} channels: similar colours are similar tokens"
    return Shot(tiles.enlarged(tiles.principal(maps), SIDE), caption)


def channel_maps(walk: RecordedPass, part: Part) -> Tensor:
    """Returns the channels of a part, (channels, rows, cols)."""
    return walk.features() if part.kind == "head" else walk.maps_of(part)


def _channels(walk: RecordedPass, part: Part) -> Shot:
    maps = channel_maps(walk, part)
    chosen = tiles.liveliest(maps, CHANNELS)
    shown = tiles.mosaic([tiles.coloured(maps[n]) for n in chosen], 4, TILE_SIDE)
    numbers = ", ".join(map(str, chosen))
    return Shot(shown, f"{len(chosen)} of {len(maps)} channels with the largest variance: {numbers}")


def _norm(walk: RecordedPass, part: Part) -> Shot:
    maps = walk.maps_of(part)
    norms = maps.norm(dim=0)
    of = "each token" if part.kind in ("embedding", "tokens", "block", "stage") else "the channels of each pixel"
    caption = f"L2 norm of {of}: {float(norms.min()):.3g} to {float(norms.max()):.3g}"
    return Shot(tiles.enlarged(tiles.coloured(norms), SIDE), caption)


def _change(walk: RecordedPass, part: Part) -> Shot:
    i = part.number
    after = walk.values[f"encoder.blocks.{i}.tokens"][0].float()
    before = walk.values[f"encoder.blocks.{i - 1}.tokens"] if i else walk.between[BLOCK_INPUT]
    change = after - before[0].float()
    grid = walk.config.block_grid(i, walk.grid)
    share = change.norm(dim=1) / before[0].float().norm(dim=1).clamp_min(1e-12)
    tile = tiles.coloured(tiles.maps_of(share[:, None], grid)[0], "magma")
    patches = share[grid.prefix :]
    low, high = float(patches.min()), float(patches.max())
    return Shot(tiles.enlarged(tile, SIDE), f"change of each token by the block: {low:.0%} to {high:.0%} of its norm")


def _bias(walk: RecordedPass, part: Part) -> Shot:
    block = walk.model.encoder.blocks[part.number]
    grid = walk.config.block_grid(part.number, walk.grid)
    if isinstance(walk.config, SwinV2Config):
        table = block.attention.positions(grid, walk.config.reach(part.number, walk.grid)).table
        tile = [tiles.coloured(table[h]) for h in range(min(8, len(table)))]  # from 0 to 16: not signed
        caption = f"bias by offset, with the patch itself in the middle; heads 0 to {len(tile) - 1}, each its own range"
        return Shot(tiles.mosaic(tile, 4, TILE_SIDE), caption)
    # Two patches, to show that the bias of the second is that of the first, shifted.
    bias = block.attention.positions(grid)
    places = [(grid.rows // 2, grid.cols // 3), (grid.rows // 2, grid.cols * 2 // 3)]
    queries = torch.tensor([grid.token(*place) for place in places], device=bias.table.device)
    every = bias.between(queries, torch.arange(grid.tokens, device=bias.table.device))
    heads = range(min(4, len(every)))
    shown = [
        tiles.coloured(tiles.maps_of(every[h, n][:, None], grid)[0], "RdBu_r", zero=True)
        for n in range(2)
        for h in heads
    ]
    rows = f"top row from patch {places[0]}, bottom row from {places[1]}, shifted"
    caption = f"bias of heads 0 to {heads[-1]}: {rows}; white is 0"
    return Shot(tiles.mosaic(shown, len(heads), TILE_SIDE), caption)


def _windows(walk: RecordedPass, part: Part) -> Shot:
    grid = walk.config.block_grid(part.number, walk.grid)
    assert grid.window is not None
    enlarged = np.ascontiguousarray(tiles.enlarged(tiles.opaque(walk.resized()), SIDE)[..., :3])
    count = len(grid.windows())
    caption = f"{count} window{'s' * (count > 1)} of {grid.window[0]} × {grid.window[1]} tokens"
    if any(grid.shift):
        caption += f", shifted by {grid.shift[0]}, {grid.shift[1]}: equal tints at opposite borders are one window"
    return Shot(tiles.tinted_windows(enlarged, grid), caption)


def _positions(walk: RecordedPass, part: Part) -> Shot:
    maps = tiles.maps_of(walk.model.encoder.positions(walk.grid)[0], walk.grid)
    chosen = tiles.liveliest(maps, CHANNELS)
    shown = tiles.mosaic([tiles.coloured(maps[n], "RdBu_r", zero=True) for n in chosen], 4, TILE_SIDE)
    return Shot(shown, f"{len(chosen)} of {len(maps)} channels of the position table, added to the tokens; white is 0")


def _class(walk: RecordedPass, part: Part) -> Shot:
    token = walk.between[BLOCK_INPUT][0, 0].float()
    lines = 12
    padded = token.new_zeros(-(-len(token) // lines) * lines, device="cpu")
    padded[: len(token)] = token.cpu()
    tile = tiles.coloured(padded.view(lines, -1), "RdBu_r", zero=True)
    return Shot(tiles.enlarged(tile, SIDE), f"the {len(token)} numbers of the class token, line by line; white is 0")


def _stages(walk: RecordedPass, part: Part) -> Shot:
    shown = []
    for s in range(4):
        grid = walk.points[f"encoder.stages.{s}"].grid(walk.grid)
        x = walk.between.get(readout_name(s))
        if x is None:
            maps = tiles.maps_of(walk.values[f"encoder.stages.{s}"][0], grid)
        else:
            maps = tiles.maps_of(x[0], TokenGrid(grid.rows, grid.cols))
        shown.append(tiles.stretched(tiles.principal(maps), 2 * TILE_SIDE))
    return Shot(tiles.mosaic(shown, 2, 2 * TILE_SIDE), "tokens that go on to reassembly, stages 0 to 3, as colour")


def _depth(walk: RecordedPass, part: Part) -> Shot:
    depth = walk.values["depth"][0]
    tile = tiles.coloured(-depth if walk.config.metric else depth, "inferno")
    unit = "metres" if walk.config.metric else "inverse depth"
    caption = f"{unit}, {float(depth.min()):.3g} to {float(depth.max()):.3g}; bright is near"
    return Shot(tiles.enlarged(tile, SIDE), caption)


SHOTS: dict[str, Callable[[RecordedPass, Part], Shot]] = {
    "picture": _picture,
    "stretched": _stretched,
    "values": _values,
    "patches": _patches,
    "closer": _closer,
    "colour": _colour,
    "channels": _channels,
    "norm": _norm,
    "change": _change,
    "bias": _bias,
    "windows": _windows,
    "positions": _positions,
    "class": _class,
    "stages": _stages,
    "depth": _depth,
}
"""The function that draws each view of `parts.VIEWS`."""


def thumbnail(walk: RecordedPass, part: Part) -> tiles.Tile | None:
    """Draws a small image of a part for the diagram.

    Args:
        walk: The recorded pass.
        part: The part.

    Returns:
        RGBA image, or None for a part without views.
    """
    if part.kind == "patches":
        return _patches_thumbnail(walk)
    if not part.views:
        return None
    if part.kind in ("embedding", "tokens", "block", "stage", "reassembly", "fusion"):
        return tiles.enlarged(tiles.principal(walk.maps_of(part)), THUMB_SIDE)
    if part.kind == "head":
        maps = walk.features()
        return tiles.enlarged(tiles.coloured(maps[tiles.liveliest(maps, 1)[0]]), THUMB_SIDE)
    return tiles.enlarged(SHOTS[part.views[0]](walk, part).tile, THUMB_SIDE)


def _patches_thumbnail(walk: RecordedPass) -> tiles.Tile:
    """The image cut into at most about 12 patches per side, so a thumbnail shows them as squares."""
    image = walk.resized()
    patch = walk.config.patch_size
    while min(image.shape[:2]) // patch > 12:
        patch *= 2
    height, width = (side // patch * patch for side in image.shape[:2])
    return tiles.enlarged(tiles.dice(np.ascontiguousarray(image[:height, :width]), patch), THUMB_SIDE)
