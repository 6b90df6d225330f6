"""Verifies a stored run byte by byte, and recomputes damaged parts.

Reading a run notices damage in what it reads. `verify` reads everything: each file against its checksum in part.json,
each part.json against its own checksum and the manifest's, and the lists against the parts and the summary. `repair`
recomputes the damaged parts from the same images and the same model, and writes the lists again. The run then has the
same bytes as before the damage.

A run that version 0.1 wrote has no summary. There, a part that is gone together with its line is not noticed; `verify`
says so.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Unpack

from tqdm.auto import tqdm

from dpt import DPT
from dpt.printable import printable
from dpt.writing import local_path

from ..errors import InvalidValueError
from .array_file import check_rows
from .cleaning import discard, foreign, set_aside, unfinished
from .disk import open_inside
from .errors import ChangedImagesError, Damaged, MachineError, MissingImagesError, is_damage
from .identity import capture_record, check_same, fingerprint
from .job import Job, size_text
from .lists import FAILURES, MANIFEST, SUMMARY, Manifest, failures_damage, read_failures, read_summary
from .names import Names
from .options import REPAIR_DEFAULTS, Images, RepairOptions, completed
from .part_reader import PartReader
from .parts import PART, PARTS, Part, part_id, read_part, unreadable
from .recording import Recorder
from .records import ManifestLine, PartRecord, RunRecord, StoredFile, Summary
from .sources import Item, Items, find
from .store import Store, part_folders, read_settings

_BLOCK = 2**20  # bytes read at a time
_LISTS = (MANIFEST, FAILURES, SUMMARY)


@dataclass(frozen=True)
class Damage:
    """A difference between the disk and what was written.

    Attributes:
        part: Name of the part, or of one of the lists: "manifest.jsonl", "failures.jsonl", "summary.json".
        what: The damage, in a few words.
        foreign: Path of a thing in the folder of the part that does not belong there. The part itself is intact.
    """

    part: str
    what: str
    foreign: str | None = None

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
        notes: What is no damage and worth knowing, e.g. what a killed run has left.
    """

    root: Path
    parts: int
    bytes: int
    damage: list[Damage]
    notes: list[str] = field(default_factory=list)

    @property
    def damaged_parts(self) -> list[str]:
        """Names of the damaged parts."""
        return list(dict.fromkeys(d.part for d in self.damage if d.part not in _LISTS))

    def __str__(self) -> str:
        lists = list(dict.fromkeys(damage.part for damage in self.damage if damage.part in _LISTS))
        parts = [f"{len(self.damaged_parts)} damaged"] if self.damaged_parts else []
        found = ", ".join([*parts, *(f"{name} damaged" for name in lists)]) or "none damaged"
        lines = [f"{self.parts} parts of {printable(str(self.root), 1000)} read, {size_text(self.bytes)}: {found}"]
        return "\n".join([*lines, *(f"  {damage}" for damage in self.damage), *(f"note: {n}" for n in self.notes)])


def verify(path: str | os.PathLike[str], progress: bool | None = None) -> Verification:
    """Reads everything that a run has stored and compares it with the checksums. Changes nothing.

    Args:
        path: Folder of the run.
        progress: Whether to show a progress bar. Default: on a terminal and in notebooks.

    Returns:
        All damage.

    Raises:
        dpt.errors.AddressError: `path` is an address such as s3://bucket/run.
        MissingRunError: The folder holds no run.
        Damaged: run.json is damaged, or the folder of parts is missing.
        StoreIOError: A file cannot be read at the moment.

    Example:
        for damage in verify("run/").damage:
            print(damage.part, damage.what)
    """
    root = local_path(path)
    settings = read_settings(root)
    found: list[Damage] = []
    try:
        summary = read_summary(root)
    except Damaged as error:
        summary = None
        found.append(Damage(SUMMARY, error.what))
    # A run that is being written adds to these files in the opposite order.
    failures = read_failures(root)
    try:
        manifest = Manifest.read(root, summary.bytes if summary else None)
    except Damaged as error:
        manifest = Manifest(damaged={0: error.what})
    folders = part_folders(root)
    if summary is None and settings.summary and not found and (folders or manifest.lines):
        found.append(Damage(SUMMARY, "the file is missing"))
    found += _check_manifest(settings, manifest, summary, folders)
    covered = list(manifest.lines)[: summary.parts if summary else None]
    if what := failures_damage(failures, manifest, covered):
        found.append(Damage(FAILURES, what))
    names = sorted(folders | manifest.lines.keys())
    total = 0
    with tqdm(names, unit="part", disable=_hidden(progress)) as bar:
        for name in bar:
            seal = manifest.lines[name].seal if name in manifest.lines else None
            faults, size = _check(root, name, seal, settings.fingerprint)
            found += faults
            total += size
    return Verification(root, len(names), total, found, list(_notes(root, settings, manifest, summary, folders)))


def _hidden(progress: bool | None) -> bool | None:
    """What tqdm takes as disable: None decides by the terminal."""
    return None if progress is None else not progress


def _check_manifest(
    settings: RunRecord, manifest: Manifest, summary: Summary | None, folders: set[str]
) -> Iterator[Damage]:
    """Yields the damage of the manifest."""
    for what in manifest.damaged.values():
        yield Damage(MANIFEST, what)
    for number in manifest.repeated:
        yield Damage(MANIFEST, f"line {number} lists a part again")
    for line in manifest.lines.values():
        if not _is_named(line, settings.fingerprint):
            yield Damage(MANIFEST, f"the name {line.part} does not follow from the images of its line")
    if manifest.torn:
        yield Damage(MANIFEST, "the last line is incomplete, as a killed run leaves it. The next run completes it")
    if manifest.missing:
        if len(folders) > 1 or (summary and summary.parts):
            yield Damage(MANIFEST, "the file is missing")
    elif summary is not None and not manifest.damaged:
        if manifest.written.size < summary.bytes:
            yield Damage(MANIFEST, f"it has {manifest.written.size} bytes, and had {summary.bytes} after a commit")
        elif manifest.marked != summary.manifest:
            yield Damage(MANIFEST, "it differs from what was committed")
    gone = 0 if summary is None else summary.parts - len(folders | manifest.lines.keys())
    if gone > 0:
        yield Damage(MANIFEST, f"{gone} parts are gone, with their lines. The next run captures their images again")


def _is_named(line: ManifestLine | PartRecord, run: str) -> bool:
    """Whether the name of a part is the one that this package gives it."""
    names = [image.name for image in line.images] if isinstance(line, ManifestLine) else line.names
    return line.part == part_id(run, line.index, names)


def _notes(
    root: Path, settings: RunRecord, manifest: Manifest, summary: Summary | None, folders: set[str]
) -> Iterator[str]:
    """Yields what is no damage."""
    if not manifest.missing and (unlisted := folders - manifest.lines.keys()):
        yield f"{len(unlisted)} parts are stored and not listed, as a killed run leaves them. The next run lists them"
    if left := len(list(unfinished(root))):
        yield f"{left} unfinished files of a killed run, or of one that is writing. The next run removes them"
    if summary is not None and summary.lost:
        yield f"{summary.lost} parts were lost earlier. The next run captures their images again"
    if summary is None and not settings.summary:
        yield "version 0.1 wrote this run without a summary: a part that is gone with its line is not noticed"


def _check(root: Path, name: str, seal: str | None, run: str) -> tuple[list[Damage], int]:
    """(damage, bytes read) of a part."""
    try:
        record = read_part(root, name, expected=seal)
        if record.fingerprint != run:
            raise Damaged.of_part(root, name, f"{PART}: it belongs to another run")
        if not _is_named(record, run):
            raise Damaged.of_part(root, name, f"{PART}: the name of the part does not follow from its images")
    except Damaged as error:
        return [Damage(name, error.what)], 0
    faults, total = [], 0
    for key, expected in record.files.items():
        what, size = _compared(root, name, key, expected)
        total += size
        if what:
            faults.append(Damage(name, what))
    if not faults:
        faults = _check_arrays(root, name, seal)
    strange = foreign(root / PARTS / name, {*record.files, PART})
    return [*faults, *(Damage(name, f"{key} is not a file of the part", key) for key in strange)], total


def _compared(root: Path, name: str, key: str, expected: StoredFile) -> tuple[str | None, int]:
    """(damage, bytes read) of a file of a part. Reads at most one byte more than it should have."""
    digest, size = hashlib.sha256(), 0
    try:
        with open_inside(root, f"{PARTS}/{name}/{key}") as file:
            length = os.fstat(file.fileno()).st_size
            while block := file.read(min(_BLOCK, expected.bytes + 1 - size)):
                digest.update(block)
                size += len(block)
    except OSError as error:
        if not is_damage(error):
            raise unreadable(root, name, key, error) from error
        return f"{key}: {error.strerror}", size
    if size != expected.bytes:
        return f"{key} has {max(size, length)} bytes, expected {expected.bytes}", size
    return None if digest.hexdigest() == expected.sha256 else f"{key} does not match its checksum", size


def _check_arrays(root: Path, name: str, seal: str | None) -> list[Damage]:
    """What reading the arrays of a part would refuse, although all checksums match."""
    try:
        reader = PartReader(root, name, seal)
    except Damaged as error:
        return [Damage(name, error.what)]
    faults = []
    for grid in sorted({image.grid for image in reader.record.images}):
        for array in sorted(reader.arrays(grid) - {"image"}):
            try:
                reader.group(grid)
                about = reader.about(grid, array)
                check_rows(root / PARTS / name / grid / array / about.key, about, range(about.rows))
            except Damaged as error:
                faults.append(Damage(name, error.what))
            except InvalidValueError as error:
                faults.append(Damage(name, f"{grid}/{array}: {error}"))
            except OSError as error:
                raise unreadable(root, name, f"{grid}/{array}", error) from error
    return faults


def repair(
    path: str | os.PathLike[str],
    model: DPT | None = None,
    images: Images | None = None,
    **options: Unpack[RepairOptions],
) -> Verification:
    """Recomputes the damaged parts of a run, and writes its lists again.

    The settings come from the run. A part whose record and manifest line are both lost is removed; the next
    `probes.run` captures its images again. Things in the folder of a part that this package did not write move to the
    folder ``set-aside`` of the run.

    Args:
        path: Folder of the run.
        model: The model that the run was captured with. Needed if parts must be recomputed, see `recomputed`.
        images: The images of the run, as given to `probes.run`. Found by their names. Needed as the model is.
        **options: See `RepairOptions`: frames, workers, timeout, progress, take_over.

    Returns:
        The damage that was found and repaired.

    Raises:
        InvalidValueError: Parts must be recomputed, and model or images are not given. Nothing was changed.
        RunMismatchError: The model differs, or images are missing (MissingImagesError). Nothing was changed.
        ChangedImagesError: An image file has changed since it was captured.
        RunLockedError: Another process is writing to the run.
        StoreError: See `probes.runs.errors`.

    Example:
        repair("run/", model, "photos/")
    """
    given = completed(options, REPAIR_DEFAULTS, "repair")
    root = local_path(path)
    found = verify(root, given["progress"])
    lost = recomputed(found)
    if not lost:
        with Store.write(root, rebuild=_whole_damage(found).keys(), take_over=given["take_over"]) as store:
            _clear(root, found, lost)
            store.rewrite()
        return found
    if model is None or images is None:
        raise InvalidValueError(f"{len(lost)} parts of {root} must be recomputed. Give the model and the images")
    settings = read_settings(root)
    capture = settings.capture
    recorder = Recorder.from_record(model, capture)
    check_same(root, settings, _now(settings, recorder))
    wanted = {image.name for line in lost for image in line.images}
    items = _by_name(find(images, frames=given["frames"]), wanted)
    if missing := sorted(wanted - items.keys()):
        raise MissingImagesError(
            f"{len(missing)} images of damaged parts are not among those given: {', '.join(missing[:4])}. Give the "
            f"images that {root} was captured from",
            missing,
        )
    rebuild = _whole_damage(found).keys()
    with Store.write(root, rebuild=rebuild, take_over=given["take_over"]) as store:
        _clear(root, found, lost)
        job = Job(
            recorder,
            settings.batch,
            capture.size,
            capture.keep_aspect,
            capture.keep_images,
            given["workers"],
            given["timeout"],
            capture.model.weights,
            proven=True,
        )
        with job.decoders() as decoders:
            for line in tqdm(lost, unit="part", disable=_hidden(given["progress"])):
                part = job.part(line.index, decoders.decode(items[image.name] for image in line.images))
                if part.left_out:
                    raise MachineError("cannot recompute part {}: {}: {}".format(line.part, *part.left_out[0]))
                if failed := [failure for failure in part.failures if failure.image in line.grids]:
                    name, reason = failed[0]
                    raise ChangedImagesError(
                        f"cannot recompute part {line.part}: {printable(name)} was captured and fails now: {reason}",
                        [failure.image for failure in failed],
                    )
                _check_same_images(root, line.part, part)
                discard(root, line.part)
                store.commit(part)
        store.rewrite()
    return found


def _by_name(images: Items, wanted: Set[str]) -> dict[str, Item]:
    """The wanted images under the names of the run, whose accents may be written in the other normal form."""
    known, here = Names(wanted), set(images.names()) if images.listed else set()
    items = {}
    for item in images:
        if (name := known.find_among(item.name, here)) is not None:
            items[name] = replace(item, name=name)
    return items


def recomputed(found: Verification) -> list[ManifestLine]:
    """The manifest's lines of the parts that `repair` recomputes, for which it needs the model and the images."""
    settings = read_settings(found.root)
    try:
        manifest = Manifest.read(found.root)
    except Damaged:  # a link or a device; `Store.write` says what to do
        return []
    lines = (manifest.lines[name] for name in _whole_damage(found) if name in manifest.lines)
    return [line for line in lines if _is_named(line, settings.fingerprint)]


def _whole_damage(found: Verification) -> dict[str, None]:
    """Names of the parts that are damaged themselves. Others may only have foreign things in their folders."""
    return {damage.part: None for damage in found.damage if damage.part not in _LISTS and damage.foreign is None}


def _clear(root: Path, found: Verification, lost: list[ManifestLine]) -> None:
    """Removes damaged parts that nothing is known of, and moves foreign things away. Needs the lease."""
    known = {line.part for line in lost}
    whole = _whole_damage(found)
    for name in whole.keys() - known:
        discard(root, name)
    strange: dict[str, list[str]] = {}
    for damage in found.damage:
        if damage.foreign is not None and damage.part not in whole:
            strange.setdefault(damage.part, []).append(damage.foreign)
    for name, keys in strange.items():
        set_aside(root, name, keys)


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
