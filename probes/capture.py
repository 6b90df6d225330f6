"""Captures record the values of a model's probe points during a forward pass.

Hooks are registered on entering the block and removed on leaving it, also after an exception. Other hooks are not
touched. A capture keeps tensors by reference: it copies nothing and costs almost nothing, and the model's output is
bit-identical with and without it. Each forward pass inside the block starts a new record, so values of two passes never
mix. A selected point that does not fire is an error, because a missing value could pass for a result.

A capture records the passes of the context that entered the block: `passes` says which these are. asyncio.to_thread
carries it to another thread. A widget's handler, another asyncio task or a pool may run the same model meanwhile. What
gradient checkpointing repeats during a backward pass is not a pass.

Limit: a tensor kept by reference keeps its whole storage alive. Queries and keys are views of one block's qkv product,
so the values, a third of that storage, stay in memory too. Use dtype= or device= to make compact copies.
"""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dpt import DPT, TokenGrid

from .actions import Edit
from .attention import AttentionMaps
from .captured import Capture, Setting, Value
from .edit import active as active_edits
from .errors import (
    InvalidTypeError,
    InvalidValueError,
    UnavailableError,
)
from .hooks import Hook
from .narrowed import Narrowed, checked_device, checked_dtype
from .passes import Block, WithBlock
from .recomputation import backward_number, unseen_by_checkpoints
from .registry import Point, names, select, unknown_point


class _Stop(Exception):
    """Control flow: ends a forward pass at stop_after. The capture that raised it also catches it."""

    def __init__(self, capture: Capture):
        super().__init__()
        self.capture = capture


@dataclass(eq=False)
class _Record:
    """What a capture records of one pass."""

    setting: Setting
    edits: list[tuple[str, Edit]]
    backward: int  # the backward pass around the forward pass, see `recomputation`
    narrowed: Narrowed
    values: dict[str, Value] = field(default_factory=dict)
    grids: dict[str, TokenGrid] = field(default_factory=dict)


class _Recording(Block[_Record]):
    """An open capture."""

    def __init__(
        self,
        model: DPT,
        points: list[Point],
        last: Point | None,
        convert: tuple[torch.dtype | None, torch.device | str | None],
    ):
        super().__init__(model)
        self.capture = Capture([point.name for point in points])
        self._points, self._last, self._convert = points, last, convert

    def place_hooks(self) -> None:
        super().place_hooks()
        for point in self._points:
            self._place(point, _Fired(self, point))
        model = self.model()
        assert model is not None
        self.hooks.after(model, _Finished(self))
        if self._last is not None:
            self._place(self._last, _Last(self))

    def _place(self, point: Point, hook: Hook) -> None:
        if point.before:
            self.hooks.before(point.module, hook)
        else:
            self.hooks.after(point.module, hook)

    def start(self, x: Tensor) -> _Record | None:
        if backward_number() != -1:  # a checkpoint of the whole model repeats it
            return None
        cap, model = self.capture, self.model()
        assert model is not None
        # Values of an earlier pass must not pass for values of this one if it fails.
        cap._values, cap._finished = {}, False
        cap._edits = active_edits(model)
        cap._setting = Setting(model.grid_of(x), (x.shape[-2], x.shape[-1]), len(x))
        return _Record(cap._setting, cap._edits, backward_number(), Narrowed(*self._convert))

    def record(self, point: Point, args: tuple[Any, ...], output: object) -> None:
        """Records the value of a point, if it fires in a pass of this capture."""
        record = self.running_here()
        if record is None:
            return
        if point.name in record.values:
            if not self._is_running():
                return  # the module was called by itself, after an exception ended a pass
            raise InvalidValueError(f"{point.name} fired twice in one forward pass. Register a module that runs once.")
        grid = record.grids[point.name] = point.grid(record.setting.grid)
        with unseen_by_checkpoints():  # a repetition reads nothing
            value = point.read(args, output, grid)
            if point.group == "attention":
                value = _maps(point, value, grid)  # type: ignore[arg-type]
            elif not isinstance(value, Tensor):
                raise InvalidTypeError(f"{point.name} must return one tensor, got {type(value).__name__}")
            record.values[point.name] = _converted(value, point.name, record.narrowed)

    def finish(self) -> bool:
        """Makes the values of the pass those of the capture. Returns False if the pass is not one of this capture."""
        record = self.running_here()
        if record is None:
            return False
        self.running.pop(threading.get_ident(), None)
        record.narrowed.check("dtype")
        cap = self.capture
        cap._values, cap._grids, cap._setting, cap._edits = record.values, record.grids, record.setting, record.edits
        cap._finished = True
        return True

    def running_here(self) -> _Record | None:
        """The record of the pass that runs in this thread. Repetitions of a part of it do not count."""
        record = self.running.get(threading.get_ident())
        if record is None or record.backward != backward_number() or not self.carried():
            return None
        return record

    def _is_running(self) -> bool:
        """Whether the caller is inside a call of the model."""
        model, frame = self.model(), sys._getframe(1).f_back
        while frame is not None:
            if frame.f_code.co_name == "_call_impl" and frame.f_locals.get("self") is model:
                return True
            frame = frame.f_back
        return False


class _Fired(Hook):
    """Records the value of one point."""

    def __init__(self, recording: _Recording, point: Point):
        self.recording, self.point = recording, point

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: object = None) -> None:
        if module is self.point.module:
            self.recording.record(self.point, args, output)


class _Finished(Hook):
    """Ends the record of a pass."""

    def __init__(self, recording: _Recording):
        self.recording = recording

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        if module is self.recording.model():
            self.recording.finish()


class _Last(Hook):
    """Ends a pass at stop_after."""

    def __init__(self, recording: _Recording):
        self.recording = recording

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: object = None) -> None:
        if self.recording.finish():
            raise _Stop(self.recording.capture)


class CaptureBlock(WithBlock[Capture]):
    """The with statement of `capture`."""

    call = "probes.capture(...)"
    gives = "with probes.capture(model, ...) as cap: model.predict(image). Its values are then in cap"

    def __init__(
        self,
        model: DPT,
        selectors: tuple[str, ...],
        dtype: torch.dtype | None,
        device: torch.device | str | None,
        stop_after: str | None,
    ):
        super().__init__()
        self._arguments = (model, selectors, dtype, device, stop_after)

    def _opened(self) -> tuple[_Recording, Capture]:
        model, selectors, dtype, device, stop_after = self._arguments
        points = select(model, selectors)
        last = _checked_stop(model, points, stop_after)
        recording = _Recording(model, points, last, (checked_dtype(dtype), checked_device(device)))
        return recording, recording.capture

    def _recreate_cm(self) -> CaptureBlock:
        return CaptureBlock(*self._arguments)

    def _left(self, error: BaseException | None) -> bool:
        assert isinstance(self._block, _Recording)
        cap = self._block.capture
        if error is not None and not (isinstance(error, _Stop) and error.capture is cap):
            return False
        _check_fired(cap, self._block.elsewhere)
        return error is not None


def capture(
    model: DPT,
    *selectors: str,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    stop_after: str | None = None,
) -> CaptureBlock:
    """Records probe points in every forward pass inside the block. The pass that finished last remains.

    Used in a with block, which binds the `Capture`. It has values after each finished pass.

    Args:
        model: The model to observe.
        *selectors: Group names ("attention", "norms"), exact names, or globs ("fusion.*"). `probes.names` lists all.
        dtype: Convert captured tensors to this floating-point type at once, e.g. float16.
        device: Copy captured tensors to this device at once, e.g. "cpu" for a model on a GPU. Without dtype and device
            the capture keeps the model's own tensors by reference.
        stop_after: Name of a point. The pass ends there, and the block with it: no code after the model's call runs.

    Raises:
        UnknownPointError: On entry, a selector or stop_after matches no point.
        InvalidValueError: On entry, there are no selectors, a selected point lies after stop_after, or this machine has
            no such device. In a pass, a registered module runs twice, or finite values become infinite in dtype.
        InvalidTypeError: On entry, dtype is not a floating-point type, device is not a device, or stop_after is not a
            name. In a pass, a registered module does not return one tensor.
        UnavailableError: On exit, no forward pass of this context finished, or a selected point did not fire. Also if
            the object is used outside a with block, or a second time.

    Exceptions from inside the block propagate unchanged.

    Example:
        >>> with probes.capture(model, "attention", "fusion.*", dtype=torch.float16) as cap:
        ...     model.predict(image)
        >>> cap["fusion.0"].shape  # (B, C, h, w)
    """
    return CaptureBlock(model, selectors, dtype, device, stop_after)


def _maps(point: Point, arguments: tuple[Any, ...], grid: TokenGrid) -> AttentionMaps:
    """Attention maps from the arguments of `Attend`: queries, keys, values and optionally a bias."""
    q, k, _, *bias = arguments
    scale: float = point.module.scale  # type: ignore[assignment]
    return AttentionMaps(q, k, scale, grid, bias[0] if bias else None, point.name)


def _checked_stop(model: DPT, points: list[Point], stop_after: object) -> Point | None:
    """The point of stop_after; an error if a selected point lies after it."""
    if stop_after is None:
        return None
    if not isinstance(stop_after, str):
        raise InvalidTypeError(f"stop_after must be the name of a point, e.g. 'fusion.3', got {stop_after!r}")
    table = names(model)
    if stop_after not in table:
        raise unknown_point(stop_after, table, argument="stop_after")
    last = table[stop_after]
    order = list(table)
    # A point that is read before its module runs stops the pass before the module's output. A point that is read after
    # it leaves the other points of the same module recorded.
    late = [
        point.name
        for point in points
        if order.index(point.name) > order.index(stop_after) and (last.before or point.module is not last.module)
    ]
    if late:
        raise InvalidValueError(
            f"stop_after={stop_after!r} ends the pass before {len(late)} of the selected points: "
            f"{', '.join(late[:4])}. Stop later, or select fewer points."
        )
    return last


def _check_fired(cap: Capture, elsewhere: str) -> None:
    if not cap._finished:
        if elsewhere:
            raise UnavailableError(
                f"No forward pass of the context of this capture finished. A pass of the model ran {elsewhere}. "
                "asyncio.to_thread carries a capture to its thread. For other threads, call probes.capture in the "
                "function that runs there, or run that function with contextvars.copy_context().run"
            )
        raise UnavailableError(
            "No forward pass of the model finished in this capture. Call model(x) or model.predict(image) inside the "
            "with block, with the same model."
        )
    silent = [name for name in cap._wanted if name not in cap._values]
    if silent:
        raise UnavailableError(
            f"{len(silent)} of {len(cap._wanted)} points did not fire: {', '.join(silent[:4])}. Their modules did not "
            "run in the forward pass, or are compiled; compiled modules do not run hooks."
        )


def _converted(value: Value, name: str, narrowed: Narrowed) -> Value:
    if narrowed.dtype is None and narrowed.device is None:
        return value
    if isinstance(value, Tensor):
        return narrowed(value, name)
    return value.converted(narrowed)
