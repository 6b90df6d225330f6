"""Looking at what a depth model does: named probe points, and captures of what passes them.

import dpt, probes

model = dpt.load("demo")
print(probes.names(model))                          # every point: name, shape, meaning
with probes.capture(model, "attention", "fusion.*") as cap:
    model.predict(image)
cap["encoder.blocks.7.attention"].rows([5, 9])      # (B, heads, 2, tokens), exact softmax rows
"""

from __future__ import annotations

from . import registry
from .attention import AttentionMaps
from .capture import Capture, capture, load
from .registry import Point, PointTable, ProbeError, names

__all__ = ["AttentionMaps", "Capture", "Point", "PointTable", "ProbeError", "capture", "load", "names", "registry"]
