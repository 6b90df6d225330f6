"""Finds the images of `dpt-workbench depth` and names the files to write for them.

Images are listed as by `capture`: files, folders, globs that no shell expanded, and text lists. The output folder keeps
the tree of the images: names are relative to the given folder, or to the common parent of everything given. So two
images of one name in two folders get two files.
"""

from __future__ import annotations

import glob
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..runs.listing import VIDEOS, SourceError, look_up, suffix
from .app import PROGRAM, wrong_option

ENDINGS = ("_depth.png", "_depth_bar.png", "_depth.npy", "_depth16.png", "_depth_mm.png", "_depth.ply")
"""Ends of the names of all files that the command writes."""


@dataclass(frozen=True)
class Target:
    """An image to compute.

    Attributes:
        source: Its path, as it is shown.
        stem: What the paths of its files begin with.
        problem: Why it cannot be computed, if that shows before it is opened.
    """

    source: str
    stem: Path
    problem: str | None = None

    def file(self, ending: str) -> Path:
        """The path of one of its files."""
        return self.stem.with_name(self.stem.name + ending)


def find_targets(images: Sequence[str], out: Path, endings: Sequence[str]) -> tuple[list[Target], int]:
    """Lists images and the files to write for them.

    Args:
        images: Files, folders, globs and text lists.
        out: The output folder.
        endings: Ends of the names of the files to write.

    Returns:
        (images in order, each once; number of files that were skipped, because an earlier command wrote them to `out`).

    Raises:
        typer.BadParameter: Two images would be written to one file, or the images are on different drives.
    """
    here = os.path.join(os.getcwd(), "")
    anchors: list[str] = []
    found: dict[str, str | None] = {}  # absolute path -> problem
    skipped = 0
    for given in images:
        path = os.path.join(here, given)
        try:
            folders, paths = look_up(given)
        except SourceError as error:
            # read_image has better words for a missing file
            missing = not os.path.lexists(path) and not glob.has_magic(given)
            found.setdefault(path, None if missing else str(error))
            continue
        anchors += folders
        for path in paths:
            if _was_written(path, given, out):
                skipped += 1
            else:
                found.setdefault(os.path.normpath(path), _problem(path, here))
    base = _common(anchors)
    targets = [_target(path, problem, base, here, out) for path, problem in found.items()]
    _check_distinct(targets, out)
    inputs = {os.path.realpath(path) for path in found}
    return [_spared(target, endings, inputs) for target in targets], skipped


def _problem(path: str, here: str) -> str | None:
    if suffix(path) not in VIDEOS:
        return None
    return (
        f"it is a video. This command stores the depth of its frames: {PROGRAM} capture "
        f"{shlex.quote(path.removeprefix(here))} --probe depth --frames ::10 --out run"
    )


def _was_written(path: str, given: str, out: Path) -> bool:
    """Whether a file that was listed, not named, is a depth map in the output folder."""
    below = os.path.join(os.path.realpath(out), "")
    listed = os.path.normpath(path) != os.path.normpath(os.path.join(os.getcwd(), given))
    return listed and path.endswith(ENDINGS) and os.path.realpath(path).startswith(below)


def _common(folders: list[str]) -> str:
    try:
        return os.path.commonpath(folders) if folders else os.getcwd()
    except ValueError as error:  # Windows: two drives have no common parent
        raise wrong_option("IMAGES", f"they are on different drives ({error}). Use one command per drive") from error


def _target(path: str, problem: str | None, base: str, here: str, out: Path) -> Target:
    name = os.path.relpath(path, base) if path.startswith(os.path.join(base, "")) else os.path.basename(path)
    return Target(path.removeprefix(here), out / os.path.splitext(name)[0], problem)


def _check_distinct(targets: list[Target], out: Path) -> None:
    claimed: dict[str, Target] = {}
    for target in targets:
        if target.problem is None:
            # Folds case, because x.jpg and X.png share a file on most desktops.
            other = claimed.setdefault(str(target.stem).casefold(), target)
            if other is not target:
                message = f"{other.source} and {target.source} would both be written to {target.file(ENDINGS[0])}"
                raise wrong_option("IMAGES", f"{message}. Rename one, or use two commands")


def _spared(target: Target, endings: Sequence[str], inputs: set[str]) -> Target:
    """The target, with a problem if one of its files is an image to read."""
    for ending in endings:
        if os.path.realpath(file := target.file(ending)) in inputs:
            return replace(target, problem=f"its depth would be written to {file}, which is also given as an image")
    return target
