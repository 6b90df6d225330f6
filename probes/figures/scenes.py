"""Rotatable plotly figures: an image as a relief, and point clouds. `plot` exports both functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, SupportsFloat

import numpy as np
from jaxtyping import Float, UInt8

from ..errors import InvalidValueError
from ..scalars import real
from .cloud import Cloud
from .depth_files import check_depth

if TYPE_CHECKING:
    import plotly.graph_objects

RGB = UInt8[np.ndarray, "height width 3"]
# Must have the size of the image. Its axes have other names, so that the functions raise the error, not jaxtyping.
Map = Float[np.ndarray, "rows cols"]

RELIEF_POINTS = 40_000  # vertices that a browser rotates smoothly

# The page shows through: a figure cannot know whether the notebook is light or dark, or will be later.
THROUGH = {"paper_bgcolor": "rgba(0, 0, 0, 0)", "plot_bgcolor": "rgba(0, 0, 0, 0)"}
NO_MARGIN = {"l": 0, "r": 0, "t": 0, "b": 0}
# Buttons have colours of their own, readable on any page.
BUTTONS = {"bgcolor": "#e4e8ec", "bordercolor": "#7a828a", "font": {"color": "#1d2126"}}


def relief(image: RGB, inverse_depth: Map, height: SupportsFloat = 0.5) -> plotly.graph_objects.Figure:
    """Draws an image as a rotatable relief. Near parts stand out towards the viewer.

    The height is proportional to inverse depth. It shows order and proportion, not metres. Large images are thinned to
    `RELIEF_POINTS` vertices.

    Args:
        image: RGB image, (H, W, 3) uint8.
        inverse_depth: Inverse depth, (H, W).
        height: Height of the relief as a fraction of the longer side of the image.

    Returns:
        A plotly figure.

    Raises:
        InvalidValueError: The map does not have the size of the image, or contains NaN, infinity or masked pixels.
    """
    import plotly.graph_objects as go  # takes half a second

    if inverse_depth.shape != image.shape[:2]:
        raise InvalidValueError(
            f"the map must have the size of the image, {image.shape[:2]}, got {inverse_depth.shape}"
        )
    check_depth(inverse_depth)
    step = max(1, int(np.ceil((inverse_depth.size / RELIEF_POINTS) ** 0.5)))
    z, colours = inverse_depth[::step, ::step].astype(np.float64), image[::step, ::step]
    rows, cols = z.shape
    y, x = np.mgrid[0:rows, 0:cols]
    at = (y * cols + x)[:-1, :-1].ravel()  # the upper left corner of each cell, which two triangles fill
    spread = float(np.ptp(z)) or 1.0
    mesh = go.Mesh3d(
        x=x.ravel(),
        y=-y.ravel(),
        z=(z.ravel() - z.min()) / spread * real(height, "height") * max(rows, cols),
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
            "bgcolor": THROUGH["paper_bgcolor"],
            "camera": {"eye": {"x": 0.0, "y": -0.7, "z": 1.6}, "up": {"x": 0, "y": 1, "z": 0}},
        },
        margin=NO_MARGIN,
        height=480,
        **THROUGH,
    )
    return figure


# Rotation about the middle of the scene and elevation, in degrees.
VIEWS = {"front": (0.0, 0.0), "from the left": (-12.0, 5.0), "from the right": (12.0, 5.0), "from above": (0.0, 30.0)}


def cloud(points: Cloud, size: SupportsFloat = 2.0) -> plotly.graph_objects.Figure:
    """Draws a point cloud, or a surface if it has faces. Buttons choose one of four points of view.

    Args:
        points: The cloud. Thin large clouds first: ``back_project(..., most=plot.RELIEF_POINTS)``.
        size: Size of a point on the screen in pixels.

    Returns:
        A plotly figure.

    Raises:
        InvalidValueError: The cloud is empty.
    """
    import plotly.graph_objects as go

    if not len(points):
        raise InvalidValueError("the cloud is empty: no pixel inside the mask has a finite, positive distance")
    x, y, z = points.xyz.T
    place = {"x": x, "y": y, "z": z, "hoverinfo": "skip"}
    drawn: go.Mesh3d | go.Scatter3d
    if len(points.faces):
        i, j, k = points.faces.T
        light = {"ambient": 0.9, "diffuse": 0.3, "specular": 0.0}
        drawn = go.Mesh3d(**place, i=i, j=j, k=k, vertexcolor=points.rgb, lighting=light)
    else:
        colours = [f"rgb({r},{g},{b})" for r, g, b in points.rgb]
        drawn = go.Scatter3d(
            **place, mode="markers", marker={"size": real(size, "size", above=0), "color": colours, "opacity": 1}
        )
    figure = go.Figure(drawn)
    low, high = points.xyz.min(axis=0), points.xyz.max(axis=0)
    # plotly's unit of length for a scene with true proportions
    unit = float(np.prod(np.maximum(high - low, 1e-6)) ** (1 / 3))
    cameras = {name: _camera((low + high) / 2 / unit, *angles) for name, angles in VIEWS.items()}
    hidden = {"visible": False}
    scene = {"xaxis": hidden, "yaxis": hidden, "zaxis": hidden, "aspectmode": "data", "camera": cameras["front"]}
    scene["bgcolor"] = THROUGH["paper_bgcolor"]
    moves = [{"label": name, "method": "relayout", "args": [{"scene.camera": at}]} for name, at in cameras.items()]
    menu = {"type": "buttons", "direction": "right", "buttons": moves, "active": 0, "showactive": True}
    figure.update_layout(
        scene=scene,
        updatemenus=[{**menu, **BUTTONS, "x": 0, "y": 0, "xanchor": "left", "yanchor": "bottom"}],
        margin=NO_MARGIN,
        height=520,
        **THROUGH,
    )
    return figure


def _camera(middle: Float[np.ndarray, " 3"], turn: float, rise: float) -> dict[str, dict[str, float]]:
    """The camera's position relative to the middle of the scene, rotated about it and elevated by degrees."""
    x, y, z = -middle
    radius, across, up = float(np.sqrt(x * x + y * y + z * z)), np.arctan2(x, z), np.arctan2(y, np.hypot(x, z))
    across, up = across + np.radians(turn), up + np.radians(rise)
    eye = (np.cos(up) * np.sin(across), np.sin(up), np.cos(up) * np.cos(across))
    return {
        "eye": {axis: radius * float(e) for axis, e in zip("xyz", eye, strict=True)},
        "up": {"x": 0, "y": 1, "z": 0},
    }
