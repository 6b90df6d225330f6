"""Settings of the fusion explorer: one factor per scaled probe point.

The browser sends a setting as a list of factors in the order of `POINTS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import SupportsFloat, TypeAlias

from dpt.scalars import plain

from ...errors import InvalidValueError

POINTS = ("reassembly.3", "fusion.3", "fusion.2", "fusion.1", "reassembly.2", "reassembly.1", "reassembly.0")
"""The scaled points. The first `SLIDERS` are always shown; the widget folds the others away."""

SLIDERS = 4
REACH = 5.0
"""Factors run from -REACH to REACH."""

Scales: TypeAlias = Mapping[str, float]
"""Factors by point."""

GivenScales: TypeAlias = Mapping[str, SupportsFloat]
"""Factors by point, as callers give them. `complete` makes `Scales` of them."""

UNSCALED: Scales = dict.fromkeys(POINTS, 1.0)


def complete(scales: object) -> dict[str, float]:
    """Checks a setting and adds the factor 1 for missing points.

    Args:
        scales: {point: factor} with some of `POINTS`.

    Returns:
        A factor for every point, in the order of `POINTS`.

    Raises:
        InvalidValueError: `scales` is not a mapping, names another point, or has a factor outside -5 to 5.
    """
    if not isinstance(scales, Mapping):
        raise InvalidValueError(f'a setting must map points to factors, e.g. {{"fusion.2": 0.5}}, got {scales!r}')
    found = dict(UNSCALED)
    for point, factor in scales.items():
        if point not in found:
            raise InvalidValueError(f"{point!r} cannot be scaled. The points are {', '.join(sorted(POINTS))}")
        number = plain(factor)
        if number is None or not -REACH <= number <= REACH:
            raise InvalidValueError(
                f"the factor of {point} must be a number from {-REACH:g} to {REACH:g}, got {factor!r}"
            )
        found[point] = float(number) + 0.0  # turns -0.0 into 0.0
    return found


def from_list(factors: object) -> dict[str, float]:
    """The setting that a request gives as a list of factors.

    Raises:
        InvalidValueError: The list has the wrong length, or a factor is not accepted.
    """
    if not isinstance(factors, list | tuple) or len(factors) != len(POINTS):
        raise InvalidValueError(
            f"scales must be a list of {len(POINTS)} numbers, for {', '.join(POINTS)}, got {factors!r}"
        )
    return complete(dict(zip(POINTS, factors, strict=True)))


def file_stem(scales: Scales) -> str:
    """A file name for a setting, without an extension, e.g. "depth_fusion2x-1"."""
    changed = [f"{point.replace('.', '')}x{factor:g}" for point, factor in scales.items() if factor != 1]
    return "_".join(["depth", *changed] if changed else ["depth", "unscaled"])
