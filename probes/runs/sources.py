"""Which pictures a run is about: files, folders, globs, text lists, videos and arrays as one sequence of named items.

Problem. A capture of a million pictures is resumed by their names, so that names must be unique, the same tomorrow, and
harmless wherever they are written; and the list must be there before a model is loaded, in seconds.

Approach. Nothing is opened here but folders, text lists and videos (whose frames are counted). A name is the path
relative to the folder given, or to the common parent of what was given, with "/" between its parts. What cannot stand
in a name is spelt out: bytes that are no UTF-8 as ``\\xff``, a backslash as ``\\x5c``. Frame 120 of a video is called
``clip.mp4#000120``.

What is taken:

* a folder: every file below it whose suffix is in PICTURES or VIDEOS, in order of the names; hidden ones are skipped.
  Links to folders are followed, each folder is listed once. A subfolder that may not be listed stays as one item.
* a glob ("photos/**/*.jpg"): as the shell does it, hidden files skipped; folders that match are taken as folders,
  unless the pattern has ``**``. Suffixes as in folders, unless the pattern names its own.
* a text list (.txt): one path a line, relative to the list's folder, nothing is trimmed; blank lines and lines that
  begin with # are skipped. Suffixes do not matter.
* a file named on its own, whatever its suffix; a video with ``frames=slice(start, stop, step)``.
* (name, array) pairs; a list, tuple or iterable of any of these, a mapping of names to arrays, or a generator, of which
  pairs are taken one at a time. Its arrays are copied, so that it may fill the same buffer again and again.

Limits. Whether a picture can be read shows when it is decoded: a dangling link, an unreadable file or a line of a list
that leads nowhere is an item whose decoding fails with a reason. Frames are counted as the container announces them.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ..errors import InvalidTypeError

__all__ = ["PICTURES", "VIDEOS", "Item", "Items", "SourceError", "find"]

# What cameras, scanners and renderers write. HEIC and JPEG XL are here although Pillow needs a plugin for them: left
# out, such pictures would be missing from a run without a word; so they fail, with the advice to install it.
PICTURES = frozenset(
    {
        *(
            ".apng",
            ".avif",
            ".avifs",
            ".bmp",
            ".dib",
            ".gif",
            ".heic",
            ".heif",
            ".hif",
            ".j2c",
            ".j2k",
            ".jfif",
            ".jp2",
        ),
        *(
            ".jpc",
            ".jpe",
            ".jpeg",
            ".jpf",
            ".jpg",
            ".jpx",
            ".jxl",
            ".mpo",
            ".pbm",
            ".pcx",
            ".pfm",
            ".pgm",
            ".png",
            ".pnm",
        ),
        *(".ppm", ".psd", ".qoi", ".sgi", ".tga", ".tif", ".tiff", ".webp"),
    }
)
VIDEOS = frozenset(
    {
        *(".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mjpeg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts"),
        *(".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
    }
)
_TAKEN = PICTURES | VIDEOS


class SourceError(ValueError):
    """What was given as pictures cannot be used. The message says what was given and what to do."""


@dataclass(frozen=True, slots=True)
class Item:
    """One picture of a run, not yet opened: a file, a frame of a video, or an array.

    name: unique in the run, valid Unicode, relative, with "/" between its parts; never empty, absolute or with "..".
    path: absolute path of the picture or video. frame: of a video, counted from 0. array: (H, W, 3) uint8.
    """

    name: str
    path: Path | None = None
    frame: int | None = None
    array: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class _Frames:
    """Frames of the video at path."""

    path: str
    numbers: range


Pair: TypeAlias = "tuple[str, np.ndarray]"
Entry: TypeAlias = "str | _Frames | Pair"  # an absolute path, as short as a million of them ask for


class Items:
    """Items in their order; made by `find`. `len` and ``count`` where the number is known before the last one came."""

    def __init__(self, entries: Sequence[Entry], base: str = "", stream: Iterable[Any] | None = None):
        self._entries, self._base, self._stream = entries, base, stream
        self._spent = False
        self.count: int | None
        if stream is None:
            self.count = sum(len(entry.numbers) if isinstance(entry, _Frames) else 1 for entry in entries)
        else:
            self.count = len(stream) if isinstance(stream, Sized) else None

    @property
    def listed(self) -> bool:
        """Whether the items can be gone through again and again; otherwise they come once, one at a time."""
        return self._stream is None

    def __len__(self) -> int:
        if self.count is None:
            raise InvalidTypeError("how many pictures a generator gives is known when it ends")
        return self.count

    def __bool__(self) -> bool:
        return True  # `find` gives no empty ones, and `len` is not always known

    def __iter__(self) -> Iterator[Item]:
        return self._listed() if self._stream is None else self._streamed(self._stream)

    def _listed(self) -> Iterator[Item]:
        for entry in self._entries:
            if isinstance(entry, str):
                yield Item(_name(entry, self._base), Path(entry))
            elif isinstance(entry, _Frames):
                name, path = _name(entry.path, self._base), Path(entry.path)
                for number in entry.numbers:
                    yield Item(f"{name}#{number:06d}", path, number)
            else:
                yield Item(entry[0], array=entry[1])

    def _streamed(self, stream: Iterable[Any]) -> Iterator[Item]:
        if self._spent:
            raise SourceError("the generator of pictures was read already; make a new one, or give a list")
        self._spent = isinstance(stream, Iterator)
        names: set[str] = set()
        for given in stream:
            name, array = _pair(given)
            if name in names:
                raise SourceError(f"two pictures are called {name!r}; give each (name, array) its own name")
            names.add(name)
            yield Item(name, array=array.copy())

    def names(self) -> Iterator[str]:
        """The names alone, which takes less time where they are many."""
        if self._stream is not None or any(not isinstance(entry, str) for entry in self._entries):
            return (item.name for item in self)
        return (_name(entry, self._base) for entry in self._entries if isinstance(entry, str))


def find(images: Any, *, frames: slice | None = None) -> Items:
    """The pictures that are meant by a path, a glob, a list of them, or arrays with names.

    images: see the head of this module. frames: which frames of every video, counted from 0; None: all.
    Raises SourceError for what is not there, holds no pictures, or has two pictures of one name.
    """
    if frames is not None and (not isinstance(frames, slice) or (frames.step is not None and frames.step < 1)):
        raise SourceError(f"frames is a slice with a step of 1 or more, such as slice(0, 900, 30), not {frames!r}")
    inputs = _inputs(images)
    if not isinstance(inputs, list):
        return Items((), stream=inputs)
    if not inputs:
        raise SourceError("no pictures were given: the list is empty")
    anchors: list[str] = []
    entries: list[Entry] = []
    for given in inputs:
        if isinstance(given, (str, os.PathLike)):
            folders, paths = _look(os.fsdecode(given))
            anchors += folders
            entries += [_frames(path, frames) if _suffix(path) in VIDEOS else path for path in paths]
        else:
            entries.append(_pair(given))
    videos = [entry for entry in entries if isinstance(entry, _Frames)]
    if frames is not None and not videos:
        raise SourceError(f"frames={frames!r} chooses among the frames of videos, and no video was given")
    items = Items(entries, _common(anchors))
    if not len(items):
        raise SourceError(f"frames={frames!r} leaves no frame of {len(videos)} videos, such as {videos[0].path}")
    _check_names(items)
    return items


def _inputs(images: Any) -> list[Any] | Iterable[Any]:
    """A list of paths and pairs, or an iterable of pairs that is to be read one at a time."""
    if isinstance(images, (str, os.PathLike)) or _is_pair(images):
        return [images]
    if isinstance(images, Mapping):
        return list(images.items())
    if isinstance(images, (list, tuple)):
        return list(images)
    if isinstance(images, (bytes, np.ndarray)) or not isinstance(images, Iterable):
        given = f"an array of shape {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise SourceError(
            f"expected a file, folder, glob, text list or video, a list of these, or (name, array) pairs, not {given}; "
            'an array needs a name to be found by: [("first", array)]'
        )
    stream = iter(images)
    try:
        first = next(stream)
    except StopIteration:
        raise SourceError("no pictures were given: the iterable is empty") from None
    if isinstance(first, (str, os.PathLike)):  # Path("photos").glob("*.jpg"): names need all the paths
        return [first, *stream]
    return chain([first], stream) if stream is images else images


def _is_pair(given: Any) -> bool:
    return isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], np.ndarray)


_DRIVE = re.compile(r"[A-Za-z]:")
_SURROGATE = re.compile("[\ud800-\udfff]")


def _pair(given: Any) -> Pair:
    """(name, array), checked as far as the run is concerned: what the array holds is seen when it is prepared."""
    if not _is_pair(given) or not isinstance(given[0], str):
        what = (
            f"({', '.join(type(part).__name__ for part in given)})"
            if isinstance(given, tuple)
            else type(given).__name__
        )
        raise SourceError(f"expected (name, array) pairs with a string and a NumPy array, or paths, not {what}")
    name = given[0]
    parts = re.split(r"[/\\]", name)
    if not name or any(part in ("", ".", "..") for part in parts) or "\0" in name or _DRIVE.match(name):
        raise SourceError(
            f"{name!r} is no name for a picture; expected a relative one without '..' or empty parts, as 'monday/1' is"
        )
    return _unicode(name), given[1]


def _unicode(text: str) -> str:
    """Text with bytes that were no UTF-8, which Python carries as lone surrogates, spelt out: \\xff."""
    return _SURROGATE.sub(lambda found: rf"\x{ord(found[0]) & 0xFF:02x}", text)


def _name(path: str, base: str) -> str:
    """The name of the file at an absolute path, of which base is a parent."""
    if "/." in path or "//" in path or os.sep != "/":
        path = os.path.normpath(path)
    name = path[len(base) :].lstrip(os.sep)
    name = name.replace(os.sep, "/") if os.sep != "/" else name.replace("\\", r"\x5c")
    return _unicode(name)


def _check_names(items: Items) -> None:
    if len(set(items.names())) == len(items):
        return
    first: dict[str, Item] = {}
    for item in items:
        other = first.setdefault(item.name, item)
        if other is not item:
            ways = " and ".join(str(one.path or "an array") for one in (other, item))
            raise SourceError(f"two pictures are called {item.name!r}: {ways}; give each once, under its own name")


def _common(anchors: list[str]) -> str:
    try:
        return os.path.commonpath(anchors) if anchors else ""
    except ValueError as error:  # Windows: nothing is above two drives
        raise SourceError(f"the pictures lie on different drives; run them one drive at a time ({error})") from error


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _look(given: str) -> tuple[list[str], list[str]]:
    """([folders that names are relative to], [absolute paths]) of one path or glob."""
    path = os.path.join(os.getcwd(), given)
    lexical = os.path.normpath(path)  # for the name alone: where links are, a/../b need not be b
    if given and os.path.isdir(path):
        return [lexical], _folder(path)
    if not os.path.lexists(path) and glob.has_magic(given):
        return _glob(given, path)
    if not given or not os.path.lexists(path):
        hint = "; a leading ~ needs os.path.expanduser(path)" if given.startswith("~") else ""
        hint = "; nothing is fetched here, download it first" if "://" in given else hint
        raise SourceError(f"{given!r} does not exist in {os.getcwd()}; check the path{hint}")
    if _suffix(path) == ".txt":
        return _text_list(path, os.path.dirname(lexical))
    return [os.path.dirname(lexical)], [path]


def _folder(folder: str) -> list[str]:
    others: list[str] = []
    found = list(_walk(folder, others))
    if not found:
        what = f"{len(others)} other files, such as {others[0]!r}" if others else "nothing"
        raise SourceError(
            f"no picture or video is in the folder {folder!r}: it holds {what}; suffixes such as .jpg, .png, .mp4 are "
            "taken, files with others by a glob that names the suffix"
        )
    return found


def _walk(root: str, others: list[str]) -> Iterator[str]:
    """Pictures and videos below a folder in the order of their names; what else is there goes to others."""
    seen: set[tuple[int, int]] = set()
    stack = [(root, True)]
    while stack:
        path, is_folder = stack.pop()
        if not is_folder:
            yield path
            continue
        try:
            status = os.stat(path)
            if (status.st_dev, status.st_ino) in seen:  # a link back, or a second way to the same folder
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(path) as entries:
                listed = [(entry.name, _is_folder(entry)) for entry in entries if not entry.name.startswith(".")]
        except OSError as error:
            if path == root:
                raise SourceError(f"the folder {root!r} cannot be listed: {error.strerror}") from error
            yield path  # fails when it is decoded, with the reason, so that nothing is missing unseen
            continue
        for name, folder in sorted(listed, reverse=True):
            if folder or _suffix(name) in _TAKEN:
                stack.append((os.path.join(path, name), folder))
            else:
                others.append(name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _glob(given: str, pattern: str) -> tuple[list[str], list[str]]:
    fixed = pattern
    while glob.has_magic(fixed):
        fixed = os.path.dirname(fixed)
    suffix = os.path.splitext(given)[1]
    chosen = bool(suffix) and not glob.has_magic(suffix)
    found: list[str] = []
    for path in sorted(set(glob.iglob(pattern, recursive=True)), key=lambda path: path.split(os.sep)):
        if os.path.isdir(path):
            found += [] if "**" in given else _walk(path, [])
        elif chosen or _suffix(path) in _TAKEN:
            found.append(path)
    if not found:
        raise SourceError(
            f"no picture matches {given!r} in {os.getcwd()}; check the pattern, ** stands for any folders"
        )
    return [os.path.normpath(fixed)], found


def _text_list(path: str, folder: str) -> tuple[list[str], list[str]]:
    try:
        # Names on disk are bytes; surrogateescape is how Python's functions for files carry those that are no UTF-8.
        lines = Path(path).read_text(encoding="utf-8", errors="surrogateescape").removeprefix("\ufeff").split("\n")
    except OSError as error:
        raise SourceError(f"the list {path!r} cannot be read: {error.strerror}") from error
    lines = [line.removesuffix("\r") for line in lines]
    found = [os.path.join(folder, line) for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not found:
        raise SourceError(f"the list {path!r} names no pictures; it holds one path a line")
    if not any(map(os.path.lexists, found)):
        raise SourceError(
            f"none of the {len(found)} files in the list {path!r} exists, the first would be {found[0]!r}; paths are "
            "relative to the list's folder"
        )
    below = os.path.join(folder, "")
    outside = {os.path.dirname(lexical) for lexical in map(os.path.normpath, found) if not lexical.startswith(below)}
    return [folder, *sorted(outside)], found


def _frames(path: str, frames: slice | None) -> _Frames:
    from .video import VideoError, count

    try:
        number = count(path)
    except ImportError as error:
        raise SourceError(
            f"{path} is a video, and PyAV is not installed: pip install 'dpt-workbench[scale]', or name the pictures "
            "alone, as with 'photos/**/*.jpg'"
        ) from error
    except VideoError:
        return _Frames(path, range(1))  # decoding it will say why
    return _Frames(path, range(*(frames or slice(None)).indices(number)))
