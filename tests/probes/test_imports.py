"""`import probes` is cheap: it loads no optional dependency, no matplotlib and no Jupyter."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"matplotlib", "IPython", "ipywidgets", "anywidget", "jupyterlab", "plotly", "distributed", "dask", "av"}
HEAVY |= {"onnx", "onnxruntime", "onnxscript"}


def loaded_by(statement: str) -> set[str]:
    """Top-level modules that a new interpreter has loaded after a statement."""
    script = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_probes_loads_nothing_heavy():
    loaded = loaded_by("import probes, dpt")
    assert "torch" in loaded
    assert loaded & HEAVY == set()


def test_the_demo_is_an_attribute_of_dpt():
    subprocess.run([sys.executable, "-c", "import dpt; assert 'table' in dpt.demo.samples()"], check=True)


@pytest.mark.parametrize(("statement", "module"), [("from probes import plot", "matplotlib"), ("import av", "av")])
def test_the_check_notices_a_heavy_module(statement: str, module: str):
    """The control for the test above."""
    assert module in loaded_by(statement)
