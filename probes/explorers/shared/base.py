"""Bases of the explorers: of a model alone, and of a model at work on an image."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import traitlets
from numpy.typing import NDArray
from PIL import Image

import dpt
from dpt.image import PlainSize, Size

from . import drawing
from .answering import Answer, AnsweringExplorer, Request
from .arguments import checked_model, subject_of
from .attributes import Derived, same
from .controls import ControlError
from .live_subject import Live
from .progress import Status, silent
from .replacing import subject_with
from .subject import ImageLike, Subject, finite_depth
from .summary import Summary

SHOWN = ("model", "image", "size", "keep_aspect")
"""Attributes of explorers that decide what is shown."""

PICTURE_SIDE = 1000
"""Pixels along the longer side of an image that goes to the browser."""


class ModelExplorer(AnsweringExplorer):
    """Base of explorers that show a model without an image."""

    def __init__(self, model: dpt.DPT, **controls: object):
        self._model = checked_model(model)
        super().__init__(**controls)

    @property
    def _owner(self) -> object:
        return self._model


class Explorer(AnsweringExplorer):
    """Base of explorers that show a model at work on one image, run now or stored by a run (see `subject`)."""

    _subject: Subject

    def _set(self, name: str, value: object) -> None:
        self._replace(subject_with(self._subject, **{name: value}))

    model = Derived[dpt.DPT | None](
        lambda self: getattr(self._subject, "model", None),
        lambda self, model: self._set("model", model),
        help="The model, or None for a stored image. Setting it updates every view.",
    )
    image = Derived[NDArray[np.uint8]](
        lambda self: self._subject.image,
        lambda self, image: self._set("image", image),
        help="(H, W, 3) uint8. Setting it, to anything `dpt.read_image` takes, updates every view.",
    )
    size: traitlets.TraitType[Any, Any] = Derived[PlainSize](
        lambda self: self._subject.size,
        lambda self, size: self._set("size", size),
        help="The requested input size, or None for the model's own. Setting it updates every view.",
    )
    keep_aspect: traitlets.TraitType[Any, Any] = Derived[bool](
        lambda self: self._subject.keep_aspect,
        lambda self, keep_aspect: self._set("keep_aspect", keep_aspect),
        help="Whether the input keeps the image's aspect ratio. Setting it updates every view.",
    )

    def __init__(
        self,
        source: object,
        image: ImageLike | None = None,
        *,
        size: Size = None,
        keep_aspect: bool = True,
        **controls: object,
    ):
        self._subject = subject_of(source, image, size, keep_aspect)
        super().__init__(**controls)

    @property
    def _owner(self) -> object:
        return self._subject.owner

    def _free(self) -> None:
        self._subject.release()

    def _forget(self) -> None:
        self._subject.forget()

    def _retain(self) -> None:
        super()._retain()
        self._subject.adopt()  # from the explorer that the former run of the cell showed, and that now goes

    def _replace(self, subject: Subject) -> None:
        """Shows another subject in every view. If the explorer cannot show it, nothing changes.

        Raises:
            NotCaptured, InvalidValueError: As on creation.
        """
        controls = self._controls_for(subject)
        names = [name for name in SHOWN if isinstance(getattr(type(self), name), Derived)]
        before = {name: getattr(self, name) for name in names}
        with self._replacing():
            self._subject = subject
            self._forget()
            for name, value in controls.items():
                setattr(self, name, value)
        self._notify_derived(*self.traits())  # the patch of the same token may be another
        for name in names:
            if not same(before[name], now := getattr(self, name)):
                self._notify_trait(name, before[name], now)

    def _controls_for(self, subject: Subject) -> dict[str, object]:
        """The controls whose values do not fit another subject, with values that do.

        Raises:
            NotCaptured, InvalidValueError: The explorer cannot show the subject.
        """
        return {}

    def _absent(self) -> dict[str, str]:
        """For each group of probe points that is not available in full, the reason. The view disables its controls."""
        groups = ("depth", "attention", "tokens")
        return {group: why for group in groups if (why := self._subject.absent(group))}

    def _answer_picture(self, request: Request, status: Status) -> Answer:
        """The image, and the facts that a view needs first."""
        subject = self._subject
        content = io.BytesIO()
        _fit(Image.fromarray(subject.image)).save(content, format="JPEG", quality=92, subsampling=0)
        height, width = subject.image.shape[:2]
        message = {
            "type": "image/jpeg",
            "width": width,
            "height": height,
            "rows": subject.grid.rows,
            "cols": subject.grid.cols,
            "prefix": subject.grid.prefix,
            "blocks": list(range(subject.config.depth)),
            "call": subject.call,
            "code": subject.code,
            "advice": subject.advice,
            "opened": subject.opened,
            "absent": self._absent(),
        }
        return message, [content.getvalue()]

    def _answer_depth(self, request: Request, status: Status) -> Answer:
        """The predicted depth in grey, near bright."""
        grey, low, high = self._grey_depth(status)
        content = io.BytesIO()
        _fit(Image.fromarray(grey)).save(content, format="PNG")
        return {"type": "image/png", "low": low, "high": high}, [content.getvalue()]

    def _grey_depth(self, status: Status) -> tuple[NDArray[np.uint8], float, float]:
        """(grey, low, high): the depth in 256 levels, near bright, and its range."""
        depth = finite_depth(self._subject, status)
        low, high = float(depth.min()), float(depth.max())
        unit = (depth - low) / (high - low if high > low else 1.0)
        if self._subject.config.metric:  # metres: small is near
            unit = 1 - unit
        return np.round(unit * 255).astype(np.uint8), low, high

    def _origin(self) -> dict[str, str]:
        return {**super()._origin(), "image": self._subject.name or ""}

    def _seconds(self) -> float:
        return self._subject.seconds()

    def _draw_without_model(self, summary: Summary, note: str) -> bytes:
        panel = drawing.Panel(drawing.fitted(self._subject.image), label="The model had not run yet")
        return drawing.picture(summary, [panel], note=note)

    def _base_pixels(self, base: str) -> NDArray[np.uint8]:
        """What lies under an overlay, RGB: the image, or the depth in grey with near bright."""
        return (
            self._subject.image if base == "picture" else np.repeat(self._grey_depth(silent)[0][..., None], 3, axis=2)
        )

    def _checked_base(self, base: str) -> str:
        """The value of a control "base", if the subject has it; else a ControlError."""
        if base == "depth" and (why := self._subject.absent("depth")):
            raise ControlError("base", base, '"picture"', f'base cannot be "depth": {why}')
        return base


class RunningExplorer(Explorer):
    """Base of explorers that run the model repeatedly. A stored image is not enough for them."""

    _subject: Live

    def __init__(self, model: dpt.DPT, image: ImageLike | None = None, **controls: object):
        super().__init__(checked_model(model), image, **controls)  # type: ignore[arg-type]

    @property
    def _model(self) -> dpt.DPT:
        return self._subject.model

    @property
    def _image(self) -> NDArray[np.uint8]:
        return self._subject.image

    @property
    def _input_size(self) -> tuple[int, int]:
        return self._subject.input_size


def _fit(picture: Image.Image) -> Image.Image:
    """At most PICTURE_SIDE pixels along the longer side."""
    scale = PICTURE_SIDE / max(picture.size)
    if scale >= 1:
        return picture
    width, height = (max(1, round(side * scale)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)
