"""The Python half of the position explorer. The tests exchange messages with it as a browser does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import traitlets

import dpt
from probes.explorers.positions import PositionExplorer
from probes.explorers.positions.data import bytes_of_parts
from probes.positions import PositionBiases, PositionTable, frequencies, positions
from tests.models import OBLONG, TINY, tiny_beit, tiny_model, tiny_swinv2
from tests.probes.explorers.wire import Wire, code_and_rest, data_of

ROOT = Path(__file__).parents[3]
BIASED = ("beit", "swinv2")


def explorer_of(family: str, size: Any = None, **more: Any) -> tuple[PositionExplorer, Wire[PositionExplorer]]:
    explorer = PositionExplorer(TINY[family](), size, **more)
    return explorer, Wire(explorer)


def floats(part: bytes, *shape: int) -> np.ndarray:
    return np.frombuffer(part, "<f4").reshape(shape)


# --------------------------------------------------------------------------------------------------------- requests


@pytest.mark.parametrize("size", [None, (42, 70)])
def test_a_table_arrives_bit_for_bit_with_what_follows_from_it(size):
    _, wire = explorer_of("depth-anything")
    height, width = size or (518, 518)
    message, parts = wire.ask(kind="table", height=height, width=width)
    truth = positions(tiny_model(), size)
    assert isinstance(truth, PositionTable)
    rows, cols = truth.grid.rows, truth.grid.cols
    assert (message["count"], message["rows"], message["cols"]) == (128, rows, cols)
    assert message["stored"] == (size is None)
    np.testing.assert_array_equal(floats(parts[0], 128, rows, cols), truth.table)
    np.testing.assert_array_equal(floats(parts[1], 128), truth.table["class_token"])
    np.testing.assert_allclose(floats(parts[2], 128), truth.table.std(("row", "col")), rtol=1e-5)
    np.testing.assert_array_equal(floats(parts[3], 128), frequencies(truth.spectrum()))
    np.testing.assert_allclose(floats(parts[4], rows, cols), truth.spectrum().mean("channel"), rtol=1e-5)
    np.testing.assert_array_equal(floats(parts[5], 128, rows, cols), truth.spectrum())


@pytest.mark.parametrize("size", [(42, 70), (56, 84), (14, 42)])  # grids of odd and even sides, and of one row
def test_spectra_are_fourier_transforms_with_the_constant_in_the_middle(size):
    """The power of every wave, from the definition of the transform: |sum of image times wave|^2 / pixels^2."""
    _, wire = explorer_of("depth-anything")
    message, parts = wire.ask(kind="table", height=size[0], width=size[1])
    rows, cols = message["rows"], message["cols"]
    images = floats(parts[0], 128, rows, cols)[:5].astype(np.float64)
    images = images - images.mean(axis=(1, 2), keepdims=True)
    power = floats(parts[5], 128, rows, cols)[:5]
    row, col = np.mgrid[:rows, :cols]
    for r in range(rows):
        for c in range(cols):
            down, right = r - rows // 2, c - cols // 2
            wave = np.exp(-2j * np.pi * (down * row / rows + right * col / cols))
            expected = np.abs((images * wave).sum(axis=(1, 2))) ** 2 / (rows * cols) ** 2
            np.testing.assert_allclose(power[:, r, c], expected, rtol=1e-4, atol=1e-12)
    np.testing.assert_allclose(power.sum(axis=(1, 2)), images.var(axis=(1, 2)), rtol=1e-4)


@pytest.mark.parametrize("family", BIASED)
@pytest.mark.parametrize("oblong", [False, True])
def test_biases_arrive_bit_for_bit(family, oblong):
    explorer, wire = explorer_of(family, OBLONG[family] if oblong else None)
    height, width = explorer.size
    truth = positions(TINY[family](), (height, width))
    assert isinstance(truth, PositionBiases)
    for block, bias in truth.items():
        message, parts = wire.ask(kind="bias", height=height, width=width, block=block)
        span, grid = truth.span(block), truth.grid(block)
        assert (message["count"], message["rows"], message["cols"]) == (len(bias), span.rows, span.cols)
        assert message["windowed"] == (family == "swinv2")
        assert message["shifted"] == any(grid.shift)
        np.testing.assert_array_equal(floats(parts[0], *bias.shape), bias)
        assert message["prefix"] == (family == "beit") == (len(parts) == 3)
        if family == "beit":
            entries = floats(parts[2], len(bias), 3).T
            for name, values in zip(("class_to_patches", "patches_to_class", "class_to_class"), entries, strict=True):
                np.testing.assert_array_equal(values, bias[name])


@pytest.mark.parametrize("family", TINY)
def test_what_a_view_must_know_first(family):
    explorer, wire = explorer_of(family, OBLONG[family])
    message, parts = wire.ask(kind="about", seq=7, client="abc")
    assert (message["seq"], message["client"], parts) == (7, "abc", [])
    assert message["encoding"] == ("table" if family == "depth-anything" else "bias")
    assert message["blocks"] == (0 if family == "depth-anything" else explorer._model.config.depth)
    assert message["native"] == message["sizes"][0] == positions(TINY[family]()).size
    assert OBLONG[family] in message["sizes"]
    kind = message["encoding"]
    for height, width in message["sizes"]:  # each size can be requested
        assert wire.ask(kind=kind, height=height, width=width, block=0)[0]["kind"] == kind


def test_no_picture_is_run(monkeypatch):
    monkeypatch.setattr(dpt.DPT, "forward", lambda *_: pytest.fail("the model ran"))
    for family in TINY:
        explorer, wire = explorer_of(family)
        kind = wire.ask(kind="about")[0]["encoding"]
        height, width = explorer.size
        assert wire.ask(kind=kind, height=height, width=width, block=0)[0]["kind"] == kind


@pytest.mark.parametrize(
    ("family", "request_", "said"),
    [
        ("beit", {"kind": "bias", "height": 80, "width": 80, "block": 4}, "block must be a whole number from 0 to 3"),
        ("beit", {"kind": "bias", "height": 81, "width": 80, "block": 0}, "multiples of 16 pixels, got 81 x 80"),
        ("depth-anything", {"kind": "table", "height": None, "width": 70}, "height must be a whole number"),
        ("depth-anything", {"kind": "nonsense"}, "does not answer requests of kind 'nonsense'"),
    ],
)
def test_a_bad_request_is_answered_with_what_was_wrong(family, request_, said):
    _, wire = explorer_of(family)
    message, parts = wire.ask(**request_)
    assert (message["kind"], message["asked"], message["seq"]) == ("error", request_["kind"], 1)
    assert said in message["text"]
    assert parts == []


# ------------------------------------------------------------------------------------------------------------- state


@pytest.mark.parametrize("family", TINY)
def test_state_is_small_and_holds_no_data(family):
    explorer, wire = explorer_of(family)
    height, width = explorer.size
    wire.ask(kind=wire.ask(kind="about")[0]["encoding"], height=height, width=width, block=0)
    state = explorer.get_state()
    assert len(json.dumps({name: state[name] for name in explorer.trait_names(ui=True)})) < 1000
    code, rest = code_and_rest(explorer)
    assert code < 100_000
    assert rest < 2000


def test_traits_are_two_way_and_patches_follow_the_grid():
    explorer, _ = explorer_of("depth-anything", (42, 70), order="strength", centred=True)
    assert (explorer.size, explorer.order, explorer.centred, explorer.patch) == ([42, 70], "strength", True, (1, 2))
    explorer.patch = (2, 4)
    explorer.set_state({"size": [84, 140], "channel": 7, "pinned": True})  # as a browser does
    assert (explorer.channel, explorer.pinned, explorer.patch) == (7, True, (5, 9))
    explorer.place = [1.0, 0.0]
    assert explorer.patch == (5, 0)
    with pytest.raises(IndexError, match=r"patch \(6, 0\) is outside the grid of 6 rows x 10 columns"):
        explorer.patch = (6, 0)


def test_in_windows_patches_count_within_one():
    explorer, _ = explorer_of("swinv2", (96, 96))
    assert explorer.patch == (2, 2)  # windows of 4 x 4
    explorer.block = 4
    assert explorer.patch == (3, 3)  # of 6 x 6


def test_a_head_that_the_next_block_lacks_becomes_the_mean():
    explorer, _ = explorer_of("swinv2", block=6, head=7)
    explorer.block = 0
    assert explorer.head == -1


@pytest.mark.parametrize(
    ("family", "name", "value", "said"),
    [
        ("depth-anything", "size", [43, 70], "multiples of 14"),
        ("depth-anything", "channel", 128, "channel must be a whole number from 0 to 127, got 128"),
        ("depth-anything", "head", 0, "a position table has no heads"),
        ("depth-anything", "place", [0.5, 1.5], "place"),
        ("depth-anything", "first", -1, "first"),
        ("depth-anything", "colormap", "jet", "colormap"),
        ("beit", "channel", 0, "relative biases have no channels"),
        ("beit", "head", 2, "head must be a whole number from -1 to 1, got 2"),
        ("beit", "block", 4, "block must be a whole number from 0 to 3, got 4"),
        ("beit", "order", "frequency", "order 'frequency' applies to position tables only"),
        ("beit", "view", "spectrum", "view 'spectrum' applies to position tables only"),
        ("swinv2", "size", [60, 64], "multiples of 32"),
    ],
)
def test_impossible_settings_are_refused_and_change_nothing(family, name, value, said):
    explorer, _ = explorer_of(family)
    before = getattr(explorer, name)
    with pytest.raises(traitlets.TraitError, match=said):
        setattr(explorer, name, value)
    assert getattr(explorer, name) == before


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"multiples of 16 .*81 x 81"):
        PositionExplorer(tiny_beit(), 81)
    with pytest.raises(TypeError, match=r"colour.* Its controls: block, centred, channel, colormap, "):
        PositionExplorer(tiny_beit(), colour="magma")


def test_something_else_than_a_model_is_named():
    """Runs in a separate interpreter, because the type checks of the test suite would refuse the argument first."""
    script = """
from probes.explorers.positions import PositionExplorer
from probes.explorers.positions.data import bytes_of_parts
try:
    PositionExplorer("demo")
except TypeError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.strip().endswith("got str. Load it first: dpt.load('demo')")


# ------------------------------------------------------------------------------------------------------------- pages


def test_a_page_holds_the_native_size_and_the_one_shown(tmp_path):
    explorer, _ = explorer_of("depth-anything", (42, 70), channel=3)
    data = data_of(explorer.to_html(tmp_path / "page.html"))
    assert (data["state"]["size"], data["state"]["channel"]) == ([42, 70], 3)
    assert set(data["state"]) == set(explorer.trait_names(ui=True))
    about, *tables = data["replies"]
    assert about["message"]["sizes"] == [[518, 518], [42, 70]]
    assert [reply["match"] for reply in tables] == [{"height": 518, "width": 518}, {"height": 42, "width": 70}]
    chosen = data_of(explorer.to_html(tmp_path / "page.html", sizes=[(56, 56)]))
    assert (chosen["state"]["size"], len(chosen["replies"])) == ([56, 56], 2)
    assert explorer.size == [42, 70]


@pytest.mark.parametrize("family", BIASED)
def test_a_page_of_biases_holds_every_block(family, tmp_path):
    explorer, _ = explorer_of(family, OBLONG[family])
    data = data_of(explorer.to_html(tmp_path / "page.html"))
    blocks = [reply["match"]["block"] for reply in data["replies"][1:]]
    assert blocks == 2 * list(range(explorer._model.config.depth))


def test_what_cannot_be_written_is_said_and_leaves_no_file(tmp_path):
    explorer, _ = explorer_of("depth-anything")
    with pytest.raises(ValueError, match=r"positions for 8 sizes takes \d+\.\dMiB, limit 1\.00MiB"):
        explorer.to_html(tmp_path / "page.html", sizes="all", limit=2**20)
    with pytest.raises(ValueError, match="sizes is empty"):
        explorer.to_html(tmp_path / "page.html", sizes=[])
    with pytest.raises(ValueError, match="multiples of 14"):
        explorer.to_html(tmp_path / "page.html", sizes=[(43, 70)])
    assert list(tmp_path.iterdir()) == []


def test_the_limit_is_about_what_a_page_takes(tmp_path):
    for model in (tiny_model(), tiny_beit(), tiny_swinv2()):
        explorer = PositionExplorer(model)
        said = bytes_of_parts(model, [(explorer.size[0], explorer.size[1])])
        replies = data_of(explorer.to_html(tmp_path / "page.html"))["replies"]
        true = sum(len(part) * 3 // 4 for reply in replies for part in reply["buffers"])
        assert said == pytest.approx(true, rel=0.1)
