"""Looking at what a depth model does: named probe points, and captures of what passes them.

import dpt, probes

model = dpt.load("demo")
print(probes.names(model))                          # every point: name, shape, meaning
with probes.capture(model, "attention", "fusion.*") as cap:
    model.predict(image)
cap["encoder.blocks.7.attention"].rows([5, 9])      # (B, heads, 2, tokens), exact softmax rows
with probes.edit(model, {"fusion.2": probes.scale(0.0)}):
    changed = model.predict(image)
probes.run(model, "photos/", "run/", "norms", "reassembly.*")      # many pictures, safe to kill
probes.open_run("run/")["photo.jpg"]["encoder.blocks.7.norms"]
"""

from __future__ import annotations

from . import registry, tokens
from .animation import animate
from .attention import AttentionMaps
from .capture import Capture, capture, load
from .disk import StoreError
from .edit import Edit, apply, edit, replace, scale, skip, zero
from .positions import PositionBiases, PositionTable, positions
from .registry import Point, PointTable, ProbeError, names
from .replay import FusionReplay
from .run import Report, run
from .stored import Run, open_run

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
    "Report",
    "Run",
    "StoreError",
    "animate",
    "apply",
    "capture",
    "edit",
    "load",
    "names",
    "open_run",
    "positions",
    "registry",
    "replace",
    "run",
    "scale",
    "skip",
    "tokens",
    "zero",
]
