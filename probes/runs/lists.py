"""The lists of a run: manifest.jsonl, failures.jsonl and summary.json. All of them follow from the parts.

The manifest is for fast reading, failures.jsonl is for people. A kill can leave both incomplete, and the parts say what
belongs into them. Only summary.json tells that a part and its line are gone: it counts the lines, and has the digest of
the manifest after the last commit.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InvalidValueError
from .disk import LONGEST_RECORD, lines_inside, read_inside, seal, unseal
from .errors import Damaged, damage_of
from .records import Failure, FailureLine, ManifestLine, Summary, from_json, to_json

MANIFEST, FAILURES, SUMMARY = "manifest.jsonl", "failures.jsonl", "summary.json"
REBUILD = "`dpt-workbench verify {root} --repair` rebuilds it from the parts"


def in_order(lines: Iterable[ManifestLine]) -> dict[str, ManifestLine]:
    """Lines by part, in the order of their indices."""
    return {line.part: line for line in sorted(lines, key=lambda line: (line.index, line.part))}


def failures_of(lines: Iterable[ManifestLine]) -> list[Failure]:
    """The images that could not be captured, without those that a retry has captured since."""
    lines = list(lines)
    captured = {name for line in lines for name in line.grids}
    latest = {failure.image: failure for line in lines for failure in line.failures}
    return [failure for name, failure in latest.items() if name not in captured]


def failure_line(failure: Failure) -> str:
    """A line of failures.jsonl."""
    return json.dumps(to_json(FailureLine(*failure)))


def manifest_text(line: ManifestLine) -> bytes:
    """A line of manifest.jsonl with its end."""
    return f"{seal(to_json(line))}\n".encode()


@dataclass
class Written:
    """What the manifest holds: its size and its digest, which grow with every line."""

    size: int = 0
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    def add(self, text: bytes) -> None:
        """Counts bytes at the end."""
        self.size += len(text)
        self.digest.update(text)

    def summary(self, parts: int, lost: int) -> Summary:
        """The summary of a manifest with this content."""
        return Summary(parts, self.size, self.digest.hexdigest(), lost)


@dataclass
class Manifest:
    """The list of parts as it stands on disk.

    Attributes:
        lines: The valid lines by part, in the order of the file.
        damaged: Numbers of the lines that do not match their checksums, from 1, with the damage.
        repeated: Numbers of the lines that list a part again.
        torn: Whether the last line is incomplete, because of a kill.
        missing: Whether there is no file.
        written: Size and digest of the file.
        marked: Digest of as many bytes as were asked for; None if the file has fewer, or no line ends there.
    """

    lines: dict[str, ManifestLine] = field(default_factory=dict)
    damaged: dict[int, str] = field(default_factory=dict)
    repeated: list[int] = field(default_factory=list)
    torn: bool = False
    missing: bool = False
    written: Written = field(default_factory=Written)
    marked: str | None = None

    @classmethod
    def read(cls, root: Path, mark: int | None = None) -> Manifest:
        """Reads manifest.jsonl; empty if there is no such file.

        Args:
            root: Folder of the run.
            mark: Number of bytes whose digest is wanted, from `Summary.bytes`.

        Raises:
            Damaged: It is not a regular file of the run.
            StoreIOError: It cannot be read at the moment.
        """
        manifest = cls()
        try:
            for number, text in enumerate(lines_inside(root, MANIFEST), 1):
                manifest._add(number, text)
                if manifest.written.size == mark:
                    manifest.marked = manifest.written.digest.hexdigest()
        except FileNotFoundError:
            manifest.missing = True
        except OSError as error:
            raise damage_of(root, MANIFEST, error, REBUILD.format(root=root)) from error
        if mark == 0:
            manifest.marked = hashlib.sha256().hexdigest()
        return manifest

    def _add(self, number: int, text: bytes) -> None:
        self.written.add(text)
        if not text.endswith(b"\n"):
            if len(text) > LONGEST_RECORD:
                self.damaged[number] = f"line {number}: it is longer than a record"
            self.torn = True
            return
        try:
            line = from_json(unseal(text[:-1].decode("ascii", errors="replace")), ManifestLine)
        except InvalidValueError as error:
            self.damaged[number] = f"line {number}: {error}"
            return
        if line.part in self.lines:
            self.repeated.append(number)
        else:
            self.lines[line.part] = line

    def check(self, root: Path) -> None:
        """Raises Damaged if a line is damaged."""
        for what in self.damaged.values():
            raise Damaged.of_file(root / MANIFEST, what, REBUILD.format(root=root))


def read_summary(root: Path) -> Summary | None:
    """Reads summary.json; None if there is none.

    Raises:
        Damaged: It is damaged.
        StoreIOError: It cannot be read at the moment.
    """
    advice = REBUILD.format(root=root)
    try:
        text = read_inside(root, SUMMARY).decode("ascii", errors="replace")
        return from_json(unseal(text), Summary)
    except FileNotFoundError:
        return None
    except InvalidValueError as error:
        raise Damaged.of_file(root / SUMMARY, str(error), advice) from error
    except OSError as error:
        raise damage_of(root, SUMMARY, error, advice) from error


def read_failures(root: Path) -> Counter[bytes] | str | None:
    """The lines of failures.jsonl with their ends; None if there is no file, or what is wrong with it.

    Raises:
        StoreIOError: It cannot be read at the moment.
    """
    try:
        return Counter(lines_inside(root, FAILURES))
    except FileNotFoundError:
        return None
    except OSError as error:
        found = damage_of(root, FAILURES, error, "")
        if not isinstance(found, Damaged):
            raise found from error
        return found.what


def failures_damage(found: Counter[bytes] | str | None, manifest: Manifest, covered: Collection[str]) -> str | None:
    """What is wrong with failures.jsonl, if anything.

    Args:
        found: From `read_failures`.
        manifest: The manifest.
        covered: The parts whose failures were listed before the last commit ended. A kill can leave out later ones.
    """
    if isinstance(found, str):
        return found
    before = _counted(manifest.lines[name] for name in covered)
    after = _counted(manifest.lines.values())
    if found is None:
        return "the file is missing" if before & after else None
    torn = [line for line in found if not line.endswith(b"\n")]
    if torn and len(covered) < len(manifest.lines):  # a kill while a line was added
        del found[torn[0]]
    if found - (before | after):
        return "it lists images that did not fail, or not as they failed"
    return "images that failed are not listed" if (before & after) - found else None


def _counted(lines: Iterable[ManifestLine]) -> Counter[bytes]:
    return Counter(f"{failure_line(failure)}\n".encode() for failure in failures_of(lines))
