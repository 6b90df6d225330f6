"""Controls of an explorer: the values they accept, and the errors for other ones.

A control is a trait tagged ``ui=True``. It is a keyword argument of the explorer and an attribute that can be set and
observed. `base` checks names and values; this module holds what those checks share.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypeAlias

import numpy as np
import traitlets
from torch import Tensor

from dpt.scalars import plain

from ...errors import InvalidValueError, ProbeError

Proposal: TypeAlias = Mapping[str, Any]
"""What traitlets passes to a validator: the new "value" and the "trait". Views send any JSON value."""

COLORMAPS = ("viridis", "cividis", "magma", "grey")
DIRECTIONS = ("row", "column")  # of attention: what a patch looks at, and who looks at the patch
BASES = ("picture", "depth")  # what an overlay is drawn on


class UnknownControlError(ProbeError, TypeError):
    """An explorer got a keyword argument that none of its controls has.

    Attributes:
        names: The unknown names.
        known: The names of the explorer's controls.
    """

    def __init__(self, message: str, names: Sequence[str] = (), known: Sequence[str] = ()):
        super().__init__(message)
        self.names, self.known = tuple(names), tuple(known)

    @classmethod
    def of(cls, explorer: str, names: Collection[str], known: Collection[str]) -> UnknownControlError:
        """The error for names that are no controls of an explorer."""
        wrong, controls = sorted(names), sorted(known)
        close = [match for name in wrong for match in get_close_matches(name, controls, n=1)]
        hint = f" Did you mean {' and '.join(close)}?" if close else ""
        plural = "s" if len(wrong) > 1 else ""
        message = f"{explorer} has no control{plural} {', '.join(wrong)}.{hint} Its controls: {', '.join(controls)}"
        return cls(message, wrong, controls)


class ControlError(InvalidValueError, traitlets.TraitError):
    """A control was set to a value that it does not accept. The control keeps its old value.

    Attributes:
        control: The name of the control.
        given: The rejected value.
        expected: What the control accepts, in words.
    """

    def __init__(self, control: str, given: object, expected: str, message: str = ""):
        self.control, self.given, self.expected = control, given, expected
        super().__init__(message or f"{control} must be {expected}, got {given!r}")

    def __reduce__(self) -> tuple[Any, ...]:  # by default, pickle passes the message as the only argument
        return type(self), (self.control, self.given, self.expected, str(self))


def whole_number(name: str, value: object, first: int, stop: int) -> int:
    """Checks an integer against ``first <= value < stop``.

    Args:
        name: What the error calls the value: a control or a field of a request.
        value: A whole number of Python, NumPy or torch. A bool is not.
        first: Smallest accepted value.
        stop: First value above the accepted ones.

    Returns:
        The value as an int.

    Raises:
        ControlError: The value is not a whole number or lies outside the range.
    """
    number = plain(value)
    if not isinstance(number, int) or not first <= number < stop:
        raise ControlError(name, value, f"a whole number from {first} to {stop - 1}")
    return number


class Whole(traitlets.Int):
    """A trait for whole numbers. Those of NumPy and torch become ints, which views can read; bools are refused."""

    info_text = "a whole number"

    def validate(self, obj: traitlets.HasTraits, value: object) -> int:
        number = plain(value)
        if not isinstance(number, int):
            self.error(obj, value)
        checked: int = super().validate(obj, number)
        return checked


class Real(traitlets.Float):
    """A trait for finite numbers. Those of NumPy and torch become floats; bools, NaN and infinity are refused."""

    info_text = "a finite number"

    def validate(self, obj: traitlets.HasTraits, value: object) -> float:
        number = plain(value)
        if number is None or not -math.inf < number < math.inf:
            self.error(obj, value)
        checked: float = super().validate(obj, number)
        return checked


class Flag(traitlets.Bool):
    """A trait for True and False. An np.bool_ becomes a bool."""

    def validate(self, obj: traitlets.HasTraits, value: object) -> bool:
        checked: bool = super().validate(obj, bool(value) if isinstance(value, np.bool_) else value)
        return checked


class Items(traitlets.List):
    """A trait for a list. A one-dimensional array or tensor becomes a list."""

    def validate(self, obj: traitlets.HasTraits, value: object) -> list[Any] | None:
        given = value.tolist() if isinstance(value, np.ndarray | Tensor) and value.ndim == 1 else value
        return super().validate(obj, given)
