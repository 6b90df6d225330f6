"""What a model is, apart from its weights: the configuration that every family extends, and the geometry of tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .image import Preprocess

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class TokenGrid:
    """How a sequence of tokens lies on the picture.

    ``prefix`` tokens that stand for no patch (class token, registers) come first, then the patches row by row::

        0 .. prefix-1 | (0,0) (0,1) .. (0,cols-1) (1,0) ..
    """

    rows: int
    cols: int
    prefix: int = 0

    @property
    def patches(self) -> int:
        return self.rows * self.cols

    @property
    def tokens(self) -> int:
        return self.prefix + self.patches

    def token(self, row: int, col: int) -> int:
        """Index in the sequence of the patch at (row, col); both count from 0, top left first."""
        if not (0 <= row < self.rows and 0 <= col < self.cols):
            raise IndexError(
                f"patch ({row}, {col}) is outside the grid of {self.rows} rows x {self.cols} columns; "
                f"rows run 0..{self.rows - 1}, columns 0..{self.cols - 1}"
            )
        return self.prefix + row * self.cols + col

    def patch(self, token: int) -> tuple[int, int] | None:
        """(row, col) of a token, or None for a prefix token."""
        if not 0 <= token < self.tokens:
            raise IndexError(f"token {token} is outside the sequence of {self.tokens} tokens (0..{self.tokens - 1})")
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

    @abstractmethod
    def parts(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        """New, untrained (patch_embed, encoder, reassembly) of this family."""

    @property
    def metric(self) -> bool:
        """True: outputs metres, larger is farther. False: relative inverse depth, larger is nearer."""
        return self.max_depth is not None

    def token_grid(self, height: int, width: int) -> TokenGrid:
        """The patch grid of an input of that many pixels; ValueError if the model cannot take it."""
        step = self.multiple
        if height < step or width < step or height % step or width % step:
            nearest = [max(step, round(side / step) * step) for side in (height, width)]
            raise ValueError(
                f"this model takes inputs whose sides are multiples of {step}, not {height} x {width} pixels; "
                f"the nearest such size is {nearest[0]} x {nearest[1]} (model.prepare chooses one by itself)"
            )
        return TokenGrid(height // self.patch_size, width // self.patch_size, self.prefix)
