"""What a model is, apart from its weights: the configuration that every family extends, and the geometry of tokens."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from .errors import InvalidTypeError, InvalidValueError, OutOfRangeError
from .image import Preprocess


@dataclass(frozen=True)
class TokenGrid:
    """How a sequence of tokens lies on the picture.

    ``prefix`` tokens that stand for no patch (class token, registers) come first, then the patches row by row::

        0 .. prefix-1 | (0,0) (0,1) .. (0,cols-1) (1,0) ..

    Where attention is windowed, ``window`` is the (rows, cols) of one window and ``shift`` how far the windows lie down
    and to the right of the grid's corner. What hangs over at one border comes back in at the other; tokens that
    meet only so do not see each other. With a window and shift of 2 on a grid of 4 x 4, tokens carry these windows'
    numbers:

        shift 0:  0 0 1 1    shift 1:  3 2 2 3
                  0 0 1 1              1 0 0 1
                  2 2 3 3              1 0 0 1
                  2 2 3 3              3 2 2 3
    """

    rows: int
    cols: int
    prefix: int = 0
    window: tuple[int, int] | None = None
    shift: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shift", tuple(self.shift))  # lists come from JSON
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
        return self.rows * self.cols

    @property
    def tokens(self) -> int:
        return self.prefix + self.patches

    def windows(self) -> Tensor:
        """(windows, tokens of one): which token stands at each place of each window; one window if there is no tiling.

        Windows and the places in them are numbered row by row on the shifted grid.
        """
        if self.window is None:
            return torch.arange(self.tokens)[None]
        (high, wide), (down, right) = self.window, self.shift
        token = torch.arange(self.tokens).view(self.rows, self.cols).roll((-down, -right), dims=(0, 1))
        token = token.unflatten(0, (-1, high)).unflatten(2, (-1, wide))  # (windows down, high, windows across, wide)
        return token.transpose(1, 2).reshape(-1, high * wide)

    def token(self, row: int, col: int) -> int:
        """Index in the sequence of the patch at (row, col); both count from 0, top left first."""
        try:
            row, col = operator.index(row), operator.index(col)
        except TypeError:
            raise InvalidTypeError(f"a patch is two whole numbers, (row, col), not ({row!r}, {col!r})") from None
        if not (0 <= row < self.rows and 0 <= col < self.cols):
            raise OutOfRangeError(
                f"patch ({row}, {col}) is outside the grid of {self.rows} rows x {self.cols} columns; "
                f"rows run 0..{self.rows - 1}, columns 0..{self.cols - 1}"
            )
        return self.prefix + row * self.cols + col

    def patch(self, token: int) -> tuple[int, int] | None:
        """(row, col) of a token, or None for a prefix token."""
        if not 0 <= token < self.tokens:
            raise OutOfRangeError(
                f"token {token} is outside the sequence of {self.tokens} tokens (0..{self.tokens - 1})"
            )
        return None if token < self.prefix else divmod(token - self.prefix, self.cols)


@dataclass(frozen=True, kw_only=True)
class Config(ABC):
    """The facts that all families share. One subclass a family adds its own and builds the family's modules."""

    family: str
    variant: str
    width: int  # channels of a token in the first block
    depth: int  # transformer blocks, counted straight through the stages
    heads: int  # attention heads of the first block
    patch_size: int  # pixels along a side of a patch
    prefix: int  # tokens before the patches: class token, registers
    multiple: int  # the sides of an input are multiples of this
    fusion_channels: int
    max_depth: float | None = None  # metres at sigmoid 1 for metric models; None: relative inverse depth
    preprocess: Preprocess

    finest: ClassVar[int] = 4  # side of the finest reassembled map over that of the patch grid; each next map halves

    @abstractmethod
    def parts(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        """New, untrained (patch_embed, encoder, reassembly) of this family."""

    @property
    def metric(self) -> bool:
        """True: outputs metres, larger is farther. False: relative inverse depth, larger is nearer."""
        return self.max_depth is not None

    def block_grid(self, block: int, grid: TokenGrid) -> TokenGrid:
        """How the tokens of a block lie, for an input whose patch grid this is."""
        return grid

    def block_width(self, block: int) -> int:
        """Channels of a block's tokens."""
        return self.width

    def block_heads(self, block: int) -> int:
        return self.heads

    @abstractmethod
    def stage_block(self, stage: int) -> int:
        """The block whose tokens a stage hands to reassembly."""

    def map_size(self, stage: int, grid: TokenGrid) -> tuple[int, int]:
        """(rows, cols) of a reassembled map; odd sides are rounded up."""
        over = 2**stage
        return -(-grid.rows * self.finest // over), -(-grid.cols * self.finest // over)

    def token_grid(self, height: int, width: int) -> TokenGrid:
        """The patch grid of an input of that many pixels; ValueError if the model cannot take it."""
        step = self.multiple
        if height < step or width < step or height % step or width % step:
            nearest = [max(step, round(side / step) * step) for side in (height, width)]
            raise InvalidValueError(
                f"this model takes inputs whose sides are multiples of {step}, not {height} x {width} pixels; "
                f"the nearest such size is {nearest[0]} x {nearest[1]} (model.prepare chooses one by itself)"
            )
        return TokenGrid(height // self.patch_size, width // self.patch_size, self.prefix)
