"""Explorers of images in a run: they show the numbers of the model without creating one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import traitlets
from PIL import Image

import dpt
import probes
from probes.captured import NotCaptured
from probes.explorers import AttentionExplorer, DepthExplorer, NormExplorer
from probes.explorers.shared.arguments import checked_model
from probes.runs.errors import StoreError
from probes.runs.stored import StoredCapture
from tests.models import OBLONG, TINY, tiny_model
from tests.probes.explorers.test_explorer_families import ask, matrix_of

IMAGE = np.random.default_rng(3).integers(0, 255, (60, 90, 3), dtype=np.uint8)
EVERYTHING = ("attention", "norms", "tokens", "depth")
SOME = ("encoder.blocks.1.attention", "encoder.blocks.2.attention", "encoder.blocks.0.norms", "encoder.blocks.2.tokens")


@pytest.fixture(scope="module")
def models() -> dict[str, dpt.DPT]:
    return {family: make() for family, make in TINY.items()}


@pytest.fixture(scope="module")
def runs(models, tmp_path_factory) -> dict[str, Path]:
    """A run of one image per family with all groups, and a run "some" that holds a few blocks."""
    folder = tmp_path_factory.mktemp("runs")
    Image.fromarray(IMAGE).save(folder / "noise.png")
    chosen = {family: (family, EVERYTHING) for family in models} | {"some": ("depth-anything", SOME)}
    for name, (family, selectors) in chosen.items():
        setting = {"size": OBLONG[family], "keep_aspect": False, "workers": 0, "progress": False}
        probes.run(models[family], folder / "noise.png", folder / name, *selectors, **setting)
    return {name: folder / name for name in chosen}


@pytest.fixture
def no_model(monkeypatch) -> None:
    """Creating a model fails the test."""

    def refuse(*_: object) -> None:
        raise AssertionError("a model was made")

    monkeypatch.setattr(dpt.DPT, "__init__", refuse)


@pytest.fixture
def stored(runs, no_model):
    return lambda name: probes.open_run(runs[name])["noise.png"]


def live(cls: type, models: dict[str, dpt.DPT], family: str) -> Any:
    return cls(models[family], IMAGE, size=OBLONG[family], keep_aspect=False)


def attention_of(explorer: AttentionExplorer, block: int) -> np.ndarray:
    message, parts = ask(explorer, kind="block", block=block)
    if not message.get("biased"):  # an all-zero bias, which matrix_of expects
        heads, (rows, cols) = message["heads"], (message["rows"], message["cols"])
        parts += [bytes(4 * heads * (2 * rows - 1) * (2 * cols - 1)), bytes(4 * heads * 3)]
    return matrix_of(message, parts)


def test_no_model_can_be_made_where_that_is_forbidden(no_model):
    with pytest.raises(AssertionError, match="a model was made"):
        tiny_model()


# ---------------------------------------------------------------------------------------------- the same as of a model


def test_every_block_arrives_as_the_attention_of_the_model(family, models, stored):
    explorer = AttentionExplorer(stored(family))
    with probes.capture(models[family], "attention") as cap:
        models[family].predict(IMAGE, OBLONG[family], keep_aspect=False)
    for block in range(models[family].config.depth):
        exact = cap[f"encoder.blocks.{block}.attention"].matrix()[0].numpy()
        assert np.abs(attention_of(explorer, block) - exact).max() < 4e-3  # rounded twice to float16, shifted once


def test_the_picture_and_what_is_said_of_it_are_those_of_the_model(family, models, stored):
    ours, theirs = AttentionExplorer(stored(family)), live(AttentionExplorer, models, family)
    (said, picture), (wanted, other) = (ask(explorer, kind="picture") for explorer in (ours, theirs))
    assert picture == other
    assert said.pop("opened").startswith("probes.open_run(")
    assert wanted.pop("opened") is None
    assert said.pop("call").endswith("['noise.png'].depth()")
    assert wanted.pop("call").startswith("model.predict(")
    assert (said.pop("code")["setup"], wanted.pop("code")["model"]) == ([], "model")
    origin = said.pop("origin")
    assert origin["image"] == "noise.png"
    assert origin | {"image": ""} == wanted.pop("origin")  # the live image is an array without a name
    assert said == wanted
    assert said["absent"] == {}
    for block in said["blocks"]:
        assert ours._attention.bytes_of_parts(block) == sum(map(len, ask(ours, kind="block", block=block)[1]))


def test_norms_channels_and_depth_are_those_of_the_model(family, models, stored):
    ours, theirs = NormExplorer(stored(family)), live(NormExplorer, models, family)
    for request in ({"kind": "norms"}, {"kind": "tokens", "block": 1}, {"kind": "depth"}):
        (said, parts), (wanted, others) = (ask(explorer, **request) for explorer in (ours, theirs))
        assert said["kind"] == request["kind"]
        assert said == pytest.approx(wanted) if request["kind"] == "depth" else said == wanted
        assert [len(part) for part in parts] == [len(part) for part in others]
        if request["kind"] != "depth":
            kind = "<f4" if request["kind"] == "norms" else "<f2"
            a, b = (np.frombuffer(found[0], kind).astype(float) for found in (parts, others))
            np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-4)
    depth = models[family].predict(IMAGE, OBLONG[family], keep_aspect=False)
    np.testing.assert_allclose(DepthExplorer(stored(family)).depth, depth, rtol=1e-5, atol=1e-6)


def test_state_moves_as_with_a_model(stored):
    explorer = AttentionExplorer(stored("swinv2"), block=0)
    explorer.patch = (13, 7)
    explorer.pins = [13 * 24 + 7]
    explorer.block = 2
    assert (explorer.patch, explorer.pins) == ((6, 3), [6 * 12 + 3])
    explorer.base = "depth"
    norms = NormExplorer(stored("swinv2"), block=1)  # block 2 reads its output, after the merge of patches
    below = norms.attention(token=13 * 24 + 7, direction="column")
    assert (below.block, below.patch, below.direction) == (2, (6, 3), "column")
    assert ask(below, kind="block", block=2)[0]["kind"] == "block"


def test_where_memory_is_short_one_block_is_kept(stored, monkeypatch):
    monkeypatch.setattr("probes.explorers.shared.subject.MEMORY_BUDGET", 1000)
    capture = stored("depth-anything")
    explorer = AttentionExplorer(capture)
    for block in (1, 3):
        assert ask(explorer, kind="block", block=block)[0]["kind"] == "block"
    assert explorer._subject.held() == ["encoder.blocks.3.attention"]
    assert capture.nbytes == 0  # the explorer reads through a capture of its own


def test_pages_hold_what_is_stored(stored, tmp_path):
    said = embedded(AttentionExplorer(stored("some")).to_html(tmp_path / "a.html", blocks="all"))
    assert [(reply["message"]["kind"], reply["match"]) for reply in said["replies"]] == [
        ("picture", {}), ("block", {"block": 1}), ("block", {"block": 2})
    ]  # fmt: skip
    assert said["replies"][0]["message"]["blocks"] == [1, 2]
    said = embedded(NormExplorer(stored("some")).to_html(tmp_path / "n.html", channels="all"))
    assert [reply["message"]["kind"] for reply in said["replies"]] == ["picture", "norms", "tokens"]
    assert said["replies"][0]["message"]["channels"] == [2]
    said = embedded(AttentionExplorer(stored("beit")).to_html(tmp_path / "whole.html"))
    assert said["replies"][-1]["message"]["kind"] == "depth"


def embedded(path: Path) -> dict[str, Any]:
    found = re.search(
        r'<script type="application/json"[^>]*>(.*?)</script>', path.read_text(encoding="utf-8"), re.DOTALL
    )
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


STATIC = (Path(__file__).parents[3] / "probes" / "explorers").as_uri()


def copied_python(node: str, module: str, call: str, shot: dict[str, Any]) -> str:
    """The code that "Copy Python" copies for a view."""
    script = f'import {{ {call} }} from "{STATIC}/{module}"; process.stdout.write({call}({json.dumps(shot)}));'
    done = subprocess.run([node, "--input-type=module", "-e", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_copied_python_reads_the_view_from_the_run(node, stored, family):
    capture = stored(family)
    said, _ = ask(AttentionExplorer(capture), kind="picture")
    (heads, rows, cols), prefix = said["shapes"][1], said["prefix"]
    shot = {"block": 1, "direction": "column", "mode": "a", "tokens": [prefix + cols + 2], "head": None}
    shot |= {"grid": {"rows": rows, "cols": cols, "prefix": prefix}, "opened": said["opened"], "call": said["call"]}
    found: dict[str, Any] = {}
    exec(copied_python(node, "attention/snapshot.js", "snapshotPython", shot), found)
    assert found["shown_maps"].shape == (heads, rows, cols)
    wanted = capture["encoder.blocks.1.attention"].map(patch=(1, 2), direction="column")
    np.testing.assert_array_equal(found["shown_maps"], wanted)
    code = copied_python(node, "norms/python.js", "normsPython", shot | {"k": 2.5, "what": "norm"})
    exec(code, found)
    np.testing.assert_array_equal(found["shown_norms"][1], probes.tokens.norms(capture)[1])
    code = copied_python(node, "norms/python.js", "normsPython", shot | {"what": "channel", "channel": 3})
    *statements, last = code.rstrip().splitlines()
    exec("\n".join(statements), found)
    np.testing.assert_array_equal(eval(last, found), probes.tokens.channels(capture, 1)[3])
    alike = {"what": "similarity", "place": "patch=(1, 2)", "centred": True}
    code = copied_python(node, "norms/python.js", "normsPython", shot | alike)
    *statements, last = code.rstrip().splitlines()
    exec("\n".join(statements), found)
    np.testing.assert_array_equal(eval(last, found), probes.tokens.similarity(capture, 1, (1, 2), centred=True))


def test_the_copied_python_of_the_depth(node, stored):
    explorer = DepthExplorer(stored("beit"))
    settings = {"far": 0.25, "near": 0.75, "plane": False, "equalise": False, "nearest": 1.5, "farthest": 20.5}
    call = ask(explorer, kind="picture")[0]["call"]
    script = f"""import {{ depthPython }} from "{STATIC}/depth/python.js";
process.stdout.write(depthPython({json.dumps(settings)}, false, {{ call: {json.dumps(call)} }}));"""
    code = subprocess.run(
        [node, "--input-type=module", "-e", script], capture_output=True, text=True, check=True
    ).stdout
    found: dict[str, Any] = {}
    exec(code, found)
    np.testing.assert_array_equal(found["shown_depth"], explorer.depth)


# ------------------------------------------------------------------------------------------------ what was not captured


def test_attention_of_some_blocks(stored):
    explorer = AttentionExplorer(stored("some"))
    said, _ = ask(explorer, kind="picture")
    assert (explorer.block, said["blocks"]) == (2, [1, 2])
    hint = 'holds attention of blocks 1, 2 only. Capture into another folder with the selector "attention"'
    with pytest.raises(traitlets.TraitError, match=f"block 3 cannot be shown: the run .*some {hint}"):
        explorer.block = 3
    assert explorer.block == 2
    with pytest.raises(traitlets.TraitError, match="a whole number from 0 to 3, got 4"):
        explorer.block = 4
    error, parts = ask(explorer, kind="block", block=3)
    assert (error["kind"], parts) == ("error", [])
    assert hint in error["text"]
    with pytest.raises(traitlets.TraitError, match=hint):
        AttentionExplorer(stored("some"), block=0)
    with pytest.raises(traitlets.TraitError, match=hint):
        explorer.to_html("never.html", blocks=[1, 3])


def test_depth_that_was_not_captured(stored):
    hint = 'holds no depth. Capture into another folder with the selector "depth"'
    for explorer in (AttentionExplorer(stored("some")), NormExplorer(stored("some"))):
        assert hint in ask(explorer, kind="picture")[0]["absent"]["depth"]
        with pytest.raises(traitlets.TraitError, match=f'base cannot be "depth": the run .*{hint}'):
            explorer.base = "depth"
        assert explorer.base == "picture"
        assert hint in ask(explorer, kind="depth")[0]["text"]
    with pytest.raises(NotCaptured, match=hint):
        DepthExplorer(stored("some"))


def test_norms_of_some_blocks_as_such_and_from_tokens(models, stored):
    explorer = NormExplorer(stored("some"))
    said, _ = ask(explorer, kind="picture")
    assert (said["blocks"], said["channels"], said["attention"], explorer.block) == ([0, 2], [2], [1, 2], 2)
    assert said["absent"].keys() == {"norms", "tokens", "attention", "depth"}
    message, (part,) = ask(explorer, kind="norms")
    assert message["numbers"] == [0, 2]
    wanted, (all_,) = ask(live(NormExplorer, models, "depth-anything"), kind="norms")
    assert wanted["numbers"] == [0, 1, 2, 3]
    every = np.frombuffer(all_, "<f4").reshape(4, -1)
    np.testing.assert_allclose(np.frombuffer(part, "<f4").reshape(2, -1), every[[0, 2]], rtol=1e-5)
    with pytest.raises(traitlets.TraitError, match=r"block 1 cannot be shown: .* holds norms of block 0 only"):
        explorer.block = 1
    assert "holds tokens of block 2 only" in ask(explorer, kind="tokens", block=0)[0]["text"]
    explorer.what = "channel"  # of block 2
    with pytest.raises(ValueError, match=r"channels=\[0\] cannot be written: .* holds tokens of block 2 only"):
        explorer.to_html("never.html", channels=[0])
    with pytest.raises(NotCaptured, match=r"block 3 reads the output of block 2, and .* attention of blocks 1, 2 only"):
        explorer.attention()
    explorer.block = 0
    with pytest.raises(traitlets.TraitError, match=r"block 0 cannot be shown: .* holds attention of blocks 1, 2 only"):
        explorer.attention(block=0)
    assert explorer.attention().block == 1


@pytest.fixture(scope="module")
def depth_only(models, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("depth") / "run"
    pictures = [("array", IMAGE)]
    probes.run(models["depth-anything"], pictures, out, "depth", size=42, workers=0, progress=False)
    return out


def test_nothing_captured_of_a_kind(depth_only, no_model):
    capture = probes.open_run(depth_only)["array"]
    with pytest.raises(NotCaptured, match=r'holds no attention. .* with the selector "attention"'):
        AttentionExplorer(capture, IMAGE)
    with pytest.raises(NotCaptured, match=r'holds no norms. .* with the selector "norms"'):
        NormExplorer(capture, IMAGE)


def test_channels_that_were_not_captured(models, tmp_path):
    model = models["depth-anything"]
    probes.run(model, [("array", IMAGE)], tmp_path / "run", "norms", size=42, workers=0, progress=False)
    explorer = NormExplorer(probes.open_run(tmp_path / "run")["array"], IMAGE)
    with pytest.raises(traitlets.TraitError, match=r'what cannot be "channel": .* holds no tokens. .*"tokens"'):
        explorer.what = "channel"
    with pytest.raises(NotCaptured, match=r'holds no attention. .*"attention"'):
        explorer.attention()
    assert set(ask(explorer, kind="picture")[0]["absent"]) == {"depth", "attention", "tokens"}


# --------------------------------------------------------------------------------------------------------- the picture


def copied(runs: dict[str, Path], folder: Path, models: dict[str, dpt.DPT], **more: Any) -> StoredCapture:
    """A run of one image in its own folder, for tests that change its files."""
    (folder / "photos").mkdir()
    shutil.copy(runs["some"].parent / "noise.png", folder / "photos")
    model, setting = models["depth-anything"], {"size": 42, "workers": 0, "progress": False}
    probes.run(model, folder / "photos", folder / "run", "encoder.blocks.1.attention", **setting, **more)
    return probes.open_run(folder / "run")["noise.png"]


def test_a_picture_whose_file_has_gone_or_changed_is_asked_for(runs, models, tmp_path):
    capture = copied(runs, tmp_path, models)
    file = tmp_path / "photos" / "noise.png"
    AttentionExplorer(capture)
    Image.fromarray(255 - IMAGE).save(file)
    hint = r"AttentionExplorer\(run\['noise.png'\], image\), or capture with keep_images=True"
    with pytest.raises(StoreError, match=f"noise.png has changed since noise.png was captured.*{hint}"):
        AttentionExplorer(capture)
    file.unlink()
    with pytest.raises(StoreError, match=f"noise.png.*{hint}"):
        AttentionExplorer(capture)
    file.mkdir()
    with pytest.raises(StoreError, match=f"noise.png.*{hint}"):
        AttentionExplorer(capture)
    explorer = AttentionExplorer(capture, IMAGE)
    assert (ask(explorer, kind="picture")[0]["width"], ask(explorer, kind="picture")[0]["height"]) == (90, 60)
    with pytest.raises(ValueError, match=r"the image is 30 x 90 pixels, but noise.png was captured as 60 x 90"):
        AttentionExplorer(capture, IMAGE[:30])
    with pytest.raises(dpt.ImageError):
        AttentionExplorer(capture, IMAGE.astype(float))


def test_a_picture_that_was_kept_stands_in_for_its_file(runs, models, tmp_path):
    capture = copied(runs, tmp_path, models, keep_images=True)
    assert AttentionExplorer(capture)._subject.image.shape == (60, 90, 3)
    (tmp_path / "photos" / "noise.png").unlink()
    explorer = AttentionExplorer(capture)
    assert explorer._subject.image.shape == (*capture.input_size, 3)
    assert ask(explorer, kind="picture")[0]["call"].endswith(f".depth(size={capture.input_size})")


def test_what_else_is_given_by_mistake(stored, models):
    with pytest.raises(TypeError, match=r"noise.png was captured as 42 x 70 pixels. size and keep_aspect"):
        AttentionExplorer(stored("depth-anything"), size=70)
    with pytest.raises(dpt.ImageError):
        AttentionExplorer(models["beit"])


def test_what_is_no_picture_of_a_run_is_named(runs, no_model):
    """Calls the check itself: the type checks of the test suite would refuse the argument first."""
    run = probes.open_run(runs["beit"])
    with pytest.raises(TypeError, match=r'got Run. .*run\["photo.jpg"\]. list\(run\)'):
        checked_model(run)
    with pytest.raises(TypeError, match=r"got Capture. .*probes.open_run"):
        checked_model(probes.Capture(["depth"]))


def test_sizes_are_those_of_the_files(runs):
    run = probes.open_run(runs["beit"])
    sizes = run.sizes()
    assert list(sizes) == run.points
    parts = runs["beit"] / "parts"
    everything = sum(path.stat().st_size for path in parts.glob("*/*/encoder*/**/*") if path.is_file())
    assert sum(sizes.values()) - sizes["depth"] == everything
    one = [path for path in parts.glob("*/*/encoder.blocks.1.attention*/**/*") if path.is_file()]
    assert {path.relative_to(parts).parts[2].rpartition("attention.")[2] for path in one} >= {"q", "k", "bias.table"}
    assert sizes["encoder.blocks.1.attention"] == sum(path.stat().st_size for path in one)
