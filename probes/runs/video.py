"""Frames of a video by their number, read forwards with PyAV.

Problem. Containers know times, not numbers: a seek lands on some keyframe before the time asked for, a file's own count
of frames is often absent or wrong, and frames are stored in another order than they are shown.

Approach. The packets are read once without decoding them. Their times, sorted, number the frames: frame n is the one
shown n-th. Decoding runs forwards and recognises each frame by its time; it seeks only where a keyframe lies between
here and there, or backwards. Where times are missing or repeated (raw streams, some AVI), frames are counted from the
start, which is slow backwards and just as exact.

Frames are turned upright as the file says, and become RGB as FFmpeg converts them. A frame whose packet is damaged is
an error, and so are those after it up to the next keyframe, which were made from it. Where a packet is lost
altogether, the frames behind it move up.

Limits. Pixels that are not square stay so. PyAV (the extra ``scale``) is imported here, when a video is first used.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

__all__ = ["Video", "VideoError", "count", "frame"]

# These hide frames in packets, or several in one, so that only decoding counts them.
_HIDING = frozenset({"vp8", "mpeg4", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3"})


class VideoError(ValueError):
    """A video or one of its frames cannot be read."""


def count(path: str | os.PathLike[str]) -> int:
    """How many frames a video has. VideoError if it is none, or damaged from the start."""
    with Video(path) as video:
        return len(video)


def frame(path: str | os.PathLike[str], number: int) -> UInt8[np.ndarray, "height width 3"]:
    """One frame as RGB, counted from 0 in the order of showing. VideoError if there is none."""
    with Video(path) as video:
        return video.frame(number)


class Video:
    """A video that stays open: ``video.frame(n)``, best in rising order."""

    def __init__(self, path: str | os.PathLike[str]):
        import av

        self._av = av
        self._path = Path(path)
        self._container: Any = None
        try:
            self._open()
            self._index()
            self._rewind()
        except (av.FFmpegError, OSError, UnicodeError) as error:
            self.close()
            raise VideoError(f"{self._path} is no video that PyAV can read: {_reason(error)}") from error
        except VideoError:
            self.close()
            raise

    def __len__(self) -> int:
        return self._count

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None

    def _open(self) -> None:
        self.close()
        # Some formats are lists of other files and addresses; none but this one is opened.
        self._container = self._av.open(str(self._path), options={"protocol_whitelist": "file"})
        stream = self._container.streams.best("video")
        if stream is None:
            raise VideoError(f"{self._path} holds no pictures, only sound or data")
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and stream.codec_context.width * stream.codec_context.height > limit:
            size = f"{stream.codec_context.width} x {stream.codec_context.height}"
            raise VideoError(f"{self._path} is too large: frames of {size} pixels, the limit is {limit}")
        self._stream = stream

    def _index(self) -> None:
        """Times of all frames in the order of showing, and which of them are keyframes."""
        shown = [p for p in self._container.demux(self._stream) if p.size and not p.is_discard]
        times = sorted(p.pts for p in shown if p.pts is not None)
        self._count = len(shown)
        self._numbers: dict[int | None, int] | None = {time: number for number, time in enumerate(times)}
        if len(self._numbers) < len(shown):
            self._numbers = None
        self._times = times
        self._keys = sorted(self._numbers[p.pts] for p in shown if p.is_keyframe) if self._numbers else []
        if self._stream.codec_context.name in _HIDING or not shown:
            self._numbers, self._keys = None, []
            self._rewind()
            self._count = sum(1 for _ in self._frames)
        if not self._count:
            raise VideoError(f"{self._path} has no frames")

    def _rewind(self) -> None:
        self._open()
        self._start()

    def _start(self) -> None:
        self._frames = self._decoded()
        self._asked = -1
        self._last: tuple[int, Any] = (-1, None)  # number and frame that were decoded last

    def _decoded(self) -> Iterator[tuple[int | None, Any]]:
        """Frames in the order of showing; None in place of one that is damaged or was made from a damaged one."""
        damaged = False
        for packet in self._container.demux(self._stream):
            try:
                frames = packet.decode()
            except (self._av.error.InvalidDataError, self._av.error.EOFError):
                damaged = True
                continue
            for frame in frames:
                damaged = frame.is_corrupt or (damaged and not frame.key_frame)
                yield frame.pts, None if damaged else frame

    def frame(self, number: int) -> UInt8[np.ndarray, "height width 3"]:
        """Frame number as RGB, counted from 0 in the order of showing. VideoError if there is none."""
        if not 0 <= number < self._count:
            raise VideoError(f"{self._path} has no frame {number}: it has {self._count}, counted from 0")
        try:
            frame = self._find(number)
            if frame is None:
                raise VideoError(f"frame {number} of {self._path} is damaged or missing; copy or download it again")
            rgb = frame.to_ndarray(format="rgb24")
        except (self._av.FFmpegError, OSError) as error:
            self._rewind()
            raise VideoError(f"frame {number} of {self._path} cannot be decoded: {_reason(error)}") from error
        return np.ascontiguousarray(np.rot90(rgb, round(frame.rotation / 90)))

    def _find(self, number: int) -> Any:
        """The decoded frame; None if the decoder cannot make it."""
        last, frame = self._last
        if number <= last:
            if number == last:
                return frame
            if number > self._asked:  # the decoder went from one before it to one after it
                return None
        keys = bisect_right(self._keys, number)
        key = self._keys[keys - 1] if keys else 0
        if number < last or key > last + 1:
            self._seek(key)
            if key and (self._advance(number)[0] != number or self._last[1] is None):
                self._keys = []  # there is no starting in the middle of this file: from now on it is read through
                self._rewind()
        self._asked = number
        at, frame = self._advance(number)
        return frame if at == number else None

    def _advance(self, number: int) -> tuple[int, Any]:
        """Decode until a frame of that number or a later one; what was decoded last."""
        while self._last[0] < number and (decoded := next(self._frames, None)) is not None:
            time, frame = decoded
            at = self._last[0] + 1 if self._numbers is None else self._numbers.get(time)
            if at is None:  # the decoder gives other times than the container: count from the start instead
                self._numbers, self._keys = None, []
                self._rewind()
                continue
            self._last = (at, frame)
        return self._last

    def _seek(self, key: int) -> None:
        if key == 0:
            self._rewind()
        else:
            self._container.seek(self._times[key], stream=self._stream, backward=True)
            self._start()


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
