"""Captures record the values of a model's probe points during a forward pass.

Hooks are registered on entering the block and removed on leaving it, also after an exception. Other hooks are not
touched. A capture keeps tensors by reference: it copies nothing and costs almost nothing, and the model's output is
bit-identical with and without it. Each forward pass inside the block starts a new record, so values of two passes never
mix. A selected point that does not fire is an error, because a missing value could pass for a result. A capture records
only passes of the thread that entered the block; a widget's handler may run the same model in another thread.

Limit: a tensor kept by reference keeps its whole storage alive. Queries and keys are views of one block's qkv product,
so the values, a third of that storage, stay in memory too. Use dtype= or device= to make compact copies.
"""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dpt import DPT, TokenGrid
from dpt.attention import OffsetBias
from dpt.writing import replacing

from .attention import AttentionMaps
from .edit import Edit
from .edit import active as active_edits
from .errors import (
    InvalidTypeError,
    InvalidValueError,
    MissingFileError,
    UnavailableError,
    UnknownKeyError,
)
from .registry import Point, names, select, unknown_point

FORMAT = "dpt-workbench capture 1"
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

        The file is complete or does not appear.

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
        with replacing(Path(path).expanduser()) as temporary:
            save_file(tensors, temporary, metadata={"format": FORMAT, "capture": json.dumps(about)})

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


@contextmanager
def capture(
    model: DPT,
    *selectors: str,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    stop_after: str | None = None,
) -> Iterator[Capture]:
    """Records probe points in every forward pass inside the block. The last pass remains.

    Args:
        model: The model to observe.
        *selectors: Group names ("attention", "norms"), exact names, or globs ("fusion.*"). `probes.names` lists all.
        dtype: Convert captured tensors to this floating-point type at once, e.g. float16.
        device: Copy captured tensors to this device at once, e.g. "cpu" for a model on a GPU. Without dtype and device
            the capture keeps the model's own tensors by reference.
        stop_after: Name of a point. The pass ends there, and the block with it: no code after the model's call runs.

    Yields:
        The capture. It has values after each finished pass.

    Raises:
        UnknownPointError: On entry, a selector or stop_after matches no point.
        InvalidValueError: On entry, there are no selectors, or a selected point lies after stop_after. In a pass, a
            registered module runs twice.
        InvalidTypeError: On entry, dtype is not a floating-point type. In a pass, a registered module does not return
            one tensor.
        UnavailableError: On exit, no forward pass finished, or a selected point did not fire.

    Exceptions from inside the block propagate unchanged.

    Example:
        >>> with probes.capture(model, "attention", "fusion.*", dtype=torch.float16) as cap:
        ...     model.predict(image)
        >>> cap["fusion.0"].shape  # (B, C, h, w)
    """
    points = select(model, selectors)
    last = _checked_stop(model, points, stop_after)
    cap = Capture([point.name for point in points])
    convert = _converter(dtype, device)
    thread = threading.get_ident()

    def begin(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if threading.get_ident() != thread:
            return
        cap._values.clear()
        cap._finished = False
        x = args[0] if args else kwargs["x"]
        cap._edits = active_edits(model)
        cap._setting = Setting(model.grid_of(x), tuple(x.shape[-2:]), len(x))

    def finish(*_: object) -> None:
        if threading.get_ident() == thread:
            cap._finished = True

    def end_here(*_: object) -> None:
        if threading.get_ident() == thread:
            cap._finished = True
            raise _Stop(cap)

    def record(point: Point, args: tuple[Any, ...], output: object) -> None:
        if threading.get_ident() != thread:
            return
        grid = cap._grids[point.name] = point.grid(cap.grid)
        value = point.read(args, output, grid)
        if point.group == "attention":
            value = _maps(point, value, grid)  # type: ignore[arg-type]
        elif not isinstance(value, Tensor):
            raise InvalidTypeError(f"{point.name} must return one tensor, got {type(value).__name__}")
        if point.name in cap._values:
            raise InvalidValueError(f"{point.name} fired twice in one forward pass. Register a module that runs once.")
        cap._values[point.name] = convert(value)

    handles = []
    try:
        handles.append(model.register_forward_pre_hook(begin, with_kwargs=True))
        handles += [_attach(point, record) for point in points]
        handles.append(model.register_forward_hook(finish))
        if last is not None:
            handles.append(_attach(last, end_here))
        yield cap
    except BaseException as error:
        if not cap._finished:
            cap._values.clear()  # an unfinished pass is not a result
        if not (isinstance(error, _Stop) and error.capture is cap):
            raise
    finally:
        for handle in handles:
            handle.remove()
    _check_fired(cap)


def _maps(point: Point, arguments: tuple[Any, ...], grid: TokenGrid) -> AttentionMaps:
    """Attention maps from the arguments of `Attend`: queries, keys, values and optionally a bias."""
    q, k, _, *bias = arguments
    scale: float = point.module.scale  # type: ignore[assignment]
    return AttentionMaps(q, k, scale, grid, bias[0] if bias else None, point.name)


def _attach(point: Point, call: Callable[[Point, tuple[Any, ...], object], None]) -> torch.utils.hooks.RemovableHandle:
    if point.before:
        return point.module.register_forward_pre_hook(lambda module, args: call(point, args, None))
    return point.module.register_forward_hook(lambda module, args, output: call(point, args, output))


def _checked_stop(model: DPT, points: list[Point], stop_after: str | None) -> Point | None:
    """The point of stop_after; an error if a selected point lies after it."""
    if stop_after is None:
        return None
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


def _check_fired(cap: Capture) -> None:
    if not cap._finished:
        raise UnavailableError(
            "No forward pass of the model finished in this capture. Call model(x) or model.predict(image) inside the "
            "with block, with the same model and on the same thread."
        )
    silent = [name for name in cap._wanted if name not in cap._values]
    if silent:
        raise UnavailableError(
            f"{len(silent)} of {len(cap._wanted)} points did not fire: {', '.join(silent[:4])}. Their modules did not "
            "run in the forward pass, or are compiled; compiled modules do not run hooks."
        )


def _converter(dtype: torch.dtype | None, device: torch.device | str | None) -> Callable[[Value], Value]:
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise InvalidTypeError(f"dtype must be a floating-point type, e.g. torch.float16, got {dtype!r}")
    if dtype is None and device is None:
        return lambda value: value
    return lambda value: value.to(device=device, dtype=dtype)


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
        MissingFileError: The file does not exist. Other OSErrors report a folder or a file without read permission.
        InvalidValueError: The file is not a capture, or is damaged.
    """
    path = Path(path).expanduser()
    try:
        open(path, "rb").close()  # safetensors reports an unreadable file as missing
    except FileNotFoundError:
        raise MissingFileError(errno.ENOENT, "No such capture file", str(path)) from None
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise InvalidValueError(
                    f"{path} is not a capture: expected the format {FORMAT!r}, got {metadata.get('format')!r}"
                )
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except safetensors.SafetensorError as error:
        raise InvalidValueError(
            f"{path} is damaged: it is not a complete safetensors file ({error}). Capture again."
        ) from error
    try:
        return _restored(json.loads(metadata["capture"]), tensors)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise InvalidValueError(
            f"{path} is damaged: its description does not match its tensors. Capture again."
        ) from error


def _restored(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Capture:
    cap = Capture(list(about["points"]))
    height, width = about["input_size"]
    cap._setting = Setting(TokenGrid(**about["grid"]), (height, width), about["batch"])
    edits = enumerate(about.get("edits", []))
    cap._edits = [(name, Edit.from_json(plain, tensors.get(f"edits/{number}"))) for number, (name, plain) in edits]
    for name, point in about["points"].items():
        grid = cap._grids[name] = TokenGrid(**point["grid"])
        if point["kind"] == "attention":
            bias = tensors.get(f"{name}/bias")
            table, prefix, bands = (tensors.get(f"{name}/bias.{part}") for part in ("table", "prefix", "bands"))
            maps_bias = bias if table is None else OffsetBias(table, prefix, bands)
            q, k = tensors[f"{name}/q"], tensors[f"{name}/k"]
            cap._values[name] = AttentionMaps(q, k, point["scale"], grid, maps_bias, name)
        else:
            cap._values[name] = tensors[name]
    cap._finished = True
    return cap
