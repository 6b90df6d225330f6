"""Checkpoints in the layout of Hugging Face transformers: keys backbone.*, neck.* and head.*.

The tensors are those of the original layouts under other names, with query, key and value stored separately.
`to_original` renames and joins them, so the module of each family only reads the original layout. Messages use the
names in the file (`Translation.names`); `spelling` knows those that transformers 5 uses in memory.
`transformers_config` reads the config.json beside such a file.

Limits. SwinV2 models whose sizes are not those of a released model cannot be loaded, because the file does not show
their window size.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from . import spelling
from .contents import Contents
from .errors import CheckpointError
from .keys import with_bias
from .spelling import Spelling

PARTS = ("query", "key", "value")  # in the order of their rows in the original tensor
GATED = ("gate_proj", "up_proj")  # likewise, of a SwiGLU MLP in the memory of transformers 5

# (transformers' key, the original key). {i} and {j} match any number, {s} runs over the stages. {part} is one of PARTS,
# {gated} one of GATED.
# {t} is {s} + 1, and {back} counts down from 4, because the fusion in transformers starts at the coarsest map.
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
    part: int | None = None  # index of the part, if the original tensor joins several
    parts: int = 1  # number of the parts

    def translate(self, key: str, back: bool = False) -> str | None:
        """The key in the other layout, or None if the rule does not match. back: from the original to theirs."""
        source, target = (self.original, self.theirs) if back else (self.theirs, self.original)
        match = _pattern(source).fullmatch(key)
        return match and target.format(**match.groupdict())


@cache
def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.escape(template).replace(r"\{i\}", r"(?P<i>\d+)").replace(r"\{j\}", r"(?P<j>\d+)"))


def _rules(scratch: str, layers: Iterable[tuple[str, str]], tensors: Iterable[tuple[str, str]]) -> tuple[Rule, ...]:
    rules = []
    for theirs, original in [*with_bias([*NECK, *layers]), *TO_FUSION, *tensors]:
        parts = PARTS if "{part}" in theirs else GATED if "{gated}" in theirs else ()
        for s in range(4) if "{s}" in theirs else (0,):
            for n, part in enumerate(parts) if parts else ((None, ""),):
                known = {"s": s, "t": s + 1, "back": 4 - s, "part": part, "gated": part}
                known |= {"scratch": scratch, "i": "{i}", "j": "{j}"}
                rules.append(Rule(theirs.format(**known), original.format(**known), n, max(len(parts), 1)))
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
            (f"{DINOV2}.mlp.{{gated}}", "pretrained.blocks.{i}.mlp.w12"),
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
    """A checkpoint's tensors under the original keys, with a mapping back to the keys in the file."""

    family: str | None  # None: the file is in the original layout
    tensors: dict[str, Tensor]  # by original key; joined ones are on the meta device
    sources: dict[str, tuple[str, ...]]  # original key -> the keys in the file, in the order in which they are joined
    leftover: list[str]  # keys of the file that match no rule
    spelling: Spelling  # of the keys in the file

    def names(self, key: str) -> tuple[str, ...]:
        """The keys in the file for an original key: three for a joined tensor; the key itself if no rule matches."""
        rules = DIALECTS[self.family] if self.family else ()
        forms: dict[int, list[str]] = {}  # in one part, or in several
        for rule in rules:
            if (theirs := rule.translate(key, back=True)) is not None:
                forms.setdefault(rule.parts, []).append(theirs)
        stored = self.spelling.stored
        names = next((form for form in forms.values() if any(name in stored for name in form)), None)
        return tuple(map(self.spelling.of, names or next(iter(forms.values()), [key])))

    def name(self, key: str) -> str:
        """`names` as one word: the parts of a joined tensor are listed in braces."""
        names = [name.split(".") for name in self.names(key)]
        words = [list(dict.fromkeys(place)) for place in zip(*names, strict=True)]
        return ".".join(f"{{{','.join(word)}}}" if len(word) > 1 else word[0] for word in words)

    def missing(self, key: str) -> list[str]:
        """The keys for an original key that the file lacks."""
        held = set(self.spelling.stored.values())
        return [name for name in self.names(key) if name not in held]


def untranslated(contents: Contents) -> Translation:
    """The translation of a file that already has the expected keys."""
    return _renamed(contents, Spelling({key: key for key in contents.tensors}))


def respelled(contents: Contents) -> Translation:
    """The translation of a file in the original layout, which may spell it differently."""
    return _renamed(contents, spelling.of_original(contents.name, contents.tensors))


def _renamed(contents: Contents, spelt: Spelling) -> Translation:
    tensors = {key: contents.tensors[stored] for key, stored in spelt.stored.items()}
    return Translation(None, tensors, {key: (stored,) for key, stored in spelt.stored.items()}, [], spelt)


def recognises(state: Mapping[str, Tensor]) -> bool:
    """Whether these keys look like the layout of transformers."""
    return any(key.startswith("backbone.") for key in state) and any(key.startswith("neck.") for key in state)


def to_original(contents: Contents) -> Translation:
    """Rename a checkpoint's tensors to the original keys. No values are read."""
    spelt = spelling.of_transformers(contents.tensors)
    # The families share keys (of the decoder), and keys may be missing: choose the family whose rules match most keys.
    found = {family: _known(rules, spelt.stored) for family, rules in DIALECTS.items()}
    family = max(found, key=lambda family: len(found[family]))
    tensors: dict[str, Tensor] = {}
    sources: dict[str, tuple[str, ...]] = {}
    joined: dict[tuple[str, int], dict[int, str]] = {}
    leftover = [stored for key, stored in spelt.stored.items() if key not in found[family]]
    for key, (original, rule) in found[family].items():
        stored = spelt.stored[key]
        if rule.part is not None:
            joined.setdefault((original, rule.parts), {})[rule.part] = stored
        elif original not in tensors:
            tensors[original] = contents.tensors[stored]
            sources[original] = (stored,)
    for (original, count), parts in joined.items():
        if original in tensors:
            leftover += parts.values()
        elif len(parts) == count:
            sources[original] = tuple(parts[n] for n in range(count))
            tensors[original] = _joined(contents, sources[original])
    return Translation(family, tensors, sources, leftover, spelt)


def from_original(tensors: Mapping[str, Tensor], family: str) -> dict[str, Tensor]:
    """An original state dict in the layout of transformers, without the tensors that transformers drops."""
    layout = Translation(family, {}, {}, [], Spelling({}))
    found: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        names = layout.names(key)
        if names != (key,):
            found |= zip(names, tensor.chunk(len(names)), strict=True)
    return found


def _known(rules: Iterable[Rule], keys: Iterable[str]) -> dict[str, tuple[str, Rule]]:
    """key -> (original key, the rule), for the keys that match a rule."""
    known: dict[str, list[Rule]] = {}
    for rule in rules:  # indexed by the last part of the key: trying every rule on every key is slow
        known.setdefault(rule.theirs.rsplit(".", 1)[-1], []).append(rule)
    found = {}
    for key in keys:
        for rule in known.get(key.rsplit(".", 1)[-1], ()):
            if (original := rule.translate(key)) is not None:
                found[key] = original, rule
                break
    return found


def _joined(contents: Contents, keys: tuple[str, ...]) -> Tensor:
    """Shape and dtype of several tensors, e.g. query, key and value of a block, as one tensor."""
    first = contents.tensors[keys[0]]
    for key in keys:
        other = contents.tensors[key]
        if (other.shape, other.dtype, other.device) != (first.shape, first.dtype, first.device) or first.ndim == 0:
            raise CheckpointError(
                f"{contents.name} holds {keys[0]} as {_form(first)} but {key} as {_form(other)}. The parts of one "
                "tensor must have the same shape and dtype"
            )
    return torch.empty((len(keys) * first.shape[0], *first.shape[1:]), dtype=first.dtype, device="meta")


def _form(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
