"""Depth and attention as pictures, for the command line: no browser, no display, no pyplot.

A depth map becomes a coloured picture or 16-bit grey; an attention capture becomes one sheet with a row of heads for
each chosen block. Files are written whole or not at all: into a temporary file beside the target, then renamed.

Limits: colours and grey levels span the map's own range, so two pictures cannot be compared by colour. The grey file
carries its range as text and can be turned back into numbers to within 1/65535 of it; the exact ones are in the .npy.
"""

from __future__ import annotations

import difflib
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, UInt8, UInt16
from PIL import Image, PngImagePlugin

from .attention import AttentionMaps

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .capture import Capture

TILE = 1.9  # inches a head's tile is wide on the sheet


def check_colormap(name: str) -> None:
    """ValueError with close matches unless matplotlib has a colormap of that name."""
    import matplotlib

    if name not in matplotlib.colormaps:
        close = difflib.get_close_matches(name, list(matplotlib.colormaps), n=3) or ["inferno", "viridis", "gray"]
        raise ValueError(f"no colormap is called {name!r}; there are for instance {', '.join(close)}")


def colour_depth(
    depth: Float32[np.ndarray, "height width"], colormap: str = "inferno", metric: bool = False
) -> UInt8[np.ndarray, "height width 3"]:
    """The map in colour, spanning its own range; near is the bright end of the usual colormaps.

    metric: the map is in metres, so that small values are near.
    """
    import matplotlib

    check_colormap(colormap)
    unit, _, _ = _unit_range(depth)
    coloured = matplotlib.colormaps[colormap](1 - unit if metric else unit, bytes=True)
    return np.ascontiguousarray(coloured[..., :3])


def grey_depth(depth: Float32[np.ndarray, "height width"]) -> tuple[UInt16[np.ndarray, "height width"], float, float]:
    """(grey, low, high): 16-bit levels, with depth = low + grey / 65535 * (high - low)."""
    unit, low, high = _unit_range(depth)
    return np.round(unit * 65535).astype(np.uint16), low, high


def _unit_range(depth: Float32[np.ndarray, "height width"]) -> tuple[np.ndarray, float, float]:
    # float64: the difference of two float32 numbers may need more digits than they have
    wide = depth.astype(np.float64)
    low, high = float(wide.min()), float(wide.max())
    if not np.isfinite(high - low):
        raise ValueError("the depth map holds NaN or infinity; there is nothing to draw")
    return (wide - low) / (high - low if high > low else 1.0), low, high


def grey_png(depth: Float32[np.ndarray, "height width"], metric: bool = False) -> Callable[[IO[bytes]], None]:
    """A writer of 16-bit grey PNG whose text chunks depth_min, depth_max and depth_unit give the scale."""
    grey, low, high = grey_depth(depth)
    text = PngImagePlugin.PngInfo()
    text.add_text("depth_min", repr(low))
    text.add_text("depth_max", repr(high))
    text.add_text("depth_unit", "metre" if metric else "relative inverse depth")
    return lambda file: Image.fromarray(grey).save(file, format="PNG", pnginfo=text)


def attention_sheet(
    image: UInt8[np.ndarray, "height width 3"], captured: Capture, blocks: Sequence[int], patch: tuple[int, int]
) -> Figure:
    """The picture with one patch outlined, and what that patch attends to: a row a block, heads and their mean across.

    captured: a capture of this picture that holds "encoder.blocks.{i}.attention" for every block asked for. Tiles are
    scaled one by one, as heads differ by orders of magnitude; the number above each is the weight at its brightest.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    points = [captured[f"encoder.blocks.{block}.attention"] for block in blocks]
    rows = [maps.map(patch=patch, direction="row") for maps in points if isinstance(maps, AttentionMaps)]
    tiles = [np.concatenate([np.asarray(row), np.asarray(row).mean(0, keepdims=True)]) for row in rows]
    heads, grid_rows, grid_cols = rows[0].shape
    height, width = image.shape[:2]

    side = TILE * height / width
    lead = 2 * TILE  # the picture, at twice a tile's size
    figure = Figure(figsize=(lead + TILE * (heads + 1) + 0.6, max(len(blocks) * (side + 0.32), 2 * side) + 0.5))
    grid = figure.add_gridspec(len(blocks), heads + 3, width_ratios=[2.0, *[1.0] * (heads + 1), 0.02])
    axes = figure.add_subplot(grid[:, 0])
    axes.imshow(image)
    cell = (width / grid_cols, height / grid_rows)
    corner = (patch[1] * cell[0] - 0.5, patch[0] * cell[1] - 0.5)
    axes.add_patch(Rectangle(corner, *cell, fill=False, edgecolor="white", linewidth=3))
    axes.add_patch(Rectangle(corner, *cell, fill=False, edgecolor="crimson", linewidth=1.5))
    axes.set_title(f"What patch ({patch[0]}, {patch[1]}) looks at", fontsize=10)
    axes.axis("off")
    for r, (block, maps) in enumerate(zip(blocks, tiles, strict=True)):
        for c, tile in enumerate(maps):
            axes = figure.add_subplot(grid[r, c + 1])
            # Tiles cover the picture, so the patch grid is stretched over it as the picture is.
            axes.imshow(tile, cmap="viridis", vmin=0, extent=(0, width, height, 0), interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            name = "mean" if c == heads else f"head {c}"
            axes.set_title(f"{name}  max {tile.max():.3f}", fontsize=7, pad=2)
            if c == 0:
                axes.set_ylabel(f"block {block}", fontsize=9)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.93, bottom=0.02, wspace=0.08, hspace=0.18)
    return figure


def png(image: UInt8[np.ndarray, "height width 3"]) -> Callable[[IO[bytes]], None]:
    return lambda file: Image.fromarray(image).save(file, format="PNG")


def npy(depth: Float32[np.ndarray, "height width"]) -> Callable[[IO[bytes]], None]:
    return lambda file: np.save(file, depth)


def figure_png(figure: Figure, dpi: int = 130) -> Callable[[IO[bytes]], None]:
    return lambda file: figure.savefig(file, format="png", dpi=dpi)


def write(path: Path, writer: Callable[[IO[bytes]], None]) -> None:
    """Write a file so that nobody ever sees half of it, replacing one that is there."""
    content = io.BytesIO()  # encoders seek, and one that fails should not leave a file
    writer(content)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # the same folder: a rename must not cross disks
    try:
        temporary.write_bytes(content.getbuffer())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
