"""Draws what a view shows as one small PNG: a large panel on the left, small ones on the right, a colour bar below.

Saved notebooks and exported pages show it where no script runs. It is drawn with Pillow, because a matplotlib figure
with twenty panels takes a second.
"""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .scales import RGB, Scale, colours, number
from .summary import Summary

WIDTH = 900
LARGEST = 80_000
"""Bytes of a picture. A larger one is reduced to 256 colours or fewer."""

_MARGIN, _GAP, _CAPTION, _BAR = 18, 8, 18, 180  # pixels
_MAIN = 330  # width of the large panel
_TALLEST = 420  # of the large panel, and of the small ones together where they fit
_SMALLEST = 44  # width of a small panel
_INK, _MUTED, _PAPER = (31, 35, 40), (92, 99, 106), (255, 255, 255)
_MARKS = ((214, 39, 40), (31, 119, 180))  # outlines of A and B


@dataclass(frozen=True)
class Mark:
    """An outlined cell of a grid over a panel.

    Attributes:
        cell: (row, col).
        grid: (rows, cols) of the grid.
        second: Whether it is the second of two marks that have to be told apart.
        thin: Whether the outline is thin, for marks of which there are many.
    """

    cell: tuple[int, int]
    grid: tuple[int, int]
    second: bool = False
    thin: bool = False


@dataclass(frozen=True)
class Panel:
    """One image of a picture.

    Attributes:
        pixels: (height, width, 3) uint8. Small ones are enlarged to squares of one colour.
        label: Words below it, on the left.
        note: Words below it, on the right.
        marks: Cells to outline.
        aspect: Height over width as drawn. Default: that of the pixels.
        chosen: Whether the panel is framed as the one on display.
    """

    pixels: RGB
    label: str = ""
    note: str = ""
    marks: Sequence[Mark] = field(default=())
    aspect: float | None = None
    chosen: bool = False

    @property
    def shape(self) -> float:
        """Height over width as drawn, within limits that leave room for words."""
        aspect = self.pixels.shape[0] / self.pixels.shape[1] if self.aspect is None else self.aspect
        return min(max(aspect, 0.2), 4.0)


@dataclass(frozen=True)
class Bar:
    """A colour bar.

    Attributes:
        colormap: Its colours.
        words: What its ends mean.
    """

    colormap: str
    words: str

    @classmethod
    def of(cls, scale: Scale, colormap: str, what: str) -> Bar:
        """A bar for a scale of `what`."""
        log = "" if scale.kind == "linear" else ", logarithmic"
        return cls(colormap, f"{what}, {number(scale.low)} to {number(scale.high)}{log}")


def picture(
    summary: Summary, main: Sequence[Panel], tiles: Sequence[Panel] = (), bar: Bar | None = None, note: str = ""
) -> bytes:
    """Draws a picture.

    Args:
        summary: The words above it.
        main: One or two large panels. Two share the width if there are no tiles.
        tiles: Small panels.
        bar: A colour bar.
        note: A line at the bottom.

    Returns:
        A PNG, `WIDTH` pixels wide.
    """
    large, small = _place_large(main, bool(tiles)), _place_tiles(tiles)
    head = _header_height(summary)
    body = max((y + height for _, y, _, height in (*large, *small)), default=0) + _CAPTION
    below = head + body + _GAP
    height = below + (26 if bar else 0) + (24 if note else 0) + _MARGIN - _GAP
    sheet = Image.new("RGB", (WIDTH, height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    _write_header(pen, summary)
    for panel, (x, y, width, tall) in zip((*main, *tiles), (*large, *small), strict=True):
        _draw_panel(sheet, pen, panel, (x, head + y, width, tall))
    if bar:
        strip = Image.fromarray(colours(bar.colormap)[None]).resize((_BAR, 12), Image.Resampling.NEAREST)
        sheet.paste(strip, (_MARGIN, below + 4))
        pen.text((_MARGIN + _BAR + 10, below + 2), bar.words, _MUTED, _font(12))
    if note:
        pen.text((_MARGIN, height - _MARGIN - 13), note, _INK, _font(12, bold=True))
    return _encode(sheet)


def over(image: RGB, overlay: RGB, opacity: float) -> RGB:
    """An image under an overlay of cells, reduced to the size of a panel.

    Args:
        image: (H, W, 3) uint8.
        overlay: (rows, cols, 3) uint8.
        opacity: 0 to 1.
    """
    small = fitted(image)
    height, width = small.shape[:2]
    cells = Image.fromarray(overlay).resize((width, height), Image.Resampling.NEAREST)
    mixed = (1 - opacity) * small + opacity * np.asarray(cells)
    return mixed.round().astype(np.uint8)


def fitted(image: NDArray[np.uint8], side: int = 2 * _MAIN) -> RGB:
    """An RGB image, reduced to at most `side` pixels along its longer side."""
    scale = side / max(image.shape[:2])
    if scale >= 1:
        return image
    height, width = (max(1, round(length * scale)) for length in image.shape[:2])
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


Box = tuple[int, int, int, int]  # x, y, width, height; y counts from below the header


def _place_large(panels: Sequence[Panel], beside: bool) -> list[Box]:
    room = _MAIN if beside else (WIDTH - 2 * _MARGIN - _GAP * (len(panels) - 1)) // max(1, len(panels))
    boxes, x = [], _MARGIN
    for panel in panels:
        width = max(1, min(room, round(_TALLEST / panel.shape)))
        boxes.append((x, 0, width, max(1, round(width * panel.shape))))
        x += (room if len(panels) > 1 and not beside else width) + _GAP
    return boxes


def _place_tiles(tiles: Sequence[Panel]) -> list[Box]:
    """The widest tiles whose lines together are not taller than the large panel may be."""
    if not tiles:
        return []
    left = 2 * _MARGIN + _MAIN
    room = WIDTH - left - _MARGIN
    aspect = max(tile.shape for tile in tiles)
    most = max(1, (room + _GAP) // (_SMALLEST + _GAP))
    columns = width = tall = 1
    for columns in range(1, most + 1):
        width = min((room - _GAP * (columns - 1)) // columns, 260)
        tall = max(1, round(width * aspect))
        if math.ceil(len(tiles) / columns) * (tall + _CAPTION + _GAP) <= _TALLEST:
            break
    boxes = []
    for n, tile in enumerate(tiles):
        x, y = left + n % columns * (width + _GAP), n // columns * (tall + _CAPTION + _GAP)
        own = max(1, min(width, round(tall / tile.shape)))
        boxes.append((x, y, own, max(1, min(tall, round(own * tile.shape)))))
    return boxes


def _header_height(summary: Summary) -> int:
    return _MARGIN + 28 + 19 * len(_lines(summary)) + _GAP


def _lines(summary: Summary) -> list[str]:
    shown = summary.shows[:1].upper() + summary.shows[1:]
    return [_cut(line, _font(13), WIDTH - 2 * _MARGIN) for line in (shown, summary.image) if line]


def _write_header(pen: ImageDraw.ImageDraw, summary: Summary) -> None:
    font = _font(18, bold=True)
    pen.text((_MARGIN, _MARGIN), _cut(summary.heading, font, WIDTH - 2 * _MARGIN), _INK, font)
    for n, line in enumerate(_lines(summary)):
        pen.text((_MARGIN, _MARGIN + 28 + 19 * n), line, _MUTED, _font(13))


def _draw_panel(sheet: Image.Image, pen: ImageDraw.ImageDraw, panel: Panel, box: Box) -> None:
    x, y, width, height = box
    enlarges = panel.pixels.shape[1] < width
    how = Image.Resampling.NEAREST if enlarges else Image.Resampling.LANCZOS
    sheet.paste(Image.fromarray(panel.pixels).resize((width, height), how), (x, y))
    for mark in panel.marks:
        _outline(pen, mark, box)
    if panel.chosen:
        pen.rectangle((x - 3, y - 3, x + width + 2, y + height + 2), outline=_INK, width=2)
    font = _font(11)
    note = panel.note if font.getlength(f"{panel.label}  {panel.note}") <= width else ""  # the label matters more
    taken = font.getlength(note) + 6 if note else 0
    pen.text((x, y + height + 3), _cut(panel.label, font, width - taken), _INK, font)
    if note:
        pen.text((x + width - font.getlength(note), y + height + 3), note, _MUTED, font)


def _outline(pen: ImageDraw.ImageDraw, mark: Mark, box: Box) -> None:
    x, y, width, height = box
    (row, col), (rows, cols) = mark.cell, mark.grid
    left, right = (x + round(width * at / cols) for at in (col, col + 1))
    top, bottom = (y + round(height * at / rows) for at in (row, row + 1))
    inner = (left, top, max(left + 2, right - 1), max(top + 2, bottom - 1))
    if not mark.thin:
        pen.rectangle((inner[0] - 3, inner[1] - 3, inner[2] + 3, inner[3] + 3), outline=_PAPER, width=5)
    grown = 0 if mark.thin else 2
    frame = (inner[0] - grown, inner[1] - grown, inner[2] + grown, inner[3] + grown)
    pen.rectangle(frame, outline=_MARKS[mark.second], width=1 if mark.thin else 3)


def _cut(words: str, font: ImageFont.FreeTypeFont, width: int | float) -> str:
    """The words, shortened with an ellipsis to a width in pixels."""
    words = " ".join(words.split())
    if font.getlength(words) <= width:
        return words
    while words and font.getlength(words + "…") > width:
        words = words[:-1]
    return words.rstrip() + "…" if words else ""


@functools.cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"  # Pillow's own font lacks most characters
    return ImageFont.truetype(str(folder / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")), size)


def _encode(sheet: Image.Image) -> bytes:
    """A PNG of at most `LARGEST` bytes if 32 colours or more suffice for that."""
    content = io.BytesIO()
    sheet.save(content, format="PNG")
    for count in (256, 128, 32):  # a photograph needs 256; noise does not get small otherwise
        if content.tell() <= LARGEST:
            break
        content = io.BytesIO()
        sheet.quantize(count, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(content, format="PNG")
    return content.getvalue()
