"""dpt-workbench inspect and models: what they say about checkpoints."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import dpt
from tests.probes.cli.commands import assert_one_line_of_error, dpt_workbench, tiny_checkpoint


def test_inspect_describes_the_checkpoint(checkpoint: Path):
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
    for name in ("patch_embed", "encoder.stages.0", "fusion.3", "depth"):
        assert re.search(rf"^{re.escape(name)} ", result.stdout, re.MULTILINE)
    assert re.search(r"^encoder\.blocks\.(3|0-3)\.attention ", result.stdout, re.MULTILINE)
    assert "encoder.blocks.4.attention" not in result.stdout
    assert "patch_embed " not in dpt_workbench("inspect", checkpoint).stdout


def test_inspect_of_a_file_that_is_not_a_checkpoint_is_one_line(broken: Path):
    assert_one_line_of_error(dpt_workbench("inspect", broken), "broken.jpg")


# models


@pytest.fixture
def empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and an empty cache of downloads."""
    from huggingface_hub import constants

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DPT_WEIGHTS", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_models_lists_names_licences_sizes_and_sources(empty_machine: Path):
    result = dpt_workbench("models")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    first = lines.index(next(line for line in lines if line.startswith("depth-anything-v2-base ")))
    assert lines[first].split() == ["depth-anything-v2-base", "390", "MB", "CC-BY-NC-4.0"]
    assert lines[first + 1].strip() == "depth-anything/Depth-Anything-V2-Base: depth_anything_v2_vitb.pth"
    assert lines[first + 2].strip() == "also called depth_anything_v2_vitb"
    assert "releases/download/v3_1/dpt_swin2_tiny_256.pt" in result.stdout
    assert lines[-1].startswith("?")


def test_models_as_json_holds_all_details(empty_machine: Path):
    rows = {row["name"]: row for row in json.loads(dpt_workbench("models", "--json").stdout)}
    row = rows["depth-anything-v2-metric-vkitti-small"]
    assert (row["max_depth"], row["version"], row["place"], row["path"]) == (80.0, 2, "hub", None)
    assert "depth_anything_v2_metric_vkitti_vits" in row["aliases"]
    assert row["licence_source"]


def test_models_here_lists_the_folder_weights(empty_machine: Path):
    assert "--here" in dpt_workbench("models", "--here").stdout, "says how to list the others"
    (empty_machine / "weights").mkdir()
    checkpoint = tiny_checkpoint(empty_machine / "weights" / "depth_anything_v2_vits.safetensors")
    demo, line, *_ = dpt_workbench("models", "--here").stdout.splitlines()
    assert demo.split()[0] == "demo"  # comes with the package
    assert line.split()[0] == "depth-anything-v2-small"
    assert line.endswith(checkpoint.name)
    packaged, row = json.loads(dpt_workbench("models", "--here", "--json").stdout)
    assert (packaged["name"], packaged["place"]) == ("demo", "package")
    assert (row["place"], row["path"]) == ("weights", str(checkpoint))
    inspected = dpt_workbench("inspect", "depth-anything-v2-small")
    assert inspected.exit_code == 0, inspected.stderr
    assert inspected.stdout.startswith(str(checkpoint))


def test_an_unknown_model_name_is_one_line_with_a_suggestion(empty_machine: Path):
    assert_one_line_of_error(dpt_workbench("inspect", "depth-anything-v2-smal"), "'depth-anything-v2-small'")
