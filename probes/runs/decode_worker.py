"""Decodes and prepares one image; and the program of the child process that does so for `decoding`.

The child runs this file as a script by its path. It does not import the package ``probes``, which saves 0.5 s of 2.1 s
until it is ready. It reads requests from stdin and writes answers to stdout. A message is a line of JSON and the arrays
that the line announces. Messages are not pickled, because the child has run a decoder on a file from anywhere.

The child ends with its parent: a thread waits for the end of stdin. If a decoder in C hangs and keeps Python's lock,
that thread cannot run; a timer of the system then ends the child.

The bytes of a file are read once, and these bytes are both hashed and decoded. A file that another program replaces
meanwhile cannot give the pixels of one content and the hash of the other.
"""

from __future__ import annotations

import errno
import hashlib
import importlib
import io
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

from dpt.image import Preprocess, prepare
from dpt.opening import open_file
from dpt.printable import printable
from dpt.reading import Reading, read
from dpt.trouble import is_machine_trouble, is_out_of_memory

if TYPE_CHECKING:
    import probes.runs.video

LONGEST = 2**24  # bytes of a line of JSON; names, reasons and settings need far less
LONGEST_REASON = 2000  # characters
IN_MEMORY = 2**26  # bytes; larger files are read twice, and must not change in between
READS = 3  # attempts to read a file that is being written

Stamp = tuple[int, int, int]
"""State of a file: bytes, time of the last modification and of the last change of its entry, in ns."""


class Settings(TypedDict):
    """Settings of a `Reader` and of its process.

    Attributes:
        preprocess: Fields of a `dpt.image.Preprocess`.
        size, keep_aspect: As for `dpt.image.prepare`.
        images: Whether to return the image at the input's size, too.
        timeout: Seconds for one image.
        max_pixels: Pillow's limit, see `PIL.Image.MAX_IMAGE_PIXELS`.
        plugins: Formats to add to Pillow: [format, opener, accept], functions as "module:name".
    """

    preprocess: dict[str, Any]
    size: int | tuple[int, int] | None
    keep_aspect: bool
    images: bool
    timeout: float
    max_pixels: int | None
    plugins: list[list[str | None]]


class Request(TypedDict):
    """An image to decode. Without a path, its pixels follow as an array.

    Attributes:
        name: Of the image.
        path: Of the file.
        frame: Number of the frame in the video at `path`.
        measure: Whether only the size of the image is wanted, from the header of the file.
    """

    name: str
    path: str | None
    frame: int | None
    measure: bool


class Answer(TypedDict):
    """Why the image failed; or its size and SHA-256, followed by the arrays x and, if requested, image.

    Attributes:
        error: Why it failed, in one line.
        trouble: Whether the machine is to blame for the failure, not the image.
        size: (height, width) of the image in pixels.
        sha256: Of the file's bytes; of shape and pixels for frames and arrays.
        stamp: State of the file when it was read; None for arrays.
        notes: What the pixels do not show, e.g. "has 12 frames: only the first is used".
    """

    error: str | None
    trouble: bool
    size: list[int]
    sha256: str
    stamp: Stamp | None
    notes: list[str]


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


def send_note(pipe: IO[bytes]) -> None:
    """Writes a message of length 0. A child so says that it has read the file. Raises OSError if the reader is gone."""
    pipe.write(bytes(4))


def nothing() -> None:
    """Called where nobody wants to know."""


def receive(
    pipe: IO[bytes], on_start: Callable[[], None] = nothing, on_note: Callable[[], None] = nothing
) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """Reads a message.

    Args:
        pipe: Where to read.
        on_start: Called when the first bytes arrive.
        on_note: Called for every message of length 0 before it.

    Raises:
        EOFError: The writer is gone.
        ValueError: The bytes are not a message.
    """
    while not (length := int.from_bytes(_fill(pipe, bytearray(4)), "big")):
        on_note()
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


# One file -------------------------------------------------------------------------------------------------------------


class _Content(io.BytesIO):
    """The bytes of a file. Messages call them by the path of the file."""

    name: str


def stamp(status: os.stat_result) -> Stamp:
    """State of a file, by which a later call sees that it may have changed."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def read_once(path: str, on_read: Callable[[], None] = nothing) -> tuple[Reading, str, Stamp]:
    """Reads an image file, with the hash of the bytes that became its pixels.

    Args:
        path: The file.
        on_read: Called when all its bytes are in memory.

    Returns:
        (the image as from `dpt.reading.read`, SHA-256 in hex, state of the file).

    Raises:
        ImageError: The file is not an image.
        OSError: The machine cannot read it now, or another program keeps writing it.
    """
    for _ in range(READS):
        try:
            file = open_file(path)
        except (OSError, ValueError) as error:
            if is_machine_trouble(error):
                raise
            read(path)  # raises an ImageError that says what to do
            continue
        with file:
            before = stamp(os.fstat(file.fileno()))
            if before[0] <= IN_MEMORY:
                content = _Content(file.read(IN_MEMORY + 1))
                content.name = path
                after = stamp(os.fstat(file.fileno()))
                on_read()
                if before == after and len(content.getbuffer()) == before[0]:
                    sha256 = hashlib.sha256(content.getbuffer()).hexdigest()
                    return read(content), sha256, before
            else:
                cast("Any", file).raw.name = path
                reading = read(file)
                file.seek(0)
                sha256 = hashlib.file_digest(cast("Any", file), "sha256").hexdigest()
                on_read()
                if before == stamp(os.fstat(file.fileno())):
                    return reading, sha256, before
    raise OSError(errno.EAGAIN, "another program is writing it")


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 in hex of a regular file's bytes. Raises OSError."""
    with open_file(path) as file:
        return hashlib.file_digest(cast("Any", file), "sha256").hexdigest()


def measured(path: str) -> tuple[int, int]:
    """(height, width) of an upright image in pixels, from the header of its file. Raises whatever Pillow raises."""
    with open_file(path) as file, Image.open(file) as image:
        # Asking a PNG for EXIF data that its header lacks decodes all pixels.
        lacks = image.format == "PNG" and "exif" not in image.info
        turned = not lacks and image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        return (image.width, image.height) if turned else (image.height, image.width)


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
        self._video: probes.runs.video.Video | None = None
        self._video_path: str | None = None

    def close(self) -> None:
        """Closes the open video."""
        if self._video is not None:
            self._video.close()
        self._video = self._video_path = None

    def answer(
        self, request: Request, array: NDArray[Any] | None, on_read: Callable[[], None] = nothing
    ) -> tuple[Answer, list[NDArray[Any]]]:
        """Decodes and prepares one image. Whatever a decoder raises becomes the error of the answer.

        Args:
            request: The image.
            array: Its pixels, if it has no path.
            on_read: Called when its file is read, before it is decoded.

        Returns:
            The answer, and the arrays x (3, h, w) and, if requested, image (h, w, 3).
        """
        path, frame, name = request["path"], request["frame"], request["name"]
        try:
            if request["measure"]:
                return _answer(self._size_of(path, frame, array)), []
            sha256, state, notes = "", None, []
            if path is None:
                assert array is not None
                pixels = array
            elif frame is None:
                reading, sha256, state = read_once(path, on_read)
                pixels, notes = reading.pixels, [_one_line(note, path, name) for note in reading.notes]
            else:
                video = self._opened(path)
                pixels = video.frame(frame)
                state = None if video.status is None else stamp(video.status)
            size = (pixels.shape[0], pixels.shape[1])
            return _answer(size, sha256 or pixels_sha256(pixels), state, notes), self._prepared(pixels)
        except Exception as error:
            if frame is not None:
                name = name.rpartition("#")[0] or name
            reason = _one_line(_reason(path, error), path, name)
            return _failure(reason, is_machine_trouble(error)), []

    def _size_of(self, path: str | None, frame: int | None, array: NDArray[Any] | None) -> tuple[int, int]:
        if path is None:
            assert array is not None
            return array.shape[0], array.shape[1]
        return measured(path) if frame is None else self._opened(path).size

    def _opened(self, path: str) -> probes.runs.video.Video:
        """The video at a path. It stays open until another one is read."""
        from probes.runs.video import Video

        if self._video is None or path != self._video_path:
            self.close()
            self._video = Video(path)
            self._video_path = path
        return self._video

    def _prepared(self, pixels: NDArray[np.uint8]) -> list[NDArray[Any]]:
        x = prepare(pixels, self._preprocess, self._size, self._keep_aspect)[0]
        if not self._images:
            return [x.numpy()]
        mean, std = (x.new_tensor(values).view(3, 1, 1) for values in (self._preprocess.mean, self._preprocess.std))
        image = (x * std + mean).mul_(255).round_().clamp_(0, 255).to(torch.uint8)
        return [x.numpy(), np.ascontiguousarray(image.permute(1, 2, 0).numpy())]


def _answer(size: tuple[int, int], sha256: str = "", state: Stamp | None = None, notes: Sequence[str] = ()) -> Answer:
    return Answer(error=None, trouble=False, size=list(size), sha256=sha256, stamp=state, notes=list(notes))


def _failure(reason: str, trouble: bool) -> Answer:
    return Answer(error=reason, trouble=trouble, size=[], sha256="", stamp=None, notes=[])


def pixels_sha256(pixels: NDArray[np.uint8]) -> str:
    """SHA-256 in hex of shape and bytes: 2 x 3 pixels differ from 3 x 2."""
    digest = hashlib.sha256(f"{pixels.shape} uint8\n".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def _reason(path: str | None, error: Exception) -> str:
    if is_out_of_memory(error):
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
    return printable(re.sub(r"\b0x[0-9a-f]{6,}\b", "0x...", message), LONGEST_REASON)


# The child ------------------------------------------------------------------------------------------------------------


Jobs = queue.SimpleQueue[tuple[Request, list[NDArray[Any]]]]


def main() -> None:
    """Answers requests until the parent closes stdin."""
    # Ctrl-C reaches every process of a terminal, but the parent decides when its children end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    jobs_in = os.fdopen(os.dup(0), "rb", buffering=0)
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)  # the output of a library would end up in the middle of a message
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
    os.dup2(null, 2)  # decoders in C print warnings about damaged files; errors arrive as exceptions
    jobs: Jobs = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(jobs_in, jobs), daemon=True).start()
    while True:
        request, arrays = jobs.get()
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 1.5 * settings["timeout"] + 1)  # longer than the parent waits
        answer, results = reader.answer(request, arrays[0] if arrays else None, lambda: send_note(out))
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
