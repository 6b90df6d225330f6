"""MiDaS v3.1 BEiT checkpoints in the layout of the original repository: pretrained.model.* (timm) and scratch.*."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from ..beit import BeitConfig, beit
from .files import CheckpointError
from .keys import decoder, decoder_unused, numbered, refuse_depth_anything_facts, shape_of, with_bias

TITLE = "MiDaS BEiT"
CLASSES = 1000  # of the ImageNet head that the files still carry


class Sizes(NamedTuple):
    width: int
    depth: int
    table_side: int


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
    """Whether these look like MiDaS BEiT's keys, complete or not."""
    return any(key.startswith("pretrained.model.blocks.") for key in state)


def configure(
    name: str, state: Mapping[str, Tensor], hint: str, version: int | None, max_depth: float | None
) -> tuple[BeitConfig, list[str]]:
    """The configuration; the tensors tell everything."""
    refuse_depth_anything_facts(name, TITLE, version, max_depth)
    width = shape_of(name, TITLE, state, "pretrained.model.cls_token", 3)[2]
    blocks = {int(m[1]) for key in state if (m := re.match(r"pretrained\.model\.blocks\.(\d+)\.", key))}
    depth = max(blocks, default=-1) + 1
    table = "pretrained.model.blocks.0.attn.relative_position_bias_table"
    rows = shape_of(name, TITLE, state, table, 2)[0]
    side = (math.isqrt(max(rows - 3, 0)) + 1) // 2
    if (2 * side - 1) ** 2 + 3 != rows:
        raise CheckpointError(
            f"{name} looks like {TITLE}, but {table} has {rows} rows; expected (2 g - 1)^2 + 3 for a grid of g x g"
        )
    try:
        config = beit(
            variant=VARIANTS.get(Sizes(width, depth, side), f"{width}x{depth}_{16 * side}"),
            width=width,
            depth=depth,
            table_side=side,
            reassembly_channels=[
                shape_of(name, TITLE, state, f"pretrained.act_postprocess{t}.3.weight", 4)[0] for t in range(1, 5)
            ],
            fusion_channels=shape_of(name, TITLE, state, "scratch.layer1_rn.weight", 4)[0],
            hidden=shape_of(name, TITLE, state, "pretrained.model.blocks.0.mlp.fc1.weight", 2)[0],
        )
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{name} looks like {TITLE}, but {error}") from error
    return config, []


def key_map(config: BeitConfig) -> dict[str, str]:
    """Our key -> the checkpoint's, for every tensor of the model."""
    # The two resampling layers and the convolution have weights; the third map is left at its size.
    resize = [(f"reassembly.resize.{s}", f"pretrained.act_postprocess{s + 1}.4") for s in (0, 1, 3)]
    pairs = [*with_bias([*LAYERS, *resize]), *TENSORS]
    return numbered(pairs, config.depth) | decoder("scratch", ("output_conv.0", "output_conv.2", "output_conv.4"))


def unused(config: BeitConfig) -> dict[str, tuple[int, ...]]:
    """Tensors that checkpoints carry and the forward pass never reads, with their shapes."""
    tokens = config.table_side**2 + 1
    return (
        {f"{BLOCK.format(i=i)}.attn.relative_position_index": (tokens, tokens) for i in range(config.depth)}
        | {f"pretrained.model.fc_norm.{kind}": (config.width,) for kind in ("weight", "bias")}
        | {"pretrained.model.head.weight": (CLASSES, config.width), "pretrained.model.head.bias": (CLASSES,)}
        | decoder_unused("scratch", config.fusion_channels)
    )
