"""Figures for notebooks and papers: depth maps, a relief to turn around, attention maps on the picture.

Every function returns a figure and draws nothing by itself: a notebook shows the last value of a cell, a script calls
`figure.savefig`. No pyplot, so no global state, no display, and no figure kept alive.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

if TYPE_CHECKING:
    import plotly.graph_objects

Picture = UInt8[np.ndarray, "height width 3"]
Map = Float[np.ndarray, "rows cols"]  # of the picture's size, which is checked with a message of its own

RELIEF_POINTS = 40_000  # vertices a browser turns smoothly
TILE = 1.7  # inches


class Sheet(Figure):
    """A matplotlib figure that a notebook shows without pyplot having been imported."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=100)
        return file.getvalue()


def depth(image: Picture, maps: Map | Mapping[str, Map], cmap: str = "inferno") -> Sheet:
    """A picture beside its depth map, or beside several under their names; each map spans its own range."""
    named = maps if isinstance(maps, Mapping) else {"inverse depth": maps}
    for name, values in named.items():
        if values.shape != image.shape[:2]:
            raise ValueError(f"{name} is {values.shape}, but the picture is {image.shape[:2]}; give maps of its size")
    height, width = image.shape[:2]
    panel = 4.2 if len(named) == 1 else 3.4
    sheet = Sheet(figsize=(panel * (1 + len(named)), panel * height / width + 0.4), layout="constrained")
    axes = sheet.subplots(1, 1 + len(named))
    axes[0].imshow(image)
    axes[0].set_title("picture")
    for panel_axes, (name, values) in zip(axes[1:], named.items(), strict=True):
        drawn = panel_axes.imshow(values, cmap=cmap)
        panel_axes.set_title(name)
        sheet.colorbar(drawn, ax=panel_axes, fraction=0.046, pad=0.02)
    for panel_axes in axes:
        panel_axes.set_axis_off()
    return sheet


def relief(image: Picture, inverse_depth: Map, height: float = 0.5) -> plotly.graph_objects.Figure:
    """The picture as a relief to turn around: near parts stand out towards the viewer.

    Inverse depth is drawn as it is, so the relief shows order and proportion, not metres. height: of the relief, in
    units of the picture's longer side. Large pictures are thinned to what a browser turns smoothly.
    """
    import plotly.graph_objects as go  # takes half a second; only this figure needs it

    if inverse_depth.shape != image.shape[:2]:
        raise ValueError(
            f"the map is {inverse_depth.shape}, but the picture is {image.shape[:2]}; give a map of its size"
        )
    step = max(1, int(np.ceil((inverse_depth.size / RELIEF_POINTS) ** 0.5)))
    z, colours = inverse_depth[::step, ::step].astype(np.float64), image[::step, ::step]
    rows, cols = z.shape
    y, x = np.mgrid[0:rows, 0:cols]
    at = (y * cols + x)[:-1, :-1].ravel()  # the upper left corner of each cell; two triangles fill it
    spread = float(np.ptp(z)) or 1.0
    mesh = go.Mesh3d(
        x=x.ravel(),
        y=-y.ravel(),
        z=(z.ravel() - z.min()) / spread * height * max(rows, cols),
        i=np.concatenate([at, at + 1]),
        j=np.concatenate([at + 1, at + cols + 1]),
        k=np.concatenate([at + cols, at + cols]),
        vertexcolor=colours.reshape(-1, 3),
        lighting={"ambient": 0.9, "diffuse": 0.3, "specular": 0.0},
        hoverinfo="skip",
    )
    figure = go.Figure(mesh)
    hidden = {"visible": False}
    figure.update_layout(
        scene={
            "xaxis": hidden,
            "yaxis": hidden,
            "zaxis": hidden,
            "aspectmode": "data",
            "camera": {"eye": {"x": 0.0, "y": -0.7, "z": 1.6}, "up": {"x": 0, "y": 1, "z": 0}},
        },
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        height=480,
    )
    return figure


def attention(image: Picture, maps: xarray.DataArray, cmap: str = "viridis", columns: int = 4) -> Sheet:
    """What `AttentionMaps.map` returned, a tile a head and their mean, beside the picture with its patch outlined.

    Each tile spans 0 to its own largest weight, which stands above it: heads differ by orders of magnitude.
    """
    heads = len(maps)
    tiles = [(f"head {h}", np.asarray(maps[h])) for h in range(heads)] + [("mean", np.asarray(maps.mean("head")))]
    lines = -(-len(tiles) // columns)
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
    for n, (name, tile) in enumerate(tiles):
        axes = sheet.add_subplot(grid[n // columns, 2 + n % columns])
        axes.imshow(tile, cmap=cmap, vmin=0, extent=(0, width, height, 0), interpolation="nearest")
        axes.set_title(f"{name}, max {tile.max():.3f}", fontsize=7, pad=3)
        axes.set_axis_off()
    return sheet


def _outline(axes: Any, maps: xarray.DataArray, size: tuple[int, int]) -> None:
    """The patch a map belongs to, as a white and red frame; nothing for a class token or register."""
    rows, cols = maps.shape[1:]
    prefix = sum(1 for name in maps.coords if name == "class_token" or str(name).startswith("register_"))
    token = maps.attrs.get("token", 0) - prefix
    if token < 0:
        return
    row, col = divmod(token, cols)
    cell = (size[1] / cols, size[0] / rows)
    corner = (col * cell[0] - 0.5, row * cell[1] - 0.5)
    for colour, line in (("white", 3.0), ("crimson", 1.5)):
        axes.add_patch(Rectangle(corner, *cell, fill=False, edgecolor=colour, linewidth=line))
