"""Widgets for notebooks: look inside a model with the pointer.

    from probes.explorers import AttentionExplorer

    AttentionExplorer(model, image)           # the last line of a cell

`FusionExplorer` scales what the fusion blocks receive and shows the depth that follows.

The kernel hands a block's queries and keys to the browser once; hovering then needs no kernel. `.to_html(path)` writes
a page that works with neither kernel nor network.
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
