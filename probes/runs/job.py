"""What both engines (`run`, `dask_engine`) share: a job turns images into a part, work is what a run has left to do.

`Job` can be pickled and travels to Dask workers. `Work` and `Report` stay in the process that called `probes.run`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from dpt import DPT
from dpt.image import Size, network_size
from dpt.printable import printable

from .decoding import Decoded, Decoders
from .errors import ChangedImagesError, Damaged, DiskSpaceError
from .parts import PARTS, Array, Group, Part, read_part
from .recording import Recorder, joined
from .records import ArrayAttributes, Failure, GroupAttributes, ImageRecord
from .sources import Item, Items
from .store import Store

LONG = 100  # images from which on size and time are estimated first
OnProgress = Callable[[int, int], None]  # (images captured, images failed) since the last call
Batch = tuple[list[Decoded], dict[str, Array], dict[str, Array]]  # images, their rows, what they share


@dataclass
class Report:
    """The result of `probes.run`.

    Attributes:
        out: Folder of the run.
        images: Images captured by this call.
        failed: Images that failed in this call.
        already_stored: Images captured by earlier calls.
        bytes: Size of all parts on disk.
        seconds: Duration of this call.
        interrupted: Whether Ctrl-C or SIGTERM stopped the call. The same call resumes the run.
        failures: (image, reason) of all images of the run that are not captured.
    """

    out: Path
    images: int = 0
    failed: int = 0
    already_stored: int = 0
    bytes: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    failures: list[Failure] = field(default_factory=list)

    def __str__(self) -> str:
        speed = f", {self.images / self.seconds:.1f} per second" if self.seconds > 0 and self.images else ""
        rows = [
            ("captured", f"{self.images} images in {self.seconds:.1f} s{speed}"),
            ("already stored", f"{self.already_stored} images"),
            ("failed", f"{self.failed} images" + (", listed in failures.jsonl" if self.failed else "")),
            ("size", f"{size_text(self.bytes)} in {printable(str(self.out), 1000)}"),
        ]
        if self.interrupted:
            rows.append(("stopped", "before the end. Repeat the call or command to resume"))
        return "\n".join(f"{name:<15} {value}" for name, value in rows)


def size_text(count: int) -> str:
    """ "1.23MB" for 1234567 bytes."""
    text: str = tqdm.format_sizeof(count, "B", 1000)
    return text


def base_input(model: DPT, size: Size, keep_aspect: bool) -> tuple[int, int]:
    """(height, width) of the input for a square image. Estimates assume this size."""
    base = model.config.preprocess.base
    return network_size(base, base, model.config.preprocess, size, keep_aspect)


# One part -------------------------------------------------------------------------------------------------------------


@dataclass
class Job:
    """Turns images into parts.

    Attributes:
        recorder: Runs the model and selects the values to store.
        batch: Images per forward pass.
        size, keep_aspect: Of the model's input, as for `model.predict`.
        keep_images: Whether to store the images at the input's size.
        workers: Decoding processes; None: half of the processors.
        timeout: Seconds for decoding one image.
    """

    recorder: Recorder
    batch: int
    size: Size
    keep_aspect: bool
    keep_images: bool
    workers: int | None
    timeout: float

    def decoders(self) -> Decoders:
        """A new pool of decoding processes for this job."""
        return Decoders(
            self.recorder.model.config.preprocess,
            self.size,
            self.keep_aspect,
            workers=self.workers,
            timeout=self.timeout,
            images=self.keep_images,
        )

    def part(
        self, index: int, images: Iterable[Decoded], on_progress: OnProgress = lambda captured, failed: None
    ) -> Part:
        """Runs the model on decoded images.

        Args:
            index: Index of the part.
            images: Its images. They are batched by the size of their inputs.
            on_progress: Called after each batch and each failure.

        Returns:
            The part, not yet stored.
        """
        part = Part(index, [], [], [], {})
        waiting: dict[tuple[int, int], list[Decoded]] = {}
        done: dict[tuple[int, int], list[Batch]] = {}

        def record(shape: tuple[int, int]) -> None:
            batch = waiting.pop(shape)
            done.setdefault(shape, []).append((batch, *self._record(batch)))
            for image in batch:
                image.x = image.image = None  # frees the inputs, which are larger than the values
            on_progress(len(batch), 0)

        for image in images:
            part.names.append(image.item.name)
            reason = image.error or self._refusal(image)
            if reason is not None:
                part.failures.append(Failure(image.item.name, reason))
                on_progress(0, 1)
                continue
            assert image.x is not None
            shape = image.x.shape[-2:]
            waiting.setdefault(shape, []).append(image)
            if len(waiting[shape]) == self.batch:
                record(shape)
        for shape in list(waiting):
            record(shape)
        for shape, batches in done.items():
            self._add_group(part, shape, batches)
        return part

    def _refusal(self, image: Decoded) -> str | None:
        """Why the model cannot process an image, if so."""
        assert image.x is not None
        try:
            self.recorder.check(self.recorder.model.token_grid(*image.x.shape[-2:]))
        except IndexError as error:
            return f"a token of tokens= is not on the grid of the image: {error}"
        except ValueError as error:  # SwinV2 does not take every size
            return str(error)
        return None

    def _record(self, images: list[Decoded]) -> tuple[dict[str, Array], dict[str, Array]]:
        like = next(self.recorder.model.parameters())
        x = torch.from_numpy(np.stack([image.x for image in images if image.x is not None]))
        if like.is_cuda:
            x = x.pin_memory()  # makes the copy asynchronous
        rows, shared = self.recorder(x.to(like.device, like.dtype, non_blocking=like.is_cuda))
        if self.keep_images:
            pixels = np.stack([image.image for image in images if image.image is not None])
            height, width = pixels.shape[1:3]
            dims = ("image", f"row_{height}", f"col_{width}", "channel_3")
            rows["picture"] = Array(pixels, dims, ArrayAttributes("RGB"))
        return rows, shared

    def _add_group(self, part: Part, shape: tuple[int, int], batches: list[Batch]) -> None:
        grid = self.recorder.model.token_grid(*shape)
        path = f"{grid.rows}x{grid.cols}"
        images = [image for batch, _, _ in batches for image in batch]
        arrays = joined(rows for _, rows, _ in batches) | batches[0][2]
        part.groups[path] = Group([image.item.name for image in images], arrays, GroupAttributes(grid, shape))
        for row, image in enumerate(images):
            item = image.item
            assert image.size is not None
            assert image.sha256 is not None
            source = None if item.path is None else os.path.abspath(item.path)
            part.images.append(ImageRecord(item.name, path, row, image.size, image.sha256, source, item.frame))


# The whole run --------------------------------------------------------------------------------------------------------


class Work:
    """What is left to do of a run, with its progress. Finish it with `close`.

    Args:
        store: The run, opened for writing.
        items: All images of the call.
        retry: Whether to try failed images again.
        progress: Whether to show a progress bar; None: on a terminal and in notebooks.

    Attributes:
        items: The images that are not stored yet.
        left: Their number; None if unknown.
        report: The report so far.
        stop: Set when the run must stop after the current part.
        quiet: Whether to print nothing.

    Raises:
        ChangedImagesError: A captured file has other content now.
    """

    def __init__(self, store: Store, items: Items, retry: bool, progress: bool | None):
        self.store = store
        captured = {name: line.part for line in store.lines.values() for name in line.grids}
        _check_unchanged(store, items, captured)
        done = captured.keys() | (set() if retry else {failure.image for failure in store.failures})
        self.items: Iterator[Item] = (item for item in items if item.name not in done)
        self.left: int | None = None
        if items.listed:
            listed = list(self.items)
            self.left, self.items = len(listed), iter(listed)
        elif items.count is not None:
            self.left = max(0, items.count - len(done))
        self.report = Report(store.root, already_stored=len(captured))
        self.stop = threading.Event()
        self._began = time.monotonic()
        self.quiet = progress is False
        hidden = None if progress is None else not progress  # None: tqdm decides by the terminal
        self.bar = tqdm(total=self.left, unit="image", disable=hidden, smoothing=0.05)

    def advance(self, captured: int, failed: int) -> None:
        """Counts images that went through the model or failed."""
        self.report.images += captured
        self.report.failed += failed
        self.bar.update(captured + failed)
        self.bar.set_postfix_str(f"{self.report.failed} failed, {size_text(self.store.bytes)}", refresh=False)

    def print_line(self, text: str) -> None:
        """Prints a line to stderr, above the progress bar."""
        self.bar.write(text, file=sys.stderr)

    def close(self) -> Report:
        """Closes the progress bar and returns the report."""
        self.advance(0, 0)  # shows the size with the last part
        self.bar.close()
        self.report.seconds = time.monotonic() - self._began
        self.report.bytes = self.store.bytes
        self.report.failures = self.store.failures
        return self.report


def _check_unchanged(store: Store, items: Items, captured: Mapping[str, str]) -> None:
    """Raises ChangedImagesError if a file has other content than at capture: the run would mix two sets of images."""
    if not items.listed:
        return
    committed = {part: _commit_time(store.root, part) for part in set(captured.values())}
    changed = []
    for item in items:
        part = captured.get(item.name)
        if part is None or item.path is None or item.frame is not None:
            continue
        if _change_time(item.path) <= committed[part]:
            continue
        stored = {image.name: image.sha256 for image in read_part(store.root, part).images}
        with open(item.path, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != stored.get(item.name):
                changed.append(item.name)
    if changed:
        raise ChangedImagesError(
            f"{len(changed)} images have changed since {store.root} captured them: {', '.join(changed[:4])}. Rename "
            "them, or capture into another folder",
            changed,
        )


def _commit_time(root: Path, part: str) -> float:
    try:
        return (root / PARTS / part).stat().st_mtime
    except FileNotFoundError:
        raise Damaged.of_part(root, part, "its folder is missing") from None


def _change_time(path: Path) -> float:
    """Latest time at which the content at a path can have changed, e.g. by moving an older file there."""
    try:
        status = path.stat()
    except OSError:  # a deleted file does not change what is stored
        return 0.0
    return max(status.st_mtime, status.st_ctime)


def estimate(job: Job, work: Work, bytes_per_image: int, force: bool) -> None:
    """Checks that the disk has enough space, and prints the expected size and duration of a long run.

    Raises:
        DiskSpaceError: The disk has too little space, and `force` is not set.
    """
    if work.left is None:
        return
    needed, free = bytes_per_image * work.left, shutil.disk_usage(work.store.root).free
    if needed > free and not force:
        error = DiskSpaceError(
            errno.ENOSPC,
            f"{work.left:,} images need about {size_text(needed)} before compression, and {work.store.root} has "
            f"{size_text(free)} left. Select fewer points, use dtype=torch.float16, or start anyway with yes=True "
            "(--yes)",
        )
        error.needed, error.free = needed, free
        raise error
    if work.left < LONG or work.quiet:
        return
    model = job.recorder.model
    like = next(model.parameters())
    x = like.new_zeros(job.batch, 3, *base_input(model, job.size, job.keep_aspect))
    with torch.no_grad():
        model(x)  # the first pass also computes what is cached per grid
        began = time.monotonic()
        model(x)
        if like.device.type == "cuda":
            torch.cuda.synchronize(like.device)
    seconds = (time.monotonic() - began) * work.left / job.batch
    duration = tqdm.format_interval(seconds)
    work.print_line(f"{work.left:,} images: about {size_text(needed)} before compression, {duration} of computation")


@contextmanager
def interruptible(work: Work) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM sets `work.stop`; the second raises KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread can set signal handlers
        return

    def interrupt(number: int, frame: object) -> None:
        if work.stop.is_set():
            raise KeyboardInterrupt
        work.stop.set()
        with suppress(RuntimeError):  # the signal arrived while this thread was writing to stderr
            work.print_line("Stopping after the current part. Interrupt again to stop immediately.")

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
