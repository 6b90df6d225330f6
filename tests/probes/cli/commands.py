"""Runs dpt-workbench in this process and checks how it ends."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

import dpt
from dpt.checkpoints.depth_anything import to_original
from dpt.depth_anything import depth_anything
from probes import cli


def dpt_workbench(*arguments: object) -> Result:
    """The result of a command line."""
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def assert_one_line_of_error(result: Result, *parts: str, code: int = 1):
    """The command failed with this exit code and one line on stderr that contains these parts."""
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), "the exception must not come through"
    (line,) = result.stderr.splitlines()
    assert line.startswith("dpt-workbench: ")
    for part in parts:
        assert part in line


def assert_wrong_usage(result: Result, *parts: str):
    """The command line was wrong: exit code 2 and one line that contains these parts and names the help."""
    assert_one_line_of_error(result, *parts, "--help", code=2)


def tiny_checkpoint(path: Path) -> Path:
    """A Depth-Anything of four blocks with random weights, in the layout of the original files."""
    torch.manual_seed(0)
    config = depth_anything(variant="tiny", width=64, depth=4, reassembly_channels=(16, 16, 16, 16), fusion_channels=16)
    model = dpt.DPT(config)
    assert model.head.conv3.bias is not None
    with torch.no_grad():
        model.head.conv3.bias.fill_(1.0)  # above the final ReLU: a map of zeros has no range
    save_file(to_original(model.state_dict(), config), path)
    return path
