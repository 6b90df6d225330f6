"""DPT monocular-depth models, written to be read and inspected.

    import dpt

    model = dpt.load("demo")                  # or a checkpoint file, a name from dpt.available(), or a state dict
    image = dpt.read_image("photo.jpg")       # (H, W, 3) uint8 RGB
    depth = model.predict(image)              # (H, W) float32, larger is nearer

This package holds the models and what one model needs: images and preprocessing, checkpoints, ONNX export, the demo
model, and the declaration of its probe points (`points`). It does not hold probes: capturing, editing and displaying
activations is the job of the package `probes`, which imports this one.

The package depends on torch, numpy, safetensors and Pillow, and on huggingface_hub to download checkpoints. All its
imports of itself are relative, so a copy of the folder runs inside another project.
"""

from __future__ import annotations

from . import demo
from .beit import BeitConfig
from .checkpoints import CheckpointError, Recognised, available, inspect, load, save
from .config import Config, TokenGrid
from .depth_anything import DepthAnythingConfig
from .errors import DPTError, ImageWarning, NotFiniteWarning
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
    "ImageWarning",
    "NotFiniteWarning",
    "Recognised",
    "SwinV2Config",
    "TokenGrid",
    "available",
    "demo",
    "export_onnx",
    "inspect",
    "load",
    "read_image",
    "save",
]


def __dir__() -> list[str]:  # completion offers public names only
    return sorted(__all__)
