"""How long a user waits from opening 02_attention.ipynb in JupyterLab to the first patch under the pointer.

    python -m tests.e2e.bench_open [--rounds 3]

Each round is a JupyterLab of its own with nothing kept from the last, in headless Chromium: the address is opened, all
cells are run as soon as the kernel is idle, and the pointer is moved over the picture as soon as the explorer is ready.
Torch and the model's file are in the system's cache after the first round, as they are for whoever opens a notebook
for the second time; the first round is shown apart.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

import dpt
from dpt import TokenGrid, demo
from tests.e2e.conftest import SWITCHES, find_chromium
from tests.e2e.jupyterlab import ROOT, Notebook, started

NAME = "02_attention.ipynb"
STEPS = ("address to idle kernel", "run all to explorer ready", "pointer to its patch painted", "together")


def waits(browser: Browser, grid: TokenGrid) -> dict[str, float]:
    """Seconds of each step."""
    with tempfile.TemporaryDirectory(prefix="bench-open-") as home, started(Path(home)) as lab:
        shutil.copy(ROOT / "notebooks" / NAME, lab.folder / NAME)
        page = browser.new_page(viewport={"width": 1500, "height": 1000})
        notebook = Notebook(page, lab, NAME)
        begun = time.perf_counter()
        notebook.open()
        opened = time.perf_counter()
        notebook.run_all()
        shown = notebook.explorer()
        ready = time.perf_counter()
        row, col = grid.rows // 2, grid.cols // 3
        while shown.state("token") != str(grid.token(row, col)):
            # Cells below are still running, and their outputs move the page under the pointer.
            shown.point_at(row, col, grid.rows, grid.cols)
            page.wait_for_timeout(20)
            if time.perf_counter() - ready > 60:
                raise RuntimeError(
                    f"the pointer is on patch {(row, col)}, and the explorer shows {shown.state('token')}"
                )
        hovered = time.perf_counter()
        page.close()
    return dict(zip(STEPS, (opened - begun, ready - opened, hovered - ready, hovered - begun), strict=True))


def report(rounds: int) -> Iterator[str]:
    model, (image, _) = dpt.load("demo"), demo.sample("plaza")  # as the notebook says
    grid = model.grid_of(model.prepare(image))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=SWITCHES)
        found = [waits(browser, grid) for _ in range(rounds + 1)]
        browser.close()
    yield f"| {NAME} | first time, s | median of {rounds} more, s |"
    yield "| --- | --: | --: |"
    for step in STEPS:
        yield f"| {step} | {found[0][step]:.1f} | {statistics.median(round[step] for round in found[1:]):.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.bench_open")
    parser.add_argument("--rounds", type=int, default=3)
    for line in report(parser.parse_args().rounds):
        print(line)


if __name__ == "__main__":
    main()
