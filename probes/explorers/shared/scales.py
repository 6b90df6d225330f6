"""Colour scales for pictures made in Python. They are those of `scale.js` and `colours.js`.

pixels = colourise(values, log_scale(0.0, top, decades=4), "viridis")
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

RGB = NDArray[np.uint8]


@dataclass(frozen=True)
class Scale:
    """Maps values to positions from 0 to 1. Values outside go to the ends.

    Attributes:
        kind: "linear", "log", or "signed-log": logarithmic on both sides of 0.
        low: The value at 0.
        high: The value at 1.
        floor: "signed-log": magnitudes up to this one lie in the middle.
    """

    kind: Literal["linear", "log", "signed-log"]
    low: float
    high: float
    floor: float = 0.0

    def positions(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """The position of each value. If both ends are equal, every value lies in the middle."""
        x = np.asarray(values, np.float64)
        if not self.high > self.low:
            return np.full(x.shape, 0.5)
        if self.kind == "linear":
            t = (x - self.low) / (self.high - self.low)
        elif self.kind == "log":
            t = np.log(np.maximum(x, self.low) / self.low) / np.log(self.high / self.low)
        else:
            size = np.log(np.maximum(np.abs(x), self.floor) / self.floor) / np.log(self.high / self.floor)
            t = (1 + np.sign(x) * size) / 2
        return np.clip(t, 0, 1)


def linear_scale(low: int | float, high: int | float) -> Scale:
    """A linear scale from `low` to `high`."""
    return Scale("linear", float(low), float(high))


def signed_scale(top: int | float) -> Scale:
    """A linear scale with 0 in the middle, up to the magnitude `top`."""
    return linear_scale(-top, top)


def log_scale(low: int | float, high: int | float, decades: int = 6) -> Scale:
    """A logarithmic scale that spans at most `decades`. Values up to its low end, 0 included, lie at its bottom."""
    return Scale("log", max(float(low), high * 10.0**-decades), float(high)) if high > 0 else linear_scale(low, high)


def signed_log_scale(top: int | float, decades: int) -> Scale:
    """A logarithmic scale for differences. Magnitudes up to `decades` under the top lie in the middle."""
    return Scale("signed-log", -float(top), float(top), top * 10.0**-decades)


def colours(colormap: str) -> RGB:
    """The 256 colours of a colormap of an explorer, (256, 3)."""
    import matplotlib

    name = "gray" if colormap == "grey" else colormap
    table: RGB = matplotlib.colormaps[name](np.arange(256), bytes=True)[:, :3]
    return table


def colourise(values: NDArray[np.floating], scale: Scale, colormap: str) -> RGB:
    """Colours an array of any shape: (..., 3) uint8."""
    levels = np.minimum(scale.positions(values) * 256, 255).astype(np.uint8)
    coloured: RGB = colours(colormap)[levels]
    return coloured


def number(value: float) -> str:
    """A number with three significant digits, e.g. "0.0123", "1234", "-7.8e-05"."""
    size = abs(value)
    if size and (size >= 1e5 or size < 1e-3):
        return f"{value:.1e}"
    return f"{value:.0f}" if size >= 100 or not size else f"{value:#.3g}"
