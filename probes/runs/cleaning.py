"""Removes what belongs to a run and is not wanted: unfinished files of dead writers, and damaged parts.

Problem. What is removed is named by files on disk, which somebody may have prepared, and a person may have put files of
their own into the folder of a run.

Approach. Only names that this package makes are removed, and only regular files and folders, never what a link leads
to. Everything else that is in the way moves to the folder ``set-aside`` of the run.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from dpt.writing import TEMPORARY

from ..errors import InvalidValueError
from .disk import check_inside, is_link
from .errors import OutputFolderError
from .lease import LEASE, LOCK, WRITER, is_dead, this_writer
from .lists import FAILURES, MANIFEST, SUMMARY
from .parts import PART, PARTS
from .records import FILE_KEY, GRID_NAME, PART_NAME, POINT_NAME

SETTINGS, SET_ASIDE = "run.json", "set-aside"
_FILES = (SETTINGS, MANIFEST, FAILURES, SUMMARY, LOCK, LEASE)
_END = "[0-9a-f]{8}"
# Without a writer: as version 0.1 named them.
_UNFINISHED_PART = re.compile(rf"{re.escape(TEMPORARY)}{PART_NAME}-(?:(?P<writer>{WRITER})|[0-9]{{1,10}})-{_END}")
_UNFINISHED_FILE = re.compile(
    rf"{re.escape(TEMPORARY)}(?:(?P<writer>{WRITER})-)?{_END}-(?:{'|'.join(map(re.escape, _FILES))})"
)
_OF_DESKTOPS = (".DS_Store", "Thumbs.db", "desktop.ini")  # file managers leave these in every folder that is looked at
_FOLDER = re.compile(rf"{GRID_NAME}(/{POINT_NAME})?")
_FILE = re.compile(rf"{re.escape(PART)}|{FILE_KEY}")


def check_entries(root: Path) -> None:
    """Checks that the files and folders of a run are what they should be, before anything is written to them.

    Raises:
        OutputFolderError: A link, a pipe or something else is in place of one. A link could lead to a file of somebody.
    """
    kinds = dict.fromkeys(_FILES, stat.S_ISREG) | dict.fromkeys((PARTS, SET_ASIDE), stat.S_ISDIR)
    for name, is_right in kinds.items():
        try:
            status = os.lstat(root / name)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if is_link(status) or not is_right(status.st_mode):
            kind = "a link" if is_link(status) else "something else"
            wanted = "folder" if is_right is stat.S_ISDIR else "regular file"
            raise OutputFolderError(
                errno.EEXIST,
                f"{root / name} is {kind}, expected a {wanted}. Move it away; to keep a run on another disk, link the "
                f"folder {root} itself",
            )


def unfinished(root: Path) -> Iterator[tuple[Path, str | None]]:
    """Yields (path, writer) of the temporary files and folders of a run. The writer is None in those of version 0.1."""
    for folder, pattern in ((root, _UNFINISHED_FILE), (root / PARTS, _UNFINISHED_PART)):
        try:
            names = os.listdir(folder)
        except FileNotFoundError:
            continue
        for name in names:
            if found := pattern.fullmatch(name):
                yield folder / name, found["writer"]


def sweep(root: Path, strict: bool = True) -> None:
    """Removes the temporary files and folders of writers that have ended. Needs the lease.

    Another process of this machine that lives may still be writing; what it writes stays. A writer on another machine
    has ended or has lost its lease.

    Args:
        root: Folder of the run.
        strict: Whether to raise if one cannot be removed.
    """
    check_inside(root, PARTS)
    machine = this_writer().split("-")[0]
    for path, writer in unfinished(root):
        if writer not in (None, this_writer()) and writer.split("-")[0] == machine and not is_dead(writer):
            continue
        try:
            status = os.lstat(path)
            if stat.S_ISDIR(status.st_mode) and not is_link(status):
                shutil.rmtree(path)
            elif stat.S_ISREG(status.st_mode):
                os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError:
            if strict:
                raise


def foreign(folder: Path, known: set[str] | None = None) -> list[str]:
    """Paths in the folder of a part that are not files of a part, without following links.

    With `known`, files that file managers leave behind do not count.

    Args:
        folder: The folder of a part.
        known: The files of the part according to its record. Default: all files that a part could have.
    """
    folders = None if known is None else {"/".join(key.split("/")[:end]) for key in known for end in (1, 2)}
    found = []

    def walk(above: str) -> None:
        with os.scandir(folder / above) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                key = f"{above}{entry.name}"
                status = entry.stat(follow_symlinks=False)
                if known is not None and entry.name in _OF_DESKTOPS and stat.S_ISREG(status.st_mode):
                    continue
                if stat.S_ISDIR(status.st_mode) and not is_link(status):
                    if _FOLDER.fullmatch(key) and (folders is None or key in folders):
                        walk(f"{key}/")
                    else:
                        found.append(key)
                elif known is not None and is_link(status) and key in known:
                    continue  # read through the link, if it stays inside the run
                elif not (stat.S_ISREG(status.st_mode) and (_FILE.fullmatch(key) if known is None else key in known)):
                    found.append(key)

    walk("")
    return found


def set_aside(root: Path, part: str, keys: list[str]) -> None:
    """Moves things out of the folder of a part, to ``set-aside/PART-...`` of the run.

    Args:
        root: Folder of the run.
        part: Name of the part.
        keys: Paths in its folder, as from `foreign`. "" moves the folder itself.
    """
    if not re.fullmatch(PART_NAME, part):
        raise InvalidValueError(f"{part!r} is not the name of a part")
    check_inside(root, PARTS)
    check_entries(root)
    target = root / SET_ASIDE / f"{part}-{secrets.token_hex(4)}"
    for key in keys:
        place = target / key
        place.parent.mkdir(parents=True, exist_ok=True)
        os.rename(root / PARTS / part / key, place)


def discard(root: Path, part: str) -> None:
    """Removes the folder of a damaged part. What is not of a part moves to ``set-aside``.

    Args:
        root: Folder of the run.
        part: Name of the part.
    """
    if not re.fullmatch(PART_NAME, part):
        raise InvalidValueError(f"{part!r} is not the name of a part")
    check_inside(root, PARTS)
    folder = root / PARTS / part
    try:
        status = os.lstat(folder)
    except FileNotFoundError:
        return
    if is_link(status) or not stat.S_ISDIR(status.st_mode):
        set_aside(root, part, [""])
        return
    set_aside(root, part, foreign(folder))
    shutil.rmtree(folder)
