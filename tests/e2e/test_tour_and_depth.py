"""The tour and the depth explorer: as exported pages without a network, and in JupyterLab."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from probes import depth as numbers
from probes.explorers import DepthExplorer, ModelTour
from tests.e2e.conftest import Shown, check_fit, page_from_disk
from tests.e2e.jupyterlab import Lab, Notebook
from tests.models import TINY, tiny_model

IMAGE = np.random.default_rng(3).integers(0, 255, (60, 90, 3), dtype=np.uint8)

CELLS = [
    """import numpy as np
from probes.explorers import DepthExplorer, ModelTour
from tests.models import tiny_model
image = np.random.default_rng(3).integers(0, 255, (60, 90, 3), dtype=np.uint8)
tour = ModelTour(tiny_model(), image, size=70)
depth = DepthExplorer(tiny_model(), image, size=70)""",
    "tour",
    "depth",
    "print('seen', tour.part, depth.far, int(depth.mask.sum()))",
]


@contextmanager
def shown(browser: Browser, path: Path, width: int = 1200) -> Iterator[Shown]:
    with page_from_disk(browser, path, width) as page:
        found = Shown(page.locator(".dptx"))
        found.wait(state="ready")
        yield found


def node(found: Shown, part: str) -> Locator:
    return found.root.locator(f'.dptx-tour-node[data-part="{part}"]')


def test_the_keyboard_reaches_every_part_and_picture_of_the_tour(browser, tmp_path):
    tour = ModelTour(tiny_model(), IMAGE, size=70)
    with shown(browser, tour.to_html(tmp_path / "tour.html")) as found:
        node(found, "picture").focus()
        found.page.keyboard.press("n")
        found.wait(part="input", view="picture")
        for view in ("stretched", "values", "picture"):
            found.page.keyboard.press("v")
            found.wait(part="input", view=view)
        # Arrow keys reach every part. A part that receives the focus is chosen.
        node(found, "picture").focus()
        reached = {"picture"}
        for key, presses in (("ArrowRight", 4), ("ArrowDown", 1), ("ArrowRight", 1)):
            for _ in range(presses):
                found.page.keyboard.press(key)
                reached.add(str(found.root.evaluate("() => document.activeElement.dataset.part")))
        assert {"input", "patches", "patch_embed", "tokens"} <= reached
        every = tour.parts
        moves = {}
        for part in every:
            node(found, part).focus()
            found.wait(part=part)
            for key in ("ArrowRight", "ArrowLeft", "ArrowDown", "ArrowUp"):
                node(found, part).focus()
                found.page.keyboard.press(key)
                moves[part, key] = str(found.root.evaluate("() => document.activeElement.dataset.part"))
        seen, wanted = {"picture"}, ["picture"]
        while wanted:
            here = wanted.pop()
            after = {there for (part, _), there in moves.items() if part == here} - seen
            seen |= after
            wanted += after
        assert seen == set(every)


@pytest.mark.parametrize("family", TINY)
def test_a_click_shows_a_part_with_its_shapes_and_picture(browser, tmp_path, family):
    tour = ModelTour(TINY[family](), IMAGE)
    with shown(browser, tour.to_html(tmp_path / "tour.html")) as found:
        for part in ("encoder.blocks.1", "readout", "reassembly.3", "fusion.0", "head", "depth"):
            node(found, part).click()
            found.wait(part=part, state="ready")
            assert node(found, part).get_attribute("aria-selected") == "true"
            picture = found.root.locator(".dptx-tour-shot")
            found.page.wait_for_function(
                "(image) => image.complete && image.naturalWidth > 0", arg=picture.element_handle()
            )
        node(found, "fusion.2").click()
        cells = found.root.locator(".dptx-tour-shapes tbody td").all_text_contents()
        assert cells[0] == "fusion.2"
        assert cells[2].startswith("1 × 16 × ")
        if family != "depth-anything":
            node(found, "encoder.blocks.1").click()
            found.root.get_by_role("button", name="Bias").click()
            found.wait(part="encoder.blocks.1", view="bias", state="ready")


@pytest.mark.parametrize("width", [400, 700, 1500])
def test_nothing_sticks_out(browser, tmp_path, width):
    tour = ModelTour(tiny_model(), IMAGE, size=70, part="encoder.blocks.1")
    depth = DepthExplorer(tiny_model(), IMAGE, size=70)
    for path in (tour.to_html(tmp_path / "tour.html"), depth.to_html(tmp_path / "depth.html")):
        with shown(browser, path, width) as found:
            check_fit(found, width)


def pane(found: Shown, side: str) -> np.ndarray:
    width, height, data = found.root.locator(f'canvas[data-pane="{side}"]').evaluate(
        "(c) => [c.width, c.height, [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]]"
    )
    return np.array(data, np.uint8).reshape(height, width, 4)


def test_thresholds_mask_picture_and_depth_as_python_does(browser, tmp_path):
    depth = DepthExplorer(tiny_model(), IMAGE, size=70)
    with shown(browser, depth.to_html(tmp_path / "depth.html")) as found:
        assert (pane(found, "right")[..., 3] == 255).all()
        far = found.root.locator(".dptx-depth-far")
        far.focus()
        for _ in range(30):
            found.page.keyboard.press("ArrowRight")
        found.wait(far="0.3")
        mask = numbers.within(depth.depth, far=0.3)
        assert 0 < mask.sum() < mask.size
        for side in ("left", "right"):
            assert np.array_equal(pane(found, side)[..., 3] == 255, mask)
        found.wait(count=mask.sum())
        # the pointer drags the other handle
        near = found.root.locator(".dptx-depth-near").bounding_box()
        assert near is not None
        found.page.mouse.move(near["x"] + near["width"] - 8, near["y"] + 10)
        found.page.mouse.down()
        found.page.mouse.move(near["x"] + near["width"] * 0.6, near["y"] + 10, steps=4)
        found.page.mouse.up()
        found.page.wait_for_function("(root) => Number(root.dataset.near) < 0.65", arg=found.root.element_handle())
        found.page.keyboard.press("r")
        found.wait(far="0", near="1", count=mask.size)


def test_the_readout_shows_depth_and_metres_of_the_pixel(browser, tmp_path):
    depth = DepthExplorer(tiny_model(), IMAGE, size=70, others={"other": 2 * IMAGE[..., 0].astype(np.float32)})
    with shown(browser, depth.to_html(tmp_path / "depth.html")) as found:
        frame = found.root.locator(".dptx-depth-frame").nth(1)
        box = frame.bounding_box()
        assert box is not None
        found.page.mouse.move(box["x"] + box["width"] * 20.5 / 90, box["y"] + box["height"] * 40.5 / 60)
        said = found.root.locator(".dptx-depth-readout")
        found.page.wait_for_function("(e) => e.textContent.startsWith('Pixel (40, 20)')", arg=said.element_handle())
        text = str(said.text_content())
        assert f"{depth.depth[40, 20]:.4g}"[:5] in text
        assert f"other: depth {2.0 * IMAGE[40, 20, 0]:.4g}"[:18] in text
        frame.focus()
        found.page.keyboard.press("ArrowRight")
        found.page.wait_for_function("(e) => e.textContent.startsWith('Pixel (40, 21)')", arg=said.element_handle())


def test_a_large_picture_keeps_its_pixels_and_the_saved_map_states_its_size(browser, tmp_path, monkeypatch):
    monkeypatch.setattr("probes.explorers.depth.PICTURE_SIDE", 45)  # a map of 30 x 45 means
    depth = DepthExplorer(tiny_model(), IMAGE, size=70)
    means = depth.depth.reshape(30, 2, 45, 2).mean(axis=(1, 3))
    with shown(browser, depth.to_html(tmp_path / "depth.html")) as found:
        frame = found.root.locator(".dptx-depth-frame").nth(1)
        box = frame.bounding_box()
        assert box is not None
        said = found.root.locator(".dptx-depth-readout")
        found.page.mouse.move(box["x"] + box["width"] * 21.5 / 90, box["y"] + box["height"] * 41.5 / 60)
        expect(said).to_contain_text("Pixel (41, 21)")
        expect(said).to_contain_text(f"depth {means[20, 10]:.4g}"[:10])
        cross = found.root.locator(".dptx-depth-cross").nth(1)
        assert float(cross.evaluate("(c) => parseFloat(c.style.left)")) == pytest.approx(100 * 21.5 / 90, abs=0.01)
        frame.focus()
        for _ in range(7):
            found.page.keyboard.press("Shift+ArrowRight")
        expect(said).to_contain_text("Pixel (41, 89)")
        button = found.root.get_by_role("button", name="NPY")
        assert "as sent to the browser: 45 × 30 means of 90 × 60 pixels" in str(button.get_attribute("title"))
        with found.page.expect_download() as caught:
            button.click()
        assert np.load(caught.value.path()).shape == (30, 45)
        status = found.root.locator(".dptx-status-text")
        expect(status).to_contain_text(
            "Saved depth_inverse.npy: 45 × 30 means of 90 × 60 pixels; explorer.depth has all pixels"
        )


@pytest.mark.parametrize("at", [0.0, 0.5, 1.0])
def test_thresholds_that_meet_can_be_separated_in_both_directions_and_reset(browser, tmp_path, at):
    depth = DepthExplorer(tiny_model(), IMAGE, size=70, far=at, near=at)
    with shown(browser, depth.to_html(tmp_path / "depth.html")) as found:
        mouse, track = found.page.mouse, found.root.locator(".dptx-depth-track").bounding_box()
        assert track is not None
        place = lambda value: (track["x"] + 8 + (track["width"] - 16) * value, track["y"] + 10)  # noqa: E731
        reset = found.root.get_by_role("button", name="Reset")
        assert "key r" in str(reset.get_attribute("title"))
        for to in {max(0.0, at - 0.3), min(1.0, at + 0.3)} - {at}:
            mouse.move(*place(at))
            mouse.down()
            mouse.move(*place(to), steps=6)
            mouse.up()
            far, near = float(found.state("far") or 0), float(found.state("near") or 0)
            assert (far, near) == pytest.approx((min(at, to), max(at, to)), abs=0.02)
            for name in ("far", "near"):  # together again, by keyboard
                slider = found.root.locator(f".dptx-depth-{name}")
                slider.focus()
                for _ in range(40):
                    found.page.keyboard.press("ArrowRight" if float(slider.input_value()) < at else "ArrowLeft")
                    if float(slider.input_value()) == at:
                        break
            found.wait(far=f"{at:g}", near=f"{at:g}")
        reset.click()
        found.wait(far="0", near="1")
        assert reset.is_disabled()
        found.page.keyboard.press("n")  # the widget still has the focus
        expect(found.root.locator(".dptx-depth-near")).to_be_focused()


def test_the_error_about_distances_disappears_once_they_are_valid(browser, tmp_path):
    depth = DepthExplorer(tiny_model(), IMAGE, size=70)
    with shown(browser, depth.to_html(tmp_path / "depth.html")) as found:
        status = found.root.locator(".dptx-status-text")
        entry = found.root.get_by_label("Metres to the nearest pixel")
        for metres, words in (("500", "Distances are in metres"), ("3", "90 × 60 pixels")):
            entry.fill(metres)
            entry.press("Enter")
            expect(status).to_contain_text(words)


def test_the_walk_stops_at_both_ends_and_keeps_the_focus(browser, tmp_path):
    tour = ModelTour(tiny_model(), IMAGE, size=70)
    with shown(browser, tour.to_html(tmp_path / "tour.html")) as found:
        back, forth = (found.root.get_by_role("button", name=name) for name in ("Back", "Next"))
        assert back.is_disabled()
        assert forth.is_enabled()
        while forth.is_enabled():
            forth.press("Enter")
        found.wait(part="depth")
        expect(back).to_be_focused()
        while back.is_enabled():
            back.press("Enter")
        found.wait(part="picture")
        expect(forth).to_be_focused()


def test_a_choice_of_picture_keeps_the_focus(browser, tmp_path):
    tour = ModelTour(tiny_model(), IMAGE, size=70, part="input")
    with shown(browser, tour.to_html(tmp_path / "tour.html")) as found:
        choice = found.root.get_by_role("button", name="Stretched")
        choice.click()
        found.wait(view="stretched", state="ready")
        expect(choice).to_be_focused()
        assert choice.get_attribute("aria-pressed") == "true"
        found.page.keyboard.press("v")
        found.wait(view="values", state="ready")
        expect(choice).to_be_focused()
        found.page.keyboard.press("n")  # another part, without that button
        found.wait(part="patches")
        expect(node(found, "patches")).to_be_focused()


@pytest.mark.parametrize("way", ["button", "key"])
def test_the_walk_scrolls_to_a_part_below_the_diagram(browser, tmp_path, way):
    path = ModelTour(tiny_model(), IMAGE, size=70).to_html(tmp_path / "tour.html")
    with page_from_disk(browser, path, 800, 600, reduced_motion="reduce") as page:
        found = Shown(page.locator(".dptx"))
        found.wait(state="ready")
        if way == "button":
            found.root.get_by_role("button", name="Next").first.click()
        else:
            node(found, "picture").focus()
            page.keyboard.press("n")
        found.wait(part="input", state="ready")
        expect(found.root.locator(".dptx-tour-why")).to_be_in_viewport(ratio=1)
        # the walk continues next to the part
        again = found.root.get_by_role("button", name="Next").last
        expect(again).to_be_in_viewport(ratio=1)
        again.click()
        found.wait(part="patches", state="ready")


@pytest.mark.parametrize(("width", "height"), [(390, 760), (700, 640), (1000, 600), (1600, 500)])
def test_a_click_or_a_key_shows_the_explanation_next_to_the_part(browser, tmp_path, width, height):
    path = ModelTour(tiny_model(), IMAGE, size=70).to_html(tmp_path / "tour.html")
    with page_from_disk(browser, path, width, height, reduced_motion="reduce") as page:
        found = Shown(page.locator(".dptx"))
        found.wait(state="ready")
        lead = found.root.locator(".dptx-tour-lead")

        def check(part: str) -> None:
            found.wait(part=part, state="ready")
            expect(lead).to_be_in_viewport(ratio=1)
            expect(node(found, part)).to_be_in_viewport()
            page.evaluate("() => new Promise((done) => setTimeout(done, 50))")
            expect(lead).to_be_in_viewport(ratio=1)  # and it stays

        for part in ("fusion.2", "input", "head", "encoder.blocks.1", "picture", "depth", "readout"):
            chosen = node(found, part)
            chosen.scroll_into_view_if_needed()
            before = chosen.bounding_box()
            chosen.click()
            check(part)
            after = chosen.bounding_box()
            assert before is not None
            assert after is not None
            assert abs(after["y"] - before["y"]) < height * 0.75  # what was clicked does not jump away
        for key, part in (("Home", "picture"), ("End", "depth"), ("ArrowLeft", "head"), ("p", "fusion.3")):
            page.keyboard.press(key)
            check(part)
            expect(node(found, part)).to_be_focused()
        # Screen readers: the part is announced, Enter leads to its explanation, Escape back.
        expect(found.root.locator("[aria-live]").first).to_contain_text("Fusion 3")
        page.keyboard.press("Enter")
        expect(found.root.get_by_role("heading", name="Fusion 3")).to_be_focused()
        assert found.root.get_by_role("region", name="Fusion 3").count() == 1
        page.keyboard.press("Escape")
        expect(node(found, "fusion.3")).to_be_focused()


@pytest.fixture(scope="module")
def notebook(page: Page, lab: Lab) -> Notebook:
    return Notebook.written(page, lab, "tour.ipynb", CELLS)


def test_both_work_in_jupyterlab_and_survive_a_reload(notebook: Notebook, complaints):
    tour = notebook.explorer(0, painted="part")
    depth = notebook.explorer(1, painted="far")
    cells = notebook.cells()
    node(tour, "fusion.3").click()
    tour.wait(part="fusion.3", state="ready")
    for key in ("ArrowLeft", "a", "b", "d", "d", "Enter"):  # these must not reach the notebook, as its commands
        notebook.page.keyboard.press(key)
    tour.wait(part="fusion.2", state="ready")
    depth.root.locator(".dptx-depth-far").focus()
    for _ in range(20):
        notebook.page.keyboard.press("ArrowRight")
    depth.wait(far="0.2", state="ready")
    assert notebook.cells() == cells
    notebook.run_cell(3)
    kept = numbers.within(DepthExplorer(tiny_model(), IMAGE, size=70).depth, far=0.2).sum()
    notebook.page.get_by_text(f"seen fusion.2 0.2 {kept}").wait_for()
    notebook.execute("tour.part = 'depth'")
    tour.wait(part="depth", state="ready")
    # a second view follows the first
    notebook.run_cell(3, "tour")
    again = notebook.explorer(2, painted="part")
    node(again, "head").click()
    for view in (tour, again):
        view.wait(part="head", state="ready")
    assert complaints == []
    notebook.reload()
    tour = notebook.explorer(0, painted="part")
    assert tour.state("part") == "head"
    node(tour, "fusion.1").click()
    tour.wait(part="fusion.1", state="ready")
