"""Exported pages and the joining of the modules: what is in the file, before any browser opens it."""

from __future__ import annotations

import base64
import re
import subprocess

import numpy as np
import pytest
import traitlets

from probes.explorers import AttentionExplorer, bundle
from tests.models import tiny_model
from tests.probes.wire import data_of

IMAGE = np.random.default_rng(3).integers(0, 255, (60, 90, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def explorer() -> AttentionExplorer:
    return AttentionExplorer(tiny_model(), IMAGE, size=(70, 98), keep_aspect=False, block=1, colormap="magma")


def blocks_in(path) -> list[int]:
    return [r["message"]["block"] for r in data_of(path)["replies"] if r["message"]["kind"] == "block"]


def test_a_page_holds_the_chosen_blocks_and_the_state(explorer, tmp_path):
    data = data_of(explorer.to_html(tmp_path / "page.html"))
    assert data["state"]["block"] == 1
    assert data["state"]["colormap"] == "magma"
    assert set(data["state"]) == set(explorer.trait_names(ui=True))
    assert [reply["message"]["kind"] for reply in data["replies"]] == ["picture", "block", "depth"]
    assert data["replies"][0]["message"]["blocks"] == [1]
    q, k, lse = (base64.b64decode(part) for part in data["replies"][1]["buffers"])
    assert (len(q), len(k), len(lse)) == (2 * 36 * 64 * 2, 2 * 36 * 64 * 2, 2 * 36 * 4)

    assert blocks_in(explorer.to_html(tmp_path / "all.html", blocks="all")) == [0, 1, 2, 3]
    other = explorer.to_html(str(tmp_path / "other.html"), blocks=[3, 0, 3])
    assert blocks_in(other) == [0, 3]
    assert data_of(other)["state"]["block"] == 0  # the one on display is not in it
    assert explorer.block == 1


def test_a_page_mentions_no_address(explorer, tmp_path):
    text = explorer.to_html(tmp_path / "page.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|url\(|@import|\bsrc=|\bhref=", text)
    assert "default-src &#x27;none&#x27;" in text or "default-src 'none'" in text


def test_what_cannot_be_written_is_said_and_leaves_no_file(explorer, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        explorer.to_html(tmp_path / "nowhere" / "page.html")
    with pytest.raises(
        ValueError, match=r"4 blocks of 36 tokens takes 0.1 MiB, above the limit of 0.0 MiB; choose fewer"
    ):
        explorer.to_html(tmp_path / "page.html", blocks="all", limit=50_000)
    with pytest.raises(traitlets.TraitError, match="block must be a whole number from 0 to 3, not 7"):
        explorer.to_html(tmp_path / "page.html", blocks=[7])
    with pytest.raises(ValueError, match="blocks is a list of block numbers"):
        explorer.to_html(tmp_path / "page.html", blocks=[])
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_page_whole(explorer, tmp_path, monkeypatch):
    path = explorer.to_html(tmp_path / "page.html")
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="no space left"):
        explorer.to_html(path, blocks="all")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_data_cannot_end_its_script_element(tmp_path):
    text = bundle.page("attention.js", "a <b> & c", {"note": "</script><script>alert(1)</script>"}, [])
    assert "alert(1)</script>" not in text
    assert "<title>a &lt;b&gt; &amp; c</title>" in text


def test_modules_are_joined_once_each_with_their_imports_first():
    source = bundle.module_source("attention.js")
    assert not re.search(r"^import ", source, re.MULTILINE)
    assert re.findall(r"^export .*", source, re.MULTILINE) == ["export default explorer;"]
    for declared in ("function attentionRow(", "class Link ", "function npz(", "function snapshotPython("):
        assert source.count(declared) == 1
    assert (
        source.index("function crc32(") < source.index("function snapshotNpz(") < source.index("class AttentionView ")
    )


def test_what_the_joining_does_not_know_is_refused(monkeypatch):
    modules = {
        "star.js": 'import * as core from "./core.js";\n',
        "twice.js": 'import { one } from "./one.js";\nfunction one() {}\n',
        "one.js": "// a comment\nexport const one = 1; // another\n",
        "loose.js": "const one = 1;\nstart(one);\nexport default one;\n",
        "whole.js": (
            'import { one } from "./one.js";\nfunction spare() {}\nexport default () => other() + one;\n'
            "function other() {}\n"
        ),
        "text.js": "const text = `two\nlines`;\n",
    }
    monkeypatch.setattr(bundle, "_static", modules.__getitem__)
    with pytest.raises(ValueError, match=r"static/star\.js: cannot join 'import \* as core"):
        bundle.module_source("star.js")
    with pytest.raises(ValueError, match="declare twice at top level: one"):
        bundle.module_source("twice.js")
    with pytest.raises(ValueError, match=r"static/text\.js: a template literal that does not end on"):
        bundle.module_source("text.js")
    with pytest.raises(
        ValueError, match=r"static/loose\.js and its imports hold more than declarations at top level: st"
    ):
        bundle.module_source("loose.js")
    kept = "const one = 1;const explorer = () => other() + one;function other() {}"
    assert bundle.module_source("whole.js") == f"{kept}\nexport default explorer;\n"  # control


def test_lines_are_joined_where_that_changes_nothing(monkeypatch, node):
    source = """
const explorer = function* () {
  const texts = [
    "http://one;",
    '; // two', // three
    `{ // four`, // don't
  ];
  yield* texts; /* five */
  yield /[;]/.test(";")
    ? "six"
    : "seven";
  label: for (;;)
    break label;
  return
  "never";
};
"""
    monkeypatch.setattr(bundle, "_static", {"texts.js": source.lstrip()}.__getitem__)
    joined = bundle.module_source("texts.js")
    assert joined.count("\n") < source.count("\n") - 4
    said = [
        subprocess.run(
            [node, "--input-type=module", "-e", f"{code};console.log(JSON.stringify([...explorer()]));"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for code in (source, joined.replace("export default explorer;", ""))
    ]
    assert said[0] == said[1] == '["http://one;","; // two","{ // four","six"]\n'


def test_what_no_widget_needs_does_not_travel():
    attention, norms = bundle.module_source("attention.js"), bundle.module_source("norms.js")
    assert "function attentionRow(" not in norms
    assert "function attentionRow(" in attention
    assert "class EmbeddedModel" not in attention  # control: pages have it
    assert "class EmbeddedModel" in bundle.page("attention.js", "title", {}, [])
