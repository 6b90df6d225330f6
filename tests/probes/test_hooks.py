"""Copies of a model carry no hooks of an open block."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch

import probes
from tests.probes.test_passes import hooks_of


def saved(module):
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda module: pickle.loads(pickle.dumps(module)), "torch.save": saved}


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_made_inside_a_block_is_a_plain_model(model, x, how):
    plain = model(x)
    held = model.register_forward_hook(lambda *_: None) if how == "deepcopy" else None
    with probes.capture(model, "*") as cap, probes.edit(model, {"encoder.blocks.1.heads": probes.zero()}):
        edited = model(x)
        student = COPIES[how](model)
        head = COPIES[how](model.reassembly.to_fusion[0])
        assert torch.equal(student(x), plain)
        assert torch.equal(model(x), edited)
    assert torch.equal(cap["depth"], edited)
    student(2 * x)
    assert torch.equal(cap["depth"], edited)
    assert hooks_of(student) == (held is not None)  # the user's own hook is copied
    assert hooks_of(head) == 0
    with probes.edit(student, {"encoder.blocks.1.heads": probes.zero()}):
        assert torch.equal(student(x), edited)


def test_a_shallow_copy_does_not_record_into_the_capture(model, x):
    with probes.capture(model, "depth", "norms") as cap:
        depth = model(x)
        twin = copy.copy(model)
        twin(2 * x)
    assert cap["depth"] is depth
    assert hooks_of(twin) == hooks_of(model) == 0
