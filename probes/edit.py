"""Edits change probe points while the model runs: scale, zero, replace, skip a block, or apply any function.

    with probes.edit(model, {"fusion.2": probes.scale(0.0), "encoder.blocks.5.heads": probes.zero([0, 3])}):
        changed = model.predict(image)

Problem: an ablation is only as good as its bookkeeping. A hook that stays behind, or that runs in an unexpected order,
silently corrupts every later result.

Approach: edits are plain data, bound to points by name. One hook per module applies them, ahead of all other hooks, so
captures record edited values however the blocks are nested. Edits of one point apply in the order of entry: outer
blocks first, then the order of the mapping. Tensors are never modified in place. Leaving the block restores the model,
also after an exception.

Limits: edits affect only forward passes of the thread that entered the block, as captures do. Attention weights exist
only inside the fused kernel, and norms are computed from the tokens, so neither can be edited. Edit heads and tokens
instead.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dpt import DPT, TokenGrid

from .errors import InvalidTypeError, InvalidValueError, OutOfRangeError, UnavailableError
from .registry import Point, select

Action = Literal["scale", "zero", "replace", "skip", "function"]
Items = int | Sequence[int]
Function = Callable[[Tensor], Tensor]


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
        arguments = {f.name: getattr(self, f.name) for f in fields(self)[1:]}
        if isinstance(self.value, Tensor):
            arguments["value"] = f"tensor of {tuple(self.value.shape)}"
        arguments["where"] = self.where or None
        given = (f"{name}={value}" for name, value in arguments.items() if value is not None)
        return f"{self.action}({', '.join(given)})"

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
        """Rebuilds an edit from `to_json` and its stored tensor. The edit of a function can be read but not run."""
        function = _unsaved(plain["function"]) if plain["action"] == "function" else None
        where = {axis: tuple(indices) for axis, indices in plain["where"].items()}
        value = plain.get("value") if tensor is None else tensor
        return Edit(plain["action"], plain.get("factor"), value, function, where, plain.get("version"))


def _unsaved(name: str) -> Function:
    """Stands in for a function of which only the name was saved."""

    def unsaved(x: Tensor) -> Tensor:
        raise UnavailableError(f"The function {name} was not saved with this edit. Use probes.apply({name}) instead.")

    unsaved.__qualname__ = name
    return unsaved


def scale(factor: float, items: Items | None = None, **where: Items) -> Edit:
    """Multiplies a point by a factor. ``scale(1.0)`` changes no bit.

    Args:
        factor: Any number.
        items: Indices along the point's first axis after the batch: heads of a `heads` point, tokens of `tokens`,
            `stages` and `patch_embed`, channels of a map. By default all.
        **where: Indices by axis, heads=, tokens= or channels=. Several axes combine.

    Returns:
        The edit, for `probes.edit`.

    Raises:
        InvalidTypeError: factor is not a number, or an axis name is unknown.
        InvalidValueError: An index is negative or not an integer.
    """
    if isinstance(factor, bool) or not isinstance(factor, int | float):
        raise InvalidTypeError(f"factor must be a number, got {factor!r}")
    return Edit("scale", factor=float(factor), where=_where(items, where))


def zero(items: Items | None = None, **where: Items) -> Edit:
    """Sets a point, or part of it, to zero. Arguments, errors and return value are those of `scale`."""
    return Edit("zero", where=_where(items, where))


def replace(value: Tensor | float, items: Items | None = None, **where: Items) -> Edit:
    """Puts a number or a tensor in place of a point's values.

    Args:
        value: A number, or a tensor that broadcasts to the shape of the replaced part.
        items: As for `scale`.
        **where: As for `scale`.

    Returns:
        The edit, for `probes.edit`.

    Raises:
        InvalidTypeError: value is neither, or an axis name is unknown.
        InvalidValueError: An index is negative or not an integer.
    """
    if not isinstance(value, Tensor | int | float) or isinstance(value, bool):
        raise InvalidTypeError(f"value must be a tensor or a number, got {type(value).__name__}")
    return Edit("replace", value=value if isinstance(value, Tensor) else float(value), where=_where(items, where))


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
    known = ("heads", "tokens", "channels")
    if unknown := set(named) - set(known):
        raise InvalidTypeError(f"unknown axis {', '.join(sorted(unknown))}; expected {', '.join(known)}")
    first = {"first": items} if items is not None else {}
    where = {}
    for axis, given in {**first, **named}.items():
        indices = [given] if isinstance(given, int) else list(given)
        if not indices or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in indices):
            raise InvalidValueError(f"{'items' if axis == 'first' else axis} must be integers >= 0, got {given!r}")
        where[axis] = tuple(indices)
    return where


# Edited modules, each with the one hook that applies all its edits. Weak keys: an edit keeps no model alive.
_chains: weakref.WeakKeyDictionary[nn.Module, _Chain] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


@dataclass(eq=False)
class _BoundEdit:
    """An edit at a point, active in passes of one thread."""

    point: Point
    edit: Edit
    model: weakref.ref[DPT]
    thread: int
    grid: TokenGrid | None = None  # the point's token grid in the current pass


class _Chain:
    """Applies the edits of one module in order, with one hook ahead of all others."""

    def __init__(self, module: nn.Module):
        self.bound: list[_BoundEdit] = []
        self.handle = module.register_forward_hook(self, prepend=True)

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: object) -> object:
        for bound in self.bound:
            if bound.thread == threading.get_ident():
                output = _apply_edit(bound, args, output)
        return output


def active(model: DPT) -> list[tuple[str, Edit]]:
    """Returns (point name, edit) for every edit that applies in this thread's passes, in the order of application."""
    thread = threading.get_ident()
    with _lock:
        bound = [b for chain in _chains.values() for b in chain.bound]
    return [(b.point.name, b.edit) for b in bound if b.thread == thread and b.model() is model]


@contextmanager
def edit(model: DPT, edits: Mapping[str, Edit | Function]) -> Iterator[None]:
    """Changes probe points in every forward pass inside the block, and restores the model afterwards.

    Args:
        model: The model to edit.
        edits: Maps a selector (point name, group or glob) to `scale(...)`, `zero(...)`, `replace(...)`, `skip()`,
            `apply(...)`, or to a function from a tensor to a tensor of the same shape.

    Raises:
        UnknownPointError: On entry, a selector matches no point.
        InvalidTypeError: On entry, edits is not a mapping, or one of its values is neither an edit nor a function.
        InvalidValueError: On entry, a point cannot be edited in that way. In a pass, a shape does not fit.
        OutOfRangeError: In a pass, an index lies outside the point's tensor.

    Example:
        >>> with probes.edit(model, {"fusion.2": probes.scale(0.0), "encoder.blocks.5.heads": probes.zero([0, 3])}):
        ...     changed = model.predict(image)
    """
    bound = _bind(model, edits)

    def begin(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        _set_grids(bound, model, args[0] if args else kwargs["x"])

    begin_hook = model.register_forward_pre_hook(begin, with_kwargs=True)
    try:
        with _lock:
            for b in bound:
                if b.point.module not in _chains:
                    _chains[b.point.module] = _Chain(b.point.module)
                _chains[b.point.module].bound.append(b)
        yield
    finally:
        begin_hook.remove()
        with _lock:
            for b in bound:
                chain = _chains.get(b.point.module)
                if chain is None or b not in chain.bound:
                    continue
                chain.bound.remove(b)
                if not chain.bound:
                    chain.handle.remove()
                    del _chains[b.point.module]


def _bind(model: DPT, edits: Mapping[str, Edit | Function]) -> list[_BoundEdit]:
    if not isinstance(edits, Mapping) or not edits:
        raise InvalidTypeError(
            'edits must map probe points to edits, e.g. {"fusion.2": probes.scale(0.0)}, '
            f"got {'an empty mapping' if isinstance(edits, Mapping) else type(edits).__name__}"
        )
    bound = []
    for selector, wanted in edits.items():
        if not isinstance(wanted, Edit) and not callable(wanted):
            raise InvalidTypeError(
                f"the edit of {selector!r} must be an Edit or a function, got {wanted!r}; e.g. probes.scale(0.5)"
            )
        action = wanted if isinstance(wanted, Edit) else apply(wanted)
        for point in select(model, (selector,)):
            _check(point, action)
            bound.append(_BoundEdit(point, action, weakref.ref(model), threading.get_ident()))
    return bound


def _axes(point: Point) -> tuple[str, ...]:
    """Names of the axes after the batch, as edits take them: "heads", "tokens", "channels", "rows", "cols"."""
    return tuple(f"{name}s" for name in point.axis_names)


def _check(point: Point, action: Edit) -> None:
    if point.write is None:
        raise InvalidValueError(f"Cannot edit {point.name}: it {point.why}. Edit {point.instead} instead.")
    if action.action == "skip" and point.group != "tokens":
        raise InvalidValueError(f"skip() works on encoder.blocks.N.tokens only, got {point.name}")
    axes = _axes(point)
    for axis in action.where or {}:
        if not axes:
            raise InvalidValueError(
                f"{point.name} is a registered module of unknown shape; edit the whole output, or use a function"
            )
        if axis != "first" and axis not in axes:
            raise InvalidValueError(f"{point.name} has no axis {axis}; its axes are {', '.join(axes)}")


def _set_grids(bound: list[_BoundEdit], model: DPT, x: Tensor) -> None:
    grid = model.grid_of(x)
    for b in bound:
        if b.thread == threading.get_ident():
            b.grid = b.point.grid(grid)


def _apply_edit(bound: _BoundEdit, args: tuple[Any, ...], output: object) -> object:
    """Returns the module's output with one point of it changed."""
    point, grid = bound.point, bound.grid
    assert grid is not None
    before = point.read(args, output, grid)
    if not isinstance(before, Tensor):
        raise InvalidTypeError(f"{point.name} must return one tensor to be edited, got {type(before).__name__}")
    after = args[0] if bound.edit.action == "skip" else _changed(point, bound.edit, before)
    if after is before:
        return output
    assert point.write is not None
    return point.write(output, after, grid)


def _changed(point: Point, action: Edit, x: Tensor) -> Tensor:
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
    names = ("batch", *_axes(point))
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
