"""dpt-workbench bench: each command passes its options on, and says what a wrong one should be."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from probes.bench import captures, forward, loading
from tests.probes.cli.commands import assert_one_line_of_error, assert_wrong_usage, dpt_workbench

bench = sys.modules["probes.cli.bench"]


def test_bench_alone_lists_its_commands():
    result = dpt_workbench("bench")
    assert result.exit_code == 2
    for name in ("forward", "captures", "memory", "loading", "suite"):
        assert f"\n  {name} " in result.output


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """The arguments of every benchmark that a command starts."""
    started: list[tuple[object, ...]] = []
    for module, name in ((forward, "run"), (captures, "run"), (captures, "memory"), (loading, "run")):
        monkeypatch.setattr(module, name, lambda *arguments: started.append(arguments) or ["a row"])
    return started


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (["forward"], (["vits"], [518, 1036], 7, None, "cpu", "float32")),
        (
            ["forward", "--models", "vits,vitb", "--sizes", "28, 42", "--repeats", "2", "--threads", "1"],
            (["vits", "vitb"], [28, 42], 2, 1, "cpu", "float32"),
        ),
        (["captures"], ("vits", 518, 24, 7, None, ())),
        (["captures", "--model", "demo", "--size", "28", "--dask", "1,2"], ("demo", 28, 24, 7, None, (1, 2))),
        (["memory"], ((1_000, 20_000),)),
        (["loading", "--models", "vitl"], (["vitl"], 7, None)),
    ],
)
def test_a_command_starts_its_benchmark_and_prints_the_table(calls, command: list[str], arguments: tuple[object, ...]):
    result = dpt_workbench("bench", *command)
    assert result.exit_code == 0, result.output
    assert result.stdout == "a row\n"
    assert calls == [arguments]


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        (["forward", "--models", "vitx"], ["--models", "'vitx'", "vits, vitb, vitl, vitg"]),
        (["forward", "--models", ""], ["--models", "''"]),
        (["forward", "--sizes", "500"], ["--sizes", "500", "14"]),
        (["forward", "--sizes", "a"], ["--sizes", "'a'", "whole numbers"]),
        (["forward", "--sizes", "518,"], ["--sizes", "'518,'", "whole numbers"]),
        (["forward", "--sizes", "-14"], ["--sizes", "'-14'", ">= 1"]),
        (["forward", "--dtype", "int8"], ["--dtype", "'int8'", "bfloat16"]),
        (["forward", "--device", "tpu"], ["--device", "'tpu'", "cuda"]),
        (["forward", "--repeats", "0"], ["--repeats", "'0'", ">= 1"]),
        (["forward", "--threads", "0"], ["--threads", "'0'", ">= 1"]),
        (["forward", "--threads", "two"], ["--threads", "'two'", "whole number"]),
        (["forward", "--loading"], ["--loading"]),
        (["captures", "--model", "vitx"], ["--model", "'vitx'", "vits, vitb, vitl, vitg"]),
        (["captures", "--size", "500"], ["--size", "500", "14"]),
        (["captures", "--images", "3"], ["--images", "'3'", ">= 4"]),
        (["captures", "--dask", "1,two"], ["--dask", "'1,two'", "whole numbers"]),
        (["captures", "--dask", "0"], ["--dask", "'0'"]),
        (["memory", "--images", "some"], ["--images", "'some'", "whole numbers"]),
        (["memory", "--images", "2"], ["--images", "'2'", ">= 8"]),
        (["loading", "--models", "vitx"], ["--models", "'vitx'", "vits, vitb, vitl, vitg"]),
        (["suite", "--device", "mps"], ["--device", "'mps'", "cpu or cuda"]),
        (["no-such-part"], ["no-such-part"]),
    ],
)
def test_a_wrong_option_is_named_with_its_value(calls, command: list[str], parts: list[str]):
    assert_wrong_usage(dpt_workbench("bench", *command), *parts)
    assert calls == []


def test_the_suite_runs_from_the_source_tree_and_prints_its_tables(monkeypatch: pytest.MonkeyPatch):
    ran: list[list[str]] = []

    def call(command: list[str], cwd: Path) -> int:
        assert (cwd / "tests" / "benchmarks" / "RESULTS.md").is_file()
        ran.append(command)
        (out,) = (part.removeprefix("--out=") for part in command if part.startswith("--out="))
        Path(out).write_text("## CPU: Steps\n")
        return 0

    monkeypatch.setattr(bench.subprocess, "call", call)
    done = dpt_workbench("bench", "suite", "--only", "steps,accuracy", "--repeats", 2, "--threads", 1)
    assert done.exit_code == 0
    assert "## CPU: Steps" in done.output
    assert ran[0][1:3] == ["-m", "tests.benchmarks"]
    assert {"--only=steps,accuracy", "--repeats=2", "--threads=1", "--device=cpu"} <= set(ran[0])
    dpt_workbench("bench", "suite")
    assert not any(part.startswith("--only") for part in ran[1])


def test_the_exit_code_of_the_suite_is_passed_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bench.subprocess, "call", lambda command, cwd: 2)
    assert dpt_workbench("bench", "suite", "--only", "nothing").exit_code == 2


def test_the_suite_says_that_it_needs_the_source_tree(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert "Needs the source tree" in dpt_workbench("bench", "suite", "--help").stdout
    monkeypatch.setattr(bench, "__file__", str(tmp_path / "probes" / "cli" / "bench.py"))
    assert_one_line_of_error(dpt_workbench("bench", "suite"), "source tree", "tests/benchmarks")
