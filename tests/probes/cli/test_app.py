"""dpt-workbench as a user meets it: what it writes, what it prints, how it fails."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

import dpt
from dpt import demo, machine
from dpt.checkpoints.depth_anything import to_original
from dpt.depth_anything import depth_anything
from probes import cli
from probes.figures import depth_files as pictures

app = sys.modules["probes.cli.app"]  # the attribute of this name is the Typer object

SIZE = ["--size", "56"]


def dpt_workbench(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def assert_one_line_of_error(result: Result, *parts: str):
    assert result.exit_code == 1
    assert result.exception is None or isinstance(result.exception, SystemExit), "the exception must not come through"
    (line,) = result.stderr.splitlines()
    assert line.startswith("dpt-workbench: ")
    for part in parts:
        assert part in line


def tiny_checkpoint(path: Path) -> Path:
    """A Depth-Anything of four blocks with random weights, in the layout of the original files."""
    torch.manual_seed(0)
    config = depth_anything(variant="tiny", width=64, depth=4, reassembly_channels=(16, 16, 16, 16), fusion_channels=16)
    model = dpt.DPT(config)
    assert model.head.conv3.bias is not None
    with torch.no_grad():
        model.head.conv3.bias.fill_(1.0)  # away from the ReLU at the end: a map of zeros has no range
    save_file(to_original(model.state_dict(), config), path)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("weights") / "depth_anything_v2_tiny.safetensors")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    ramp = np.linspace(0, 255, 60 * 90 * 3).reshape(60, 90, 3).astype(np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(ramp).save(path)
    return path


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"not a picture")
    return path


# depth


def test_depth_writes_what_predict_returns(checkpoint: Path, photo: Path, tmp_path: Path):
    out = tmp_path / "new" / "out"
    result = dpt_workbench("depth", photo, "-o", out, "--model", checkpoint, "--npy", "--16bit", *SIZE)
    assert result.exit_code == 0, result.stderr
    names = ["photo_depth.npy", "photo_depth.png", "photo_depth16.png"]
    assert sorted(file.name for file in out.iterdir()) == names, "and no temporary file is left"
    assert sorted(result.stdout.split()) == [str(out / name) for name in names]

    expected = dpt.load(checkpoint).predict(dpt.read_image(photo), size=56)
    depth = np.load(out / "photo_depth.npy")
    assert depth.dtype == np.float32
    np.testing.assert_array_equal(depth, expected)

    with Image.open(out / "photo_depth16.png") as grey:
        assert grey.mode == "I;16"
        low, high = float(grey.info["depth_min"]), float(grey.info["depth_max"])
        restored = low + np.asarray(grey).astype(np.float64) / 65535 * (high - low)
    assert np.abs(restored - expected).max() <= (high - low) / 65535

    with Image.open(out / "photo_depth.png") as picture:
        assert (picture.mode, picture.size) == ("RGB", (90, 60))
        brightness = np.asarray(picture.convert("L"))
    assert brightness.flat[expected.argmax()] > brightness.flat[expected.argmin()] + 100, "near is bright"


def test_fast_depth_is_that_of_the_fast_type(checkpoint: Path, photo: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(machine, "DOT_PRODUCTS", True)
    assert dpt_workbench("depth", photo, "-o", tmp_path, "--model", checkpoint, "--npy", "--fast", *SIZE).exit_code == 0
    expected = dpt.load(checkpoint, dtype=torch.bfloat16).predict(dpt.read_image(photo), size=56)
    np.testing.assert_array_equal(np.load(tmp_path / "photo_depth.npy"), expected)


def test_near_is_bright_for_metres_too(checkpoint: Path, photo: Path, tmp_path: Path):
    command = ["depth", photo, "-o", tmp_path, "--model", checkpoint, "--max-depth", 20, "--npy", *SIZE]
    assert dpt_workbench(*command).exit_code == 0
    metres = np.load(tmp_path / "photo_depth.npy")
    assert 0 < metres.min() < metres.max() < 20
    brightness = np.asarray(Image.open(tmp_path / "photo_depth.png").convert("L"))
    assert brightness.flat[metres.argmin()] > brightness.flat[metres.argmax()] + 100


def test_a_broken_picture_is_listed_and_does_not_stop_the_others(
    checkpoint: Path, photo: Path, broken: Path, tmp_path: Path
):
    missing = tmp_path / "missing.jpg"
    result = dpt_workbench("depth", broken, missing, photo, "-o", tmp_path / "out", "--model", checkpoint, *SIZE)
    assert result.exit_code == app.SOME_FAILED
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["photo_depth.png"]
    first, second, last = result.stderr.splitlines()
    assert str(broken) in first
    assert str(missing) in second
    assert last == "dpt-workbench: 2 of 3 pictures failed"


def test_exit_code_is_1_when_every_picture_failed(checkpoint: Path, broken: Path, tmp_path: Path):
    result = dpt_workbench("depth", broken, "-o", tmp_path / "out", "--model", checkpoint)
    assert result.exit_code == 1
    assert list((tmp_path / "out").iterdir()) == []


def test_existing_files_are_replaced_only_on_request(checkpoint: Path, photo: Path, tmp_path: Path):
    command = ["depth", photo, "-o", tmp_path, "--model", checkpoint, *SIZE]
    target = tmp_path / "photo_depth.png"
    target.write_text("precious")
    refused = dpt_workbench(*command)
    assert refused.exit_code == 1
    assert "--force replaces it" in refused.stderr
    assert target.read_text() == "precious"
    assert dpt_workbench(*command, "--force").exit_code == 0
    assert target.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("second", ["b/photo.png", "a/PHOTO.jpg"])
def test_two_pictures_of_one_name_are_refused_before_anything_is_computed(tmp_path: Path, second: str):
    result = dpt_workbench("depth", tmp_path / "a/photo.png", tmp_path / second, "-o", tmp_path / "out")
    assert_one_line_of_error(result, "photo.png", second, "would both be written")
    assert not (tmp_path / "out").exists()


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target = tmp_path / "depth.npy"
    target.write_text("before")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="No space left"):
            pictures.write(target, pictures.npy(np.ones((2, 3), np.float32)))
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]

    pictures.write(target, pictures.npy(np.ones((2, 3), np.float32)))  # the control: with nothing in the way
    assert np.load(target).shape == (2, 3)


def test_a_flat_map_has_a_colour_and_an_infinite_one_has_none():
    flat = pictures.colour_depth(np.full((4, 5), 2.0, np.float32))
    assert len(np.unique(flat.reshape(-1, 3), axis=0)) == 1
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="NaN or infinity"):
            pictures.colour_depth(np.array([[1.0, bad]], np.float32))


# Faults in one line


def test_a_colormap_that_is_none_names_close_ones(photo: Path, tmp_path: Path):
    result = dpt_workbench("depth", photo, "-o", tmp_path / "out", "--colormap", "infernal")
    assert_one_line_of_error(result, "'infernal'", "inferno")


def test_a_checkpoint_that_is_not_there(photo: Path, tmp_path: Path):
    result = dpt_workbench("depth", photo, "-o", tmp_path / "out", "--model", tmp_path / "none.pth")
    assert_one_line_of_error(result, "none.pth")


def test_a_checkpoint_that_is_none(broken: Path):
    assert_one_line_of_error(dpt_workbench("inspect", broken), "broken.jpg")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_device_that_is_not_here(photo: Path, tmp_path: Path):
    result = dpt_workbench("depth", photo, "-o", tmp_path, "--device", "cuda")
    assert_one_line_of_error(result, "no cuda device")


def test_debug_shows_the_exception(broken: Path):
    result = dpt_workbench("--debug", "inspect", broken)
    assert isinstance(result.exception, dpt.CheckpointError)


def test_a_fault_of_the_program_is_not_hidden(checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(dpt, "inspect", fail)
    assert isinstance(dpt_workbench("inspect", checkpoint).exception, ZeroDivisionError)


def test_a_wrong_command_line_is_exit_code_2():
    assert dpt_workbench("depth").exit_code == 2
    assert dpt_workbench("no-such-command").exit_code == 2


# inspect, version, help


def test_inspect_says_what_was_recognised_and_from_what(checkpoint: Path):
    result = dpt_workbench("inspect", checkpoint)
    assert result.exit_code == 0, result.stderr
    parameters = dpt.inspect(checkpoint).parameters
    for part in (
        "depth-anything",
        "4 blocks of 1 heads",
        "37 x 37",
        f"{parameters:,} in",
        "version 2",
        checkpoint.name,
    ):
        assert part in result.stdout
    assert "inverse depth, relative" in result.stdout
    metric = dpt_workbench("inspect", checkpoint, "--max-depth", 80)
    assert "metres, up to 80" in metric.stdout


def test_inspect_points_lists_every_probe_point(checkpoint: Path):
    result = dpt_workbench("inspect", checkpoint, "--points")
    for name in ("patch_embed", "encoder.blocks.3.attention", "encoder.stages.0", "fusion.3", "depth"):
        assert re.search(rf"^{re.escape(name)} ", result.stdout, re.MULTILINE)
    assert "encoder.blocks.4.attention" not in result.stdout
    assert "patch_embed " not in dpt_workbench("inspect", checkpoint).stdout


def test_an_assumption_is_noted(tmp_path: Path, photo: Path):
    unnamed = tiny_checkpoint(tmp_path / "renamed.safetensors")
    command = ["depth", photo, "-o", tmp_path / "out", "--model", unnamed, *SIZE]
    result = dpt_workbench(*command, "--force")
    assert "note: " in result.stderr
    assert "version" in result.stderr
    told = dpt_workbench(*command, "--force", "--model-version", 2, "--max-depth", 20)
    assert told.stderr == ""


def test_version_is_the_package_s():
    from importlib.metadata import version

    assert dpt_workbench("--version").stdout == f"dpt-workbench {version('dpt-workbench')}\n"


# models


@pytest.fixture
def nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, and an empty cache of downloads."""
    from huggingface_hub import constants

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DPT_WEIGHTS", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_models_lists_names_licences_sizes_and_where_from(nothing_here: Path):
    result = dpt_workbench("models")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    first = lines.index(next(line for line in lines if line.startswith("depth-anything-v2-base ")))
    assert lines[first].split() == ["depth-anything-v2-base", "390", "MB", "CC-BY-NC-4.0"]
    assert lines[first + 1].strip() == "depth-anything/Depth-Anything-V2-Base: depth_anything_v2_vitb.pth"
    assert lines[first + 2].strip() == "also called depth_anything_v2_vitb"
    assert "releases/download/v3_1/dpt_swin2_tiny_256.pt" in result.stdout
    assert lines[-1].startswith("? The sources say nothing")


def test_models_for_programs(nothing_here: Path):
    rows = {row["name"]: row for row in json.loads(dpt_workbench("models", "--json").stdout)}
    row = rows["depth-anything-v2-metric-vkitti-small"]
    assert (row["max_depth"], row["version"], row["place"], row["path"]) == (80.0, 2, "hub", None)
    assert "depth_anything_v2_metric_vkitti_vits" in row["aliases"]
    assert row["licence_source"]


def test_models_here_are_those_in_weights(nothing_here: Path):
    assert dpt_workbench("models", "--here").stdout.startswith("none on this machine")
    (nothing_here / "weights").mkdir()
    checkpoint = tiny_checkpoint(nothing_here / "weights" / "depth_anything_v2_vits.safetensors")
    (line, *_) = dpt_workbench("models", "--here").stdout.splitlines()
    assert line.split()[0] == "depth-anything-v2-small"
    assert line.endswith(checkpoint.name)
    (row,) = json.loads(dpt_workbench("models", "--here", "--json").stdout)
    assert (row["place"], row["path"]) == ("weights", str(checkpoint))
    inspected = dpt_workbench("inspect", "depth-anything-v2-small")
    assert inspected.exit_code == 0, inspected.stderr
    assert inspected.stdout.startswith(str(checkpoint))


def test_a_name_that_is_none_is_one_line(nothing_here: Path):
    assert_one_line_of_error(
        dpt_workbench("inspect", "depth-anything-v2-smal"), "did you mean 'depth-anything-v2-small'"
    )


# demo


def test_demo_draws_depth_and_attention(tmp_path: Path):
    result = dpt_workbench("demo", "--out", tmp_path)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.split() == [str(tmp_path / name) for name in ("depth.png", "attention.png")]
    image, _ = demo.sample(demo.samples()[0])
    depth = np.asarray(Image.open(tmp_path / "depth.png"))
    assert depth.shape == image.shape
    assert len(np.unique(depth.reshape(-1, 3), axis=0)) > 50
    sheet = np.asarray(Image.open(tmp_path / "attention.png").convert("RGB"))
    assert len(np.unique(sheet.reshape(-1, 3), axis=0)) > 1000


def test_demo_names_the_samples_there_are(tmp_path: Path):
    assert_one_line_of_error(dpt_workbench("demo", "--out", tmp_path, "--sample", "none"), demo.samples()[0])


# bench


def test_the_suite_is_run_from_the_source_tree_and_its_tables_are_printed(monkeypatch: pytest.MonkeyPatch):
    ran: list[list[str]] = []

    def call(command: list[str], cwd: Path) -> int:
        assert (cwd / "tests" / "benchmarks" / "RESULTS.md").is_file()
        ran.append(command)
        (out,) = (part.removeprefix("--out=") for part in command if part.startswith("--out="))
        Path(out).write_text("## CPU: Steps\n")
        return 0

    monkeypatch.setattr(app.subprocess, "call", call)
    done = dpt_workbench("bench", "--suite", "steps,accuracy", "--repeats", 2, "--threads", 1)
    assert done.exit_code == 0
    assert "## CPU: Steps" in done.output
    assert ran[0][1:3] == ["-m", "tests.benchmarks"]
    assert {"--only=steps,accuracy", "--repeats=2", "--threads=1", "--device=cpu"} <= set(ran[0])
    dpt_workbench("bench", "--suite", "all")
    assert not any(part.startswith("--only") for part in ran[1])


def test_an_installed_package_has_no_suite(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(app, "__file__", str(tmp_path / "probes" / "cli" / "app.py"))
    assert_one_line_of_error(dpt_workbench("bench", "--suite", "all"), "tests/benchmarks of the source tree")


# lab


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What would have replaced this process."""
    commands: list[list[str]] = []
    monkeypatch.setattr(os, "execve", lambda path, arguments, environment: commands.append(arguments))
    monkeypatch.setenv("DISPLAY", ":0")
    return commands


def test_lab_opens_the_notebook_that_is_named(started: list[list[str]], tmp_path: Path):
    notebook = tmp_path / "note.ipynb"
    notebook.write_text("{}")
    dpt_workbench("lab", notebook, "--port", 9999)
    (command,) = started
    assert command[1:3] == ["-m", "jupyterlab"]
    assert f"--ServerApp.root_dir={tmp_path}" in command
    assert "--LabApp.default_url=/lab/tree/note.ipynb" in command
    assert "--port=9999" in command
    assert "--no-browser" not in command
    assert not any("token" in part or "password" in part for part in command), "the token is Jupyter's business"


def test_lab_finds_the_notebooks_beside_it(started: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    project = Path(app.__file__).parents[2]
    monkeypatch.chdir(tmp_path)
    dpt_workbench("lab")
    (tmp_path / "notebooks").mkdir()
    dpt_workbench("lab")
    first, second = started
    assert f"--ServerApp.root_dir={project / 'notebooks'}" in first
    assert f"--ServerApp.root_dir={tmp_path / 'notebooks'}" in second


def test_lab_adds_its_settings_after_the_users_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("JUPYTER_CONFIG_PATH", raising=False)
    ours = app.lab_environment()["JUPYTER_CONFIG_PATH"]
    assert (Path(ours) / "labconfig" / "default_setting_overrides.json").is_file()
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "/theirs")
    assert app.lab_environment()["JUPYTER_CONFIG_PATH"] == os.pathsep.join(("/theirs", ours))


def test_lab_opens_no_browser_where_there_is_no_display(started: list[list[str]], monkeypatch: pytest.MonkeyPatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    dpt_workbench("lab")
    assert "--no-browser" in started[0]


def test_lab_says_that_a_notebook_is_not_there(started: list[list[str]], tmp_path: Path):
    assert_one_line_of_error(dpt_workbench("lab", tmp_path / "none.ipynb"), "none.ipynb")
    assert started == []
