"""The turns that explorers of one model take.

Two passes at once would take twice as long each, and captures of two explorers would hold two models' worth of memory.
So explorers that use the same model take turns, in the order in which they came.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from types import TracebackType

_turns: weakref.WeakKeyDictionary[object, Turns] = weakref.WeakKeyDictionary()
_guard = threading.Lock()


class Turns:
    """A lock that its thread can take again, first come, first served, and that knows who holds it.

    Attributes:
        holder: Who holds the lock, as given to `acquire`; "" if nobody does, or has not said.
    """

    def __init__(self) -> None:
        self.holder = ""
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()  # those that wait
        self._thread: int | None = None
        self._depth = 0

    def acquire(self, blocking: bool = True, timeout: float = -1.0, *, holder: str = "") -> bool:
        """As for `threading.RLock`.

        Args:
            blocking: Whether to wait.
            timeout: Seconds to wait, or -1 for any time. A place in the queue is kept by `place` only.
            holder: Who takes the lock.

        Returns:
            Whether the lock is taken.
        """
        with self.place() as place:
            return place.acquire(blocking, timeout, holder=holder)

    def release(self) -> None:
        """As for `threading.RLock`."""
        with self._changed:
            if self._thread != threading.get_ident():
                raise RuntimeError("cannot release a lock that another thread holds")
            self._depth -= 1
            if not self._depth:
                self._thread, self.holder = None, ""
                self._changed.notify_all()

    def place(self) -> Place:
        """A place in the queue, for a with block."""
        return Place(self)

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


class Place:
    """A place in the queue of `Turns`. It is kept between two calls of `acquire`."""

    def __init__(self, turns: Turns):
        self._turns = turns

    def __enter__(self) -> Place:
        with self._turns._changed:
            self._turns._queue.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        turns = self._turns
        with turns._changed:
            if self in turns._queue:
                turns._queue.remove(self)
                turns._changed.notify_all()

    def acquire(self, blocking: bool = True, timeout: float = -1.0, *, holder: str = "") -> bool:
        """Takes the lock when it is this place's turn."""
        turns, me = self._turns, threading.get_ident()
        end = None if timeout < 0 else time.monotonic() + timeout
        with turns._changed:
            while turns._thread != me and (turns._thread is not None or turns._queue[0] is not self):
                left = None if end is None else end - time.monotonic()
                if not blocking or (left is not None and left <= 0):
                    return False
                turns._changed.wait(left)
            if turns._thread is None:
                turns._thread, turns.holder = me, holder
            turns._depth += 1
            turns._queue.remove(self)
            turns._changed.notify_all()
            return True


def model_lock(owner: object) -> Turns:
    """The lock that all explorers of a model share."""
    with _guard:
        return _turns.setdefault(owner, Turns())
