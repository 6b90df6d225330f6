"""Reading tensors from files without running anything that is in them."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

WRAPPERS = ("model", "state_dict", "model_state_dict")  # what training scripts put the weights under
PREFIXES = ("module.", "_orig_mod.", "model.")  # what DataParallel, torch.compile and Lightning put before keys


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, is damaged, or is of no known model."""


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or PyTorch file, memory-mapped where the format allows it.

    The format is told by the contents, not the name. PyTorch files go through torch.load(weights_only=True), which
    refuses anything but tensors and plain containers.
    """
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; give the checkpoint file in it")
    try:
        with open(path, "rb") as file:
            start = file.read(16)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    if not start:
        raise CheckpointError(f"{path} is empty; get the file again")
    if start.startswith(b"version https://"):
        raise CheckpointError(f"{path} is a Git LFS pointer, not the weights; fetch the real file (git lfs pull)")
    if start.lstrip()[:1] == b"<":
        raise CheckpointError(f"{path} is a web page, not a checkpoint; the download was probably refused")
    # A safetensors file starts with the length of its JSON header, then the header.
    if path.suffix == ".safetensors" or start[8:9] == b"{":
        return _read_safetensors(path)
    return unwrap(_read_torch(path, zipped=start.startswith(b"PK")), str(path))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return unwrap(load_file(path), str(path))
    except (safetensors.SafetensorError, OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{path} is not a complete safetensors file ({error}); get the file again and compare its size or sha256"
        ) from error


def _read_torch(path: Path, zipped: bool) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is not a plain file of weights: {_first_line(error)} Files that need code to be run are never "
            "loaded; save the state dict alone, best as .safetensors"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, TypeError, zipfile.BadZipFile, AttributeError) as e:
        raise CheckpointError(
            f"{path} is not a complete PyTorch or safetensors file ({_first_line(e)}); get the file again and "
            "compare its size or sha256"
        ) from e


def unwrap(loaded: object, name: str) -> dict[str, Tensor]:
    """The state dict inside what was saved: out of a {"model": ...} wrapper, without module. prefixes."""
    for wrapper in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
            break
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"{name} holds a {type(loaded).__name__}, not a state dict (names -> tensors)")
    if not loaded:
        raise CheckpointError(f"{name} holds an empty state dict")
    odd = [str(key) for key, value in loaded.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if odd:
        raise CheckpointError(
            f"{name} is not a state dict of tensors: {odd[0]!r} is a {type(loaded.get(odd[0])).__name__}"
        )
    state = dict(loaded)
    for prefix in PREFIXES:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): tensor for key, tensor in state.items()}
    return state


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
