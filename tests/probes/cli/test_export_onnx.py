"""dpt-workbench export-onnx as a user meets it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

import dpt
from dpt.checkpoints.depth_anything import to_original
from probes import cli
from tests.models import tiny_model


@pytest.fixture(scope="module")
def model() -> dpt.DPT:
    return tiny_model(base=70)


@pytest.fixture(scope="module")
def checkpoint(model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "depth_anything_v2_tiny.safetensors"
    save_file(to_original(model.state_dict(), model.config), path)
    return path


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    ramp = np.linspace(0, 255, 60 * 90 * 3).reshape(60, 90, 3).astype(np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(ramp).save(path)
    return path


def export(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["export-onnx", *map(str, arguments)])


def assert_one_line_of_error(result: Result, *parts: str):
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("dpt-workbench: ")
    for part in parts:
        assert part in line


def test_it_writes_what_it_says_and_says_each_step(checkpoint, photo, tmp_path):
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
    assert "  takes image: uint8 (1, height, width, 3)" in lines
    assert "  gives encoder.blocks.1.attention[0]: float (1, 2, 1, 36)" in lines
    session = onnxruntime.InferenceSession(out)
    picture = np.asarray(Image.open(photo))
    depth, *_ = session.run(None, {"image": picture[None]})
    read = dpt.load(checkpoint)
    with torch.no_grad():
        wanted = read(read.prepare(picture, (70, 98), keep_aspect=False)).numpy()
    assert np.abs(depth - wanted).max() < 1e-3 * wanted.std()


def test_what_is_there_is_replaced_only_on_request(checkpoint, tmp_path):
    out = tmp_path / "m.onnx"
    out.write_text("something else")
    assert_one_line_of_error(export(checkpoint, out), f"{out} is there already; --force replaces it")
    assert out.read_text() == "something else"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--opset", "12"], "opset 12 is not supported; give one of 18 to 23"),
        (["--probe", "norm"], "'norms'"),
        (["--fixed", "--size", "70by98"], "--size is '70by98'; expected HEIGHTxWIDTH"),
        (["--fixed", "--size", "70x99"], "multiples of 14"),
        (["--verify", "no.jpg"], "no.jpg"),
        (["--verify", "no.jpg", "--no-verify"], "contradict each other"),
    ],
)
def test_a_mistake_is_said_in_one_line_and_nothing_is_written(checkpoint, tmp_path, options, message):
    assert_one_line_of_error(export(checkpoint, tmp_path / "m.onnx", *options), message)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(checkpoint, tmp_path):
    out = tmp_path / "nowhere" / "m.onnx"
    assert_one_line_of_error(export(checkpoint, out), "cannot write the ONNX file: No such file or directory", str(out))


def test_the_missing_extra_is_named(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("dpt.export.find_spec", lambda name: None)
    assert_one_line_of_error(export(checkpoint, tmp_path / "m.onnx"), "pip install 'dpt-workbench[onnx]'")
