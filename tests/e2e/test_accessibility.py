"""axe-core, an accessibility checker, on the exported pages of all explorers, and on what opens in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.e2e.conftest import Shown, page_from_disk
from tests.e2e.test_every_page import EXPLORERS

AXE = Path(__file__).parents[2] / "probes/explorers/node_modules/axe-core/axe.min.js"

# What stands in the way of someone: axe's rules, with the first element of each and what to do.
VIOLATIONS = """async () => (await axe.run(document, { resultTypes: ["violations"] })).violations
  .map(({ id, nodes }) => [id, nodes[0].html.slice(0, 160), nodes[0].failureSummary])"""
UNNAMED = """() => [...document.querySelectorAll("canvas")]
  .filter((node) => node.checkVisibility() && !node.closest("[aria-label], [aria-hidden=true]"))
  .map((node) => node.outerHTML)"""


@pytest.fixture(scope="module")
def axe() -> str:
    if not AXE.is_file():
        pytest.skip("axe-core is not installed: run npm ci in probes/explorers")
    return AXE.read_text(encoding="utf-8")


@pytest.fixture(scope="module", params=EXPLORERS)
def path(request, tmp_path_factory) -> Path:
    return EXPLORERS[request.param]().to_html(tmp_path_factory.mktemp("page") / f"{request.param}.html")


def check(page: Page) -> None:
    """In light and dark colours."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        found: list[Any] = page.evaluate(VIOLATIONS)
        assert found == [], scheme
    assert page.evaluate(UNNAMED) == []


def test_pages_pass_closed_and_with_everything_open(browser: Browser, path: Path, axe: str):
    # axe is not part of the page, whose policy allows inline scripts only
    with page_from_disk(browser, path, bypass_csp=True) as page:
        shown = Shown(page.locator(".dptx"))
        shown.wait(state="ready")
        page.evaluate(f"{axe}; undefined")
        check(page)
        shown.root.evaluate("(root) => { for (const fold of root.querySelectorAll('details')) fold.open = true; }")
        if (tile := shown.root.locator(".dptx-tile[role=button]:visible").first).count():
            tile.click()
        # as in a frame that forbids downloads
        page.evaluate("Object.defineProperty(window, 'parent', { value: { parent: null } })")
        shown.root.locator(".dptx-actions .dptx-segments button").last.click()
        shown.root.locator(".dptx-offer a").wait_for()
        shown.root.get_by_role("button", name="Help").click()
        shown.after_paint()
        check(page)


def test_errors_pass(browser: Browser, path: Path, axe: str):
    with page_from_disk(browser, path, bypass_csp=True) as page:
        shown = Shown(page.locator(".dptx"))
        shown.wait(state="ready")
        page.evaluate(f"{axe}; undefined")
        page.evaluate("() => { URL.createObjectURL = () => { throw new Error('refused'); }; }")
        shown.root.locator(".dptx-actions .dptx-segments button").last.click()
        shown.root.locator(".dptx-status[data-state=failed]").wait_for()
        check(page)


@pytest.mark.parametrize(
    ("broken", "sign"),
    [
        ("delete window.ResizeObserver", ".dptx-page-trouble"),  # the picture stays
        ("window.createImageBitmap = () => new Promise(() => {})", ".dptx"),  # the view waits
    ],
)
def test_pages_pass_without_their_view_and_while_it_waits(browser, axe, tmp_path, broken, sign):
    path = EXPLORERS["attention"]().to_html(tmp_path / "page.html")
    context = browser.new_context(bypass_csp=True)
    page = context.new_page()
    page.add_init_script(broken)
    page.goto(path.as_uri())
    page.locator(sign).wait_for()
    page.evaluate(f"{axe}; undefined")
    check(page)
    context.close()
