"""How long one pointer move takes in the attention explorer: computing and painting all heads, in headless Chromium.

    python -m tests.e2e.bench_hover

Runs the shipped page over random queries and keys of stated sizes; the times are the ones that the widget's own status
strip reports (its paint function, from the first multiplication to the last putImageData), and beside them the whole
frame: from the start of the animation frame until the browser has laid out and painted and runs the next task.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

from probes.explorers import bundle
from tests.e2e.conftest import SWITCHES, find_chromium

MOVES = 600

SIZES = [(6, 37, 37), (16, 37, 37), (16, 74, 74)]  # heads, rows, columns; head width 64, one class token

# One real pointer event a frame, along a path over the picture; resolves to the whole frames' durations.
MOVE = """async ([moves]) => {
  const stage = document.querySelector(".dptx-stage"), box = stage.getBoundingClientRect(), frames = [];
  for (let n = 0; n < moves; n++) {
    const clientX = box.left + box.width * (0.5 + 0.45 * Math.sin(n * 0.7));
    const clientY = box.top + box.height * (0.5 + 0.45 * Math.cos(n * 0.31));
    stage.dispatchEvent(new PointerEvent("pointermove", {clientX, clientY, bubbles: true, pointerType: "mouse"}));
    frames.push(await new Promise((done) => requestAnimationFrame((start) => {
      const begun = performance.now(), channel = new MessageChannel();
      channel.port1.onmessage = () => done(performance.now() - begun);
      channel.port2.postMessage(0);
    })));
  }
  return frames;
}"""


def synthetic_page(heads: int, rows: int, cols: int, dim: int = 64) -> str:
    """The exported page over random attention of that size."""
    rng = np.random.default_rng(0)
    tokens = rows * cols + 1
    q, k = (rng.normal(size=(heads, tokens, dim)).astype(np.float16) for _ in range(2))
    log_sum_exp = np.full((heads, tokens), np.log(tokens), np.float32)
    picture = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (480, 480, 3), np.uint8)).save(picture, "JPEG")
    grid = {"rows": rows, "cols": cols, "prefix": 1}
    about = {"kind": "picture", "type": "image/jpeg", "width": 480, "height": 480, "blocks": [0], "call": "", **grid}
    block = {
        "kind": "block",
        "block": 0,
        "heads": heads,
        "tokens": tokens,
        "dim": dim,
        "entropy": [1.0] * heads,
        **grid,
    }
    state = {"block": 0, "direction": "row", "token": 1, "pins": [], "compare": "a", "head": None, "order": "index"}
    state |= {"scale": "head", "colormap": "viridis", "opacity": 0.6, "base": "picture"}
    replies = [
        ({}, about, [picture.getvalue()]),
        ({"block": 0}, block, [q.tobytes(), k.tobytes(), log_sum_exp.tobytes()]),
    ]
    return bundle.page("attention.js", "bench", state, replies)


def main() -> None:
    print(
        f"{'heads x tokens':>16} {'scale':>7} {'paint p50':>10} {'p95':>6} {'frame p50':>10} {'p95':>6}"
        f"   ms, {MOVES} moves"
    )
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=SWITCHES)
        for heads, rows, cols in SIZES:
            path = Path(folder) / "bench.html"
            path.write_text(synthetic_page(heads, rows, cols), encoding="utf-8")
            page = browser.new_page(viewport={"width": 1400, "height": 900})
            page.goto(path.as_uri())
            page.wait_for_selector(".dptx[data-token]", timeout=60_000)
            for scale in ("head", "log"):
                page.click(f'.dptx-segment[data-value="{scale}"]')
                page.evaluate(MOVE, [60])  # compiled and settled
                frames = page.evaluate(MOVE, [MOVES])
                note = page.locator(".dptx-status-note")
                paint = [float(note.get_attribute(f"data-{name}") or "nan") for name in ("median", "high")]
                whole = np.percentile(frames, [50, 95])
                size = f"{heads} x {rows * cols + 1}"
                print(f"{size:>16} {scale:>7} {paint[0]:10.2f} {paint[1]:6.2f} {whole[0]:10.2f} {whole[1]:6.2f}")
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
