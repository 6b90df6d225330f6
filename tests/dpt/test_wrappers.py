"""Weights are found inside the dicts and behind the prefixes of training programs; a choice among several is said."""

from __future__ import annotations

import argparse
import collections
import datetime
import pathlib
import re
import warnings

import numpy as np
import pytest
import torch

import dpt
from dpt import CheckpointError
from dpt.checkpoints import depth_anything
from tests.models import pictures, tiny_model, to_transformers


def original(seed: int) -> dict[str, torch.Tensor]:
    model = tiny_model(seed=seed)
    return depth_anything.to_original(model.state_dict(), model.config)


GOOD, OTHER = original(0), original(5)
IN_TRANSFORMERS = to_transformers(GOOD, "depth-anything")
X = pictures(1, 42, 56)
GOOD_DEPTH, OTHER_DEPTH = tiny_model(seed=0)(X), tiny_model(seed=5)(X)


def prefixed(prefix: str, state: dict | None = None) -> dict:
    return {prefix + key: tensor for key, tensor in (GOOD if state is None else state).items()}


def sources(saved: object, folder):
    """The same object as a file and as a mapping."""
    torch.save(saved, folder / "w.pth")
    return [folder / "w.pth", saved]


def load_quietly(source) -> dpt.DPT:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return dpt.load(source, version=2)


ALONE = {
    "compiled, then DataParallel": prefixed("module._orig_mod."),
    "DataParallel, then compiled": prefixed("_orig_mod.module."),
    "Lightning of both": {"state_dict": prefixed("model._orig_mod.module."), "global_step": 10},
    "net": {"state_dict": prefixed("net."), "hyper_parameters": {"lr": 1e-4}},
    "an own name": prefixed("my_depth."),
    "blocks compiled": {re.sub(r"(blocks\.\d+\.)", r"\1_orig_mod.", key): t for key, t in GOOD.items()},
    "encoder in DataParallel": {key.replace("pretrained.", "pretrained.module."): t for key, t in GOOD.items()},
    "blocks in FSDP": {
        re.sub(r"(blocks\.\d+\.)", r"\1_fsdp_wrapped_module._checkpoint_wrapped_module.", key): t
        for key, t in prefixed("_fsdp_wrapped_module.").items()
    },
    "AveragedModel": {**prefixed("module."), "n_averaged": torch.tensor(5)},
    "AveragedModel, transformers": {**prefixed("module.", IN_TRANSFORMERS), "n_averaged": torch.tensor(5)},
    "EMA alone": {"ema": GOOD, "step": 7},
    "EMA of BasicSR": {"params_ema": GOOD},
    "EMA in an object": {"ema": {"module": GOOD, "updates": 3}},
    "DeepSpeed": {"module": GOOD, "buffer_names": [], "dp_world_size": 1},
    "an optimizer beside": {
        "model": GOOD,
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": []},
    },
    "an epoch among the weights": {**GOOD, "epoch": 3, "arch": "vits", "optimizer": {"state": {}}},
    "deep inside": {"a": {"b": {"model": {"state_dict": prefixed("module.")}}}},
    "the same tensors twice": {"model": GOOD, "state_dict": GOOD},
    "defaultdict": {"model": GOOD, "counts": collections.defaultdict(int, {"a": 1})},
}


@pytest.mark.parametrize("what", ALONE)
def test_one_set_of_weights_is_found_without_a_word(what, tmp_path):
    for source in sources(ALONE[what], tmp_path):
        assert torch.equal(load_quietly(source)(X), GOOD_DEPTH)


BESIDE = {
    "NumPy scalar": np.float64(0.9),
    "NumPy integer": np.int64(3),
    "NumPy array": np.zeros(3),
    "Namespace": argparse.Namespace(lr=1e-4),
    "path": pathlib.PurePosixPath("/data"),
    "time": datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
    "range": range(3),
    "version": torch.__version__,
}


@pytest.mark.parametrize("what", BESIDE)
@pytest.mark.parametrize("zipped", [True, False])
def test_plain_objects_beside_the_weights_are_ignored(what, zipped, tmp_path):
    saved = {"model": GOOD, "epoch": 3, "best": {"d1": BESIDE[what]}, "args": BESIDE[what]}
    torch.save(saved, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    assert torch.equal(load_quietly(tmp_path / "w.pth")(X), GOOD_DEPTH)


# what: (saved object, name of the chosen set, a name of what was left, depth of the chosen set)
SEVERAL = {
    "model and ema": ({"model": GOOD, "ema": prefixed("module.", OTHER)}, "ema > module.*", "model", OTHER_DEPTH),
    "params": ({"params": GOOD, "params_ema": OTHER}, "params_ema", "params", OTHER_DEPTH),
    "state_dict_ema": ({"state_dict_ema": OTHER, "state_dict": GOOD}, "state_dict_ema", "state_dict", OTHER_DEPTH),
    "prefixes": ({**prefixed("model."), **prefixed("ema_model.", OTHER)}, "ema_model.*", "model.*", OTHER_DEPTH),
    "moving average": (
        {"net": GOOD, "moving_average": {"module": OTHER}},
        "moving_average > module",
        "net",
        OTHER_DEPTH,
    ),
    "model first": ({"network": OTHER, "model": GOOD}, "model", "network", GOOD_DEPTH),
    "a teacher": ({"teacher": OTHER, "model": GOOD}, "model", "teacher", GOOD_DEPTH),
    "a loss network": (
        {"state_dict": {**prefixed("model."), "loss_fn.lpips.lin0.weight": torch.zeros(1, 4)}},
        "state_dict > model.*",
        "loss_fn.lpips.lin0.weight",
        GOOD_DEPTH,
    ),
}


@pytest.mark.parametrize("what", SEVERAL)
def test_a_choice_among_several_is_said(what, tmp_path):
    saved, chosen, left, depth = SEVERAL[what]
    for source in sources(saved, tmp_path):
        with pytest.warns(UserWarning, match="took the weights") as caught:
            model = dpt.load(source, version=2)
        assert torch.equal(model(X), depth)
        (said,) = [str(warning.message) for warning in caught]
        assert f"weights of {chosen}" in said
        assert left in said
        (note,) = [note for note in dpt.inspect(source, version=2).notes if note.fact == "weights"]
        assert note.assumed
        assert str(note) in said


@pytest.mark.parametrize(
    ("saved", "named"),
    [
        ({"state_dict": {**prefixed("student."), **prefixed("teacher.", OTHER)}}, ["student.*", "teacher.*"]),
        ({"first": GOOD, "second": OTHER}, ["first", "second"]),
        (
            {**prefixed("stereo.depth."), "stereo.cost.weight": torch.zeros(3, 3)},
            ["stereo.depth.*", "stereo.cost.weight"],
        ),
    ],
)
def test_a_choice_that_only_the_user_can_make_is_refused(saved, named, tmp_path):
    for source in sources(saved, tmp_path):
        with pytest.raises(CheckpointError) as caught:
            dpt.load(source, version=2)
        assert all(name in str(caught.value) for name in named)


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (
            {**prefixed("model."), "model.uncertainty.weight": torch.zeros(3, 3)},
            "do not belong to it: uncertainty.weight",
        ),
        ({key: t for key, t in prefixed("module.").items() if "blocks.2" not in key}, "14 tensors are missing"),
        ({f"module.{k}" if n % 2 else k: t for n, (k, t) in enumerate(GOOD.items())}, "are missing"),
        (dict([*GOOD.items(), (7, torch.zeros(1))]), "key 7"),
        ({**GOOD, "pretrained.cls_token": "text"}, "pretrained.cls_token as a str"),
        ([GOOD], "holds a list"),
        ({"model": None, "epoch": 3}, "'model' is a NoneType"),
    ],
)
def test_incomplete_weights_are_refused_in_every_wrapper(saved, message, tmp_path):
    torch.save(saved, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=message):
        dpt.load(tmp_path / "w.pth", version=2)


class Sharded(torch.Tensor):
    """Stands for the tensors of libraries that quantise or distribute weights."""


def test_tensors_of_other_libraries_are_refused_by_name():
    key = "pretrained.blocks.0.attn.qkv.weight"
    with pytest.raises(CheckpointError, match=r"blocks\.0\.attn\.qkv\.weight as a Sharded"):
        dpt.load({**GOOD, key: GOOD[key].as_subclass(Sharded)}, version=2)


def test_dicts_that_contain_themselves_end():
    endless: dict = {"optimizer": {}}
    endless["model"] = endless
    with pytest.raises(CheckpointError):
        dpt.load(endless)
    wide: dict = {}
    wide.update({str(n): wide for n in range(3000)})
    with pytest.raises(CheckpointError):
        dpt.load(wide)


@pytest.mark.parametrize("shared", [True, False])
def test_thousands_of_sets_are_not_compared(shared, tmp_path):
    """As many prefixes as tensors: comparing each with all keys would take minutes."""
    one = torch.zeros(2)
    state = {
        f"p{n}.{root}.x": one if shared else torch.zeros(2)
        for n in range(4000)
        for root in ("pretrained", "depth_head")
    }
    for source in sources(state, tmp_path):
        with pytest.raises(CheckpointError, match="more than 50 sets of weights"):
            dpt.load(source)


@pytest.mark.parametrize("key", ["a" * 20_000_000, "depth_head." + "." * 20_000_000])
def test_a_key_of_megabytes_is_refused_at_once(key, tmp_path):
    for source in sources({"pretrained.x": torch.zeros(2), key: torch.zeros(2)}, tmp_path):
        with pytest.raises(CheckpointError, match=f"key has {len(key)} characters, expected at most 1000") as caught:
            dpt.load(source)
        assert len(str(caught.value)) < 1000
