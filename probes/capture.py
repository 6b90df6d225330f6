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

import os
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dpt import DPT, TokenGrid
from dpt.attention import OffsetBias

from . import capture_file
from .attention import AttentionMaps
from .edit import Edit
from .edit import active as active_edits
from .errors import (
    InvalidTypeError,
    InvalidValueError,
    UnavailableError,
    UnknownKeyError,
)
from .hooks import Hook
from .narrowed import Narrowed, checked_device, checked_dtype
from .passes import Block, WithBlock
from .recomputation import backward_number, unseen_by_checkpoints
from .registry import Point, names, select, unknown_point

Value = Tensor | AttentionMaps


class NotCaptured(UnknownKeyError):
    """The capture has no value for this name."""


@dataclass(frozen=True)
class Setting:
    """The input of a forward pass: its patch grid, its size (height, width) in pixels, and the number of images."""

    grid: TokenGrid
    input_size: tuple[int, int]
    batch: int


class Capture(Mapping[str, Any]):
    """The recorded values of one forward pass, by point name, in forward order.

    Values are `AttentionMaps` for attention points and tensors for all others. `capture` and `load` create captures.

    Args:
        wanted: Names of the points to record, in forward order.

    Example:
        >>> with probes.capture(model, "attention", "norms") as cap:
        ...     model.predict(image)
        >>> cap["encoder.blocks.7.norms"]  # tensor (B, tokens)
        >>> cap.grid_of("encoder.blocks.7.norms").rows
    """

    def __init__(self, wanted: list[str]):
        self._wanted = wanted
        self._values: dict[str, Value] = {}
        self._grids: dict[str, TokenGrid] = {}
        self._edits: list[tuple[str, Edit]] = []
        self._setting: Setting | None = None
        self._finished = False

    @property
    def setting(self) -> Setting:
        """The input of the recorded pass.

        Raises:
            UnavailableError: No forward pass has started in the capture.
        """
        if self._setting is None:
            raise UnavailableError(
                "The capture is empty: no forward pass has started. Call model.predict(image) inside its block."
            )
        return self._setting

    @property
    def grid(self) -> TokenGrid:
        """The grid of the image's patches."""
        return self.setting.grid

    def grid_of(self, name: str) -> TokenGrid:
        """Returns the token grid of one captured point. SwinV2 has coarser grids in later stages.

        Raises:
            NotCaptured: The capture has no value for this name.
        """
        self[name]
        return self._grids[name]

    @property
    def edits(self) -> list[tuple[str, Edit]]:
        """The edits that were active in the pass, as (point name, edit), in order of application. See `probes.edit`."""
        return list(self._edits)

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the model's input in pixels."""
        return self.setting.input_size

    @property
    def batch(self) -> int:
        """Number of images in the pass."""
        return self.setting.batch

    def __getitem__(self, name: str) -> Any:  # AttentionMaps or Tensor: the caller knows which it captured
        if name in self._values and self._finished:
            return self._values[name]
        if name not in self._wanted:
            points = ", ".join(self._wanted[:4]) + (", ..." if len(self._wanted) > 4 else "")
            raise NotCaptured(f"{name!r} was not captured. Captured points: {points}")
        if not self._finished:
            raise NotCaptured(f"{name!r} has no value yet: no forward pass has finished in this capture.")
        raise NotCaptured(f"{name!r} did not fire in the last forward pass.")

    def __contains__(self, name: object) -> bool:
        return self._finished and name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter([name for name in self._wanted if name in self])

    def __len__(self) -> int:
        return len(self._values) if self._finished else 0

    @property
    def nbytes(self) -> int:
        """Memory in bytes that the captured tensors keep alive. Shared storage counts once."""
        storages = {}
        for value in self._values.values():
            for tensor in _tensors(value).values():
                storage = tensor.untyped_storage()
                storages[(str(tensor.device), storage.data_ptr())] = storage.nbytes()
        return sum(storages.values())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the capture to one safetensors file. `probes.load` reads it back; any safetensors reader can too.

        The file is complete or does not appear. It holds checksums, which `probes.load` compares.

        Args:
            path: The file to write. An existing file is replaced.

        Raises:
            UnavailableError: No forward pass has finished in the capture.
            OSError: The file cannot be written.
        """
        if not self._finished:
            raise UnavailableError(
                "Cannot save an empty capture: no forward pass finished. Call model.predict(image) inside its block."
            )
        tensors: dict[str, Tensor] = {}
        points: dict[str, dict[str, object]] = {}
        for name, value in self.items():
            points[name] = {"kind": "tensor", "grid": asdict(self.grid_of(name))}
            if isinstance(value, AttentionMaps):
                points[name] |= {"kind": "attention", "scale": value.scale}
            for part, tensor in _tensors(value).items():
                # safetensors refuses tensors that share storage, so each view becomes a tensor of its own.
                tensors[f"{name}{part}"] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        about = {"grid": asdict(self.grid), "input_size": self.input_size, "batch": self.batch, "points": points}
        about["edits"] = [[name, edit.to_json()] for name, edit in self._edits]
        for number, (_, edit) in enumerate(self._edits):
            if isinstance(edit.value, Tensor):
                tensors[f"edits/{number}"] = edit.value.detach().cpu().clone(memory_format=torch.contiguous_format)
        capture_file.write(Path(path).expanduser(), about, tensors)

    def __repr__(self) -> str:
        if not self._finished:
            return f"Capture({len(self._wanted)} points, no forward pass yet)"
        lines = [f"Capture of {self.batch} x {self.input_size} pixels, {self.nbytes / 2**20:.1f} MiB:"]
        for name, value in self.items():
            summary = repr(value) if isinstance(value, AttentionMaps) else f"{tuple(value.shape)} {value.dtype}"
            lines.append(f"  {name}: {summary}")
        return "\n".join(lines)


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


def _tensors(value: Value) -> dict[str, Tensor]:
    """The tensors of a value, by the suffix of their names in a file."""
    if isinstance(value, Tensor):
        return {"": value}
    parts: dict[str, Tensor | None] = {"/q": value.q, "/k": value.k}
    if isinstance(value.bias, OffsetBias):
        parts |= {f"/bias.{part}": getattr(value.bias, part) for part in ("table", "prefix", "bands")}
    else:
        parts["/bias"] = value.bias
    return {part: tensor for part, tensor in parts.items() if tensor is not None}


def load(path: str | os.PathLike[str]) -> Capture:
    """Reads a capture from a file that `Capture.save` wrote. No model is needed.

    Args:
        path: The file.

    Returns:
        The capture, with tensors on the CPU.

    Raises:
        MissingFileError: The file does not exist.
        IsAFolderError, IrregularFileError: The path leads to something else. Other OSErrors report an unreadable file.
        InvalidValueError: The file is not a capture, or is damaged.
    """
    path = Path(path).expanduser()
    about, tensors = capture_file.read(path)
    try:
        return _restored(about, tensors)
    except capture_file.Damage as damage:
        raise capture_file.damaged(path, str(damage)) from None
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise capture_file.damaged(path, "its description does not match its tensors") from error


def _restored(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Capture:
    capture_file.check_names(about["points"])
    capture_file.check_setting(about)
    cap = Capture(list(about["points"]))
    height, width = about["input_size"]
    cap._setting = Setting(TokenGrid(**about["grid"]), (height, width), about["batch"])
    edits = enumerate(about.get("edits", []))
    cap._edits = [(name, Edit.from_json(plain, tensors.get(f"edits/{number}"))) for number, (name, plain) in edits]
    capture_file.check_names([name for name, _ in cap._edits])
    for name, point in about["points"].items():
        capture_file.check_grid(point["grid"], about["grid"])
        grid = cap._grids[name] = TokenGrid(**point["grid"])
        if point["kind"] == "attention":
            capture_file.check_attention(name, tensors, point["scale"], cap.batch, grid)
            bias = tensors.get(f"{name}/bias")
            table, prefix, bands = (tensors.get(f"{name}/bias.{part}") for part in ("table", "prefix", "bands"))
            maps_bias = bias if table is None else OffsetBias(table, prefix, bands)
            q, k = tensors[f"{name}/q"], tensors[f"{name}/k"]
            cap._values[name] = AttentionMaps(q, k, float(point["scale"]), grid, maps_bias, name)
        elif point["kind"] == "tensor":
            capture_file.check_tensor(name, tensors[name], cap.batch, grid.tokens, grid.patches, cap.input_size)
            cap._values[name] = tensors[name]
        else:
            raise capture_file.Damage(f"unknown kind {point['kind']!r}")
    cap._finished = True
    return cap
