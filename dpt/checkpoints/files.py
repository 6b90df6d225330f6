"""Opens checkpoint files and finds the places of their tensors, without running code from them.

Three formats are supported:

* safetensors, as one file or as shards under an index (`safetensors_files`)
* PyTorch's zip archives, and PyTorch's format before 1.6 (`torch_files`)

The contents decide which format a file has, its name does not. Only the headers are read here. `values` reads the
weights, once the model that they belong to is known, from the same open file.

Damage. A safetensors header must describe the file without gaps or overlaps, but the format has no checksum: a bit
flipped inside a weight goes unnoticed. `dpt.save` adds a checksum of its own, and zip archives have one. For other
files, compare the sha256 of a download with the published one.

Cost. Everything that a file claims is compared with its size before memory is allocated, and every list in it has a
limit. This module checks format and damage only; the other modules of this package decide which model the tensors
belong to.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from .. import opening
from ..errors import FileTooLargeError
from .contents import Contents, first_line, of_files
from .errors import CheckpointError, first_few
from .folders import checkpoint_in
from .relatives import format_of
from .safetensors_files import read_header
from .stored import Place, StoredFile
from .torch_files import read_torch

LONGEST_JSON = 1 << 21  # bytes; the index of a model with many shards has about 100 kB
MOST_SHARDS = 200


def read(path: Path) -> Contents:
    """Open a checkpoint file, the shards of an index, or the checkpoint in a folder, and read what they describe.

    Args:
        path: The file or folder.

    Returns:
        The tensors on the meta device, and the places of their values. Its files are open; use it in a with block.

    Raises:
        CheckpointError: The file cannot be read, is damaged or is not a checkpoint.
    """
    if path.is_dir():
        path = checkpoint_in(path)
    if path.suffix == ".json":
        return _read_shards(path)
    file = StoredFile(path)
    try:
        parsed = _parse(file)
        return of_files(path, parsed.loaded, parsed.metadata, parsed.places, [file])
    except BaseException:
        file.close()
        raise


def read_json(path: Path) -> dict[str, object]:
    """Read a JSON object from a file; CheckpointError for anything else."""
    try:
        value = json.loads(opening.read_file(path, LONGEST_JSON))
    except FileTooLargeError as error:
        raise CheckpointError(
            f"{path} has more than {LONGEST_JSON} bytes, too many for an index or config.json"
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON ({first_line(error)}). Get the file again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a {type(value).__name__}, expected a JSON object. Get the file again")
    return value


def _read_shards(path: Path) -> Contents:
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
    if len(shards) > MOST_SHARDS:
        raise CheckpointError(f"{path} names {len(shards)} shards, more than the {MOST_SHARDS} that a model can have")
    if strange := [shard for shard in shards if shard in ("", ".", "..") or any(c in shard for c in "/\\:\0")]:
        raise CheckpointError(
            f"{path} names shards outside its own folder, which are never opened: {first_few(strange)}"
        )
    if absent := [shard for shard in shards if not os.path.isfile(path.parent / shard)]:
        raise CheckpointError(
            f"{path} names {len(shards)} shards, {len(absent)} of them missing: {first_few(absent)}. Get all shards"
        )
    state: dict[str, object] = {}
    places: dict[int, Place | str] = {}
    files: list[StoredFile] = []
    keep: list[object] = []  # the places refer to tensors by their id, which is unique as long as they exist
    try:
        for shard, keys in shards.items():
            files.append(StoredFile(path.parent / shard))
            parsed = _parse(files[-1])
            loaded = parsed.loaded
            if not isinstance(loaded, Mapping):
                raise CheckpointError(
                    f"{files[-1].path} holds a {type(loaded).__name__}, expected a state dict (names -> tensors)"
                )
            for problem, odd in (("lacks", keys - loaded.keys()), ("also holds", loaded.keys() - keys)):
                if odd:
                    raise CheckpointError(
                        f"{files[-1].path} does not match {path.name}: it {problem} {len(odd)} tensors: "
                        f"{first_few(sorted(map(str, odd)))}. Get the index and the shards again"
                    )
            state |= loaded
            places |= parsed.places
            keep.append(parsed)
        return of_files(path, state, {}, places, files)
    except BaseException:
        for file in files:
            file.close()
        raise


class _Parsed(NamedTuple):
    """What a file describes."""

    loaded: object  # with tensors on the meta device
    metadata: Mapping[str, str]
    places: Mapping[int, Place | str]  # by id() of the tensor
    tensors: list[Tensor]  # all of them: an id() is unique as long as its object exists


def _parse(file: StoredFile) -> _Parsed:
    path = file.path
    file.check_holes()
    start = file.read(0, min(16, file.size))
    if not start:
        raise CheckpointError(f"{path} is empty. Get the file again")
    if start.startswith(b"version https://"):
        raise CheckpointError(f"{path} is a Git LFS pointer, not the weights. Fetch the file with git lfs pull")
    # A safetensors file starts with the length of its JSON header (8 bytes, which may read as "<"), then the header.
    described = start[8:9] == b"{"
    if start.lstrip()[:1] == b"<" and not (described or start.startswith(b"<?xml")):
        raise CheckpointError(f"{path} is a web page, not a checkpoint. The server probably refused the download")
    if path.suffix == ".safetensors" or described:
        tensors, found, metadata = read_header(file)
        return _Parsed(tensors, metadata, found, list(tensors.values()))
    if not start.startswith((b"PK", b"\x80")):  # a zip archive, or a pickle of protocol 2 and later
        kind = format_of(start)
        raise CheckpointError(
            f"{path} is {f'{kind}, ' if kind else ''}not a checkpoint. Expected a safetensors file, or a file written "
            "by torch.save (.pth, .pt, .bin)"
        )
    loaded, places, all_tensors = read_torch(file, start.startswith(b"PK"))
    return _Parsed(loaded, {}, places, all_tensors)
