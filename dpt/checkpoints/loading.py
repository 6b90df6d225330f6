"""`dpt.load` and `dpt.inspect`."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor

from ..errors import InvalidTypeError, MissingFileError
from ..fingerprint import fingerprint
from ..machine import checked_device, fast_dtype
from ..model import DPT
from ..scalars import plain
from . import files, lookup, origins
from .contents import Contents, of_mapping
from .depth_anything import VARIANTS
from .errors import CheckpointError
from .lookup import Source
from .recognition import GENERIC, Found, Recognised, recognise
from .saveable import DTYPES
from .saving import stored_name
from .stored import Identity
from .values import Mapped, NotFiniteError, Values


def load(
    source: Source,
    *,
    version: int | None = None,
    max_depth: float | None = None,
    revision: str | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | Literal["auto"] | None = None,
    mmap: bool = False,
) -> DPT:
    """Load a trained model, ready to predict: in eval mode, with its parameters frozen.

    The model owns its memory: the file may be overwritten or deleted afterwards. Loading takes little more memory than
    the weights.

    Args:
        source: One of

            * "demo": the model that comes with the package
            * a .safetensors, .pth or .pt file in the original layout, in that of Hugging Face transformers, or written
              by `save`
            * the index of a checkpoint in shards
            * a folder that holds one of these, with config.json and preprocessor_config.json if there are any
            * a name listed by `available()`: a file in a folder weights/, or a known checkpoint, which is downloaded
              and verified on first use
            * a state dict

            Weights inside other dicts, behind prefixes of keys, and beside other networks are found. If there are
            several sets, averaged ones (EMA, SWA) are taken first, then "model"; a warning names the choice.
        version: 1 or 2, for Depth-Anything, whose tensors do not show it. Default: from config.json beside a file in
            the transformers layout, else from the name of the file (or of its folder, for a file called model,
            pytorch_model, weights or checkpoint), else 2 with a warning.
        max_depth: Range of a metric model in metres (20.0 for Hypersim, 80.0 for Virtual KITTI weights). Default: from
            config.json or the name, else a relative model.
        revision: Branch, tag or commit of a known checkpoint's repository. Default: its main branch.
        device: Where the weights go.
        dtype: Dtype of the weights. None: float32, or the stored dtype for a file written by `save`. "auto": the
            fastest dtype on this device that is accurate enough, bfloat16 on most recent processors
            (tests/benchmarks/RESULTS.md has the numbers). Depth is always float32.
        mmap: Use the weights in place, in the file, where they already have the requested dtype and device. Processes
            that load the same file then share its memory. Danger: writing to the file changes the model, and truncating
            it can kill the process. A changed file is noticed and refused when the model is next called, saved or
            copied, but a model in use cannot be protected. Replacing the file by a rename, as `save` does, is safe.

    Returns:
        The model. If a state dict already has the requested device and dtype, the model shares its memory.

    Raises:
        CheckpointError: The file cannot be read safely, is damaged, changes while it is read, or does not hold a known
            model.
        FileNotFoundError: No such file or name.
        PermissionError: The file or the repository may not be read.
        ConnectionError: A download failed.
        TypeError: `source`, `version`, `max_depth`, `dtype` or `mmap` has the wrong type.
        ValueError: `device` is not available, or `revision` was given for another source than a known checkpoint.

    Example:
        >>> model = dpt.load("demo")
        >>> depth = model.predict(dpt.read_image("photo.jpg"))
    """
    device = checked_device(device)
    if dtype == "auto":
        dtype = fast_dtype(device)
    elif not (dtype is None or dtype in DTYPES):
        raise InvalidTypeError(
            f'dtype must be {", ".join(map(str, DTYPES))}, or "auto" for the fastest of them on this device, '
            f"got {dtype!r}"
        )
    if not isinstance(mmap, bool):
        raise InvalidTypeError(f"mmap must be True or False, got {mmap!r}")
    with _open(source, version, max_depth, revision) as opened:
        found = recognise(*opened.arguments)
        model = _filled(found, device, dtype, Mapped() if mmap else None)
    model.name = opened.name or _name(found.contents, model)
    given: dict[str, object] = {"version": version, "max_depth": max_depth, "revision": revision, "dtype": dtype}
    if device.type != "cpu":
        given["device"] = device
    if not mmap:
        origins.remember(model, source, {name: value for name, value in given.items() if value is not None})
    for note in found.recognised.notes:
        if note.assumed:
            warnings.warn(f"{found.recognised.source}: {note}", UserWarning, stacklevel=2)
    return model


def _filled(found: Found, device: torch.device, dtype: torch.dtype | None, mapped: Mapped | None) -> DPT:
    """The model with the values of its checkpoint. mapped: uses values in place where possible."""
    recognised, contents, model, sources, checksum = found
    if dtype is None and checksum is None:
        dtype = torch.float32
    values = Values(contents, mapped)
    state: dict[str, Tensor] = {}
    for key, stored in sorted(sources.items()):  # the order of the checksum
        if checksum:
            checksum.begin(key, contents.tensors[stored[0]].dtype, tuple(contents.tensors[stored[0]].shape))
        try:
            state[key] = values.read(stored, dtype, device, *([checksum.update] if checksum else []))
        except CheckpointError as error:
            for file in contents.files:  # the reason, if somebody writes to it
                file.check_unchanged()
            if not isinstance(error, NotFiniteError):
                raise
            raise CheckpointError(
                f"{recognised.source} was recognised as {recognised.title}, but the weights of {error} contain NaN or "
                "infinity. Get the file again, or use a checkpoint saved before training diverged"
            ) from error
    for file in contents.files:
        file.check_unchanged()
    if checksum:
        checksum.compare()
    model.load_state_dict(state, assign=True)
    if mapped and mapped.maps:
        mapped.watch(model)
    for file in contents.files:
        file.check_unchanged()
    return model.eval().requires_grad_(False)


def inspect(
    source: Source, *, version: int | None = None, max_depth: float | None = None, revision: str | None = None
) -> Recognised:
    """Describe the model that `load` would build, without reading all weights.

    Args:
        source: As for `load`.
        version: As for `load`.
        max_depth: As for `load`.
        revision: As for `load`.

    Returns:
        The configuration, sizes, and notes on the facts that the tensors do not show.

    Raises:
        The same errors as `load`.

    Example:
        >>> dpt.inspect("demo").config.depth
        12
    """
    with _open(source, version, max_depth, revision) as opened:
        return recognise(*opened.arguments).recognised


def is_demo(model: DPT) -> bool:
    """Whether a model has the weights of the demo model, in any dtype and under any name.

    The demo model trained further has other weights. Weights that cannot be compared, because they are quantised or
    offloaded, count by the model's name.
    """
    if VARIANTS.get((model.config.width, model.config.depth)) != "demo":  # type: ignore[call-overload]
        return False
    dtypes = {parameter.dtype for parameter in model.parameters()}
    if len(dtypes) != 1 or not dtypes <= set(DTYPES) or any(t.is_meta for t in model.parameters()):
        return model.name == "demo"
    return fingerprint(model) == _demo_fingerprint(dtypes.pop())


@functools.cache
def _demo_fingerprint(dtype: torch.dtype) -> str:
    return fingerprint(load("demo", dtype=dtype))


def _name(contents: Contents, model: DPT) -> str:
    """The name stored by `save`, else that of the file, or of its folder if the file is called model or the like."""
    stored = stored_name(contents.metadata)
    if stored and (stored != "demo" or is_demo(model)):  # the demo model, trained further, is not the demo model
        return stored
    if contents.path is None:
        return ""
    path = contents.path.absolute()
    stem = Path(path.name.removesuffix(".index.json")).stem
    if stem not in GENERIC:
        return stem
    folder = path.parent
    if folder.parent.name == "snapshots":  # models--ORGANISATION--NAME/snapshots/COMMIT, as huggingface_hub stores them
        return folder.parents[1].name.removeprefix("models--").replace("--", "/")
    return folder.name


class Opened(NamedTuple):
    """An open checkpoint: the arguments of `recognise`, and its name, if it has one besides its file's."""

    arguments: tuple[Contents, int | None, float | None, str]
    name: str


@contextmanager
def _open(source: Source, version: int | None, max_depth: float | None, revision: str | None) -> Iterator[Opened]:
    """Opens a checkpoint for the block."""
    version, max_depth = _checked_facts(source, version, max_depth)
    source, version, max_depth, verified, name = lookup.locate(source, version, max_depth, revision)
    hint = "demo" if isinstance(source, str) and source == "demo" else ""
    with _contents(source) as contents:
        if any(file.identity != verified.get(file.path, file.identity) for file in contents.files):
            raise _replaced(contents.name)
        yield Opened((contents, version, max_depth, hint), name)
    for path, identity in verified.items():  # also a config.json, which was read by its path
        if not path.exists() or Identity.of(path.stat()) != identity:
            raise _replaced(contents.name)


def _replaced(name: str) -> CheckpointError:
    return CheckpointError(f"{name} was replaced after it was verified. Load it again")


def _checked_facts(source: Source, version: object, max_depth: object) -> tuple[int | None, float | None]:
    """Version and max_depth as plain numbers. Checks that they do not contradict the demo model."""
    facts: dict[str, int | float | None] = {"version": None, "max_depth": None}
    for argument, given, expected in (("version", version, "1 or 2"), ("max_depth", max_depth, "metres, e.g. 20.0")):
        if given is None:
            continue
        number = plain(given)
        if number is None:
            raise InvalidTypeError(f"{argument} must be {expected}, got {given!r}")
        if isinstance(source, str) and source == "demo" and (argument, number) != ("version", 2):
            raise CheckpointError(
                f"The demo model is a relative model of version 2, got {argument}={given!r}. Omit {argument}"
            )
        facts[argument] = float(number) if argument == "max_depth" else number
    return cast("int | None", facts["version"]), facts["max_depth"]  # a version that is none is refused by its family


def _contents(source: Source) -> Contents:
    if isinstance(source, Mapping):
        return of_mapping(source)
    if isinstance(source, DPT):
        raise InvalidTypeError("source must be a file or a state dict, got a loaded model. Use the model directly")
    if isinstance(source, torch.nn.Module):
        raise InvalidTypeError(
            f"source must be a file or a state dict, got a {type(source).__name__}. Pass its state_dict()"
        )
    if not isinstance(source, str | os.PathLike):
        raise InvalidTypeError(f"source must be a path, 'demo' or a state dict, got {type(source).__name__}")
    if source == "demo":
        return replace(files.read(lookup.DEMO), name="the demo model")
    path = Path(source).expanduser()
    if not path.exists():
        raise MissingFileError(
            f"no checkpoint at {str(source)[:500]!r}. Pass the path of a .safetensors, .pth or .pt file, "
            "or 'demo' for the model that comes with the package"
        )
    return files.read(path)
