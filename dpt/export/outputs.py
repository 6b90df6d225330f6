"""Probe points as outputs of a graph.

Names, shapes and values are those of `dpt.points`, as captures show them. Attention differs: a whole matrix per block
would be too large, so a graph returns its rows for some tokens. The tokens are chosen at export or given to the graph
at each call:

    norms, fusion.*, encoder.stages.3       selectors, as for captures
    encoder.blocks.7.attention[0,5]         attention rows of tokens 0 and 5: (B, heads, 2, tokens)
    encoder.blocks.7.attention              attention rows of the tokens in the graph's input "tokens" (n,)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..config import TokenGrid
from ..errors import DPTError, InvalidTypeError
from ..model import DPT
from ..points import Point, points, select, suggestion

# A traceable copy handles windows inside its attention operator, so its modules see tokens in the image's order. No
# point's `read` needs the size of such a grid.
WITHOUT_WINDOWS = TokenGrid(0, 0)


class ExportError(DPTError, ValueError):
    """A model cannot be exported as requested, or the exported graph computes something else."""


@dataclass(frozen=True)
class Output:
    """One output of a graph beside the depth.

    Attributes:
        name: Name of the output: the point's name, with "[0,5]" for chosen attention rows.
        point: The point of the original model.
        tokens: For attention, the tokens whose rows are returned; () for the tokens of the graph's input. None for all
            other points.
    """

    name: str
    point: Point
    tokens: tuple[int, ...] | None = None

    def grid(self, grid: TokenGrid) -> TokenGrid:
        """The token grid of the output for a patch grid of the input."""
        return self.point.grid(grid)


def available(model: DPT) -> list[Output]:
    """Lists every point that can be an output beside the depth, in forward order."""
    return [Output(p.name, p, None if p.rows is None else ()) for p in points(model) if not p.is_output]


def chosen(model: DPT, selectors: Sequence[str]) -> list[Output]:
    """Finds the outputs that selectors choose.

    Args:
        model: The model to export.
        selectors: Groups, exact names and globs; for attention also with tokens, as in the module's docstring. "depth"
            is allowed and adds nothing, because the depth is always an output.

    Returns:
        The outputs, each once, in the order of the selectors.

    Raises:
        ExportError: A selector chooses nothing, or its tokens are not whole numbers >= 0.
        InvalidTypeError: `selectors` is a single string.
    """
    if isinstance(selectors, str):
        raise InvalidTypeError(f"probes must be a list of selectors such as [{selectors!r}], got a string")
    table = {output.name: output for output in available(model)}
    groups = {name: output.point.group for name, output in table.items()}
    ours = [point.name for point in points(model) if point.is_output]
    found: dict[str, Output] = {}
    for selector in selectors:
        if selector in ours:
            continue
        if rows := re.fullmatch(r"(.*attention)\[([^]]*)\]", selector):
            tokens = _tokens(selector, rows[2])
            names = [name for name in select(table, groups, rows[1]) if table[name].tokens is not None]
            outputs = [Output(f"{name}[{rows[2]}]", table[name].point, tokens) for name in names]
        else:
            outputs = [table[name] for name in select(table, groups, selector)]
        if not outputs:
            close = suggestion(table, groups, selector)
            raise ExportError(f"{selector!r} names no probe point that can be exported. {close}")
        found |= {output.name: output for output in outputs}
    return list(found.values())


def _tokens(selector: str, listed: str) -> tuple[int, ...]:
    try:
        tokens = tuple(int(token) for token in listed.split(","))
    except ValueError:
        tokens = (-1,)
    if min(tokens) < 0:
        raise ExportError(f"tokens in {selector!r} must be whole numbers >= 0, e.g. attention[0,5], got [{listed}]")
    return tokens


def read(
    model: DPT,
    outputs: Sequence[Output],
    run: Callable[[], Tensor],
    grid: TokenGrid | None,
    tokens: Tensor | None,
) -> list[Tensor]:
    """Runs a forward pass and reads the outputs from it.

    Args:
        model: The model, or its traceable copy.
        outputs: What to read beside the depth.
        run: The forward pass; returns the depth.
        grid: Patch grid of the input; None for a traceable copy, whose grid is symbolic.
        tokens: Tokens (n,) whose attention rows are read where the outputs name none.

    Returns:
        The depth, then one tensor per output, all float32.
    """
    here = {point.name: point for point in points(model)}
    seen: dict[str, Tensor] = {}

    def keep(output: Output) -> Callable:
        point = here[output.point.name]
        at = WITHOUT_WINDOWS if grid is None else point.grid(grid)

        def hook(module: nn.Module, args: tuple, result: Any) -> None:
            value = point.read(args, result, at)
            if point.rows is not None:
                wanted = torch.tensor(output.tokens, device="cpu") if output.tokens else tokens
                assert wanted is not None
                assert isinstance(value, tuple)
                value = point.rows(value, at, wanted)
            assert isinstance(value, Tensor)
            seen[output.name] = value.float()

        return hook

    hooks = [here[output.point.name].module.register_forward_hook(keep(output)) for output in outputs]
    try:
        depth = run()
    finally:
        for hook in hooks:
            hook.remove()
    return [depth.float(), *(seen[output.name] for output in outputs)]
