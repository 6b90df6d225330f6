"""Greyscale with more than 8 bits: a range that the caller chooses, and a warning when few grey levels remain."""

from __future__ import annotations

import io
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

import dpt
from dpt.image import ImageError, read_image
from dpt.reading import read

RNG = np.random.default_rng(0)
THERMAL = (7000 + 1500 * RNG.random((60, 80))).astype(np.uint16)


def encoded(values: np.ndarray, format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, format)
    return buffer.getvalue()


def levels(image: np.ndarray) -> int:
    return len(np.unique(image))


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_few_levels_of_many_values_are_said(format):
    with pytest.warns(dpt.ImageWarning, match=rf"{THERMAL.min()} to {THERMAL.max()}.* 7 grey levels.*range="):
        image = read_image(encoded(THERMAL, format))
    assert levels(image) == 7
    assert np.array_equal(image[..., 0], np.rint(THERMAL / 257))  # the numbers are those of the format


@pytest.mark.parametrize("broken", [[0], [65535], [0, 65535]])
def test_dead_and_hot_pixels_do_not_hide_lost_levels(broken):
    values = THERMAL.copy()
    values.ravel()[: len(broken)] = broken
    with pytest.warns(dpt.ImageWarning, match=f"{values.min()} to {values.max()}.* {7 + len(broken)} grey levels"):
        read_image(encoded(values))


@pytest.mark.parametrize(
    "values",
    [
        np.where(THERMAL > 7500, 65535, 0).astype(np.uint16),  # a mask
        np.full((4, 5), 7000, np.uint16),
        (THERMAL // 257 * 257).astype(np.uint16),  # few values before
        RNG.integers(0, 65536, (60, 80)).astype(np.uint16),
    ],
    ids=["mask", "flat", "few values", "full range"],
)
def test_images_that_lose_nothing_are_read_without_a_word(values):
    read_image(encoded(values))


def test_floats_of_a_small_range_are_said_too():
    with pytest.warns(dpt.ImageWarning, match="grey levels"):
        read_image(Image.fromarray((THERMAL / 65535).astype(np.float32)))


def test_a_range_is_spread_over_all_levels_and_clipped():
    low, high = 7000, 8000
    image = read_image(encoded(THERMAL), range=(low, high))
    expected = np.rint((THERMAL.clip(low, high) - low) / (high - low) * 255)
    assert np.array_equal(image, np.repeat(expected[..., None], 3, 2))
    assert levels(image) == 256


def test_minmax_spreads_the_values_of_the_image():
    image = read_image(encoded(THERMAL), range="minmax")[..., 0]
    assert (image[THERMAL.min() == THERMAL] == 0).all()
    assert (image[THERMAL.max() == THERMAL] == 255).all()
    assert levels(image) == 256
    assert (read_image(encoded(np.full((3, 4), 900, np.uint16)), range="minmax") == 0).all()  # one value


def test_a_range_makes_values_beyond_the_format_readable():
    values = np.array([[-500, 0, 100_000]], np.int32)
    with pytest.raises(ImageError, match=r"-500 to 100000.* range="):
        read_image(Image.fromarray(values))
    assert read_image(Image.fromarray(values), range="minmax")[0, :, 0].tolist() == [0, 1, 255]
    celsius = np.array([[-10, 15, 40]], np.float32)
    assert read_image(Image.fromarray(celsius), range=(-10, 40))[0, :, 0].tolist() == [0, 128, 255]
    with pytest.raises(ImageError, match="NaN"):
        read_image(Image.fromarray(np.array([[np.nan, 1]], np.float32)), range="minmax")


def test_a_range_for_an_image_with_8_bits_is_refused_instead_of_ignored():
    for mode in ("L", "RGB", "P", "RGBA"):
        picture = Image.new(mode, (4, 3))
        assert read_image(picture, range="full").shape == (3, 4, 3)
        with pytest.raises(ImageError, match=f"{mode}.*range"):
            read_image(picture, range="minmax")


@pytest.mark.parametrize(
    "given", ["max", (5, 5), (8, 2), (0, np.nan), (0, np.inf), (1, 2, 3), 7, None, ("0", "9"), (False, True)]
)
def test_other_ranges_are_refused(given):
    with pytest.raises((ValueError, TypeError), match="range") as caught:
        read_image(encoded(THERMAL), range=cast(Any, given))
    assert isinstance(caught.value, dpt.DPTError)


def test_numpy_numbers_are_a_range():
    expected = read_image(encoded(THERMAL), range=(7000, 8000))
    assert np.array_equal(read_image(encoded(THERMAL), range=(np.uint16(7000), np.float32(8000))), expected)
    assert np.array_equal(read_image(encoded(THERMAL), range=cast(Any, np.array([7000, 8000]))), expected)


def test_read_returns_the_notes():
    reading = read(encoded(THERMAL))
    (note,) = reading.notes
    assert "7 grey levels" in note
    assert reading.name.startswith("the given data")
    assert read(encoded(THERMAL), range="minmax").notes == ()
