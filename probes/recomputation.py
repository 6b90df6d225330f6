"""Gradient checkpointing runs parts of a pass again. They must be edited as they were, and are not a second pass.

Problem. ``torch.utils.checkpoint`` drops the values of a part of the model and computes them again during the backward
pass: outside the model's call, perhaps after the block of an edit was left, on a GPU in a thread of autograd. If an
edit acted in the pass and does not in the repetition, gradients are wrong without a word.

Approach. While a pass is edited, `remember` searches the Python stack for the checkpoints around it, and wraps the
function that torch keeps for the repetition. The wrapper brings the edits of that pass back while it runs. Whatever
else runs during a backward pass is told apart by `backward_number`.
"""

from __future__ import annotations

import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from types import FrameType
from typing import Any

import torch
import torch.utils.checkpoint


class Repeatable(ABC):
    """A block whose passes can be repeated."""

    @abstractmethod
    def resume(self, thread: int, run: Any) -> object:
        """Brings a pass back in a thread. Returns what `suspend` needs."""

    @abstractmethod
    def suspend(self, thread: int, before: Any) -> None:
        """Ends what `resume` began."""


def backward_number() -> int:
    """Returns the number of the backward pass that is running in this thread, or -1."""
    return torch._C._current_graph_task_id()


def inside_checkpoint() -> bool:
    """Whether the caller runs inside a checkpoint, as its first run or as a repetition."""
    return next(_holders(sys._getframe(1)), None) is not None


def unseen_by_checkpoints() -> AbstractContextManager[object]:
    """Keeps what is computed inside the block out of the checkpoints around the caller.

    A checkpoint counts the tensors that are saved for its backward pass, and refuses a repetition that saves fewer.
    """
    if torch.is_grad_enabled() and inside_checkpoint():
        return torch.autograd.graph.saved_tensors_hooks(_same, _same)
    return nullcontext()


def _same(x: Any) -> Any:
    return x


def remember(block: Repeatable, run: object) -> None:
    """Has the checkpoints around the caller bring a pass of a block back when they repeat their part.

    Args:
        block: The block.
        run: Its pass.
    """
    for holder, name in _holders(sys._getframe(1)):
        function = getattr(holder, name)
        if not isinstance(function, _Repetition):
            function = _Repetition(function)
            setattr(holder, name, function)
        function.runs[block] = run


class _Repetition:
    """The repeated function of one checkpoint. It lives as long as the graph of the pass."""

    def __init__(self, function: Callable[..., object]) -> None:
        self.function = function
        self.runs: dict[Repeatable, object] = {}

    def __call__(self, *args: object, **kwargs: object) -> object:
        thread = threading.get_ident()
        resumed: list[tuple[Repeatable, object]] = []
        try:
            for block, run in self.runs.items():
                resumed.append((block, block.resume(thread, run)))
            return self.function(*args, **kwargs)
        finally:
            for block, before in reversed(resumed):
                block.suspend(thread, before)


def _holders(frame: FrameType | None) -> Iterator[tuple[Any, str]]:
    """Yields (object, attribute) of the functions that the checkpoints around a frame will repeat, innermost first."""
    file = torch.utils.checkpoint.__file__
    while frame is not None:
        code = frame.f_code
        if code.co_filename == file:
            if code.co_name == "checkpoint":  # use_reentrant=False: a suspended generator holds the frame
                generator = frame.f_locals.get("gen")
                inner = getattr(generator, "gi_frame", None)
                if inner is not None and (kept := inner.f_locals.get("new_frame")) is not None:
                    yield kept, "recompute_fn"
            elif code.co_name == "forward" and hasattr(ctx := frame.f_locals.get("ctx"), "run_function"):
                yield ctx, "run_function"
        frame = frame.f_back
