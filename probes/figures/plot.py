"""Figures for notebooks and papers: depth maps, attention maps on the image, token norms, rotatable scenes.

Every function returns a figure and shows nothing by itself. A notebook displays the last value of a cell, in the
colours of its theme (`sheet`); a script calls `figure.savefig`. The module does not use pyplot, so it has no global
state, needs no display and keeps no figure alive. `relief` and `cloud` are plotly figures, defined in `scenes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, SupportsFloat, SupportsIndex

import numpy as np
import xarray
from jaxtyping import Float, UInt8
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from dpt import DPT, TokenGrid

from .. import tokens
from ..capture import capture
from ..captured import Capture
from ..errors import InvalidValueError
from ..scalars import real, whole
from . import tiles
from .labels import SIGNED, add_bar, percent, set_title
from .map_plots import compare, depth, maps, titled_depth
from .scenes import RELIEF_POINTS, VIEWS, cloud, relief
from .sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "RELIEF_POINTS",
    "VIEWS",
    "Sheet",
    "attention",
    "channels",
    "cloud",
    "compare",
    "components",
    "depth",
    "dicing",
    "maps",
    "norms",
    "norms_across",
    "pictures",
    "relief",
    "titled_depth",
]


def __dir__() -> list[str]:  # completion offers public names only
    return sorted(__all__)


RGB = UInt8[np.ndarray, "height width 3"]
TILE = 1.7  # inches


def dicing(image: RGB, patch: SupportsIndex) -> Sheet:
    """Draws an image and the same image cut into its patches.

    Args:
        image: RGB image, (H, W, 3) uint8. Its sides are multiples of `patch`.
        patch: Side of a patch in pixels.

    Returns:
        The figure.
    """
    diced = tiles.dice(image, patch)
    return pictures({"input": image, f"{image.shape[0] // patch} x {image.shape[1] // patch} patches": diced})


def channels(
    maps: Float[Tensor, "channels h w"],
    count: SupportsIndex = 16,
    cmap: str | None = None,
    columns: SupportsIndex = 8,
    *,
    signed: bool = False,
) -> Sheet:
    """Draws the channels of a tensor that vary most over the image. Each covers its own range.

    Args:
        maps: (channels, h, w).
        count: Number of channels.
        cmap: A matplotlib colormap. Default: viridis; for signed channels, white at zero, red above and blue below.
        columns: Panels per row.
        signed: Each range is symmetric about zero.

    Returns:
        The figure. The titles are channel numbers.
    """
    chosen = tiles.liveliest(maps, count)
    colours = cmap or (SIGNED if signed else "viridis")
    sheet = pictures({f"{n}": tiles.coloured(maps[n], colours, zero=signed) for n in chosen}, columns, TILE * 0.8)
    span = "−max to max" if signed else "min to max"
    sheet.suptitle(f"channels that vary most, each from its own {span}", fontsize=9)
    return sheet


def pictures(
    named: Mapping[str, UInt8[np.ndarray, "_ _ _"]], columns: SupportsIndex = 4, width: SupportsFloat = 3.4
) -> Sheet:
    """Draws images with titles. Small images keep square pixels.

    Args:
        named: RGB or RGBA images (height, width, 3 or 4) by title.
        columns: Images per row.
        width: Width of one image in inches.

    Returns:
        The figure.
    """
    columns, width = min(whole(columns, "columns", least=1), len(named)), real(width, "width", above=0)
    lines = -(-len(named) // columns)
    tall = max(p.shape[0] / p.shape[1] for p in named.values())
    sheet = Sheet(figsize=(width * columns, (width * tall + 0.3) * lines), layout="constrained")
    for axes, (name, image) in zip(np.ravel(sheet.subplots(lines, columns)), named.items(), strict=False):
        axes.imshow(image, interpolation="nearest" if image.shape[1] < 200 else "antialiased")
        set_title(axes, name, width)
    for axes in sheet.axes:
        axes.set_axis_off()
    return sheet


def attention(
    image: RGB,
    maps: xarray.DataArray,
    cmap: str | None = None,
    columns: SupportsIndex = 4,
    *,
    shared: bool = False,
) -> Sheet:
    """Draws the attention of one patch: one panel per head and their mean, beside the image with the patch outlined.

    Heads differ by orders of magnitude, so by default each panel covers 0 to its own largest weight, which its title
    gives in percent. The difference of two maps is drawn with zero in the middle: red where the first is larger.

    Args:
        image: RGB image, (H, W, 3) uint8.
        maps: The result of `AttentionMaps.map`, (heads, rows, cols), or the difference of two.
        cmap: A matplotlib colormap. Default: viridis; for differences, white at zero, red above and blue below.
        columns: Panels per row.
        shared: All panels cover one range.

    Returns:
        The figure. Titles name the block, the patch and the heads.

    Example:
        plot.attention(image, cap["encoder.blocks.7.attention"].map(patch=(12, 20)))
    """
    heads = len(maps)
    panels = [(f"head {h}", np.asarray(maps[h])) for h in range(heads)] + [("mean", np.asarray(maps.mean("head")))]
    columns = whole(columns, "columns", least=1)
    lines = -(-len(panels) // columns)
    height, width = image.shape[:2]
    side = TILE * height / width
    signed = float(maps.min()) < 0  # weights are not negative
    cmap = cmap or (SIGNED if signed else "viridis")
    sheet = Sheet(figsize=(TILE * (columns + 2), max(lines * (side + 0.3), 2 * side + 0.7) + 0.4), layout="constrained")
    grid = sheet.add_gridspec(lines, columns + 2)
    left = sheet.add_subplot(grid[:, :2])
    left.imshow(image)
    _outline(left, maps, (height, width))
    set_title(left, _attention_title(maps, signed), 2 * TILE)
    left.set_axis_off()
    tops = [float(np.abs(tile).max()) for _, tile in panels]
    for n, ((name, tile), top) in enumerate(zip(panels, tops, strict=True)):
        axes = sheet.add_subplot(grid[n // columns, 2 + n % columns])
        high = (max(tops) if shared else top) or 1.0
        low = -high if signed else 0.0
        extent = (0, width, height, 0)
        drawn = axes.imshow(tile, cmap=cmap, vmin=low, vmax=high, extent=extent, interpolation="nearest")
        axes.set_title(f"{name}, {'±' if signed else 'max '}{percent(top)}", fontsize=7, pad=3)
        axes.set_axis_off()
    what = "difference of attention weights" if signed else "attention weight"
    if shared:
        add_bar(left, drawn, f"{what}, one range for all panels", 2 * TILE, shares=True)
    else:
        ends = ("−max", "0", "max") if signed else ("0", "max")
        add_bar(left, drawn, f"{what} in % of a row, each panel to its own max", 2 * TILE, ends)
    return sheet


def _attention_title(maps: xarray.DataArray, signed: bool) -> str:
    """Block, patch and direction, as far as the attributes of the maps tell them."""
    point = str(maps.attrs.get("point", ""))
    parts = point.split(".")
    block = f"block {parts[2]}" if parts[:2] == ["encoder", "blocks"] and parts[3:] == ["attention"] else point
    token = ""
    if {"token", "prefix"} <= maps.attrs.keys():
        rows, cols = maps.shape[1:]
        of = TokenGrid(rows, cols, maps.attrs["prefix"]).patch(maps.attrs["token"])
        names = ["class token", *(f"register {n}" for n in range(1, maps.attrs["prefix"]))]
        token = names[maps.attrs["token"]] if of is None else f"patch ({of[0]}, {of[1]})"
    words = {"row": "what it looks at", "column": "who looks at it"}.get(str(maps.attrs.get("direction")), "")
    found = [part for part in (block, token) if part]
    if signed:
        found.append("difference")
    return ", ".join(found) + (f": {words}" if words and found else words) or "attention"


def norms(
    image: RGB,
    source: Capture | Mapping[int, xarray.DataArray] | DPT,
    k: SupportsFloat = tokens.K,
    shared: bool = False,
    cmap: str = "viridis",
    columns: SupportsIndex = 4,
) -> Sheet:
    """Draws the token norms of every block with outlined outliers, beside the image and the outlier counts.

    The title of each panel gives the smallest and the largest patch norm, and the norm of the class token.

    Args:
        image: RGB image, (H, W, 3) uint8.
        source: A capture of "norms" (its first image is drawn), the result of `tokens.norms`, or a model, which is
            then run on the image.
        k: Threshold for outliers, in median absolute deviations above the median; see `tokens.outliers`.
        shared: Use one colour range for all blocks. Default: one range per block.
        cmap: A matplotlib colormap.
        columns: Panels per row.

    Returns:
        The figure.

    Raises:
        InvalidValueError: `source` has no norms.
    """
    if isinstance(source, DPT):
        with capture(source, "norms") as source_capture:
            source.predict(image)
        source = source_capture
    maps = tokens.norms(source) if isinstance(source, Capture) else dict(source)
    if not maps:
        raise InvalidValueError('no norms to draw. Capture "norms", or pass the result of probes.tokens.norms')
    k, columns = real(k, "k", least=0), whole(columns, "columns", least=1)
    lines = -(-len(maps) // columns)
    height, width = image.shape[:2]
    side = TILE * height / width
    sheet = Sheet(
        figsize=(TILE * (columns + 2), max(lines * (side + 0.42), 2 * side + 2.0) + 0.4), layout="constrained"
    )
    grid = sheet.add_gridspec(lines, columns + 2)
    left = grid[:, :2].subgridspec(2, 1, height_ratios=(2, 1))
    panel = sheet.add_subplot(left[0])
    panel.imshow(image)
    panel.set_axis_off()
    found = {block: tokens.outliers(map_, k) for block, map_ in maps.items()}
    _counts(sheet.add_subplot(left[1]), {block: int(mask.sum()) for block, mask in found.items()}, k)
    span = (min(float(m.min()) for m in maps.values()), max(float(m.max()) for m in maps.values()))
    for n, (block, map_) in enumerate(maps.items()):
        axes = sheet.add_subplot(grid[n // columns, 2 + n % columns])
        low, high = (float(map_.min()), float(map_.max()))
        limits = span if shared else (low, high)
        extent = (-0.5, width - 0.5, height - 0.5, -0.5)  # the extent of the image
        drawn = axes.imshow(map_, cmap=cmap, vmin=limits[0], vmax=limits[1], extent=extent, interpolation="nearest")
        for row, col in np.argwhere(found[block].values):
            _frame(axes, (int(row), int(col)), map_.shape, (height, width), width_of_line=0.7)
        beside = f", cls {float(map_.class_token):.3g}" if "class_token" in map_.coords else ""
        axes.set_title(f"block {block}\n{low:.3g} to {high:.3g}{beside}", fontsize=7, pad=3)
        axes.set_axis_off()
    set_title(panel, f"token norms of {len(maps)} block{'s' * (len(maps) > 1)}", 2 * TILE)
    if shared:
        add_bar(panel, drawn, "L2 norm of a token, one range for all blocks", 2 * TILE)
    else:
        add_bar(panel, drawn, "L2 norm of a token, one range per block", 2 * TILE, ("min", "max"))
    return sheet


def components(image: RGB, maps: xarray.DataArray) -> Sheet:
    """Draws the first three principal components of a block's tokens as red, green and blue, beside the image.

    Each colour covers the 1st to 99th percentile of its component. Two components leave blue at 0; one is drawn grey.

    Args:
        image: RGB image, (H, W, 3) uint8.
        maps: The result of `tokens.pca`.

    Returns:
        The figure.

    Raises:
        InvalidValueError: `maps` is not a result of `tokens.pca`.
    """
    if "explained" not in maps.coords:
        raise InvalidValueError(f"maps must be a result of probes.tokens.pca, got maps by {maps.dims[0]}")
    shown = maps.values[:3]
    low, high = np.percentile(shown, [1, 99], axis=(1, 2))[:, :, None, None]
    unit = ((shown - low) / np.maximum(high - low, 1e-12)).clip(0, 1)
    if len(unit) == 1:
        unit = unit.repeat(3, axis=0)
    colours = np.concatenate([unit, np.zeros((3 - len(unit), *unit.shape[1:]))]).transpose(1, 2, 0)
    height, width = image.shape[:2]
    sheet = Sheet(figsize=(8.4, 4.2 * height / width + 0.4), layout="constrained")
    left, right = sheet.subplots(1, 2)
    left.imshow(image)
    set_title(left, "image", 4.0)
    right.imshow(colours, extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="nearest")
    shares = ", ".join(f"{100 * float(share):.0f} %" for share in maps.explained.values[:3])
    set_title(right, f"block {maps.attrs['block']}: components with {shares} of the variance", 4.0)
    for axes in (left, right):
        axes.set_axis_off()
    return sheet


LEGEND = 12  # images that colours can distinguish
NAMED = 40  # images whose names fit beside the rows


def norms_across(captures: Mapping[str, Capture], k: SupportsFloat = tokens.K, cmap: str = "magma") -> Sheet:
    """Draws token norms of many images by block: the median norm of each image, and the fraction of outliers.

    Args:
        captures: A run, or captures by name, of "norms" or "tokens". The first image of each is drawn. Captures are
            read one after the other, so a run can be longer than memory. Blocks that were not captured stay empty.
        k: Threshold for outliers; see `tokens.outliers`.
        cmap: A matplotlib colormap.

    Returns:
        The figure.

    Raises:
        InvalidValueError: `captures` is empty.
        ProbeError: A capture has no norms.

    Example:
        plot.norms_across(probes.open_run("run/"))
    """
    if not captures:
        raise InvalidValueError("no images to draw. Pass captures by name, or probes.open_run(...)")
    names, medians, shares = list(captures), [], []
    for name in names:
        maps = tokens.norms(captures[name])
        medians.append({block: float(map_.median()) for block, map_ in maps.items()})
        shares.append({block: 100 * float(tokens.outliers(map_, k).mean()) for block, map_ in maps.items()})
    blocks = range(max(max(found) for found in medians) + 1)
    sheet = Sheet(figsize=(11, max(3.2, 1.2 + 0.22 * min(len(names), NAMED))), layout="constrained")
    left, right = sheet.subplots(1, 2)
    for name, found in zip(names, medians, strict=True):
        left.plot(list(found), list(found.values()), marker=".", label=name, alpha=0.8 if len(names) <= LEGEND else 0.2)
    if len(names) <= LEGEND:
        left.legend(fontsize=7)
    left.set(xlabel="block", ylabel="L2 norm", title="median norm of a patch")
    table = np.array([[found.get(block, np.nan) for block in blocks] for found in shares])
    drawn = right.imshow(table, cmap=cmap, vmin=0, aspect="auto", interpolation="nearest")
    shown = range(len(names)) if len(names) <= NAMED else []
    right.set(xlabel="block", title=f"patches above the median + {k:g} MAD, %", yticks=shown)
    right.set_yticklabels([names[n] for n in shown])
    sheet.colorbar(drawn, ax=right, fraction=0.046, pad=0.02).set_label("% of the patches", fontsize=7)
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(16, integer=True))
        axes.tick_params(labelsize=7)
        axes.title.set_fontsize(9)
    return sheet


def _counts(axes: Axes, counts: Mapping[int, int], k: float) -> None:
    bars = axes.bar([str(block) for block in counts], list(counts.values()), color="crimson", width=0.7)
    axes.bar_label(bars, fontsize=6 if len(counts) <= 24 else 4, padding=1)
    set_title(axes, f"patches above the median + {k:g} MAD, by block", 2 * TILE, size=8.0)
    axes.set_xticks(range(0, len(counts), 1 + len(counts) // 25))  # more labels than 25 collide
    axes.tick_params(labelsize=6)
    axes.set_yticks([])
    axes.margins(y=0.15)
    axes.spines[["top", "left", "right"]].set_visible(False)


def _outline(axes: Axes, maps: xarray.DataArray, size: tuple[int, int]) -> None:
    """Outlines the patch of a map in white and red. A class token or register has no patch."""
    if not {"token", "prefix"} <= maps.attrs.keys():
        return  # arithmetic on a DataArray drops its attributes
    rows, cols = maps.shape[1:]
    patch = TokenGrid(rows, cols, maps.attrs["prefix"]).patch(maps.attrs["token"])
    if patch is None:
        return
    for colour, line in (("white", 3.0), ("crimson", 1.5)):
        _frame(axes, patch, (rows, cols), size, line, colour)


def _frame(
    axes: Axes,
    patch: tuple[int, int],
    grid: tuple[int, ...],
    size: tuple[int, int],
    width_of_line: float,
    colour: str = "crimson",
) -> None:
    """Draws a frame around one patch of a grid over an image of size (height, width)."""
    top, left, bottom, right = TokenGrid(grid[0], grid[1]).edges(*patch, size)
    corner = (left - 0.5, top - 0.5)  # matplotlib's pixel 0 spans -0.5 to 0.5
    frame = Rectangle(corner, right - left, bottom - top, fill=False, edgecolor=colour, linewidth=width_of_line)
    axes.add_patch(frame)
