"""Reads images: any file that Pillow can read becomes (H, W, 3) uint8 RGB, and any failure one `ImageError`.

Problem. ``PIL.Image.open(path).convert("RGB")`` silently gives a wrong image for many real files. Photos from phones
lie on their side, 16-bit and float greyscale is clipped to white, transparent pixels show the colour beneath them, and
truncated files become half grey if any library has set ``ImageFile.LOAD_TRUNCATED_IMAGES``.

Approach. The metadata of the file decides. Nothing is guessed from pixel values.

* EXIF orientation is applied. Animations and multi-page documents give their first frame, with a warning. The smaller
  copies and previews in some files do not count as frames.
* Transparent pixels are composited over white, as image viewers do.
* 16-bit greyscale (modes I;16 and I) is divided by 257. Float greyscale (mode F) must be in 0..1 and is multiplied by
  255; whole numbers in 0..255, as ``convert("F")`` of Pillow produces, are kept. Other values are refused. `range`
  chooses other values for black and white; a warning says when few grey levels remain (`greyscale`).
* Pillow reduces 16-bit colour to the high byte of each channel, and converts CMYK (also Adobe's inverted CMYK), YCbCr,
  HSV and LAB.
* Embedded colour profiles are ignored. OpenCV, the image reader of the original code, ignores them, too, and the same
  file must give the same depth. To apply a profile, convert with ``PIL.ImageCms`` and pass the PIL image.
* Images above ``PIL.Image.MAX_IMAGE_PIXELS`` are errors instead of warnings. Truncated files are refused, whatever
  ``LOAD_TRUNCATED_IMAGES`` says. PostScript is refused, because decoding it runs a program.
* The few kinds of files that Pillow decodes to wrong numbers are refused (`misread`).

Limits. A damaged EXIF block is ignored. A file with altered bytes that is not truncated gives whatever its decoder
makes of it. A PIL image that was already decoded cannot be checked for truncation.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from .errors import ImageError, ImageWarning
from .file_kinds import describe_file
from .greyscale import Range, checked_range, grey_levels
from .image_files import from_its_start, opened
from .misread import has_unused_alpha, misread, transparent_grey

__all__ = ["ImageError", "ImageWarning", "Range", "Reading", "Source", "over_white", "read", "read_image"]

Source: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image"


_MOST_PAGES = 100  # that are counted
_ONE_IMAGE = ("MPO", "PSD")  # formats whose further frames are previews, gain maps or layers of one image


@dataclass(frozen=True)
class Reading:
    """An image, and what the file holds beyond it.

    Attributes:
        pixels: (H, W, 3) uint8 RGB, contiguous and writable.
        name: The image in messages: its path, or words for data without one.
        notes: What the pixels do not show, e.g. "has 12 frames: only the first is used". Each follows the name.
    """

    pixels: NDArray[np.uint8]
    name: str
    notes: tuple[str, ...] = ()


def read_image(source: Source, range: Range = "full") -> NDArray[np.uint8]:
    """Read an image as RGB, with EXIF orientation applied and transparency composited over white.

    Args:
        source: A path, the bytes of a file, a binary file object (read from its start and left open), or a PIL image.
        range: Of greyscale with more than 8 bits or of floats: which values become black and white. "full": those of
            the format, 0 and 65535 for 16 bits. "minmax": the smallest and the largest value of the image. (low, high):
            these; values beyond them are clipped.

    Returns:
        (H, W, 3) uint8 RGB, contiguous and writable.

    Raises:
        ImageError: `source` is not a complete image, or `range` is given for an image with 8 bits per channel. It is
            also a ValueError.
        InvalidValueError, InvalidTypeError: `range` is something else.

    Warns:
        ImageWarning: The file has several frames or pages, of which the first is read; or many values of a greyscale
            image become few grey levels.

    Example:
        >>> image = dpt.read_image("photo.jpg")
        >>> depth = model.predict(image)
        >>> thermal = dpt.read_image("flir.png", range=(7000, 8500))
    """
    reading = read(source, range)
    for note in reading.notes:
        warnings.warn(f"{reading.name} {note}", ImageWarning, stacklevel=2)
    return reading.pixels


def read(source: Source, range: Range = "full") -> Reading:
    """Read an image as `read_image` does. The notes are returned instead of warned about.

    Args:
        source: As for `read_image`.
        range: As for `read_image`.

    Raises:
        ImageError: As for `read_image`.
    """
    span = checked_range(range)
    if isinstance(source, Image.Image):
        with _whole_files_only():
            # No note on frames: the caller chose this one.
            name = f"the given PIL image (mode {source.mode}, {source.width} x {source.height})"
            return _decoded(source, name, span)
    with opened(source) as (file, name), _whole_files_only():
        return _read(file, name, span)


def over_white(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Composites an image over white.

    Args:
        rgba: (H, W, 4) uint8; alpha is not premultiplied.

    Returns:
        (H, W, 3) uint8 RGB, contiguous and writable.
    """
    return np.array(_over_white(Image.fromarray(rgba, "RGBA")))


def _read(file: BinaryIO, name: str, span: Range) -> Reading:
    try:
        file, head = from_its_start(file)
    except (OSError, ValueError, TypeError) as error:  # closed, open for writing, text
        raise ImageError(f"{name} cannot be read: {error}. Pass a file opened with open(path, 'rb')") from error
    if not isinstance(head, bytes):
        raise ImageError(f"{name} returns {type(head).__name__}, expected bytes. Open it with open(path, 'rb')")
    if not head:
        raise ImageError(f"{name} is empty (0 bytes). Copy or download it again")
    try:
        with Image.open(file) as image:
            reading = _decoded(image, name, span)
            frames = _frames(image)
            more = (f"has {frames} frames: only the first is used",) if frames else ()
            return Reading(reading.pixels, name, more + reading.notes)
    except (ImageError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        found, advice = describe_file(head)
        raise ImageError(f"{name} is not an image that Pillow can read. It holds {found}: {advice}") from error
    except Exception as error:  # the decoders of about forty formats raise almost any type of exception
        raise _damaged(name, error) from error


def _decoded(image: Image.Image, name: str, span: Range) -> Reading:
    try:
        _check_header(image, name)
        clear, opaque = transparent_grey(image), has_unused_alpha(image)
        image.load()
        # After load(), because Pillow itself applies the orientation of a TIFF there and removes the tag.
        turn = _UPRIGHT.get(_orientation(image))
        if clear is not None and image.mode == "L":
            image = image.copy()
            image.info["transparency"] = clear
        rgb, note = _rgb(image.convert("RGB") if opaque else image, name, span)
    except (ImageError, MemoryError):
        raise
    except Exception as error:
        raise _damaged(name, error) from error
    # np.array copies, because views of PIL images are read-only.
    pixels = np.array(rgb if turn is None else rgb.transpose(turn))
    return Reading(pixels, name, () if note is None else (note,))


def _frames(image: Image.Image) -> str | None:
    """The number of frames or pages of a file in words; None for one, or if it is damaged after the first.

    Seeks in the file.
    """
    with suppress(Exception):
        if image.format == "TIFF":
            frames = _pages(image)
            return f"more than {_MOST_PAGES}" if frames > _MOST_PAGES else str(frames) if frames > 1 else None
        frames = 1 if image.format in _ONE_IMAGE else getattr(image, "n_frames", 1)
        return str(frames) if frames > 1 else None
    return None


def _pages(image: Image.Image) -> int:
    """Number of pages of a TIFF. Counting stops above `_MOST_PAGES`, because Pillow takes milliseconds per page."""
    count = 0
    for page in range(2 * _MOST_PAGES):
        try:
            image.seek(page)
        except EOFError:
            break
        # Smaller copies (bit 0 of tag 254) and masks (bit 2) belong to the page before them.
        count += not _tiff_tag(image, 254, 0) & 5
        if count > _MOST_PAGES:
            break
    return count


def _check_header(image: Image.Image, name: str) -> None:
    """Refuse an image, if possible, before any pixel is decoded."""
    if 0 in image.size:
        raise ImageError(f"{name} has no pixels: its size is {image.width} x {image.height}")
    if not isinstance(image, ImageFile.ImageFile):
        return
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise _too_large(name, f"{image.width} x {image.height} pixels, the limit is {limit}")
    if image.format in ("EPS", "WMF"):
        raise ImageError(f"{name} is a drawing ({image.format}) that needs a program to render. Export it as PNG")
    if _tiff_tag(image, 254, 0) & 1:
        # Camera raw files are TIFFs whose first page is a thumbnail, which Pillow would return as the image.
        raise ImageError(
            f"{name} starts with a thumbnail ({image.width} x {image.height}) of a larger image, as camera raw files "
            "do. Convert it to JPEG, PNG or TIFF first"
        )
    if reason := misread(image):
        raise ImageError(f"{name} {reason}")


def _damaged(name: str, error: Exception) -> ImageError:
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return _too_large(name, str(error))
    return ImageError(
        f"{name} cannot be decoded: {str(error) or type(error).__name__}. It is damaged, incomplete or of a kind that "
        "Pillow does not support. Copy or download it again, or convert it to PNG"
    )


def _too_large(name: str, found: str) -> ImageError:
    return ImageError(
        f"{name} is too large: {found}. A small file that unpacks to this size may be an attack. Shrink the image, or, "
        "if you trust it, increase PIL.Image.MAX_IMAGE_PIXELS"
    )


class _WholeFilesOnly:
    """Keeps ``ImageFile.LOAD_TRUNCATED_IMAGES`` at False while any thread reads an image.

    The switch is global to the process, and other libraries set it on import. Active readers are counted: the last one
    to finish restores the switch, and the others continue with False.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers = 0
        self._found = False

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            self._found = ImageFile.LOAD_TRUNCATED_IMAGES or (self._readers > 0 and self._found)
            self._readers += 1
            ImageFile.LOAD_TRUNCATED_IMAGES = False
        try:
            yield
        finally:
            with self._lock:
                self._readers -= 1
                if self._readers == 0 and self._found:
                    ImageFile.LOAD_TRUNCATED_IMAGES = True


_whole_files_only = _WholeFilesOnly()

# EXIF orientation -> the transformation that makes the image upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # editors often damage the EXIF block, which does not affect the pixels
        return 1


def _rgb(image: Image.Image, name: str, span: Range) -> tuple[Image.Image, str | None]:
    """Convert any mode of Pillow to RGB. Also returns a note, if any."""
    mode = image.mode
    if mode.startswith("I;16") or mode in ("I", "F"):
        grey, note = _grey(image, name, span)
        return Image.fromarray(grey).convert("RGB"), note
    if span != "full":
        raise ImageError(
            f"{name} has colours or 8 bits per channel (mode {mode}), but range={span!r} was given, which is for "
            "greyscale with more bits or floats. Omit range"
        )
    if image.has_transparency_data:
        return _over_white((image.convert("LA") if mode == "La" else image).convert("RGBA")), None
    return image.convert("RGB"), None


def _over_white(rgba: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _grey(image: Image.Image, name: str, span: Range) -> tuple[NDArray[np.uint8], str | None]:
    """Convert greyscale with more than 8 bits, or floats, to (H, W) uint8. Also returns a note, if any."""
    values = np.asarray(image)
    clear = image.info.get("transparency")  # of a 16-bit PNG: the value that marks transparent pixels
    clear = clear if isinstance(clear, int) else None
    try:
        grey, note = grey_levels(values, span, 4095 if _tiff_tag(image, 258, 16) == 12 else 65535, clear)
    except ImageError as error:
        raise ImageError(f"{name} {error}") from None
    if _tiff_tag(image, 262, 1) == 0:  # WhiteIsZero; Pillow inverts only 8-bit greyscale
        grey = 255 - grey
    return (grey if clear is None else np.where(values == clear, np.uint8(255), grey)), note


def _tiff_tag(image: Image.Image, tag: int, default: int) -> int:
    """A number in the header of a TIFF; the default for other files."""
    value = getattr(image, "tag_v2", {}).get(tag, default)
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else default
