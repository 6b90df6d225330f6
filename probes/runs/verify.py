"""Checking a run on disk byte by byte, and computing what is damaged anew.

Reading notices damage where it reads. `verify` reads everything: each file against the sum in its part.json, each
part.json against its own seal and the manifest's, each line of the manifest. `repair` computes the damaged parts again,
from the same pictures and the same model, and nothing else; the run is then what it was, byte for byte.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from dpt import DPT

from .disk import Damaged, StoreError
from .parts import LOST, PART, PARTS, Part, read_part, unreadable
from .recording import Recorder
from .run import Job, describe
from .sources import find
from .store import MANIFEST, Manifest, Store, check_same, part_folders, read_settings


@dataclass(frozen=True)
class Damage:
    """Something that is not as it was written. part: its name, or that of the file beside the parts."""

    part: str
    what: str

    def __str__(self) -> str:
        return f"{self.part}: {self.what}"


@dataclass
class Verification:
    root: Path
    parts: int
    bytes: int
    damage: list[Damage]

    @property
    def damaged_parts(self) -> list[str]:
        return list(dict.fromkeys(d.part for d in self.damage if d.part != MANIFEST))

    def __str__(self) -> str:
        found = f"{len(self.damaged_parts)} damaged" if self.damage else "none damaged"
        lines = [f"{self.parts} parts of {self.root} read, {self.bytes / 2**20:.1f} MiB: {found}"]
        return "\n".join([*lines, *(f"  {damage}" for damage in self.damage)])


def verify(path: str | os.PathLike[str], progress: bool | None = None) -> Verification:
    """Reads all that a run has stored and compares it with the checksums; changes nothing.

    Raises StoreError if there is no run or something of it may not be read, Damaged if its run.json cannot be trusted.
    """
    root = Path(path)
    read_settings(root)
    manifest = Manifest.read(root)
    found = [Damage(MANIFEST, f"line {number} does not match its checksum") for number in manifest.damaged]
    names = sorted(part_folders(root) | manifest.lines.keys())
    total = 0
    with tqdm(names, unit="part", disable=None if progress is None else not progress) as bar:
        for name in bar:
            seal = manifest.lines[name]["seal"] if name in manifest.lines else None
            faults, size = _check(root, name, seal)
            found += faults
            total += size
    return Verification(root, len(names), total, found)


def _check(root: Path, name: str, seal: str | None) -> tuple[list[Damage], int]:
    folder = root / PARTS / name
    try:
        record = read_part(root, name, expected=seal)
    except Damaged as error:
        return [Damage(name, str(error).split(" is damaged (", 1)[-1].split("); `", 1)[0])], 0
    faults, total = [], 0
    for key, (size, digest) in record["files"].items():
        try:
            data = (folder / key).read_bytes()
        except OSError as error:
            if error.errno not in LOST:
                raise unreadable(root, name, key, error) from error
            faults.append(Damage(name, f"{key}: {error.strerror}"))
            continue
        total += len(data)
        if len(data) != size:
            faults.append(Damage(name, f"{key} has {len(data)} bytes, not {size}"))
        elif hashlib.sha256(data).hexdigest() != digest:
            faults.append(Damage(name, f"{key} does not match its checksum"))
    there = {str(file.relative_to(folder).as_posix()) for file in folder.rglob("*") if file.is_file()}
    faults += [Damage(name, f"{key} does not belong to it") for key in sorted(there - record["files"].keys() - {PART})]
    return faults, total


def repair(
    path: str | os.PathLike[str],
    model: DPT,
    images: Any,
    *,
    frames: slice | None = None,
    workers: int | None = None,
    timeout: float = 60.0,
    progress: bool | None = None,
) -> Verification:
    """Computes the damaged parts of a run again; returns what had been found.

    model, images, frames: as they were given to `probes.run`; pictures are found by their names. What else the run was
    begun with is read from it. A part whose record and line in the manifest are both lost is removed: the next
    `probes.run` captures its pictures again, as they are no longer there.

    Raises StoreError, before anything is changed, if the model is another or pictures are missing.
    """
    root = Path(path)
    found = verify(root, progress)
    settings = read_settings(root)
    capture = settings["capture"]
    recorder = Recorder.from_json(model, capture)
    size, keep_aspect = _pair(capture["size"]), capture["keep_aspect"]
    check_same(root, settings, describe(recorder, size, keep_aspect, capture["keep_images"]))
    manifest = Manifest.read(root)
    lost = [manifest.lines[name] for name in found.damaged_parts if name in manifest.lines]
    wanted = {name for line in lost for name, _ in line["pictures"]}
    items = {item.name: item for item in find(images, frames=frames) if item.name in wanted} if wanted else {}
    if missing := sorted(wanted - items.keys()):
        raise StoreError(
            errno.ENOENT,
            f"{len(missing)} pictures of damaged parts are not among those given: {', '.join(missing[:4])}; give the "
            f"pictures that {root} was captured from",
        )
    with Store.write(root, rebuild=set(found.damaged_parts)) as store:
        for name in found.damaged_parts:
            if name not in manifest.lines:
                shutil.rmtree(root / PARTS / name)
        job = Job(recorder, settings["batch"], size, keep_aspect, capture["keep_images"], workers, timeout)
        with job.decoders() as decoders:
            for line in tqdm(lost, unit="part", disable=None if progress is None else not progress):
                part = job.part(line["index"], decoders.decode(items[name] for name, _ in line["pictures"]))
                _check_same_pictures(root, line["part"], part)
                if (root / PARTS / line["part"]).exists():
                    shutil.rmtree(root / PARTS / line["part"])
                store.commit(part)
        store.rewrite()
    return found


def _check_same_pictures(root: Path, name: str, part: Part) -> None:
    """StoreError if pictures have changed since, as far as the part's record can still be read."""
    try:
        before = {picture["name"]: picture["sha256"] for picture in read_part(root, name)["pictures"]}
    except Damaged:
        return
    changed = [p["name"] for p in part.pictures if before.get(p["name"], p["sha256"]) != p["sha256"]]
    if changed:
        raise StoreError(
            errno.EINVAL,
            f"part {name} cannot be computed anew: {', '.join(changed[:4])} changed since it was captured; put the "
            "pictures back as they were, or capture into another folder",
        )


def _pair(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
