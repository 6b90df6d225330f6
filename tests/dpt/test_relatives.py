"""Healthy checkpoints of other models, and other files of a training run, are called what they are."""

from __future__ import annotations

import re
import warnings

import pytest
import torch
from safetensors.torch import save_file

import dpt
from dpt import CheckpointError
from dpt.checkpoints import beit, depth_anything, relatives, swinv2
from tests.models import TINY, tiny_beit, tiny_model, to_transformers
from tests.oracle import load_manifest
from tests.test_house import ROOT

MODEL = tiny_model()
GOOD = depth_anything.to_original(MODEL.state_dict(), MODEL.config)
BLAME = re.compile(r"damaged|get the file again|incomplete|is missing", re.IGNORECASE)


def zeros(*keys: str) -> dict[str, torch.Tensor]:
    return {key: torch.zeros(2, 2) for key in keys}


def renamed(old: str, new: str, state: dict | None = None) -> dict:
    return {key.replace(old, new): tensor for key, tensor in (GOOD if state is None else state).items()}


def under(prefix: str, state: dict) -> dict:
    return {prefix + key: tensor for key, tensor in state.items()}


PLAIN_VIT = zeros(
    "pretrained.model.cls_token",
    "pretrained.model.pos_embed",
    "pretrained.model.patch_embed.proj.weight",
    "pretrained.model.blocks.0.attn.qkv.weight",
    "pretrained.act_postprocess1.0.project.0.weight",
    "scratch.layer1_rn.weight",
)
HF_VIT = zeros(
    "dpt.embeddings.cls_token", "dpt.encoder.layer.0.attention.attention.query.weight", "neck.convs.0.weight"
)
SWIN = zeros(
    "pretrained.model.layers.0.blocks.0.attn.relative_position_bias_table",
    "pretrained.model.layers.0.blocks.0.attn.qkv.weight",
    "scratch.layer1_rn.weight",
)
LORA = zeros("encoder.blocks.0.attn.qkv.lora_A.weight", "encoder.blocks.0.attn.qkv.lora_B.weight")
BASE = renamed("attn.qkv.", "attn.qkv.base_layer.") | zeros(
    "pretrained.blocks.0.attn.qkv.lora_A.default.weight", "pretrained.blocks.0.attn.qkv.lora_B.default.weight"
)
ZOE = under("core.core.", GOOD) | zeros("seed_bin_regressor._net.0.weight", "conditional_log_binomial.mlp.0.weight")

# what: (state dict, a word of its name)
MODELS = {
    "ZoeDepth": (ZOE, "ZoeDepth"),
    "ZoeDepth, compiled": (under("_orig_mod.", ZOE), "ZoeDepth"),
    "ZoeDepth of transformers": (
        to_transformers(GOOD, "depth-anything") | zeros("metric_head.conv2.weight", "relative_head.conv1.weight"),
        "ZoeDepth",
    ),
    "Video-Depth-Anything": (
        renamed("depth_head.", "head.") | zeros("head.motion_modules.0.temporal_transformer.proj_in.weight"),
        "Video-Depth-Anything",
    ),
    "MiDaS 2.1": (zeros("pretrained.layer1.0.weight", "pretrained.layer1.4.0.conv1.weight"), "MiDaS v2"),
    "MiDaS 2.1 small": (zeros("pretrained.layer1.3.0.conv_pw.weight", "scratch.layer1_rn.weight"), "MiDaS v2"),
    "DPT-Large": (PLAIN_VIT, "DPT-Large"),
    "DPT-Large of transformers": (HF_VIT, "DPT-Large"),
    "DPT-Hybrid": (PLAIN_VIT | zeros("pretrained.model.patch_embed.backbone.stem.conv.weight"), "DPT-Hybrid"),
    "DPT-Hybrid of transformers": (
        HF_VIT | zeros("dpt.embeddings.backbone.bit.embedder.convolution.weight"),
        "DPT-Hybrid",
    ),
    "Swin": (SWIN, "Swin v1"),
    "Swin of transformers": (
        zeros(
            "backbone.encoder.layers.0.blocks.0.attention.self.relative_position_bias_table",
            "backbone.encoder.layers.0.blocks.0.attention.self.query.weight",
            "neck.convs.0.weight",
        ),
        "Swin v1",
    ),
    "LeViT": (zeros("pretrained.model.blocks.0.m.qkv.c.weight", "scratch.layer1_rn.weight"), "LeViT"),
    "Next-ViT": (zeros("pretrained.model.stem.0.conv.weight", "pretrained.model.features.0.x"), "Next-ViT"),
    "Depth Anything 3": (
        zeros("model.backbone.pretrained.blocks.0.attn.qkv.weight", "model.head.projects.0.weight"),
        "Depth Anything 3",
    ),
    "Depth Pro": (
        zeros("encoder.patch_encoder.blocks.0.attn.qkv.weight", "encoder.image_encoder.cls_token"),
        "Depth Pro",
    ),
    "Metric3D": (
        zeros("depth_model.encoder.blocks.0.0.attn.qkv.weight", "depth_model.decoder.token2feature.x"),
        "Metric3D",
    ),
    "Metric3D, DataParallel": (zeros("module.depth_model.decoder.token2feature.x"), "Metric3D"),
    "Marigold": (zeros("conv_in.weight", "down_blocks.0.resnets.0.conv1.weight", "mid_block.x"), "Marigold"),
    "Prompt Depth Anything": (
        GOOD | zeros("depth_head.scratch.refinenet1.resConfUnit_depth.0.weight"),
        "Prompt Depth Anything",
    ),
    "registers": (GOOD | zeros("pretrained.register_tokens"), "register"),
    "DINOv2": ({k.removeprefix("pretrained."): t for k, t in GOOD.items() if k.startswith("pre")}, "encoder"),
    "Depth-Anything without its decoder": ({k: t for k, t in GOOD.items() if k.startswith("pre")}, "encoder"),
    "Depth-Anything without its encoder": ({k: t for k, t in GOOD.items() if k.startswith("depth_")}, "decoder"),
    "Dinov2Model": (zeros("encoder.layer.0.layer_scale1.lambda1", "embeddings.cls_token"), "encoder"),
    "ViT": (zeros("blocks.0.attn.qkv.weight", "cls_token", "head.weight"), "encoder"),
    "LoRA": (BASE, "LoRA"),
    "LoRA of peft": (under("base_model.model.", BASE), "LoRA"),
    "LoRA alone": (under("base_model.model.", LORA), "LoRA"),
    "bitsandbytes": (GOOD | zeros("pretrained.blocks.0.attn.qkv.weight.absmax"), "quantised"),
    "GPTQ": (GOOD | zeros("pretrained.blocks.0.attn.qkv.qweight"), "quantised"),
    "FSDP": (zeros("_fsdp_wrapped_module._flat_param"), "FSDP"),
    "pruned": (
        renamed("norm.weight", "norm.weight_orig") | zeros("pretrained.norm.weight_mask"),
        "pruned",
    ),
    "weight norm": (
        renamed("output_conv1.weight", "output_conv1.parametrizations.weight.original1"),
        "weight norm",
    ),
    "weight norm, old": (renamed("output_conv1.weight", "output_conv1.weight_v"), "weight norm"),
}


@pytest.mark.parametrize("what", MODELS)
@pytest.mark.parametrize("wrapped", [False, True])
def test_related_models_are_called_what_they_are(what, wrapped, tmp_path):
    state, name = MODELS[what]
    torch.save({"model": state, "epoch": 3} if wrapped else state, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=name) as caught:
        dpt.load(tmp_path / "w.pth", version=2)
    assert not BLAME.search(str(caught.value))


def quantised_state() -> dict:
    """As quantize_dynamic leaves a state dict: the weight of a layer is packed with its bias."""
    key = "pretrained.blocks.0.attn.qkv"
    state: dict = {k: t for k, t in GOOD.items() if not k.startswith(key)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, but such files exist
        packed = torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(torch.nn.Linear(4, 4)), dtype=torch.qint8)
        return state | {f"{key}{name.removeprefix('0')}": value for name, value in packed.state_dict().items()}


# name of the file: (what it holds, a word of its name)
OTHERS = {
    "optimizer.pt": ({"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}, "optimizer"),
    "scheduler.pt": ({"last_epoch": 3, "_step_count": 4, "base_lrs": [0.1]}, "schedule"),
    "rng_state.pth": ({"python": (3, (1, 2), None), "numpy": ("MT", 3), "cpu": torch.zeros(4)}, "random number"),
    "scaler.pt": ({"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 0}, "scaler"),
    "quantised.pth": (quantised_state(), "quantised"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_of_a_training_run_are_named(name, tmp_path):
    saved, word = OTHERS[name]
    torch.save(saved, tmp_path / name)
    with pytest.raises(CheckpointError, match=word) as caught:
        dpt.load(tmp_path / name, version=2)
    assert not BLAME.search(str(caught.value))


class TrainingArguments:
    """Stands for the class of transformers."""


def test_the_settings_of_trainer_are_named(tmp_path):
    torch.save(TrainingArguments(), tmp_path / "training_args.bin")
    with pytest.raises(CheckpointError, match="settings of a training run"):
        dpt.load(tmp_path / "training_args.bin")


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"\x08\x08\x12\x07pytorch\x1a\x052.1.0", "ONNX"),
        (b"\x08\x0a\x3a\xff\x01", "ONNX"),
        (b"GGUF\x03\0\0\0", "GGUF"),
        (b"ftrt", "TensorRT"),
        (b"\x1c\0\0\0TFL3", "TensorFlow Lite"),
        (b'<?xml version="1.0"?><net name="x">', "OpenVINO"),
        (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
    ],
)
def test_files_of_other_programs_are_named(start, name, tmp_path):
    path = tmp_path / "model.bin"
    path.write_bytes(start + bytes(100))
    with pytest.raises(CheckpointError, match=name) as caught:
        dpt.load(path)
    assert not BLAME.search(str(caught.value))


def test_torchscript_is_named(tmp_path):
    with pytest.warns(DeprecationWarning, match="jit"):
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "script.pt"))
    with pytest.raises(CheckpointError, match="TorchScript") as caught:
        dpt.load(tmp_path / "script.pt")
    assert not BLAME.search(str(caught.value))


def test_no_known_model_is_taken_for_a_relative():
    """The keys of every released checkpoint, and of each with any single tensor lost."""
    for path in sorted((ROOT / "tests" / "data" / "manifests").rglob("*.json")):
        keys = list(load_manifest(path)["tensors"])
        assert relatives.name_of(keys) is None, path.name
        for n in range(0, len(keys), 7):
            assert relatives.name_of(keys[:n] + keys[n + 1 :]) is None, keys[n]


@pytest.mark.parametrize("family", TINY)
def test_our_own_keys_are_no_relative(family, tmp_path):
    assert relatives.name_of(TINY[family]().state_dict()) is None
    save_file(TINY[family]().state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="without its configuration"):
        dpt.load(tmp_path / "w.safetensors")


def test_a_compiled_swinv2_with_its_masks_is_not_pruned():
    assert relatives.name_of(["_orig_mod.pretrained.model.layers.0.blocks.1.attn_mask", "x"]) is None


def test_a_lost_position_table_of_beit_is_still_beit():
    module, model = beit, tiny_beit()
    state = {module.key_map(model.config)[key]: t for key, t in model.state_dict().items()}
    lost = {key: t for key, t in state.items() if "relative_position_bias_table" not in key}
    with pytest.raises(CheckpointError, match=r"MiDaS BEiT, .*relative_position_bias_table"):
        dpt.load(lost)
    assert {beit.TITLE, swinv2.TITLE} == {"MiDaS BEiT", "MiDaS SwinV2"}
