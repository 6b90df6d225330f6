"""The configuration that every family extends, and the layout of tokens on an image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .errors import InvalidTypeError, InvalidValueError, OutOfRangeError
from .image import Preprocess
from .scalars import is_whole, plain, whole

Patch = tuple[int, int]
"""(row, col) of a patch; both count from 0, top left first."""

Size = tuple[float, float]
"""(height, width) of an image in pixels."""


@dataclass(frozen=True)
class TokenGrid:
    """The layout of a token sequence on an image.

    The sequence starts with `prefix` tokens that belong to no patch (class token, registers). The patches follow, row
    by row:

        0 .. prefix-1 | (0,0) (0,1) .. (0,cols-1) (1,0) ..

    In windowed attention, `window` is the (rows, cols) of one window and `shift` moves the windows down and to the
    right. Windows wrap around at the borders. Tokens that are neighbours only through wrapping do not attend to each
    other. With a window of 2 x 2 on a grid of 4 x 4, the tokens belong to these windows:

        shift 0:  0 0 1 1    shift 1:  3 2 2 3
                  0 0 1 1              1 0 0 1
                  2 2 3 3              1 0 0 1
                  2 2 3 3              3 2 2 3

    The grid also maps between patches and pixels, for an image of any size that the grid covers: `patch_at`, `edges`,
    `box` and `patches_of_pixels`.

    Attributes:
        rows: Patches along the height.
        cols: Patches along the width.
        prefix: Tokens before the patches.
        window: (rows, cols) of a window in tokens; None without windows.
        shift: (rows, cols) by which windows are shifted.

    Raises:
        InvalidValueError: The windows do not tile the grid.

    Example:
        >>> grid = TokenGrid(37, 49, prefix=1)
        >>> grid.token(12, 20)
        609
        >>> grid.patch_at(170, 250, size=(518, 686))
        (12, 17)
    """

    rows: int
    cols: int
    prefix: int = 0
    window: tuple[int, int] | None = None
    shift: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        for name in ("rows", "cols", "prefix"):
            if isinstance(value := getattr(self, name), np.generic):  # JSON cannot hold numbers of NumPy
                object.__setattr__(self, name, whole(value, name))
        object.__setattr__(self, "shift", tuple(self.shift))  # JSON turns tuples into lists
        if self.window is None:
            return
        object.__setattr__(self, "window", tuple(self.window))
        if self.prefix or self.rows % self.window[0] or self.cols % self.window[1]:
            raise InvalidValueError(
                f"windows of {self.window[0]} x {self.window[1]} tokens do not tile a grid of {self.rows} x {self.cols}"
                + (f" after {self.prefix} prefix tokens" if self.prefix else "")
            )

    @property
    def patches(self) -> int:
        """Number of patches."""
        return self.rows * self.cols

    @property
    def tokens(self) -> int:
        """Length of the sequence: prefix tokens and patches."""
        return self.prefix + self.patches

    def windows(self, device: torch.device | str = "cpu") -> Tensor:
        """Lists the tokens of each window.

        Args:
            device: Where the result is made.

        Returns:
            (windows, tokens per window), token indices. Windows and the places inside them are numbered row by row on
            the shifted grid. Without windows, one row with all tokens.
        """
        every = torch.arange(self.tokens, device=device)
        if self.window is None:
            return every[None]
        (high, wide), (down, right) = self.window, self.shift
        token = every.view(self.rows, self.cols).roll((-down, -right), dims=(0, 1))
        token = token.unflatten(0, (-1, high)).unflatten(2, (-1, wide))  # (windows down, high, windows across, wide)
        return token.transpose(1, 2).reshape(-1, high * wide)

    def token(self, row: int, col: int) -> int:
        """Returns the index in the sequence of a patch.

        Raises:
            InvalidTypeError: `row` or `col` is not an integer.
            OutOfRangeError: The patch lies outside the grid.
        """
        row, col = self._checked(row, col)
        return self.prefix + row * self.cols + col

    def patch(self, token: int) -> Patch | None:
        """Returns the (row, col) of a token, or None for a prefix token.

        Raises:
            InvalidTypeError: `token` is not a number.
            OutOfRangeError: The sequence has no such token.
        """
        token = whole(token, "token")
        if not 0 <= token < self.tokens:
            raise OutOfRangeError(
                f"token {token} is outside the sequence of {self.tokens} tokens (0..{self.tokens - 1})"
            )
        return None if token < self.prefix else divmod(token - self.prefix, self.cols)

    def patch_at(self, y: float, x: float, size: Size) -> Patch:
        """Returns the patch at a position in an image.

        Args:
            y: Position from the top edge, in pixels: 0 to the height. Pixel n spans n to n + 1.
            x: Position from the left edge, in pixels: 0 to the width.
            size: (height, width) of the image. It need not be a multiple of the grid: the patches divide it evenly.

        Returns:
            (row, col). A position on the border between two patches belongs to the lower or right one, the outer border
            to the last patch.

        Raises:
            OutOfRangeError: The position lies outside the image.
        """
        # Numbers of NumPy would be computed in their own type: an np.uint8 overflows, an np.float16 is rounded.
        y, x, height, width = (_exact(value, "a position") for value in (y, x, *size))
        if not (0 <= y <= height and 0 <= x <= width):
            raise OutOfRangeError(f"position ({y:g}, {x:g}) is outside an image of {height:g} x {width:g} pixels")
        return min(int(y * self.rows // height), self.rows - 1), min(int(x * self.cols // width), self.cols - 1)

    def edges(self, row: int, col: int, size: Size) -> tuple[float, float, float, float]:
        """Returns the exact outline of a patch in an image.

        Args:
            row: Row of the patch.
            col: Column of the patch.
            size: (height, width) of the image in pixels.

        Returns:
            (top, left, bottom, right) in pixels, as positions between pixels: fractions if the image is not a multiple
            of the grid.

        Raises:
            InvalidTypeError: `row` or `col` is not an integer.
            OutOfRangeError: The patch lies outside the grid.
        """
        row, col = self._checked(row, col)
        height, width = (_exact(side, "a side of the image") for side in size)
        high, wide = height / self.rows, width / self.cols
        return row * high, col * wide, (row + 1) * high, (col + 1) * wide

    def box(self, row: int, col: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Returns the whole pixels of a patch in an image: ``image[top:bottom, left:right]``.

        The boxes of all patches partition the image, and `patch_at` maps every pixel of a box (given by its index) back
        to the patch. If the image is smaller than the grid, some boxes are empty.

        Args:
            row: Row of the patch.
            col: Column of the patch.
            size: (height, width) of the image in pixels.

        Returns:
            (top, left, bottom, right); bottom and right are exclusive.

        Raises:
            InvalidTypeError: `row` or `col` is not an integer.
            OutOfRangeError: The patch lies outside the grid.
        """
        row, col = self._checked(row, col)
        height, width = (whole(side, "a side of the image") for side in size)
        top, bottom = (-(-at * height // self.rows) for at in (row, row + 1))  # rounded up
        left, right = (-(-at * width // self.cols) for at in (col, col + 1))
        return top, left, bottom, right

    def patches_of_pixels(self, size: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Maps all pixels of an image to patches: `patch_at` for every pixel index.

        Args:
            size: (height, width) of the image in pixels.

        Returns:
            Patch rows (height,) and patch columns (width,). ``values[rows][:, cols]`` enlarges (rows, cols) values to
            the image.
        """
        sides = [whole(side, "a side of the image") for side in size]
        rows, cols = (np.arange(n) * count // n for n, count in zip(sides, (self.rows, self.cols), strict=True))
        return rows, cols

    def patch_in(self, other: TokenGrid, row: int, col: int) -> Patch:
        """Returns the patch of another grid over the same image that holds the centre of a patch of this grid.

        Args:
            other: E.g. the coarser grid of a later SwinV2 stage.
            row: Row of the patch in this grid.
            col: Column of the patch in this grid.

        Raises:
            InvalidTypeError: `row` or `col` is not an integer.
            OutOfRangeError: The patch lies outside this grid.
        """
        row, col = self._checked(row, col)
        # In half patches, centres are whole numbers, which divide without rounding.
        return other.patch_at(2 * row + 1, 2 * col + 1, (2 * self.rows, 2 * self.cols))

    def token_in(self, other: TokenGrid, token: int) -> int:
        """Returns the token of another grid over the same image that holds the centre of a token's patch.

        Prefix tokens keep their index.

        Args:
            other: E.g. the coarser grid of a later SwinV2 stage.
            token: Index in this grid's sequence.

        Raises:
            OutOfRangeError: This grid's sequence has no such token.
        """
        patch = self.patch(token)
        return whole(token, "token") if patch is None else other.token(*self.patch_in(other, *patch))

    def _checked(self, row: int, col: int) -> Patch:
        if not (is_whole(row) and is_whole(col)):
            raise InvalidTypeError(f"a patch must be two integers (row, col), got ({row!r}, {col!r})")
        row, col = whole(row, "row"), whole(col, "col")
        if not (0 <= row < self.rows and 0 <= col < self.cols):
            raise OutOfRangeError(
                f"patch ({row}, {col}) is outside the grid of {self.rows} rows x {self.cols} columns "
                f"(rows 0..{self.rows - 1}, columns 0..{self.cols - 1})"
            )
        return row, col


def _exact(value: object, what: str) -> int | float:
    """A number of Python, which computes without rounding integers."""
    number = plain(value)
    if number is None:
        raise InvalidTypeError(f"{what} must be a number of pixels, got {value!r}")
    return number


@dataclass(frozen=True, kw_only=True)
class Config(ABC):
    """Everything about a model except its weights. Each family has a subclass, which also builds its modules.

    Attributes:
        family: "depth-anything", "beit" or "swinv2".
        variant: Name of the model's size.
        width: Channels of a token in the first block.
        depth: Number of transformer blocks in all stages.
        heads: Attention heads of the first block.
        patch_size: Side of a patch in pixels.
        prefix: Tokens before the patches: class token, registers.
        multiple: Both sides of an input must be multiples of this number of pixels.
        fusion_channels: Channels of the fused maps.
        max_depth: Largest distance in metres for metric models; None for relative inverse depth.
        preprocess: How images become inputs.
        finest: Side of the finest reassembled map, in sides of the patch grid. Each following map has half the side.
    """

    family: str
    variant: str
    width: int
    depth: int
    heads: int
    patch_size: int
    prefix: int
    multiple: int
    fusion_channels: int
    max_depth: float | None = None
    preprocess: Preprocess

    finest: ClassVar[int] = 4

    def __post_init__(self) -> None:
        for field in fields(self):  # JSON cannot hold numbers of NumPy
            value = getattr(self, field.name)
            if isinstance(value, np.generic) and (number := plain(value)) is not None:
                object.__setattr__(self, field.name, number)
            elif isinstance(value, tuple) and any(isinstance(item, np.generic) for item in value):
                items = (item if (number := plain(item)) is None else number for item in value)
                object.__setattr__(self, field.name, tuple(items))

    @abstractmethod
    def parts(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        """Creates patch embedding, encoder and reassembly with random weights."""

    @property
    def title(self) -> str:
        """Family and size in words, e.g. "Depth-Anything V2 ViT-S". A size that has no name is given in numbers."""
        return f"{self.family}{self._sized('')}"

    def _sized(self, letter: str, extra: str = "") -> str:
        """The size for `title`: a letter such as "S", or the numbers if there is none.

        Args:
            letter: The usual name of the size; "" if it has none.
            extra: More of the title, which follows the letter and precedes the numbers.
        """
        return f"-{letter}{extra}" if letter else f"{extra} (width {self.width}, {self.depth} blocks)"

    @property
    def metric(self) -> bool:
        """True if the output is metres (larger is farther), False if it is inverse depth (larger is nearer)."""
        return self.max_depth is not None

    def block_grid(self, block: int, grid: TokenGrid) -> TokenGrid:
        """Returns the token grid of a block.

        Args:
            block: Number of the block, across stages.
            grid: Patch grid of the input.
        """
        return grid

    def block_width(self, block: int) -> int:
        """Returns the channels of a block's tokens."""
        return self.width

    def block_heads(self, block: int) -> int:
        """Returns the number of attention heads of a block."""
        return self.heads

    @abstractmethod
    def stage_block(self, stage: int) -> int:
        """Returns the block whose output a stage passes to reassembly."""

    def map_size(self, stage: int, grid: TokenGrid) -> tuple[int, int]:
        """Returns the (rows, cols) of a reassembled map. Odd sides are rounded up.

        Args:
            stage: 0 (finest) to 3.
            grid: Patch grid of the input.
        """
        over = 2**stage
        return -(-grid.rows * self.finest // over), -(-grid.cols * self.finest // over)

    def token_grid(self, height: int, width: int) -> TokenGrid:
        """Returns the patch grid of an input.

        Args:
            height: Height of the input in pixels.
            width: Width of the input in pixels.

        Raises:
            InvalidValueError: The model does not take this size. The message names the nearest one.
        """
        height, width = (whole(n, "a side") if isinstance(n, np.generic) else n for n in (height, width))
        step = self.multiple
        if height < step or width < step or height % step or width % step:
            nearest = [max(step, round(side / step) * step) for side in (height, width)]
            raise InvalidValueError(
                f"the sides of the model's input must be multiples of {step} pixels, got {height} x {width}. The "
                f"nearest size is {nearest[0]} x {nearest[1]}; model.prepare chooses a valid size"
            )
        return TokenGrid(height // self.patch_size, width // self.patch_size, self.prefix)
