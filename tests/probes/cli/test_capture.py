"""dpt-workbench capture and verify: the files they write, their reports and their exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import Result

import probes
from probes.runs.disk import seal, unseal
from probes.runs.store import Store
from probes.runs.verify import verify
from tests.probes.cli.commands import assert_one_line_of_error, assert_wrong_usage, dpt_workbench

SIZE = ["--size", "28", "--workers", "0"]


def write_images(folder: Path, count: int) -> Path:
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(random.integers(0, 256, (28, 42, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images", 5)


def capture(checkpoint: Path, folder: Path, out: Path, *more: object) -> Result:
    return dpt_workbench("capture", folder, "-o", out, "--model", checkpoint, "-p", "norms", *SIZE, *more)


def test_a_folder_is_captured_and_the_report_counts_the_images(checkpoint: Path, folder: Path, tmp_path: Path):
    done = capture(checkpoint, folder, tmp_path / "run", "-p", "attention.rows", "--token", "0", "--token", "1x2")
    assert done.exit_code == 0, done.output
    assert "5 images in" in done.stdout
    run = probes.open_run(tmp_path / "run")
    assert list(run) == [f"{n}.png" for n in range(5)]
    rows = run["3.png"]["encoder.blocks.1.attention.rows"]
    assert rows.shape == (1, 1, 2, 7)  # 1 head; class token and patch (1, 2) to 1 + 2 x 3 tokens
    assert rows.sum(-1).allclose(rows.new_ones(1))


def test_the_same_command_again_captures_only_new_images(checkpoint: Path, folder: Path, tmp_path: Path):
    capture(checkpoint, folder, tmp_path / "run")
    Image.new("RGB", (42, 28)).save(folder / "new.png")
    again = capture(checkpoint, folder, tmp_path / "run")
    assert again.exit_code == 0
    assert "1 images in" in again.stdout
    assert "5 images\n" in again.stdout, "already stored"
    assert len(probes.open_run(tmp_path / "run")) == 6


def test_failed_images_are_counted_and_the_exit_code_is_3(checkpoint: Path, folder: Path, tmp_path: Path):
    (folder / "broken.png").write_text("not an image")
    done = capture(checkpoint, folder, tmp_path / "run")
    assert done.exit_code == 3
    assert "broken.png" in done.stderr
    assert "1 images of the run failed" in done.stderr
    (line,) = (tmp_path / "run/failures.jsonl").read_text().splitlines()
    assert json.loads(line)["picture"] == "broken.png"
    assert capture(checkpoint, folder, tmp_path / "run").exit_code == 3, (
        "the image is still missing after a call without new images"
    )

    Image.new("RGB", (42, 28)).save(folder / "broken.png")
    assert capture(checkpoint, folder, tmp_path / "run", "--retry").exit_code == 0
    assert "broken.png" in probes.open_run(tmp_path / "run")


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        (["--token", "4,5"], ["--token", "'4,5'", "ROWxCOL"]),
        (["--token", "abc"], ["--token", "'abc'", "a number"]),
        (["--token", "-1"], ["--token", "'-1'"]),
        (["--token", "1x2x3"], ["--token", "'1x2x3'"]),
        (["--token", "0"], ["--token", "attention.rows"]),
        (["-p", "attention.rows"], ["--token", "attention.rows"]),
        (["--frames", "5"], ["--frames", "'5'", "START:STOP:STEP"]),
        (["--frames", "x"], ["--frames", "'x'"]),
        (["--frames", "::0"], ["--frames", "'::0'", ">= 1"]),
        (["--frames", "-3:"], ["--frames", "'-3:'"]),
        (["--frames", "1:2:3:4"], ["--frames", "'1:2:3:4'"]),
        (["-p", "norm"], ["--probe", "'norms'"]),
        (["--batch", "0"], ["--batch", "'0'", ">= 1"]),
        (["--part", "0"], ["--part", "'0'", ">= 1"]),
        (["--workers", "-1"], ["--workers", "'-1'", ">= 0"]),
        (["--timeout", "0"], ["--timeout", "'0'", "> 0"]),
        (["--timeout", "nan"], ["--timeout", "nan", "> 0"]),
        (["--dtype", "int8"], ["--dtype", "'int8'", "float16"]),
        (["--max-depth", "-2"], ["--max-depth", "-2", "> 0"]),
    ],
)
def test_a_wrong_option_is_named_and_nothing_is_written(
    checkpoint: Path, folder: Path, tmp_path: Path, more: list[str], parts: list[str]
):
    assert_wrong_usage(capture(checkpoint, folder, tmp_path / "run", *more), *parts)
    assert not (tmp_path / "run").exists()


def test_a_missing_dask_scheduler_is_one_line_and_nothing_is_written(
    checkpoint: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("probes.runs.dask_engine.PATIENCE", 0.5)
    address = "tcp://127.0.0.1:9"
    assert_one_line_of_error(capture(checkpoint, folder, tmp_path / "run", "--dask", address), address)
    assert not (tmp_path / "run").exists()


def test_different_settings_are_refused_and_named(checkpoint: Path, folder: Path, tmp_path: Path):
    capture(checkpoint, folder, tmp_path / "run")
    assert_one_line_of_error(capture(checkpoint, folder, tmp_path / "run", "-p", "depth"), "settings", "depth")


# verify


def flip(path: Path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file() and p.name != "lock"}


@pytest.fixture
def run(checkpoint: Path, folder: Path, tmp_path: Path) -> Path:
    assert capture(checkpoint, folder, tmp_path / "run", "--part", "2").exit_code == 0
    return tmp_path / "run"


def test_verify_finds_no_damage_in_an_intact_run(run: Path):
    done = dpt_workbench("verify", run)
    assert done.exit_code == 0
    assert "3 parts" in done.stdout
    assert "none damaged" in done.stdout


@pytest.mark.parametrize(
    "what", ["norms/c.0.0", "norms/zarr.json", "part.json", "manifest.jsonl", "a file is gone", "all"]
)
def test_verify_names_damage_and_repair_makes_the_same_bytes(run: Path, what: str):
    before = contents(run)
    damaged = sorted((run / "parts").iterdir())[1]
    if what == "manifest.jsonl":
        flip(run / what)
    elif what == "all":
        for file in damaged.rglob("*"):
            if file.is_file():
                file.unlink()
    elif what == "a file is gone":
        next(iter(damaged.rglob("c.*"))).unlink()
    else:
        flip(next(p for p in sorted(damaged.rglob("*")) if str(p).endswith(what)))

    found = dpt_workbench("verify", run)
    assert found.exit_code == 4
    assert (what if what == "manifest.jsonl" else damaged.name) in found.stdout
    untouched = {p: p.stat().st_mtime_ns for p in (run / "parts").iterdir() if p != damaged}

    done = dpt_workbench("verify", run, "--repair")
    assert done.exit_code == 0, done.output
    assert contents(run) == before
    assert {p: p.stat().st_mtime_ns for p in untouched} == untouched, "only damaged parts are recomputed"
    assert verify(run).damage == []


def test_repair_leaves_a_part_without_any_record_to_the_next_run(checkpoint: Path, folder: Path, run: Path):
    before = contents(run)
    flip(sorted((run / "parts").iterdir())[1] / "part.json")
    lines = (run / "manifest.jsonl").read_bytes().splitlines(keepends=True)
    (run / "manifest.jsonl").write_bytes(lines[0] + lines[2])
    assert dpt_workbench("verify", run).exit_code == 4
    assert dpt_workbench("verify", run, "--repair").exit_code == 0
    assert len(probes.open_run(run)) == 3
    assert capture(checkpoint, folder, run).exit_code == 0
    after = contents(run)
    assert sorted(after.pop("manifest.jsonl").splitlines()) == sorted(before.pop("manifest.jsonl").splitlines())
    assert after == before


def test_repair_refuses_other_weights_and_missing_images(folder: Path, run: Path, tmp_path: Path):
    damaged = sorted((run / "parts").iterdir())[0]
    flip(next(p for p in sorted(damaged.rglob("c.*")) if p.is_file()))
    before = contents(run)
    refused = dpt_workbench("verify", run, "--repair", "--model", "demo")
    assert refused.exit_code == 1
    assert "settings" in refused.stderr
    (folder / "0.png").unlink()
    refused = dpt_workbench("verify", run, "--repair")
    assert refused.exit_code == 1
    assert "0.png" in refused.stderr
    assert contents(run) == before


def test_repair_refuses_a_changed_image(folder: Path, run: Path):
    damaged = sorted((run / "parts").iterdir())[0]
    flip(next(p for p in sorted(damaged.rglob("c.*")) if p.is_file()))
    Image.new("RGB", (42, 28)).save(folder / "0.png")
    before = contents(run)
    refused = dpt_workbench("verify", run, "--repair")
    assert refused.exit_code == 1
    assert "0.png changed" in refused.stderr
    assert contents(run) == before


def test_repair_of_lists_needs_no_model_and_no_images(folder: Path, run: Path):
    before = contents(run)
    settings = run / "run.json"
    for file in folder.iterdir():
        file.unlink()
    for name in ("manifest.jsonl", "summary.json"):
        (run / name).unlink()
        assert dpt_workbench("verify", run).exit_code == 4
        done = dpt_workbench("verify", run, "--repair", "--model", "nowhere.pth")
        assert done.exit_code == 0, done.output
        assert contents(run) == before
    assert settings.exists()


@pytest.mark.parametrize("source", [{}, {"model": 5, "images": "x"}, {"frames": 3, "images": [1]}, {"model": ["a"]}])
def test_repair_of_a_run_that_notes_something_else_asks_for_model_and_images(run: Path, source: dict):
    record = unseal((run / "run.json").read_text())
    (run / "run.json").write_text(seal(record | {"source": source}))
    flip(next(p for p in sorted(run.rglob("c.*")) if p.is_file()))
    assert_one_line_of_error(dpt_workbench("verify", run, "--repair"), "--model", "IMAGES")


def test_take_over_takes_a_run_from_a_writer_that_hangs(checkpoint: Path, folder: Path, run: Path):
    Image.new("RGB", (42, 28)).save(folder / "new.png")
    with Store.write(run):
        assert_one_line_of_error(capture(checkpoint, folder, run), "another process", "--take-over")
        assert capture(checkpoint, folder, run, "--take-over").exit_code == 0
    assert len(probes.open_run(run)) == 6
    assert_wrong_usage(dpt_workbench("verify", run, "--take-over"), "--take-over", "--repair")


@pytest.mark.parametrize("out", ["s3://bucket/run", "file:///tmp/run"])
def test_an_address_as_out_is_a_wrong_option(
    checkpoint: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    for command in (
        ("capture", folder, "-p", "norms", "--model", checkpoint, "--out", out),
        ("depth", folder / "0.png", "--model", checkpoint, "--out", out),
        ("demo", "--out", out),
        ("export-onnx", checkpoint, out),
    ):
        assert_wrong_usage(dpt_workbench(*command), out)
    assert_one_line_of_error(dpt_workbench("verify", out), out)
    assert sorted(tmp_path.rglob("*")) == before


def test_verify_of_a_folder_that_is_not_a_run(tmp_path: Path):
    assert_one_line_of_error(dpt_workbench("verify", tmp_path), "is not a run", "run.json")


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
def test_interrupting_the_command_finishes_the_part_and_says_how_to_resume(checkpoint: Path, tmp_path: Path):
    folder = write_images(tmp_path / "images", 400)
    command = [
        Path(sys.executable).with_name("dpt-workbench"),
        "capture",
        folder,
        "-o",
        tmp_path / "run",
        "--model",
        checkpoint,
    ]
    command += ["-p", "norms", "--part", "4", *SIZE]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    manifest = tmp_path / "run/manifest.jsonl"
    limit = time.monotonic() + 120
    while not manifest.exists() and time.monotonic() < limit:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "resume" in out
    stored = len(probes.open_run(tmp_path / "run"))
    assert 0 < stored < 400
    assert stored % 4 == 0, "whole parts"
    assert verify(tmp_path / "run").damage == []
