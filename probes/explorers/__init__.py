"""Widgets for notebooks that look inside a model with the pointer.

    from probes.explorers import AttentionExplorer

    AttentionExplorer(model, image)           # the last line of a cell
    AttentionExplorer(run["photo.jpg"])       # an image of a stored run, without a model

Each widget has a folder with its Python and its JavaScript: `attention`, `norms`, `positions`, `fusion`, `depth` and
`tour`. `shared` holds what several of them use. `bundles` holds the built JavaScript and is generated.

The kernel sends a block's data to the browser once; moving the pointer then needs no kernel. ``to_html(path)`` writes a
page that works without a kernel and a network.

Computations that need no widget live elsewhere: `probes.tokens`, `probes.positions`, `probes.depth`, `probes.replay`.
"""

from __future__ import annotations

from .attention import AttentionExplorer
from .depth import DepthExplorer
from .depth.upload import DepthUpload
from .fusion import FusionExplorer
from .norms import NormExplorer
from .positions import PositionExplorer
from .tour import ModelTour

__all__ = [
    "AttentionExplorer",
    "DepthExplorer",
    "DepthUpload",
    "FusionExplorer",
    "ModelTour",
    "NormExplorer",
    "PositionExplorer",
]


def __dir__() -> list[str]:  # completion offers public names only
    return sorted(__all__)
