"""Writes depth maps as files: in colour, as 16-bit grey, in millimetres, and as float32 values.

    depth_files.write(Path("depth.npy"), depth_files.npy(depth))

Files are written whole or not at all (`dpt.writing`).

A map with NaN, infinity or masked pixels is refused in every format: none of them could be told from a depth.

Limits: without a span, colours and grey levels span the range of each map, so two images cannot be compared by colour.
The grey file records its range as text: its values can be restored to within 1/65535 of the range. Millimetres end at
65.535 m. The .npy file is exact.
"""

from __future__ import annotations

import difflib
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, SupportsFloat

import numpy as np
from jaxtyping import Float, Float32, UInt8, UInt16
from PIL import Image, PngImagePlugin

from dpt.printable import encodable
from dpt.writing import write_file
from dpt.written import written

from ..errors import InvalidValueError
from ..scalars import real

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Writer = Callable[[IO[bytes]], None]
"""A function that writes the content of a file to an open binary file."""

Span = tuple[float, float]
"""(low, high): the depths at the two ends of a scale."""

MILLIMETRES = 65535  # the largest distance in a file of millimetres


def check_colormap(name: str) -> None:
    """Raises InvalidValueError with similar names unless matplotlib has the colormap."""
    import matplotlib

    if name not in matplotlib.colormaps:
        close = difflib.get_close_matches(name, list(matplotlib.colormaps), n=3) or ["inferno", "viridis", "gray"]
        raise InvalidValueError(f"unknown colormap {name!r}. Try for example {', '.join(close)}")


def check_depth(depth: Float[np.ndarray, "height width"]) -> None:
    """Checks that every pixel of a map has a depth.

    Args:
        depth: Depth map, (height, width).

    Raises:
        InvalidValueError: The map contains NaN, infinity or masked pixels. The message counts them.
    """
    if isinstance(depth, np.ma.MaskedArray):
        if masked := int(np.ma.count_masked(depth)):
            raise InvalidValueError(
                f"the depth map masks {masked:,} of {depth.size:,} pixels, which a file cannot. Fill them with "
                "depth.filled(value)"
            )
        depth = depth.data
    finite = np.isfinite(depth)
    if not finite.all():
        raise InvalidValueError(
            f"the depth map contains NaN or infinity in {depth.size - np.count_nonzero(finite):,} of {depth.size:,} "
            "pixels. Check the weights and the edits of the model, or replace them, e.g. with np.nan_to_num"
        )


def colour_depth(
    depth: Float32[np.ndarray, "height width"],
    colormap: str = "inferno",
    metric: bool = False,
    span: Span | None = None,
) -> UInt8[np.ndarray, "height width 3"]:
    """Colours a depth map. Near is the upper end of the colormap.

    Args:
        depth: Depth map, (height, width) float32.
        colormap: A matplotlib colormap. Its upper end is usually the bright one.
        metric: The map is in metres, so small values are near.
        span: Depths at the two ends of the colormap; depths beyond them get the colours of the ends. Default: the
            range of the map.

    Returns:
        RGB image, (height, width, 3) uint8.

    Raises:
        InvalidValueError: The colormap does not exist, or the map contains NaN, infinity or masked pixels.
    """
    import matplotlib

    check_colormap(colormap)
    unit, _, _ = _unit_range(depth, span)
    coloured = matplotlib.colormaps[colormap](1 - unit if metric else unit, bytes=True)
    return np.ascontiguousarray(coloured[..., :3])


def grey_depth(
    depth: Float32[np.ndarray, "height width"], span: Span | None = None
) -> tuple[UInt16[np.ndarray, "height width"], float, float]:
    """Quantises a depth map to 16 bits.

    Args:
        depth: Depth map, (height, width) float32.
        span: Depths that become 0 and 65535; depths beyond them are clipped. Default: the range of the map.

    Returns:
        (grey, low, high), with depth = low + grey / 65535 * (high - low).

    Raises:
        InvalidValueError: The map contains NaN, infinity or masked pixels.
    """
    unit, low, high = _unit_range(depth, span)
    return np.round(unit * 65535).astype(np.uint16), low, high


def _unit_range(
    depth: Float32[np.ndarray, "height width"], span: Span | None = None
) -> tuple[np.ndarray, float, float]:
    """The map scaled to 0..1, and the depths that become 0 and 1."""
    check_depth(depth)
    # float64, because the difference of two float32 values can need more digits than float32 has
    wide = depth.astype(np.float64)
    if span is None:
        low, high = float(wide.min()), float(wide.max())
        return (wide - low) / (high - low if high > low else 1.0), low, high
    low, high = span
    return ((wide - low) / (high - low if high > low else 1.0)).clip(0, 1), low, high


def grey_png(
    depth: Float32[np.ndarray, "height width"], metric: bool = False, span: Span | None = None, **texts: str
) -> Writer:
    """Returns a writer of a 16-bit grey PNG. Its text chunks depth_min, depth_max and depth_unit record the scale.

    Args:
        depth: Depth map, (height, width) float32.
        metric: The map is in metres.
        span: As for `grey_depth`.
        **texts: More text chunks by keyword, e.g. ``model="Depth-Anything demo"``.

    Raises:
        InvalidValueError: As for `grey_depth`.
    """
    grey, low, high = grey_depth(depth, span)
    unit = "metre" if metric else "relative inverse depth"
    return _png16(grey, depth_min=repr(low), depth_max=repr(high), depth_unit=unit, **texts)


def millimetres(metres: Float32[np.ndarray, "height width"]) -> tuple[UInt16[np.ndarray, "height width"], int]:
    """Converts distances to whole millimetres, as many tools for depth cameras read them. 0 means unknown there.

    Args:
        metres: Distances, (height, width) float32.

    Returns:
        (millimetres, number of pixels that do not fit). Distances above 65.535 m become 65535, and distances below
        0.5 mm 0.

    Raises:
        InvalidValueError: The map contains NaN, infinity or masked pixels.
    """
    check_depth(metres)
    whole = np.round(metres.astype(np.float64) * 1000)
    beyond = int(np.count_nonzero((whole > MILLIMETRES) | (whole < 1)))
    return whole.clip(0, MILLIMETRES).astype(np.uint16), beyond


def millimetre_png(metres: Float32[np.ndarray, "height width"]) -> Writer:
    """Returns a writer of a 16-bit PNG in millimetres; its text chunk depth_unit says so. See `millimetres`.

    Raises:
        InvalidValueError: As for `millimetres`.
    """
    return _png16(millimetres(metres)[0], depth_unit="millimetre")


def _png16(grey: UInt16[np.ndarray, "height width"], **texts: str) -> Writer:
    return lambda file: Image.fromarray(grey).save(file, format="PNG", pnginfo=_chunks(texts))


def _chunks(texts: Mapping[str, str]) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        info.add_text(name, encodable(text))
    return info


def png(image: UInt8[np.ndarray, "height width 3"], /, **texts: str) -> Writer:
    """Returns a writer of an RGB image as PNG, with text chunks by keyword."""
    return lambda file: Image.fromarray(image).save(file, format="PNG", pnginfo=_chunks(texts))


def npy(depth: Float32[np.ndarray, "height width"]) -> Writer:
    """Returns a writer of a depth map as NPY, float32.

    Raises:
        InvalidValueError: The map contains NaN, infinity or masked pixels. To store them on purpose, use `numpy.save`.
    """
    check_depth(depth)
    return lambda file: np.save(file, np.asarray(depth))


def figure_png(figure: Figure, dpi: SupportsFloat = 130, **texts: str) -> Writer:
    """Returns a writer of a matplotlib figure as PNG, with text chunks by keyword."""
    metadata = {name: encodable(text) for name, text in texts.items()}
    return lambda file: figure.savefig(file, format="png", dpi=real(dpi, "dpi", above=0), metadata=metadata)


def write(path: Path, writer: Writer) -> Path:
    """Writes a file whole or not at all. An existing file is replaced.

    Args:
        path: The file.
        writer: Writes its content, e.g. `npy(depth)`.

    Returns:
        The path, which a notebook shows as a link.

    Raises:
        dpt.DPTError: The file cannot be written. It is also an OSError.
    """
    content = io.BytesIO()  # encoders seek, and a failing encoder must not leave a file
    writer(content)
    write_file(path, content.getbuffer())
    return written(path)
