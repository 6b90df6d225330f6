"""Edits change probe points while the model runs: scale, zero, replace, skip a block, or apply any function.

    with probes.edit(model, {"fusion.2": probes.scale(0.0), "encoder.blocks.5.heads": probes.zero([0, 3])}):
        changed = model.predict(image)

Problem: an ablation is only as good as its bookkeeping. A hook that stays behind, or that runs in an unexpected order,
silently corrupts every later result.

Approach: edits are plain data, bound to points by name. One hook per module applies them, ahead of all other hooks, so
captures record edited values however the blocks are nested. Edits of one point apply in the order of entry: outer
blocks first, then the order of the mapping. Tensors are never modified in place. Leaving the block restores the model,
also after an exception.

Edits affect the passes of the context that entered the block, as captures do: `passes` says which passes these are.
asyncio.to_thread and tasks that are created inside the block carry it along; a pass on another thread that does not
carry the block is not edited, and a warning says so. Gradient checkpointing repeats parts of an edited pass with the
same edits, also after the block was left (`recomputation`). Copies of the model are not edited.

Limits: attention weights exist only inside the fused kernel, and norms are computed from the tokens, so neither can be
edited. Edit heads and tokens instead.
"""

from __future__ import annotations

import dataclasses
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn

from dpt import DPT, TokenGrid

from .actions import Edit, Function, apply, axes_of, changed
from .errors import InvalidTypeError, InvalidValueError, UnavailableError
from .hooks import Hook, leave_out_of_copies
from .passes import Block, WithBlock, warn
from .recomputation import Repeatable, inside_checkpoint, remember
from .registry import Point, select

_FIRST = -(1 << 62)  # the number of `_apply_all` in a module's hooks; `hooks.Hooks` counts down from -1
_lock = threading.RLock()  # the garbage collector can close a block while its thread holds the lock
_edits: dict[
    int, weakref.ref[_EditBlock]
] = {}  # blocks whose edits act, by number; numbers follow the order of opening


@dataclass(frozen=True, eq=False)
class _EditedPass:
    """A pass that is edited.

    Attributes:
        grid: The patch grid of the input.
        remembers: Whether a checkpoint can be around an edited module, and so may repeat it during a backward pass.
        repeated: Whether this is such a repetition.
    """

    grid: TokenGrid
    remembers: bool
    repeated: bool = False


@dataclass(frozen=True, eq=False)
class _BoundEdit:
    """An edit at a point."""

    point: Point
    edit: Edit


class _EditBlock(Block[_EditedPass], Repeatable):
    """An open block of edits."""

    def __init__(self, model: DPT, bound: list[_BoundEdit]):
        super().__init__(model)
        self.bound = bound
        self.by_module: dict[nn.Module, list[_BoundEdit]] = {}
        for b in bound:
            self.by_module.setdefault(b.point.module, []).append(b)
        self._last: _EditedPass | None = None
        self._warned = False

    def start(self, x: Tensor) -> _EditedPass:
        model = self.model()
        assert model is not None
        inside = inside_checkpoint()
        run = self._last = _EditedPass(model.grid_of(x), remembers=inside or torch.is_grad_enabled())
        if inside:  # the whole pass will be repeated
            remember(self, run)
        return run

    def place_hooks(self) -> None:
        super().place_hooks()
        self._settle()

    def close(self) -> None:
        super().close()
        self._settle()

    def forget_passes(self) -> None:
        for thread, run in list(self.running.items()):
            if not run.repeated:
                self.running.pop(thread, None)

    def resume(self, thread: int, run: _EditedPass) -> _EditedPass | None:
        before = self.running.get(thread)
        self.running[thread] = dataclasses.replace(run, repeated=True)
        self._settle()
        return before

    def suspend(self, thread: int, before: _EditedPass | None) -> None:
        if before is None:
            self.running.pop(thread, None)
        else:
            self.running[thread] = before
        self._settle()

    def is_repeated(self, thread: int) -> bool:
        run = self.running.get(thread)
        return run is not None and run.repeated

    def missed(self, where: str) -> None:
        super().missed(where)
        if self._warned:
            return
        self._warned = True
        warn(
            f"A pass of the model inside probes.edit(model, {{{self.bound[0].point.name!r}: ...}}) ran {where} and was "
            "not edited. asyncio.to_thread carries edits to its thread. For other threads, call probes.edit in the "
            "function that runs there, or run that function with contextvars.copy_context().run"
        )

    def run_of(self, point: Point) -> _EditedPass | None:
        """The pass that a point fires in; None if it does not belong to the block."""
        run = self.running.get(threading.get_ident())
        if run is not None and run.repeated:
            return run
        if not self.carried():
            return None
        run = run or self._last  # a module that is called by itself, after a pass
        if run is None:
            raise UnavailableError(
                f"The module of {point.name} was called by itself inside probes.edit, before any pass of the model, so "
                "its token grid is unknown. Call model(x) or model.predict(image) first, or leave the edit block."
            )
        return run

    def _settle(self) -> None:
        """Places or removes the hook that applies edits on each module of the block, as the open blocks need it."""
        with _lock:
            if not self.closed or any(run.repeated for run in list(self.running.values())):
                _edits[self.number] = weakref.ref(self)
            else:
                _edits.pop(self.number, None)
            needed = {module for block in _acting() for module in block.by_module}
            for module in self.by_module:
                if module in needed:
                    leave_out_of_copies(type(module))
                    module._forward_hooks[_FIRST] = _apply_all
                    module._forward_hooks.move_to_end(_FIRST, last=False)  # type: ignore[attr-defined]
                else:
                    module._forward_hooks.pop(_FIRST, None)


class _ApplyAll(Hook):
    """The one hook of an edited module. It applies the edits of all blocks, ahead of all other hooks."""

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: object) -> object:
        for block in _acting():
            for bound in block.by_module.get(module, ()):
                run = block.run_of(bound.point)
                if run is None:
                    break
                if run.remembers:
                    remember(block, run)
                output = _apply_edit(bound, args, output, bound.point.grid(run.grid))
        return output


_apply_all = _ApplyAll()


def _acting() -> list[_EditBlock]:
    """The blocks whose edits act, in the order of opening."""
    blocks = (reference() for _, reference in sorted(_edits.items(), key=itemgetter(0)))
    return [block for block in blocks if block is not None]


def active(model: DPT) -> list[tuple[str, Edit]]:
    """Returns (point name, edit) for every edit that applies to a pass that starts now, in the order of application."""
    return [
        (b.point.name, b.edit) for block in _acting() if block.model() is model and block.carried() for b in block.bound
    ]


class EditBlock(WithBlock[None]):
    """The with statement of `edit`."""

    call = "probes.edit(...)"
    gives = "with probes.edit(model, edits): model.predict(image)"

    def __init__(self, model: DPT, edits: Mapping[str, Edit | Function]):
        super().__init__()
        self._model, self._edits = model, edits

    def _opened(self) -> tuple[_EditBlock, None]:
        return _EditBlock(self._model, _bind(self._model, self._edits)), None

    def _recreate_cm(self) -> EditBlock:
        return EditBlock(self._model, self._edits)


def edit(model: DPT, edits: Mapping[str, Edit | Function]) -> EditBlock:
    """Changes probe points in every forward pass inside the block, and restores the model afterwards.

    Used in a with block, or as a decorator of a function.

    Args:
        model: The model to edit.
        edits: Maps a selector (point name, group or glob) to `scale(...)`, `zero(...)`, `replace(...)`, `skip()`,
            `apply(...)`, or to a function from a tensor to a tensor of the same shape.

    Raises:
        UnknownPointError: On entry, a selector matches no point.
        InvalidTypeError: On entry, edits is not a mapping, or one of its values is neither an edit nor a function.
        InvalidValueError: On entry, a point cannot be edited in that way. In a pass, a shape does not fit.
        OutOfRangeError: In a pass, an index lies outside the point's tensor.
        UnavailableError: The object is used outside a with block, or a second time.

    Warns:
        ProbeWarning: A pass of the model ran on a thread to which the block's context was not carried, or the object
            was never entered. See the module docstring.

    Example:
        >>> with probes.edit(model, {"fusion.2": probes.scale(0.0), "encoder.blocks.5.heads": probes.zero([0, 3])}):
        ...     changed = model.predict(image)
    """
    return EditBlock(model, edits)


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
            bound.append(_BoundEdit(point, action))
    return bound


def _check(point: Point, action: Edit) -> None:
    if point.write is None:
        raise InvalidValueError(f"Cannot edit {point.name}: it {point.why}. Edit {point.instead} instead.")
    if action.action == "replace" and action.value is None:
        raise UnavailableError(f"The tensor that replaced {point.name} was not stored. Use probes.replace(tensor).")
    if action.action == "skip" and point.group != "tokens":
        raise InvalidValueError(f"skip() works on encoder.blocks.N.tokens only, got {point.name}")
    axes = axes_of(point)
    for axis in action.where or {}:
        if not axes:
            raise InvalidValueError(
                f"{point.name} is a registered module of unknown shape; edit the whole output, or use a function"
            )
        if axis != "first" and axis not in axes:
            raise InvalidValueError(f"{point.name} has no axis {axis}; its axes are {', '.join(axes)}")


def _apply_edit(bound: _BoundEdit, args: tuple[Any, ...], output: object, grid: TokenGrid) -> object:
    """Returns the module's output with one point of it changed."""
    point = bound.point
    before = point.read(args, output, grid)
    if not isinstance(before, Tensor):
        raise InvalidTypeError(f"{point.name} must return one tensor to be edited, got {type(before).__name__}")
    after = args[0] if bound.edit.action == "skip" else changed(point, bound.edit, before)
    if after is before:
        return output
    assert point.write is not None
    return point.write(output, after, grid)
