"""Depth maps as image files, for the command line: in colour, in 16-bit grey, as numbers.

Files are written whole or not at all: into a temporary file beside the target, which is then renamed.

Limits: colours and grey levels span the map's own range, so two pictures cannot be compared by colour. The grey file
carries its range as text and can be turned back into numbers to within 1/65535 of it; the exact ones are in the .npy.
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

from dpt.writing import replacing

from ..errors import InvalidValueError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def check_colormap(name: str) -> None:
    """ValueError with close matches unless matplotlib has a colormap of that name."""
    import matplotlib

    if name not in matplotlib.colormaps:
        close = difflib.get_close_matches(name, list(matplotlib.colormaps), n=3) or ["inferno", "viridis", "gray"]
        raise InvalidValueError(f"no colormap is called {name!r}; there are for instance {', '.join(close)}")


def colour_depth(
    depth: Float32[np.ndarray, "height width"], colormap: str = "inferno", metric: bool = False
) -> UInt8[np.ndarray, "height width 3"]:
    """The map in colour, spanning its own range; near is the bright end of the usual colormaps.

    metric: the map is in metres, so that small values are near.
    """
    import matplotlib

    check_colormap(colormap)
    unit, _, _ = _unit_range(depth)
    coloured = matplotlib.colormaps[colormap](1 - unit if metric else unit, bytes=True)
    return np.ascontiguousarray(coloured[..., :3])


def grey_depth(depth: Float32[np.ndarray, "height width"]) -> tuple[UInt16[np.ndarray, "height width"], float, float]:
    """(grey, low, high): 16-bit levels, with depth = low + grey / 65535 * (high - low)."""
    unit, low, high = _unit_range(depth)
    return np.round(unit * 65535).astype(np.uint16), low, high


def _unit_range(depth: Float32[np.ndarray, "height width"]) -> tuple[np.ndarray, float, float]:
    # float64: the difference of two float32 numbers may need more digits than they have
    wide = depth.astype(np.float64)
    low, high = float(wide.min()), float(wide.max())
    if not np.isfinite(high - low):
        raise InvalidValueError("the depth map holds NaN or infinity; there is nothing to draw")
    return (wide - low) / (high - low if high > low else 1.0), low, high


def grey_png(depth: Float32[np.ndarray, "height width"], metric: bool = False) -> Callable[[IO[bytes]], None]:
    """A writer of 16-bit grey PNG whose text chunks depth_min, depth_max and depth_unit give the scale."""
    grey, low, high = grey_depth(depth)
    text = PngImagePlugin.PngInfo()
    text.add_text("depth_min", repr(low))
    text.add_text("depth_max", repr(high))
    text.add_text("depth_unit", "metre" if metric else "relative inverse depth")
    return lambda file: Image.fromarray(grey).save(file, format="PNG", pnginfo=text)


def png(image: UInt8[np.ndarray, "height width 3"]) -> Callable[[IO[bytes]], None]:
    return lambda file: Image.fromarray(image).save(file, format="PNG")


def npy(depth: Float32[np.ndarray, "height width"]) -> Callable[[IO[bytes]], None]:
    return lambda file: np.save(file, depth)


def figure_png(figure: Figure, dpi: int = 130) -> Callable[[IO[bytes]], None]:
    return lambda file: figure.savefig(file, format="png", dpi=dpi)


def write(path: Path, writer: Callable[[IO[bytes]], None]) -> None:
    """Write a file so that nobody ever sees half of it, replacing one that is there."""
    content = io.BytesIO()  # encoders seek, and one that fails should not leave a file
    writer(content)
    with replacing(path) as temporary:
        temporary.write_bytes(content.getbuffer())
