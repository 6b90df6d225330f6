"""Only Python itself is started as Python."""

from __future__ import annotations

import sys
import types

import pytest

from probes.bench.measuring import in_fresh_process
from probes.errors import UnavailableError
from probes.interpreter import python_program


@pytest.mark.parametrize(
    "path",
    [
        "/usr/bin/python3",
        "/x/.venv/bin/python",
        "/x/python3.13t",
        "/opt/pypy/bin/pypy3",
        "/usr/bin/python3-dbg",
        "/Python.app/Contents/MacOS/Python",
    ],
)
def test_python(monkeypatch, path):
    monkeypatch.setattr(sys, "executable", path)
    assert python_program() == path


@pytest.mark.parametrize("path", ["", None, "/usr/bin/blender", "/usr/sbin/uwsgi", "/opt/MyDepthApp", "/bin/false"])
def test_other_programs(monkeypatch, path):
    monkeypatch.setattr(sys, "executable", path)
    assert python_program() is None


def test_frozen_programs_may_call_themselves_python(monkeypatch):
    assert python_program() == sys.executable
    with monkeypatch.context() as patch:
        patch.setattr(sys, "frozen", "macosx_app", raising=False)
        assert python_program() is None
    with monkeypatch.context() as patch:
        main = types.ModuleType("__main__")
        main.__compiled__ = "nuitka"
        patch.setitem(sys.modules, "__main__", main)
        assert python_program() is None


def test_benchmarks_refuse_to_start_a_frozen_program(monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(UnavailableError, match="loading vits"):
        in_fresh_process("probes.bench.loading", "loading vits", {})
