"""Exported pages of all explorers in the surroundings of other hosts: listeners for keys, boxes, themes, screens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from probes.explorers import (
    AttentionExplorer,
    DepthExplorer,
    FusionExplorer,
    ModelTour,
    NormExplorer,
    PositionExplorer,
)
from tests.e2e.conftest import Shown, page_from_disk
from tests.models import tiny_model

IMAGE = np.random.default_rng(3).integers(0, 255, (60, 90, 3), dtype=np.uint8)
PORTRAIT = np.random.default_rng(3).integers(0, 255, (480, 270, 3), dtype=np.uint8)
FIXED: dict[str, Any] = {"size": (70, 98), "keep_aspect": False}

EXPLORERS: dict[str, Callable[[np.ndarray], Any]] = {
    "attention": lambda image: AttentionExplorer(tiny_model(), image, 1, pins=[4, 9], **FIXED),
    "norms": lambda image: NormExplorer(tiny_model(), image, 1, k=1.0, enlarged=True, **FIXED),
    "fusion": lambda image: FusionExplorer(tiny_model(), image, {"fusion.3": 2.0}, show="difference", **FIXED),
    "positions": lambda image: PositionExplorer(tiny_model(), (70, 98), channel=1),
    "tour": lambda image: ModelTour(tiny_model(), image, part="encoder.blocks.1", **FIXED),
    "depth": lambda image: DepthExplorer(tiny_model(), image, **FIXED),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="module", params=EXPLORERS)
def path(request, folder: Path) -> Path:
    return EXPLORERS[request.param](IMAGE).to_html(folder / f"{request.param}.html")


@pytest.fixture
def page(browser: Browser, path: Path) -> Iterator[Page]:
    with page_from_disk(browser, path, width=1300) as page:
        Shown(page.locator(".dptx")).wait(state="ready")
        yield page


# Listens like Notebook 7: on the document, while the event goes down, and as Lumino it skips what is in an element with
# the attribute. VS Code and marimo listen while it goes up.
HOST = """() => {
  window.commands = [];
  document.addEventListener("keydown", (event) => {
    if (!event.target.closest("[data-lm-suppress-shortcuts]")) window.commands.push("down " + event.key);
  }, true);
  window.addEventListener("keydown", (event) => window.commands.push("up " + event.key));
}"""
KEYS = ("a", "b", "d", "d", "1", " ", "Enter", "Shift+Enter", "Control+Enter", "Alt+Enter", "Escape", "ArrowUp")
KEYS += ("PageDown", "Control+a", "Control+Shift+M", "Delete", "?", "Escape")
ONE_OF_EACH = (
    *(".dptx-stage", ".dptx-depth-frame", "[tabindex='-1']", ".dptx-tile[tabindex='0']", "[role=option]", ".dptx-chip"),
    *("[aria-pressed]", ".dptx-square", "input[type=range]", "input[type=number]", "select", "summary"),
)
FREE = """(root) => {
  const box = root.getBoundingClientRect();
  const taken = "[tabindex='0'], button, input, select, summary";
  const blank = (node) => node && root.contains(node) && !node.closest(taken);
  const spots = [];
  for (let y = box.top + 4; y < Math.min(box.bottom, innerHeight); y += 21)
    for (let x = box.left + 4; x < box.right - 2; x += 57)
      if (blank(document.elementFromPoint(x, y))) spots.push([x, y]);
  return spots.filter((_, n) => n % Math.ceil(spots.length / 12) === 0);
}"""
INSIDE = "(root) => root.contains(document.activeElement)"


def test_no_key_inside_is_a_command_of_the_host_wherever_a_click_went(page: Page):
    root = page.locator(".dptx")
    page.evaluate(HOST)
    spots = root.evaluate(FREE)
    assert len(spots) >= 6
    for x, y in spots:
        page.evaluate("document.activeElement.blur()")
        if not root.evaluate("(root, [x, y]) => root.contains(document.elementFromPoint(x, y))", [x, y]):
            continue  # an earlier click has enlarged or released something
        page.mouse.click(x, y)
        assert root.evaluate(INSIDE), (x, y)
        page.keyboard.press("d")
    for kind in ONE_OF_EACH:
        node = root.locator(kind).locator("visible=true").first
        if node.count() == 0 or not node.is_enabled():
            continue
        node.focus()
        for key in KEYS:
            page.keyboard.press(key)
            assert root.evaluate(INSIDE), (kind, key)
    modifiers = {f"{way} {key}" for way in ("down", "up") for key in ("Shift", "Control", "Alt")}
    assert set(page.evaluate("window.commands")) <= modifiers
    root.evaluate("(root) => root.focus()")
    page.keyboard.press("Control+s")
    assert page.evaluate("window.commands").count("down s") == 1
    assert page.evaluate("window.commands").count("up s") == 1
    page.keyboard.press("a")
    assert not {"down a", "up a"} & set(page.evaluate("window.commands"))


# What hosts and ipywidgets put around a widget: each shrinks to fit, or shares its width.
PARENTS = {
    "flex": "<div class='widget-box' style='display: flex'><div class=here></div><div>notes beside it</div></div>",
    "inline-block": "<div style='display: inline-block'><div class=here></div></div>",
    "float": "<div style='float: left'><div class=here></div></div>",
    "table": "<table><tr><td><div class=here></div></td><td>notes</td></tr></table>",
    "grid": "<div style='display: grid; grid-template-columns: auto auto'><div class=here></div><div>notes</div></div>",
    "centred": "<div style='display: flex; flex-direction: column; align-items: center'><div class=here></div></div>",
    "nested": "<div style='display: flex'><span style='display: inline-block'><div class=here></div></span></div>",
    "fit-content": "<div style='width: fit-content'><div class=here></div></div>",
}
PLACE = """([html]) => { const el = document.querySelector(".dptx").parentElement;
  const frame = document.createElement("section"); frame.innerHTML = html; el.replaceWith(frame);
  frame.querySelector(".here").replaceWith(el); window.place = () => el.getBoundingClientRect().toJSON(); }"""


def test_in_any_parent_an_explorer_is_wide_enough_and_obeys_its_layout(page: Page):
    root = page.locator(".dptx")
    widths = {}
    for name, html in PARENTS.items():
        page.evaluate(PLACE, [html])
        widths[name] = root.bounding_box()["width"]
        assert page.evaluate("document.documentElement.scrollWidth") <= 1300, name
        root.locator("xpath=..").evaluate("(el) => document.querySelector('section').replaceWith(el)")
    assert min(widths.values()) > 700, widths
    assert widths["flex"] > 1100  # it takes the rest of the row
    row = "<div class='widget-box' style='display: flex; width: 1000px'><div class=here></div>{}</div>"
    page.evaluate(PLACE, [row.format("<div style='flex: 1 1 840px'></div>")])
    assert 480 < root.bounding_box()["width"] < 520  # two of one kind share a row
    page.evaluate("document.querySelector('section').firstChild.lastChild.remove()")
    for layout in ("width: 400px", "flex: 0 0 400px", "max-width: 400px", "min-width: 50px; width: 400px"):
        root.locator("xpath=..").evaluate("(el, style) => { el.style.cssText = style; }", layout)
        assert page.evaluate("window.place().width") == 400, layout
    for layout in ("height: 260px", "max-height: 260px"):
        root.locator("xpath=..").evaluate("(el, style) => { el.style.cssText = style; }", layout)
        page.evaluate("document.querySelector('section').style.cssText = 'display: flow-root'")
        assert page.evaluate("window.place().height") == 260, layout
        # what is below the widget gets the pointer there, and the rest of the explorer is reached by scrolling
        below = "(root) => root.contains(document.elementFromPoint(window.place().x + 50, window.place().bottom + 5))"
        assert not root.evaluate(below), layout
        strip = root.locator(".dptx-status")
        strip.scroll_into_view_if_needed()
        assert strip.bounding_box()["y"] < page.evaluate("window.place().bottom"), layout
