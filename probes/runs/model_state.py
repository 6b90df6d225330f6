"""Notices that the model of a run changes while the run goes on.

A run states the fingerprint of its weights, which takes seconds for a large model. Another thread may go on training
the model, a mapped checkpoint may be overwritten, and a Dask worker may hold other weights than the caller. A cheaper
check sees this after every part: checksums of every tensor, at the speed of the memory, and torch's counters of changes
in place.
"""

from __future__ import annotations

from torch import Tensor

from dpt import DPT
from dpt.fingerprint import dense_tensors
from dpt.fingerprint import fingerprint as weights_fingerprint
from dpt.kept import Checksums
from dpt.modules import tensors_of

from ..edit import active as active_edits
from .errors import ModelChangedError


class ModelState:
    """Weights and edits of a model at one moment.

    Args:
        model: The model.
    """

    def __init__(self, model: DPT):
        self._model = model
        # The tensors are kept alive, so that no other tensor can take the place of one of them unnoticed.
        self._tensors = list(tensors_of(model))
        self._versions = [_version(tensor) for tensor in self._tensors]
        self._settings = _settings(model)
        # Quantised layers keep their weights outside the model's parameters, but in its state dict.
        weights = dict(dense_tensors(model.state_dict()))
        self._names = list(weights)
        self._weights = Checksums(weights.values())

    def check(self) -> None:
        """Checks that the model is what it was.

        Raises:
            ModelChangedError: Weights, edits or the training mode have changed, or were changed and changed back.
        """
        weights, tensors = dict(dense_tensors(self._model.state_dict())), list(tensors_of(self._model))
        changed: list[str] = []
        if list(weights) == self._names:
            changed = [self._names[place] for place in self._weights.changed(weights.values())]
            known = [(id(tensor), version) for tensor, version in zip(self._tensors, self._versions, strict=True)]
            same = known == [(id(tensor), _version(tensor)) for tensor in tensors]
            if same and not changed and _settings(self._model) == self._settings:
                return
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


def _settings(model: DPT) -> tuple[bool, list[tuple[str, int]]]:
    """Whether any module is in training mode, and the edits that apply."""
    return any(module.training for module in model.modules()), [(name, id(edit)) for name, edit in active_edits(model)]


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version
