"""The requests of an explorer, answered on a thread of their own, so that a message can cancel one that is running.

Problem: a kernel handles one message at a time. While a handler runs the model for half a minute, no message to cancel
it arrives, and the kernel looks stopped. (Subshells help only some front ends, and all explorers share one.)

Approach: in a Jupyter kernel a handler only queues its request. One thread per explorer answers the queue in order, and
ends when the queue is empty. It runs in a copy of the handler's context, which holds the message that replies refer to.
An interrupt of the kernel reaches its main thread only; while no cell runs, it cancels all requests.

Elsewhere (scripts, tests, marimo, Pyodide) there is no thread whose messages are sure to arrive: requests are answered
inside the handler, and `cancellable` is false.
"""

from __future__ import annotations

import atexit
import contextvars
import signal
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .progress import Progress, Report

_GRACE = 2.0  # seconds that the end of the kernel waits for passes to stop


@dataclass(eq=False)
class Job:
    """A request: who sent it, and how it is answered.

    Attributes:
        client: The page that sent it.
        kind: Its kind.
        seq: Its number on that page.
        progress: Shows its progress, and cancels it.
        answer: Answers it. Replies and errors are sent by it.
        context: The context of the handler that received it.
    """

    client: object
    kind: object
    seq: object
    progress: Progress
    answer: Callable[[Job], None]
    context: contextvars.Context = field(default_factory=contextvars.copy_context)

    def state(self) -> Report:
        """What a page needs to know of it."""
        return {**self.progress.latest, "asked": self.kind, "seq": self.seq}


class Jobs:
    """The requests of one explorer, in the order of their arrival."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: deque[Job] = deque()  # the first one is running
        self._thread: threading.Thread | None = None

    def add(self, job: Job) -> None:
        """Answers a request: now, or on the thread of the explorer if this is a Jupyter kernel."""
        with self._lock:
            waits = bool(self._queue)
            self._queue.append(job)
            if threaded():
                if waits:
                    job.progress("Waiting for an earlier request of this explorer")
                if self._thread is None:
                    self._thread = threading.Thread(target=self._work, name="explorer", daemon=True)
                    _running.add(self)
                    self._thread.start()
                return
        self._answer(job)

    def cancel(self, client: object, seq: object, why: str = "Cancelled") -> None:
        """Cancels a request of a page. One that has been answered already is left alone."""
        with self._lock:
            for job in self._queue:
                if (job.client, job.seq) == (client, seq):
                    job.progress.cancel(why)

    def cancel_all(self, why: str) -> None:
        """Cancels every request."""
        for job in tuple(self._queue):
            job.progress.cancel(why)

    def states(self, client: object) -> list[Report]:
        """The requests of a page that are not answered yet."""
        with self._lock:
            return [job.state() for job in self._queue if job.client == client]

    def join(self, seconds: float) -> None:
        """Waits until all requests are answered."""
        if (thread := self._thread) is not None:
            thread.join(seconds)

    def _work(self) -> None:
        while True:
            job = self._queue[0]
            job.context.run(self._answer, job)
            with self._lock:
                if not self._queue:
                    self._thread = None
                    _running.discard(self)
                    return

    def _answer(self, job: Job) -> None:
        try:
            job.answer(job)
        finally:
            with self._lock:
                self._queue.remove(job)  # after its reply was sent: see `states`


_running: weakref.WeakSet[Jobs] = weakref.WeakSet()


def threaded() -> bool:
    """Whether requests are answered on threads: this is a Jupyter kernel on Python with threads."""
    return _kernel() is not None


def _kernel() -> Any:
    """The running ipykernel, or None."""
    module = sys.modules.get("ipykernel.kernelbase")
    kernel = module.Kernel if module is not None else None
    return kernel.instance() if kernel is not None and kernel.initialized() else None


def heed_interrupts() -> None:
    """Has an interrupt of the kernel cancel all requests, if no cell is running. Call it once per explorer.

    ipykernel ignores the signal between messages. Its own handler for running cells is left as it is.
    """
    loop = getattr(_kernel(), "io_loop", None)
    if loop is not None:
        loop.add_callback(_place_handler)


def _place_handler() -> None:
    """Runs between two messages, on the main thread."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(*_: object) -> None:
    for jobs in tuple(_running):
        jobs.cancel_all("Interrupted")


@atexit.register
def _finish() -> None:
    """A thread inside torch while Python ends would crash the process."""
    running = tuple(_running)
    for jobs in running:
        jobs.cancel_all("The kernel is shutting down")
    for jobs in running:
        jobs.join(_GRACE / len(running))
