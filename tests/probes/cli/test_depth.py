"""dpt-workbench depth: the files it writes, and how it treats images that fail."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import dpt
from dpt import machine
from probes.cli.app import ExitCode
from probes.figures import depth_files
from tests.probes.cli.commands import assert_wrong_usage, dpt_workbench, tiny_checkpoint

SIZE = ["--size", "56"]


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

    with Image.open(out / "photo_depth.png") as image:
        assert (image.mode, image.size) == ("RGB", (90, 60))
        brightness = np.asarray(image.convert("L"))
    assert brightness.flat[expected.argmax()] > brightness.flat[expected.argmin()] + 100, "near is bright"


def test_fast_depth_equals_a_model_of_the_fast_dtype(checkpoint: Path, photo: Path, tmp_path: Path, monkeypatch):
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


def test_a_broken_image_is_reported_and_does_not_stop_the_others(
    checkpoint: Path, photo: Path, broken: Path, tmp_path: Path
):
    missing = tmp_path / "missing.jpg"
    result = dpt_workbench("depth", broken, missing, photo, "-o", tmp_path / "out", "--model", checkpoint, *SIZE)
    assert result.exit_code == ExitCode.SOME_FAILED
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["photo_depth.png"]
    first, second, last = result.stderr.splitlines()
    assert str(broken) in first
    assert str(missing) in second
    assert last == "dpt-workbench: 2 of 3 images failed"


def test_exit_code_is_1_when_every_image_failed(checkpoint: Path, broken: Path, tmp_path: Path):
    result = dpt_workbench("depth", broken, "-o", tmp_path / "out", "--model", checkpoint)
    assert result.exit_code == 1
    assert list((tmp_path / "out").iterdir()) == []


def test_existing_files_are_overwritten_only_on_request(checkpoint: Path, photo: Path, tmp_path: Path):
    command = ["depth", photo, "-o", tmp_path, "--model", checkpoint, *SIZE]
    target = tmp_path / "photo_depth.png"
    target.write_text("precious")
    refused = dpt_workbench(*command)
    assert refused.exit_code == 1
    assert str(target) in refused.stderr
    assert "--force" in refused.stderr
    assert target.read_text() == "precious"
    assert dpt_workbench(*command, "--force").exit_code == 0
    assert target.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("second", ["b/photo.png", "a/PHOTO.jpg"])
def test_two_images_of_one_name_are_refused_before_anything_is_computed(tmp_path: Path, second: str):
    result = dpt_workbench("depth", tmp_path / "a/photo.png", tmp_path / second, "-o", tmp_path / "out")
    assert_wrong_usage(result, "a/photo.png", second, "_depth.png")
    assert not (tmp_path / "out").exists()


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target = tmp_path / "depth.npy"
    target.write_text("before")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="No space left"):
            depth_files.write(target, depth_files.npy(np.ones((2, 3), np.float32)))
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]

    depth_files.write(target, depth_files.npy(np.ones((2, 3), np.float32)))  # control: the disk has space
    assert np.load(target).shape == (2, 3)


def test_a_flat_map_has_one_colour_and_an_infinite_map_is_refused():
    flat = depth_files.colour_depth(np.full((4, 5), 2.0, np.float32))
    assert len(np.unique(flat.reshape(-1, 3), axis=0)) == 1
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="NaN or infinity"):
            depth_files.colour_depth(np.array([[1.0, bad]], np.float32))


def test_an_unknown_colormap_is_wrong_usage_and_close_names_are_listed(photo: Path, tmp_path: Path):
    result = dpt_workbench("depth", photo, "-o", tmp_path / "out", "--colormap", "infernal")
    assert_wrong_usage(result, "--colormap", "'infernal'", "inferno")
    assert not (tmp_path / "out").exists()


def test_an_assumption_about_the_checkpoint_is_noted(tmp_path: Path, photo: Path):
    unnamed = tiny_checkpoint(tmp_path / "renamed.safetensors")
    command = ["depth", photo, "-o", tmp_path / "out", "--model", unnamed, *SIZE]
    result = dpt_workbench(*command, "--force")
    assert "note: " in result.stderr
    assert "version" in result.stderr
    told = dpt_workbench(*command, "--force", "--model-version", 2, "--max-depth", 20)
    assert told.stderr == ""
