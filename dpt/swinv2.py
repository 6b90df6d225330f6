"""MiDaS v3.1 with a SwinV2 encoder: attention in windows, four stages of ever coarser tokens.

Birkl et al. 2023, "MiDaS v3.1"; Liu et al. 2022, "Swin Transformer V2". Tokens see only their own window; every second
block shifts the windows by half, so that neighbours across a border meet there. Between stages 2 x 2 tokens merge. The
stages' tokens are the maps that the decoder wants, so that reassembly is a projection and nothing more.

Sizes. The originals take one square size. Here windows cover other grids as well, one axis at a time:

* a side no longer than the window is one window; a multiple of the window is tiled by it;
* any other side is tiled by its largest divisor from half to just below twice the window; if it has none, the size is
  refused. (The rule of muggled_dpt, the only code known to run such sizes.)

The bias network sees offsets as a share of the window the model was pretrained with, or of the window at hand where
there was none; under the second rule always of the window at the original size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Attend, OffsetBias
from .config import Config, TokenGrid
from .errors import InvalidValueError, OutOfRangeError
from .image import Preprocess
from .kept import KeptPerGrid
from .vit import MLP, as_map

PATCH = 4
HEAD_WIDTH = 32
EPS = 1e-5
BIASES_KEPT = 2  # grids whose biases are kept; windows x heads x tokens x tokens each


@dataclass(frozen=True)
class SwinV2Config(Config):
    """Sizes of one MiDaS SwinV2 model. `swinv2` fills in what follows from the rest."""

    _: KW_ONLY
    depths: tuple[int, int, int, int]  # blocks of each stage
    window: int  # side of a window, in tokens
    pretrained: tuple[int, int, int, int] | None = None  # windows of each stage at pretraining; None: the model's own

    finest: ClassVar[int] = 1

    def stage_of(self, block: int) -> int:
        """The stage that a block, counted straight through, belongs to."""
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
        """The windows (rows, cols) that a block's offsets are measured by."""
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
        grid = super().token_grid(height, width)
        if not (self._tiled(height) and self._tiled(width)):
            nearest = [self._nearest(side) for side in (height, width)]
            raise InvalidValueError(
                f"windows of about {self.window} tokens do not tile the grids of {height} x {width} pixels; the "
                f"nearest size that this model takes is {nearest[0]} x {nearest[1]}"
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
    """The configuration of a SwinV2 model from the sizes that vary. ValueError for impossible ones."""
    if width % HEAD_WIDTH or width <= 0:
        raise InvalidValueError(
            f"width is {width}; SwinV2 heads are {HEAD_WIDTH} wide, so it must be a multiple of that"
        )
    if len(depths) != 4 or min(depths) < 1:
        raise InvalidValueError(f"depths are {tuple(depths)}; each of the four stages has at least one block")
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
            keep_aspect=False,  # the originals take one size
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            restore=("bicubic", False),
        ),
        depths=tuple(depths),  # type: ignore[arg-type]
        window=window,
        pretrained=None if pretrained is None else tuple(pretrained),  # type: ignore[arg-type]
    )


class PatchEmbed(nn.Module):
    """(B, 3, h, w) -> (B, N, C): each 4 x 4 patch through one linear map and a norm, row by row."""

    def __init__(self, width: int):
        super().__init__()
        self.projection = nn.Conv2d(3, width, PATCH, stride=PATCH)
        self.norm = nn.LayerNorm(width, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.projection(x).flatten(2).transpose(1, 2))


class RelativePositions(nn.Module):
    """A bias by offset from a small network: 16 sigmoid(MLP(log-spaced offset)), kept for the next picture.

    The network takes any offset, so that windows of any size have a bias; nothing is resized.
    """

    def __init__(self, heads: int):
        super().__init__()
        self.fc1 = nn.Linear(2, 512)
        self.fc2 = nn.Linear(512, heads, bias=False)
        self.dense = True  # work the bias out in full, once a grid; see dpt.compiled
        self._kept: KeptPerGrid[OffsetBias] = KeptPerGrid(BIASES_KEPT)

    def forward(self, grid: TokenGrid, reach: tuple[int, int]) -> OffsetBias:
        parameters = (self.fc1.weight, self.fc1.bias, self.fc2.weight)
        return self._kept(parameters, (grid, reach), lambda: self._made(grid, reach))

    def _made(self, grid: TokenGrid, reach: tuple[int, int]) -> OffsetBias:
        bias = self.offsets(grid, reach)
        return bias.in_full() if self.dense else bias

    def offsets(self, grid: TokenGrid, reach: tuple[int, int]) -> OffsetBias:
        """The bias as its table alone, which is small; nothing is kept."""
        assert grid.window is not None
        device = self.fc1.weight.device
        sides = [
            torch.arange(1 - w, w, device=device, dtype=torch.float32) / max(p - 1, 1)
            for w, p in zip(grid.window, reach, strict=True)
        ]
        offsets = torch.stack(torch.meshgrid(*sides, indexing="ij"), dim=-1)  # (2 wh - 1, 2 ww - 1, 2)
        offsets = offsets.sign() * torch.log2(1 + 8 * offsets.abs()) / 3  # log2(8) = 3: the far corner is near 1
        table = 16 * torch.sigmoid(self.fc2(F.relu(self.fc1(offsets.to(self.fc1.weight.dtype)))))
        bands = _bands(grid).to(device) if any(grid.shift) else None
        return OffsetBias(table.permute(2, 0, 1).contiguous(), bands=bands)


def _bands(grid: TokenGrid) -> Tensor:
    """(windows, tokens of one): tokens of a window may see each other where these numbers are equal.

    Along a shifted axis, what the shift brought round from the other border is a band of its own:

        the shifted grid:  | one window | ... | near part : brought round |
    """
    assert grid.window is not None
    bands = []
    for side, window, shift in zip((grid.rows, grid.cols), grid.window, grid.shift, strict=True):
        at = torch.arange(side)
        bands.append((at >= side - window).long() + (at >= side - shift) if shift else torch.zeros_like(at))
    region = 3 * bands[0][:, None] + bands[1]  # (rows, cols) of the shifted grid
    unshifted = replace(grid, shift=(0, 0))
    return region.flatten()[unshifted.windows()]


class Attention(nn.Module):
    """Cosine attention within windows; heads are consecutive runs of 32 channels, the keys have no bias.

    softmax(n(q) . n(k) exp(min(logit_scale, ln 100)) + bias), n(x) = x / |x|; the scale is folded into the queries.
    """

    def __init__(self, width: int, heads: int):
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
        # x: (windows of all pictures, T, C) -> same
        x = self.attend(*self.directions(x), bias)  # (W, heads, T, d)
        return self.projection(x.transpose(1, 2).flatten(2))

    def directions(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, as long as their head's scale; keys of length 1; and values: (W, heads, T, d) each."""
        qkv_bias = torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))
        qkv = F.linear(x, self.qkv.weight, qkv_bias).unflatten(2, (3, self.heads, -1))  # (W, T, 3, heads, d)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # 3 x (W, heads, T, d), views
        q = F.normalize(q, dim=-1) * self.logit_scale.clamp(max=math.log(100)).exp()
        return q, F.normalize(k, dim=-1), v


class Block(nn.Module):
    """Post-norm transformer block on windows: (B, N, C) -> same."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attention = Attention(width, heads)
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.mlp = MLP(width, 4 * width)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self._kept: KeptPerGrid[tuple[Tensor, Tensor]] = KeptPerGrid(BIASES_KEPT)

    def forward(self, x: Tensor, grid: TokenGrid, reach: tuple[int, int]) -> Tensor:
        return self.joined(x, self._attended(x, grid, reach))

    def joined(self, x: Tensor, attended: Tensor) -> Tensor:
        """All that follows attention."""
        x = x + self.norm1(attended)
        return x + self.norm2(self.mlp(x))

    def _attended(self, x: Tensor, grid: TokenGrid, reach: tuple[int, int]) -> Tensor:
        order, back = self._kept((), (grid, x.device), lambda: _order(grid, x.device))
        inside = x[:, order].reshape(-1, math.prod(grid.window or ()), x.shape[2])  # (B windows, T, C), shifted
        inside = self.attention(inside, self.attention.positions(grid, reach))
        return inside.reshape(x.shape)[:, back]  # (B, N, C), shifted back


def _order(grid: TokenGrid, device: torch.device) -> tuple[Tensor, Tensor]:
    """The tokens window by window, and the way back."""
    order = grid.windows().flatten()
    return order.to(device), order.argsort().to(device)


class Merge(nn.Module):
    """Between stages: 2 x 2 tokens become one of twice the width, (B, N, C) -> (B, N/4, 2C)."""

    def __init__(self, width: int):
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
