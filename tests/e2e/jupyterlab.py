"""A real JupyterLab for the browser tests, and a notebook open in it.

The server runs from this environment on a free port, with token security, in folders of its own: nothing of the user's
Jupyter settings is read or written.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nbformat
from playwright.sync_api import Page

from probes.cli.lab import QUIET, lab_environment
from tests.e2e.conftest import Shown

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-for-the-tests"

CURRENT = "window.jupyterapp.shell.currentWidget"  # the notebook in front
KERNEL = f"{CURRENT}?.sessionContext?.session?.kernel"


@dataclass
class Lab:
    url: str
    folder: Path

    def address(self, name: str) -> str:
        """A notebook in a workspace of its own: what other tests had open is not restored."""
        return f"{self.url}/lab/workspaces/{Path(name).stem}/tree/notebooks/{name}?token={TOKEN}"

    def api(self, method: str, path: str) -> bytes:
        headers = {"Authorization": f"token {TOKEN}"}
        request = urllib.request.Request(f"{self.url}/api/{path}", method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=20) as reply:
            return reply.read()

    def stop_kernels(self) -> None:
        for session in json.loads(self.api("GET", "sessions")):
            self.api("DELETE", f"sessions/{session['id']}")


@contextmanager
def started(home: Path) -> Iterator[Lab]:
    """A JupyterLab whose every file is under `home`."""
    folder = home / "work" / "notebooks"
    folder.mkdir(parents=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    places = {
        name: str(home / name.lower())
        for name in (
            *("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"),
            *("JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR"),
        )
    }
    environment = {**lab_environment(), **places, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--expose-app-in-browser", "--ServerApp.port_retries=0"),
        *(f"--port={port}", f"--ServerApp.root_dir={folder.parent}", f"--IdentityProvider.token={TOKEN}"),
        *QUIET,
    ]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    with (home / "log.txt").open("w") as log:
        server = subprocess.Popen(command, env=environment, cwd=folder.parent, stdout=log, stderr=log)
    lab = Lab(f"http://127.0.0.1:{port}", folder)
    try:
        for _ in range(300):
            try:
                lab.api("GET", "")
                break
            except (urllib.error.URLError, OSError):
                assert server.poll() is None, (home / "log.txt").read_text()
                time.sleep(0.2)
        else:
            raise RuntimeError("JupyterLab did not come up: " + (home / "log.txt").read_text())
        yield lab
    finally:
        server.terminate()
        server.wait(timeout=20)


class Notebook:
    """A notebook open in JupyterLab."""

    def __init__(self, page: Page, lab: Lab, name: str):
        self.page, self.lab, self.name = page, lab, name
        self.sent: list[object] = []  # websocket frames from the browser to the server
        page.on("websocket", lambda ws: ws.on("framesent", lambda frame: self.sent.append(frame)))

    @classmethod
    def written(cls, page: Page, lab: Lab, name: str, cells: Sequence[str]) -> Notebook:
        """A new notebook of these cells, open and run."""
        metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
        whole = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in cells], metadata=metadata)
        nbformat.write(whole, lab.folder / name)
        notebook = cls(page, lab, name)
        notebook.open()
        notebook.run_all()
        return notebook

    def reload(self) -> None:
        """Save the notebook and open it in a new page."""
        self.page.evaluate("async () => { await window.jupyterapp.commands.execute('docmanager:save'); }")
        self.page.wait_for_function(f"() => !{CURRENT}.context.model.dirty")
        self.page.reload()
        self.open()

    def restart_kernel(self) -> None:
        self.page.evaluate(f"() => {KERNEL}.restart()")
        self.wait_for_kernel("idle")

    def open(self) -> None:
        self.page.goto(self.lab.address(self.name))
        self.page.wait_for_function("() => window.jupyterapp !== undefined", timeout=60_000)
        self.page.evaluate("async () => { await window.jupyterapp.restored; }")
        self.page.wait_for_selector(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Cell", timeout=60_000)
        self.page.wait_for_function(f"() => {KERNEL}?.status === 'idle'", timeout=60_000)

    def run_all(self) -> None:
        self.page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")

    def explorer(self, number: int = 0, painted: str = "token") -> Shown:
        """The widget of that number, once it is ready; painted: what its first paint notes on its element."""
        shown = Shown(self.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .dptx").nth(number))
        shown.root.wait_for(timeout=60_000)
        shown.wait(state="ready")
        shown.page.wait_for_function(
            "([root, name]) => root.dataset[name] !== undefined", arg=[shown.root.element_handle(), painted]
        )
        shown.root.scroll_into_view_if_needed()
        return shown

    def execute(self, code: str) -> None:
        """In the notebook's kernel, without a cell and without waiting for it."""
        self.page.evaluate(f"(code) => {{ {KERNEL}.requestExecute({{code}}); }}", code)

    def run_cell(self, number: int, code: str | None = None) -> None:
        """Run a cell, with other code if given."""
        self.page.evaluate(
            f"""([number, code]) => {{
              const notebook = {CURRENT}.content;
              notebook.activeCellIndex = number;
              if (code !== null) notebook.activeCell.model.sharedModel.setSource(code);
              return window.jupyterapp.commands.execute("notebook:run-cell");
            }}""",
            [number, code],
        )

    def wait_for_kernel(self, status: str) -> None:
        self.page.wait_for_function(f"(status) => {KERNEL}.status === status", arg=status, timeout=120_000)

    def kernel_status(self) -> str:
        return str(self.page.evaluate(f"() => {KERNEL}.status"))

    def wait_until_quiet(self, milliseconds: int = 250) -> None:
        """Until the browser has sent nothing to the server for that long."""
        sent = -1
        while sent != len(self.sent):
            sent = len(self.sent)
            self.page.wait_for_timeout(milliseconds)

    def wait_for_message(self) -> None:
        """Until the browser has sent something."""
        for _ in range(1000):
            if self.sent:
                return
            self.page.wait_for_timeout(10)  # Playwright delivers events only while it waits
        raise AssertionError("the browser sent nothing")

    def cells(self) -> int:
        return int(self.page.evaluate(f"() => {CURRENT}.content.widgets.length"))
