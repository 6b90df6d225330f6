"""Decodes and prepares images ahead of the model, in child processes that a damaged image may crash.

Problem. Decoders are C code that reads files from anywhere. Some files crash it, hang it, or unpack to more memory than
is available. In the process of the run, that would end the run.

Approach. A few child processes (`decode_process`, `decode_worker`) decode one image at a time each. A thread per child
waits for its answer::

    items -> [ahead: limited by number and bytes] -> child 0: a.jpg        -> in the order of the items
                                                     child 1: clip.mp4#12

If a child dies, takes longer than ``timeout`` or lacks memory, its image is tried once more in a new child. If the new
child does not answer either, that image fails. No other image is affected. A result says whether the machine is to
blame (`Decoded.trouble`): a run does not write such a failure down. All frames of a video go to the same child, which
reads on from its position.

The results are bit-identical to ``model.prepare(dpt.read_image(path))``, in float32 on the CPU.

Why not a library. `concurrent.futures.ProcessPoolExecutor` fails every waiting image when one child dies. pebble's
ProcessPool isolates crashes and has a timeout per task (tried with 5.2), but it starts children through
`multiprocessing`, which imports the user's script again and so requires ``if __name__ == "__main__"`` there. Its
children also survive a parent that is killed, and tasks cannot prefer a child (videos).

Limits. A child holds up to 15 bytes per pixel of the image that it decodes, beside 220 MB of Python and torch (mostly
shared). One child decodes a video. Plugins of Pillow work if they can be imported by name. With workers=0, an image
that crashes its decoder ends the run, and no timeout applies. Frozen and embedded programs cannot start children: they
decode with workers=0 by default.
"""

from __future__ import annotations

import dataclasses
import os
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from dpt import Config, ImageError
from dpt.image import Preprocess, Size, as_image, network_size, plain_size
from dpt.printable import printable
from dpt.scalars import real, whole

from ..errors import UnavailableError
from ..interpreter import python_program
from . import decode_worker
from .decode_process import DecodeProcess, DecoderError, ProcessDied
from .decode_worker import Answer, Request, Settings, Stamp
from .sources import Item

__all__ = ["Decoded", "DecoderError", "Decoders"]

AHEAD = 32  # images
MEMORY = 2**29  # bytes of images ahead
TROUBLES = 10  # images in a row that the machine failed; then there are no second attempts
AGAIN = "Free memory or check the disk; the next run tries it again"


@dataclasses.dataclass
class Decoded:
    """The result for an item: an input, or an error.

    Attributes:
        item: The item.
        x: Input of the model, (3, h, w) float32; None if the image failed.
        size: (height, width) of the image in pixels.
        sha256: Of the file's bytes; of shape and pixels for frames and arrays.
        image: The image at the input's size, (h, w, 3) uint8, if requested.
        error: One line that says why the image failed. The same failure gives the same line.
        trouble: Whether the machine is to blame for the failure, so that a later attempt may succeed.
        stuck: Whether the file could not even be read in time, as on a network share that went away.
        stamp: State of the file when it was read; None for arrays.
        notes: What the pixels do not show, e.g. "has 12 frames: only the first is used". Each follows the name.
    """

    item: Item
    x: Float32[np.ndarray, "3 h w"] | None = None
    size: tuple[int, int] | None = None
    sha256: str | None = None
    image: UInt8[np.ndarray, "h w 3"] | None = None
    error: str | None = None
    trouble: bool = False
    stuck: bool = False
    stamp: Stamp | None = None
    notes: Sequence[str] = ()

    @property
    def nbytes(self) -> int:
        """Size of all arrays."""
        return sum(array.nbytes for array in (self.x, self.image, self.item.array) if array is not None)


@dataclasses.dataclass(eq=False)
class _Job:
    item: Item
    measure: bool  # only the size of the image is wanted
    decoded: Decoded | None = None
    failure: BaseException | None = None  # not caused by the image

    @property
    def done(self) -> bool:
        return self.decoded is not None or self.failure is not None

    @property
    def video(self) -> str | None:
        return None if self.item.frame is None else str(self.item.path)


class Decoders:
    """A pool of decoding processes. A context manager, because the processes must end.

    Args:
        config: Configuration of the model, or its preprocessing.
        size, keep_aspect: As for `DPT.prepare`.
        workers: Child processes. Default: half of the processors, at most 8; 0 where Python cannot be started. 0
            decodes in this process.
        timeout: Seconds for one image.
        images: Whether to return the image at the input's size, too.
        memory, ahead: Bytes and number of images that may wait. One image may always wait.

    Raises:
        InvalidValueError: A number is too small, or no image can have `size`.

    Example:
        with Decoders(model.config) as decoders:
            for decoded in decoders.decode(probes.runs.sources.find("photos/")):
                print(decoded.item.name, decoded.error or decoded.x.shape)
    """

    def __init__(
        self,
        config: Config | Preprocess,
        size: Size = None,
        keep_aspect: bool = True,
        *,
        workers: int | None = None,
        timeout: float = 60.0,
        images: bool = False,
        memory: int | None = None,
        ahead: int = AHEAD,
    ):
        preprocess = config if isinstance(config, Preprocess) else config.preprocess
        network_size(480, 640, preprocess, size, keep_aspect)  # raises if no image can have this size
        if workers is None:
            workers = 0 if python_program() is None else min(8, max(1, (os.cpu_count() or 1) // 2))
        workers, ahead = whole(workers, "workers", least=0), whole(ahead, "ahead", least=1)
        timeout = real(timeout, "timeout", least=0.01)
        self.workers, self.timeout, self.ahead = workers, timeout, ahead
        self.memory = MEMORY if memory is None else memory
        named, local = decode_worker.plugins()
        if local and workers:
            warnings.warn(
                f"decoding processes cannot read {', '.join(local)}: the Pillow plugin is not in an importable module. "
                "Move it to a module, or decode with workers=0",
                stacklevel=2,
            )
        self._settings = Settings(
            preprocess=dataclasses.asdict(preprocess),
            size=plain_size(size),
            keep_aspect=keep_aspect,
            images=images,
            timeout=timeout,
            max_pixels=Image.MAX_IMAGE_PIXELS,
            plugins=named,
        )
        self._changed = threading.Condition()  # guards the fields below; notified of new, taken and finished jobs
        self._waiting: deque[_Job] = deque()
        self._children: list[DecodeProcess] = []
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._closed = False
        self._largest_seen = 0
        self._troubles = 0  # images in a row that the machine failed
        self._reader = decode_worker.Reader(self._settings) if workers == 0 else None  # decodes in this process

    def __enter__(self) -> Decoders:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the child processes and discards unfinished images. A second call does nothing."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
        for child in self._children:
            child.end()
        for thread in self._threads:
            thread.join()
        if self._reader is not None:
            self._reader.close()

    def decode(self, items: Iterable[Item]) -> Iterator[Decoded]:
        """Yields a result for every item, in order.

        Args:
            items: Consumed ahead of the results as far as `memory` and `ahead` allow, in the thread that consumes the
                results.

        Raises:
            DecoderError: The child processes do not start.
            Exception: Whatever `items` raises, after the results of the items before it.
        """
        return self._answers(items, measure=False)

    def sizes(self, items: Iterable[Item]) -> Iterator[tuple[int, int] | None]:
        """Yields (height, width) of every image in pixels, in order, from the headers of the files.

        None for images that cannot be read.

        Args:
            items: As for `decode`.

        Raises:
            DecoderError: The child processes do not start.
        """
        for decoded in self._answers(items, measure=True):
            yield decoded.size

    def _answers(self, items: Iterable[Item], measure: bool) -> Iterator[Decoded]:
        source = iter(items)
        queued: deque[_Job] = deque()
        failure: Exception | None = None
        more = True
        try:
            while more or queued:
                while more and self._has_room(queued):
                    try:
                        queued.append(self._submit(next(source), measure))
                    except StopIteration:
                        more = False
                    except Exception as error:
                        failure, more = error, False
                if queued:
                    yield self._finished(queued.popleft())
            if failure is not None:
                raise failure
        finally:
            with self._changed:
                for job in queued:
                    if job in self._waiting:
                        self._waiting.remove(job)

    def _has_room(self, queued: deque[_Job]) -> bool:
        if not queued:
            return True
        if len(queued) >= (self.ahead if self.workers else 1):
            return False
        held = sum(job.decoded.nbytes if job.decoded else self._expected(job.item) for job in queued)
        return held + self._largest_seen <= self.memory

    def _expected(self, item: Item) -> int:
        return self._largest_seen + (0 if item.array is None else item.array.nbytes)

    def _submit(self, item: Item, measure: bool = False) -> _Job:
        job = _Job(item, measure)
        if item.array is not None:
            try:
                size = as_image(item.array).shape[:2]
            except ImageError as error:
                job.decoded = Decoded(item, error=str(error))
                return job
            if measure:
                job.decoded = Decoded(item, size=(size[0], size[1]))
                return job
        if self._reader is not None:
            request = _request(job)
            answer, arrays = self._reader.answer(request, item.array)
            if answer["trouble"]:
                answer, arrays = self._reader.answer(request, item.array)
            job.decoded = _result(item, answer, arrays)
            return job
        with self._changed:
            self._check_open()
            self._waiting.append(job)
            if self._idle < len(self._waiting) and len(self._children) < self.workers:
                child = DecodeProcess(self._settings)
                self._children.append(child)
                self._start_thread(self._work, child)
                if len(self._children) == 1:
                    self._start_thread(self._watch)
            self._changed.notify_all()
        return job

    def _start_thread(self, target: Callable[..., None], *arguments: object) -> None:
        # A daemon thread, so that decoders that nobody closed do not keep Python alive.
        thread = threading.Thread(target=target, args=arguments, name="decoders", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _finished(self, job: _Job) -> Decoded:
        """Waits for a job."""
        with self._changed:
            while not job.done:
                self._check_open()
                self._changed.wait(1.0)  # on Windows, Ctrl-C interrupts only a wait with a timeout
        if job.failure is not None:
            self._check_open()
            raise job.failure
        assert job.decoded is not None
        self._largest_seen = max(self._largest_seen, job.decoded.nbytes)
        return job.decoded

    def _check_open(self) -> None:
        if self._closed:
            raise UnavailableError("The decoder pool is closed. Create a new one.")

    # In the thread of each child

    def _work(self, child: DecodeProcess) -> None:
        while (job := self._take(child)) is not None:
            try:
                decoded = self._decoded_by(child, job)
            except BaseException as error:
                job.failure = error
            else:
                job.decoded = decoded
                self._troubles = self._troubles + 1 if decoded.trouble else 0
            with self._changed:
                self._changed.notify_all()
            del job  # frees the image while the thread waits for the next one
        child.reap()

    def _take(self, child: DecodeProcess) -> _Job | None:
        """The first job for this child: frames go to the child that has their video open. None after `close`."""
        with self._changed:
            self._idle += 1
            try:
                while not self._closed:
                    others = {other.video for other in self._children if other is not child}
                    for job in self._waiting:
                        if job.video is None or job.video not in others:
                            self._waiting.remove(job)
                            child.video = job.video or child.video
                            return job
                    self._changed.wait()
                return None
            finally:
                self._idle -= 1

    def _decoded_by(self, child: DecodeProcess, job: _Job) -> Decoded:
        item = job.item
        for last in (False, True):
            try:
                answer, arrays = child.ask(_request(job), item.array)
            except ProcessDied as died:
                if not last and not (died.machine and self._troubles >= TROUBLES):
                    continue
                twice = ", twice" if died.crashed else ""
                advice = AGAIN if died.machine else "It may be damaged or too large: convert or shrink it"
                reason = f"{printable(item.name)} {died}{twice}. {advice}"
                return Decoded(item, error=reason, trouble=died.machine, stuck=died.stuck)
            if last or not answer["trouble"] or self._troubles >= TROUBLES:
                return _result(item, answer, arrays)
            child.reap()  # the next attempt gets a new process, with its own memory and descriptors
        raise AssertionError("unreachable")

    def _watch(self) -> None:
        tick = min(0.5, self.timeout / 4)
        with self._changed:
            while not self._closed:
                self._changed.wait(tick)
                for child in self._children:
                    child.check_time(2 * tick)


def _request(job: _Job) -> Request:
    item = job.item
    path = None if item.path is None else str(item.path)
    return Request(name=item.name, path=path, frame=item.frame, measure=job.measure)


def _result(item: Item, answer: Answer, arrays: list[np.ndarray]) -> Decoded:
    if answer["error"] is not None:
        return Decoded(item, error=answer["error"], trouble=answer["trouble"])
    height, width = answer["size"]
    state = None if answer["stamp"] is None else (answer["stamp"][0], answer["stamp"][1], answer["stamp"][2])
    if not arrays:  # only the size was wanted
        return Decoded(item, size=(height, width))
    image = arrays[1] if len(arrays) > 1 else None
    return Decoded(item, arrays[0], (height, width), answer["sha256"], image, stamp=state, notes=answer["notes"])
