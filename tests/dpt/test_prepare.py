"""prepare turns images into model input as the original code does, and restore resizes depth to the image.

``data/preprocess_sizes.json`` holds sizes that the original resize code computed. ``data/opencv_cubic.npz`` holds
results of OpenCV for `noise` images: ``cv2.resize(image / 255.0, (w, h), interpolation=cv2.INTER_CUBIC)``, in the two
large cases every 37th row and 41st column.
"""

from __future__ import annotations

import json
import re
import tracemalloc
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from dpt.image import LARGEST, ImageError, Preprocess, network_size, original_size, prepare, restore

DATA = Path(__file__).parents[1] / "data"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
COVER = Preprocess(base=518, multiple=14, method="lower_bound", keep_aspect=True, mean=MEAN, std=STD)
MINIMAL = replace(COVER, base=384, multiple=32, method="minimal")
SQUARE = replace(MINIMAL, keep_aspect=False)
PLAIN = replace(COVER, mean=(0, 0, 0), std=(1, 1, 1))  # the input is RGB in 0..1


def noise(height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8, identical on every machine."""
    y, x, c = np.ogrid[:height, :width, :3]
    n = (y * 73856093) ^ (x * 19349663) ^ (c * 83492791)
    n = (n ^ (n >> 13)) * 1274126177 % 2**32
    return ((n >> 11) & 255).astype(np.uint8)


# Sizes --------------------------------------------------------------------------------------------------------------


def original_sizes() -> list[Any]:
    rows = []
    for entry in json.loads((DATA / "preprocess_sizes.json").read_text()):
        preprocess = replace(
            COVER,
            base=entry["base"],
            multiple=entry["multiple"],
            method=entry["method"],
            keep_aspect=entry["keep_aspect"],
        )
        for image, network in entry["sizes_image_hw_to_input_hw"]:
            rows.append(
                pytest.param(preprocess, *image, *network, id=f"{entry['models'].split()[0]}-{image[0]}x{image[1]}")
            )
    return rows


@pytest.mark.parametrize(("preprocess", "height", "width", "h", "w"), original_sizes())
def test_sizes_equal_those_of_the_original_code(preprocess, height, width, h, w):
    # The original code rounds the width of 1000 x 33 to 0, and then fails. Ours is one multiple.
    assert original_size(height, width, preprocess) == (h or preprocess.multiple, w or preprocess.multiple)
    if max(height, width) <= 8 * min(height, width):
        assert network_size(height, width, preprocess) == (h, w)


def test_all_sizes_of_the_original_code_are_tested():
    assert len(original_sizes()) == 6 * 13


def test_keep_aspect_false_stretches():
    assert network_size(480, 640, COVER) == (518, 686)
    assert network_size(480, 640, COVER, keep_aspect=False) == (518, 518)
    assert network_size(480, 640, MINIMAL, keep_aspect=False) == (384, 384)
    assert network_size(480, 640, SQUARE, keep_aspect=True) == (384, 384)


def test_on_a_tie_the_height_decides():
    # 384 / 256 = 1 + 0.5 and 384 / 768 = 1 - 0.5. The original code uses the width only if it is strictly closer.
    assert network_size(256, 768, MINIMAL) == (384, 1152)
    assert network_size(768, 256, MINIMAL) == (384, 128)


def test_sides_are_rounded_half_to_even():
    assert network_size(384, 528, MINIMAL) == (384, 512)  # 528 = 16.5 x 32
    assert network_size(384, 560, MINIMAL) == (384, 576)  # 560 = 17.5 x 32
    assert network_size(252, 511, COVER, 252) == (252, 504)  # 511 = 36.5 x 14


def test_one_number_is_another_base():
    assert network_size(480, 640, COVER, 252) == (252, 336)
    assert network_size(480, 640, COVER, 500) == (504, 672)  # 500 is not a multiple of 14; both sides are at least 500
    assert network_size(480, 640, MINIMAL, 512) == (512, 672)
    assert network_size(480, 640, SQUARE, 256) == (256, 256)
    assert network_size(480, 640, COVER, cast(int, np.int64(252))) == (252, 336)


def test_a_pair_with_keep_aspect_is_covered_or_met():
    assert network_size(480, 640, COVER, (252, 252)) == (252, 336)
    assert network_size(480, 640, COVER, (252, 700)) == (
        532,
        700,
    )  # a width of 700 gives a height of 525, 37.5 multiples, rounded to 38
    assert network_size(480, 640, MINIMAL, (384, 640)) == (480, 640)  # the width fits: nothing is scaled
    assert network_size(480, 640, MINIMAL, (480, 1280)) == (480, 640)


def test_a_pair_without_keep_aspect_is_exact():
    assert network_size(480, 640, COVER, (266, 350), keep_aspect=False) == (266, 350)
    assert network_size(480, 640, SQUARE, cast(Any, [256, 320])) == (256, 320)
    with pytest.raises(ValueError, match=r"multiples of 14 .*250 x 350.* 252 x 350"):
        network_size(480, 640, COVER, (250, 350), keep_aspect=False)
    with pytest.raises(ValueError, match="14 x 14"):
        network_size(480, 640, COVER, (3, 1), keep_aspect=False)


@pytest.mark.parametrize("preprocess", [COVER, MINIMAL, SQUARE], ids=["lower_bound", "minimal", "square"])
def test_sides_are_multiples_and_the_size_is_covered_or_met(preprocess):
    rng = np.random.default_rng(0)
    step = preprocess.multiple
    for height, width, base in rng.integers(1, 3000, (2000, 3)).tolist():
        h, w = original_size(height, width, preprocess, base)
        assert h % step == 0
        assert w % step == 0
        assert min(h, w) >= step
        if preprocess.method == "lower_bound":
            assert base <= min(h, w) < base + step
        elif preprocess.keep_aspect:
            assert min(abs(h - base), abs(w - base)) <= step / 2 or min(h, w) == step
        if preprocess.keep_aspect and min(h, w) > step:
            # Each side is off by at most half a multiple, or by one where lower_bound rounds upwards.
            assert abs(w - h * width / height) <= step * (1 + width / height)


@pytest.mark.parametrize("size", [0, -14, 2.5, "518", True, (518,), (518, 518, 3), (0, 14), (14, 2.0), None])
def test_an_invalid_size_is_refused(size):
    if size is None:  # control
        assert network_size(480, 640, COVER, size) == (518, 686)
        return
    with pytest.raises(ValueError, match="size"):
        network_size(480, 640, COVER, size)


@pytest.mark.parametrize(
    ("height", "width", "preprocess", "size", "found"),
    [
        (1, 400, COVER, None, "518 x 207200"),
        (400, 1, COVER, None, "207200 x 518"),
        (350, 20, COVER, None, "9072 x 518"),
        (1, 400, COVER, 252, "252 x 100800"),
        (1, 400, COVER, 784, "784 x 313600"),
        (1, 400, COVER, (518, 518), "518 x 207200"),
        (500, 50_000, MINIMAL, None, "384 x 38400"),
        (1, 10**6, COVER, None, "518 x 518000000"),
    ],
)
def test_an_elongated_image_is_refused_with_its_input_size_and_a_size_that_works(
    height, width, preprocess, size, found
):
    with pytest.raises(ImageError, match=f"{height} x {width} pixels become an input of {found}") as caught:
        network_size(height, width, preprocess, size)
    message = str(caught.value)
    assert all(way in message for way in ("Crop", "keep_aspect=False", f"{preprocess.base} x {preprocess.base}"))
    assert network_size(height, width, preprocess, (518, 518) if preprocess is COVER else 384, keep_aspect=False)
    if advised := re.search(r"smaller size, e\.g\. (\d+)", message):
        h, w = network_size(height, width, preprocess, int(advised[1]))
        assert h * w <= 12 * preprocess.base**2
    else:
        assert width == 10**6


@pytest.mark.parametrize("preprocess", [COVER, MINIMAL], ids=["lower_bound", "minimal"])
def test_panoramas_of_1_to_8_and_large_requested_sizes_are_accepted(preprocess):
    base = preprocess.base
    assert network_size(600, 4800, preprocess)[1] >= base * 8 * 0.5
    assert network_size(4000, 500, COVER) == (4144, 518)
    assert network_size(480, 640, COVER, 2072) == (2072, 2758)
    assert network_size(1, 400, COVER, (518, 10_360), keep_aspect=False) == (518, 10_360), "an exact pair is a wish"


@pytest.mark.parametrize("size", [(5600, 5600), (14, 2_800_000)])
def test_no_input_has_more_than_22_megapixels(size):
    assert size[0] * size[1] > LARGEST > 20e6
    with pytest.raises(ValueError, match=f"{size[0]} x {size[1]}"):
        network_size(480, 640, COVER, size, keep_aspect=False)
    with pytest.raises(ImageError, match="480 x 640 pixels become an input of 5600 x 7462"):
        network_size(480, 640, COVER, 5600)


def test_prepare_refuses_an_elongated_image_before_it_takes_memory():
    with pytest.raises(ImageError, match="518 x 207200"):
        prepare(np.zeros((1, 400, 3), np.uint8), COVER)
    image = np.zeros((1, 2_000_000, 3), np.uint8)
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match="1:2000000"):
            prepare(image, COVER)
        assert tracemalloc.get_traced_memory()[1] < image.nbytes / 10
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("height", "width"), [(0, 5), (5, 0), (-1, 5), (2.0, 5)])
def test_an_image_without_pixels_has_no_size(height, width):
    with pytest.raises(ValueError, match=f">= 1, got {height if height != 5 else width}"):
        network_size(height, width, COVER)


# Preparing ----------------------------------------------------------------------------------------------------------

OPENCV = [
    # image, input, step of the stored samples, largest difference allowed (at least twice the measured one)
    ((7, 9), (14, 28), (1, 1), 5e-6),
    ((40, 31), (14, 14), (1, 1), 1e-5),
    ((480, 640), (518, 686), (37, 41), 2e-4),
    ((1512, 2016), (518, 686), (37, 41), 5e-4),
]


def opencv(image, network) -> np.ndarray:
    with np.load(DATA / "opencv_cubic.npz") as golden:
        return golden[f"{image[0]}x{image[1]}_{network[0]}x{network[1]}"]


@pytest.mark.parametrize(("image", "network", "step", "bound"), OPENCV)
def test_resizing_equals_that_of_opencv(image, network, step, bound):
    x = prepare(noise(*image), PLAIN, network, keep_aspect=False)
    assert x.shape == (1, 3, *network)
    assert x.dtype == torch.float32
    samples = x[0, :, :: step[0], :: step[1]].permute(1, 2, 0)
    np.testing.assert_allclose(samples, opencv(image, network), rtol=0, atol=bound)


@pytest.mark.parametrize(("image", "network", "step", "bound"), OPENCV[:3])
@pytest.mark.parametrize(
    "options",
    [
        {"mode": "bilinear", "align_corners": False},
        {"mode": "bicubic", "align_corners": True},
        {"mode": "bicubic", "align_corners": False, "antialias": True},
    ],
    ids=["bilinear", "corners", "antialias"],
)
def test_other_resizing_differs_from_that_of_opencv(image, network, step, bound, options):
    x = torch.from_numpy(noise(*image)).permute(2, 0, 1)[None] / 255
    samples = F.interpolate(x, network, **options)[0, :, :: step[0], :: step[1]].permute(1, 2, 0).numpy()
    # Antialiasing matters only for shrinking, but it also implies a = -0.5 instead of -0.75.
    assert np.abs(samples - opencv(image, network)).max() > 50 * bound


def test_resizing_happens_before_rounding():
    # OpenCV on uint8 would round and clip to 0..255. The original code resizes floats, which overshoot.
    image = np.zeros((14, 14, 3), np.uint8)
    image[:, 7:] = 255
    x = prepare(image, PLAIN, (28, 28), keep_aspect=False)
    assert x.min() < -0.01
    assert x.max() > 1.01


def test_values_are_normalised_channel_by_channel():
    image = np.empty((14, 28, 3), np.uint8)
    image[:] = (255, 0, 51)
    x = prepare(image, COVER, (14, 28), keep_aspect=False)
    expected = [(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0.2 - 0.406) / 0.225]
    np.testing.assert_allclose(x.amin((0, 2, 3)), expected, rtol=1e-6)
    np.testing.assert_allclose(x.amax((0, 2, 3)), expected, rtol=1e-6)


def test_an_image_of_the_right_size_is_not_resampled():
    image = noise(28, 42)
    x = prepare(image, PLAIN, (28, 42), keep_aspect=False)
    assert np.array_equal(x[0].permute(1, 2, 0).numpy(), image.astype(np.float32) / np.float32(255))
    assert x.is_contiguous()


def test_the_input_has_the_network_size():
    assert prepare(noise(48, 64), COVER).shape == (1, 3, 518, 686)
    assert prepare(noise(48, 64), COVER, 56).shape == (1, 3, 56, 70)
    assert prepare(noise(48, 64), COVER, 56, keep_aspect=False).shape == (1, 3, 56, 56)
    assert prepare(noise(48, 64), SQUARE, 32).shape == (1, 3, 32, 32)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 300)])
def test_images_one_pixel_wide_work(shape):
    image = np.full((*shape, 3), 102, np.uint8)
    for preprocess in (PLAIN, replace(PLAIN, method="minimal")):
        x = prepare(image, preprocess, 28)
        assert tuple(x.shape[2:]) == network_size(shape[0], shape[1], preprocess, 28)
        np.testing.assert_allclose(x, 0.4, atol=1e-6)  # the weights of a bicubic sample sum to 1


def test_views_and_read_only_arrays_give_the_same_input_and_are_not_changed():
    image = noise(30, 20)
    expected = prepare(image.copy(), COVER, 28)
    frozen = image.copy()
    frozen.setflags(write=False)
    views = {
        "read-only": frozen,
        "column-major": np.asfortranarray(image),
        "mirrored twice": image[::-1, ::-1].copy()[::-1, ::-1],
        "BGR reversed": image[..., ::-1].copy()[..., ::-1],
        "cropped": np.pad(image, ((3, 1), (2, 5), (0, 0)))[3:-1, 2:-5],
    }
    for name, view in views.items():
        before = view.copy()
        x = prepare(view, COVER, 28)
        assert torch.equal(x, expected), name
        assert np.array_equal(view, before), name
        assert x.is_contiguous(), name


def test_prepare_takes_files_and_refuses_other_arrays(tmp_path):
    image = noise(30, 20)
    Image.fromarray(image).save(tmp_path / "a.png")
    assert torch.equal(prepare(tmp_path / "a.png", COVER, 28), prepare(image, COVER, 28))
    with pytest.raises(ImageError, match="float64"):
        prepare(image / 255, COVER, 28)


# Restoring ----------------------------------------------------------------------------------------------------------


def plane(height: int, width: int) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (3.0 * y - 2.0 * x)[None]


def test_with_align_corners_the_corner_pixels_keep_their_values():
    # A plane over 5 x 9 samples, stretched to 9 x 25 with fixed corners, has a half and a third of its slopes.
    out = restore(plane(5, 9), (9, 25), replace(COVER, restore=("bilinear", True)))
    y, x = np.mgrid[:9, :25]
    np.testing.assert_allclose(out[0], 3.0 * y / 2 - 2.0 * x / 3, atol=1e-5)


def test_without_align_corners_pixels_are_areas():
    out = restore(plane(5, 9), (10, 27), replace(COVER, restore=("bilinear", False)))
    y, x = (np.mgrid[:10, :27] + 0.5) / np.array([2, 3])[:, None, None] - 0.5  # centres of small pixels in large ones
    y, x = y.clip(0, 4), x.clip(0, 8)  # the border is repeated beyond the outermost centres
    np.testing.assert_allclose(out[0], 3.0 * y - 2.0 * x, atol=1e-5)


def test_the_two_conventions_differ():
    aligned, areas = (restore(plane(5, 9), (10, 27), replace(COVER, restore=("bilinear", a))) for a in (True, False))
    assert (aligned - areas).abs().max() > 0.5


@pytest.mark.parametrize(("image", "network", "step", "bound"), OPENCV[:2])
def test_bicubic_restoring_equals_that_of_opencv(image, network, step, bound):
    maps = torch.from_numpy(noise(*image)).permute(2, 0, 1) / 255  # three maps
    out = restore(maps, network, replace(MINIMAL, restore=("bicubic", False)))
    np.testing.assert_allclose(out.permute(1, 2, 0), opencv(image, network), rtol=0, atol=bound)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_restoring_happens_in_float32(dtype):
    maps = plane(4, 6).to(dtype)
    assert restore(maps, (9, 7), COVER).dtype == torch.float32
    assert torch.equal(restore(maps, (9, 7), COVER), restore(maps.float(), (9, 7), COVER))
    assert torch.equal(restore(maps, (4, 6), COVER), maps.float())  # same size: values are kept


def test_restoring_to_one_pixel_and_from_one_pixel():
    for mode in (("bilinear", True), ("bilinear", False), ("bicubic", False)):
        preprocess = replace(COVER, restore=mode)
        for small, large in (((1, 1), (3, 4)), ((6, 8), (1, 1))):
            out = restore(torch.full((2, *small), 5.0), large, preprocess)
            assert out.shape == (2, *large)
            np.testing.assert_allclose(out, 5, atol=1e-5)


def test_restoring_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"\(B, h, w\), got \(1, 1, 4, 6\)"):
        restore(torch.zeros(1, 1, 4, 6), (8, 12), COVER)


# Preprocess ---------------------------------------------------------------------------------------------------------


def test_a_preprocessing_is_immutable():
    with pytest.raises(FrozenInstanceError):
        COVER.base = 1  # type: ignore[misc]
    assert hash(COVER) == hash(replace(COVER))
    from_json: dict[str, Any] = {"mean": [0.485, 0.456, 0.406], "restore": ["bilinear", True]}
    assert replace(COVER, **from_json) == COVER


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"base": 0}, "base .*whole number"),
        ({"base": 51.8}, "base .*whole number"),
        ({"multiple": -14}, "multiple .*whole number"),
        ({"method": "upper_bound"}, "'lower_bound' or 'minimal', got 'upper_bound'"),
        ({"mean": (0.5, 0.5)}, "mean .*three finite numbers"),
        ({"mean": (0.5, 0.5, float("nan"))}, "mean .*three finite numbers"),
        ({"std": (0.5, 0.0, 0.5)}, "std .*positive"),
        ({"restore": ("nearest", False)}, "restore"),
        ({"restore": ("bilinear", None)}, "restore"),
        ({"restore": "bilinear"}, "restore"),
    ],
)
def test_a_wrong_preprocessing_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        replace(COVER, **change)
