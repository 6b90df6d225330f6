"""MiDaS checkpoints are recognised from their tensors alone, and every tensor is accounted for."""

from __future__ import annotations

import math

import pytest
import torch

import dpt
from dpt import CheckpointError
from dpt.checkpoints import beit, swinv2
from tests import oracle
from tests.models import DATA

# name: family, variant, width, blocks, base input size, taps. Facts about the released models, from their papers and
# repositories, not from the manifests.
FACTS = {
    "beit_base_384": ("beit", "base_384", 768, 12, 384, (2, 5, 8, 11)),
    "beit_large_384": ("beit", "large_384", 1024, 24, 384, (5, 11, 17, 23)),
    "beit_large_512": ("beit", "large_512", 1024, 24, 512, (5, 11, 17, 23)),
    "swin2_tiny_256": ("swinv2", "tiny_256", 96, 12, 256, (1, 3, 9, 11)),
    "swin2_base_384": ("swinv2", "base_384", 128, 24, 384, (1, 3, 21, 23)),
    "swin2_large_384": ("swinv2", "large_384", 192, 24, 384, (1, 3, 21, 23)),
}
WINDOWS = {"tiny_256": (16, None), "base_384": (24, (12, 12, 12, 6)), "large_384": (24, (12, 12, 12, 6))}
MODULES = {"beit": beit, "swinv2": swinv2}


def manifest_of(name: str) -> dict:
    return oracle.load_manifest(DATA / "manifests" / f"{name}.json")


def no_memory(manifest: dict) -> dict[str, torch.Tensor]:
    """One zero, expanded to every shape: a checkpoint of any size without memory."""
    return {key: torch.zeros(()).expand(t["shape"]) for key, t in manifest["tensors"].items()}


@pytest.mark.parametrize("name", FACTS)
def test_manifests_are_recognised_from_tensors_alone_and_complete(name):
    manifest = manifest_of(name)
    family, variant, width, depth, base, taps = FACTS[name]
    found = dpt.inspect(no_memory(manifest))  # strict: raises for any missing or unexpected key
    config = found.config
    assert (config.family, config.variant, config.width, config.depth) == (family, variant, width, depth)
    assert config.preprocess.base == base
    assert tuple(config.stage_block(s) for s in range(4)) == taps
    if isinstance(config, dpt.SwinV2Config):
        assert (config.window, config.pretrained) == WINDOWS[variant]
    assert found.notes == ()
    assert found.parameters == sum(math.prod(t["shape"]) for t in manifest["tensors"].values())


@pytest.mark.parametrize("name", FACTS)
def test_manifests_load_strictly(name):
    manifest = manifest_of(name)
    state = no_memory(manifest)
    model = dpt.load(state)
    module = MODULES[model.config.family]
    assert state.keys() == {*module.key_map(model.config).values(), *module.unused(model.config)}
    counts = [p.numel() for p in model.parameters()]
    counts += [
        math.prod(shape)
        for key, shape in module.unused(model.config).items()
        if not key.endswith(("relative_position_index", "attn_mask"))
    ]
    assert sum(counts) == manifest["parameter_count"]
    for key in (next(iter(state)), list(state)[-1]):
        with pytest.raises(CheckpointError, match=f"{key}.* missing|missing: {key}"):
            dpt.load({k: t for k, t in state.items() if k != key})


@pytest.mark.parametrize("name", ["beit_base_384", "swin2_tiny_256"])
def test_tensors_that_the_forward_pass_never_reads_are_optional(name):
    manifest = manifest_of(name)
    state = no_memory(manifest)
    config = dpt.inspect(state).config
    lean = {key: t for key, t in state.items() if key not in MODULES[config.family].unused(config)}
    assert len(lean) < len(state)
    assert dpt.inspect(lean).config == config


@pytest.mark.parametrize("name", ["beit_base_384", "swin2_tiny_256"])
@pytest.mark.parametrize("argument", [{"version": 2}, {"max_depth": 20.0}])
def test_arguments_for_depth_anything_are_refused(name, argument):
    with pytest.raises(CheckpointError, match=f"MiDaS .*{next(iter(argument))}=.*Depth-Anything"):
        dpt.load(no_memory(manifest_of(name)), **argument)


def test_the_error_names_a_table_that_fits_no_grid():
    state = no_memory(manifest_of("beit_base_384"))
    state["pretrained.model.blocks.0.attn.relative_position_bias_table"] = torch.zeros(2213, 12)
    with pytest.raises(CheckpointError, match=r"relative_position_bias_table .*2213 rows"):
        dpt.load(state)


def test_windows_of_an_unreleased_swin_come_from_its_mask():
    state = no_memory(manifest_of("swin2_tiny_256"))
    lean = {k: t for k, t in state.items() if not k.startswith("pretrained.model.layers.2.blocks.5.")}
    found = dpt.inspect(lean)  # depths 2, 2, 5, 2: not a released model, but the file has masks
    assert isinstance(found.config, dpt.SwinV2Config)
    assert (found.config.window, found.config.preprocess.base, found.config.depths) == (16, 256, (2, 2, 5, 2))
    assert [(note.fact, note.assumed) for note in found.notes] == [("pretrained", True)]
    with pytest.raises(CheckpointError, match=r"96 .*\(2, 2, 5, 2\).*attn_mask"):
        dpt.inspect({k: t for k, t in lean.items() if not k.endswith("attn_mask")})


def test_the_error_shows_a_missing_stage():
    state = no_memory(manifest_of("swin2_tiny_256"))
    with pytest.raises(CheckpointError, match=r"\[2, 2, 0, 2\]"):
        dpt.inspect({k: t for k, t in state.items() if not k.startswith("pretrained.model.layers.2.")})
