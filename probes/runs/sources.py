"""Turns files, folders, globs, text lists, videos and arrays into one sequence of named items.

Problem. A run of a million images is resumed by their names. Names must therefore be unique, stable, and harmless
wherever they are written. The list must be complete before a model is loaded, within seconds.

Approach. Only folders, text lists and videos are opened (to count frames). A name is the path relative to the given
folder, or to the common parent of everything given, with "/" as separator. Characters that cannot be part of a name are
escaped: bytes that are not UTF-8 as ``\\xff``, a backslash as ``\\x5c``. Frame 120 of a video is ``clip.mp4#000120``.

What can be given:

* a folder: all files below it with a suffix in PICTURES or VIDEOS, sorted by name. Hidden files are skipped. Links to
  folders are followed; each folder is listed once. A subfolder that cannot be listed becomes one item, which fails.
* a glob ("photos/**/*.jpg"): as in a shell, without hidden files. Matching folders are listed, unless the pattern
  contains ``**``. Suffixes as for folders, unless the pattern has its own.
* a text list (.txt): one path per line, relative to the folder of the list, not stripped. Blank lines and lines that
  start with # are skipped. Any suffix is accepted.
* a single file with any suffix; a video with ``frames=slice(start, stop, step)``.
* (name, array) pairs.
* a list, tuple or iterable of these, or a mapping from names to arrays. A generator may also yield pairs one at a time.
  Its arrays are copied, so it can reuse a buffer.

Limits. Whether an image is readable shows when it is decoded: a broken link, an unreadable file or a missing file of a
list is an item that fails with a reason. The number of frames is the one that the container states.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeAlias, TypeGuard

import numpy as np

from dpt.trouble import is_machine_trouble

from ..errors import InvalidTypeError
from .listing import PICTURES, VIDEOS, SourceError, look_up, suffix

__all__ = ["PICTURES", "VIDEOS", "Item", "Items", "SourceError", "find"]


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a run, not yet opened: a file, a frame of a video, or an array.

    Attributes:
        name: Unique in the run. Valid Unicode, relative, with "/" as separator; never empty, absolute or with "..".
        path: Absolute path of the image or video.
        frame: Number of the frame in a video, from 0.
        array: (H, W, 3) uint8.
    """

    name: str
    path: Path | None = None
    frame: int | None = None
    array: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class _Frames:
    """Frames of the video at a path."""

    path: str
    numbers: range


Pair: TypeAlias = "tuple[str, np.ndarray]"
Entry: TypeAlias = "str | _Frames | Pair"  # str: an absolute path. An Item per path would need several times the memory


class Items:
    """Items in order. `find` creates them.

    Args:
        entries: The images, if they are known in advance.
        base: Folder that names are relative to.
        stream: An iterable of (name, array) pairs, if they are not.

    Attributes:
        count: Number of items; None if unknown.
    """

    def __init__(self, entries: Sequence[Entry], base: str = "", stream: Iterable[object] | None = None):
        self._entries, self._base, self._stream = entries, base, stream
        self._spent = False
        self.count: int | None
        if stream is None:
            self.count = sum(len(entry.numbers) if isinstance(entry, _Frames) else 1 for entry in entries)
        else:
            self.count = len(stream) if isinstance(stream, Sized) else None

    @property
    def listed(self) -> bool:
        """Whether the items can be iterated again. A stream yields them once."""
        return self._stream is None

    def __len__(self) -> int:
        if self.count is None:
            raise InvalidTypeError("the number of images of a generator is unknown until it ends")
        return self.count

    def __bool__(self) -> bool:
        return True  # never empty; without this, bool() would call len()

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

    def _streamed(self, stream: Iterable[object]) -> Iterator[Item]:
        if self._spent:
            raise SourceError("the generator of images is used up. Create a new one, or give a list")
        self._spent = isinstance(stream, Iterator)
        names: set[str] = set()
        for given in stream:
            name, array = _checked_pair(given)
            if name in names:
                raise SourceError(f"two images have the name {name!r}. Give each (name, array) pair a unique name")
            names.add(name)
            yield Item(name, array=array.copy())

    def names(self) -> Iterator[str]:
        """Yields the names only, which is faster than iterating the items."""
        if self._stream is not None or any(not isinstance(entry, str) for entry in self._entries):
            return (item.name for item in self)
        return (_name(entry, self._base) for entry in self._entries if isinstance(entry, str))


def find(images: object, *, frames: slice | None = None) -> Items:
    """Finds the images of a run.

    Args:
        images: See the module docstring.
        frames: Frames of every video, counted from 0. Default: all.

    Returns:
        The images in order, with unique names.

    Raises:
        SourceError: Files do not exist, there are no images, or two images have the same name.

    Example:
        [item.name for item in find("photos/**/*.jpg")]
    """
    if frames is not None and (not isinstance(frames, slice) or (frames.step is not None and frames.step < 1)):
        raise SourceError(f"frames must be a slice with a step >= 1, e.g. slice(0, 900, 30), got {frames!r}")
    inputs = _inputs(images)
    if not isinstance(inputs, list):
        return Items((), stream=inputs)
    if not inputs:
        raise SourceError("no images were given: the list is empty")
    anchors: list[str] = []
    entries: list[Entry] = []
    for given in inputs:
        if isinstance(given, (str, os.PathLike)):
            folders, paths = look_up(os.fsdecode(given))
            anchors += folders
            entries += [_frames(path, frames) if suffix(path) in VIDEOS else path for path in paths]
        else:
            entries.append(_checked_pair(given))
    videos = [entry for entry in entries if isinstance(entry, _Frames)]
    if frames is not None and not videos:
        raise SourceError(f"frames={frames!r} selects frames of videos, but no video was given")
    items = Items(entries, _common(anchors))
    if not len(items):
        raise SourceError(f"frames={frames!r} selects no frame of {len(videos)} videos, e.g. {videos[0].path}")
    _check_names(items)
    return items


def _inputs(images: object) -> list[object] | Iterable[object]:
    """A list of paths and pairs, or an iterable of pairs to read one at a time."""
    if isinstance(images, (str, os.PathLike)) or _is_pair(images):
        return [images]
    if isinstance(images, Mapping):
        return list(images.items())
    if isinstance(images, (list, tuple)):
        return list(images)
    if isinstance(images, (bytes, np.ndarray)) or not isinstance(images, Iterable):
        given = f"an array of shape {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise SourceError(
            f"expected a file, folder, glob, text list or video, a list of these, or (name, array) pairs, got {given}. "
            'Give an array with a name: [("first", array)]'
        )
    stream = iter(images)
    try:
        first = next(stream)
    except StopIteration:
        raise SourceError("no images were given: the iterable is empty") from None
    if isinstance(first, (str, os.PathLike)):  # e.g. Path("photos").glob("*.jpg"). Names need all paths
        return [first, *stream]
    return chain([first], stream) if stream is images else images


def _is_pair(given: object) -> TypeGuard[Pair]:
    return isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], np.ndarray)


_DRIVE = re.compile(r"[A-Za-z]:")
_SURROGATE = re.compile("[\ud800-\udfff]")


def _checked_pair(given: object) -> Pair:
    """A (name, array) pair with a valid name. The content of the array is checked when it is prepared."""
    if not _is_pair(given) or not isinstance(given[0], str):
        kind = type(given).__name__
        what = f"({', '.join(type(part).__name__ for part in given)})" if isinstance(given, tuple) else kind
        raise SourceError(f"expected (name, array) pairs with a string and a NumPy array, or paths, got {what}")
    name = given[0]
    parts = re.split(r"[/\\]", name)
    if not name or any(part in ("", ".", "..") for part in parts) or "\0" in name or _DRIVE.match(name):
        raise SourceError(
            f"{name!r} is not a valid image name. Expected a relative name without '..' or empty parts, e.g. 'monday/1'"
        )
    return _unicode(name), given[1]


def _unicode(text: str) -> str:
    """Escapes bytes that are not UTF-8, which Python represents as lone surrogates: \\xff."""
    return _SURROGATE.sub(lambda found: rf"\x{ord(found[0]) & 0xFF:02x}", text)


def _name(path: str, base: str) -> str:
    """Name of the file at an absolute path below `base`."""
    if "/." in path or "//" in path or os.sep != "/":
        path = os.path.normpath(path)
    name = path[len(base) :].lstrip(os.sep)
    name = name.replace(os.sep, "/") if os.sep != "/" else name.replace("\\", r"\x5c")
    return _unicode(name)


def _check_names(items: Items) -> None:
    """Raises SourceError if two items have the same name."""
    if len(set(items.names())) == len(items):
        return
    first: dict[str, Item] = {}
    for item in items:
        other = first.setdefault(item.name, item)
        if other is not item:
            both = " and ".join(str(one.path or "an array") for one in (other, item))
            raise SourceError(f"two images have the name {item.name!r}: {both}. Give each once, under a unique name")


def _common(anchors: list[str]) -> str:
    try:
        return os.path.commonpath(anchors) if anchors else ""
    except ValueError as error:  # Windows: two drives have no common parent
        raise SourceError(f"the images are on different drives. Use one run per drive ({error})") from error


def _frames(path: str, frames: slice | None) -> _Frames:
    from .video import VideoError, count

    try:
        number = count(path)
    except ImportError as error:
        raise SourceError(
            f"{path} is a video, and PyAV is not installed. Install it with: pip install 'dpt-workbench[scale]', or "
            "give images only, e.g. 'photos/**/*.jpg'"
        ) from error
    except VideoError as error:
        if is_machine_trouble(error):
            raise SourceError(f"cannot count the frames of {path}: {error}") from error
        return _Frames(path, range(1))  # decoding it fails with the reason
    return _Frames(path, range(*(frames or slice(None)).indices(number)))
