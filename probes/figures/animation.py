"""Animates the change from one setting of the fusion scales to another.

    replay = probes.FusionReplay(model, image)
    probes.animate(replay, {}, {"fusion.2": -2.0}, "glitch.gif", frames=48)

Problem: the effect of a scale is easiest to see while it changes, also for readers who have no kernel.

Approach: every frame is a replay at scales between the two settings, coloured as in the explorer. The way back makes
the loop continuous. The 256 colours of a GIF are exactly those of the colormap, without dithering. MP4 needs PyAV,
which is imported only when a film is requested.

Limits: without a span, every frame covers its own range, so the brightness of frames cannot be compared. A GIF counts
time in hundredths of a second. Among common rates, 10, 20, 25 and 50 frames per second are exact.
"""

from __future__ import annotations

import importlib
import io
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import SupportsFloat, SupportsIndex, TypedDict, Unpack

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from dpt import NotFiniteWarning
from dpt.scalars import is_whole
from dpt.writing import local_path
from dpt.written import written

from ..errors import InvalidValueError, MissingDependencyError, MissingFileError
from ..replay import FusionReplay
from ..scalars import real, whole
from . import depth_files

FORMATS = ("gif", "mp4")
SIDE = 480  # pixels of the longer side

Indices = UInt8[np.ndarray, "height width"]  # into the 256 colours of a colormap


class Shading(TypedDict, total=False):
    """The optional arguments of `shade` that all frames share."""

    reverse: bool
    high_contrast: bool
    span: Sequence[SupportsFloat] | np.ndarray | None


def between(
    first: Mapping[str, SupportsFloat], last: Mapping[str, SupportsFloat], part: SupportsFloat
) -> dict[str, float]:
    """Interpolates between two settings.

    Args:
        first: Scale by point. Points that a setting does not name have the scale 1.
        last: The same.
        part: Position between the two, from 0 to 1.

    Returns:
        Scale by point.
    """
    points, part = dict.fromkeys([*first, *last]), real(part, "part")
    ends = {name: (real(first.get(name, 1.0), name), real(last.get(name, 1.0), name)) for name in points}
    return {name: (1 - part) * one + part * other for name, (one, other) in ends.items()}


def shade(
    depth: Float[np.ndarray, "height width"],
    *,
    near_is_small: bool = False,
    reverse: bool = False,
    high_contrast: bool = False,
    span: Sequence[SupportsFloat] | np.ndarray | None = None,
) -> Indices:
    """Chooses one of a colormap's 256 colours per pixel, as the fusion explorer does in the browser.

    Args:
        depth: The depth map.
        near_is_small: The map is in metres. Near pixels get the bright end either way.
        reverse: Reverse the colours.
        high_contrast: Equalise the histogram: every colour then covers about the same number of pixels.
        span: (low, high) values that the colours cover. Default: the range of the map.

    Returns:
        Indices into the colormap, (height, width) uint8.

    Raises:
        InvalidValueError: The map contains NaN or infinity.
    """
    levels, low, high = depth_files.grey_depth(depth)
    if high_contrast:
        counts = np.bincount(levels.ravel(), minlength=65536)
        below = np.cumsum(counts)
        least = counts[levels.min()]  # the lowest value becomes 0, as in the textbook formula
        unit = ((below - least) / max(levels.size - least, 1))[levels]
    else:
        bottom, top = (low, high) if span is None else (real(end, "span") for end in span)
        unit = (low + levels / 65535 * (high - low) - bottom) / (top - bottom if top > bottom else 1.0)
    if near_is_small != reverse:
        unit = 1 - unit
    shaded: Indices = np.clip(unit * 256, 0, 255).astype(np.uint8)
    return shaded


def animate(
    replay: FusionReplay,
    first: Mapping[str, SupportsFloat],
    last: Mapping[str, SupportsFloat],
    path: str | PathLike[str],
    frames: SupportsIndex = 48,
    *,
    rate: SupportsIndex = 20,
    there_and_back: bool = True,
    colormap: str = "magma",
    reverse: bool = False,
    high_contrast: bool = False,
    span: Sequence[SupportsFloat] | np.ndarray | None = None,
    side: SupportsIndex = SIDE,
) -> Path:
    """Writes the change from one setting to another as an animation. Shows a progress bar.

    Args:
        replay: The model and image.
        first: Scale by point, as for `FusionReplay`.
        last: The same.
        path: File to write. Its suffix, .gif or .mp4, chooses the format. It is written whole or not at all.
        frames: Number of frames from first to last, 2 to 2000.
        rate: Frames per second, 1 to 100.
        there_and_back: Also show the way back, which makes a continuous loop.
        colormap: A matplotlib colormap.
        reverse: See `shade`.
        high_contrast: See `shade`.
        span: See `shade`.
        side: Largest length of the longer side in pixels.

    Returns:
        The path.

    Raises:
        InvalidValueError: An argument is wrong, or the depth of a frame contains NaN or infinity.
        MissingFileError: The folder of the path does not exist.
        MissingDependencyError: The format is MP4 and PyAV is not installed.

    Example:
        replay = probes.FusionReplay(model, image)
        probes.animate(replay, {}, {"fusion.2": -2.0}, "glitch.gif")
    """
    from tqdm.auto import tqdm  # detects notebooks, which takes a moment

    path = local_path(path)
    kind = path.suffix.lower().removeprefix(".")
    check(kind, frames, rate)
    frames = whole(frames, "frames")
    if not path.parent.is_dir():
        raise MissingFileError(f"cannot write {path}: folder {path.parent} does not exist. Create it first")
    depth_files.check_colormap(colormap)
    drawn = render(replay, first, last, frames, side, reverse=reverse, high_contrast=high_contrast, span=span)
    with tqdm(drawn, total=frames, desc=path.name, unit="frame") as progress:
        content = encode(list(progress), kind, colormap, rate, there_and_back)
    depth_files.write(path, lambda file: shutil.copyfileobj(io.BytesIO(content), file))
    return written(path)


def check(kind: str, frames: SupportsIndex, rate: SupportsIndex) -> None:
    """Checks the settings of an animation before the model runs.

    Raises:
        InvalidValueError: The format is unknown, or a number is out of range.
        MissingDependencyError: The format is MP4 and PyAV is not installed.
    """
    if kind not in FORMATS:
        raise InvalidValueError(f"expected a path that ends with .gif or .mp4, got the suffix {kind!r}")
    for what, number, least, most in (("frames", frames, 2, 2000), ("rate", rate, 1, 100)):
        if not is_whole(number) or not least <= whole(number, what) <= most:
            raise InvalidValueError(f"{what} must be a whole number from {least} to {most}, got {number!r}")
    if kind == "mp4":
        _av()


def render(
    replay: FusionReplay,
    first: Mapping[str, SupportsFloat],
    last: Mapping[str, SupportsFloat],
    frames: SupportsIndex,
    side: SupportsIndex = SIDE,
    **shading: Unpack[Shading],
) -> Iterator[Indices]:
    """Computes the frames from one setting to another.

    Args:
        replay: The model and image.
        first: Scale by point.
        last: Scale by point.
        frames: Number of frames, at least 2.
        side: Largest length of the longer side in pixels.
        **shading: See `shade`.

    Yields:
        Indices into a colormap, one array per frame.

    Raises:
        InvalidValueError: The depth of a frame contains NaN or infinity.
    """
    height, width = replay.image_size
    side, frames = whole(side, "side", least=1), whole(frames, "frames", least=2)
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    metric = replay.model.config.metric
    for n in range(frames):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotFiniteWarning)  # it becomes an error
            depth = replay(between(first, last, n / (frames - 1)))
        if not np.isfinite(depth).all():
            raise InvalidValueError(f"the depth of frame {n} contains NaN or infinity. Choose scales nearer to 1")
        small = Image.fromarray(depth).resize(size, Image.Resampling.BILINEAR)
        yield shade(np.asarray(small), near_is_small=metric, **shading)


def encode(frames: Iterable[Indices], kind: str, colormap: str, rate: SupportsIndex, there_and_back: bool) -> bytes:
    """Encodes frames.

    Args:
        frames: Indices into the colormap, all of one size.
        kind: "gif" or "mp4".
        colormap: A matplotlib colormap, or "grey".
        rate: Frames per second.
        there_and_back: Also append the frames in reverse order, without repeating either end.

    Returns:
        The content of the file.
    """
    import matplotlib

    shown, rate = list(frames), whole(rate, "rate")
    if there_and_back:
        shown += shown[-2:0:-1]
    name = "gray" if colormap == "grey" else colormap
    table = matplotlib.colormaps[name](np.arange(256), bytes=True)[:, :3]
    file = io.BytesIO()
    writers: dict[str, Callable[[io.BytesIO, list[Indices], np.ndarray, int], None]] = {"gif": _gif, "mp4": _mp4}
    writers[kind](file, shown, table, rate)
    return file.getvalue()


def _gif(file: io.BytesIO, frames: list[Indices], table: np.ndarray, rate: int) -> None:
    palette = table.astype(np.uint8).tobytes()
    images = []
    for frame in frames:
        image = Image.fromarray(frame)
        image.putpalette(palette)  # index n is exactly colour n of the colormap
        images.append(image)
    duration = max(20, round(100 / rate) * 10)  # browsers slow down shorter durations
    images[0].save(file, "GIF", save_all=True, append_images=images[1:], duration=duration, loop=0, optimize=False)


def _mp4(file: io.BytesIO, frames: list[Indices], table: np.ndarray, rate: int) -> None:
    av = _av()
    height, width = (side - side % 2 for side in frames[0].shape)  # the format stores colours at half the resolution
    with av.open(file, mode="w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(rate))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "16"}
        for frame in frames:
            pixels = np.ascontiguousarray(table[frame[:height, :width]])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def _av() -> ModuleType:
    try:
        return importlib.import_module("av")  # by name, because it is an optional dependency
    except ImportError:
        raise MissingDependencyError(
            "MP4 needs PyAV, which is not installed. Install it with: pip install av, or write a .gif"
        ) from None
