"""Depth maps as files: a common range, millimetres, and maps with pixels that have no depth."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from probes.figures import depth_files

RAMP = np.linspace(1, 9, 20 * 30, dtype=np.float32).reshape(20, 30)


def content(writer: depth_files.Writer) -> bytes:
    file = io.BytesIO()
    writer(file)
    return file.getvalue()


def broken(value: float) -> np.ndarray:
    depth = RAMP.copy()
    depth[0, :3] = value
    return depth


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "write",
    [
        depth_files.npy,
        depth_files.grey_png,
        depth_files.millimetre_png,
        depth_files.colour_depth,
        depth_files.grey_depth,
        depth_files.millimetres,
        lambda depth: depth_files.colour_depth(depth, span=(0.0, 10.0)),
        lambda depth: depth_files.grey_png(depth, span=(0.0, 10.0)),
    ],
    ids=["npy", "grey", "mm file", "colour", "levels", "mm", "colour, span", "grey, span"],
)
def test_no_file_hides_that_pixels_have_no_depth(write, value):
    with pytest.raises(ValueError, match="NaN or infinity in 3 of 600"):
        write(broken(value))
    with pytest.raises(ValueError, match="masks 3 of 600"):
        write(np.ma.masked_array(RAMP, np.isnan(broken(np.nan))))
    write(RAMP)  # control
    write(np.ma.masked_array(RAMP))


def test_two_maps_of_one_range_can_be_compared():
    span = (0.0, 18.0)
    for colour in (depth_files.colour_depth, lambda depth, **how: depth_files.grey_depth(depth, **how)[0]):
        assert np.array_equal(colour(RAMP[:10], span=span), colour(RAMP, span=span)[:10])
        assert not np.array_equal(colour(RAMP[:10]), colour(RAMP)[:10])  # control: without a common range


def test_depths_beyond_the_range_get_its_ends():
    grey, low, high = depth_files.grey_depth(RAMP, (3.0, 5.0))
    assert (low, high) == (3.0, 5.0)
    assert (grey[RAMP <= 3] == 0).all()
    assert (grey[RAMP >= 5] == 65535).all()
    inside = (RAMP > 3) & (RAMP < 5)
    assert np.abs(low + grey[inside] / 65535 * (high - low) - RAMP[inside]).max() <= 2 / 65535
    with Image.open(io.BytesIO(content(depth_files.grey_png(RAMP, metric=True, span=(3.0, 5.0))))) as image:
        assert (image.info["depth_min"], image.info["depth_max"], image.info["depth_unit"]) == ("3.0", "5.0", "metre")
        assert np.array_equal(np.asarray(image), grey)


def test_millimetres_are_whole_and_end_at_65_535_metres():
    metres = np.array([[0.0004, 0.0006, 1.2344, 65.535], [65.5354, 65.6, 80.0, 5.0]], np.float32)
    values, beyond = depth_files.millimetres(metres)
    assert values.dtype == np.uint16
    assert values.tolist() == [[0, 1, 1234, 65535], [65535, 65535, 65535, 5000]]
    assert beyond == 3  # 0.4 mm, 65.6 m and 80 m
    with Image.open(io.BytesIO(content(depth_files.millimetre_png(metres)))) as image:
        assert image.mode == "I;16"
        assert np.array_equal(np.asarray(image), values)
        assert image.info["depth_unit"] == "millimetre"


def test_npy_keeps_the_values(tmp_path: Path):
    depth_files.write(tmp_path / "a.npy", depth_files.npy(RAMP))
    again = np.load(tmp_path / "a.npy")
    assert again.dtype == np.float32
    assert np.array_equal(again, RAMP)
