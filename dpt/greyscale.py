"""Converts greyscale with more than 8 bits, or of floats, to 8 bits.

The values that become black and white are those of the format (0 and 65535 for 16 bits), unless the caller chooses
others. A thermal or depth camera uses a small part of the 16 bits: of its 1,500 values, 7 grey levels may remain. The
result then comes with a note that says so.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .errors import ImageError, InvalidTypeError, InvalidValueError
from .scalars import real

Range: TypeAlias = "Literal['full', 'minmax'] | tuple[float, float]"
"""Which values become black and white: those of the format, the smallest and largest of the image, or (low, high)."""

_FEW = 86  # grey levels: a third of 256
_LOOKED_AT = 2**20  # pixels


def checked_range(given: object) -> Range:
    """Returns a range in the form that `grey_levels` takes.

    Args:
        given: "full", "minmax", or a pair of numbers.

    Raises:
        InvalidTypeError: It is something else.
        InvalidValueError: It is another word, or the pair is not two finite numbers in ascending order.
    """
    expected = "range must be 'full', 'minmax' or a pair (low, high)"
    if isinstance(given, str):
        if given in ("full", "minmax"):
            return "full" if given == "full" else "minmax"
        raise InvalidValueError(f"{expected}, got {given!r:.80}")
    if not isinstance(given, tuple | list | np.ndarray) or len(given) != 2:
        raise InvalidTypeError(f"{expected}, got {given!r:.80}")
    low, high = (real(value, f"the {name} of range") for value, name in zip(given, ("low", "high"), strict=True))
    if not low < high:
        raise InvalidValueError(f"{expected} with low < high, got {given!r:.80}")
    return low, high


def grey_levels(
    values: NDArray[np.number], span: Range, full: int, clear: int | None = None
) -> tuple[NDArray[np.uint8], str | None]:
    """Converts the values of a greyscale image.

    Args:
        values: (H, W) unsigned integers, or floats.
        span: Which values become black and white.
        full: Integer value that is white in the format, e.g. 65535.
        clear: Value that marks transparent pixels, which "minmax" ignores.

    Returns:
        ((H, W) uint8, a note on lost levels or None).

    Raises:
        ImageError: Floats are NaN or infinite; or, with "full", the values do not fit the format. The message has no
            subject.
    """
    floats = values.dtype.kind == "f"
    if floats and not np.isfinite(values).all():
        raise ImageError("is float greyscale with NaN or infinite values. Replace them first")
    if span != "full":
        return _stretched(values, *(_minmax(values, clear) if span == "minmax" else span)), None
    low, high = values.min(), values.max()
    advice = "Scale the values and pass the (H, W, 3) uint8 array, or choose black and white with range=(low, high)"
    if floats:
        if low < 0 or high > 255 or (high > 1 and (values != np.rint(values)).any()):
            raise ImageError(
                f"is float greyscale with values from {low:g} to {high:g}, expected 0..1 or whole numbers in 0..255. "
                + advice
            )
        grey = np.rint(values * (255 if high <= 1 else 1)).astype(np.uint8)
    else:
        if low < 0 or high > full:
            raise ImageError(
                f"is integer greyscale with values from {low} to {high}, expected 16 bits (0..65535). {advice}"
            )
        grey = np.rint(values / np.float32(full / 255)).astype(np.uint8)
    return grey, _note(values, grey, f"{low:g} to {high:g}")


def _minmax(values: NDArray[np.number], clear: int | None) -> tuple[float, float]:
    opaque = values if clear is None else values[values != clear]
    return (float(opaque.min()), float(opaque.max())) if opaque.size else (0.0, 1.0)


def _stretched(values: NDArray[np.number], low: float, high: float) -> NDArray[np.uint8]:
    levels = (values.astype(np.float64) - low) * 255 / (high - low if high > low else 1.0)
    return np.rint(levels.clip(0, 255)).astype(np.uint8)


def _note(values: NDArray[np.number], grey: NDArray[np.uint8], between: str) -> str | None:
    """Says how many levels remain if they are few and the image has many more values.

    Levels are counted, because a dead or hot pixel makes their span large.
    """
    step = max(1, values.size // _LOOKED_AT)
    if (after := len(np.unique(grey.ravel()[::step]))) >= _FEW:
        return None
    before = len(np.unique(values.ravel()[::step]))
    if before <= 2 * after:  # a mask, or a greyscale image that had few levels before
        return None
    return (
        f"has {before} values from {between}, which become {after} grey levels. "
        "dpt.read_image(..., range=(low, high) or range='minmax') spreads them over 256"
    )
