"""A view that was created from saved widget state, where no kernel knows it. The page stands in for the host."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from probes.explorers import AttentionExplorer, DepthExplorer
from probes.explorers.shared import pages
from tests.models import tiny_model
from tests.probes.explorers.test_pictures import IMAGE

# anywidget's model: it hides its connection, and silently drops what is sent without one
HOST = """async ([script, state, live]) => {
  const url = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  const widget = (await import(url)).default();
  const model = {
    get: (name) => (name === "layout" ? { comm_live: live } : state[name]),
    set: () => undefined, save_changes: () => undefined, on: () => undefined, off: () => undefined,
    send: () => { window.sent = true; },
  };
  const el = document.body.appendChild(document.createElement("div"));
  await widget.initialize({ model });
  window.dispose = await widget.render({ model, el });
}"""


@pytest.fixture
def page(browser: Browser) -> Any:
    page = browser.new_page()
    yield page
    page.close()


def shown(page: Page, explorer: Any, live: bool) -> str:
    """Renders an explorer from its saved state; returns the words of the status strip."""
    state = {name: value for name, value in explorer.get_state().items() if not name.startswith(("_esm", "layout"))}
    page.evaluate(HOST, [pages.script_of(explorer._name), json.loads(json.dumps(state)), live])
    return page.locator(".dptx-status-text").inner_text()


def test_a_view_without_a_kernel_shows_its_picture_and_says_so(page):
    explorer = AttentionExplorer(tiny_model(), IMAGE)
    data, _ = explorer._repr_mimebundle_()
    assert "without a kernel" in shown(page, explorer, live=False)
    picture = page.locator(".dptx img")
    assert picture.evaluate("async (img) => { await img.decode(); return img.naturalWidth; }") == 900
    held = picture.evaluate("async (img) => [...new Uint8Array(await (await fetch(img.src)).arrayBuffer())]")
    assert bytes(held) == base64.b64decode(data["image/png"])
    assert picture.get_attribute("alt") == data["text/plain"]
    assert page.locator(".dptx button, .dptx canvas").count() == 0  # nothing that would not react
    assert not page.evaluate("() => Boolean(window.sent)")
    page.evaluate("() => window.dispose()")
    assert page.locator(".dptx").count() == 0


def test_a_view_that_was_never_displayed_says_so_too(page):
    assert "without a kernel" in shown(page, DepthExplorer(tiny_model(), IMAGE), live=False)
    assert page.locator(".dptx img").count() == 0


def test_a_view_with_a_kernel_asks_it(page):
    explorer = AttentionExplorer(tiny_model(), IMAGE)
    explorer._repr_mimebundle_()
    assert "without a kernel" not in shown(page, explorer, live=True)
    assert page.evaluate("() => Boolean(window.sent)")
