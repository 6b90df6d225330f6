"""Checks that captured images are still what they were, before a run is resumed: it must not mix two sets of images.

Every captured image has the state of its file in its record: size, and times of the last changes. If these are equal,
the file is taken as unchanged. Otherwise, and where the times cannot tell, its content is hashed. No time is compared
with a clock of this machine, which may have been set back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np

from dpt.opening import NotAFileError
from dpt.trouble import is_machine_trouble

from .decode_worker import file_sha256, pixels_sha256, stamp
from .decoding import Decoders
from .errors import ChangedImagesError, Damaged, StoreIOError
from .names import Names
from .parts import PART, PARTS, read_part
from .records import ImageRecord
from .sources import Item, Items
from .store import Store

CLOSE = 2 * 10**9  # ns between two changes that some file systems do not tell apart
SHOWN = 4
KEPT_PARTS = 8


def captured_images(store: Store) -> dict[str, str]:
    """The captured images of a run: image -> part."""
    return {name: line.part for line in store.lines.values() for name in line.grids}


def check_unchanged(store: Store, items: Items, decoders: Callable[[], Decoders]) -> None:
    """Checks the captured images of a run that are listed. `checked` checks those of a stream.

    Args:
        store: The run.
        items: All images of the call.
        decoders: Makes decoding processes, for frames of videos that may have changed.

    Raises:
        ChangedImagesError: An image has other content now.
        StoreIOError: A file cannot be read at the moment.
    """
    root, captured = store.root, captured_images(store)
    if not captured or not items.listed:
        return
    known, here = Names(captured), set(items.names())
    by_part: dict[str, list[tuple[str, Item]]] = {}
    for item in items:
        name = known.find_among(item.name, here)
        if name is not None:
            by_part.setdefault(captured[name], []).append((name, item))
    changed: list[str] = []
    frames: list[tuple[Item, ImageRecord]] = []
    for part, some in by_part.items():
        records = _records(root, part)
        committed = _commit_time(root, part)
        for name, item in some:
            record = records.get(name)
            if record is None or _certain(item, record, committed):
                continue
            if item.frame is not None:
                frames.append((item, record))
            elif _differs(item, record):
                changed.append(name)
    if frames:
        changed += _changed_frames(frames, decoders)
    if changed:
        raise _error(root, changed)


def checked(root: Path, items: Iterable[Item], captured: Mapping[str, str], known: Names) -> Iterator[Item]:
    """Yields the images of a stream that are not stored, and checks the others as they pass.

    Args:
        root: Folder of the run.
        items: The stream.
        captured: Image -> part.
        known: The names of all stored images, captured or failed.

    Raises:
        ChangedImagesError: An image has other content now.
    """
    records = lru_cache(KEPT_PARTS)(lambda part: _records(root, part))
    for item in items:
        name = known.find(item.name)
        if name is None:
            yield item
        elif name in captured:
            record = records(captured[name]).get(name)
            if record is not None and _differs(item, record):
                raise _error(root, [name])


def _error(root: Path, changed: list[str]) -> ChangedImagesError:
    more = "" if len(changed) <= SHOWN else ", ..."
    return ChangedImagesError(
        f"{len(changed)} images have changed since {root} captured them: {', '.join(changed[:SHOWN])}{more}. Rename "
        "them, or capture into another folder",
        changed,
    )


def _records(root: Path, part: str) -> dict[str, ImageRecord]:
    return {image.name: image for image in read_part(root, part).images}


def _commit_time(root: Path, part: str) -> int:
    """When a part was committed, by the clock of the file system that holds it, in ns."""
    try:
        return (root / PARTS / part / PART).stat().st_mtime_ns
    except FileNotFoundError:
        raise Damaged.of_part(root, part, "its folder is missing") from None


def _certain(item: Item, record: ImageRecord, committed: int) -> bool:
    """Whether the state of an image's file says that it is unchanged, or that it is gone."""
    if item.path is None:
        return False
    try:
        now = stamp(os.stat(item.path))
    except OSError as error:
        if is_machine_trouble(error):
            raise _unreadable(item, error) from error
        return True  # a deleted file does not change what is stored
    if record.stamp is None:
        return item.frame is not None and max(now[1:]) <= committed  # runs of version 0.1 have no states
    # A change right after the read can have left the times as they were.
    return now == record.stamp and max(now[1:]) < committed - CLOSE


def _differs(item: Item, record: ImageRecord) -> bool:
    """Whether an image has other content than at capture."""
    if item.array is not None:
        return item.array.dtype == np.uint8 and pixels_sha256(item.array) != record.sha256
    assert item.path is not None
    try:
        return file_sha256(item.path) != record.sha256
    except FileNotFoundError:
        return False
    except NotAFileError:
        return True
    except OSError as error:
        raise _unreadable(item, error) from error


def _changed_frames(frames: list[tuple[Item, ImageRecord]], decoders: Callable[[], Decoders]) -> Iterator[str]:
    """Yields the names of frames whose pixels differ."""
    with decoders() as pool:
        for (_, record), decoded in zip(frames, pool.decode(item for item, _ in frames), strict=True):
            if decoded.sha256 != record.sha256 and not decoded.trouble:
                yield record.name


def _unreadable(item: Item, error: OSError) -> StoreIOError:
    reason = error.strerror or error
    return StoreIOError(error.errno, f"cannot check that {item.path} is unchanged: {reason}. Resolve the cause first")
