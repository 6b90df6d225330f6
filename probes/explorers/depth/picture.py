"""Draws what the depth explorer shows, as a picture for saved notebooks and pages."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..shared.drawing import Bar, Panel, fitted, picture
from ..shared.scales import RGB, colourise, linear_scale, number
from ..shared.summary import Summary

CUT = (238, 240, 242)  # pixels outside the thresholds


def draw(
    summary: Summary,
    panes: list[tuple[str, RGB | NDArray[np.floating], NDArray[np.bool_]]],
    *,
    metric: bool,
    colormap: str,
    note: str,
) -> bytes:
    """Draws two panes.

    Args:
        summary: The words above it.
        panes: (name, pixels, mask) of each: an RGB image, or values, and which pixels lie between the thresholds.
        metric: Whether the values are metres: small ones are near and get the bright end.
        colormap: Colours of values.
        note: A line at the bottom.

    Returns:
        A PNG.
    """
    panels = []
    for name, pixels, mask in panes:
        if pixels.ndim == 3:
            faint = (0.15 * pixels + 0.85 * np.array(CUT)).astype(np.uint8)
            panels.append(Panel(fitted(np.where(mask[..., None], pixels, faint)), label=name))
            continue
        inside = pixels[mask & np.isfinite(pixels)]
        low, high = (float(inside.min()), float(inside.max())) if inside.size else (0.0, 1.0)
        scale = linear_scale(low, high if high > low else low + 1)
        values = np.where(mask, np.nan_to_num(pixels, nan=low), low)
        coloured = colourise(low + high - values if metric else values, scale, colormap)
        shown = np.where(mask[..., None], coloured, np.array(CUT, np.uint8))
        panels.append(Panel(fitted(shown), label=name, note=f"{number(low)} to {number(high)}"))
    ends = "far to near"
    return picture(summary, panels, (), Bar(colormap, ends), note)
