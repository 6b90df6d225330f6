"""A small run: its model, images and selectors, what its folder must look like, and jobs for `tests.forks`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

import probes
from dpt import TokenGrid
from probes.attention import AttentionMaps
from probes.runs import parts, store
from probes.runs.errors import StoreError
from probes.runs.parts import PARTS, Array, Group, Part
from probes.runs.records import (
    ArrayAttributes,
    CaptureRecord,
    Failure,
    GroupAttributes,
    ImageRecord,
    ModelRecord,
    RunRecord,
)
from tests.models import tiny_model

SELECTORS = ("encoder.blocks.1.norms", "encoder.blocks.2.attention", "depth")
CHOSEN: dict[str, Any] = {"size": 42, "part": 3, "batch": 2, "workers": 0, "progress": False}
ODD_NAMES = ("a b/ü.png", 'quote\'d "one"', "new\nline", "~", "-rf", "%s {0} $HOME", "..a/b..")


@cache
def pictures(count: int = 14, seed: int = 0) -> tuple[tuple[str, np.ndarray], ...]:
    """Named arrays of two alternating shapes. The sixth is not a valid image, so each run has a failure."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        name = ODD_NAMES[i] if i < len(ODD_NAMES) else f"plain/{i:03d}"
        array = rng.integers(0, 256, (42, 70 if i % 3 else 42, 3), dtype=np.uint8)
        made.append((name, array.astype(np.float64) if i == 5 else array))
    return tuple(made)


@cache
def model() -> Any:
    return tiny_model()


def capture(out: Path, images: Any = None, *selectors: str, **changes: Any) -> probes.Report:
    """The run. Uses workers=0, because starting processes takes longer than everything else."""
    with one_thread():
        given = list(pictures()) if images is None else images
        return probes.run(model(), given, out, *(selectors or SELECTORS), **CHOSEN | changes)


class one_thread:
    """Makes sums independent of the number of threads of the process."""

    def __enter__(self) -> None:
        self._before = torch.get_num_threads()
        torch.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self._before)


# The content of the disk ----------------------------------------------------------------------------------------------


def files(root: Path) -> dict[str, bytes]:
    """The bytes of every file of a run except lock and lease, by path."""
    found = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    for name in (store.LOCK, store.LEASE):
        found.pop(name, None)
    return found


def folders(root: Path) -> dict[str, dict[str, bytes]]:
    """The files of each visible part."""
    if not (root / PARTS).exists():
        return {}
    return {path.name: files(path) for path in (root / PARTS).iterdir() if not path.name.startswith(".tmp-")}


def opened(root: Path) -> probes.Run:
    """Opens a run without beartype's check of the return value, which would read an image."""
    return probes.Run(root)


def values(run: probes.Run) -> dict[tuple[str, str], list[np.ndarray]]:
    """All values of a run, by image and point."""
    return {(name, point): arrays(run[name][point]) for name in run for point in run.points}


def arrays(value: Any) -> list[np.ndarray]:
    if not isinstance(value, AttentionMaps):
        return [value.numpy()]
    bias = [] if value.bias is None else [value.bias.table, value.bias.prefix, value.bias.bands]
    return [tensor.numpy() for tensor in (value.q, value.k, *bias) if tensor is not None]


def same(a: dict[Any, list[np.ndarray]], b: dict[Any, list[np.ndarray]]) -> bool:
    """Whether all bits are equal: NaN equals NaN, and -0 differs from 0."""
    return a.keys() == b.keys() and all(
        len(a[key]) == len(b[key])
        and all(
            x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()
            for x, y in zip(a[key], b[key], strict=True)
        )
        for key in a
    )


@dataclass
class Reference:
    """The files and values of an uninterrupted run."""

    files: dict[str, bytes]
    folders: dict[str, dict[str, bytes]]
    values: dict[tuple[str, str], list[np.ndarray]] = field(default_factory=dict)

    @classmethod
    def of(cls, root: Path, read: bool = True) -> Reference:
        return cls(files(root), folders(root), values(opened(root)) if read else {})

    def faults(self, root: Path, before: set[str] = frozenset()) -> list[str]:  # type: ignore[assignment]
        """Checks a run that may have been killed at any moment, as a reader sees it before the next writer repairs it.

        Args:
            root: Folder of the run.
            before: Parts that were visible earlier.

        Returns:
            One line per fault.
        """
        found = []
        there = folders(root)
        for name, content in there.items():
            if content != self.folders.get(name):
                found.append(f"part {name} is visible but incomplete")
        found += [f"part {name} is lost" for name in sorted(before - there.keys())]
        if not (root / store.SETTINGS).exists():
            return found + ["parts without run.json"] * bool(there)
        try:
            seen = store.Store.read(root)
            for name in seen.lines.keys() - there.keys():
                found.append(f"part {name} is listed but missing")
            if unlisted := there.keys() - seen.lines.keys():
                found.append(f"parts {sorted(unlisted)} are not found")
        except StoreError as error:
            found.append(f"it cannot be opened: {error}")
        return found

    def unread(self, root: Path, known: set[str]) -> list[str]:
        """Reads all images of parts outside `known`, adds these parts to it, and returns one line per fault."""
        run = opened(root)
        found = []
        for name in run:
            part = run._where[name][0]
            if part in known:
                continue
            try:
                read = {(name, point): arrays(run[name][point]) for point in run.points}
            except StoreError as error:
                found.append(f"{name} is listed but unreadable: {error}")
                continue
            if not same(read, {key: value for key, value in self.values.items() if key[0] == name}):
                found.append(f"{name} has other values")
        known |= set(run.store.lines)
        return found

    def differences(self, root: Path) -> list[str]:
        """Names of files of a finished run that differ from this one in any byte."""
        there = files(root)
        return sorted(name for name in there.keys() | self.files.keys() if there.get(name) != self.files.get(name))


# A store without a model: two small parts, encoded once ---------------------------------------------------------------

NO_MODEL = ModelRecord(family="none", variant="none", config={}, weights="0" * 64, dtype="float32")
CAPTURE = CaptureRecord(NO_MODEL, ["x"], [], None, None, True, False, [])
SETTINGS = RunRecord(CAPTURE, fingerprint="f" * 64, part=3, batch=2, source={})


def part(index: int, seed: int = 0) -> Part:
    """A part of two images and a failure. Another seed gives other values under the same names."""
    rng = np.random.default_rng([index, seed])
    names = [f"{index}/{letter}" for letter in "abc"]

    values = rng.random((2, 3, 4), dtype=np.float32)
    made = {"x": Array(values, ("image", "axis0_3", "axis1_4"), ArrayAttributes("x"))}
    images = [ImageRecord(name, "3x4", row, (3, 4), "0" * 64) for row, name in enumerate(names[:2])]
    failures = [Failure(names[2], "it is not an image")]
    group = Group(names[:2], made, GroupAttributes(TokenGrid(3, 4), (3, 4)))
    return Part(index, names, images, failures, {"3x4": group})


ENCODED: dict[str, list[tuple[str, bytes]]] = {}  # by the first name of a group


def encode() -> dict[str, list[tuple[str, bytes]]]:
    if not ENCODED:
        for index in (0, 1):
            ENCODED.update({group.names[0]: list(parts.encoded(group)) for group in part(index).groups.values()})
    return ENCODED


def session(out: Path) -> None:
    """Starts or resumes a store and commits two parts. They are encoded beforehand, so only writing is tested."""
    encode()
    with (
        patch.object(parts, "encoded", lambda group: iter(ENCODED[group.names[0]])),
        store.Store.write(out, SETTINGS) as opened,
    ):
        for index in (0, 1):
            opened.commit(part(index))


# Jobs for child processes ---------------------------------------------------------------------------------------------


def slowly(count: int, seconds: float) -> Iterator[tuple[str, np.ndarray]]:
    for name, array in pictures(count):
        time.sleep(seconds)
        yield name, array


def hold(out: Path, seconds: float = 60.0) -> None:
    """Holds the lock of a run without writing."""
    with store.Store.write(out, SETTINGS):
        (out.parent / "held").touch()
        time.sleep(seconds)


def capture_slowly(out: Path, count: int = 60, seconds: float = 0.02) -> probes.Report:
    return capture(out, slowly(count, seconds))


def meet(out: Path, own: str, other: str, seed: int) -> None:
    """Writes part 0, but waits before the rename until another process has come as far."""
    rename = os.rename

    def together(source: Any, target: Any) -> None:
        (out.parent / own).touch()
        deadline = time.monotonic() + 20
        while not (out.parent / other).exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{other} did not reach the rename")
            time.sleep(0.001)
        rename(source, target)

    with patch.object(os, "rename", together):
        parts.write_part(out, "f" * 64, part(0, seed))
