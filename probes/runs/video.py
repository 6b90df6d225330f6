"""Reads frames of a video by number with PyAV.

Problem. Containers know times, not frame numbers. A seek lands on some keyframe before the requested time. The frame
count that a file states is often missing or wrong. Frames are stored in another order than they are shown.

Approach. All packets are read once without decoding. Their sorted times number the frames: frame n is shown n-th.
Decoding runs forwards and identifies each frame by its time. It seeks only backwards, or if a keyframe lies between the
current and the requested frame. If times are missing or repeated (raw streams, some AVI files), frames are counted from
the start; this is exact, but slow backwards.

Frames are rotated as the file states and converted to RGB by FFmpeg. Transparent pixels are composited over white, as
in images. For VP8 and VP9 with transparency this needs libvpx, because FFmpeg's own decoders drop alpha.

A frame with a damaged packet raises an error, and so do the frames after it up to the next keyframe, because they
depend on it. If a packet is missing completely, the following frames move up.

Limits. Pixels that are not square stay so. PyAV (extra ``scale``) is imported when the first video is opened.
"""

from __future__ import annotations

import errno
import os
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from dpt.opening import check_kind
from dpt.reading import over_white

from ..errors import ProbeError

if TYPE_CHECKING:
    import av

__all__ = ["Video", "VideoError", "count", "frame"]

# Packets of these codecs can hold no frame or several, so only decoding counts the frames.
# FFmpeg's own decoders of these codecs drop alpha, which such files store beside each frame.
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
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

    Attributes:
        status: What `os.stat` said of the file when it was opened.
        size: (height, width) of its frames in pixels, before they are rotated.

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
        self.status: os.stat_result | None = None
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
        status = os.stat(self._path)
        check_kind(self._path, status)  # opening a pipe would block
        if self.status is not None and _state(self.status) != _state(status):
            raise OSError(errno.EAGAIN, "another program is writing it")
        self.status = status
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
        self._decoder = self._alpha_decoder() if stream.metadata.get("alpha_mode") == "1" else None
        self.size = (stream.codec_context.height, stream.codec_context.width)

    def _alpha_decoder(self) -> Any:
        """A decoder that keeps alpha, for codecs whose default decoder drops it; else None."""
        context = self._stream.codec_context
        name = _ALPHA_DECODERS.get(context.name)
        if name is None:
            return None
        if name not in self._av.codecs_available:
            raise VideoError(f"{self._path} has transparency, which needs the decoder {name}, missing in this PyAV")
        decoder = self._av.CodecContext.create(name, "r")
        decoder.extradata = context.extradata
        return decoder

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
        if self._decoder is not None:
            self._decoder.flush_buffers()
        self._frames = self._decoded()
        self._asked = -1
        self._last: tuple[int, av.VideoFrame | None] = (-1, None)  # number and frame that were decoded last

    def _decoded(self) -> Iterator[tuple[int | None, av.VideoFrame | None]]:
        """Yields (time, frame) in display order; None for frames that are damaged or depend on damaged ones."""
        damaged = False
        for packet in self._container.demux(self._stream):
            try:
                frames = packet.decode() if self._decoder is None else self._decoder.decode(packet)
            except (self._av.error.InvalidDataError, self._av.error.EOFError):
                damaged = True
                continue
            for frame in frames:
                # libvpx does not mark keyframes. Its frames come out with their packets.
                key = frame.key_frame or (self._decoder is not None and packet.is_keyframe)
                damaged = frame.is_corrupt or (damaged and not key)
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
            rgb = _rgb(frame)
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


def _state(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _rgb(frame: av.VideoFrame) -> UInt8[np.ndarray, "height width 3"]:
    """The pixels of a decoded frame, transparent ones over white."""
    if frame.format.has_palette or any(component.is_alpha for component in frame.format.components):
        rgba = frame.to_ndarray(format="rgba")
        if rgba[..., 3].min() < 255:
            return over_white(rgba.astype(np.uint8, copy=False))
    return frame.to_ndarray(format="rgb24")


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
