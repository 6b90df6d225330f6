"""Texts and colour bars that the figures of `plot` share."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import Formatter, MaxNLocator

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable

SIGNED = "RdBu_r"
"""The colormap of differences: white at zero, red above, blue below."""


def percent(share: float) -> str:
    """A share in percent with two or three digits, never rounded to zero: 12 %, 3.4 %, 0.056 %, 7.8e-05 %."""
    hundredths = abs(share) * 100
    sign = "−" if share < 0 else ""
    if hundredths == 0:
        return "0 %"
    if hundredths >= 9.95:
        return f"{sign}{hundredths:.0f} %"
    if hundredths >= 0.00995:
        return f"{sign}{hundredths:.2g} %"
    return f"{sign}{hundredths:.1e} %"


class PercentTicks(Formatter):
    """Labels the ticks of shares in percent, with the digits that tell them apart."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return percent(x)


def wrapped(text: str, inches: float, size: float) -> str:
    """Breaks a text into lines of at most a width at a font size in points."""
    letters = max(8, int(inches * 72 / (0.55 * size)))  # 0.55: mean width of a letter of the default font
    return "\n".join(part for line in text.split("\n") for part in textwrap.wrap(line, letters) or [""])


def set_title(axes: Axes, text: str, inches: float, size: float = 9.0) -> None:
    """Sets a title that breaks into lines instead of running beyond a width."""
    axes.set_title(wrapped(text, inches, size), fontsize=size)


def add_bar(
    axes: Axes,
    drawn: ScalarMappable,
    label: str,
    inches: float,
    ends: Sequence[str] | None = None,
    shares: bool = False,
) -> None:
    """Adds a horizontal colour bar below an image. It belongs to its axes, so the figure counts no further ones.

    Args:
        axes: Above the bar.
        drawn: What the colours belong to.
        label: Quantity, unit, and which images share the range.
        inches: Width of the axes.
        ends: Texts at the ends, where images have ranges of their own; two, or three with the middle. Default: numbers.
        shares: Numbers are shares and are labelled in percent.
    """
    box = axes.inset_axes((0.0, -0.11, 1.0, 0.045))
    bar = axes.figure.colorbar(drawn, cax=box, orientation="horizontal")
    if ends is not None:
        bar.set_ticks(np.linspace(*bar.mappable.get_clim(), len(ends)).tolist(), labels=list(ends))
        texts = bar.ax.get_xticklabels()
        texts[0].set_horizontalalignment("left")
        texts[-1].set_horizontalalignment("right")
    else:
        bar.locator = MaxNLocator(4)
        if shares:
            bar.formatter = PercentTicks()
        bar.update_ticks()
    bar.ax.tick_params(labelsize=7)
    bar.set_label(wrapped(label, inches, 7.5), fontsize=7.5)
