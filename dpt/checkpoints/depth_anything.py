"""Depth-Anything checkpoints in the layout of the original repositories: keys pretrained.* and depth_head.*.

Nothing in such a file tells v1 from v2, or a relative model from a metric one; only its name or the user can.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ..depth_anything import DepthAnythingConfig, depth_anything
from .files import CheckpointError
from .keys import decoder, decoder_unused, numbered, shape_of, with_bias

TITLE = "Depth-Anything"


class Sizes(NamedTuple):
    width: int
    depth: int


VARIANTS = {
    Sizes(192, 12): "demo",
    Sizes(384, 12): "vits",
    Sizes(768, 12): "vitb",
    Sizes(1024, 24): "vitl",
    Sizes(1536, 40): "vitg",
}
BASES = {"demo": 280}  # pixels; the demo model was trained on smaller pictures than the released ones, which take 518
RANGES = {"hypersim": 20.0, "vkitti": 80.0}  # metres; the two data sets that the metric v2 models were tuned on

# (our key, the checkpoint's key), as `keys.numbered` reads them; a layer stands for its weight and its bias.
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
    """Whether these look like Depth-Anything's keys, complete or not."""
    return any(key.startswith("pretrained.blocks.") for key in state) and any(
        key.startswith("depth_head.") for key in state
    )


def configure(
    name: str, state: Mapping[str, Tensor], hint: str, version: int | None, max_depth: float | None
) -> tuple[DepthAnythingConfig, list[str]]:
    """The configuration, and one note for each fact that does not come from the tensors.

    hint: what the file or its folder is called, or "demo", or "" for a mapping.
    """
    width = shape_of(name, TITLE, state, "pretrained.cls_token", 3)[2]
    blocks = {int(m[1]) for key in state if (m := re.match(r"pretrained\.blocks\.(\d+)\.", key))}
    depth = max(blocks) + 1
    swiglu = "pretrained.blocks.0.mlp.w12.weight" in state
    hidden_key = "pretrained.blocks.0.mlp.w3.weight" if swiglu else "pretrained.blocks.0.mlp.fc2.weight"
    version, version_note = _version(hint, version)
    max_depth, range_note = _range(name, hint, max_depth)
    variant = VARIANTS.get(Sizes(width, depth), f"vit-{width}x{depth}")
    try:
        config = depth_anything(
            variant=variant,
            width=width,
            depth=depth,
            reassembly_channels=[
                shape_of(name, TITLE, state, f"depth_head.projects.{s}.weight", 4)[0] for s in range(4)
            ],
            fusion_channels=shape_of(name, TITLE, state, "depth_head.scratch.layer1_rn.weight", 4)[0],
            version=version,
            max_depth=max_depth,
            hidden=shape_of(name, TITLE, state, hidden_key, 2)[1],
            swiglu=swiglu,
            base=BASES.get(variant, 518),
        )
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{name} looks like Depth-Anything, but {error}") from error
    return config, [version_note, range_note]


def _version(hint: str, version: int | None) -> tuple[int, str]:
    if version is not None:
        return version, f"version {version}: as given"
    if hint == "demo":
        return 2, "version 2: the demo model's"
    name = hint.lower()
    if re.search(r"depth[-_]?anything", name):
        # Behind the model's name, else anywhere: the originals of version 1 are called depth_anything_vitl14.
        stated = re.search(r"depth[-_]?anything[-_]?v([12])(?!\d)", name) or re.search(
            r"(?<![a-z\d])v([12])(?!\d)", name
        )
        if stated or re.search(r"(?<![a-z])vit", name):
            number = int(stated[1]) if stated else 1
            return number, f"version {number}: from the name {name}"
    return 2, (
        "assumed to be version 2, which neither tensors nor name can tell from version 1; say version=1 or version=2 "
        "to be sure (and max_depth=... if it is a metric model)"
    )


def _range(name: str, hint: str, max_depth: float | None) -> tuple[float | None, str]:
    if max_depth is not None:
        return max_depth, f"metric, up to {max_depth:g} m: as given"
    if hint == "demo":
        return None, "relative: the demo model is"
    title = hint.lower()
    for dataset, metres in RANGES.items():
        if _says(title, dataset):
            return metres, f"metric, up to {metres:g} m: from the name {title}"
    if _says(title, "metric"):
        raise CheckpointError(
            f"{name} is named as a metric model, but not with its range; say max_depth=20.0 (Hypersim, indoor) "
            "or max_depth=80.0 (Virtual KITTI, outdoor), as its source states"
        )
    if re.search(r"depth[-_]?anything", title):
        return None, f"relative: from the name {title}"
    return None, "relative: neither a range nor a name that speaks of one was given"


def _says(name: str, word: str) -> bool:
    """Whether a name has a word, whole: biometric is not metric."""
    return re.search(rf"(?<![a-z]){word}(?![a-z])", name) is not None


def key_map(config: DepthAnythingConfig) -> dict[str, str]:
    """Our key -> the checkpoint's, for every tensor of the model."""
    # The two resampling layers and the convolution have weights; the third map is left at its size.
    resize = [(f"reassembly.resize.{s}", f"depth_head.resize_layers.{s}") for s in (0, 1, 3)]
    pairs = [*with_bias([*LAYERS, *(SWIGLU if config.swiglu else MLP), *resize]), *TENSORS]
    head = ("output_conv1", "output_conv2.0", "output_conv2.2")
    return numbered(pairs, config.depth) | decoder("depth_head.scratch", head)


def unused(config: DepthAnythingConfig) -> dict[str, tuple[int, ...]]:
    """Tensors that checkpoints carry and the forward pass never reads, with their shapes."""
    return {"pretrained.mask_token": (1, config.width)} | decoder_unused("depth_head.scratch", config.fusion_channels)


def to_original(state: Mapping[str, Tensor], config: DepthAnythingConfig) -> dict[str, Tensor]:
    """A model's state dict under the original keys, the unused tensors as zeros, so that the original code loads it."""
    keys = key_map(config)
    like = next(iter(state.values()))
    zeros = {key: torch.zeros(shape, dtype=like.dtype) for key, shape in unused(config).items()}
    return {keys[key]: tensor for key, tensor in state.items()} | zeros
