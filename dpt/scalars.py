"""Numbers that callers pass as arguments: which values count as one, and the errors for all others.

Problem. ``np.argmin`` returns an ``np.int64``, ``tensor.max()`` a tensor without dimensions, a table an ``np.float32``.
They are numbers to the caller, but not instances of int or float, and JSON cannot hold them. A bool is an instance of
int, but passing one is a mistake.

Approach. `whole` and `real` accept the numbers of Python, NumPy, torch and other array libraries, and return a plain
int or float. They refuse bools, strings, masked values, dates and arrays with dimensions, by the name of the argument.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from numbers import Real
from typing import SupportsIndex

import numpy as np

from .errors import InvalidTypeError, InvalidValueError
from .printable import printable


def whole(value: object, argument: str, *, least: int | None = None, most: int | None = None) -> int:
    """Returns a whole number as an int.

    Args:
        value: An integer of Python, NumPy or torch; also an array or tensor without dimensions that holds one.
        argument: What the error calls the value, e.g. "size".
        least: Smallest accepted value.
        most: Largest accepted value.

    Raises:
        InvalidTypeError: The value is not a number (also a TypeError). A bool is not.
        InvalidValueError: The number is not an integer, or out of range (also a ValueError).

    Example:
        >>> whole(np.int64(3), "block", least=0)
        3
    """
    number = plain(value)
    expected = f"a whole number{_range(least, most)}"
    if number is None:
        raise InvalidTypeError(f"{argument} must be {expected}, got {_shown(value)}")
    if isinstance(number, float) or not _within(number, least, most):
        raise InvalidValueError(f"{argument} must be {expected}, got {_shown(value)}")
    return number


def real(
    value: object,
    argument: str,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    finite: bool = True,
) -> float:
    """Returns a number as a float.

    Args:
        value: A number of Python, NumPy or torch; also an array or tensor without dimensions that holds one.
        argument: What the error calls the value, e.g. "max_depth".
        least: Smallest accepted value.
        most: Largest accepted value.
        above: The value must be greater than this number.
        finite: Refuse infinity and NaN.

    Raises:
        InvalidTypeError: The value is not a number (also a TypeError). A bool is not.
        InvalidValueError: The number is out of range or not finite (also a ValueError).

    Example:
        >>> real(np.float64(0.5), "factor")
        0.5
    """
    number = plain(value)
    expected = f"a {'finite ' if finite else ''}number{_range(least, most, above)}"
    if number is None:
        raise InvalidTypeError(f"{argument} must be {expected}, got {_shown(value)}")
    try:
        number = float(number)
    except OverflowError:  # an int of more than 308 digits
        number = math.inf if number > 0 else -math.inf
    too_small = above is not None and not number > above
    if (finite and not math.isfinite(number)) or too_small or not _within(number, least, most):
        raise InvalidValueError(f"{argument} must be {expected}, got {_shown(value)}")
    return number


def wholes(value: object, argument: str, *, least: int | None = None, most: int | None = None) -> tuple[int, ...]:
    """Returns one or several whole numbers as a tuple of ints.

    Args:
        value: As for `whole`, or a list, range, array or tensor of such numbers, at most one-dimensional.
        argument: What the error calls the values, e.g. "heads".
        least: Smallest accepted value.
        most: Largest accepted value.

    Raises:
        InvalidTypeError: A value is not a number (also a TypeError). Masks are refused: True is not the index 1.
        InvalidValueError: A number is not an integer, or out of range (also a ValueError).

    Example:
        >>> wholes(np.argsort(entropy)[:3], "heads", least=0)
        (4, 0, 2)
    """
    # An array without dimensions is an Iterable by its type, but cannot be iterated.
    if isinstance(value, str | bytes) or not isinstance(value, Iterable) or getattr(value, "ndim", 1) == 0:
        return (whole(value, argument, least=least, most=most),)
    if "bool" in str(getattr(value, "dtype", "")):
        raise InvalidTypeError(f"{argument} must be whole numbers, got a mask of bools. Pass np.flatnonzero(mask)")
    return tuple(whole(item, argument, least=least, most=most) for item in value)


def is_whole(value: object) -> bool:
    """Whether `whole` accepts a value as an integer."""
    return isinstance(plain(value), int)


def is_real(value: object) -> bool:
    """Whether `real` accepts a value as a number."""
    return plain(value) is not None


def plain(value: object) -> int | float | None:
    """Returns the number that a value stands for as an int or a float, or None if it is not a number."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return int(value)  # also of subclasses, e.g. IntEnum
    if isinstance(value, float):
        return float(value)  # also np.float64, which is a float
    if hasattr(value, "dtype"):
        return _of_array(value)
    try:
        if isinstance(value, SupportsIndex):
            return operator.index(value)
        return float(value) if isinstance(value, Real) else None
    except (TypeError, ValueError, OverflowError):
        return None


def _of_array(value: object) -> int | float | None:
    """The number in a scalar, array or tensor of NumPy, torch or a library like them; None if it has dimensions."""
    dtype: object = getattr(value, "dtype", None)
    kind = str(getattr(dtype, "name", dtype)).removeprefix("torch.")  # e.g. "int64"
    if getattr(value, "ndim", None) != 0 or not kind.startswith(("int", "uint", "float", "bfloat")):
        return None  # also for bools, complex numbers, dates, strings and quantised tensors
    if isinstance(value, np.ma.MaskedArray) and value.mask:
        return None
    item = getattr(value, "item", None)
    try:
        number: object = item() if callable(item) else None
    except (RuntimeError, ValueError):  # a tensor on the meta device has no value
        return None
    if isinstance(number, int | float):
        return number
    return float(number) if isinstance(number, np.floating) else None  # np.longdouble has no Python type


def _within(number: float, least: float | None, most: float | None) -> bool:
    """Whether a number lies in a range. NaN does not, unless there is no bound."""
    return (least is None or number >= least) and (most is None or number <= most)


def _range(least: float | None, most: float | None, above: float | None = None) -> str:
    """The range in words, with a space before it; empty if there is none."""
    if least is not None and most is not None:
        return f" from {least} to {most}"
    bounds = ((">", above), (">=", least), ("<=", most))
    words = " and ".join(f"{sign} {bound}" for sign, bound in bounds if bound is not None)
    return f" {words}" if words else ""


def _shown(value: object) -> str:
    return printable(repr(value), 100)
