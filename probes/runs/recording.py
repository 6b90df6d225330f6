"""Selects what a run stores of each image: values of probe points, and reductions of attention.

    "norms", "fusion.*", "depth"         probe points, as for `probes.capture`
    "attention"                          queries and keys, from which every row can be computed later
    "attention.entropy"                  (heads, tokens): entropy of each token's row, in nats
    "attention.mean"                     (heads, tokens): attention that each token receives, averaged over queries
    "attention.statistics"               (heads, 5): the figures of `AttentionMaps.statistics` for each head
    "attention.rows", "attention.columns"    (heads, chosen tokens, tokens); `tokens=` chooses
    "encoder.blocks.3.attention.entropy"     the same for one block; globs work before the last dot

Queries and keys are stored in float16 by default, everything else in the dtype that the model computed (bfloat16 as
float32, which represents it exactly). Before rounding, the mean key of each head is subtracted from the keys. Softmax
ignores that shift, and the rounding errors of a row become several times smaller.

Every value is checked: an image whose values are NaN or infinite, in the model or after rounding to ``dtype``, is not
stored.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from msgspec import structs
from torch import Tensor

from dpt import DPT, TokenGrid
from dpt.attention import OffsetBias
from dpt.scalars import is_whole, whole

from ..attention import AttentionMaps
from ..capture import capture
from ..errors import InvalidTypeError, InvalidValueError, UnknownPointError
from ..registry import Point, names, select, suggestion
from .parts import Array
from .records import ArrayAttributes, CaptureRecord, Token

REDUCTIONS = ("entropy", "mean", "statistics", "rows", "columns")
CHOSEN = ("rows", "columns")  # reductions that keep chosen tokens only
FIGURES = ("entropy", "peak", "prefix", "itself", "distance")
BIAS_PARTS = ("table", "prefix", "bands")
# Names of the axes after "image", by reduction of attention. Other points declare the names of their axes.
AXES = {
    "entropy": ("head", "token"),
    "mean": ("head", "token"),
    "statistics": ("head", "figure"),
    "rows": ("head", "query", "token"),
    "columns": ("head", "key", "token"),
    "q": ("window", "head", "token", "channel"),
}


@dataclass(frozen=True)
class Wanted:
    """One array to store: a point's value, or a reduction of its attention."""

    point: Point
    reduction: str | None = None

    @property
    def name(self) -> str:
        return self.point.name if self.reduction is None else f"{self.point.name}.{self.reduction}"


@dataclass(frozen=True)
class Recorded:
    """What one pass gave.

    Attributes:
        rows: Arrays with one row per image, by name.
        shared: Arrays that all images of this grid share, by name.
        faults: Why an image cannot be stored, by its row.
    """

    rows: dict[str, Array]
    shared: dict[str, Array]
    faults: dict[int, str]


class Recorder:
    """Runs a model on prepared images and returns the selected values as arrays to store.

    Args:
        model: The model.
        selectors: Points and reductions, see the module docstring.
        tokens: For "attention.rows" and "attention.columns": the number of a token (0 is the class token), or a patch
            (row, col) on the patch grid of the input. In blocks with a coarser grid, the patch that contains its
            centre.
        dtype: Of the stored values: float16, float32 or float64. None keeps the model's dtype, and attention in
            float16.

    Raises:
        UnknownPointError: A selector matches no point.
        InvalidValueError: `tokens` is missing, or given without a reduction that uses it.
        InvalidTypeError: `dtype` is not one of the three, or a token is malformed.
    """

    def __init__(
        self,
        model: DPT,
        selectors: Sequence[str],
        tokens: Sequence[object] = (),
        dtype: torch.dtype | None = None,
    ):
        if dtype not in (None, torch.float16, torch.float32, torch.float64):
            raise InvalidTypeError(f"dtype must be torch.float16, torch.float32, torch.float64 or None, got {dtype}")
        self.model, self.dtype = model, dtype
        self.wanted = list(_wanted(model, selectors))
        for name in self.names:  # each becomes a folder beside "image" and "picture"
            if name in ("image", "picture") or not name.strip(".") or set(name) & set("/\\:\0"):
                raise InvalidValueError(f"a point named {name!r} cannot be stored. Register it under another name")
        self.tokens = tuple(_token(token) for token in tokens)
        if self.tokens and not any(w.reduction in CHOSEN for w in self.wanted):
            raise InvalidValueError(
                'tokens= is used by "attention.rows" and "attention.columns" only. Select one of them, or omit tokens='
            )
        if not self.tokens and any(w.reduction in CHOSEN for w in self.wanted):
            raise InvalidValueError('"attention.rows" and "attention.columns" need tokens=, e.g. tokens=[0, (12, 20)]')

    def __reduce__(self) -> tuple[object, ...]:
        # Points hold functions, which cannot be pickled; their names can.
        return Recorder, (self.model, self.names, self.tokens, self.dtype)

    @classmethod
    def from_record(cls, model: DPT, capture: CaptureRecord) -> Recorder:
        """The recorder that a stored run was started with."""
        dtype = getattr(torch, capture.dtype, None) if capture.dtype else None
        return cls(model, capture.points, capture.tokens, dtype)

    @property
    def names(self) -> list[str]:
        """Names of the stored points and reductions."""
        return [wanted.name for wanted in self.wanted]

    def check(self, grid: TokenGrid) -> None:
        """Checks that the chosen tokens are on a patch grid.

        Raises:
            OutOfRangeError: One is not.
        """
        for token in self.tokens:
            _place(token, grid, grid)

    def bytes_per_image(self, grid: TokenGrid) -> int:
        """Size of one image on this patch grid before compression. Points of the user count as 0: unknown shape."""
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
        """Runs the model on images of one size.

        Args:
            x: Prepared images, (B, 3, h, w).

        Returns:
            Arrays with one row per image, and arrays that all images of this grid share, both by name.

        Raises:
            InvalidValueError: A value is NaN or infinite, or does not fit into `dtype`.
        """
        recorded = self.record(x)
        for fault in recorded.faults.values():
            raise InvalidValueError(fault)
        return recorded.rows, recorded.shared

    def record(self, x: Tensor) -> Recorded:
        """Runs the model on images of one size.

        Args:
            x: Prepared images, (B, 3, h, w).

        Returns:
            The values, also of images with faults.
        """
        points = dict.fromkeys(wanted.point.name for wanted in self.wanted)
        with torch.no_grad(), capture(self.model, *points) as captured:
            self.model(x)
        rows: dict[str, Array] = {}
        shared: dict[str, Array] = {}
        arrivals = Arrivals()
        for wanted in self.wanted:
            value, grid = captured[wanted.point.name], captured.grid_of(wanted.point.name)
            about = ArrayAttributes(wanted.point.meaning, grid)
            if wanted.reduction is not None:
                places = [_place(token, captured.grid, grid) for token in self.tokens]
                about = structs.replace(
                    about,
                    point=wanted.point.name,
                    reduction=wanted.reduction,
                    tokens=places if wanted.reduction in CHOSEN else None,
                )
                value = _reduced(value, wanted.reduction, captured.grid, self.tokens)
                values = arrivals(value, wanted.name, self.dtype)
                rows[wanted.name] = _array(values, AXES[wanted.reduction], about)
            elif isinstance(value, AttentionMaps):
                mine, common = self._attention(value, about, arrivals)
                rows |= mine
                shared |= common
            else:
                values = arrivals(value, wanted.name, self.dtype)
                rows[wanted.name] = _array(values, wanted.point.axis_names, about)
        rows = arrivals.wait(rows)
        return Recorded(rows, shared, arrivals.faults(rows, len(x)))

    def _attention(
        self, maps: AttentionMaps, about: ArrayAttributes, arrivals: Arrivals
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        dtype = self.dtype or torch.float16
        about = structs.replace(about, kind="attention", scale=maps.scale)
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
                    # A bias is small and stored once for all images, so it is not rounded.
                    values = tensor.detach().cpu()
                    values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
                    shared[f"{maps.name}.bias.{part}"] = Array(values, _sized(values, ("",) * values.ndim))
        elif maps.bias is not None:
            raise InvalidValueError(
                f"{maps.name} adds a bias that is not an OffsetBias, which a run cannot store. Select "
                f'"{maps.name}.entropy", ".mean" or ".rows" instead'
            )
        return rows, shared


class Arrivals:
    """Copies the tensors of one forward pass to arrays on the CPU, and finds values that are not finite.

    From a GPU, all copies go to pinned memory and run asynchronously. Waiting for each copy, or testing each tensor,
    would stall the GPU. The arrays hold their values after `wait`. Only the smallest and the largest value of a tensor
    are tested; NaN is both.
    """

    def __init__(self) -> None:
        self._devices: set[torch.device] = set()
        self._extremes: list[tuple[str, torch.dtype, Tensor, Tensor]] = []  # name, stored dtype, smallest, largest

    def __call__(self, value: Tensor, name: str, dtype: torch.dtype | None) -> np.ndarray:
        value = value.detach()
        if value.dtype == torch.bfloat16 and dtype is None:
            dtype = torch.float32
        if value.is_floating_point() and value.numel():
            self._extremes.append((name, dtype or value.dtype, *value.aminmax()))
            value = value if dtype is None else value.to(dtype)
        return self._host(value).numpy()

    def _host(self, value: Tensor) -> Tensor:
        if value.device.type != "cuda":
            return value.cpu().contiguous()
        self._devices.add(value.device)
        return torch.empty(value.shape, dtype=value.dtype, device="cpu", pin_memory=True).copy_(
            value, non_blocking=True
        )

    def wait(self, arrays: dict[str, Array]) -> dict[str, Array]:
        """Waits for the copies and returns the arrays."""
        for device in self._devices:
            torch.cuda.current_stream(device).synchronize()
        if not self._devices:
            return arrays
        # Pinned memory is scarce, so arrays wait in ordinary memory until their part is written.
        return {name: dataclasses.replace(array, values=array.values.copy()) for name, array in arrays.items()}

    def faults(self, arrays: Mapping[str, Array], images: int) -> dict[int, str]:
        """Why images cannot be stored, by row. Call it after `wait`.

        Args:
            arrays: The arrays, one row per image.
            images: Number of rows.
        """
        found: dict[int, str] = {}
        for name, dtype, least, most in self._not_finite():
            for key, array in arrays.items():
                if key != name and key not in (f"{name}.q", f"{name}.k"):
                    continue
                for row in np.flatnonzero(~np.isfinite(array.values).reshape(images, -1).all(axis=1)).tolist():
                    found.setdefault(row, _fault(name, dtype, least, most))
        return found

    def _not_finite(self) -> list[tuple[str, torch.dtype, float, float]]:
        """(name, stored dtype, smallest, largest) of the tensors with a value that is not finite in that dtype."""
        kinds: dict[tuple[torch.device, torch.dtype, torch.dtype], list[tuple[str, Tensor, Tensor]]] = {}
        for name, dtype, least, most in self._extremes:
            kinds.setdefault((least.device, least.dtype, dtype), []).append((name, least, most))
        found = []
        for (_, _, dtype), some in kinds.items():  # one transfer per kind, not per tensor
            least = torch.stack([low for _, low, _ in some]).to(dtype)
            most = torch.stack([high for _, _, high in some]).to(dtype)
            finite = (least.isfinite() & most.isfinite()).tolist()
            found += [
                (name, dtype, float(low), float(high))
                for (name, low, high), fine in zip(some, finite, strict=True)
                if not fine
            ]
        return found


def _fault(name: str, dtype: torch.dtype, least: float, most: float) -> str:
    """Why values between two numbers cannot be stored in a dtype."""
    if not (math.isfinite(least) and math.isfinite(most)):
        what = "NaN" if math.isnan(least) or math.isnan(most) else "infinite"
        return (
            f"{name} has values that are {what}. The model overflows on this image, or its weights are damaged: "
            "compute in float32, and check the weights"
        )
    kind, largest = str(dtype).removeprefix("torch."), torch.finfo(dtype).max
    return (
        f"{name} reaches {max(abs(least), abs(most)):.3g}, which {kind} cannot hold (its largest value is "
        f"{largest:.6g}). Use dtype=torch.{'float32' if dtype == torch.float16 else 'float64'}"
    )


def stored_bytes(arrays: Mapping[str, Array]) -> int:
    """Size of the values of arrays."""
    return sum(array.values.nbytes for array in arrays.values())


def joined(parts: Iterable[Mapping[str, Array]]) -> dict[str, Array]:
    """Concatenates the arrays of several passes along the images."""
    parts = list(parts)
    return {
        name: Array(np.concatenate([part[name].values for part in parts]), array.dims, array.attributes)
        for name, array in parts[0].items()
    }


def _wanted(model: DPT, selectors: Sequence[str]) -> Iterator[Wanted]:
    """Yields what selectors name, each once, in the order of the points."""
    if not selectors:
        select(model, ())  # raises with the names to choose from
    table = names(model)
    whole: set[str] = set()
    reduced: dict[str, list[str]] = {}
    for selector in selectors:
        base, _, last = selector.rpartition(".") if isinstance(selector, str) else ("", "", "")
        if last in REDUCTIONS and base:
            points = [point for point in select(model, (base,)) if point.group == "attention"]
            if not points:
                raise UnknownPointError(
                    f"{selector!r} reduces attention, but {base!r} matches none. {suggestion('attention', table)}"
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


def _token(token: object) -> Token:
    if is_whole(token):
        return whole(token, "a token")
    match token:
        case (row, col) if is_whole(row) and is_whole(col):
            return whole(row, "a row"), whole(col, "a column")
    raise InvalidTypeError(f"tokens must be numbers or patches (row, col), e.g. [0, (12, 20)], got {token!r}")


def _place(token: Token, grid: TokenGrid, block: TokenGrid) -> int:
    """Number of a chosen token on a block's grid. Raises OutOfRangeError if it is not on the input's patch grid."""
    return grid.token_in(block, token if isinstance(token, int) else grid.token(*token))


def _reduced(maps: AttentionMaps, reduction: str, grid: TokenGrid, tokens: Sequence[Token]) -> Tensor:
    if reduction in CHOSEN:
        places = [_place(token, grid, maps.grid) for token in tokens]
        return maps.rows(places) if reduction == "rows" else maps.columns(places)
    if reduction == "statistics":
        figures = maps.statistics()
        return torch.stack([torch.from_numpy(figures[name].values) for name in FIGURES], dim=-1)
    return maps.entropy() if reduction == "entropy" else maps.mean()


def _array(values: np.ndarray, axes: tuple[str, ...], about: ArrayAttributes) -> Array:
    if len(axes) != values.ndim - 1:  # a point of the user
        axes = ("",) * (values.ndim - 1)
    return Array(values, ("image", *_sized(values[0], axes)), about)


def _sized(values: np.ndarray, axes: Sequence[str]) -> tuple[str, ...]:
    """Names of axes with their lengths: xarray wants one length per name, and a group holds maps of several sizes."""
    return tuple(f"{axis or f'axis_{i}'}_{side}" for i, (axis, side) in enumerate(zip(axes, values.shape, strict=True)))
