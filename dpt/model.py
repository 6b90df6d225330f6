"""The depth model: picture -> patches -> tokens -> four maps -> one map -> depth.

Ranftl et al. 2021, "Vision Transformers for Dense Prediction". The families differ in the first three parts, which
their configuration builds; fusion and head are the same for all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from . import image as pictures
from .compiled import compile_model, take_back
from .config import Config, TokenGrid
from .errors import InvalidTypeError, InvalidValueError
from .fusion import Fusion
from .head import Head

__all__ = ["DPT", "TokenGrid"]


class DPT(nn.Module):
    """A depth model of any family. ``DPT(config)`` has random weights; `dpt.load` gives a trained one."""

    # What these hold beside their forward passes is the family's own affair.
    patch_embed: Any
    encoder: Any
    reassembly: Any

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.patch_embed, self.encoder, self.reassembly = config.parts()
        self.fusion = Fusion(config.fusion_channels)
        self.head = Head(config.fusion_channels, config.max_depth)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised pictures (B, 3, h, w) -> (B, h, w): inverse depth, larger is nearer (metric models: metres).

        In the model's type on its device; depth is float32, also of a model in half precision.
        """
        grid = self.grid_of(x)
        tokens = self.patch_embed(x)  # (B, N, C)
        stages = self.encoder(tokens, grid)  # 4 x (B, prefix+N, C)
        maps = self.reassembly(stages, grid)  # 4 x (B, F, h_s, w_s), finest first
        fused = self.fusion(maps)  # (B, F, 2 h_0, 2 w_0)
        return self.head(fused, tuple(x.shape[-2:]))  # (B, h, w)

    def predict(
        self, image: np.ndarray, size: int | tuple[int, int] | None = None, keep_aspect: bool = True
    ) -> np.ndarray:
        """Depth of one picture, at the picture's own size.

        image: (H, W, 3) uint8 RGB, as `dpt.read_image` returns it. size and keep_aspect: see `prepare`.
        Returns (H, W) float32: inverse depth, larger is nearer (metric models: metres).
        """
        image = pictures.as_image(image)
        # no_grad rather than inference_mode: what a probe captures here must stay usable outside, for instance as
        # the input of a linear probe that is trained, and inference tensors are refused by autograd.
        with torch.no_grad():
            depth = self(self.prepare(image, size, keep_aspect))
        height, width = image.shape[:2]
        return pictures.restore(depth.float().cpu(), (height, width), self.config.preprocess)[0].numpy()

    def prepare(self, image: np.ndarray, size: int | tuple[int, int] | None = None, keep_aspect: bool = True) -> Tensor:
        """A picture as this model's input: (1, 3, h, w), resized and normalised as the original code does it.

        image: (H, W, 3) uint8 RGB. size: None for the model's own base size, one number for another (roughly the
        shorter side of the input), or (height, width). keep_aspect=False stretches: a pair is then met exactly.
        On the model's device and in its dtype. The rules in full: `dpt.image.network_size`.
        """
        x = pictures.prepare(pictures.as_image(image), self.config.preprocess, size, keep_aspect)
        like = next(self.parameters())
        if like.is_cuda:
            x = x.pin_memory()  # the copy runs while the host goes on
        return x.to(like.device, like.dtype, non_blocking=like.is_cuda)

    def compile(  # type: ignore[override]
        self, *, enabled: bool = True, graphs: bool = False, flex: bool | None = None, **options: Any
    ) -> DPT:
        """Compiles the model in place, in regions between its probe points, and returns it: for GPUs.

        Captures and edits work as before. The points of `probes.names` leave depth bit for bit as it is without them;
        it differs from the plain model's by rounding. torch.compile(model) compiles the whole, which does not see
        probes. A model whose modules or their settings were changed must be compiled again.

        enabled: False takes it all back.
        graphs: record each input shape as a CUDA graph (the last four are kept), for small pictures and batches of one;
            used while no probe is on the model. Needs CUDA.
        flex: add the attention bias of BEiT and SwinV2 inside the kernel (FlexAttention) rather than from a dense
            tensor of tokens x tokens a head. Default: in half precision on CUDA.
        options: for torch.compile: mode, dynamic, backend. Its modes that make CUDA graphs of their own are refused.

        The first passes compile, which takes up to minutes, and raise RuntimeError where there is no compiler.
        """
        if enabled:
            compile_model(self, graphs=graphs, flex=flex, **options)
        else:
            take_back(self)
        return self

    def token_grid(self, height: int, width: int) -> TokenGrid:
        """The patch grid of an input of height x width pixels."""
        return self.config.token_grid(height, width)

    def grid_of(self, x: Tensor) -> TokenGrid:
        """The patch grid of an input (B, 3, h, w); ValueError or TypeError for one that the model cannot take."""
        if not isinstance(x, Tensor) or not x.is_floating_point():
            what = f"a tensor of {x.dtype}" if isinstance(x, Tensor) else f"a {type(x).__name__}"
            raise InvalidTypeError(
                f"the model takes normalised pictures as a tensor of floating point numbers, not {what}; "
                "model.prepare(image) makes one from an (H, W, 3) uint8 array"
            )
        if x.ndim != 4 or x.shape[1] != 3:
            raise InvalidValueError(
                f"the model takes normalised pictures of shape (B, 3, h, w), not {tuple(x.shape)}; "
                "model.prepare(image) makes one from an (H, W, 3) uint8 array"
            )
        return self.config.token_grid(x.shape[2], x.shape[3])
