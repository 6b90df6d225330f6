"""Exported pages and bundles: what the files contain, before a browser opens them."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import traitlets

from probes.explorers import AttentionExplorer
from probes.explorers.shared import pages
from tests.models import tiny_model
from tests.probes.explorers.wire import data_of

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
    assert data_of(other)["state"]["block"] == 0  # the block on display is not in the page
    assert explorer.block == 1


def test_a_page_mentions_no_address(explorer, tmp_path):
    text = explorer.to_html(tmp_path / "page.html").read_text(encoding="utf-8")
    assert not re.search(r'https?://|url\(|@import|(?<!\.)\b(?:src|href)=(?!"data:image/png;base64,)', text)
    assert "default-src &#x27;none&#x27;" in text or "default-src 'none'" in text


def test_a_page_that_cannot_be_written_is_refused_and_leaves_no_file(explorer, tmp_path):
    with pytest.raises(FileNotFoundError, match="folder"):
        explorer.to_html(tmp_path / "nowhere" / "page.html")
    with pytest.raises(ValueError, match=r"4 blocks of 36 tokens .*97.5kiB, limit 48.8kiB"):
        explorer.to_html(tmp_path / "page.html", blocks="all", limit=50_000)
    with pytest.raises(traitlets.TraitError, match=r"0 to 3.*7"):
        explorer.to_html(tmp_path / "page.html", blocks=[7])
    with pytest.raises(ValueError, match="blocks"):
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
    text = pages.page("attention", "a <b> & c", {"note": "</script><script>alert(1)</script>"}, [])
    assert "alert(1)</script>" not in text
    assert "<title>a &lt;b&gt; &amp; c</title>" in text


EXPLORERS = Path(pages.__file__).parents[1]
WIDGETS = sorted(path.parent.name for path in EXPLORERS.glob("*/view.css"))


def run_build(*arguments: str, folder: Path = EXPLORERS) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["node", "build.mjs", *arguments], cwd=folder, capture_output=True, text=True, check=False)


def test_the_committed_bundles_are_what_the_sources_build(npm_packages):
    done = run_build("--check")
    assert done.returncode == 0, done.stderr


def test_a_changed_source_makes_the_bundles_out_of_date(npm_packages, tmp_path):
    folder = tmp_path / "explorers"
    shutil.copytree(EXPLORERS, folder, ignore=shutil.ignore_patterns("node_modules", "__pycache__"))
    (folder / "node_modules").symlink_to(EXPLORERS / "node_modules")
    assert run_build("--check", folder=folder).returncode == 0  # control
    with (folder / "shared" / "page.js").open("a") as file:
        file.write('globalThis.changed = "yes";\n')
    done = run_build("--check", folder=folder)
    assert done.returncode == 1
    assert "attention.js" in done.stderr
    assert "make bundles" in done.stderr


@pytest.mark.parametrize("name", WIDGETS)
def test_a_bundle_is_one_module_under_100_kb_that_imports_nothing(name):
    script = pages.script_of(name)
    assert len(script.encode()) < 100_000
    assert not re.search(r"(?:^|[;}])import[\s{\"']|import\(", script)
    assert re.search(r"export\s*\{\s*[\w$]+ as default\s*\}", script)
    assert "@import" not in pages.style_of(name)
    assert "</script" not in script
