"""The norm explorer in headless Chromium: its exported page without a network, and its notebook in JupyterLab."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

import dpt
import probes
from dpt import demo
from probes import tokens
from probes.explorers import NormExplorer
from tests.e2e.conftest import Complaints, Shown, check_fit, colour_steps, page_from_disk, wait_until
from tests.e2e.jupyterlab import ROOT, Notebook, started
from tests.models import OBLONG, TINY

IMAGE = np.random.default_rng(3).integers(0, 255, (60, 90, 3), dtype=np.uint8)
BLOCK = 1
K = 2.0


@pytest.fixture(scope="module", params=TINY)
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(family) -> dpt.DPT:
    return TINY[family]()


@pytest.fixture(scope="module")
def cap(family, model) -> probes.Capture:
    with probes.capture(model, "norms", "tokens") as cap:
        model.predict(IMAGE, OBLONG[family], keep_aspect=False)
    return cap


@pytest.fixture(scope="module")
def path(family, model, tmp_path_factory) -> Path:
    explorer = NormExplorer(model, IMAGE, BLOCK, size=OBLONG[family], keep_aspect=False, k=K)
    return explorer.to_html(tmp_path_factory.mktemp("page") / "norms.html", channels=[BLOCK])


@pytest.fixture
def page(browser: Browser, path: Path) -> Iterator[Page]:
    with page_from_disk(browser, path, accept_downloads=True) as page:
        yield page


@pytest.fixture
def shown(page: Page) -> Shown:
    shown = Shown(page.locator(".dptx"))
    shown.wait(state="ready", block=BLOCK)
    return shown


def spread(map_) -> tuple[np.ndarray, float]:
    """(values, top) of a map that spans its own range, shifted to start at 0."""
    low, high = float(map_.min()), float(map_.max())
    return map_.values - low, high - low


def test_every_block_s_map_and_its_numbers(shown, cap):
    maps = tokens.norms(cap)
    for block, map_ in maps.items():
        assert colour_steps(shown.tile(block), *spread(map_)) <= 1
    captions = shown.root.locator(".dptx-extent").all_inner_texts()
    for caption, map_ in zip(captions, maps.values(), strict=True):
        low, high = (float(part) for part in caption.split(" – "))
        assert (low, high) == pytest.approx((float(map_.min()), float(map_.max())), rel=0.01)
    shown.root.get_by_role("button", name="Shared").click()
    low, high = (f(float(f(m)) for m in (map_.values.ravel() for map_ in maps.values())) for f in (min, max))

    def share_one_range() -> bool:
        return all(colour_steps(shown.tile(block), map_.values - low, high - low) <= 1 for block, map_ in maps.items())

    wait_until(shown.page, share_one_range)


def test_outliers_are_python_s_and_follow_the_slider(shown, cap):
    maps = tokens.norms(cap)
    for k in (K, 1.0):
        shown.root.get_by_label("Deviations until").fill(str(k))
        counts = {block: int(tokens.outliers(map_, k).sum()) for block, map_ in maps.items()}
        shown.wait(outliers=counts[BLOCK])
        titles = [item.get_attribute("title") for item in shown.root.locator(".dptx-count").all()]
        assert [int(title.split()[2]) for title in titles if title] == list(counts.values())
    chip = shown.root.locator(".dptx-outlier").first
    row, col = np.unravel_index(int(maps[BLOCK].values.argmax()), maps[BLOCK].shape)
    assert chip.inner_text() == f"({row}, {col})"
    chip.click()  # no kernel here: it is pinned
    assert f"({row}, {col})" in shown.root.locator(".dptx-pins").inner_text()
    assert shown.root.get_by_role("button", name="Who looks at it").count() == 0


def test_the_value_under_the_pointer_is_read_off_on_the_picture_and_on_any_map(shown, cap):
    maps = tokens.norms(cap)
    rows, cols = maps[BLOCK].shape
    shown.point_at(1, 2, rows, cols)
    text = shown.root.locator(".dptx-readout").inner_text()
    assert text.split("\n")[0].startswith("Patch (1, 2)")
    value = float(text.split("norm ")[1].split()[0])
    assert value == pytest.approx(float(maps[BLOCK][1, 2]), rel=0.01)
    last = max(maps)
    rows, cols = maps[last].shape
    box = shown.root.locator(f'canvas[data-tile="{last}"]').bounding_box()
    assert box is not None
    shown.page.mouse.move(box["x"] + box["width"] * (cols - 0.5) / cols, box["y"] + box["height"] * 0.5 / rows)
    readout = shown.root.locator(".dptx-readout")
    expect(readout).to_contain_text(f"block {last}: norm")
    text = readout.inner_text()
    assert f"(0, {cols - 1})" in text
    assert float(text.split("norm ")[1].split()[0]) == pytest.approx(float(maps[last][0, cols - 1]), rel=0.01)


def test_a_click_enlarges_with_histogram_and_a_channel_is_a_channel(shown, cap):
    shown.root.locator(f'canvas[data-tile="{BLOCK}"]').click()
    large = shown.root.locator('canvas[data-tile="large"]')
    large.wait_for()
    map_ = tokens.norms(cap)[BLOCK]
    assert colour_steps(shown.tile("large"), *spread(map_)) <= 1
    histogram = shown.root.locator(".dptx-histogram")
    shown.page.wait_for_function("(h) => h.dataset.bins !== undefined", arg=histogram.element_handle())
    counts = [int(count) for count in (histogram.get_attribute("data-bins") or "").split(",")]
    assert sum(counts) == map_.size
    shown.stage.focus()
    shown.page.keyboard.press("n")
    shown.wait(what="channel", channel=0)
    shown.page.keyboard.press("}")
    shown.wait(channel=1)
    shown.root.get_by_label("Number of the channel").fill("5")
    shown.page.keyboard.press("Enter")
    shown.wait(channel=5)
    values = tokens.channels(cap, BLOCK)[5].values
    top = np.abs(values).max()
    assert colour_steps(shown.tile("large"), values + top, 2 * top, "RdBu_r") <= 1
    shown.stage.focus()
    shown.page.keyboard.press("]")  # the channels of the next block are not in the page
    shown.wait(what="norm", block=BLOCK + 1)
    assert shown.root.get_by_text("Its channels are not in this page").is_visible()
    assert shown.root.locator(".dptx-large-head [aria-pressed='true']").all_inner_texts() == ["Norm"]  # what is painted
    status = shown.root.locator(".dptx-status-text")
    for key, why in [("}", "Its channels are not in this page"), ("w", "Attention is not in this page")]:
        shown.page.keyboard.press(key)
        assert status.inner_text().startswith(why)
        shown.page.keyboard.press("s")
        assert status.inner_text().startswith(f"Block {BLOCK + 1}:")
    shown.page.keyboard.press("Escape")
    shown.page.wait_for_function("() => document.querySelector('.dptx-enlarged-block').hidden")


def test_similarity_follows_the_pointer_until_a_patch_is_pinned(shown, cap, tmp_path):
    for key in "enn":
        shown.page.keyboard.press(key)
    grid = cap.grid_of(f"encoder.blocks.{BLOCK}.tokens")
    readout = shown.root.locator(".dptx-readout")
    for place in [(1, 2), (0, 1)]:
        shown.point_at(*place, grid.rows, grid.cols)
        shown.wait(what="similarity", **{"with": grid.token(*place)})
        map_ = tokens.similarity(cap, BLOCK, place)
        assert colour_steps(shown.tile("large"), *spread(map_)) <= 1
        assert f"Patch ({place[0]}, {place[1]})" in readout.inner_text()
        assert f"block {BLOCK}: similarity with this one, norm" in readout.inner_text()
    shown.page.keyboard.press("d")
    shown.wait(centred="true")
    centred = tokens.similarity(cap, BLOCK, (0, 1), centred=True)
    assert colour_steps(shown.tile("large"), centred.values + 1, 2, "RdBu_r") <= 1
    shown.page.keyboard.press("Enter")  # pinned: the pointer reads off from now on
    shown.point_at(1, 2, grid.rows, grid.cols)
    shown.wait(token=cap.grid.token(1, 2))
    said = readout.inner_text()
    assert "Patch (1, 2)" in said
    kept, reading = (
        shown.stage.locator(f".dptx-mark-{kind}").evaluate("(mark) => mark.style.transform") for kind in ("kept", "a")
    )
    assert (kept, reading) == ("translate(100%, 0%)", "translate(200%, 100%)")  # of a mark's own size: (col, row)
    value = said.split("centred similarity with (0, 1) is ")[1].split(",")[0].replace("\u2212", "-")
    assert float(value) == pytest.approx(float(centred[1, 2]), abs=0.006)
    assert colour_steps(shown.tile("large"), centred.values + 1, 2, "RdBu_r") <= 1
    with shown.page.expect_download() as download:
        shown.root.get_by_role("button", name="NPZ").click()
    download.value.save_as(tmp_path / "norms.npz")
    with np.load(tmp_path / "norms.npz") as arrays:
        np.testing.assert_allclose(arrays["similarity"], centred, atol=2e-3)
        assert arrays["similarity_of"].tolist() == [BLOCK, grid.token(0, 1)]
    shown.page.keyboard.press("]")  # its channels are not in the page
    shown.wait(what="norm", block=BLOCK + 1)
    shown.page.keyboard.press("d")  # nothing to be centred there, and it says so
    assert shown.root.locator(".dptx-status-text").inner_text().startswith("Its channels are not in this page")
    shown.page.keyboard.press("[")
    shown.wait(what="similarity", block=BLOCK, centred="true")


def test_similarity_with_the_class_token_in_a_page_that_opens_with_it(browser, tmp_path):
    model, size = TINY["depth-anything"](), OBLONG["depth-anything"]
    state = {"token": 0, "what": "similarity", "enlarged": True, "centred": True}
    path = NormExplorer(model, IMAGE, BLOCK, size=size, keep_aspect=False, **state).to_html(
        tmp_path / "norms.html", channels=[BLOCK]
    )
    with probes.capture(model, "tokens") as cap:
        model.predict(IMAGE, size, keep_aspect=False)
    with page_from_disk(browser, path) as page:
        shown = Shown(page.locator(".dptx"))
        shown.wait(state="ready", what="similarity", **{"with": 0})
        wanted = tokens.similarity(cap, BLOCK, token=0, centred=True)
        assert colour_steps(shown.tile("large"), wanted.values + 1, 2, "RdBu_r") <= 1
        assert "Token cls" in shown.root.locator(".dptx-readout").inner_text()


def test_keys_work_at_once_and_after_a_button_that_goes(shown):
    page = shown.page
    page.keyboard.press("Enter")  # no click before
    page.keyboard.press("e")
    shown.root.get_by_role("button", name="Close the enlarged block").click()
    page.keyboard.press("x")
    assert shown.root.get_by_role("button", name="Outline").get_attribute("aria-pressed") == "false"
    shown.root.get_by_title("Release the pin").click()
    page.keyboard.press("x")
    assert shown.root.get_by_role("button", name="Outline").get_attribute("aria-pressed") == "true"
    assert shown.stage.evaluate("(stage) => stage.matches(':focus')")


def test_maps_are_walked_by_arrow_keys(shown):
    tabbed = shown.root.locator(".dptx-tile[tabindex='0']")
    assert tabbed.inner_text().split()[:2] == ["Block", str(BLOCK)]
    tabbed.focus()
    before = shown.state("token")
    shown.page.keyboard.press("ArrowRight")
    assert shown.page.evaluate("document.activeElement.innerText").split()[:2] == ["Block", str(BLOCK + 1)]
    assert tabbed.count() == 1
    assert shown.state("token") == before
    shown.page.keyboard.press("Enter")
    shown.wait(block=BLOCK + 1)
    assert shown.root.locator('canvas[data-tile="large"]').is_visible()


PIXELS = "(c) => [c.width, c.height, [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]]"


def test_outlines_are_dashed_and_of_another_colour_than_the_pin(shown, cap):
    shown.root.get_by_label("Deviations until").fill("1")
    shown.wait(outliers=int(tokens.outliers(tokens.norms(cap)[BLOCK], 1.0).sum()))
    width, height, data = shown.stage.locator(".dptx-outline").evaluate(PIXELS)
    pixels = np.array(data, np.uint8).reshape(height, width, 4).astype(int)
    drawn = pixels[pixels[..., 3] > 150][:, :3]
    assert (drawn.min(1) > 240).any()
    assert (drawn.max(1) < 15).any()  # between the dashes
    assert drawn.std(1).max() < 5  # black, white and grey; the pin's mark is orange


def test_bars_of_the_colour_of_the_paper_are_outlined(browser, path):
    with page_from_disk(browser, path, color_scheme="dark") as page:
        shown = Shown(page.locator(".dptx"))
        shown.wait(state="ready", block=BLOCK)
        for key in "en":
            page.keyboard.press(key)
        shown.wait(what="channel")
        histogram = shown.root.locator(".dptx-histogram")
        page.wait_for_function(
            "(h) => h.dataset.bins !== undefined && h.width === Math.round(h.clientWidth * devicePixelRatio)",
            arg=histogram.element_handle(),
        )
        width, height, data = histogram.evaluate(PIXELS)
        counts = np.array((histogram.get_attribute("data-bins") or "").split(","), int)
        muted = shown.root.evaluate("(root) => getComputedStyle(root).getPropertyValue('--dptx-muted')").strip("# ")
        wanted = np.array([int(muted[n : n + 2], 16) for n in (0, 2, 4)])
        bars = np.array(data, np.uint8).reshape(height, width, 4)[16 : height - 20]  # no words, no axis
        for n in np.flatnonzero(counts > 1):
            bar = bars[:, int((n + 0.5) / len(counts) * (width - 2)) + 1].astype(int)
            assert abs(bar[bar[:, 3] > 0][0, :3] - wanted).max() < 20  # its top


COUNTS = """(root) => [...root.querySelectorAll(".dptx-tile")].map((tile) => {
  tile.querySelector(".dptx-extent").textContent = "588 \u2013 1185";
  const count = tile.querySelector(".dptx-outlier-count");
  count.textContent = "216";
  const over = count.getBoundingClientRect().right - tile.getBoundingClientRect().right;
  return [over, count.scrollWidth - count.clientWidth];
})"""


def test_counts_of_outliers_are_never_cut(browser, path):
    with page_from_disk(browser, path, 800) as page:
        shown = Shown(page.locator(".dptx"))
        shown.wait(state="ready", block=BLOCK)
        shown.root.evaluate("(root) => root.style.setProperty('--dptx-columns', 'repeat(4, 85px)')")
        assert np.max(shown.root.evaluate(COUNTS)) < 0.5


def test_the_keyboard_alone(shown, cap):
    page = shown.page
    page.evaluate("window.reached = []; document.addEventListener('keydown', (e) => window.reached.push(e.key))")
    shown.stage.focus()
    page.keyboard.press("[")
    shown.wait(block=0)
    before = int(shown.state("token") or -1)
    page.keyboard.press("ArrowRight")
    shown.wait(token=before + 1)
    page.keyboard.press("Enter")
    assert "\u00d7" in shown.root.locator(".dptx-pins").inner_text()
    page.keyboard.press("e")
    page.keyboard.press("x")
    page.keyboard.press("s")
    page.keyboard.press("c")
    page.keyboard.press("+")
    shown.wait(outliers=int(tokens.outliers(tokens.norms(cap)[0], K + 0.5).sum()))
    for key in ("a", "b", "z", "d", "d", "w"):  # notebook commands; and what needs a kernel
        page.keyboard.press(key)
    page.keyboard.press("?")
    assert shown.root.get_by_role("dialog").is_visible()
    for _ in range(3):
        page.keyboard.press("Escape")
    assert not shown.root.get_by_role("dialog").is_visible()
    page.keyboard.press("F2")  # control: what is not ours goes on
    assert page.evaluate("window.reached") == ["F2"]


def test_downloads(shown, cap, tmp_path):
    maps = tokens.norms(cap)
    files = {}
    for name in ("NPZ", "CSV", "PNG"):
        with shown.page.expect_download() as download:
            shown.root.get_by_role("button", name=name).click()
        files[name] = tmp_path / download.value.suggested_filename
        download.value.save_as(files[name])
    with np.load(files["NPZ"]) as arrays:
        for block, map_ in maps.items():
            whole = "norms" in arrays
            np.testing.assert_array_equal(arrays["norms"][block] if whole else arrays[f"norms_{block}"], map_)
            flags = arrays["outliers"][block] if whole else arrays[f"outliers_{block}"]
            np.testing.assert_array_equal(flags, tokens.outliers(map_, K))
        np.testing.assert_allclose(
            arrays["thresholds"], [tokens.threshold(map_, K) for map_ in maps.values()], rtol=1e-6
        )
    total = sum(cap.grid_of(f"encoder.blocks.{block}.norms").tokens for block in maps)
    assert files["CSV"].read_text().count("\n") == 1 + total
    from PIL import Image

    assert len(np.unique(np.asarray(Image.open(files["PNG"]).convert("RGB")).reshape(-1, 3), axis=0)) > 200


@pytest.mark.parametrize("enlarged", [False, True])
@pytest.mark.parametrize("width", [360, 700, 1600])
def test_nothing_sticks_out_at_any_width(browser, path, width, enlarged):
    with page_from_disk(browser, path, width) as page:
        shown = Shown(page.locator(".dptx"))
        shown.wait(state="ready", block=BLOCK)
        if enlarged:
            shown.stage.focus()
            page.keyboard.press("e")
            page.keyboard.press("n")
            shown.wait(what="channel")
        check_fit(shown, width)


def test_the_shipped_notebook_in_jupyterlab(browser: Browser, tmp_path: Path):
    """Run all cells, read values, open attention at an outlier, move it to another, and reload the page with both."""
    if importlib.util.find_spec("jupyterlab") is None:
        pytest.skip("JupyterLab is not installed: pip install 'dpt-workbench[lab]'")
    name = "04_block_norms.ipynb"
    context = browser.new_context(viewport={"width": 1500, "height": 1100})
    page = context.new_page()
    complaints = Complaints()
    complaints.watch(page)
    with started(tmp_path) as lab:
        shutil.copy(ROOT / "notebooks" / name, lab.folder / name)
        notebook = Notebook(page, lab, name)
        notebook.open()
        notebook.run_all()
        shown = notebook.explorer(painted="block")
        notebook.wait_for_kernel("idle")
        model = dpt.load("demo")
        with probes.capture(model, "norms") as cap:
            model.predict(demo.sample("plaza")[0])  # as the notebook says
        maps = tokens.norms(cap)
        for block, map_ in maps.items():
            assert colour_steps(shown.tile(block), *spread(map_)) <= 1
        block = max(list(maps)[:-1], key=lambda n: int(tokens.outliers(maps[n]).sum()))  # no block reads the last one
        notebook.execute(f"explorer.block, explorer.k = {block}, 1.0")
        shown.wait(block=block, outliers=int(tokens.outliers(maps[block], 1.0).sum()))

        chips = shown.root.locator(".dptx-outlier")
        row, col = np.unravel_index(int(maps[block].values.argmax()), maps[block].shape)
        chips.first.click()
        attention = notebook.explorer(1)
        attention.wait(block=block + 1, token=cap.grid.token(int(row), int(col)), direction="column")
        second = chips.nth(1).inner_text().strip("()").split(", ")
        chips.nth(1).click()
        attention.wait(token=cap.grid.token(*map(int, second)), direction="column")
        assert page.locator(".dptx").count() == 2

        notebook.reload()
        again = notebook.explorer(painted="block")
        again.wait(block=block)
        again.stage.focus()
        page.keyboard.press("n")
        again.wait(what="channel", state="ready")
        notebook.explorer(1).wait(token=cap.grid.token(*map(int, second)))
        again.root.get_by_role("button", name="Close attention").click()
        page.wait_for_function("() => document.querySelectorAll('.dptx').length === 1")
        lab.stop_kernels()
    context.close()
    # The page is still open when the server stops; only that may be reported.
    assert [said for said in complaints if "ERR_CONNECTION" not in said and "Failed to fetch" not in said] == []
