"""Resolves the name of a checkpoint to a file, and lists the names.

A name is looked up in this order:

1. the folders weights/, where a file answers to its own name or to its name in the zoo
2. the table of published checkpoints (`zoo`), whose files are downloaded and verified (`hub`)

The zoo also gives the version and depth range of Depth-Anything's checkpoints, which their tensors do not show.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from torch import Tensor

from ..errors import InvalidValueError, MissingFileError
from . import hub
from .folders import STATES
from .stored import Identity
from .zoo import BY_NAME, CHECKPOINTS, UNRELEASED, Checkpoint, find, folded, generic

DEMO = Path(__file__).parents[1] / "demo" / "demo.safetensors"  # the model that comes with the package
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")  # of checkpoints in weights/, in order of preference
COMMAND = "dpt-workbench models"

Source = str | os.PathLike[str] | Mapping[str, Tensor]
Place = Literal["weights", "cache", "hub"]


class Located(NamedTuple):
    """A checkpoint and the facts that its name gives.

    Attributes:
        source: A path, a state dict or "demo".
        version: 1 or 2, if known.
        max_depth: Range in metres, if known.
        verified: Downloaded files, and which bytes of each were verified.
        name: "demo" or a name of the zoo; "" for a path or a state dict.
    """

    source: Source
    version: int | None
    max_depth: float | None
    verified: Mapping[Path, Identity]
    name: str = ""


def locate(source: Source, version: int | None, max_depth: float | None, revision: str | None) -> Located:
    """Resolve a name to a path, downloading the file if necessary.

    Paths, state dicts and "demo" are returned unchanged. A version or max_depth given by the caller takes precedence
    over the zoo.

    Raises:
        FileNotFoundError: No checkpoint has this name.
        ValueError: Revision was given for something other than a checkpoint of the zoo.
        CheckpointError, PermissionError, ConnectionError: As `hub.fetch`.
    """
    if not isinstance(source, str) or source == "demo" or os.path.exists(os.path.expanduser(source)):
        if revision is not None:
            what = repr(source) if isinstance(source, str | os.PathLike) else f"a {type(source).__name__}"
            raise InvalidValueError(
                f"revision applies only to checkpoints on the hub, got revision {revision!r} for {what}. Omit it"
            )
        return Located(source, version, max_depth, {}, "demo" if isinstance(source, str) and source == "demo" else "")
    path = None if revision else in_weights(source)  # files in weights/ have no revisions
    entry = find(source)
    verified: dict[Path, Identity] = {}
    if path is not None:
        entry = entry or _entry_of(path)
    else:
        if entry is None:
            _check_reachable(source)
            raise MissingFileError(_not_found(source))
        path, verified = hub.fetch(entry.name, entry.repository, entry.files, revision, entry.megabytes)
    if entry:
        version = entry.version if version is None else version
        max_depth = entry.max_depth if max_depth is None else max_depth
    return Located(path, version, max_depth, verified, entry.name if entry else "")


def _check_reachable(source: str) -> None:
    """PermissionError for a path inside a folder that may not be entered: the file may exist."""
    try:
        os.stat(os.path.expanduser(source))
    except PermissionError as error:
        raise hub.AccessDeniedError(error.errno, f"{source} cannot be reached: {error.strerror}") from error
    except (OSError, ValueError):  # does not exist, or cannot be a path
        pass


def _not_found(source: str) -> str:
    """The message for a name that leads to nothing, with similar names."""
    if folded(source) in UNRELEASED:
        return f"The authors announced {source}, but never released it on the hub. If you have the file, pass its path"
    known = {key: entry.name for key, entry in BY_NAME.items()}
    known |= {folded(path.name): path.name for path in weights_files() if not generic(path.name)}
    close = dict.fromkeys(known[key] for key in difflib.get_close_matches(folded(source), known, n=5, cutoff=0.7))
    meant = f". Did you mean {' or '.join(map(repr, list(close)[:3]))}?" if close else ""
    return (
        f"no checkpoint at {source[:500]!r}. Pass the path of a .safetensors, .pth or .pt file, the name of a file in "
        f"a folder weights/, a name that `{COMMAND}` lists, or 'demo' for the model that comes with the package{meant}"
    )


# Folders weights/


def weights_folders() -> list[Path]:
    """$DPT_WEIGHTS, then weights/ in the current folder and in its parents (so beside a folder of notebooks).

    Raises:
        FileNotFoundError: $DPT_WEIGHTS is set and is not a folder.
    """
    folders = []
    if named := os.environ.get("DPT_WEIGHTS"):
        folders.append(Path(named).expanduser())
        if not folders[0].is_dir():
            raise MissingFileError(f"DPT_WEIGHTS must be a folder, got {named!r}. Correct or unset the variable")
    current = Path.cwd()
    folders += [folder / "weights" for folder in (current, *current.parents)]
    # os.path.isdir is False, without an error, for a folder inside one that may not be entered.
    return [folder for folder in dict.fromkeys(folders) if os.path.isdir(folder)]


def weights_files() -> list[Path]:
    """The checkpoints in these folders and one level below (the layout of `hf download`), in the order of search."""
    files: list[Path] = []
    for folder in weights_folders():
        inside = [path for path in (*folder.glob("*"), *folder.glob("*/*")) if path.suffix in SUFFIXES]
        inside = [path for path in inside if not STATES.match(path.stem) and path.is_file()]
        files += sorted(inside, key=lambda path: (len(path.parts), path.stem, SUFFIXES.index(path.suffix), path.name))
    return files


def in_weights(source: str) -> Path | None:
    """The file in weights/ with this name, with or without suffix, or that is the zoo's checkpoint of this name."""
    files = weights_files()
    entry = find(source)
    tests = (
        lambda path: path.name == source,
        lambda path: not generic(path.name) and folded(path.stem) == folded(source),
        lambda path: generic(path.name) and folded(path.parent.name) == folded(source),
        lambda path: entry is not None and _entry_of(path) is entry,
    )
    return next((path for test in tests for path in files if test(path)), None)


def _entry_of(path: Path) -> Checkpoint | None:
    """The zoo's checkpoint that a file is, by its name, or by its folder's name if its own is generic."""
    return find(path.parent.name if generic(path.name) else path.stem)


# Listing


@dataclass(frozen=True)
class Available:
    """One name that `load` accepts. Prints as a line: name, size, licence, and where the file is.

    Attributes:
        name: What to pass to `load`.
        path: The file, if it is on this machine.
        place: "weights" (in a folder weights/), "cache" (downloaded before) or "hub" (downloaded on first use).
        checkpoint: The entry of the zoo, if it has one.
    """

    name: str
    path: Path | None
    place: Place
    checkpoint: Checkpoint | None

    def __str__(self) -> str:
        entry = self.checkpoint
        licence = f"{entry.licence}{'' if entry.licence_sure else ' ?'}" if entry else ""
        megabytes = round(self.path.stat().st_size / 1e6) if self.path else entry.megabytes if entry else 0
        place = {"hub": "", "cache": "downloaded", "weights": str(self.path)}[self.place]
        return f"{self.name:<42} {megabytes:>5} MB  {licence:<14} {place}".rstrip()


class Listing(tuple[Available, ...]):
    """A tuple of `Available` that prints one line per name."""

    def __repr__(self) -> str:
        return "\n".join(map(str, self)) or (
            "No checkpoints on this machine. dpt.available() also lists those that can be downloaded."
        )


def available(here: bool = False) -> Listing:
    """List the names that `load` accepts besides "demo". Files in weights/ come first.

    Nothing is downloaded or read, so a damaged file is listed like any other.

    Args:
        here: List only the files on this machine.

    Returns:
        A tuple of `Available` that prints as a table.

    Raises:
        FileNotFoundError: $DPT_WEIGHTS is set and is not a folder.

    Example:
        >>> dpt.available()[0].name
        'depth-anything-v2-small'
    """
    found: dict[str, Available] = {}
    for path in weights_files():
        entry = _entry_of(path)
        # If two files hold the same checkpoint, the first gets its name, and the second is listed by its file name.
        names = [entry.name] if entry else []
        names += [path.parent.name if generic(path.name) else path.name]
        if name := next((name for name in names if name not in found), None):
            found[name] = Available(name, path, "weights", entry)
    for entry in CHECKPOINTS:
        if entry.name not in found:
            copy = hub.cached(entry.repository, entry.files)
            found[entry.name] = Available(entry.name, copy, "cache" if copy else "hub", entry)
    return Listing(item for item in found.values() if item.path or not here)
