"""A picture of one's own in a notebook: choose a file, see its depth."""

from __future__ import annotations

import io

import ipywidgets
import numpy as np
from PIL import Image

from dpt import DPT, ImageError, read_image

from ...figures.depth_files import colour_depth

SHOWN = 420  # pixels that a picture is wide on the page


class DepthUpload(ipywidgets.VBox):
    """A file chooser; the chosen picture and its depth appear below it.

    image: the last picture that could be read, (H, W, 3) uint8. depth: its map, (H, W) float32. Both None before.
    A file that is no picture leaves them as they are, and the line below the chooser says why.
    """

    def __init__(self, model: DPT):
        self.model = model
        self.image: np.ndarray | None = None
        self.depth: np.ndarray | None = None
        self._chooser = ipywidgets.FileUpload(accept="image/*", multiple=False, description="Choose a picture")
        self._chooser.layout.width = "max-content"  # the default cuts the label short
        self._status = ipywidgets.Label("The picture stays on this machine.")
        self._pictures = ipywidgets.HBox()
        super().__init__([self._chooser, self._status, self._pictures])
        self._chooser.observe(self._chosen, "value")

    def _chosen(self, change: dict) -> None:
        if not change["new"]:
            return
        file = change["new"][0]
        self._status.value = f"Reading {file['name']} ..."
        try:
            image = read_image(io.BytesIO(file["content"]))
            self._status.value = f"{file['name']}: {image.shape[1]} x {image.shape[0]} pixels; computing depth ..."
            depth = self.model.predict(image)
        except (ImageError, ValueError, MemoryError) as error:
            self._status.value = f"{file['name']} could not be used: {error}"
            return
        self.image, self.depth = image, depth
        coloured = colour_depth(depth, metric=self.model.config.metric)
        self._pictures.children = (_shown(image), _shown(coloured))
        height, width = image.shape[:2]
        self._status.value = f"{file['name']}: {width} x {height} pixels. As arrays: .image and .depth of this widget."


def _shown(image: np.ndarray) -> ipywidgets.Image:
    picture = Image.fromarray(image)
    picture.thumbnail((2 * SHOWN, 2 * SHOWN))  # twice, for dense screens
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return ipywidgets.Image(value=file.getvalue(), format="png", width=SHOWN)
