"""The benchmarks: rounds are fair, operations are counted correctly, tables replace their earlier versions."""

from __future__ import annotations

import pytest
import torch

import dpt
from tests.benchmarks import __main__ as benchmarks
from tests.benchmarks import captures, forward, peers, rounds, steps
from tests.models import pictures, tiny_model


def test_every_round_runs_every_way_once_and_no_way_is_always_first():
    order: list[str] = []
    ways = {name: lambda name=name: order.append(name) for name in "abc"}
    seconds = rounds.interleaved(ways, repeats=3)
    assert {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 3, "c": 3}
    turns = [order[n : n + 3] for n in range(0, 12, 3)]
    assert all(set(turn) == set("abc") for turn in turns)
    assert {turn[0] for turn in turns} == set("abc")


def test_a_slow_way_stops_after_two_rounds(monkeypatch: pytest.MonkeyPatch):
    assert len(rounds.interleaved({"slow": lambda: None}, repeats=50, budget=0.0)["slow"]) == 2


def test_a_ratio_is_the_median_of_the_rounds():
    assert rounds.ratio([2.0, 20.0, 4.0], [1.0, 10.0, 1.0]) == 2.0


def test_operations_count_products_and_convolutions(monkeypatch: pytest.MonkeyPatch):
    model = tiny_model()
    monkeypatch.setattr(peers, "ours", lambda *arguments: model)
    side = 70
    tokens, width, hidden, depth = 26, 128, 512, 4
    config = model.config
    encoder = depth * 2 * tokens * (4 * width**2 + 2 * width * hidden + 2 * tokens * width)
    encoder += 2 * (tokens - 1) * 3 * 14**2 * width  # patches
    found = forward.operations(forward.Case("tiny", side))
    decoder = found - encoder
    assert decoder > 0
    # The decoder's work per patch is constant, so it grows with the area of the image. Attention grows faster.
    larger = forward.operations(forward.Case("tiny", 2 * side)) - encoder_of(config, 101)
    assert larger / decoder == pytest.approx(4, rel=0.15)
    assert forward.operations(forward.Case("tiny", side, 3)) == pytest.approx(3 * found)


def test_traffic_counts_what_layers_read_and_write(monkeypatch: pytest.MonkeyPatch):
    model = tiny_model()
    monkeypatch.setattr(peers, "ours", lambda *arguments: model)
    weights = sum(parameter.numel() for parameter in model.parameters())
    tables = [model.encoder.positions.table, model.encoder.class_token]
    tables += [scale for block in model.encoder.blocks for scale in (block.scale1, block.scale2)]
    read = weights - sum(table.numel() for table in tables)  # these belong to no layer
    read += 3 * 2 * 128  # all four stages share one norm
    one, two = (forward.traffic(forward.Case("tiny", 70, batch)) for batch in (1, 2))
    assert one - (two - one) == read, "weights are read once per batch"
    block = 26 * 128 * (2 + 4 + 4 + 2 + 2 + 5 + 5)  # two norms, qkv, attention, projection, fc1, fc2
    assert two - one > 4 * block


def encoder_of(config: dpt.DepthAnythingConfig, tokens: int) -> float:
    blocks = config.depth * 2 * tokens * (4 * config.width**2 + 2 * config.width * config.hidden)
    attention = config.depth * 4 * tokens**2 * config.width
    return blocks + attention + 2 * (tokens - 1) * 3 * 14**2 * config.width


def test_each_way_of_capturing_holds_its_values():
    model, x = tiny_model(), pictures(1, 70, 70)
    for way, selectors in captures.SELECTORS.items():
        _, captured = captures.run(model, x, way)
        assert captured.selectors == selectors if hasattr(captured, "selectors") else len(captured) > 0
    _, matrices = captures.run(model, x, captures.EXPLICIT)
    assert [m.shape for m in matrices] == [(1, 2, 26, 26)] * 4
    assert captures.run(model, x, captures.PLAIN)[1] is None


def test_caches_are_cleared_only_on_request():
    model, x = tiny_model(), pictures(1, 70, 84)
    kept = [model.encoder.positions._kept]
    steps._clear_and_run(model, x, [])
    before = next(iter(kept[0]._kept.values()))
    steps._clear_and_run(model, x, [])
    assert next(iter(kept[0]._kept.values())) is before
    steps._clear_and_run(model, x, kept)
    assert next(iter(kept[0]._kept.values())) is not before


def test_a_table_replaces_its_earlier_version_and_leaves_the_others(tmp_path):
    path = tmp_path / "RESULTS.md"
    benchmarks.replace(path, "## CPU: one", "first")
    benchmarks.replace(path, "## CPU: two", "second")
    benchmarks.replace(path, "## CPU: one", r"third \1")
    text = path.read_text()
    assert text.startswith(benchmarks.TITLE)
    assert text.endswith("## CPU: one\n\nthird \\1\n\n## CPU: two\n\nsecond\n")
    assert "first" not in text


def test_limits_are_measured_in_the_requested_dtype():
    from tests.benchmarks import limits

    assert limits.products(torch.float32, side=256) > 1e8
