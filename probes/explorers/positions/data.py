"""Position tables and biases of a model, encoded for the browser.

The kernel computes everything that is a property of the weights: the values, how strongly an image varies, and the
power spectra. The browser computes only what depends on the pointer: similarities, and cuts of offset images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

import dpt
from probes.positions import PositionBiases, PositionTable, frequencies, positions, strengths


class TableMessage(TypedDict):
    """The reply to a request for a table. `encode_table` lists its parts."""

    height: int  # of the input, pixels
    width: int
    count: int  # of channels
    rows: int
    cols: int
    stored: bool  # whether these are the stored numbers, not numbers resized from them


class BiasMessage(TypedDict):
    """The reply to a request for a block's biases. `encode_bias` lists its parts."""

    height: int  # of the input, pixels
    width: int
    block: int
    count: int  # of heads
    rows: int  # of the grid, or of a window
    cols: int
    windowed: bool
    shifted: bool
    prefix: bool  # whether a class token has entries of its own


def encode_table(model: dpt.DPT, size: tuple[int, int]) -> tuple[TableMessage, list[bytes]]:
    """A position table, for a model that adds one.

    Returns:
        The message, and its parts in float32: values (channel, row, col), the class token's row of the table (channel),
        strength (channel), frequency (channel), mean power (down, right) and power (channel, down, right).
    """
    found = positions(model, size)
    assert isinstance(found, PositionTable)
    images, spectrum = found.table.values, found.spectrum()
    count, rows, cols = images.shape
    message = TableMessage(height=size[0], width=size[1], count=count, rows=rows, cols=cols, stored=found.stored)
    parts = [
        images,
        found.table["class_token"].values,
        strengths(images),
        frequencies(spectrum),
        spectrum.mean("channel").values,
        spectrum.values,
    ]
    return message, [_bytes(part) for part in parts]


def encode_bias(model: dpt.DPT, size: tuple[int, int], block: int) -> tuple[BiasMessage, list[bytes]]:
    """The relative position biases of a block, for a model that adds them.

    Returns:
        The message, and its parts in float32: values (head, down, right), strength (head) and, with a class token, its
        entries (head, 3): class to patches, patches to class, class to class.
    """
    found = positions(model, size)
    assert isinstance(found, PositionBiases)
    bias, span, grid = found[block], found.span(block), found.grid(block)
    message = BiasMessage(
        height=size[0],
        width=size[1],
        block=block,
        count=len(bias),
        rows=span.rows,
        cols=span.cols,
        windowed=grid.window is not None,
        shifted=any(grid.shift),
        prefix="class_to_class" in bias.coords,
    )
    parts = [bias.values, strengths(bias.values)]
    if message["prefix"]:
        names = ("class_to_patches", "patches_to_class", "class_to_class")
        parts.append(np.stack([bias[name].values for name in names], axis=1))
    return message, [_bytes(part) for part in parts]


def has_table(model: dpt.DPT) -> bool:
    """Whether the model adds a position table. The others add relative biases."""
    return getattr(model.encoder, "positions", None) is not None


def bytes_of_parts(model: dpt.DPT, sizes: Sequence[tuple[int, int]]) -> int:
    """Bytes of the binary parts for these input sizes, all blocks included."""
    return sum(_bytes_of_parts(model, size) for size in sizes)


def _bytes_of_parts(model: dpt.DPT, size: tuple[int, int]) -> int:
    config, grid = model.config, model.token_grid(*size)
    if has_table(model):
        # values and power per channel, the mean power; class token, strength, frequency
        return 4 * ((2 * config.width + 1) * grid.patches + 3 * config.width)
    total = 0
    for block in range(config.depth):
        at = config.block_grid(block, grid)
        rows, cols = at.window or (at.rows, at.cols)
        total += 4 * config.block_heads(block) * ((2 * rows - 1) * (2 * cols - 1) + 4)
    return total


def _bytes(values: np.ndarray) -> bytes:
    """Little-endian float32, row-major."""
    return np.ascontiguousarray(values, dtype="<f4").tobytes()
