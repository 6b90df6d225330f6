"""Figures for notebooks and papers: depth maps, attention maps on the image, token norms, rotatable scenes.

Every function returns a figure and shows nothing by itself. A notebook displays the last value of a cell; a script
calls `figure.savefig`. The module does not use pyplot, so it has no global state, needs no display and keeps no figure
alive. `relief` and `cloud` are plotly figures, defined in `scenes`.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, SupportsFloat, SupportsIndex

import numpy as np
import xarray
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from dpt import DPT, TokenGrid

from .. import tokens
from ..capture import capture
from ..captured import Capture
from ..depth import fit
from ..errors import InvalidValueError
from ..scalars import real, whole
from . import tiles
from .scenes import RELIEF_POINTS, VIEWS, cloud, relief

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
    "norms",
    "norms_across",
    "pictures",
    "relief",
]

RGB = UInt8[np.ndarray, "height width 3"]
# Must have the size of the image. Its axes have other names, so that the functions raise the error, not jaxtyping.
Map = Float[np.ndarray, "rows cols"]

TILE = 1.7  # inches


class Sheet(Figure):
    """A matplotlib figure that notebooks display without pyplot."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=100)
        return file.getvalue()


def depth(image: RGB, maps: Map | Mapping[str, Map], cmap: str = "inferno") -> Sheet:
    """Draws an image beside its depth map, or beside several. Each map covers its own range.

    Pixels that are NaN, infinite or masked stay blank; the title counts them.

    Args:
        image: RGB image, (H, W, 3) uint8.
        maps: A map (H, W), or several by title.
        cmap: A matplotlib colormap.

    Returns:
        The figure.

    Raises:
        InvalidValueError: A map does not have the size of the image, or has no finite value.

    Example:
        plot.depth(image, {"demo": model.predict(image), "true": truth})
    """
    named = maps if isinstance(maps, Mapping) else {"inverse depth": maps}
    for name, values in named.items():
        if values.shape != image.shape[:2]:
            raise InvalidValueError(f"{name} must have the size of the image, {image.shape[:2]}, got {values.shape}")
    height, width = image.shape[:2]
    panel = 4.2 if len(named) == 1 else 3.4
    sheet = Sheet(figsize=(panel * (1 + len(named)), panel * height / width + 0.4), layout="constrained")
    axes = sheet.subplots(1, 1 + len(named))
    axes[0].imshow(image)
    axes[0].set_title("image")
    for panel_axes, (name, values) in zip(axes[1:], named.items(), strict=True):
        drawn = panel_axes.imshow(values, cmap=cmap)
        panel_axes.set_title(name + _blank(name, values))
        sheet.colorbar(drawn, ax=panel_axes, fraction=0.046, pad=0.02)
    for panel_axes in axes:
        panel_axes.set_axis_off()
    return sheet


def _blank(name: str, values: Map) -> str:
    """Words for the title about pixels without a value, which stay blank."""
    finite = np.ma.filled(np.isfinite(values), False)
    if not finite.any():
        raise InvalidValueError(f"{name} has no finite value: all pixels are NaN, infinite or masked")
    missing = finite.size - np.count_nonzero(finite)
    return f"\n{missing:,} of {finite.size:,} pixels not finite" if missing else ""


def compare(image: RGB, maps: Mapping[str, Map], cmap: str = "inferno") -> Sheet:
    """Draws two inverse-depth maps of one image and their difference, e.g. of two models or two input sizes.

    Relative inverse depth has no absolute scale and offset, so the second map is first fitted to the first. Both are
    drawn on one scale. The difference is red where the second map is nearer. Maps in metres need no fit; use `depth`.

    Args:
        image: RGB image, (H, W, 3) uint8.
        maps: Two maps (H, W) by title.
        cmap: A matplotlib colormap.

    Returns:
        The figure. The title of the difference has the R² of the fit.

    Raises:
        InvalidValueError: There are not two maps, or one does not have the size of the image or contains NaN or
            infinity.
    """
    if len(maps) != 2:
        raise InvalidValueError(f"expected two maps, got {len(maps)}. plot.depth draws any number")
    (first, values), (second, others) = maps.items()
    for name, map_ in maps.items():
        if not np.isfinite(map_).all():
            raise InvalidValueError(f"cannot fit: {name} contains NaN or infinity. plot.depth leaves such pixels blank")
    fitted, r2 = fit(others, values)
    sheet = depth(image, {first: values, second: fitted, f"difference, R² {r2:.3f}": fitted - values}, cmap)
    drawn = [axes.images[0] for axes in sheet.axes[:4]]
    low, high = (float(of(values)) for of in (np.min, np.max))
    for shown in drawn[1:3]:
        shown.set_clim(low, high)
    top = float(np.abs(fitted - values).max()) or 1.0
    drawn[3].set(cmap="RdBu_r", clim=(-top, top))
    return sheet


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
    maps: Float[Tensor, "channels h w"], count: SupportsIndex = 16, cmap: str = "viridis", columns: SupportsIndex = 8
) -> Sheet:
    """Draws the channels of a tensor that vary most over the image. Each covers its own range.

    Args:
        maps: (channels, h, w).
        count: Number of channels.
        cmap: A matplotlib colormap.
        columns: Panels per row.

    Returns:
        The figure. The titles are channel numbers.
    """
    chosen = tiles.liveliest(maps, count)
    return pictures({f"{n}": tiles.coloured(maps[n], cmap) for n in chosen}, columns, TILE * 0.8)


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
        axes.set_title(name, fontsize=9)
    for axes in sheet.axes:
        axes.set_axis_off()
    return sheet


def attention(image: RGB, maps: xarray.DataArray, cmap: str = "viridis", columns: SupportsIndex = 4) -> Sheet:
    """Draws the attention of one patch: one panel per head and their mean, beside the image with the patch outlined.

    Heads differ by orders of magnitude, so each panel covers 0 to its own largest weight, which its title gives.

    Args:
        image: RGB image, (H, W, 3) uint8.
        maps: The result of `AttentionMaps.map`, (heads, rows, cols).
        cmap: A matplotlib colormap.
        columns: Panels per row.

    Returns:
        The figure.

    Example:
        plot.attention(image, cap["encoder.blocks.7.attention"].map(patch=(12, 20)))
    """
    heads = len(maps)
    panels = [(f"head {h}", np.asarray(maps[h])) for h in range(heads)] + [("mean", np.asarray(maps.mean("head")))]
    columns = whole(columns, "columns", least=1)
    lines = -(-len(panels) // columns)
    height, width = image.shape[:2]
    side = TILE * height / width
    sheet = Sheet(figsize=(TILE * (columns + 2), max(lines * (side + 0.3), 2 * side) + 0.4), layout="constrained")
    grid = sheet.add_gridspec(lines, columns + 2)
    axes = sheet.add_subplot(grid[:, :2])
    axes.imshow(image)
    _outline(axes, maps, (height, width))
    words = "what this patch looks at" if maps.attrs.get("direction") == "row" else "who looks at this patch"
    axes.set_title(words, fontsize=9)
    axes.set_axis_off()
    for n, (name, tile) in enumerate(panels):
        axes = sheet.add_subplot(grid[n // columns, 2 + n % columns])
        axes.imshow(tile, cmap=cmap, vmin=0, extent=(0, width, height, 0), interpolation="nearest")
        axes.set_title(f"{name}, max {tile.max():.3f}", fontsize=7, pad=3)
        axes.set_axis_off()
    return sheet


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
        figsize=(TILE * (columns + 2), max(lines * (side + 0.42), 2 * side + 1.6) + 0.4), layout="constrained"
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
        axes.imshow(map_, cmap=cmap, vmin=limits[0], vmax=limits[1], extent=extent, interpolation="nearest")
        for row, col in np.argwhere(found[block].values):
            _frame(axes, (int(row), int(col)), map_.shape, (height, width), width_of_line=0.7)
        beside = f", cls {float(map_.class_token):.3g}" if "class_token" in map_.coords else ""
        axes.set_title(f"block {block}\n{low:.3g} to {high:.3g}{beside}", fontsize=7, pad=3)
        axes.set_axis_off()
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
    left.set_title("image", fontsize=9)
    right.imshow(colours, extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="nearest")
    shares = ", ".join(f"{100 * float(share):.0f} %" for share in maps.explained.values[:3])
    right.set_title(f"block {maps.attrs['block']}: components with {shares} of the variance", fontsize=9)
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
    left.set(xlabel="block", title="median norm of a patch", xticks=blocks)
    table = np.array([[found.get(block, np.nan) for block in blocks] for found in shares])
    drawn = right.imshow(table, cmap=cmap, vmin=0, aspect="auto", interpolation="nearest")
    shown = range(len(names)) if len(names) <= NAMED else []
    right.set(xlabel="block", title=f"patches above the median + {k:g} MAD, %", xticks=blocks, yticks=shown)
    right.set_yticklabels([names[n] for n in shown])
    sheet.colorbar(drawn, ax=right, fraction=0.046, pad=0.02)
    for axes in (left, right):
        axes.tick_params(labelsize=7)
        axes.title.set_fontsize(9)
    return sheet


def _counts(axes: Axes, counts: Mapping[int, int], k: float) -> None:
    bars = axes.bar([str(block) for block in counts], list(counts.values()), color="crimson", width=0.7)
    axes.bar_label(bars, fontsize=6, padding=1)
    axes.set_title(f"patches above the median + {k:g} MAD, by block", fontsize=8)
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
