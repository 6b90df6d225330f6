"""Blocks that concern the forward passes of a model: which passes are theirs, and how they are opened and left.

Problem. A block is opened in one place and its passes run in others: in worker threads, in tasks of asyncio, in the
cells of a notebook, in a widget's handler, during the backward pass. Some of them belong to the block and others only
use the same model at the same time.

Approach. A block's number travels in a context variable. A pass belongs to the block if its context carries the number:
asyncio.to_thread and new asyncio tasks copy the context, ThreadPoolExecutor and threading.Thread do not. A block may
outlive the task that opened it, e.g. an ExitStack across notebook cells with ``await``. It then belongs to its thread.
`Block.begin` decides at the start of each pass; what runs later in the same thread, until the pass ends, belongs to it.

Leaving a block closes it first, in one step, and a closed block does nothing even if a hook of it is still called. Each
step of opening and leaving can be interrupted and repeated. `WithBlock` leaves on every way out of the with statement,
also when an interrupt arrives before its first or after its last line: then the object itself is destroyed.
"""

from __future__ import annotations

import inspect
import itertools
import os
import sys
import threading
import warnings
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import ContextDecorator
from contextvars import ContextVar
from types import MappingProxyType, TracebackType
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

import dpt
from dpt import DPT

from .errors import InvalidTypeError, ProbeWarning, UnavailableError
from .hooks import Hook, Hooks

_NO_KEYWORDS: Mapping[str, Any] = MappingProxyType({})
_carried: ContextVar[tuple[int, ...]] = ContextVar("probes_blocks", default=())
_numbers = itertools.count(1)
_open: dict[int, None] = {}  # numbers of open blocks

Run = TypeVar("Run")
Entered = TypeVar("Entered")
Function = TypeVar("Function", bound=Callable[..., Any])


class Block(ABC, Generic[Run]):
    """A block of captures or edits of one model.

    Attributes:
        running: What the block keeps of each of its passes that is running, by thread.
        closed: True once the block was left. A closed block does nothing.
        elsewhere: Where a pass ran that does not belong to the block, in words; empty if none did.
    """

    def __init__(self, model: DPT):
        self.model = weakref.ref(model)
        self.number = next(_numbers)
        self.hooks = Hooks()
        self.running: dict[int, Run] = {}
        self.closed = False
        self.elsewhere = ""
        self._thread = threading.get_ident()
        self._task, self._has_task = _current_task()

    @abstractmethod
    def start(self, x: Tensor) -> Run | None:
        """Returns what to keep of a pass that starts with the input x, or None to ignore the pass."""

    def place_hooks(self) -> None:
        """Places hooks on the model. `open` calls this."""
        model = self.model()
        assert model is not None
        self.hooks.before(model, _Begin(self), keywords=True)

    def open(self) -> None:
        """Opens the block in the current context."""
        _open[self.number] = None
        _carried.set((*(number for number in _carried.get() if number in _open), self.number))
        self.place_hooks()

    def close(self) -> None:
        """Closes the block. Can be called again, also in another context."""
        self.closed = True
        self.hooks.remove()
        _open.pop(self.number, None)
        self.forget_passes()
        carried = _carried.get()
        if self.number in carried:
            # Other contexts keep the number. It means nothing any more.
            _carried.set(tuple(number for number in carried if number != self.number))

    def forget_passes(self) -> None:
        """Forgets the passes that are running. `close` calls this."""
        self.running.clear()

    def carried(self) -> bool:
        """Whether what runs now belongs to the block."""
        if self.closed:
            return False
        if self.number in _carried.get():
            return True
        if not self._has_task or self._thread != threading.get_ident():
            return False
        task = self._task() if self._task is not None else None
        return task is None or task.done()

    def begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Starts a pass, if it belongs to the block."""
        if self.closed:
            return
        if module is not self.model():
            if getattr(module, "_is_replica", False):
                self.missed("as a replica of torch.nn.DataParallel")
            return  # a copy of the model
        thread = threading.get_ident()
        if self.is_repeated(thread):
            return
        self.running.pop(thread, None)  # a pass that an exception ended
        if not self.carried():
            if thread != self._thread:
                self.missed(f"on another thread ({threading.current_thread().name})")
            else:
                self.elsewhere = self.elsewhere or "in another asyncio task or context"
            return
        x = args[0] if args else kwargs.get("x")
        if x is not None and (run := self.start(x)) is not None:
            self.running[thread] = run

    def is_repeated(self, thread: int) -> bool:
        """Whether a checkpoint repeats a pass of the block in a thread."""
        return False

    def missed(self, where: str) -> None:
        """Notes that a pass ran which does not belong to the block."""
        self.elsewhere = where


class _Begin(Hook):
    def __init__(self, block: Block[Any]) -> None:
        self.block = block

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] = _NO_KEYWORDS) -> None:
        self.block.begin(module, args, kwargs)


def _current_task() -> tuple[weakref.ref[Any] | None, bool]:
    """(the running asyncio task, whether an event loop is running in this thread)."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None or asyncio._get_running_loop() is None:
        return None, False
    task = asyncio.current_task()
    return None if task is None else weakref.ref(task), True


class NotInWithBlock(UnavailableError, AttributeError):
    """A capture or edit is used without its with block."""


class WithBlock(ContextDecorator, ABC, Generic[Entered]):
    """What `probes.capture` and `probes.edit` return: an object for one with statement."""

    call: str  # how the user made it, for messages
    gives: str  # the with statement in full

    def __init__(self) -> None:
        self._block: Block[Any] | None = None
        self._used = self._closed = False

    @abstractmethod
    def _opened(self) -> tuple[Block[Any], Entered]:
        """Checks the arguments. Returns the block, still closed, and what the with statement binds."""

    def __call__(self, function: Function) -> Function:
        """Opens a new block around each call of a function."""
        self._used = True
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            raise InvalidTypeError(
                f"{self.call} cannot decorate {function.__qualname__}, which runs after its call has returned. Use a "
                f"with block in it: {self.gives}"
            )
        return super().__call__(function)

    @abstractmethod
    def _recreate_cm(self) -> WithBlock[Entered]:
        """Returns a new object with the same arguments, for each call of a decorated function."""

    def __enter__(self) -> Entered:
        if self._used:
            raise UnavailableError(f"This {self.call} was used before. Call it again for another with block.")
        try:
            self._used = True
            self._block, entered = self._opened()
            self._block.open()
            return entered
        except BaseException:
            self._close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        try:
            self._close()
        finally:
            if not self._closed:  # an interrupt ended the first call
                self._close()
        return self._left(error)

    def _left(self, error: BaseException | None) -> bool:
        """Acts after the block is closed. Returns True to swallow the exception that ended it."""
        return False

    def _close(self) -> None:
        if self._block is not None:
            self._block.close()
        self._closed = True

    def __del__(self) -> None:
        state = self.__dict__  # may lack attributes if __init__ failed
        if (block := state.get("_block")) is not None:
            if not self._closed:
                block.close()
        elif state.get("_used") is False and not sys.is_finalizing():
            warn(f"{self.call} had no effect: {self._how()}")

    def _how(self) -> str:
        return f"{self.call} is used in a with block: {self.gives}"

    def __getattr__(self, name: str) -> Any:
        raise NotInWithBlock(f"{self._how()} (got an access to .{name})")

    def __getitem__(self, key: object) -> Any:
        raise NotInWithBlock(f"{self._how()} (got an access to [{key!r}])")

    def __iter__(self) -> Iterator[Any]:
        raise NotInWithBlock(self._how())

    def __len__(self) -> int:
        raise NotInWithBlock(self._how())

    def __contains__(self, key: object) -> bool:
        raise NotInWithBlock(self._how())

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<{self._how()}>"


_OURS = (*(os.path.dirname(path) + os.sep for path in (torch.__file__, dpt.__file__, __file__)), "<")


def warn(message: str) -> None:
    """Warns with a ProbeWarning that names the first line outside torch and this project."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OURS):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, ProbeWarning, stacklevel=level)
