"""Recording what passes a model's probe points.

Hooks are put on when the block is entered and taken off when it is left, however it is left; nobody else's hooks are
touched. Tensors are kept by reference: capturing copies nothing and computes next to nothing, so the model's output
is bit for bit what it is without. Each forward pass inside the block starts the capture afresh; values of two passes
never mix. A selected point that does not fire is an error, because silence would be read as a result. Only passes of
the thread that entered the block are recorded: a widget's handler may run the same model on another one meanwhile.

Limit: a tensor kept by reference keeps its storage. Queries and keys are views into one block's qkv product, so the
values, a third of that storage, stay with them; dtype= or device= makes compact copies.
"""

from __future__ import annotations

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
from .errors import InvalidTypeError, InvalidValueError, ProbeError
from .registry import Point, names, select, unknown_point

FORMAT = "dpt-workbench capture 1"
Value = Tensor | AttentionMaps


class NotCaptured(ProbeError, KeyError):
    """A name that a capture holds no value for."""

    def __str__(self) -> str:  # KeyError would show the message quoted
        return str(self.args[0])


@dataclass(frozen=True)
class Setting:
    """What a forward pass was run on."""

    grid: TokenGrid
    input_size: tuple[int, int]
    batch: int


class Capture(Mapping[str, Any]):
    """What one forward pass showed, by point name, in forward order: `AttentionMaps` for attention, else tensors."""

    def __init__(self, wanted: list[str]):
        self._wanted = wanted
        self._values: dict[str, Value] = {}
        self._grids: dict[str, TokenGrid] = {}
        self._edits: list[tuple[str, Edit]] = []
        self._setting: Setting | None = None
        self._finished = False

    @property
    def setting(self) -> Setting:
        if self._setting is None:
            raise InvalidValueError(
                "no forward pass has begun in this capture; call model.predict(image) inside its block"
            )
        return self._setting

    @property
    def grid(self) -> TokenGrid:
        """How the patches lie on the picture."""
        return self.setting.grid

    def grid_of(self, name: str) -> TokenGrid:
        """How the tokens of one captured point lie on the picture: SwinV2's stages have ever coarser grids."""
        self[name]
        return self._grids[name]

    @property
    def edits(self) -> list[tuple[str, Edit]]:
        """(point, edit) of everything that was changed in the pass, in order; see `probes.edit`."""
        return list(self._edits)

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the model's input in pixels."""
        return self.setting.input_size

    @property
    def batch(self) -> int:
        """How many pictures the pass was run on."""
        return self.setting.batch

    def __getitem__(self, name: str) -> Any:
        if name in self._values and self._finished:
            return self._values[name]
        if name not in self._wanted:
            asked = ", ".join(self._wanted[:4]) + (", ..." if len(self._wanted) > 4 else "")
            raise NotCaptured(f"{name!r} was not captured; captured were {asked}")
        if not self._finished:
            raise NotCaptured(f"{name!r} holds nothing: no forward pass of the model has finished in this capture")
        raise NotCaptured(f"{name!r} did not fire in the last forward pass")

    def __contains__(self, name: object) -> bool:
        return self._finished and name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter([name for name in self._wanted if name in self])

    def __len__(self) -> int:
        return len(self._values) if self._finished else 0

    @property
    def nbytes(self) -> int:
        """Memory that the captured tensors keep alive, storage shared between them counted once."""
        storages = {}
        for value in self._values.values():
            for tensor in _tensors(value).values():
                storage = tensor.untyped_storage()
                storages[(str(tensor.device), storage.data_ptr())] = storage.nbytes()
        return sum(storages.values())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the capture as one safetensors file, readable without this package; `probes.load` reads it back.

        The file appears whole or not at all. Raises OSError where it cannot be written.
        """
        if not self._finished:
            raise InvalidValueError("this capture is empty: no forward pass finished in it; there is nothing to save")
        tensors: dict[str, Tensor] = {}
        points: dict[str, dict[str, object]] = {}
        for name, value in self.items():
            points[name] = {"kind": "tensor", "grid": asdict(self.grid_of(name))}
            if isinstance(value, AttentionMaps):
                points[name] |= {"kind": "attention", "scale": value.scale}
            for part, tensor in _tensors(value).items():
                # Views of one storage are written as tensors of their own: safetensors refuses to guess.
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
            return f"Capture(of {len(self._wanted)} points, no forward pass yet)"
        lines = [f"Capture of {self.batch} x {self.input_size} pixels, {self.nbytes / 2**20:.1f} MiB:"]
        for name, value in self.items():
            what = repr(value) if isinstance(value, AttentionMaps) else f"{tuple(value.shape)} {value.dtype}"
            lines.append(f"  {name}: {what}")
        return "\n".join(lines)


class _Stop(Exception):
    """Ends a forward pass at stop_after; never leaves the capture that raised it."""

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
    """Records probe points of every forward pass inside the block; the last pass is what remains.

    selectors: group names ("attention", "norms"), exact names, or globs ("fusion.*"); `probes.names` lists all.
    dtype, device: convert captured tensors at once, e.g. to float16 on the CPU while the model is on a GPU. Default:
        keep the model's own tensors by reference.
    stop_after: the name of a point. The pass ends there, and the block with it: nothing after the model's call runs.

    Raises ProbeError on entering for a selector that names nothing or lies behind stop_after, and on leaving if no
    forward pass finished or a selected point did not fire. An exception inside the block comes through as it is.
    """
    points = select(model, selectors)
    last = _check_stop(model, points, stop_after)
    cap = Capture([point.name for point in points])
    convert = _converter(dtype, device)
    thread = threading.get_ident()

    def begin(module: nn.Module, args: tuple, kwargs: dict) -> None:
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

    def record(point: Point, args: tuple, output: object) -> None:
        if threading.get_ident() != thread:
            return
        grid = cap._grids[point.name] = point.grid(cap.grid)
        value = point.read(args, output, grid)
        if point.group == "attention":
            value = _maps(point, value, grid)  # type: ignore[arg-type]
        elif not isinstance(value, Tensor):
            raise InvalidValueError(f"{point.name} gave a {type(value).__name__}; a probe point must give one tensor")
        if point.name in cap._values:
            raise InvalidValueError(f"{point.name} fired twice in one forward pass; register a module that runs once")
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
            cap._values.clear()  # half a pass is not a result
        if not (isinstance(error, _Stop) and error.capture is cap):
            raise
    finally:
        for handle in handles:
            handle.remove()
    _check_fired(cap)


def _maps(point: Point, arguments: tuple, grid: TokenGrid) -> AttentionMaps:
    """From what `Attend` was called with: queries, keys, values and perhaps a bias."""
    q, k, _, *bias = arguments
    scale: float = point.module.scale  # type: ignore[assignment]
    return AttentionMaps(q, k, scale, grid, bias[0] if bias else None, point.name)


def _attach(point: Point, call: Callable) -> torch.utils.hooks.RemovableHandle:
    if point.before:
        return point.module.register_forward_pre_hook(lambda module, args: call(point, args, None))
    return point.module.register_forward_hook(lambda module, args, output: call(point, args, output))


def _check_stop(model: DPT, points: list[Point], stop_after: str | None) -> Point | None:
    if stop_after is None:
        return None
    table = names(model)
    if stop_after not in table:
        raise unknown_point(stop_after, table, argument="stop_after")
    last = table[stop_after]
    order = list(table)
    # A point read before its module runs ends the pass before that module's output; otherwise what the same module
    # shows is still reached.
    late = [
        point.name
        for point in points
        if order.index(point.name) > order.index(stop_after) and (last.before or point.module is not last.module)
    ]
    if late:
        raise InvalidValueError(
            f"stop_after={stop_after!r} ends the pass before {len(late)} of the selected points: "
            f"{', '.join(late[:4])}; stop later or select less"
        )
    return last


def _check_fired(cap: Capture) -> None:
    if not cap._finished:
        raise InvalidValueError(
            "no forward pass of the model finished in this capture; call model(x) or model.predict(image) inside the "
            "with block, with the same model and on the same thread"
        )
    silent = [name for name in cap._wanted if name not in cap._values]
    if silent:
        raise InvalidValueError(
            f"{len(silent)} of {len(cap._wanted)} points did not fire: {', '.join(silent[:4])}; their modules did not "
            "run in the model's forward pass (compiled modules do not run hooks)"
        )


def _converter(dtype: torch.dtype | None, device: torch.device | str | None) -> Callable[[Value], Value]:
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise InvalidTypeError(f"dtype is {dtype!r}; captures are floating point, e.g. torch.float16")
    if dtype is None and device is None:
        return lambda value: value
    return lambda value: value.to(device=device, dtype=dtype)


def _tensors(value: Value) -> dict[str, Tensor]:
    """The tensors behind a value, by the suffix under which they are saved."""
    if isinstance(value, Tensor):
        return {"": value}
    parts: dict[str, Tensor | None] = {"/q": value.q, "/k": value.k}
    if isinstance(value.bias, OffsetBias):
        parts |= {f"/bias.{part}": getattr(value.bias, part) for part in ("table", "prefix", "bands")}
    else:
        parts["/bias"] = value.bias
    return {part: tensor for part, tensor in parts.items() if tensor is not None}


def load(path: str | os.PathLike[str]) -> Capture:
    """Reads a capture that `Capture.save` wrote; no model is needed.

    Raises FileNotFoundError or another OSError where it cannot be read, ProbeError for what is no whole capture.
    """
    path = Path(path).expanduser()
    with open(path, "rb"):  # safetensors says "not found" of what may not be read
        pass
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise InvalidValueError(
                    f"{path} is not a capture (expected the format {FORMAT!r}); Capture.save writes one"
                )
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except safetensors.SafetensorError as error:
        raise InvalidValueError(f"{path} is not a complete capture file ({error}); capture again") from error
    try:
        return _restored(json.loads(metadata["capture"]), tensors)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise InvalidValueError(
            f"{path} is damaged: what it says of its tensors does not fit; capture again"
        ) from error


def _restored(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Capture:
    cap = Capture(list(about["points"]))
    height, width = about["input_size"]
    cap._setting = Setting(TokenGrid(**about["grid"]), (height, width), about["batch"])
    edits = enumerate(about.get("edits", []))
    cap._edits = [(name, Edit.from_json(said, tensors.get(f"edits/{number}"))) for number, (name, said) in edits]
    for name, point in about["points"].items():
        grid = cap._grids[name] = TokenGrid(**point["grid"])
        if point["kind"] == "attention":
            bias = tensors.get(f"{name}/bias")
            table, prefix, bands = (tensors.get(f"{name}/bias.{part}") for part in ("table", "prefix", "bands"))
            whole = bias if table is None else OffsetBias(table, prefix, bands)
            q, k = tensors[f"{name}/q"], tensors[f"{name}/k"]
            cap._values[name] = AttentionMaps(q, k, point["scale"], grid, whole, name)
        else:
            cap._values[name] = tensors[name]
    cap._finished = True
    return cap
