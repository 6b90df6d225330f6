"""The explorer in a real JupyterLab: what a user does after `make lab`, in a headless Chromium."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from playwright.sync_api import Page, expect

import dpt
import probes
from dpt import demo
from tests.e2e.conftest import Complaints, Shown, colour_steps, wait_until
from tests.e2e.jupyterlab import CURRENT, ROOT, Lab, Notebook
from tests.models import tiny_model

IMAGE = np.random.default_rng(3).integers(0, 255, (60, 90, 3), dtype=np.uint8)

SMALL = [
    """import numpy as np
from probes.explorers import AttentionExplorer
from tests.models import tiny_model
image = np.random.default_rng(3).integers(0, 255, (60, 90, 3), dtype=np.uint8)
explorer = AttentionExplorer(tiny_model(), image, 1, size=(70, 98), keep_aspect=False)""",
    "explorer",
    "print('seen', explorer.block, explorer.pins)",
]


@pytest.fixture(scope="module")
def opened(page: Page, lab: Lab) -> Notebook:
    """A small notebook, open and run, for all tests but the one of the shipped notebook."""
    notebook = Notebook.written(page, lab, "small.ipynb", SMALL)
    notebook.explorer()
    return notebook


@pytest.fixture
def notebook(opened: Notebook) -> Notebook:
    """That notebook, with the explorer as it was at first."""
    opened.wait_for_kernel("idle")
    opened.execute("explorer.block, explorer.pins, explorer.head, explorer.direction = 1, [], None, 'row'")
    opened.explorer().wait(block=1, state="ready", mode="a", direction="row")
    return opened


def rows_of(maps: probes.AttentionMaps, token: int) -> list[np.ndarray]:
    """Exact maps of all heads and their mean."""
    rows = maps.rows([token])[0, :, 0].numpy()
    grid = maps.grid
    return [values[grid.prefix :].reshape(grid.rows, grid.cols) for values in [*rows, rows.mean(0)]]


def check(shown: Shown, maps: probes.AttentionMaps, token: int) -> None:
    for pixels, values in zip(shown.tiles(maps.heads), rows_of(maps, token), strict=True):
        assert colour_steps(pixels, values, values.max()) <= 1


def captured(model: dpt.DPT, image: np.ndarray, block: int, **more) -> probes.AttentionMaps:
    with probes.capture(model, f"encoder.blocks.{block}.attention") as capture:
        model.predict(image, **more)
    maps = capture[f"encoder.blocks.{block}.attention"]
    assert isinstance(maps, probes.AttentionMaps)
    return maps


@pytest.fixture(scope="module")
def tiny_maps() -> dict[int, probes.AttentionMaps]:
    return {b: captured(tiny_model(), IMAGE, b, size=(70, 98), keep_aspect=False) for b in (1, 3)}


def hover_and_check(shown: Shown, maps: probes.AttentionMaps, places: list[tuple[int, int]]) -> None:
    grid = maps.grid
    for row, col in places:
        shown.point_at(row, col, grid.rows, grid.cols)
        shown.wait(token=grid.token(row, col))
        check(shown, maps, grid.token(row, col))


def test_hovering_needs_no_kernel_and_works_while_it_is_busy(notebook: Notebook, tiny_maps, complaints):
    shown = notebook.explorer()
    page = notebook.page
    hover_and_check(shown, tiny_maps[1], [(0, 0)])
    notebook.wait_until_quiet()
    notebook.sent.clear()
    hover_and_check(shown, tiny_maps[1], [(1, 2), (4, 6), (2, 3)])
    assert notebook.sent == []

    notebook.execute("import time; time.sleep(3)")
    notebook.wait_for_kernel("busy")
    notebook.sent.clear()
    hover_and_check(shown, tiny_maps[1], [(3, 1), (0, 5)])
    assert notebook.kernel_status() == "busy"
    assert notebook.sent == []

    # control: what does need the kernel is seen in the same list
    shown.stage.focus()
    page.keyboard.press("ArrowRight")
    notebook.wait_for_message()
    assert complaints == []


def test_blocks_are_fetched_and_state_goes_both_ways(notebook: Notebook, tiny_maps, complaints):
    shown = notebook.explorer()
    notebook.execute("explorer.block = 3")
    shown.wait(block=3, state="ready")
    hover_and_check(shown, tiny_maps[3], [(1, 2)])
    shown.stage.focus()
    notebook.page.keyboard.press("[")
    notebook.page.keyboard.press("[")
    shown.wait(block=1, state="ready")
    hover_and_check(shown, tiny_maps[1], [(4, 4)])
    notebook.page.mouse.down()
    notebook.page.mouse.up()
    # Comm messages have a thread of their own in the kernel: on a busy machine a cell may run before the pin is there.
    seen = notebook.page.get_by_text("seen 1 [33]")
    for _ in range(10):
        notebook.run_cell(2)
        notebook.wait_for_kernel("idle")
        if seen.is_visible():
            break
    expect(seen).to_be_visible()
    assert complaints == []


def test_two_views_of_one_widget_stay_in_step(notebook: Notebook, tiny_maps, complaints):
    notebook.explorer()
    notebook.run_cell(2, "explorer")
    second = notebook.explorer(1)
    first = notebook.explorer(0)
    grid = tiny_maps[1].grid
    first.point_at(3, 3, grid.rows, grid.cols)
    for shown in (first, second):
        shown.wait(token=grid.token(3, 3))
        check(shown, tiny_maps[1], grid.token(3, 3))
    first.stage.focus()
    notebook.page.keyboard.press("]")
    notebook.page.keyboard.press("]")
    for shown in (first, second):
        shown.wait(block=3, state="ready")
    notebook.run_cell(2, SMALL[2])
    assert complaints == []


def test_keys_in_the_widget_are_not_notebook_commands(notebook: Notebook, complaints):
    shown = notebook.explorer()
    page = notebook.page
    cells = notebook.cells()
    shown.point_at(2, 2, 5, 7)
    page.mouse.down()
    page.mouse.up()
    assert shown.stage.evaluate("(stage) => stage === document.activeElement")  # JupyterLab has not taken the focus
    for key in ("a", "b", "x", "d", "d", "Enter", "m", "m"):
        page.keyboard.press(key)
    assert notebook.cells() == cells
    # control: outside the widget the same key does insert a cell
    page.locator(".jp-InputPrompt").nth(0).click()
    page.keyboard.press("b")
    page.wait_for_function(f"(cells) => {CURRENT}.content.widgets.length === cells", arg=cells + 1)
    page.keyboard.press("z")  # undo
    page.wait_for_function(f"(cells) => {CURRENT}.content.widgets.length === cells", arg=cells)
    assert complaints == []


def test_a_page_reload_brings_the_widget_back(notebook: Notebook, tiny_maps):
    shown = notebook.explorer()
    shown.stage.focus()
    notebook.page.keyboard.press("]")
    shown.wait(block=2, state="ready")
    notebook.page.keyboard.press("]")
    shown.wait(block=3, state="ready")
    notebook.reload()
    again = notebook.explorer()
    assert again.state("block") == "3"
    hover_and_check(again, tiny_maps[3], [(1, 2), (4, 6)])


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_the_widget_wears_the_theme(notebook: Notebook, theme: str):
    shown = notebook.explorer()
    notebook.page.evaluate("(theme) => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
    light = theme.endswith("Light")
    notebook.page.wait_for_function("(light) => document.body.dataset.jpThemeLight === String(light)", arg=light)
    channels = "(root, name) => getComputedStyle(root)[name].match(/[0-9.]+/g).slice(0, 3).map(Number)"

    def wears_it() -> bool:
        paper, ink = (sum(shown.root.evaluate(channels, name)) / 765 for name in ("backgroundColor", "color"))
        return bool((paper > 0.8 and ink < 0.3) if light else (paper < 0.2 and ink > 0.7))

    wait_until(notebook.page, wears_it)  # the theme's style sheet loads after the attribute is set


def test_jupyterlab_asks_nothing_of_its_own(notebook: Notebook):
    """Its question about news would be the first thing a new user sees."""
    manager = "window.jupyterapp.serviceManager.settings.fetch('@jupyterlab/apputils-extension:notification')"
    schema = notebook.page.evaluate(f"{manager}.then((plugin) => plugin.schema.properties.fetchNews)")
    assert schema["default"] == "false"
    notebook.page.wait_for_timeout(500)
    assert notebook.page.locator(".Toastify__toast").all_inner_texts() == []


def test_the_shipped_notebook(page: Page, lab: Lab, complaints: Complaints):
    name = "02_attention.ipynb"
    shutil.copy(ROOT / "notebooks" / name, lab.folder / name)
    notebook = Notebook(page, lab, name)
    notebook.open()
    notebook.run_all()
    shown = notebook.explorer()
    notebook.wait_for_kernel("idle")  # the cells after the explorer's run on
    model = dpt.load("demo")
    image, _ = demo.sample("plaza")  # as the notebook says
    maps = captured(model, image, int(shown.state("block") or -1))
    shown.root.scroll_into_view_if_needed()
    notebook.wait_until_quiet()
    notebook.sent.clear()
    rows, cols = maps.grid.rows, maps.grid.cols
    hover_and_check(shown, maps, [(rows // 3, cols // 4), (rows - 2, cols // 2)])
    assert notebook.sent == []  # hovering asked the kernel nothing
    outputs = page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']")
    assert outputs.count() == 0
    assert complaints == []
