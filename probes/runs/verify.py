"""Verifies a stored run byte by byte, and recomputes damaged parts.

Reading a run notices damage in what it reads. `verify` reads everything: each file against its checksum in part.json,
each part.json against its own checksum and the manifest's, and each line of the manifest. `repair` recomputes the
damaged parts from the same images and the same model. The run then has the same bytes as before the damage.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from tqdm.auto import tqdm

from dpt import DPT
from dpt.printable import printable

from .disk import sha256
from .errors import ChangedImagesError, Damaged, MissingImagesError
from .identity import capture_record, check_same, fingerprint
from .job import Job, size_text
from .options import REPAIR_DEFAULTS, Images, RepairOptions, completed
from .parts import LOST, PART, PARTS, Part, read_part, unreadable
from .recording import Recorder
from .records import RunRecord
from .sources import find
from .store import MANIFEST, Manifest, Store, part_folders, read_settings


@dataclass(frozen=True)
class Damage:
    """A difference between the disk and what was written.

    Attributes:
        part: Name of the part, or "manifest.jsonl".
        what: The damage, in a few words.
    """

    part: str
    what: str

    def __str__(self) -> str:
        return f"{printable(self.part)}: {printable(self.what, 1000)}"


@dataclass
class Verification:
    """The result of `verify`.

    Attributes:
        root: Folder of the run.
        parts: Number of parts read.
        bytes: Bytes read.
        damage: All damage found.
    """

    root: Path
    parts: int
    bytes: int
    damage: list[Damage]

    @property
    def damaged_parts(self) -> list[str]:
        """Names of the damaged parts."""
        return list(dict.fromkeys(d.part for d in self.damage if d.part != MANIFEST))

    def __str__(self) -> str:
        found = f"{len(self.damaged_parts)} damaged" if self.damage else "none damaged"
        lines = [f"{self.parts} parts of {printable(str(self.root), 1000)} read, {size_text(self.bytes)}: {found}"]
        return "\n".join([*lines, *(f"  {damage}" for damage in self.damage)])


def verify(path: str | os.PathLike[str], progress: bool | None = None) -> Verification:
    """Reads everything that a run has stored and compares it with the checksums. Changes nothing.

    Args:
        path: Folder of the run.
        progress: Whether to show a progress bar. Default: on a terminal and in notebooks.

    Returns:
        All damage.

    Raises:
        MissingRunError: The folder holds no run.
        Damaged: run.json is damaged, or the folder of parts is missing.
        StoreIOError: A file cannot be read at the moment.

    Example:
        for damage in verify("run/").damage:
            print(damage.part, damage.what)
    """
    root = Path(path)
    read_settings(root)
    manifest = Manifest.read(root)
    found = [Damage(MANIFEST, what) for what in manifest.damaged.values()]
    names = sorted(part_folders(root) | manifest.lines.keys())
    total = 0
    with tqdm(names, unit="part", disable=_hidden(progress)) as bar:
        for name in bar:
            seal = manifest.lines[name].seal if name in manifest.lines else None
            faults, size = _check(root, name, seal)
            found += faults
            total += size
    return Verification(root, len(names), total, found)


def _hidden(progress: bool | None) -> bool | None:
    """What tqdm takes as disable: None decides by the terminal."""
    return None if progress is None else not progress


def _check(root: Path, name: str, seal: str | None) -> tuple[list[Damage], int]:
    """(damage, bytes read) of a part."""
    folder = root / PARTS / name
    try:
        record = read_part(root, name, expected=seal)
    except Damaged as error:
        return [Damage(name, error.what)], 0
    faults, total = [], 0
    for key, (size, digest) in record.files.items():
        try:
            data = (folder / key).read_bytes()
        except OSError as error:
            if error.errno not in LOST:
                raise unreadable(root, name, key, error) from error
            faults.append(Damage(name, f"{key}: {error.strerror}"))
            continue
        total += len(data)
        if len(data) != size:
            faults.append(Damage(name, f"{key} has {len(data)} bytes, expected {size}"))
        elif sha256(data) != digest:
            faults.append(Damage(name, f"{key} does not match its checksum"))
    present = {str(file.relative_to(folder).as_posix()) for file in folder.rglob("*") if file.is_file()}
    faults += [Damage(name, f"{key} is not a file of the part") for key in sorted(present - {*record.files, PART})]
    return faults, total


def repair(path: str | os.PathLike[str], model: DPT, images: Images, **options: Unpack[RepairOptions]) -> Verification:
    """Recomputes the damaged parts of a run.

    The settings come from the run. A part whose record and manifest line are both lost is removed; the next
    `probes.run` captures its images again.

    Args:
        path: Folder of the run.
        model: The model that the run was captured with.
        images: The images of the run, as given to `probes.run`. Found by their names.
        **options: See `RepairOptions`: frames, workers, timeout, progress.

    Returns:
        The damage that was found and repaired.

    Raises:
        RunMismatchError: The model differs, or images are missing (MissingImagesError). Nothing was changed.
        ChangedImagesError: An image file has changed since it was captured.
        StoreError: See `probes.runs.errors`.

    Example:
        repair("run/", model, "photos/")
    """
    given = completed(options, REPAIR_DEFAULTS, "repair")
    root = Path(path)
    found = verify(root, given["progress"])
    settings = read_settings(root)
    capture = settings.capture
    recorder = Recorder.from_record(model, capture)
    check_same(root, settings, _now(settings, recorder))
    manifest = Manifest.read(root)
    lost = [manifest.lines[name] for name in found.damaged_parts if name in manifest.lines]
    wanted = {image.name for line in lost for image in line.images}
    items = {item.name: item for item in find(images, frames=given["frames"]) if item.name in wanted} if wanted else {}
    if missing := sorted(wanted - items.keys()):
        raise MissingImagesError(
            f"{len(missing)} images of damaged parts are not among those given: {', '.join(missing[:4])}. Give the "
            f"images that {root} was captured from",
            missing,
        )
    with Store.write(root, rebuild=set(found.damaged_parts)) as store:
        for name in found.damaged_parts:
            if name not in manifest.lines:
                shutil.rmtree(root / PARTS / name)
        job = Job(
            recorder,
            settings.batch,
            capture.size,
            capture.keep_aspect,
            capture.keep_images,
            given["workers"],
            given["timeout"],
        )
        with job.decoders() as decoders:
            for line in tqdm(lost, unit="part", disable=_hidden(given["progress"])):
                part = job.part(line.index, decoders.decode(items[image.name] for image in line.images))
                _check_same_images(root, line.part, part)
                if (root / PARTS / line.part).exists():
                    shutil.rmtree(root / PARTS / line.part)
                store.commit(part)
        store.rewrite()
    return found


def _now(settings: RunRecord, recorder: Recorder) -> RunRecord:
    """The settings of a run with what the recorder would capture."""
    before = settings.capture
    capture = capture_record(recorder, before.size, before.keep_aspect, before.keep_images)
    return RunRecord(capture, fingerprint(capture), settings.part, settings.batch, settings.source)


def _check_same_images(root: Path, name: str, part: Part) -> None:
    """Raises ChangedImagesError if images have changed, as far as the damaged part's record is readable."""
    try:
        before = {image.name: image.sha256 for image in read_part(root, name).images}
    except Damaged:
        return
    changed = [image.name for image in part.images if before.get(image.name, image.sha256) != image.sha256]
    if changed:
        raise ChangedImagesError(
            f"cannot recompute part {name}: {', '.join(changed[:4])} changed since they were captured. Restore the "
            "files, or capture into another folder",
            changed,
        )
