"""Draws what the model tour shows, as a picture for saved notebooks and pages."""

from __future__ import annotations

import numpy as np

from ...figures.tiles import Tile
from ...tour.walk import Walk
from ..shared.drawing import Panel, picture
from ..shared.scales import RGB
from ..shared.summary import Summary


def draw(summary: Summary, walk: Walk, part: str, view: str, note: str) -> bytes:
    """Draws the image of the selected part, and the thumbnails of all parts in the order of the pass.

    Args:
        summary: The words above it.
        walk: The recorded pass.
        part: The selected part.
        view: Which of its images is shown, "" for none.
        note: A line at the bottom.

    Returns:
        A PNG.
    """
    tiles = []
    for each in walk.parts:
        if (thumbnail := walk.thumbnail(each.name)) is not None:
            tiles.append(Panel(_on_white(thumbnail), label=each.title, chosen=each.name == part))
    main = []
    if view:
        shot = walk.shot(part, view)
        main.append(Panel(_on_white(shot.tile), label=shot.caption))
    return picture(summary, main, tiles, None, note)


def _on_white(tile: Tile) -> RGB:
    alpha = tile[..., 3:].astype(np.float32) / 255
    return (alpha * tile[..., :3] + (1 - alpha) * 255).round().astype(np.uint8)
