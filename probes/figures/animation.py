"""A walk from one setting of the fusion scales to another, as an animated picture.

    replay = probes.FusionReplay(model, image)
    probes.animate(replay, {}, {"fusion.2": -2.0}, "glitch.gif", frames=48)

Problem: what a scale does is best seen while it moves, also by those who have no kernel to move it with.

Approach: every frame is a replay at scales between the two settings, coloured as in the explorer, and there and
back makes a loop without a jump. A GIF's 256 colours are exactly those of the colormap: no dithering. MP4 needs
PyAV, which nothing else here does; it is looked for when a film is asked for.

Limits: unless a span is given every frame spans its own range, so that brightness cannot be compared between frames. A
GIF counts time in hundredths of a second: of the usual rates 10, 20, 25 and 50 frames a second are met exactly.
"""

from __future__ import annotations

import importlib
import io
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from ..errors import InvalidValueError, MissingFileError
from ..replay import FusionReplay
from . import depth_files as pictures

FORMATS = ("gif", "mp4")
SIDE = 480  # pixels of the longer side

Indices = UInt8[np.ndarray, "height width"]  # into the 256 colours of a colormap


def between(first: Mapping[str, float], last: Mapping[str, float], part: float) -> dict[str, float]:
    """The setting at a part of the way, 0 to 1; points that a setting does not name have the scale 1."""
    points = dict.fromkeys([*first, *last])
    return {name: (1 - part) * first.get(name, 1.0) + part * last.get(name, 1.0) for name in points}


def shade(
    depth: Float[np.ndarray, "height width"],
    *,
    near_is_small: bool = False,
    reverse: bool = False,
    high_contrast: bool = False,
    span: tuple[float, float] | None = None,
) -> Indices:
    """Which of a colormap's 256 colours each pixel gets; near is the bright end.

    near_is_small: the map is in metres. reverse: the colours the other way round. high_contrast: histogram
    equalisation, so that every colour covers about as many pixels as any other. span: (low, high) that the colours
    cover, by default the map's own range. These are the colours of the explorer: see static/depth_map.js.
    """
    levels, low, high = pictures.grey_depth(depth)
    if high_contrast:
        counts = np.bincount(levels.ravel(), minlength=65536)
        below = np.cumsum(counts)
        least = counts[levels.min()]  # the lowest value becomes 0, as in the textbook formula
        unit = ((below - least) / max(levels.size - least, 1))[levels]
    else:
        bottom, top = span or (low, high)
        unit = (low + levels / 65535 * (high - low) - bottom) / (top - bottom if top > bottom else 1.0)
    if near_is_small != reverse:
        unit = 1 - unit
    shaded: Indices = np.clip(unit * 256, 0, 255).astype(np.uint8)
    return shaded


def animate(
    replay: FusionReplay,
    first: Mapping[str, float],
    last: Mapping[str, float],
    path: str | PathLike[str],
    frames: int = 48,
    *,
    rate: int = 20,
    there_and_back: bool = True,
    colormap: str = "magma",
    reverse: bool = False,
    high_contrast: bool = False,
    span: tuple[float, float] | None = None,
    side: int = SIDE,
) -> Path:
    """Writes the way from one setting to another as .gif or .mp4, whichever the path ends with; returns the path.

    first, last: point -> scale, as for `FusionReplay`. frames: of the way there. rate: frames a second.
    there_and_back: the way back as well, for a loop without a jump. side: pixels of the longer side, at most.
    The rest as for `shade`. The file is written whole or not at all, and a bar shows how far it is.
    """
    from tqdm.auto import tqdm  # asks whether this is a notebook, which takes a moment

    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    check(kind, frames, rate)
    if not path.parent.is_dir():
        raise MissingFileError(f"cannot write {path}: there is no folder {path.parent}")
    pictures.check_colormap(colormap)
    drawn = render(replay, first, last, frames, side, reverse=reverse, high_contrast=high_contrast, span=span)
    with tqdm(drawn, total=frames, desc=path.name, unit="frame") as progress:
        content = encode(list(progress), kind, colormap, rate, there_and_back)
    pictures.write(path, lambda file: shutil.copyfileobj(io.BytesIO(content), file))
    return path


def check(kind: str, frames: int, rate: int) -> None:
    """Before anything is run: ValueError for what cannot be written, ImportError where PyAV is missing."""
    if kind not in FORMATS:
        raise InvalidValueError(f"an animation is a .gif or a .mp4, not {kind!r}; let the path end with one of these")
    for what, number, most in (("frames", frames, 2000), ("rate", rate, 100)):
        least = 2 if what == "frames" else 1
        if isinstance(number, bool) or not isinstance(number, int) or not least <= number <= most:
            raise InvalidValueError(f"{what} is a whole number from {least} to {most}, not {number!r}")
    if kind == "mp4":
        _av()


def render(
    replay: FusionReplay,
    first: Mapping[str, float],
    last: Mapping[str, float],
    frames: int,
    side: int = SIDE,
    **shading: Any,
) -> Iterator[Indices]:
    """The frames of the way there, one after the other. shading: as for `shade`."""
    height, width = replay.image_size
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    metric = replay.model.config.metric
    for n in range(frames):
        depth = replay(between(first, last, n / (frames - 1)))
        if not np.isfinite(depth).all():
            raise InvalidValueError(f"the depth of frame {n} holds NaN or infinity; choose settings nearer to 1")
        small = Image.fromarray(depth).resize(size, Image.Resampling.BILINEAR)
        yield shade(np.asarray(small), near_is_small=metric, **shading)


def encode(frames: Iterable[Indices], kind: str, colormap: str, rate: int, there_and_back: bool) -> bytes:
    """Frames as the bytes of a file."""
    import matplotlib

    shown = list(frames)
    if there_and_back:
        shown += shown[-2:0:-1]  # neither end twice
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
        image.putpalette(palette)  # as it is: index n is the colormap's colour n
        images.append(image)
    duration = max(20, round(100 / rate) * 10)  # browsers slow down what is faster
    images[0].save(file, "GIF", save_all=True, append_images=images[1:], duration=duration, loop=0, optimize=False)


def _mp4(file: io.BytesIO, frames: list[Indices], table: np.ndarray, rate: int) -> None:
    av = _av()
    height, width = (side - side % 2 for side in frames[0].shape)  # the format halves its colours
    with av.open(file, mode="w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(rate))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "16"}
        for frame in frames:
            pixels = np.ascontiguousarray(table[frame[:height, :width]])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def _av() -> Any:
    try:
        return importlib.import_module("av")  # by name: it is nobody's dependency
    except ImportError:
        raise ImportError("an MP4 needs PyAV, which is not installed: pip install av; or write a .gif") from None
