"""dpt-workbench demo: the two images it writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from dpt import demo
from tests.probes.cli.commands import assert_wrong_usage, dpt_workbench


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


def test_an_unknown_sample_is_wrong_usage_and_the_samples_are_listed(tmp_path: Path):
    result = dpt_workbench("demo", "--out", tmp_path, "--sample", "none")
    assert_wrong_usage(result, "--sample", "'none'", *demo.samples())
