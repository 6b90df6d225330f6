"""Widgets for notebooks: look inside a model with the pointer.

    from probes.explorers import AttentionExplorer

    AttentionExplorer(model, image)           # the last line of a cell

`FusionExplorer` scales what the fusion blocks receive and shows the depth that follows.

The kernel hands a block's queries and keys to the browser once; hovering then needs no kernel. `.to_html(path)` writes
a page that works with neither kernel nor network.
"""

from __future__ import annotations

from .attention import AttentionExplorer
from .fusion import FusionExplorer
from .norms import NormExplorer
from .positions import PositionExplorer
from .upload import DepthUpload

__all__ = ["AttentionExplorer", "DepthUpload", "FusionExplorer", "NormExplorer", "PositionExplorer"]
