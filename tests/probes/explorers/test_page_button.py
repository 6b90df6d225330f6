"""The button that saves a page, from the kernel's side, and what the header of a page says."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from probes.explorers import (
    AttentionExplorer,
    DepthExplorer,
    FusionExplorer,
    ModelTour,
    NormExplorer,
    PositionExplorer,
)
from probes.explorers.shared import page_of_explorer, pages
from tests.models import tiny_model
from tests.probes.explorers.wire import Wire, data_of

IMAGE = np.random.default_rng(3).integers(0, 255, (60, 90, 3), dtype=np.uint8)
FIXED: dict[str, Any] = {"size": (70, 98), "keep_aspect": False}

EXPLORERS: dict[str, Callable[[], Any]] = {
    "attention": lambda: AttentionExplorer(tiny_model(), IMAGE, 1, **FIXED),
    "norms": lambda: NormExplorer(tiny_model(), IMAGE, 1, **FIXED),
    "fusion": lambda: FusionExplorer(tiny_model(), IMAGE, **FIXED),
    "positions": lambda: PositionExplorer(tiny_model(), (70, 98)),
    "depth": lambda: DepthExplorer(tiny_model(), IMAGE, **FIXED),
    "tour": lambda: ModelTour(tiny_model(), IMAGE, **FIXED),
}


@pytest.fixture(scope="module")
def attention() -> AttentionExplorer:
    return EXPLORERS["attention"]()


def saved_by_button(explorer: Any, path: Path, **request: Any) -> tuple[dict[str, Any], Path]:
    message, parts = Wire(explorer).ask(kind="page", **request)
    assert message["kind"] == "page", message
    path.write_bytes(parts[0])
    return message, path


def facts_of(path: Path) -> list[str]:
    return re.findall("<li[^>]*>(.*?)</li>", path.read_text(encoding="utf-8"))


def picture_of(path: Path) -> Image.Image:
    found = re.search(r'<img src="data:image/png;base64,([^"]*)" alt="([^"]+)"', path.read_text(encoding="utf-8"))
    assert found is not None
    return Image.open(io.BytesIO(base64.b64decode(found[1])))


@pytest.mark.parametrize("name", EXPLORERS)
def test_the_button_saves_what_to_html_writes(name, tmp_path):
    explorer = EXPLORERS[name]()
    message, button = saved_by_button(explorer, tmp_path / "button.html")
    assert message["type"] == "text/html"
    written = explorer.to_html(tmp_path / "written.html")
    assert data_of(button)["state"] == data_of(written)["state"]
    own, other = ([(r["match"], r["buffers"]) for r in data_of(page)["replies"]] for page in (button, written))
    assert own == other  # messages can hold times
    text = button.read_text(encoding="utf-8")
    assert len(re.findall("<h1>", text)) == 1
    assert "Depth-Anything" in re.findall("<h1>(.*?)</h1>", text)[0]
    assert ("Picture: 90 x 60 pixels" in facts_of(button)) == (name != "positions")
    assert picture_of(button).width > 300


def test_the_page_shows_what_the_view_shows(attention, tmp_path):
    _, path = saved_by_button(attention, tmp_path / "page.html", state={"token": 17, "_esm": "no control"})
    assert data_of(path)["state"]["token"] == 17
    assert attention.token == 17
    message, _ = Wire(attention).ask(kind="page", state={"token": 9999})
    assert message["kind"] == "error"
    assert "9999" in message["text"]


def test_norms_embed_the_channels_that_they_show(tmp_path):
    explorer = EXPLORERS["norms"]()
    explorer.what = "channel"
    _, path = saved_by_button(explorer, tmp_path / "page.html")
    data = data_of(path)
    assert data["state"]["what"] == "channel"
    assert [r["match"]["block"] for r in data["replies"] if r["message"]["kind"] == "tokens"] == [1]


def test_progress_is_shown(attention):
    wire = Wire(attention)
    wire.ask(kind="page")
    assert [text for text in wire.status() if re.search(r"\d of 3", text)]


def test_all_blocks_are_offered_where_they_fit(attention, tmp_path, monkeypatch):
    message, path = saved_by_button(attention, tmp_path / "one.html")
    assert "Block 1 of 0 to 3 (the only one saved)" in facts_of(path)
    assert message["extent"] in facts_of(path)
    more = message["more"]
    message, path = saved_by_button(attention, tmp_path / "all.html", **more["payload"])
    assert message["more"] is None
    assert "All 4 blocks" in facts_of(path)
    size = path.stat().st_size
    assert size / 2 < more["bytes"] < size  # without the picture and the depth, which are small in real pages

    monkeypatch.setattr(pages, "PAGE_LIMIT", 90_000)
    message, _ = saved_by_button(attention, tmp_path / "one.html")
    assert message["more"] is None


@pytest.mark.parametrize("name", EXPLORERS)
def test_a_page_over_the_limit_is_refused_in_the_strip(name, monkeypatch):
    explorer = EXPLORERS[name]()
    monkeypatch.setattr(pages, "PAGE_LIMIT", 1000)
    request = {"blocks": "all"} if name == "attention" else {}
    if name == "norms":
        explorer.what = "channel"
    message, _ = Wire(explorer).ask(kind="page", **request)
    assert message["kind"] == "error"
    assert "PageTooLargeError" in message["text"]
    assert "limit 0.98kiB" in message["text"]


def test_a_title_replaces_the_heading_and_keeps_the_model(attention, tmp_path):
    path = attention.to_html(tmp_path / "page.html", title="<Heads> & tails")
    text = path.read_text(encoding="utf-8")
    assert "<h1>&lt;Heads&gt; &amp; tails</h1>" in text
    assert any("Depth-Anything" in fact for fact in facts_of(path))


def test_the_header_and_the_picture_are_of_the_block_that_the_page_starts_with(attention, tmp_path):
    path = attention.to_html(tmp_path / "page.html", blocks=[0, 3])
    facts = facts_of(path)
    assert "Blocks 0, 3 of 0 to 3 (no others are saved)" in facts
    assert any("block 0" in fact for fact in facts if fact.startswith("Shows"))
    assert attention.block == 1
    own = picture_of(attention.to_html(tmp_path / "own.html"))
    assert not np.array_equal(np.asarray(picture_of(path).convert("RGB")), np.asarray(own.convert("RGB")))


def test_a_page_names_the_file_of_its_image(tmp_path):
    Image.fromarray(IMAGE).save(tmp_path / "a <photo>.png")
    explorer = DepthExplorer(tiny_model(), tmp_path / "a <photo>.png", **FIXED)
    facts = facts_of(explorer.to_html(tmp_path / "page.html"))
    assert "Picture: a &lt;photo&gt;.png, 90 x 60 pixels" in facts
    assert page_of_explorer.datetime.date.today().isoformat() in " ".join(facts)
