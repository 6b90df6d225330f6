"""Decodes and prepares one image; and the program of the child process that does so for `decoding`.

The child runs this file as a script by its path. It does not import the package ``probes``, which saves 0.5 s of 2.1 s
until it is ready. It reads requests from stdin and writes answers to stdout. A message is a line of JSON and the arrays
that the line announces. Messages are not pickled, because the child has run a decoder on a file from anywhere.

The child ends with its parent: a thread waits for the end of stdin. If a decoder in C hangs and keeps Python's lock,
that thread cannot run; a timer of the system then ends the child.
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
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import IO, TYPE_CHECKING, Any, TypedDict, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dpt.image import ImageError, Preprocess, network_size, prepare, read_image

if TYPE_CHECKING:
    import probes.runs.video

LONGEST = 2**24  # bytes of a line of JSON; names, reasons and settings need far less


class Settings(TypedDict):
    """Settings of a `Reader` and of its process.

    Attributes:
        preprocess: Fields of a `dpt.image.Preprocess`.
        size, keep_aspect: As for `dpt.image.prepare`.
        images: Whether to return the image at the input's size, too.
        largest: Bytes of the largest input. Larger images fail.
        timeout: Seconds for one image.
        max_pixels: Pillow's limit, see `PIL.Image.MAX_IMAGE_PIXELS`.
        plugins: Formats to add to Pillow: [format, opener, accept], functions as "module:name".
    """

    preprocess: dict[str, Any]
    size: int | tuple[int, int] | None
    keep_aspect: bool
    images: bool
    largest: int
    timeout: float
    max_pixels: int | None
    plugins: list[list[str | None]]


class Request(TypedDict):
    """An image to decode. Without a path, its pixels follow as an array. frame: of the video at `path`."""

    name: str
    path: str | None
    frame: int | None


class Answer(TypedDict):
    """Why the image failed; or its size and SHA-256, followed by the arrays x and, if requested, image."""

    error: str | None
    size: list[int]
    sha256: str


# Messages -------------------------------------------------------------------------------------------------------------


def send(pipe: IO[bytes], message: Mapping[str, object], arrays: Sequence[NDArray[Any]] = ()) -> None:
    """Writes a message with arrays. Raises OSError if the reader is gone."""
    described = [[array.dtype.str, list(array.shape)] for array in arrays]
    line = json.dumps([message, described]).encode() + b"\n"
    parts: list[bytes | memoryview] = [len(line).to_bytes(4, "big"), line]
    for part in parts + [np.ascontiguousarray(array).data for array in arrays]:
        view = memoryview(part).cast("B")
        while view:
            view = view[pipe.write(view) :]


def receive(pipe: IO[bytes], on_start: Callable[[], None] = lambda: None) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """Reads a message.

    Args:
        pipe: Where to read.
        on_start: Called when the first bytes arrive.

    Raises:
        EOFError: The writer is gone.
        ValueError: The bytes are not a message.
    """
    length = int.from_bytes(_fill(pipe, bytearray(4)), "big")
    on_start()
    if length > LONGEST:
        raise ValueError(f"a message cannot be {length} bytes long: something else wrote to the pipe")
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
            raise EOFError("the process closed the pipe")
        view = view[size:]
    return buffer


# Plugins of Pillow ----------------------------------------------------------------------------------------------------


def plugins() -> tuple[list[list[str | None]], list[str]]:
    """Formats that were added to Pillow: ([format, opener, accept] as names to import, formats that have none)."""
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


def _import_name(function: Callable[..., Any]) -> str | None:
    name = f"{function.__module__}:{function.__qualname__}"
    try:
        return name if _imported(name) is function and function.__module__ != "__main__" else None
    except (ImportError, AttributeError):
        return None


def _imported(name: str) -> Any:
    module, _, path = name.partition(":")
    return attrgetter(path)(importlib.import_module(module))


# One image ------------------------------------------------------------------------------------------------------------


class Reader:
    """Turns image files, video frames and arrays into inputs of a model.

    Args:
        settings: See `Settings`.
    """

    def __init__(self, settings: Settings):
        self._preprocess = Preprocess(**settings["preprocess"])
        size = settings["size"]
        self._size = (size[0], size[1]) if isinstance(size, (list, tuple)) else size
        self._keep_aspect, self._images = settings["keep_aspect"], settings["images"]
        self._largest = settings["largest"]
        self._video: probes.runs.video.Video | None = None
        self._video_path: str | None = None

    def close(self) -> None:
        """Closes the open video."""
        if self._video is not None:
            self._video.close()
        self._video = self._video_path = None

    def answer(self, request: Request, array: NDArray[Any] | None) -> tuple[Answer, list[NDArray[Any]]]:
        """Decodes and prepares one image. Whatever a decoder raises becomes the error of the answer.

        Args:
            request: The image.
            array: Its pixels, if it has no path.

        Returns:
            The answer, and the arrays x (3, h, w) and, if requested, image (h, w, 3).
        """
        path, frame, name = request["path"], request["frame"], request["name"]
        try:
            pixels, sha256 = self._pixels(path, frame, array)
            arrays = self._prepared(pixels)
        except Exception as error:
            if frame is not None:
                name = name.rpartition("#")[0] or name
            return {"error": _one_line(_reason(path, error), path, name), "size": [], "sha256": ""}, []
        return {"error": None, "size": list(pixels.shape[:2]), "sha256": sha256}, arrays

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

    def _opened(self, path: str) -> probes.runs.video.Video:
        """The video at a path. It stays open until another one is read."""
        from probes.runs.video import Video

        if self._video is None or path != self._video_path:
            self.close()
            self._video = Video(path)
            self._video_path = path
        return self._video

    def _prepared(self, pixels: NDArray[np.uint8]) -> list[NDArray[Any]]:
        height, width = network_size(pixels.shape[0], pixels.shape[1], self._preprocess, self._size, self._keep_aspect)
        if 12 * height * width > self._largest:
            raise ImageError(
                f"{pixels.shape[0]} x {pixels.shape[1]} pixels become an input of {height} x {width}, which exceeds "
                f"{self._largest // 2**20} MiB. Crop the image, or give a size"
            )
        x = prepare(pixels, self._preprocess, self._size, self._keep_aspect)[0]
        if not self._images:
            return [x.numpy()]
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self._preprocess.mean, self._preprocess.std))
        image = (x * std + mean).mul_(255).round_().clamp_(0, 255).to(torch.uint8)
        return [x.numpy(), np.ascontiguousarray(image.permute(1, 2, 0).numpy())]


def pixels_sha256(pixels: NDArray[np.uint8]) -> str:
    """SHA-256 in hex of shape and bytes: 2 x 3 pixels differ from 3 x 2."""
    digest = hashlib.sha256(f"{pixels.shape} uint8\n".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def _reason(path: str | None, error: Exception) -> str:
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return f"{path or 'the array'} needs more memory than is available. Shrink the image, or use fewer workers"
    if path is not None and os.path.isdir(path):
        try:
            os.scandir(path).close()
        except OSError as unlisted:
            return f"cannot list the folder {path}: {unlisted.strerror}"
    if isinstance(error, ValueError):  # ImageError, VideoError
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"cannot read {path}: {error.strerror}"
    return f"cannot prepare {path or 'the array'}: {type(error).__name__}: {error}"


def _one_line(message: str, path: str | None, name: str) -> str:
    """The message with the image's name instead of its path, and without addresses, which differ between runs."""
    if path is not None:
        message = message.replace(path, name).replace(repr(path)[1:-1], name)
    return printable(re.sub(r"\b0x[0-9a-f]{6,}\b", "0x...", message))


def printable(text: str) -> str:
    """Text as one line of valid Unicode. Other characters are escaped: \\n, \\xff."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


# The child ------------------------------------------------------------------------------------------------------------


Jobs = queue.SimpleQueue[tuple[Request, list[NDArray[Any]]]]


def main() -> None:
    """Answers requests until the parent closes stdin."""
    # Ctrl-C reaches every process of a terminal, but the parent decides when its children end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    jobs_in = os.fdopen(os.dup(0), "rb", buffering=0)
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)  # the output of a library would end up in the middle of a message
    settings = cast(Settings, receive(jobs_in)[0])
    try:
        torch.set_num_threads(1)
        Image.MAX_IMAGE_PIXELS = settings["max_pixels"]
        for format, opener, accept in cast("list[tuple[str, str, str | None]]", settings["plugins"]):
            Image.register_open(format, _imported(opener), _imported(accept) if accept else None)
        reader = Reader(settings)
    except Exception:
        send(out, {"failed": traceback.format_exc()})
        return
    send(out, {"ready": os.getpid()})
    os.dup2(nothing, 2)  # decoders in C print warnings about damaged files; errors arrive as exceptions
    jobs: Jobs = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(jobs_in, jobs), daemon=True).start()
    while True:
        request, arrays = jobs.get()
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 1.5 * settings["timeout"] + 1)  # longer than the parent waits
        answer, results = reader.answer(request, arrays[0] if arrays else None)
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
        try:
            send(out, answer, results)
        except OSError:
            return


def _listen(jobs_in: IO[bytes], jobs: Jobs) -> None:
    try:
        while True:
            request, arrays = receive(jobs_in)
            jobs.put((cast(Request, request), arrays))
    finally:
        os._exit(0)  # the parent has ended


if __name__ == "__main__":
    main()
