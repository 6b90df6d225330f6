"""Numbers of NumPy and torch are numbers in every public function, and change no result."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dpt
import probes
from dpt.depth_anything import depth_anything
from dpt.image import network_size, plain_size
from probes.explorers import AttentionExplorer, FusionExplorer, NormExplorer, PositionExplorer
from probes.figures import animation, plot, tiles
from tests.models import tiny_beit, tiny_model

IMAGE = np.random.default_rng(0).integers(0, 256, (56, 70, 3), dtype=np.uint8)
Number = Callable[[Any], Any]

WHOLE: dict[str, Number] = {  # np.uint8: sums of tokens and pixels overflow unless it becomes an int
    "np.uint8": np.uint8,
    "np.int64": np.int64,
    "array without dimensions": np.array,
    "tensor without dimensions": torch.tensor,
}
REAL: dict[str, Number] = {  # np.float16: 3 digits, at most 65,504
    "np.float16": np.float16,
    "np.float32": np.float32,
    "np.int64": lambda value: np.int64(value) if value == int(value) else np.float64(value),
    "tensor without dimensions": torch.tensor,
}
GRID = dpt.TokenGrid(20, 30, prefix=1)
DEPTH = np.linspace(0, 60_000, 20 * 30, dtype=np.float32).reshape(20, 30)


def same(one: Any, other: Any) -> bool:
    """Whether two results have the same values, and plain numbers where one has."""
    if isinstance(one, tuple | list):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, int | float | str | bytes | None):
        return type(one) is type(other) and one == other
    return bool(np.array_equal(np.asarray(one), np.asarray(other)))


@pytest.fixture(scope="module")
def capture() -> probes.Capture:
    model = tiny_model()
    with probes.capture(model, "attention", "tokens", "norms") as found:
        model.predict(IMAGE)
    return found


WHOLE_CALLS: dict[str, Callable[[Number], Any]] = {
    "TokenGrid.token": lambda n: GRID.token(n(19), n(29)),
    "TokenGrid.patch": lambda n: GRID.patch(n(200)),
    "TokenGrid.edges": lambda n: GRID.edges(n(19), n(29), (n(250), n(200))),
    "TokenGrid.box": lambda n: GRID.box(n(19), n(29), (n(250), n(200))),
    "TokenGrid.patch_at": lambda n: GRID.patch_at(n(250), n(199), (n(251), n(200))),
    "TokenGrid.patches_of_pixels": lambda n: GRID.patches_of_pixels((n(250), n(200))),
    "TokenGrid.token_in": lambda n: GRID.token_in(dpt.TokenGrid(10, 15, prefix=1), n(200)),
    "token_grid": lambda n: asdict(tiny_model().token_grid(n(140), n(70)))["rows"],
    "network_size": lambda n: network_size(n(56), n(70), tiny_model().config.preprocess, (n(70), n(98))),
    "plain_size": lambda n: [plain_size(n(70)), plain_size((n(70), n(98))), plain_size([n(70), n(98)])],
    "predict": lambda n: tiny_model().predict(IMAGE, n(70)),
    "predict, a pair": lambda n: tiny_model().predict(IMAGE, (n(70), n(98))),
    "positions": lambda n: probes.positions(tiny_model(), n(70)).table,
    "positions, a pair": lambda n: probes.positions(tiny_model(), [n(70), n(98)]).size,
    "PositionTable.similarity": lambda n: probes.positions(tiny_model(), 70).similarity((n(1), n(2))).attrs["patch"],
    "PositionBiases": lambda n: probes.positions(tiny_beit(), 64)[n(1)].attrs["block"],
    "PositionBiases.from_query": lambda n: (
        probes.positions(tiny_beit(), 64).from_query(n(1), (n(0), n(1))).attrs["query"]
    ),
    "plot.pictures": lambda n: plot.pictures({"a": tiles.opaque(IMAGE)}, columns=n(3)).get_size_inches(),
    "tiles.dice": lambda n: tiles.dice(IMAGE, n(14), n(2)),
    "tiles.mosaic": lambda n: tiles.mosaic([tiles.opaque(IMAGE)] * 3, n(2), n(140), n(3)),
    "tiles.liveliest": lambda n: tiles.liveliest(torch.arange(27.0).reshape(3, 3, 3), n(2)),
}
CAPTURE_CALLS: dict[str, Callable[[probes.Capture, Number], Any]] = {
    "norms": lambda cap, n: probes.tokens.norms(cap, n(0))[2].attrs,
    "channels": lambda cap, n: json.dumps(probes.tokens.channels(cap, n(2), n(0)).attrs),
    "similarity": lambda cap, n: json.dumps(probes.tokens.similarity(cap, n(2), token=n(3)).attrs),
    "pca": lambda cap, n: probes.tokens.pca(cap, n(2), n(2)),
    "map": lambda cap, n: cap["encoder.blocks.2.attention"].map(token=n(3), batch=n(0)),
    "rows": lambda cap, n: cap["encoder.blocks.2.attention"].rows([n(3), n(5)]),
}
REAL_CALLS: dict[str, Callable[[Number], Any]] = {
    "threshold": lambda n: probes.tokens.threshold(DEPTH, n(2.5)),
    "within": lambda n: probes.depth.within(DEPTH, n(0.25), n(0.75)),
    "metres": lambda n: probes.depth.metres(DEPTH, n(0.5), n(96)),
    "patch_at": lambda n: GRID.patch_at(n(2), n(500.5), (1000, 2000)),
    "between": lambda n: list(animation.between({"fusion.1": n(1)}, {"fusion.1": n(0.5)}, n(0.25)).values()),
    "scale": lambda n: probes.scale(n(0.5)).factor,
    "replace": lambda n: probes.replace(n(0.5)).value,
    "FusionReplay": lambda n: probes.FusionReplay(tiny_model(), IMAGE)({"fusion.1": n(0.5)}),
}


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("call", WHOLE_CALLS)
def test_whole_numbers(call: str, kind: str):
    assert same(WHOLE_CALLS[call](WHOLE[kind]), WHOLE_CALLS[call](int))


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("call", CAPTURE_CALLS)
def test_whole_numbers_of_captures(call: str, kind: str, capture: probes.Capture):
    assert same(CAPTURE_CALLS[call](capture, WHOLE[kind]), CAPTURE_CALLS[call](capture, int))


@pytest.mark.parametrize("kind", REAL)
@pytest.mark.parametrize("call", REAL_CALLS)
def test_real_numbers(call: str, kind: str):
    assert same(REAL_CALLS[call](REAL[kind]), REAL_CALLS[call](float))


# Not np.True_ and "3": the tests check the types of arguments in probes/, and would report these first.
@pytest.mark.parametrize("wrong", [True, torch.tensor(True), np.array(True), torch.tensor(1.5)], ids=repr)
@pytest.mark.parametrize("call", ["TokenGrid.patch", "PositionBiases", "tiles.dice", "plot.pictures"])
def test_bools_and_strings_are_no_numbers(call: str, wrong: object):
    with pytest.raises((dpt.DPTError, probes.ProbeError)) as refused:
        WHOLE_CALLS[call](lambda value: wrong)
    assert isinstance(refused.value, TypeError | ValueError)


@pytest.mark.parametrize("kind", WHOLE)
def test_heads_from_arrays(kind: str):
    number, heads = WHOLE[kind], np.argsort([0.3, 0.1, 0.2])[:2]
    assert probes.zero(heads).where == {"first": (1, 2)}
    assert probes.zero(torch.tensor([0.3, 0.1]).topk(1).indices).where == {"first": (0,)}
    edit = probes.zero(number(1), tokens=[number(0), number(2)])
    assert edit.where == {"first": (1,), "tokens": (0, 2)}
    json.dumps(edit.to_json())


@pytest.mark.parametrize("kind", WHOLE)
def test_a_run_records_plain_numbers(tmp_path: Path, kind: str):
    n, model = WHOLE[kind], tiny_model()
    options = {"tokens": [n(3), (n(0), n(1))], "size": (n(56), n(70)), "batch": n(2), "part": n(2), "timeout": n(5)}
    probes.run(model, [("a", IMAGE)], tmp_path / "a", "attention.rows", workers=n(0), progress=False, **options)
    plain = {"tokens": [3, (0, 1)], "size": (56, 70), "batch": 2, "part": 2, "timeout": 5}
    probes.run(model, [("a", IMAGE)], tmp_path / "b", "attention.rows", workers=0, progress=False, **plain)
    record, expected = ((tmp_path / name / "run.json").read_text() for name in "ab")
    assert json.loads(record)["fingerprint"] == json.loads(expected)["fingerprint"]
    again = probes.run(model, [("a", IMAGE)], tmp_path / "a", "attention.rows", workers=0, progress=False, **plain)
    assert again.already_stored == 1


def test_configurations_are_saved_in_plain_numbers(tmp_path: Path):
    config = depth_anything(
        variant="tiny",
        width=np.int64(64),
        depth=np.int64(4),
        reassembly_channels=np.array([16, 16, 16, 16]),
        fusion_channels=np.int64(16),
        max_depth=np.float32(80),
    )
    json.dumps(asdict(config))
    model = dpt.DPT(config).eval()
    dpt.save(model, tmp_path / "model.safetensors")
    assert dpt.load(tmp_path / "model.safetensors").config == config
    assert config.max_depth == 80.0


@pytest.mark.parametrize("max_depth", [np.float32(80), np.int64(80), torch.tensor(80.0)], ids=repr)
def test_facts_for_loading(max_depth: Any):
    model = tiny_model(max_depth=80.0)
    state = dpt.checkpoints.depth_anything.to_original(model.state_dict(), model.config)
    loaded = dpt.load(state, version=np.int64(2), max_depth=max_depth)
    assert type(loaded.config.max_depth) is float
    assert loaded.config.max_depth == 80.0
    with pytest.raises(TypeError, match="max_depth"):
        dpt.load(state, version=2, max_depth=True)


@pytest.mark.parametrize("kind", WHOLE)
def test_controls_of_explorers(kind: str):
    n, model = WHOLE[kind], tiny_model()
    attention = AttentionExplorer(model, IMAGE, n(1), size=(n(56), n(70)), token=n(3), opacity=np.float32(0.5))
    attention.block, attention.head, attention.patch = n(2), n(0), (n(1), n(2))
    attention.pins = np.array([1, 3])  # type: ignore[assignment] # the trait makes it a list
    norms = NormExplorer(model, IMAGE, block=n(1), k=np.float16(2.5), centred=np.True_)
    norms.pin, norms.channel = n(3), n(5)
    positions = PositionExplorer(model, size=(n(56), n(70)), first=n(2))
    positions.channel = n(3)
    fusion = FusionExplorer(model, IMAGE, {"fusion.1": np.float32(0.5)}, size=n(56), frames=n(12))
    for explorer in (attention, norms, positions, fusion):
        state = {name: getattr(explorer, name) for name in explorer.trait_names(ui=True)}
        assert json.loads(json.dumps(state, allow_nan=False)) is not None
    assert (attention.block, attention.pins, attention.token) == (2, [1, 3], 1 + 5 + 2)
    assert (norms.pin, norms.k, norms.centred) == (3, 2.5, True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("k", float("nan")),
        ("k", np.float32("nan")),
        ("k", True),
        ("opacity", float("nan")),
        ("block", True),
        ("pin", 2.5),
    ],
)
def test_controls_refuse_nan_bools_and_fractions(name: str, value: object):
    explorer = NormExplorer(tiny_model(), IMAGE)
    before = getattr(explorer, name)
    with pytest.raises(probes.ProbeError, match=name):
        setattr(explorer, name, value)
    assert getattr(explorer, name) == before


def test_pages_take_numbers_from_arrays(tmp_path: Path):
    model = tiny_model()
    AttentionExplorer(model, IMAGE).to_html(tmp_path / "a.html", np.array([1, 2]))
    AttentionExplorer(model, IMAGE).to_html(tmp_path / "b.html", np.int64(1))
    NormExplorer(model, IMAGE).to_html(tmp_path / "c.html", np.array([1]))
    PositionExplorer(model).to_html(tmp_path / "d.html", np.array([[56, 70]]))
    with pytest.raises(ValueError, match=r"a height.*whole number.*56\.9"):
        PositionExplorer(model).to_html(tmp_path / "e.html", np.array([[56.9, 70]]))
