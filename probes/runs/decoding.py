"""Pictures decoded and prepared ahead of the model, in child processes that a damaged picture may kill.

Problem. Decoders are C code fed with files from anywhere: now and then one crashes, hangs, or unpacks to more memory
than there is. In the run's own process that is the end of the run; in `concurrent.futures.ProcessPoolExecutor` one dead
child fails every picture that was waiting. And children made by `multiprocessing` import the user's script again, which
needs ``if __name__ == "__main__"`` there.

Approach. A few children of our own (`decoder`), each with one picture at a time and a thread here that waits for it::

    items -> [ahead: at most so many, and so many bytes] -> child 0: a.jpg        -> in the order of the items
                                                            child 1: clip.mp4#12

A child that dies has its picture tried once more in a new one, since the system may have taken it for want of memory;
if that dies too, or if a picture takes longer than ``timeout``, it is that picture's error, and no other is touched.
Frames of one video all go to the same child, which reads on from where it is.

What comes out is bit for bit what ``model.prepare(dpt.read_image(path))`` gives, as float32 on the CPU.

Limits. A child holds up to 15 bytes a pixel of the picture it decodes, beside the 220 MB of Python and torch (most of
them shared). One video is decoded by one child. Plugins of Pillow are taken along if they can be imported by name.
Without children (workers=0) a picture that kills its decoder ends the run, and none times out.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import IO, Any, cast

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from dpt import Config, ImageError
from dpt.image import Preprocess, as_image, network_size

from ..errors import InvalidValueError, UnavailableError
from . import decode_worker as decoder
from .sources import Item

__all__ = ["Decoded", "DecoderError", "Decoders"]

AHEAD = 32  # pictures
MEMORY = 2**29  # bytes of pictures ahead
LARGEST = 2**28  # bytes of one input: 22 megapixels, a hundred thousand patches; no setting, since it decides errors
START = 120.0  # seconds that a child may take to import torch, on a busy disk


class DecoderError(RuntimeError):
    """The child processes do not work at all; nothing is wrong with the pictures."""


@dataclasses.dataclass
class Decoded:
    """What became of an item.

    x: the model's input, without its batch axis. size: (height, width) of the picture. sha256: of the file's bytes; of
    the shape and pixels for frames and arrays. image: x as a picture, if asked for. error: one line if there is no x,
    the same whenever the same picture fails in the same way.
    """

    item: Item
    x: Float32[np.ndarray, "3 h w"] | None = None
    size: tuple[int, int] | None = None
    sha256: str | None = None
    image: UInt8[np.ndarray, "h w 3"] | None = None
    error: str | None = None

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in (self.x, self.image, self.item.array) if array is not None)


@dataclasses.dataclass(eq=False)
class _Job:
    item: Item
    decoded: Decoded | None = None
    failure: BaseException | None = None  # not the picture's

    @property
    def done(self) -> bool:
        return self.decoded is not None or self.failure is not None

    @property
    def video(self) -> str | None:
        return None if self.item.frame is None else str(self.item.path)


class Decoders:
    """Decoding processes for pictures of one run; a context manager, since they have to end.

    with Decoders(model.config) as decoders:
        for decoded in decoders.decode(probes.runs.sources.find("photos/")):
            ...

    config: of the model, or its preprocessing. size, keep_aspect: as `DPT.prepare` takes them.
    workers: processes; None: half the processors, 8 at most; 0: none, decode here.
    timeout: seconds for one picture. images: give the picture at the input's size too.
    ahead, memory: how many pictures, and bytes of them, may wait here; one is always allowed.
    """

    def __init__(
        self,
        config: Config | Preprocess,
        size: int | tuple[int, int] | None = None,
        keep_aspect: bool = True,
        *,
        workers: int | None = None,
        timeout: float = 60.0,
        images: bool = False,
        memory: int | None = None,
        ahead: int = AHEAD,
    ):
        preprocess = config if isinstance(config, Preprocess) else config.preprocess
        network_size(480, 640, preprocess, size, keep_aspect)  # a size that no picture can have is an error now
        workers = min(8, max(1, (os.cpu_count() or 1) // 2)) if workers is None else workers
        for name, value, least in (("workers", workers, 0), ("ahead", ahead, 1), ("timeout", timeout, 0.01)):
            if not value >= least:
                raise InvalidValueError(f"{name} is a number from {least} upwards, not {value!r}")
        self.workers, self.timeout, self.ahead = workers, timeout, ahead
        self.memory = MEMORY if memory is None else memory
        named, local = decoder.plugins()
        if local and workers:
            warnings.warn(
                f"the decoding processes cannot read {', '.join(local)}: this plugin of Pillow is not in a module that "
                "they could import; move it to one, or decode with workers=0",
                stacklevel=2,
            )
        self._settings = {
            "preprocess": dataclasses.asdict(preprocess),
            "size": size,
            "keep_aspect": keep_aspect,
            "images": images,
            "largest": LARGEST,
            "timeout": timeout,
            "max_pixels": Image.MAX_IMAGE_PIXELS,
            "plugins": named,
        }
        self._changed = threading.Condition()  # guards what follows; told of every new, taken and finished job
        self._waiting: deque[_Job] = deque()
        self._children: list[_Child] = []
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._closed = False
        self._largest_seen = 0
        self._here = decoder.Reader(self._settings) if workers == 0 else None

    def __enter__(self) -> Decoders:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child processes. What was being decoded is lost; a second time does nothing."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
        for child in self._children:
            child.end()
        for thread in self._threads:
            thread.join()
        if self._here is not None:
            self._here.close()

    def decode(self, items: Iterable[Item]) -> Iterator[Decoded]:
        """Every item, in order. Items are taken as there is room for them, in the thread that asks for the next one.

        Raises DecoderError if the processes do not start, and what ``items`` raises, after the items before it.
        """
        source = iter(items)
        queued: deque[_Job] = deque()
        failure: Exception | None = None
        more = True
        try:
            while more or queued:
                while more and self._has_room(queued):
                    try:
                        queued.append(self._submit(next(source)))
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

    def _submit(self, item: Item) -> _Job:
        job = _Job(item)
        if item.array is not None:
            try:
                as_image(item.array)
            except ImageError as error:
                job.decoded = Decoded(item, error=str(error))
                return job
        if self._here is not None:
            job.decoded = _decoded(item, *self._here.answer(_request(item), item.array))
            return job
        with self._changed:
            self._check_open()
            self._waiting.append(job)
            if self._idle < len(self._waiting) and len(self._children) < self.workers:
                child = _Child(self._settings)
                self._children.append(child)
                self._start_thread(self._work, child)
                if len(self._children) == 1:
                    self._start_thread(self._watch)
            self._changed.notify_all()
        return job

    def _start_thread(self, target: Callable[..., None], *arguments: Any) -> None:
        # A daemon, so that decoders that nobody closed do not keep Python from ending.
        thread = threading.Thread(target=target, args=arguments, name="decoders", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _finished(self, job: _Job) -> Decoded:
        with self._changed:
            while not job.done:
                self._check_open()
                self._changed.wait(1.0)  # with a limit: Windows lets Ctrl-C through only then
        if job.failure is not None:
            self._check_open()
            raise job.failure
        assert job.decoded is not None
        self._largest_seen = max(self._largest_seen, job.decoded.nbytes)
        return job.decoded

    def _check_open(self) -> None:
        if self._closed:
            raise UnavailableError("these decoders were closed; make new ones")

    # In the thread of each child ------------------------------------------------------------------------------------

    def _work(self, child: _Child) -> None:
        while (job := self._take(child)) is not None:
            try:
                decoded = self._decoded_by(child, job.item)
            except BaseException as error:
                job.failure = error
            else:
                job.decoded = decoded
            with self._changed:
                self._changed.notify_all()
            del job  # the picture belongs to its consumer now, and the next one may be long in coming
        child.bury()

    def _take(self, child: _Child) -> _Job | None:
        """The first job that this child may have; None when all is over."""
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

    def _decoded_by(self, child: _Child, item: Item) -> Decoded:
        for last in (False, True):
            try:
                return _decoded(item, *child.ask(_request(item), item.array))
            except _Died as died:
                if last or died.final:
                    again = "" if died.final else ", twice"
                    advice = "it may be damaged or too large: convert or shrink it"
                    return Decoded(item, error=f"{decoder.printable(item.name)} {died}{again}; {advice}")
        raise AssertionError("unreachable")

    def _watch(self) -> None:
        with self._changed:
            while not self._closed:
                self._changed.wait(min(0.5, self.timeout / 4))
                for child in self._children:
                    child.check_time()


def _request(item: Item) -> dict[str, Any]:
    return {"name": item.name, "path": None if item.path is None else str(item.path), "frame": item.frame}


def _decoded(item: Item, answer: dict[str, Any], arrays: list[np.ndarray]) -> Decoded:
    if answer["error"] is not None:
        return Decoded(item, error=answer["error"])
    height, width = answer["size"]
    return Decoded(item, arrays[0], (height, width), answer["sha256"], arrays[1] if len(arrays) > 1 else None)


class _Died(Exception):
    """A child ended before its answer. The message completes a sentence that begins with the picture's name.

    final: a second try would be no better.
    """

    def __init__(self, message: str, final: bool):
        super().__init__(message)
        self.final = final


class _Child:
    """One decoding process, started when it is first asked, and anew after it died."""

    def __init__(self, settings: dict[str, Any]):
        self._settings = settings
        self._timeout = settings["timeout"]
        self._lock = threading.Lock()  # the watch must not kill a child that has just answered
        self._process: subprocess.Popen[bytes] | None = None
        self._deadline: float | None = None
        self._overdue = False
        self._ended = False
        self.video: str | None = None  # the last one whose frames were read here

    def ask(self, request: dict[str, Any], array: np.ndarray | None) -> tuple[dict[str, Any], list[np.ndarray]]:
        """The answer to one request; _Died if the process did not live to give it."""
        process = self._process or self._started()
        self._set_clock(self._timeout)
        try:
            decoder.send(_stdin(process), request, [] if array is None else [array])
            return decoder.receive(_stdout(process), begun=self._stop_clock)
        except (OSError, EOFError, ValueError, MemoryError) as error:
            raise self._death(error) from error
        finally:
            self._stop_clock()

    def _started(self) -> subprocess.Popen[bytes]:
        how = ""
        for _ in range(3):
            if self._ended:
                break
            process = self._spawn()
            self._set_clock(START)
            try:
                decoder.send(_stdin(process), self._settings)
                answer, _ = decoder.receive(_stdout(process))
            except (OSError, EOFError, ValueError) as error:
                how = f"it took more than {START:g} seconds" if self._overdue else str(error)
                how = f"{how} ({_how(self.bury(patience=5.0))})"
                continue
            finally:
                self._stop_clock()
            if "failed" in answer:
                self.bury()
                raise DecoderError(f"the decoding process ({sys.executable}) does not start:\n{answer['failed']}")
            return process
        raise DecoderError(f"the decoding process ({sys.executable}) does not start: {how}")

    def _spawn(self) -> subprocess.Popen[bytes]:
        if not sys.executable:
            raise DecoderError("this Python is part of another program and cannot be started; decode with workers=0")
        # What this process can import, its children can; one thread each, since there are several of them.
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", decoder.__file__],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
                start_new_session=True,  # out of reach of Ctrl-C in the terminal, from the first moment on
            )
        except OSError as error:
            raise DecoderError(f"the decoding process ({sys.executable}) does not start: {error.strerror}") from error
        with self._lock:
            self._process, self._overdue = process, False
            if self._ended:
                process.kill()
        return process

    def _death(self, error: BaseException) -> _Died:
        """What to say of the process, which is gone when this returns."""
        code = self.bury(patience=5.0 if isinstance(error, (EOFError, BrokenPipeError)) else 0.0)
        if self._overdue or (os.name == "posix" and code == -signal.SIGALRM):
            return _Died(f"was not decoded within {self._timeout:g} seconds", final=True)
        if isinstance(error, MemoryError):
            return _Died("needs more memory than there is", final=True)
        return _Died(f"ended the process that decoded it ({_how(code)})", final=False)

    def bury(self, patience: float = 0.0) -> int:
        """End the process, waiting so long for it to end by itself, and close its pipes; its exit code."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return 0
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)  # a pipe closes a little before its process has ended
        process.kill()
        _stdin(process).close()
        _stdout(process).close()
        return process.wait()

    def _set_clock(self, seconds: float) -> None:
        with self._lock:
            self._deadline = time.monotonic() + seconds

    def _stop_clock(self) -> None:
        with self._lock:
            self._deadline = None

    def check_time(self) -> None:
        """Kill the process if it is overdue."""
        with self._lock:
            if self._deadline is not None and time.monotonic() > self._deadline and self._process is not None:
                self._overdue = True
                self._process.kill()

    def end(self) -> None:
        """Kill the process, now and whenever it should be started again; the thread that waits for it sees it die."""
        with self._lock:
            self._ended = True
            if self._process is not None:
                self._process.kill()


def _stdin(process: subprocess.Popen[bytes]) -> IO[bytes]:
    return cast("IO[bytes]", process.stdin)


def _stdout(process: subprocess.Popen[bytes]) -> IO[bytes]:
    return cast("IO[bytes]", process.stdout)


def _how(code: int) -> str:
    """The end of a process in words: SIGSEGV, or exit code 1."""
    if code >= 0:
        return f"exit code {code}"
    return signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
