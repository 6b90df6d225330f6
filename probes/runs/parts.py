"""Writes and reads one part of a run: images that are committed together, as Zarr arrays with checksums.

`probes.runs.store` describes the layout of a run and how a commit works.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dpt.writing import TEMPORARY, create_file, sync_folder

from ..errors import InvalidValueError
from .disk import check_inside, read_inside, seal, sha256, unseal
from .errors import Damaged, StoreIOError, is_damage
from .lease import this_writer
from .records import (
    ArrayAttributes,
    Failure,
    GroupAttributes,
    ImageRecord,
    ListedImage,
    ManifestLine,
    PartRecord,
    StoredFile,
    from_json,
    to_json,
)

PARTS, PART = "parts", "part.json"
LEVEL = 1  # of zstd: higher levels take several times as long and save a few percent of float32


@dataclass
class Array:
    """One variable of a group: values, names of its axes, attributes."""

    values: np.ndarray
    dims: tuple[str, ...]
    attributes: ArrayAttributes = field(default_factory=ArrayAttributes)

    @property
    def by_image(self) -> bool:
        """Whether the array has one row per image."""
        return self.dims[:1] == ("image",)


@dataclass
class Group:
    """The images of a part that share a patch grid."""

    names: list[str]
    arrays: dict[str, Array]
    attributes: GroupAttributes


@dataclass
class Part:
    """The images that are committed at once.

    Attributes:
        index: Number of the part in the run.
        names: All images in order, failed ones included.
        images: One record per captured image.
        failures: The images that could not be captured.
        groups: The values, by name of the patch grid.
        left_out: The images that failed by trouble of the machine. They are not stored, so the next run tries them.
        notes: What the pixels of captured images do not show, e.g. further frames.
    """

    index: int
    names: list[str]
    images: list[ImageRecord]
    failures: list[Failure]
    groups: dict[str, Group]
    left_out: list[Failure] = field(default_factory=list)
    notes: list[Failure] = field(default_factory=list)


def part_id(fingerprint: str, index: int, names: Sequence[str]) -> str:
    """Name of a part. It follows from the run, the index and the images, so two writers use the same name."""
    text = json.dumps([fingerprint, index, list(names)])
    return f"{index:06d}-{sha256(text.encode())[:12]}"


def write_part(root: Path, fingerprint: str, part: Part) -> ManifestLine:
    """Commits a part, except for its line in the manifest.

    If the part exists, it stays unchanged.

    Returns:
        The part's line for the manifest.

    Raises:
        StoreIOError: The disk failed. Nothing of the part is visible.
    """
    name = part_id(fingerprint, part.index, part.names)
    final = root / PARTS / name
    if final.exists():
        return manifest_line(root, name)
    temporary = root / PARTS / f"{TEMPORARY}{name}-{this_writer()}-{secrets.token_hex(4)}"
    try:
        check_inside(root, PARTS)
        os.mkdir(temporary)
        folders = {temporary}
        files: dict[str, StoredFile] = {}
        for path, group in part.groups.items():
            for key, data in encoded(group):
                relative = f"{path}/{key}"
                target = temporary / relative
                for folder in reversed(target.relative_to(temporary).parents[:-1]):
                    if temporary / folder not in folders:
                        os.mkdir(temporary / folder)
                        folders.add(temporary / folder)
                create_file(target, data)
                files[relative] = StoredFile(len(data), sha256(data))
        record = PartRecord(name, fingerprint, part.index, part.names, part.images, part.failures, files)
        create_file(temporary / PART, seal(to_json(record)).encode())
        for folder in sorted(folders, key=lambda f: len(f.parts), reverse=True):
            sync_folder(folder)
        try:
            os.rename(temporary, final)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not final.exists():
                raise
            shutil.rmtree(temporary, ignore_errors=True)  # another process has committed the part
        sync_folder(root / PARTS)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
        reason = error.strerror or str(error)
        raise StoreIOError(error.errno, f"cannot write part {name} of {root}: {reason}") from error
    return manifest_line(root, name)


def encoded(group: Group) -> Iterator[tuple[str, bytes]]:
    """Yields (key, bytes) of the files of a Zarr group, array by array, so one array at a time is in memory twice."""
    import zarr
    from zarr.codecs import ZstdCodec
    from zarr.storage import MemoryStore

    held: dict[str, Any] = {}
    store = MemoryStore(held)

    node = zarr.create_group(store, zarr_format=3, attributes=to_json(group.attributes))
    compressor = ZstdCodec(level=LEVEL, checksum=True)
    for name, array in {"image": Array(np.array(group.names, dtype=object), ("image",)), **group.arrays}.items():
        shape = array.values.shape
        text = array.values.dtype == object
        whole = tuple(max(1, side) for side in shape)
        made = node.create_array(
            name,
            shape=shape,
            dtype=str if text else array.values.dtype,
            # A chunk is what one read needs: the row of an image, or an array that all images share. A shard is a file.
            chunks=(1, *whole[1:]) if array.by_image and not text else whole,
            shards=None if text else whole,
            compressors=compressor,
            chunk_key_encoding={"name": "default", "separator": "."},  # "/" would make a folder per axis
            dimension_names=array.dims,
            attributes=to_json(array.attributes),
            config={"write_empty_chunks": True},  # zarr reads missing chunks as zeros
        )
        made[...] = array.values
        for key in sorted(held):
            if key != "zarr.json":
                yield key, held.pop(key).to_bytes()
    yield "zarr.json", held["zarr.json"].to_bytes()


def manifest_line(root: Path, name: str) -> ManifestLine:
    """The manifest's line for a committed part, made from its part.json."""
    data = _read_record(root, name)
    record = read_part(root, name, data)
    grids = {image.name: image.grid for image in record.images}
    return ManifestLine(
        part=name,
        index=record.index,
        images=[ListedImage(image, grids.get(image)) for image in record.names],
        failures=record.failures,
        bytes=sum(file.bytes for file in record.files.values()) + len(data),
        seal=sha256(data),
    )


def read_part(root: Path, name: str, data: bytes | None = None, expected: str | None = None) -> PartRecord:
    """Reads and checks the record of a part.

    Args:
        root: Folder of the run.
        name: Name of the part.
        data: Content of its part.json, if already read.
        expected: SHA-256 of its part.json according to the manifest.

    Raises:
        Damaged: The record is not the one that was written.
        StoreIOError: It cannot be read at the moment.
    """
    data = _read_record(root, name) if data is None else data
    try:
        record = from_json(unseal(data.decode("ascii", errors="replace")), PartRecord)
        if record.part != name:
            raise InvalidValueError(f"it belongs to part {record.part}")
        if expected is not None and sha256(data) != expected:
            raise InvalidValueError("it is not the record that was committed")
    except InvalidValueError as error:
        raise Damaged.of_part(root, name, f"{PART}: {error}") from error
    return record


def unreadable(root: Path, name: str, key: str, error: OSError) -> StoreIOError:
    """The error for a file of a part that cannot be read.

    A missing file and a failing disk are damage, see `errors.is_damage`.
    """
    if isinstance(error, StoreIOError):
        return error
    if isinstance(error, FileNotFoundError):
        return Damaged.of_part(root, name, f"{key} is missing")
    what = f"{key}: {error.strerror or error}"
    if is_damage(error):
        return Damaged.of_part(root, name, what)
    return StoreIOError(error.errno, f"cannot read part {name} of {root} ({what}). Resolve the cause, then read again")


def _read_record(root: Path, name: str) -> bytes:
    try:
        return read_inside(root, f"{PARTS}/{name}/{PART}")
    except OSError as error:
        raise unreadable(root, name, PART, error) from error
