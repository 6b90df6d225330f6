"""Draws what the norm explorer shows, as a picture for saved notebooks and pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dpt import TokenGrid

from ... import tokens
from ..shared.drawing import Bar, Mark, Panel, over, picture
from ..shared.scales import RGB, Scale, colourise, linear_scale, log_scale, number, signed_scale
from ..shared.summary import Summary


class Detail(NamedTuple):
    """A map of one block other than its norms.

    Attributes:
        name: What it shows.
        values: (rows, cols).
        scale: Scale of the values.
        colormap: Their colours.
    """

    name: str
    values: NDArray[np.float32]
    scale: Scale
    colormap: str


def detail_of(name: str, values: NDArray[np.float32], colormap: str, signed: bool) -> Detail:
    """A map with its scale: around 0 if signs matter, up to 1 for similarities, else over its own range."""
    if signed:
        top = 1.0 if "similarity" in name else float(np.abs(values).max()) or 1.0
        return Detail(name, values, signed_scale(top), colormap)
    return Detail(name, values, linear_scale(float(values.min()), float(values.max())), colormap)


def draw(
    summary: Summary,
    image: RGB,
    norms: Mapping[int, NDArray[np.float32]],
    grids: Mapping[int, TokenGrid],
    block: int,
    detail: Detail | None,
    anchor: int | None,
    *,
    k: float,
    marks: bool,
    scale: str,
    colormap: str,
    opacity: float,
    note: str,
) -> bytes:
    """Draws the image with the map of one block, and the norms of all blocks.

    Args:
        summary: The words above it.
        image: What lies under the map, RGB.
        norms: (tokens,) of each block, prefix tokens first.
        grids: The token grid of each block.
        block: The block that is laid over the image.
        detail: What is laid over the image instead of its norms.
        anchor: A patch token of the block to outline, or None.
        k: Threshold for outliers.
        marks: Whether outliers are outlined.
        scale: "block", "shared" or "log".
        colormap: Colours of norms.
        opacity: Of the map over the image.
        note: A line at the bottom.

    Returns:
        A PNG.
    """
    maps = {n: values[grids[n].prefix :].reshape(grids[n].rows, grids[n].cols) for n, values in norms.items()}
    scales = _scales(maps, scale)
    found = {n: tokens.outliers(map_, k) for n, map_ in maps.items()}
    name, values, own, table = detail or Detail("norms of the tokens", maps[block], scales[block], colormap)
    grid = grids[block]
    outlined = [_mark(grid, *cell) for cell in np.argwhere(found[block]).tolist()] if marks else []
    if anchor is not None and (patch := grid.patch(anchor)) is not None:
        outlined.append(Mark(patch, (grid.rows, grid.cols), second=True))
    main = Panel(
        over(image, colourise(values, own, table), opacity),
        label=f"Block {block}: {name} over the picture",
        note=_count(int(found[block].sum())),
        marks=outlined,
    )
    aspect = image.shape[0] / image.shape[1]
    tiles = [
        Panel(
            colourise(map_, scales[n], colormap),
            label=f"Block {n}",
            note=f"{number(float(map_.min()))} – {number(float(map_.max()))}",
            marks=[_mark(grids[n], *cell) for cell in np.argwhere(found[n]).tolist()] if marks else (),
            aspect=aspect,
            chosen=n == block,
        )
        for n, map_ in maps.items()
    ]
    return picture(summary, [main], tiles, Bar.of(own, table, f"{name}, block {block}"), note)


def _scales(maps: Mapping[int, np.ndarray], kind: str) -> dict[int, Scale]:
    if kind == "block":
        return {n: linear_scale(float(map_.min()), float(map_.max())) for n, map_ in maps.items()}
    low, high = min(float(m.min()) for m in maps.values()), max(float(m.max()) for m in maps.values())
    return dict.fromkeys(maps, log_scale(low, high) if kind == "log" else linear_scale(low, high))


def _mark(grid: TokenGrid, row: int, col: int) -> Mark:
    return Mark((row, col), (grid.rows, grid.cols), thin=True)


def _count(outliers: int) -> str:
    return f"{outliers} outlier{'s' * (outliers != 1)}"
