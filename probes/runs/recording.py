"""What a run keeps of each picture: the values of probe points, and attention reduced as it passes.

    "norms", "fusion.*", "depth"         probe points, as for `probes.capture`
    "attention"                          queries and keys: every row can be had later, and the explorer opens them
    "attention.entropy"                  (heads, tokens) entropy of each token's row, in nats
    "attention.mean"                     (heads, tokens) attention that each token receives, over all queries
    "attention.statistics"               (heads, 5) figures of each head, as `AttentionMaps.statistics` has them
    "attention.rows", "attention.columns"    (heads, chosen tokens, tokens); `tokens=` chooses
    "encoder.blocks.3.attention.entropy"     the same of one block; globs work before the last dot

Queries and keys are kept in float16 unless another dtype is asked for, everything else as the model computed it
(bfloat16 as float32, which holds every value of it). Each head's mean key is taken off the keys before they are
rounded: that changes no row, and the rounding errors of a row fall several times.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dpt import DPT, TokenGrid
from dpt.attention import OffsetBias

from ..attention import AttentionMaps
from ..capture import capture
from ..errors import InvalidTypeError, InvalidValueError
from ..registry import Point, names, select, suggestion
from .parts import Array

REDUCTIONS = ("entropy", "mean", "statistics", "rows", "columns")
CHOSEN = ("rows", "columns")  # of chosen tokens
FIGURES = ("entropy", "peak", "prefix", "itself", "distance")
BIAS_PARTS = ("table", "prefix", "bands")
# Names of the axes after the pictures.
AXES = {
    "patch_embed": ("token", "channel"),
    "heads": ("head", "token", "channel"),
    "tokens": ("token", "channel"),
    "norms": ("token",),
    "stages": ("token", "channel"),
    "reassembly": ("channel", "row", "col"),
    "fusion": ("channel", "row", "col"),
    "depth": ("row", "col"),
    "entropy": ("head", "token"),
    "mean": ("head", "token"),
    "statistics": ("head", "figure"),
    "rows": ("head", "query", "token"),
    "columns": ("head", "key", "token"),
    "q": ("window", "head", "token", "channel"),
}

Token = int | tuple[int, int]


@dataclass(frozen=True)
class Wanted:
    """One thing to keep: a point's value, or a reduction of its attention."""

    point: Point
    reduction: str | None = None

    @property
    def name(self) -> str:
        return self.point.name if self.reduction is None else f"{self.point.name}.{self.reduction}"


class Recorder:
    """Runs a model on prepared pictures and gives what was selected, as arrays to store.

    dtype: of what is stored, float16, float32 or float64; None keeps what the model computed, and attention in float16.
    tokens: for "rows" and "columns": a token's number (0 is the class token) or a patch (row, col), on the patch grid
        of the input; where a block's grid is coarser, the patch that holds its centre.

    Raises ProbeError for selectors that name nothing, and for tokens that are missing or not needed.
    """

    def __init__(
        self,
        model: DPT,
        selectors: Sequence[str],
        tokens: Sequence[Token] = (),
        dtype: torch.dtype | None = None,
    ):
        if dtype not in (None, torch.float16, torch.float32, torch.float64):
            raise InvalidTypeError(
                f"dtype is {dtype}; a run is stored in torch.float16, torch.float32 or torch.float64"
            )
        self.model, self.dtype = model, dtype
        self.wanted = list(_wanted(model, selectors))
        for name in self.names:  # each is a folder on the disk, beside two of ours
            if name in ("image", "picture") or not name.strip(".") or set(name) & set("/\\:\0"):
                raise InvalidValueError(f"a point called {name!r} cannot be stored; register it under another name")
        self.tokens = tuple(_token(token) for token in tokens)
        if self.tokens and not any(w.reduction in CHOSEN for w in self.wanted):
            raise InvalidValueError(
                'tokens= chooses what "attention.rows" or "attention.columns" keeps; select one of them'
            )
        if not self.tokens and any(w.reduction in CHOSEN for w in self.wanted):
            raise InvalidValueError('"attention.rows" and "attention.columns" need tokens=, e.g. tokens=[0, (12, 20)]')

    def __reduce__(self) -> tuple[Any, ...]:
        # points hold functions, which do not travel; their names do
        return Recorder, (self.model, self.names, self.tokens, self.dtype)

    @classmethod
    def from_json(cls, model: DPT, capture: Mapping[str, Any]) -> Recorder:
        """The recorder that a run was begun with, from the "capture" of its settings."""
        tokens = [tuple(token) if isinstance(token, list) else token for token in capture["tokens"]]
        dtype = getattr(torch, capture["dtype"]) if capture["dtype"] else None
        return cls(model, capture["points"], tokens, dtype)

    @property
    def names(self) -> list[str]:
        return [wanted.name for wanted in self.wanted]

    def check(self, grid: TokenGrid) -> None:
        """IndexError if a chosen token is not on this patch grid."""
        for token in self.tokens:
            _place(token, grid, grid)

    def bytes_per_picture(self, grid: TokenGrid) -> int:
        """What one picture on this patch grid takes before compression; 0 for a user's own points, of unknown shape."""
        total = 0
        for wanted in self.wanted:
            shape = wanted.point.shape(1, grid)
            if shape is None:
                continue
            size = self.dtype.itemsize if self.dtype else 4
            if wanted.point.group != "attention":
                total += math.prod(shape) * size
                continue
            _, heads, tokens, _ = shape
            if wanted.reduction is None:
                block = int(wanted.point.name.split(".")[2])
                total += 2 * tokens * self.model.config.block_width(block) * (size if self.dtype else 2)
            elif wanted.reduction == "statistics":
                total += heads * len(FIGURES) * size
            else:
                total += heads * tokens * (len(self.tokens) if wanted.reduction in CHOSEN else 1) * size
        return total

    def __call__(self, x: Tensor) -> tuple[dict[str, Array], dict[str, Array]]:
        """(arrays with a row a picture, arrays that all pictures of this grid share) of pictures (B, 3, h, w)."""
        points = dict.fromkeys(wanted.point.name for wanted in self.wanted)
        with torch.no_grad(), capture(self.model, *points) as captured:
            self.model(x)
        rows: dict[str, Array] = {}
        shared: dict[str, Array] = {}
        arrivals = Arrivals()
        for wanted in self.wanted:
            value, grid = captured[wanted.point.name], captured.grid_of(wanted.point.name)
            about: dict[str, Any] = {"meaning": wanted.point.meaning, "grid": asdict(grid)}
            if wanted.reduction is not None:
                about |= {"point": wanted.point.name, "reduction": wanted.reduction}
                if wanted.reduction in CHOSEN:
                    about["tokens"] = [_place(token, captured.grid, grid) for token in self.tokens]
                value = _reduced(value, wanted.reduction, captured.grid, self.tokens)
                values = arrivals(value, wanted.name, self.dtype)
                rows[wanted.name] = _array(values, AXES[wanted.reduction], about)
            elif isinstance(value, AttentionMaps):
                mine, common = self._attention(value, about, arrivals)
                rows |= mine
                shared |= common
            else:
                values = arrivals(value, wanted.name, self.dtype)
                rows[wanted.name] = _array(values, AXES.get(wanted.point.group, ()), about)
        return arrivals.wait(rows), shared

    def _attention(
        self, maps: AttentionMaps, about: dict[str, Any], arrivals: Arrivals
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        dtype = self.dtype or torch.float16
        about |= {"kind": "attention", "scale": maps.scale}
        k = maps.k - maps.k.mean(dim=2, keepdim=True) if dtype == torch.float16 else maps.k
        rows = {}
        for part, tensor in (("q", maps.q), ("k", k)):
            values = arrivals(tensor, maps.name, dtype)
            values = values.reshape(maps.batch, -1, *values.shape[1:])  # (B, windows, heads, T, d)
            rows[f"{maps.name}.{part}"] = _array(values, AXES["q"], about)
        shared = {}
        if isinstance(maps.bias, OffsetBias):
            for part in BIAS_PARTS:
                if (tensor := getattr(maps.bias, part)) is not None:
                    # a bias is a few numbers for all pictures: nothing is gained by rounding it
                    values = tensor.detach().cpu()
                    values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
                    shared[f"{maps.name}.bias.{part}"] = Array(values, _sized(values, ("",) * values.ndim), {})
        elif maps.bias is not None:
            raise InvalidValueError(
                f"{maps.name} adds a bias that is not made of offsets, which a run cannot store; select "
                f'"{maps.name}.entropy", ".mean" or ".rows" instead'
            )
        return rows, shared


class Arrivals:
    """Tensors of one pass as arrays.

    From a GPU they come through pinned memory, and every copy is under way before one is waited for: a copy, and a
    question to a tensor, would each stop the host until the device had nothing left to do. Arrays hold their values
    after `wait`.
    """

    def __init__(self) -> None:
        self._devices: set[torch.device] = set()
        # (name, whether float16 lost some of the value, the largest magnitude)
        self._doubts: list[tuple[str, Tensor, Tensor]] = []

    def __call__(self, value: Tensor, name: str, dtype: torch.dtype | None) -> np.ndarray:
        value = value.detach()
        if value.dtype == torch.bfloat16 and dtype is None:
            dtype = torch.float32
        if dtype is not None and value.is_floating_point() and value.dtype != dtype:
            converted = value.to(dtype)
            if dtype == torch.float16:
                lost = (converted.isfinite() != value.isfinite()).any()
                if value.device.type != "cuda":
                    _refuse_if(lost, name, value)
                else:  # asked later; a tensor of one number is kept for it, not the value
                    self._doubts.append((name, lost, value.abs().nan_to_num(posinf=0).max()))
            value = converted
        return self._host(value).numpy()

    def _host(self, value: Tensor) -> Tensor:
        if value.device.type != "cuda":
            return value.cpu().contiguous()
        self._devices.add(value.device)
        return torch.empty(value.shape, dtype=value.dtype, device="cpu", pin_memory=True).copy_(
            value, non_blocking=True
        )

    def wait(self, arrays: dict[str, Array]) -> dict[str, Array]:
        """The arrays, with their values in them. ProbeError for what float16 cannot hold."""
        for device in self._devices:
            torch.cuda.current_stream(device).synchronize()
        for name, lost, largest in self._doubts:
            _refuse_if(lost, name, largest)
        if not self._devices:
            return arrays
        # Pinned memory is scarce: a part's arrays wait in ordinary memory until they are written.
        return {name: replace(array, values=array.values.copy()) for name, array in arrays.items()}


def _refuse_if(lost: Tensor, name: str, value: Tensor) -> None:
    if lost:
        raise InvalidValueError(
            f"{name} reaches {float(value.abs().nan_to_num(posinf=0).max()):.3g}, which float16 cannot hold "
            "(its largest number is 65504); use dtype=torch.float32"
        )


def stored_bytes(arrays: Mapping[str, Array]) -> int:
    return sum(array.values.nbytes for array in arrays.values())


def joined(parts: Iterable[Mapping[str, Array]]) -> dict[str, Array]:
    """Arrays of several passes, one after the other along the pictures."""
    parts = list(parts)
    return {
        name: Array(np.concatenate([part[name].values for part in parts]), array.dims, array.attributes)
        for name, array in parts[0].items()
    }


def _wanted(model: DPT, selectors: Sequence[str]) -> Iterator[Wanted]:
    """What selectors name, each once, in the order of the points."""
    if not selectors:
        select(model, ())  # says what to give
    table = names(model)
    whole: set[str] = set()
    reduced: dict[str, list[str]] = {}
    for selector in selectors:
        base, _, last = selector.rpartition(".") if isinstance(selector, str) else ("", "", "")
        if last in REDUCTIONS and base:
            points = [point for point in select(model, (base,)) if point.group == "attention"]
            if not points:
                raise InvalidValueError(
                    f"{selector!r} reduces attention, but {base!r} names none{suggestion('attention', table)}"
                )
            for point in points:
                reduced.setdefault(point.name, []).append(last)
        else:
            whole.update(point.name for point in select(model, (selector,)))
    for name, point in table.items():
        if name in whole:
            yield Wanted(point)
        for reduction in dict.fromkeys(reduced.get(name, ())):
            yield Wanted(point, reduction)


def _token(token: Any) -> Token:
    match token:
        case bool():
            pass
        case int():
            return token
        case (int(row), int(col)):
            return row, col
    raise InvalidTypeError(f"a token is a number or a patch (row, col), e.g. tokens=[0, (12, 20)]; not {token!r}")


def _place(token: Token, grid: TokenGrid, block: TokenGrid) -> int:
    """A chosen token's number on a block's grid. IndexError if it is not on the input's patch grid."""
    if isinstance(token, int):
        place = grid.patch(token)
        if place is None:
            return token
    else:
        place = token
        grid.token(*place)
    # centres in half patches: whole numbers, which divide without rounding
    row = (2 * place[0] + 1) * block.rows // (2 * grid.rows)
    col = (2 * place[1] + 1) * block.cols // (2 * grid.cols)
    return block.token(row, col)


def _reduced(maps: AttentionMaps, reduction: str, grid: TokenGrid, tokens: Sequence[Token]) -> Tensor:
    if reduction in CHOSEN:
        places = [_place(token, grid, maps.grid) for token in tokens]
        return maps.rows(places) if reduction == "rows" else maps.columns(places)
    if reduction == "statistics":
        figures = maps.statistics()
        return torch.stack([torch.from_numpy(figures[name].values) for name in FIGURES], dim=-1)
    return maps.entropy() if reduction == "entropy" else maps.mean()


def _array(values: np.ndarray, axes: tuple[str, ...], about: dict[str, Any]) -> Array:
    if len(axes) != values.ndim - 1:  # a user's own point
        axes = ("",) * (values.ndim - 1)
    return Array(values, ("image", *_sized(values[0], axes)), about)


def _sized(values: np.ndarray, axes: Sequence[str]) -> tuple[str, ...]:
    """Names of axes with their lengths: xarray wants one length a name, and maps of several sizes share a group."""
    return tuple(f"{axis or f'axis_{i}'}_{side}" for i, (axis, side) in enumerate(zip(axes, values.shape, strict=True)))
