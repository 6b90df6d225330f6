"""Caches results that depend only on parameters and the patch grid, such as position tables and attention biases.

Computing them takes up to a tenth of a forward pass (a third for SwinV2), and images usually come in few sizes.

A cached result must never be stale. Addresses and versions of parameters do not tell whether they changed: writes
through `.data` (the usual moving average of weights, many optimizers) raise no version, and memory is reused. A cache
therefore keeps a copy of the parameters, which are small, and compares all bits at every use. Where the values cannot
be read, nothing is cached. Results are computed outside autocast.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from .ambient import transformed, without_autocast

T = TypeVar("T")
_lock = threading.RLock()  # shared by all caches: models with a lock of their own could not be copied
_recording = threading.local()
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes
COLUMNS = 512  # of the tables of 64-bit integers that `Checksums` sums


@contextmanager
def recording() -> Iterator[list[object]]:
    """Prepares caches for passes that are recorded as a CUDA graph by this thread.

    A replay must see the parameters as they are then. Results that depend on parameters are therefore computed inside
    the graph, at each replay. The others are cached, and the graph reads them in place: its owner must keep them alive.

    Yields:
        A list of those others, which grows with every use of a cache.
    """
    found: list[object] = []
    _recording.values = found
    try:
        yield found
    finally:
        _recording.values = None


class KeptPerGrid(Generic[T]):
    """A cache of results per grid, which drops the least recently used."""

    def __init__(self, count: int):
        """Creates an empty cache.

        Args:
            count: Largest number of results.
        """
        self.count = count
        self._kept: OrderedDict[Hashable, T] = OrderedDict()
        self._copies: tuple[Tensor, ...] = ()  # of the parameters that all results were computed from

    def __call__(self, parameters: Sequence[Tensor], grid: Hashable, make: Callable[[], T]) -> T:
        """Returns the cached result, or calls `make`, outside autocast, and caches what it returns.

        Nothing is cached if gradients must reach the parameters, if their values cannot be read (meta tensors, tensor
        subclasses), or during a transform (`ambient.transformed`), which must see the computation.

        Args:
            parameters: The parameters that the result depends on, on one device.
            grid: What else the result depends on.
            make: Computes the result.
        """
        device = parameters[0].device if parameters else "cpu"
        recorded = None if torch.compiler.is_compiling() else getattr(_recording, "values", None)
        if not _readable(parameters) or (recorded is not None and parameters):
            with without_autocast(device):
                return make()
        with _lock:  # widgets run the model on other threads
            if not same_bits(parameters, self._copies):
                self._kept.clear()
                with torch.inference_mode(False), torch.no_grad():
                    self._copies = tuple(p.detach().clone() for p in parameters)
            if grid not in self._kept:
                with torch.inference_mode(False), torch.no_grad(), without_autocast(device):
                    self._kept[grid] = make()
                while len(self._kept) > self.count:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(grid)
            value = self._kept[grid]
        if recorded is not None:
            recorded.append(value)
        return value

    def clear(self) -> None:
        """Drops all results."""
        with _lock:
            self._kept.clear()
            self._copies = ()

    def __len__(self) -> int:
        return len(self._kept)

    def __getstate__(self) -> dict:
        # Copies and pickles start empty, which keeps them small.
        return {"count": self.count, "_kept": OrderedDict(), "_copies": ()}


def _readable(parameters: Sequence[Tensor]) -> bool:
    """Whether a result that depends on the parameters can be kept."""
    if transformed() or (torch.is_grad_enabled() and any(p.requires_grad for p in parameters)):
        return False
    return all(type(p) in (Tensor, nn.Parameter, nn.Buffer) and not p.is_meta for p in parameters)


def same_bits(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    """Tells whether tensors are equal bit by bit, including the signs of zeros and NaN. The device must be equal, too.

    On a GPU, each comparison waits for the device.
    """
    if len(some) != len(others):
        return False
    if any((a.dtype, a.device, a.shape) != (b.dtype, b.device, b.shape) for a, b in zip(some, others, strict=True)):
        return False
    with torch.no_grad():
        return all(torch.equal(_bits(a), _bits(b)) for a, b in zip(some, others, strict=True))


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().view(INTEGERS[tensor.element_size()])


class Checksums:
    """Remembers tensors that are too large to copy, and tells whether they have changed since.

    Each tensor is laid out as a table of 64-bit integers, of which all rows and all columns are summed. A change in one
    place, or an exchange of two, changes at least two of the sums. This reads 100 MB in about 10 ms on one core.
    """

    def __init__(self, tensors: Iterable[Tensor]):
        """Reads all tensors once.

        Args:
            tensors: E.g. all parameters of a model.
        """
        self._known = [(_facts(tensor), _sums(tensor)) for tensor in tensors]

    def same(self, tensors: Iterable[Tensor]) -> bool:
        """Tells whether tensors equal the remembered ones.

        Args:
            tensors: The tensors in the same order. False if any of them has no data to read.
        """
        tensors = list(tensors)
        if len(tensors) != len(self._known) or any(sums is None for _, sums in self._known):
            return False
        return not self.changed(tensors)

    def changed(self, tensors: Iterable[Tensor]) -> list[int]:
        """Returns the places of the tensors that differ from the remembered ones.

        Args:
            tensors: As many tensors in the same order. Of tensors without data, on the meta device, only dtype and
                shape are compared.
        """
        found = []
        for place, (tensor, (facts, sums)) in enumerate(zip(tensors, self._known, strict=True)):
            if _facts(tensor) != facts or (sums is not None and not same_bits(_sums(tensor) or [], sums)):
                found.append(place)
        return found


def _facts(tensor: Tensor) -> tuple[object, ...]:
    return tensor.dtype, tensor.device, tensor.shape


@torch.no_grad()
def _sums(tensor: Tensor) -> list[Tensor] | None:
    """Sums of columns and rows of the bits as 64-bit integers, and the bytes that do not fill a row."""
    if tensor.is_meta:
        return None
    raw = tensor.detach().contiguous().view(-1).view(torch.uint8)
    if raw.storage_offset() % 8:  # not aligned for a view as int64
        raw = raw.clone()
    full = len(raw) // (8 * COLUMNS) * 8 * COLUMNS
    table = raw[:full].view(torch.int64).view(-1, COLUMNS)
    return [table.sum(0), table.sum(1), raw[full:].clone()]
