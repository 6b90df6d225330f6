"""The command line, ``dpt-workbench``: one module per command. `app` holds the application and the shared options.

Importing this package registers all commands. Each command imports what it needs when it runs, so ``--help`` does not
wait for matplotlib, zarr, ONNX or Dask.

Not in this package: what the commands do. They call `dpt` and the other packages of `probes`.
"""

from __future__ import annotations

from . import lab, depth, demo, inspect, models, capture, verify, export_onnx, bench  # isort: skip # order of --help
from .app import app

__all__ = ["app", "bench", "capture", "demo", "depth", "export_onnx", "inspect", "lab", "models", "verify"]
