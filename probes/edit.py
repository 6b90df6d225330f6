"""Changing what passes a model's probe points: scale, zero, replace, skip a block, or any function.

    with probes.edit(model, {"fusion.2": probes.scale(0.0), "encoder.blocks.5.heads": probes.zero([0, 3])}):
        changed = model.predict(image)

Problem: an ablation is only as good as its bookkeeping. A hook that stays behind, or that runs in another order than
one believes, makes every later picture wrong without a word.

Approach: edits are plain data, bound to points by name. They act on the output of the point's module, before anyone
who records it: captures see edited values, however the blocks are nested. Edits of one point are made in the order in
which they were asked for: those of an outer block first, within a block in the order of the mapping. Tensors are never
changed in place. On leaving, however the block is left, the model is as it was.

Only passes of the thread that entered the block are changed, as with captures. Attention weights exist only inside the
fused kernel and norms are read off the tokens, so neither can be edited; heads and tokens can.
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

from .errors import InvalidTypeError, InvalidValueError
from .registry import Point, select

Action = Literal["scale", "zero", "replace", "skip", "function"]
Items = int | Sequence[int]

# What the axes after the batch are called, by group.
AXES = {
    "patch_embed": ("tokens", "channels"),
    "heads": ("heads", "tokens", "channels"),
    "tokens": ("tokens", "channels"),
    "stages": ("tokens", "channels"),
    "reassembly": ("channels", "rows", "cols"),
    "fusion": ("channels", "rows", "cols"),
    "depth": ("rows", "cols"),
}


@dataclass(frozen=True, eq=False)
class Edit:
    """What is done to a tensor, and to which part of it. Made by `scale`, `zero`, `replace`, `skip` and `apply`.

    where: axis name ("heads", "tokens", "channels", or "first" for the first axis after the batch) -> indices.
    """

    action: Action
    factor: float | None = None
    value: Tensor | float | None = None
    function: Callable[[Tensor], Tensor] | None = None
    where: Mapping[str, tuple[int, ...]] | None = None

    def __repr__(self) -> str:
        said = {f.name: getattr(self, f.name) for f in fields(self)[1:]}
        if isinstance(self.value, Tensor):
            said["value"] = f"tensor of {tuple(self.value.shape)}"
        return f"{self.action}({', '.join(f'{name}={given}' for name, given in said.items() if given)})"

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` reads back; a tensor goes beside it, a function only by its name."""
        said: dict[str, Any] = {"action": self.action, "where": {k: list(v) for k, v in (self.where or {}).items()}}
        if self.factor is not None:
            said["factor"] = self.factor
        if isinstance(self.value, float):
            said["value"] = self.value
        if self.function is not None:
            said["function"] = getattr(self.function, "__qualname__", repr(self.function))
        return said

    @staticmethod
    def from_json(said: Mapping[str, Any], tensor: Tensor | None = None) -> Edit:
        """The edit again; one of a function can be read about but not made again."""
        function = None
        if said["action"] == "function":
            function = _lost(said["function"])
        where = {axis: tuple(numbers) for axis, numbers in said["where"].items()}
        value = said.get("value") if tensor is None else tensor
        return Edit(said["action"], said.get("factor"), value, function, where)


def _lost(name: str) -> Callable[[Tensor], Tensor]:
    def lost(x: Tensor) -> Tensor:
        raise InvalidValueError(
            f"the function {name} was not saved with this edit; give it again with probes.apply({name})"
        )

    lost.__qualname__ = name
    return lost


def scale(factor: float, items: Items | None = None, **where: Items) -> Edit:
    """Multiplies by a factor. scale(1.0) changes no bit.

    items: which heads of a `heads` point, tokens of `tokens`, `stages` and `patch_embed`, channels of a map; all if not
    given. heads=, tokens=, channels= choose by name, and together.
    """
    if isinstance(factor, bool) or not isinstance(factor, int | float):
        raise InvalidTypeError(f"factor is a number, not {factor!r}")
    return Edit("scale", factor=float(factor), where=_where(items, where))


def zero(items: Items | None = None, **where: Items) -> Edit:
    """Sets to zero; what is chosen as for `scale`."""
    return Edit("zero", where=_where(items, where))


def replace(value: Tensor | float, items: Items | None = None, **where: Items) -> Edit:
    """Puts a number or a tensor in place: of the shape of what is replaced, or one that broadcasts to it."""
    if not isinstance(value, Tensor | int | float) or isinstance(value, bool):
        raise InvalidTypeError(f"expected a tensor or a number to put in place, not {type(value).__name__}")
    return Edit("replace", value=value if isinstance(value, Tensor) else float(value), where=_where(items, where))


def skip() -> Edit:
    """Leaves a whole block out: its input passes on as it is. For `encoder.blocks.{i}.tokens`."""
    return Edit("skip")


def apply(function: Callable[[Tensor], Tensor], items: Items | None = None, **where: Items) -> Edit:
    """Any function from a tensor to one of the same shape. It gets a tensor it must not change in place."""
    if not callable(function):
        raise InvalidTypeError(f"expected a function from tensor to tensor, not {type(function).__name__}")
    return Edit("function", function=function, where=_where(items, where))


def _where(items: Items | None, named: Mapping[str, Items]) -> dict[str, tuple[int, ...]]:
    known = ("heads", "tokens", "channels")
    if unknown := set(named) - set(known):
        raise InvalidTypeError(f"an edit is bound by {', '.join(known)}, not by {', '.join(sorted(unknown))}")
    chosen = {"first": items} if items is not None else {}
    found = {}
    for axis, given in {**chosen, **named}.items():
        numbers = [given] if isinstance(given, int) else list(given)
        if not numbers or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in numbers):
            raise InvalidValueError(f"{'items' if axis == 'first' else axis} are whole numbers from 0, not {given!r}")
        found[axis] = tuple(numbers)
    return found


# Modules under edit, each with the one hook that makes all its edits. Weak keys: an edit keeps no model alive.
_chains: weakref.WeakKeyDictionary[nn.Module, _Chain] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


@dataclass(eq=False)
class _Bound:
    """An edit at a point, made in passes of one thread."""

    point: Point
    edit: Edit
    model: weakref.ref[DPT]
    thread: int
    grid: TokenGrid | None = None  # the patch grid of the pass under way


class _Chain:
    """The edits of one module in order, made by one hook in front of everybody else's."""

    def __init__(self, module: nn.Module):
        self.bound: list[_Bound] = []
        self.handle = module.register_forward_hook(self, prepend=True)

    def __call__(self, module: nn.Module, args: tuple, output: Any) -> Any:
        for bound in self.bound:
            if bound.thread == threading.get_ident():
                output = _edited(bound, args, output)
        return output


def active(model: DPT) -> list[tuple[str, Edit]]:
    """(point, edit) of every edit that passes of this thread go through, in the order in which they are made."""
    thread = threading.get_ident()
    with _lock:
        bound = [b for chain in _chains.values() for b in chain.bound]
    return [(b.point.name, b.edit) for b in bound if b.thread == thread and b.model() is model]


@contextmanager
def edit(model: DPT, edits: Mapping[str, Edit | Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """Changes probe points in every forward pass inside the block.

    edits: selector (name, group or glob) -> `scale(...)`, `zero(...)`, `replace(...)`, `skip()`, or a function from a
    tensor to one of the same shape.

    Raises ProbeError on entering for points that cannot be edited, and in the pass for indices or shapes that do not
    fit. An exception inside the block comes through as it is; the model is restored all the same.
    """
    bound = _bind(model, edits)

    def begin(module: nn.Module, args: tuple, kwargs: dict) -> None:
        _note_grid(bound, model, args[0] if args else kwargs["x"])

    watch = model.register_forward_pre_hook(begin, with_kwargs=True)
    try:
        with _lock:
            for b in bound:
                if b.point.module not in _chains:
                    _chains[b.point.module] = _Chain(b.point.module)
                _chains[b.point.module].bound.append(b)
        yield
    finally:
        watch.remove()
        with _lock:
            for b in bound:
                chain = _chains.get(b.point.module)
                if chain is None or b not in chain.bound:
                    continue
                chain.bound.remove(b)
                if not chain.bound:
                    chain.handle.remove()
                    del _chains[b.point.module]


def _bind(model: DPT, edits: Mapping[str, Edit | Callable[[Tensor], Tensor]]) -> list[_Bound]:
    if not isinstance(edits, Mapping) or not edits:
        raise InvalidTypeError('edits map probe points to what is done there, e.g. {"fusion.2": probes.scale(0.0)}')
    bound = []
    for selector, wanted in edits.items():
        action = wanted if isinstance(wanted, Edit) else apply(wanted)
        for point in select(model, (selector,)):
            _check(point, action)
            bound.append(_Bound(point, action, weakref.ref(model), threading.get_ident()))
    return bound


def _check(point: Point, action: Edit) -> None:
    if point.group in ("attention", "norms"):
        other = "heads" if point.group == "attention" else "tokens"
        instead = f"{point.name.rpartition('.')[0]}.{other}"
        why = "is computed inside the fused kernel" if point.group == "attention" else "is read off the tokens"
        raise InvalidValueError(f"{point.name} {why} and cannot be edited; edit {instead}")
    if action.action == "skip" and point.group != "tokens":
        raise InvalidValueError(
            f"skip() leaves out a block, and {point.name} is none; use it on encoder.blocks.N.tokens"
        )
    axes = AXES.get(point.group)
    for axis in action.where or {}:
        if axes is None:
            raise InvalidValueError(
                f"{point.name} is a module of your own, of any shape; edit it as a whole, or by a function"
            )
        if axis != "first" and axis not in axes:
            raise InvalidValueError(f"{point.name} has no {axis}; it has {', '.join(axes)}")


def _note_grid(bound: list[_Bound], model: DPT, x: Tensor) -> None:
    grid = model.grid_of(x)
    for b in bound:
        if b.thread == threading.get_ident():
            b.grid = b.point.grid(grid)


def _edited(bound: _Bound, args: tuple, output: Any) -> Any:
    """The module's output with one point of it changed."""
    point, grid = bound.point, bound.grid
    assert grid is not None
    before = point.read(args, output, grid)
    if not isinstance(before, Tensor):
        raise InvalidValueError(f"{point.name} gave a {type(before).__name__}; an edit needs one tensor")
    after = args[0] if bound.edit.action == "skip" else _changed(point, bound.edit, before)
    return output if after is before else point.write(output, after, grid)


def _changed(point: Point, action: Edit, x: Tensor) -> Tensor:
    if action.action == "scale" and action.factor == 1.0:
        return x
    index = _index(point, action, x)
    part = x if index is None else x[index]
    new = _new(point, action, part)
    if index is None:
        return new
    x = x.clone()
    x[index] = new
    return x


def _new(point: Point, action: Edit, part: Tensor) -> Tensor:
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
                f"the function at {point.name} returned {got}; expected a tensor of {tuple(part.shape)}"
            )
        return new.to(part)
    value = action.value
    value = value.to(part) if isinstance(value, Tensor) else part.new_tensor(value)
    try:
        return value.expand(part.shape).clone()
    except RuntimeError:
        raise InvalidValueError(
            f"the value for {point.name} is of shape {tuple(value.shape)}; expected {tuple(part.shape)}, or one that "
            "broadcasts to it"
        ) from None


def _index(point: Point, action: Edit, x: Tensor) -> tuple[Tensor, ...] | None:
    """Index tensors that choose the part under edit, one an axis; None for the whole."""
    if not action.where:
        return None
    names = ("batch", *AXES[point.group])
    ranges = [list(range(size)) for size in x.shape]
    for axis, wanted in action.where.items():
        at = 1 if axis == "first" else names.index(axis)
        if outside := [n for n in wanted if n >= x.shape[at]]:
            raise InvalidValueError(
                f"{point.name} has {x.shape[at]} {names[at]}, 0 to {x.shape[at] - 1}; {outside[0]} is none"
            )
        ranges[at] = list(wanted)
    return tuple(
        torch.tensor(numbers, device=x.device).view([-1 if i == at else 1 for i in range(x.ndim)])
        for at, numbers in enumerate(ranges)
    )
