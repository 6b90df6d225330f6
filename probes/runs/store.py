"""A run on disk: a folder of immutable parts. Each part is committed as a whole or not at all.

    run/
      run.json         what was captured with which model, and its fingerprint
      manifest.jsonl   one line per committed part, with its images
      failures.jsonl   the images that could not be captured, with reasons
      summary.json     how many parts the manifest lists, and its digest
      lock, lease      held by the one process that writes
      parts/000012-3f9a1c7e2b04/
        part.json      its images, and size and SHA-256 of its files
        20x28/         a Zarr v3 group: the images of the part whose patch grid is 20 x 28
      set-aside/       what `repair` found in the way and this package did not write

Problem: a capture of many images takes hours and will be killed at some point. Finished work must survive, readers must
never see half a part, and bytes that the disk damaged must not be read as results.

Approach: A part is written to a folder whose name starts with ``.tmp-``. All its files and folders are flushed to disk
(fsync), then the folder is renamed. Parts are immutable once committed. The manifest lists the parts for fast reading
and can be rebuilt from them (`lists`). The name of a part follows from its index and its images. If two processes write
the same part, the first wins; the second is discarded.
Every JSON record ends with its own checksum, part.json has the checksums of the files beside it, and the arrays are
compressed with a checksum per image. Nothing depends on the time, so a run that was killed and resumed ends with the
same bytes as an uninterrupted one.
Names in records become paths, so `records` checks each against its pattern, and nothing is read or written through a
link that leads out of the run (`disk`).

One process writes at a time (`lease`). Two that write at the same time, because a share hides each from the other, do
no harm: parts are never replaced, and the last of them to end makes the lists match the parts.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from msgspec import structs

from dpt.errors import FileTooLargeError
from dpt.writing import TEMPORARY, local_path

from ..errors import InvalidValueError
from .cleaning import SETTINGS, check_entries, sweep
from .disk import append_line, check_inside, read_inside, replace_file, seal, unseal
from .errors import (
    Damaged,
    MissingRunError,
    OutputFolderError,
    RunFormatError,
    StoreError,
    StoreIOError,
    damage_of,
)
from .identity import check_same
from .lease import LEASE, LOCK, Lease, acquire, revoke, this_writer
from .lists import (
    FAILURES,
    MANIFEST,
    SUMMARY,
    Manifest,
    Written,
    failure_line,
    failures_of,
    in_order,
    manifest_text,
    read_summary,
)
from .parts import PARTS, Part, manifest_line, write_part
from .records import FORMAT, PART_NAME, Failure, ManifestLine, RunRecord, Summary, from_json, to_json

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
        self._lease: Lease | None = None
        self._failed: set[str] = set()  # names in failures.jsonl
        self._written = Written()  # the manifest as this process left it
        self._ever = 0  # parts that the run has ever held
        self._shared = False  # another writer has changed the manifest meanwhile

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what the run captures."""
        return self.settings.fingerprint

    @property
    def failures(self) -> list[Failure]:
        """The images that could not be captured, without those that a retry has captured since."""
        return failures_of(self.lines.values())

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
            dpt.errors.AddressError: `root` is an address such as s3://bucket/run.
        """
        root = local_path(root)
        store = cls(root, read_settings(root))
        store._read_lines()
        return store

    def _read_lines(self) -> None:
        manifest = Manifest.read(self.root)
        manifest.check(self.root)
        self._written = manifest.written
        unlisted = sorted(part_folders(self.root) - manifest.lines.keys())
        self.lines = in_order([*manifest.lines.values(), *(manifest_line(self.root, name) for name in unlisted)])

    @classmethod
    def write(
        cls,
        root: str | os.PathLike[str],
        settings: RunRecord | None = None,
        rebuild: Collection[str] | None = None,
        take_over: bool = False,
    ) -> Store:
        """Takes lock and lease, and starts or resumes a run. Leave it with `close`, or use a with statement.

        Args:
            root: The folder, created if needed.
            settings: Of the run. None resumes whichever run the folder holds.
            rebuild: Names of parts that will be written again. The manifest is then made from all other parts.
            take_over: Whether to take the run from another writer, e.g. one on a machine that no longer answers.

        Raises:
            RunMismatchError: The folder holds a run with other settings.
            OutputFolderError: The folder holds something else.
            RunLockedError: Another process is writing.
            StoreError: See the other subclasses.
        """
        root = local_path(root)
        if settings is None:
            read_settings(root)
        try:
            if settings is not None:
                _check_free(root)
            check_entries(root)
            if take_over:
                revoke(root)
            lease = _locked(root)
        except OSError as error:
            raise _write_error(root, error) from error
        try:
            if settings is not None and _is_blank(root):
                _begin(root, settings)
            store = cls.read(root) if rebuild is None else cls._without(root, rebuild)
            if settings is not None:
                check_same(root, store.settings, settings)
            _sweep(root)
            store._ever = _parts_ever(root)
            if rebuild is None:
                store._check_folders()
                store._mend()
        except BaseException as error:
            lease.release()
            if isinstance(error, OSError):
                raise _write_error(root, error) from error
            raise
        store._lease = lease
        store._failed = {failure.image for failure in store.failures}
        return store

    @classmethod
    def _without(cls, root: Path, parts: Collection[str]) -> Store:
        """The parts on disk except some, according to their own records."""
        store = cls(root, read_settings(root))
        store.lines = in_order(manifest_line(root, name) for name in part_folders(root) - set(parts))
        store._written = Manifest.read(root).written
        return store

    def commit(self, part: Part) -> None:
        """Writes a part and lists it.

        Raises:
            StoreIOError: The disk failed.
            RunLockedError: Another writer has taken over.
        """
        self._check_lease()
        try:
            line = write_part(self.root, self.fingerprint, part)
        except StoreIOError:
            self._check_lease()  # who took over may have removed the unfinished part
            raise
        self.adopt(line)

    def _check_lease(self) -> None:
        try:
            if self._lease is not None:
                self._lease.check()
        except OSError as error:
            raise _write_error(self.root, error) from error

    def adopt(self, line: ManifestLine) -> None:
        """Lists a part that `write_part` has written in this or another process.

        Raises:
            StoreIOError: The disk failed. The part is stored; the next `Store.write` lists it.
            RunLockedError: Another writer has taken over.
        """
        self._check_lease()
        try:
            self._follow()
            if line.part in self.lines:
                return
            retried = any(image.name in self._failed for image in line.images)
            append_line(self.root / MANIFEST, seal(to_json(line)))
            self._written.add(manifest_text(line))
            self.lines[line.part] = line
            if retried:
                replace_file(self.root / FAILURES, self._failure_lines().encode(), this_writer())
            else:
                for failure in line.failures:
                    append_line(self.root / FAILURES, failure_line(failure))
            self._summarize()
        except OSError as error:
            reason = error.strerror or error
            text = f"part {line.part} is stored, but cannot be listed in {self.root}: {reason}"
            raise StoreIOError(error.errno, text) from error
        self._failed.update(failure.image for failure in line.failures)

    def _follow(self) -> None:
        """Learns what another writer has added to the manifest, where locks do not hold."""
        if _size(self.root / MANIFEST) == self._written.size:
            return
        manifest = Manifest.read(self.root)
        self._shared = True
        self._written = manifest.written
        for name, line in manifest.lines.items():
            self.lines.setdefault(name, line)

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

    def _check_folders(self) -> None:
        """Raises Damaged if the folder of a listed part is gone."""
        for part in sorted(self.lines.keys() - part_folders(self.root)):
            raise Damaged.of_part(self.root, part, "its folder is missing")

    def _mend(self) -> None:
        """Makes the lists match the parts, after a kill."""
        try:
            summary = read_summary(self.root)
        except Damaged:
            summary = None
        manifest = Manifest.read(self.root)
        if manifest.torn or manifest.repeated or manifest.lines.keys() != self.lines.keys():
            self.rewrite()
            return
        wanted = self._failure_lines().encode()
        if _content(self.root, FAILURES, len(wanted)) != wanted:
            replace_file(self.root / FAILURES, wanted, this_writer())
        if summary != self._summary():
            self._summarize()

    def tidy(self) -> None:
        """Cleans up after several workers: sorts the manifest and removes what lost workers left."""
        sweep(self.root, strict=False)  # a lost worker that is still alive may be writing
        self._sort()

    def rewrite(self) -> None:
        """Writes the lists from the known parts, in the order of their indices."""
        self.lines = in_order(self.lines.values())
        text = b"".join(map(manifest_text, self.lines.values()))
        replace_file(self.root / MANIFEST, text, this_writer())
        self._written = Written()
        self._written.add(text)
        failures = self._failure_lines().encode()
        if _content(self.root, FAILURES, len(failures)) != failures:
            replace_file(self.root / FAILURES, failures, this_writer())
        self._summarize()

    def _summary(self) -> Summary:
        return self._written.summary(len(self.lines), max(0, self._ever - len(self.lines)))

    def _summarize(self) -> None:
        self._ever = max(self._ever, len(self.lines))
        replace_file(self.root / SUMMARY, seal(to_json(self._summary())).encode(), this_writer())

    def _failure_lines(self) -> str:
        return "".join(failure_line(failure) + "\n" for failure in self.failures)

    def close(self) -> None:
        """Ends the lease and releases the lock."""
        if self._lease is None:
            return
        try:
            with suppress(OSError):  # the next writer does the same
                self._settle()
        finally:
            self._lease.release()
            self._lease = None

    def _settle(self) -> None:
        """Sorts the lists. Makes them match the parts if another writer was at work, too: the last to end does so."""
        if not self._shared and _size(self.root / MANIFEST) == self._written.size:
            self._sort()
            return
        self._check_lease()
        known: set[str] = set()
        while not known or not part_folders(self.root) <= known:
            self._read_lines()
            known = set(self.lines)
            self.rewrite()

    def _sort(self) -> None:
        """A part that was lost and captured again stands at the end of the lists, and those of workers anywhere."""
        indices = [line.index for line in self.lines.values()]
        if indices != sorted(indices):
            self._check_lease()
            self.rewrite()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_settings(root: Path) -> RunRecord:
    """Reads and checks the settings of a run.

    Raises:
        MissingRunError: The folder holds no run.
        RunFormatError: Another version wrote the run.
        Damaged: run.json is damaged.
        StoreIOError: It cannot be read at the moment.
    """
    path = root / SETTINGS
    try:
        settings = unseal(read_inside(root, SETTINGS).decode("ascii", errors="replace"))
        if settings.get("format") != FORMAT:
            found = settings.get("format")
            raise RunFormatError(f"{root} has the format {found!r}. This version reads {FORMAT!r}", found)
        return from_json(settings, RunRecord)
    except (FileNotFoundError, NotADirectoryError):
        what = f"it has no {SETTINGS}" if root.exists() else "the folder does not exist"
        raise MissingRunError(errno.ENOENT, f"{root} is not a run ({what}). probes.run creates one") from None
    except InvalidValueError as error:
        raise Damaged.of_file(path, str(error), RESTORE) from error
    except OSError as error:
        raise damage_of(root, SETTINGS, error, RESTORE) from error


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
    names = (path.name for path in root.iterdir())
    others = [name for name in names if name not in (LOCK, LEASE) and not name.startswith(TEMPORARY)]
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
    return not part_folders(root) and not (root / MANIFEST).exists() and not _parts_ever(root)


def _begin(root: Path, settings: RunRecord) -> None:
    (root / PARTS).mkdir(exist_ok=True)
    settings = structs.replace(settings, summary=True)
    replace_file(root / SETTINGS, seal({"format": FORMAT, **to_json(settings)}).encode(), this_writer())
    empty = Written().summary(0, 0)
    replace_file(root / SUMMARY, seal(to_json(empty)).encode(), this_writer())


def _parts_ever(root: Path) -> int:
    """How many parts a run has held, according to its summary; 0 if that is unknown."""
    try:
        summary = read_summary(root)
    except Damaged:
        return 0
    return 0 if summary is None else summary.parts + summary.lost


def _locked(root: Path) -> Lease:
    return acquire(root)


def _sweep(root: Path) -> None:
    """Removes the unfinished files of a killed process. Needs the lease."""
    sweep(root)


def _size(path: Path) -> int:
    try:
        return os.stat(path, follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0


def _content(root: Path, key: str, expected: int) -> bytes | None:
    """Content of a file beside the parts; empty if there is none, None if it has other bytes than expected."""
    try:
        return read_inside(root, key, expected)
    except FileNotFoundError:
        return b""
    except FileTooLargeError:
        return None


def part_folders(root: Path) -> set[str]:
    """Names of the committed parts. Skips other files, e.g. .DS_Store."""
    try:
        check_inside(root, PARTS)
        with os.scandir(root / PARTS) as entries:
            return {entry.name for entry in entries if re.fullmatch(PART_NAME, entry.name)}
    except FileNotFoundError:
        raise Damaged.of_file(root / PARTS, "the folder is missing", RESTORE) from None
    except OSError as error:
        raise damage_of(root, PARTS, error, RESTORE) from error
