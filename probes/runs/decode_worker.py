"""Decoding and preparing one picture; and the child process that does it for `decoding`, one picture at a time.

The child is this file, run as a script by its path, since importing the package ``probes`` takes time (1.6 s instead of
2.1 s until it is ready). It reads jobs from stdin and writes answers to stdout. A message is a line of JSON and the
arrays that it announces; no pickle, since the one who answers has just run a decoder on a file that nobody knows.

A child ends with its parent: a thread waits on stdin, whose end is the parent's. A decoder in C that hangs and keeps
Python's lock stops that thread too, so that a timer of the system's ends the child in that case.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import queue
import re
import signal
import threading
import traceback
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dpt.image import ImageError, Preprocess, network_size, prepare, read_image

LONGEST = 2**24  # bytes of a line of JSON; what names, reasons and settings need is far less
Answer = dict[str, Any]  # of a picture: size, sha256, error, and the arrays x and image


# Messages ---------------------------------------------------------------------------------------------------------


def send(pipe: IO[bytes], message: dict[str, Any], arrays: Sequence[NDArray[Any]] = ()) -> None:
    """Write a message with arrays; OSError if nobody reads any more."""
    described = [[array.dtype.str, list(array.shape)] for array in arrays]
    line = json.dumps([message, described]).encode() + b"\n"
    parts: list[bytes | memoryview] = [len(line).to_bytes(4, "big"), line]
    for part in parts + [np.ascontiguousarray(array).data for array in arrays]:
        view = memoryview(part).cast("B")
        while view:
            view = view[pipe.write(view) :]


def receive(pipe: IO[bytes], begun: Callable[[], None] = lambda: None) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """Read a message; EOFError if the other side is gone, ValueError if it is none. begun: called as it begins."""
    length = int.from_bytes(_fill(pipe, bytearray(4)), "big")
    begun()
    if length > LONGEST:
        raise ValueError(f"a message cannot be {length} bytes long; something else wrote into the pipe")
    message, described = json.loads(bytes(_fill(pipe, bytearray(length))))
    arrays = [np.empty(shape, dtype) for dtype, shape in described]
    for array in arrays:
        _fill(pipe, array.data.cast("B"))
    return message, arrays


def _fill(pipe: IO[bytes], buffer: bytearray | memoryview) -> bytearray | memoryview:
    view = memoryview(buffer)
    while view:
        size = pipe.readinto(view)  # type: ignore[attr-defined]  # raw files have it
        if not size:
            raise EOFError("the other side closed the pipe")
        view = view[size:]
    return buffer


# Plugins of Pillow --------------------------------------------------------------------------------------------------


def plugins() -> tuple[list[list[str | None]], list[str]]:
    """(formats that were added to this process's Pillow, as names to import; formats that cannot be so named)."""
    named: list[list[str | None]] = []
    local: list[str] = []
    for format in Image.ID:
        opener, accept = Image.OPEN[format]
        if not opener.__module__.startswith("PIL."):
            names = [_import_name(opener), accept and _import_name(accept)]
            if names[0] is None:
                local.append(format)
            else:
                named.append([format, *names])
    return named, local


def _import_name(what: Any) -> str | None:
    name = f"{what.__module__}:{what.__qualname__}"
    try:
        return name if _imported(name) is what and what.__module__ != "__main__" else None
    except (ImportError, AttributeError):
        return None


def _imported(name: str) -> Any:
    module, _, path = name.partition(":")
    return attrgetter(path)(importlib.import_module(module))


# One picture ----------------------------------------------------------------------------------------------------------


class Reader:
    """Pictures, frames and arrays as inputs of a model, each with its size and the sha256 of what it was made from.

    settings: preprocess, size, keep_aspect as `dpt.image.prepare` takes them; images: the picture at the input's size
    too; largest: bytes of an input that are too many.
    """

    def __init__(self, settings: dict[str, Any]):
        self._preprocess = Preprocess(**settings["preprocess"])
        size = settings["size"]
        self._size = tuple(size) if isinstance(size, list) else size
        self._keep_aspect, self._images = settings["keep_aspect"], settings["images"]
        self._largest = settings["largest"]
        self._video: Any = None
        self._video_path: str | None = None

    def close(self) -> None:
        if self._video is not None:
            self._video.close()
        self._video = self._video_path = None

    def answer(self, job: dict[str, Any], array: NDArray[Any] | None) -> tuple[Answer, list[NDArray[Any]]]:
        """What became of a job (name, path, frame): its answer and arrays x and image, or its answer with an error."""
        try:
            pixels, sha256 = self._pixels(job["path"], job["frame"], array)
            arrays = self._prepared(pixels)
        except Exception as error:  # whatever a decoder raises is about this picture alone
            name = job["name"] if job["frame"] is None else job["name"].rpartition("#")[0] or job["name"]
            return {"error": _one_line(_reason(job["path"], error), job["path"], name)}, []
        return {"size": list(pixels.shape[:2]), "sha256": sha256, "error": None}, arrays

    def _pixels(self, path: str | None, frame: int | None, array: NDArray[Any] | None) -> tuple[NDArray[np.uint8], str]:
        if path is None:
            assert array is not None
            return array, pixels_sha256(array)
        if frame is not None:
            pixels = self._opened(path).frame(frame)
            return pixels, pixels_sha256(pixels)
        pixels = read_image(path)
        with open(path, "rb") as file:
            return pixels, hashlib.file_digest(file, "sha256").hexdigest()

    def _opened(self, path: str) -> Any:
        """The video at path, kept open until another one is asked for."""
        from probes.runs.video import Video

        if path != self._video_path:
            self.close()
            self._video = Video(path)
            self._video_path = path
        return self._video

    def _prepared(self, pixels: NDArray[np.uint8]) -> list[NDArray[Any]]:
        height, width = network_size(pixels.shape[0], pixels.shape[1], self._preprocess, self._size, self._keep_aspect)
        if 12 * height * width > self._largest:
            raise ImageError(
                f"{pixels.shape[0]} x {pixels.shape[1]} pixels become an input of {height} x {width}, more than the "
                f"{self._largest // 2**20} MiB that one may take: crop the picture, or give a size"
            )
        x = prepare(pixels, self._preprocess, self._size, self._keep_aspect)[0]
        if not self._images:
            return [x.numpy()]
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self._preprocess.mean, self._preprocess.std))
        image = (x * std + mean).mul_(255).round_().clamp_(0, 255).to(torch.uint8)
        return [x.numpy(), np.ascontiguousarray(image.permute(1, 2, 0).numpy())]


def pixels_sha256(pixels: NDArray[np.uint8]) -> str:
    """sha256 of the shape, then of the bytes: 2 x 3 pixels are not 3 x 2."""
    digest = hashlib.sha256(f"{pixels.shape} uint8\n".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def _reason(path: str | None, error: Exception) -> str:
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return f"{path or 'the array'} needs more memory than there is; shrink the picture, or use fewer workers"
    if path is not None and os.path.isdir(path):
        try:
            os.scandir(path).close()
        except OSError as unlisted:
            return f"{path} is a folder that cannot be listed: {unlisted.strerror}"
    if isinstance(error, ValueError):  # ImageError, VideoError
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{path} cannot be read: {error.strerror}"
    return f"{path or 'the array'} cannot be prepared: {type(error).__name__}: {error}"


def _one_line(message: str, path: str | None, name: str) -> str:
    """The message with the run's name in place of the path, and without what differs from run to run."""
    if path is not None:
        message = message.replace(path, name).replace(repr(path)[1:-1], name)
    return printable(re.sub(r"\b0x[0-9a-f]{6,}\b", "0x...", message))


def printable(text: str) -> str:
    """Text in one line of valid Unicode; what is neither is spelt out: \\n, \\xff."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


# The child ------------------------------------------------------------------------------------------------------------


def main() -> None:
    # Ctrl-C reaches every process of a terminal; when the children end is the parent's decision.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    jobs_in = os.fdopen(os.dup(0), "rb", buffering=0)
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)  # a library that prints would end up in the middle of a message
    settings, _ = receive(jobs_in)
    try:
        torch.set_num_threads(1)
        Image.MAX_IMAGE_PIXELS = settings["max_pixels"]
        for format, opener, accept in settings["plugins"]:
            Image.register_open(format, _imported(opener), accept and _imported(accept))
        reader = Reader(settings)
    except Exception:
        send(out, {"failed": traceback.format_exc()})
        return
    send(out, {"ready": os.getpid()})
    os.dup2(nothing, 2)  # decoders in C complain of damaged files there; what matters comes as an error
    jobs: queue.SimpleQueue[tuple[dict[str, Any], list[NDArray[Any]]]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(jobs_in, jobs), daemon=True).start()
    while True:
        job, arrays = jobs.get()
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 1.5 * settings["timeout"] + 1)  # longer than the parent's patience
        answer, results = reader.answer(job, arrays[0] if arrays else None)
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
        try:
            send(out, answer, results)
        except OSError:
            return


def _listen(jobs_in: IO[bytes], jobs: queue.SimpleQueue[Any]) -> None:
    try:
        while True:
            jobs.put(receive(jobs_in))
    finally:
        os._exit(0)  # the parent is gone, also when it was killed


if __name__ == "__main__":
    main()
