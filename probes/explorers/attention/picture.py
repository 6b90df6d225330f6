"""Draws what the attention explorer shows, as a picture for saved notebooks and pages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dpt import TokenGrid

from ...attention import AttentionMaps
from ..shared.drawing import Bar, Mark, Panel, over, picture
from ..shared.scales import RGB, Scale, colourise, linear_scale, log_scale, number, signed_log_scale, signed_scale
from ..shared.summary import Summary

DECADES = 4  # of the logarithmic scale, as in scales.js


def draw(
    summary: Summary,
    image: RGB,
    maps: AttentionMaps,
    tokens: Sequence[int],
    *,
    direction: str,
    mode: str,
    head: int | None,
    by_entropy: bool,
    scale: str,
    colormap: str,
    opacity: float,
    note: str,
) -> bytes:
    """Draws the image with the map of one head, and the maps of all heads.

    Args:
        summary: The words above it.
        image: What lies under the map, RGB.
        maps: The block's attention.
        tokens: A and B.
        direction: "row" or "column".
        mode: "a", "b" or "difference".
        head: The head that is laid over the image. None and -1: the mean.
        by_entropy: Whether the most focused heads come first.
        scale: "head", "shared" or "log".
        colormap: Colours of maps without a sign.
        opacity: Of the map over the image.
        note: A line at the bottom.

    Returns:
        A PNG.
    """
    grid, signed = maps.grid, mode == "difference"
    values = _shown(maps, tokens, direction, mode)  # (heads + 1, rows, cols), the mean last
    tops = np.abs(values).max(axis=(1, 2))
    shared = float(tops.max())
    scales = [_scale(scale, float(top) if scale == "head" else shared, signed) for top in tops]
    table = "RdBu_r" if signed else colormap
    chosen = len(values) - 1 if head is None or head < 0 else head
    order = list(range(len(values) - 1))
    if by_entropy:
        entropy = maps.statistics()["entropy"].values[0]
        order.sort(key=lambda n: float(entropy[n]))
    shown = list(tokens) if signed else [tokens[1] if mode == "b" else tokens[0]]
    marks = [_mark(grid, token, n == 1 or mode == "b") for n, token in enumerate(dict.fromkeys(shown))]
    coloured = [colourise(tile, own, table) for tile, own in zip(values, scales, strict=True)]
    aspect = image.shape[0] / image.shape[1]
    main = Panel(
        over(image, coloured[chosen], opacity),
        label="Mean of the heads over the picture" if chosen == len(order) else f"Head {chosen} over the picture",
        marks=[mark for mark in marks if mark],
    )
    tiles = [
        Panel(
            coloured[n],
            label="Mean" if n == len(order) else f"Head {n}",
            note=f"{'±' if signed else 'max '}{_percent(float(tops[n]))}",
            aspect=aspect,
            chosen=head is not None and n == chosen,
        )
        for n in (len(order), *order)
    ]
    return picture(summary, [main], tiles, Bar(table, _range(scales[chosen], scale, signed)), note)


def _shown(maps: AttentionMaps, tokens: Sequence[int], direction: str, mode: str) -> np.ndarray:
    def of(token: int) -> np.ndarray:
        values = maps.map(token=token, direction="row" if direction == "row" else "column").values
        return np.concatenate([values, values.mean(axis=0, keepdims=True)])

    if mode == "difference":
        return of(tokens[0]) - of(tokens[1])
    return of(tokens[1] if mode == "b" else tokens[0])


def _scale(kind: str, top: float, signed: bool) -> Scale:
    top = max(top, 1e-30)
    if kind == "log":
        return signed_log_scale(top, DECADES) if signed else log_scale(0.0, top, DECADES)
    return signed_scale(top) if signed else linear_scale(0.0, top)


def _mark(grid: TokenGrid, token: int, second: bool) -> Mark | None:
    patch = grid.patch(token)
    return None if patch is None else Mark(patch, (grid.rows, grid.cols), second)


def _range(scale: Scale, kind: str, signed: bool) -> str:
    if kind == "head":
        return "A less B, blue to red: minus to plus the max of each head" if signed else "0 to the max of each head"
    log = ", logarithmic" if kind == "log" else ""
    return f"{_percent(scale.low)} to {_percent(scale.high)} in every head{log}"


def _percent(weight: float) -> str:
    return f"{number(100 * weight)} %"
