"""Records, changes and explains what a DPT depth model computes, at named probe points.

    import dpt, probes

    model = dpt.load("demo")
    print(probes.names(model))                                      # every point: name, shape, meaning
    with probes.capture(model, "attention", "fusion.*") as cap:
        model.predict(image)
    cap["encoder.blocks.7.attention"].rows([5, 9])                  # (B, heads, 2, tokens) exact softmax rows
    with probes.edit(model, {"fusion.2": probes.scale(0.0)}):
        changed = model.predict(image)
    probes.run(model, "photos/", "run/", "norms", "reassembly.*")   # many images; can be killed and resumed
    probes.open_run("run/")["photo.jpg"]["encoder.blocks.7.norms"]

The modules of this folder cover one forward pass: `registry` names the points, `capture` records them
(`captured` holds the values), `edit` changes them (`actions` says how), `attention`, `tokens`, `positions` and `depth`
turn recorded values into numbers to read, and `replay` recomputes fusion. The packages build on them: `runs` captures
many images to disk, `figures` draws, `tour` explains a pass step by step, `bench` measures, `cli` is the command line,
`explorers` holds the widgets.

Importing `probes` loads neither matplotlib nor Jupyter nor an optional dependency. Models live in `dpt`.
"""

from __future__ import annotations

from types import ModuleType

from . import registry, tokens
from .actions import Edit, apply, replace, scale, skip, zero
from .attention import AttentionMaps
from .capture import capture
from .captured import Capture, load
from .edit import edit
from .errors import ProbeError
from .figures.animation import animate
from .positions import PositionBiases, PositionTable, positions
from .registry import Point, PointTable, names
from .replay import FusionReplay
from .runs.errors import StoreError
from .runs.job import Report
from .runs.run import run
from .runs.stored import Run, open_run

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


def __dir__() -> list[str]:  # completion offers public names only
    return sorted({*__all__, "plot"})


def __getattr__(name: str) -> ModuleType:
    # `plot` imports matplotlib, which takes longer than a capture does.
    if name == "plot":
        from .figures import plot

        return plot
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
