"""Draws what the fusion explorer shows, as a picture for saved notebooks and pages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..shared.drawing import Bar, Panel, fitted, picture
from ..shared.scales import RGB, colourise, colours, linear_scale, number
from ..shared.summary import Summary


def draw(
    summary: Summary,
    main: tuple[str, RGB | NDArray[np.floating]],
    levels: Sequence[tuple[str, NDArray[np.float32]]],
    *,
    shaded: NDArray[np.uint8] | None,
    span: tuple[float, float],
    colormap: str,
    reverse: bool,
    aspect: float,
    note: str,
) -> bytes:
    """Draws the map on display, and the output of every fusion block.

    Args:
        summary: The words above it.
        main: Name and pixels of what is on display: an RGB image, or a difference of maps.
        levels: Name and norms (h, w) of each fusion block's output, coarsest first.
        shaded: Colour numbers of the depth map on display, or None for an image or a difference.
        span: Values at the two ends of the colours.
        colormap: Colours of depth.
        reverse: Whether dark and bright ends are exchanged in the colour bar.
        aspect: Height over width of the image.
        note: A line at the bottom.

    Returns:
        A PNG.
    """
    name, pixels = main
    bar = None
    if shaded is not None:
        pixels = colours(colormap)[shaded]
        ends = [number(value) for value in (span[::-1] if reverse else span)]
        bar = Bar(colormap, f"depth, {ends[0]} to {ends[1]}")
    elif pixels.ndim == 2:
        difference = np.asarray(pixels, np.float64)
        top = float(np.abs(difference).max()) or 1.0
        pixels = colourise(difference, linear_scale(-top, top), "RdBu_r")
        bar = Bar("RdBu_r", f"scaled minus unscaled, {number(-top)} to {number(top)}")
    tiles = [
        Panel(
            colourise(norms, linear_scale(float(norms.min()), float(norms.max())), "viridis"),
            label=label,
            note=f"mean {number(float(norms.mean()))}",
            aspect=aspect,
        )
        for label, norms in levels
    ]
    return picture(summary, [Panel(fitted(np.asarray(pixels, np.uint8)), label=name)], tiles, bar, note)
