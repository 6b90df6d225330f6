"""What every explorer shares on the Python side: answering requests of its views, one at a time, and writing pages.

Problem: data for a view is large and late. As a trait it would be saved into notebooks and make a page reload fail;
pushed from a cell it is lost where no view listens yet. And the handlers run on another thread (JupyterLab 4.4 and
later give every comm a subshell), beside cells that use the same model.

Approach: a view pulls. It sends {kind, seq, client, ...}; the explorer computes the answer under the lock of its model
and replies with the same three fields, the payload, and binary parts. Everything that happens on the way, progress and
exceptions alike, goes back to the view that asked. Traits hold the state of the controls and nothing else.

Limits: the lock is between explorers. A cell that runs the same model at the same moment as a request is not held back;
that is safe, as a capture records the passes of its own thread alone, but both take longer. Nothing here touches
pyplot: it is not safe outside the main thread.
"""

from __future__ import annotations

import io
import logging
import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import anywidget
import numpy as np
import traitlets
from numpy.typing import NDArray
from PIL import Image

import dpt
from dpt.writing import check_place, replacing

from ...errors import InvalidValueError
from . import pages
from .subject import Live, Status, Subject, checked_model, subject_of

log = logging.getLogger(__name__)

Answer: TypeAlias = tuple[dict[str, Any], list[bytes]]

PICTURE_SIDE = 1000  # pixels of the longer side as sent to the browser
PAGE_LIMIT = 100 * 2**20

_locks: weakref.WeakKeyDictionary[object, threading.RLock] = weakref.WeakKeyDictionary()
_locks_guard = threading.Lock()


def model_lock(owner: object) -> threading.RLock:
    """The one lock that all explorers of a model share: hooks of two captures must not see each other's passes."""
    with _locks_guard:
        return _locks.setdefault(owner, threading.RLock())


class AnsweringExplorer(anywidget.AnyWidget):
    """Base of all explorers: requests answered by methods named ``_answer_<kind>``.

    A subclass sets ``_name`` (its folder), ``_esm`` and ``_css``, and tags the traits of its controls with
    ``ui=True``: those travel into pages. An answer method takes the request and a function that shows progress, and
    returns (message, binary parts).
    """

    _name: ClassVar[str]

    def __init__(self, **controls: Any):
        super().__init__(**controls)
        self.on_msg(self._on_message)

    @property
    def _owner(self) -> object:
        """What two explorers must not use at the same time."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------------------ requests

    def _on_message(self, _: object, content: Any, buffers: Sequence[memoryview]) -> None:
        if not isinstance(content, dict):
            log.warning("dropped a message that is no request: %r", content)
            return
        kind = content.get("kind")
        address = {"asked": kind, "seq": content.get("seq"), "client": content.get("client")}

        def status(text: str) -> None:
            self.send({"kind": "status", "text": text, **address})

        try:
            message, parts = self._answer(content, status)
        except BaseException as error:
            # The view is the only place where the user can see this: it happened in no cell.
            text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            self.send({"kind": "error", "text": text, **address})
            if not isinstance(error, Exception):
                raise  # an interrupted kernel
            log.debug("request %r failed", kind, exc_info=True)
            return
        self.send({**message, "kind": kind, **address}, parts)

    def _answer(self, request: Mapping[str, Any], status: Status) -> Answer:
        kind = request.get("kind")
        method = getattr(self, f"_answer_{kind}", None)
        if method is None:
            raise InvalidValueError(f"this explorer has no {kind!r} to give")
        lock = model_lock(self._owner)
        if not lock.acquire(blocking=False):
            status("Waiting for another explorer of this model")
            lock.acquire()
        try:
            answer: Answer = method(request, status)
            return answer
        finally:
            lock.release()

    # --------------------------------------------------------------------------------------------------------- pages

    def _write_page(
        self,
        path: str | os.PathLike[str],
        title: str,
        requests: Sequence[Mapping[str, Any]],
        state: Mapping[str, Any],
        changes: Mapping[str, Any],
    ) -> Path:
        """Answers the requests now, and writes them with the widget's code as one page; returns its path.

        state: traits in which the page differs from this widget. changes: fields to change in the message
        that comes first, "picture" or "about".
        """
        path = Path(path).expanduser()
        check_place(path)
        replies = []
        for request in requests:
            message, parts = self._answer(request, lambda text: None)
            if request["kind"] in ("picture", "about"):
                message = {**message, **changes}
            match = {key: value for key, value in request.items() if key != "kind"}
            replies.append((match, {**message, "kind": request["kind"]}, parts))
        values = {name: getattr(self, name) for name in self.trait_names(ui=True)}
        content = pages.page(self._name, title, {**values, **state}, replies)
        with replacing(path) as temporary:
            temporary.write_text(content, encoding="utf-8")
        return path


class ModelExplorer(AnsweringExplorer):
    """An explorer of a model, whatever the picture."""

    def __init__(self, model: dpt.DPT, **controls: Any):
        self._model = checked_model(model)
        super().__init__(**controls)

    @property
    def _owner(self) -> object:
        return self._model


class Explorer(AnsweringExplorer):
    """An explorer of what a model does with one picture: run on it now, or stored by a run (see `subject`)."""

    _subject: Subject

    def __init__(
        self,
        source: Any,
        image: Any = None,
        *,
        size: int | tuple[int, int] | None = None,
        keep_aspect: bool = True,
        **controls: Any,
    ):
        self._subject = subject_of(source, image, size, keep_aspect)
        super().__init__(**controls)

    @property
    def _owner(self) -> object:
        return self._subject.owner

    def _answer_picture(self, request: Mapping[str, Any], status: Status) -> Answer:
        """What the view must know before anything else, and the picture itself."""
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
            "opened": subject.opened,
            # Why a control is out of use, by what it would show.
            "absent": {group: why for group in ("depth", "attention", "tokens") if (why := subject.absent(group))},
        }
        return message, [content.getvalue()]

    def _answer_depth(self, request: Mapping[str, Any], status: Status) -> Answer:
        """The predicted depth in grey; near is bright."""
        depth = self._subject.depth(status)
        low, high = float(depth.min()), float(depth.max())
        unit = (depth - low) / (high - low if high > low else 1.0)
        if self._subject.config.metric:  # metres: small is near
            unit = 1 - unit
        content = io.BytesIO()
        _fit(Image.fromarray(np.round(unit * 255).astype(np.uint8))).save(content, format="PNG")
        return {"type": "image/png", "low": low, "high": high}, [content.getvalue()]

    def _checked_base(self, base: str) -> str:
        """What lies under an overlay, if it is to be had; TraitError if not."""
        if base == "depth" and (why := self._subject.absent("depth")):
            raise traitlets.TraitError(f'base cannot be "depth": {why}')
        return base


class RunningExplorer(Explorer):
    """An explorer that runs the model again and again: what is stored of a picture is not enough for it."""

    _subject: Live

    def __init__(self, model: dpt.DPT, image: Any = None, **controls: Any):
        super().__init__(checked_model(model), image, **controls)

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
