"""The tensors of a checkpoint, whatever file they came from, and the error for checkpoints that cannot be used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from ..errors import DPTError
from ..printable import printable

WRAPPERS = ("model", "state_dict", "model_state_dict")  # keys under which training scripts store the weights
PREFIXES = ("module.", "_orig_mod.", "model.")  # added to keys by DataParallel, torch.compile and Lightning
SHOWN = 5  # keys listed in a message before "and N more"


class CheckpointError(DPTError, ValueError):
    """A checkpoint that cannot be read safely, is damaged, or does not belong to a known model.

    Attributes:
        missing: Keys that the recognised model needs and the checkpoint lacks.
        unexpected: Keys of the checkpoint that the recognised model does not have.
        shapes: Key -> (shape found, shape expected), for tensors of the wrong shape.
        dtypes: Key -> dtype, for tensors that are not floating point.

    The four are empty unless the tensors were compared with a recognised model.
    """

    def __init__(
        self,
        message: str,
        *,
        missing: Iterable[str] = (),
        unexpected: Iterable[str] = (),
        shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] | None = None,
        dtypes: Mapping[str, torch.dtype] | None = None,
    ) -> None:
        super().__init__(message)
        self.missing = tuple(missing)
        self.unexpected = tuple(unexpected)
        self.shapes = dict(shapes or {})
        self.dtypes = dict(dtypes or {})


@dataclass(frozen=True)
class Contents:
    """The tensors of a checkpoint, and the other facts that its file states."""

    name: str  # what messages call the checkpoint: its path, or "the given state dict"
    tensors: dict[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)  # from a safetensors header
    path: Path | None = None  # the file, or the index of a sharded checkpoint; None for a state dict
    places: Mapping[str, tuple[Path, str]] = field(default_factory=dict)  # key -> safetensors file, key in that file

    def remapped(self, keys: Iterable[str]) -> list[Tensor]:
        """These tensors from a second memory map, which is released together with the result.

        A page of a mapped file counts towards the memory of the process from its first use until the map is released.
        The map behind `tensors` lives as long as the model, so code that only copies a tensor should read it from here.
        """
        opened: dict[Path, safe_open] = {}
        tensors = []
        for key in keys:
            if key not in self.places:
                tensors.append(self.tensors[key])
                continue
            path, stored = self.places[key]
            if path not in opened:
                opened[path] = safe_open(path, framework="pt")
            tensors.append(opened[path].get_tensor(stored))
        return tensors


def of_mapping(state: Mapping[str, Tensor]) -> Contents:
    """The contents of a state dict that the caller holds in memory."""
    return from_loaded("the given state dict", state)


def from_loaded(
    name: str,
    loaded: object,
    metadata: Mapping[str, str] | None = None,
    path: Path | None = None,
    mapped: Mapping[str, Path] | None = None,
) -> Contents:
    """The contents of an unpickled or parsed file. mapped: stored key -> file that can be mapped again."""
    tensors, renamed = unwrap(loaded, name)
    mapped = mapped or {}
    places = {key: (mapped[stored], stored) for key, stored in renamed.items() if stored in mapped}
    return Contents(name, tensors, metadata or {}, path, places)


def unwrap(loaded: object, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Take the state dict out of {"model": ...} wrappers, and prefixes such as module. off its keys.

    Returns:
        (state dict, its keys -> keys as stored)

    Raises:
        CheckpointError: The object is not a state dict of dense tensors.
    """
    for _ in WRAPPERS:
        for wrapper in WRAPPERS:
            if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
                loaded = loaded[wrapper]
                break
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"{name} holds a {type(loaded).__name__}, expected a state dict (names -> tensors)")
    if not loaded:
        raise CheckpointError(f"{name} holds an empty state dict")
    for key, value in loaded.items():
        if not (isinstance(key, str) and isinstance(value, Tensor)):
            shown = printable(repr(key))
            raise CheckpointError(f"{name} is not a state dict of tensors: {shown} is a {type(value).__name__}")
        if value.layout is not torch.strided or value.is_quantized or value.is_nested:
            raise CheckpointError(
                f"{name} holds {printable(key)} as a sparse or quantised tensor. Save it as a dense tensor"
            )
    renamed = {key: key for key in loaded}
    for _ in PREFIXES:  # several wrappers may be nested, in any order
        for prefix in PREFIXES:
            if all(key.startswith(prefix) for key in renamed):
                renamed = {key.removeprefix(prefix): stored for key, stored in renamed.items()}
    return {key: loaded[stored] for key, stored in renamed.items()}, renamed


def first_few(keys: Iterable[str]) -> str:
    """The first few keys and the number of the rest, on one line even if a damaged file has unprintable keys."""
    keys = list(keys)
    shown = ", ".join(printable(key) for key in keys[:SHOWN])
    return shown + (f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else "")


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type if it has none."""
    return printable(str(error).strip().split("\n")[0], 300) or type(error).__name__
