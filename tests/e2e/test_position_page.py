"""The exported page of the position explorer in headless Chromium, without Jupyter and network: all numbers checked."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import xarray
from playwright.sync_api import Browser, expect

import probes
from probes.explorers import PositionExplorer
from probes.positions import PositionBiases, PositionTable, positions
from tests.e2e.conftest import Shown, check_fit, colour_steps, page_from_disk
from tests.models import OBLONG, TINY

FAMILIES = list(TINY)


def explorer_of(family: str) -> PositionExplorer:
    return PositionExplorer(TINY[family](), OBLONG[family])


def table_of(size=None) -> PositionTable:
    found = positions(TINY["depth-anything"](), size)
    assert isinstance(found, PositionTable)
    return found


def biases_of(family: str, size=None) -> PositionBiases:
    found = positions(TINY[family](), size)
    assert isinstance(found, PositionBiases)
    return found


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    return {family: explorer_of(family).to_html(folder / f"{family}.html") for family in FAMILIES}


@contextmanager
def opened(browser: Browser, path: Path, width: int = 1300, **options) -> Iterator[Shown]:
    with page_from_disk(browser, path, width, 1000, **options) as page:
        shown = Shown(page.locator(".dptx"))
        shown.wait(state="ready")
        yield shown


def check(shown: Shown, name: str | int, values: xarray.DataArray | np.ndarray, low, high, colormap="viridis") -> None:
    """Checks that a canvas shows these values on this range, to one of the colormap's 256 steps."""
    values, low, high = np.asarray(values), float(low), float(high)
    pixels = shown.tile(name)
    assert pixels.shape[:2] == values.shape
    assert colour_steps(pixels, values - low, high - low, colormap) <= 1


def check_signed(shown: Shown, name: str | int, values: xarray.DataArray, top=None) -> None:
    top = float(abs(values).max() if top is None else top)
    check(shown, name, values, -top, top, "RdBu_r")


def test_the_map_is_the_similarity_with_the_position_under_the_pointer(browser, pages):
    table = table_of((42, 70))
    with opened(browser, pages["depth-anything"]) as shown:
        for centred in (False, True):
            if centred:
                shown.root.get_by_role("button", name="Centred").click()
            for row, col in [(0, 0), (2, 4), (1, 1)]:
                shown.point_at(row, col, 3, 5)
                shown.wait(place=f"{row},{col}")
                similar = table.similarity((row, col), centred)
                check(shown, "stage", similar, similar.min(), similar.max())
        assert "Position (1, 1)" in shown.root.locator(".dptx-readout").inner_text()


def test_channels_are_the_table_on_either_grid_and_spectra_are_numpy_s(browser, pages):
    table, stored = table_of((42, 70)), table_of()
    with opened(browser, pages["depth-anything"]) as shown:
        for channel in (0, 3):
            check_signed(shown, channel, table.table[channel])
        shown.root.get_by_role("button", name=re.compile("^Channel 3 ")).click()
        shown.wait(image=3)
        check_signed(shown, "big", table.table[3])
        check_signed(shown, "big-native", stored.table[3])
        power = np.log10(np.maximum(table.spectrum()[3], 1e-30))
        check(shown, "big-spectrum", power, power.max() - 4, power.max())
        mean = np.log10(np.maximum(table.spectrum().mean("channel"), 1e-30))
        check(shown, "spectrum", mean, mean.max() - 4, mean.max())
        shown.stage.focus()
        shown.page.keyboard.press("g")
        shown.wait(size="518x518")
        check_signed(shown, "big", stored.table[3])
        assert shown.root.locator('canvas[data-tile="big-native"]').count() == 0


def test_the_chosen_channel_is_outlined(browser, pages):
    from PIL import Image

    with opened(browser, pages["depth-anything"]) as shown:
        shown.stage.focus()
        shown.page.keyboard.press("h")
        shown.wait(image=0)
        accent = shown.root.evaluate("(root) => getComputedStyle(root).getPropertyValue('--dptx-accent')").strip()

        def edge(channel: int) -> list[str]:
            frame = shown.root.locator(".dptx-frame", has=shown.page.locator(f'canvas[data-tile="{channel}"]'))
            pixels = np.asarray(Image.open(io.BytesIO(frame.screenshot())).convert("RGB"))
            return ["#" + bytes(pixel).hex() for pixel in pixels[:3, pixels.shape[1] // 2]]

        assert accent in edge(0)
        assert accent not in edge(1)


def offset(steps: int) -> str:
    return f"{steps:+d}".replace("-", "\u2212") if steps else "0"


def test_small_shares_are_written_like_everywhere(browser, pages):
    with opened(browser, pages["depth-anything"]) as shown:
        spectrum = shown.root.locator('canvas[data-tile="spectrum"]')
        box = spectrum.bounding_box()
        assert box is not None
        words = shown.root.locator(".dptx-words")
        said = set()
        for row in range(3):
            for col in range(5):
                x, y = box["x"] + box["width"] * (col + 0.5) / 5, box["y"] + box["height"] * (row + 0.5) / 3
                shown.page.mouse.move(x, y)
                wave = f"wave {offset(row - 1)} down, {offset(col - 2)} right: "
                expect(words).to_contain_text(wave)
                said.add(words.inner_text().split(": ")[1])
        assert len(said) > 3
        assert not any("e-" in words for words in said)


@pytest.mark.parametrize("family", ["beit", "swinv2"])
def test_biases_of_every_block_and_the_query_under_the_pointer(browser, pages, family):
    biases = biases_of(family, OBLONG[family])
    with opened(browser, pages[family]) as shown:
        shown.stage.focus()
        for block in biases:
            shown.wait(block=block)
            bias, span = biases[block], biases.span(block)
            mean = bias.mean("head")
            for name, values in [*enumerate(bias), ("mean", mean)]:
                if family == "beit":
                    check_signed(shown, name, values)
                else:
                    check(shown, name, values, values.min(), values.max())
            for row, col in [(0, span.cols - 1), (span.rows - 1, 0)]:
                shown.point_at(row, col, span.rows, span.cols)
                shown.wait(place=f"{row},{col}")
                cut = biases.from_query(block, (row, col)).mean("head")
                if family == "beit":
                    check_signed(shown, "stage", cut, abs(mean).max())
                else:
                    check(shown, "stage", cut, mean.min(), mean.max())
            shown.page.keyboard.press("]")


def test_the_keyboard_alone_does_everything(browser, pages):
    with opened(browser, pages["beit"]) as shown:
        page, keys = shown.page, shown.page.keyboard  # a page begins with the focus on its grid
        start = shown.state("place")
        for key, state in [
            ("ArrowUp", {"place": "0,2"}),
            ("Shift+ArrowRight", {"place": "0,4"}),
            ("]", {"block": 1}),
            ("1", {"image": 1}),
            ("h", {"image": -1}),
            ("m", {"image": "null"}),
            ("G", {"size": "80x80"}),
            ("g", {"size": "48x80"}),
            ("[", {"block": 0}),
        ]:
            keys.press(key)
            shown.wait(**state)
        assert start == "1,2"
        tabbed = shown.root.locator(".dptx-tile[tabindex='0']")
        tabbed.focus()
        keys.press("ArrowRight")
        assert page.evaluate("document.activeElement.innerText").startswith("Head 0")
        assert tabbed.count() == 1
        shown.stage.focus()
        keys.press("Enter")
        page.wait_for_selector(".dptx-pinned")
        shown.point_at(2, 1, 3, 5)
        page.wait_for_function(
            "() => document.querySelector('.dptx-readout').textContent.includes('+2 down, −3 right')"
        )
        assert shown.state("place") == "0,4"
        keys.press("Escape")
        page.wait_for_selector(".dptx:not(.dptx-pinned)")
        keys.press("?")
        assert shown.root.get_by_role("dialog").is_visible()
        keys.press("Escape")
        assert not shown.root.get_by_role("dialog").is_visible()


def test_pages_of_channels_and_their_orders(browser, pages):
    table = table_of((42, 70)).table
    strongest = table.std(("row", "col")).argsort().values[::-1]
    with opened(browser, pages["depth-anything"], width=700) as shown:
        first = [n.get_attribute("data-tile") for n in shown.root.locator(".dptx-tiles canvas:visible").all()]
        assert first == [str(n) for n in range(len(first))]
        assert 4 < len(first) < 128
        shown.stage.focus()
        shown.page.keyboard.press("]")
        check_signed(shown, len(first), table[len(first)])
        shown.page.keyboard.press("e")
        shown.root.locator(f'canvas[data-tile="{strongest[0]}"]').wait_for()
        ordered = [n.get_attribute("data-tile") for n in shown.root.locator(".dptx-tiles canvas:visible").all()]
        assert ordered == [str(n) for n in strongest[: len(ordered)]]


@pytest.mark.parametrize("family", FAMILIES)
def test_numbers_and_code_that_are_taken_along(browser, pages, family, tmp_path):
    size = OBLONG[family]
    truth = positions(TINY[family](), size)
    with opened(browser, pages[family], accept_downloads=True) as shown:
        shown.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        shown.stage.focus()
        row, col = (2, 1) if family == "swinv2" else (1, 1)  # one to the left of the middle
        shown.page.keyboard.press("ArrowLeft")
        shown.wait(place=f"{row},{col}")
        files = {}
        for kind in ("npz", "png"):
            with shown.page.expect_download() as download:
                shown.root.get_by_role("button", name=kind.upper()).click()
            assert download.value.suggested_filename.endswith(f"{size[0]}x{size[1]}_{row}-{col}.{kind}")
            files[kind] = tmp_path / download.value.suggested_filename
            download.value.save_as(files[kind])
        shown.root.get_by_role("button", name="Copy Python").click()
        shown.root.get_by_role("button", name="Copied").wait_for()
        code = shown.page.evaluate("navigator.clipboard.readText()")
    names = {"model": TINY[family](), "probes": probes}
    exec(code, names)
    with np.load(files["npz"]) as arrays:
        assert tuple(arrays["size"]) == size
        assert tuple(arrays["patch"]) == (row, col)
        if isinstance(truth, PositionTable):
            np.testing.assert_array_equal(arrays["table"], truth.table)
            np.testing.assert_array_equal(arrays["class_token"], truth.table["class_token"])
            np.testing.assert_allclose(arrays["similarity"], truth.similarity((row, col)), atol=1e-6)
            assert f"positions.similarity(({row}, {col}))" in code
        else:
            np.testing.assert_array_equal(arrays["bias"], truth[0])
            np.testing.assert_array_equal(arrays["from_query"], truth.from_query(0, (row, col)))
            assert ("class_token" in arrays) == (family == "beit")
            assert f"biases.from_query(0, ({row}, {col}))" in code
    from PIL import Image

    picture = np.asarray(Image.open(files["png"]).convert("RGB"))
    assert picture.shape[1] > 900
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 100


@pytest.mark.parametrize("width", [360, 700, 1600])
@pytest.mark.parametrize("family", ["depth-anything", "swinv2"])
def test_nothing_sticks_out_at_any_width(browser, pages, family, width):
    with opened(browser, pages[family], width=width) as shown:
        shown.stage.focus()
        shown.page.keyboard.press("h")
        shown.page.wait_for_selector('canvas[data-tile="big-native"]')  # the widest: the page contains this size too
        check_fit(shown, width)
