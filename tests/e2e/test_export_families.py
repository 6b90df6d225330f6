"""Exported attention pages of BEiT and SwinV2: biases, windows and stages.

The models have random weights and few blocks. Heads, grids, windows and widths are those of the released models.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser

import dpt
import probes
from dpt.beit import beit
from dpt.swinv2 import swinv2
from probes.explorers import AttentionExplorer
from tests.e2e.conftest import Shown, colour_steps, page_from_disk
from tests.models import randomised

IMAGE = np.random.default_rng(3).integers(0, 255, (120, 120, 3), dtype=np.uint8)
BLOCKS = [0, 1, 3, 6]  # of SwinV2, in its page
SMALL: dict[str, Any] = {"fusion_channels": 16}  # of the decoder, which these tests do not show


def beit_base() -> dpt.DPT:
    """BEiT-base: 12 heads on 24 x 24 patches and a class token; 4 blocks instead of 12, a narrow MLP."""
    channels = (8, 16, 24, 32)
    config = beit(variant="base", width=768, depth=4, table_side=24, hidden=64, reassembly_channels=channels, **SMALL)
    return randomised(config, seed=1)


def swinv2_tiny() -> dpt.DPT:
    """SwinV2-tiny: 3, 6, 12, 24 heads; 64, 32, 16, 8 patches a side in windows of 16; 7 blocks instead of 12."""
    config = swinv2(variant="tiny", width=96, depths=(2, 2, 2, 1), window=16, base=256, **SMALL)
    return randomised(config, seed=1)


class Page:
    """The exported page of a model, and the model's exact attention."""

    def __init__(self, model: dpt.DPT, folder: Path, blocks: list[int], size: tuple[int, int] | None = None):
        with probes.capture(model, "attention") as self.capture:
            model.predict(IMAGE, size, keep_aspect=False)
        explorer = AttentionExplorer(model, IMAGE, blocks[0], size=size, keep_aspect=False)
        self.path = explorer.to_html(folder / f"{model.config.family}.html", blocks=blocks)

    def maps(self, block: int) -> probes.AttentionMaps:
        maps = self.capture[f"encoder.blocks.{block}.attention"]
        assert isinstance(maps, probes.AttentionMaps)
        return maps

    @contextmanager
    def shown(self, browser: Browser) -> Iterator[Shown]:
        """Opens the page. It must make no request and log no error."""
        with page_from_disk(browser, self.path, 1300) as page:
            shown = Shown(page.locator(".dptx"))
            shown.wait(state="ready")
            yield shown

    def check(self, shown: Shown, block: int, patch: tuple[int, int], direction: str = "row") -> None:
        """Checks that every tile shows the exact row or column of a patch on the block's grid."""
        values = self.maps(block).map(patch, direction=direction).to_numpy()
        pixels = shown.tiles(len(values))
        assert shown.root.locator(".dptx-tile").count() == len(values) + 1
        for tile, wanted in zip(pixels, [*values, values.mean(0)], strict=True):
            assert tile.shape[:2] == wanted.shape
            top = max(wanted.max(), 1e-30)  # the view treats smaller weights as 0
            assert colour_steps(tile, wanted, top) <= 2  # fp16 changes weights by a few thousandths

    def hover(self, shown: Shown, block: int, patch: tuple[int, int]) -> None:
        grid = self.maps(block).grid
        shown.point_at(*patch, grid.rows, grid.cols)
        shown.wait(block=block, token=grid.token(*patch))


def boxes(shown: Shown, selector: str, frame: str, rows: int, cols: int) -> list[tuple[float, float, float, float]]:
    """(top, left, height, width), in patches, of the visible elements on the picture or a tile."""
    found = shown.root.evaluate(
        """(root, [selector, frame]) => {
          const outer = root.querySelector(frame).getBoundingClientRect();
          const visible = (node) => getComputedStyle(node).visibility === "visible";
          return [...root.querySelectorAll(`${frame} ${selector}`)].filter(visible).map((node) => {
            const box = node.getBoundingClientRect();
            return [(box.top - outer.top) / outer.height, (box.left - outer.left) / outer.width,
                    box.height / outer.height, box.width / outer.width];
          });
        }""",
        [selector, frame],
    )
    return [(top * rows, left * cols, high * rows, wide * cols) for top, left, high, wide in found]


def covered(box: tuple[float, float, float, float], rows: int, cols: int) -> np.ndarray:
    """(rows, cols) bool: the patches inside a box, whose edges must lie on patch borders."""
    top, left, high, wide = box
    edges = np.array([top, left, top + high, left + wide])
    assert np.abs(edges - edges.round()).max() < 0.05
    t, l, b, r = edges.round().astype(int)  # noqa: E741 - left
    inside = np.zeros((rows, cols), bool)
    inside[t:b, l:r] = True
    return inside


@pytest.fixture(scope="module")
def beit_page(tmp_path_factory) -> Page:
    return Page(beit_base(), tmp_path_factory.mktemp("beit"), [1, 3])


@pytest.fixture(scope="module")
def swinv2_page(tmp_path_factory) -> Page:
    return Page(swinv2_tiny(), tmp_path_factory.mktemp("swinv2"), BLOCKS)


def test_beit_rows_and_columns_with_their_bias(browser, beit_page):
    with beit_page.shown(browser) as shown:
        for patch in [(5, 17), (0, 23)]:
            beit_page.hover(shown, 1, patch)
            beit_page.check(shown, 1, patch)
        with pytest.raises(AssertionError):  # control: the check tells two patches apart
            beit_page.check(shown, 1, (5, 17))
        shown.stage.focus()
        shown.page.keyboard.press("d")
        shown.wait(direction="column")
        beit_page.check(shown, 1, (0, 23), "column")
        shown.page.keyboard.press("]")
        shown.wait(block=3)
        beit_page.check(shown, 3, (0, 23), "column")
        assert boxes(shown, ".dptx-window", ".dptx-stage", 24, 24) == []  # every patch sees the whole grid


def test_beit_the_class_token_has_a_bias_of_its_own(browser, beit_page):
    with beit_page.shown(browser) as shown:
        shown.root.get_by_role("button", name="cls", exact=True).click()
        shown.wait(token=0)
        values = beit_page.maps(1).map(token=0).to_numpy()
        for tile, wanted in zip(shown.tiles(12), [*values, values.mean(0)], strict=True):
            assert colour_steps(tile, wanted, wanted.max()) <= 2


def test_swinv2_rows_lie_in_their_window_and_stages_have_their_own_grids(browser, swinv2_page):
    """Moves from block to block with and without the pointer: 64, 64, 32 and 8 patches per side."""
    with swinv2_page.shown(browser) as shown:
        assert not shown.root.locator(".dptx-chips").is_visible()  # there is no class token
        swinv2_page.hover(shown, 0, (41, 6))
        swinv2_page.check(shown, 0, (41, 6))
        shown.root.get_by_role("button", name="Next block").click()
        shown.wait(block=1, state="ready")
        swinv2_page.hover(shown, 1, (62, 3))  # across the border, in a shifted window
        swinv2_page.check(shown, 1, (62, 3))
        shown.stage.focus()
        shown.page.keyboard.press("]")
        shown.wait(block=3, token=31 * 32 + 1)  # the same place on a grid of 32 x 32
        swinv2_page.check(shown, 3, (31, 1))
        shown.page.keyboard.press("]")
        shown.wait(block=6, token=7 * 8)
        swinv2_page.check(shown, 6, (7, 0))
        swinv2_page.hover(shown, 6, (2, 5))  # the pointer follows the larger patches
        swinv2_page.check(shown, 6, (2, 5))
        shown.page.keyboard.press("d")
        shown.wait(direction="column")
        shown.page.keyboard.press("[")
        shown.wait(block=3, token=10 * 32 + 22)  # the centre lies between patches: the lower right one
        swinv2_page.check(shown, 3, (10, 22), "column")


def test_swinv2_a_way_to_a_coarser_stage_and_back_ends_where_it_began(browser, swinv2_page):
    with swinv2_page.shown(browser) as shown:
        swinv2_page.hover(shown, 0, (41, 6))
        shown.page.mouse.down()
        shown.page.mouse.up()
        shown.point_at(13, 50, 64, 64)
        shown.page.mouse.down()
        shown.page.mouse.up()
        shown.wait(mode="difference")
        pins = shown.root.locator(".dptx-pins .dptx-chip")
        assert [text.split(" ", 1)[1][:-2] for text in pins.all_inner_texts()] == ["(41, 6)", "(13, 50)"]
        shown.stage.focus()
        for block in (1, 3, 6):
            shown.page.keyboard.press("]")
            shown.wait(block=block)
        assert [text.split(" ", 1)[1][:-2] for text in pins.all_inner_texts()] == ["(5, 0)", "(1, 6)"]
        a, b = (swinv2_page.maps(6).map(patch).to_numpy() for patch in [(5, 0), (1, 6)])
        for head in range(24):
            top = np.abs(a[head] - b[head]).max()
            assert colour_steps(shown.tile(head), a[head] - b[head] + top, 2 * top, "RdBu_r") <= 2
        for block in (3, 1, 0):
            shown.page.keyboard.press("[")
            shown.wait(block=block)
        assert [text.split(" ", 1)[1][:-2] for text in pins.all_inner_texts()] == ["(41, 6)", "(13, 50)"]


def test_swinv2_pins_that_meet_become_one_and_heads_stay_possible(browser, swinv2_page):
    with swinv2_page.shown(browser) as shown:
        for patch in [(9, 9), (11, 12)]:  # the same patch of the last stage
            shown.point_at(*patch, 64, 64)
            shown.page.mouse.down()
            shown.page.mouse.up()
        shown.wait(mode="difference")
        shown.stage.focus()
        for block in (1, 3, 6):
            shown.page.keyboard.press("]")
            shown.wait(block=block)
        shown.wait(mode="a", token=1 * 8 + 1)
        assert shown.root.locator(".dptx-pins .dptx-chip").count() == 1
        shown.root.locator('canvas[data-tile="20"]').click()
        shown.page.wait_for_function("() => document.querySelector('.dptx-enlarged canvas')?.dataset.tile === '20'")
        shown.stage.focus()
        shown.page.keyboard.press("[")
        shown.wait(block=3)
        shown.page.wait_for_function("() => document.querySelector('.dptx-enlarged canvas')?.dataset.tile === 'mean'")


def test_swinv2_the_window_of_the_patch_is_outlined(browser, swinv2_page):
    """The outline is solid around the part that the patch sees and dashed around the rest of its window."""
    with swinv2_page.shown(browser) as shown:
        for block, patch, pieces in [
            (0, (41, 6), 1),
            (1, (30, 20), 1),
            (1, (30, 3), 2),
            (1, (62, 3), 4),
            (3, (5, 9), 2),
        ]:
            while (at := shown.state("block")) != str(block):
                shown.root.get_by_role("button", name="Next block").click()
                shown.wait(block=BLOCKS[BLOCKS.index(int(at or 0)) + 1])
            swinv2_page.hover(shown, block, patch)
            maps = swinv2_page.maps(block)
            rows, cols, token = maps.grid.rows, maps.grid.cols, maps.grid.token(*patch)
            seen = (maps.rows([token])[0, :, 0] > 0).any(0).reshape(rows, cols).numpy()
            window = np.zeros(rows * cols, bool)
            window[maps.window(token).numpy()] = True
            around = [
                covered(box, rows, cols)
                for box in boxes(shown, ".dptx-window-a:not(.dptx-window-rest)", ".dptx-stage", rows, cols)
            ]
            rest = [
                covered(box, rows, cols)
                for box in boxes(shown, ".dptx-window-a.dptx-window-rest", ".dptx-stage", rows, cols)
            ]
            assert len(around) == 1
            assert len(rest) == pieces - 1
            assert (around[0] == seen).all()
            assert (np.sum([*around, *rest], axis=0) == window.reshape(rows, cols)).all()
            on_tile = boxes(shown, ".dptx-window", ".dptx-mean .dptx-frame", rows, cols)
            assert len(on_tile) == 1
            assert (covered(on_tile[0], rows, cols) == seen).all()
            # The overlay is transparent outside what the patch sees.
            alpha = shown.root.locator(".dptx-overlay").evaluate(
                "(c) => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].filter((_, n) => n % 4 == 3)"
            )
            assert ((np.array(alpha).reshape(rows, cols) > 0) == seen).all()
        # In the last stage one window covers the grid: nothing to outline.
        shown.root.get_by_role("button", name="Next block").click()
        shown.wait(block=6)
        assert boxes(shown, ".dptx-window", ".dptx-stage", 8, 8) == []


def test_swinv2_the_copied_code_names_the_patch_of_the_block(browser, swinv2_page):
    with swinv2_page.shown(browser) as shown:
        shown.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        swinv2_page.hover(shown, 0, (41, 6))
        shown.stage.focus()
        for block in (1, 3):
            shown.page.keyboard.press("]")
            shown.wait(block=block)
        shown.root.get_by_role("button", name="Copy Python").click()
        shown.root.get_by_role("button", name="Copied").wait_for()
        code = shown.page.evaluate("navigator.clipboard.readText()")
    names: dict[str, Any] = {"model": swinv2_tiny(), "image": IMAGE}
    exec(code, names)
    np.testing.assert_allclose(names["shown_maps"], swinv2_page.maps(3).map((20, 3)), atol=1e-6)


def test_swinv2_what_is_saved(browser, swinv2_page, tmp_path):
    with swinv2_page.shown(browser) as shown:
        swinv2_page.hover(shown, 0, (41, 6))
        files = {}
        for name in ("NPZ", "CSV", "PNG"):
            with shown.page.expect_download() as download:
                shown.root.get_by_role("button", name=name).click()
            assert download.value.suggested_filename == f"attention_block0_row_41-6.{name.lower()}"
            files[name] = tmp_path / download.value.suggested_filename
            download.value.save_as(files[name])
        with np.load(files["NPZ"]) as arrays:
            np.testing.assert_allclose(arrays["attention"], swinv2_page.maps(0).map((41, 6)), atol=2e-3)
            assert arrays["prefix"].shape == (3, 0)
        assert files["CSV"].read_text().count("\n") == 1 + 3 * 64 * 64
        assert files["PNG"].stat().st_size > 10_000
