"""Broken implementations of the store, each wrong in one way. Every fault test must catch the one made for it."""

from __future__ import annotations

import hashlib
import importlib
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import zarr.codecs

from dpt import writing
from probes.runs import part_reader, parts, store
from probes.runs.disk import append_line, seal
from probes.runs.job import Work
from probes.runs.lists import MANIFEST, failure_line
from probes.runs.parts import PART, PARTS, Part, manifest_line, part_id, write_part
from probes.runs.records import ManifestLine, PartRecord, StoredFile, to_json
from probes.runs.store import Store

run_module: Any = importlib.import_module("probes.runs.run")
Patches = list[tuple[Any, str, Any]]  # (module or class, attribute, replacement)


def _written_straight(root: Path, fingerprint: str, part: Part) -> ManifestLine:
    name = part_id(fingerprint, part.index, part.names)
    final = root / PARTS / name
    if final.exists():
        return manifest_line(root, name)
    os.mkdir(final)
    files = {}
    for path, group in part.groups.items():
        for key, data in parts.encoded(group):
            target = final / path / key
            target.parent.mkdir(parents=True, exist_ok=True)
            writing.create_file(target, data)
            files[f"{path}/{key}"] = StoredFile(len(data), hashlib.sha256(data).hexdigest())
    record = PartRecord(name, fingerprint, part.index, part.names, part.images, part.failures, files)
    writing.create_file(final / PART, seal(to_json(record)).encode())
    return manifest_line(root, name)


def _listed_first(self: Store, part: Part) -> None:
    aside = self.root / ".tmp-aside"
    (aside / PARTS).mkdir(parents=True, exist_ok=True)
    line = write_part(aside, self.fingerprint, part)
    if line.part not in self.lines:
        append_line(self.root / MANIFEST, seal(to_json(line)))
        for failure in line.failures:
            append_line(self.root / store.FAILURES, failure_line(failure))
        os.rename(aside / PARTS / line.part, self.root / PARTS / line.part)
        self.lines[line.part] = line


def _replaced(root: Path, fingerprint: str, part: Part) -> ManifestLine:
    rename = os.rename

    def over(source: Path, target: Path) -> None:
        shutil.rmtree(target, ignore_errors=True)
        rename(source, target)

    with patch.object(os, "rename", over), patch.object(Path, "exists", lambda path: False):
        return write_part(root, fingerprint, part)


def _write_unsynced(path: Path, data: bytes | memoryview) -> None:
    with patch.object(os, "fsync", lambda descriptor: None):
        writing.create_file(path, data)


def _sync_but_parts(path: Path) -> None:
    if path.name != PARTS:
        writing.sync_folder(path)


def _write_quietly(path: Path, data: bytes | memoryview) -> None:
    with suppress(OSError):
        writing.create_file(path, data)


def _without_checksum(real: Callable[..., Any] = zarr.codecs.ZstdCodec) -> Callable[..., Any]:
    return lambda level, checksum: real(level=level, checksum=False)


class _Counting(Work):
    def __init__(self, store: Store, items: Any, retry: bool, progress: bool | None):
        super().__init__(store, items, retry, progress)
        self.items = itertools.islice(items, len(store.lines) * store.settings.part, None)


BROKEN: dict[str, Patches] = {
    "writes straight into the final folder": [
        (parts, "write_part", _written_straight),
        (store, "write_part", _written_straight),
    ],
    "lists before renaming": [(Store, "commit", _listed_first)],
    "replaces existing parts": [(parts, "write_part", _replaced), (store, "write_part", _replaced)],
    "does not sync files": [(parts, "create_file", _write_unsynced)],
    "does not sync folders": [(parts, "sync_folder", lambda path: None)],
    "does not sync the folder of parts": [(parts, "sync_folder", _sync_but_parts)],
    "ignores errors": [(parts, "create_file", _write_quietly)],
    "compresses without checksum": [(zarr.codecs, "ZstdCodec", _without_checksum())],
    "checks no sizes": [
        (part_reader.PartReader, "_check_file", lambda self, key: None),
        (part_reader, "check_rows", lambda path, found, rows: None),
    ],
    "resumes by the number of parts": [(run_module, "Work", _Counting)],
    "never mends": [(Store, "_mend", lambda self: None)],
    "never sweeps": [(store, "_sweep", lambda root: None)],
}


def install(name: str) -> None:
    """Installs a broken implementation for the rest of this process."""
    for where, attribute, value in BROKEN[name]:
        setattr(where, attribute, value)


@contextmanager
def broken(name: str | None) -> Iterator[None]:
    with ExitStack() as stack:
        for where, attribute, value in BROKEN[name] if name else []:
            stack.enter_context(patch.object(where, attribute, value))
        yield
