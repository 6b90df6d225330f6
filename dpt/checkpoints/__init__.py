"""From a file to a model: read tensors safely, recognise family and sizes from them, build, and load strictly.

Reading never runs code from the file (`files`). Each family brings one module here that recognises its checkpoints in
the original layout and maps their keys (`depth_anything`, `beit`, `swinv2`); the layout of Hugging Face transformers
is turned into the original one first (`transformers`), and files of our own say what they hold (`saving`). Loading
accounts for every tensor: one that is missing, left over or of the wrong shape is an error that says what was
recognised, because a model with a few random weights draws plausible pictures.

Nothing is copied that need not be: the file is mapped, the model is built without memory, and the mapped tensors become
its parameters.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from ..config import Config
from ..errors import InvalidTypeError, InvalidValueError, MissingFileError
from ..machine import checked_device, fast_dtype
from ..model import DPT
from . import beit, depth_anything, files, saving, swinv2, transformers, zoo
from .files import CheckpointError, Contents, some
from .saving import save
from .zoo import available

__all__ = ["CheckpointError", "Recognised", "available", "inspect", "load", "save"]


class Family(Protocol):
    """What each family's module here provides."""

    def recognises(self, state: Mapping[str, Tensor], /) -> bool: ...
    def configure(
        self, name: str, state: Mapping[str, Tensor], hint: str, version: int | None, max_depth: float | None, /
    ) -> tuple[Any, list[str]]: ...
    def key_map(self, config: Any, /) -> dict[str, str]: ...
    def unused(self, config: Any, /) -> dict[str, tuple[int, ...]]: ...


FAMILIES: tuple[Family, ...] = (depth_anything, beit, swinv2)
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # that weights are stored in

GENERIC = ("model", "pytorch_model", "weights", "checkpoint")  # names of files that say nothing

Source = str | os.PathLike[str] | Mapping[str, Tensor]


@dataclass(frozen=True)
class Recognised:
    """What a checkpoint was found to be, and how each fact that its tensors cannot tell was settled."""

    source: str  # file, or how the mapping was given
    config: Config
    notes: tuple[str, ...]  # one sentence a fact: where version and depth range come from
    tensors: int
    parameters: int
    bytes: int


def load(
    source: Source,
    *,
    version: int | None = None,
    max_depth: float | None = None,
    revision: str | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | Literal["auto"] | None = None,
) -> DPT:
    """A trained model, ready to predict: in eval mode, its parameters frozen.

    source: "demo" (the model that comes with the package); a .safetensors, .pth or .pt file in the original layout, in
        that of Hugging Face transformers, or of `save`; the index of a checkpoint in shards; a folder with one of
        these (and config.json); a name, of a file in a folder weights/ or of the zoo (`available()` lists both), which
        is downloaded and checked if need be; or a state dict.
    version: 1 or 2, for Depth-Anything; tensors cannot tell. Default: from config.json beside a file in the
        transformers layout, else from the file's name (its folder's, for a file called model, pytorch_model, weights or
        checkpoint), else 2 with a warning.
    max_depth: the range in metres of a metric model (20.0 for Hypersim, 80.0 for Virtual KITTI weights). Default: from
        config.json or that name, else a relative model.
    revision: a branch, tag or commit of a zoo checkpoint's repository. Default: its main branch.
    device, dtype: where the weights go, and as what. dtype None is float32, but for a file of `save`, which keeps its
        own; "auto" is the fastest that serves on this device, bfloat16 on most processors of the last years
        (tests/benchmarks/RESULTS.md says how much faster, and how far off). Depth is float32 always. A state dict given
        in that device and dtype is not copied: the model shares its memory.

    Raises CheckpointError for a file that cannot be read safely, is damaged or is no known model, FileNotFoundError for
    none.
    """
    device = checked_device(device)
    if dtype == "auto":
        dtype = fast_dtype(device)
    elif not (dtype is None or dtype in DTYPES):
        raise InvalidTypeError(
            f'dtype is {dtype!r}; give {", ".join(map(str, DTYPES))}, or "auto" for the fastest of them here'
        )
    _check_facts(source, version, max_depth)
    source, version, max_depth = zoo.locate(source, version, max_depth, revision)
    recognised, model, state, keeps_dtype = _read(source, version, max_depth, whole=True)
    for key, tensor in state.items():
        if tensor.is_meta:
            raise CheckpointError(f"{recognised.source} holds shapes without values: {key} is on the meta device")
        # The smallest and the largest value tell, and take no memory to find.
        if not all(bound.isfinite() for bound in torch.aminmax(tensor.detach())):
            raise CheckpointError(
                f"{recognised.source} was recognised as {_title(recognised.config)}, but the weights of {key} hold NaN "
                "or infinity; get the file again, or a checkpoint saved before training diverged"
            )
    if dtype is None and not keeps_dtype:
        dtype = torch.float32
    # Detached, so that the parameters of a model that gave its state are not frozen below.
    model.load_state_dict({key: t.detach().to(device, dtype or t.dtype) for key, t in state.items()}, assign=True)
    for note in recognised.notes:
        if note.startswith("assumed"):
            warnings.warn(f"{recognised.source}: {note}", UserWarning, stacklevel=2)
    return model.eval().requires_grad_(False)


def inspect(
    source: Source, *, version: int | None = None, max_depth: float | None = None, revision: str | None = None
) -> Recognised:
    """What `load` would make of a checkpoint, found without reading all of it. Raises as `load` does."""
    _check_facts(source, version, max_depth)
    source, version, max_depth = zoo.locate(source, version, max_depth, revision)
    return _read(source, version, max_depth, whole=False).recognised


def _check_facts(source: Source, version: object, max_depth: object) -> None:
    for argument, given, example in (("version", version, "1 or 2"), ("max_depth", max_depth, "metres, as in 20.0")):
        if given is None:
            continue
        if not isinstance(given, int | float) or isinstance(given, bool):
            raise InvalidTypeError(f"{argument} is {given!r}; expected {example}")
        if source == "demo" and (argument, given) != ("version", 2):
            raise CheckpointError(
                f"the demo model is relative and of version 2, but {argument}={given!r} was asked for; leave "
                f"{argument} out"
            )


class _Found(NamedTuple):
    """What a checkpoint is, and all that it takes to build it."""

    recognised: Recognised
    model: DPT  # on the meta device
    state: dict[str, Tensor]  # under our own names
    keeps_dtype: bool


def _read(source: Source, version: int | None, max_depth: float | None, whole: bool) -> _Found:
    contents = _open(source, whole)
    if saving.is_ours(contents.metadata):
        return _saved(contents, version, max_depth, whole)
    return _recognise(contents, "demo" if source == "demo" else _hint(contents), version, max_depth)


def _open(source: Source, whole: bool) -> Contents:
    if isinstance(source, Mapping):
        return files.of_mapping(source)
    if isinstance(source, DPT):
        raise InvalidTypeError("expected a file or a state dict, not a model that is loaded already; use it as it is")
    if isinstance(source, torch.nn.Module):
        raise InvalidTypeError(f"expected a file or a state dict, not a {type(source).__name__}; pass its state_dict()")
    if not isinstance(source, str | os.PathLike):
        raise InvalidTypeError(f"expected a path, 'demo' or a state dict, not {type(source).__name__}")
    if source == "demo":
        from .. import demo

        return replace(files.read(demo.weights(), whole), name="the demo model")
    path = Path(source).expanduser()
    if not path.exists():
        raise MissingFileError(
            f"no checkpoint at {str(source)!r}; give the path of a .safetensors, .pth or .pt file, "
            "or 'demo' for the model that comes with the package"
        )
    return files.read(path, whole)


def _hint(contents: Contents) -> str:
    """What a path says about its contents: its own name, or its folder's where files are called as in any folder."""
    if contents.path is None:
        return ""
    path = contents.path.absolute()
    return path.parent.name if path.name.partition(".")[0] in GENERIC else path.name


def _saved(contents: Contents, version: int | None, max_depth: float | None, whole: bool) -> _Found:
    config = saving.config_of(contents)
    recognised = _recognised(contents, config, ["as dpt.save wrote it"])
    for argument, asked, stated in (
        ("version", version, getattr(config, "version", None)),
        ("max_depth", max_depth, config.max_depth),
    ):
        if asked is not None and asked != stated:
            raise CheckpointError(
                f"{contents.name} was saved with {argument}={stated!r}, but {argument}={asked!r} was asked for; leave "
                f"{argument} out"
            )
    model = _skeleton(recognised)
    state = _matched(
        recognised, model, transformers.untranslated(contents), {key: key for key in model.state_dict()}, {}
    )
    if whole:
        saving.verify(contents)
    return _Found(recognised, model, state, keeps_dtype=True)


def _recognise(contents: Contents, hint: str, version: int | None, max_depth: float | None) -> _Found:
    _check_numbers(contents)
    translate = transformers.to_original if transformers.recognises(contents.tensors) else transformers.untranslated
    translation = translate(contents)
    family = next((family for family in FAMILIES if family.recognises(translation.tensors)), None)
    if family is None:
        if "encoder.blocks.0.attention.qkv.weight" in contents.tensors:
            raise CheckpointError(
                f"{contents.name} holds the tensors of a model of this package without its configuration; write the "
                "model with dpt.save(model, path), which keeps both"
            )
        raise CheckpointError(
            f"{contents.name} holds {len(contents.tensors)} tensors of no known model: {some(contents.tensors)}. Known "
            "are Depth-Anything v1 and v2 (keys pretrained.* and depth_head.*) and MiDaS v3.1 BEiT and SwinV2 "
            "(pretrained.model.* and scratch.*), and all of them in the layout of transformers (backbone.* and neck.*)"
        )
    try:
        config, notes = _configured(contents, translation, family, hint, version, max_depth)
        recognised = _recognised(contents, config, notes)
        model = _skeleton(recognised)
        state = _matched(recognised, model, translation, family.key_map(config), family.unused(config))
        return _Found(recognised, model, state, keeps_dtype=False)
    except CheckpointError as error:
        raise CheckpointError(translation.reword(str(error))) from error
    except (ValueError, IndexError, RuntimeError, ArithmeticError) as error:  # from sizes that no released model has
        raise CheckpointError(f"{contents.name} looks like a known model, but has sizes of none: {error}") from error


def _configured(
    contents: Contents,
    translation: transformers.Translation,
    family: Family,
    hint: str,
    version: int | None,
    max_depth: float | None,
) -> tuple[Config, list[str]]:
    """The configuration, and notes on what the tensors do not tell; config.json settles that where there is one."""

    def configure(hint: str, version: int | None, max_depth: float | None) -> tuple[Config, list[str]]:
        return family.configure(contents.name, translation.tensors, hint, version, max_depth)

    beside = contents.path and contents.path.with_name("config.json")
    if translation.family is None or beside is None or not beside.exists():
        return configure(hint, version, max_depth)
    settled = transformers.settle(
        contents.name,
        files.read_json(beside),
        translation.family,
        lambda version: configure("", version, None)[0],
        version,
        max_depth,
    )
    config, notes = configure("", settled.version, settled.max_depth)
    return config, [ours or theirs for ours, theirs in zip(settled.notes, notes, strict=False)]


def _recognised(contents: Contents, config: Config, notes: list[str]) -> Recognised:
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
) -> dict[str, Tensor]:
    """The tensors under our own names; CheckpointError unless they are exactly those of the configuration.

    theirs: our key -> the original one. unused: original keys that may be there and are never read, with their shapes.
    """
    tensors = translation.tensors
    expected = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    shapes = {theirs[key]: shape for key, shape in expected.items()} | dict(unused)
    missing = [name for key in expected if theirs[key] not in tensors for name in translation.missing(theirs[key])]
    extra = [translation.name(key) for key in tensors if key not in shapes] + translation.leftover
    wrong = [
        f"{translation.name(key)} is {tuple(tensors[key].shape)}, expected {shape}"
        for key, shape in shapes.items()
        if key in tensors and tuple(tensors[key].shape) != shape
    ]
    odd = [translation.name(key) for key in theirs.values() if key in tensors and tensors[key].dtype not in DTYPES]
    problems = [
        f"{len(keys)} {what}: {some(keys)}"
        for what, keys in (
            ("tensors are missing", missing),
            ("tensors do not belong to it", sorted(extra)),
            ("tensors have the wrong shape", wrong),
            ("tensors are not floating point", odd),
        )
        if keys
    ]
    if problems:
        raise CheckpointError(
            f"{recognised.source} was recognised as {_title(recognised.config)}, but {'; '.join(problems)}. "
            "Nothing was loaded; get the file again or check which model it belongs to"
        )
    return {key: tensors[theirs[key]] for key in expected}


def _skeleton(recognised: Recognised) -> DPT:
    """The model without memory for its weights, and without random numbers that are replaced at once."""
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")  # torch says so; the error is below
            model = DPT(recognised.config)
        if not all(tensor.numel() for tensor in model.state_dict().values()):
            raise InvalidValueError("a size is 0")
        return model
    except (ValueError, TypeError, RuntimeError, ArithmeticError, IndexError) as error:
        raise CheckpointError(
            f"{recognised.source} was recognised as {_title(recognised.config)}, but no model has its sizes "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        ) from error


def _check_numbers(contents: Contents) -> None:
    """Refuses keys that number parts beyond what the file can have: sizes are read off the highest number."""
    most = max(len(contents.tensors), 64)
    for key in contents.tensors:
        if any(len(number) > 6 or int(number) >= most for number in re.findall(r"(?:^|\.)(\d+)(?=\.|$)", key)):
            raise CheckpointError(
                f"{contents.name} numbers a part beyond the {len(contents.tensors)} tensors that it holds: "
                f"{some([key])}; it is damaged or of no known model"
            )


def _title(config: Config) -> str:
    return f"{config.family} {config.variant}"
