"""A headless Chromium for the tests that look at what a user sees, and reading the explorer's tiles in it."""

from __future__ import annotations

import base64
import importlib.util
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

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


@pytest.fixture(scope="module")
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
