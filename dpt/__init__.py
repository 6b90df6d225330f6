"""DPT monocular-depth models, readable and open to inspection.

    import dpt

    model = dpt.load("demo")                  # or a checkpoint file, or a state-dict mapping
    image = dpt.read_image("photo.jpg")       # (H, W, 3) uint8 RGB
    depth = model.predict(image)              # (H, W) float32, larger is nearer

The folder imports torch, numpy, safetensors and Pillow only, and imports itself relatively: copied into another
project, it runs there.
"""

from __future__ import annotations

from .beit import BeitConfig
from .checkpoints import CheckpointError, Recognised, inspect, load
from .config import Config, TokenGrid
from .depth_anything import DepthAnythingConfig
from .image import ImageError, read_image
from .model import DPT
from .swinv2 import SwinV2Config

__all__ = [
    "DPT",
    "BeitConfig",
    "CheckpointError",
    "Config",
    "DepthAnythingConfig",
    "ImageError",
    "Recognised",
    "SwinV2Config",
    "TokenGrid",
    "inspect",
    "load",
    "read_image",
]
