"""The probe points of a model: the one declaration that every consumer reads.

A probe point is a place in the forward pass where a tensor can be read and, mostly, replaced. `points` lists the points
of a model in the order in which a forward pass reaches them (fusion counts down, from coarse to fine). `probes`
captures and edits at these points, runs store their values, and ONNX export makes them outputs of a graph.

To add a point, yield one more `Point` in a function of `SECTIONS`. Names, selectors, captures, edits, stored axes and
exported outputs follow from it.

The structure of the model is the same for all families: `encoder.blocks[i]` with an `attention.attend` inside, an
encoder that returns four stages, `reassembly.to_fusion[s]` and `fusion.blocks[s]`. Listing points attaches nothing to
the model.

`select` is the one matcher of selectors: exact names, groups and globs.
"""

from __future__ import annotations

import difflib
import fnmatch
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn

from .config import Config, TokenGrid
from .model import DPT

Read = Callable[[tuple, Any, TokenGrid], object]
"""(positional arguments of the module, its output, token grid of the point) -> value of the point."""

Write = Callable[[Any, Tensor, TokenGrid], object]
"""(output of the module, new value of the point, token grid of the point) -> output with the new value."""

Rows = Callable[[tuple, TokenGrid, Tensor], Tensor]
"""(arguments of `Attend`, token grid of the point, tokens (n,)) -> softmax rows (B, heads, n, tokens)."""

Sizes = Callable[[int, TokenGrid], int]
"""(batch size, patch grid of the input) -> length of an axis."""


class Axis(NamedTuple):
    """One dimension of a point's tensor.

    Attributes:
        name: What the dimension counts: "batch", "head", "token", "channel", "row" or "col".
        label: Its length in symbols, e.g. "1+N" or "8·rows".
        size: Its length as a number.
    """

    name: str
    label: str
    size: Sizes


def _patch_grid(grid: TokenGrid) -> TokenGrid:
    return grid


def _whole(output: object, new: Tensor, grid: TokenGrid) -> object:
    return new


@dataclass(frozen=True, eq=False)
class Point:
    """A place in a model where a tensor can be read.

    Attributes:
        name: Unique in the model, e.g. "encoder.blocks.3.heads".
        group: The selector that chooses all points of this kind, e.g. "heads".
        meaning: One line for people.
        module: The module whose call shows the value.
        read: Takes the value from the module's call.
        axes: The dimensions; None for a user's own module, whose shape is unknown.
        before: True if the value is read from the module's arguments, before it runs.
        grid: Maps the patch grid of the input to the token grid at this point.
        write: Puts a new value into the module's output; None if the value cannot be edited.
        instead: For points that cannot be edited: the name of the point to edit instead.
        why: For points that cannot be edited: the reason.
        rows: For attention: computes softmax rows from the module's arguments. None for all other points.
        is_output: True for the model's own output.
    """

    name: str
    group: str
    meaning: str
    module: nn.Module
    read: Read
    axes: tuple[Axis, ...] | None
    before: bool = False
    grid: Callable[[TokenGrid], TokenGrid] = _patch_grid
    write: Write | None = _whole
    instead: str = ""
    why: str = ""
    rows: Rows | None = None
    is_output: bool = False

    def shape(self, batch: int, grid: TokenGrid) -> tuple[int, ...] | None:
        """Computes the shape of this point's tensor.

        Args:
            batch: Number of images.
            grid: Patch grid of the input.

        Returns:
            The shape, or None if it cannot be known before a forward pass (a user's own module).
        """
        return None if self.axes is None else tuple(axis.size(batch, grid) for axis in self.axes)

    @property
    def label(self) -> str:
        """The shape in symbols: B images, N patches on a grid of rows x cols."""
        return "any" if self.axes is None else f"({', '.join(axis.label for axis in self.axes)})"

    @property
    def axis_names(self) -> tuple[str, ...]:
        """Names of the dimensions after the batch; empty for a user's own module."""
        return tuple(axis.name for axis in self.axes or ())[1:]


def points(model: DPT) -> Iterator[Point]:
    """Lists the probe points of a model in forward order.

    Args:
        model: A model of any family, or a module with the same structure and a `config`.

    Yields:
        One `Point` per place. Modules that users register are added by `probes.registry`.

    Example:
        >>> [point.name for point in points(dpt.load("demo"))][:3]
        ['patch_embed', 'encoder.blocks.0.attention', 'encoder.blocks.0.heads']
    """
    for section in SECTIONS:
        yield from section(model)


def at_patch_embed(model: DPT) -> Iterator[Point]:
    """The patch tokens."""
    config = model.config
    axes = (BATCH, _tokens(config, 0, prefix=0), _fixed("channel", config.width))
    meaning = "patch tokens, before class token and position encoding"
    yield Point("patch_embed", "patch_embed", meaning, model.patch_embed, _output, axes)


def at_blocks(model: DPT) -> Iterator[Point]:
    """Attention, heads, tokens and norms of each transformer block."""
    config = model.config
    for i, block in enumerate(model.encoder.blocks):
        at = f"encoder.blocks.{i}"
        attend = block.attention.attend
        heads, width = _fixed("head", config.block_heads(i)), config.block_width(i)
        tokens = _tokens(config, i)
        grid = partial(config.block_grid, i)
        yield Point(
            f"{at}.attention",
            "attention",
            "softmax attention, kept as queries and keys and computed when asked",
            attend,
            _arguments,
            (BATCH, heads, tokens, tokens),
            before=True,
            grid=grid,
            write=None,
            instead=f"{at}.heads",
            why="exists only inside the fused kernel",
            rows=attend.rows,
        )
        yield Point(
            f"{at}.heads",
            "heads",
            "each head's output, before the projection",
            attend,
            _heads,
            (BATCH, heads, tokens, _fixed("channel", width // config.block_heads(i))),
            grid=grid,
            write=_write_heads,
        )
        yield Point(
            f"{at}.tokens",
            "tokens",
            "the block's output tokens",
            block,
            _output,
            (BATCH, tokens, _fixed("channel", width)),
            grid=grid,
        )
        yield Point(
            f"{at}.norms",
            "norms",
            "L2 norm of each output token",
            block,
            _norms,
            (BATCH, tokens),
            grid=grid,
            write=None,
            instead=f"{at}.tokens",
            why="is computed from the tokens",
        )


def at_stages(model: DPT) -> Iterator[Point]:
    """The four token sets that the encoder returns."""
    config = model.config
    for s in range(4):
        last = config.stage_block(s)
        yield Point(
            f"encoder.stages.{s}",
            "stages",
            f"tokens handed to reassembly, stage {s}{_end(s)}",
            model.encoder,
            _item(s),
            (BATCH, _tokens(config, last), _fixed("channel", config.block_width(last))),
            grid=partial(config.block_grid, last),
            write=_write_item(s),
        )


def at_reassembly(model: DPT) -> Iterator[Point]:
    """The four reassembled maps, in the fusion's channels."""
    for s in range(4):
        meaning = f"image-like map in the fusion's channels, stage {s}{_end(s)}"
        module = model.reassembly.to_fusion[s]
        yield Point(f"reassembly.{s}", "reassembly", meaning, module, _output, _map_axes(model.config, s))


def at_fusion(model: DPT) -> Iterator[Point]:
    """The outputs of the four fusion levels, coarsest first."""
    config = model.config
    # Fusion level s ends at the size of map s-1; the finest one doubles the size of map 0.
    rows, cols = (_times(2 * config.finest, side, name) for side, name in (("rows", "row"), ("cols", "col")))
    double = (BATCH, _fixed("channel", config.fusion_channels), rows, cols)
    for s in (3, 2, 1, 0):
        meaning = f"output of fusion level {s}{_end(s)}"
        axes = _map_axes(config, s - 1) if s else double
        yield Point(f"fusion.{s}", "fusion", meaning, model.fusion.blocks[s], _output, axes)


def at_depth(model: DPT) -> Iterator[Point]:
    """The model's output."""
    config = model.config
    meaning = "the model's output: " + ("metres" if config.metric else "inverse depth, larger is nearer")
    axes = (BATCH, _times(config.patch_size, "rows", "row"), _times(config.patch_size, "cols", "col"))
    yield Point("depth", "depth", meaning, model, _output, axes, is_output=True)


SECTIONS: tuple[Callable[[DPT], Iterator[Point]], ...] = (
    at_patch_embed,
    at_blocks,
    at_stages,
    at_reassembly,
    at_fusion,
    at_depth,
)
"""The parts of the declaration, in forward order."""


DECLARED = re.compile(
    r"(patch_embed|depth)"
    r"|encoder\.blocks\.\d+\.(attention(?:\.\w+)?|heads|tokens|norms)"
    r"|encoder\.(stages)\.[0-3]"
    r"|(reassembly|fusion)\.[0-3]"
)
"""The names that `SECTIONS` gives to points, and the names of their reductions. Its match holds the group."""

# Selectors


def select(names: Iterable[str], groups: Mapping[str, str], selector: str) -> list[str]:
    """Finds the names that a selector chooses. Matching is case-sensitive on every system.

    Args:
        names: The names to choose from.
        groups: The group of each name. Names without a group are matched by name only.
        selector: An exact name, a group, or a glob with * and ?. Brackets are literal: users who write ``[12]`` mean
            block 12, not a set of characters.

    Returns:
        The chosen names in the order of `names`; empty if the selector chooses nothing. An exact name or group takes
        precedence over a glob.
    """
    names = list(names)
    exact = [name for name in names if selector in (name, groups.get(name))]
    pattern = selector.replace("[", "[[]")
    return exact or [name for name in names if fnmatch.fnmatchcase(name, pattern)]


def close_matches(names: Iterable[str], groups: Mapping[str, str], selector: str) -> list[str]:
    """Finds up to three names or groups that resemble a mistaken selector, best match first."""
    names = list(names)
    known = dict.fromkeys([*(groups[name] for name in names if name in groups), *names])
    return difflib.get_close_matches(selector, known, n=3, cutoff=0.6)


def suggestion(names: Iterable[str], groups: Mapping[str, str], selector: str) -> str:
    """Returns the sentence of an error message that helps with a mistaken selector.

    Args:
        names: The names that exist.
        groups: The group of each name, as for `select`.
        selector: The selector that chose nothing.

    Returns:
        "Close matches: ..." or, without any, "Groups: ...".
    """
    names = list(names)
    if close := close_matches(names, groups, selector):
        return f"Close matches: {', '.join(map(repr, close))}"
    known = dict.fromkeys(groups[name] for name in names if name in groups)
    return f"Groups: {', '.join(known)}" if known else f"Names: {', '.join(names[:8])}"


def group_of(name: str) -> str:
    """Reads the group of a point off its name, for stores that hold names only.

    Args:
        name: The name of a declared point, or of a reduction of one such as "encoder.blocks.3.attention.entropy".

    Returns:
        The group, e.g. "norms" or "attention.entropy". "own" for a name that `SECTIONS` does not give, because a user
        registered the point.
    """
    found = DECLARED.fullmatch(name)
    return found[found.lastindex or 0] if found else "own"


# Axes

BATCH = Axis("batch", "B", lambda batch, grid: batch)


def _tokens(config: Config, block: int, prefix: int | None = None) -> Axis:
    """The tokens of a block, with the model's prefix tokens unless another number is given."""
    prefix = config.prefix if prefix is None else prefix
    merged = (config.block_width(block) // config.width) ** 2  # SwinV2 halves both sides where it doubles the width
    label = "N" if merged == 1 else f"N/{merged}"
    label = f"{prefix}+{label}" if prefix else label
    return Axis("token", label, lambda batch, grid: config.block_grid(block, grid).patches + prefix)


def _fixed(name: str, size: int) -> Axis:
    return Axis(name, str(size), lambda batch, grid: size)


def _times(factor: int, side: str, name: str) -> Axis:
    """A multiple of a side ("rows" or "cols") of the patch grid."""
    count = operator.attrgetter(side)
    return Axis(name, side if factor == 1 else f"{factor}·{side}", lambda batch, grid: factor * count(grid))


def _map_axes(config: Config, stage: int) -> tuple[Axis, ...]:
    """(B, channels, rows, cols) of a reassembled map."""
    sides = (_map_side(config, stage, axis) for axis in (0, 1))
    return (BATCH, _fixed("channel", config.fusion_channels), *sides)


def _map_side(config: Config, stage: int, axis: int) -> Axis:
    """Rows (0) or columns (1) of a reassembled map."""
    side, share = ("rows", "cols")[axis], Fraction(config.finest, 2**stage)
    label = side if share == 1 else f"{share}·{side}" if share > 1 else f"⌈{side}/{share.denominator}⌉"
    return Axis(("row", "col")[axis], label, lambda batch, grid: config.map_size(stage, grid)[axis])


def _end(stage: int) -> str:
    return {0: " (finest)", 3: " (coarsest)"}.get(stage, "")


# Reading and writing


def _output(args: tuple, output: object, grid: TokenGrid) -> object:
    return output


def _arguments(args: tuple, output: object, grid: TokenGrid) -> object:
    return args


def _norms(args: tuple, output: Tensor, grid: TokenGrid) -> Tensor:
    # Summed in float32, because squares of outlier tokens overflow in half precision.
    return output.float().norm(dim=-1)


def _heads(args: tuple, output: Tensor, grid: TokenGrid) -> Tensor:
    """(B windows, heads, T, d) -> (B, heads, N, d) where attention is windowed."""
    if grid.window is None:
        return output
    order = grid.windows()  # (windows, T)
    x = output.unflatten(0, (-1, len(order))).transpose(1, 2).flatten(2, 3)  # (B, heads, N, d), window by window
    return x[:, :, order.flatten().argsort().to(x.device)]


def _write_heads(output: Tensor, new: Tensor, grid: TokenGrid) -> Tensor:
    """The inverse of `_heads`."""
    if grid.window is None:
        return new
    order = grid.windows()
    inside = new[:, :, order.to(new.device)]  # (B, heads, windows, T, d)
    return inside.transpose(1, 2).flatten(0, 1)


def _item(index: int) -> Read:
    return lambda args, output, grid: output[index]


def _write_item(index: int) -> Write:
    return lambda output, new, grid: (*output[:index], new, *output[index + 1 :])
