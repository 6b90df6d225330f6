"""Looking at what a depth model does: named probe points, and captures of what passes them.

import dpt, probes

model = dpt.load("demo")
print(probes.names(model))                          # every point: name, shape, meaning
with probes.capture(model, "attention", "fusion.*") as cap:
    model.predict(image)
cap["encoder.blocks.7.attention"].rows([5, 9])      # (B, heads, 2, tokens), exact softmax rows
with probes.edit(model, {"fusion.2": probes.scale(0.0)}):
    changed = model.predict(image)
"""

from __future__ import annotations

from . import registry, tokens
from .animation import animate
from .attention import AttentionMaps
from .capture import Capture, capture, load
from .edit import Edit, apply, edit, replace, scale, skip, zero
from .positions import PositionBiases, PositionTable, positions
from .registry import Point, PointTable, ProbeError, names
from .replay import FusionReplay

__all__ = [
    "AttentionMaps",
    "Capture",
    "Edit",
    "FusionReplay",
    "Point",
    "PointTable",
    "PositionBiases",
    "PositionTable",
    "ProbeError",
    "animate",
    "apply",
    "capture",
    "edit",
    "load",
    "names",
    "positions",
    "registry",
    "replace",
    "scale",
    "skip",
    "tokens",
    "zero",
]
