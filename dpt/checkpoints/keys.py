"""Pairs of key patterns, ours and a checkpoint's, and what all families call alike: the fusion and the head."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from .files import CheckpointError

Pairs = Iterable[tuple[str, str]]

# {s} runs over the four stages, {t} is {s} counted from 1.
FUSION = (
    ("fusion.blocks.{s}.unit2.conv1", "refinenet{t}.resConfUnit2.conv1"),
    ("fusion.blocks.{s}.unit2.conv2", "refinenet{t}.resConfUnit2.conv2"),
    ("fusion.blocks.{s}.out", "refinenet{t}.out_conv"),
)


def with_bias(layers: Pairs) -> list[tuple[str, str]]:
    """Weight and bias of each layer."""
    return [(f"{ours}.{kind}", f"{theirs}.{kind}") for ours, theirs in layers for kind in ("weight", "bias")]


def numbered(pairs: Pairs, blocks: int) -> dict[str, str]:
    """Our key -> theirs: {i} runs over the blocks, {s} over the stages (with {t} counted from 1)."""
    return {
        ours.format(i=n, s=n): theirs.format(i=n, s=n, t=n + 1)
        for ours, theirs in pairs
        for n in range(blocks if "{i}" in ours else 4 if "{s}" in ours else 1)
    }


def decoder(scratch: str, head: tuple[str, str, str]) -> dict[str, str]:
    """Keys of the maps' projections, the fusion and the head; scratch is what they start with."""
    layers = [(ours, f"{scratch}.{theirs}") for ours, theirs in FUSION]
    layers += [(f"head.conv{n}", f"{scratch}.{key}") for n, key in enumerate(head, start=1)]
    # The coarsest fusion block has no first unit.
    layers += [
        (f"fusion.blocks.{s}.unit1.conv{c}", f"{scratch}.refinenet{s + 1}.resConfUnit1.conv{c}")
        for s in range(3)
        for c in (1, 2)
    ]
    to_fusion = [("reassembly.to_fusion.{s}.weight", f"{scratch}.layer{{t}}_rn.weight")]
    return numbered([*with_bias(layers), *to_fusion], blocks=0)


def decoder_unused(scratch: str, channels: int) -> dict[str, tuple[int, ...]]:
    """The first unit of the coarsest fusion block, which has no map to add: stored, never read."""
    unit = f"{scratch}.refinenet4.resConfUnit1"
    shapes = {"weight": (channels, channels, 3, 3), "bias": (channels,)}
    return {f"{unit}.conv{c}.{kind}": shape for c in (1, 2) for kind, shape in shapes.items()}


def shape_of(name: str, family: str, state: Mapping[str, Tensor], key: str, rank: int) -> tuple[int, ...]:
    """The shape of a tensor that tells a model's sizes; CheckpointError if it cannot."""
    if key not in state:
        raise CheckpointError(f"{name} looks like {family}, but {key}, which tells its sizes, is missing")
    shape = tuple(state[key].shape)
    if len(shape) != rank or 0 in shape:
        raise CheckpointError(f"{name} looks like {family}, but {key} has shape {shape}, not {rank} dimensions")
    return shape


def refuse_depth_anything_facts(name: str, family: str, version: int | None, max_depth: float | None) -> None:
    """MiDaS has no versions and no metric models; whoever gives one has another file in mind."""
    for argument, value in (("version", version), ("max_depth", max_depth)):
        if value is not None:
            raise CheckpointError(
                f"{name} is {family}, and {argument}={value!r} is for Depth-Anything models; leave {argument} out, or "
                "check which file this is"
            )
