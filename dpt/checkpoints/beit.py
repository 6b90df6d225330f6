"""MiDaS v3.1 BEiT checkpoints in the original layout: keys pretrained.model.* (from timm) and scratch.*."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from ..beit import BeitConfig, beit
from .errors import CheckpointError
from .keys import Given, decoder, decoder_unused, numbered, refuse_depth_anything_facts, with_bias
from .notes import Note

TITLE = "MiDaS BEiT"
CLASSES = 1000  # outputs of the ImageNet classifier, which the files still contain


class Sizes(NamedTuple):
    """The sizes that identify a released model."""

    width: int
    depth: int
    table_side: int  # patches along a side of the grid that the position tables were made for


VARIANTS = {
    Sizes(768, 12, 24): "base_384",
    Sizes(1024, 24, 24): "large_384",
    Sizes(1024, 24, 32): "large_512",
}

BLOCK = "pretrained.model.blocks.{i}"
LAYERS = (
    ("patch_embed.projection", "pretrained.model.patch_embed.proj"),
    ("encoder.blocks.{i}.norm1", f"{BLOCK}.norm1"),
    ("encoder.blocks.{i}.attention.projection", f"{BLOCK}.attn.proj"),
    ("encoder.blocks.{i}.norm2", f"{BLOCK}.norm2"),
    ("encoder.blocks.{i}.mlp.fc1", f"{BLOCK}.mlp.fc1"),
    ("encoder.blocks.{i}.mlp.fc2", f"{BLOCK}.mlp.fc2"),
    ("reassembly.readouts.{s}.project", "pretrained.act_postprocess{t}.0.project.0"),
    ("reassembly.projects.{s}", "pretrained.act_postprocess{t}.3"),
)
TENSORS = (
    ("encoder.class_token", "pretrained.model.cls_token"),
    ("encoder.blocks.{i}.scale1", f"{BLOCK}.gamma_1"),
    ("encoder.blocks.{i}.scale2", f"{BLOCK}.gamma_2"),
    ("encoder.blocks.{i}.attention.qkv.weight", f"{BLOCK}.attn.qkv.weight"),
    ("encoder.blocks.{i}.attention.q_bias", f"{BLOCK}.attn.q_bias"),
    ("encoder.blocks.{i}.attention.v_bias", f"{BLOCK}.attn.v_bias"),
    ("encoder.blocks.{i}.attention.positions.table", f"{BLOCK}.attn.relative_position_bias_table"),
)


def recognises(state: Mapping[str, Tensor]) -> bool:
    """Whether these keys, complete or not, look like those of MiDaS BEiT."""
    return any(key.startswith("pretrained.model.blocks.") for key in state)


def configure(given: Given, hint: str, version: int | None, max_depth: float | None) -> tuple[BeitConfig, list[Note]]:
    """The configuration, which the tensors determine completely, and no notes."""
    name, state = given.name, given.tensors
    refuse_depth_anything_facts(name, TITLE, version, max_depth)
    width = given.shape_of(TITLE, "pretrained.model.cls_token", 3)[2]
    blocks = {int(m[1]) for key in state if (m := re.match(r"pretrained\.model\.blocks\.(\d+)\.", key))}
    depth = max(blocks, default=-1) + 1
    table = "pretrained.model.blocks.0.attn.relative_position_bias_table"
    rows = given.shape_of(TITLE, table, 2)[0]
    side = (math.isqrt(max(rows - 3, 0)) + 1) // 2
    if (2 * side - 1) ** 2 + 3 != rows:
        raise CheckpointError(
            f"{name} looks like {TITLE}, but {given.spelling(table)} has {rows} rows, expected (2 g - 1)^2 + 3 for a "
            "grid of g x g patches"
        )
    try:
        config = beit(
            variant=VARIANTS.get(Sizes(width, depth, side), f"{width}x{depth}_{16 * side}"),
            width=width,
            depth=depth,
            table_side=side,
            reassembly_channels=[
                given.shape_of(TITLE, f"pretrained.act_postprocess{t}.3.weight", 4)[0] for t in range(1, 5)
            ],
            fusion_channels=given.shape_of(TITLE, "scratch.layer1_rn.weight", 4)[0],
            hidden=given.shape_of(TITLE, "pretrained.model.blocks.0.mlp.fc1.weight", 2)[0],
        )
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{name} looks like {TITLE}, but {error}") from error
    return config, []


def key_map(config: BeitConfig) -> dict[str, str]:
    """Our key -> the checkpoint's key, for every tensor of the model."""
    # The third map keeps its size; only the other three have a layer with weights.
    resize = [(f"reassembly.resize.{s}", f"pretrained.act_postprocess{s + 1}.4") for s in (0, 1, 3)]
    pairs = [*with_bias([*LAYERS, *resize]), *TENSORS]
    return numbered(pairs, config.depth) | decoder("scratch", ("output_conv.0", "output_conv.2", "output_conv.4"))


def unused(config: BeitConfig) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of tensors that checkpoints may contain and the forward pass never reads."""
    tokens = config.table_side**2 + 1
    return (
        {f"{BLOCK.format(i=i)}.attn.relative_position_index": (tokens, tokens) for i in range(config.depth)}
        | {f"pretrained.model.fc_norm.{kind}": (config.width,) for kind in ("weight", "bias")}
        | {"pretrained.model.head.weight": (CLASSES, config.width), "pretrained.model.head.bias": (CLASSES,)}
        | decoder_unused("scratch", config.fusion_channels)
    )
