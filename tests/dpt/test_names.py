"""Models know what they are called, and which of them is the demo model."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

import dpt
from dpt import demo
from dpt.beit import beit
from dpt.depth_anything import depth_anything
from dpt.swinv2 import swinv2
from tests.models import TINY, tiny_config, tiny_model

HOSTILE = 'it\'s "quoted"\\ \n\u202e\u2028\udc80'


def sized(make, **sizes):
    return make(variant="any", reassembly_channels=(8, 16, 24, 32), fusion_channels=16, **sizes).title


def swin(width, depths):
    return swinv2(variant="any", width=width, depths=depths, window=8, base=256).title


def test_titles_name_family_and_size_of_every_model():
    assert sized(depth_anything, width=384, depth=12) == "Depth-Anything V2 ViT-S"
    assert sized(depth_anything, width=1024, depth=24, version=1) == "Depth-Anything V1 ViT-L"
    assert sized(depth_anything, width=768, depth=12, max_depth=20.0) == "Depth-Anything V2 ViT-B, metric up to 20 m"
    assert sized(depth_anything, width=128, depth=4) == "Depth-Anything V2 ViT (width 128, 4 blocks)"
    assert sized(beit, width=1024, depth=24, table_side=32) == "MiDaS BEiT-L 512"
    assert sized(beit, width=128, depth=4, table_side=5) == "MiDaS BEiT 80 (width 128, 4 blocks)"
    assert swin(96, (2, 2, 6, 2)) == "MiDaS SwinV2-T 256"
    assert swin(32, (2, 2, 2, 1)) == "MiDaS SwinV2 256 (width 32, 7 blocks)"


@pytest.mark.parametrize("family", TINY)
def test_the_title_ends_with_the_name_and_repr_begins_with_the_title(family):
    model = TINY[family]()
    assert model.name == ""
    assert model.title == model.config.title
    model.name = "my garden"
    assert model.title == f"{model.config.title}, my garden"
    assert repr(model).startswith(f"{model.title}\n{type(model).__name__}(\n  (patch_embed): PatchEmbed(")


def test_a_hostile_name_is_kept_and_shown_on_one_line():
    model = tiny_model()
    model.name = HOSTILE
    assert model.name == HOSTILE
    assert len(model.title.splitlines()) == 1
    model.title.encode()  # no surrogates
    assert "\u202e" not in model.title


@pytest.mark.parametrize("wrong", [None, 3, b"name", ("a",)])
def test_a_name_must_be_a_string(wrong):
    model = tiny_model()
    with pytest.raises(dpt.DPTError, match="string"):
        model.name = wrong
    assert model.name == ""


@pytest.mark.parametrize("name", ["my garden", HOSTILE])
def test_the_name_survives_copies_conversions_and_files(name, tmp_path):
    model = tiny_model()
    model.name = name
    dpt.save(model, tmp_path / "other.safetensors")
    for again in (
        copy.copy(model),
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        model.to(torch.float64),
        dpt.load(tmp_path / "other.safetensors"),
    ):
        assert again.name == name


def test_a_model_pickled_before_names_has_none():
    model = tiny_model()
    state = {key: value for key, value in vars(model).items() if key != "_name"}
    old = dpt.DPT.__new__(dpt.DPT)
    old.__setstate__(state)
    assert old.name == ""
    assert old.title == model.config.title


def test_a_file_gives_its_name_or_that_of_its_folder(tmp_path):
    for place, name in [
        ("street.v2.safetensors", "street.v2"),
        ("garden/model.safetensors", "garden"),
        ("models--some--thing/snapshots/0a1b/model.safetensors", "some/thing"),
    ]:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        dpt.save(tiny_model(), tmp_path / place)
        assert dpt.load(tmp_path / place).name == name
    assert dpt.load(tmp_path / "garden").name == "garden"


def test_a_file_in_weights_is_called_as_the_zoo_calls_it(tmp_path, monkeypatch):
    monkeypatch.setenv("DPT_WEIGHTS", str(tmp_path))
    dpt.save(tiny_model(), tmp_path / "depth_anything_v2_vits.safetensors")
    assert dpt.load("depth-anything-v2-small").name == "depth-anything-v2-small"


@pytest.mark.parametrize("stored", ["{", "3", "[" * 100_000])
def test_a_damaged_name_in_a_file_is_ignored(stored, tmp_path):
    from safetensors.torch import load_file, save_file

    path = tmp_path / "garden.safetensors"
    dpt.save(tiny_model(), path)
    with dpt.checkpoints.files.read(path) as contents:
        metadata = dict(contents.metadata)
    save_file(load_file(path), path, {**metadata, "name": stored})
    assert dpt.load(path).name == "garden"


@pytest.fixture(scope="module")
def the_demo():
    return dpt.load("demo")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_demo_model_is_known_by_its_weights(dtype, the_demo):
    assert the_demo.name == "demo"
    renamed = copy.deepcopy(the_demo).to(dtype)
    renamed.name = "mine"
    assert demo.is_demo(renamed)


def test_another_model_called_demo_is_not_the_demo(the_demo, tmp_path):
    impostor = tiny_model()
    impostor.name = "demo"
    assert not demo.is_demo(impostor)
    sized_alike = dpt.DPT(the_demo.config)
    sized_alike.name = "demo"
    assert not demo.is_demo(sized_alike)


def test_the_demo_model_trained_further_is_not_the_demo_and_loads_under_its_files_name(the_demo, tmp_path):
    dpt.save(the_demo, tmp_path / "same.safetensors")
    assert dpt.load(tmp_path / "same.safetensors").name == "demo"
    tuned = copy.deepcopy(the_demo)
    with torch.no_grad():
        tuned.head.conv3.bias += 1
    assert not demo.is_demo(tuned)
    dpt.save(tuned, tmp_path / "garden.safetensors")
    again = dpt.load(tmp_path / "garden.safetensors")
    assert again.name == "garden"
    assert not demo.is_demo(again)


def test_weights_that_cannot_be_compared_count_by_the_name(the_demo):
    offloaded = copy.deepcopy(the_demo).to("meta")
    assert demo.is_demo(offloaded)
    offloaded.name = "garden"
    assert not demo.is_demo(offloaded)


def test_a_tiny_configuration_needs_no_released_size():
    assert dpt.DPT(tiny_config()).title == "Depth-Anything V2 ViT (width 128, 4 blocks)"
