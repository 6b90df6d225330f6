"""Captures on disk: a folder of immutable parts, each written whole or not at all.

    run/
      run.json         what was captured with which model; its fingerprint
      manifest.jsonl   a line for each committed part, with the pictures in it
      failures.jsonl   the pictures that could not be captured, and why
      lock             held by the one process that writes
      parts/000012-3f9a1c7e2b04/
        part.json      its pictures, and the size and sha256 of its files
        20x28/         a Zarr v3 group: the part's pictures whose patch grid is 20 x 28

Problem: a capture of many pictures takes hours, and will be killed. What was done must be there afterwards, nothing may
be there by half, and a number that was damaged on the disk must not be read as a result.

Approach: a part is written into a folder whose name begins with ``.tmp-``, every file and folder of it is brought to
the disk (fsync), and then it is renamed: from then on it is there, and never changes. The manifest is a list of the
parts for quick reading, and can be made again from them. Names of parts follow from their place and their pictures,
and an existing part is never replaced: of two writers of one part the first one wins, and the second does no harm.
Every JSON record ends with its own checksum, part.json has the sums of all files beside it, and the arrays are
compressed with a checksum of each picture's values. Nothing depends on the time: a run that was killed and resumed ends
with the same bytes as one that was not.

Limit: the lock holds between processes of one machine, and on network folders that support it. Two machines that write
all the same still do no harm, as parts are never replaced.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .disk import TEMPORARY, Damaged, StoreError, append_line, replace_file, seal, sync_folder, unseal
from .parts import PARTS, Part, line_grids, manifest_record, write_part

FORMAT = "dpt-workbench run 1"
MANIFEST, FAILURES, SETTINGS, LOCK = "manifest.jsonl", "failures.jsonl", "run.json", "lock"
PART_NAME = re.compile(r"\d{6,}-[0-9a-f]{12}")


class Store:
    """A run's folder: what is in it, and adding to it.

    `Store.read` for reading; `Store.write` in a with statement for adding parts, which one process may do at a time.
    """

    def __init__(self, root: Path, settings: dict[str, Any]):
        self.root = root
        self.settings = settings
        self.lines: dict[str, dict[str, Any]] = {}  # manifest records by part, in the order of their indices
        self._lock: FileLock | None = None
        self._failed: set[str] = set()  # names in the list of failures

    @property
    def fingerprint(self) -> str:
        return str(self.settings["fingerprint"])

    @property
    def failures(self) -> list[tuple[str, str]]:
        """(name, reason) of pictures that could not be captured. One that was captured later is not among them."""
        captured = {name for line in self.lines.values() for name in line_grids(line)}
        latest = {name: reason for line in self.lines.values() for name, reason in line["failures"]}
        return [(name, reason) for name, reason in latest.items() if name not in captured]

    @property
    def bytes(self) -> int:
        return sum(line["bytes"] for line in list(self.lines.values()))  # a list: another thread may be adding

    @classmethod
    def read(cls, root: str | os.PathLike[str]) -> Store:
        """A run that is there. Parts whose line the manifest lacks, as a kill leaves them, are found all the same."""
        root = Path(root)
        store = cls(root, read_settings(root))
        manifest = Manifest.read(root)
        manifest.check(root)
        lines = manifest.lines
        unlisted = sorted(part_folders(root) - lines.keys())
        lines |= {name: manifest_record(root, name) for name in unlisted}
        store.lines = dict(sorted(lines.items(), key=lambda item: (item[1]["index"], item[0])))
        return store

    @classmethod
    def write(
        cls,
        root: str | os.PathLike[str],
        settings: Mapping[str, Any] | None = None,
        rebuild: Collection[str] | None = None,
    ) -> Store:
        """Takes the lock, and begins a run or goes on with one. Leave it with `close`, or use a with statement.

        settings: of the run, with its fingerprint; None goes on with whatever is there. rebuild: names of parts that
        are to be written anew; the manifest is then made from all others.
        """
        root = Path(root)
        if settings is None:
            read_settings(root)
        try:
            if settings is not None:
                _check_free(root)
            lock = _locked(root)
        except OSError as error:
            raise _unwritten(root, error) from error
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
                raise _unwritten(root, error) from error
            raise
        store._lock = lock
        store._failed = {name for name, _ in store.failures}
        return store

    @classmethod
    def _without(cls, root: Path, parts: Collection[str]) -> Store:
        """The parts that are there but for some, by what they say of themselves."""
        store = cls(root, read_settings(root))
        lines = [manifest_record(root, name) for name in part_folders(root) - set(parts)]
        store.lines = {line["part"]: line for line in sorted(lines, key=lambda line: (line["index"], line["part"]))}
        return store

    def commit(self, part: Part) -> None:
        """Adds a part."""
        self.adopt(write_part(self.root, self.fingerprint, part))

    def adopt(self, line: dict[str, Any]) -> None:
        """Adds a part that `write_part` has written, here or elsewhere, to the manifest."""
        name = line["part"]
        if name in self.lines:
            return
        retried = any(picture in self._failed for picture, _ in line["pictures"])
        try:
            append_line(self.root / MANIFEST, seal(line))
            self.lines[name] = line
            if retried:
                replace_file(self.root / FAILURES, self._failure_lines().encode())
            else:
                for failure in line["failures"]:
                    append_line(self.root / FAILURES, _failure_line(*failure))
        except OSError as error:
            text = f"part {name} is stored, but could not be listed in {self.root}: {error.strerror or error}"
            raise StoreError(error.errno, text) from error
        self._failed.update(failed for failed, _ in line["failures"])

    def indices(self) -> Iterator[int]:
        """Numbers for new parts: those that are missing, then on from the last. The first free one goes to the first
        pictures that are missing, so parts that were lost in between come back under their own names."""
        taken = {line["index"] for line in self.lines.values()}
        index = 0
        while True:
            if index not in taken:
                yield index
            index += 1

    def _mend(self) -> None:
        """Brings the manifest and the list of failures in step with the parts, after a kill."""
        manifest = Manifest.read(self.root)
        if manifest.torn or manifest.lines.keys() != self.lines.keys():
            self.rewrite()
            return
        wanted = self._failure_lines()
        path = self.root / FAILURES
        if (path.read_bytes() if path.exists() else None) != wanted.encode():
            replace_file(path, wanted.encode())

    def tidy(self) -> None:
        """After several workers: the manifest in the order of the parts, and away with what a lost worker left."""
        for left in (self.root / PARTS).glob(f"{TEMPORARY}*"):
            shutil.rmtree(left, ignore_errors=True)  # one that is lost but alive may still write, to no end
        indices = [line["index"] for line in self.lines.values()]
        if indices != sorted(indices):
            self.rewrite()

    def rewrite(self) -> None:
        """Writes the manifest and the list of failures anew, in the order of the parts."""
        self.lines = dict(sorted(self.lines.items(), key=lambda item: (item[1]["index"], item[0])))
        text = "".join(seal(line) + "\n" for line in self.lines.values())
        replace_file(self.root / MANIFEST, text.encode())
        replace_file(self.root / FAILURES, self._failure_lines().encode())

    def _failure_lines(self) -> str:
        return "".join(_failure_line(*failure) + "\n" for failure in self.failures)

    def close(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _failure_line(name: str, reason: str) -> str:
    return json.dumps({"picture": name, "reason": reason})


def read_settings(root: Path) -> dict[str, Any]:
    path = root / SETTINGS
    try:
        settings = unseal(path.read_bytes().decode("ascii", errors="replace"))
    except FileNotFoundError:
        what = "there is no such folder" if not root.exists() else f"it has no {SETTINGS}"
        raise StoreError(errno.ENOENT, f"{root} is not a run ({what}); probes.run makes one") from None
    except ValueError as error:
        raise Damaged(
            errno.EIO, f"{path} is damaged ({error}); put it back from a copy, or capture into another folder"
        ) from error
    if settings.get("format") != FORMAT:
        raise StoreError(
            errno.EINVAL, f"{root} has the format {settings.get('format')!r}; this version reads {FORMAT!r}"
        )
    return settings


def check_same(root: Path, stored: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """StoreError that says what differs, unless a run may go on with these settings."""
    if stored["fingerprint"] == given["fingerprint"]:
        return
    differences = list(_differences(stored["capture"], given["capture"]))
    raise StoreError(
        errno.EEXIST,
        f"{root} holds a run with other settings: {'; '.join(differences[:6])}. Capture into another folder, or with "
        "the run's own settings",
    )


def _differences(stored: Any, given: Any, path: str = "") -> Iterator[str]:
    if isinstance(stored, Mapping) and isinstance(given, Mapping):
        for key in sorted(stored.keys() | given.keys()):
            yield from _differences(stored.get(key), given.get(key), f"{path}.{key}" if path else key)
    elif path == "edits" and [name for name, _ in stored or ()] == [name for name, _ in given or ()]:
        for (name, before), (_, now) in zip(stored, given, strict=True):
            if "code" in before and before | {"code": ""} == now | {"code": ""} and before != now:
                yield f"the function {now['function']} that edits {name} is not the one it was"
            else:
                yield from _differences(before, now, f"the edit of {name}")
    elif path == "points" and stored != given:  # long lists: what only one of them has
        for where, mine, other in (("there", stored, given), ("now", given, stored)):
            if apart := [name for name in mine if name not in other]:
                more = f" and {len(apart) - 3} more" if len(apart) > 3 else ""
                yield f"only {where}: {', '.join(apart[:3])}{more}"
    elif stored != given:
        yield f"{path} is {_short(stored)} there and {_short(given)} now"


def _short(value: Any) -> str:
    text = "not given" if value is None else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:40]}... ({len(value)} long)"


def _unwritten(root: Path, error: OSError) -> StoreError:
    if isinstance(error, StoreError):
        return error
    return StoreError(error.errno, f"the run {root} could not be written: {error.strerror or error}")


def _check_free(root: Path) -> None:
    """StoreError, with nothing touched, unless a run is there or may begin there."""
    if not root.exists() or (root / SETTINGS).exists():
        return
    if not root.is_dir():
        raise StoreError(errno.ENOTDIR, f"{root} is a file; a run needs a folder")
    # a kill before run.json was there leaves these
    others = [path.name for path in root.iterdir() if path.name != LOCK and not path.name.startswith(TEMPORARY)]
    if others and (others != [PARTS] or any((root / PARTS).iterdir())):
        raise StoreError(
            errno.ENOTEMPTY,
            f"{root} is not a run and not empty (it holds {', '.join(sorted(others)[:3])}); name a new folder",
        )


def _is_blank(root: Path) -> bool:
    """Whether a run has yet to begin: it may do so with any settings as long as no part is there."""
    if not (root / SETTINGS).exists():
        return True
    read_settings(root)  # what is damaged is not blank
    return not part_folders(root) and not (root / MANIFEST).exists()


def _begin(root: Path, settings: Mapping[str, Any]) -> None:
    (root / PARTS).mkdir(exist_ok=True)
    replace_file(root / SETTINGS, seal({"format": FORMAT, **settings}).encode())


def _locked(root: Path) -> FileLock:
    if not root.exists():
        root.mkdir(parents=True, exist_ok=True)
        sync_folder(root.absolute().parent)
    lock = FileLock(root / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise StoreError(
            errno.EAGAIN, f"another process is writing to {root}; wait for it, or capture into another folder"
        ) from None
    return lock


def _sweep(root: Path) -> None:
    """Removes what a kill left half-written. Only under the lock."""
    for path in (*root.glob(f"{TEMPORARY}*"), *(root / PARTS).glob(f"{TEMPORARY}*")):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def part_folders(root: Path) -> set[str]:
    """Names of the parts that are there; what systems leave in folders, such as .DS_Store, is none."""
    try:
        with os.scandir(root / PARTS) as entries:
            return {entry.name for entry in entries if PART_NAME.fullmatch(entry.name)}
    except FileNotFoundError:
        raise Damaged(
            errno.EIO, f"the folder {root / PARTS} is gone; put it back from a copy, or capture into another folder"
        ) from None


@dataclass
class Manifest:
    """The list of parts as it stands on the disk."""

    lines: dict[str, dict[str, Any]]
    damaged: list[int]  # numbers of lines that do not match their checksums, from 1
    torn: bool  # a kill has left half a last line

    @classmethod
    def read(cls, root: Path) -> Manifest:
        try:
            text = (root / MANIFEST).read_bytes().decode("ascii", errors="replace")
        except FileNotFoundError:
            return cls({}, [], False)
        *whole, rest = text.split("\n")
        lines, damaged = {}, []
        for number, line in enumerate(whole, 1):
            try:
                record = unseal(line)
            except ValueError:
                damaged.append(number)
            else:
                lines[record["part"]] = record
        return cls(lines, damaged, bool(rest))

    def check(self, root: Path) -> None:
        if self.damaged:
            raise Damaged(
                errno.EIO,
                f"line {self.damaged[0]} of {root / MANIFEST} does not match its checksum; "
                f"`dpt-workbench verify {root} --repair` makes it anew from the parts",
            )
