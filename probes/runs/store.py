"""A run on disk: a folder of immutable parts. Each part is committed as a whole or not at all.

    run/
      run.json         what was captured with which model, and its fingerprint
      manifest.jsonl   one line per committed part, with its images
      failures.jsonl   the images that could not be captured, with reasons
      lock             held by the one process that writes
      parts/000012-3f9a1c7e2b04/
        part.json      its images, and size and SHA-256 of its files
        20x28/         a Zarr v3 group: the images of the part whose patch grid is 20 x 28

Problem: a capture of many images takes hours and will be killed at some point. Finished work must survive, readers must
never see half a part, and bytes that the disk damaged must not be read as results.

Approach: A part is written to a folder whose name starts with ``.tmp-``. All its files and folders are flushed to disk
(fsync), then the folder is renamed. Parts are immutable once committed. The manifest lists the parts for fast reading
and can be rebuilt from them. The name of a part follows from its index and its images. If two processes write the same
part, the first wins; the second is discarded.
Every JSON record ends with its own checksum, part.json has the checksums of the files beside it, and the arrays are
compressed with a checksum per image. Nothing depends on the time, so a run that was killed and resumed ends with the
same bytes as an uninterrupted one.

Limit: the lock works between processes of one machine, and on network folders that support locks. Two machines that
write at the same time still do no harm, because parts are never replaced.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from dpt.writing import TEMPORARY, sync_folder, write_file

from ..errors import InvalidValueError
from .disk import append_line, seal, unseal
from .errors import (
    Damaged,
    MissingRunError,
    OutputFolderError,
    RunFormatError,
    RunLockedError,
    StoreError,
    StoreIOError,
)
from .identity import check_same
from .parts import PARTS, Part, manifest_line, write_part
from .records import FORMAT, PART_NAME, Failure, FailureLine, ManifestLine, RunRecord, from_json, to_json

MANIFEST, FAILURES, SETTINGS, LOCK = "manifest.jsonl", "failures.jsonl", "run.json", "lock"
RESTORE = "Restore it from a backup, or capture into another folder"


class Store:
    """The folder of a run.

    Open it with `Store.read` for reading, or with `Store.write` in a with statement for adding parts. One process may
    write at a time.

    Attributes:
        root: The folder.
        settings: The content of run.json.
        lines: The manifest's lines by part, in the order of their indices.
    """

    def __init__(self, root: Path, settings: RunRecord):
        self.root = root
        self.settings = settings
        self.lines: dict[str, ManifestLine] = {}
        self._lock: FileLock | None = None
        self._failed: set[str] = set()  # names in failures.jsonl

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what the run captures."""
        return self.settings.fingerprint

    @property
    def failures(self) -> list[Failure]:
        """The images that could not be captured, without those that a retry has captured since."""
        captured = {name for line in self.lines.values() for name in line.grids}
        latest = {failure.image: failure for line in self.lines.values() for failure in line.failures}
        return [failure for name, failure in latest.items() if name not in captured]

    @property
    def bytes(self) -> int:
        """Size of all parts on disk."""
        return sum(line.bytes for line in list(self.lines.values()))  # a copy: another thread may add a line

    @classmethod
    def read(cls, root: str | os.PathLike[str]) -> Store:
        """Opens a run for reading, including parts that the manifest does not list because of a kill.

        Raises:
            MissingRunError: The folder holds no run.
            Damaged: run.json or the manifest is damaged.
        """
        root = Path(root)
        store = cls(root, read_settings(root))
        manifest = Manifest.read(root)
        manifest.check(root)
        unlisted = sorted(part_folders(root) - manifest.lines.keys())
        store.lines = _in_order([*manifest.lines.values(), *(manifest_line(root, name) for name in unlisted)])
        return store

    @classmethod
    def write(
        cls,
        root: str | os.PathLike[str],
        settings: RunRecord | None = None,
        rebuild: Collection[str] | None = None,
    ) -> Store:
        """Takes the lock, and starts or resumes a run. Leave it with `close`, or use a with statement.

        Args:
            root: The folder, created if needed.
            settings: Of the run. None resumes whichever run the folder holds.
            rebuild: Names of parts that will be written again. The manifest is then made from all other parts.

        Raises:
            RunMismatchError: The folder holds a run with other settings.
            OutputFolderError: The folder holds something else.
            RunLockedError: Another process is writing.
            StoreError: See the other subclasses.
        """
        root = Path(root)
        if settings is None:
            read_settings(root)
        try:
            if settings is not None:
                _check_free(root)
            lock = _locked(root)
        except OSError as error:
            raise _write_error(root, error) from error
        try:
            if settings is not None and _is_blank(root):
                _begin(root, settings)
            store = cls.read(root) if rebuild is None else cls._without(root, rebuild)
            if settings is not None:
                check_same(root, store.settings, settings)
            _sweep(root)
            if rebuild is None:
                store._mend()
        except BaseException as error:
            lock.release()
            if isinstance(error, OSError):
                raise _write_error(root, error) from error
            raise
        store._lock = lock
        store._failed = {failure.image for failure in store.failures}
        return store

    @classmethod
    def _without(cls, root: Path, parts: Collection[str]) -> Store:
        """The parts on disk except some, according to their own records."""
        store = cls(root, read_settings(root))
        store.lines = _in_order(manifest_line(root, name) for name in part_folders(root) - set(parts))
        return store

    def commit(self, part: Part) -> None:
        """Writes a part and lists it.

        Raises:
            StoreIOError: The disk failed.
        """
        self.adopt(write_part(self.root, self.fingerprint, part))

    def adopt(self, line: ManifestLine) -> None:
        """Lists a part that `write_part` has written in this or another process.

        Raises:
            StoreIOError: The disk failed. The part is stored; the next `Store.write` lists it.
        """
        if line.part in self.lines:
            return
        retried = any(image.name in self._failed for image in line.images)
        try:
            append_line(self.root / MANIFEST, seal(to_json(line)))
            self.lines[line.part] = line
            if retried:
                write_file(self.root / FAILURES, self._failure_lines().encode())
            else:
                for failure in line.failures:
                    append_line(self.root / FAILURES, failure_line(failure))
        except OSError as error:
            reason = error.strerror or error
            text = f"part {line.part} is stored, but cannot be listed in {self.root}: {reason}"
            raise StoreIOError(error.errno, text) from error
        self._failed.update(failure.image for failure in line.failures)

    def indices(self) -> Iterator[int]:
        """Yields indices for new parts: the missing ones first, then those after the last.

        The first free index goes to the first missing images, so lost parts come back under their own names.
        """
        taken = {line.index for line in self.lines.values()}
        index = 0
        while True:
            if index not in taken:
                yield index
            index += 1

    def _mend(self) -> None:
        """Makes the manifest and failures.jsonl match the parts, after a kill."""
        manifest = Manifest.read(self.root)
        if manifest.torn or manifest.lines.keys() != self.lines.keys():
            self.rewrite()
            return
        wanted = self._failure_lines().encode()
        path = self.root / FAILURES
        if (path.read_bytes() if path.exists() else None) != wanted:
            write_file(path, wanted)

    def tidy(self) -> None:
        """Cleans up after several workers: sorts the manifest and removes what lost workers left."""
        for left in (self.root / PARTS).glob(f"{TEMPORARY}*"):
            shutil.rmtree(left, ignore_errors=True)  # a lost worker that is still alive may be writing
        indices = [line.index for line in self.lines.values()]
        if indices != sorted(indices):
            self.rewrite()

    def rewrite(self) -> None:
        """Writes the manifest and failures.jsonl from the known parts, in the order of their indices."""
        self.lines = _in_order(self.lines.values())
        text = "".join(seal(to_json(line)) + "\n" for line in self.lines.values())
        write_file(self.root / MANIFEST, text.encode())
        write_file(self.root / FAILURES, self._failure_lines().encode())

    def _failure_lines(self) -> str:
        return "".join(failure_line(failure) + "\n" for failure in self.failures)

    def close(self) -> None:
        """Releases the lock."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _in_order(lines: Iterable[ManifestLine]) -> dict[str, ManifestLine]:
    return {line.part: line for line in sorted(lines, key=lambda line: (line.index, line.part))}


def failure_line(failure: Failure) -> str:
    """A line of failures.jsonl."""
    return json.dumps(to_json(FailureLine(*failure)))


def read_settings(root: Path) -> RunRecord:
    """Reads and checks the settings of a run.

    Raises:
        MissingRunError: The folder holds no run.
        RunFormatError: Another version wrote the run.
        Damaged: run.json is damaged.
    """
    path = root / SETTINGS
    try:
        settings = unseal(path.read_bytes().decode("ascii", errors="replace"))
        if settings.get("format") != FORMAT:
            found = settings.get("format")
            raise RunFormatError(f"{root} has the format {found!r}. This version reads {FORMAT!r}", found)
        return from_json(settings, RunRecord)
    except (FileNotFoundError, NotADirectoryError):
        what = f"it has no {SETTINGS}" if root.exists() else "the folder does not exist"
        raise MissingRunError(errno.ENOENT, f"{root} is not a run ({what}). probes.run creates one") from None
    except InvalidValueError as error:
        raise Damaged.of_file(path, str(error), RESTORE) from error


def _write_error(root: Path, error: OSError) -> OSError:
    if isinstance(error, StoreError):
        return error
    return StoreIOError(error.errno, f"cannot write the run {root}: {error.strerror or error}")


def _check_free(root: Path) -> None:
    """Raises OutputFolderError unless the folder holds a run or can hold a new one. Changes nothing."""
    if not root.exists() or (root / SETTINGS).exists():
        return
    if not root.is_dir():
        raise OutputFolderError(errno.EEXIST, f"{root} is a file. Give a folder for the run")
    # A kill before run.json was written leaves these.
    others = [path.name for path in root.iterdir() if path.name != LOCK and not path.name.startswith(TEMPORARY)]
    if others and (others != [PARTS] or any((root / PARTS).iterdir())):
        listed = ", ".join(sorted(others)[:3])
        raise OutputFolderError(
            errno.EEXIST, f"{root} is not a run and not empty (it holds {listed}). Give a new folder for the run"
        )


def _is_blank(root: Path) -> bool:
    """Whether the folder holds no part, so that a run can start with any settings."""
    if not (root / SETTINGS).exists():
        return True
    read_settings(root)  # a damaged run is not blank
    return not part_folders(root) and not (root / MANIFEST).exists()


def _begin(root: Path, settings: RunRecord) -> None:
    (root / PARTS).mkdir(exist_ok=True)
    write_file(root / SETTINGS, seal({"format": FORMAT, **to_json(settings)}).encode())


def _locked(root: Path) -> FileLock:
    if not root.exists():
        root.mkdir(parents=True, exist_ok=True)
        sync_folder(root.absolute().parent)
    lock = FileLock(root / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunLockedError(
            errno.EAGAIN, f"another process is writing to {root}. Wait until it ends, or capture into another folder"
        ) from None
    return lock


def _sweep(root: Path) -> None:
    """Removes the unfinished files of a killed process. Needs the lock."""
    for path in (*root.glob(f"{TEMPORARY}*"), *(root / PARTS).glob(f"{TEMPORARY}*")):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def part_folders(root: Path) -> set[str]:
    """Names of the committed parts. Skips other files, e.g. .DS_Store."""
    try:
        with os.scandir(root / PARTS) as entries:
            return {entry.name for entry in entries if re.fullmatch(PART_NAME, entry.name)}
    except FileNotFoundError:
        raise Damaged.of_file(root / PARTS, "the folder is missing", RESTORE) from None


@dataclass
class Manifest:
    """The list of parts as it stands on disk.

    Attributes:
        lines: The valid lines by part.
        damaged: Numbers of the lines that do not match their checksums, from 1, with the damage.
        torn: Whether the last line is incomplete, because of a kill.
    """

    lines: dict[str, ManifestLine]
    damaged: dict[int, str]
    torn: bool

    @classmethod
    def read(cls, root: Path) -> Manifest:
        """Reads manifest.jsonl; empty if there is no such file."""
        try:
            text = (root / MANIFEST).read_bytes().decode("ascii", errors="replace")
        except FileNotFoundError:
            return cls({}, {}, False)
        *whole, rest = text.split("\n")
        lines: dict[str, ManifestLine] = {}
        damaged: dict[int, str] = {}
        for number, text in enumerate(whole, 1):
            try:
                line = from_json(unseal(text), ManifestLine)
            except InvalidValueError as error:
                damaged[number] = f"line {number}: {error}"
            else:
                lines[line.part] = line
        return cls(lines, damaged, bool(rest))

    def check(self, root: Path) -> None:
        """Raises Damaged if a line is damaged."""
        for what in self.damaged.values():
            advice = f"`dpt-workbench verify {root} --repair` rebuilds it from the parts"
            raise Damaged.of_file(root / MANIFEST, what, advice)
