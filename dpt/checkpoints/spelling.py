"""Other spellings of the keys of the known layouts, from programs that store the same tensors under other names.

* transformers 5 renames modules when it loads a file, and renames them back in save_pretrained. The keys of
  `model.state_dict()` are those in memory, e.g. `attention.q_proj` for `attention.attention.query`.
* Distill-Any-Depth calls the encoder of a Depth-Anything model `backbone` instead of `pretrained`.
* DINOv2 with block_chunks puts a number in front of each block's: `blocks.0.7` is block 7, in chunk 0.

Sources: conversion_mapping.py and convert_distill_any_depth_to_hf.py in transformers; vision_transformer.py in DINOv2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from .errors import CheckpointError

DISTILL = "Distill-Any-Depth"
_LAYER = r"^(backbone\.encoder\.layer\.\d+)"
_PROJECTIONS = {"q": "query", "k": "key", "v": "value"}
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
_CHUNK = re.compile(r"^pretrained\.blocks\.\d+\.(\d+)\.")


@dataclass(frozen=True)
class Spelling:
    """How a file spells the keys of a layout.

    Attributes:
        stored: Key of the layout -> key in the file.
    """

    stored: dict[str, str]
    _examples: dict[str, str] = field(default_factory=dict)  # key with n for its numbers -> a stored key of that form

    def __post_init__(self) -> None:
        for key, stored in self.stored.items():
            if key != stored:
                self._examples.setdefault(_NUMBER.sub("n", key), stored)

    def of(self, key: str) -> str:
        """The spelling of a key, also of one that the file lacks."""
        if key in self.stored:
            return self.stored[key]
        example, numbers = self._examples.get(_NUMBER.sub("n", key)), _NUMBER.findall(key)
        if example is None:
            return key
        # An additional number comes first: that of a chunk.
        more = len(_NUMBER.findall(example)) - len(numbers)
        found = iter(numbers)
        seen = iter(range(more + len(numbers)))
        return _NUMBER.sub(lambda match: match[0] if next(seen) < more else next(found), example)


def of_transformers(keys: Collection[str]) -> Spelling:
    """The spelling of a file in the layout of transformers."""
    beit = any(".lambda_1" in key for key in keys)

    def standard(key: str) -> str:
        if not key.startswith("backbone."):
            return key
        key = re.sub(r"^backbone\.beit\.(?:encoder\.)?layers?\.", "backbone.encoder.layer.", key)
        key = re.sub(r"^backbone\.beit\.", "backbone.", key)
        key = re.sub(
            _LAYER + r"\.attention\.([qkv])_proj\.", lambda m: f"{m[1]}.attention.attention.{_PROJECTIONS[m[2]]}.", key
        )
        key = re.sub(_LAYER + r"\.attention\.o_proj\.", r"\1.attention.output.dense.", key)
        key = re.sub(_LAYER + r"\.mlp\.down_proj\.", r"\1.mlp.weights_out.", key)
        if beit:
            key = re.sub(_LAYER + r"\.mlp\.fc1\.", r"\1.intermediate.dense.", key)
            key = re.sub(_LAYER + r"\.mlp\.fc2\.", r"\1.output.dense.", key)
            key = re.sub(_LAYER + r"\.relative_position_bias\.", r"\1.attention.attention.relative_position_bias.", key)
        return key

    return _spelling(keys, standard)


def of_original(name: str, keys: Collection[str]) -> Spelling:
    """The spelling of a file in the original layout.

    Raises:
        CheckpointError: Two keys are the same one, because blocks are numbered from 0 in every chunk.
    """
    distill = is_distill(keys)

    def standard(key: str) -> str:
        if distill:
            key = re.sub(r"^backbone\.", "pretrained.", key)
        return _CHUNK.sub(r"pretrained.blocks.\1.", key)

    spelling = _spelling(keys, standard)
    if twice := [key for key in keys if spelling.stored.get(standard(key)) != key]:
        raise CheckpointError(
            f"{name} stores its blocks in chunks (block_chunks of DINOv2) and numbers them from 0 in each, e.g. "
            f"{twice[0]}. Rename them to one sequence, pretrained.blocks.0, pretrained.blocks.1, ..."
        )
    return spelling


def is_distill(keys: Collection[str]) -> bool:
    """Whether these keys are those of Distill-Any-Depth's own files."""
    return (
        any(key.startswith("backbone.blocks.") for key in keys)
        and any(key.startswith("depth_head.") for key in keys)
        and not any(key.startswith("pretrained.") for key in keys)
    )


def _spelling(keys: Collection[str], standard: Callable[[str], str]) -> Spelling:
    stored: dict[str, str] = {}
    for key in keys:
        usual = standard(key)
        # Of two keys that mean the same, the second one keeps its name, and is reported as unexpected.
        stored[usual if usual not in stored else key] = key
    return Spelling(stored)
