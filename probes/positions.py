"""Where a model's tokens are told apart by place: position tables and relative biases, as images.

Problem: what a model knows of positions is hidden in the shape its code likes. DINOv2 adds a learned table of 37 x 37
rows to the tokens, and resizes it for every other grid in a way of its own. BEiT and SwinV2 add a bias to each block's
attention logits that depends on where the key lies from the query; BEiT stores it as rows of a flat table and resizes
that, SwinV2 computes it with a small network.

Approach: `positions(model, size)` asks the model's own modules for what they add to an input of that size, and lays it
out: a table as channel images, a bias as offset images with the query in the middle:

    down  -2  . . . . .      biases[7].sel(head=3, down=1, right=-2): what head 3 of block 7
          -1  . . . . .      adds to the logit of a query for the key one row below it
           0  . . Q . .      and two columns to its left
           1  k . . . .
           2  . . . . .  right -2 .. 2

No picture takes part: positions depend on weights and sizes alone.

    table = probes.positions(dpt.load("demo"), size=(280, 392))
    table.similarity((3, 5))                       # (row, col): cosine of each position with that one
    table.spectrum()                               # (channel, down, right): power by waves across the picture

Limits: attention in shifted windows also hides what came round from the other border; that mask is no part of a bias
(`AttentionMaps` has it). Values are float32, whatever the model computes in.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
import xarray
from jaxtyping import Float

from dpt import DPT, TokenGrid
from dpt.attention import OffsetBias
from dpt.beit import RelativePositions as BeitPositions
from dpt.depth_anything import TABLE_SIDE, Positions
from dpt.swinv2 import RelativePositions as SwinPositions
from dpt.swinv2 import SwinV2Config

from .errors import InvalidValueError
from .tokens import cosines_with

Size = int | tuple[int, int] | None

# Sides over those of the native input: pictures of 4:3 and 16:9, lying and standing; half, half as much again, twice.
_SHAPES = ((1, 4 / 3), (3 / 4, 1), (1, 16 / 9), (4 / 3, 1), (1 / 2, 1 / 2), (1.5, 1.5), (2, 2))


@dataclass(frozen=True, eq=False, repr=False)
class PositionTable:
    """DINOv2's table, as it is added to the tokens of one grid.

    table: (channel, row, col), with the class token's row of the table beside it as the coordinate ``class_token``
    (channel,). stored: whether these are the stored numbers, 37 x 37, rather than numbers resized from them. size: the
    input that has this grid, (height, width) in pixels.
    """

    table: xarray.DataArray
    size: tuple[int, int]
    stored: bool

    @property
    def grid(self) -> TokenGrid:
        """The grid of positions, with the class token as its one prefix token."""
        return TokenGrid(self.table.sizes["row"], self.table.sizes["col"], prefix=1)

    def similarity(self, patch: tuple[int, int], centred: bool = False) -> xarray.DataArray:
        """Cosine of each position's row of the table with that of `patch`, (row, col); ``class_token`` stands beside.

        centred: with the mean over all patches taken off first, class token's row included. What all positions have in
        common makes every cosine large and says nothing about place.

        IndexError for a patch outside the grid.
        """
        token = self.grid.token(*patch) - 1
        _, rows, cols = self.table.shape
        vectors = self.table.values.astype(np.float64).reshape(len(self.table), -1)  # (channel, patches)
        class_token = self.table["class_token"].values.astype(np.float64)
        every = np.concatenate([vectors, class_token[:, None]], axis=1).T
        cosines = cosines_with(every[token], every, vectors.mean(axis=1) if centred else None)
        return xarray.DataArray(
            cosines[:-1].reshape(rows, cols).astype(np.float32),
            dims=("row", "col"),
            coords={"class_token": cosines[-1].astype(np.float32)},
            attrs={"patch": patch, "centred": centred},
            name="cosine similarity",
        )

    def spectrum(self) -> xarray.DataArray:
        """Power of each channel by the waves it is made of, (channel, down, right), the constant part left out.

        ``down`` and ``right`` count periods across the grid, so that spectra of grids of all sizes compare; a wave and
        its negative share their power. A channel's powers sum to its variance over the positions (Parseval).
        """
        _, rows, cols = self.table.shape
        values = self.table.values.astype(np.float64)
        values -= values.mean(axis=(1, 2), keepdims=True)
        power = np.abs(np.fft.fft2(values)) ** 2 / (rows * cols) ** 2
        return xarray.DataArray(
            np.fft.fftshift(power, axes=(1, 2)).astype(np.float32),
            dims=("channel", "down", "right"),
            coords={
                "channel": np.arange(len(values)),
                "down": np.arange(rows) - rows // 2,
                "right": np.arange(cols) - cols // 2,
            },
            name="power",
        )

    def __repr__(self) -> str:
        channels, rows, cols = self.table.shape
        how = "as stored" if self.stored else f"resized from {TABLE_SIDE} x {TABLE_SIDE}"
        return f"PositionTable({channels} channels, {rows} x {cols} positions, {how})"


@dataclass(frozen=True, eq=False, repr=False)
class PositionBiases(Mapping[int, xarray.DataArray]):
    """Relative biases of every block for one size of input: a mapping from block to (head, down, right).

    ``down`` and ``right`` say where the key lies from the query; their ranges are those of the block's grid or, with
    SwinV2, of its window. With a class token (BEiT) three coordinates (head,) stand beside: ``class_to_patches`` (query
    the class token, key any patch), ``patches_to_class`` and ``class_to_class``. size: in pixels, (height, width).
    Blocks are worked out when they are asked for; nothing is kept.
    """

    model: DPT = field(repr=False)
    size: tuple[int, int]

    def __getitem__(self, block: int) -> xarray.DataArray:
        bias = self._bias(_block_of(self.model, block))
        heads, high, wide = bias.table.shape
        # The model's table has query minus key; seen from the query, the key lies the other way.
        values = bias.table.detach().flip(1, 2).float().cpu().numpy()
        coords: dict[str, tuple[str, np.ndarray] | np.ndarray] = {
            "head": np.arange(heads),
            "down": np.arange(high) - high // 2,
            "right": np.arange(wide) - wide // 2,
        }
        if bias.prefix is not None:
            prefix = bias.prefix.detach().float().cpu().numpy()
            names = ("class_to_patches", "patches_to_class", "class_to_class")
            coords |= {name: ("head", prefix[:, n]) for n, name in enumerate(names)}
        return xarray.DataArray(
            values, dims=("head", "down", "right"), coords=coords, attrs={"block": block}, name="bias"
        )

    def grid(self, block: int) -> TokenGrid:
        """How the tokens of a block lie, windows included."""
        return self.model.config.block_grid(_block_of(self.model, block), self.model.token_grid(*self.size))

    def span(self, block: int) -> TokenGrid:
        """The tokens that a bias is for: the block's grid, or one window of it."""
        grid = self.grid(block)
        return grid if grid.window is None else TokenGrid(*grid.window)

    def from_query(self, block: int, query: tuple[int, int]) -> xarray.DataArray:
        """The bias from one query to every key of the grid, or of one window: (head, row, col).

        A cut of rows x cols from the offset image, which moves up and left as the query moves down and right.

        IndexError for a query outside.
        """
        span = self.span(block)
        span.token(*query)
        (row, col), bias = query, self[block]
        cut = bias.isel(
            down=slice(span.rows - 1 - row, 2 * span.rows - 1 - row),
            right=slice(span.cols - 1 - col, 2 * span.cols - 1 - col),
        )
        cut = cut.drop_vars(["down", "right"]).rename(down="row", right="col")
        return cut.assign_attrs(query=query)

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.model.config.depth))

    def __len__(self) -> int:
        return self.model.config.depth

    def _bias(self, block: int) -> OffsetBias:
        module = self.model.encoder.blocks[block].attention.positions
        grid, config = self.model.token_grid(*self.size), self.model.config
        with torch.no_grad():
            if isinstance(module, BeitPositions):
                return module.offsets(config.block_grid(block, grid))
            assert isinstance(module, SwinPositions)
            assert isinstance(config, SwinV2Config)
            return module.offsets(config.block_grid(block, grid), config.reach(block, grid))

    def __repr__(self) -> str:
        height, width = self.size
        return f"PositionBiases({len(self)} blocks of {self.model.config.family}, input of {height} x {width} pixels)"


def positions(model: DPT, size: Size = None) -> PositionTable | PositionBiases:
    """How a model tells positions apart, for inputs of a size.

    size: (height, width) in pixels, or one number for a square; by default the size that the position table, or the
    windows, were made for. A `PositionTable` for DINOv2 (Depth-Anything), `PositionBiases` for BEiT and SwinV2.

    ValueError for a size that the model cannot take, naming the nearest that it can. NotImplementedError for an encoder
    that has none of these.
    """
    size = _size_of(model, size)
    grid = model.token_grid(*size)
    table = getattr(model.encoder, "positions", None)
    if isinstance(table, Positions):
        with torch.no_grad():
            values = table(grid)[0].detach().float().cpu().numpy()  # (1 + rows*cols, C)
        class_token, patches = values[0], values[1:].T.reshape(-1, grid.rows, grid.cols)
        images = xarray.DataArray(
            np.ascontiguousarray(patches),
            dims=("channel", "row", "col"),
            coords={"channel": np.arange(len(patches)), "class_token": ("channel", class_token.copy())},
            name="position table",
        )
        return PositionTable(images, size, stored=grid.rows == grid.cols == TABLE_SIDE)
    attention = getattr(model.encoder.blocks[0], "attention", None)
    if isinstance(getattr(attention, "positions", None), BeitPositions | SwinPositions):
        return PositionBiases(model, size)
    raise NotImplementedError(
        f"{model.config.family} has neither a position table nor relative biases that this knows; "
        "Depth-Anything, BEiT and SwinV2 do"
    )


def offered_sizes(model: DPT) -> list[tuple[int, int]]:
    """Inputs worth comparing, (height, width) in pixels, the native one first; with SwinV2 one of larger windows."""
    native = _native(model)
    step = model.config.multiple
    wanted = [(side * native[0], other * native[1]) for side, other in _SHAPES]
    found = [native]
    if isinstance(model.config, SwinV2Config):
        squares = ((side, side) for side in range(native[0] + step, 2 * native[0], step))
        larger = (size for size in squares if _taken(model, size) is not None and _sees_farther(model, size, native))
        found += [size for size in [next(larger, None)] if size is not None]
    for height, width in wanted:
        size = (max(step, round(height / step) * step), max(step, round(width / step) * step))
        if size not in found and _taken(model, size) is not None:
            found.append(size)
    return found


def _sees_farther(model: DPT, size: tuple[int, int], than: tuple[int, int]) -> bool:
    """Whether windows are larger in some block and smaller in none."""
    new, old = (
        [PositionBiases(model, s).span(block).rows for block in range(model.config.depth)] for s in (size, than)
    )
    return all(n >= o for n, o in zip(new, old, strict=True)) and new != old


def _taken(model: DPT, size: tuple[int, int]) -> TokenGrid | None:
    try:
        return model.token_grid(*size)
    except ValueError:
        return None


def _native(model: DPT) -> tuple[int, int]:
    """The input that the stored table or the windows were made for."""
    config = model.config
    table = isinstance(getattr(model.encoder, "positions", None), Positions)
    side = TABLE_SIDE * config.patch_size if table else config.preprocess.base
    return side, side


def _size_of(model: DPT, size: Size) -> tuple[int, int]:
    if size is None:
        return _native(model)
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2:
        raise InvalidValueError(f"size is {size!r}; give (height, width) in pixels, or one number for a square")
    return operator.index(sides[0]), operator.index(sides[1])


def _block_of(model: DPT, block: int) -> int:
    depth = model.config.depth
    if not 0 <= operator.index(block) < depth:
        raise KeyError(f"there is no block {block}; this model has blocks 0 to {depth - 1}")
    return operator.index(block)


def strengths(images: Float[np.ndarray, "image row col"]) -> Float[np.ndarray, " image"]:
    """How far each image departs from its own mean: its standard deviation."""
    deviation: np.ndarray = images.astype(np.float64).std(axis=(1, 2)).astype(np.float32)
    return deviation


def frequencies(spectrum: xarray.DataArray) -> Float[np.ndarray, " channel"]:
    """The typical wave of each channel, in periods across the grid: the power's mean distance from the constant."""
    power = spectrum.values.astype(np.float64)
    distance = np.hypot(spectrum["down"].values[:, None], spectrum["right"].values[None])
    total = power.sum(axis=(1, 2))
    mean: np.ndarray = ((power * distance).sum(axis=(1, 2)) / np.maximum(total, 1e-30)).astype(np.float32)
    return mean
