"""Reads frames of a video by number with PyAV.

Problem. Containers know times, not frame numbers. A seek lands on some keyframe before the requested time. The frame
count that a file states is often missing or wrong. Frames are stored in another order than they are shown.

Approach. All packets are read once without decoding. Their sorted times number the frames: frame n is shown n-th.
Decoding runs forwards and identifies each frame by its time. It seeks only backwards, or if a keyframe lies between the
current and the requested frame. If times are missing or repeated (raw streams, some AVI files), frames are counted from
the start; this is exact, but slow backwards.

Frames are rotated as the file states and converted to RGB by FFmpeg. A frame with a damaged packet raises an error, and
so do the frames after it up to the next keyframe, because they depend on it. If a packet is missing completely, the
following frames move up.

Limits. Pixels that are not square stay so. PyAV (extra ``scale``) is imported when the first video is opened.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ..errors import ProbeError

if TYPE_CHECKING:
    import av

__all__ = ["Video", "VideoError", "count", "frame"]

# Packets of these codecs can hold no frame or several, so only decoding counts the frames.
_HIDING = frozenset({"vp8", "mpeg4", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3"})


class VideoError(ProbeError, ValueError):
    """A video or one of its frames cannot be read."""


def count(path: str | os.PathLike[str]) -> int:
    """Number of frames of a video.

    Raises:
        VideoError: The file is not a readable video.
    """
    with Video(path) as video:
        return len(video)


def frame(path: str | os.PathLike[str], number: int) -> UInt8[np.ndarray, "height width 3"]:
    """Reads one frame of a video.

    Args:
        path: The video.
        number: Of the frame, from 0, in display order.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        VideoError: The file is not a readable video, or the frame does not exist or is damaged.
    """
    with Video(path) as video:
        return video.frame(number)


class Video:
    """An open video. Reading frames in ascending order is fastest.

    Args:
        path: The video.

    Raises:
        VideoError: The file is not a readable video.

    Example:
        with Video("clip.mp4") as video:
            first, last = video.frame(0), video.frame(len(video) - 1)
    """

    def __init__(self, path: str | os.PathLike[str]):
        import av

        self._av = av
        self._path = Path(path)
        self._container: Any = None  # its stubs do not say that the stream is a video's
        try:
            self._open()
            self._index()
            self._rewind()
        except (av.FFmpegError, OSError, UnicodeError) as error:
            self.close()
            raise VideoError(f"{self._path} is not a video that PyAV can read: {_reason(error)}") from error
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
        """Closes the file."""
        if self._container is not None:
            self._container.close()
            self._container = None

    def _open(self) -> None:
        self.close()
        # Some formats list other files and addresses. The whitelist stops PyAV from opening them.
        self._container = self._av.open(str(self._path), options={"protocol_whitelist": "file"})
        stream = self._container.streams.best("video")
        if stream is None:
            raise VideoError(f"{self._path} has no video stream, only sound or data")
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and stream.codec_context.width * stream.codec_context.height > limit:
            size = f"{stream.codec_context.width} x {stream.codec_context.height}"
            raise VideoError(f"{self._path} is too large: frames of {size} pixels, but the limit is {limit} pixels")
        self._stream = stream

    def _index(self) -> None:
        """Finds the times of all frames in display order, and the keyframes."""
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
        self._last: tuple[int, av.VideoFrame | None] = (-1, None)  # number and frame that were decoded last

    def _decoded(self) -> Iterator[tuple[int | None, av.VideoFrame | None]]:
        """Yields (time, frame) in display order; None for frames that are damaged or depend on damaged ones."""
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
        """Reads a frame.

        Args:
            number: Of the frame, from 0, in display order.

        Returns:
            (H, W, 3) uint8 RGB.

        Raises:
            VideoError: The frame does not exist or is damaged.
        """
        if not 0 <= number < self._count:
            raise VideoError(f"{self._path} has no frame {number}: it has {self._count} frames, numbered from 0")
        try:
            frame = self._find(number)
            if frame is None:
                raise VideoError(
                    f"frame {number} of {self._path} is damaged or missing. Copy or download the file again"
                )
            rgb = frame.to_ndarray(format="rgb24")
        except (self._av.FFmpegError, OSError) as error:
            self._rewind()
            raise VideoError(f"cannot decode frame {number} of {self._path}: {_reason(error)}") from error
        return np.ascontiguousarray(np.rot90(rgb, round(frame.rotation / 90)))

    def _find(self, number: int) -> av.VideoFrame | None:
        """The decoded frame; None if it is damaged or missing."""
        last, frame = self._last
        if number <= last:
            if number == last:
                return frame
            if number > self._asked:  # the decoder skipped it
                return None
        keys = bisect_right(self._keys, number)
        key = self._keys[keys - 1] if keys else 0
        if number < last or key > last + 1:
            self._seek(key)
            if key and (self._advance(number)[0] != number or self._last[1] is None):
                self._keys = []  # seeking does not work in this file: read it from the start
                self._rewind()
        self._asked = number
        at, frame = self._advance(number)
        return frame if at == number else None

    def _advance(self, number: int) -> tuple[int, av.VideoFrame | None]:
        """Decodes up to a frame with this number or a later one. Returns the last (number, frame)."""
        while self._last[0] < number and (decoded := next(self._frames, None)) is not None:
            time, frame = decoded
            at = self._last[0] + 1 if self._numbers is None else self._numbers.get(time)
            if at is None:  # the decoder's times differ from the container's: count from the start
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
