"""config.json beside a checkpoint in the layout of Hugging Face transformers.

The file states two facts that the tensors do not show:

* version 1 or 2 of Depth-Anything: out_indices lists the tapped blocks, counted from 1
* the range of a metric model: depth_estimation_type and max_depth

Its other fields must agree with the tensors, because a config.json of another model is easily left in a folder. Those
that change what the model computes (activations, readout, ...) must be those of the released models.

Limits. The layer_norm_eps of BEiT comes from the original code: its file states 1e-12, but the models were trained with
1e-6. A wrong digit in max_depth goes unnoticed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..config import Config
from .errors import CheckpointError, short
from .notes import Note

# family: model_type at the top of config.json and in its backbone_config
TYPES = {"depth-anything": ("depth_anything", "dinov2"), "beit": ("dpt", "beit"), "swinv2": ("dpt", "swinv2")}
# (section of config.json or "" for its top, field there, field of our configuration)
SAME = (
    ("", "fusion_hidden_size", "fusion_channels"),
    ("", "neck_hidden_sizes", "reassembly_channels"),
    ("backbone_config", "hidden_size", "width"),
    ("backbone_config", "embed_dim", "width"),
    ("backbone_config", "num_hidden_layers", "depth"),
    ("backbone_config", "depths", "depths"),
    ("backbone_config", "window_size", "window"),
    ("backbone_config", "patch_size", "patch_size"),
    ("backbone_config", "num_attention_heads", "heads"),
)
# (section, field): the value that all released models have. The tensors do not show it, and the depth depends on it.
ALWAYS: dict[tuple[str, str], object] = {
    ("", "add_projection"): False,
    ("", "head_in_index"): -1,
    ("", "is_hybrid"): False,
    ("", "use_batch_norm_in_fusion_residual"): False,
    ("backbone_config", "hidden_act"): "gelu",
    ("backbone_config", "qkv_bias"): True,
    ("backbone_config", "use_absolute_embeddings"): False,
    ("backbone_config", "use_absolute_position_embeddings"): False,
    ("backbone_config", "use_shared_relative_position_bias"): False,
}
OF_FAMILY: dict[str, dict[tuple[str, str], object]] = {
    "depth-anything": {
        ("", "reassemble_factors"): [4, 2, 1, 0.5],
        ("backbone_config", "apply_layernorm"): True,
        ("backbone_config", "layer_norm_eps"): 1e-6,
        ("backbone_config", "reshape_hidden_states"): False,
    },
    "beit": {
        ("", "reassemble_factors"): [4, 2, 1, 0.5],
        ("", "readout_type"): "project",
        ("backbone_config", "reshape_hidden_states"): False,
    },
    "swinv2": {("backbone_config", "layer_norm_eps"): 1e-5},
}


@dataclass(frozen=True)
class Facts:
    """Version and range of a model: from config.json where it states them, else as the caller gave them."""

    version: int | None
    max_depth: float | None
    notes: tuple[Note, ...] = ()  # one per fact that config.json states


def stated_facts(
    name: str,
    described: Mapping[str, object],
    family: str,
    configured: Callable[[int | None], Config],
    version: int | None,
    max_depth: float | None,
) -> Facts:
    """Read a config.json, and check it against the tensors and the caller's arguments.

    Args:
        name: What messages call the checkpoint.
        described: The contents of config.json.
        family: The family recognised from the tensors.
        configured: Returns the configuration that the tensors give, for a version of Depth-Anything (None for others).
        version: As the caller gave it.
        max_depth: As the caller gave it, in metres.

    Raises:
        CheckpointError: config.json contradicts the tensors or the arguments.
    """
    backbone = described.get("backbone_config")
    if backbone is None:  # the backbone is given by its name alone; backbone_kwargs may state the tapped blocks
        backbone = described.get("backbone_kwargs") or {}
    if not isinstance(backbone, dict):
        raise CheckpointError(f"{name}: backbone_config in the config.json beside it is not an object")
    for stated_types, expected in zip((described, backbone), TYPES[family], strict=True):
        if (kind := stated_types.get("model_type", expected)) != expected:
            raise CheckpointError(
                f"{name} was recognised as {family}, but the config.json beside it states model_type {short(kind)}, "
                f"expected {expected!r}. Replace it by the model's own config.json"
            )
    config = configured(2 if family == "depth-anything" else None)
    for section, theirs, ours in SAME:
        source = backbone if section else described
        if theirs not in source or not hasattr(config, ours):
            continue
        if theirs == "hidden_size" and "embed_dim" in source:  # of the last stage of SwinV2
            continue
        stated, found = source[theirs], getattr(config, ours)
        if stated != (list(found) if isinstance(found, tuple) else found):
            raise CheckpointError(
                f"{name} has {ours} {found}, but the config.json beside it states {theirs} {short(stated)}: it belongs "
                "to another model. Replace it, or load the file from a folder without config.json"
            )
    for (section, field), usual in (ALWAYS | OF_FAMILY[family]).items():
        source = backbone if section else described
        if source.get(field) is not None and source[field] != usual:
            raise CheckpointError(
                f"{name}: the config.json beside it states {field} {short(source[field])}, but {family} models of this "
                f"package are computed with {usual!r}. If the statement is wrong, load the file from a folder "
                "without config.json"
            )
    if family != "depth-anything":
        return Facts(version, max_depth)
    found_version, version_note = _version(name, backbone, configured, version)
    found_range, range_note = _range(name, described, max_depth)
    return Facts(found_version, found_range, tuple(note for note in (version_note, range_note) if note))


def _version(
    name: str, backbone: Mapping[str, object], configured: Callable[[int | None], Config], version: int | None
) -> tuple[int | None, Note | None]:
    features = backbone.get("out_features")
    if "out_indices" in backbone:
        stated = backbone["out_indices"]
    elif isinstance(features, list):
        stated = [int(s[5:]) if re.fullmatch(r"stage\d{1,9}", str(s)) else s for s in features]
    else:
        return version, None
    matching = []
    for candidate in (1, 2):
        config = configured(candidate)
        if stated == [config.stage_block(stage) + 1 for stage in range(4)]:
            matching.append(candidate)
    if not matching:
        raise CheckpointError(
            f"{name}: the config.json beside it taps blocks {short(stated)} (counted from 1). Neither version 1 nor "
            "version 2 of Depth-Anything does"
        )
    if version is not None and version not in matching:
        raise CheckpointError(
            f"{name} is version {matching[0]} according to the config.json beside it (out_indices {stated}), got "
            f"version={version}. Omit version, or load the file from a folder without config.json"
        )
    if len(matching) > 1:  # the model has so few blocks that both versions tap the same ones
        return version, None
    note = Note("version", f"version {matching[0]}: from out_indices {stated} in config.json")
    return matching[0], note


def _range(name: str, described: Mapping[str, object], max_depth: float | None) -> tuple[float | None, Note | None]:
    kind, stated = described.get("depth_estimation_type"), described.get("max_depth")
    if kind is None and max_depth is not None:
        return max_depth, None
    if kind in (None, "relative"):
        if max_depth is not None:
            raise CheckpointError(
                f"{name} is a relative model according to the config.json beside it, got max_depth={max_depth!r}. "
                "Omit max_depth, or load the file from a folder without config.json"
            )
        return None, Note("max_depth", "relative: from config.json")
    if kind != "metric":
        raise CheckpointError(
            f"{name}: config.json states depth_estimation_type {short(kind)}, expected 'relative' or 'metric'"
        )
    if not isinstance(stated, int | float) or isinstance(stated, bool) or not 0 < stated <= sys.float_info.max:
        raise CheckpointError(
            f"{name}: config.json states a metric model and max_depth {short(stated)}, expected metres"
        )
    if max_depth is not None and max_depth != stated:
        raise CheckpointError(
            f"{name} has a range of {stated:g} m according to the config.json beside it, got max_depth={max_depth!r}. "
            "Omit max_depth, or load the file from a folder without config.json"
        )
    return float(stated), Note("max_depth", f"metric, up to {stated:g} m: from config.json")
