"""dpt-workbench lab: the JupyterLab command that it starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from probes.cli.lab import lab_environment
from tests.probes.cli.commands import assert_one_line_of_error, dpt_workbench

PROJECT = Path(__file__).parents[3]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that would have replaced this process."""
    commands: list[list[str]] = []
    monkeypatch.setattr(os, "execve", lambda path, arguments, environment: commands.append(arguments))
    monkeypatch.setenv("DISPLAY", ":0")
    return commands


def test_lab_opens_the_named_notebook(started: list[list[str]], tmp_path: Path):
    notebook = tmp_path / "note.ipynb"
    notebook.write_text("{}")
    dpt_workbench("lab", notebook, "--port", 9999)
    (command,) = started
    assert command[1:3] == ["-m", "jupyterlab"]
    assert f"--ServerApp.root_dir={tmp_path}" in command
    assert "--LabApp.default_url=/lab/tree/note.ipynb" in command
    assert "--port=9999" in command
    assert "--no-browser" not in command
    assert not any("token" in part or "password" in part for part in command), "Jupyter makes the token"


def test_lab_finds_the_notebooks_of_the_folder_or_of_the_project(
    started: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    dpt_workbench("lab")
    (tmp_path / "notebooks").mkdir()
    dpt_workbench("lab")
    first, second = started
    assert f"--ServerApp.root_dir={PROJECT / 'notebooks'}" in first
    assert f"--ServerApp.root_dir={tmp_path / 'notebooks'}" in second


def test_lab_adds_its_settings_after_the_users_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("JUPYTER_CONFIG_PATH", raising=False)
    ours = lab_environment()["JUPYTER_CONFIG_PATH"]
    assert (Path(ours) / "labconfig" / "default_setting_overrides.json").is_file()
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "/theirs")
    assert lab_environment()["JUPYTER_CONFIG_PATH"] == os.pathsep.join(("/theirs", ours))


def test_lab_accepts_messages_of_512_mb(monkeypatch: pytest.MonkeyPatch):
    """Jupyter reads the file as its own, and tornado the setting."""
    serverapp = pytest.importorskip("jupyter_server.serverapp")
    websocket = pytest.importorskip("tornado.websocket")
    monkeypatch.delenv("JUPYTER_CONFIG_PATH", raising=False)
    for name, value in lab_environment().items():
        monkeypatch.setenv(name, value)
    app = serverapp.ServerApp()
    assert not app.tornado_settings  # control
    app.load_config_file()
    handler = websocket.WebSocketHandler.__new__(websocket.WebSocketHandler)
    handler.application = type("Application", (), {"settings": app.tornado_settings})()
    assert handler.max_message_size == 512 * 2**20


def test_lab_opens_no_browser_without_a_display(started: list[list[str]], monkeypatch: pytest.MonkeyPatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    dpt_workbench("lab")
    assert "--no-browser" in started[0]


def test_a_missing_notebook_is_one_line(started: list[list[str]], tmp_path: Path):
    assert_one_line_of_error(dpt_workbench("lab", tmp_path / "none.ipynb"), "none.ipynb")
    assert started == []


def test_lab_refuses_names_that_control_the_terminal(started: list[list[str]], tmp_path: Path):
    """JupyterLab prints its folder as it is."""
    (tmp_path / "a\x1b[2J").mkdir()
    assert_one_line_of_error(dpt_workbench("lab", tmp_path / "a\x1b[2J"), "a\\x1b[2J", "control characters")
    assert started == []


def test_the_address_of_a_notebook_is_quoted(started: list[list[str]], tmp_path: Path):
    (tmp_path / "100% #1?.ipynb").write_text("{}")
    dpt_workbench("lab", tmp_path / "100% #1?.ipynb")
    assert "--LabApp.default_url=/lab/tree/100%25%20%231%3F.ipynb" in started[0]


COMMANDS = [["lab"], ["bench", "suite"], ["bench", "loading"], ["bench", "memory"]]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_frozen_application_does_not_start_itself(
    started: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
):
    def start(*_: object, **__: object) -> None:
        pytest.fail("a process was started")

    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "MyDepthApp"))
    monkeypatch.setattr(subprocess, "Popen", start)
    assert_one_line_of_error(dpt_workbench(*command), "Python", "frozen")
    assert started == []
