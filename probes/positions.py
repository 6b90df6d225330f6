"""How a model encodes positions: position tables and relative biases, as images.

Problem: position information is stored in whatever shape suits the model's code. DINOv2 adds a learned table of 37 x 37
vectors to the tokens and resizes it for every other grid. BEiT and SwinV2 add a bias to each block's attention logits
that depends on the offset from query to key. BEiT stores it as rows of a flat table and resizes the table. SwinV2
computes it with a small network.

Approach: `positions(model, size)` asks the model's own modules what they add for an input of that size. A table becomes
channel images. A bias becomes offset images with the query in the middle:

    down  -2  . . . . .      biases[7].sel(head=3, down=1, right=-2): what head 3 of block 7 adds
          -1  . . . . .      to the logit of a query and the key one row below it
           0  . . Q . .      and two columns to its left
           1  k . . . .
           2  . . . . .  right -2 .. 2

Positions depend only on the weights and the input size, so no image is needed.

    table = probes.positions(dpt.load("demo"), size=(280, 392))
    table.similarity((3, 5))                       # (row, col): cosine of each position with position (3, 5)
    table.spectrum()                               # (channel, down, right): power per spatial frequency

Limits: shifted windows also mask tokens that wrap around the border. That mask is not part of the bias;
`AttentionMaps` includes it. Values are float32, whatever the model computes in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import SupportsIndex, TypeAlias

import numpy as np
import torch
import xarray
from jaxtyping import Float
from torch import Tensor

from dpt import DPT, TokenGrid
from dpt.attention import OffsetBias
from dpt.beit import RelativePositions as BeitPositions
from dpt.depth_anything import TABLE_SIDE, Positions
from dpt.image import Size
from dpt.swinv2 import RelativePositions as SwinPositions
from dpt.swinv2 import SwinV2Config

from .errors import InvalidValueError, UnknownKeyError, UnsupportedModelError
from .scalars import whole, wholes
from .tokens import cosines_with

Place: TypeAlias = Sequence[SupportsIndex] | np.ndarray | Tensor
"""A (row, col)."""

# (height, width) relative to the native input: landscape 4:3 (twice) and 16:9, portrait 3:4, then three squares.
_SHAPES = ((1, 4 / 3), (3 / 4, 1), (1, 16 / 9), (4 / 3, 1), (1 / 2, 1 / 2), (1.5, 1.5), (2, 2))


@dataclass(frozen=True, eq=False, repr=False)
class PositionTable:
    """The position table of DINOv2, as the model adds it to the tokens of one grid.

    Attributes:
        table: The vectors (channel, row, col). The coordinate ``class_token`` (channel,) is the vector of the class
            token.
        size: (height, width) of the input with this grid, in pixels.
        stored: True if these are the stored 37 x 37 vectors, False if the model resized them.
    """

    table: xarray.DataArray
    size: tuple[int, int]
    stored: bool

    @property
    def grid(self) -> TokenGrid:
        """The grid of positions, with the class token as its only prefix token."""
        return TokenGrid(self.table.sizes["row"], self.table.sizes["col"], prefix=1)

    def similarity(self, patch: Place, centred: bool = False) -> xarray.DataArray:
        """Computes the cosine of each position's vector with the vector of one patch.

        Args:
            patch: (row, col) on the grid.
            centred: Subtract the mean over all patches from every vector first, also from the class token's. The
                component that all positions share makes every cosine large and says nothing about place.

        Returns:
            Cosines (row, col). The coordinate ``class_token`` is the cosine with the class token's vector.

        Raises:
            dpt.DPTError: The patch is outside the grid. Also an IndexError.
        """
        row, col = (whole(at, "a patch") for at in patch)
        token = self.grid.token(row, col) - 1
        _, rows, cols = self.table.shape
        vectors = self.table.values.astype(np.float64).reshape(len(self.table), -1)  # (channel, patches)
        class_token = self.table["class_token"].values.astype(np.float64)
        all_vectors = np.concatenate([vectors, class_token[:, None]], axis=1).T
        cosines = cosines_with(all_vectors[token], all_vectors, vectors.mean(axis=1) if centred else None)
        return xarray.DataArray(
            cosines[:-1].reshape(rows, cols).astype(np.float32),
            dims=("row", "col"),
            coords={"class_token": cosines[-1].astype(np.float32)},
            attrs={"patch": (row, col), "centred": centred},
            name="cosine similarity",
        )

    def spectrum(self) -> xarray.DataArray:
        """Computes the power of each channel per spatial frequency, without the constant part.

        Returns:
            Power (channel, down, right). ``down`` and ``right`` are frequencies in periods per grid side, so spectra of
            different grid sizes are comparable. A frequency and its negative share the power of one wave. The powers of
            a channel sum to its variance over the positions (Parseval).
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
        origin = "as stored" if self.stored else f"resized from {TABLE_SIDE} x {TABLE_SIDE}"
        return f"PositionTable({channels} channels, {rows} x {cols} positions, {origin})"


@dataclass(frozen=True, eq=False, repr=False)
class PositionBiases(Mapping[int, xarray.DataArray]):
    """The relative biases of every block for one input size: maps a block index to its bias (head, down, right).

    ``down`` and ``right`` are the offset from query to key in tokens. They span the block's grid, or its window for
    SwinV2. With a class token (BEiT) there are three more coordinates (head,): ``class_to_patches`` (the class token is
    the query, any patch the key), ``patches_to_class`` and ``class_to_class``. Each access computes its block; nothing
    is cached.

    Attributes:
        model: The model.
        size: (height, width) of the input in pixels.
    """

    model: DPT = field(repr=False)
    size: tuple[int, int]

    def __getitem__(self, block: SupportsIndex) -> xarray.DataArray:
        block = _block_of(self.model, block)
        bias = self._bias(block)
        heads, high, wide = bias.table.shape
        # The model's table is indexed by query minus key; flipped, it is indexed by key minus query.
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

    def grid(self, block: SupportsIndex) -> TokenGrid:
        """Returns the token grid of a block, including its windows."""
        return self.model.config.block_grid(_block_of(self.model, block), self.model.token_grid(*self.size))

    def span(self, block: SupportsIndex) -> TokenGrid:
        """Returns the grid that a bias covers: the block's grid, or one window of it."""
        grid = self.grid(block)
        return grid if grid.window is None else TokenGrid(*grid.window)

    def from_query(self, block: SupportsIndex, query: Place) -> xarray.DataArray:
        """Returns the bias from one query to every key of the grid, or of one window.

        The result is a crop of the offset image. The crop moves up and left as the query moves down and right.

        Args:
            block: Index of the block.
            query: (row, col) of the query on `span(block)`.

        Returns:
            Biases (head, row, col).

        Raises:
            UnknownKeyError: The model has no such block.
            dpt.DPTError: The query is outside the grid or window. Also an IndexError.
        """
        span = self.span(block)
        (row, col), bias = (whole(at, "a query") for at in query), self[block]
        span.token(row, col)
        crop = bias.isel(
            down=slice(span.rows - 1 - row, 2 * span.rows - 1 - row),
            right=slice(span.cols - 1 - col, 2 * span.cols - 1 - col),
        )
        crop = crop.drop_vars(["down", "right"]).rename(down="row", right="col")
        return crop.assign_attrs(query=(row, col))

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.model.config.depth))

    def _ipython_key_completions_(self) -> list[int]:
        return list(self)

    def __len__(self) -> int:
        return self.model.config.depth

    def _bias(self, block: int) -> OffsetBias:
        module = self.model.encoder.blocks[block].attention.positions
        grid, config = self.model.token_grid(*self.size), self.model.config
        with torch.no_grad():
            if isinstance(module, BeitPositions):
                return module(config.block_grid(block, grid), small=True)
            assert isinstance(module, SwinPositions)
            assert isinstance(config, SwinV2Config)
            return module(config.block_grid(block, grid), config.reach(block, grid), small=True)

    def __repr__(self) -> str:
        height, width = self.size
        return f"PositionBiases({len(self)} blocks of {self.model.config.family}, input of {height} x {width} pixels)"


def positions(model: DPT, size: Size = None) -> PositionTable | PositionBiases:
    """Reads a model's position encoding for one input size.

    Args:
        model: The model.
        size: (height, width) in pixels, or one integer for a square. By default the size of the stored position table,
            or the native input size of models with biases.

    Returns:
        A `PositionTable` for DINOv2 (Depth-Anything), `PositionBiases` for BEiT and SwinV2.

    Raises:
        InvalidTypeError: A side is not an integer.
        InvalidValueError: size is not one or two sides.
        dpt.DPTError: The model cannot take this size. The message names the nearest valid size. Also a ValueError.
        UnsupportedModelError: The encoder has neither a position table nor relative biases.

    Example:
        >>> table = probes.positions(dpt.load("demo"), size=(280, 392))
        >>> table.similarity((3, 5)).dims
        ('row', 'col')
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
    raise UnsupportedModelError(
        f"Cannot read positions of {model.config.family}: its encoder has neither a position table (Depth-Anything) "
        "nor relative biases (BEiT, SwinV2)."
    )


def offered_sizes(model: DPT) -> list[tuple[int, int]]:
    """Suggests input sizes to compare.

    Args:
        model: The model.

    Returns:
        (height, width) in pixels, the native size first. For SwinV2 the second is one with larger windows, if any.
    """
    native = _native(model)
    step = model.config.multiple
    wanted = [(side * native[0], other * native[1]) for side, other in _SHAPES]
    found = [native]
    if isinstance(model.config, SwinV2Config):
        squares = ((side, side) for side in range(native[0] + step, 2 * native[0], step))
        larger = (size for size in squares if _accepts(model, size) and _has_larger_windows(model, size, native))
        found += [size for size in [next(larger, None)] if size is not None]
    for height, width in wanted:
        size = (max(step, round(height / step) * step), max(step, round(width / step) * step))
        if size not in found and _accepts(model, size):
            found.append(size)
    return found


def _has_larger_windows(model: DPT, size: tuple[int, int], reference: tuple[int, int]) -> bool:
    """Whether some block has larger windows than at the reference size, and no block smaller ones."""
    new, old = (
        [PositionBiases(model, s).span(block).rows for block in range(model.config.depth)] for s in (size, reference)
    )
    return all(n >= o for n, o in zip(new, old, strict=True)) and new != old


def _accepts(model: DPT, size: tuple[int, int]) -> bool:
    try:
        model.token_grid(*size)
    except ValueError:
        return False
    return True


def _native(model: DPT) -> tuple[int, int]:
    """(height, width) of the input that the stored table or the windows were trained on."""
    config = model.config
    table = isinstance(getattr(model.encoder, "positions", None), Positions)
    side = TABLE_SIDE * config.patch_size if table else config.preprocess.base
    return side, side


def _size_of(model: DPT, size: Size) -> tuple[int, int]:
    if size is None:
        return _native(model)
    sides = wholes(size, "size")
    if len(sides) not in (1, 2):
        raise InvalidValueError(f"size must be (height, width) or one integer, in pixels, got {size!r}")
    return sides[0], sides[-1]


def _block_of(model: DPT, block: SupportsIndex) -> int:
    depth, block = model.config.depth, whole(block, "block")
    if not 0 <= block < depth:
        raise UnknownKeyError(f"the model has blocks 0 to {depth - 1}, got {block}")
    return block


def strengths(images: Float[np.ndarray, "image row col"]) -> Float[np.ndarray, " image"]:
    """Computes each image's standard deviation, from images (image, row, col)."""
    deviation: np.ndarray = images.astype(np.float64).std(axis=(1, 2)).astype(np.float32)
    return deviation


def frequencies(spectrum: xarray.DataArray) -> Float[np.ndarray, " channel"]:
    """Computes the mean frequency of each channel, weighted by power, in periods per grid side.

    Args:
        spectrum: Power (channel, down, right), from `PositionTable.spectrum`.
    """
    power = spectrum.values.astype(np.float64)
    distance = np.hypot(spectrum["down"].values[:, None], spectrum["right"].values[None])
    total = power.sum(axis=(1, 2))
    mean: np.ndarray = ((power * distance).sum(axis=(1, 2)) / np.maximum(total, 1e-30)).astype(np.float32)
    return mean
