"""Gradient checkpointing: what is repeated is not a pass, and is edited as the pass was."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import probes
from tests.models import OBLONG, TINY, pictures
from tests.probes.test_passes import hooks_of

EDITS = {
    "encoder.blocks.1.heads": probes.scale(0.3, [0]),
    "encoder.blocks.0.tokens": probes.scale(1.5),
    "fusion.1": lambda t: 2 * t,
}


def prepared(family, way, reentrant):
    """(model, function that runs it), with checkpoints around the blocks, the encoder, the model or nothing."""
    model = TINY[family]()
    again = partial(checkpoint, use_reentrant=reentrant)
    if way == "blocks":
        for block in model.encoder.blocks:
            block.forward = partial(again, block.forward)
    elif way == "nested":
        for block in model.encoder.blocks:
            block.forward = partial(again, block.forward)
        model.encoder.forward = partial(again, model.encoder.forward)
    return model, partial(again, model) if way == "model" else model


def gradient(family, way, reentrant, inside):
    """The gradient of edited and plain passes at two sizes, with a backward pass in or after the block of the edits."""
    model, run = prepared(family, way, reentrant)
    height, width = OBLONG[family]
    x, other = pictures(1, height, width).requires_grad_(), pictures(1, width, height).requires_grad_()
    with probes.capture(model, "heads", "norms", "depth") as cap:
        with probes.edit(model, EDITS):
            edited = run(other)
            loss = run(x).square().mean() + edited.mean()
            held = cap["depth"]
            norms = cap["encoder.blocks.1.norms"].clone()
            if inside:
                loss.backward()
        if not inside:
            loss.backward()
        assert cap["depth"] is held
        assert torch.equal(cap["encoder.blocks.1.norms"], norms)
    assert hooks_of(model) == 0
    (run(x).mean() + run(other).mean()).backward()  # not edited, although its modules were
    return torch.cat([x.grad.flatten(), other.grad.flatten()])


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # torch, of nested reentrant checkpoints
@pytest.mark.parametrize("family", TINY)
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("way", ["blocks", "nested", "model"])
def test_gradients_are_those_of_the_pass_without_checkpoints(family, way, reentrant):
    expected = gradient(family, "", False, True)
    for inside in (True, False):
        got = gradient(family, way, reentrant, inside)
        assert (got - expected).abs().max() < 1e-4 * expected.abs().max(), inside
