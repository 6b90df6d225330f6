"""Figures of maps that cover an image: depth maps, and two or more maps in comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, SupportsFloat, SupportsIndex

import matplotlib
import numpy as np
import xarray
from jaxtyping import Float, UInt8
from torch import Tensor

from ..depth import fit
from ..errors import InvalidValueError
from ..scalars import real, whole
from .labels import SIGNED, set_title, wrapped
from .sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

RGB = UInt8[np.ndarray, "height width 3"]
# Must have the size of the image. Its axes have other names, so that the functions raise the error, not jaxtyping.
Map = Float[np.ndarray, "rows cols"]

ONE_RANGE = "one range for all maps"


def depth(
    image: RGB,
    maps: Map | Mapping[str, Map],
    cmap: str = "inferno",
    *,
    shared: bool = False,
    unit: str | None = None,
) -> Sheet:
    """Draws an image beside its depth map, or beside several.

    Pixels that are NaN, infinite or masked stay blank; the title counts them.

    Args:
        image: RGB image, (H, W, 3) uint8.
        maps: A map (H, W), or several by title.
        cmap: A matplotlib colormap.
        shared: All maps share one range and one colour bar, e.g. maps of one model at several sizes. Default: each map
            covers its own range. To see how two maps differ, use `compare`.
        unit: What the numbers are, for the colour bars. Default: "inverse depth" for a single map, else nothing.

    Returns:
        The figure.

    Raises:
        InvalidValueError: A map does not have the size of the image, or has no finite value.

    Example:
        plot.depth(image, {"140 px": small, "518 px": large}, shared=True)
    """
    named = maps if isinstance(maps, Mapping) else {"inverse depth" if unit is None else unit: maps}
    if unit is None and not isinstance(maps, Mapping):
        unit = "larger is nearer"
    sheet, axes = _panels(image, named)
    drawn = [panel.imshow(values, cmap=cmap) for panel, values in zip(axes, named.values(), strict=True)]
    if shared and len(named) > 1:
        _share_range(sheet, axes, drawn, list(named.values()), ", ".join(filter(None, (unit, ONE_RANGE))))
    else:
        for panel, shown in zip(axes, drawn, strict=True):
            _add_bar(sheet, shown, [panel], unit or "own range")
    return sheet


def titled_depth(
    values: Map,
    title: str,
    cmap: str = "inferno",
    *,
    metric: bool = False,
    span: tuple[float, float] | None = None,
) -> Sheet:
    """Draws one depth map with a title and a colour bar. Near is the upper end of the colormap.

    Args:
        values: The map, (H, W).
        title: E.g. the names of the model and the image.
        cmap: A matplotlib colormap.
        metric: The map is in metres, so small values are near. Default: inverse depth.
        span: Depths at the two ends of the colours. Default: the range of the map.

    Returns:
        The figure.

    Raises:
        InvalidValueError: The map has no finite value.
    """
    height, width = values.shape
    wide = 6.0 if width >= height else 6.0 * width / height
    wide = max(wide, 3.0)
    words = wrapped(_title(title, values), wide, 9.0)
    tall = wide * height / width + 0.3 + 0.17 * (words.count("\n") + 1)
    sheet = Sheet(figsize=(wide + 0.9, tall), layout="constrained")
    axes = sheet.subplots()
    low, high = (None, None) if span is None else span
    shown = axes.imshow(values, cmap=matplotlib.colormaps[cmap].reversed() if metric else cmap, vmin=low, vmax=high)
    axes.set_title(words, fontsize=9)
    axes.set_axis_off()
    _add_bar(sheet, shown, [axes], "metres" if metric else "inverse depth, larger is nearer")
    return sheet


def compare(
    image: RGB,
    maps: Mapping[str, Map],
    cmap: str = "inferno",
    *,
    fitted: bool = True,
    unit: str = "inverse depth",
) -> Sheet:
    """Draws two depth maps of one image and their difference, e.g. truth and prediction, or two input sizes.

    Both maps share one range. Colours of the difference are white at zero, red where the second map is larger, and
    blue where it is smaller.

    Args:
        image: RGB image, (H, W, 3) uint8.
        maps: Two maps (H, W) by title.
        cmap: A matplotlib colormap.
        fitted: Fit the second map to the first before the comparison. Relative inverse depth has no absolute scale and
            offset, so maps of two models need it. Use False for maps of one model, and for metres.
        unit: What the numbers are, for the colour bars.

    Returns:
        The figure. With a fit, the title of the difference has its R².

    Raises:
        InvalidValueError: There are not two maps, or one does not have the size of the image or contains NaN or
            infinity.

    Example:
        plot.compare(image, {"true": truth, "predicted": model.predict(image)})
    """
    if len(maps) != 2:
        raise InvalidValueError(f"expected two maps, got {len(maps)}. plot.depth draws any number")
    (first, values), (second, others) = maps.items()
    for name, map_ in maps.items():
        if not np.isfinite(map_).all():
            raise InvalidValueError(
                f"cannot compare: {name} contains NaN or infinity. plot.depth leaves such pixels blank"
            )
    _check_sizes(image, maps)
    title = "difference"
    if fitted:
        others, r2 = fit(others, values)
        title += f", R² {r2:.3f}"
    difference = others - values
    sheet, axes = _panels(image, {first: values, second: others, title: difference})
    drawn = [panel.imshow(map_, cmap=cmap) for panel, map_ in zip(axes, (values, others), strict=False)]
    _share_range(sheet, axes[:2], drawn, [values, others], f"{unit}, one range for both maps")
    top = float(np.abs(difference).max()) or 1.0
    shown = axes[2].imshow(difference, cmap=SIGNED, vmin=-top, vmax=top)
    _add_bar(sheet, shown, axes[2:], f"{second}{' (fitted)' if fitted else ''} minus {first}")
    return sheet


def maps(
    named: Mapping[str, Map | Float[Tensor, "rows cols"] | xarray.DataArray],
    cmap: str | None = None,
    *,
    signed: bool = False,
    unit: str | None = None,
    columns: SupportsIndex = 4,
    width: SupportsFloat = 3.0,
) -> Sheet:
    """Draws maps of any size side by side on one range, with one colour bar.

    Args:
        named: Maps (rows, cols) by title.
        cmap: A matplotlib colormap. Default: viridis; for signed maps, white at zero, red above and blue below.
        signed: The values have a sign: zero lies in the middle of the colours.
        unit: What the numbers are, for the colour bar.
        columns: Maps per row.
        width: Width of one map in inches.

    Returns:
        The figure.

    Raises:
        InvalidValueError: There is no map, or one has no finite value.
    """
    if not named:
        raise InvalidValueError("no maps to draw. Pass maps by title")
    arrays = {name: np.asarray(values) for name, values in named.items()}
    columns, width = min(whole(columns, "columns", least=1), len(arrays)), real(width, "width", above=0)
    lines = -(-len(arrays) // columns)
    tall = max(map_.shape[0] / map_.shape[1] for map_ in arrays.values())
    sheet = Sheet(figsize=(width * columns + 0.6, (width * tall + 0.4) * lines), layout="constrained")
    axes = list(np.ravel(sheet.subplots(lines, columns)))
    colours = cmap or (SIGNED if signed else "viridis")
    drawn = []
    for panel, (name, map_) in zip(axes, arrays.items(), strict=False):
        drawn.append(panel.imshow(map_, cmap=colours, interpolation="nearest"))
        set_title(panel, _title(name, map_), width)
    for panel in axes:
        panel.set_axis_off()
    label = ONE_RANGE if len(arrays) > 1 else ""
    _share_range(sheet, axes, drawn, list(arrays.values()), ", ".join(filter(None, (unit, label))), signed)
    return sheet


def _panels(image: RGB, named: Mapping[str, Map]) -> tuple[Sheet, list[Axes]]:
    """A sheet with the image, and axes for the maps on its right."""
    _check_sizes(image, named)
    height, width = image.shape[:2]
    panel = 4.2 if len(named) == 1 else 3.4
    titles = [wrapped(title, panel * 0.85, 11.0) for title in ("image", *map(_title, named, named.values()))]
    tall = panel * height / width + 0.2 + 0.2 * max(title.count("\n") + 1 for title in titles)
    sheet = Sheet(figsize=(panel * (1 + len(named)), tall), layout="constrained")
    shown, *axes = sheet.subplots(1, 1 + len(named))
    shown.imshow(image)
    for each, title in zip((shown, *axes), titles, strict=True):
        each.set_title(title, fontsize=11)
        each.set_axis_off()
    return sheet, axes


def _check_sizes(image: RGB, named: Mapping[str, Map]) -> None:
    for name, values in named.items():
        if values.shape != image.shape[:2]:
            raise InvalidValueError(f"{name} must have the size of the image, {image.shape[:2]}, got {values.shape}")


def _title(name: str, values: np.ndarray) -> str:
    """The name of a map, and how many of its pixels stay blank."""
    finite = np.ma.filled(np.isfinite(values), False)
    if not finite.any():
        raise InvalidValueError(f"{name} has no finite value: all pixels are NaN, infinite or masked")
    missing = finite.size - np.count_nonzero(finite)
    return name + (f"\n{missing:,} of {finite.size:,} pixels not finite" if missing else "")


def _share_range(
    sheet: Sheet, axes: list[Axes], drawn: list[AxesImage], values: list[np.ndarray], label: str, signed: bool = False
) -> None:
    """Gives images one range, and one colour bar that says so."""
    finite = [map_[np.ma.filled(np.isfinite(map_), False)] for map_ in values]
    low, high = min(float(of.min()) for of in finite), max(float(of.max()) for of in finite)
    if signed:
        high = max(abs(low), abs(high)) or 1.0
        low = -high
    for shown in drawn:
        shown.set_clim(low, high)
    _add_bar(sheet, drawn[0], axes, label)


def _add_bar(sheet: Sheet, shown: AxesImage, axes: list[Axes], label: str) -> None:
    bar = sheet.colorbar(shown, ax=axes, fraction=0.046 / len(axes), pad=0.02, aspect=20)
    bar.ax.tick_params(labelsize=8)
    bar.set_label(wrapped(label, float(sheet.get_figheight()) * 0.75, 8.0), fontsize=8)
