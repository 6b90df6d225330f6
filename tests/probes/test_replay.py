"""A replay never mixes results of different weights. `test_edit` compares replays with edits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import probes
from dpt import DPT
from probes.errors import InvalidTypeError
from probes.replay import _checked
from tests.models import OBLONG, TINY


@pytest.fixture(params=TINY)
def model(request: pytest.FixtureRequest) -> DPT:
    return TINY[request.param]()


def replay_of(model: DPT) -> probes.FusionReplay:
    size = OBLONG[model.config.family]
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    return probes.FusionReplay(model, image, size, keep_aspect=False)


CHANGES = {
    "patch_embed": lambda model: model.patch_embed.projection.weight.data.mul_(1.5),
    "one element of an encoder block": lambda model: model.encoder.blocks[-1].mlp.fc1.weight.data[0, 0].add_(5),
    "coarsest fusion level": lambda model: model.fusion.blocks[3].unit2.conv1.weight.data.mul_(-1),
    "head": lambda model: model.head.conv2.weight.data.mul_(2),
    "loaded": lambda model: model.load_state_dict(TINY[model.config.family](seed=1).state_dict(), assign=True),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("shrink", [1, 2])
def test_after_a_change_of_weights_a_replay_is_that_of_the_new_weights(model: DPT, change: str, shrink: int):
    replay = replay_of(model)
    before = replay.output({"fusion.2": 0.5}, shrink)
    assert replay.is_current()
    CHANGES[change](model)
    assert not replay.is_current()
    after = replay.output({"fusion.1": -1.0}, shrink)
    assert torch.equal(after, replay_of(model).output({"fusion.1": -1.0}, shrink))
    assert not torch.equal(replay.output({"fusion.2": 0.5}, shrink), before)
    assert replay.is_current()


def test_a_replay_inside_an_edit_does_not_run_the_encoder_on_new_weights(model: DPT):
    replay = replay_of(model)
    model.head.conv2.weight.data.mul_(2)
    with probes.edit(model, {"fusion.0": probes.scale(2.0)}), pytest.raises(probes.ProbeError, match="edit"):
        replay.output()
    assert torch.equal(replay.output(), replay_of(model).output())


def test_autocast_changes_nothing(model: DPT):
    replay = replay_of(model)
    wanted = replay.output({"fusion.1": -1.0})
    with torch.autocast("cpu", torch.bfloat16):
        inside = replay_of(model)
        assert torch.equal(inside.output({"fusion.1": -1.0}), wanted)
        replay.output({"fusion.2": 0.5})
    assert torch.equal(replay.output({"fusion.1": -1.0}), wanted)


def test_writing_to_a_result_changes_no_later_one(model: DPT):
    replay = replay_of(model)
    first = replay.output()
    wanted = first.clone()
    first.zero_()
    assert torch.equal(replay.output(), wanted)


@pytest.mark.parametrize("scales", [0.5, True, [], "fusion.2", torch.tensor(1.0)])
def test_scales_that_are_no_mapping_are_refused(scales: object):
    with pytest.raises(InvalidTypeError, match=r"fusion\.2.*got"):
        _checked(scales)
