"""The forward benchmark: the explicit way computes attention, memory counts what is kept, rounds are fair."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping

import pytest
import torch

import probes
from dpt import DPT
from dpt.attention import Attend
from probes.bench import forward as bench
from probes.bench import measuring
from probes.bench.measuring import Case, prepare

TINY = (128, 4, (16, 16, 16, 16), 16)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(measuring.SHAPES, "tiny", TINY)


@pytest.fixture
def prepared() -> tuple[DPT, torch.Tensor]:
    return prepare(Case("tiny", 70))


def test_the_explicit_way_computes_the_same_depth_and_the_matrices_of_all_blocks(prepared: tuple[DPT, torch.Tensor]):
    model, x = prepared
    fused = model(x)
    assert fused.std() > 0
    with bench.explicit_attention(model) as matrices:
        explicit = model(x)
    assert [m.shape for m in matrices] == [(1, 2, 26, 26)] * 4
    for matrix in matrices:
        torch.testing.assert_close(matrix.sum(-1), torch.ones(1, 2, 26))
    torch.testing.assert_close(explicit, fused)
    with bench.explicit_attention(model):
        next(
            m for m in model.modules() if isinstance(m, Attend)
        ).scale *= 4  # control: the replaced code is the code that runs
        assert (model(x) - fused).abs().max() > 0


@pytest.mark.parametrize("error", [None, RuntimeError("in the middle")])
def test_the_explicit_way_restores_the_model(prepared: tuple[DPT, torch.Tensor], error: Exception | None):
    model, _ = prepared
    attends = [module for module in model.modules() if isinstance(module, Attend)]
    before = [dict(attend.__dict__) for attend in attends]
    with pytest.raises(RuntimeError) if error else pytest.MonkeyPatch.context(), bench.explicit_attention(model):
        assert all("forward" in attend.__dict__ for attend in attends)
        if error:
            raise error
    assert [attend.__dict__ for attend in attends] == before


def test_kept_bytes_are_linear_in_tokens_for_a_capture_and_quadratic_for_matrices():
    cases = [Case("tiny", 70), Case("tiny", 140)]  # 26 and 101 tokens
    captured, explicit = ([bench.forward(*prepare(case), way)[1] for case in cases] for way in ("captured", "explicit"))
    assert [size / case.tokens for size, case in zip(captured, cases, strict=True)] == [captured[0] / 26] * 2
    assert explicit == [case.matrices for case in cases]
    assert bench.forward(*prepare(cases[0]), "plain")[1] == 0


def test_every_round_runs_every_way_once_and_no_way_is_always_first(monkeypatch: pytest.MonkeyPatch):
    order: list[str] = []

    def forward(model: DPT, x: torch.Tensor, way: str) -> tuple[float, int]:
        order.append(way)
        return float(len(order)), 0

    monkeypatch.setattr(bench, "forward", forward)
    seconds = bench.time_ways(Case("tiny", 28), bench.WAYS, repeats=3)
    rounds = [order[i : i + 3] for i in range(0, len(order), 3)]
    assert len(rounds) == 4, "one warm-up round and three timed rounds"
    assert all(set(turn) == set(bench.WAYS) for turn in rounds)
    assert {turn[0] for turn in rounds} == set(bench.WAYS)
    assert all(len(taken) == 3 for taken in seconds.values())
    assert 1.0 not in seconds["plain"], "the warm-up does not count"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Measures in this process, which is fast. Its peaks are not meaningful."""

    def run(task: str, case: Case, arguments: Mapping) -> dict:
        result = bench.time_ways(case, **arguments) if task == "time" else bench.peak(case, **arguments)
        return json.loads(json.dumps(result))

    monkeypatch.setattr(bench, "_in_fresh_process", run)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.usefixtures("here")
def test_the_table_has_a_row_for_each_way():
    lines = list(bench.run(["tiny"], [70, 140], repeats=1, threads=1, device="cpu", dtype="float32"))
    assert "1 threads; float32; batch 1; medians of 1 interleaved rounds" in lines[0]
    rows = [cells(line) for line in lines[4:10]]
    assert [(row[1], row[2], row[3]) for row in rows] == [
        (f"{side} x {side}", tokens, way) for side, tokens in ((70, "26"), (140, "101")) for way in bench.WAYS
    ]
    assert all(row[4] == "1.000" for row in rows if row[3] == "plain")
    assert all(float(row[4]) > 0 and len(row) == len(cells(lines[2])) for row in rows)
    assert 4 * 3 * 128 * 4 == 6144  # blocks x (q, k, v) x width x float32
    assert lines[-1] == "tiny, 101 tokens: a capture keeps 6.14kB per token"


@pytest.mark.usefixtures("here")
def test_a_way_that_does_not_fit_into_memory_is_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch):
    case = Case("tiny", 280)
    assert (
        bench.memory_needed(case, "plain")
        < bench.memory_needed(case, "captured")
        < bench.memory_needed(case, "explicit")
    )
    between = (bench.memory_needed(case, "captured") + bench.memory_needed(case, "explicit")) / 2 / bench.SPARE
    monkeypatch.setattr(bench, "available_memory", lambda device: int(between))
    rows = [cells(line) for line in bench.run(["tiny"], [280], 1, 1, "cpu", "float32") if line.startswith("| tiny")]
    assert [row[3] for row in rows] == list(bench.WAYS)
    assert [row[4].startswith("skipped: needs about") for row in rows] == [False, False, True]


@pytest.mark.parametrize(
    ("variants", "sides", "dtype", "part"),
    [
        (["vitx"], [70], "float32", "'vitx'"),
        (["tiny"], [500], "float32", "500"),
        (["tiny"], [70], "int8", "'int8'"),
        ([], [70], "float32", "model shape"),
        (["tiny"], [], "float32", "input size"),
    ],
)
def test_a_case_that_cannot_run_is_refused_before_anything_is_measured(variants, sides, dtype: str, part: str):
    with pytest.raises(ValueError, match=part):
        next(bench.run(variants, sides, 1, 1, "cpu", dtype))


def test_a_process_that_fails_is_named_with_its_last_line():
    with pytest.raises(probes.ProbeError, match=r"counting failed: TypeError: .*'images'"):
        measuring.in_fresh_process("probes.bench.captures", "counting", {"images": 1})
    with pytest.raises(probes.ProbeError, match=r"running tiny at 70 x 70 failed: .*'tiny'"):
        bench._in_fresh_process("peak", Case("tiny", 70), {"way": "plain"})  # a fresh process lacks the shape


PEAK = """
import torch
from probes.bench import measuring

ballast = torch.ones(64 * 2**20, dtype=torch.uint8)
start = measuring.reset_peak("cpu")
del ballast
torch.ones(200 * 2**20, dtype=torch.uint8)
top = measuring.peak_memory("cpu")
measuring.reset_peak("cpu")
print(start, top, measuring.peak_memory("cpu"))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_peak_excludes_earlier_allocations():
    """In a fresh process: this one may hold free memory from other tests, which the allocation would reuse."""
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    start, top, after = map(int, done.stdout.split())
    assert 120 * 2**20 < top - start < 230 * 2**20  # the 64 MiB may or may not have been reused
    assert after < top - 100 * 2**20, "the peak was reset"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_peak_shows_explicit_matrices_and_a_capture_needs_less():
    case = Case("vits", 518, threads=1)
    peaks = {way: bench._in_fresh_process("peak", case, {"way": way})["added"] for way in bench.WAYS}
    assert peaks["explicit"] - peaks["plain"] > 0.8 * case.matrices
    assert peaks["captured"] - peaks["plain"] < 0.3 * case.matrices
