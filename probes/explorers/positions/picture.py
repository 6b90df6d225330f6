"""Draws what the position explorer shows, as a picture for saved notebooks and pages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...positions import PositionBiases, PositionTable, frequencies, strengths
from ..shared.drawing import Bar, Mark, Panel, picture
from ..shared.scales import Scale, colourise, linear_scale, log_scale, number, signed_scale
from ..shared.summary import Summary

SHOWN = 24  # images; the widget shows a page of them too
DECADES = 4  # of a spectrum, as in looks.js


@dataclass(frozen=True)
class Look:
    """How images are ordered and coloured.

    Attributes:
        order: "index", "strength" or, for tables, "frequency".
        shared: Whether all images have one scale.
        colormap: Colours of values without a sign.
    """

    order: str
    shared: bool
    colormap: str


def draw_table(
    summary: Summary,
    table: PositionTable,
    patch: tuple[int, int],
    look: Look,
    *,
    first: int,
    channel: int | None,
    spectrum: bool,
    centred: bool,
    note: str,
) -> bytes:
    """Draws the similarity of one position with all others, and the channels of the table.

    Args:
        summary: The words above it.
        table: The table.
        patch: The position.
        look: Order and colours.
        first: Number, in that order, of the first channel.
        channel: The enlarged channel, or None.
        spectrum: Whether channels are shown as spectra.
        centred: Whether the similarity subtracts the mean.
        note: A line at the bottom.

    Returns:
        A PNG.
    """
    images = table.table.values
    power = table.spectrum()
    ranks = _order(look.order, images, frequencies(power) if look.order == "frequency" else None)
    start = max(0, min(first, len(ranks) - 1)) // SHOWN * SHOWN
    numbers = ranks[start : start + SHOWN]
    shown = power.values if spectrum else images
    table_name = look.colormap if spectrum else "RdBu_r"
    top = float(np.abs(shown).max())
    similarity = table.similarity(patch, centred).values
    scale = _widened(similarity)
    grid = (table.grid.rows, table.grid.cols)
    main = Panel(
        colourise(similarity, scale, look.colormap),
        label=f"Similarity with position ({patch[0]}, {patch[1]})",
        note=f"{number(scale.low)} to {number(scale.high)}",
        marks=[Mark(patch, grid)],
    )
    tiles = [
        _tile(
            shown[n], f"Channel {n}", _own(shown[n], top if look.shared else None, spectrum), table_name, n == channel
        )
        for n in numbers
    ]
    return picture(summary, [main], tiles, Bar(look.colormap, "similarity, low to high"), note)


def draw_biases(
    summary: Summary,
    biases: PositionBiases,
    block: int,
    query: tuple[int, int],
    look: Look,
    *,
    head: int | None,
    note: str,
) -> bytes:
    """Draws the bias from one query to every key, and the offset images of all heads.

    Args:
        summary: The words above it.
        biases: The biases of the model.
        block: The block.
        query: The query, on the block's grid or window.
        look: Order and colours.
        head: The head on the grid. None and -1: the mean.
        note: A line at the bottom.

    Returns:
        A PNG.
    """
    images = biases[block].values  # (head, down, right)
    signed = bool(images.min() < 0 < images.max())
    table_name = "RdBu_r" if signed else look.colormap
    crop = biases.from_query(block, query).values
    chosen = -1 if head is None else head
    shown = crop.mean(axis=0) if chosen < 0 else crop[chosen]
    whole = images.mean(axis=0) if chosen < 0 else images[chosen]

    def scale_of(image: NDArray[np.float32]) -> Scale:
        source = images if look.shared else image
        return signed_scale(float(np.abs(source).max()) or 1e-12) if signed else _widened(source)

    span = biases.span(block)
    scale = scale_of(whole)
    main = Panel(
        colourise(shown, scale, table_name),
        label=f"Bias from query ({query[0]}, {query[1]}), {'mean of the heads' if chosen < 0 else f'head {chosen}'}",
        marks=[Mark(query, (span.rows, span.cols))],
    )
    numbers = _order(look.order, images, None)[:SHOWN]
    tiles = [_tile(images[n], f"Head {n}", scale_of(images[n]), table_name, n == head) for n in numbers]
    return picture(summary, [main], tiles, Bar.of(scale, table_name, "bias on the left"), note)


def _tile(values: NDArray[np.float32], label: str, scale: Scale, colormap: str, chosen: bool) -> Panel:
    return Panel(
        colourise(values, scale, colormap), label, note=f"±{number(scale.high)}" if scale.low < 0 else "", chosen=chosen
    )


def _own(values: NDArray[np.float32], top: float | None, spectrum: bool) -> Scale:
    high = float(np.abs(values).max()) if top is None else top
    return log_scale(0.0, max(high, 1e-30), DECADES) if spectrum else signed_scale(high or 1e-12)


def _order(order: str, images: NDArray[np.float32], speed: np.ndarray | None) -> list[int]:
    if speed is not None:
        return [int(n) for n in np.argsort(speed, kind="stable")]
    if order == "strength":
        return [int(n) for n in np.argsort(-strengths(images), kind="stable")]
    return list(range(len(images)))


def _widened(values: NDArray[np.floating]) -> Scale:
    """A scale over the range of the values, with some room if they are constant."""
    low, high = float(values.min()), float(values.max())
    size = max(abs(low), abs(high))
    if high - low > 1e-12 * max(size, 1e-18):
        return linear_scale(low, high)
    room = max(size * 1e-3, 1e-12)
    return linear_scale(low - room, high + room)
