"""Results that depend on parameters and a patch grid alone, kept for the next picture of that grid.

Position tables and biases cost as much as a tenth of a forward pass to work out (a third for SwinV2), and pictures
mostly come in few sizes. What is kept belongs to the parameters as they are: after they were changed in place, loaded,
moved or cast, it is made anew.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
_lock = threading.Lock()  # one for all: a lock of its own would keep a model from being copied
_noted = threading.local()


@contextmanager
def noted() -> Iterator[list[object]]:
    """What this thread's passes take from here, as long as the block lasts: for who must keep it longer."""
    found: list[object] = []
    _noted.values = found
    try:
        yield found
    finally:
        _noted.values = None


class KeptPerGrid(Generic[T]):
    """The latest results, at most `count`; the least recently used goes first."""

    def __init__(self, count: int):
        self.count = count
        self._kept: OrderedDict[Hashable, T] = OrderedDict()

    def __call__(self, parameters: tuple[Tensor, ...], grid: Hashable, make: Callable[[], T]) -> T:
        """make(), or what it returned before for these parameters and this grid.

        Nothing is kept while gradients must reach the parameters, or while a compiler must see the computation.
        """
        value = self._value(parameters, grid, make)
        if (found := getattr(_noted, "values", None)) is not None:
            found.append(value)
        return value

    def _value(self, parameters: tuple[Tensor, ...], grid: Hashable, make: Callable[[], T]) -> T:
        training = torch.is_grad_enabled() and any(p.requires_grad for p in parameters)
        if training or torch.compiler.is_compiling():
            return make()
        # Version and address change whenever a parameter does: in place, by loading, by moving or casting.
        states = ((p.dtype, p.device, p.data_ptr(), 0 if p.is_inference() else p._version) for p in parameters)
        key = (grid, *states)
        with _lock:  # a notebook's widgets run the model on other threads
            if key not in self._kept:
                with torch.inference_mode(False), torch.no_grad():
                    self._kept[key] = make()
                while len(self._kept) > self.count:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key]

    def forget(self) -> None:
        with _lock:
            self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)

    def __getstate__(self) -> dict:
        # Copies and pickles of a model start with nothing kept: the keys hold addresses.
        return {"count": self.count, "_kept": OrderedDict()}
