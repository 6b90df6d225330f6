"""The fusion explorer in JupyterLab, with real drags, and as an exported page without a network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from probes import FusionReplay
from probes.explorers import FusionExplorer
from probes.explorers.fusion import POINTS
from probes.figures import animation
from tests.e2e.conftest import Complaints, Shown, page_from_disk, wait_until
from tests.e2e.jupyterlab import ROOT, Lab, Notebook
from tests.models import tiny_model

IMAGE = np.random.default_rng(3).integers(0, 255, (60, 90, 3), dtype=np.uint8)
SIZE = (70, 98)

SMALL = [
    """import numpy as np
from probes.explorers import FusionExplorer
from tests.models import tiny_model
image = np.random.default_rng(3).integers(0, 255, (60, 90, 3), dtype=np.uint8)
explorer = FusionExplorer(tiny_model(), image, size=(70, 98), keep_aspect=False, colormap="viridis")""",
    "explorer",
    "explorer",
    "print('seen', explorer.scales['fusion.2'], explorer.show)",
]


@pytest.fixture(scope="module")
def replay() -> FusionReplay:
    return FusionReplay(tiny_model(), IMAGE, SIZE, keep_aspect=False)


class Fusion(Shown):
    """A fusion explorer in the browser, with its sliders."""

    def slider(self, point: str):
        return self.root.locator(f'input[type=range][data-point="{point}"]')

    def scales(self) -> dict[str, float]:
        return dict(zip(POINTS, map(float, (self.state("scales") or "").split(",")), strict=True))

    def wait_for(self, **factors: float) -> None:
        """Waits until the full map of a setting is on display and the setting is saved: wait_for(fusion_2=0.5)."""
        scales = [factors.get(point.replace(".", "_"), 1) for point in POINTS]
        self.wait(state="ready", scales=",".join(f"{scale:g}" for scale in scales), shrink=1)

    def drag(self, point: str, to: float) -> None:
        """Drags the knob of a slider to a scale with the pointer."""
        slider = self.slider(point)
        slider.scroll_into_view_if_needed()
        box = slider.bounding_box()
        assert box is not None
        at = lambda scale: box["x"] + 8 + (box["width"] - 16) * (scale + 5) / 10  # noqa: E731
        y = box["y"] + box["height"] / 2
        self.page.mouse.move(at(float(slider.input_value())), y)
        self.page.mouse.down()
        self.page.mouse.move(at(to), y, steps=12)
        self.page.mouse.up()

    def pixels(self) -> np.ndarray:
        width, height, data = self.root.locator("canvas.dptx-depth").evaluate(
            "(c) => [c.width, c.height, [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]]"
        )
        return np.array(data, np.uint8).reshape(height, width, 4)[..., :3]


def coloured(replay: FusionReplay, scales: dict[str, float], **more: object) -> np.ndarray:
    import matplotlib

    depth = replay.output(scales)[0].numpy()
    table = matplotlib.colormaps["viridis"](np.arange(256), bytes=True)[:, :3]
    return table[animation.shade(depth, **more)]


def check(shown: Fusion, replay: FusionReplay, scales: dict[str, float], **more: object) -> None:
    """The canvas shows the map of these scales, up to neighbours in the colour table."""
    apart = np.abs(shown.pixels().astype(int) - coloured(replay, scales, **more)).max(-1)
    assert (apart > 8).mean() < 0.005


def wait_for_map(shown: Fusion, replay: FusionReplay, scales: dict[str, float]) -> None:
    """Waits until the canvas shows the map of these scales."""
    for _ in range(200):
        with suppress(AssertionError, ValueError):  # another map, or one of another size
            check(shown, replay, scales)
            return
        shown.page.wait_for_timeout(50)
    check(shown, replay, scales)


# ----------------------------------------------------------------------------------------------------------------- page


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    explorer = FusionExplorer(tiny_model(), IMAGE, {"fusion.3": 2.0}, size=SIZE, keep_aspect=False, colormap="viridis")
    return explorer.to_html(tmp_path_factory.mktemp("page") / "fusion.html", steps=[-1.0, 0.0, 1.0])


@pytest.fixture
def alone(browser: Browser, path: Path) -> Iterator[Fusion]:
    with page_from_disk(browser, path, accept_downloads=True) as page:
        shown = Fusion(page.locator(".dptx"))
        shown.wait_for(fusion_3=2)
        yield shown


def test_a_page_shows_its_setting_the_unscaled_map_and_the_difference(alone, replay):
    check(alone, replay, {"fusion.3": 2.0})
    with pytest.raises(AssertionError):  # control: the check tells two maps apart
        check(alone, replay, {})
    alone.root.get_by_role("button", name="Unscaled", exact=True).click()
    alone.wait(view="unscaled")
    check(alone, replay, {})
    alone.stage.focus()
    alone.page.keyboard.press("h")
    expect(alone.root.locator(".dptx-bar-note")).to_have_text("inverse depth, colours spread evenly")
    check(alone, replay, {}, high_contrast=True)
    alone.page.keyboard.press("d")
    alone.wait(view="difference")
    alone.page.keyboard.press("d")
    alone.wait(view="scaled")
    # pressing the map shows the unscaled one until the button is released
    alone.stage.hover()
    alone.page.mouse.down()
    alone.wait(view="unscaled")
    alone.page.mouse.up()
    alone.wait(view="scaled")


def test_on_a_page_one_slider_at_a_time_moves_in_steps(alone, replay):
    alone.drag("fusion.3", -0.8)
    alone.wait_for(fusion_3=-1)
    assert alone.slider("fusion.3").input_value() == "-1"
    alone.drag("fusion.1", 0.2)
    alone.wait_for(fusion_3=2, fusion_1=0)
    apart = np.abs(alone.pixels().astype(int) - coloured(replay, {"fusion.3": 2.0, "fusion.1": 0.0})).max(-1)
    assert (apart > 8).mean() < 0.05  # the map has 8 bits
    alone.page.keyboard.press("ArrowRight")
    alone.wait_for(fusion_3=2, fusion_1=1)
    alone.page.keyboard.press("r")
    alone.wait_for(fusion_3=2)
    assert "one slider at a time" in (alone.root.locator(".dptx-note").text_content() or "")
    assert alone.slider("reassembly.0").is_disabled()


def test_the_picture_hides_the_colour_bar_and_disables_the_colour_keys(alone):
    bar, controls = alone.root.locator(".dptx-bar"), ".dptx-left [aria-pressed='true'], .dptx-left select"
    chosen = lambda: alone.root.evaluate(  # noqa: E731
        f"""(root) => [...root.querySelectorAll(`{controls}`)].map((n) => n.value || n.title)"""
    )
    assert bar.is_visible()
    before = chosen()
    alone.stage.focus()
    for key, view in (("p", "picture"), ("d", "difference")):
        alone.page.keyboard.press(key)
        alone.wait(view=view)
        assert bar.is_visible() == (view != "picture")
        for colours in "hvce":
            alone.page.keyboard.press(colours)
        assert chosen() == before
    alone.page.keyboard.press("d")
    alone.wait(view="scaled")
    assert bar.is_visible()
    for colours in "vc":  # control
        alone.page.keyboard.press(colours)
    assert chosen() != before
    alone.page.keyboard.press("h")
    note = alone.root.locator(".dptx-bar-note")
    expect(note).to_have_text("inverse depth, colours spread evenly")
    assert note.evaluate("(n) => n.scrollWidth <= n.clientWidth")


def test_each_row_names_the_point_that_its_slider_scales_and_the_level_that_receives_it(alone):
    rows = alone.root.locator(".dptx-scale")
    receivers = {"reassembly.3": 3, "fusion.3": 2, "fusion.2": 1, "fusion.1": 0}
    receivers |= {f"reassembly.{s}": s for s in (2, 1, 0)}
    assert rows.count() == len(receivers)
    for row, (point, level) in zip(rows.all(), receivers.items(), strict=True):
        assert row.locator("strong").text_content() == point
        assert f"into level {level}" in (row.locator(".dptx-scale-name .dptx-hint").first.text_content() or "")
        slider = row.locator("input[type='range']")
        assert slider.get_attribute("data-point") == point
        assert (slider.get_attribute("aria-label") or "").startswith(f"Scale of {point}: ")
        if row.locator("canvas").count():  # the output of the level that receives the point
            assert row.locator("canvas").get_attribute("data-level") == str(level)
            assert f"fusion.{level}" in (row.locator(".dptx-thumb-box").get_attribute("title") or "")
    alone.page.keyboard.press("?")
    assert "block" not in alone.root.inner_text().lower()  # a block is a transformer block


def test_the_closed_fold_says_that_maps_in_it_are_scaled(browser: Browser, tmp_path):
    explorer = FusionExplorer(tiny_model(), IMAGE, {"reassembly.1": 2.0}, size=SIZE, keep_aspect=False)
    with page_from_disk(browser, explorer.to_html(tmp_path / "fusion.html", steps=None)) as page:
        fold = page.locator(".dptx-fold summary").first
        fold.get_by_text("1 changed").wait_for()


def test_a_page_describes_its_own_reset_and_keys(alone):
    reset = alone.root.get_by_role("button", name="Reset")
    assert "this page was saved with" in str(reset.get_attribute("title"))
    assert reset.is_disabled()  # the sliders are at that setting
    alone.slider("fusion.1").focus()
    alone.page.keyboard.press("0")
    alone.wait_for(fusion_3=2, fusion_1=0)
    reset.click()
    alone.wait_for(fusion_3=2)
    alone.page.keyboard.press("?")  # the widget still has the focus
    words = alone.root.get_by_role("dialog").inner_text()
    assert "back to the setting that this page was saved with" in words
    assert "[ ]" not in words
    assert "0.01" not in words


def test_a_small_window_shows_the_map_and_the_first_slider_together(browser: Browser, path: Path):
    with page_from_disk(browser, path, 800, 600) as page:
        shown = Fusion(page.locator(".dptx"))
        shown.wait_for(fusion_3=2)
        expect(shown.stage).to_be_in_viewport(ratio=1)
        expect(shown.slider("reassembly.3")).to_be_in_viewport(ratio=1)


@pytest.mark.parametrize("width", [390, 800])
def test_a_narrow_page_clips_no_words_of_a_row(browser: Browser, path: Path, width: int):
    with page_from_disk(browser, path, width, 800) as page:
        Fusion(page.locator(".dptx")).wait_for(fusion_3=2)
        clipped = "(nodes) => nodes.filter((n) => n.scrollWidth > n.clientWidth + 1).map((n) => n.textContent)"
        assert page.locator(".dptx-scale-name").evaluate_all(clipped) == []
        boxes = [page.locator(name).bounding_box() for name in (".dptx-stage", ".dptx-fusion .dptx-readout")]
        assert boxes[0] is not None
        assert boxes[1] is not None
        beside = boxes[1]["x"] >= boxes[0]["x"] + boxes[0]["width"]
        assert beside == (width == 800)


def saved(shown: Fusion, button: str) -> tuple[str, Path]:
    with shown.page.expect_download() as caught:
        shown.root.get_by_role("button", name=button, exact=True).click()
    return caught.value.suggested_filename, caught.value.path()


def test_a_page_saves_files_at_the_size_of_the_picture(alone, replay):
    name, path = saved(alone, "Plain")
    assert name == "depth_fusion3x2_plain.png"
    with Image.open(path) as picture:
        assert picture.size == (90, 60)
    with Image.open(saved(alone, "PNG")[1]) as picture:  # with a title and a colour bar
        assert min(picture.size) > 300
    alone.drag("fusion.1", 0.2)
    alone.wait_for(fusion_3=2, fusion_1=0)
    for scales, levels in (({"fusion.3": 2.0, "fusion.1": 0.0}, 256), ({"fusion.3": 2.0}, 65536)):
        exact = replay(scales)
        step = np.ptp(replay.output(scales).numpy()) / (levels - 1)
        name, path = saved(alone, "NPY")
        depth = np.load(path)
        assert (depth.dtype, depth.shape) == (np.float32, (60, 90))
        assert np.abs(depth - exact).max() <= step
        with Image.open(saved(alone, "PNG 16")[1]) as picture:
            low, high = (float(picture.text[f"depth_{end}"]) for end in ("min", "max"))
            assert picture.mode == "I;16"
            assert picture.text["depth_unit"] == "relative inverse depth"
            again = low + np.asarray(picture) / 65535 * (high - low)
        assert np.abs(again - depth).max() <= np.ptp(depth) / 65535
        assert f"{levels} levels" in alone.root.locator(".dptx-status-text").inner_text()
        alone.page.keyboard.press("r")
        alone.wait_for(fusion_3=2)


# ----------------------------------------------------------------------------------------------------------- JupyterLab


@pytest.fixture(scope="module")
def opened(page: Page, lab: Lab) -> Notebook:
    notebook = Notebook.written(page, lab, "fusion-small.ipynb", SMALL)
    notebook.explorer(painted="view")
    return notebook


def fusion(notebook: Notebook, number: int = 0) -> Fusion:
    return Fusion(notebook.explorer(number, painted="view").root)


@pytest.fixture
def notebook(opened: Notebook) -> Notebook:
    """The open notebook, with the explorer in its first state."""
    opened.wait_for_kernel("idle")
    opened.execute("explorer.scales, explorer.show, explorer.high_contrast = {}, 'scaled', False")
    fusion(opened).wait_for()
    return opened


def test_a_drag_changes_the_depth_and_the_trait(notebook: Notebook, replay, complaints):
    shown = fusion(notebook)
    check(shown, replay, {})
    shown.drag("fusion.2", -1.5)
    shown.wait(state="ready", shrink=1)
    scales = shown.scales()
    assert scales["fusion.2"] == pytest.approx(-1.5, abs=0.05)
    check(shown, replay, scales)
    notebook.run_cell(3)
    notebook.page.get_by_text(f"seen {scales['fusion.2']} scaled").wait_for()
    notebook.execute("explorer.scales = {'reassembly.0': 0.25}")
    shown.wait_for(reassembly_0=0.25)
    check(shown, replay, {"reassembly.0": 0.25})
    assert complaints == []


def test_the_keyboard_alone_operates_the_explorer(notebook: Notebook, replay, complaints):
    shown, keyboard = fusion(notebook), notebook.page.keyboard
    cells = notebook.cells()
    shown.stage.focus()
    keyboard.press("3")
    for _ in range(3):
        keyboard.press("Shift+ArrowLeft")
    keyboard.press("ArrowLeft")
    shown.wait_for(fusion_2=0.69)
    keyboard.press("0")
    shown.wait_for(fusion_2=0)
    check(shown, replay, {"fusion.2": 0.0})
    keyboard.press("s")
    shown.wait(view="unscaled")
    keyboard.press("s")
    keyboard.press("Backspace")
    shown.wait_for()
    keyboard.press("Tab")  # to the number beside the slider
    keyboard.press("Control+a")
    keyboard.type("2.5")
    keyboard.press("Enter")
    shown.wait_for(fusion_2=2.5)
    shown.stage.focus()
    for key in ("a", "b", "x", "r"):
        keyboard.press(key)
    shown.wait_for()
    assert notebook.cells() == cells  # no key was a notebook command
    assert complaints == []


def test_two_views_move_together(notebook: Notebook, complaints):
    first, second = fusion(notebook, 0), fusion(notebook, 1)
    first.drag("fusion.1", 3.0)
    second.wait(state="ready", shrink=1)
    assert second.scales() == first.scales() != dict.fromkeys(POINTS, 1.0)
    second.root.get_by_role("button", name="Reset").click()
    first.wait_for()
    second.wait_for()
    assert complaints == []


def is_ready(shown: Fusion, width: int) -> bool:
    """Looks the root up each time: another model or size makes a new one."""
    script = (
        "(root, width) => root.dataset.state === 'ready' && root.querySelector('canvas.dptx-depth').width === width"
    )
    return bool(shown.root.evaluate(script, width))


def test_controls_work_after_a_change_of_size_and_model(notebook: Notebook, replay, complaints):
    shown = fusion(notebook)
    notebook.execute("explorer.size = (42, 56)")
    wait_until(shown.page, lambda: is_ready(shown, 56))
    notebook.execute("explorer.size = (70, 98); explorer.model = tiny_model(seed=1)")
    wait_until(shown.page, lambda: is_ready(shown, 98))
    other = FusionReplay(tiny_model(seed=1), IMAGE, SIZE, keep_aspect=False)
    wait_for_map(shown, other, {})
    shown.drag("fusion.3", 0.0)
    shown.wait(state="ready", shrink=1)
    check(shown, other, shown.scales())
    notebook.execute("explorer.model = tiny_model()")
    wait_for_map(shown, replay, shown.scales())
    assert complaints == []


def test_files_come_from_the_kernel(notebook: Notebook, replay, complaints):
    shown = fusion(notebook)
    notebook.execute("explorer.scales = {'fusion.2': -1.0}")
    shown.wait_for(fusion_2=-1)
    with notebook.page.expect_download() as caught:
        shown.root.get_by_role("button", name="NPY").click()
    assert caught.value.suggested_filename == "depth_fusion2x-1_inverse.npy"
    # With another number of threads, the kernel sums in another order.
    assert np.allclose(np.load(caught.value.path()), replay({"fusion.2": -1.0}), rtol=1e-5, atol=1e-6)
    shown.root.get_by_text("Animation", exact=True).click()
    shown.root.get_by_role("button", name="Set B").click()
    shown.root.get_by_label("Frames from A to B").fill("3")
    shown.root.get_by_label("Frames from A to B").press("Enter")
    with notebook.page.expect_download() as caught:
        shown.root.get_by_role("button", name="GIF").click()
    with Image.open(caught.value.path()) as film:
        assert film.n_frames == 4
    shown.root.get_by_text("Animation", exact=True).click()
    assert complaints == []


def test_a_reload_and_a_restarted_kernel(notebook: Notebook, replay):
    shown = fusion(notebook)
    shown.slider("fusion.3").focus()
    notebook.page.keyboard.press("0")
    shown.wait_for(fusion_3=0)
    notebook.wait_until_quiet()  # the trait has left the browser
    notebook.reload()
    again = fusion(notebook)
    again.wait_for(fusion_3=0)
    check(again, replay, {"fusion.3": 0.0})
    again.slider("fusion.3").focus()
    notebook.page.keyboard.press("Backspace")
    again.wait_for()

    notebook.restart_kernel()
    notebook.run_all()
    fresh = fusion(notebook)
    fresh.drag("fusion.2", 2.0)
    fresh.wait(state="ready", shrink=1)
    check(fresh, replay, fresh.scales())


def test_the_shipped_notebook(page: Page, lab: Lab, complaints: Complaints):
    name = "03_fusion_scaling.ipynb"
    shutil.copy(ROOT / "notebooks" / name, lab.folder / name)
    notebook = Notebook(page, lab, name)
    notebook.open()
    notebook.run_all()
    shown = fusion(notebook)
    shown.drag("fusion.2", 0.0)
    shown.page.wait_for_function(
        "(root) => root.dataset.state === 'ready' && root.dataset.shrink === '1'",
        arg=shown.root.element_handle(),
        timeout=120_000,
    )
    assert shown.scales()["fusion.2"] == pytest.approx(0.0, abs=0.05)
    notebook.wait_for_kernel("idle")
    outputs = page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']")
    assert outputs.count() == 0
    assert complaints == []
