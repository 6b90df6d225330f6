"""What an edit does to a tensor: scale, zero, replace, skip a block, or apply any function to a part of it.

An `Edit` is plain data. `edit` decides when and where it acts. Tensors are never modified in place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, SupportsFloat, SupportsIndex, get_args

import numpy as np
import torch
from torch import Tensor

from dpt import DPTError
from dpt.printable import printable
from dpt.scalars import plain, real, wholes

from .errors import InvalidTypeError, InvalidValueError, OutOfRangeError, UnavailableError
from .registry import Point

Action = Literal["scale", "zero", "replace", "skip", "function"]
Items = SupportsIndex | Sequence[SupportsIndex] | np.ndarray | Tensor
Function = Callable[[Tensor], Tensor]
_AXES = ("heads", "tokens", "channels")


@dataclass(frozen=True, eq=False)
class Edit:
    """A change to a tensor, or to part of it. Create one with `scale`, `zero`, `replace`, `skip` or `apply`.

    Attributes:
        action: The kind of change.
        factor: The factor of a `scale`.
        value: The tensor or number that `replace` puts in.
        function: The function of an `apply`.
        where: The indices to change, by axis: "heads", "tokens", "channels", or "first" for the first axis after the
            batch. Without it the whole tensor changes.
        version: The label of the function, see `apply`.
    """

    action: Action
    factor: float | None = None
    value: Tensor | float | None = None
    function: Function | None = None
    where: Mapping[str, tuple[int, ...]] | None = None
    version: str | None = None

    def __repr__(self) -> str:
        call, where = self.action if self.action != "function" else "apply", dict(self.where or {})
        first = where.pop("first", None)
        given = [] if self.factor is None else [repr(self.factor)]
        if isinstance(self.value, Tensor):
            given.append(f"<tensor of {tuple(self.value.shape)}>")
        elif self.value is not None:
            given.append(repr(self.value))
        if self.function is not None:
            given.append(getattr(self.function, "__qualname__", None) or repr(self.function))
        if first is not None:
            given.append(repr(list(first)))
        given += [f"{axis}={list(items)}" for axis, items in where.items()]
        if self.version is not None:
            given.append(f"version={self.version!r}")
        return f"probes.{call}({', '.join(given)})"

    def to_json(self) -> dict[str, object]:
        """Returns plain data for `from_json`. A function appears by name only; a tensor must be stored separately."""
        plain: dict[str, object] = {
            "action": self.action,
            "where": {axis: list(indices) for axis, indices in (self.where or {}).items()},
        }
        if self.factor is not None:
            plain["factor"] = self.factor
        if isinstance(self.value, float):
            plain["value"] = self.value
        if self.function is not None:
            plain["function"] = getattr(self.function, "__qualname__", repr(self.function))
        if self.version is not None:
            plain["version"] = self.version
        return plain

    @staticmethod
    def from_json(plain: Mapping[str, Any], tensor: Tensor | None = None) -> Edit:
        """Rebuilds an edit from `to_json` and its stored tensor. The edit of a function can be read but not run.

        Raises:
            InvalidValueError: The data does not describe an edit. Also KeyError, TypeError or AttributeError.
        """
        action, version = plain["action"], plain.get("version")
        if action not in get_args(Action) or not isinstance(version, str | None):
            raise InvalidValueError(f"{printable(repr(action))} is not the action of an edit")
        where = {axis: wholes(indices, "where", least=0) for axis, indices in plain["where"].items()}
        if not where.keys() <= {"first", *_AXES}:
            raise InvalidValueError(f"an edit has no axis {printable(repr(sorted(where)))}")
        if action == "function":
            return Edit("function", function=_unsaved(str(plain["function"])), where=where, version=version)
        factor = real(plain["factor"], "factor", finite=False) if action == "scale" else None
        value: Tensor | float | None = tensor if action == "replace" else None
        if (
            action == "replace" and tensor is None and plain.get("tensor") is None
        ):  # a run stores a tensor's digest only
            value = real(plain["value"], "value", finite=False)
        return Edit(action, factor, value, None, where, version)


def _unsaved(name: str) -> Function:
    """Stands in for a function of which only the name was saved."""

    def unsaved(x: Tensor) -> Tensor:
        raise UnavailableError(f"The function {name} was not saved with this edit. Use probes.apply({name}) instead.")

    unsaved.__qualname__ = name
    return unsaved


def scale(factor: SupportsFloat, items: Items | None = None, **where: Items) -> Edit:
    """Multiplies a point by a factor. ``scale(1.0)`` changes no bit.

    Args:
        factor: Any number, also one of NumPy or torch.
        items: Indices along the point's first axis after the batch: heads of a `heads` point, tokens of `tokens`,
            `stages` and `patch_embed`, channels of a map. By default all.
        **where: Indices by axis, heads=, tokens= or channels=. Several axes combine.

    Returns:
        The edit, for `probes.edit`.

    Raises:
        InvalidTypeError: factor is not a number, or an axis name is unknown.
        InvalidValueError: An index is negative or not an integer.
    """
    number = plain(factor)
    if number is None:
        raise InvalidTypeError(f"factor must be a number, got {factor!r}")
    return Edit("scale", factor=float(number), where=_where(items, where))


def zero(items: Items | None = None, **where: Items) -> Edit:
    """Sets a point, or part of it, to zero. Arguments, errors and return value are those of `scale`."""
    return Edit("zero", where=_where(items, where))


def replace(value: Tensor | np.ndarray | SupportsFloat, items: Items | None = None, **where: Items) -> Edit:
    """Puts a number or a tensor in place of a point's values.

    Args:
        value: A number, or a tensor or array that broadcasts to the shape of the replaced part.
        items: As for `scale`.
        **where: As for `scale`.

    Returns:
        The edit, for `probes.edit`.

    Raises:
        InvalidTypeError: value is neither, or an axis name is unknown.
        InvalidValueError: An index is negative or not an integer.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise InvalidTypeError("value must be a tensor, an array or a number, got a masked array. Fill it first")
    if isinstance(value, np.ndarray) and value.ndim:
        value = torch.from_numpy(value.copy())
    if isinstance(value, Tensor):
        return Edit("replace", value=value, where=_where(items, where))
    number = plain(value)
    if number is None:
        raise InvalidTypeError(f"value must be a tensor or a number, got {type(value).__name__}")
    return Edit("replace", value=float(number), where=_where(items, where))


def skip() -> Edit:
    """Skips a whole block: its output is its input. Works on `encoder.blocks.{i}.tokens`."""
    return Edit("skip")


def apply(function: Function, items: Items | None = None, *, version: str | None = None, **where: Items) -> Edit:
    """Applies a function to a point's values.

    Args:
        function: Maps a tensor to a tensor of the same shape. It must not modify its argument in place.
        items: As for `scale`.
        version: A label that identifies what the function computes, e.g. "2". A stored run records the label and a hash
            of the function's source text, and resumes only if both are the same. A function without source text, e.g.
            of a C extension, needs a label to be stored.
        **where: As for `scale`.

    Returns:
        The edit, for `probes.edit`.

    Raises:
        InvalidTypeError: function is not callable, version is not a string, or an axis name is unknown.
        InvalidValueError: An index is negative or not an integer.
    """
    if not callable(function):
        raise InvalidTypeError(f"function must be callable, got {type(function).__name__}")
    if version is not None and not isinstance(version, str):
        raise InvalidTypeError(f"version must be a string, got {version!r}")
    return Edit("function", function=function, where=_where(items, where), version=version)


def _where(items: Items | None, named: Mapping[str, Items]) -> dict[str, tuple[int, ...]]:
    if unknown := set(named) - set(_AXES):
        raise InvalidTypeError(f"unknown axis {', '.join(sorted(unknown))}; expected {', '.join(_AXES)}")
    first = {"first": items} if items is not None else {}
    where = {}
    for axis, given in {**first, **named}.items():
        try:
            indices = wholes(given, axis, least=0)
        except DPTError:
            indices = ()
        if not indices:
            raise InvalidValueError(f"{'items' if axis == 'first' else axis} must be integers >= 0, got {given!r}")
        where[axis] = indices
    return where


def axes_of(point: Point) -> tuple[str, ...]:
    """Names of the axes after the batch, as edits take them: "heads", "tokens", "channels", "rows", "cols"."""
    return tuple(f"{name}s" for name in point.axis_names)


def changed(point: Point, action: Edit, x: Tensor) -> Tensor:
    if action.action == "scale" and action.factor == 1.0:
        return x
    index = _index(point, action, x)
    part = x if index is None else x[index]
    new = _new_values(point, action, part)
    if index is None:
        return new
    x = x.clone()
    x[index] = new
    return x


def _new_values(point: Point, action: Edit, part: Tensor) -> Tensor:
    if action.factor is not None:
        return part * action.factor
    if action.action == "zero":
        return torch.zeros_like(part)
    if action.action == "function":
        assert action.function is not None
        new = action.function(part)
        if not isinstance(new, Tensor) or new.shape != part.shape:
            got = tuple(new.shape) if isinstance(new, Tensor) else type(new).__name__
            raise InvalidValueError(
                f"the function at {point.name} must return a tensor of shape {tuple(part.shape)}, got {got}"
            )
        return new.to(part)
    value = action.value
    value = value.to(part) if isinstance(value, Tensor) else part.new_tensor(value)
    try:
        return value.expand(part.shape).clone()
    except RuntimeError:
        raise InvalidValueError(
            f"the value for {point.name} must have shape {tuple(part.shape)} or broadcast to it, "
            f"got {tuple(value.shape)}"
        ) from None


def _index(point: Point, action: Edit, x: Tensor) -> tuple[Tensor, ...] | None:
    """Returns one index tensor per axis, which together select the part to change; None for the whole tensor."""
    if not action.where:
        return None
    names = ("batch", *axes_of(point))
    ranges = [list(range(size)) for size in x.shape]
    for axis, wanted in action.where.items():
        dim = 1 if axis == "first" else names.index(axis)
        if outside := [n for n in wanted if n >= x.shape[dim]]:
            raise OutOfRangeError(f"{point.name} has {names[dim]} 0 to {x.shape[dim] - 1}, got {outside[0]}")
        ranges[dim] = list(wanted)
    return tuple(
        torch.tensor(indices, device=x.device).view([-1 if i == dim else 1 for i in range(x.ndim)])
        for dim, indices in enumerate(ranges)
    )
