"""read_image on real files of every kind, made by Pillow or byte by byte, and on everything that is not an image."""

from __future__ import annotations

import gc
import io
import os
import re
import struct
import threading
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import xarray
from PIL import Image, ImageCms, ImageFile

import dpt
from dpt import image_files
from dpt.image import ImageError, as_image, read_image
from dpt.opening import open_file

RED, GREEN, BLUE, WHITE, GREY = (250, 10, 20), (10, 200, 30), (20, 30, 220), (255, 255, 255), (90, 90, 90)


def corners(height: int = 24, width: int = 40) -> np.ndarray:
    """(H, W, 3) uint8 whose four quarters differ, so every rotation and reflection shows."""
    picture = np.empty((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = RED
    picture[: height // 2, width // 2 :] = GREEN
    picture[height // 2 :, : width // 2] = BLUE
    picture[height // 2 :, width // 2 :] = GREY
    return picture


def noise(height: int = 24, width: int = 40, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def encoded(picture: Image.Image | np.ndarray, format: str, **options: Any) -> bytes:
    picture = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def tiff(tags: dict[int, int], data: bytes) -> bytes:
    """A little-endian TIFF of one strip with these SHORT tags."""
    tags = {259: 1, 277: 1, 278: tags[257], **tags}
    entries = [(tag, 3, value) for tag, value in tags.items()]
    start = 8 + 2 + 12 * (len(entries) + 2) + 4
    entries += [(273, 4, start), (279, 4, len(data))]
    ifd = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in sorted(entries))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + ifd + bytes(4) + data


def png(width: int, height: int, bits: int, colour: int, rows: bytes, **chunks: bytes) -> bytes:
    parts = [("IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)), *chunks.items()]
    parts += [("IDAT", zlib.compress(rows)), ("IEND", b"")]
    out = b"\x89PNG\r\n\x1a\n"
    for name, body in parts:
        tagged = name.encode() + body
        out += struct.pack(">I", len(body)) + tagged + struct.pack(">I", zlib.crc32(tagged))
    return out


# Sources and results --------------------------------------------------------------------------------------


class Download:
    """A stream that can be read only once, such as an HTTP response."""

    def __init__(self, data: bytes):
        self._data = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._data.read(size)

    def seek(self, *_: int) -> int:
        raise io.UnsupportedOperation("seek")


@pytest.mark.parametrize(
    "give",
    [
        lambda path: path,
        lambda path: str(path),
        lambda path: path.read_bytes(),
        lambda path: bytearray(path.read_bytes()),
        lambda path: memoryview(path.read_bytes()),
        lambda path: io.BytesIO(path.read_bytes()),
        lambda path: Download(path.read_bytes()),
        lambda path: Image.open(io.BytesIO(path.read_bytes())),
        lambda path: Image.fromarray(noise()),
    ],
    ids=["path", "str", "bytes", "bytearray", "memoryview", "buffer", "download", "lazy PIL", "PIL"],
)
def test_every_kind_of_source_gives_the_same_array(give, tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(encoded(noise(), "PNG"))
    image = dpt.read_image(give(path))
    assert np.array_equal(image, noise())
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert image.flags.writeable


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("PPM", {}),
        ("TGA", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
        ("JPEG2000", {}),
    ],
)
def test_lossless_formats_give_exact_pixels(format, options):
    assert np.array_equal(read_image(encoded(noise(), format, **options)), noise())


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "AVIF"])
def test_lossy_formats_give_similar_pixels(format):
    Image.init()
    if format not in Image.SAVE:
        pytest.skip(f"this Pillow has no {format}")
    difference = read_image(encoded(corners(), format, quality=95)).astype(int) - corners()
    assert np.abs(difference).mean() < 6


def test_a_file_object_is_read_from_its_start_and_left_open():
    buffer = io.BytesIO()
    Image.fromarray(noise()).save(buffer, "PNG")  # leaves the position at the end
    assert np.array_equal(read_image(buffer), noise())
    assert not buffer.closed
    assert np.array_equal(read_image(buffer), noise())


def test_a_pil_image_stays_usable():
    picture = Image.open(io.BytesIO(encoded(noise(), "PNG")))
    read_image(picture)[:] = 0
    assert np.array_equal(np.asarray(picture), noise())


def test_files_are_closed_even_after_an_error(tmp_path, monkeypatch):
    opened: list[Any] = []

    def remember(*args: Any, **options: Any) -> Any:
        opened.append(open_file(*args, **options))
        return opened[-1]

    monkeypatch.setattr(image_files, "open_file", remember)
    whole = {name: encoded(noise(), name) for name in ("PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP")}
    for name, data in whole.items():
        path = tmp_path / f"whole.{name}"
        path.write_bytes(data)
        read_image(path)
    for name, data in {**{k: v[: len(v) // 2] for k, v in whole.items()}, "text": b"not an image"}.items():
        path = tmp_path / f"broken.{name}"
        path.write_bytes(data)
        with pytest.raises(ImageError):
            read_image(path)
    gc.collect()  # a file left open would warn now, and warnings are errors
    assert len(opened) == 13
    assert all(file.closed for file in opened)


# Modes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV", "LAB", "I", "I;16", "I;16B", "F"]
)
def test_every_mode_keeps_black_and_white(mode):
    picture = Image.new("RGB", (6, 4), "black")
    picture.paste((255, 255, 255), (3, 0, 6, 4))
    if mode.startswith(("I", "F")):
        white = np.asarray(picture.convert("L")) > 0
        full, dtype = {"I": (65535, "<i4"), "I;16": (65535, "<u2"), "I;16B": (65535, ">u2"), "F": (1, "<f4")}[mode]
        picture = Image.fromarray((white * full).astype(dtype))
    else:
        picture = picture.convert(mode)
    assert picture.mode == mode
    image = read_image(picture)
    assert image.shape == (4, 6, 3)
    assert image[:, :3].max() <= 2
    assert image[:, 3:].min() >= 253


@pytest.mark.parametrize("mode", ["P", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"])
def test_every_colour_mode_keeps_the_colours(mode):
    picture = Image.fromarray(corners())
    picture = picture.quantize(8) if mode == "P" else picture.convert(mode)
    assert picture.mode == mode
    assert np.abs(read_image(picture).astype(int) - corners()).max() <= 10  # 8-bit HSV and LAB are coarse


def test_a_cmyk_jpeg_from_photoshop_is_not_inverted():
    data = encoded(Image.fromarray(corners()).convert("CMYK"), "JPEG", quality=95)
    assert b"Adobe" in data  # this marker means that values are inverted
    assert np.abs(read_image(data).astype(int) - corners()).mean() < 8
    negative = Image.frombytes("CMYK", (40, 24), (255 - np.asarray(Image.open(io.BytesIO(data)))).tobytes())
    # Control: without the inversion the image is far off.
    assert np.abs(read_image(negative).astype(int) - corners()).mean() > 50


def test_a_colour_profile_does_not_change_the_numbers():
    # sRGB with the red and blue primaries exchanged: any reader that applies profiles shows it.
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile.replace(b"rXYZ", b"????", 1).replace(b"bXYZ", b"rXYZ", 1).replace(b"????", b"bXYZ", 1)
    data = encoded(noise(), "PNG", icc_profile=profile)
    assert np.array_equal(read_image(data), noise())
    picture = Image.open(io.BytesIO(data))
    managed = ImageCms.profileToProfile(
        picture, io.BytesIO(picture.info["icc_profile"]), ImageCms.createProfile("sRGB")
    )
    assert managed is not None
    assert np.abs(np.asarray(managed).astype(int) - noise()).max() > 100  # control: the profile has an effect


# Orientation --------------------------------------------------------------------------------------------------------

# How a camera in each orientation stores an upright image (EXIF 2.32, 4.6.5.A: the contents of row 0 and column 0).
STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda upright: upright,  # row 0 top, column 0 left
    2: lambda upright: upright[:, ::-1],  # top, right
    3: lambda upright: upright[::-1, ::-1],  # bottom, right
    4: lambda upright: upright[::-1],  # bottom, left
    5: lambda upright: upright.transpose(1, 0, 2),  # left, top
    6: lambda upright: upright.transpose(1, 0, 2)[::-1],  # right, top
    7: lambda upright: upright.transpose(1, 0, 2)[::-1, ::-1],  # right, bottom
    8: lambda upright: upright.transpose(1, 0, 2)[:, ::-1],  # left, bottom
}


def with_orientation(picture: np.ndarray, format: str, orientation: int, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(np.ascontiguousarray(picture), format, exif=exif.tobytes() if format != "TIFF" else exif, **options)


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_orientation_is_applied(format, orientation):
    choices: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}
    options = choices.get(format, {})
    stored = STORED[orientation](corners())
    image = read_image(with_orientation(stored, format, orientation, **options))
    assert image.shape == (24, 40, 3)
    assert np.abs(image.astype(int) - corners()).mean() < 3
    # Control: only the tag makes the difference.
    plain = read_image(encoded(np.ascontiguousarray(stored), format, **options))
    assert plain.shape == stored.shape
    assert orientation == 1 or plain.shape != (24, 40, 3) or np.abs(plain.astype(int) - corners()).mean() > 30


@pytest.mark.parametrize("bits", [8, 16])
def test_orientation_is_applied_to_greyscale(bits):
    stored = (np.arange(6).reshape(2, 3) * 10).astype(f"u{bits // 8}") * (1 if bits == 8 else 257)
    image = read_image(with_orientation(stored, "PNG", 6))
    assert image[..., 0].tolist() == [[30, 0], [40, 10], [50, 20]]  # a quarter turn clockwise


def test_orientation_is_applied_once_to_a_pil_image():
    picture = Image.open(io.BytesIO(with_orientation(STORED[6](corners()), "PNG", 6)))
    for _ in range(2):
        assert np.array_equal(read_image(picture), corners())


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_changes_nothing(orientation):
    assert np.array_equal(read_image(with_orientation(corners(), "PNG", orientation)), corners())


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # from Pillow
def test_damaged_exif_is_ignored():
    whole = with_orientation(corners(), "JPEG", 6)
    start = whole.index(b"Exif\0\0") + 6
    for damage in (b"\xff" * 8, b"MM\0*\0\0\xff\xff", bytes(8)):
        assert read_image(whole[:start] + damage + whole[start + 8 :]).shape == (24, 40, 3)
    assert read_image(whole).shape == (40, 24, 3)  # control


# Greyscale with more than 8 bits
# -------------------------------------------------------------------------------------------------


def every_16_bit_value() -> np.ndarray:
    return np.arange(65536, dtype=np.uint16).reshape(256, 256)


@pytest.mark.parametrize(
    "write",
    [
        lambda values: encoded(values, "PNG"),
        lambda values: encoded(values, "TIFF"),
        lambda values: encoded(Image.fromarray(values.astype(">u2")), "TIFF"),
        lambda values: encoded(Image.fromarray(values.astype(np.int32)), "TIFF"),
        lambda values: b"P5 256 256 65535\n" + values.astype(">u2").tobytes(),
        lambda values: Image.fromarray(values),
        lambda values: Image.fromarray(values.astype(np.int32)),
    ],
    ids=["PNG", "TIFF little", "TIFF big", "TIFF 32 bits", "PGM", "I;16", "I"],
)
def test_16_bits_are_divided_by_257(write):
    image = read_image(write(every_16_bit_value()))
    expected = (every_16_bit_value().astype(np.uint32) + 128) // 257  # nearest: 0 -> 0, 257 -> 1, 65535 -> 255
    assert np.array_equal(image, np.stack([expected] * 3, axis=-1))


def test_pillow_itself_clips_16_bits():
    # Control for the test above, and the reason for our own conversion.
    clipped = np.asarray(Image.fromarray(every_16_bit_value()).convert("RGB"))
    assert not np.array_equal(clipped, read_image(encoded(every_16_bit_value(), "PNG")))


def test_a_12_bit_tiff_is_scaled_by_12_bits():
    tags = {256: 4, 257: 1, 258: 12, 262: 1}
    values = (0, 4095, 2048, 1024)
    packed = bytes.fromhex("".join(f"{value:03x}" for value in values))
    assert read_image(tiff(tags, packed))[0, :, 0].tolist() == [0, 255, 128, 64]


def test_a_tiff_whose_zero_is_white_is_inverted():
    values = np.array([0, 257, 65535], "<u2").tobytes()
    tags = {256: 3, 257: 1, 258: 16}
    assert read_image(tiff({**tags, 262: 0}, values))[0, :, 0].tolist() == [255, 254, 0]
    assert read_image(tiff({**tags, 262: 1}, values))[0, :, 0].tolist() == [0, 1, 255]


def test_16_bits_of_colour_keep_their_high_byte():
    rows = b"\0" + struct.pack(">6H", 0x1234, 0xFF00, 0x00FF, 0, 0x8000, 0xFFFF)
    assert read_image(png(2, 1, 16, 2, rows)).tolist() == [[[0x12, 0xFF, 0], [0, 0x80, 0xFF]]]


@pytest.mark.parametrize(
    ("values", "words"), [([-1, 5], "from -1 to 5"), ([0, 65536], "from 0 to 65536"), ([0, 65535], None)]
)
def test_integers_beyond_16_bits_are_refused(values, words):
    picture = Image.fromarray(np.array([values], np.int32))
    if words is None:  # control
        assert read_image(picture)[0, :, 0].tolist() == [0, 255]
        return
    with pytest.raises(ImageError, match=f"{words}, expected 16 bits"):
        read_image(picture)


def test_floats_from_0_to_1_are_scaled(tmp_path):
    values = np.array([[0, 0.2, 0.5, 1]], np.float32)
    for picture in (Image.fromarray(values), encoded(values, "TIFF")):
        assert read_image(picture)[0, :, 0].tolist() == [0, 51, 128, 255]
    assert read_image(Image.fromarray(values / 2))[0, :, 0].tolist() == [0, 26, 64, 128]  # not stretched to 0..1


def test_floats_that_are_whole_numbers_in_0_to_255_are_kept():
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(read_image(Image.fromarray(values).convert("F"))[..., 0], values)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0, 1.5], "from 0 to 1.5"),
        ([0.5, 254.5], "from 0.5 to 254.5"),
        ([0, 256], "from 0 to 256"),
        ([-0.1, 1], "from -0.1 to 1"),
        ([0, np.nan], "NaN or infinite"),
        ([0, np.inf], "NaN or infinite"),
    ],
)
def test_floats_of_an_unknown_scale_are_refused(values, words):
    with pytest.raises(ImageError, match=words):
        read_image(Image.fromarray(np.array([values], np.float32)))


# Transparency -------------------------------------------------------------------------------------------------------


def transparent(mode: str) -> Image.Image:
    """Left half: opaque red (grey 90 in modes without colour). Right half: the same with alpha 0."""
    rgba = Image.new("RGBA", (4, 2), (*RED, 255))
    rgba.paste((*RED, 0), (2, 0, 4, 2))
    if mode in ("RGBA", "RGBa"):
        return rgba.convert(mode)
    if mode in ("LA", "La"):
        grey = Image.new("LA", (4, 2), (90, 255))
        grey.paste((90, 0), (2, 0, 4, 2))
        return grey.convert(mode)
    palette = Image.new("P", (4, 2), 0)
    palette.putpalette([*RED, *RED])
    palette.paste(1, (2, 0, 4, 2))
    if mode == "PA":
        palette = palette.convert("PA")
        palette.putalpha(rgba.getchannel("A"))
        return palette
    palette.info["transparency"] = {"P by list": bytes([255, 0]), "P by index": 1}[mode]
    return palette


@pytest.mark.parametrize("mode", ["RGBA", "RGBa", "LA", "La", "PA", "P by list", "P by index"])
def test_transparent_pixels_are_white_whatever_their_colour(mode):
    image = read_image(transparent(mode))
    assert (image[:, 2:] == 255).all()
    assert (image[:, :2] == (GREY if mode in ("LA", "La") else RED)).all()


@pytest.mark.parametrize("format", ["PNG", "WEBP", "GIF", "TIFF"])
def test_transparency_in_files(format):
    options = {"lossless": True} if format == "WEBP" else {}
    image = read_image(encoded(transparent("RGBA"), format, **options))
    assert (image[:, 2:] == 255).all()
    assert (image[:, :2] == RED).all()


def test_dropping_alpha_shows_hidden_colours():
    # Control: the result of a reader that ignores alpha.
    assert (np.asarray(transparent("RGBA").convert("RGB")) == RED).all()


def test_half_transparent_pixels_are_blended_with_white():
    image = read_image(Image.new("RGBA", (1, 1), (200, 100, 0, 51)))  # a fifth
    assert image[0, 0].tolist() == [244, 224, 204]


def test_an_alpha_channel_does_not_change_opaque_pixels():
    rgba = np.dstack([noise(), np.full((24, 40), 255, np.uint8)])
    assert np.array_equal(read_image(Image.fromarray(rgba)), noise())


@pytest.mark.parametrize(
    ("bits", "colour", "row", "key", "expected"),
    [
        (8, 0, bytes([90, 91]), struct.pack(">H", 90), [255, 91]),
        (16, 0, struct.pack(">2H", 300, 257 * 91), struct.pack(">H", 300), [255, 91]),
        (8, 2, bytes([90, 90, 90, 91, 91, 91]), struct.pack(">3H", 90, 90, 90), [255, 91]),
    ],
    ids=["grey", "16-bit grey", "colour"],
)
def test_the_transparent_colour_of_a_png_is_white(bits, colour, row, key, expected):
    assert read_image(png(2, 1, bits, colour, b"\0" + row, tRNS=key))[0, :, 0].tolist() == expected
    assert read_image(png(2, 1, bits, colour, b"\0" + row))[0, 0, 0] != 255  # control


# Several images in one file ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_of_several_frames_is_read(format):
    first, second = Image.fromarray(corners()), Image.new("RGB", (40, 24), WHITE)
    data = encoded(
        first, format, save_all=True, append_images=[second], **({"lossless": True} if format == "WEBP" else {})
    )
    with Image.open(io.BytesIO(data)) as picture:
        assert cast(Any, picture).n_frames == 2  # control
    with pytest.warns(dpt.ImageWarning, match="2 frames"):
        assert np.array_equal(read_image(data), corners())


def test_a_single_frame_and_a_chosen_frame_are_read_without_a_word():
    one = encoded(corners(), "GIF", save_all=True)
    assert np.array_equal(read_image(one), corners())
    several = encoded(noise(), "WEBP", lossless=True, save_all=True, append_images=[Image.fromarray(corners())])
    picture = Image.open(io.BytesIO(several))
    picture.seek(1)
    assert np.array_equal(read_image(picture), corners())
    assert picture.tell() == 1


def test_pages_are_counted_without_their_smaller_copies():
    def page(kind: int) -> Image.Image:
        picture = Image.fromarray(corners())
        picture.encoderinfo = {"tiffinfo": {254: kind}}  # Pillow reads it per page
        return picture

    def pages(*kinds: int) -> bytes:
        return encoded(corners(), "TIFF", save_all=True, append_images=[page(kind) for kind in kinds])

    assert np.array_equal(read_image(pages(1, 1, 4)), corners())  # two smaller copies and a mask
    with pytest.warns(dpt.ImageWarning, match="3 frames"):
        read_image(pages(0, 1, 2))


@pytest.mark.timeout(60)
def test_counting_pages_ends():
    page = encoded(np.zeros((1, 1), np.uint8), "TIFF")
    start = struct.unpack_from("<I", page, 4)[0]
    entries = struct.unpack_from("<H", page, start)[0]
    directory = page[start : start + 2 + 12 * entries]
    data = bytearray(page[: start + 2 + 12 * entries])
    for _ in range(20_000):  # each directory names the next one
        data += struct.pack("<I", len(data) + 4) + directory
    with pytest.warns(dpt.ImageWarning, match="more than 100 frames"):
        read_image(bytes(data + bytes(4)))


def test_a_photo_with_a_preview_is_one_image():
    photo = encoded(corners(), "MPO", save_all=True, append_images=[Image.fromarray(noise())], quality=95)
    with Image.open(io.BytesIO(photo)) as picture:
        assert (picture.format, cast(Any, picture).n_frames) == ("MPO", 2)  # control
    assert np.abs(read_image(photo).astype(int) - corners()).mean() < 8


def test_the_thumbnail_of_a_camera_raw_file_is_refused():
    tags = {256: 2, 257: 2, 258: 8, 262: 1}
    with pytest.raises(ImageError, match=r"thumbnail \(2 x 2\)"):
        read_image(tiff({**tags, 254: 1}, b"\x01\x02\x03\x04"))
    assert read_image(tiff({**tags, 254: 0}, b"\x01\x02\x03\x04"))[..., 0].tolist() == [[1, 2], [3, 4]]  # control


# Faults -------------------------------------------------------------------------------------------------------------


def an_archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data.pkl", b"0")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", r"empty \(0 bytes\)"),
        (b"hello, world\n", "text that begins 'hello, world'"),
        (b"<!DOCTYPE html>\n<html><body>404</body></html>", "a web page: download"),
        (b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG drawing: export"),
        (b"%PDF-1.7\n", "PDF document"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC image: install pillow-heif"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC image: install pillow-heif"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp41", "a video: save one frame"),
        (b"\xff\x0a\xfa\x1f\x41\x00", "JPEG XL"),
        (b"v/1\x01\x02\0\0\0channels\0", "OpenEXR"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "run git lfs pull"),
        (b"\x93NUMPY\x01\0v\0{'descr': '<f4'}", "numpy.load"),
        (an_archive(), "zip archive"),
        (encoded(noise(), "PNG")[:20], "damaged"),
        (encoded(noise(), "JPEG")[:20], "damaged JPEG"),
        (bytes(range(200, 250)), "bytes that begin c8 c9 ca"),
    ],
)
def test_a_file_that_is_not_an_image_is_named_and_recognised(content, words, tmp_path):
    path = tmp_path / "holiday photo.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=rf"holiday photo\.jpg .*{words}"):
        read_image(path)
    with pytest.raises(ImageError, match=rf"the given data \({len(content)} bytes\) .*{words}"):
        read_image(content)
    with pytest.raises(ImageError, match=rf"the given BytesIO .*{words}"):
        read_image(io.BytesIO(content))


def test_an_image_error_is_a_value_error_with_its_cause():
    with pytest.raises(ValueError, match="given data") as caught:
        read_image(b"not an image")
    assert isinstance(caught.value, dpt.ImageError)
    assert isinstance(caught.value, dpt.DPTError)
    assert isinstance(caught.value.__cause__, OSError)


def test_paths_without_an_image_are_named(tmp_path, monkeypatch):
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(ImageError, match=r"link\.png is a link to .*gone\.png, which does not exist"):
        read_image(tmp_path / "link.png")
    with pytest.raises(ImageError, match=r"gone\.png' does not exist"):
        read_image(tmp_path / "gone.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImageError, match=re.escape(f"'gone.png' does not exist in {os.getcwd()}")):
        read_image("gone.png")
    with pytest.raises(ImageError, match="is a folder"):
        read_image(tmp_path)
    with pytest.raises(ImageError, match=r"https://example.org/a.png is a URL"):
        read_image("https://example.org/a.png")
    with pytest.raises(ImageError, match="expanduser"):
        read_image("~/gone.png")
    with pytest.raises(ImageError, match="null"):
        read_image("a\0.png")
    (tmp_path / "file").write_bytes(b"1")
    with pytest.raises(ImageError, match="Not a directory"):
        read_image(tmp_path / "file" / "a.png")
    (tmp_path / "gone.png").write_bytes(encoded(noise(), "PNG"))  # control: the link works now
    assert np.array_equal(read_image(tmp_path / "link.png"), noise())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
@pytest.mark.timeout(20)
def test_a_pipe_is_refused_before_it_is_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match=r"pipe.png is a pipe"):
        read_image(tmp_path / "pipe.png")


def test_a_file_without_read_permission_is_named(tmp_path, monkeypatch):
    path = tmp_path / "secret.png"
    path.write_bytes(encoded(noise(), "PNG"))
    read_image(path)  # control

    def denied(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(image_files, "open_file", denied)  # chmod does not affect root
    with pytest.raises(ImageError, match=r"secret\.png cannot be opened: Permission denied"):
        read_image(path)


def test_a_stream_without_an_end_is_refused(monkeypatch):
    class Endless:
        def read(self, size: int = -1) -> bytes:
            assert size > 0, "an endless stream must not be read at once"
            return bytes(size)

    monkeypatch.setattr(image_files, "LARGEST_STREAM", 5 * 2**20)
    with pytest.raises(ImageError, match=r"the given Endless cannot be read: .* more than 5242880 bytes"):
        read_image(cast(Any, Endless()))
    assert np.array_equal(read_image(cast(Any, Download(encoded(noise(), "PNG")))), noise())  # control


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
@pytest.mark.timeout(20)
def test_a_pipe_that_takes_the_place_of_an_image_is_refused(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "a.png")
    monkeypatch.setattr(image_files, "_check_path", lambda path: None)  # the pipe appears after this check
    with pytest.raises(ImageError, match=r"a\.png is a pipe"):
        read_image(tmp_path / "a.png")
    if os.path.exists("/dev/zero"):
        (tmp_path / "zeros.png").symlink_to("/dev/zero")
        with pytest.raises(ImageError, match=r"zeros\.png is a pipe, socket or device"):
            read_image(tmp_path / "zeros.png")


class TextStream:
    def read(self, size: int = -1) -> str:
        return "text"


def test_file_objects_that_cannot_be_read(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(noise(), "PNG"))
    with path.open("rb") as file:
        assert np.array_equal(read_image(file), noise())  # control
    with pytest.raises(ImageError, match=r"a\.png cannot be read: .*closed file"):
        read_image(file)
    with path.open("r", encoding="latin-1") as text, pytest.raises(ImageError, match=r"a\.png is open as text"):
        read_image(cast(Any, text))
    with path.open("wb") as file, pytest.raises(ImageError, match=r"a\.png cannot be read: .*'rb'"):
        read_image(cast(Any, file))
    with pytest.raises(ImageError, match=r"the given TextStream cannot be read: .*'rb'"):
        read_image(cast(Any, TextStream()))


@pytest.mark.parametrize("given", [None, 5, ["a.png"], object()])
def test_other_types_are_refused(given):
    with pytest.raises(ImageError, match=f"source must be a path, bytes, .* got {type(given).__name__}"):
        read_image(given)


def test_the_error_for_an_array_says_that_it_needs_no_reading():
    with pytest.raises(ImageError, match=r"shape \(24, 40, 3\)"):
        read_image(cast(Any, noise()))


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0)])
def test_an_image_without_pixels_is_refused(size):
    with pytest.raises(ImageError, match=f"no pixels: .*{size[0]} x {size[1]}"):
        read_image(Image.new("RGB", size))
    with pytest.raises(ImageError, match="damaged PNG"):
        read_image(png(size[0], size[1], 8, 2, b""))


def test_postscript_never_runs():
    data = encoded(noise(), "EPS")
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.format == "EPS"  # control: Pillow would start Ghostscript
    with pytest.raises(ImageError, match=r"\(EPS\)"):
        read_image(data)


# Truncated files ----------------------------------------------------------------------------------------------------

KINDS: dict[str, bytes] = {
    "PNG": encoded(noise(), "PNG"),
    "JPEG": encoded(noise(), "JPEG"),
    "progressive JPEG": encoded(noise(), "JPEG", progressive=True),
    "CMYK JPEG": encoded(Image.fromarray(noise()).convert("CMYK"), "JPEG"),
    "GIF": encoded(noise(), "GIF"),
    "WebP": encoded(noise(), "WEBP"),
    "BMP": encoded(noise(), "BMP"),
    "TIFF": encoded(noise(), "TIFF"),
    "TIFF LZW": encoded(noise(), "TIFF", compression="tiff_lzw"),
    "PPM": encoded(noise(), "PPM"),
    "TGA": encoded(noise(), "TGA"),
    "16-bit PNG": encoded(every_16_bit_value()[:240:10, :40], "PNG"),
}


@pytest.fixture(params=[False, True], ids=["strict Pillow", "lenient Pillow"])
def lenient(request, monkeypatch) -> bool:
    """Some libraries set this switch when they are imported."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", request.param)
    return request.param


@pytest.mark.filterwarnings("ignore:.*28 grey levels")  # of the 16-bit PNG
@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_file_is_refused_at_any_length(kind, lenient):
    data = KINDS[kind]
    whole = read_image(data)
    for length in [*range(1, len(data), max(1, len(data) // 40)), *range(len(data) - 8, len(data))]:
        try:
            image = read_image(data[:length])
        except ImageError:
            continue
        # In some formats the last bytes (checksums, end marks) hold no pixels. The image must be complete then.
        assert length > len(data) - 40
        assert np.array_equal(image, whole)
    with pytest.raises(ImageError, match=r"cannot be decoded|damaged"):
        read_image(data[: len(data) * 3 // 4])
    assert lenient == ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF"])
def test_a_lenient_pillow_returns_half_an_image(kind, monkeypatch):
    # Control: the fault that the test above finds.
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    half = Image.open(io.BytesIO(KINDS[kind][: len(KINDS[kind]) * 3 // 4])).convert("RGB")
    assert half.size == (40, 24)


def test_a_truncated_lazy_pil_image_is_refused(lenient):
    data = encoded(noise(), "BMP")
    with pytest.raises(ImageError, match=r"the given PIL image \(mode RGB, 40 x 24\) cannot be decoded"):
        read_image(Image.open(io.BytesIO(data[:-500])))


def test_the_switch_stays_off_until_the_last_reader_is_done(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    inside, leave = threading.Event(), threading.Event()

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            inside.set()
            leave.wait(10)
            return super().read(size)

    results: list[Any] = []

    def read_slowly() -> None:
        try:
            results.append(read_image(Slow(KINDS["JPEG"][:-200])))
        except ImageError as error:
            results.append(error)

    thread = threading.Thread(target=read_slowly)
    thread.start()
    assert inside.wait(10)
    read_image(KINDS["PNG"])  # another reader starts and finishes in the meantime
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    leave.set()
    thread.join(10)
    assert isinstance(results[0], ImageError)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


# Decompression bombs
# --------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["error", "ignore"])
def filtered(request) -> Iterator[None]:
    """The limit must not depend on the filter for warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter(request.param)
        yield


def test_a_bomb_is_refused_before_it_is_decoded(filtered, monkeypatch):
    row = bytes(1251)
    data = png(10_000, 10_000, 1, 0, row * 10_000)  # 100 million black pixels; Pillow's limit is 89 million
    assert len(data) < 20_000
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(ImageError, match=r"too large: .*PIL\.Image\.MAX_IMAGE_PIXELS"):
        read_image(data)


@pytest.mark.parametrize("side", [32, 33, 45, 100])
def test_the_limit_is_exactly_that_of_pillow(side, filtered, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 32 * 32)
    data = encoded(noise(side, side), "PNG")
    if side == 32:
        assert np.array_equal(read_image(data), noise(32, 32))
        return
    for _ in range(2):  # Python shows a warning once; the second image must be refused, too
        with pytest.raises(ImageError, match=r"too large: .*(1024|2048) pixels|too large: .*limit is 1024"):
            read_image(data)


def test_without_the_limit_any_size_is_read(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert read_image(encoded(noise(100, 100), "PNG")).shape == (100, 100, 3)


def test_the_limit_does_not_apply_to_pixels_in_memory(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert read_image(Image.fromarray(noise())).shape == (24, 40, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    lazy = Image.open(io.BytesIO(KINDS["PNG"]))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageError, match="40 x 24 pixels, the limit is 100"):
        read_image(lazy)


# Damage -------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")  # Pillow may warn about damaged headers
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_gives_an_image_or_an_image_error(kind, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)
    rng = np.random.default_rng(zlib.crc32(kind.encode()))
    refused = 0
    for _ in range(80):
        data = np.frombuffer(KINDS[kind], np.uint8).copy()
        spread = rng.choice([40, 200, len(data)])  # headers are short, and most faults are found there
        data[rng.integers(0, min(spread, len(data)), rng.integers(1, 6))] = rng.integers(0, 256)
        try:
            image = read_image(data.tobytes())
        except ImageError:
            refused += 1
        else:
            assert image.dtype == np.uint8
            assert image.ndim == 3
            assert image.shape[2] == 3
    assert refused  # control: some damage is found


# Arrays -------------------------------------------------------------------------------------------------------------


def test_an_array_in_the_right_form_is_not_copied():
    image = noise()
    assert as_image(image) is image
    view = image[::-1, ::2]
    assert as_image(view) is view


def test_as_image_reads_everything_else(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(noise(), "PNG"))
    for source in (path, str(path), path.read_bytes(), Image.fromarray(noise())):
        assert np.array_equal(as_image(source), noise())
    with pytest.raises(ImageError, match="does not exist"):
        as_image(tmp_path / "b.png")


@pytest.mark.parametrize(
    ("array", "fix"),
    [
        (noise()[..., 0], lambda a: np.stack([a, a, a], axis=-1)),
        (noise()[..., :1], lambda a: np.repeat(a, 3, axis=2)),
        (noise(channels=4), lambda a: a[..., :3]),
        (noise().transpose(2, 0, 1), lambda a: a.transpose(1, 2, 0)),
        (noise()[None], lambda a: a[0]),
        (noise() / 255, lambda a: (a * 255).round().astype(np.uint8)),
        (noise().astype(np.float32), lambda a: a.round().astype(np.uint8)),
        (noise() > 99, lambda a: a.astype(np.uint8) * 255),
        (noise() * np.uint16(257), lambda a: (a / 257).round().astype(np.uint8)),
        (noise().astype(np.int64), lambda a: a.astype(np.uint8)),
    ],
    ids=["grey", "one channel", "alpha", "channels first", "batch", "0..1", "0..255", "bool", "uint16", "int64"],
)
def test_other_arrays_are_refused_with_a_line_that_converts_them(array, fix):
    with pytest.raises(ImageError) as caught:
        as_image(array)
    message = str(caught.value)
    assert f"got {array.dtype} {array.shape}" in message
    line = Path(fix.__code__.co_filename).read_text().splitlines()[fix.__code__.co_firstlineno - 1]
    advice = line.split("lambda a: ")[1].rstrip("),")
    assert advice.replace(" ", "") in message.replace(" ", "")
    converted = as_image(fix(array))  # the advice works
    assert converted.shape == (24, 40, 3)


def test_arrays_without_pixels_are_refused():
    with pytest.raises(ImageError, match="no pixels"):
        as_image(np.zeros((0, 5, 3), np.uint8))


def test_masked_pixels_are_refused():
    array = np.ma.masked_array(noise(), noise() > 100)
    masked = int(array.mask.sum())
    with pytest.raises(ImageError, match=f"masks {masked:,} of 2,880 values"):
        as_image(array)
    assert np.array_equal(as_image(array.filled(0)), np.where(noise() > 100, 0, noise()))  # the advice works
    nothing_masked = as_image(np.ma.masked_array(noise()))
    assert type(nothing_masked) is np.ndarray
    assert np.array_equal(nothing_masked, noise())


class OfAnotherLibrary:
    """An array as xarray, JAX or h5py have it."""

    def __init__(self, values: np.ndarray):
        self._values, self.shape = values, values.shape

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self._values


def test_arrays_of_other_libraries_are_images():
    assert np.array_equal(as_image(cast(Any, xarray.DataArray(noise()))), noise())
    assert np.array_equal(as_image(cast(Any, OfAnotherLibrary(noise()))), noise())
    for wrap in (xarray.DataArray, OfAnotherLibrary):
        with pytest.raises(ImageError, match=r"float64 \(24, 40, 3\)"):
            as_image(cast(Any, wrap(noise() / 255)))

    class OnDevice(OfAnotherLibrary):
        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            raise TypeError("implicit conversion is not allowed")

    with pytest.raises(ImageError, match=r"OnDevice .*implicit conversion"):
        as_image(cast(Any, OnDevice(noise())))


@pytest.mark.parametrize("given", [[noise(), noise()], noise().tolist(), (noise(),), [Image.fromarray(noise())]])
def test_lists_are_refused(given):
    with pytest.raises(ImageError, match=f"got a {type(given).__name__} of {len(given)}"):
        as_image(given)


def test_tensors_are_refused_with_a_line_that_converts_them():
    with pytest.raises(ImageError, match=r"torch\.uint8 \(3, 24, 40\).* t\.permute\(1, 2, 0\)"):
        as_image(torch.zeros(3, 24, 40, dtype=torch.uint8))
    with pytest.raises(ImageError, match=r"\(1, 3, 28, 28\).* model\(x\)"):
        as_image(torch.zeros(1, 3, 28, 28))
    x = torch.from_numpy(noise()).permute(2, 0, 1)[None] / 255
    with pytest.raises(ImageError, match=r"t = x\[0\].*t\.permute\(1, 2, 0\)\.cpu\(\)\.numpy\(\).*t \* 255") as caught:
        as_image(x)
    assert "round().to(torch.uint8)" in str(caught.value)
    t = x[0]
    t = (t * 255).round().to(torch.uint8)
    assert np.array_equal(as_image(t.permute(1, 2, 0).cpu().numpy()), noise())  # the advice works
