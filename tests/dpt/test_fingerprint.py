"""Weights have one fingerprint, and it never changes: stored runs refer to models by it."""

from __future__ import annotations

import pytest
import torch

from dpt.errors import UnavailableError
from dpt.fingerprint import fingerprint, tensor_fingerprint
from tests.models import tiny_model

TENSORS = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor(7, dtype=torch.int64)}
DIGEST = "0e1e833ebdb38a113c3fe0ba4ed63b9b4ab6933241c87f36eaced50605b78f7b"


def test_the_digest_of_known_tensors_is_the_one_that_stored_runs_hold():
    assert fingerprint(TENSORS) == DIGEST
    assert fingerprint(dict(reversed(TENSORS.items()))) == DIGEST


@pytest.mark.parametrize(
    "change",
    [
        {"a": torch.tensor(8)},
        {"a": torch.tensor(7, dtype=torch.int32)},
        {"b": TENSORS["b"].reshape(3, 2)},
        {"c": torch.zeros(0)},
    ],
    ids=["value", "dtype", "shape", "name"],
)
def test_every_difference_changes_the_digest(change):
    assert fingerprint(TENSORS | change) != DIGEST


def test_a_model_counts_with_its_state_dict():
    model = tiny_model()
    before = fingerprint(model)
    assert before == fingerprint(model.state_dict())
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1
    assert fingerprint(model) != before


def test_memory_layout_does_not_matter():
    x = torch.arange(6.0).reshape(2, 3)
    assert tensor_fingerprint(x.t().contiguous().t()) == tensor_fingerprint(x)
    assert tensor_fingerprint(x) != tensor_fingerprint(x.t())


@pytest.mark.filterwarnings("ignore:.*quanti", "ignore::DeprecationWarning")  # PyTorch moves quantisation elsewhere
@pytest.mark.parametrize("dtype", [torch.qint8, torch.float16])
def test_quantised_layers_count(dtype: torch.dtype):
    def quantised(seed: int) -> torch.nn.Module:
        return torch.ao.quantization.quantize_dynamic(tiny_model(seed), {torch.nn.Linear}, dtype)

    assert fingerprint(quantised(0)) == fingerprint(quantised(0))
    assert fingerprint(quantised(0)) != fingerprint(tiny_model(0))
    other = quantised(0)
    other.encoder.blocks[1].mlp.fc1 = quantised(1).encoder.blocks[1].mlp.fc1
    assert fingerprint(other) != fingerprint(quantised(0))


def test_weights_without_data_have_none():
    with pytest.raises(UnavailableError, match=r"class_token|encoder|fusion|head"):
        fingerprint(tiny_model().to("meta"))
