"""Matplotlib figures that notebooks display without pyplot, readable on light and on dark pages.

Problem: a figure cannot know the theme of the page when it is drawn, and the theme may be switched later.

Approach: in a notebook a figure has no background. Everything that is drawn in black (texts, axes, ticks) is its ink.
The HTML of a figure holds two images of one size: the figure with grey ink, and the ink alone as a mask. The browser
fills the mask with the colour of the text around the figure and puts it on top, so the ink follows every theme at once.
Where styles are removed (a notebook that is not trusted) the grey figure remains: its contrast is 4.5 on white and
4.2 on JupyterLab's dark background.

Files (`savefig`) and image/png outputs are black on white.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypedDict

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import same_color
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text
from PIL import Image

RGBA = UInt8[np.ndarray, "height width 4"]

Outputs = TypedDict("Outputs", {"image/png": bytes, "text/html": str})

DPI = 100
GREY = 0x76  # of the ink where the page cannot recolour it


class Sheet(Figure):
    """A matplotlib figure that notebooks display without pyplot, in the colours of the page's theme."""

    def _repr_png_(self) -> bytes:
        return self._outputs()["image/png"]

    def _repr_html_(self) -> str:
        return self._outputs()["text/html"]

    def _repr_mimebundle_(self, **kwargs: object) -> Outputs:  # one rendering for both
        return self._outputs()

    def _outputs(self) -> Outputs:
        whole, figure, ink = self._layers()
        # Forced colours would replace the fill by the colour of the page.
        fill = "position:absolute;inset:0;pointer-events:none;forced-color-adjust:none;background:currentColor"
        page = (
            '<div style="position:relative;display:inline-block;max-width:100%">'
            f'<img alt="{html.escape(self._words(), quote=True)}" src="{_address(figure)}" '
            'style="display:block;max-width:100%;height:auto">'
            f'<div aria-hidden="true" style="{fill};mask:url({_address(ink)}) 0 0/100% 100% no-repeat"></div></div>'
        )
        return {"image/png": _png(whole), "text/html": page}

    def _words(self) -> str:
        """The titles, for readers who do not see the figure."""
        titles = [self.get_suptitle(), *(axes.get_title() for axes in self.axes)]
        return "Figure: " + "; ".join(" ".join(title.split()) for title in titles if title)

    def _layers(self) -> tuple[UInt8[np.ndarray, "height width 3"], RGBA, RGBA]:
        """The figure black on white; with grey ink and without a background; the ink alone."""
        with self._ready_to_render():
            black, white = (self._render(colour) for colour in ("black", "white"))
        alpha = black[..., 3:]
        dark = black[..., :3] * alpha
        ink = (white[..., :3] * white[..., 3:] - dark).mean(axis=-1, keepdims=True)  # 0 to 1
        figure = (dark + ink * GREY / 255) / np.maximum(alpha, 1e-6)
        layers = dark + 1 - alpha, np.dstack([figure, alpha]), np.dstack([np.zeros_like(dark), ink])
        whole, figure, mask = ((layer.clip(0, 1) * 255).round().astype(np.uint8) for layer in layers)
        return whole, figure, mask

    @contextmanager
    def _ready_to_render(self) -> Iterator[None]:
        """Computes the layout and the ticks once, for several renderings."""
        canvas, dpi, engine = self.canvas, self.dpi, self.get_layout_engine()
        FigureCanvasAgg(self)
        self.dpi = DPI
        try:
            self.draw_without_rendering()
            self.set_layout_engine("none")
            yield
        finally:
            self.dpi = dpi
            self.set_layout_engine(engine)
            self.canvas = canvas

    def _render(self, ink: str) -> Float[np.ndarray, "height width 4"]:
        """The pixels without a background, 0 to 1, with ink of a colour."""
        undo = _inked(self, ink)
        try:
            self.canvas.draw()
            return np.asarray(self.canvas.buffer_rgba()).astype(np.float32) / 255  # type: ignore[attr-defined]
        finally:
            for restore in undo:
                restore()


def _inked(figure: Figure, colour: str) -> list[Callable[[], object]]:
    """Gives black artists another colour and makes white areas transparent.

    Returns:
        Functions that restore the artists.
    """
    undo: list[Callable[[], object]] = []

    def change(artist: Artist, name: str, value: object) -> None:
        before = getattr(artist, f"get_{name}")()
        setter = getattr(artist, f"set_{name}")
        undo.append(lambda: setter(before))
        setter(value)

    grounds: list[Patch] = [figure.patch]
    for artist in figure.findobj():
        if isinstance(artist, Axes):
            grounds.append(artist.patch)
        elif isinstance(artist, Legend):
            grounds.append(artist.get_frame())
        elif isinstance(artist, Text | Line2D):
            if same_color(artist.get_color(), "black"):
                change(artist, "color", colour)
        elif isinstance(artist, Patch) and same_color(artist.get_edgecolor(), "black"):
            change(artist, "edgecolor", colour)
    for ground in grounds:
        if same_color(ground.get_facecolor()[:3], "white"):
            change(ground, "facecolor", "none")
    return undo


def _png(image: UInt8[np.ndarray, "height width channels"]) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, format="PNG")
    return content.getvalue()


def _address(image: RGBA) -> str:
    """A data: address of an image."""
    return "data:image/png;base64," + base64.b64encode(_png(image)).decode()
