"""Checkpoints in the layout of Hugging Face transformers: keys backbone.*, neck.*, head.*, and config.json beside them.

The tensors are those of the original layouts under other names, and with the rows of query, key and value kept apart.
So they are renamed and joined here to what the family's own module reads (`to_original`); messages speak of the names
that the file has (`Translation.names`).

config.json settles what the tensors cannot tell: version 1 or 2 of Depth-Anything (the tapped blocks, out_indices,
count from 1), and the range of a metric model (depth_estimation_type and max_depth). What else it says must agree with
the tensors, as a config.json of another model is easily left in a folder.

Limits. Numbers that change what is computed are the original code's, not those of config.json: BEiT's states a
layer_norm_eps of 1e-12, where the models were trained with 1e-6. A digit of max_depth that is wrong in config.json
cannot be noticed. SwinV2 models of other than the released sizes cannot be loaded, as nothing tells their windows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..config import Config
from .files import CheckpointError, Contents
from .keys import with_bias

PARTS = ("query", "key", "value")  # in the order of their rows in the original tensor

# (transformers' key, the original key). {i} and {j} are any numbers, {part} the three above; {s} runs over the stages,
# with {t} counted from 1 and {back} counted down to 1: transformers' fusion starts with the coarsest map.
NECK = (
    ("neck.fusion_stage.layers.{s}.projection", "{scratch}.refinenet{back}.out_conv"),
    ("neck.fusion_stage.layers.{s}.residual_layer1.convolution1", "{scratch}.refinenet{back}.resConfUnit1.conv1"),
    ("neck.fusion_stage.layers.{s}.residual_layer1.convolution2", "{scratch}.refinenet{back}.resConfUnit1.conv2"),
    ("neck.fusion_stage.layers.{s}.residual_layer2.convolution1", "{scratch}.refinenet{back}.resConfUnit2.conv1"),
    ("neck.fusion_stage.layers.{s}.residual_layer2.convolution2", "{scratch}.refinenet{back}.resConfUnit2.conv2"),
)
TO_FUSION = (("neck.convs.{s}.weight", "{scratch}.layer{t}_rn.weight"),)
MIDAS_HEAD = tuple((f"head.head.{n}", f"{{scratch}}.output_conv.{n}") for n in (0, 2, 4))

DINOV2, BEIT, SWINV2 = "backbone.encoder.layer.{i}", "backbone.encoder.layer.{i}", "backbone.encoder.layers.{i}"
SWINV2_BLOCK = f"{SWINV2}.blocks.{{j}}"
TIMM_BEIT, TIMM_SWINV2 = "pretrained.model.blocks.{i}", "pretrained.model.layers.{i}"
TIMM_SWINV2_BLOCK = f"{TIMM_SWINV2}.blocks.{{j}}"


class Rule(NamedTuple):
    """One key pattern of each layout."""

    theirs: str
    original: str
    part: int | None = None  # of three parts that the original tensor joins

    def translate(self, key: str, back: bool = False) -> str | None:
        """The key in the other layout, or None if the rule is for other keys."""
        source, target = (self.original, self.theirs) if back else (self.theirs, self.original)
        match = _pattern(source).fullmatch(key)
        return match and target.format(**match.groupdict())


@cache
def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.escape(template).replace(r"\{i\}", r"(?P<i>\d+)").replace(r"\{j\}", r"(?P<j>\d+)"))


def _rules(scratch: str, layers: Iterable[tuple[str, str]], tensors: Iterable[tuple[str, str]]) -> tuple[Rule, ...]:
    rules = []
    for theirs, original in [*with_bias([*NECK, *layers]), *TO_FUSION, *tensors]:
        for s in range(4) if "{s}" in theirs else (0,):
            for n, part in enumerate(PARTS) if "{part}" in theirs else ((None, ""),):
                known = {"s": s, "t": s + 1, "back": 4 - s, "part": part, "scratch": scratch, "i": "{i}", "j": "{j}"}
                rules.append(Rule(theirs.format(**known), original.format(**known), n))
    return tuple(rules)


DIALECTS: dict[str, tuple[Rule, ...]] = {
    "depth-anything": _rules(
        "depth_head.scratch",
        [
            ("backbone.embeddings.patch_embeddings.projection", "pretrained.patch_embed.proj"),
            (f"{DINOV2}.norm1", "pretrained.blocks.{i}.norm1"),
            (f"{DINOV2}.attention.attention.{{part}}", "pretrained.blocks.{i}.attn.qkv"),
            (f"{DINOV2}.attention.output.dense", "pretrained.blocks.{i}.attn.proj"),
            (f"{DINOV2}.norm2", "pretrained.blocks.{i}.norm2"),
            (f"{DINOV2}.mlp.fc1", "pretrained.blocks.{i}.mlp.fc1"),
            (f"{DINOV2}.mlp.fc2", "pretrained.blocks.{i}.mlp.fc2"),
            (f"{DINOV2}.mlp.weights_in", "pretrained.blocks.{i}.mlp.w12"),
            (f"{DINOV2}.mlp.weights_out", "pretrained.blocks.{i}.mlp.w3"),
            ("backbone.layernorm", "pretrained.norm"),
            ("neck.reassemble_stage.layers.{s}.projection", "depth_head.projects.{s}"),
            ("neck.reassemble_stage.layers.{s}.resize", "depth_head.resize_layers.{s}"),
            ("head.conv1", "depth_head.scratch.output_conv1"),
            ("head.conv2", "depth_head.scratch.output_conv2.0"),
            ("head.conv3", "depth_head.scratch.output_conv2.2"),
        ],
        [
            ("backbone.embeddings.cls_token", "pretrained.cls_token"),
            ("backbone.embeddings.mask_token", "pretrained.mask_token"),
            ("backbone.embeddings.position_embeddings", "pretrained.pos_embed"),
            (f"{DINOV2}.layer_scale1.lambda1", "pretrained.blocks.{i}.ls1.gamma"),
            (f"{DINOV2}.layer_scale2.lambda1", "pretrained.blocks.{i}.ls2.gamma"),
        ],
    ),
    "beit": _rules(
        "scratch",
        [
            *MIDAS_HEAD,
            ("backbone.embeddings.patch_embeddings.projection", "pretrained.model.patch_embed.proj"),
            (f"{BEIT}.layernorm_before", f"{TIMM_BEIT}.norm1"),
            (f"{BEIT}.attention.output.dense", f"{TIMM_BEIT}.attn.proj"),
            (f"{BEIT}.layernorm_after", f"{TIMM_BEIT}.norm2"),
            (f"{BEIT}.intermediate.dense", f"{TIMM_BEIT}.mlp.fc1"),
            (f"{BEIT}.output.dense", f"{TIMM_BEIT}.mlp.fc2"),
            ("neck.reassemble_stage.readout_projects.{s}.0", "pretrained.act_postprocess{t}.0.project.0"),
            ("neck.reassemble_stage.layers.{s}.projection", "pretrained.act_postprocess{t}.3"),
            ("neck.reassemble_stage.layers.{s}.resize", "pretrained.act_postprocess{t}.4"),
        ],
        [
            ("backbone.embeddings.cls_token", "pretrained.model.cls_token"),
            (f"{BEIT}.lambda_1", f"{TIMM_BEIT}.gamma_1"),
            (f"{BEIT}.lambda_2", f"{TIMM_BEIT}.gamma_2"),
            (f"{BEIT}.attention.attention.{{part}}.weight", f"{TIMM_BEIT}.attn.qkv.weight"),
            (f"{BEIT}.attention.attention.query.bias", f"{TIMM_BEIT}.attn.q_bias"),
            (f"{BEIT}.attention.attention.value.bias", f"{TIMM_BEIT}.attn.v_bias"),
            (
                f"{BEIT}.attention.attention.relative_position_bias.relative_position_bias_table",
                f"{TIMM_BEIT}.attn.relative_position_bias_table",
            ),
        ],
    ),
    "swinv2": _rules(
        "scratch",
        [
            *MIDAS_HEAD,
            ("backbone.embeddings.patch_embeddings.projection", "pretrained.model.patch_embed.proj"),
            ("backbone.embeddings.norm", "pretrained.model.patch_embed.norm"),
            (f"{SWINV2_BLOCK}.layernorm_before", f"{TIMM_SWINV2_BLOCK}.norm1"),
            (f"{SWINV2_BLOCK}.attention.output.dense", f"{TIMM_SWINV2_BLOCK}.attn.proj"),
            (f"{SWINV2_BLOCK}.attention.self.continuous_position_bias_mlp.0", f"{TIMM_SWINV2_BLOCK}.attn.cpb_mlp.0"),
            (f"{SWINV2_BLOCK}.layernorm_after", f"{TIMM_SWINV2_BLOCK}.norm2"),
            (f"{SWINV2_BLOCK}.intermediate.dense", f"{TIMM_SWINV2_BLOCK}.mlp.fc1"),
            (f"{SWINV2_BLOCK}.output.dense", f"{TIMM_SWINV2_BLOCK}.mlp.fc2"),
            (f"{SWINV2}.downsample.norm", f"{TIMM_SWINV2}.downsample.norm"),
        ],
        [
            (f"{SWINV2_BLOCK}.attention.self.{{part}}.weight", f"{TIMM_SWINV2_BLOCK}.attn.qkv.weight"),
            (f"{SWINV2_BLOCK}.attention.self.query.bias", f"{TIMM_SWINV2_BLOCK}.attn.q_bias"),
            (f"{SWINV2_BLOCK}.attention.self.value.bias", f"{TIMM_SWINV2_BLOCK}.attn.v_bias"),
            (f"{SWINV2_BLOCK}.attention.self.logit_scale", f"{TIMM_SWINV2_BLOCK}.attn.logit_scale"),
            (
                f"{SWINV2_BLOCK}.attention.self.continuous_position_bias_mlp.2.weight",
                f"{TIMM_SWINV2_BLOCK}.attn.cpb_mlp.2.weight",
            ),
            (f"{SWINV2}.downsample.reduction.weight", f"{TIMM_SWINV2}.downsample.reduction.weight"),
        ],
    ),
}


@dataclass(frozen=True)
class Translation:
    """A checkpoint's tensors under the original keys, and the way back to its own."""

    family: str | None  # None: the file is in the original layout
    tensors: dict[str, Tensor]
    leftover: list[str]  # keys of the file that no rule knows
    stored: frozenset[str]  # keys of the file

    def names(self, key: str) -> tuple[str, ...]:
        """What the file calls a tensor: three names for one that is joined; the key itself if no rule knows it."""
        rules = DIALECTS[self.family] if self.family else ()
        names = [theirs for rule in rules if (theirs := rule.translate(key, back=True)) is not None]
        return tuple(names) or (key,)

    def name(self, key: str) -> str:
        """The same for one line: the parts of a joined tensor in braces."""
        first, *others = self.names(key)
        return first.replace(f".{PARTS[0]}.", f".{{{','.join(PARTS)}}}.") if others else first

    def missing(self, key: str) -> list[str]:
        return [name for name in self.names(key) if name not in self.stored]

    def reword(self, message: str) -> str:
        """A message of the family's module, with the keys in it as the file has them."""
        if self.family is None:
            return message
        return re.sub(r"[\w.]+\w", lambda m: m[0] if m[0] in self.stored else self.name(m[0]), message)


def untranslated(contents: Contents) -> Translation:
    """Of a file whose keys are those that are expected."""
    return Translation(None, contents.tensors, [], frozenset(contents.tensors))


def recognises(state: Mapping[str, Tensor]) -> bool:
    return any(key.startswith("backbone.") for key in state) and any(key.startswith("neck.") for key in state)


def to_original(contents: Contents) -> Translation:
    """The state under the original keys. Only what is joined is copied."""
    # The dialects share names (their decoders do), so the one that knows most keys is meant; some may be missing.
    found = {family: _known(rules, contents.tensors) for family, rules in DIALECTS.items()}
    family = max(found, key=lambda family: len(found[family]))
    tensors: dict[str, Tensor] = {}
    joined: dict[str, dict[int, str]] = {}
    for key, (original, part) in found[family].items():
        if part is None:
            tensors[original] = contents.tensors[key]
        else:
            joined.setdefault(original, {})[part] = key
    for original, parts in joined.items():
        if len(parts) == len(PARTS):
            tensors[original] = _join(contents, [parts[n] for n in range(len(PARTS))])
    leftover = [key for key in contents.tensors if key not in found[family]]
    return Translation(family, tensors, leftover, frozenset(contents.tensors))


def from_original(tensors: Mapping[str, Tensor], family: str) -> dict[str, Tensor]:
    """The way back: an original state dict in this layout, without what transformers does not keep."""
    layout = Translation(family, {}, [], frozenset())
    found: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        names = layout.names(key)
        if names != (key,):
            found |= zip(names, tensor.chunk(len(names)), strict=True)
    return found


def _known(rules: Iterable[Rule], keys: Iterable[str]) -> dict[str, tuple[str, int | None]]:
    """key -> (original key, part), for the keys that the rules know."""
    known: dict[str, list[Rule]] = {}
    for rule in rules:  # by their ends, so that not every rule is tried on every key
        known.setdefault(rule.theirs.rsplit(".", 1)[-1], []).append(rule)
    found = {}
    for key in keys:
        for rule in known.get(key.rsplit(".", 1)[-1], ()):
            if (original := rule.translate(key)) is not None:
                found[key] = original, rule.part
                break
    return found


def _join(contents: Contents, keys: list[str]) -> Tensor:
    first = contents.tensors[keys[0]]
    for key in keys:
        other = contents.tensors[key]
        if (other.shape, other.dtype, other.device) != (first.shape, first.dtype, first.device) or first.ndim == 0:
            raise CheckpointError(
                f"{contents.name} holds {keys[0]} as {_form(first)} but {key} as {_form(other)}; query, key and value "
                "of a block have one shape"
            )
    return torch.cat(contents.apart(keys))


def _form(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


# --------------------------------------------------------------------------------------------------- config.json


@dataclass(frozen=True)
class Settled:
    """Version and range of a model, by config.json where it tells, else as they were asked for."""

    version: int | None
    max_depth: float | None
    notes: tuple[str | None, str | None] = (None, None)  # on version and range; None: not settled by config.json


# family: model_type at the top of config.json and in its backbone_config
TYPES = {"depth-anything": ("depth_anything", "dinov2"), "beit": ("dpt", "beit"), "swinv2": ("dpt", "swinv2")}
# section of config.json (or its top), field there, what our configuration calls it
SAME = (
    ("", "fusion_hidden_size", "fusion_channels"),
    ("", "neck_hidden_sizes", "reassembly_channels"),
    ("backbone_config", "hidden_size", "width"),
    ("backbone_config", "embed_dim", "width"),
    ("backbone_config", "num_hidden_layers", "depth"),
    ("backbone_config", "depths", "depths"),
    ("backbone_config", "window_size", "window"),
    ("backbone_config", "patch_size", "patch_size"),
)


def settle(
    name: str,
    described: Mapping[str, Any],
    family: str,
    configured: Callable[[int | None], Config],
    version: int | None,
    max_depth: float | None,
) -> Settled:
    """What config.json says, after checking that it speaks of this model and does not contradict the arguments.

    configured: what the tensors tell, as a configuration of one version of Depth-Anything (None for other families).
    """
    backbone = described.get("backbone_config", {})
    if not isinstance(backbone, dict):
        raise CheckpointError(f"{name}: the backbone_config of the config.json beside it is not an object")
    for stated_types, expected in zip((described, backbone), TYPES[family], strict=True):
        if (kind := stated_types.get("model_type", expected)) != expected:
            raise CheckpointError(
                f"{name} was recognised as {family}, but the config.json beside it states model_type {kind!r}, not "
                f"{expected!r}; put the right one there"
            )
    config = configured(2 if family == "depth-anything" else None)
    for section, theirs, ours in SAME:
        source = backbone if section else described
        if theirs not in source or not hasattr(config, ours):
            continue
        stated, found = source[theirs], getattr(config, ours)
        if stated != (list(found) if isinstance(found, tuple) else found):
            raise CheckpointError(
                f"{name} has {ours} {found}, but the config.json beside it states {theirs} {stated!r}: it is of "
                "another model; put the right one there, or load the file from a folder without one"
            )
    if family != "depth-anything":
        return Settled(version, max_depth)
    found_version, version_note = _version(name, backbone, configured, version)
    found_range, range_note = _range(name, described, max_depth)
    return Settled(found_version, found_range, (version_note, range_note))


def _version(
    name: str, backbone: Mapping[str, Any], configured: Callable[[int | None], Config], version: int | None
) -> tuple[int | None, str | None]:
    if "out_indices" in backbone:
        stated = backbone["out_indices"]
    elif isinstance(backbone.get("out_features"), list):
        stated = [int(s[5:]) if re.fullmatch(r"stage\d{1,9}", str(s)) else s for s in backbone["out_features"]]
    else:
        return version, None
    matching = []
    for candidate in (1, 2):
        config = configured(candidate)
        if stated == [config.stage_block(stage) + 1 for stage in range(4)]:
            matching.append(candidate)
    if not matching:
        raise CheckpointError(
            f"{name}: the config.json beside it taps the blocks {stated!r} (counted from 1), which neither version 1 "
            "nor version 2 of Depth-Anything does"
        )
    if version is not None and version not in matching:
        raise CheckpointError(
            f"{name} is version {matching[0]} by the config.json beside it (out_indices {stated}), but "
            f"version={version} was asked for; leave version out, or load the file from a folder without config.json"
        )
    if len(matching) > 1:  # so few blocks that both versions tap the same ones
        return version, None
    return matching[0], f"version {matching[0]}: from config.json, whose out_indices are {stated}"


def _range(name: str, described: Mapping[str, Any], max_depth: float | None) -> tuple[float | None, str | None]:
    kind, stated = described.get("depth_estimation_type"), described.get("max_depth")
    if kind is None and max_depth is not None:
        return max_depth, None
    if kind in (None, "relative"):
        if max_depth is not None:
            raise CheckpointError(
                f"{name} is a relative model by the config.json beside it, but max_depth={max_depth!r} was asked for; "
                "leave max_depth out, or load the file from a folder without config.json"
            )
        return None, "relative: from config.json"
    if kind != "metric":
        raise CheckpointError(f"{name}: config.json states depth_estimation_type {kind!r}, not 'relative' or 'metric'")
    if not isinstance(stated, int | float) or isinstance(stated, bool) or not 0 < stated < math.inf:
        raise CheckpointError(f"{name}: config.json states a metric model, but max_depth {stated!r}; expected metres")
    if max_depth is not None and max_depth != stated:
        raise CheckpointError(
            f"{name} reaches {stated:g} m by the config.json beside it, but max_depth={max_depth!r} was asked for; "
            "leave max_depth out, or load the file from a folder without config.json"
        )
    return float(stated), f"metric, up to {stated:g} m: from config.json"
