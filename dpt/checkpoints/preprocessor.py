"""preprocessor_config.json beside a checkpoint: how images become inputs, in the terms of transformers.

What it states takes precedence over the family's usual input, because a fine-tuned model needs the input that it was
trained with. A statement that `Preprocess` cannot express becomes a note that `dpt.load` warns about.

Limits. The file does not say by which rule an image is scaled with its aspect ratio kept. Depth-Anything keeps the rule
of its authors ("lower_bound"), which differs from transformers' for images with a side below the base; a note says so.
Both resize bicubically; transformers also smooths when it makes an image smaller.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple, TypeGuard

from ..config import Config
from ..image import Preprocess
from .errors import CheckpointError
from .notes import Note

FILE = "preprocessor_config.json"
BICUBIC = (3, "bicubic", "BICUBIC")
RESAMPLES = {0: "nearest", 1: "lanczos", 2: "bilinear", 4: "box", 5: "hamming"}


class _Stated(NamedTuple):
    """The fields of the file, which raise errors that name the file."""

    what: str
    fields: Mapping[str, object]

    def flag(self, field: str, default: bool) -> bool:
        value = self.fields.get(field)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.wrong(field, "true or false")
        return value

    def number(self, field: str, default: float) -> float:
        value = self.fields.get(field)
        if value is None:
            return default
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= sys.float_info.max:
            raise self.wrong(field, "a positive number")
        return float(value)

    def side(self, field: str, value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 100_000:
            raise self.wrong(field, "pixels")
        return value

    def colour(self, field: str) -> tuple[float, float, float] | None:
        value = self.fields.get(field)
        if value is None:
            return None
        values = value if isinstance(value, list) else [value] * 3
        numbers = [float(v) for v in values if _is_finite(v)]
        if len(numbers) != 3 or len(values) != 3:
            raise self.wrong(field, "a number per channel")
        if field == "image_std" and min(numbers) <= 0:
            raise self.wrong(field, "positive numbers")
        return numbers[0], numbers[1], numbers[2]

    def wrong(self, field: str, expected: str) -> CheckpointError:
        return CheckpointError(
            f"{self.what} states {field} {str(self.fields[field])[:80]!r}, expected {expected}. Correct the file, or "
            "load the weights from a folder without it"
        )


def _is_finite(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def apply(name: str, fields: Mapping[str, object], config: Config) -> tuple[Config, list[Note]]:
    """The configuration with the input that a preprocessor_config.json states.

    Args:
        name: What messages call the checkpoint.
        fields: The contents of the file.
        config: The configuration with the family's usual input.

    Returns:
        The configuration, and notes on what the file changed, and on what it states in vain.

    Raises:
        CheckpointError: A field has a value that cannot be used.
    """
    stated = _Stated(f"{name}: the {FILE} beside it", fields)
    kind = fields.get("image_processor_type") or fields.get("feature_extractor_type")
    if kind is not None and not str(kind).startswith("DPT"):
        text = f"{FILE} is for {str(kind)[:80]!r}, not for DPTImageProcessor, and was not applied"
        return config, [Note("preprocess", text, assumed=True)]
    usual = config.preprocess
    in_vain: list[str] = []
    keep_aspect = stated.flag("keep_aspect_ratio", usual.keep_aspect)
    multiple = _multiple(stated, config, keep_aspect, in_vain)
    base = _base(stated, config, multiple, in_vain)
    mean, std = _normalisation(stated, usual)
    for field, unless in (("do_resize", True), ("do_pad", False), ("do_center_crop", False)):
        if stated.flag(field, unless) is not unless:
            in_vain.append(f"{field} {str(not unless).lower()}")
    if (resample := fields.get("resample")) is not None and resample not in BICUBIC:
        method = RESAMPLES.get(resample, resample) if isinstance(resample, int) else resample
        in_vain.append(f"resample {str(method)[:20]!r} (images are resized bicubically)")
    found = replace(usual, base=base, multiple=multiple, keep_aspect=keep_aspect, mean=mean, std=std)
    if found.multiple != usual.multiple and found.exact_multiple is None:
        found = replace(found, exact_multiple=config.multiple)
    notes = []
    if changed := [
        f"{field} {getattr(found, field)} (usually {getattr(usual, field)})"
        for field in ("base", "multiple", "keep_aspect", "mean", "std")
        if getattr(found, field) != getattr(usual, field)
    ]:
        notes.append(Note("preprocess", f"{', '.join(changed)}: from {FILE}"))
    if keep_aspect and found.method == "lower_bound" and "keep_aspect_ratio" in fields:
        text = (
            "images smaller than the input are scaled by the rule of the model's authors: both sides reach the base. "
            "DPTImageProcessor of transformers scales them as little as possible"
        )
        notes.append(Note("preprocess", text))
    if in_vain:
        text = (
            f"{FILE} states {', '.join(in_vain)}, which dpt does not do. Prepare images yourself, and call the model "
            "with them, to follow it"
        )
        notes.append(Note("preprocess", text, assumed=True))
    return replace(config, preprocess=found), notes


def _multiple(stated: _Stated, config: Config, keep_aspect: bool, in_vain: list[str]) -> int:
    usual = config.preprocess.multiple
    field = "ensure_multiple_of"
    if stated.fields.get(field) is None:
        return usual
    multiple = stated.side(field, stated.fields[field])
    if multiple % config.multiple == 0:
        return multiple
    if keep_aspect:  # otherwise all inputs have the same size
        in_vain.append(f"{field} {multiple} (sides are multiples of {usual})")
    return usual


def _base(stated: _Stated, config: Config, multiple: int, in_vain: list[str]) -> int:
    usual = config.preprocess.base
    size = stated.fields.get("size")
    if size is None:
        return usual
    sides: list[object] = [size]
    if isinstance(size, dict):
        sides = [size.get("height"), size.get("width")]
        if None in sides:
            in_vain.append(f"size {str(size)[:80]} (the base is {usual})")
            return usual
    height, width = stated.side("size", sides[0]), stated.side("size", sides[-1])
    if height != width:
        in_vain.append(f"size {height} x {width} (the base is {usual}; pass size=({height}, {width}) to predict)")
        return usual
    if height == usual and height % multiple == 0:
        return usual
    if config.family == "swinv2":  # its windows depend on the base
        in_vain.append(f"size {height} (the base of this model is {usual})")
        return usual
    if height % multiple:
        in_vain.append(f"size {height} (rounded to a multiple of {multiple})")
        return max(multiple, round(height / multiple) * multiple)
    return height


def _normalisation(stated: _Stated, usual: Preprocess) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation of RGB in 0..1. The file means RGB in 0..255, times a factor."""
    mean, std = stated.colour("image_mean") or usual.mean, stated.colour("image_std") or usual.std
    if not stated.flag("do_normalize", True):
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    factor = stated.number("rescale_factor", 1 / 255) if stated.flag("do_rescale", True) else 1.0
    if math.isclose(scale := 255 * factor, 1):
        return mean, std
    return (mean[0] / scale, mean[1] / scale, mean[2] / scale), (std[0] / scale, std[1] / scale, std[2] / scale)
