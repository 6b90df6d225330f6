"""The depth model: image -> patches -> tokens -> four maps -> one map -> depth.

The families differ in patch embedding, encoder and reassembly, which their configuration builds. Fusion and head are
the same for all.

Source:
    Ranftl et al. 2021, "Vision Transformers for Dense Prediction".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from . import image as images
from .ambient import autocasts, without_autocast
from .compiled import compile_model, uncompile
from .config import Config, TokenGrid
from .errors import InvalidTypeError, InvalidValueError
from .fusion import Fusion
from .head import Head
from .image import Size
from .modules import float_dtype, input_device, moves_input
from .printable import printable
from .scalars import whole

__all__ = ["DPT", "TokenGrid"]

HALVES = (torch.float16, torch.bfloat16)


class DPT(nn.Module):
    """A depth model of any family. ``DPT(config)`` has random weights; `dpt.load` returns trained models.

    Attributes:
        config: The sizes of the model and its preprocessing.
        name: What the weights are called, see `name`.
        patch_embed: Image -> patch tokens.
        encoder: Patch tokens -> four token sets. Its `blocks` are the transformer blocks.
        reassembly: Four token sets -> four maps.
        fusion: Four maps -> one map.
        head: One map -> depth.
    """

    # Each family defines its own classes for these, with more attributes than nn.Module.
    patch_embed: Any
    encoder: Any
    reassembly: Any

    _name = ""  # models pickled before models had names have no attribute of their own

    def __init__(self, config: Config):
        """Creates a model with random weights.

        Args:
            config: E.g. from `dpt.depth_anything.depth_anything`.
        """
        super().__init__()
        self.config = config
        self.patch_embed, self.encoder, self.reassembly = config.parts()
        self.fusion = Fusion(config.fusion_channels)
        self.head = Head(config.fusion_channels, config.max_depth)

    @property
    def name(self) -> str:
        """What the weights are called: "demo", a name that `available` lists, or the file's name without its suffix.

        "" for a model built from a configuration or a state dict. `dpt.load` sets it; copies and `dpt.save` keep it.
        It does not change with the weights: after training, set another one, e.g. ``model.name = "my garden"``.
        """
        return self._name

    @name.setter
    def name(self, name: str) -> None:
        if not isinstance(name, str):
            raise InvalidTypeError(f'a model\'s name must be a string, e.g. "my garden", got {name!r}')
        self._name = name

    @property
    def title(self) -> str:
        """Family, size and name in words, e.g. "Depth-Anything V2 ViT-S, my garden"."""
        name = printable(self.name, 80).strip()
        return f"{self.config.title}, {name}" if name else self.config.title

    def __repr__(self) -> str:
        return f"{self.title}\n{super().__repr__()}"

    def forward(self, x: Tensor) -> Tensor:
        """Computes depth from prepared images.

        Args:
            x: Normalised images (B, 3, h, w) on the model's device, as `prepare` returns them. Another floating-point
                dtype is converted to the model's, e.g. float32 images for a model in half precision.

        Returns:
            (B, h, w): inverse depth, larger is nearer; metres for metric models. At least float32, also for models in
            half precision and inside torch.autocast.

        Raises:
            InvalidTypeError: `x` is not a floating-point tensor, or on another device than the model.
            InvalidValueError: The model does not take this shape.
        """
        grid = self.grid_of(x)
        x = self._converted(x)
        if autocasts(x.device) and x.dtype in HALVES and x.dtype != torch.get_autocast_dtype(x.device.type):
            with without_autocast(x.device):  # autocast mixes its own half precision with another's, and fails
                return self._depth(x, grid)
        return self._depth(x, grid)

    def _depth(self, x: Tensor, grid: TokenGrid) -> Tensor:
        tokens = self.patch_embed(x)  # (B, N, C)
        stages = self.encoder(tokens, grid)  # 4 x (B, prefix+N, C)
        maps = self.reassembly(stages, grid)  # 4 x (B, F, h_s, w_s), finest first
        fused = self.fusion(maps)  # (B, F, 2 h_0, 2 w_0)
        return self.head(fused, _size(x))  # (B, h, w)

    @property
    def device(self) -> torch.device:
        """The device of the model's input. Weights may be elsewhere: offloaded, or spread over several devices."""
        return input_device(self.patch_embed, self)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the model's input: that of the patch embedding, also if other layers are quantised."""
        return float_dtype(self.patch_embed)

    def _converted(self, x: Tensor) -> Tensor:
        """The input in the model's dtype."""
        device = self.device
        if x.device != device and device.type != "meta" and not moves_input(self.patch_embed):
            raise InvalidTypeError(
                f"the model is on {device}, but its input is on {x.device}. model.prepare(image) makes an input on the "
                "model's device; x.to(model.device) moves one"
            )
        return x.to(self.dtype)

    def _apply(self, fn: Callable[..., Tensor], recurse: bool = True) -> DPT:
        """Converts or moves all weights, for `to`, `half` and the like."""
        # It reads the weights, as state_dict does. Nothing in torch calls hooks before it.
        for hook in self._state_dict_pre_hooks.values():
            if getattr(hook, "before_conversion", False):
                hook(self)
        super()._apply(fn, recurse)
        return self

    def predict(self, image: np.ndarray, size: Size = None, keep_aspect: bool = True) -> np.ndarray:
        """Computes the depth of one image, at the image's own size.

        Args:
            image: (H, W, 3) uint8 RGB, as `dpt.read_image` returns it.
            size: Size of the model's input, see `prepare`.
            keep_aspect: Whether the input keeps the image's aspect ratio, see `prepare`.

        Returns:
            (H, W) float32: inverse depth, larger is nearer; metres for metric models.

        Raises:
            ImageError: `image` cannot be used, or is too elongated (see `dpt.image.network_size`). Also a ValueError.

        Warns:
            NotFiniteWarning: The depth contains NaN or infinity.

        Example:
            depth = dpt.load("demo").predict(dpt.read_image("photo.jpg"))
        """
        image = images.as_image(image)
        # no_grad instead of inference_mode: captured tensors must remain usable for training, e.g. as the input of a
        # linear probe. Autograd rejects inference tensors.
        with torch.no_grad():
            depth = self(self.prepare(image, size, keep_aspect))
        height, width = image.shape[:2]
        restored = images.restore(depth.float().cpu(), (height, width), self.config.preprocess)[0].numpy()
        images.check_finite(restored)
        return restored

    def prepare(self, image: np.ndarray, size: Size = None, keep_aspect: bool = True) -> Tensor:
        """Resizes and normalises an image as the model's original code does.

        Args:
            image: (H, W, 3) uint8 RGB.
            size: None for the model's base size. A number sets another base size, roughly the shorter side of the
                input. A pair sets (height, width). `dpt.image.network_size` has the exact rules.
            keep_aspect: False stretches the image to the exact (height, width).

        Returns:
            (1, 3, h, w) in the model's dtype and on its device.
        """
        x = images.prepare(images.as_image(image), self.config.preprocess, size, keep_aspect)
        device = self.device
        if device.type == "cuda":
            x = x.pin_memory()  # pinned memory makes the copy asynchronous
        return x.to(device, self.dtype, non_blocking=device.type == "cuda")

    def compile(  # type: ignore[override]
        self, *, enabled: bool = True, graphs: bool = False, flex: bool | None = None, **options: Any
    ) -> DPT:
        """Compiles the model in place, region by region between its probe points. Meant for GPUs.

        Captures and edits work as before, and capturing leaves the depth bit-identical. The depth differs from the
        uncompiled model's by rounding. torch.compile(model), by contrast, compiles the whole model, which then does not
        run hooks. After a module or one of its settings is changed, compile again.

        The first passes compile, which can take minutes.

        Args:
            enabled: False restores the uncompiled model.
            graphs: True records each input shape as a CUDA graph and caches the last four. Speeds up small images and
                batches of one. Passes with probes do not use the graph. Needs CUDA.
            flex: True adds the attention bias of BEiT and SwinV2 inside the kernel (FlexAttention) instead of from a
                dense tensor of tokens x tokens per head. Default: True for half precision on CUDA.
            options: Passed to torch.compile: mode, dynamic, backend. Modes with CUDA graphs of their own are refused.

        Returns:
            The model itself.

        Raises:
            InvalidValueError: `graphs` without CUDA, or a mode that makes CUDA graphs.
            UnavailableError: In the first pass, if no compiler is available (also a RuntimeError).

        Example:
            model = dpt.load("da_v2_vitl", device="cuda", dtype="auto").compile(graphs=True)
        """
        if enabled:
            compile_model(self, graphs=graphs, flex=flex, **options)
        else:
            uncompile(self)
        return self

    def token_grid(self, height: int, width: int) -> TokenGrid:
        """Returns the patch grid of an input.

        Args:
            height: Height of the input in pixels.
            width: Width of the input in pixels.

        Raises:
            InvalidValueError: The model does not take this size. The message names the nearest one.
        """
        return self.config.token_grid(whole(height, "height"), whole(width, "width"))

    def grid_of(self, x: Tensor) -> TokenGrid:
        """Returns the patch grid of an input tensor.

        Args:
            x: Normalised images (B, 3, h, w).

        Raises:
            InvalidTypeError: `x` is not a floating-point tensor.
            InvalidValueError: The model does not take this shape.
        """
        if not isinstance(x, Tensor) or not x.is_floating_point():
            given = f"a tensor of {x.dtype}" if isinstance(x, Tensor) else f"a {type(x).__name__}"
            raise InvalidTypeError(
                f"the model's input must be a floating-point tensor of normalised images, got {given}. "
                "model.prepare(image) makes one from an (H, W, 3) uint8 array"
            )
        if x.ndim != 4 or x.shape[1] != 3:
            raise InvalidValueError(
                f"the model's input must have the shape (B, 3, h, w), got {tuple(x.shape)}. "
                "model.prepare(image) makes one from an (H, W, 3) uint8 array"
            )
        return self.config.token_grid(*_size(x))


def _size(x: Tensor) -> tuple[int, int]:
    """(h, w) of a batch of images. Inside torch.jit.trace, which records sizes as tensors, it becomes a constant."""
    height, width = x.shape[-2:]
    return (int(height), int(width)) if torch.jit.is_tracing() else (height, width)
