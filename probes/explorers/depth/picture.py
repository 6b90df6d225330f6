"""Draws what the depth explorer shows, as a picture for saved notebooks and pages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..shared.drawing import Bar, Panel, fitted, picture
from ..shared.scales import RGB, Scale, colourise, linear_scale, number
from ..shared.summary import Summary

CUT = (238, 240, 242)  # pixels outside the thresholds


@dataclass(frozen=True)
class Look:
    """How maps are painted.

    Attributes:
        metric: The values are metres: small ones are near and get the bright end.
        colormap: Colours of values without a sign.
        signed: The values are depth above a plane: zero lies in the middle of the colours, and near is red.
        shared: Maps side by side cover one range.
    """

    metric: bool
    colormap: str
    signed: bool
    shared: bool


def draw(
    summary: Summary,
    panes: list[tuple[str, RGB | NDArray[np.floating], NDArray[np.bool_]]],
    look: Look,
    note: str,
) -> bytes:
    """Draws two panes.

    Args:
        summary: The words above it.
        panes: (name, pixels, mask) of each: an RGB image, or values, and which pixels lie between the thresholds.
        look: How the values are painted.
        note: A line at the bottom.

    Returns:
        A PNG.
    """
    inside = [np.asarray(pixels[mask & np.isfinite(pixels)], float) for _, pixels, mask in panes if pixels.ndim == 2]
    scales = [_scale(values, look) for values in inside]
    if look.shared and len(scales) > 1:
        scales = [_scale(np.concatenate(inside), look)] * len(scales)
    maps = iter(scales)
    colormap = "RdBu_r" if look.signed else look.colormap
    panels = []
    for name, pixels, mask in panes:
        if pixels.ndim == 3:
            faint = (0.15 * pixels + 0.85 * np.array(CUT)).astype(np.uint8)
            panels.append(Panel(fitted(np.where(mask[..., None], pixels, faint)), label=name))
            continue
        scale = next(maps)
        values = np.where(mask, np.nan_to_num(pixels, nan=scale.low), scale.low)
        coloured = colourise(scale.low + scale.high - values if look.metric else values, scale, colormap)
        shown = np.where(mask[..., None], coloured, np.array(CUT, np.uint8))
        panels.append(Panel(fitted(shown), label=name, note=f"{number(scale.low)} to {number(scale.high)}"))
    words = "farther to nearer than the plane" if look.signed else "far to near"
    if len(scales) > 1:
        words += ", one range for both maps" if look.shared else ", each map its own range"
    return picture(summary, panels, (), Bar(colormap, words), note)


def _scale(values: NDArray[np.floating], look: Look) -> Scale:
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    if look.signed:
        high = max(abs(low), abs(high)) or 1.0
        low = -high
    return linear_scale(low, high if high > low else low + 1)
