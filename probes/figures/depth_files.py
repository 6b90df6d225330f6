"""Writes depth maps as files: in colour, as 16-bit grey, and as float32 values.

    depth_files.write(Path("depth.npy"), depth_files.npy(depth))

Files are written whole or not at all (`dpt.writing`).

Limits: colours and grey levels span the range of each map, so two images cannot be compared by colour. The grey file
records its range as text: its values can be restored to within 1/65535 of the range. The .npy file is exact.
"""

from __future__ import annotations

import difflib
import io
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, UInt8, UInt16
from PIL import Image, PngImagePlugin

from dpt.writing import write_file

from ..errors import InvalidValueError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Writer = Callable[[IO[bytes]], None]
"""A function that writes the content of a file to an open binary file."""


def check_colormap(name: str) -> None:
    """Raises InvalidValueError with similar names unless matplotlib has the colormap."""
    import matplotlib

    if name not in matplotlib.colormaps:
        close = difflib.get_close_matches(name, list(matplotlib.colormaps), n=3) or ["inferno", "viridis", "gray"]
        raise InvalidValueError(f"unknown colormap {name!r}. Try for example {', '.join(close)}")


def colour_depth(
    depth: Float32[np.ndarray, "height width"], colormap: str = "inferno", metric: bool = False
) -> UInt8[np.ndarray, "height width 3"]:
    """Colours a depth map over its own range. Near is the upper end of the colormap.

    Args:
        depth: Depth map, (height, width) float32.
        colormap: A matplotlib colormap. Its upper end is usually the bright one.
        metric: The map is in metres, so small values are near.

    Returns:
        RGB image, (height, width, 3) uint8.

    Raises:
        InvalidValueError: The colormap does not exist, or the map contains NaN or infinity.
    """
    import matplotlib

    check_colormap(colormap)
    unit, _, _ = _unit_range(depth)
    coloured = matplotlib.colormaps[colormap](1 - unit if metric else unit, bytes=True)
    return np.ascontiguousarray(coloured[..., :3])


def grey_depth(depth: Float32[np.ndarray, "height width"]) -> tuple[UInt16[np.ndarray, "height width"], float, float]:
    """Quantises a depth map to 16 bits over its own range.

    Args:
        depth: Depth map, (height, width) float32.

    Returns:
        (grey, low, high), with depth = low + grey / 65535 * (high - low).

    Raises:
        InvalidValueError: The map contains NaN or infinity.
    """
    unit, low, high = _unit_range(depth)
    return np.round(unit * 65535).astype(np.uint16), low, high


def _unit_range(depth: Float32[np.ndarray, "height width"]) -> tuple[np.ndarray, float, float]:
    """The map scaled to 0..1, its minimum and its maximum."""
    # float64, because the difference of two float32 values can need more digits than float32 has
    wide = depth.astype(np.float64)
    low, high = float(wide.min()), float(wide.max())
    if not np.isfinite(high - low):
        raise InvalidValueError("cannot draw the depth map: it contains NaN or infinity")
    return (wide - low) / (high - low if high > low else 1.0), low, high


def grey_png(depth: Float32[np.ndarray, "height width"], metric: bool = False) -> Writer:
    """Returns a writer of a 16-bit grey PNG. Its text chunks depth_min, depth_max and depth_unit record the scale."""
    grey, low, high = grey_depth(depth)
    text = PngImagePlugin.PngInfo()
    text.add_text("depth_min", repr(low))
    text.add_text("depth_max", repr(high))
    text.add_text("depth_unit", "metre" if metric else "relative inverse depth")
    return lambda file: Image.fromarray(grey).save(file, format="PNG", pnginfo=text)


def png(image: UInt8[np.ndarray, "height width 3"]) -> Writer:
    """Returns a writer of an RGB image as PNG."""
    return lambda file: Image.fromarray(image).save(file, format="PNG")


def npy(depth: Float32[np.ndarray, "height width"]) -> Writer:
    """Returns a writer of a depth map as NPY, float32."""
    return lambda file: np.save(file, depth)


def figure_png(figure: Figure, dpi: int = 130) -> Writer:
    """Returns a writer of a matplotlib figure as PNG."""
    return lambda file: figure.savefig(file, format="png", dpi=dpi)


def write(path: Path, writer: Writer) -> None:
    """Writes a file whole or not at all. An existing file is replaced.

    Args:
        path: The file.
        writer: Writes its content, e.g. `npy(depth)`.

    Raises:
        dpt.DPTError: The file cannot be written. It is also an OSError.
    """
    content = io.BytesIO()  # encoders seek, and a failing encoder must not leave a file
    writer(content)
    write_file(path, content.getbuffer())
