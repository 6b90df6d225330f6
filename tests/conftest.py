"""Fixtures for every test: the programs outside Python that some tests need."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

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
    "test_store_kills.py",
    "test_export_page.py",
    "test_damaged_checkpoints.py",
)

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def group_of(item: pytest.Item) -> str:
    """Tests of one group run in one process, in order: a file, or one notebook."""
    if item.path.name == "test_notebooks.py" and (call := getattr(item, "callspec", None)):
        return f"{item.path.name}::{call.id}"
    return str(item.path.relative_to(item.config.rootpath))


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {name: rank for rank, name in enumerate(LONGEST_FIRST)}

    def rank(group: str) -> int:
        return ranks.get(group.rpartition("/")[2], len(ranks))

    groups = {item: group_of(item) for item in items}
    for item, group in groups.items():
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: rank(groups[item]))


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
