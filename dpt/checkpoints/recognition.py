"""From a checkpoint's tensors to a configuration, and to the same tensors under our own keys.

Each family has one module that recognises its checkpoints in the original layout and maps their keys
(`depth_anything`, `beit`, `swinv2`). `transformers` first renames files in the layout of Hugging Face transformers.
Files of `dpt.save` state their configuration (`saving`).

Every tensor is accounted for. A missing, unexpected or wrongly shaped tensor is an error, because a model with a few
random weights still draws plausible depth maps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from ..config import Config
from ..model import DPT
from . import (
    beit,
    depth_anything,
    files,
    preprocessor,
    relatives,
    saveable,
    saving,
    spelling,
    swinv2,
    transformers,
    transformers_config,
)
from .contents import Contents
from .errors import CheckpointError, first_few
from .keys import Given
from .notes import Note
from .saveable import DTYPES

GENERIC = ("model", "pytorch_model", "weights", "checkpoint")  # file names that say nothing about the model


class Family(Protocol):
    """What the module of a family provides. Its functions exchange the family's own configuration class."""

    def recognises(self, state: Mapping[str, Tensor], /) -> bool:
        """Whether the keys, complete or not, look like this family's."""

    def configure(
        self, given: Given, hint: str, version: int | None, max_depth: float | None, /
    ) -> tuple[Config, list[Note]]:
        """The configuration, and notes on the facts that the tensors do not show. Messages use `given.spelling`."""

    def key_map(self, config: Any, /) -> dict[str, str]:
        """Our key -> the original key, for every tensor of the model."""

    def unused(self, config: Any, /) -> dict[str, tuple[int, ...]]:
        """Original keys and shapes of tensors that the forward pass never reads."""


FAMILIES: tuple[Family, ...] = (depth_anything, beit, swinv2)


@dataclass(frozen=True)
class Recognised:
    """The model that a checkpoint holds.

    Attributes:
        source: The path of the file, or "the given state dict".
        config: The configuration.
        notes: One `Note` per fact that the tensors do not show. Each prints as a sentence; `assumed` marks guesses.
        tensors: The number of tensors in the checkpoint.
        parameters: The number of values in them.
        bytes: Their size.
    """

    source: str
    config: Config
    notes: tuple[Note, ...]
    tensors: int
    parameters: int
    bytes: int

    @property
    def title(self) -> str:
        """Family and variant, as messages call the model."""
        return f"{self.config.family} {self.config.variant}"


class Found(NamedTuple):
    """A recognised checkpoint, and everything needed to build its model."""

    recognised: Recognised
    contents: Contents
    model: DPT  # on the meta device
    sources: dict[str, tuple[str, ...]]  # our key -> the keys of the tensors that are joined to its value
    checksum: saving.Checksum | None  # of a file of `dpt.save`, to be compared with the values that are read


def recognise(contents: Contents, version: int | None, max_depth: float | None, hint: str = "") -> Found:
    """Recognise a checkpoint.

    Args:
        contents: Its tensors.
        version: Version of Depth-Anything, if the caller gave one.
        max_depth: Range in metres, if the caller gave one.
        hint: A name for the model that takes precedence over the file's own.

    Raises:
        CheckpointError: The tensors do not make up a known model, or contradict version or max_depth.
    """
    if saving.is_ours(contents.metadata):
        return _saved(contents, version, max_depth)
    return recognise_published(contents, hint or _hint(contents), version, max_depth)


def _hint(contents: Contents) -> str:
    """The name of the file, or of its folder if the file name is generic."""
    if contents.path is None:
        return ""
    path = contents.path.absolute()
    return path.parent.name if path.name.partition(".")[0] in GENERIC else path.name


def _saved(contents: Contents, version: int | None, max_depth: float | None) -> Found:
    """A file of `dpt.save`, which states its configuration."""
    config = saving.config_of(contents)
    recognised = _describe(contents, config, [Note("configuration", "configuration stored in the file by dpt.save")])
    for argument, asked, stated in (
        ("version", version, getattr(config, "version", None)),
        ("max_depth", max_depth, config.max_depth),
    ):
        if asked is not None and asked != stated:
            raise CheckpointError(
                f"{contents.name} was saved with {argument}={stated!r}, got {argument}={asked!r}. Omit {argument}"
            )
    model = _skeleton(recognised)
    sources = _matched(
        recognised, model, transformers.untranslated(contents), {key: key for key in model.state_dict()}, {}
    )
    return Found(recognised, contents, model, sources, saving.checksum_of(contents))


def recognise_published(contents: Contents, hint: str, version: int | None, max_depth: float | None) -> Found:
    """Recognise a checkpoint in one of the published layouts. hint: a name that may state version and range."""
    _check_numbers(contents)
    if kind := relatives.name_of(contents.tensors):
        raise CheckpointError(f"{contents.name} is {kind}")
    translate = transformers.to_original if transformers.recognises(contents.tensors) else transformers.respelled
    translation = translate(contents)
    family = next((family for family in FAMILIES if family.recognises(translation.tensors)), None)
    if family is None:
        if "encoder.blocks.0.attention.qkv.weight" in contents.tensors:
            raise CheckpointError(
                f"{contents.name} holds the tensors of a model of this package without its configuration. Save the "
                "model with dpt.save(model, path), which stores both"
            )
        raise CheckpointError(
            f"{contents.name} holds {len(contents.tensors)} tensors of an unknown model: "
            f"{first_few(contents.tensors)}. Known models are Depth-Anything v1 and v2 (keys pretrained.* and "
            "depth_head.*) and MiDaS v3.1 BEiT and SwinV2 (pretrained.model.* and scratch.*), also in the layout of "
            "transformers (backbone.* and neck.*)"
        )
    try:
        config, notes = _configured(contents, translation, family, hint, version, max_depth)
        recognised = _describe(contents, config, [*notes, *contents.notes])
        model = _skeleton(recognised)
        sources = _matched(recognised, model, translation, family.key_map(config), family.unused(config))
        return Found(recognised, contents, model, sources, checksum=None)
    except CheckpointError:
        raise
    except (ValueError, IndexError, RuntimeError, ArithmeticError) as error:  # for sizes that no released model has
        raise CheckpointError(
            f"{contents.name} looks like a known model, but its sizes are invalid: {error}"
        ) from error


def _configured(
    contents: Contents,
    translation: transformers.Translation,
    family: Family,
    hint: str,
    version: int | None,
    max_depth: float | None,
) -> tuple[Config, list[Note]]:
    """The configuration and notes. A config.json beside the file takes precedence over its name."""
    origin = spelling.DISTILL if spelling.is_distill(contents.tensors) else ""
    given = Given(contents.name, translation.tensors, translation.name, origin)

    def configure(hint: str, version: int | None, max_depth: float | None) -> tuple[Config, list[Note]]:
        return family.configure(given, hint, version, max_depth)

    described = _beside(contents, translation, "config.json") if translation.family else None
    if translation.family is None or described is None:
        config, notes = configure(hint, version, max_depth)
    else:
        facts = transformers_config.stated_facts(
            contents.name,
            described,
            translation.family,
            lambda version: configure("", version, None)[0],
            version,
            max_depth,
        )
        config, notes = configure("", facts.version, facts.max_depth)
        stated = {note.fact: note for note in facts.notes}
        notes = [stated.get(note.fact, note) for note in notes]
    if prepared := _beside(contents, translation, preprocessor.FILE):
        config, more = preprocessor.apply(contents.name, prepared, config)
        notes = [*notes, *more]
    return config, notes


def _beside(contents: Contents, translation: transformers.Translation, name: str) -> dict[str, object] | None:
    """A JSON file beside the weights, if it describes them: it does in the folders that transformers writes."""
    if contents.path is None or not (translation.family or contents.path.name.partition(".")[0] in GENERIC):
        return None
    path = contents.path.with_name(name)
    return files.read_json(path) if path.exists() else None


def _describe(contents: Contents, config: Config, notes: list[Note]) -> Recognised:
    tensors = contents.tensors.values()
    return Recognised(
        source=contents.name,
        config=config,
        notes=tuple(notes),
        tensors=len(tensors),
        parameters=sum(t.numel() for t in tensors),
        bytes=sum(t.numel() * t.element_size() for t in tensors),
    )


def _matched(
    recognised: Recognised,
    model: DPT,
    translation: transformers.Translation,
    theirs: Mapping[str, str],
    unused: Mapping[str, tuple[int, ...]],
) -> dict[str, tuple[str, ...]]:
    """Our key -> the keys of its tensors; CheckpointError unless they are exactly those of the configuration.

    theirs: our key -> the original key. unused: original keys that may be present and are never read, with shapes.
    """
    tensors = translation.tensors
    expected = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    shapes = {theirs[key]: shape for key, shape in expected.items()} | dict(unused)
    missing = [name for key in expected if theirs[key] not in tensors for name in translation.missing(theirs[key])]
    extra = sorted([translation.name(key) for key in tensors if key not in shapes] + translation.leftover)
    wrong = {
        translation.name(key): (tuple(tensors[key].shape), shape)
        for key, shape in shapes.items()
        if key in tensors and tuple(tensors[key].shape) != shape
    }
    odd = {
        translation.name(key): tensors[key].dtype
        for key in theirs.values()
        if key in tensors and tensors[key].dtype not in DTYPES
    }
    problems = [
        f"{len(keys)} {what}: {first_few(keys)}"
        for what, keys in (
            ("tensors are missing", missing),
            ("tensors do not belong to it", extra),
            ("tensors have the wrong shape", [f"{key} is {a}, expected {b}" for key, (a, b) in wrong.items()]),
            ("tensors are not 16-, 32- or 64-bit floating point", list(odd)),
        )
        if keys
    ]
    if problems:
        raise CheckpointError(
            f"{recognised.source} was recognised as {recognised.title}, but {'; '.join(problems)}. "
            "Nothing was loaded. Check which model the file belongs to; if it should be this one, compare its size or "
            "sha256 with the published one",
            missing=missing,
            unexpected=extra,
            shapes=wrong,
            dtypes=odd,
        )
    return {key: translation.sources[theirs[key]] for key in expected}


def _skeleton(recognised: Recognised) -> DPT:
    """The model on the meta device."""
    try:
        return saveable.skeleton(recognised.config)
    except (ValueError, TypeError, RuntimeError, ArithmeticError, IndexError) as error:
        raise CheckpointError(
            f"{recognised.source} was recognised as {recognised.title}, but no model can have its sizes "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        ) from error


def _check_numbers(contents: Contents) -> None:
    """Refuse keys with large numbers: the highest one gives a model its depth, and describing a block takes time."""
    most = min(max(len(contents.tensors), 64), saving.MOST_BLOCKS)
    for key in contents.tensors:
        if any(len(number) > 6 or int(number) >= most for number in re.findall(r"(?:^|\.)(\d+)(?=\.|$)", key)):
            raise CheckpointError(
                f"{contents.name} holds {len(contents.tensors)} tensors, but a key has a number of {most} or more: "
                f"{first_few([key])}. The file is damaged or does not hold a known model"
            )
