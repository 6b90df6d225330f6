"""The weights from which training starts, and the changes that make a model trainable."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..ambient import usual_defaults
from ..attention import Attend, OffsetBias
from ..depth_anything import TABLE_SIDE, DepthAnythingConfig
from ..model import DPT
from .evaluate import normalise

FUSED_FROM = 512  # tokens


class ExplicitAttention(Attend):
    """Attention as two products and a softmax, which trains faster than the fused kernel on short sequences.

    For 97 tokens (8 images, 3 heads, bfloat16, one thread of a Zen 4) the fused kernel's backward pass takes 8 ms, this
    one 2 ms.
    """

    def forward(self, q: Tensor, k: Tensor, v: Tensor, bias: OffsetBias | Tensor | None = None) -> Tensor:
        assert bias is None  # Depth-Anything has none
        if q.shape[2] > FUSED_FROM or q.device.type != "cpu":
            return super().forward(q, k, v)
        return torch.softmax((q * self.scale) @ k.transpose(-1, -2), dim=-1) @ v


def make_trainable(model: DPT) -> DPT:
    """Make a model trainable, in place: without the last ReLU, with all parameters free but the position table."""
    model.head.activation = nn.Identity()  # type: ignore[assignment]
    for module in model.modules():
        if type(module) is Attend:
            module.__class__ = ExplicitAttention
    model.requires_grad_(True)
    model.encoder.positions.table.requires_grad_(False)
    return model.train()


@usual_defaults()
def new_model(config: DepthAnythingConfig, seed: int) -> DPT:
    """A new model, ready to train."""
    torch.manual_seed(seed)
    model = make_trainable(DPT(config))
    for name, parameter in model.encoder.named_parameters():
        if parameter.dim() == 2:  # the matrices of the blocks: each layer keeps the variance
            nn.init.xavier_uniform_(parameter)
            if name.endswith(("projection.weight", "fc2.weight")):  # ends of residual branches start small
                parameter.data /= math.sqrt(2 * config.depth)
        elif name.endswith("bias") and "norm" not in name:
            nn.init.zeros_(parameter)
    for part in (model.reassembly, model.fusion, model.head):
        for module in part.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                # A transposed convolution whose stride is its kernel size sums over its input channels only.
                fan_in = module.in_channels if isinstance(module, nn.ConvTranspose2d) else module.weight[0].numel()
                nn.init.normal_(module.weight, std=fan_in**-0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    nn.init.normal_(model.head.conv3.weight, std=0.02)
    nn.init.normal_(model.encoder.class_token, std=0.02)
    if model.head.conv3.bias is not None:
        nn.init.ones_(model.head.conv3.bias)  # the mean of the target
    model.encoder.positions.table[0, 1:] = sine_cosine(config.width)
    return model


def whiten(model: DPT, image: Tensor) -> None:
    """Initialise the patch projection to the whitened principal components of patches.

    With random weights, the mean brightness of a patch makes up 85 % of its token's variance, and texture and edges
    less than 1 %. Such a model ignores them for its first tens of thousands of images.

    Args:
        model: Changed in place.
        image: (B, 3, h, w) in 0..1.
    """
    projection = model.patch_embed.projection
    weight = projection.weight
    width, channels, patch, _ = weight.shape
    patches = normalise(image).unfold(2, patch, patch).unfold(3, patch, patch)  # (B, 3, rows, cols, 14, 14)
    patches = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, channels * patch**2).double()
    mean = patches.mean(0)
    variance, component = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
    variance, component = variance[-width:], component[:, -width:]  # the largest, one per channel
    # The constant keeps components below the sensor's noise small.
    whitened = (component / (variance + 0.05).sqrt()).T  # (width, 588)
    # A random rotation spreads the components over all channels, because layer norm uses all channels.
    spread = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(0)).double())[0]
    matrix = 0.7 * spread.to(whitened.device) @ whitened
    with torch.no_grad():
        weight.copy_(matrix.view_as(weight))
        projection.bias.copy_(-matrix @ mean)


def balance(model: DPT, image: Tensor) -> None:
    """Scale the four maps that enter the fusion to the same standard deviation.

    With random weights, the standard deviation of the coarsest map is 15 times that of the finest. Such a model uses
    the coarsest map only.

    Args:
        model: Changed in place.
        image: (B, 3, h, w) in 0..1.
    """
    x = normalise(image)
    grid = model.grid_of(x)
    with torch.no_grad():
        maps = model.reassembly(model.encoder(model.patch_embed(x), grid), grid)
        for convolution, produced in zip(model.reassembly.to_fusion, maps, strict=True):
            convolution.weight /= produced.std()


def sine_cosine(width: int) -> Tensor:
    """A smooth position table (37 * 37, width): sine and cosine of row and column, a quarter of the channels each."""
    place = (torch.arange(TABLE_SIDE) + 0.5) / TABLE_SIDE
    waves = torch.logspace(math.log10(0.25), math.log10(4.0), width // 4)  # periods across the image
    phase = 2 * math.pi * place[:, None] * waves
    one = torch.cat([torch.sin(phase), torch.cos(phase)], 1)  # (37, width / 2)
    rows = one[:, None].expand(TABLE_SIDE, TABLE_SIDE, -1)
    cols = one[None].expand(TABLE_SIDE, TABLE_SIDE, -1)
    return 0.7 * torch.cat([rows, cols], -1).reshape(TABLE_SIDE**2, width)
