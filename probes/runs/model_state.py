"""Notices that the model of a run changes while the run goes on.

A run states the fingerprint of its weights, which takes seconds for a large model. Another thread may go on training
the model, a mapped checkpoint may be overwritten, and a Dask worker may hold other weights than the caller. A cheaper
check sees this after every part: a sum over the bits of every tensor, at the speed of the memory, and torch's counters
of changes in place.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dpt import DPT
from dpt.fingerprint import fingerprint as weights_fingerprint

from ..edit import active as active_edits
from .errors import ModelChangedError

_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_State = tuple[bool, list[tuple[str, int]], dict[str, tuple[object, ...]], dict[str, Tensor]]


class ModelState:
    """Weights and edits of a model at one moment.

    Args:
        model: The model.
    """

    def __init__(self, model: DPT):
        self._model = model
        self._before = _state(model)

    def check(self) -> None:
        """Checks that the model is what it was.

        Raises:
            ModelChangedError: Weights, edits or the training mode have changed, or were changed and changed back.
        """
        now = _state(self._model)
        if now[:3] == self._before[:3]:
            return
        changed = [name for name, about in now[2].items() if self._before[2].get(name) != about]
        what = f"{len(changed)} tensors, e.g. {changed[0]}" if changed else "its edits, modules or training mode"
        raise ModelChangedError(
            f"the model changed during the run ({what}). What it computed since the last committed part is discarded. "
            "Give the run a model of its own, e.g. copy.deepcopy(model), and do not change it until the run ends"
        )


def check_weights(model: DPT, expected: str) -> None:
    """Checks that a model has the weights that a run was started with.

    Args:
        model: The model.
        expected: The fingerprint of the weights.

    Raises:
        ModelChangedError: It has others.
    """
    found = weights_fingerprint(model)
    if found != expected:
        raise ModelChangedError(
            f"the model on this worker has other weights ({found[:12]}) than the run was started with "
            f"({expected[:12]}). Load the model again, and do not change it or its file until the run ends"
        )


def _state(model: DPT) -> _State:
    # The tensors are kept alive, so that no other tensor can take the place of one of them unnoticed.
    tensors = model.state_dict(keep_vars=True)
    about: dict[str, tuple[object, ...]] = {
        name: (tensor.dtype, tuple(tensor.shape), id(tensor), _version(tensor), total)
        for (name, tensor), total in zip(tensors.items(), _sums(list(tensors.values())), strict=True)
    }
    edits = [(name, id(edit)) for name, edit in active_edits(model)]
    return any(module.training for module in model.modules()), edits, about, tensors


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _sums(tensors: list[Tensor]) -> list[int]:
    """A sum over the bits of each tensor. One transfer per device."""
    sums = [_bit_sum(tensor.detach()) for tensor in tensors]
    found = [0] * len(sums)
    for device in {total.device for total in sums}:
        places = [place for place, total in enumerate(sums) if total.device == device]
        for place, value in zip(places, torch.stack([sums[place] for place in places]).tolist(), strict=True):
            found[place] = value
    return found


def _bit_sum(tensor: Tensor) -> Tensor:
    flat = tensor.contiguous().view(-1)
    size = flat.element_size()
    if (flat.numel() * size) % 8 == 0 and (flat.storage_offset() * size) % 8 == 0 and flat.numel():
        return flat.view(torch.int64).sum()  # several times faster than a sum over smaller words
    return flat.view(_WORDS.get(size, torch.uint8)).sum(dtype=torch.int64)
