"""A headless Chromium for the tests that look at what a user sees, and reading the explorer's tiles in it."""

from __future__ import annotations

import base64
import importlib.util
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from tests.conftest import BROWSERS

if TYPE_CHECKING:
    from tests.e2e.jupyterlab import Lab

SWITCHES = [
    "--no-sandbox",  # containers
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def find_chromium() -> str:
    """For the scripts in this folder; tests use the fixture."""
    for name in BROWSERS:
        if path := shutil.which(name):
            return path
    raise SystemExit(f"no {', '.join(BROWSERS)} on PATH")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/e2e" in item.path.as_posix():
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=SWITCHES)
        yield browser
        browser.close()


class Complaints(list[str]):
    """Console errors and uncaught exceptions of a page."""

    def watch(self, page: Page) -> None:
        page.on("console", lambda message: self.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.append(str(error)))


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory, chromium: str) -> Iterator[Lab]:
    if importlib.util.find_spec("jupyterlab") is None:
        pytest.skip("JupyterLab is not installed: pip install 'dpt-workbench[lab]'")
    from tests.e2e.jupyterlab import started  # which needs this module

    with started(tmp_path_factory.mktemp("jupyter")) as lab:
        yield lab


@pytest.fixture(scope="module")
def page(browser: Browser, lab: Lab) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1500, "height": 1100})
    yield context.new_page()
    context.close()
    lab.stop_kernels()


@pytest.fixture(scope="module")
def all_complaints(page: Page) -> Complaints:
    complaints = Complaints()
    complaints.watch(page)
    return complaints


@pytest.fixture
def complaints(all_complaints: Complaints) -> Complaints:
    """What the browser's console says during this test."""
    all_complaints.clear()
    return all_complaints


@contextmanager
def page_from_disk(
    browser: Browser, path: Path, width: int = 1200, height: int = 900, **options: Any
) -> Iterator[Page]:
    """An exported page: every request but the one for the file itself is refused; none may be made, no error logged."""
    context = browser.new_context(offline=True, viewport={"width": width, "height": height}, **options)
    page = context.new_page()
    requests: list[str] = []
    complaints = Complaints()
    complaints.watch(page)
    page.on("request", lambda request: requests.append(request.url))
    mine = ("file:", "blob:")  # a download is a blob of the page's own
    page.route("**/*", lambda route: route.continue_() if route.request.url.startswith(mine) else route.abort())
    page.goto(path.as_uri())
    yield page
    assert [url for url in requests if not url.startswith("blob:")] == [path.as_uri()]
    assert complaints == []
    context.close()


def wait_until(page: Page, holds: Callable[[], bool], seconds: float = 10) -> None:
    """Until a condition holds that is read from the page; fails when it does not in time."""
    for _ in range(int(seconds * 50)):
        if holds():
            return
        page.wait_for_timeout(20)
    raise AssertionError(f"not so within {seconds} s: {holds.__name__}")


def check_fit(shown: Shown, width: int) -> None:
    """Nothing sticks out, of the explorer or the page; no words are squashed; controls say what they do; no ids."""
    outside = shown.root.evaluate(
        """(root) => { const box = root.getBoundingClientRect();
          return [...root.querySelectorAll("button, canvas, .dptx-tile, select, input")].filter((n) => {
            const own = n.getBoundingClientRect();
            return own.width > 0 && (own.right > box.right + 1 || own.left < box.left - 1);
          }).map((n) => n.outerHTML.slice(0, 80)); }"""
    )
    assert outside == []
    squashed = shown.root.evaluate(
        """(root) => [...root.querySelectorAll("*:not(.dptx-offscreen, title)")].filter((n) => {
          const words = [...n.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
          const own = n.getBoundingClientRect();
          return words && n.checkVisibility() && own.width > 0 && own.height < 8;
        }).map((n) => n.outerHTML.slice(0, 80))"""
    )
    assert squashed == []
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= width
    silent = shown.root.evaluate(
        """(root) => [...root.querySelectorAll("button, select, input")]
          .filter((n) => !n.title && !n.hidden).map((n) => n.outerHTML)"""
    )
    assert silent == []
    assert shown.root.evaluate("(root) => root.querySelectorAll('[id]').length") == 0


class Shown:
    """An explorer on a page, by what a user can do with it and see of it."""

    def __init__(self, root: Locator):
        self.root = root
        self.page = root.page
        self.stage = root.locator(".dptx-stage")

    def state(self, name: str) -> str | None:
        return self.root.get_attribute(f"data-{name}")

    def wait(self, **state: object) -> None:
        """Until the last paint is of this state, e.g. block=3, token=17."""
        for name, value in state.items():
            self.page.wait_for_function(
                "([root, name, value]) => root.dataset[name] === value",
                arg=[self.root.element_handle(), name, str(value)],
                timeout=20_000,
            )

    def after_paint(self) -> None:
        """Until the browser has painted what happened so far: a view paints in the next animation frame."""
        self.page.evaluate(
            "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done())))"
        )

    def point_at(self, row: int, col: int, rows: int, cols: int) -> None:
        """Move the mouse to the middle of a patch of the picture."""
        box = self.stage.bounding_box()
        assert box is not None
        x = box["x"] + box["width"] * (col + 0.5) / cols
        y = box["y"] + box["height"] * (row + 0.5) / rows
        self.page.mouse.move(x, y)

    def tile(self, name: int | str) -> np.ndarray:
        """A tile's pixels as they are on its canvas: (rows, cols, 4) uint8, one pixel a patch."""
        width, height, data = self.root.locator(f'canvas[data-tile="{name}"]').evaluate(
            "(c) => [c.width, c.height, [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]]"
        )
        return np.array(data, np.uint8).reshape(height, width, 4)

    def tiles(self, heads: int) -> list[np.ndarray]:
        """All heads, then the mean; read at one time."""
        names = [str(head) for head in range(heads)] + ["mean"]
        found = self.root.evaluate(
            """(root, names) => names.map((name) => {
              const c = root.querySelector(`canvas[data-tile="${name}"]`);
              const { data } = c.getContext("2d").getImageData(0, 0, c.width, c.height);
              return [c.width, c.height, btoa(Array.from(data, (byte) => String.fromCharCode(byte)).join(""))];
            })""",
            names,
        )
        return [
            np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 4) for width, height, text in found
        ]


CONTRASTS = """(root) => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const over = ([r, g, b, a = 1], under) => [r, g, b].map((value, n) => a * value + (1 - a) * under[n]);
  const backdrop = (node) => {
    const own = channels(getComputedStyle(node).backgroundColor);
    const solid = own[3] === undefined || own[3] === 1;
    return solid || !node.parentElement ? own.slice(0, 3) : over(own, backdrop(node.parentElement));
  };
  const light = (colour) => colour.map((value) => value / 255)
    .map((u) => (u <= 0.04045 ? u / 12.92 : ((u + 0.055) / 1.055) ** 2.4))
    .reduce((sum, u, n) => sum + u * [0.2126, 0.7152, 0.0722][n], 0);
  const found = [];
  for (const node of root.querySelectorAll("*")) {
    const text = [...node.childNodes].filter((n) => n.nodeType === 3).map((n) => n.textContent.trim()).join(" ");
    const style = getComputedStyle(node);
    const off = node.closest(":disabled, .dptx-idle, .dptx-offscreen") || style.visibility !== "visible";
    if (!text || off || !node.getClientRects().length || style.color.includes("srgb")) continue;
    const under = backdrop(node);
    const [low, high] = [light(over(channels(style.color), under)), light(under)].sort((a, b) => a - b);
    found.push([(high + 0.05) / (low + 0.05), text.slice(0, 40), node.className]);
  }
  return found;
}"""


def pale_words(shown: Shown) -> list[tuple[float, str, str]]:
    """(contrast, text, class) of what stands out too little: text needs 4.5 by WCAG 2.2, 1.4.3; of what is not off."""
    found = shown.root.evaluate(CONTRASTS)
    assert len(found) >= 10
    return [tuple(one) for one in found if one[0] < 4.5]


def colour_steps(pixels: np.ndarray, values: np.ndarray, top: float, colormap: str = "viridis") -> int:
    """Largest distance, in steps of the 256-colour table, between a tile and what its values should look like."""
    import matplotlib

    table = (matplotlib.colormaps[colormap](np.arange(256))[:, :3] * 255).round().astype(int)
    assert (pixels[..., 3] == 255).all()
    distance = np.abs(pixels[..., None, :3].astype(int) - table).sum(-1)
    assert distance.min(-1).max() == 0, "a pixel is no colour of the table"
    wanted = np.clip(np.floor(values / top * 256), 0, 255)
    # Neighbouring entries can be equal: count the steps to the nearest of the equal ones.
    steps = np.where(distance == 0, np.abs(np.arange(256) - wanted[..., None]), 256).min(-1)
    return int(steps.max())
