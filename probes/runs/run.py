"""A capture over many pictures, kept on disk part by part: it can be killed at any time, and goes on where it was.

    probes.run(model, "photos/", "run/", "norms", "reassembly.*")
    run = probes.open_run("run/")

Pictures are read and prepared by processes of their own ahead of the model (`decoding`), run through it in
batches of one patch grid, and written by a thread behind it (`store`). What a part holds follows from the list
of pictures alone: the pictures that are not stored yet, in order, so many at a time. A run that was stopped therefore
ends with the same parts, and the same bytes, as one that was not.

Interrupting (Ctrl-C, or the signal that a batch system sends before it kills) finishes the part in hand; a second time
stops at once. Neither loses what is stored, nor does `kill -9`.

A picture that cannot be read is listed with its reason and stops nothing. What goes wrong in the model does stop the
run: it would go wrong for every picture.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tqdm.auto import tqdm

from dpt import DPT
from dpt.image import network_size

from ..edit import active as active_edits
from ..errors import InvalidValueError
from ..registry import check_model
from . import identity
from .decoding import Decoded, Decoders
from .disk import StoreError
from .parts import PARTS, Array, Group, Part, damaged, line_grids, read_part
from .recording import Recorder, Token, joined
from .sources import Item, Items, find
from .store import Store

PART_PICTURES = 50
PART_BYTES = 256 * 2**20  # of arrays in memory; two parts are held at a time
Tell = Callable[[int, int], None]
Batch = tuple[list[Decoded], dict[str, Array], dict[str, Array]]  # pictures, their rows, what they share
NO_DASK = "Dask is not installed here; install it with: pip install 'dpt-workbench[scale]'"
LONG = 100  # pictures from which on size and time are estimated first


@dataclass
class Report:
    """How a run went. pictures: captured now; failed: of those tried now; there: that were stored before."""

    out: Path
    pictures: int = 0
    failed: int = 0
    there: int = 0
    bytes: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    failures: list[tuple[str, str]] = field(default_factory=list)  # of the whole run: (name, reason)

    def __str__(self) -> str:
        speed = f", {self.pictures / self.seconds:.1f} a second" if self.seconds > 0 and self.pictures else ""
        rows = [
            ("captured", f"{self.pictures} pictures in {self.seconds:.1f} s{speed}"),
            ("stored before", f"{self.there} pictures"),
            ("failed", f"{self.failed} pictures" + (", listed in failures.jsonl" if self.failed else "")),
            ("size", f"{_size(self.bytes)} in {self.out}"),
        ]
        if self.interrupted:
            rows.append(("stopped", "before the end; the same call or command again goes on from here"))
        return "\n".join(f"{name:<14} {value}" for name, value in rows)


def run(
    model: DPT,
    images: Any,
    out: str | os.PathLike[str],
    *selectors: str,
    tokens: Sequence[Token] = (),
    dtype: torch.dtype | None = None,
    size: int | tuple[int, int] | None = None,
    keep_aspect: bool = True,
    keep_images: bool = False,
    frames: slice | None = None,
    batch: int | None = None,
    part: int | None = None,
    workers: int | None = None,
    timeout: float = 60.0,
    engine: Literal["local"] | Any = "local",
    retry: bool = False,
    yes: bool = False,
    progress: bool | None = None,
    source: Mapping[str, Any] | None = None,
) -> Report:
    """Captures probe points of many pictures into a folder, or goes on with a run that is there.

    images: files, folders, globs, lists of them, a text file with a path a line, a video (frames=slice(start, stop,
        step) chooses), or anything that yields (name, picture).
    out: the run's folder. `probes.open_run` reads it.
    selectors: what to keep; see `probes.runs.recording`. tokens, dtype: likewise.
    size, keep_aspect: of the model's input, as for `model.predict`.
    keep_images: also store the pictures as the model saw them (uint8), for explorers where the files are gone.
    batch: pictures that go through the model at once, 4 if not given. part: pictures committed at once; if not given,
        50, or as many as make a quarter of a GiB.
    workers: processes that read pictures. timeout: seconds one may take over a picture.
    engine: "local", or a `distributed.Client`: its workers write the parts, and must reach images and out under the
        same paths.
    retry: try pictures again that failed before.
    yes: begin even if the disk seems too small. progress: show a bar; by default where someone is looking.
    source: notes on where model and pictures came from, kept as they are; the command line repairs runs by them.

    Raises ProbeError, SourceError and StoreError before anything is written; StoreError if the disk fails on the way:
    what is stored stays, and the same call goes on.
    """
    check_model(model)
    recorder = Recorder(model, selectors, tokens, dtype)
    _positive("batch", batch)
    _positive("part", part)
    items = find(images, frames=frames)
    settings = describe(recorder, size, keep_aspect, keep_images)
    height, width = _base_input(model, size, keep_aspect)
    each = recorder.bytes_per_picture(model.token_grid(height, width)) + (3 * height * width if keep_images else 0)
    settings |= {"part": part or max(1, min(PART_PICTURES, PART_BYTES // max(1, each))), "batch": batch or 4}
    settings["source"] = dict(source or {})
    with Store.write(out, settings) as store:
        for name, given in (("part", part), ("batch", batch)):
            if given is not None and given != store.settings[name]:
                raise StoreError(
                    errno.EINVAL,
                    f"{out} was begun with {name}={store.settings[name]}, not {given}; leave {name} out to go on",
                )
        job = Job(recorder, store.settings["batch"], size, keep_aspect, keep_images, workers, timeout)
        work = Work(store, items, retry, progress)
        _estimate(job, work, each, yes)
        if engine == "local":
            return _run_here(job, work)
        try:
            from .dask_engine import run_on
        except ImportError as error:
            raise InvalidValueError(NO_DASK) from error
        return run_on(engine, job, work)


def describe(recorder: Recorder, size: Any, keep_aspect: bool, keep_images: bool) -> dict[str, Any]:
    """What a run captures, as JSON, with the fingerprint that a later call must share to go on with it."""
    model = recorder.model
    edits = []
    for name, edit in active_edits(model):
        value = edit.value
        made_of = {"tensor": _sha256(value)} if isinstance(value, torch.Tensor) else {}
        if edit.function is not None:
            made_of["code"] = identity.sha256(edit.function)
        edits.append([name, edit.to_json() | made_of])
    capture = {
        "model": {
            "family": model.config.family,
            "variant": model.config.variant,
            "config": _plain(asdict(model.config)),
            "weights": weights_sha256(model),
            "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        },
        "points": recorder.names,
        "tokens": [list(token) if isinstance(token, tuple) else token for token in recorder.tokens],
        "dtype": str(recorder.dtype).removeprefix("torch.") if recorder.dtype else None,
        "size": list(size) if isinstance(size, tuple) else size,
        "keep_aspect": keep_aspect,
        "keep_images": keep_images,
        "edits": edits,
    }
    text = json.dumps(capture, sort_keys=True)
    return {"capture": capture, "fingerprint": hashlib.sha256(text.encode()).hexdigest()}


def weights_sha256(model: DPT) -> str:
    """Of all parameters and buffers, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _sha256(tensor: torch.Tensor) -> str:
    return hashlib.sha256(_bytes(tensor)).hexdigest()


def _bytes(tensor: torch.Tensor) -> memoryview:
    whole = tensor.detach().cpu().contiguous().view(-1)  # a number has no last axis to look at as bytes
    return whole.view(torch.uint8).numpy().data


def _plain(value: Any) -> Any:
    """Tuples as the lists that JSON makes of them."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _base_input(model: DPT, size: Any, keep_aspect: bool) -> tuple[int, int]:
    """(height, width) of the input that a square picture becomes: what estimates are made from."""
    base = model.config.preprocess.base
    return network_size(base, base, model.config.preprocess, size, keep_aspect)


def _positive(name: str, value: Any) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise InvalidValueError(f"{name} is {value!r}; expected a whole number of pictures, 1 or more")


# ------------------------------------------------------------------------------------------------------------- one part


@dataclass
class Job:
    """How pictures become a part. Used by both engines."""

    recorder: Recorder
    batch: int
    size: Any
    keep_aspect: bool
    keep_images: bool
    workers: int | None
    timeout: float

    def decoders(self) -> Decoders:
        return Decoders(
            self.recorder.model.config.preprocess,
            self.size,
            self.keep_aspect,
            workers=self.workers,
            timeout=self.timeout,
            images=self.keep_images,
        )

    def part(self, index: int, pictures: Iterable[Decoded], tell: Tell = lambda captured, failed: None) -> Part:
        """Runs the model on read pictures. tell(captured, failed) is called as they pass."""
        part = Part(index, [], [], [], {})
        waiting: dict[tuple[int, int], list[Decoded]] = {}
        done: dict[tuple[int, int], list[Batch]] = {}

        def through(shape: tuple[int, int]) -> None:
            together = waiting.pop(shape)
            done.setdefault(shape, []).append((together, *self._record(together)))
            for picture in together:
                picture.x = picture.image = None  # the inputs of a whole part would be more than its values
            tell(len(together), 0)

        for picture in pictures:
            part.names.append(picture.item.name)
            reason = picture.error or self._refusal(picture)
            if reason is not None:
                part.failures.append((picture.item.name, reason))
                tell(0, 1)
                continue
            assert picture.x is not None
            shape = picture.x.shape[-2:]
            waiting.setdefault(shape, []).append(picture)
            if len(waiting[shape]) == self.batch:
                through(shape)
        for shape in list(waiting):
            through(shape)
        for shape, batches in done.items():
            self._group(part, shape, batches)
        return part

    def _refusal(self, picture: Decoded) -> str | None:
        assert picture.x is not None
        try:
            self.recorder.check(self.recorder.model.token_grid(*picture.x.shape[-2:]))
        except IndexError as error:
            return f"a token of tokens= is not on its grid: {error}"
        except ValueError as error:  # a size that the model cannot take, as SwinV2 may say
            return str(error)
        return None

    def _record(self, pictures: list[Decoded]) -> tuple[dict[str, Array], dict[str, Array]]:
        like = next(self.recorder.model.parameters())
        x = torch.from_numpy(np.stack([picture.x for picture in pictures]))  # type: ignore[misc]
        if like.is_cuda:  # the copy runs while the host goes on
            x = x.pin_memory()
        rows, shared = self.recorder(x.to(like.device, like.dtype, non_blocking=like.is_cuda))
        if self.keep_images:
            images = np.stack([picture.image for picture in pictures])  # type: ignore[misc]
            height, width = images.shape[1:3]
            rows["picture"] = Array(images, ("image", f"row_{height}", f"col_{width}", "channel_3"), {"meaning": "RGB"})
        return rows, shared

    def _group(self, part: Part, shape: tuple[int, int], batches: list[Batch]) -> None:
        grid = self.recorder.model.token_grid(*shape)
        pictures = [picture for together, _, _ in batches for picture in together]
        path = f"{grid.rows}x{grid.cols}"
        arrays = joined(rows for _, rows, _ in batches) | batches[0][2]
        attributes = {"grid": asdict(grid), "input_size": list(shape)}
        part.groups[path] = Group([picture.item.name for picture in pictures], arrays, attributes)
        for row, picture in enumerate(pictures):
            item = picture.item
            record: dict[str, Any] = {"name": item.name, "grid": path, "row": row, "size": picture.size}
            record["sha256"] = picture.sha256
            if item.path is not None:
                record["source"] = os.path.abspath(item.path)
            if item.frame is not None:
                record["frame"] = item.frame
            part.pictures.append(record)


# ------------------------------------------------------------------------------------------------------------ the whole


class Work:
    """What is left to do of a run, and how far it is. Leave it with `close`."""

    def __init__(self, store: Store, items: Items, retry: bool, progress: bool | None):
        self.store = store
        captured = {name: line["part"] for line in store.lines.values() for name in line_grids(line)}
        _check_unchanged(store, items, captured)
        done = captured.keys() | (set() if retry else {name for name, _ in store.failures})
        self.items: Iterator[Item] = (item for item in items if item.name not in done)
        self.left: int | None = None
        if items.listed:
            listed = list(self.items)
            self.left, self.items = len(listed), iter(listed)
        elif items.count is not None:
            self.left = max(0, items.count - len(done))
        self.report = Report(store.root, there=len(captured))
        self.stop = threading.Event()
        self._began = time.monotonic()
        self.quiet = progress is False
        # None: a bar where stderr is a terminal, or in a notebook
        hidden = None if progress is None else not progress
        self.bar = tqdm(total=self.left, unit="picture", disable=hidden, smoothing=0.05)

    def tell(self, captured: int, failed: int) -> None:
        """Some more pictures have gone through the model, or could not."""
        self.report.pictures += captured
        self.report.failed += failed
        self.bar.update(captured + failed)
        self.bar.set_postfix_str(f"{self.report.failed} failed, {_size(self.store.bytes)}", refresh=False)

    def say(self, text: str) -> None:
        self.bar.write(text, file=sys.stderr)

    def close(self) -> Report:
        self.tell(0, 0)  # the last part has been written since
        self.bar.close()
        self.report.seconds = time.monotonic() - self._began
        self.report.bytes = self.store.bytes
        self.report.failures = self.store.failures
        return self.report


def _check_unchanged(store: Store, items: Items, captured: Mapping[str, str]) -> None:
    """StoreError if a file has other content than when it was captured: the run would be of two sets of pictures."""
    if not items.listed:
        return
    when = {part: _written(store.root, part) for part in set(captured.values())}
    changed = []
    for item in items:
        part = captured.get(item.name)
        if part is None or item.path is None or item.frame is not None or _modified(item.path) <= when[part]:
            continue
        stored = {picture["name"]: picture["sha256"] for picture in read_part(store.root, part)["pictures"]}
        with open(item.path, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != stored[item.name]:
                changed.append(item.name)
    if changed:
        raise StoreError(
            errno.EEXIST,
            f"{len(changed)} pictures have changed since {store.root} captured them: {', '.join(changed[:4])}; give "
            "them other names, or capture into another folder",
        )


def _written(root: Path, part: str) -> float:
    try:
        return (root / PARTS / part).stat().st_mtime
    except FileNotFoundError:
        raise damaged(root, part, "its folder is not there") from None


def _modified(path: Path) -> float:
    """When another content may have come to be at a path: also by moving an older file there."""
    try:
        status = path.stat()
    except OSError:  # gone: what was captured of it stays
        return 0.0
    return max(status.st_mtime, status.st_ctime)


def _estimate(job: Job, work: Work, each: int, yes: bool) -> None:
    """Says beforehand what a long run takes; StoreError if the disk could not hold it."""
    if work.left is None:
        return
    needed, free = each * work.left, shutil.disk_usage(work.store.root).free
    if needed > free and not yes:
        raise StoreError(
            errno.ENOSPC,
            f"{work.left:,} pictures take about {_size(needed)} before compression, and {work.store.root} has "
            f"{_size(free)} left; select less, choose dtype=torch.float16, or begin all the same with yes=True (--yes)",
        )
    if work.left < LONG or work.quiet:
        return
    model = job.recorder.model
    like = next(model.parameters())
    x = like.new_zeros(job.batch, 3, *_base_input(model, job.size, job.keep_aspect))
    with torch.no_grad():
        model(x)  # the first pass works out what is kept for a grid
        began = time.monotonic()
        model(x)
        if like.device.type == "cuda":
            torch.cuda.synchronize(like.device)
    seconds = (time.monotonic() - began) * work.left / job.batch
    work.say(f"{work.left:,} pictures: about {_size(needed)} before compression and {_duration(seconds)}")


def _run_here(job: Job, work: Work) -> Report:
    store, size = work.store, work.store.settings["part"]
    try:
        with interruptible(work), job.decoders() as decoders, ThreadPoolExecutor(1) as writer:
            pictures = decoders.decode(work.items)
            written: Future[None] | None = None
            for index in store.indices():
                first = next(pictures, None)
                if first is None:
                    break
                part = job.part(index, itertools.chain([first], itertools.islice(pictures, size - 1)), work.tell)
                if written is not None:
                    written.result()
                written = writer.submit(store.commit, part)
                if work.stop.is_set():
                    work.report.interrupted = True
                    break
            if written is not None:
                written.result()
    finally:
        report = work.close()
    return report


@contextmanager
def interruptible(work: Work) -> Iterator[None]:
    """Ctrl-C and SIGTERM set work.stop the first time, and raise KeyboardInterrupt the second."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say what signals do
        return

    def interrupt(number: int, frame: Any) -> None:
        if work.stop.is_set():
            raise KeyboardInterrupt
        work.stop.set()
        with suppress(RuntimeError):  # the signal came while this very thread was writing to stderr
            work.say("stopping after the part in hand; once more stops at once")

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _size(count: int | float) -> str:
    units = ["B", "kB", "MB", "GB", "TB"]
    while count >= 1000 and len(units) > 1:
        count /= 1000
        units.pop(0)
    return f"{count:.0f} {units[0]}" if units[0] == "B" or count >= 100 else f"{count:.1f} {units[0]}"


def _duration(seconds: int | float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
