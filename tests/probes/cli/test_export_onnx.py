"""dpt-workbench export-onnx: the file it writes, its report, and wrong options."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import Result

import dpt
from dpt.checkpoints.depth_anything import to_original
from tests.models import tiny_model
from tests.probes.cli.commands import assert_one_line_of_error, assert_wrong_usage, dpt_workbench


@pytest.fixture(scope="module")
def model() -> dpt.DPT:
    return tiny_model(base=70)


@pytest.fixture(scope="module")
def checkpoint(model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "depth_anything_v2_tiny.safetensors"
    save_file(to_original(model.state_dict(), model.config), path)
    return path


def export(*arguments: object) -> Result:
    return dpt_workbench("export-onnx", *arguments)


def test_it_reports_each_step_and_writes_the_described_file(checkpoint, photo, tmp_path):
    out = tmp_path / "m.onnx"
    options = [
        "--fixed",
        "--size",
        "70x98",
        "--probe",
        "norms",
        "--probe",
        "encoder.blocks.1.attention[0]",
        "--preprocess",
    ]
    result = export(checkpoint, out, *options, "--verify", photo)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    for begin in ("tracing", "translating", "simplifying", "writing", "checking"):
        assert any(line.startswith(begin) for line in lines)
    (header,) = [line for line in lines if "max error / std" in line]
    assert header.split()[-2:] == ["torch", "onnxruntime"]
    assert sum(" ms " in line for line in lines) == 5
    assert "  input  image: uint8 (1, height, width, 3)" in lines
    assert "  output encoder.blocks.1.attention[0]: float (1, 2, 1, 36)" in lines
    session = onnxruntime.InferenceSession(out)
    picture = np.asarray(Image.open(photo))
    depth, *_ = session.run(None, {"image": picture[None]})
    read = dpt.load(checkpoint)
    with torch.no_grad():
        wanted = read(read.prepare(picture, (70, 98), keep_aspect=False)).numpy()
    assert np.abs(depth - wanted).max() < 1e-3 * wanted.std()


def test_an_existing_file_is_overwritten_only_on_request(checkpoint, tmp_path):
    out = tmp_path / "m.onnx"
    out.write_text("something else")
    assert_one_line_of_error(export(checkpoint, out), str(out), "--force")
    assert out.read_text() == "something else"


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--opset", "12"], ["--opset", "'12'", "18 to 23"]),
        (["--probe", "norm"], ["--probe", "'norms'"]),
        (["--probe", "encoder.blocks.0.attention[a]"], ["--probe", "[a]"]),
        (["--fixed", "--size", "70by98"], ["--size", "'70by98'", "HEIGHTxWIDTH"]),
        (["--fixed", "--size", "70x99"], ["--size", "70 x 99", "14"]),
        (["--fixed", "--size", "0"], ["--size", "0"]),
        (["--preprocess", "--size", "0"], ["--size", "'0'"]),
        (["--preprocess", "--size", "70x00"], ["--size", "'70x00'"]),
        (["--size", "70"], ["--size", "70", "--fixed", "--preprocess"]),
        (["--verify", "no.jpg", "--no-verify"], ["--verify", "--no-verify"]),
    ],
)
def test_a_wrong_option_is_named_and_nothing_is_written(checkpoint, tmp_path, options, parts):
    assert_wrong_usage(export(checkpoint, tmp_path / "m.onnx", *options), *parts)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_image_to_compare_on_is_one_line(checkpoint, tmp_path):
    assert_one_line_of_error(export(checkpoint, tmp_path / "m.onnx", "--verify", "no.jpg"), "no.jpg")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_does_not_exist_is_named(checkpoint, tmp_path):
    out = tmp_path / "nowhere" / "m.onnx"
    assert_one_line_of_error(export(checkpoint, out), str(out))


def test_the_missing_extra_is_named(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("dpt.export.find_spec", lambda name: None)
    assert_one_line_of_error(export(checkpoint, tmp_path / "m.onnx"), "pip install 'dpt-workbench[onnx]'")
