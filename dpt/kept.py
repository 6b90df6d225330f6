"""Caches results that depend only on parameters and the patch grid, such as position tables and attention biases.

Computing them takes up to a tenth of a forward pass (a third for SwinV2), and images usually come in few sizes. A
result is recomputed when its parameters change: in place, by loading, by moving or by casting.
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
_lock = threading.Lock()  # shared by all caches: models with a lock of their own could not be copied
_collecting = threading.local()


@contextmanager
def collected() -> Iterator[list[object]]:
    """Collects the results that this thread takes from caches inside the block.

    CUDA graphs read these results in place, so their owner must keep them alive.

    Yields:
        A list that grows with every use of a cache.
    """
    found: list[object] = []
    _collecting.values = found
    try:
        yield found
    finally:
        _collecting.values = None


class KeptPerGrid(Generic[T]):
    """A cache of results per grid, which drops the least recently used."""

    def __init__(self, count: int):
        """Creates an empty cache.

        Args:
            count: Largest number of results.
        """
        self.count = count
        self._kept: OrderedDict[Hashable, T] = OrderedDict()

    def __call__(self, parameters: tuple[Tensor, ...], grid: Hashable, make: Callable[[], T]) -> T:
        """Returns the cached result, or calls `make` and caches what it returns.

        Nothing is cached if gradients must reach the parameters, or during compilation, which must see the computation.

        Args:
            parameters: The parameters that the result depends on.
            grid: What else the result depends on.
            make: Computes the result.
        """
        value = self._value(parameters, grid, make)
        if (found := getattr(_collecting, "values", None)) is not None:
            found.append(value)
        return value

    def _value(self, parameters: tuple[Tensor, ...], grid: Hashable, make: Callable[[], T]) -> T:
        training = torch.is_grad_enabled() and any(p.requires_grad for p in parameters)
        if training or torch.compiler.is_compiling():
            return make()
        # A parameter's version or address changes with every change: in place, by loading, by moving or by casting.
        states = ((p.dtype, p.device, p.data_ptr(), 0 if p.is_inference() else p._version) for p in parameters)
        key = (grid, *states)
        with _lock:  # widgets run the model on other threads
            if key not in self._kept:
                with torch.inference_mode(False), torch.no_grad():
                    self._kept[key] = make()
                while len(self._kept) > self.count:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key]

    def clear(self) -> None:
        """Drops all results."""
        with _lock:
            self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)

    def __getstate__(self) -> dict:
        # Copies and pickles start empty, because the keys contain addresses.
        return {"count": self.count, "_kept": OrderedDict()}
