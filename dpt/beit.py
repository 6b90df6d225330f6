"""MiDaS v3.1 with a BEiT encoder.

BEiT has no table of absolute positions. Each block adds its own attention bias, which depends on the offset from query
to key. Reassembly reads the class token out into the patches.

Source:
    Birkl et al. 2023, "MiDaS v3.1"; Bao et al. 2022, "BEiT".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Attend, OffsetBias
from .config import Config, TokenGrid
from .errors import InvalidValueError
from .image import Preprocess
from .kept import KeptPerGrid
from .vit import MLP, PatchEmbed, Reassembly, with_bias

PATCH = 16
HEAD_WIDTH = 64
# Number of grids whose biases are cached. A full bias is heads x tokens x tokens: 1.6 GB for BEiT-L's 24 blocks at 512
# pixels.
BIASES_KEPT = 2
SIZES = {(768, 12): "B", (1024, 24): "L"}  # (width, depth)


@dataclass(frozen=True)
class BeitConfig(Config):
    """Sizes of one MiDaS BEiT model. Create one with `beit`, which derives the dependent values.

    Attributes:
        taps: Blocks (0-based) whose output goes to reassembly, finest map first.
        reassembly_channels: Channels of the four maps before the fusion projection.
        hidden: Channels of the MLP's hidden layer.
        table_side: Side, in patches, of the square grid that the relative position tables are stored for.
    """

    _: KW_ONLY
    taps: tuple[int, int, int, int]
    reassembly_channels: tuple[int, int, int, int]
    hidden: int
    table_side: int

    def stage_block(self, stage: int) -> int:
        return self.taps[stage]

    @property
    def title(self) -> str:
        return f"MiDaS BEiT{self._sized(SIZES.get((self.width, self.depth), ''), f' {self.preprocess.base}')}"

    def parts(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        reassembly = Reassembly(self.width, self.reassembly_channels, self.fusion_channels, readout=True)
        return PatchEmbed(self.width, PATCH), Encoder(self), reassembly


def beit(
    *,
    variant: str,
    width: int,
    depth: int,
    table_side: int,
    reassembly_channels: Sequence[int],
    fusion_channels: int = 256,
    hidden: int | None = None,
) -> BeitConfig:
    """Creates the configuration of a BEiT model from the sizes that vary between models.

    Args:
        variant: Name of the model's size, e.g. "large-512".
        width: Channels of a token; a multiple of 64, the width of a head.
        depth: Number of blocks; a multiple of 4.
        table_side: Side of the grid that the position tables are stored for; the base input is 16 times as large.
        reassembly_channels: Channels of the four maps before the fusion projection, finest first.
        fusion_channels: Channels of the fused maps.
        hidden: Channels of the MLP's hidden layer. Default: 4 * width.

    Raises:
        InvalidValueError: `width` or `depth` is impossible.
    """
    if width % HEAD_WIDTH or width <= 0:
        raise InvalidValueError(f"width must be a multiple of {HEAD_WIDTH}, the width of a BEiT head, got {width}")
    if depth < 4 or depth % 4:
        raise InvalidValueError(f"depth must be a multiple of 4, because every quarter is tapped, got {depth}")
    return BeitConfig(
        family="beit",
        variant=variant,
        width=width,
        depth=depth,
        heads=width // HEAD_WIDTH,
        patch_size=PATCH,
        prefix=1,
        multiple=PATCH,
        fusion_channels=fusion_channels,
        preprocess=Preprocess(
            base=table_side * PATCH,
            multiple=2 * PATCH,  # as in MiDaS; the model itself also takes odd grids
            exact_multiple=PATCH,
            method="minimal",
            keep_aspect=True,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            restore=("bicubic", False),
        ),
        taps=(depth // 4 - 1, depth // 2 - 1, 3 * depth // 4 - 1, depth - 1),
        reassembly_channels=tuple(reassembly_channels),  # type: ignore[arg-type]
        hidden=4 * width if hidden is None else hidden,
        table_side=table_side,
    )


class RelativePositions(nn.Module):
    """The attention bias of a block: a table for one grid, resized to the grid of the input and cached."""

    def __init__(self, heads: int, side: int):
        """Creates the module.

        Args:
            heads: Attention heads.
            side: Side, in patches, of the grid that the table is stored for.
        """
        super().__init__()
        self.side = side
        self.dense = True  # compute the full bias once per grid; dpt.compiled sets False
        # One row per offset (dr, dc), row-major; then class to patches, patches to class, class to itself.
        self.table = nn.Parameter(torch.zeros((2 * side - 1) ** 2 + 3, heads))
        self._kept: KeptPerGrid[OffsetBias] = KeptPerGrid(BIASES_KEPT)

    def forward(self, grid: TokenGrid, small: bool = False) -> OffsetBias:
        """Returns the bias for a patch grid.

        Args:
            grid: The patch grid of the input.
            small: True returns the bias as its small table alone, without caching.
        """
        if small:
            return self._offsets(grid)
        return self._kept((self.table,), grid, lambda: self._made(grid))

    def _made(self, grid: TokenGrid) -> OffsetBias:
        bias = self._offsets(grid)
        return bias.in_full() if self.dense else bias

    def _offsets(self, grid: TokenGrid) -> OffsetBias:
        stored = 2 * self.side - 1
        offsets, prefix = self.table.mT.split((stored**2, 3), dim=1)
        offsets = offsets.unflatten(1, (stored, stored))  # (heads, 2 side - 1, 2 side - 1)
        size = (2 * grid.rows - 1, 2 * grid.cols - 1)
        if size != (stored, stored):
            resized = F.interpolate(offsets[None].float(), size, mode="bilinear", align_corners=False)
            offsets = resized[0].to(self.table.dtype)
        # Copies: with one head the transposed table is contiguous, and views of it would change with the parameter.
        return OffsetBias(*(part.clone(memory_format=torch.contiguous_format) for part in (offsets, prefix)))


class Attention(nn.Module):
    """Multi-head self-attention with a relative position bias. Keys have no learned bias.

    (B, 1+N, C) -> same.
    """

    def __init__(self, width: int, heads: int, side: int):
        """Creates the module.

        Args:
            width: Channels of a token.
            heads: Attention heads.
            side: Side, in patches, of the grid that the position table is stored for.
        """
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.positions = RelativePositions(heads, side)
        self.attend = Attend(scale=1 / math.sqrt(width // heads))
        self.projection = nn.Linear(width, width)

    def forward(self, x: Tensor, grid: TokenGrid) -> Tensor:
        bias = torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))
        qkv = with_bias(self.qkv, x, bias).unflatten(2, (3, self.heads, -1))  # (B, N, 3, heads, d)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # 3 x (B, heads, N, d), views
        x = self.attend(q, k, v, self.positions(grid))  # (B, heads, N, d)
        return self.projection(x.transpose(1, 2).flatten(2))  # (B, N, C)


class Block(nn.Module):
    """Pre-norm transformer block with a learned scale per branch: (B, 1+N, C) -> same."""

    def __init__(self, config: BeitConfig):
        super().__init__()
        width = config.width
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attention = Attention(width, config.heads, config.table_side)
        self.scale1 = nn.Parameter(torch.ones(width))
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = MLP(width, config.hidden)
        self.scale2 = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor, grid: TokenGrid) -> Tensor:
        return self.joined(x, self.attention(self.norm1(x), grid))

    def joined(self, x: Tensor, attended: Tensor) -> Tensor:
        """Computes the rest of the block from its input and the output of attention."""
        x = x + self.scale1 * attended
        return x + self.scale2 * self.mlp(self.norm2(x))


class Encoder(nn.Module):
    """BEiT: patch tokens (B, N, C) -> four token sets (B, 1+N, C), class token first, finest stage first.

    The token sets are the outputs of the tapped blocks, without a final norm.
    """

    def __init__(self, config: BeitConfig):
        super().__init__()
        self.taps = config.taps
        self.class_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))

    def forward(self, patches: Tensor, grid: TokenGrid) -> tuple[Tensor, ...]:
        x = torch.cat((self.class_token.expand(patches.shape[0], -1, -1), patches), dim=1)  # (B, 1+N, C)
        stages = []
        for i, block in enumerate(self.blocks):
            x = block(x, grid)
            if i in self.taps:
                stages.append(x)
        return tuple(stages)
