"""Fixtures for every test: the programs outside Python that some tests need."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

# Where the time goes, longest first. make test runs two or more processes side by side; a long group that starts last
# would leave the others idle. The order has no other meaning: a name that is missing here runs later.
LONGEST_FIRST = (
    "test_notebooks.py::07_onnx",
    "test_fusion.py",
    "test_jupyterlab.py",
    "test_explorers_in_lab.py",
    "test_norm_explorer.py",
    "test_tour_and_depth.py",
    "test_store_kills.py",
    "test_compiled.py",
    "test_export.py",
    "test_dask_engine.py",
    "test_notebooks.py::06_scripted_capture",
    "test_export_options.py",
    "test_decoding.py",
    "test_goldens.py",
    "test_export_families.py",
    "test_demo_training.py",
    "test_notebooks.py::01_depth",
    "test_export_page.py",
    "test_damaged_checkpoints.py",
)

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def group_of(nodeid: str) -> str:
    """Tests of one group run in one process, in order: the tests of a file, or one notebook."""
    file, _, test = nodeid.partition("::")
    notebook = file.endswith("test_notebooks.py") and test.endswith("]")
    return f"{file}::{test.partition('[')[2][:-1]}" if notebook else file


@pytest.hookimpl(tryfirst=True)  # before pytest sorts the tests of a file by their fixtures
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {name: rank for rank, name in enumerate(LONGEST_FIRST)}

    def rank(item: pytest.Item) -> int:
        return ranks.get(group_of(item.nodeid).rpartition("/")[2], len(ranks))

    items.sort(key=rank)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Sends groups to the processes. --dist loadgroup cannot: pytest 9.2 ignores the node ids that it changes."""
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return Groups(config, log)


def program(*names: str, purpose: str) -> str:
    """Path of the first of these programs that is installed; else skip the test, or fail it where CI is set."""
    for name in names:
        if path := shutil.which(name):
            return path
    reason = f"no {' or '.join(names)} on PATH: {purpose}"
    if os.environ.get("CI"):
        pytest.fail(f"{reason}. CI runs every test; install it")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def chromium() -> str:
    """A Chromium to drive with Playwright: launch(executable_path=chromium)."""
    return program(*BROWSERS, purpose="the widgets are tested in a real browser")


@pytest.fixture(scope="session")
def node() -> str:
    return program("node", purpose="the JavaScript of the explorers is tested with `node --test`")


@pytest.fixture(scope="session")
def npm_packages(node: str) -> Path:
    """The folder of the installed npm packages; skips the test (in CI: fails it) if `npm ci` has not run."""
    folder = Path(__file__).parents[1] / "probes" / "explorers" / "node_modules"
    if not (folder / "esbuild").is_dir():
        reason = "the npm packages are not installed; run: make bundles"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return folder
