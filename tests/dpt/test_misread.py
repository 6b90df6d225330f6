"""Files that Pillow decodes to wrong numbers are refused, and their neighbours, which it decodes right, are read."""

from __future__ import annotations

import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from dpt.image import ImageError, read_image

RNG = np.random.default_rng(0)
HEIGHT, WIDTH = 6, 8
SWAPPED, NATIVE = (">", "<") if sys.byteorder == "little" else ("<", ">")


def tiff(
    values: np.ndarray, photometric: int, *, planar: bool = False, deflate: bool = False, kind: int = 1, alpha: int = -1
) -> bytes:
    """A TIFF of one strip per plane. values is (H, W, channels), or (channels, H, W) if planar, in its byte order.

    Args:
        values: The pixels.
        photometric: 1 is grey, 2 RGB, 5 CMYK.
        planar: One plane per channel.
        deflate: Compressed.
        kind: Tag SampleFormat: 1 unsigned, 2 signed, 3 float.
        alpha: Tag ExtraSamples.
    """
    order = ">" if values.dtype.byteorder == ">" or (values.dtype.byteorder == "=" and sys.byteorder == "big") else "<"
    planes = list(values) if planar else [values]
    channels = len(planes) if planar else values.shape[2]
    strips = [zlib.compress(plane.tobytes()) if deflate else plane.tobytes() for plane in planes]
    tags: dict[int, list[int]] = {
        256: [WIDTH],
        257: [HEIGHT],
        258: [values.itemsize * 8] * channels,
        259: [8 if deflate else 1],
        262: [photometric],
        277: [channels],
        278: [HEIGHT],
        284: [2 if planar else 1],
        339: [kind] * channels,
    }
    if alpha >= 0:
        tags[338] = [alpha]
    data, body = b"", 8
    places = []
    for strip in strips:
        places.append(body + len(data))
        data += strip + bytes(len(strip) % 2)
    tags |= {273: places, 279: [len(strip) for strip in strips]}
    entries = b""
    for tag, numbers in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(numbers)}I", *numbers)
        if len(numbers) > 1:
            place = body + len(data)
            data += packed
            packed = struct.pack(f"{order}I", place)
        entries += struct.pack(f"{order}HHI", tag, 4, len(numbers)) + packed
    start = struct.pack(f"{order}HI", 42, body + len(data))
    directory = struct.pack(f"{order}H", len(tags)) + entries + bytes(4)
    return (b"MM" if order == ">" else b"II") + start + data + directory


def colours(dtype: str, channels: int) -> np.ndarray:
    return RNG.integers(
        0, np.iinfo(dtype).max, (HEIGHT, WIDTH, channels), np.dtype(dtype).newbyteorder("="), True
    ).astype(dtype)


def to_planes(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values.transpose(2, 0, 1))


def pillow(data: bytes) -> np.ndarray:
    """What Pillow makes of a file: the control that there is something to refuse."""
    import io

    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("channels", "photometric"), [(3, 2), (4, 5)], ids=["RGB", "CMYK"])
def test_planar_16_bit_colour_is_read_right_or_refused(channels, photometric, order):
    values = colours(f"{order}u2", channels)
    plain = read_image(tiff(values, photometric))  # interleaved
    assert np.abs(plain.astype(float) - expected(values, photometric)).max() <= 2
    assert np.array_equal(read_image(tiff(to_planes(values), photometric, planar=True, deflate=True)), plain)
    raw = tiff(to_planes(values), photometric, planar=True)
    assert np.abs(pillow(raw).astype(float) - values / 257).mean() > 20, "control: Pillow still garbles it"
    with pytest.raises(ImageError, match=r"16 bits per channel.* interleaved"):
        read_image(raw)


def expected(values: np.ndarray, photometric: int) -> np.ndarray:
    unit = values / np.iinfo(values.dtype).max
    return 255 * (unit if photometric == 2 else (1 - unit[..., :3]) * (1 - unit[..., 3:]))


def test_planar_8_bit_colour_is_read():
    values = colours("u1", 3)
    for deflate in (False, True):
        assert np.array_equal(read_image(tiff(to_planes(values), 2, planar=True, deflate=deflate)), values)


def test_planar_grey_with_alpha_is_refused():
    values = colours("u1", 2)
    assert read_image(tiff(values, 1, alpha=2)).shape == (HEIGHT, WIDTH, 3)  # interleaved
    with pytest.raises(ImageError, match="alpha in a plane of its own"):
        read_image(tiff(to_planes(values), 1, planar=True, deflate=True, alpha=2))


def test_signed_8_bit_numbers_are_refused():
    values = np.full((HEIGHT, WIDTH, 1), -3, np.int8)
    assert (pillow(tiff(values, 1, kind=2)) == 253).all()  # control
    with pytest.raises(ImageError, match="signed 8-bit"):
        read_image(tiff(values, 1, kind=2))
    assert (read_image(tiff(values.view(np.uint8), 1)) == 253).all()


@pytest.mark.parametrize("order", [NATIVE, SWAPPED], ids=["native", "swapped"])
@pytest.mark.parametrize("deflate", [False, True], ids=["plain", "compressed"])
@pytest.mark.parametrize(("dtype", "kind", "value"), [("i2", 2, 257), ("i4", 2, 257 * 200), ("f4", 3, 0.4)])
def test_numbers_in_a_foreign_byte_order_are_read_right_or_refused(dtype, kind, value, deflate, order):
    values = np.full((HEIGHT, WIDTH, 1), value, f"{order}{dtype}")
    data = tiff(values, 1, kind=kind, deflate=deflate)
    if deflate and order == SWAPPED:
        with pytest.raises(ImageError, match="byte order"):
            read_image(data)
        return
    assert (read_image(data) == (102 if kind == 3 else value // 257)).all()


def test_a_swapped_number_can_look_like_a_right_one():
    # Control for the test above: 0x0102 is read as 0x0201, which nothing else would notice.
    values = np.full((HEIGHT, WIDTH, 1), 0x0102, f"{SWAPPED}i2")
    assert (pillow(tiff(values, 1, kind=2, deflate=True)) == 0x0201).all()


def j2k(bits: int, channels: int, signed: bool = False) -> bytes:
    """A real JPEG 2000 code stream of white, whose header is changed to state these bits."""
    import io

    mode, white = ("L", 255) if channels == 1 else ("RGB", (255, 255, 255))
    buffer = io.BytesIO()
    Image.new(mode, (WIDTH, HEIGHT), white).save(buffer, "JPEG2000", no_jp2=True, irreversible=False)
    data = bytearray(buffer.getvalue())
    start = data.index(b"\xff\x4f\xff\x51") + 42
    for channel in range(channels):
        data[start + 3 * channel] = (bits - 1) | (0x80 if signed else 0)
    return bytes(data)


@pytest.mark.parametrize(
    ("bits", "channels", "signed", "words"),
    [
        (16, 3, False, "16 bits per channel"),
        (12, 3, False, "12 bits per channel"),
        (4, 1, False, "4 bits per channel"),
        (1, 1, False, "1 bits per channel"),
        (8, 1, True, "signed"),
        (16, 1, True, "signed"),
    ],
)
def test_jpeg_2000_that_pillow_shifts_or_wraps_is_refused(bits, channels, signed, words):
    with pytest.raises(ImageError, match=words):
        read_image(j2k(bits, channels, signed))


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_2000_of_8_bits_is_read(channels):
    assert (read_image(j2k(8, channels)) == 255).all()


def png(width: int, bits: int, colour: int, row: bytes, key: bytes | None) -> bytes:
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, 1, bits, colour, 0, 0, 0))]
    parts += [(b"tRNS", key)] if key is not None else []
    parts += [(b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]
    framed = [struct.pack(">I", len(b)) + n + b + struct.pack(">I", zlib.crc32(n + b)) for n, b in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


@pytest.mark.parametrize(
    ("bits", "row", "opaque"),
    [(2, bytes([0b00_01_10_11]), [0, 85, 170, 255]), (4, bytes([0x01, 0x2F]), [0, 17, 34, 255])],
)
def test_the_transparent_grey_of_few_bits_is_white(bits, row, opaque):
    assert read_image(png(4, bits, 0, row, None))[0, :, 0].tolist() == opaque
    assert read_image(png(4, bits, 0, row, struct.pack(">H", 1)))[0, :, 0].tolist() == [opaque[0], 255, *opaque[2:]]


def test_a_transparent_16_bit_colour_is_refused():
    row, key = struct.pack(">3H", 0x1234, 0x5678, 0x9ABC), struct.pack(">3H", 0x1234, 0x5678, 0x9ABC)
    assert read_image(png(1, 16, 2, row, None))[0, 0].tolist() == [0x12, 0x56, 0x9A]
    with pytest.raises(ImageError, match="transparent colour"):
        read_image(png(1, 16, 2, row, key))


def test_fits_is_refused():
    cards = ["SIMPLE  =                    T", "BITPIX  =                   16", "NAXIS   =                    2"]
    cards += [
        "NAXIS1  =                    2",
        "NAXIS2  =                    1",
        "BZERO   =              32768.0",
        "END",
    ]
    header = "".join(card.ljust(80) for card in cards).encode()
    with pytest.raises(ImageError, match="FITS"):
        read_image(header + b" " * (-len(header) % 2880) + struct.pack(">2h", -32768, 0) + bytes(2876))


@pytest.mark.parametrize(("alpha_bits", "seen"), [(0, [200, 20, 10]), (8, [255, 255, 255])])
def test_the_fourth_channel_of_a_tga_is_alpha_only_if_it_says_so(alpha_bits, seen):
    head = struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, 1, 1, 32, 0x20 | alpha_bits)
    assert read_image(head + bytes([10, 20, 200, 0]))[0, 0].tolist() == seen
