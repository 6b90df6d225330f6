"""How long one pointer move takes in the attention explorer: computing and painting all heads, in headless Chromium.

    python -m tests.e2e.bench_hover

Runs the shipped page over random queries and keys of stated sizes; the times are the ones that the widget's own status
strip reports (its paint function, from the first multiplication to the last putImageData), and beside them the whole
frame: from the start of the animation frame until the browser has laid out and painted and runs the next task.
"""

from __future__ import annotations

import io
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

from probes.explorers.shared import pages
from tests.e2e.conftest import SWITCHES, find_chromium

MOVES = 600


@dataclass(frozen=True)
class Size:
    """A block's sizes; all but Depth-Anything's add a bias."""

    name: str
    heads: int
    side: int  # patches
    dim: int = 64
    prefix: int = 1
    biased: bool = False
    window: int | None = None

    @property
    def tokens(self) -> int:
        return self.side**2 + self.prefix

    def header(self) -> dict[str, Any]:
        more: dict[str, Any] = {"biased": True} if self.biased else {}
        if self.window:
            more |= {"window": [self.window] * 2, "shift": [self.window // 2] * 2}
        sizes = {"block": 0, "heads": self.heads, "tokens": self.tokens, "dim": self.dim, "prefix": self.prefix}
        return {"kind": "block", "rows": self.side, "cols": self.side, "entropy": [1.0] * self.heads, **sizes, **more}

    def parts(self) -> list[bytes]:
        rng = np.random.default_rng(0)
        q, k = (rng.normal(size=(self.heads, self.tokens, self.dim)).astype(np.float16) for _ in range(2))
        arrays = [q, k, np.full((self.heads, self.tokens), np.log(self.tokens), np.float32)]
        if self.biased:
            offsets = 2 * (self.window or self.side) - 1
            arrays.append(rng.normal(size=(self.heads, offsets, offsets)).astype(np.float32))
        if self.biased and self.prefix:
            arrays.append(rng.normal(size=(self.heads, 3)).astype(np.float32))
        return [array.tobytes() for array in arrays]


SIZES = [
    Size("ViT-S 518", heads=6, side=37),
    Size("ViT-L 518", heads=16, side=37),
    Size("ViT-L 1036", heads=16, side=74),
    Size("BEiT-L 512", heads=16, side=32, biased=True),
    Size("SwinV2-L stage 0", heads=6, side=96, dim=32, prefix=0, biased=True, window=24),
    Size("SwinV2-L stage 3", heads=48, side=12, dim=32, prefix=0, biased=True, window=12),
]

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


def synthetic_page(size: Size) -> str:
    """The exported page over random attention of that size."""
    rng = np.random.default_rng(0)
    picture = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (480, 480, 3), np.uint8)).save(picture, "JPEG")
    about = {"kind": "picture", "type": "image/jpeg", "width": 480, "height": 480, "blocks": [0], "call": ""}
    about |= {"opened": None, "absent": {}}
    about |= {"rows": size.side, "cols": size.side, "prefix": size.prefix}
    about["shapes"] = [[size.heads, size.side, size.side]]
    state = {"block": 0, "_placed": 0, "direction": "row", "token": 1, "pins": [], "compare": "a", "head": None}
    state |= {"order": "index", "scale": "head", "colormap": "viridis", "opacity": 0.6, "base": "picture"}
    replies = [({}, about, [picture.getvalue()]), ({"block": 0}, size.header(), size.parts())]
    return pages.page("attention", "bench", state, replies)


def main() -> None:
    times = f"{'paint p50':>10} {'p95':>6} {'frame p50':>10} {'p95':>6}"
    print(f"{'':>17} {'heads x tokens':>14} {'':>6} {'scale':>5} {times}   ms, {MOVES} moves")
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=SWITCHES)
        for size in SIZES:
            path = Path(folder) / "bench.html"
            path.write_text(synthetic_page(size), encoding="utf-8")
            page = browser.new_page(viewport={"width": 1400, "height": 900})
            page.goto(path.as_uri())
            page.wait_for_selector(".dptx[data-token]", timeout=60_000)
            for direction, scale in (("row", "head"), ("row", "log"), ("column", "head")):
                page.click(f'.dptx-segment[data-value="{direction}"]')
                page.click(f'.dptx-segment[data-value="{scale}"]')
                page.evaluate(MOVE, [60])  # compiled and settled
                frames = page.evaluate(MOVE, [MOVES])
                note = page.locator(".dptx-status-note")
                paint = [float(note.get_attribute(f"data-{name}") or "nan") for name in ("median", "high")]
                whole = np.percentile(frames, [50, 95])
                case = f"{size.name:>17} {f'{size.heads} x {size.tokens}':>14} {direction:>6} {scale:>5}"
                print(f"{case} {paint[0]:10.2f} {paint[1]:6.2f} {whole[0]:10.2f} {whole[1]:6.2f}", flush=True)
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
