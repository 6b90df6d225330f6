"""Depth-Anything v1 and v2: a DINOv2 encoder with a DPT decoder.

v1 and v2 compute the same function, except for the four blocks that reassembly reads ("taps"). Metric models differ
only in the last activation of the head.

Source:
    Yang et al. 2024, "Depth Anything" and "Depth Anything V2"; Oquab et al. 2023, "DINOv2".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Attend
from .config import Config, TokenGrid
from .errors import InvalidValueError
from .image import Preprocess
from .kept import KeptPerGrid
from .vit import MLP, PatchEmbed, Reassembly

PATCH = 14
HEAD_WIDTH = 64
TABLE_SIDE = 37  # position tables are stored for 37 x 37 patches, 518 pixels
TABLES_KEPT = 8  # number of grids whose interpolated tables are cached
SIZES = {(192, 12): "Ti", (384, 12): "S", (768, 12): "B", (1024, 24): "L", (1536, 40): "G"}  # (width, depth)


@dataclass(frozen=True)
class DepthAnythingConfig(Config):
    """Sizes of one Depth-Anything model. Create one with `depth_anything`, which derives the dependent values.

    Attributes:
        version: 1 or 2. Decides which blocks are tapped and how the depth is resized to the image.
        taps: Blocks (0-based) whose output goes to reassembly, finest map first.
        reassembly_channels: Channels of the four maps before the fusion projection.
        hidden: Channels of the MLP's hidden layer.
        swiglu: True for models with SwiGLU in place of the MLP (ViT-G).
    """

    _: KW_ONLY
    version: int
    taps: tuple[int, int, int, int]
    reassembly_channels: tuple[int, int, int, int]
    hidden: int
    swiglu: bool = False

    @property
    def title(self) -> str:
        metric = "" if self.max_depth is None else f", metric up to {self.max_depth:g} m"
        return f"Depth-Anything V{self.version} ViT{self._sized(SIZES.get((self.width, self.depth), ''))}{metric}"

    def stage_block(self, stage: int) -> int:
        return self.taps[stage]

    def parts(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        reassembly = Reassembly(self.width, self.reassembly_channels, self.fusion_channels)
        return PatchEmbed(self.width, PATCH), Encoder(self), reassembly


def depth_anything(
    *,
    variant: str,
    width: int,
    depth: int,
    reassembly_channels: Sequence[int],
    fusion_channels: int,
    version: int = 2,
    max_depth: float | None = None,
    hidden: int | None = None,
    swiglu: bool = False,
    base: int = 518,
) -> DepthAnythingConfig:
    """Creates the configuration of a Depth-Anything model from the sizes that vary between models.

    Args:
        variant: Name of the model's size, e.g. "vits".
        width: Channels of a token; a multiple of 64, the width of a head.
        depth: Number of blocks; at least 4.
        reassembly_channels: Channels of the four maps before the fusion projection, finest first.
        fusion_channels: Channels of the fused maps.
        version: 1 or 2.
        max_depth: Largest distance in metres, for metric models. None: the model returns inverse depth.
        hidden: Channels of the MLP's hidden layer. Default: 4 * width.
        swiglu: True for SwiGLU in place of the MLP.
        base: Default side of the input in pixels.

    Raises:
        InvalidValueError: A value is impossible.
    """
    if version not in (1, 2):
        raise InvalidValueError(f"version must be 1 or 2, got {version!r}")
    if max_depth is not None and not 0 < max_depth < float("inf"):
        raise InvalidValueError(
            f"max_depth must be a finite number of metres > 0, e.g. 20.0 (indoor) or 80.0 (outdoor), got {max_depth!r}"
        )
    if width % HEAD_WIDTH or width <= 0:
        raise InvalidValueError(f"width must be a multiple of {HEAD_WIDTH}, the width of a DINOv2 head, got {width}")
    if depth < 4:
        raise InvalidValueError(f"depth must be at least 4, because four blocks are tapped, got {depth}")
    return DepthAnythingConfig(
        family="depth-anything",
        variant=variant,
        width=width,
        depth=depth,
        heads=width // HEAD_WIDTH,
        patch_size=PATCH,
        prefix=1,
        multiple=PATCH,
        fusion_channels=fusion_channels,
        max_depth=max_depth,
        preprocess=Preprocess(
            base=base,
            multiple=PATCH,
            method="lower_bound",
            keep_aspect=True,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
            restore=("bilinear", version == 2),
        ),
        version=version,
        taps=_taps(depth, version),
        reassembly_channels=tuple(reassembly_channels),  # type: ignore[arg-type]
        hidden=4 * width if hidden is None else hidden,
        swiglu=swiglu,
    )


def _taps(depth: int, version: int) -> tuple[int, int, int, int]:
    if version == 1:  # the last four blocks
        return depth - 4, depth - 3, depth - 2, depth - 1
    if depth == 24:  # ViT-L taps block 4, where even spacing would give 5
        return 4, 11, 17, 23
    first, second, third, last = (depth * (s + 1) // 4 - 1 for s in range(4))  # evenly spaced, including the last
    return first, second, third, last


class Positions(nn.Module):
    """The learned position table, resized to the grid of the input as in DINOv2, and cached.

    The table holds one row for the class token, then 37 x 37 rows for patches. For other grids, the 37 x 37 part is
    resized bicubically with scale factors (g + 0.1) / 37 instead of g / 37. DINOv2 added 0.1 to guard against rounding.
    The models were trained with these factors, so they are part of the function.
    """

    def __init__(self, width: int):
        """Creates the module.

        Args:
            width: Channels of a token.
        """
        super().__init__()
        self.table = nn.Parameter(torch.zeros(1, 1 + TABLE_SIDE**2, width))
        self._kept: KeptPerGrid[Tensor] = KeptPerGrid(TABLES_KEPT)

    def forward(self, grid: TokenGrid) -> Tensor:
        """Returns the positions (1, 1 + rows*cols, C) for a patch grid."""
        # As in DINOv2, only the table's own grid is used unchanged: other shapes with 37 * 37 patches are resized.
        if grid.rows == grid.cols == TABLE_SIDE:
            return self.table
        return self._kept((self.table,), grid, lambda: self._resized(grid))

    def _resized(self, grid: TokenGrid) -> Tensor:
        table = self.table.float()
        patches = table[:, 1:].transpose(1, 2).unflatten(2, (TABLE_SIDE, TABLE_SIDE))  # (1, C, 37, 37)
        scale = ((grid.rows + 0.1) / TABLE_SIDE, (grid.cols + 0.1) / TABLE_SIDE)
        patches = F.interpolate(patches, scale_factor=scale, mode="bicubic", align_corners=False)  # (1, C, rows, cols)
        return torch.cat((table[:, :1], patches.flatten(2).transpose(1, 2)), dim=1).to(self.table.dtype)


class Attention(nn.Module):
    """Multi-head self-attention. Each head takes 64 consecutive channels. (B, 1+N, C) -> same."""

    def __init__(self, width: int, heads: int):
        """Creates the module.

        Args:
            width: Channels of a token.
            heads: Attention heads.
        """
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.attend = Attend(scale=(width // heads) ** -0.5)
        self.projection = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(2, (3, self.heads, -1))  # (B, N, 3, heads, d)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # 3 x (B, heads, N, d), views
        x = self.attend(q, k, v)  # (B, heads, N, d)
        return self.projection(x.transpose(1, 2).flatten(2))  # (B, N, C)


class SwiGLU(nn.Module):
    """silu(a) * b between two linear layers. Replaces the MLP in ViT-G.

    Source:
        Shazeer 2020, "GLU Variants Improve Transformer".
    """

    def __init__(self, width: int, hidden: int):
        """Creates the module.

        Args:
            width: Channels of a token.
            hidden: Channels of the hidden layer.
        """
        super().__init__()
        self.w12 = nn.Linear(width, 2 * hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * value)


class Block(nn.Module):
    """Pre-norm transformer block with a learned scale per branch: (B, 1+N, C) -> same."""

    def __init__(self, config: DepthAnythingConfig):
        super().__init__()
        width = config.width
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attention = Attention(width, config.heads)
        self.scale1 = nn.Parameter(torch.ones(width))
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = (SwiGLU if config.swiglu else MLP)(width, config.hidden)
        self.scale2 = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.joined(x, self.attention(self.norm1(x)))

    def joined(self, x: Tensor, attended: Tensor) -> Tensor:
        """Computes the rest of the block from its input and the output of attention."""
        x = torch.addcmul(x, self.scale1, attended)
        return torch.addcmul(x, self.scale2, self.mlp(self.norm2(x)))


class Encoder(nn.Module):
    """DINOv2: patch tokens (B, N, C) -> four token sets (B, 1+N, C), class token first, finest stage first."""

    def __init__(self, config: DepthAnythingConfig):
        super().__init__()
        self.taps = config.taps
        self.class_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.positions = Positions(config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=1e-6)

    def forward(self, patches: Tensor, grid: TokenGrid) -> tuple[Tensor, ...]:
        class_token = self.class_token.expand(patches.shape[0], -1, -1)
        x = torch.cat((class_token, patches), dim=1) + self.positions(grid)  # (B, 1+N, C)
        stages = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.taps:
                stages.append(self.norm(x))  # one norm serves all four taps
        return tuple(stages)
