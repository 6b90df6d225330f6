"""Odd images: each gives the right pixels or fails with one reason, and none affects the others.

All are 28 x 42 pixels, the size of the input, so that nothing is resized and what a decoder hands out can be compared
with what was painted, pixel by pixel.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import struct
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dpt.image import Preprocess
from probes.runs.decoding import Decoded, Decoders
from probes.runs.sources import find

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="these names and links are POSIX's")

HEIGHT, WIDTH = 28, 42
EXACT = Preprocess(base=28, multiple=14, method="lower_bound", keep_aspect=True, mean=(0, 0, 0), std=(1, 1, 1))
rng = np.random.default_rng(0)
NOISE = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
OTHER = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
GREY = rng.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
SMOOTH = np.stack(np.broadcast_arrays(np.arange(28)[:, None] * 9, np.arange(42) * 6, 128), -1).astype(np.uint8)
COLOURS = np.array([[250, 10, 20], [10, 200, 30], [20, 30, 220], [255, 255, 255]], np.uint8)
INDEXED = rng.integers(0, 4, (HEIGHT, WIDTH), dtype=np.uint8)


def rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, 2)


def encoded(picture: Image.Image | np.ndarray, format: str, **options: Any) -> bytes:
    picture = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def palette(transparent: int | None = None) -> Image.Image:
    picture = Image.fromarray(INDEXED).convert("P")
    picture.putpalette(COLOURS.tobytes())
    if transparent is not None:
        picture.info["transparency"] = transparent
    return picture


def turned(orientation: int) -> bytes:
    """SMOOTH as a rotated camera stores it, with the EXIF orientation."""
    stored = {
        1: SMOOTH,
        2: SMOOTH[:, ::-1],
        3: SMOOTH[::-1, ::-1],
        4: SMOOTH[::-1],
        5: SMOOTH.transpose(1, 0, 2),
        6: np.rot90(SMOOTH, 1),
        7: SMOOTH[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(SMOOTH, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(np.ascontiguousarray(stored), "PNG", exif=exif)


def bomb(format: str, side: int = 40000) -> bytes:
    """A small file whose header states side x side pixels."""
    if format == "PNG":
        header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
        chunks = [b"IHDR" + header, b"IDAT" + zlib.compress(bytes(10**7)), b"IEND"]
        framed = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
        return b"\x89PNG\r\n\x1a\n" + b"".join(framed)
    if format == "GIF":
        return b"GIF89a" + struct.pack("<HH", side, side) + encoded(palette(), "GIF")[10:]
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)


def alpha() -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 4) with opaque and transparent pixels, and the same on a white background."""
    there = INDEXED > 1
    return np.dstack([NOISE, there.astype(np.uint8) * 255]), np.where(there[..., None], NOISE, 255)


GREY16 = rng.integers(0, 65536, (HEIGHT, WIDTH), dtype=np.uint16)
SCALED16 = rgb(np.rint(GREY16 / 257).astype(np.uint8))
UNIT = (GREY / 255).astype(np.float32)
RGBA, ON_WHITE = alpha()
PNG, JPEG = encoded(NOISE, "PNG"), encoded(SMOOTH, "JPEG", quality=95)
FILMSTRIP = [Image.fromarray(OTHER), Image.fromarray(SMOOTH)]

# name -> (bytes of the file, its pixels). Lossy formats differ slightly
LOSSLESS: dict[str, tuple[bytes, np.ndarray]] = {
    "rgb.png": (PNG, NOISE),
    "rgb.bmp": (encoded(NOISE, "BMP"), NOISE),
    "rgb.ppm": (encoded(NOISE, "PPM"), NOISE),
    "rgb.tga": (encoded(NOISE, "TGA"), NOISE),
    "rgb.tif": (encoded(NOISE, "TIFF"), NOISE),
    "lzw.tiff": (encoded(NOISE, "TIFF", compression="tiff_lzw"), NOISE),
    "rgb.webp": (encoded(NOISE, "WEBP", lossless=True), NOISE),
    "rgb.jp2": (encoded(NOISE, "JPEG2000"), NOISE),
    "interlaced colours.gif": (encoded(palette(), "GIF", interlace=1), COLOURS[INDEXED]),
    "palette.png": (encoded(palette(), "PNG"), COLOURS[INDEXED]),
    "palette, see-through.png": (
        encoded(palette(1), "PNG", transparency=1),
        np.where(INDEXED[..., None] == 1, 255, COLOURS[INDEXED]),
    ),
    "animated.gif": (encoded(palette(), "GIF", save_all=True, append_images=FILMSTRIP), COLOURS[INDEXED]),
    "animated.png": (encoded(NOISE, "PNG", save_all=True, append_images=FILMSTRIP), NOISE),
    "animated.webp": (encoded(NOISE, "WEBP", lossless=True, save_all=True, append_images=FILMSTRIP), NOISE),
    "pages.tif": (encoded(NOISE, "TIFF", save_all=True, append_images=FILMSTRIP), NOISE),
    "rgba.png": (encoded(RGBA, "PNG"), ON_WHITE),
    "rgba.tif": (encoded(RGBA, "TIFF"), ON_WHITE),
    "grey with alpha.png": (
        encoded(Image.fromarray(np.dstack([GREY, RGBA[..., 3]]), "LA"), "PNG"),
        np.where(RGBA[..., 3:] > 0, rgb(GREY), 255),
    ),
    "one bit.png": (encoded(Image.fromarray(GREY > 99), "PNG"), rgb((GREY > 99) * np.uint8(255))),
    "grey.png": (encoded(GREY, "PNG"), rgb(GREY)),
    "grey 16.png": (encoded(GREY16, "PNG"), SCALED16),
    "grey 16.tif": (encoded(GREY16, "TIFF"), SCALED16),
    "grey 32.tif": (encoded(GREY16.astype(np.int32), "TIFF"), SCALED16),
    "float.tif": (encoded(UNIT, "TIFF"), rgb(GREY)),
    "cmyk.tif": (
        encoded(Image.fromarray(np.dstack([255 - NOISE, np.zeros_like(GREY)]), "CMYK"), "TIFF"),
        NOISE,
    ),
    **{f"held {way}.png": (turned(way), SMOOTH) for way in range(1, 9)},
    "a png called.jpg": (PNG, NOISE),
    "damaged exif.png": (encoded(NOISE, "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), NOISE),
    "trailing bytes.png": (PNG + b"more" * 99, NOISE),
    " a space first.png": (PNG, NOISE),
    "new\nline.png": (PNG, NOISE),
    "tab\tand\rreturn.png": (PNG, NOISE),
    'it\'s "quoted".png': (PNG, NOISE),
    "größe 写真 🌊 \u202eright to left.png": (PNG, NOISE),
    os.fsdecode(b"latin \xe9\xff.png"): (PNG, NOISE),
    "back\\slash.png": (PNG, NOISE),
    "$(touch x); `ls` %s {0} *.png": (PNG, NOISE),
    "-rf.png": (PNG, NOISE),
    "#1.png": (PNG, NOISE),
    "two..dots.png": (PNG, NOISE),
    "UPPER.PNG": (PNG, NOISE),
    "n" * 251 + ".png": (PNG, NOISE),
    "deep/er/still/x.png": (PNG, NOISE),
}
LOSSY: dict[str, tuple[bytes, np.ndarray]] = {
    "colour.jpg": (JPEG, SMOOTH),
    "progressive.jpeg": (encoded(SMOOTH, "JPEG", quality=95, progressive=True), SMOOTH),
    "grey.jpg": (encoded(SMOOTH[..., 0].copy(), "JPEG", quality=95), rgb(SMOOTH[..., 0])),
    "cmyk.jpg": (encoded(Image.fromarray(SMOOTH).convert("CMYK"), "JPEG", quality=95), SMOOTH),
    "lossy.webp": (encoded(SMOOTH, "WEBP", quality=95), SMOOTH),
    "avif in.avif": (encoded(SMOOTH, "AVIF", quality=95) if "AVIF" in Image.SAVE else b"", SMOOTH),
}

NAN = np.where(GREY > 128, np.nan, UNIT).astype(np.float32)
# name -> (bytes of the file, part of the reason)
REFUSED: dict[str, tuple[bytes, str]] = {
    "nothing.jpg": (b"", r"is empty \(0 bytes\)"),
    "text.jpg": (b"dear diary", "text that begins 'dear diary'"),
    "page.jpg": (b"<!doctype html><title>404</title>", "a web page"),
    "pointer.jpg": (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    "drawing.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
    "array.png": (encoded(NOISE, "PNG").replace(b"\x89PNG", b"\x93NUMPY"), "a NumPy array"),
    "archive.jpg": (b"PK\x03\x04" + bytes(60), "a zip archive"),
    "paper.jpg": (b"%PDF-1.7\n", "a PDF document"),
    "phone.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC image: install pillow-heif"),
    "film.jpg": (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "a video: save one frame"),
    "program.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "a drawing"),
    "random.jpg": (bytes(rng.integers(128, 256, 500, dtype=np.uint8)), "bytes that begin"),
    "zeros.png": (bytes(5000), "bytes that begin 00 00"),
    **{
        f"cut.{format.lower()}": (data[: len(data) * 2 // 3], "cannot be decoded|not an image that Pillow can read")
        for format, data in {
            **{f: encoded(NOISE, f) for f in ("PNG", "JPEG", "GIF", "BMP", "TGA", "PPM", "TIFF", "WEBP", "JPEG2000")}
        }.items()
        if format != "JPEG2000"
    },
    "head alone.png": (PNG[:33], "a damaged PNG image"),
    "flipped bit.png": (PNG[:60] + bytes([PNG[60] ^ 4]) + PNG[61:], "cannot be decoded"),
    "bomb.png": (bomb("PNG"), "is too large: .* may be an attack"),
    "bomb.gif": (bomb("GIF"), "is too large"),
    "bomb.bmp": (bomb("BMP"), "is too large"),
    "float of what.tif": (encoded(UNIT * 999, "TIFF"), "values from .* expected 0..1"),
    "not a number.tif": (encoded(NAN, "TIFF"), "NaN or infinite"),
    "beyond 16 bits.tif": (encoded(GREY16.astype(np.int32) * 9, "TIFF"), "expected 16 bits"),
    "no video.mp4": (b"no video", "is not a video that PyAV can read"),
}
# entries that are not files: name -> part of the reason
ABSENT = {
    "dangling.png": "is a link to nowhere.png, which does not exist",
    "itself.png": "cannot be reached",
    "pipe.png": "is a pipe, socket or device",
    "folder.png": "is a folder",
    "gone.png": "does not exist",
}


@pytest.fixture(scope="module")
def decoded(tmp_path_factory) -> dict[str, Decoded]:
    """Results by name of all images in one folder, and of a list with the rest, from one process."""
    folder = tmp_path_factory.mktemp("odd") / "in"
    for name, (data, _) in {**LOSSLESS, **LOSSY, **REFUSED}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (folder / "dangling.png").symlink_to("nowhere.png")
    (folder / "itself.png").symlink_to("itself.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "link.png").symlink_to("rgb.png")
    extra = folder.parent / "extra"
    (extra / "folder.png").mkdir(parents=True)
    (extra / "noSuffix").write_bytes(PNG)
    (extra / "list.txt").write_text("folder.png\ngone.png\nnoSuffix\n../in/./deep/../rgb.png\n../in/nothing.jpg\n")
    with Decoders(EXACT, (HEIGHT, WIDTH), False, workers=1, images=True, timeout=60.0) as decoders:
        everything = list(decoders.decode(find(folder)))
        process = decoders._children[0]._process
        listed = list(decoders.decode(find(extra / "list.txt")))
        assert decoders._children[0]._process is process  # no image ended it
    found = {one.item.name: one for one in everything} | {one.item.name.removeprefix("extra/"): one for one in listed}
    assert len(found) == len(everything) + len(listed)
    return found


def of_run(name: str) -> str:
    """The name in the run of a file."""
    return name.replace("\\", r"\x5c").replace("\udce9", r"\xe9").replace("\udcff", r"\xff")


def test_there_are_enough_of_them_and_each_came_out_once(decoded):
    pictures = [*LOSSLESS, *LOSSY, *REFUSED, *ABSENT, "link.png", "noSuffix", "in/rgb.png", "in/nothing.jpg"]
    expected = {of_run(name) + ("#000000" if name == "no video.mp4" else "") for name in pictures}
    assert set(decoded) == expected
    assert len(expected) >= 60
    for one in decoded.values():
        one.item.name.encode()
        assert (one.error is None) == (one.x is not None) == (one.image is not None) == (one.sha256 is not None)


@pytest.mark.parametrize("name", LOSSLESS, ids=ascii)
def test_the_pixels_are_those_that_were_painted(decoded, name):
    one = decoded[of_run(name)]
    assert one.error is None
    assert one.size == (HEIGHT, WIDTH)
    assert np.array_equal(one.image, LOSSLESS[name][1])
    assert np.array_equal(one.x, (LOSSLESS[name][1] / np.float32(255)).transpose(2, 0, 1))


@pytest.mark.parametrize("name", LOSSY)
def test_the_pixels_are_about_those_that_were_painted(decoded, name):
    if not LOSSY[name][0]:
        pytest.skip("this Pillow writes no AVIF")
    assert decoded[name].error is None
    assert np.abs(decoded[name].image.astype(int) - LOSSY[name][1]).mean() < 4


@pytest.mark.parametrize("name", ["link.png", "noSuffix", "in/rgb.png"])
def test_links_and_lines_of_lists_lead_to_the_same_image(decoded, name):
    assert np.array_equal(decoded[name].image, NOISE)
    assert decoded[name].sha256 == decoded["rgb.png"].sha256


@pytest.mark.parametrize("name", [*REFUSED, *ABSENT, "in/nothing.jpg"])
def test_the_reason_is_one_line_that_names_the_image_as_the_run_does(decoded, name):
    words = ABSENT.get(name) or REFUSED[name.removeprefix("in/")][1]
    one = decoded[name + "#000000" if name == "no video.mp4" else name]
    assert one.x is None
    assert re.search(words, one.error), one.error
    assert name in one.error
    assert one.error.isprintable()
    assert tempfile.gettempdir() + "/" not in one.error  # the reason does not depend on the folder


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder, with the rights of an ordinary user: root can read everything."""
    folder = Path(tempfile.mkdtemp())  # not tmp_path, which only its owner can enter
    folder.chmod(0o755)
    root = os.geteuid() == 0
    yield folder
    if root:
        os.seteuid(0)
    for path in folder.rglob("*"):
        path.chmod(0o700)
    shutil.rmtree(folder)


def test_what_may_not_be_read_is_a_listed_reason(unprivileged):
    (unprivileged / "a.png").write_bytes(PNG)
    (unprivileged / "closed").mkdir()
    (unprivileged / "closed" / "x.png").write_bytes(PNG)
    (unprivileged / "secret.png").write_bytes(PNG)
    (unprivileged / "z.png").write_bytes(PNG)
    for name in ("secret.png", "closed"):
        (unprivileged / name).chmod(0)
    if os.geteuid() == 0:
        try:
            os.seteuid(65534)
        except PermissionError:
            pytest.skip("this root cannot become anybody else, and nothing is closed to it")
    with pytest.raises(PermissionError):  # control: this process cannot read the file
        (unprivileged / "secret.png").read_bytes()
    with Decoders(EXACT, workers=0, images=True) as decoders:
        a, closed, secret, z = decoders.decode(find(unprivileged))
    assert np.array_equal(a.image, NOISE)
    assert np.array_equal(z.image, NOISE)
    assert closed.error == "cannot list the folder closed: Permission denied"
    assert secret.error.startswith("secret.png cannot be opened: Permission denied")
