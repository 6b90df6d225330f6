"""Every file of numbers holds the values that it names, however the view is coloured, sorted or scaled.

Each control of the display is pressed in a page, and the file is saved again.
"""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator

from probes.explorers import (
    AttentionExplorer,
    DepthExplorer,
    FusionExplorer,
    ModelTour,
    NormExplorer,
    PositionExplorer,
)
from tests.e2e.conftest import page_from_disk
from tests.models import tiny_model

IMAGE = np.random.default_rng(3).integers(0, 255, (60, 90, 3), dtype=np.uint8)
SIZE = {"size": (42, 56), "keep_aspect": False}


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """An image file with a name that not every system can write."""
    path = tmp_path_factory.mktemp("photos") / 'my "photo", 1.png'
    Image.fromarray(IMAGE).save(path)
    return path


def saved(root: Locator, button: str) -> tuple[str, bytes]:
    with root.page.expect_download() as caught:
        root.get_by_role("button", name=button, exact=True).first.click()
    return caught.value.suggested_filename, caught.value.path().read_bytes()


def arrays_of(content: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return dict(archive)


# explorer, options of its page, button, and the names of buttons or the keys that change the display only
CASES = {
    "attention": (lambda m, f: AttentionExplorer(m, f, block=1, **SIZE), {"blocks": [1]}, "NPZ", ["s", "s", "o", "c"]),
    "difference": (
        lambda m, f: AttentionExplorer(m, f, block=1, pins=[3, 6], compare="difference", **SIZE),
        {"blocks": [1]},
        "NPZ",
        ["s", "s", "o", "c"],
    ),
    "norms": (
        lambda m, f: NormExplorer(m, f, block=1, what="channel", channel=3, **SIZE),
        {"channels": [1]},
        "NPZ",
        ["s", "s", "c", "o"],
    ),
    "table": (lambda m, f: PositionExplorer(m, (42, 56)), {}, "NPZ", ["s", "o", "c", "v"]),
    "depth": (lambda m, f: DepthExplorer(m, f, far=0.2, size=70), {}, "NPY", ["e", "c", "s"]),
    "plane": (lambda m, f: DepthExplorer(m, f, plane=True, far=0.1, size=70), {}, "NPY", ["e", "c"]),
    "fusion": (
        lambda m, f: FusionExplorer(m, f, {"fusion.2": -1.0}, **SIZE),
        {"steps": None},
        "NPY",
        ["Range of unscaled", "Reversed", "High contrast", "Unscaled", "Difference", "Picture"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_no_control_of_the_display_changes_saved_numbers(browser: Browser, tmp_path, photo, case):
    make, options, kind, controls = CASES[case]
    page_path = make(tiny_model(), photo).to_html(tmp_path / "page.html", **options)
    with page_from_disk(browser, page_path, accept_downloads=True) as page:
        root = page.locator(".dptx")
        page.locator(".dptx:is([data-token], [data-place], [data-far], [data-scales])").wait_for()
        name, first = saved(root, kind)
        for control in controls:
            if len(control) == 1:
                root.focus()
                page.keyboard.press(control)
            else:
                root.get_by_role("button", name=control, exact=True).first.click()
            again_name, again = saved(root, kind)
            assert again_name == name
            if kind == "NPY":
                assert again == first, control
                continue
            before, after = arrays_of(first), arrays_of(again)
            assert before.keys() == after.keys()
            for entry in before.keys() - {"meta"}:
                np.testing.assert_array_equal(before[entry], after[entry], err_msg=f"{entry} after {control}")
        page_name, _ = saved(root, "HTML")
    for file in (name, page_name):
        assert ("my-photo-1" in file) == (case != "table")
    if kind == "NPZ":
        found = arrays_of(first)
        meta = json.loads(str(found["meta"]))
        assert str(found["model"]) == meta["model"] == tiny_model().title
        assert str(found["image"]) == meta.get("image", "") == ("" if case == "table" else photo.name)
        assert meta["title"]
        assert meta["unit"]


def test_saved_depth_is_what_python_computes(browser: Browser, tmp_path, photo):
    depth = DepthExplorer(tiny_model(), photo, far=0.2, plane=True, size=(60, 90))
    wanted = depth.map
    depth.equalise = True
    with page_from_disk(browser, depth.to_html(tmp_path / "page.html"), accept_downloads=True) as page:
        root = page.locator(".dptx")
        page.wait_for_selector(".dptx[data-state=ready]")
        name, content = saved(root, "NPY")
        values = np.load(io.BytesIO(content))
        assert name == "depth_0.20-1.00_minus-plane_inverse_my-photo-1.npy"
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, wanted, atol=1e-5)
        for button, width in (("PNG", None), ("Plain", 90)):
            name, content = saved(root, button)
            picture = Image.open(io.BytesIO(content))
            assert "even-colours" in name
            assert picture.size[0] == (width or picture.size[0])
            assert picture.size[0] > 900 or button == "Plain"
            assert picture.info["Title"].endswith("minus the plane, even colours")
            assert json.loads(picture.info["Description"])["image"] == photo.name


def test_the_page_of_a_tour_is_named_after_part_and_image(browser: Browser, tmp_path, photo):
    tour = ModelTour(tiny_model(), photo, part="encoder.blocks.1", **SIZE)
    with page_from_disk(browser, tour.to_html(tmp_path / "page.html"), accept_downloads=True) as page:
        page.wait_for_selector(".dptx[data-state=ready]")
        assert saved(page.locator(".dptx"), "HTML")[0] == "tour_encoder-blocks-1_my-photo-1.html"
