"""The Python side of every explorer: it answers requests of its views one at a time, and writes pages.

Problem: the data of a view is large and comes late. A trait would save it into notebooks and break page reloads. A
message pushed from a cell is lost if no view listens yet. A pass can take half a minute, which its user may not want to
wait for.

Approach: a view pulls. It sends {kind, seq, client, ...}. The explorer computes the answer under the lock of its model,
on a thread of its own (`jobs`), and replies with the same three fields, the payload and binary parts. Progress
(`progress`) and exceptions go to the view that sent the request. Two kinds are answered at once, also while a request
is running: "cancel" {seq} cancels one, and "ping" is answered by a "pong" that lists the requests of the page that are
not answered yet. A page sends "views" {count} when it shows its first view of an explorer and when the last one is gone
(see `lifetime`). Traits hold the state of the controls only.

Limits: explorers lock each other out, not other code. A cell can run the same model during a request. Both results are
right, because a capture records the passes of its own thread only, but both take longer. Handlers never use pyplot,
which is not safe outside the main thread.
"""

from __future__ import annotations

import functools
import io
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, SupportsIndex, TypeAlias

import anywidget
import numpy as np
import traitlets
from numpy.typing import NDArray
from PIL import Image

import dpt
from dpt.image import PlainSize, Size
from dpt.writing import check_place, replacing
from dpt.written import written

from ...errors import CancelledError, InvalidTypeError, InvalidValueError, UnavailableError
from . import drawing, lifetime, saved
from .arguments import checked_model, subject_of
from .attributes import Derived, KnownAttributes, same
from .controls import ControlError, UnknownControlError
from .jobs import Job, Jobs, heed_interrupts, threaded
from .live_subject import Live
from .page_of_explorer import page_of
from .pages import PagePlan
from .pictured import Pictured
from .progress import Progress, Report, Status, silent
from .replacing import subject_with
from .subject import ImageLike, Subject, finite_depth
from .subshells import heed_ended
from .summary import Summary
from .turns import model_lock

log = logging.getLogger(__name__)

Request: TypeAlias = Mapping[str, object]
"""A view's message. Every field comes from outside and needs a check."""

Answer: TypeAlias = tuple[Mapping[str, object], list[bytes]]
"""The reply to a request: its fields and its binary parts."""

SHOWN = ("model", "image", "size", "keep_aspect")
"""Attributes of explorers that decide what is shown."""

PICTURE_SIDE = 1000
"""Pixels along the longer side of an image that goes to the browser."""

_FREED = ("_subject", "_model", "_attention", "_tokens", "_maps", "_walk", "_others", "_box")
"""Attributes of explorers that `close` frees."""

PATIENCE = 0.1  # seconds between two looks whether a waiting request was cancelled


class AnsweringExplorer(KnownAttributes, Pictured, anywidget.AnyWidget):
    """Base of all explorers. A request of kind KIND calls the method ``_answer_KIND``.

    A subclass sets ``_name`` (its folder), ``_esm`` and ``_css``. It tags the traits of its controls with ``ui=True``:
    pages store them. An answer method takes the request and a function that shows progress, and returns an `Answer`.

    Raises:
        UnknownControlError: A keyword argument is not a control of the explorer (also a TypeError).
        ControlError: A control does not accept its value (also a traitlets.TraitError).
    """

    _name: ClassVar[str]
    _LIGHT: ClassVar[tuple[str, ...]] = ("picture",)  # requests that run no model and wait for no other explorer
    _closed = False

    def __init__(self, **controls: object):
        known = [name for name in self.class_trait_names(ui=True) if not name.startswith("_")]
        known += [name for name in ("patch",) if name in self.class_trait_names()]
        if unknown := set(controls) - {*known, "layout"}:
            raise UnknownControlError.of(type(self).__name__, unknown, known)
        patch = {name: controls.pop(name) for name in ("patch",) if name in controls}
        super().__init__(**controls)
        self._jobs = Jobs()
        self._viewers = lifetime.Viewers()
        heed_interrupts()
        for name, value in patch.items():  # after the controls that decide what it means
            setattr(self, name, value)
        self._start_deriving()
        self.on_msg(self._on_message)
        lifetime.hold_weakly(self)
        saved.describe_boxes()

    # ------------------------------------------------------------------------------------------------------ lifetime

    def close(self) -> None:
        """Removes the explorer from all cells and frees its model, image and captures. It cannot be used afterwards."""
        super().close()
        self._jobs.cancel_all("The explorer was closed")
        if not self._closed:
            self._free()
        for name in (*_FREED, "_repr_mimebundle_", "_derived"):  # ipywidgets would say that None is not callable
            self.__dict__.pop(name, None)
        self._closed = True

    def open(self) -> None:
        """Connects the explorer to its views. ipywidgets calls this once."""
        self._check_open()
        super().open()
        heed_ended(self.comm)

    def _check_open(self) -> None:
        """Refuses to go on after `close`."""
        if self._closed:
            raise UnavailableError(f"This {type(self).__name__} was closed. Create a new one")

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise InvalidTypeError(
            f"{type(self).__name__} cannot be copied or pickled: it belongs to its views. Create another one of "
            "the same model, with the controls as keyword arguments"
        )

    def __copy__(self) -> NoReturn:
        self.__reduce_ex__(2)

    def __deepcopy__(self, memo: object) -> NoReturn:
        self.__reduce_ex__(2)

    def __del__(self) -> None:
        if not lifetime.is_ending():
            super().close()  # tells the views; what this explorer opened may be in use elsewhere

    if not TYPE_CHECKING:  # a type checker would accept any attribute

        def __getattr__(self, name: str) -> Any:
            if name in _FREED:
                self._check_open()
            return super().__getattr__(name)

    def _free(self) -> None:
        """Frees what can be computed again. A view may still show former values: new ones must belong to them."""

    def _forget(self) -> None:
        """Frees what can be computed again, and starts over: no view shows anything."""

    def _retain(self) -> None:
        """Called when a cell shows the explorer."""
        lifetime.hold(self)

    def _release(self) -> None:
        """Called when no cell shows the explorer any more."""
        lifetime.hold_weakly(self)
        self._jobs.cancel_all("No cell shows this explorer any more")
        self._let_go()

    def _let_go(self) -> None:
        if self._closed:  # it has nothing any more
            return
        if self._viewers:
            self._free()
        else:
            self._forget()

    def _count_views(self, client: object, count: object) -> None:
        """Notes how many views a page has. The last page that has none any more has the explorer free what it can."""
        if self._viewers.note(client, count, self.send) and not self._closed:
            self._jobs.cancel_all("No page shows this explorer any more")
            self._forget()

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:  # as anywidget
        self._check_open()
        lifetime.note_shown(self)
        return saved.output(self, super()._repr_mimebundle_(**kwargs))

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("_") and name != "comm" and self.has_trait(name):
            self._check_open()
        try:
            super().__setattr__(name, value)
        except ControlError:
            raise
        except traitlets.TraitError as error:  # raised by the trait itself, e.g. an Enum
            trait = self.traits().get(name)
            raise ControlError(name, value, trait.info() if trait else "another value", str(error)) from None

    @contextmanager
    def _replacing(self) -> Iterator[None]:
        """For changes of what is shown: views let go of their data before, and request new data after.

        Between the two, controls may change in any order without a view that draws new controls over old data.
        """
        self._jobs.cancel_all("The explorer shows something else now")
        with model_lock(self._owner):  # no request is answered half from the old and half from the new
            self.send({"kind": "replacing"})
            try:
                with self.hold_sync(), self.hold_trait_notifications():
                    yield
            finally:
                self.send({"kind": "replaced"})

    # ------------------------------------------------------------------------------------------------------ requests

    def _on_message(self, _: object, content: object, buffers: Sequence[memoryview]) -> None:
        if not isinstance(content, dict):
            log.warning("ignored a message that is not a request: %r", content)
            return
        kind, seq, client = (content.get(name) for name in ("kind", "seq", "client"))
        if kind == "ping":
            self.send({"kind": "pong", "seq": seq, "client": client, "requests": self._jobs.states(client)})
        elif kind == "cancel":
            self._jobs.cancel(client, seq)
        elif kind == "views":
            self._count_views(client, content.get("count"))
        else:

            def show(report: Report) -> None:
                self.send({"kind": "status", **report, "cancellable": threaded(), **address})

            address = {"asked": kind, "seq": seq, "client": client}
            self._jobs.add(
                Job(
                    client,
                    kind,
                    seq,
                    Progress(show),
                    functools.partial(self._reply, {**content, "parts": buffers}, address),
                )
            )

    def _reply(self, request: Request, address: Mapping[str, object], job: Job) -> None:
        """Answers a request and sends the reply, or what went wrong."""
        try:
            message, parts = self._answer(request, job.progress)
        except BaseException as error:
            # No cell shows the exception of a handler, so the view must.
            if cancelled := isinstance(error, (CancelledError, KeyboardInterrupt)):
                text = f"{error}." if isinstance(error, CancelledError) else "Interrupted."
            else:
                text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            self.send({"kind": "error", "text": text, "cancelled": cancelled, **address})
            if not isinstance(error, Exception):
                raise  # an interrupted kernel
            log.debug("request %r failed", job.kind, exc_info=True)
            return
        self.send({**message, "kind": job.kind, **address}, parts)

    def _answer(self, request: Request, status: Status) -> Answer:
        kind = request.get("kind")
        method = getattr(self, f"_answer_{kind}", None)
        if method is None:
            raise InvalidValueError(f"{type(self).__name__} does not answer requests of kind {kind!r}")
        answer: Answer
        if kind in self._LIGHT:
            answer = method(request, status)
        else:
            with self._turn(status), status.followed(self._owner):
                answer = method(request, status)
        if kind in ("picture", "about", "tour"):
            return {**answer[0], "origin": self._origin()}, answer[1]
        return answer

    def _origin(self) -> dict[str, str]:
        """What saved files say about where they come from; see origin.js."""
        image = getattr(self.__dict__.get("_subject"), "name", None)
        return {"model": self._summary().model, "image": image or "", "software": _software()}

    @contextmanager
    def _turn(self, status: Status) -> Iterator[None]:
        """Holds the lock of the model. A request that waits for it can be cancelled."""
        lock, name = model_lock(self._owner), type(self).__name__
        with lock.place() as place:
            before = None
            while not place.acquire(timeout=0.0 if before is None else PATIENCE, holder=name):
                if before != (before := lock.holder):
                    by = f" ({before})" if before else ""
                    status(f"Waiting for another explorer of this model{by}")
                status.check()
        try:
            status.check()
            yield
        finally:
            lock.release()

    # --------------------------------------------------------------------------------------------------------- pages

    def _page_of_state(self, request: Request) -> PagePlan:
        """The page that the button in the toolbar saves: it must show what the view shows."""
        raise NotImplementedError

    def _answer_page(self, request: Request, status: Status) -> Answer:
        """The page of the present state, which the browser saves."""
        self._adopt(request.get("state"))
        plan = self._page_of_state(request)
        content = page_of(self, plan, "", status).encode()
        return {"type": "text/html", "extent": plan.extent, "more": plan.more}, [content]

    def _adopt(self, state: object) -> None:
        """Sets traits to what the view shows. Its own messages about them can still be on the way."""
        if isinstance(state, Mapping):
            for name in set(state) & set(self.trait_names(ui=True)):
                setattr(self, name, state[name])

    def _write_page(self, path: str | os.PathLike[str], plan: PagePlan, title: str | None) -> Path:
        """Writes a page.

        Args:
            path: The file to write.
            plan: What the page contains.
            title: Its title, None for the one of the plan.

        Returns:
            The path, with ``~`` expanded.
        """
        path = Path(path).expanduser()
        check_place(path)
        content = page_of(self, plan, title or "", silent)
        with replacing(path) as temporary:
            temporary.write_text(content, encoding="utf-8")
        return written(path)


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


@functools.cache
def _software() -> str:
    """Our name and version, which only an installed copy knows."""
    try:
        return f"DPT Workbench {metadata.version('dpt-workbench')}"
    except metadata.PackageNotFoundError:
        return "DPT Workbench"


def _fit(picture: Image.Image) -> Image.Image:
    """At most PICTURE_SIDE pixels along the longer side."""
    scale = PICTURE_SIDE / max(picture.size)
    if scale >= 1:
        return picture
    width, height = (max(1, round(side * scale)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)
