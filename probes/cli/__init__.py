"""The command line, ``dpt-workbench``: one module per command, the app and shared options in `app`."""

from __future__ import annotations

from . import capture, export_onnx  # registers their commands
from .app import app

__all__ = ["app", "capture", "export_onnx"]
