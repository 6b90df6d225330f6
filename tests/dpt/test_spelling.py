"""The same tensors under the names of other programs give the same model, and messages use those names."""

from __future__ import annotations

import re
import warnings

import pytest
import torch
from safetensors.torch import save_file

import dpt
from dpt import CheckpointError
from dpt.checkpoints import beit, depth_anything, spelling
from tests.models import OBLONG, pictures, tiny_beit, tiny_model, to_transformers

LAYER = r"backbone\.encoder\.layer\.(\d+)\."
# What the modules of transformers 5 are called in memory: (in a file, in memory).
IN_MEMORY = {
    "depth-anything": [
        (LAYER + r"attention\.attention\.query\.", r"backbone.encoder.layer.\1.attention.q_proj."),
        (LAYER + r"attention\.attention\.key\.", r"backbone.encoder.layer.\1.attention.k_proj."),
        (LAYER + r"attention\.attention\.value\.", r"backbone.encoder.layer.\1.attention.v_proj."),
        (LAYER + r"attention\.output\.dense\.", r"backbone.encoder.layer.\1.attention.o_proj."),
        (LAYER + r"mlp\.weights_out\.", r"backbone.encoder.layer.\1.mlp.down_proj."),
    ],
    "beit": [
        (LAYER + r"attention\.attention\.relative_position_bias\.", r"backbone.beit.layers.\1.relative_position_bias."),
        (LAYER + r"attention\.attention\.query\.", r"backbone.beit.layers.\1.attention.q_proj."),
        (LAYER + r"attention\.attention\.key\.", r"backbone.beit.layers.\1.attention.k_proj."),
        (LAYER + r"attention\.attention\.value\.", r"backbone.beit.layers.\1.attention.v_proj."),
        (LAYER + r"attention\.output\.dense\.", r"backbone.beit.layers.\1.attention.o_proj."),
        (LAYER + r"intermediate\.dense\.", r"backbone.beit.layers.\1.mlp.fc1."),
        (LAYER + r"output\.dense\.", r"backbone.beit.layers.\1.mlp.fc2."),
        (LAYER, r"backbone.beit.layers.\1."),
        (r"backbone\.embeddings\.", r"backbone.beit.embeddings."),
    ],
}
FAMILIES = {
    "depth-anything": (tiny_model, depth_anything, {"version": 2}),
    "giant": (lambda: tiny_model(swiglu=True, hidden=96), depth_anything, {"version": 2}),
    "beit": (tiny_beit, beit, {}),
}


def in_memory(state: dict, family: str) -> dict:
    found = {}
    for key, tensor in state.items():
        if ".mlp.weights_in." in key:  # one layer in a file, two in memory
            for name, half in zip(("gate_proj", "up_proj"), tensor.chunk(2), strict=True):
                found[key.replace("weights_in", name)] = half
            continue
        for pattern, name in IN_MEMORY[family]:
            key, count = re.subn("^" + pattern, name, key)
            if count:
                break
        found[key] = tensor
    return found


def with_zeros(module, model) -> dict:
    """The original state dict of a model."""
    keys = module.key_map(model.config)
    zeros = {key: torch.zeros(shape) for key, shape in module.unused(model.config).items()}
    return zeros | {keys[key]: tensor for key, tensor in model.state_dict().items()}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("how", ["state dict", "file"])
def test_the_state_dict_of_transformers_5_in_memory_is_loaded(name, how, tmp_path):
    make, module, arguments = FAMILIES[name]
    model = make()
    family = model.config.family
    state = in_memory(to_transformers(with_zeros(module, model), family), family)
    assert any("q_proj" in key for key in state)
    source = state
    if how == "file":
        source = tmp_path / "mine.pth"
        torch.save(state, source)
    again = dpt.load(source, **arguments)
    x = pictures(1, *OBLONG[family])
    assert torch.equal(again(x), model(x))


def test_messages_use_the_names_in_memory():
    model = tiny_model()
    state = in_memory(to_transformers(with_zeros(depth_anything, model), "depth-anything"), "depth-anything")
    dpt.load(state, version=2)  # control
    with pytest.raises(CheckpointError) as caught:
        dpt.load({key: t for key, t in state.items() if "layer.2.attention.k_proj.weight" not in key}, version=2)
    assert caught.value.missing == ("backbone.encoder.layer.2.attention.k_proj.weight",)
    with pytest.raises(CheckpointError) as caught:
        dpt.load({key: t for key, t in state.items() if "layer.2.attention.o_proj" not in key}, version=2)
    assert caught.value.missing == (
        "backbone.encoder.layer.2.attention.o_proj.weight",
        "backbone.encoder.layer.2.attention.o_proj.bias",
    )


def test_two_spellings_of_one_tensor_are_refused():
    model = tiny_model()
    state = to_transformers(with_zeros(depth_anything, model), "depth-anything")
    twice = in_memory(state, "depth-anything")
    with pytest.raises(CheckpointError) as caught:
        dpt.load(state | twice, version=2)
    assert set(caught.value.unexpected) == twice.keys() - state.keys()


DISTILL = {
    "blocks": lambda key: key.replace("pretrained.", "backbone."),
    "blocks in one chunk": lambda key: key.replace("pretrained.blocks.", "backbone.blocks.0.").replace(
        "pretrained.", "backbone."
    ),
}


@pytest.mark.parametrize("how", DISTILL)
def test_the_files_of_distill_any_depth_are_loaded(how, tmp_path):
    model = tiny_model(depth=8)  # versions 1 and 2 tap other blocks
    state = {DISTILL[how](key): t.clone() for key, t in with_zeros(depth_anything, model).items()}
    folder = tmp_path / "small"
    folder.mkdir()
    save_file(state, folder / "model.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = dpt.load(folder)
    x = pictures(1, 42, 56)
    assert torch.equal(again(x), model(x))
    notes = {note.fact: str(note) for note in dpt.inspect(folder).notes}
    assert notes["version"] == "version 2: the keys are those of Distill-Any-Depth"
    lost = next(key for key in state if "norm1.weight" in key)
    with pytest.raises(CheckpointError) as caught:
        dpt.load({key: t for key, t in state.items() if key != lost}, version=2)
    assert caught.value.missing == (lost,)


@pytest.mark.parametrize("per_chunk", [1, 2, 4])
def test_chunks_with_the_numbers_of_the_model_are_loaded(per_chunk):
    model = tiny_model()
    state = {
        re.sub(r"\.blocks\.(\d+)\.", lambda m: f".blocks.{int(m[1]) // per_chunk}.{m[1]}.", key): tensor
        for key, tensor in with_zeros(depth_anything, model).items()
    }
    x = pictures(1, 42, 56)
    assert torch.equal(dpt.load(state, version=2)(x), model(x))


def test_chunks_that_count_from_0_are_named():
    state = {
        re.sub(r"\.blocks\.(\d+)\.", lambda m: f".blocks.{int(m[1]) // 2}.{int(m[1]) % 2}.", key): tensor
        for key, tensor in with_zeros(depth_anything, tiny_model()).items()
    }
    with pytest.raises(CheckpointError, match=r"chunks .*pretrained\.blocks\.1\.0"):
        dpt.load(state, version=2)


def test_the_names_of_distill_any_depth_state_the_version(tmp_path):
    save_file(with_zeros(depth_anything, tiny_model()), tmp_path / "distill_any_depth_vitl.safetensors")
    assert dpt.inspect(tmp_path).config.version == 2


def test_other_keys_keep_their_spelling():
    keys = ["pretrained.blocks.0.norm1.weight", "depth_head.projects.0.weight", "pretrained.blocks.10.attn.qkv.bias"]
    assert spelling.of_original("it", keys).stored == {key: key for key in keys}
    assert spelling.of_original("it", keys).of("pretrained.blocks.3.norm1.weight") == "pretrained.blocks.3.norm1.weight"
