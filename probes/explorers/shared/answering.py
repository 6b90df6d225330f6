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
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import ClassVar, TypeAlias

import traitlets

from dpt.writing import check_place, replacing
from dpt.written import written

from ...errors import CancelledError, InvalidValueError
from .controls import ControlError, UnknownControlError
from .jobs import Job, Jobs, heed_interrupts, threaded
from .living import Living
from .page_of_explorer import page_of
from .pages import PagePlan
from .progress import Progress, Report, Status, silent
from .turns import model_lock

log = logging.getLogger(__name__)

Request: TypeAlias = Mapping[str, object]
"""A view's message. Every field comes from outside and needs a check."""

Answer: TypeAlias = tuple[Mapping[str, object], list[bytes]]
"""The reply to a request: its fields and its binary parts."""

PATIENCE = 0.1  # seconds between two looks whether a waiting request was cancelled


class AnsweringExplorer(Living):
    """Base of all explorers. A request of kind KIND calls the method ``_answer_KIND``.

    A subclass sets ``_name`` (its folder), ``_esm`` and ``_css``. It tags the traits of its controls with ``ui=True``:
    pages store them. Keyword arguments may also name traits that follow from others. Those are tagged with
    ``last=True``, because they are set after the others, which decide what they mean. An answer method takes the
    request and a function that shows progress, and returns an `Answer`.

    Raises:
        UnknownControlError: A keyword argument is not a control of the explorer (also a TypeError).
        ControlError: A control does not accept its value (also a traitlets.TraitError).
    """

    _name: ClassVar[str]
    _LIGHT: ClassVar[tuple[str, ...]] = ("picture",)  # requests that run no model and wait for no other explorer

    def __init__(self, **controls: object):
        known = [name for name in self.class_trait_names(ui=True) if not name.startswith("_")]
        last = self.class_trait_names(last=True)
        if unknown := set(controls) - {*known, *last, "layout"}:
            raise UnknownControlError.of(type(self).__name__, unknown, [*known, *last])
        given = {name: controls.pop(name) for name in last if name in controls}
        super().__init__(**controls)
        self._jobs = Jobs()
        heed_interrupts()
        for name, value in given.items():
            setattr(self, name, value)
        self._start_deriving()
        self.on_msg(self._on_message)

    def __setattr__(self, name: str, value: object) -> None:
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

    def _stop(self, why: str) -> None:
        self._jobs.cancel_all(why)

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
        return {"model": self._summary().model, "image": "", "software": _software()}

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


@functools.cache
def _software() -> str:
    """Our name and version, which only an installed copy knows."""
    try:
        return f"DPT Workbench {metadata.version('dpt-workbench')}"
    except metadata.PackageNotFoundError:
        return "DPT Workbench"
