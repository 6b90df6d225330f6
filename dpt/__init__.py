"""DPT monocular-depth models, readable and open to inspection.

    import dpt

    model = dpt.load("demo")                  # or a checkpoint file, a name of dpt.available(), or a state dict
    image = dpt.read_image("photo.jpg")       # (H, W, 3) uint8 RGB
    depth = model.predict(image)              # (H, W) float32, larger is nearer

The folder imports torch, numpy, safetensors and Pillow only (and huggingface_hub to download a checkpoint), and itself
relatively: copied into another project, it runs there.
"""

from __future__ import annotations

from .beit import BeitConfig
from .checkpoints import CheckpointError, Recognised, available, inspect, load, save
from .config import Config, TokenGrid
from .depth_anything import DepthAnythingConfig
from .errors import DPTError
from .export import Exported, ExportError, export_onnx
from .image import ImageError, read_image
from .model import DPT
from .swinv2 import SwinV2Config

__all__ = [
    "DPT",
    "BeitConfig",
    "CheckpointError",
    "Config",
    "DPTError",
    "DepthAnythingConfig",
    "ExportError",
    "Exported",
    "ImageError",
    "Recognised",
    "SwinV2Config",
    "TokenGrid",
    "available",
    "export_onnx",
    "inspect",
    "load",
    "read_image",
    "save",
]
