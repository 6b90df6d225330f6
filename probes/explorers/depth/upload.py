"""A file chooser for notebooks that shows the depth of the chosen image."""

from __future__ import annotations

import io
from typing import Any

import ipywidgets
import numpy as np
import traitlets
from numpy.typing import NDArray
from PIL import Image

from dpt import DPT, demo
from dpt.image import silent_about_nan
from dpt.reading import read

from ...errors import CancelledError
from ...figures.depth_files import colour_depth
from ..shared import drawing, saved
from ..shared.arguments import checked_model
from ..shared.attributes import KnownAttributes
from ..shared.controls import Proposal
from ..shared.progress import Status
from ..shared.summary import Summary, image_words, model_words
from .chooser import FileChooser

SHOWN_WIDTH = 420  # of an image in the notebook, in pixels


class DepthUpload(KnownAttributes, ipywidgets.VBox):
    """A file chooser. The chosen image and its depth appear below it.

    An image can also be dropped on the chooser, or pasted into it. It is sent in parts, so its size does not matter to
    the server (see `chooser`).

    If a file is not a readable image, the attributes keep their values and the line below the chooser says why.

    Args:
        model: A model from `dpt.load`.

    Attributes:
        model (dpt.DPT): The model. Setting it applies to the next image.
        image (numpy.ndarray | None): The last readable image, (H, W, 3) uint8, or None.
        depth (numpy.ndarray | None): Its depth, (H, W) float32, or None.

    Raises:
        InvalidTypeError: `model` is not a DPT model (also a TypeError).

    Example:
        upload = DepthUpload(model)
        upload                                  # the last line of a cell
        upload.depth                            # in a later cell
    """

    model = traitlets.Any()
    image = traitlets.Any(None, read_only=True)
    depth = traitlets.Any(None, read_only=True)

    def __init__(self, model: DPT):
        self._name: str | None = None  # of the image's file
        self._chooser = FileChooser(lambda: self.model, self._use, self._refuse)
        self._status = ipywidgets.Label("The image stays on this machine.")
        self._pictures = ipywidgets.HBox()
        self._demo_note = ipywidgets.Label()
        super().__init__([self._chooser, self._status, self._pictures, self._demo_note], model=model)

    @traitlets.validate("model")
    def _check_model(self, proposal: Proposal) -> DPT:
        return checked_model(proposal["value"])

    def _refuse(self, name: str, why: str) -> None:
        self._status.value = f"{name} could not be used: {why}"

    def _use(self, name: str, content: bytes, status: Status) -> None:
        self._status.value = f"Reading {name} ..."
        status(f"Reading {name}")
        try:
            reading = read(io.BytesIO(content))
            image = reading.pixels
            self._status.value = f"{name}: {image.shape[1]} x {image.shape[0]} pixels; computing depth ..."
            status("Running the model on the image")
            with silent_about_nan():  # colour_depth refuses such a map
                depth = self.model.predict(image)
            coloured = colour_depth(depth, metric=self.model.config.metric)
        except CancelledError:
            self._status.value = f"{name}: cancelled"
            raise
        # RuntimeError: torch raises it when memory runs out
        except (ValueError, OSError, MemoryError, RuntimeError) as error:
            self._refuse(name, str(error))
            return
        self.set_trait("image", image)
        self.set_trait("depth", depth)
        self._name = name
        self._pictures.children = (_image_widget(image), _image_widget(coloured))
        height, width = image.shape[:2]
        notes = "".join(f" It {note}." for note in reading.notes)
        self._status.value = f"{name}: {width} x {height} pixels.{notes} As arrays: .image and .depth of this widget."
        self._demo_note.value = demo.advice(self.model, image)

    # -------------------------------------------------------------------------------------------------------- summary

    def _summary(self) -> Summary:
        words = model_words(self.model, self.model.config)
        if self.image is None:
            return Summary("Depth of your images", words, "", "no image chosen yet")
        return Summary(
            "Depth of your images", words, image_words(self._name, self.image.shape), "the image and its depth"
        )

    def _picture(self, note: str = "") -> bytes | None:
        """The chosen image and its depth, as a PNG. None before an image was chosen."""
        if self.image is None or self.depth is None:
            return None
        coloured = colour_depth(self.depth, metric=self.model.config.metric)
        panels = [
            drawing.Panel(drawing.fitted(pixels), label)
            for pixels, label in ((self.image, "image"), (coloured, "depth"))
        ]
        return drawing.picture(self._summary(), panels, note=note)

    def _saved_form(self) -> tuple[str, bytes | None]:
        return saved.words_of(self, self._summary()), self._picture(saved.NOTE)

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:  # as ipywidgets
        return saved.output(self, super()._repr_mimebundle_(**kwargs))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._summary()})"


def _image_widget(image: NDArray[np.uint8]) -> ipywidgets.Image:
    picture = Image.fromarray(image)
    picture.thumbnail((2 * SHOWN_WIDTH, 2 * SHOWN_WIDTH))  # twice the shown width, for high-density screens
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return ipywidgets.Image(value=file.getvalue(), format="png", width=SHOWN_WIDTH)
