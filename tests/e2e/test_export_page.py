"""The exported page in a headless Chromium: the JavaScript that ships, without Jupyter and without any network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

import probes
from probes.explorers import AttentionExplorer
from tests.e2e import bench_hover
from tests.e2e.conftest import Complaints, Shown, check_fit, colour_steps, page_from_disk
from tests.models import tiny_model

HEADS, ROWS, COLS = 2, 5, 7
SIZE = (70, 98)
IMAGE = np.random.default_rng(3).integers(0, 255, (60, 90, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def matrices(model) -> dict[int, np.ndarray]:
    """Exact attention (heads, queries, keys) of every block."""
    with probes.capture(model, "attention") as capture:
        model.predict(IMAGE, SIZE, keep_aspect=False)
    return {i: capture[f"encoder.blocks.{i}.attention"].matrix()[0].numpy() for i in range(4)}


@pytest.fixture(scope="module")
def path(model, tmp_path_factory) -> Path:
    explorer = AttentionExplorer(model, IMAGE, 1, size=SIZE, keep_aspect=False)
    return explorer.to_html(tmp_path_factory.mktemp("page") / "attention.html", blocks=[1, 3])


@pytest.fixture
def page(browser: Browser, path: Path) -> Iterator[Page]:
    with page_from_disk(browser, path, 1200, 800, accept_downloads=True) as page:
        yield page


@pytest.fixture
def shown(page: Page) -> Shown:
    shown = Shown(page.locator(".dptx"))
    shown.wait(state="ready", block=1)
    return shown


def token(row: int, col: int) -> int:
    return 1 + row * COLS + col


def as_map(values: np.ndarray) -> np.ndarray:
    return values[1:].reshape(ROWS, COLS)


def check(shown: Shown, maps: list[np.ndarray], shared: bool = False, colormap: str = "viridis") -> None:
    """All tiles are these maps through the colormap, each to its own largest patch or all to the heads' largest."""
    top = max(m.max() for m in maps[:-1])
    for pixels, values in zip(shown.tiles(HEADS), maps, strict=True):
        assert colour_steps(pixels, values, top if shared else values.max(), colormap) <= 1


def rows_of(matrix: np.ndarray, index: int) -> list[np.ndarray]:
    row = matrix[:, index]
    return [as_map(values) for values in [*row, row.mean(0)]]


def columns_of(matrix: np.ndarray, index: int) -> list[np.ndarray]:
    column = matrix[:, :, index]
    return [as_map(values) for values in [*column, column.mean(0)]]


def test_the_tiles_are_the_softmax_rows_of_the_patch_under_the_pointer(shown, matrices):
    for row, col in [(1, 2), (4, 6)]:
        shown.point_at(row, col, ROWS, COLS)
        shown.wait(token=token(row, col))
        check(shown, rows_of(matrices[1], token(row, col)))
    # control: the check tells two patches apart
    with pytest.raises(AssertionError):
        check(shown, rows_of(matrices[1], token(1, 2)))


def test_the_slider_has_the_embedded_blocks_and_columns_are_columns(shown, matrices):
    shown.point_at(2, 3, ROWS, COLS)
    shown.root.get_by_role("button", name="Next block").click()
    shown.wait(block=3)
    shown.root.get_by_role("button", name="Next block").click()
    shown.wait(block=3, state="ready")  # 3 is the last
    shown.stage.focus()
    shown.page.keyboard.press("[")
    shown.wait(block=1)
    shown.page.keyboard.press("]")
    shown.wait(block=3)
    shown.point_at(2, 3, ROWS, COLS)
    shown.root.get_by_role("button", name="Who looks at this patch").click()
    shown.wait(direction="column")
    shown.point_at(2, 4, ROWS, COLS)
    shown.wait(token=token(2, 4))
    check(shown, columns_of(matrices[3], token(2, 4)))


def test_scales_and_colormaps(shown, matrices):
    shown.point_at(0, 0, ROWS, COLS)
    shown.wait(token=token(0, 0))
    shown.stage.focus()
    shown.page.keyboard.press("s")
    shown.page.keyboard.press("c")  # cividis
    shown.after_paint()
    maps = rows_of(matrices[1], token(0, 0))
    check(shown, maps, shared=True, colormap="cividis")
    shown.page.keyboard.press("s")
    shown.after_paint()
    top = max(m.max() for m in maps[:-1])
    for pixels, values in zip(shown.tiles(HEADS), maps, strict=True):
        position = 1 - np.log(np.maximum(values / top, 1e-4)) / np.log(1e-4)
        assert colour_steps(pixels, position, 1.0, "cividis") <= 1


def test_keys_move_the_patch_and_do_not_reach_the_page(shown, matrices):
    reached = "window.reached = []; document.addEventListener('keydown', (e) => window.reached.push(e.key))"
    shown.page.evaluate(reached)
    shown.point_at(1, 1, ROWS, COLS)
    shown.stage.focus()
    for key, place in [("ArrowRight", (1, 2)), ("ArrowDown", (2, 2)), ("ArrowLeft", (2, 1)), ("ArrowUp", (1, 1))]:
        shown.page.keyboard.press(key)
        shown.wait(token=token(*place))
    check(shown, rows_of(matrices[1], token(1, 1)))
    for key in ("a", "b", "x", "z", "1", "1"):  # notebook commands, meaningless or not
        shown.page.keyboard.press(key)
    shown.page.keyboard.press("Control+a")  # selects all cells in a notebook
    shown.page.keyboard.press("F2")  # control: what is meant for the application goes on
    shown.page.keyboard.press("Control+b")
    assert shown.page.evaluate("window.reached") == ["F2", "b"]


def test_pins_freeze_and_compare_and_escape_clears(shown, matrices):
    page = shown.page
    a, b = token(1, 1), token(3, 5)
    shown.point_at(1, 1, ROWS, COLS)
    page.mouse.down()
    page.mouse.up()
    shown.point_at(4, 0, ROWS, COLS)  # hovering changes nothing while A is pinned
    shown.after_paint()
    assert shown.state("token") == str(a)
    check(shown, rows_of(matrices[1], a))
    assert "A (1, 1)" in shown.root.locator(".dptx-pins").inner_text()

    shown.point_at(3, 5, ROWS, COLS)
    page.mouse.down()
    page.mouse.up()
    shown.wait(mode="difference")
    for name, ours, theirs in zip([0, 1, "mean"], rows_of(matrices[1], a), rows_of(matrices[1], b), strict=True):
        difference = ours - theirs
        top = np.abs(difference).max()
        assert colour_steps(shown.tile(name), difference + top, 2 * top, "RdBu_r") <= 1

    shown.root.get_by_role("button", name="B", exact=True).click()
    shown.wait(mode="b", token=b)
    check(shown, rows_of(matrices[1], b))
    shown.stage.focus()
    page.keyboard.press("Escape")
    shown.wait(mode="a")
    shown.point_at(0, 6, ROWS, COLS)
    shown.wait(token=token(0, 6))
    check(shown, rows_of(matrices[1], token(0, 6)))


def test_keys_work_at_once_and_after_a_pin_is_released_by_its_chip(shown):
    page, pins = shown.page, shown.root.locator(".dptx-pins")
    assert page.evaluate("scrollY") == 0
    page.keyboard.press("]")  # no click before
    shown.wait(block=3)
    for row, col in [(1, 1), (3, 5)]:
        shown.point_at(row, col, ROWS, COLS)
        page.mouse.down()
        page.mouse.up()
    shown.wait(mode="difference")
    pins.get_by_title("Release pin A").click()
    assert pins.inner_text().startswith("A (3, 5)")
    page.keyboard.press("Escape")
    assert pins.inner_text().startswith("Click to pin")
    # what goes while it has the focus leaves it to the picture, too
    page.keyboard.press("Enter")
    shown.root.get_by_role("button", name="A", exact=True).focus()
    page.keyboard.press("Escape")
    assert shown.stage.evaluate("(stage) => stage.matches(':focus')")


def test_tiles_are_walked_by_arrow_keys(shown):
    page = shown.page
    name = "() => document.activeElement.innerText"
    tabbed = shown.root.locator(".dptx-tile[tabindex='0']")
    tabbed.focus()
    before = shown.state("token")
    for key, wanted in [("ArrowRight", "Head 0"), ("ArrowDown", "Head 1"), ("Home", "Mean"), ("End", "Head 1")]:
        page.keyboard.press(key)
        assert page.evaluate(name).startswith(wanted)
        assert tabbed.count() == 1
        assert tabbed.evaluate("(tile) => tile.matches(':focus')")
    assert shown.state("token") == before  # the patch stays
    page.keyboard.press("Enter")
    assert shown.root.locator(".dptx-enlarged canvas").get_attribute("data-tile") == "1"
    shown.root.locator('canvas[data-tile="0"]').click()  # after a click arrow keys move the patch again
    page.keyboard.press("ArrowUp")
    page.wait_for_function("(before) => document.querySelector('.dptx').dataset.token !== before", arg=before)


def test_every_tile_has_its_maximum_and_a_column_its_sum(shown, matrices):
    shown.point_at(1, 2, ROWS, COLS)
    shown.wait(token=token(1, 2))
    low = shown.root.locator(".dptx-caption-low")
    for text, map_ in zip(low.all_inner_texts(), rows_of(matrices[1], token(1, 2)), strict=True):
        assert float(text.removeprefix("max ").split()[0]) == pytest.approx(100 * map_.max(), rel=0.06)
        assert "\u03a3" not in text
    assert "column" not in shown.root.locator(".dptx-readout").get_attribute("title")
    shown.page.keyboard.press("d")
    shown.wait(direction="column")
    sums = matrices[1][:, :, token(1, 2)].sum(1)
    for text, wanted in zip(low.all_inner_texts(), [*sums, sums.mean()], strict=True):
        assert float(text.split("\u03a3 ")[1]) == pytest.approx(wanted, rel=0.01)
    assert "divided by its sum" in shown.root.locator(".dptx-readout").get_attribute("title")


LONG_WORDS = """(root) => {
  const say = (name, text) => root.querySelectorAll(name).forEach((node) => (node.textContent = text));
  say(".dptx-readout strong", "Patch (30, 15)");
  say(".dptx-readout span", "Head 11: strongest 0.034 % at (30, 15) \u00b7 entropy 7.01 nats");
  say(".dptx-tile:not(.dptx-mean) .dptx-tile-name > .dptx-word", "Head 1");
  say(".dptx-tile-value > :last-child", "<0.01 %");
  root.querySelectorAll(".dptx-tile-top").forEach((node) => (node.lastChild.data = "0.12 %"));
  say(".dptx-caption-low > :last-child", "\u03a3 0.123");
  return [...root.querySelectorAll(".dptx-readout, .dptx-caption")]
    .filter((n) => n.scrollWidth > n.clientWidth || n.scrollHeight > n.clientHeight).map((n) => n.textContent);
}"""


@pytest.mark.parametrize("width", [360, 800, 1400])
def test_no_word_is_cut_and_the_bar_s_pointer_widens_nothing(browser, path, matrices, width):
    with page_from_disk(browser, path, width) as page:
        shown = Shown(page.locator(".dptx"))
        shown.wait(state="ready", block=1)
        index = int(shown.state("token") or -1)
        row, col = np.unravel_index(rows_of(matrices[1], index)[1].argmax(), (ROWS, COLS))
        shown.root.locator('canvas[data-tile="1"]').scroll_into_view_if_needed()
        box = shown.root.locator('canvas[data-tile="1"]').bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] * (col + 0.5) / COLS, box["y"] + box["height"] * (row + 0.5) / ROWS)
        page.wait_for_function("() => document.querySelector('.dptx-bar-note').textContent.includes(' at ')")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert shown.root.evaluate(LONG_WORDS) == []
        for tile in (72, 98, 112, 130):  # as small as where there are many heads
            shown.root.evaluate(f"(root) => root.style.setProperty('--dptx-columns', 'repeat(2, {tile}px)')")
            assert shown.root.evaluate(LONG_WORDS) == []
        page.keyboard.press("0")
        page.locator(".dptx-enlarged").wait_for()
        shown.after_paint()
        assert shown.root.evaluate(LONG_WORDS) == []


def test_the_class_token_is_a_chip_and_its_value_is_on_every_tile(shown, matrices):
    shown.point_at(1, 2, ROWS, COLS)
    shown.wait(token=token(1, 2))
    texts = shown.root.locator(".dptx-tile-value").all_inner_texts()
    row = matrices[1][:, token(1, 2), 0]
    for text, value in zip(texts, [*row, row.mean()], strict=True):
        assert float(text.split()[-2]) == pytest.approx(100 * value, rel=0.06)
    chip = shown.root.get_by_role("button", name="cls", exact=True)
    chip.click()
    shown.wait(token=0)
    assert chip.get_attribute("aria-pressed") == "true"
    check(shown, rows_of(matrices[1], 0))


def test_a_value_is_read_off_under_the_pointer(shown, matrices):
    shown.point_at(1, 2, ROWS, COLS)
    shown.wait(token=token(1, 2))
    box = shown.root.locator('canvas[data-tile="1"]').bounding_box()
    assert box is not None
    note = shown.root.locator(".dptx-bar-note")
    for row, col in [(4, 3), (3, 5)]:
        x, y = box["x"] + box["width"] * (col + 0.5) / COLS, box["y"] + box["height"] * (row + 0.5) / ROWS
        shown.page.mouse.move(x, y)
        shown.page.wait_for_function(f"(n) => n.textContent.includes('({row}, {col})')", arg=note.element_handle())
        name, value = note.inner_text().split(": ")
        assert name == f"Head 1 at ({row}, {col})"
        wanted = 100 * matrices[1][1, token(1, 2), token(row, col)]
        if wanted < 0.01:
            assert value == "<0.01 %"  # as the tiles write it
        else:
            assert float(value.split()[0]) == pytest.approx(wanted, rel=0.06)
    assert shown.state("token") == str(token(1, 2))  # reading does not move the patch
    # the same patch is marked on the picture
    mark, stage = shown.stage.locator(".dptx-mark-probe").bounding_box(), shown.stage.bounding_box()
    assert mark is not None
    assert stage is not None
    assert (mark["x"] - stage["x"]) / stage["width"] == pytest.approx(5 / COLS, abs=1e-3)
    assert (mark["y"] - stage["y"]) / stage["height"] == pytest.approx(3 / ROWS, abs=1e-3)
    assert shown.stage.locator(".dptx-mark-probe").evaluate("(m) => getComputedStyle(m).visibility") == "visible"


def test_a_head_is_enlarged_and_heads_are_ordered_by_focus(shown, matrices):
    widths = lambda: [shown.root.locator(f'canvas[data-tile="{n}"]').bounding_box()["width"] for n in (0, 1)]  # noqa: E731
    small = widths()
    assert small[0] == pytest.approx(small[1], abs=1)
    shown.root.locator('canvas[data-tile="1"]').click()
    shown.page.wait_for_function("() => document.querySelector('.dptx-enlarged') !== null")
    assert widths()[1] > 1.3 * widths()[0]
    shown.stage.focus()
    shown.page.keyboard.press("Escape")
    shown.page.wait_for_function("() => document.querySelector('.dptx-enlarged') === null")
    assert widths() == small

    shown.page.keyboard.press("e")
    shown.after_paint()
    entropy = -(matrices[1] * np.log(matrices[1])).sum(-1).mean(-1)
    orders = [int(shown.root.locator(".dptx-tile").nth(n).evaluate("(t) => t.style.order")) for n in range(HEADS)]
    assert list(np.argsort(orders)) == list(np.argsort(entropy))


def test_depth_under_the_overlay_and_the_picture_again(shown):
    sample = "(c) => [...c.getContext('2d').getImageData(10, 10, 8, 8).data]"
    picture = shown.root.locator(".dptx-picture")
    before = picture.evaluate(sample)
    shown.stage.focus()
    shown.page.keyboard.press("p")
    shown.page.wait_for_function(
        "(c) => { const d = c.getContext('2d').getImageData(10, 10, 8, 8).data;"
        " for (let n = 0; n < d.length; n += 4) if (d[n] !== d[n + 1]) return false; return true; }",
        arg=picture.element_handle(),
    )
    shown.page.keyboard.press("p")
    shown.after_paint()
    assert picture.evaluate(sample) == before


def test_downloads(shown, matrices, tmp_path):
    shown.point_at(1, 2, ROWS, COLS)
    shown.wait(token=token(1, 2))
    files = {}
    for name in ("NPZ", "CSV", "PNG"):
        with shown.page.expect_download() as download:
            shown.root.get_by_role("button", name=name).click()
        assert download.value.suggested_filename == f"attention_block1_row_1-2.{name.lower()}"
        files[name] = tmp_path / download.value.suggested_filename
        download.value.save_as(files[name])
    with np.load(files["NPZ"]) as arrays:
        exact = matrices[1][:, token(1, 2)]
        np.testing.assert_allclose(arrays["attention"], exact[:, 1:].reshape(HEADS, ROWS, COLS), atol=2e-3)
        np.testing.assert_allclose(arrays["prefix"], exact[:, :1], atol=2e-3)
        np.testing.assert_allclose(arrays["attention"].sum((1, 2)) + arrays["prefix"][:, 0], 1, atol=1e-5)
    assert files["CSV"].read_text().count("\n") == 1 + HEADS * 36
    from PIL import Image

    picture = np.asarray(Image.open(files["PNG"]).convert("RGB"))
    assert picture.shape[1] > 1000
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 200


def test_the_code_of_the_view_is_copied(shown):
    shown.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    shown.point_at(1, 2, ROWS, COLS)
    shown.wait(token=token(1, 2))
    shown.root.get_by_role("button", name="Copy Python").click()
    shown.root.get_by_role("button", name="Copied").wait_for()
    code = shown.page.evaluate("navigator.clipboard.readText()")
    assert 'probes.capture(model, "encoder.blocks.1.attention")' in code
    assert "model.predict(image, size=(70, 98), keep_aspect=False)" in code
    assert 'shown_attention.map(patch=(1, 2), direction="row")' in code


def test_help_opens_and_every_control_says_what_it_does(shown):
    shown.root.get_by_role("button", name="Help").click()
    assert shown.root.get_by_role("dialog").is_visible()
    shown.stage.focus()
    shown.page.keyboard.press("Escape")
    assert not shown.root.get_by_role("dialog").is_visible()
    silent = shown.root.evaluate(
        """(root) => [...root.querySelectorAll("button, select, input")]
          .filter((n) => !n.title && !n.hidden).map((n) => n.outerHTML)"""
    )
    assert silent == []
    assert shown.root.evaluate("(root) => root.querySelectorAll('[id]').length") == 0


def test_touch(browser, path, matrices):
    context = browser.new_context(offline=True, has_touch=True, viewport={"width": 800, "height": 900})
    page = context.new_page()
    page.goto(path.as_uri())
    shown = Shown(page.locator(".dptx"))
    shown.wait(state="ready", block=1)
    box = shown.stage.bounding_box()
    assert box is not None
    page.touchscreen.tap(box["x"] + box["width"] * 4.5 / COLS, box["y"] + box["height"] * 2.5 / ROWS)
    shown.wait(token=token(2, 4))
    assert "A (2, 4)" in shown.root.locator(".dptx-pins").inner_text()
    check(shown, rows_of(matrices[1], token(2, 4)))
    context.close()


@pytest.mark.parametrize("width", [360, 700, 1600])
def test_nothing_sticks_out_at_any_width(browser, path, width):
    with page_from_disk(browser, path, width) as page:
        shown = Shown(page.locator(".dptx"))
        shown.wait(state="ready", block=1)
        shown.after_paint()
        check_fit(shown, width)


def test_the_pages_of_the_hover_benchmark_open_and_answer(browser: Browser, tmp_path: Path):
    size = bench_hover.Size("small", heads=2, side=5, biased=True)
    (tmp_path / "bench.html").write_text(bench_hover.synthetic_page(size), encoding="utf-8")
    page, complaints = browser.new_page(), Complaints()
    complaints.watch(page)
    page.goto((tmp_path / "bench.html").as_uri())
    page.wait_for_selector(".dptx[data-token]")
    assert len(page.evaluate(bench_hover.MOVE, [60])) == 60
    assert float(page.locator(".dptx-status-note").get_attribute("data-median") or "nan") >= 0
    assert complaints == []
    page.close()
