"""The table of a model's probe points, and points that users register themselves.

The points are declared in `dpt.points`. This module adds the modules that a user registered, and selects points by
group, name or glob. `names` lists what exists:

    probes.names(model)               # a table; equal blocks share a line: encoder.blocks.0-11.attention
    probes.names(model, all=True)     # one line per point

Either way the result maps every name to its `Point`. Listing points attaches nothing to the model.
"""

from __future__ import annotations

import html
import re
import weakref
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import NamedTuple

from torch import nn

from dpt import DPT, TokenGrid
from dpt import points as declared
from dpt.points import Axis, Point

from .errors import InvalidTypeError, InvalidValueError, UnknownPointError

__all__ = [
    "Axis",
    "Point",
    "PointTable",
    "check_model",
    "names",
    "register",
    "select",
    "suggestion",
    "unknown_point",
    "unregister",
]


def __dir__() -> list[str]:  # completion offers public names only
    return sorted(__all__)


BLOCKS = "encoder.blocks."
COLUMNS = ("name", "group", "shape", "meaning")


class _Row(NamedTuple):
    """A printed line of the table."""

    name: str
    group: str
    shape: str
    meaning: str


class PointTable(Mapping[str, Point]):
    """Probe points by name, in forward order. Prints as a table, in a terminal and in a notebook.

    The printed table folds consecutive blocks with equal points into one line per point. The mapping itself always has
    every name.
    """

    def __init__(self, points: Iterable[Point], all: bool = False):
        """Creates a table.

        Args:
            points: The points, in forward order.
            all: True prints one line per point.
        """
        self._points = {point.name: point for point in points}
        self._all = all

    def __getitem__(self, name: str) -> Point:
        return self._points[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._points)

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)

    def __len__(self) -> int:
        return len(self._points)

    @property
    def groups(self) -> dict[str, str]:
        """The group of each point, by name."""
        return {name: point.group for name, point in self._points.items()}

    def _rows(self) -> list[_Row]:
        rows = [_Row(p.name, p.group, p.label, p.meaning) for p in self._points.values()]
        return rows if self._all else _folded(rows)

    def __repr__(self) -> str:
        rows = [COLUMNS, *self._rows()]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        return "\n".join("  ".join((*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[3])) for row in rows)

    def _repr_html_(self) -> str:
        rows = "".join(
            "<tr>" + "".join(f"<td style='text-align:left'>{html.escape(cell)}</td>" for cell in row) + "</tr>"
            for row in self._rows()
        )
        head = "".join(f"<th style='text-align:left'>{column}</th>" for column in COLUMNS)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _folded(rows: list[_Row]) -> list[_Row]:
    """Merges consecutive blocks whose lines differ in the block's number only."""
    blocks = [(block, list(lines)) for block, lines in groupby(rows, lambda row: _block(row.name))]
    folded: list[_Row] = []
    for (first, lines), run in _runs(blocks):
        if first is None:
            folded += lines
            continue
        span = f"{BLOCKS}{first}-{first + run - 1}." if run > 1 else f"{BLOCKS}{first}."
        folded += [row._replace(name=row.name.replace(f"{BLOCKS}{first}.", span, 1)) for row in lines]
    return folded


def _runs(blocks: list[tuple[int | None, list[_Row]]]) -> Iterator[tuple[tuple[int | None, list[_Row]], int]]:
    """(first block, how many equal blocks follow each other)."""

    def key(block: tuple[int | None, list[_Row]]) -> tuple:
        number, lines = block
        return number is None, [row._replace(name=row.name.removeprefix(f"{BLOCKS}{number}.")) for row in lines]

    for _, run in groupby(blocks, key):
        same = list(run)
        yield same[0], len(same)


def _block(name: str) -> int | None:
    """The block that a point belongs to, or None."""
    found = re.match(re.escape(BLOCKS) + r"(\d+)\.", name)
    return int(found[1]) if found else None


def names(model: DPT, *, all: bool = False) -> PointTable:
    """Lists every probe point of a model, including registered modules.

    Args:
        model: A model as `dpt.load` returns it.
        all: True prints one line per point. By default the printed table folds equal blocks.

    Returns:
        The points by name, in forward order.

    Raises:
        InvalidTypeError: `model` is not a `dpt.DPT`, or is wrapped by torch.compile.

    Example:
        >>> table = probes.names(model)
        >>> table["encoder.blocks.3.attention"].label
        '(B, 6, 1+N, 1+N)'
    """
    check_model(model)
    return PointTable([*declared.points(model), *_registered(model)], all)


def select(model: DPT, selectors: tuple[str, ...]) -> list[Point]:
    """Finds the points that selectors choose, each once, in forward order.

    Args:
        model: A model as `dpt.load` returns it.
        selectors: Groups ("norms"), exact names ("fusion.2") and globs ("encoder.blocks.*.heads").

    Returns:
        The chosen points.

    Raises:
        InvalidValueError: No selectors were given.
        InvalidTypeError: A selector is not a string.
        UnknownPointError: A selector chooses nothing. The message names close matches.
    """
    if not selectors:
        raise InvalidValueError('no probe points selected. Give at least one, e.g. "attention", "fusion.*" or "*"')
    table = names(model)
    chosen: set[str] = set()
    for selector in selectors:
        if not isinstance(selector, str):
            raise InvalidTypeError(f"a selector must be a string, got {type(selector).__name__}: {selector!r}")
        found = declared.select(table, table.groups, selector)
        if not found:
            raise unknown_point(selector, table)
        chosen.update(found)
    return [point for name, point in table.items() if name in chosen]


def unknown_point(selector: str, table: PointTable, argument: str = "") -> UnknownPointError:
    """Creates the error for a selector that chooses nothing.

    Args:
        selector: What the caller gave.
        table: The points that exist.
        argument: Name of the argument, where it is not the list of selectors, e.g. "stop_after".
    """
    given = f"{argument}={selector!r}" if argument else repr(selector)
    return UnknownPointError(f"{given} names no probe point of this model. {suggestion(selector, table)}")


def suggestion(selector: str, table: PointTable) -> str:
    """Returns the end of an error message: close matches of a mistaken selector."""
    close = declared.suggestion(table, table.groups, selector)
    return f"{close}. probes.names(model) lists all points"


def check_model(model: object) -> None:
    """Checks that hooks on a model will run.

    Raises:
        InvalidTypeError: `model` is not a `dpt.DPT`, or is wrapped by torch.compile.
    """
    if isinstance(model, DPT):
        return
    if hasattr(model, "_orig_mod"):
        raise InvalidTypeError(
            "a model wrapped by torch.compile does not run hooks. Pass the original model (model._orig_mod), or use "
            "model.compile()"
        )
    raise InvalidTypeError(f"model must be a dpt.DPT as dpt.load returns it, got {type(model).__name__}")


# Registered modules. The keys are weak, so a registration does not keep its model alive.
_own: weakref.WeakKeyDictionary[nn.Module, tuple[str, str]] = weakref.WeakKeyDictionary()


def register(name: str, module: nn.Module, meaning: str = "registered by the user") -> None:
    """Makes the output of a module a probe point of the group "own".

    The point exists in every model that contains the module. A module has one name; registering it again renames it.

    Args:
        name: Name of the point. Letters, digits, dots and underscores.
        module: Any module inside a model. It must return one tensor and run once per forward pass.
        meaning: One line for the table.

    Raises:
        InvalidTypeError: `module` is not a torch module.
        InvalidValueError: `name` is empty or contains spaces, brackets or wildcards.

    Example:
        registry.register("mlp.1", model.encoder.blocks[1].mlp)
    """
    if not isinstance(module, nn.Module):
        raise InvalidTypeError(f"module must be a torch module, got {type(module).__name__} for {name!r}")
    if not name or not isinstance(name, str) or any(c in name for c in "*?[] ") or not name.isprintable():
        raise InvalidValueError(f"a probe point's name takes letters, digits, dots and underscores, got {name!r}")
    _own[module] = (name, meaning)


def unregister(module: nn.Module) -> None:
    """Removes a user's own point. A module that is not registered is left alone."""
    _own.pop(module, None)


def _registered(model: DPT) -> list[Point]:
    taken = {point.name for point in declared.points(model)}
    points = []
    for module in model.modules():
        if module not in _own:
            continue
        name, meaning = _own[module]
        if name in taken:
            raise InvalidValueError(
                f"two probe points have the name {name!r}. Register one of the modules under another name"
            )
        taken.add(name)
        points.append(Point(name, "own", meaning, module, _output, axes=None))
    return points


def _output(args: tuple, output: object, grid: TokenGrid) -> object:
    return output
