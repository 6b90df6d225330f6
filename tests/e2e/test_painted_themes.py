"""Painted colours of all explorers' pages follow the theme, as styled colours do, however it changes."""

from __future__ import annotations

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
from tests.e2e.conftest import Shown, page_from_disk, wait_until
from tests.models import tiny_beit, tiny_model

IMAGE = np.random.default_rng(3).integers(0, 255, (60, 90, 3), dtype=np.uint8)
FIXED: dict[str, Any] = {"size": (70, 98), "keep_aspect": False}


def norms(path: Path) -> Path:
    shown = NormExplorer(tiny_model(), IMAGE, 1, what="channel", k=1.0, **FIXED)
    return shown.to_html(path, channels=[1])


# Every one that can shows a map with a sign: white in the middle on a light theme, black on a dark one.
PAGES: dict[str, Callable[[Path], Path]] = {
    "attention": lambda path: AttentionExplorer(
        tiny_model(), IMAGE, 1, pins=[4, 9], compare="difference", **FIXED
    ).to_html(path),
    "norms": norms,
    "fusion": lambda path: FusionExplorer(tiny_model(), IMAGE, {"fusion.3": 2.0}, show="difference", **FIXED).to_html(
        path
    ),
    "table": lambda path: PositionExplorer(tiny_model(), (70, 98), channel=1).to_html(path),
    "biases": lambda path: PositionExplorer(tiny_beit(), (80, 112), head=1).to_html(path),
    "tour": lambda path: ModelTour(tiny_model(), IMAGE, part="encoder.blocks.1", **FIXED).to_html(path),
    "depth": lambda path: DepthExplorer(tiny_model(), IMAGE, **FIXED).to_html(path),
}

PIXELS = """(root) => [...root.querySelectorAll("canvas")].filter((c) => c.checkVisibility())
  .map((c) => c.toDataURL()).join()"""


def painted_as(shown: Shown, wanted: Any) -> bool:
    return bool(shown.root.evaluate(PIXELS) == wanted)


def opened(page: Page) -> Shown:
    shown = Shown(page.locator(".dptx"))
    shown.wait(state="ready")
    page.mouse.move(1, 1)
    shown.after_paint()
    return shown


def hidden_for_a_frame(page: Page, scheme: str) -> None:
    """As JupyterLab changes the theme: the page is hidden while the change is noticed."""
    page.evaluate("document.body.style.display = 'none'")
    page.emulate_media(color_scheme=scheme)
    page.evaluate(
        """() => new Promise((done) => { document.body.dataset.jpThemeName = "other";
          requestAnimationFrame(() => { document.body.style.display = ""; done(); }); })"""
    )


def taken_off_the_page(page: Page, scheme: str) -> None:
    """As JupyterLab takes cells far from the window off the page, and puts them back."""
    page.evaluate("() => { window.root = document.querySelector('.dptx'); window.place = root.parentElement; }")
    page.evaluate("root.remove()")
    page.emulate_media(color_scheme=scheme)
    page.wait_for_timeout(50)
    page.evaluate("place.prepend(root)")


@pytest.mark.parametrize("name", PAGES)
def test_painted_colours_follow_the_theme(browser: Browser, tmp_path, name: str):
    path = PAGES[name](tmp_path / f"{name}.html")
    with page_from_disk(browser, path, color_scheme="dark") as page:
        dark = opened(page).root.evaluate(PIXELS)
    with page_from_disk(browser, path, color_scheme="light") as page:
        shown = opened(page)
        light = shown.root.evaluate(PIXELS)
        assert (light != dark) == (name != "tour")  # control: what is compared depends on the theme
        for change in (hidden_for_a_frame, taken_off_the_page):
            for scheme, wanted in (("dark", dark), ("light", light)):
                change(page, scheme)
                wait_until(page, partial(painted_as, shown, wanted), 3)


def test_a_closed_block_takes_its_channel_from_the_picture_and_the_colour_bar(browser: Browser, tmp_path):
    with page_from_disk(browser, norms(tmp_path / "norms.html")) as page:
        shown = opened(page)
        shown.wait(what="channel")
        note = shown.root.locator(".dptx-bar-note")
        overlay = "(root) => root.querySelectorAll('.dptx-stage canvas')[1].toDataURL()"
        channel = shown.root.evaluate(overlay)
        assert "channel 0" in note.inner_text()
        for close in ("Escape", "e", "button", "map"):
            if close == "button":
                shown.root.get_by_role("button", name="Close the enlarged block").click()
            elif close == "map":
                shown.root.locator('canvas[data-tile="large"]').click()
            else:
                page.keyboard.press(close)
            shown.wait(what="norm")
            shown.after_paint()
            assert "channel" not in note.inner_text()
            assert shown.root.evaluate(overlay) != channel
            shown.stage.focus()
            page.keyboard.press("}")  # the next channel, enlarged
            shown.wait(what="channel")
            page.keyboard.press("{")
            shown.wait(channel=0)
            shown.after_paint()
            page.mouse.move(1, 1)


LOOKS = """(root) => {
  const look = (node) => { const s = getComputedStyle(node);
    return [s.backgroundColor, s.color, s.borderTopColor, s.borderTopStyle, s.outlineStyle, s.outlineColor].join(); };
  const groups = [...root.querySelectorAll("[role=group], [role=listbox]")].filter((g) => g.checkVisibility());
  return groups.flatMap((group) => {
    const chosen = group.querySelector(":is([aria-pressed=true], [aria-selected=true]):not(:disabled, :focus)");
    const other = group.querySelector(":is([aria-pressed=false], [aria-selected=false]):not(:disabled, :focus)");
    return chosen && other ? [[group.getAttribute("aria-label"), look(chosen) !== look(other)]] : [];
  });
}"""

MOVING = """(root) => [...root.querySelectorAll("*")].filter((node) => { const s = getComputedStyle(node);
  return s.animationName !== "none" || s.transitionDuration.split(", ").some((time) => time !== "0s");
}).map((node) => node.className)"""


@pytest.mark.parametrize("name", PAGES)
def test_forced_colours_tell_states_apart_and_nothing_moves_for_those_who_want_that(
    browser: Browser, tmp_path, name: str
):
    path = PAGES[name](tmp_path / f"{name}.html")
    calm: dict[str, Any] = {"forced_colors": "active", "reduced_motion": "reduce"}
    with page_from_disk(browser, path, **calm) as page:
        shown = opened(page)
        shown.root.evaluate("() => document.activeElement.blur()")
        looks = shown.root.evaluate(LOOKS)
        assert [label for label, differs in looks if not differs] == []
        assert looks or name == "depth"
        assert shown.root.evaluate(MOVING) == []
        if name == "attention":
            line = "(m) => [getComputedStyle(m, '::after').borderTopStyle, getComputedStyle(m, '::before').content]"
            marks = {kind: shown.stage.locator(f".dptx-mark-{kind}").evaluate(line) for kind in "ab"}
            assert marks == {"a": ["solid", '"A"'], "b": ["dashed", '"B"']}
