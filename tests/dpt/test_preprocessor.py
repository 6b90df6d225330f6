"""preprocessor_config.json beside a checkpoint is obeyed, or its difference is said."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import dpt
from dpt import CheckpointError
from dpt.checkpoints import beit, depth_anything, preprocessor
from tests.models import TINY, to_transformers

MODULES = {"depth-anything": depth_anything, "beit": beit}
USUAL = {
    "image_processor_type": "DPTImageProcessor",
    "do_resize": True,
    "size": {"height": 518, "width": 518},
    "keep_aspect_ratio": True,
    "ensure_multiple_of": 14,
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 0.00392156862745098,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "do_pad": False,
    "size_divisor": None,
}
SQUARE = {"size": {"height": 84, "width": 84}, "keep_aspect_ratio": False}
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}


def folder_of(family: str, folder, fields: object):
    """A tiny model in the layout of transformers, with a preprocessor_config.json."""
    model = TINY[family]()
    module = MODULES[family]
    keys = module.key_map(model.config)
    state = to_transformers({keys[key]: t for key, t in model.state_dict().items()}, family)
    folder.mkdir(exist_ok=True)
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    text = fields if isinstance(fields, str) else json.dumps(fields)
    (folder / "preprocessor_config.json").write_text(text)
    return folder


def load(folder, family="depth-anything"):
    """The model and what was said about its input."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = dpt.load(folder, **({"version": 2} if family == "depth-anything" else {}))
    return model, [str(warning.message) for warning in caught]


def test_the_usual_file_changes_nothing_and_warns_of_nothing(tmp_path):
    model, said = load(folder_of("depth-anything", tmp_path, USUAL))
    assert model.config.preprocess == TINY["depth-anything"]().config.preprocess
    assert said == []


# what: (fields, height and width of the image, of the input, value of the input for white)
OBEYED = {
    "one size": (USUAL | SQUARE, (40, 60), (84, 84), (1 - 0.485) / 0.229),
    "a larger base": (USUAL | {"size": {"height": 700, "width": 700}}, (700, 700), (700, 700), (1 - 0.485) / 0.229),
    "one number": (USUAL | {"size": 84}, (84, 168), (84, 168), (1 - 0.485) / 0.229),
    "mean and deviation": (USUAL | HALF, (518, 518), (518, 518), 1.0),
    "one number for all channels": (USUAL | {"image_mean": 0.5, "image_std": 0.25}, (518, 518), (518, 518), 2.0),
    "not normalised": (USUAL | {"do_normalize": False}, (518, 518), (518, 518), 1.0),
    "another factor": (
        USUAL | {"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3},
        (518, 518),
        (518, 518),
        1.0,
    ),
    "not rescaled": (
        USUAL | {"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [127.5] * 3},
        (518, 518),
        (518, 518),
        1.0,
    ),
    "neither": (USUAL | {"do_rescale": False, "do_normalize": False}, (518, 518), (518, 518), 255.0),
    "a coarser grid": (USUAL | {"ensure_multiple_of": 28, "size": 504}, (504, 700), (504, 700), (1 - 0.485) / 0.229),
    "any multiple, one size": (USUAL | SQUARE | {"ensure_multiple_of": 1}, (30, 70), (84, 84), (1 - 0.485) / 0.229),
    "some fields": (HALF, (518, 518), (518, 518), 1.0),
}


@pytest.mark.parametrize("what", OBEYED)
def test_what_preprocess_can_express_is_obeyed(what, tmp_path):
    fields, image, size, white = OBEYED[what]
    model, said = load(folder_of("depth-anything", tmp_path, fields))
    x = model.prepare(np.full((*image, 3), 255, np.uint8))
    assert tuple(x.shape[2:]) == size
    assert x[0, 0].max().item() == pytest.approx(white, rel=1e-5)
    assert said == []
    notes = [str(note) for note in dpt.inspect(tmp_path, version=2).notes if note.fact == "preprocess"]
    assert any("preprocessor_config.json" in note for note in notes)


@pytest.mark.parametrize(
    ("changes", "value"),
    [
        ({"resample": 2}, "bilinear"),
        ({"resample": 0}, "nearest"),
        ({"do_resize": False}, "do_resize false"),
        ({"do_pad": True, "size_divisor": 32}, "do_pad true"),
        ({"do_center_crop": True}, "do_center_crop true"),
        ({"ensure_multiple_of": 1}, "ensure_multiple_of 1"),
        ({"ensure_multiple_of": 16}, "ensure_multiple_of 16"),
        ({"size": {"height": 518, "width": 784}}, "518 x 784"),
        ({"size": {"shortest_edge": 518}}, "shortest_edge"),
        ({"size": 510}, "510"),
        ({"ensure_multiple_of": 28}, "518"),
        ({"image_processor_type": "ZoeDepthImageProcessor"}, "ZoeDepthImageProcessor"),
        ({"image_processor_type": "BitImageProcessor"}, "BitImageProcessor"),
    ],
)
def test_what_it_cannot_express_is_said(changes, value, tmp_path):
    model, said = load(folder_of("depth-anything", tmp_path, USUAL | changes))
    (warning,) = said
    assert value in warning
    assert "preprocessor_config.json" in warning
    assert model.predict(np.zeros((42, 42, 3), np.uint8), size=42).shape == (42, 42)


def test_beit_obeys_it(tmp_path):
    fields = HALF | {"size": {"height": 96, "width": 96}, "keep_aspect_ratio": False, "ensure_multiple_of": 32}
    model, said = load(folder_of("beit", tmp_path, fields), "beit")
    preprocess = model.config.preprocess
    assert (preprocess.base, preprocess.keep_aspect) == (96, False)
    assert preprocess.restore == TINY["beit"]().config.preprocess.restore
    assert model.prepare(np.zeros((50, 70, 3), np.uint8)).shape[2:] == (96, 96)
    assert said == []


def test_the_size_of_swinv2_is_fixed():
    """Its windows depend on the base."""
    config = TINY["swinv2"]().config
    found, notes = preprocessor.apply("it", {"size": 128, "keep_aspect_ratio": True}, config)
    assert found.preprocess.base == config.preprocess.base
    assert found.preprocess.keep_aspect
    assert any(note.assumed and "128" in str(note) for note in notes)


@pytest.mark.parametrize(
    "fields",
    [
        {"image_mean": [0.5, 0.5]},
        {"image_mean": ["a", "b", "c"]},
        {"image_mean": [float("nan")] * 3},
        {"image_std": [0.5, 0.0, 0.5]},
        {"image_std": -1},
        {"size": "518"},
        {"size": 0},
        {"size": {"height": 518.5, "width": 518.5}},
        {"size": 10**9},
        {"rescale_factor": 0},
        {"ensure_multiple_of": 0},
        {"ensure_multiple_of": True},
        {"keep_aspect_ratio": "yes"},
        {"do_resize": 1},
        "[1]",
        "{",
    ],
)
def test_a_file_that_cannot_be_used_is_refused(fields, tmp_path):
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json"):
        load(folder_of("depth-anything", tmp_path, USUAL | fields if isinstance(fields, dict) else fields))


def test_the_input_is_saved_with_the_model(tmp_path):
    model, _ = load(folder_of("depth-anything", tmp_path / "a", USUAL | SQUARE | HALF))
    dpt.save(model, tmp_path / "saved.safetensors")
    assert dpt.load(tmp_path / "saved.safetensors").config == model.config


def test_the_file_of_another_model_in_the_folder_is_not_read(tmp_path):
    """A folder of several models in the original layout says nothing about each of them."""
    model = TINY["depth-anything"]()
    state = depth_anything.to_original(model.state_dict(), model.config)
    save_file(state, tmp_path / "depth_anything_v2_tiny.safetensors")
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(USUAL | HALF))
    assert dpt.load(tmp_path / "depth_anything_v2_tiny.safetensors").config.preprocess.mean[0] == 0.485
    assert load(tmp_path)[0].config.preprocess.mean == (0.5, 0.5, 0.5)


def test_the_depth_of_an_input_is_the_same(tmp_path):
    model, _ = load(folder_of("depth-anything", tmp_path, USUAL | SQUARE | HALF))
    x = torch.randn(1, 3, 42, 56, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model(x), TINY["depth-anything"]()(x))


@pytest.mark.parametrize("change", [{"image_mean": [10**400] * 3}, {"image_std": 10**400}, {"rescale_factor": 10**400}])
def test_numbers_beyond_floats_are_named(change, tmp_path):
    folder = folder_of("depth-anything", tmp_path, USUAL | change)
    with pytest.raises(CheckpointError, match=f"preprocessor_config.json .*states {next(iter(change))}"):
        dpt.load(folder, version=2)
