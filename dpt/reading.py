"""Reading pictures: any file that Pillow knows becomes (H, W, 3) uint8 RGB, or one `ImageError`.

Problem. ``PIL.Image.open(path).convert("RGB")`` is wrong without a word on many real files: phone pictures lie on
their side, 16-bit and float grey is clipped to white, transparent pixels show whatever lies under them, and files cut
short become grey halves once any library has set ``ImageFile.LOAD_TRUNCATED_IMAGES``.

Approach. What a file says of itself decides; nothing is guessed from the look of the pixels:

* EXIF orientation is applied. Of animations and documents of several pages the first is read.
* Transparency is laid over white, which is how viewers and pages show it.
* Grey of 16 bits (modes I;16 and I) is divided by 257. Float grey (mode F) is 0..1, times 255; floats that are whole
  numbers in 0..255, as Pillow's own ``convert("F")`` makes them, are taken as they are; others are refused.
* Colour of 16 bits a channel is reduced to 8 by Pillow, which keeps the high byte. CMYK (Adobe's inverted one too),
  YCbCr, HSV and LAB are converted by Pillow.
* Embedded colour profiles are not applied: OpenCV, with which the original code reads pictures, ignores them, and the
  same file shall give the same depth. Convert with ``PIL.ImageCms`` and pass the PIL picture if it matters.
* Pillow's limit ``PIL.Image.MAX_IMAGE_PIXELS`` is an error here, not a warning. A file is refused if pixels are
  missing, whatever ``LOAD_TRUNCATED_IMAGES`` says. PostScript is refused: decoding it runs a program.

Limits. A damaged EXIF block counts as none. A file whose bytes were altered, but not cut, becomes what its decoder
makes of it. Of a PIL picture that was decoded elsewhere, nobody can tell whether its file was whole.
"""

from __future__ import annotations

import io
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

__all__ = ["ImageError", "Source", "read_image"]

Source: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image"


class ImageError(ValueError):
    """A picture cannot be used. The message names it, says what was found and what to do."""


def read_image(source: Source) -> NDArray[np.uint8]:
    """A picture as (H, W, 3) uint8 RGB, upright, contiguous and writable.

    source: a path, the bytes of a file, a binary file object (read from its start, left open) or a PIL picture.
    The head of this module states how each kind is read. Raises ImageError for whatever is not a whole picture.
    """
    if isinstance(source, Image.Image):
        with _whole_files_only():
            return _decoded(source, f"the PIL picture given (mode {source.mode}, {source.width} x {source.height})")
    with _opened(source) as (file, name), _whole_files_only():
        return _read(file, name)


@contextmanager
def _opened(source: object) -> Iterator[tuple[BinaryIO, str]]:
    """(binary file, its name for messages). Closes what it opened, leaves a caller's file open."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        with io.BytesIO(source) as buffer:
            yield buffer, f"the data given ({len(buffer.getbuffer())} bytes)"
    elif isinstance(source, (str, os.PathLike)):
        path = os.fsdecode(source)
        _check_path(path)
        try:
            with open(path, "rb") as file:
                yield file, path
        except OSError as error:  # of open itself: `_read` lets none through
            raise ImageError(f"{path} cannot be opened: {error.strerror or error}; check its permissions") from error
    elif isinstance(source, io.TextIOBase):
        raise ImageError(f"{_file_name(source)} is open as text; open it with open(path, 'rb')")
    elif callable(getattr(source, "read", None)):
        yield cast(BinaryIO, source), _file_name(source)
    elif hasattr(source, "shape"):
        raise ImageError(
            f"expected a picture file, not an array of shape {tuple(source.shape)}; an (H, W, 3) uint8 array is a "
            "picture already: use it as it is"
        )
    else:
        given = f"{type(source).__name__} {source!r:.80}"
        raise ImageError(f"expected a path, bytes, a binary file object or a PIL picture, not {given}")


def _check_path(path: str) -> None:
    """ImageError unless path is a regular file: opening a pipe would wait forever, reading a device never end."""
    try:
        kind = os.stat(path).st_mode
    except FileNotFoundError as error:
        if os.path.islink(path):
            raise ImageError(f"{path} is a link to {os.readlink(path)}, which does not exist; mend the link") from error
        if "://" in path:
            raise ImageError(f"{path} is an address, and nothing is fetched here; download it first") from error
        if path.startswith("~"):
            raise ImageError(f"{path} does not exist; a leading ~ needs os.path.expanduser(path)") from error
        where = "" if os.path.isabs(path) else f" in {os.getcwd()}"
        raise ImageError(f"{path!r} does not exist{where}; check the path") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL character
        raise ImageError(f"{path!r} cannot be reached: {error}; check the path and its permissions") from error
    if stat.S_ISDIR(kind):
        raise ImageError(f"{path!r} is a folder; name one picture in it")
    if not stat.S_ISREG(kind):
        raise ImageError(f"{path} is a pipe, socket or device, not a file; save the picture to a file first")


def _file_name(file: object) -> str:
    name = getattr(file, "name", None)
    return name if isinstance(name, str) and name else f"the {type(file).__name__} given"


def _from_its_start(file: BinaryIO) -> tuple[BinaryIO, bytes]:
    """The file as one that can seek, as Pillow needs it, and its first bytes."""
    try:
        file.seek(0)
    except (AttributeError, io.UnsupportedOperation):  # a download or a pipe
        file = io.BytesIO(file.read())
    return file, file.read(256)


def _read(file: BinaryIO, name: str) -> NDArray[np.uint8]:
    try:
        file, head = _from_its_start(file)
    except (OSError, ValueError, TypeError) as error:  # closed, open for writing, text
        raise ImageError(f"{name} cannot be read: {error}; pass a file opened with open(path, 'rb')") from error
    if not isinstance(head, bytes):
        raise ImageError(f"{name} gives {type(head).__name__}, not bytes; open it with open(path, 'rb')")
    if not head:
        raise ImageError(f"{name} is empty (0 bytes); copy or download it again")
    try:
        with Image.open(file) as picture:
            return _decoded(picture, name)
    except (ImageError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        found, advice = _recognise(head)
        raise ImageError(f"{name} is not a picture that Pillow can read; it holds {found}: {advice}") from error
    except Exception as error:  # the decoders of some forty formats raise almost every type there is
        raise _damaged(name, error) from error


def _decoded(picture: Image.Image, name: str) -> NDArray[np.uint8]:
    try:
        _check_header(picture, name)
        picture.load()
        # After load: Pillow turns a TIFF upright while it loads, and takes the tag away.
        turn = _UPRIGHT.get(_orientation(picture))
        rgb = _rgb(picture, name)
    except (ImageError, MemoryError):
        raise
    except Exception as error:
        raise _damaged(name, error) from error
    return np.array(rgb if turn is None else rgb.transpose(turn))  # a copy, so that it is writable


def _check_header(picture: Image.Image, name: str) -> None:
    """What can be refused before a pixel is decoded."""
    if 0 in picture.size:
        raise ImageError(f"{name} has no pixels: it is {picture.width} wide and {picture.height} high")
    if not isinstance(picture, ImageFile.ImageFile):
        return
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and picture.width * picture.height > limit:
        raise _too_large(name, f"{picture.width} x {picture.height} pixels, the limit is {limit}")
    if picture.format in ("EPS", "WMF"):
        raise ImageError(f"{name} is a drawing ({picture.format}), which takes a program to paint; export it as PNG")
    if _tiff_tag(picture, 254, 0) & 1:
        # Camera raw files are TIFFs whose first page is a thumbnail; Pillow would hand that out as the picture.
        raise ImageError(
            f"{name} begins with a reduced copy ({picture.width} x {picture.height}) of a larger picture, as camera "
            "raw files do; develop it to JPEG, PNG or TIFF first"
        )


def _damaged(name: str, error: Exception) -> ImageError:
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return _too_large(name, str(error))
    return ImageError(
        f"{name} cannot be decoded: {str(error) or type(error).__name__}; it is damaged, incomplete or of a kind that "
        "Pillow does not know: copy or download it again, or convert it to PNG"
    )


def _too_large(name: str, found: str) -> ImageError:
    return ImageError(
        f"{name} is too large: {found}; a small file that unpacks to so much may be an attack: shrink the picture, or, "
        "if you trust it, raise PIL.Image.MAX_IMAGE_PIXELS"
    )


class _WholeFilesOnly:
    """Holds ``ImageFile.LOAD_TRUNCATED_IMAGES`` at False while any thread is reading here.

    The switch is global to the process, and other libraries set it on import. Readers are counted, so that the first
    thread to finish does not switch it on again under one that is still decoding.
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

# EXIF orientation -> the turn that makes the picture upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(0x0112, 1))
    except Exception:  # EXIF is a file within the file, and often damaged by editors; the pixels are whole
        return 1


def _rgb(picture: Image.Image, name: str) -> Image.Image:
    """Any mode of Pillow as mode RGB."""
    mode = picture.mode
    if mode.startswith("I;16") or mode in ("I", "F"):
        return Image.fromarray(_grey(picture, name)).convert("RGB")
    if picture.has_transparency_data:
        rgba = (picture.convert("LA") if mode == "La" else picture).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return picture.convert("RGB")


def _grey(picture: Image.Image, name: str) -> NDArray[np.uint8]:
    """(H, W) uint8 of a picture with one channel of integers beyond 8 bits, or of floats."""
    values = np.asarray(picture)
    low, high = values.min(), values.max()
    if picture.mode == "F":
        if not np.isfinite(values).all():
            raise ImageError(f"{name} is float grey with values that are NaN or infinite; replace them first")
        if low < 0 or high > 255 or (high > 1 and (values != np.rint(values)).any()):
            raise ImageError(
                f"{name} is float grey with values from {low:g} to {high:g}; expected 0..1, or whole numbers in "
                "0..255: scale them yourself and pass the (H, W, 3) uint8 array"
            )
        grey = np.rint(values * (255 if high <= 1 else 1)).astype(np.uint8)
    else:
        full = 4095 if _tiff_tag(picture, 258, 16) == 12 else 65535
        if low < 0 or high > full:
            raise ImageError(
                f"{name} is integer grey with values from {low} to {high}; expected 16 bits, 0..65535: scale them "
                "yourself and pass the (H, W, 3) uint8 array"
            )
        grey = np.rint(values / np.float32(full / 255)).astype(np.uint8)
    if _tiff_tag(picture, 262, 1) == 0:  # white is zero; Pillow turns only 8-bit grey round
        grey = 255 - grey
    clear = picture.info.get("transparency")  # of a 16-bit PNG: one value that stands for "nothing here"
    return np.where(values == clear, np.uint8(255), grey) if isinstance(clear, int) else grey


def _tiff_tag(picture: Image.Image, tag: int, default: int) -> int:
    """A number from the header of a TIFF; the default for other files."""
    value = getattr(picture, "tag_v2", {}).get(tag, default)
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else default


# What people hand to a picture reader by mistake: (offset, bytes there, what it is, what to do). First match wins.
_HEIC = ("a HEIC picture", "install pillow-heif and call pillow_heif.register_heif_opener(), or export it as JPEG")
_JXL = ("a JPEG XL picture", "install pillow-jxl-plugin and import pillow_jxl, or convert it to PNG")
_FILM = ("a film", "save one frame as PNG")
_TIFF = ("a TIFF picture, damaged or of an unusual kind", "convert it to an 8-bit TIFF or PNG")
_AGAIN = "copy or download it again"
_KNOWN = (
    (4, b"ftyphe", *_HEIC),
    (4, b"ftypmif1", *_HEIC),
    (4, b"ftypavif", "an AVIF picture", "it is damaged, or this Pillow was built without AVIF: convert it to PNG"),
    (4, b"ftyp", *_FILM),
    (0, b"\x1aE\xdf\xa3", *_FILM),
    (0, b"\xff\x0a", *_JXL),
    (4, b"JXL ", *_JXL),
    (0, b"v/1\x01", "an OpenEXR picture", "tone-map it to 8 bits and save it as PNG"),
    (0, b"%PDF", "a PDF document", "export the page as PNG"),
    (0, b"\x93NUMPY", "a NumPy array", "load it with numpy.load and pass the (H, W, 3) uint8 array"),
    (0, b"PK\x03\x04", "a zip archive, as checkpoints and office documents are", "name a picture"),
    (0, b"\x1f\x8b", "gzip data", "unpack it first"),
    (0, b"version https://git-lfs", "a Git LFS pointer in place of the file", "run git lfs pull"),
    (0, b"\x89PNG", "a damaged PNG picture", _AGAIN),
    (0, b"\xff\xd8", "a damaged JPEG picture", _AGAIN),
    (0, b"GIF8", "a damaged GIF picture", _AGAIN),
    (0, b"RIFF", "a damaged WebP picture, or sound or film", _AGAIN),
    (0, b"II*\x00", *_TIFF),
    (0, b"MM\x00*", *_TIFF),
)


def _recognise(head: bytes) -> tuple[str, str]:
    """(what a file that begins with head is, what to do about it)"""
    for offset, magic, found, advice in _KNOWN:
        if head.startswith(magic, offset):
            return found, advice
    text = " ".join(head.decode("latin-1").removeprefix("\xef\xbb\xbf").split())
    if "<svg" in text.lower():
        return "an SVG drawing", "export it as PNG"
    if text.lower().startswith(("<html", "<!doctype")):
        return "a web page", "download the picture itself, not the page that shows it"
    if head.isascii() and text.isprintable():
        return f"text that begins {text[:24]!r}", "name a picture"
    return f"bytes that begin {head[:12].hex(' ')}", "convert it to PNG or JPEG"
