"""Screenshots of the attention explorer for the README, from the page that it exports.

    python -m tests.e2e.screenshot FOLDER [--model demo] [--image PICTURE] [--block 8] [--patch 12 20] [--width 1320]

Writes attention-light.png, attention-dark.png and attention-compare.png.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, ViewportSize, sync_playwright

import dpt
from dpt import demo
from probes.explorers import AttentionExplorer
from tests.e2e.conftest import SWITCHES, Shown, find_chromium


def shoot(
    browser: Browser,
    page_file: Path,
    target: Path,
    scheme: Literal["light", "dark"],
    width: int,
    patches: list[tuple[int, int]],
) -> None:
    """One picture of the widget alone. One patch: hovered; two: pinned and compared."""
    window: ViewportSize = {"width": width, "height": 1000}
    context = browser.new_context(color_scheme=scheme, viewport=window, device_scale_factor=1.5)
    page = context.new_page()
    page.goto(page_file.as_uri())
    shown = Shown(page.locator(".dptx"))
    shown.wait(state="ready")
    about = page.evaluate(
        "JSON.parse(document.querySelector('script[type=\"application/json\"]').textContent).replies[0].message"
    )
    for row, col in patches:
        shown.point_at(row, col, about["rows"], about["cols"])
        if len(patches) > 1:
            page.mouse.down()
            page.mouse.up()
    for step in range(60):  # so that the time in the strip is one of a warm page
        shown.point_at(step % about["rows"], step % about["cols"], about["rows"], about["cols"])
    page.wait_for_timeout(700)
    shown.point_at(*patches[-1], about["rows"], about["cols"])
    page.wait_for_timeout(200)
    shown.root.screenshot(path=target)
    print(f"wrote {target}")
    context.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--image", type=Path, help="default: the first sample of the demo model")
    parser.add_argument("--block", type=int)
    parser.add_argument("--patch", type=int, nargs=2, metavar=("ROW", "COL"))
    parser.add_argument("--width", type=int, default=1320)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    model = dpt.load(options.model)
    image = dpt.read_image(options.image) if options.image else demo.sample(demo.samples()[0])[0]
    explorer = AttentionExplorer(model, image, options.block)
    here = tuple(options.patch) if options.patch else explorer.patch
    assert here is not None  # a new explorer starts on a patch
    there = (here[0] // 2, here[1] // 2)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page_file = explorer.to_html(Path(folder) / "page.html", blocks="all")
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=SWITCHES)
        shoot(browser, page_file, options.folder / "attention-light.png", "light", options.width, [here])
        shoot(browser, page_file, options.folder / "attention-dark.png", "dark", options.width, [here])
        shoot(browser, page_file, options.folder / "attention-compare.png", "light", options.width, [here, there])
        browser.close()


if __name__ == "__main__":
    main()
