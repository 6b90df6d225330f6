"""Every probe point of a model: what it is called, what it means, what shape it has, and which module shows it.

A point is a place in the model where a tensor passes. The table is read off the model's structure, which is the same
for all families: `encoder.blocks[i]` with an `attention.attend` inside, an encoder that returns four stages,
`reassembly.to_fusion[s]`, `fusion.blocks[s]`. Nothing is attached to the model by asking for it.

Points are listed in the order in which a forward pass reaches them; fusion therefore counts down, coarse to fine.
"""

from __future__ import annotations

import difflib
import fnmatch
import html
import operator
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn

from dpt import DPT, Config, TokenGrid

from .errors import InvalidTypeError, InvalidValueError


class Axis(NamedTuple):
    """One dimension of a point's shape, as people read it and as a number."""

    label: str
    size: Callable[[int, TokenGrid], int]


Read = Callable[[tuple, Any, TokenGrid], object]
"""From a module's (positional arguments, output) and the point's token grid to the value of a point."""


Write = Callable[[Any, Tensor, TokenGrid], object]
"""From a module's output, a new value of the point and its token grid to the output with that value in place."""


def _patch_grid(grid: TokenGrid) -> TokenGrid:
    return grid


def _whole(output: object, new: Tensor, grid: TokenGrid) -> object:
    return new


@dataclass(frozen=True, eq=False)
class Point:
    """A place in a model where a tensor can be seen."""

    name: str
    group: str
    meaning: str
    module: nn.Module
    read: Read
    axes: tuple[Axis, ...] | None  # None: a user's own module, of any shape
    before: bool = False  # read from the module's arguments, before it runs
    grid: Callable[[TokenGrid], TokenGrid] = _patch_grid  # from the input's patch grid to that of the point's tokens
    write: Write = _whole

    def shape(self, batch: int, grid: TokenGrid) -> tuple[int, ...] | None:
        """The shape of this point's tensor for a batch on a patch grid; None where it is not known beforehand."""
        return None if self.axes is None else tuple(axis.size(batch, grid) for axis in self.axes)

    @property
    def label(self) -> str:
        """The shape in symbols: B pictures, N patches on a grid of rows x cols."""
        return "any" if self.axes is None else f"({', '.join(axis.label for axis in self.axes)})"


class PointTable(Mapping[str, Point]):
    """Points by name, in the order a forward pass reaches them. Prints as a table, also in a notebook."""

    def __init__(self, points: list[Point]):
        self._points = {point.name: point for point in points}

    def __getitem__(self, name: str) -> Point:
        return self._points[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._points)

    def __len__(self) -> int:
        return len(self._points)

    def _cells(self) -> list[tuple[str, str, str, str]]:
        return [(p.name, p.group, p.label, p.meaning) for p in self._points.values()]

    def __repr__(self) -> str:
        cells = [("name", "group", "shape", "meaning"), *self._cells()]
        widths = [max(len(row[i]) for row in cells) for i in range(3)]
        return "\n".join("  ".join((*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[3])) for row in cells)

    def _repr_html_(self) -> str:
        rows = "".join(
            "<tr>" + "".join(f"<td style='text-align:left'>{html.escape(cell)}</td>" for cell in row) + "</tr>"
            for row in self._cells()
        )
        head = "".join(f"<th style='text-align:left'>{h}</th>" for h in ("name", "group", "shape", "meaning"))
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def names(model: DPT) -> PointTable:
    """Every probe point of a model, the user's own included."""
    check_model(model)
    return PointTable([*_points(model), *_registered(model)])


def select(model: DPT, selectors: tuple[str, ...]) -> list[Point]:
    """The points that group names, exact names and globs choose, each once, in forward order.

    ProbeError for a selector that chooses nothing, with the names that come close.
    """
    if not selectors:
        raise InvalidValueError(
            'no probe points were named; give at least one, e.g. "attention", "fusion.*", or "*" for all'
        )
    table = names(model)
    chosen: set[str] = set()
    for selector in selectors:
        if not isinstance(selector, str):
            raise InvalidTypeError(f"a selector is a string, not {type(selector).__name__}: {selector!r}")
        found = [p.name for p in table.values() if selector in (p.name, p.group)]
        # Brackets are not special here: [12] would be a set of characters, where people mean block 12.
        found = found or fnmatch.filter(table, selector.replace("[", "[[]"))
        if not found:
            raise InvalidValueError(f"{selector!r} names no probe point of this model{suggestion(selector, table)}")
        chosen.update(found)
    return [point for name, point in table.items() if name in chosen]


def suggestion(selector: str, table: Mapping[str, Point]) -> str:
    """The end of an error message: names that come close to a mistaken one."""
    groups = list(dict.fromkeys(point.group for point in table.values()))
    close = difflib.get_close_matches(selector, [*groups, *table], n=3, cutoff=0.6)
    listed = f"; close are {', '.join(map(repr, close))}" if close else f"; groups are {', '.join(groups)}"
    return f"{listed}. probes.names(model) lists all"


def check_model(model: object) -> None:
    if isinstance(model, DPT):
        return
    if hasattr(model, "_orig_mod"):
        raise InvalidTypeError(
            "compiled models do not run hooks; give the model from before torch.compile (model._orig_mod)"
        )
    raise InvalidTypeError(f"expected a dpt.DPT model, as dpt.load returns it, not {type(model).__name__}")


# A user's own points: weak keys, so that registering a module does not keep its model alive.
_own: weakref.WeakKeyDictionary[nn.Module, tuple[str, str]] = weakref.WeakKeyDictionary()


def register(name: str, module: nn.Module, meaning: str = "registered by the user") -> None:
    """Makes the output of any module inside a model a probe point of the group "own".

    The point appears for every model that contains the module. The module must return one tensor and run once in a
    forward pass. A module has one name; registering it again renames it.
    """
    if not isinstance(module, nn.Module):
        raise InvalidTypeError(f"expected a torch module to register as {name!r}, not {type(module).__name__}")
    if not name or not isinstance(name, str) or any(c in name for c in "*?[] "):
        raise InvalidValueError(f"{name!r} cannot name a probe point; use letters, digits, dots and underscores")
    _own[module] = (name, meaning)


def unregister(module: nn.Module) -> None:
    """Takes a user's own point away again; a module that is not registered is left as it is."""
    _own.pop(module, None)


def _registered(model: DPT) -> list[Point]:
    taken = {point.name for point in _points(model)}
    points = []
    for module in model.modules():
        if module not in _own:
            continue
        name, meaning = _own[module]
        if name in taken:
            raise InvalidValueError(
                f"two probe points are called {name!r}; register one of the modules under another name"
            )
        taken.add(name)
        points.append(Point(name, "own", meaning, module, _output, axes=None))
    return points


def _points(model: DPT) -> Iterator[Point]:
    config = model.config
    batch = Axis("B", lambda b, g: b)
    channels = _fixed(config.fusion_channels)

    def tokens(block: int, prefix: int = config.prefix) -> Axis:
        label = "N" if block == 0 else _share(config, block)
        return Axis(f"{prefix}+{label}" if prefix else label, lambda b, g: config.block_grid(block, g).patches + prefix)

    yield Point(
        "patch_embed",
        "patch_embed",
        "patch tokens, before class token and position encoding",
        model.patch_embed,
        _output,
        (batch, tokens(0, prefix=0), _fixed(config.width)),
    )
    for i, block in enumerate(model.encoder.blocks):
        at = f"encoder.blocks.{i}"
        attend = block.attention.attend
        heads, width = _fixed(config.block_heads(i)), config.block_width(i)
        every = tokens(i)
        grid = partial(config.block_grid, i)
        yield Point(
            f"{at}.attention",
            "attention",
            "softmax attention, kept as queries and keys and computed when asked",
            attend,
            _arguments,
            (batch, heads, every, every),
            before=True,
            grid=grid,
        )
        yield Point(
            f"{at}.heads",
            "heads",
            "each head's output, before the projection",
            attend,
            _heads,
            (batch, heads, every, _fixed(width // config.block_heads(i))),
            grid=grid,
            write=_write_heads,
        )
        tokens_out = (batch, every, _fixed(width))
        yield Point(f"{at}.tokens", "tokens", "the block's output tokens", block, _output, tokens_out, grid=grid)
        yield Point(f"{at}.norms", "norms", "L2 norm of each output token", block, _norms, (batch, every), grid=grid)
    for s in range(4):
        meaning = f"tokens handed to reassembly, stage {s}{_end(s)}"
        last = config.stage_block(s)
        stage = (batch, tokens(last), _fixed(config.block_width(last)))
        grid = partial(config.block_grid, last)
        yield Point(
            f"encoder.stages.{s}", "stages", meaning, model.encoder, _item(s), stage, grid=grid, write=_write_item(s)
        )
    maps = [(batch, channels, _side(config, s, 0), _side(config, s, 1)) for s in range(4)]
    for s in range(4):
        meaning = f"image-like map in the fusion's channels, stage {s}{_end(s)}"
        yield Point(f"reassembly.{s}", "reassembly", meaning, model.reassembly.to_fusion[s], _output, maps[s])
    # Fusion s ends at the size of map s-1; the finest doubles.
    double = (batch, channels, _times(2 * config.finest, "rows"), _times(2 * config.finest, "cols"))
    for s in (3, 2, 1, 0):
        meaning = f"output of fusion block {s}{_end(s)}"
        axes = maps[s - 1] if s else double
        yield Point(f"fusion.{s}", "fusion", meaning, model.fusion.blocks[s], _output, axes)
    meaning = "the model's output: " + ("metres" if config.metric else "inverse depth, larger is nearer")
    size = config.patch_size
    yield Point("depth", "depth", meaning, model, _output, (batch, _times(size, "rows"), _times(size, "cols")))


def _share(config: Config, block: int) -> str:
    """How many of the N patch tokens are left in a block, as people write it."""
    merged = (config.block_width(block) // config.width) ** 2  # SwinV2 halves both sides where it doubles the width
    return "N" if merged == 1 else f"N/{merged}"


def _fixed(size: int) -> Axis:
    return Axis(str(size), lambda b, g: size)


def _times(factor: int, side: str) -> Axis:
    count = operator.attrgetter(side)
    return Axis(side if factor == 1 else f"{factor}·{side}", lambda b, g: factor * count(g))


def _side(config: Config, stage: int, axis: int) -> Axis:
    """Rows (0) or columns (1) of a reassembled map."""
    name, share = ("rows", "cols")[axis], Fraction(config.finest, 2**stage)
    label = name if share == 1 else f"{share}·{name}" if share > 1 else f"⌈{name}/{share.denominator}⌉"
    return Axis(label, lambda b, g: config.map_size(stage, g)[axis])


def _end(stage: int) -> str:
    return {0: " (finest)", 3: " (coarsest)"}.get(stage, "")


def _output(args: tuple, output: object, grid: TokenGrid) -> object:
    return output


def _arguments(args: tuple, output: object, grid: TokenGrid) -> object:
    return args


def _norms(args: tuple, output: Tensor, grid: TokenGrid) -> Tensor:
    # Summed in float32: squares of half-precision outlier tokens overflow.
    return output.float().norm(dim=-1)


def _heads(args: tuple, output: Tensor, grid: TokenGrid) -> Tensor:
    if grid.window is None:
        return output
    order = grid.windows()  # (windows, T)
    x = output.unflatten(0, (-1, len(order))).transpose(1, 2).flatten(2, 3)  # (B, heads, N, d), window by window
    return x[:, :, order.flatten().argsort().to(x.device)]


def _write_heads(output: Tensor, new: Tensor, grid: TokenGrid) -> Tensor:
    if grid.window is None:
        return new
    order = grid.windows()
    inside = new[:, :, order.to(new.device)]  # (B, heads, windows, T, d)
    return inside.transpose(1, 2).flatten(0, 1)


def _write_item(index: int) -> Write:
    return lambda output, new, grid: (*output[:index], new, *output[index + 1 :])


def _item(index: int) -> Read:
    return lambda args, output, grid: output[index]
