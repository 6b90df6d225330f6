"""Pairs of key patterns (ours, the checkpoint's), and the keys of fusion and head, which all families share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from .errors import CheckpointError

Pairs = Iterable[tuple[str, str]]

# {s} runs over the four stages, {t} is {s} counted from 1.
FUSION = (
    ("fusion.blocks.{s}.unit2.conv1", "refinenet{t}.resConfUnit2.conv1"),
    ("fusion.blocks.{s}.unit2.conv2", "refinenet{t}.resConfUnit2.conv2"),
    ("fusion.blocks.{s}.out", "refinenet{t}.out_conv"),
)


def with_bias(layers: Pairs) -> list[tuple[str, str]]:
    """The weight and the bias of each layer."""
    return [(f"{ours}.{kind}", f"{theirs}.{kind}") for ours, theirs in layers for kind in ("weight", "bias")]


def numbered(pairs: Pairs, blocks: int) -> dict[str, str]:
    """Our key -> theirs, with numbers filled in: {i} runs over the blocks, {s} over the stages, {t} is {s} + 1."""
    return {
        ours.format(i=n, s=n): theirs.format(i=n, s=n, t=n + 1)
        for ours, theirs in pairs
        for n in range(blocks if "{i}" in ours else 4 if "{s}" in ours else 1)
    }


def decoder(scratch: str, head: tuple[str, str, str]) -> dict[str, str]:
    """Our key -> theirs for the projections into the fusion, the fusion and the head. scratch: prefix of their keys."""
    layers = [(ours, f"{scratch}.{theirs}") for ours, theirs in FUSION]
    layers += [(f"head.conv{n}", f"{scratch}.{key}") for n, key in enumerate(head, start=1)]
    # The coarsest fusion level has no first unit.
    layers += [
        (f"fusion.blocks.{s}.unit1.conv{c}", f"{scratch}.refinenet{s + 1}.resConfUnit1.conv{c}")
        for s in range(3)
        for c in (1, 2)
    ]
    to_fusion = [("reassembly.to_fusion.{s}.weight", f"{scratch}.layer{{t}}_rn.weight")]
    return numbered([*with_bias(layers), *to_fusion], blocks=0)


def decoder_unused(scratch: str, channels: int) -> dict[str, tuple[int, ...]]:
    """The first unit of the coarsest fusion level, which has no map to add: checkpoints store it, nothing reads it."""
    unit = f"{scratch}.refinenet4.resConfUnit1"
    shapes = {"weight": (channels, channels, 3, 3), "bias": (channels,)}
    return {f"{unit}.conv{c}.{kind}": shape for c in (1, 2) for kind, shape in shapes.items()}


@dataclass(frozen=True)
class Given:
    """A checkpoint's tensors under the original keys."""

    name: str  # what messages call the checkpoint
    tensors: Mapping[str, Tensor]
    spelling: Callable[[str], str] = str  # original key -> its name in the file, for messages
    origin: str = ""  # the project that spells keys like this file; "" if several do

    def shape_of(self, family: str, key: str, rank: int) -> tuple[int, ...]:
        """The shape of a tensor that gives a model's sizes; CheckpointError if it is missing or has another rank."""
        if key not in self.tensors:
            raise CheckpointError(
                f"{self.name} looks like {family}, but {self.spelling(key)}, which gives its sizes, is missing"
            )
        shape = tuple(self.tensors[key].shape)
        if len(shape) != rank or 0 in shape:
            raise CheckpointError(
                f"{self.name} looks like {family}, but {self.spelling(key)} has shape {shape}, expected {rank} "
                "dimensions of 1 or more"
            )
        return shape


def refuse_depth_anything_facts(name: str, family: str, version: int | None, max_depth: float | None) -> None:
    """CheckpointError for arguments that only Depth-Anything has: MiDaS has no versions and no metric models."""
    for argument, value in (("version", version), ("max_depth", max_depth)):
        if value is not None:
            raise CheckpointError(
                f"{name} is {family}, and {argument}={value!r} applies to Depth-Anything models only. Omit {argument}, "
                "or check which file this is"
            )
