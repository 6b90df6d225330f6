"""Names checkpoints that are healthy, but hold something else than a model of this package.

Depth models share their parts and file names, so users pass related ones. A message that lists missing tensors, or
advises to get the file again, would send them the wrong way. Each kind here is recognised by keys that no model of this
package has. Sources are the projects' own model code and conversion scripts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

LOADED = "dpt loads Depth-Anything v1 and v2, and MiDaS v3.1 BEiT and SwinV2"
MERGE = "Merge it with peft (model = model.merge_and_unload()), and save model.state_dict()"


class Kind(NamedTuple):
    """A kind of checkpoint. A fragment matches inside a key with a dot in front; ^ stands for the start of a key."""

    title: str
    any_of: tuple[str, ...]  # one of these fragments occurs
    all_of: tuple[str, ...] = ()  # all of these occur
    none_of: tuple[str, ...] = ()  # none of these occurs
    advice: str = LOADED

    def matches(self, text: str) -> bool:
        return (
            any(fragment in text for fragment in self.any_of)
            and all(fragment in text for fragment in self.all_of)
            and not any(fragment in text for fragment in self.none_of)
        )


FORMATS = {  # by the first bytes
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"\x89HDF": "an HDF5 file, perhaps from Keras",
    b"\x1f\x8b": "a gzip file",
    b"%PDF": "a PDF document",
    b"\x93NUMPY": "a NumPy array",
    b"GGUF": "a GGUF file",
    b"ftrt": "a TensorRT engine",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"Rar!": "a RAR archive",
    b"\x28\xb5\x2f\xfd": "a Zstandard archive",
    b"<?xml": "an XML document, perhaps a model of OpenVINO",
}
DECODERS = (
    ".depth_head.",
    ".scratch.",
    ".neck.",
    ".head.conv",
    ".head.head.",
    ".head.projects.",
    ".decode_head.",
    ".reassembly.",
    ".fusion.",
)
LORA = (
    ".lora_A.",
    ".lora_B.",
    ".lora_embedding_",
    ".lora_a.",
    ".lora_b.",
    ".lora_down.",
    ".hada_w1",
    ".lokr_w1",
    ".ia3_l",
    ".vera_lambda_",
    ".boft_",
    ".oft_r",
)

# Earlier kinds take precedence.
KINDS = (
    # Weights of any model, in a form that is not loaded
    Kind(
        "a model with an adapter (LoRA) that is not merged into its weights",
        (".base_layer.",),
        advice=f"{MERGE} of the merged model",
    ),
    Kind(
        "an adapter (LoRA) alone, without the weights of the model that it changes",
        LORA,
        advice=f"Load that model with the program that trained the adapter, and the adapter onto it. {MERGE} of the "
        "merged model",
    ),
    Kind(
        "a quantised model",
        ("._packed_params", ".weight.absmax", ".weight.quant_map", ".SCB", ".qweight", ".qzeros", ".weight._data"),
        advice="Load the model as it was before quantisation",
    ),
    Kind(
        "a model whose weights FSDP flattened or split",
        ("_flat_param\n", ".flat_param_", "._flat_param."),
        advice="Save it with the full state dict: torch.distributed.checkpoint.state_dict.get_model_state_dict with "
        "StateDictOptions(full_state_dict=True)",
    ),
    Kind(
        "a pruned model, whose masks are not applied to its weights",
        ("_mask\n",),
        all_of=("_orig\n",),
        advice="Apply them with torch.nn.utils.prune.remove(module, 'weight'), and save model.state_dict() again",
    ),
    Kind(
        "a model with parametrised weights (weight norm and the like)",
        (".parametrizations.", ".weight_g\n", ".weight_v\n"),
        advice="Remove it with torch.nn.utils.parametrize.remove_parametrizations(module, 'weight'), or "
        "torch.nn.utils.remove_weight_norm, and save model.state_dict() again",
    ),
    # Models that contain a DPT
    Kind("a ZoeDepth model", (".conditional_log_binomial.", ".seed_bin_regressor", ".attractors.", ".metric_head.")),
    Kind("a Video-Depth-Anything model", (".motion_modules.",)),
    Kind(
        "a Depth Anything 3 model",
        (".backbone.pretrained.", ".cam_dec.", ".cam_enc.", "^da3.", "^da3_metric.", ".gs_head."),
        none_of=(".backbone.depth_head.", ".backbone.scratch."),
    ),
    Kind("a Prompt Depth Anything model", (".resConfUnit_depth.", ".prompt_depth_layer.")),
    Kind("a Depth Pro model", (".patch_encoder.",), all_of=(".image_encoder.",)),
    Kind(
        "a Metric3D model",
        (".token2feature.", ".depth_model.decoder.", ".depth_model.encoder."),
    ),
    Kind("a UniDepth model", (".pixel_encoder.",), all_of=(".pixel_decoder.",)),
    Kind("a MoGe model", (".points_head.", ".head.upsample_blocks.", ".head.output_block.")),
    Kind(
        "a part of a diffusion model, such as Marigold",
        (".down_blocks.", ".diffusion_model.", ".first_stage_model."),
        all_of=("conv_in.",),
    ),
    Kind("a part of a diffusion model, such as Marigold", (".diffusion_model.",)),
    # MiDaS and DPT
    Kind(
        "MiDaS v2 or v2.1, whose encoder is a convolutional network (ResNeXt or EfficientNet)",
        (".pretrained.layer1.",),
    ),
    Kind(
        "DPT-Hybrid of MiDaS v3.0 (a ViT on a ResNet)",
        (".pretrained.model.patch_embed.backbone.", ".dpt.embeddings.backbone.", ".backbone.bit."),
    ),
    Kind("MiDaS v3.1 LeViT", (".pretrained.model.blocks.0.m.", ".attention_biases", ".scratch.stem_transpose.")),
    Kind(
        "MiDaS v3.1 Next-ViT",
        (".pretrained.model.features.", ".pretrained.model.stem."),
    ),
    Kind(
        "DPT-Large of MiDaS v3.0 (a plain ViT)",
        (".pretrained.model.pos_embed\n", ".dpt.encoder.layer.", ".dpt.embeddings.", ".dpt.layers."),
        none_of=(".relative_position_bias_table", ".gamma_1"),
    ),
    Kind(
        "a model with a Swin encoder of the first version (Swin v1, e.g. dpt_swin_large_384 of MiDaS v3.1), not SwinV2",
        (
            ".pretrained.model.layers.",
            ".backbone.encoder.layers.",
            "^layers.0.blocks.",
            "^encoder.layers.0.blocks.",
            ".swin.",
        ),
        all_of=(".relative_position_bias_table",),
        none_of=(".cpb_mlp.", ".logit_scale", ".continuous_position_bias_mlp."),
    ),
    Kind(
        "a DPT of Meta's on DINOv2 (dpt-dinov2), whose decoder differs from that of Depth-Anything",
        (".neck.reassemble_stage.readout_projects.",),
        all_of=(".layer_scale1.", ".head.head."),
    ),
    Kind("a depth head of Meta's for DINOv2, without the encoder", ("^decode_head.",), none_of=(".blocks.",)),
    Kind("a model for segmentation", (".auxiliary_head.", ".auxlayer.", ".decode_head.conv_seg.")),
    Kind(
        "a Depth-Anything model with register tokens, as no released one has",
        (".pretrained.register_tokens", ".backbone.register_tokens", ".embeddings.register_tokens"),
        all_of=(".depth_head.",),
    ),
    # Parts
    Kind(
        "the encoder of a Depth-Anything model alone (DINOv2), without the decoder that computes depth",
        (".ls1.gamma", ".layer_scale1.lambda1"),
        none_of=DECODERS,
    ),
    Kind(
        "an encoder alone (a vision transformer), without the decoder that computes depth",
        (
            ".attn.qkv.weight",
            ".attention.attention.query.weight",
            ".attention.self.query.weight",
            ".attention.q_proj.weight",
        ),
        none_of=DECODERS,
    ),
    Kind(
        "the decoder of a depth model alone, without its encoder",
        ("^depth_head.", "^scratch.layer1_rn."),
        none_of=(".pretrained.", ".backbone."),
    ),
)


def name_of(keys: Iterable[str]) -> str | None:
    """What a checkpoint with these keys is, with advice, to follow "the file is"; None for anything else."""
    # One text in which the start of each key is found as "^" and as ".".
    text = "".join(f"\n^{key}\n.{key}" for key in keys) + "\n"
    kind = next((kind for kind in KINDS if kind.matches(text)), None)
    return kind and f"{kind.title}. {kind.advice}"


def format_of(start: bytes) -> str:
    """The format of a file with these first bytes, if users pass such files by mistake; "" for others."""
    if start[4:8] == b"TFL3":
        return "a TensorFlow Lite model"
    if re.match(
        rb"\x08[\x01-\x40][\x12\x1a\x22\x3a\x42]", start
    ):  # fields of a protocol buffer: the version comes first
        return "an ONNX model"
    return next((kind for begin, kind in FORMATS.items() if start.startswith(begin)), "")


def name_of_class(name: str) -> str | None:
    """What a file is that needs this class, to follow "the file is"; None for anything else."""
    if name.endswith(".TrainingArguments"):
        return (
            "the settings of a training run (TrainingArguments), without weights of a model. Pass the file with the "
            "weights beside it"
        )
    return None


def name_of_object(saved: Mapping[object, object]) -> str | None:
    """What a saved dict without weights is, to follow "the file is"; None for anything else."""
    keys = saved.keys()
    beside = "Pass the file with the weights beside it"
    if {"state", "param_groups"} <= keys:
        return f"the state of an optimizer, without weights of a model. {beside}"
    if {"last_epoch", "_step_count"} <= keys:
        return f"the state of a learning rate schedule, without weights of a model. {beside}"
    if {"python", "numpy", "cpu"} <= keys:
        return f"the state of random number generators, without weights of a model. {beside}"
    if {"scale", "growth_factor"} <= keys:
        return f"the state of a gradient scaler, without weights of a model. {beside}"
    return None
