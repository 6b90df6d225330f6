"""All explorers in JupyterLab: views stay in step and live through a new model, a page reload and a kernel restart.

test_jupyterlab.py tests the attention explorer; test_fusion.py tests drags and files of the fusion explorer.
"""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from tests.e2e.conftest import Shown, pale_words
from tests.e2e.jupyterlab import Lab, Notebook

SETUP = """import numpy as np
from IPython.display import display
from probes.explorers import DepthExplorer, FusionExplorer, ModelTour, NormExplorer, PositionExplorer
from tests.models import tiny_beit, tiny_model
image = np.random.default_rng(3).integers(0, 255, (60, 90, 3), dtype=np.uint8)
others = {"other": image[..., 0].astype(np.float32)}
def explorers(model, size):
    fixed = {"size": size, "keep_aspect": False}
    return (
        NormExplorer(model, image, 1, **fixed),
        FusionExplorer(model, image, **fixed),
        PositionExplorer(model, size),
        ModelTour(model, image, **fixed),
        DepthExplorer(model, image, others, left="picture", **fixed),
    )"""
MAKE = "norms, fusion, positions, tour, depth = every = explorers({}(), {})"
SHOW = "display(*every, *every)"  # in one output: JupyterLab removes cells that are out of sight
CELLS = [SETUP, MAKE.format("tiny_model", (70, 98)), SHOW]

PAINTED = {"norms": "block", "fusion": "view", "positions": "place", "tour": "part", "depth": "far"}

# Scripts on the root element that request data which no earlier test has loaded. Without a kernel, they fail.
ASKS = {
    "norms": "(root) => root.querySelector('[data-value=channel]').click()",
    "fusion": "(root) => { const slider = root.querySelector('.dptx-wide'); slider.value = -2; "
    "slider.dispatchEvent(new Event('input')); }",
    "positions": "(root) => { const size = root.querySelector('select'); size.value = '518x518'; "
    "size.dispatchEvent(new Event('change')); }",
    "tour": "(root) => root.querySelector('[data-part=\"fusion.2\"]').click()",
    "depth": "(root) => { const left = root.querySelector('select[title*=left]'); left.value = 'other'; "
    "left.dispatchEvent(new Event('change')); }",
}


def views(notebook: Notebook, copy: int = 0) -> dict[str, Shown]:
    """All five explorers by name, ready. Copy 1: their second views."""
    return {
        name: notebook.explorer(place + copy * len(PAINTED), painted)
        for place, (name, painted) in enumerate(PAINTED.items())
    }


@pytest.fixture(scope="module")
def notebook(page: Page, lab: Lab) -> Notebook:
    return Notebook.written(page, lab, "explorers.ipynb", CELLS)


def operate(notebook: Notebook, shown: dict[str, Shown], watched: dict[str, Shown]) -> None:
    """Uses the keyboard on some views and waits for the effects on others."""
    press = notebook.page.keyboard.press
    block, place = int(shown["norms"].state("block") or -1), shown["positions"].state("place")
    shown["norms"].stage.focus()
    press("]")
    watched["norms"].wait(block=block + 1, state="ready")
    shown["fusion"].stage.focus()
    press("d")
    watched["fusion"].wait(view="difference", state="ready")
    press("d")
    watched["fusion"].wait(view="scaled")
    shown["positions"].stage.focus()
    press("ArrowLeft")
    row, col = map(int, (place or "").split(","))
    watched["positions"].wait(place=f"{row},{col - 1}", state="ready")
    shown["tour"].root.locator("[aria-selected=true]").focus()
    press("n")
    watched["tour"].wait(part="input", state="ready")
    press("p")
    watched["tour"].wait(part="picture", state="ready")
    shown["depth"].root.locator(".dptx-depth-far").focus()
    press("ArrowRight")
    watched["depth"].wait(far="0.01", state="ready")
    press("r")
    watched["depth"].wait(far="0")


def test_second_views_stay_in_step_and_no_key_is_a_notebook_command(notebook: Notebook, complaints):
    first, second = views(notebook), views(notebook, 1)
    cells = notebook.cells()
    operate(notebook, first, second)
    operate(notebook, second, first)
    for shown in first.values():
        shown.root.locator("[tabindex='0'], .dptx-depth-far").first.focus()
        for key in ("a", "b", "z", "d", "d", "Enter"):
            notebook.page.keyboard.press(key)
    assert notebook.cells() == cells
    notebook.execute(
        "norms.block, positions.patch, tour.part, depth.plane, fusion.show = 0, (0, 0), 'head', True, 'scaled'"
    )
    for copy in (first, second):
        copy["norms"].wait(block=0)
        copy["positions"].wait(place="0,0")
        copy["tour"].wait(part="head", state="ready")
        copy["depth"].root.get_by_role("button", name="Without plane", pressed=True).wait_for()
    assert complaints == []


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_every_word_can_be_read_in_either_theme(notebook: Notebook, theme: str, complaints):
    notebook.page.evaluate("(theme) => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
    shown = views(notebook)
    paper = "(root) => getComputedStyle(root).backgroundColor.match(/[0-9.]+/g).map(Number)[0]"
    notebook.page.wait_for_function(
        f"([root, dark]) => (({paper})(root) < 128) === dark",
        arg=[shown["norms"].root.element_handle(), theme.endswith("Dark")],
    )
    notebook.page.evaluate("Promise.allSettled(document.getAnimations().map((a) => a.finished))")  # colours fade
    assert {name: pale_words(view) for name, view in shown.items()} == {name: [] for name in PAINTED}
    # Painted colours follow the theme too: 0 is dark on a dark background and pale on a pale one.
    shades = shown["positions"].tile(0)[..., :3].astype(int).sum(-1)
    assert shades.min() < 200 if theme.endswith("Dark") else shades.max() > 600
    assert complaints == []


def test_another_model_takes_the_place_of_the_first_with_live_controls(notebook: Notebook, complaints):
    before = views(notebook)
    assert before["positions"].root.get_by_label("Block").count() == 0
    notebook.run_cell(1, MAKE.format("tiny_beit", (80, 112)))
    notebook.run_cell(2)
    notebook.page.locator(".dptx-positions [aria-label=Block]").first.wait_for()  # a table has none, biases do
    first, second = views(notebook), views(notebook, 1)
    assert notebook.page.locator(".dptx").count() == 10
    operate(notebook, first, second)
    assert complaints == []
    notebook.run_cell(1, MAKE.format("tiny_model", (70, 98)))


def test_a_reload_of_the_page_leaves_every_explorer_alive_where_it_was(notebook: Notebook, complaints):
    notebook.run_cell(2)
    notebook.page.wait_for_function("() => !document.querySelector('.dptx-positions [aria-label=Block]')")
    operate(notebook, views(notebook), views(notebook, 1))
    notebook.execute("norms.block, positions.patch, tour.part, depth.plane = 2, (1, 2), 'fusion.1', True")
    views(notebook)["positions"].wait(place="1,2")
    notebook.reload()
    first = views(notebook)
    first["norms"].wait(block=2, state="ready")
    first["positions"].wait(place="1,2", state="ready")
    first["tour"].wait(part="fusion.1", state="ready")
    first["depth"].root.get_by_role("button", name="Without plane", pressed=True).wait_for()
    notebook.execute("tour.part = 'picture'")
    first["tour"].wait(part="picture", state="ready")
    operate(notebook, views(notebook), views(notebook, 1))
    assert complaints == []


def test_a_restarted_kernel_is_said_and_a_new_run_works(notebook: Notebook, complaints):
    notebook.run_cell(2)
    notebook.page.wait_for_function("() => !document.querySelector('.dptx-positions [aria-label=Block]')")
    old = views(notebook)
    notebook.restart_kernel()
    for name, script in ASKS.items():
        old[name].root.evaluate(script)
    for shown in old.values():
        shown.root.locator(".dptx-status-text", has_text="Run the cell again for a new view").wait_for()
        assert shown.root.locator(".dptx-status").get_attribute("data-state") == "failed"
    notebook.run_all()
    notebook.page.wait_for_function("() => !document.body.textContent.includes('The kernel of this view')")
    operate(notebook, views(notebook), views(notebook, 1))
    assert complaints == []
