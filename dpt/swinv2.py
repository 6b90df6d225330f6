"""MiDaS v3.1 with a SwinV2 encoder: windowed attention in four stages, each with coarser tokens than the last.

Tokens attend only to their own window. Every second block shifts the windows by half a window, so neighbours across a
border meet in that block. Between stages, 2 x 2 tokens merge into one. The tokens of the four stages already have the
resolutions that the decoder needs, so reassembly is only a projection.

Sizes: the original models take one square size. This implementation also covers other grids. It chooses the window of
each axis separately:

* A side no longer than the window becomes one window. A multiple of the window is tiled by it.
* Any other side is tiled by its largest divisor from half the window to just below twice the window. Sizes without such
  a divisor are refused. (This rule comes from muggled_dpt, the only code known to run such sizes.)

The bias network takes offsets relative to the window that the model was pretrained with. Models without such a window
use the current window; for sides under the second rule, the window of the original size.

Source:
    Birkl et al. 2023, "MiDaS v3.1"; Liu et al. 2022, "Swin Transformer V2".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .ambient import without_autocast
from .attention import Attend, OffsetBias
from .config import Config, TokenGrid
from .errors import InvalidValueError, OutOfRangeError
from .image import Preprocess
from .kept import KeptPerGrid
from .modules import float_dtype, input_device, is_plain
from .vit import MLP, as_map, with_bias

PATCH = 4
HEAD_WIDTH = 32
EPS = 1e-5
SIZES = {(96, (2, 2, 6, 2)): "T", (96, (2, 2, 18, 2)): "S", (128, (2, 2, 18, 2)): "B", (192, (2, 2, 18, 2)): "L"}
BIASES_KEPT = 2  # number of grids whose biases are cached; windows x heads x tokens x tokens each


@dataclass(frozen=True)
class SwinV2Config(Config):
    """Sizes of one MiDaS SwinV2 model. Create one with `swinv2`, which derives the dependent values.

    Attributes:
        depths: Number of blocks in each stage.
        window: Side of a window in tokens.
        pretrained: Sides of the windows at pretraining, per stage; None if the model has no other windows.
    """

    _: KW_ONLY
    depths: tuple[int, int, int, int]
    window: int
    pretrained: tuple[int, int, int, int] | None = None

    finest: ClassVar[int] = 1

    @property
    def title(self) -> str:
        return f"MiDaS SwinV2{self._sized(SIZES.get((self.width, self.depths), ''), f' {self.preprocess.base}')}"

    def stage_of(self, block: int) -> int:
        """Returns the stage of a block. Blocks are numbered across stages.

        Raises:
            OutOfRangeError: The model has no such block.
        """
        if not 0 <= block < self.depth:
            raise OutOfRangeError(f"block {block} is outside 0..{self.depth - 1}")
        return next(s for s in range(4) if block < sum(self.depths[: s + 1]))

    def stage_block(self, stage: int) -> int:
        return sum(self.depths[: stage + 1]) - 1

    def block_width(self, block: int) -> int:
        return self.width * 2 ** self.stage_of(block)

    def block_heads(self, block: int) -> int:
        return self.block_width(block) // HEAD_WIDTH

    def block_grid(self, block: int, grid: TokenGrid) -> TokenGrid:
        stage = self.stage_of(block)
        odd = (block - sum(self.depths[:stage])) % 2 == 1
        sides = grid.rows // 2**stage, grid.cols // 2**stage
        window = self._window(sides[0]), self._window(sides[1])
        shift = tuple(w // 2 if odd and side > w else 0 for side, w in zip(sides, window, strict=True))
        return TokenGrid(*sides, window=window, shift=shift)  # type: ignore[arg-type]

    def reach(self, block: int, grid: TokenGrid) -> tuple[int, int]:
        """Returns the window (rows, cols) that the offsets of a block are relative to."""
        stage, at = self.stage_of(block), self.block_grid(block, grid)
        assert at.window is not None
        if self.pretrained is not None:
            return self.pretrained[stage], self.pretrained[stage]
        native = min(self.window, self.preprocess.base // PATCH // 2**stage)
        tiled = (side <= self.window or side % self.window == 0 for side in (at.rows, at.cols))
        return tuple(w if natural else native for w, natural in zip(at.window, tiled, strict=True))  # type: ignore

    def _window(self, side: int) -> int:
        if side <= self.window:
            return side
        if side % self.window == 0:
            return self.window
        return max((d for d in range(self.window // 2, 2 * self.window) if side % d == 0), default=0)

    def token_grid(self, height: int, width: int) -> TokenGrid:
        """As `Config.token_grid`. Also refuses sizes that windows cannot tile."""
        grid = super().token_grid(height, width)
        if not (self._tiled(height) and self._tiled(width)):
            nearest = [self._nearest(side) for side in (height, width)]
            raise InvalidValueError(
                f"windows of about {self.window} tokens do not tile an input of {height} x {width} pixels. The nearest "
                f"size that this model takes is {nearest[0]} x {nearest[1]}"
            )
        return grid

    def _tiled(self, pixels: int) -> bool:
        return all(self._window(pixels // PATCH // 2**s) for s in range(4))

    def _nearest(self, pixels: int) -> int:
        steps = (pixels + sign * n * self.multiple for n in range(pixels) for sign in (1, -1))
        return next(side for side in steps if side > 0 and self._tiled(side))

    def parts(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        return PatchEmbed(self.width), Encoder(self), Reassembly(self)


def swinv2(
    *,
    variant: str,
    width: int,
    depths: Sequence[int],
    window: int,
    base: int,
    pretrained: Sequence[int] | None = None,
    fusion_channels: int = 256,
) -> SwinV2Config:
    """Creates the configuration of a SwinV2 model from the sizes that vary between models.

    Args:
        variant: Name of the model's size, e.g. "tiny-256".
        width: Channels of a token in the first stage; a multiple of 32, the width of a head.
        depths: Number of blocks in each of the four stages.
        window: Side of a window in tokens.
        base: Default side of the input in pixels.
        pretrained: Sides of the windows at pretraining, per stage.
        fusion_channels: Channels of the fused maps.

    Raises:
        InvalidValueError: `width` or `depths` is impossible.
    """
    if width % HEAD_WIDTH or width <= 0:
        raise InvalidValueError(f"width must be a multiple of {HEAD_WIDTH}, the width of a SwinV2 head, got {width}")
    if len(depths) != 4 or min(depths) < 1:
        raise InvalidValueError(f"depths must be four numbers of blocks >= 1, got {tuple(depths)}")
    return SwinV2Config(
        family="swinv2",
        variant=variant,
        width=width,
        depth=sum(depths),
        heads=width // HEAD_WIDTH,
        patch_size=PATCH,
        prefix=0,
        multiple=8 * PATCH,
        fusion_channels=fusion_channels,
        preprocess=Preprocess(
            base=base,
            multiple=8 * PATCH,
            method="minimal",
            keep_aspect=False,  # the original models take one size
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            restore=("bicubic", False),
        ),
        depths=tuple(depths),  # type: ignore[arg-type]
        window=window,
        pretrained=None if pretrained is None else tuple(pretrained),  # type: ignore[arg-type]
    )


class PatchEmbed(nn.Module):
    """(B, 3, h, w) -> (B, N, C): one linear map and a norm applied to each 4 x 4 patch, row by row."""

    def __init__(self, width: int):
        """Creates the module.

        Args:
            width: Channels of a token in the first stage.
        """
        super().__init__()
        self.projection = nn.Conv2d(3, width, PATCH, stride=PATCH)
        self.norm = nn.LayerNorm(width, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.projection(x).flatten(2).transpose(1, 2))


class RelativePositions(nn.Module):
    """The attention bias from a small network: 16 sigmoid(MLP(log-spaced offset)), cached per grid.

    The network takes any offset, so windows of any size have a bias and nothing is resized.

    Source:
        Liu et al. 2022, "Swin Transformer V2", section 3.3.
    """

    def __init__(self, heads: int):
        """Creates the module.

        Args:
            heads: Attention heads.
        """
        super().__init__()
        self.fc1 = nn.Linear(2, 512)
        self.fc2 = nn.Linear(512, heads, bias=False)
        self.dense = True  # compute the full bias once per grid; dpt.compiled sets False
        self._kept: KeptPerGrid[OffsetBias] = KeptPerGrid(BIASES_KEPT)

    def forward(
        self, grid: TokenGrid, reach: tuple[int, int], device: torch.device | None = None, small: bool = False
    ) -> OffsetBias:
        """Returns the bias of a window.

        Args:
            grid: The block's token grid, with its windows.
            reach: The window that offsets are relative to, see `SwinV2Config.reach`.
            device: Where the bias is used. None: where the network is.
            small: True returns the bias as its small table alone, without caching.
        """
        device = input_device(self, self) if device is None else device
        plain = is_plain(self.fc1, nn.Linear) and is_plain(self.fc2, nn.Linear)
        parameters = tuple(self.parameters())
        if small or not plain or any(p.device != device for p in parameters):
            with without_autocast(device):
                return self._made(grid, reach, device, small)
        return self._kept(parameters, (grid, reach), lambda: self._made(grid, reach, device, False))

    def _made(self, grid: TokenGrid, reach: tuple[int, int], device: torch.device, small: bool) -> OffsetBias:
        bias = self._offsets(grid, reach, device)
        return bias.in_full() if self.dense and not small else bias

    def _offsets(self, grid: TokenGrid, reach: tuple[int, int], device: torch.device) -> OffsetBias:
        assert grid.window is not None
        sides = [
            torch.arange(1 - w, w, device=device, dtype=torch.float32) / max(p - 1, 1)
            for w, p in zip(grid.window, reach, strict=True)
        ]
        offsets = torch.stack(torch.meshgrid(*sides, indexing="ij"), dim=-1)  # (2 wh - 1, 2 ww - 1, 2)
        offsets = offsets.sign() * torch.log2(1 + 8 * offsets.abs()) / 3  # log2(8) = 3 maps the far corner close to 1
        table = 16 * torch.sigmoid(self.fc2(F.relu(self.fc1(offsets.to(float_dtype(self.fc1))))))
        bands = _bands(grid, device) if any(grid.shift) else None
        return OffsetBias(table.permute(2, 0, 1).contiguous(), bands=bands)


def _bands(grid: TokenGrid, device: torch.device) -> Tensor:
    """(windows, tokens per window): tokens of a window attend to each other where these numbers are equal.

    Along a shifted axis, the tokens that wrap around from the other border form a separate band:

        the shifted grid:  | one window | ... | own tokens : wrapped tokens |
    """
    assert grid.window is not None
    bands = []
    for side, window, shift in zip((grid.rows, grid.cols), grid.window, grid.shift, strict=True):
        at = torch.arange(side, device=device)
        bands.append((at >= side - window).long() + (at >= side - shift) if shift else torch.zeros_like(at))
    region = 3 * bands[0][:, None] + bands[1]  # (rows, cols) of the shifted grid
    unshifted = replace(grid, shift=(0, 0))
    return region.flatten()[unshifted.windows(device)]


class Attention(nn.Module):
    """Cosine attention within windows. Each head takes 32 consecutive channels. Keys have no learned bias.

    softmax(n(q) . n(k) exp(min(logit_scale, ln 100)) + bias) v, with n(x) = x / |x|. The queries include the scale.
    (windows of all images, T, C) -> same.

    Source:
        Liu et al. 2022, "Swin Transformer V2", section 3.2.
    """

    def __init__(self, width: int, heads: int):
        """Creates the module.

        Args:
            width: Channels of a token.
            heads: Attention heads.
        """
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.logit_scale = nn.Parameter(torch.full((heads, 1, 1), math.log(10)))
        self.positions = RelativePositions(heads)
        self.attend = Attend(scale=1.0)
        self.projection = nn.Linear(width, width)

    def forward(self, x: Tensor, bias: OffsetBias) -> Tensor:
        # x: (windows of all images, T, C) -> same
        x = self.attend(*self.directions(x), bias)  # (W, heads, T, d)
        return self.projection(x.transpose(1, 2).flatten(2))

    def directions(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Computes queries, keys and values: (W, heads, T, d) each, from x (W, T, C).

        Queries have the length of their head's scale, keys have length 1.
        """
        qkv_bias = torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))
        qkv = with_bias(self.qkv, x, qkv_bias).unflatten(2, (3, self.heads, -1))  # (W, T, 3, heads, d)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # 3 x (W, heads, T, d), views
        q = F.normalize(q, dim=-1) * self.logit_scale.clamp(max=math.log(100)).exp()
        return q, F.normalize(k, dim=-1), v


class Block(nn.Module):
    """Post-norm transformer block on windows: (B, N, C) -> same."""

    def __init__(self, width: int, heads: int):
        """Creates the module.

        Args:
            width: Channels of a token.
            heads: Attention heads.
        """
        super().__init__()
        self.attention = Attention(width, heads)
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.mlp = MLP(width, 4 * width)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self._kept: KeptPerGrid[tuple[Tensor, Tensor]] = KeptPerGrid(BIASES_KEPT)

    def forward(self, x: Tensor, grid: TokenGrid, reach: tuple[int, int]) -> Tensor:
        return self.joined(x, self._attended(x, grid, reach))

    def joined(self, x: Tensor, attended: Tensor) -> Tensor:
        """Computes the rest of the block from its input and the output of attention."""
        x = x + self.norm1(attended)
        return x + self.norm2(self.mlp(x))

    def _attended(self, x: Tensor, grid: TokenGrid, reach: tuple[int, int]) -> Tensor:
        order, back = self._kept((), (grid, x.device), lambda: _order(grid, x.device))
        inside = x[:, order].reshape(-1, math.prod(grid.window or ()), x.shape[2])  # (B windows, T, C), shifted
        inside = self.attention(inside, self.attention.positions(grid, reach, x.device))
        return inside.reshape(x.shape)[:, back]  # (B, N, C), shifted back


def _order(grid: TokenGrid, device: torch.device) -> tuple[Tensor, Tensor]:
    """The order of tokens window by window, and the inverse permutation."""
    order = grid.windows(device).flatten()
    return order, order.argsort()


class Merge(nn.Module):
    """Merges 2 x 2 tokens into one of twice the width between stages: (B, N, C) -> (B, N/4, 2C)."""

    def __init__(self, width: int):
        """Creates the module.

        Args:
            width: Channels of a token before merging.
        """
        super().__init__()
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)
        self.norm = nn.LayerNorm(2 * width, eps=EPS)

    def forward(self, x: Tensor, grid: TokenGrid) -> Tensor:
        x = x.unflatten(1, (grid.rows // 2, 2, grid.cols // 2, 2))  # (B, rows/2, 2, cols/2, 2, C)
        # The four neighbours column by column: (0, 0), (1, 0), (0, 1), (1, 1).
        x = x.permute(0, 1, 3, 4, 2, 5).flatten(3).flatten(1, 2)  # (B, N/4, 4C)
        return self.norm(self.reduction(x))


class Encoder(nn.Module):
    """SwinV2: patch tokens (B, N, C) -> four token sets (B, N / 4^s, C 2^s), finest stage first."""

    def __init__(self, config: SwinV2Config):
        super().__init__()
        self.config = config
        blocks = range(config.depth)
        self.blocks = nn.ModuleList(Block(config.block_width(i), config.block_heads(i)) for i in blocks)
        self.merges = nn.ModuleList(Merge(config.width * 2**s) for s in range(3))

    def forward(self, x: Tensor, grid: TokenGrid) -> tuple[Tensor, ...]:
        ends = [self.config.stage_block(s) for s in range(4)]
        stages = []
        for i, block in enumerate(self.blocks):
            at = self.config.block_grid(i, grid)
            x = block(x, at, self.config.reach(i, grid))
            if i in ends:
                stages.append(x)
                if len(stages) < 4:
                    x = self.merges[len(stages) - 1](x, at)
        return tuple(stages)


class Reassembly(nn.Module):
    """Token sets -> image-like maps at 1, 1/2, 1/4 and 1/8 of the patch grid, in the fusion's channels."""

    def __init__(self, config: SwinV2Config):
        super().__init__()
        widths = [config.width * 2**s for s in range(4)]
        self.to_fusion = nn.ModuleList(nn.Conv2d(c, config.fusion_channels, 3, padding=1, bias=False) for c in widths)

    def forward(self, stages: Sequence[Tensor], grid: TokenGrid) -> tuple[Tensor, ...]:
        maps = []
        for s, (stage, to_fusion) in enumerate(zip(stages, self.to_fusion, strict=True)):
            x = as_map(stage, grid.rows // 2**s, grid.cols // 2**s)  # (B, C, h_s, w_s)
            maps.append(to_fusion(x))  # (B, F, h_s, w_s)
        return tuple(maps)
