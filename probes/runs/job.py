"""What both engines (`run`, `dask_engine`) share: a job turns images into a part, work is what a run has left to do.

`Job` can be pickled and travels to Dask workers. `Work` and `Report` stay in the process that called `probes.run`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from dpt import DPT
from dpt.image import Size, network_size
from dpt.printable import printable
from dpt.trouble import is_out_of_memory

from ..errors import InvalidValueError
from .decoding import AGAIN, Decoded, Decoders
from .errors import MachineError
from .model_state import ModelState, check_weights
from .names import Names
from .parts import Array, Group, Part
from .recording import Recorded, Recorder, joined
from .records import ArrayAttributes, Failure, GroupAttributes, ImageRecord
from .sources import Item, Items
from .store import Store
from .unchanged import captured_images, checked

STUCK = 10  # images in a row whose files cannot be read in time; then the run ends
ORDINARY = 2.0  # area of an input, by that of a square image, for which every model needs to have memory
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
        failures: (image, reason) of all images of the run that are not captured, with those of `left_out`.
        left_out: (image, reason) of the images that this call could not capture for trouble of the machine, e.g. a
            full memory. They are not stored as failed: the same call tries them again.
        notes: (image, note) of captured images whose files hold more than was captured, e.g. further frames.
    """

    out: Path
    images: int = 0
    failed: int = 0
    already_stored: int = 0
    bytes: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    failures: list[Failure] = field(default_factory=list)
    left_out: list[Failure] = field(default_factory=list)
    notes: list[Failure] = field(default_factory=list)

    def __str__(self) -> str:
        speed = f", {self.images / self.seconds:.1f} per second" if self.seconds > 0 and self.images else ""
        rows = [
            ("captured", f"{self.images} images in {self.seconds:.1f} s{speed}"),
            ("already stored", f"{self.already_stored} images"),
            ("failed", f"{self.failed} images" + (", listed in failures.jsonl" if self.failed else "")),
            ("size", f"{size_text(self.bytes)} in {printable(str(self.out), 1000)}"),
        ]
        if self.left_out:
            rows.append(
                ("left out", f"{len(self.left_out)} images, by trouble of the machine. Repeat the call to resume")
            )
        if self.notes:
            name, note = self.notes[0]
            rows.append(("note", f"{len(self.notes)} images, e.g. {printable(name)} {note}"))
        if self.interrupted:
            rows.append(("stopped", "before the end. Repeat the call or command to resume"))
        return "\n".join(f"{name:<15} {value}" for name, value in rows)


def size_text(count: int) -> str:
    """ "1.23MB" for 1234567 bytes."""
    text: str = tqdm.format_sizeof(count, "B", 1000)
    return text


def base_input(model: DPT, size: Size, keep_aspect: bool) -> tuple[int, int]:
    """(height, width) of the input for a square image."""
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
        workers: Decoding processes; None: chosen by the number of processors.
        timeout: Seconds for decoding one image.
        weights: Fingerprint of the model's weights.
        proven: Whether the model has given values for any image of the run.
        state: The model at the start, in this process; None where the weights are still to be checked.
        stuck: Number of images in a row whose files could not be read in time.
    """

    recorder: Recorder
    batch: int
    size: Size
    keep_aspect: bool
    keep_images: bool
    workers: int | None
    timeout: float
    weights: str
    proven: bool = False
    state: ModelState | None = None
    stuck: int = 0

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

    def check_model(self) -> None:
        """Checks that the model is the one that the run was started with.

        Raises:
            ModelChangedError: It has changed, or arrived changed.
        """
        if self.state is not None:
            self.state.check()
        else:
            state = ModelState(self.recorder.model)
            check_weights(self.recorder.model, self.weights)
            self.state = state

    @property
    def hopeless(self) -> bool:
        """Whether so many files in a row could not be read in time that the run must end."""
        return self.stuck >= STUCK

    def part(
        self, index: int, images: Iterable[Decoded], on_progress: OnProgress = lambda captured, failed: None
    ) -> Part:
        """Runs the model on decoded images.

        Args:
            index: Index of the part.
            images: Its images. They are batched by the size of their inputs. None is taken after `hopeless`.
            on_progress: Called after each batch and each failure.

        Returns:
            The part, not yet stored.

        Raises:
            ModelChangedError: The model has changed since the job began.
            InvalidValueError: The values of all images are not finite, and none of another image was so far.
        """
        part = Part(index, [], [], [], {})
        waiting: dict[tuple[int, int], list[Decoded]] = {}
        done: dict[tuple[int, int], list[Batch]] = {}
        faults: list[str] = []

        def record(shape: tuple[int, int]) -> None:
            batch = waiting.pop(shape)
            kept = []
            for some, recorded in self._passes(batch, part):
                faults.extend(recorded.faults.values())
                part.failures += [Failure(some[row].item.name, why) for row, why in sorted(recorded.faults.items())]
                if some := _without_faults(some, recorded):
                    kept.append((some, recorded.rows, recorded.shared))
            if kept:
                done.setdefault(shape, []).extend(kept)
            for image in batch:
                image.x = image.image = None  # frees the inputs, which are larger than the values
            captured = sum(len(some) for some, _, _ in kept)
            on_progress(captured, len(batch) - captured)

        for image in images:
            part.names.append(image.item.name)
            self.stuck = self.stuck + 1 if image.stuck else 0
            reason = image.error or self._refusal(image)
            if reason is not None:
                if image.trouble:
                    self._leave_out(part, image, reason)
                else:
                    part.failures.append(Failure(image.item.name, reason))
                on_progress(0, 1)
                if self.hopeless:
                    break
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
        self.check_model()
        self.proven = self.proven or bool(part.images)
        if faults and not self.proven:
            raise InvalidValueError(f"no value can be stored, of any of {len(part.names)} images: {faults[0]}")
        return part

    def _leave_out(self, part: Part, image: Decoded, reason: str) -> None:
        part.names.remove(image.item.name)
        part.left_out.append(Failure(image.item.name, reason))

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

    def _passes(self, images: list[Decoded], part: Part) -> Iterable[tuple[list[Decoded], Recorded]]:
        """Yields images with their values: all at once, or one by one if the memory does not suffice."""
        try:
            recorded = self._record(images)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            recorded = None
        if recorded is not None:
            yield images, recorded
            return
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        if len(images) == 1:
            self._note_memory(images[0], part)
            return
        for image in images:
            yield from self._passes([image], part)

    def _note_memory(self, image: Decoded, part: Part) -> None:
        """Notes an image for which the memory does not suffice: as its own fault if its input is large."""
        assert image.x is not None
        assert image.size is not None
        (height, width), (rows, cols) = image.size, image.x.shape[-2:]
        base_rows, base_cols = base_input(self.recorder.model, self.size, self.keep_aspect)
        reason = (
            f"{image.item.name}: the model needs more memory than is available for its input of {rows} x {cols} "
            f"({height} x {width} pixels)"
        )
        if rows * cols <= ORDINARY * base_rows * base_cols:
            self._leave_out(part, image, f"{reason}. {AGAIN}")
        else:
            advice = "Crop the image or give a smaller size; with more memory, try it again with retry=True (--retry)"
            part.failures.append(Failure(image.item.name, f"{reason}. {advice}"))

    def _record(self, images: list[Decoded]) -> Recorded:
        device, dtype = self.recorder.model.device, self.recorder.model.dtype
        x = torch.from_numpy(np.stack([image.x for image in images if image.x is not None]))
        cuda = device.type == "cuda"
        if cuda:
            x = x.pin_memory()  # makes the copy asynchronous
        recorded = self.recorder.record(x.to(device, dtype, non_blocking=cuda))
        if self.keep_images:
            pixels = np.stack([image.image for image in images if image.image is not None])
            height, width = pixels.shape[1:3]
            dims = ("image", f"row_{height}", f"col_{width}", "channel_3")
            recorded.rows["picture"] = Array(pixels, dims, ArrayAttributes("RGB"))
        return recorded

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
            part.images.append(
                ImageRecord(item.name, path, row, image.size, image.sha256, source, item.frame, stamp=image.stamp)
            )
            part.notes += [Failure(item.name, note) for note in image.notes]


def _without_faults(images: list[Decoded], recorded: Recorded) -> list[Decoded]:
    """The images without faults. Removes the rows of the others."""
    if not recorded.faults:
        return images
    keep = [row for row in range(len(images)) if row not in recorded.faults]
    for array in recorded.rows.values():
        array.values = array.values[keep]
    return [images[row] for row in keep]


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
        listed: The same as a list; None for a stream.
        report: The report so far.
        stop: Set when the run must stop after the current part.
        quiet: Whether to print nothing.
    """

    def __init__(self, store: Store, items: Items, retry: bool, progress: bool | None):
        self.store = store
        captured = captured_images(store)
        failed = set() if retry else {failure.image for failure in store.failures}
        known = Names([*captured, *failed])
        self.left: int | None = None
        self.listed: list[Item] | None = None
        self.items: Iterator[Item]
        if items.listed:
            here = set(items.names())
            self.listed = [item for item in items if known.find_among(item.name, here) is None]
            self.left, self.items = len(self.listed), iter(self.listed)
        else:
            self.items = checked(store.root, items, captured, known)
            if items.count is not None:
                self.left = max(0, items.count - len(captured) - len(failed))
        self.report = Report(store.root, already_stored=len(captured))
        self.stop = threading.Event()
        self._began = time.monotonic()
        self.quiet = progress is False
        hidden = None if progress is None else not progress  # None: tqdm decides by the terminal
        if self.left == 0:  # a bar of 0 of 0 images looks like a failure
            hidden = True
        self.bar = tqdm(total=self.left, unit="image", disable=hidden, smoothing=0.05)

    def advance(self, captured: int, failed: int) -> None:
        """Counts images that went through the model or failed."""
        self.report.images += captured
        self.report.failed += failed
        self.bar.update(captured + failed)
        self.bar.set_postfix_str(f"{self.report.failed} failed, {size_text(self.store.bytes)}", refresh=False)

    def note(self, left_out: Sequence[Failure], notes: Sequence[Failure]) -> None:
        """Notes what a part leaves out, and what its images do not show."""
        self.report.left_out += left_out
        self.report.failed -= len(left_out)
        self.report.notes += notes

    def end_for_trouble(self) -> None:
        """Raises MachineError with the last image that was left out."""
        _, reason = self.report.left_out[-1]
        raise MachineError(
            f"{STUCK} images in a row could not be read in time: the disk or network share seems to be gone. The last: "
            f"{reason}. Committed parts in {self.store.root} are intact; repeat the call to resume"
        )

    def print_line(self, text: str) -> None:
        """Prints a line to stderr, above the progress bar."""
        self.bar.write(text, file=sys.stderr)

    def close(self) -> Report:
        """Closes the progress bar and returns the report."""
        self.advance(0, 0)  # shows the size with the last part
        self.bar.close()
        self.report.seconds = time.monotonic() - self._began
        self.report.bytes = self.store.bytes
        self.report.failures = [*self.store.failures, *self.report.left_out]
        return self.report


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
