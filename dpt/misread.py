"""Finds image files that Pillow decodes to wrong numbers without an error.

Problem. For a few rare kinds of files, Pillow returns an image whose pixels are not those of the file: noise, black
instead of white, or values that wrapped around. Nothing in the pixels tells that this has happened.

Approach. The header of the file tells it. `misread` names the kind; the reader refuses the file. Found by comparing
Pillow 12 and 13 with other readers on files of every combination of channels, bits, layout and compression:

* TIFF with more than 8 bits per channel and one plane per channel, not compressed: noise.
* TIFF with grey and alpha (or palette and alpha) in one plane each: grey is used as alpha.
* TIFF of signed 8-bit numbers: negative numbers become 128 to 255.
* TIFF, compressed, of signed integers or floats, in the byte order that this machine does not use: swapped bytes.
* JPEG 2000 colour with more than 8 bits: white wraps around to black.
* JPEG 2000 with less than 8 bits: white is too dark. With signed numbers: they are shifted by half of the range.
* PNG with 16-bit colour and a transparent colour: the colour is compared with 8 bits.
* FITS and McIDAS: their scale, offset and sign are ignored.
"""

from __future__ import annotations

import struct
import sys

from PIL import Image

_INTERLEAVE = "Save it again with interleaved channels (planar configuration 1), or as PNG"
_SAVE = "Save it again as PNG, or as a TIFF of unsigned numbers"
_LONGEST_HEADER = 2**24  # bytes before the code stream of a JPEG 2000 file: metadata and colour profiles


def misread(image: Image.Image) -> str | None:
    """Says why Pillow would decode a file to wrong numbers, and what to do; None if it decodes it right.

    Args:
        image: An opened file whose pixels are not decoded yet. Of images that did not come from a file, and of decoded
            ones, less is known, and fewer kinds are found.
    """
    match image.format:
        case "TIFF":
            return _tiff(image)
        case "JPEG2000":
            return _jpeg2000(image)
        case "PNG":
            key = image.info.get("transparency")
            if image.mode == "RGB" and isinstance(key, tuple) and _raw_mode(image) == "RGB;16B":
                return (
                    "is 16-bit colour with a transparent colour, which Pillow compares with 8 bits. Save it with alpha"
                )
        case "FITS" | "MCIDAS":
            return f"is a {image.format} image, whose scale and sign Pillow ignores. {_SAVE}"
    return None


def transparent_grey(image: Image.Image) -> int | None:
    """The grey value in 0..255 that a PNG of 2 or 4 bits marks as transparent. Pillow leaves it at 2 or 4 bits.

    Args:
        image: An opened file whose pixels are not decoded yet.
    """
    key = image.info.get("transparency")
    steps = {"L;2": 85, "L;4": 17}.get(_raw_mode(image))
    return key * steps if image.format == "PNG" and isinstance(key, int) and steps else None


def has_unused_alpha(image: Image.Image) -> bool:
    """Whether a TGA file states that the fourth channel is not alpha. Pillow returns it as alpha, usually 0 everywhere.

    Args:
        image: An opened file whose pixels are not decoded yet.
    """
    file = getattr(image, "fp", None)
    if image.format != "TGA" or image.mode != "RGBA" or file is None or file.closed:
        return False
    place = file.tell()
    try:
        file.seek(17)
        described = file.read(1)
    finally:
        file.seek(place)
    return bool(described) and not described[0] & 0x0F  # the number of alpha bits


def _raw_mode(image: Image.Image) -> str:
    """How the pixels are stored in the file; empty if they are decoded."""
    tiles = getattr(image, "tile", None)
    args = tiles[0][3] if tiles else ""
    return args if isinstance(args, str) else ""


def _tiff(image: Image.Image) -> str | None:
    tags = getattr(image, "tag_v2", {})
    bits, signed = max(_numbers(tags, 258, 1)), 2 in _numbers(tags, 339, 1)
    compressed = image.info.get("compression", "raw") != "raw"
    if tags.get(284, 1) == 2 and image.mode in ("LA", "La", "PA"):
        return f"is a TIFF with alpha in a plane of its own, which Pillow confuses with grey. {_INTERLEAVE}"
    if tags.get(284, 1) == 2 and max(_numbers(tags, 277, 1)) > 1 and bits > 8 and not compressed:
        return f"is a TIFF with {bits} bits per channel and one plane per channel, which Pillow garbles. {_INTERLEAVE}"
    if signed and bits <= 8:
        return f"is a TIFF of signed {bits}-bit numbers, whose sign Pillow drops. {_SAVE}"
    swapped = getattr(tags, "prefix", b"") == (b"MM" if sys.byteorder == "little" else b"II")
    if swapped and compressed and image.mode in ("I", "F"):
        return (
            f"is a compressed TIFF of {'signed integers' if image.mode == 'I' else 'floats'} in a byte order that "
            "Pillow garbles on this machine. Save it without compression, or in the other byte order"
        )
    return None


def _numbers(tags: object, tag: int, default: int) -> tuple[int, ...]:
    value = tags.get(tag, default) if hasattr(tags, "get") else default
    values = value if isinstance(value, tuple) else (value,)
    return tuple(number for number in values if isinstance(number, int)) or (default,)


def _jpeg2000(image: Image.Image) -> str | None:
    depths = _jpeg2000_depths(image)
    if any(signed for _, signed in depths):
        return f"is a JPEG 2000 image of signed numbers, which Pillow shifts. {_SAVE}"
    bits = [count for count, _ in depths]
    if any(count < 8 for count in bits):
        return f"is a JPEG 2000 image with {min(bits)} bits per channel, which Pillow darkens. {_SAVE}"
    if len(bits) > 1 and max(bits) > 8:
        return f"is JPEG 2000 colour with {max(bits)} bits per channel, whose white Pillow turns to black. {_SAVE}"
    return None


def _jpeg2000_depths(image: Image.Image) -> list[tuple[int, bool]]:
    """(bits, signed) of every channel, from the code stream's header; empty if the file is closed or has none."""
    file = getattr(image, "fp", None)
    if file is None or file.closed:
        return []
    place = file.tell()
    try:
        file.seek(0)
        head = file.read(_LONGEST_HEADER)
    finally:
        file.seek(place)
    start = head.find(b"\xff\x4f\xff\x51")  # SOC and SIZ
    if start < 0 or len(head) < start + 42:
        return []
    (count,) = struct.unpack_from(">H", head, start + 40)
    parts = head[start + 42 : start + 42 + 3 * count : 3]
    return [((part & 0x7F) + 1, bool(part & 0x80)) for part in parts]
