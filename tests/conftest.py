"""Fixtures for every test: the programs outside Python that some tests need."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


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
