"""Pages of images in a run, written without a model: the maps shown, and the controls disabled for missing captures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

import dpt
import probes
from dpt import demo
from probes.explorers import AttentionExplorer, NormExplorer
from tests.e2e.conftest import Shown
from tests.e2e.test_export_families import Page
from tests.models import OBLONG, TINY, tiny_model

BLOCKS = {"demo": [0, 7], "depth-anything": [1, 3], "beit": [1, 3], "swinv2": [0, 1, 6]}


class StoredPage(Page):
    """A page of a stored image, written while creating a model is an error, and the model's exact attention."""

    def __init__(self, folder: Path, model: dpt.DPT, image: np.ndarray, size: tuple[int, int], blocks: list[int]):
        Image.fromarray(image).save(folder / "picture.png")
        with probes.capture(model, "attention") as self.capture:
            model.predict(image, size, keep_aspect=False)
        setting = {"size": size, "keep_aspect": False, "workers": 0, "progress": False}
        probes.run(model, folder / "picture.png", folder / "run", "attention", "depth", **setting)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dpt.DPT, "__init__", lambda *_: pytest.fail("a model was made"))
            patch.setattr(dpt.DPT, "forward", lambda *_: pytest.fail("a model was run"))
            explorer = AttentionExplorer(probes.open_run(folder / "run")["picture.png"], block=blocks[0])
            self.path = explorer.to_html(folder / "page.html", blocks=blocks)


@pytest.fixture(scope="module", params=["demo", "beit", "swinv2"])
def stored(request, tmp_path_factory) -> tuple[StoredPage, list[int]]:
    name: str = request.param
    folder = tmp_path_factory.mktemp(name)
    image = demo.sample("plaza")[0]
    model, size = (dpt.load("demo"), (112, 168)) if name == "demo" else (TINY[name](), OBLONG[name])
    return StoredPage(folder, model, image, size, BLOCKS[name]), BLOCKS[name]


def test_tiles_are_softmax_rows_and_columns_of_the_model(browser, stored):
    page, blocks = stored
    with page.shown(browser) as shown:
        for n, block in enumerate(blocks):
            if n:
                shown.stage.focus()
                shown.page.keyboard.press("]")
                shown.wait(block=block, state="ready")
            grid = page.maps(block).grid
            for patch in [(1, 0), (grid.rows - 1, grid.cols - 1)]:
                page.hover(shown, block, patch)
                page.check(shown, block, patch)
            with pytest.raises(AssertionError):  # control: the check tells two patches apart
                page.check(shown, block, (1, 0))
        shown.page.keyboard.press("d")
        shown.wait(direction="column")
        page.check(shown, block, patch, "column")
        shown.stage.click()
        shown.page.keyboard.press("p")
        expect(shown.root.get_by_role("button", name="Depth")).to_have_attribute("aria-pressed", "true")


# ------------------------------------------------------------------------------------------------ what was not captured


@pytest.fixture(scope="module")
def some(tmp_path_factory) -> Path:
    """A run that holds attention of blocks 1 and 2, norms of blocks 0 and 2, and channels of block 2."""
    folder = tmp_path_factory.mktemp("some")
    Image.fromarray(demo.sample("plaza")[0]).save(folder / "picture.png")
    points = [f"encoder.blocks.{name}" for name in ("1.attention", "2.attention", "0.norms", "2.norms", "2.tokens")]
    setting = {"size": OBLONG["depth-anything"], "keep_aspect": False, "workers": 0, "progress": False}
    probes.run(tiny_model(), folder / "picture.png", folder / "run", *points, **setting)
    return folder


@pytest.fixture
def opened(browser) -> Iterator:
    """Opens a page. The test fails if its console shows an error."""
    context = browser.new_context(offline=True, viewport={"width": 1300, "height": 900})
    said: list[str] = []

    def open_(path: Path) -> Shown:
        page = context.new_page()
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        page.goto(path.as_uri())
        shown = Shown(page.locator(".dptx"))
        shown.wait(state="ready")
        return shown

    yield open_
    context.close()
    assert said == []


def test_controls_for_what_was_not_captured_say_why(opened, some):
    shown = opened(AttentionExplorer(probes.open_run(some / "run")["picture.png"]).to_html(some / "a.html", "all"))
    assert shown.state("block") == "2"
    depth = shown.root.get_by_role("button", name="Depth")
    expect(depth).to_be_disabled()
    expect(depth).to_have_attribute("title", re.compile(rf'{re.escape(str(some))}/run holds no depth.*"depth"'))
    status = shown.root.locator(".dptx-status-text")
    shown.stage.focus()
    shown.page.keyboard.press("p")
    expect(status).to_contain_text("holds no depth")
    for key, block in (("[", 1), ("[", 1), ("]", 2), ("]", 2)):  # the two captured blocks
        shown.page.keyboard.press(key)
        shown.wait(block=block, state="ready")
    slider = shown.root.get_by_role("slider", name="Block")
    assert (slider.get_attribute("max"), slider.input_value()) == ("1", "1")
    why = shown.root.locator(".dptx-field:has(input[aria-label=Block])").get_attribute("title") or ""
    assert "holds attention of blocks 1, 2 only" in why


def test_norms_of_the_blocks_that_there_are(opened, some):
    explorer = NormExplorer(probes.open_run(some / "run")["picture.png"], block=0, enlarged=True)
    shown = opened(explorer.to_html(some / "n.html", channels="all"))
    assert shown.root.locator(".dptx-tile canvas").evaluate_all("(all) => all.map((c) => c.dataset.tile)") == ["0", "2"]
    assert shown.state("block") == "0"
    channel = shown.root.get_by_role("button", name="Channel", exact=True)
    expect(channel).to_be_disabled()
    hint = shown.root.locator(".dptx-enlarged-block .dptx-hint")
    expect(hint).to_have_text("Its channels were not captured")
    assert "holds tokens of block 2 only" in (hint.get_attribute("title") or "")
    assert "holds tokens of block 2 only" in (channel.get_attribute("title") or "")
    shown.stage.focus()
    shown.page.keyboard.press("n")
    expect(shown.root.locator(".dptx-status-text")).to_contain_text("holds tokens of block 2 only")
    shown.page.keyboard.press("]")
    shown.wait(block=2, state="ready")
    expect(channel).to_be_enabled()
    channel.click()
    shown.wait(what="channel", state="ready")
    expect(shown.root.locator(".dptx-count[aria-pressed=true] .dptx-count-block")).to_have_text("2")
