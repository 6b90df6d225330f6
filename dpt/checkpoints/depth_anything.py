"""Depth-Anything checkpoints in the original layout: keys pretrained.* and depth_head.*.

The tensors do not show whether a model is version 1 or 2, or whether it is relative or metric. Only the name of the
file or the caller can say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ..depth_anything import DepthAnythingConfig, depth_anything
from .errors import CheckpointError
from .keys import Given, decoder, decoder_unused, numbered, with_bias
from .notes import Note

TITLE = "Depth-Anything"


class Sizes(NamedTuple):
    """The sizes that identify a released model."""

    width: int
    depth: int


VARIANTS = {
    Sizes(192, 12): "demo",
    Sizes(384, 12): "vits",
    Sizes(768, 12): "vitb",
    Sizes(1024, 24): "vitl",
    Sizes(1536, 40): "vitg",
}
BASES = {"demo": 280}  # base input size in pixels, for variants trained on other images than the released ones (518)
RANGES = {"hypersim": 20.0, "vkitti": 80.0}  # max_depth in metres, by the data set of the metric v2 models

# (our key, the checkpoint's key), patterns for `keys.numbered`. A layer has a weight and a bias.
LAYERS = (
    ("patch_embed.projection", "pretrained.patch_embed.proj"),
    ("encoder.blocks.{i}.norm1", "pretrained.blocks.{i}.norm1"),
    ("encoder.blocks.{i}.attention.qkv", "pretrained.blocks.{i}.attn.qkv"),
    ("encoder.blocks.{i}.attention.projection", "pretrained.blocks.{i}.attn.proj"),
    ("encoder.blocks.{i}.norm2", "pretrained.blocks.{i}.norm2"),
    ("encoder.norm", "pretrained.norm"),
    ("reassembly.projects.{s}", "depth_head.projects.{s}"),
)
MLP = (
    ("encoder.blocks.{i}.mlp.fc1", "pretrained.blocks.{i}.mlp.fc1"),
    ("encoder.blocks.{i}.mlp.fc2", "pretrained.blocks.{i}.mlp.fc2"),
)
SWIGLU = (
    ("encoder.blocks.{i}.mlp.w12", "pretrained.blocks.{i}.mlp.w12"),
    ("encoder.blocks.{i}.mlp.w3", "pretrained.blocks.{i}.mlp.w3"),
)
TENSORS = (
    ("encoder.class_token", "pretrained.cls_token"),
    ("encoder.positions.table", "pretrained.pos_embed"),
    ("encoder.blocks.{i}.scale1", "pretrained.blocks.{i}.ls1.gamma"),
    ("encoder.blocks.{i}.scale2", "pretrained.blocks.{i}.ls2.gamma"),
)


def recognises(state: Mapping[str, Tensor]) -> bool:
    """Whether these keys, complete or not, look like those of Depth-Anything."""
    return any(key.startswith("pretrained.blocks.") for key in state) and any(
        key.startswith("depth_head.") for key in state
    )


def configure(
    given: Given, hint: str, version: int | None, max_depth: float | None
) -> tuple[DepthAnythingConfig, list[Note]]:
    """The configuration, with one note on the version and one on the depth range.

    hint: the name of the file or its folder; "demo" for the demo model; "" for a state dict.
    """
    name, state = given.name, given.tensors
    width = given.shape_of(TITLE, "pretrained.cls_token", 3)[2]
    blocks = {int(m[1]) for key in state if (m := re.match(r"pretrained\.blocks\.(\d+)\.", key))}
    depth = max(blocks) + 1
    swiglu = "pretrained.blocks.0.mlp.w12.weight" in state
    hidden_key = "pretrained.blocks.0.mlp.w3.weight" if swiglu else "pretrained.blocks.0.mlp.fc2.weight"
    version, version_note = _version(hint, version, given.origin)
    max_depth, range_note = _range(name, hint, max_depth)
    variant = VARIANTS.get(Sizes(width, depth), f"vit-{width}x{depth}")
    try:
        config = depth_anything(
            variant=variant,
            width=width,
            depth=depth,
            reassembly_channels=[given.shape_of(TITLE, f"depth_head.projects.{s}.weight", 4)[0] for s in range(4)],
            fusion_channels=given.shape_of(TITLE, "depth_head.scratch.layer1_rn.weight", 4)[0],
            version=version,
            max_depth=max_depth,
            hidden=given.shape_of(TITLE, hidden_key, 2)[1],
            swiglu=swiglu,
            base=BASES.get(variant, 518),
        )
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{name} looks like Depth-Anything, but {error}") from error
    return config, [version_note, range_note]


def _version(hint: str, version: int | None, origin: str) -> tuple[int, Note]:
    if version is not None:
        return version, Note("version", f"version {version}: given by the caller")
    if hint == "demo":
        return 2, Note("version", "version 2: the demo model")
    name = hint.lower()
    if origin:  # its models are trained like those of version 2, and tap the same blocks
        return 2, Note("version", f"version 2: the keys are those of {origin}")
    if re.search(r"distill[-_]?any[-_]?depth", name):
        return 2, Note("version", f"version 2: from the name {name}")
    if re.search(r"depth[-_]?anything", name):
        # Look for "v1" or "v2" after the model's name, then anywhere. Version 1 was released without either, as
        # depth_anything_vitl14.
        stated = re.search(r"depth[-_]?anything[-_]?v([12])(?!\d)", name) or re.search(
            r"(?<![a-z\d])v([12])(?!\d)", name
        )
        if stated or re.search(r"(?<![a-z])vit", name):
            number = int(stated[1]) if stated else 1
            return number, Note("version", f"version {number}: from the name {name}")
    text = (
        "assumed to be version 2, because neither the tensors nor the name say. Pass version=1 or version=2 to be sure "
        "(and max_depth=... for a metric model)"
    )
    return 2, Note("version", text, assumed=True)


def _range(name: str, hint: str, max_depth: float | None) -> tuple[float | None, Note]:
    if max_depth is not None:
        return max_depth, Note("max_depth", f"metric, up to {max_depth:g} m: given by the caller")
    if hint == "demo":
        return None, Note("max_depth", "relative: the demo model")
    title = hint.lower()
    for dataset, metres in RANGES.items():
        if _has_word(title, dataset):
            return metres, Note("max_depth", f"metric, up to {metres:g} m: from the name {title}")
    if _has_word(title, "metric"):
        raise CheckpointError(
            f"The name of {name} says that it is a metric model, but not its range. Pass max_depth=20.0 (Hypersim, "
            "indoor) or max_depth=80.0 (Virtual KITTI, outdoor), whichever its source states"
        )
    if re.search(r"depth[-_]?anything|distill[-_]?any[-_]?depth", title):
        return None, Note("max_depth", f"relative: from the name {title}")
    return None, Note("max_depth", "relative: the default, because neither the caller nor the name gives a range")


def _has_word(name: str, word: str) -> bool:
    """Whether a name contains a whole word: "biometric" does not contain "metric"."""
    return re.search(rf"(?<![a-z]){word}(?![a-z])", name) is not None


def key_map(config: DepthAnythingConfig) -> dict[str, str]:
    """Our key -> the checkpoint's key, for every tensor of the model."""
    # The third map keeps its size; only the other three have a layer with weights.
    resize = [(f"reassembly.resize.{s}", f"depth_head.resize_layers.{s}") for s in (0, 1, 3)]
    pairs = [*with_bias([*LAYERS, *(SWIGLU if config.swiglu else MLP), *resize]), *TENSORS]
    head = ("output_conv1", "output_conv2.0", "output_conv2.2")
    return numbered(pairs, config.depth) | decoder("depth_head.scratch", head)


def unused(config: DepthAnythingConfig) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of tensors that checkpoints may contain and the forward pass never reads."""
    return {"pretrained.mask_token": (1, config.width)} | decoder_unused("depth_head.scratch", config.fusion_channels)


def to_original(state: Mapping[str, Tensor], config: DepthAnythingConfig) -> dict[str, Tensor]:
    """A state dict of ours under the original keys, with zeros for unused tensors that the original code expects."""
    keys = key_map(config)
    like = next(iter(state.values()))
    zeros = {key: torch.zeros(shape, dtype=like.dtype, device="cpu") for key, shape in unused(config).items()}
    return {keys[key]: tensor for key, tensor in state.items()} | zeros
