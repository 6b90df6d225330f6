"""Exported pages of all explorers: every control is reachable by Tab, and text is readable in both colour schemes."""

from __future__ import annotations

import base64
from collections.abc import Callable
from functools import partial
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
from tests.models import tiny_beit, tiny_model

IMAGE = np.random.default_rng(3).integers(0, 255, (60, 90, 3), dtype=np.uint8)
FIXED: dict[str, Any] = {"size": (70, 98), "keep_aspect": False}

EXPLORERS: dict[str, Callable[[], Any]] = {
    "attention": lambda: AttentionExplorer(tiny_model(), IMAGE, 1, pins=[4, 9], **FIXED),
    "norms": lambda: NormExplorer(tiny_model(), IMAGE, 1, k=1.0, enlarged=True, **FIXED),
    "fusion": lambda: FusionExplorer(tiny_model(), IMAGE, {"fusion.3": 2.0}, **FIXED),
    "table": lambda: PositionExplorer(tiny_model(), (70, 98), channel=1),
    "biases": lambda: PositionExplorer(tiny_beit(), (80, 112), head=1),
    "tour": lambda: ModelTour(tiny_model(), IMAGE, part="encoder.blocks.1", **FIXED),
    "depth": lambda: DepthExplorer(tiny_model(), IMAGE, others={"other": IMAGE[..., 0].astype(np.float32)}, **FIXED),
}


def says(shown: Shown, words: str) -> bool:
    return words in shown.root.locator(".dptx-status-text").inner_text()


@pytest.fixture(scope="module", params=EXPLORERS)
def path(request, tmp_path_factory) -> Path:
    return EXPLORERS[request.param]().to_html(tmp_path_factory.mktemp("page") / f"{request.param}.html")


# Controls that Tab must reach: visible, enabled, and tab stops. Other members of a group are reached by arrow keys.
CONTROLS = """(root) => [...root.querySelectorAll("button, input, select, summary, [tabindex='0']")]
  .filter((n) => n.checkVisibility({visibilityProperty: true}) && !n.disabled && n.tabIndex >= 0)"""
NAME = "(n) => (n.title || n.getAttribute('aria-label') || n.textContent).slice(0, 60)"


def looks_other_without_focus(page: Page) -> bool:
    """For controls that mark focus on a part of themselves, such as the thumb of a slider."""
    node = page.evaluate_handle("document.activeElement").as_element()
    assert node is not None
    with_focus = node.screenshot()
    node.evaluate("(node) => node.blur()")
    without = node.screenshot()
    node.focus()
    return with_focus != without


def test_tab_alone_reaches_every_control_and_shows_where_it_is(browser: Browser, path: Path):
    with page_from_disk(browser, path) as page:
        shown = Shown(page.locator(".dptx"))
        shown.wait(state="ready")
        wanted = shown.root.evaluate(f"(root) => ({CONTROLS})(root).map({NAME})")
        # a page starts with the focus on its picture, in the middle of the order
        shown.root.evaluate(f"(root) => ({CONTROLS})(root)[0].focus()")
        reached, unmarked = [], []
        for n in range(len(wanted)):
            if n:
                page.keyboard.press("Tab")
            name, outlined = page.evaluate(
                f"""() => {{ const node = document.activeElement; const style = getComputedStyle(node);
                  return [({NAME})(node), style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1]; }}"""
            )
            reached.append(name)
            unmarked += [] if outlined or looks_other_without_focus(page) else [name]
        assert len(wanted) >= 5
        assert reached == wanted  # in document order
        assert unmarked == []
        # the help lists all other keys; the keyboard opens and closes it
        shown.root.locator("button").first.focus()
        page.keyboard.press("?")
        assert shown.root.get_by_role("dialog").is_visible()
        page.keyboard.press("Escape")
        assert not shown.root.get_by_role("dialog").is_visible()


def test_keys_work_on_a_page_that_was_just_opened(browser: Browser, path: Path):
    with page_from_disk(browser, path) as page:
        shown = Shown(page.locator(".dptx"))
        shown.wait(state="ready")
        page.keyboard.press("?")
        assert shown.root.get_by_role("dialog").is_visible()


def test_a_click_elsewhere_closes_the_help(browser: Browser, path: Path):
    with page_from_disk(browser, path) as page:
        shown = Shown(page.locator(".dptx"))
        shown.wait(state="ready")
        shown.root.get_by_role("button", name="Help").click()
        help_ = shown.root.get_by_role("dialog")
        help_.click()
        assert help_.is_visible()
        page.mouse.click(2, 2)
        assert not help_.is_visible()
        shown.root.get_by_role("button", name="Help").click()
        assert help_.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_word_stands_out_from_what_is_behind_it(browser: Browser, path: Path, scheme: str):
    with page_from_disk(browser, path, color_scheme=scheme) as page:
        shown = Shown(page.locator(".dptx"))
        shown.wait(state="ready")
        paper = shown.root.evaluate("(root) => getComputedStyle(root).backgroundColor.match(/[0-9.]+/g).map(Number)[0]")
        assert (paper > 200) == (scheme == "light")
        assert pale_words(shown) == []
        shown.root.evaluate("(root) => root.style.setProperty('--dptx-muted', getComputedStyle(root).backgroundColor)")
        assert pale_words(shown) != []  # control: text in the background colour


SIGNATURES = {"png": b"\x89PNG", "npz": b"PK\x03\x04", "npy": b"\x93NUMPY", "html": b"<!doctype html>"}


def save_buttons(shown: Shown) -> list[Any]:
    return shown.root.locator(".dptx-actions .dptx-segments button").all()


def test_a_frame_that_forbids_downloads_offers_every_file_on_the_page(browser: Browser, path: Path, tmp_path: Path):
    frame = f'<iframe sandbox="allow-scripts" src="{path.as_uri()}" style="width: 1100px; height: 850px"></iframe>'
    (tmp_path / "frame.html").write_text(frame)
    page = browser.new_page()
    arrived: list[str] = []
    page.on("download", lambda download: arrived.append(download.suggested_filename))
    page.goto((tmp_path / "frame.html").as_uri())
    shown = Shown(page.frame_locator("iframe").locator(".dptx"))
    page.frame_locator("iframe").locator(".dptx[data-state=ready]").wait_for()
    for button in save_buttons(shown):
        button.click()
        link = shown.root.locator(".dptx-offer a")
        link.wait_for()
        name, address = link.inner_text(), link.get_attribute("href") or ""
        if not address.startswith("blob:"):
            content = base64.b64decode(address.partition(",")[2])
            assert len(content) > 100
            assert content.startswith(SIGNATURES.get(name.rpartition(".")[2], b""))
        words = shown.root.locator(".dptx-status-text").inner_text()
        assert name in words
        assert "saved" not in words.lower()
        shown.root.locator(".dptx-offer").get_by_role("button", name="Close").click()
        assert not shown.root.locator(".dptx-offer").is_visible()
    assert arrived == []
    page.close()


def test_a_page_of_its_own_saves_every_file(browser: Browser, path: Path):
    with page_from_disk(browser, path) as page:
        shown = Shown(page.locator(".dptx"))
        shown.wait(state="ready")
        for button in save_buttons(shown):
            with page.expect_download() as caught:
                button.click()
            name = caught.value.suggested_filename
            wait_until(page, partial(says, shown, f"Saved {name}"))
            assert not shown.root.locator(".dptx-offer").is_visible()
