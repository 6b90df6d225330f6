"""The loading benchmark: all ways load the same model, and the table has every measurement."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from probes.bench import loading as bench_loading
from probes.bench import measuring

TINY = (128, 4, (16, 16, 16, 16), 16)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch):
    """A quick shape, measured in this process."""
    monkeypatch.setitem(measuring.SHAPES, "tiny", TINY)

    def here(way: str, variant: str, path: Path, threads: int | None) -> bench_loading.Loading:
        found = bench_loading.measure(way, variant, path)
        return bench_loading.Loading(*json.loads(json.dumps(found)))

    monkeypatch.setattr(bench_loading, "_in_fresh_process", here)


def test_every_way_loads_the_same_model(tmp_path: Path):
    model, _ = measuring.prepare(measuring.Case("tiny", 14))
    files = {kind: write(model, tmp_path) for kind, write in bench_loading.FILES.items()}
    assert {kind for _, kind in bench_loading.WAYS} == set(files)
    for way, kind in bench_loading.WAYS:
        found = bench_loading.load_by(way, "tiny", files[kind])
        for key, tensor in model.state_dict().items():
            assert torch.equal(found.state_dict()[key], tensor.half().float() if kind == "float16" else tensor)


def test_the_table_has_a_row_for_each_way():
    lines = list(bench_loading.run(["tiny"], repeats=1, threads=None))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[4:]]
    assert [(row[2], row[1]) for row in rows] == bench_loading.WAYS
    assert all(len(row) == 8 and float(row[3]) > 0 for row in rows)


def test_an_unknown_shape_is_refused_before_anything_is_measured():
    with pytest.raises(ValueError, match=r"'vitx'.*vits, vitb, vitl, vitg, tiny"):
        next(bench_loading.run(["vitx"], repeats=1))


@pytest.mark.slow
def test_the_peak_of_dpt_load_is_little_more_than_the_weights(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()  # measure in fresh processes
    rows = [line.split("|") for line in bench_loading.run(["vitl"], repeats=1, threads=1) if line.startswith("| vitl")]
    peaks = {(row[3].strip(), row[2].strip()): float(row[6]) for row in rows}
    assert all(peak <= 1.15 for (way, _), peak in peaks.items() if way == "dpt.load"), peaks
    assert all(peak > 1.9 for (way, _), peak in peaks.items() if way == "plain"), "control: two copies of the weights"
