"""MiDaS v3.1 SwinV2 checkpoints in the original layout: keys pretrained.model.* (from timm 0.6) and scratch.*.

Only the stored shift mask shows the window size. Files in the transformers layout do not store it, so they can be
loaded only if their sizes are those of a released model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from ..swinv2 import SwinV2Config, swinv2
from .errors import CheckpointError
from .keys import Given, decoder, decoder_unused, numbered, refuse_depth_anything_facts, with_bias
from .notes import Note

TITLE = "MiDaS SwinV2"
CLASSES = 1000  # outputs of the ImageNet classifier, which the files still contain


class Sizes(NamedTuple):
    """The sizes that identify a released model."""

    width: int
    depths: tuple[int, ...]  # blocks per stage


class Known(NamedTuple):
    """The facts about a released model that its tensors do not show."""

    variant: str
    window: int  # patches along a side of a window
    base: int  # pixels along a side of the input
    pretrained: tuple[int, ...] | None  # window sizes of the pretraining per stage; None: the same windows


VARIANTS = {
    Sizes(96, (2, 2, 6, 2)): Known("tiny_256", 16, 256, None),
    Sizes(128, (2, 2, 18, 2)): Known("base_384", 24, 384, (12, 12, 12, 6)),
    Sizes(192, (2, 2, 18, 2)): Known("large_384", 24, 384, (12, 12, 12, 6)),
}

LAYERS = (
    ("norm1", "norm1"),
    ("norm2", "norm2"),
    ("attention.projection", "attn.proj"),
    ("attention.positions.fc1", "attn.cpb_mlp.0"),
    ("mlp.fc1", "mlp.fc1"),
    ("mlp.fc2", "mlp.fc2"),
)
TENSORS = (
    ("attention.qkv.weight", "attn.qkv.weight"),
    ("attention.q_bias", "attn.q_bias"),
    ("attention.v_bias", "attn.v_bias"),
    ("attention.logit_scale", "attn.logit_scale"),
    ("attention.positions.fc2.weight", "attn.cpb_mlp.2.weight"),
)


def recognises(state: Mapping[str, Tensor]) -> bool:
    """Whether these keys, complete or not, look like those of MiDaS SwinV2."""
    return any(key.startswith("pretrained.model.layers.") for key in state)


def configure(given: Given, hint: str, version: int | None, max_depth: float | None) -> tuple[SwinV2Config, list[Note]]:
    """The configuration, with a note if the windows of the pretraining had to be assumed."""
    name, state = given.name, given.tensors
    refuse_depth_anything_facts(name, TITLE, version, max_depth)
    width = given.shape_of(TITLE, "pretrained.model.patch_embed.proj.weight", 4)[0]
    depths = _depths(name, state)
    known = VARIANTS.get(Sizes(width, depths))
    mask = "pretrained.model.layers.0.blocks.1.attn_mask"
    notes: list[Note] = []
    if known is None and mask not in state:
        raise CheckpointError(
            f"{name} looks like {TITLE} of width {width} and depths {depths}. No released model has these sizes, and "
            f"without {given.spelling(mask)} the window size is unknown. Load a file in the original layout"
        )
    if known is None:
        windows, inside, _ = given.shape_of(TITLE, mask, 3)
        window = math.isqrt(inside)
        base = 4 * window * math.isqrt(windows)
        known = Known(f"{width}x{sum(depths)}_{base}", window, base, None)
        text = f"assumed to have been pretrained with windows of {window}, because this is not a released model"
        notes.append(Note("pretrained", text, assumed=True))
    try:
        config = swinv2(
            variant=known.variant,
            width=width,
            depths=depths,
            window=known.window,
            base=known.base,
            pretrained=known.pretrained,
            fusion_channels=given.shape_of(TITLE, "scratch.layer1_rn.weight", 4)[0],
        )
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{name} looks like {TITLE}, but {error}") from error
    return config, notes


def _depths(name: str, state: Mapping[str, Tensor]) -> tuple[int, ...]:
    pattern = re.compile(r"pretrained\.model\.layers\.(\d+)\.blocks\.(\d+)\.")
    places = {(int(m[1]), int(m[2])) for key in state if (m := pattern.match(key))}
    depths = [1 + max((block for stage, block in places if stage == s), default=-1) for s in range(4)]
    if min(depths) == 0 or any(stage > 3 for stage, _ in places):
        raise CheckpointError(f"{name} looks like {TITLE}, but its stages have {depths} blocks, expected four stages")
    return tuple(depths)


def _blocks(config: SwinV2Config) -> list[tuple[str, str]]:
    """(our prefix, the checkpoint's prefix) for each block."""
    places = [(s, b) for s, depth in enumerate(config.depths) for b in range(depth)]
    return [(f"encoder.blocks.{i}", f"pretrained.model.layers.{s}.blocks.{b}") for i, (s, b) in enumerate(places)]


def key_map(config: SwinV2Config) -> dict[str, str]:
    """Our key -> the checkpoint's key, for every tensor of the model."""
    inside = [*with_bias(LAYERS), *TENSORS]
    pairs = [(f"{ours}.{a}", f"{theirs}.{b}") for ours, theirs in _blocks(config) for a, b in inside]
    pairs += with_bias(
        [
            ("patch_embed.projection", "pretrained.model.patch_embed.proj"),
            ("patch_embed.norm", "pretrained.model.patch_embed.norm"),
            *((f"encoder.merges.{s}.norm", f"pretrained.model.layers.{s}.downsample.norm") for s in range(3)),
        ]
    )
    pairs += [
        (f"encoder.merges.{s}.reduction.weight", f"pretrained.model.layers.{s}.downsample.reduction.weight")
        for s in range(3)
    ]
    return numbered(pairs, blocks=0) | decoder("scratch", ("output_conv.0", "output_conv.2", "output_conv.4"))


def unused(config: SwinV2Config) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of tensors that checkpoints may contain and the forward pass never reads."""
    width = config.block_width(config.depth - 1)
    base = config.preprocess.base
    found: dict[str, tuple[int, ...]] = {
        "pretrained.model.norm.weight": (width,),
        "pretrained.model.norm.bias": (width,),
        "pretrained.model.head.weight": (CLASSES, width),
        "pretrained.model.head.bias": (CLASSES,),
    }
    # The model computes shift masks itself. Blocks without a shift have none.
    for i, (_, theirs) in enumerate(_blocks(config)):
        grid = config.block_grid(i, config.token_grid(base, base))
        if any(grid.shift):
            windows, inside = grid.windows().shape
            found[f"{theirs}.attn_mask"] = (windows, inside, inside)
    return found | decoder_unused("scratch", config.fusion_channels)
