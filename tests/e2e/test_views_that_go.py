"""A widget whose last view is gone keeps no data and no listeners, tells the kernel, and can be shown again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

import probes.explorers
from tests.e2e.test_every_page import EXPLORERS

BUNDLES = Path(probes.explorers.__file__).parent / "bundles"

START = """async ([code, traits]) => {
  const widget = (await import(URL.createObjectURL(new Blob([code], { type: "text/javascript" })))).default();
  const [handlers, sent] = [new Map(), []];
  const model = {
    get: (name) => traits[name], set() {}, save_changes() {}, comm_live: true,
    send: ({ kind, count }) => sent.push(kind + (count ?? "")),
    on: (name, handler) => handlers.set(name, (handlers.get(name) ?? new Set()).add(handler)),
    off: (name, handler) => handlers.get(name)?.delete(handler),
  };
  const el = document.body.appendChild(document.createElement("div"));
  const end = widget.initialize({ model });
  const tell = (message) => [...handlers.get("msg:custom")].forEach((handler) => handler(message, []));
  const listening = () => [...handlers.values()].reduce((sum, each) => sum + each.size, 0);
  Object.assign(window, { el, end, tell, sent, listening, show: () => widget.render({ model, el }) });
}"""


@pytest.fixture
def blank(browser: Browser) -> Iterator[Page]:
    page = browser.new_page()
    yield page
    page.close()


@pytest.mark.parametrize("name", ["attention", "depth", "fusion", "norms", "positions", "tour"])
def test_a_widget_without_a_view_keeps_nothing(blank: Page, name: str):
    errors: list[str] = []
    blank.on("pageerror", lambda error: errors.append(str(error)))
    explorer = EXPLORERS["table" if name == "positions" else name]()
    traits = {name: getattr(explorer, name) for name in explorer.trait_names(ui=True)}
    blank.evaluate(START, [(BUNDLES / f"{name}.js").read_text(encoding="utf-8"), traits])
    blank.evaluate("() => { window.undo = window.show(); window.root = el.querySelector('.dptx'); }")
    first = blank.evaluate("() => sent.splice(0)")
    assert first[0] == "views1"
    assert len(first) > 1
    blank.evaluate("() => tell({ kind: 'count views' })")
    assert blank.evaluate("() => sent.splice(0)") == ["views1"]
    blank.evaluate("() => undo()")
    assert blank.evaluate("() => [root.isConnected, root.childElementCount]") == [False, 0]
    blank.wait_for_function("() => sent.includes('views0')", timeout=20_000)
    assert blank.evaluate("() => listening()") == 1  # for "replaced"
    blank.evaluate("() => { sent.length = 0; window.undo = show(); }")
    assert blank.evaluate("() => sent.splice(0)") == first
    blank.evaluate("() => { undo(); end(); }")
    blank.wait_for_timeout(2500)
    assert blank.evaluate("() => [sent.includes('views0'), listening()]") == [False, 1]
    assert errors == []
