"""One part of a store: pictures that are committed together, as Zarr arrays with checksums.

See `probes.runs.store` for the whole, and for why it is done so.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InvalidValueError
from .disk import TEMPORARY, Damaged, StoreError, make_folder, seal, sync_folder, unseal, write_file

PARTS, PART = "parts", "part.json"
LEVEL = 1  # of zstd: higher ones take several times as long and save a few percent of float32


LOST = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO)  # what reading says of a file that is no longer whole


@dataclass
class Array:
    """One variable of a group: values, names of its axes, attributes."""

    values: np.ndarray
    dims: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def by_picture(self) -> bool:
        return self.dims[:1] == ("image",)


@dataclass
class Group:
    """The pictures of a part that share a patch grid."""

    names: list[str]
    arrays: dict[str, Array]
    attributes: dict[str, Any]


@dataclass
class Part:
    """What is committed at once. pictures: a record each of what was captured; failures: (name, reason)."""

    index: int
    names: list[str]  # of all its pictures in order, those that failed included
    pictures: list[dict[str, Any]]
    failures: list[tuple[str, str]]
    groups: dict[str, Group]


def part_id(fingerprint: str, index: int, names: Sequence[str]) -> str:
    text = json.dumps([fingerprint, index, list(names)])
    return f"{index:06d}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def write_part(root: Path, fingerprint: str, part: Part) -> dict[str, Any]:
    """Commits a part but for its line in the manifest, which is returned.

    If the part is there already, it is left as it is, and its line is returned.
    """
    name = part_id(fingerprint, part.index, part.names)
    final = root / PARTS / name
    if final.exists():
        return manifest_record(root, name)
    temporary = root / PARTS / f"{TEMPORARY}{name}-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        make_folder(temporary)
        files: dict[str, list[Any]] = {}
        folders = {temporary}
        for path, group in part.groups.items():
            for key, data in _encoded(group):
                relative = f"{path}/{key}"
                target = temporary / relative
                for folder in reversed(target.relative_to(temporary).parents[:-1]):
                    if temporary / folder not in folders:
                        make_folder(temporary / folder)
                        folders.add(temporary / folder)
                write_file(target, data)
                files[relative] = [len(data), hashlib.sha256(data).hexdigest()]
        record = {
            "part": name,
            "fingerprint": fingerprint,
            "index": part.index,
            "names": part.names,
            "pictures": part.pictures,
            "failures": part.failures,
            "files": files,
        }
        write_file(temporary / PART, seal(record).encode())
        for folder in sorted(folders, key=lambda f: len(f.parts), reverse=True):
            sync_folder(folder)
        try:
            os.rename(temporary, final)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not final.exists():
                raise
            shutil.rmtree(temporary, ignore_errors=True)  # another writer was first
        sync_folder(root / PARTS)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        reason = error.strerror or str(error)
        raise StoreError(error.errno, f"part {name} could not be written to {root}: {reason}") from error
    return manifest_record(root, name)


def _encoded(group: Group) -> Iterator[tuple[str, bytes]]:
    """(key, bytes) of the files of a Zarr group, array by array: no more than one is in memory twice."""
    import zarr
    from zarr.codecs import ZstdCodec
    from zarr.storage import MemoryStore

    held: dict[str, Any] = {}
    store = MemoryStore(held)

    node = zarr.create_group(store, zarr_format=3, attributes=group.attributes)
    compressor = ZstdCodec(level=LEVEL, checksum=True)
    for name, array in {"image": Array(np.array(group.names, dtype=object), ("image",)), **group.arrays}.items():
        shape = array.values.shape
        text = array.values.dtype == object
        whole = tuple(max(1, side) for side in shape)
        made = node.create_array(
            name,
            shape=shape,
            dtype=str if text else array.values.dtype,
            # one picture, or what belongs to all of them, is read at once; a shard is one file
            chunks=(1, *whole[1:]) if array.by_picture and not text else whole,
            shards=None if text else whole,
            compressors=compressor,
            chunk_key_encoding={"name": "default", "separator": "."},  # "/" would be a folder for each axis
            dimension_names=array.dims,
            attributes=array.attributes,
            config={"write_empty_chunks": True},  # a chunk that is not there would be read as zeros
        )
        made[...] = array.values
        for key in sorted(held):
            if key != "zarr.json":
                yield key, held.pop(key).to_bytes()
    yield "zarr.json", held["zarr.json"].to_bytes()


def manifest_record(root: Path, name: str) -> dict[str, Any]:
    """The line of the manifest for a part that is there, from its part.json."""
    path = root / PARTS / name / PART
    data = _read_bytes(path)
    record = read_part(root, name, data)
    grids = {picture["name"]: picture["grid"] for picture in record["pictures"]}
    size = sum(entry[0] for entry in record["files"].values()) + len(data)
    return {
        "part": name,
        "index": record["index"],
        "pictures": [[picture, grids.get(picture)] for picture in record["names"]],  # no grid: failed
        "failures": record["failures"],
        "bytes": size,
        "seal": hashlib.sha256(data).hexdigest(),
    }


def line_grids(line: Mapping[str, Any]) -> dict[str, str]:
    """The pictures that a part holds, by its line of the manifest: name -> grid."""
    return {name: grid for name, grid in line["pictures"] if grid is not None}


def read_part(root: Path, name: str, data: bytes | None = None, expected: str | None = None) -> dict[str, Any]:
    """The record of a part; Damaged, naming the part, if it is not what was written.

    data: what its part.json holds, if it was read already. expected: its sha256 as the manifest has it.
    """
    data = _read_bytes(root / PARTS / name / PART) if data is None else data
    try:
        record = unseal(data.decode("ascii", errors="replace"))
        if record["part"] != name:
            raise InvalidValueError(f"it is that of part {record['part']}")
        if expected is not None and hashlib.sha256(data).hexdigest() != expected:
            raise InvalidValueError("it is not the one that was committed")
    except ValueError as error:
        raise damaged(root, name, f"{PART}: {error}") from error
    return record


def damaged(root: Path, name: str, what: str) -> Damaged:
    return Damaged(
        errno.EIO,
        f"part {name} is damaged ({what}); `dpt-workbench verify {root}` lists all that is, and with --repair computes "
        "it anew",
    )


def unreadable(root: Path, name: str, key: str, error: OSError) -> StoreError:
    """Damaged if a part's file is gone or its disk is bad; what only cannot be read now is not to be computed anew."""
    if isinstance(error, FileNotFoundError):
        return damaged(root, name, f"{key} is not there")
    what = f"{key}: {error.strerror or error}"
    if error.errno in LOST:
        return damaged(root, name, what)
    return StoreError(error.errno, f"part {name} of {root} cannot be read ({what}); see to that, and read it again")


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path.parents[2], path.parent.name, path.name, error) from error
