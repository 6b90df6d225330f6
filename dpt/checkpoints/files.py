"""Reads checkpoint files without running code from them.

Three formats are supported:

* safetensors, as one file or as shards under an index
* PyTorch's zip archives
* PyTorch's format before 1.6

The contents decide which format a file has, its name does not. Files of the first two formats are memory-mapped, so
reading them takes almost no memory. `torch_files` reads PyTorch's formats and says why that is safe.

Damage. A safetensors header must describe the file without gaps or overlaps, but the format has no checksum: a bit
flipped inside a weight goes unnoticed. `dpt.save` adds a checksum of its own, and zip archives have one. For other
files, compare the sha256 of a download with the published one.

Limits. A mapped file must not be overwritten in place while the model is in use. Replacing it by a rename, as most
programs save, is safe. This module checks format and damage only; the other modules of this package decide which model
the tensors belong to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from .contents import CheckpointError, Contents, first_few, first_line, from_loaded
from .torch_files import read_torch

IN_FOLDERS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
OTHERS = {  # first bytes of files that users pass by mistake
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"\x89HDF": "an HDF5 file, perhaps from Keras",
    b"\x1f\x8b": "a gzip file",
    b"%PDF": "a PDF document",
    b"\x93NUMPY": "a NumPy array",
}
LONGEST_JSON = 100_000_000  # bytes; the index of a model with many shards has about 100 kB


def read(path: Path, whole: bool = True) -> Contents:
    """Read a checkpoint file, an index of shards, or a folder that holds one of them.

    Args:
        path: The file or folder.
        whole: Compare all checksums. Otherwise skip entries above 1 MB, to avoid reading the whole file.

    Returns:
        The tensors, mapped from the file where the format allows it.

    Raises:
        CheckpointError: The file cannot be read, is damaged or is not a checkpoint.
    """
    if path.is_dir():
        path = _in_folder(path)
    if path.suffix == ".json":
        return _read_shards(path, whole)
    loaded, metadata, mapped = _read_file(path, whole)
    return from_loaded(str(path), loaded, metadata, path, dict.fromkeys(mapped, path))


def read_json(path: Path) -> dict[str, object]:
    """Read a JSON object from a file; CheckpointError for anything else."""
    try:
        with open(path, "rb") as file:
            text = file.read(LONGEST_JSON + 1)
        if len(text) > LONGEST_JSON:
            raise CheckpointError(f"{path} has more than {LONGEST_JSON} bytes, too many for an index or config.json")
        value = json.loads(text)
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON ({first_line(error)}). Get the file again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a {type(value).__name__}, expected a JSON object. Get the file again")
    return value


def _in_folder(folder: Path) -> Path:
    """The checkpoint in a folder: one of the names that Hugging Face uses, else the only file with a known suffix."""
    try:
        for name in IN_FOLDERS:
            if (folder / name).is_file():
                return folder / name
        found = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file())
    except OSError as error:
        raise CheckpointError(f"{folder} is a folder that cannot be read: {error.strerror or error}") from error
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} ({first_few(path.name for path in found)}). Pass the path of one of them" if found else "none"
    raise CheckpointError(
        f"{folder} is a folder. Expected one checkpoint in it ({', '.join(IN_FOLDERS[:2])} or a single "
        f"{', '.join(SUFFIXES)} file), found {what}"
    )


def _read_shards(path: Path, whole: bool) -> Contents:
    """The tensors of several files, listed by an index: {"weight_map": {key: file beside the index}}."""
    index = read_json(path).get("weight_map")
    if not (isinstance(index, dict) and index and all(isinstance(shard, str) for shard in index.values())):
        raise CheckpointError(
            f"{path} is not an index of checkpoint shards: it lacks a weight_map from tensors to file names. Pass the "
            "checkpoint file or its folder"
        )
    shards: dict[str, set[str]] = {}
    for key, shard in index.items():
        shards.setdefault(shard, set()).add(key)
    if strange := [shard for shard in shards if shard in ("", ".", "..") or any(c in shard for c in "/\\:\0")]:
        raise CheckpointError(
            f"{path} names shards outside its own folder, which are never opened: {first_few(strange)}"
        )
    if absent := [shard for shard in shards if not (path.parent / shard).is_file()]:
        raise CheckpointError(
            f"{path} names {len(shards)} shards, {len(absent)} of them missing: {first_few(absent)}. Get all shards"
        )
    state: dict[str, object] = {}
    mapped: dict[str, Path] = {}
    for shard, keys in shards.items():
        file = path.parent / shard
        loaded, _, in_place = _read_file(file, whole)
        if not isinstance(loaded, Mapping):
            raise CheckpointError(f"{file} holds a {type(loaded).__name__}, expected a state dict (names -> tensors)")
        for problem, odd in (("lacks", keys - loaded.keys()), ("also holds", loaded.keys() - keys)):
            if odd:
                raise CheckpointError(
                    f"{file} does not match {path.name}: it {problem} {len(odd)} tensors: "
                    f"{first_few(sorted(map(str, odd)))}. Get the index and the shards again"
                )
        state |= loaded
        mapped |= dict.fromkeys(in_place, file)
    return from_loaded(str(path), state, {}, path, mapped)


def _read_file(path: Path, whole: bool) -> tuple[object, Mapping[str, str], list[str]]:
    """(the saved object, metadata, keys of the tensors that can be mapped a second time)."""
    if not path.is_file():  # opening a pipe would block
        raise CheckpointError(f"{path} is not a regular file")
    try:
        with open(path, "rb") as file:
            start = file.read(16)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    if not start:
        raise CheckpointError(f"{path} is empty. Get the file again")
    if start.startswith(b"version https://"):
        raise CheckpointError(f"{path} is a Git LFS pointer, not the weights. Fetch the file with git lfs pull")
    if start.lstrip()[:1] == b"<":
        raise CheckpointError(f"{path} is a web page, not a checkpoint. The server probably refused the download")
    # A safetensors file starts with the length of its JSON header (8 bytes), then the header.
    if path.suffix == ".safetensors" or start[8:9] == b"{":
        tensors, metadata = _read_safetensors(path)
        return tensors, metadata, list(tensors)
    if not start.startswith((b"PK", b"\x80")):  # a zip archive, or a pickle of protocol 2 and later
        kind = next((kind for begin, kind in OTHERS.items() if start.startswith(begin)), "")
        raise CheckpointError(
            f"{path} is {f'{kind}, ' if kind else ''}not a checkpoint. Expected a safetensors file, or a file written "
            "by torch.save (.pth, .pt, .bin)"
        )
    return read_torch(path, start.startswith(b"PK"), whole), {}, []


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118 - no mapping
    except Exception as error:  # a damaged header can fail at any step of the parser or of torch's views
        raise CheckpointError(
            f"{path} is not a complete safetensors file ({first_line(error)}). Get the file again and compare its size "
            "or sha256"
        ) from error
