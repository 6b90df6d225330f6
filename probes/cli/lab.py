"""dpt-workbench lab: opens JupyterLab on the notebooks."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from dpt.printable import printable

from ..errors import InvalidValueError, MissingFileError, UnavailableError
from ..interpreter import NO_PYTHON, python_program
from .app import app, whole_number

# JupyterLab must not contact any server for news or updates.
QUIET = ("--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate")


def lab_environment() -> dict[str, str]:
    """Returns the environment for JupyterLab. Our default settings come after the user's own.

    JupyterLab 4.6 asks whether it may fetch news, in spite of QUIET. The setting `fetchNews` prevents the question.
    Jupyter closes the connection of a notebook that sends more than 10 MB in one message, e.g. with
    `ipywidgets.FileUpload`; `tornado_settings` raise the limit to 512 MB.
    """
    folders = [os.environ.get("JUPYTER_CONFIG_PATH"), str(Path(__file__).parents[1] / "jupyter")]
    return {**os.environ, "JUPYTER_CONFIG_PATH": os.pathsep.join(folder for folder in folders if folder)}


@app.command()
def lab(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="PATH",
            help="A notebook, or a folder. Default: ./notebooks, or else the notebooks of this project.",
        ),
    ] = None,
    port: Annotated[
        int,
        typer.Option(
            parser=whole_number(0, 65535),
            metavar="PORT",
            help="Port to listen on. If it is taken, the next free port is used.",
        ),
    ] = 8888,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser window.")] = True,
    ip: Annotated[str, typer.Option(help="Address to listen on.")] = "localhost",
) -> None:
    """Open JupyterLab on the notebooks.

    Prints the address of the server. The address contains the token that grants access.
    """
    from importlib.util import find_spec

    if find_spec("jupyterlab") is None:
        raise UnavailableError(
            "JupyterLab is not installed in this environment. Install it with: pip install 'dpt-workbench[lab]'"
        )
    root, start = _notebooks(path)
    python = python_program()
    if python is None:
        advice = f"Start it with the Python of an environment: python -m jupyterlab {shlex.quote(str(root / start))}"
        raise UnavailableError(f"Cannot start JupyterLab: {NO_PYTHON}. {advice}")
    command = [python, "-m", "jupyterlab", f"--ServerApp.root_dir={root}", f"--port={port}", f"--ip={ip}"]
    command += [
        f"--LabApp.default_url=/lab/tree/{quote(start)}" if start else "--LabApp.default_url=/lab",
        *QUIET,
    ]
    if not browser or _no_display():
        command.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # for containers; the token also protects a server that runs as root
    sys.stdout.flush()
    if os.name == "nt":  # exec on Windows returns to the shell at once
        raise typer.Exit(subprocess.call(command, env=lab_environment()))
    os.execve(python, command, lab_environment())  # Jupyter itself receives Ctrl-C and signals


def _notebooks(path: Path | None) -> tuple[Path, str]:
    """Returns the folder to serve, and the notebook to open in it or ''.

    Raises:
        MissingFileError: The path does not exist.
        InvalidValueError: JupyterLab would print the path, with control characters, to the terminal.
    """
    if path is None:
        places = [Path("notebooks"), Path(__file__).parents[2] / "notebooks"]
        path = next((place for place in places if place.is_dir()), None)
        if path is None:
            raise MissingFileError(f"{Path.cwd()} has no folder 'notebooks'. Name one: dpt-workbench lab FOLDER")
    if not (path.is_dir() or path.is_file()):
        raise MissingFileError(f"no notebook or folder at {path}")
    found = path.resolve()
    if printable(str(found), len(str(found))) != str(found):
        raise InvalidValueError(f"{found} has control characters, which JupyterLab prints to the terminal. Rename it")
    return (found, "") if found.is_dir() else (found.parent, found.name)


def _no_display() -> bool:
    """Whether no window can be opened. Jupyter would then start a text browser in this terminal."""
    windows = ("DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME")
    return sys.platform == "linux" and not any(os.environ.get(name) for name in windows)
