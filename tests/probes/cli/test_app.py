"""What all commands share: exit codes, errors in one line, --debug, --version, --help, and a fast start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.main import get_command

import dpt
from probes import ProbeError, cli
from probes.cli.app import ExitCode
from tests.probes.cli.commands import assert_one_line_of_error, assert_wrong_usage, dpt_workbench

COMMANDS = ("lab", "depth", "demo", "inspect", "models", "capture", "verify", "export-onnx", "bench")


def test_help_lists_every_command_and_exit_code():
    text = dpt_workbench("--help").stdout
    for name in COMMANDS:
        assert f"\n  {name} " in text
    assert list(ExitCode) == [0, 1, 2, 3, 4, 130]
    listed = text.split("Exit codes:")[1].split("\n")[1:]
    assert [int(line.split()[0]) for line in listed if line.strip()] == list(ExitCode)


def test_the_help_of_every_command_and_option_is_made_of_sentences():
    groups = {"": get_command(cli.app)}
    groups["bench"] = groups[""].commands["bench"]
    assert set(groups[""].commands) == set(COMMANDS)
    for group in groups.values():
        for command in group.commands.values():
            first = command.help.split("\n\n")[0]
            assert first.endswith("."), command.name
            assert len(first) < 60 or command.name == "bench", "it would be cut in the list of commands"
            for parameter in command.params:
                assert parameter.help, parameter.name
                assert parameter.help.rstrip("]").endswith("."), parameter.name


def test_importing_the_command_line_adds_no_heavy_package_to_probes():
    """probes itself imports torch and xarray."""
    heavy = ("matplotlib", "zarr", "distributed", "onnx", "onnxruntime", "plotly", "jupyterlab", "anywidget", "av")
    script = (
        "import sys, probes; before = set(sys.modules); import probes.cli; "
        f"print([name for name in {heavy!r} if name in set(sys.modules) - before])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_application_is_an_attribute_of_the_package():
    assert cli.app is sys.modules["probes.cli.app"].app


# Exit code 2


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        (["--no-such-option"], ["--no-such-option"]),
        (["no-such-command"], ["no-such-command"]),
        (["depth"], ["IMAGES"]),
        (["depth", "a.png", "--size", "big"], ["--size", "'big'"]),
        (["depth", "a.png", "--size", "7"], ["--size", "'7'", ">= 14"]),
        (["depth", "a.png", "--device", "tpu"], ["--device", "'tpu'", "cuda"]),
        (["depth", "a.png", "--max-depth", "0"], ["--max-depth", "'0'", "> 0"]),
        (["depth", "a.png", "--max-depth", "-5"], ["--max-depth", "-5", "> 0"]),
        (["depth", "a.png", "--max-depth", "nan"], ["--max-depth", "nan", "> 0"]),
        (["depth", "a.png", "--max-depth", "far"], ["--max-depth", "'far'"]),
        (["depth", "a.png", "--model-version", "7"], ["--model-version", "'7'", "1 to 2"]),
        (["inspect", "demo", "--max-depth", "inf"], ["--max-depth", "inf", "> 0"]),
        (["lab", "--port", "99999"], ["--port", "'99999'", "0 to 65535"]),
        (["lab", "--port", "http"], ["--port", "'http'"]),
        (["capture", "a.png", "-p", "norms"], ["--out"]),
        (["capture", "a.png", "-o", "run"], ["--probe"]),
        (["verify", "run", "photos/"], ["IMAGES", "--repair"]),
        (["verify", "run", "--model", "demo"], ["--model", "--repair"]),
    ],
)
def test_a_wrong_command_line_is_exit_code_2_and_one_line(command: list[str], parts: list[str]):
    assert_wrong_usage(dpt_workbench(*command), *parts)


def test_the_line_names_the_help_of_the_command():
    assert "'dpt-workbench bench forward --help'" in dpt_workbench("bench", "forward", "--sizes", "a").stderr
    assert "'dpt-workbench --help'" in dpt_workbench("--no-such-option").stderr


def test_no_arguments_at_all_show_the_help():
    result = dpt_workbench()
    assert result.exit_code == 2
    assert "Commands:" in result.output


# Exit code 1


def test_a_missing_checkpoint_is_one_line(photo: Path, tmp_path: Path):
    result = dpt_workbench("depth", photo, "-o", tmp_path / "out", "--model", tmp_path / "none.pth")
    assert_one_line_of_error(result, "none.pth")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
@pytest.mark.parametrize("command", [["depth", "a.png"], ["bench", "forward"], ["bench", "suite"]])
def test_a_device_that_this_machine_lacks_is_one_line(command: list[str], tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_one_line_of_error(dpt_workbench(*command, "--device", "cuda"), "CUDA", "--device")


@pytest.mark.parametrize(
    "error",
    [
        ProbeError("told\nin lines"),
        dpt.DPTError("told in lines"),
        ValueError("told in lines"),
        MemoryError("told in lines"),
        OSError(28, "told in lines"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_that_a_user_can_cause_is_one_line(checkpoint: Path, monkeypatch: pytest.MonkeyPatch, error):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(dpt, "inspect", fail)
    assert_one_line_of_error(dpt_workbench("inspect", checkpoint), "told in lines")


def test_lack_of_memory_is_said_in_words(checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object, **__: object) -> None:
        raise MemoryError  # Python's own has no message

    monkeypatch.setattr(dpt, "inspect", fail)
    assert_one_line_of_error(dpt_workbench("inspect", checkpoint), "not enough memory", "smaller")


def test_debug_shows_the_exception(broken: Path):
    result = dpt_workbench("--debug", "inspect", broken)
    assert isinstance(result.exception, dpt.CheckpointError)


def test_a_bug_in_the_program_is_not_hidden(checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(dpt, "inspect", fail)
    assert isinstance(dpt_workbench("inspect", checkpoint).exception, ZeroDivisionError)


def test_version_is_that_of_the_package():
    from importlib.metadata import version

    assert dpt_workbench("--version").stdout == f"dpt-workbench {version('dpt-workbench')}\n"
