"""Probe points as outputs of a graph: their names, and how each is read from a forward pass.

Names, shapes and values are those of `probes.names` and `probes.capture`; only attention differs, whose whole matrix
nobody wants in a file's output. Its rows are, for tokens chosen at export or given to the graph each time:

    norms, fusion.*, encoder.stages.3       as `probes.capture` selects them
    encoder.blocks.7.attention[0,5]         what tokens 0 and 5 look at: (B, heads, 2, tokens)
    encoder.blocks.7.attention              what the tokens of the graph's input "tokens" (n,) look at
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..config import Config, TokenGrid
from ..errors import InvalidTypeError
from ..model import DPT
from . import windows


class ExportError(ValueError):
    """What cannot be exported, or came out wrong."""


@dataclass(frozen=True)
class Output:
    """One point. tokens: those whose attention rows are wanted; (): those of the graph's input; None: no attention."""

    name: str
    group: str
    module: str  # of the model, whose call shows it
    index: int = 0  # of the block or stage
    tokens: tuple[int, ...] | None = None


def available(config: Config) -> list[Output]:
    """Every point that can be an output beside the depth, in the order of `probes.names`."""
    found = [Output("patch_embed", "patch_embed", "patch_embed")]
    for i in range(config.depth):
        block = f"encoder.blocks.{i}"
        found.append(Output(f"{block}.attention", "attention", f"{block}.attention.attend", i, ()))
        found.append(Output(f"{block}.heads", "heads", f"{block}.attention.attend", i))
        found += [Output(f"{block}.{group}", group, block, i) for group in ("tokens", "norms")]
    found += [Output(f"encoder.stages.{s}", "stages", "encoder", s) for s in range(4)]
    found += [Output(f"reassembly.{s}", "reassembly", f"reassembly.to_fusion.{s}", s) for s in range(4)]
    found += [Output(f"fusion.{s}", "fusion", f"fusion.blocks.{s}", s) for s in (3, 2, 1, 0)]
    return found


def chosen(config: Config, selectors: Sequence[str]) -> list[Output]:
    """The outputs that group names, exact names and globs choose, each once. ExportError for one that names none."""
    if isinstance(selectors, str):
        raise InvalidTypeError(f"probes is a list of names, e.g. ({selectors!r},), not one string")
    table = available(config)
    found: dict[str, Output] = {}
    for selector in selectors:
        if selector == "depth":  # is always an output
            continue
        if rows := re.fullmatch(r"(.*attention)\[([^]]*)\]", selector):
            tokens = _tokens(selector, rows[2])
            points = [p for p in _matching(table, rows[1]) if p.group == "attention"]
            points = [Output(f"{p.name}[{rows[2]}]", p.group, p.module, p.index, tokens) for p in points]
        else:
            points = _matching(table, selector)
        if not points:
            names = [*dict.fromkeys(p.group for p in table), *(p.name for p in table)]
            close = difflib.get_close_matches(selector, names, n=3)
            listed = f"close are {', '.join(map(repr, close))}" if close else f"groups are {', '.join(names[:8])}"
            raise ExportError(f"{selector!r} names no point that can be exported; {listed}")
        found |= {point.name: point for point in points}
    return list(found.values())


def _matching(table: list[Output], selector: str) -> list[Output]:
    exact = [p for p in table if selector in (p.name, p.group)]
    return exact or [p for p in table if fnmatch.fnmatchcase(p.name, selector.replace("[", "[[]"))]


def _tokens(selector: str, listed: str) -> tuple[int, ...]:
    try:
        tokens = tuple(int(token) for token in listed.split(","))
    except ValueError:
        tokens = (-1,)
    if min(tokens) < 0:
        raise ExportError(f"{selector!r} names tokens as [{listed}]; expected numbers from 0, e.g. attention[0,5]")
    return tokens


def read(
    model: DPT,
    outputs: Sequence[Output],
    run: Callable[[], Tensor],
    grid: TokenGrid | None,
    tokens: Tensor | None,
) -> list[Tensor]:
    """[depth, one tensor an output] of one forward pass, float32.

    grid: of the pictures' patches where the model is one of `dpt`, which sees windows; None for a traceable copy.
    """
    seen: dict[str, Tensor] = {}

    def keep(output: Output) -> Callable:
        at = None if grid is None else model.config.block_grid(output.index, grid)

        def hook(module: nn.Module, args: tuple, result: Any) -> None:
            seen[output.name] = _value(output, module, args, result, at, tokens).float()

        return hook

    hooks = [model.get_submodule(output.module).register_forward_hook(keep(output)) for output in outputs]
    try:
        depth = run()
    finally:
        for hook in hooks:
            hook.remove()
    return [depth.float(), *(seen[output.name] for output in outputs)]


def _value(
    output: Output, module: nn.Module, args: tuple, result: Any, grid: TokenGrid | None, tokens: Tensor | None
) -> Tensor:
    windowed = grid is not None and grid.window is not None
    match output.group:
        case "norms":
            return result.float().norm(dim=-1)
        case "stages":
            return result[output.index]
        case "heads" if windowed:
            return _in_order(result, grid)  # type: ignore[arg-type]
        case "attention":
            wanted = torch.tensor(output.tokens) if output.tokens else tokens
            assert wanted is not None
            if isinstance(module, windows.Attend):
                q, k, _, patches = args
                return module.rows(q, k, patches, wanted)
            if windowed:
                return _windowed_rows(args, grid, wanted)  # type: ignore[arg-type]
            return _rows(module.scale, args, wanted)  # type: ignore[arg-type]
    return result


def _rows(scale: float, args: tuple, tokens: Tensor) -> Tensor:
    q, k, _, *bias = args
    logits = q.index_select(2, tokens).float() * scale @ k.float().mT  # (B, heads, n, N)
    if bias:
        logits = logits + bias[0].between(tokens, torch.arange(k.shape[2])).float()
    return logits.softmax(dim=-1)


def _windowed_rows(args: tuple, grid: TokenGrid, tokens: Tensor) -> Tensor:
    q, k, _, bias = args
    order = grid.windows()  # (windows, T)
    count, inside = order.shape
    q, k = (t.unflatten(0, (-1, count)) for t in (q, k))  # (B, windows, heads, T, d)
    found = q.new_zeros((len(q), q.shape[2], len(tokens), grid.tokens), dtype=torch.float32)
    at = order.flatten().argsort()
    for row, token in enumerate(tokens.tolist()):
        window, place = divmod(int(at[token]), inside)
        logits = q[:, window, :, place : place + 1].float() @ k[:, window].float().mT
        logits = logits + bias.between(torch.tensor([place]), torch.arange(inside), window).float()
        found[:, :, row, order[window]] = logits.softmax(dim=-1)[:, :, 0]
    return found


def _in_order(x: Tensor, grid: TokenGrid) -> Tensor:
    """(B windows, heads, T, d) -> (B, heads, N, d)."""
    order = grid.windows()
    x = x.unflatten(0, (-1, len(order))).transpose(1, 2).flatten(2, 3)
    return x[:, :, order.flatten().argsort()]
