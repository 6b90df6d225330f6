"""What models have computed for explorers: shared by the explorers of one model and image, and bounded.

Problem: an explorer that keeps its captures for itself costs a pass and up to 0.4 GB, and so does the next explorer of
the same image. IPython keeps each explorer that a cell ended with in ``Out``, so what an explorer keeps may stay for
the whole session.

Approach: a `Moment` holds what a model computed from one image while the model stayed the same. Subjects
(`live_subject`) hold their moment while a view shows them or Python has asked; the last one that lets go frees it. A
subject finds the moment of another one by the model, the image's pixels and the input size (`find`), and takes it over
only if the model is in the same state: the same weights, modules, settings and hooks (`State`). A model whose results
may depend on anything else shares nothing.

All moments together keep at most `BUDGET` bytes in at most `MOST` entries. Beyond that, the entries that were not used
for longest are dropped. They are computed again when needed.
"""

from __future__ import annotations

import hashlib
import threading
import weakref
from collections import OrderedDict
from dataclasses import is_dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import dpt
from dpt.ambient import autocasts, transformed
from dpt.kept import Checksums
from dpt.modules import tensors_of

from ...captured import Capture
from ...edit import active
from ...hooks import Hook

BUDGET = 2 * 2**30
"""Bytes that all moments keep. The entry that was used last always stays."""

MOST = 24
"""Number of entries that all moments keep: captures, depth maps, replays."""

Picture: TypeAlias = tuple[object, ...]
"""The pixels of an image and the size of the input that is made of them."""

_guard = threading.RLock()
_moments: weakref.WeakKeyDictionary[dpt.DPT, weakref.WeakSet[Moment]] = weakref.WeakKeyDictionary()
_used: OrderedDict[tuple[int, str], tuple[weakref.ref[Moment], int]] = OrderedDict()  # longest unused first
_OF_TORCH = frozenset(vars(nn.Module()))


class State:
    """What decides the results of a model, apart from its input.

    Args:
        model: The model.

    Attributes:
        weights: Of all tensors. None if they hold no data to read, because they are offloaded.
        shared: Whether the results of other explorers may be used.
    """

    def __init__(self, model: dpt.DPT):
        tensors = list(tensors_of(model))
        self.weights = None if any(tensor.is_meta for tensor in tensors) else Checksums(tensors)
        self._settings = _settings(model)

    @property
    def shared(self) -> bool:
        return self.weights is not None and self._settings is not None

    def same(self, model: dpt.DPT) -> bool:
        """Whether the model would compute the same now. Reads all weights: 10 ms for 100 MB on one core."""
        if self.weights is None or self._settings is None or self._settings != _settings(model):
            return False
        return self.weights.same(tensors_of(model))

    def same_weights(self, model: dpt.DPT) -> bool:
        """Whether the weights are the same. True if they cannot be read."""
        return self.weights is None or self.weights.same(tensors_of(model))


class Moment:
    """What a model computed from one image while it was in one state.

    Args:
        state: The state of the model.
        picture: The image, see `picture_of`.
    """

    def __init__(self, state: State, picture: Picture):
        self.state, self.picture = state, picture
        self._entries: dict[str, Any] = {}

    def get(self, name: str) -> Any:
        """An entry, or None."""
        with _guard:
            if name in self._entries and (id(self), name) in _used:
                _used.move_to_end((id(self), name))
            return self._entries.get(name)

    def captured(self, names: tuple[str, ...]) -> Capture | None:
        """An entry that holds all of these probe points, or None."""
        with _guard:
            for name, entry in self._entries.items():
                if isinstance(entry, Capture) and all(one in entry for one in names):
                    self.get(name)  # it counts as used
                    return entry
        return None

    def captures(self) -> list[Capture]:
        """All entries that hold probe points."""
        with _guard:
            return [entry for entry in self._entries.values() if isinstance(entry, Capture)]

    def put(self, name: str, value: Any, nbytes: int) -> None:
        """Adds or replaces an entry. Drops entries of any moment that were not used for longest."""
        with _guard:
            self._entries[name] = value
            _used.pop((id(self), name), None)
            _used[id(self), name] = weakref.ref(self), nbytes
            for key in [key for key, (moment, _) in _used.items() if moment() is None]:
                del _used[key]
            total = sum(size for _, size in _used.values())
            while len(_used) > 1 and (total > BUDGET or len(_used) > MOST):
                (_, oldest), (moment, size) = _used.popitem(last=False)
                total -= size
                if (owner := moment()) is not None:
                    owner._entries.pop(oldest, None)

    def pop(self, name: str) -> None:
        """Drops an entry, if it exists."""
        with _guard:
            self._entries.pop(name, None)
            _used.pop((id(self), name), None)

    def __len__(self) -> int:
        return len(self._entries)


def picture_of(image: NDArray[np.uint8], input_size: tuple[int, int]) -> Picture:
    """What identifies an image and the input that is made of it. Reads all pixels: 1 ms per megapixel."""
    digest = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=20).digest()
    return image.shape, digest, input_size


def known(model: dpt.DPT) -> bool:
    """Whether a model has moments."""
    with _guard:
        return bool(_moments.get(model))


def find(model: dpt.DPT, picture: Picture) -> list[Moment]:
    """The moments of a model and an image that other subjects hold. Their states may differ from the present one."""
    with _guard:
        return [moment for moment in _moments.get(model, ()) if moment.picture == picture]


def offer(model: dpt.DPT, moment: Moment) -> None:
    """Lets other subjects find a moment, if its state can be compared."""
    if moment.state.shared:
        with _guard:
            _moments.setdefault(model, weakref.WeakSet()).add(moment)


def kept_bytes() -> int:
    """Bytes that all moments keep."""
    with _guard:
        return sum(size for moment, size in _used.values() if moment() is not None)


def _settings(model: dpt.DPT) -> list[object] | None:
    """What decides results besides the weights. None if something else may decide them, too."""
    if transformed() or autocasts(model.device) or active(model) or nn.modules.module._has_any_global_hook():
        return None
    found: list[object] = [
        torch.get_float32_matmul_precision(),
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
    ]
    for name, module in model.named_modules():
        kind = type(module)
        ours = kind.__module__.partition(".")[0] == "dpt" or kind.__module__.startswith("torch.nn.modules.")
        if module.training or not ours or "forward" in vars(module) or _has_foreign_hooks(module):
            return None
        own = {key: _plain(value) for key, value in vars(module).items() if key not in _OF_TORCH}
        found.append((name, kind, kind.forward, own))
    return found


def _has_foreign_hooks(module: nn.Module) -> bool:
    """Whether a module has hooks that may change results. Hooks of captures and of progress change none."""
    tables: tuple[dict[int, Any], ...] = (module._forward_hooks, module._forward_pre_hooks)
    return any(not isinstance(hook, Hook) for table in tables for hook in table.values())


def _plain(value: object) -> object:
    """A value that can be compared later: numbers, texts and frozen records themselves, the identity of all others."""
    if isinstance(value, bool | int | float | str | None) or (is_dataclass(value) and not isinstance(value, type)):
        return value
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return id(value)
