"""How long it takes from a slider's move to its picture in the fusion explorer, in a real JupyterLab.

    python -m tests.e2e.bench_fusion [--drags 4] [--shots FOLDER]

A headless Chromium drags a slider with the pointer, thirty moves a second, over the demo model and over a ViT-S with
pseudo-random weights at 518 pixels. Times are those of the widget's own status strip: from the event of a move to the
map that answers it on the canvas, by way of the kernel. A move that a newer one overtakes is never asked for, and not
counted. Beside them the wait for the full map after letting go, of which 180 ms are the rest that it waits for.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import nbformat
import numpy as np
from playwright.sync_api import sync_playwright

from tests.e2e.conftest import SWITCHES, Shown, find_chromium
from tests.e2e.jupyterlab import Notebook, started

MODELS = {
    "demo": 'dpt.load("demo")',
    "ViT-S at 518": 'dpt.load(oracle_weights("da_v2_vits"), version=2)',
}
CELL = """import torch, dpt
from dpt import demo
from probes.explorers import FusionExplorer
from tests.models import oracle_weights
explorer = FusionExplorer({model}, demo.sample("plaza")[0], keep_aspect={aspect})
explorer"""


def dragged(shown: Shown, point: str, moves: int = 90) -> float:
    """One drag to and fro, and how long the full map then takes (s)."""
    slider = shown.root.locator(f'input[type=range][data-point="{point}"]')
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    assert box is not None
    at = box["x"] + 8 + (box["width"] - 16) * (0.5 + 0.4 * np.sin(np.arange(moves) * 0.11))
    y = box["y"] + box["height"] / 2
    shown.page.mouse.move(box["x"] + 8 + (box["width"] - 16) * (float(slider.input_value()) + 5) / 10, y)
    shown.page.mouse.down()
    for x in at:
        shown.page.mouse.move(float(x), y)
        shown.page.wait_for_timeout(33)
    shown.page.mouse.up()
    released = time.perf_counter()
    shown.page.wait_for_timeout(60)
    shown.page.wait_for_function(
        "(root) => root.dataset.state === 'ready' && root.dataset.shrink === '1'",
        arg=shown.root.element_handle(),
        timeout=60_000,
    )
    return time.perf_counter() - released


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--drags", type=int, default=4)
    parser.add_argument("--shots", type=Path, help="a folder for screenshots in both themes")
    options = parser.parse_args()
    print(f"{'model':>14} {'preview p50':>12} {'p95':>6} {'pictures':>9} {'full after release':>19}   ms")
    with tempfile.TemporaryDirectory() as home, started(Path(home)) as lab, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=SWITCHES)
        page = browser.new_page(viewport={"width": 1500, "height": 1050})
        for n, (name, load) in enumerate(MODELS.items()):
            cell = nbformat.v4.new_code_cell(CELL.format(model=load, aspect=n == 0))
            metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
            nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=metadata), lab.folder / f"bench{n}.ipynb")
            notebook = Notebook(page, lab, f"bench{n}.ipynb")
            notebook.open()
            notebook.run_all()
            page.wait_for_selector(".jp-NotebookPanel:not(.lm-mod-hidden) .dptx", timeout=120_000)
            shown = notebook.explorer(painted="view")
            waits = [dragged(shown, ("fusion.2", "fusion.1", "fusion.3")[k % 3]) for k in range(options.drags)]
            note = shown.root.locator(".dptx-status-note")
            median, high, count = (
                float(note.get_attribute(f"data-{key}") or "nan") for key in ("median", "high", "count")
            )
            print(f"{name:>14} {median:12.0f} {high:6.0f} {count:9.0f} {1000 * np.median(waits):19.0f}", flush=True)
            for theme in ("Light", "Dark") if options.shots else ():
                change = "(theme) => window.jupyterapp.commands.execute('apputils:change-theme', {theme})"
                page.evaluate(change, f"JupyterLab {theme}")
                page.wait_for_timeout(900)
                assert options.shots is not None
                options.shots.mkdir(parents=True, exist_ok=True)
                page.screenshot(path=options.shots / f"fusion-{n}-{theme.lower()}.png")
            lab.stop_kernels()
        browser.close()


if __name__ == "__main__":
    main()
