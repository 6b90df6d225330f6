"""From a file to a model: read tensors safely, recognise family and sizes from them, build, and load strictly.

Reading never runs code from the file (`files`). Each family brings one module here that recognises its checkpoints and
maps their keys (`depth_anything`). Loading accounts for every tensor: one that is missing, left over or of the wrong
shape is an error that says what was recognised, because a model with a few random weights draws plausible pictures.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ..config import Config
from ..model import DPT
from . import depth_anything
from .files import CheckpointError, read_state, unwrap

__all__ = ["CheckpointError", "Recognised", "inspect", "load"]


class Family(Protocol):
    """What each family's module here provides."""

    def recognises(self, state: Mapping[str, Tensor], /) -> bool: ...
    def configure(
        self, name: str, state: Mapping[str, Tensor], hint: str, version: int | None, max_depth: float | None, /
    ) -> tuple[Any, list[str]]: ...
    def key_map(self, config: Any, /) -> dict[str, str]: ...
    def unused(self, config: Any, /) -> dict[str, tuple[int, ...]]: ...


FAMILIES: tuple[Family, ...] = (depth_anything,)
SHOWN = 5  # keys listed in an error before "and N more"

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
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> DPT:
    """A trained model, ready to predict: in eval mode, its parameters frozen.

    source: "demo" (the model that comes with the package); a .safetensors, .pth or .pt file; or a state dict.
    version: 1 or 2, for Depth-Anything; tensors cannot tell. Default: from the file's name, else 2 with a warning.
    max_depth: the range in metres of a metric model (20.0 for Hypersim, 80.0 for Virtual KITTI weights). Default: from
        the file's name, else a relative model.
    device, dtype: where the weights go, and as what. A state dict given in that device and dtype is not copied: the
        model shares its memory.

    Raises CheckpointError for a file that cannot be read safely or is no known model, FileNotFoundError for none.
    """
    name, state = _open(source)
    family, recognised = _recognise(name, state, source, version, max_depth)
    state = _renamed(state, family, recognised)
    for key, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(
                f"{name} was recognised as {_title(recognised.config)}, but the weights of {key} hold NaN or infinity; "
                "get the file again, or a checkpoint saved before training diverged"
            )
    with torch.device("meta"):  # no memory and no random numbers for weights that are replaced at once
        model = DPT(recognised.config)
    model.load_state_dict({k: v.to(device, dtype) for k, v in state.items()}, assign=True)
    for note in recognised.notes:
        if note.startswith("assumed"):
            warnings.warn(f"{name}: {note}", UserWarning, stacklevel=2)
    return model.eval().requires_grad_(False)


def inspect(source: Source, *, version: int | None = None, max_depth: float | None = None) -> Recognised:
    """What `load` would make of a checkpoint, without building the model. Raises as `load` does."""
    name, state = _open(source)
    family, recognised = _recognise(name, state, source, version, max_depth)
    _renamed(state, family, recognised)
    return recognised


def _open(source: Source) -> tuple[str, dict[str, Tensor]]:
    if isinstance(source, Mapping):
        return "the given state dict", unwrap(dict(source), "the given state dict")
    if isinstance(source, torch.nn.Module):
        raise TypeError(f"expected a file or a state dict, not a {type(source).__name__}; pass model.state_dict()")
    if not isinstance(source, str | os.PathLike):
        raise TypeError(f"expected a path, 'demo' or a state dict, not {type(source).__name__}")
    if source == "demo":
        from .. import demo

        return "the demo model", read_state(demo.weights())
    path = Path(source).expanduser()
    if not path.exists():
        raise FileNotFoundError(
            f"no checkpoint at {str(source)!r}; give the path of a .safetensors, .pth or .pt file, "
            "or 'demo' for the model that comes with the package"
        )
    return str(source), read_state(path)


def _recognise(
    name: str, state: dict[str, Tensor], source: Source, version: int | None, max_depth: float | None
) -> tuple[Family, Recognised]:
    for family in FAMILIES:
        if not family.recognises(state):
            continue
        hint = "demo" if isinstance(source, str) and source == "demo" else _names(source)
        config, notes = family.configure(name, state, hint, version, max_depth)
        return family, Recognised(
            source=name,
            config=config,
            notes=tuple(notes),
            tensors=len(state),
            parameters=sum(t.numel() for t in state.values()),
            bytes=sum(t.numel() * t.element_size() for t in state.values()),
        )
    raise CheckpointError(
        f"{name} holds {len(state)} tensors of no known model: {_some(state)}. Known are Depth-Anything v1 and v2 "
        "(keys pretrained.* and depth_head.*) in their original layout"
    )


def _names(source: Source) -> str:
    """What a path says about its contents: its own name, and its folder's for files called model or weights."""
    if isinstance(source, Mapping):
        return ""
    path = Path(source)
    return f"{path.resolve().parent.name}/{path.name}"


def _renamed(state: dict[str, Tensor], family: Family, recognised: Recognised) -> dict[str, Tensor]:
    """The state under our own names; CheckpointError unless the tensors are exactly those of the configuration."""
    with torch.device("meta"):
        expected = {key: tuple(t.shape) for key, t in DPT(recognised.config).state_dict().items()}
    theirs = family.key_map(recognised.config)  # our key -> the checkpoint's
    unused = family.unused(recognised.config)  # the checkpoint's key -> shape: stored, never read
    missing = [theirs[key] for key in expected if theirs[key] not in state]
    extra = sorted(state.keys() - set(theirs.values()) - unused.keys())
    shapes = {theirs[key]: shape for key, shape in expected.items()} | unused
    wrong = [
        f"{key} is {tuple(state[key].shape)}, expected {shape}"
        for key, shape in shapes.items()
        if key in state and tuple(state[key].shape) != shape
    ]
    floating = [key for key in theirs.values() if key in state and not state[key].is_floating_point()]
    problems = [
        f"{len(keys)} {what}: {_some(keys)}"
        for what, keys in (
            ("tensors are missing", missing),
            ("tensors do not belong to it", extra),
            ("tensors have the wrong shape", wrong),
            ("tensors are not floating point", floating),
        )
        if keys
    ]
    if problems:
        raise CheckpointError(
            f"{recognised.source} was recognised as {_title(recognised.config)}, but {'; '.join(problems)}. "
            "Nothing was loaded; get the file again or check which model it belongs to"
        )
    return {key: state[theirs[key]] for key in expected}


def _title(config: Config) -> str:
    return f"{config.family} {config.variant}"


def _some(keys: Iterable[str]) -> str:
    keys = list(keys)
    return ", ".join(keys[:SHOWN]) + (f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else "")
