"""What is left of an explorer in a saved notebook: a picture of the view and a line of text, beside the live view.

A notebook holds the outputs of its cells. Without a kernel, nothing can draw the widget in an output: GitHub, nbviewer,
nbconvert, and JupyterLab in a notebook that it does not trust take the next format. `output` adds image/png and a
readable text/plain. Limit: in a trusted notebook without widget state, JupyterLab writes an error of its own instead.

The picture shows the view as it is when the cell displays it. What a user does to the view later is not in it: outputs
belong to the front end, and an update of the output would build the view anew.

A picture needs a pass of the model. It may not delay a view that somebody waits for, so there are three cases:

- Nobody waits (nbclient, nbconvert, papermill): the picture is always drawn.
- Somebody waits, and the pass takes at most `PATIENCE` seconds: the picture is drawn first. The explorer keeps what the
  pass captured, and the view's first request finds it.
- Somebody waits, and the pass takes longer or another explorer is running the model: the image and the words are drawn,
  without a pass.

The picture is also kept in the traits `_saved_picture` and `_saved_words`. A notebook or an HTML file that holds the
state of its widgets (nbconvert --execute, "Save Widget State") creates the view from it, and finds no kernel: the view
then shows the picture (`saved.js`).
"""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

import ipywidgets
from PIL import Image

from . import lifetime
from .summary import Summary

log = logging.getLogger(__name__)

PATIENCE = 2.0
"""Seconds that a picture may delay a view."""

NOTE = "Run this cell for the live view."

Bundle: TypeAlias = "tuple[dict[str, Any], dict[str, Any]]"
"""An output: (data, metadata) by MIME type."""


@runtime_checkable
class HasSavedForm(Protocol):
    """A widget that a saved notebook shows as words and a picture."""

    def _saved_form(self) -> tuple[str, bytes | None]:
        """(words, PNG) for a saved notebook."""


def output(widget: HasSavedForm, bundle: Any) -> Bundle:
    """Adds a picture and readable words to the output of a widget.

    Args:
        widget: The widget.
        bundle: What ipywidgets or anywidget returns for it: data, or (data, metadata).
    """
    return _with(bundle, *widget._saved_form())


def describe_boxes() -> None:
    """Adds pictures and words to the outputs of ipywidgets' containers (HBox, Tab, ...) that hold explorers.

    Their text is otherwise a list of objects, and they have no picture.
    """
    try:
        from IPython import get_ipython

        formatter = get_ipython().display_formatter.mimebundle_formatter
        formatter.for_type(ipywidgets.Box, _output_of_box)
    except (ImportError, AttributeError):  # not in IPython
        pass


def _output_of_box(box: ipywidgets.Box) -> Any:
    bundle = box._repr_mimebundle_()
    found = list(dict.fromkeys(_explorers_in(box)))
    if not found:
        return bundle
    forms = [widget._saved_form() for widget in found]
    words = f"{type(box).__name__} of {len(forms)}:\n" + "\n".join(words for words, _ in forms)
    return _with(bundle, words, _stacked([png for _, png in forms if png]))


def _explorers_in(box: ipywidgets.Box) -> Iterator[HasSavedForm]:
    for child in box.children:
        if isinstance(child, HasSavedForm):
            yield child
        elif isinstance(child, ipywidgets.Box):
            yield from _explorers_in(child)


def _with(bundle: Any, words: str, png: bytes | None) -> Bundle:
    data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
    data, metadata = {**data, "text/plain": words}, dict(metadata)
    if png:
        data["image/png"] = as_text(png)
        metadata["image/png"] = {"alt": words}  # nbconvert uses it
    return data, metadata


def _stacked(pngs: list[bytes]) -> bytes | None:
    """Pictures one below the other."""
    if len(pngs) < 2:
        return pngs[0] if pngs else None
    images = [Image.open(io.BytesIO(png)) for png in pngs]
    sheet = Image.new("RGB", (max(one.width for one in images), sum(one.height for one in images)), "white")
    top = 0
    for image in images:
        sheet.paste(image.convert("RGB"), (0, top))
        top += image.height
    content = io.BytesIO()
    sheet.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(content, format="PNG")
    return content.getvalue()


def as_text(png: bytes | None) -> str:
    """A picture in base64, as notebooks hold it. "" for none."""
    return base64.b64encode(png or b"").decode("ascii")


def words_of(widget: object, summary: Summary) -> str:
    """The text of a widget in a saved notebook."""
    return f"{type(widget).__name__}: {summary}. {NOTE}"


def may_run(seconds: float) -> bool:
    """Whether a pass for a picture may run before the view is displayed.

    Args:
        seconds: How long the pass takes.
    """
    return lifetime.is_unattended() or seconds <= PATIENCE


def is_shown_as_text() -> bool:
    """Whether the output is printed on a terminal, which shows no pictures."""
    try:
        from IPython import get_ipython

        shell: Mapping[str, Any] | None = get_ipython()
    except ImportError:
        return False
    return shell is not None and not hasattr(shell, "kernel")
