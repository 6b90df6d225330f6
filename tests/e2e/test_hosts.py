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
from tests.e2e.conftest import Shown, page_from_disk, pale_words, wait_until
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


# Listens like Notebook 7: on the document, while the event goes down. Like Lumino it looks from the focused element
# outwards, up to an element with the attribute, for one that its commands are for: the focused element for cells, the
# page's body for the application. VS Code and marimo listen while the event goes up.
HOST = """() => {
  window.commands = [];
  document.addEventListener("keydown", (event) => {
    for (let at = event.target; at && !at.hasAttribute("data-lm-suppress-shortcuts"); at = at.parentElement)
      if (at.matches(":focus, body")) return void window.commands.push("down " + event.key);
  }, true);
  window.addEventListener("keydown", (event) => window.commands.push("up " + event.key));
}"""
KEYS: tuple[str, ...] = (
    "a",
    "b",
    "d",
    "d",
    "1",
    " ",
    "Enter",
    "Shift+Enter",
    "Control+Enter",
    "Alt+Enter",
    "Escape",
    "ArrowUp",
)
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
    for times, kind in enumerate((".dptx", ".dptx [tabindex='0'], .dptx select"), 1):
        page.locator(kind).first.focus()
        page.keyboard.press("Control+s")
        assert [page.evaluate("window.commands").count(f"{way} s") for way in ("down", "up")] == [times, times]
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
        box = root.bounding_box()
        assert box["y"] + box["height"] <= page.evaluate("window.place().bottom"), layout
        # what is below the widget gets the pointer there, and the rest of the explorer is reached by scrolling
        below = "(root) => root.contains(document.elementFromPoint(window.place().x + 50, window.place().bottom + 5))"
        assert not root.evaluate(below), layout
        strip = root.locator(".dptx-status")
        strip.scroll_into_view_if_needed()
        assert strip.bounding_box()["y"] < page.evaluate("window.place().bottom"), layout


@pytest.fixture(scope="module")
def depth_page(folder: Path) -> Path:
    return EXPLORERS["depth"](PORTRAIT).to_html(folder / "portrait-depth.html")


PAPER = "(root) => getComputedStyle(root).backgroundColor.match(/[0-9.]+/g).map(Number)[0]"

# What a page paints and says, and whether that is dark. Scripts on an explorer's page, which is light before.
BARE = "document.documentElement.style.colorScheme = 'normal'; document.body.style.background = 'transparent'; "
THEMES = {
    "marimo": ("document.body.className = 'dark dark-theme'; document.body.style.background = '#181c1a'", True),
    "newer notation": ("document.body.style.background = 'oklch(0.2 0.01 180)'", True),
    "light in a new notation": ("document.body.style.background = 'oklch(0.97 0 0)'", False),
    "sheer": ("document.querySelector('main').style.background = 'rgb(0 0 0 / 0.8)'", True),
    "Colab": (BARE + "document.documentElement.setAttribute('theme', 'dark')", True),
    "VS Code": (BARE + "document.body.dataset.vscodeThemeKind = 'vscode-high-contrast'", True),
    "VS Code, light": (BARE + "document.body.dataset.vscodeThemeKind = 'vscode-high-contrast-light'", False),
    "scheme": (BARE + "document.documentElement.style.colorScheme = 'dark'", True),
    "white paper": (BARE, False),
    "light colours of JupyterLab on a dark page": (
        "document.body.style.cssText = 'background: #111; --jp-layout-color1: #fff; --jp-ui-font-color1: #000'",
        True,
    ),
    "a fading background": (
        "document.body.style.transition = 'background 0.3s'; requestAnimationFrame(() => requestAnimationFrame("
        "() => { document.body.style.background = '#111'; }))",
        True,
    ),
    "a style sheet": (
        "document.head.append(document.createElement('style')); "
        "document.head.lastChild.textContent = 'body {background: #111}'",
        True,
    ),
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_palette_follows_what_the_page_paints(browser: Browser, depth_page: Path, scheme: Any):
    for name, (script, dark) in THEMES.items():
        with page_from_disk(browser, depth_page, color_scheme=scheme) as page:
            root = page.locator(".dptx")
            Shown(root).wait(state="ready")
            page.evaluate(f"() => {{ {script}; }}")
            if name == "white paper" or not script.startswith("document.body.style.transition"):
                Shown(root).after_paint()
            try:
                page.wait_for_function(
                    f"([root, dark]) => (({PAPER})(root) < 128) === dark",
                    arg=[root.element_handle(), dark],
                    timeout=3000,
                )
            except Exception as error:
                raise AssertionError((name, scheme)) from error
            assert pale_words(Shown(root)) == [], name


def test_a_shadow_root_does_not_hide_the_theme(browser: Browser, depth_page: Path):
    with page_from_disk(browser, depth_page) as page:
        page.evaluate(
            """() => { const host = document.createElement("marimo-anywidget");
              host.attachShadow({mode: "open"}).append(document.querySelector("style"), document.querySelector("main"));
              document.body.append(host); document.body.style.background = "#181c1a"; }"""
        )
        root = page.locator(".dptx-dark")
        root.wait_for()
        assert root.evaluate(PAPER) < 128
        page.evaluate("document.body.style.background = '#fff'")
        page.locator(".dptx:not(.dptx-dark)").wait_for()


SHARP = """(root) => [...root.querySelectorAll(".dptx-depth-histogram, .dptx-histogram canvas, canvas.dptx-histogram, "
  + ".dptx-outline")].filter((c) => c.clientWidth).map((c) => c.width / c.clientWidth)"""


@pytest.mark.parametrize("name", ["norms", "depth"])
def test_canvases_are_sharp_on_every_screen_and_after_a_change_of_it(browser: Browser, folder: Path, name: str):
    path = EXPLORERS[name](IMAGE).to_html(folder / f"sharp-{name}.html")
    with page_from_disk(browser, path) as page:
        root = page.locator(".dptx")
        Shown(root).wait(state="ready")
        screen = page.context.new_cdp_session(page)

        def move_to(density: float) -> None:
            page.mouse.move(2, 2)
            size = {"width": 1200, "height": 900, "mobile": False}
            screen.send("Emulation.setDeviceMetricsOverride", {**size, "deviceScaleFactor": density})

        def is_sharp(density: float) -> bool:
            found = root.evaluate(SHARP)
            return len(found) > 0 and all(abs(ratio - density) < 0.02 for ratio in found)

        assert is_sharp(1)
        move_to(2)
        page.mouse.move(300, 300)
        wait_until(page, lambda: is_sharp(2), 3)
        page.evaluate("document.querySelector('main').style.display = 'none'")
        move_to(1.5)
        page.wait_for_timeout(100)
        page.evaluate("document.querySelector('main').style.display = ''")
        wait_until(page, lambda: is_sharp(1.5), 3)


def test_a_portrait_and_the_thresholds_are_on_the_screen_together(browser: Browser, depth_page: Path):
    for width, height in ((1300, 900), (1300, 700)):
        with page_from_disk(browser, depth_page, width=width, height=height) as page:
            Shown(page.locator(".dptx")).wait(state="ready")
            ends = page.locator(".dptx-depth-ends").bounding_box()
            assert ends["y"] + ends["height"] < height
            panes = [pane.bounding_box() for pane in page.locator(".dptx-depth-frame").all()]
            for pane in panes:
                assert abs(pane["width"] / pane["height"] - 270 / 480) < 0.02  # not squashed
                assert pane["height"] > 0.45 * height


@pytest.mark.parametrize("screen", [(390, 760), (760, 390)])
def test_a_finger_scrolls_past_every_picture(browser: Browser, folder: Path, screen: tuple[int, int]):
    width, height = screen
    phone: Any = {"has_touch": True, "is_mobile": True, "device_scale_factor": 2}
    for name, make in EXPLORERS.items():
        path = folder / f"tall-{name}.html"
        if not path.exists():
            make(PORTRAIT).to_html(path)
        with page_from_disk(browser, path, width=width, height=height, **phone) as page:
            Shown(page.locator(".dptx")).wait(state="ready")
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
            for stage in page.locator(".dptx-stage, .dptx-depth-frame, .dptx-large, .dptx-big").all():
                box = stage.bounding_box()
                takes = stage.evaluate("(n) => !['auto', 'manipulation'].includes(getComputedStyle(n).touchAction)")
                assert not takes or box is None or box["height"] <= 0.75 * height, (name, box)
