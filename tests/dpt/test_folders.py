"""In a folder, the weights are found among what training programs leave beside them."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

import dpt
from dpt import CheckpointError
from dpt.checkpoints import depth_anything
from tests.models import pictures, tiny_model, to_transformers

MODEL = tiny_model()
GOOD = depth_anything.to_original(MODEL.state_dict(), MODEL.config)
STATES = ("optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state.pth", "rng_state_0.pth", "training_args.bin")


def trainer_folder(folder, name="model.safetensors"):
    """A checkpoint folder of transformers' Trainer, with files that are never opened."""
    folder.mkdir(parents=True, exist_ok=True)
    state = to_transformers(GOOD, "depth-anything")
    if name.endswith(".safetensors"):
        save_file(state, folder / name, {"format": "pt"})
    else:
        torch.save(state, folder / name)
    for other in STATES:
        (folder / other).write_bytes(b"PK\3\4nothing")
    (folder / "trainer_state.json").write_text(json.dumps({"epoch": 1}))


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "depth.pth", "last.ckpt"])
def test_weights_are_found_beside_the_state_of_the_training(name, tmp_path):
    trainer_folder(tmp_path / "checkpoint-500", name)
    model = dpt.load(tmp_path / "checkpoint-500", version=2)
    x = pictures(1, 42, 56)
    assert torch.equal(model(x), MODEL(x))


def test_the_state_of_a_training_is_not_listed(tmp_path, monkeypatch):
    monkeypatch.setenv("DPT_WEIGHTS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    trainer_folder(tmp_path / "checkpoint-500")
    trainer_folder(tmp_path / "other", "last.ckpt")
    assert {item.name for item in dpt.available(here=True)} == {"checkpoint-500", "last.ckpt"}
    assert dpt.load("checkpoint-500", version=2).config.width == 128


def test_a_folder_of_checkpoints_says_which_to_pass(tmp_path):
    for step in (500, 1000, 90):
        trainer_folder(tmp_path / f"checkpoint-{step}")
    (tmp_path / "logs").mkdir()
    with pytest.raises(CheckpointError) as caught:
        dpt.load(tmp_path)
    message = str(caught.value)
    assert "checkpoint-90, checkpoint-500, checkpoint-1000" in message
    assert str(tmp_path / "checkpoint-1000") in message
    assert "logs" not in message
    trainer_folder(tmp_path)  # the final model beside them
    dpt.load(tmp_path, version=2)


def test_a_folder_without_weights_names_what_it_holds(tmp_path):
    torch.save({"state": {}, "param_groups": []}, tmp_path / "optimizer.pt")
    with pytest.raises(CheckpointError, match="optimizer"):
        dpt.load(tmp_path)
    (tmp_path / "scheduler.pt").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"optimizer\.pt, scheduler\.pt"):
        dpt.load(tmp_path)


def test_a_distributed_checkpoint_is_named(tmp_path):
    (tmp_path / ".metadata").write_bytes(b"x")
    (tmp_path / "__0_0.distcp").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="dcp_to_torch"):
        dpt.load(tmp_path)
