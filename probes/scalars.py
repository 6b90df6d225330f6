"""Numbers that callers pass as arguments, as in `dpt.scalars`, with the errors of this package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dpt.errors
from dpt import scalars

from .errors import InvalidTypeError, InvalidValueError


def whole(value: object, argument: str, *, least: int | None = None, most: int | None = None) -> int:
    """Returns a whole number as an int. See `dpt.scalars.whole`.

    Raises:
        InvalidTypeError: The value is not a number (also a TypeError). A bool is not.
        InvalidValueError: The number is not an integer, or out of range (also a ValueError).
    """
    with _own_errors():
        return scalars.whole(value, argument, least=least, most=most)


def wholes(value: object, argument: str, *, least: int | None = None, most: int | None = None) -> tuple[int, ...]:
    """Returns one or several whole numbers as a tuple of ints. See `dpt.scalars.wholes`.

    Raises:
        InvalidTypeError: A value is not a number (also a TypeError). Masks are refused: True is not the index 1.
        InvalidValueError: A number is not an integer, or out of range (also a ValueError).
    """
    with _own_errors():
        return scalars.wholes(value, argument, least=least, most=most)


def real(
    value: object,
    argument: str,
    *,
    least: int | float | None = None,
    most: int | float | None = None,
    above: int | float | None = None,
    finite: bool = True,
) -> float:
    """Returns a number as a float. See `dpt.scalars.real`.

    Raises:
        InvalidTypeError: The value is not a number (also a TypeError). A bool is not.
        InvalidValueError: The number is out of range or not finite (also a ValueError).
    """
    with _own_errors():
        return scalars.real(value, argument, least=least, most=most, above=above, finite=finite)


@contextmanager
def _own_errors() -> Iterator[None]:
    """Raises the errors of `dpt` as those of this package, which callers catch as `probes.ProbeError`."""
    try:
        yield
    except dpt.errors.InvalidTypeError as error:
        raise InvalidTypeError(str(error)) from None
    except dpt.errors.InvalidValueError as error:
        raise InvalidValueError(str(error)) from None
