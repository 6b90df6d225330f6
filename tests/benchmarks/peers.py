"""The same weights in other implementations."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import torch

import dpt
from probes.bench.measuring import DTYPES
from tests.models import transformers_folder


@cache
def folder(name: str) -> Path:
    """Returns a checkpoint folder in transformers' layout, with the oracle's weights. Both implementations load it."""
    keep = tempfile.TemporaryDirectory(prefix=f"bench-{name}-")
    _kept.append(keep)
    transformers_folder(name, Path(keep.name))
    config = Path(keep.name) / "config.json"
    # transformers chooses the class by this key, which files on the hub have in another place.
    config.write_text(json.dumps({"model_type": "depth_anything"} | json.loads(config.read_text())))
    return Path(keep.name)


_kept: list[tempfile.TemporaryDirectory] = []


def ours(name: str, dtype: str, device: str = "cpu") -> dpt.DPT:
    """Loads a model with this project."""
    if name == "demo":
        return dpt.load("demo", dtype=DTYPES[dtype], device=device)
    return dpt.load(folder(name), dtype=DTYPES[dtype], device=device)


def transformers(name: str, dtype: str, attention: str, device: str = "cpu") -> torch.nn.Module:
    """Loads a model with transformers. attention: "sdpa" or "eager". Its output has `predicted_depth`."""
    from transformers import AutoModelForDepthEstimation
    from transformers.utils import logging

    logging.set_verbosity_error()
    with suppress(AttributeError):
        logging.disable_progress_bar()
    # The encoders use fused attention by default. The depth classes reject the option if it is given.
    asked = {} if attention == "sdpa" else {"attn_implementation": attention}
    model = AutoModelForDepthEstimation.from_pretrained(folder(name), dtype=DTYPES[dtype], **asked)
    used = model.backbone.config._attn_implementation
    assert used == attention, f"{name} in transformers uses {used} attention, expected {attention}"
    return model.eval().requires_grad_(False).to(device)


def onnx(model: dpt.DPT, name: str, fixed: tuple[int, int] | None = None) -> Callable[[np.ndarray], object]:
    """Exports a model and opens it in onnxruntime, with torch's number of threads."""
    import onnxruntime

    path = folder(name) / ("dynamic.onnx" if fixed is None else "{}x{}.onnx".format(*fixed))
    if not path.exists():
        dpt.export_onnx(model, path, dynamic=fixed is None, size=fixed, verify=False, say=None)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"x": x})
