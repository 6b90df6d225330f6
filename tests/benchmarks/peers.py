"""The same weights in the other implementations that a user would pick."""

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
from tests.models import transformers_folder

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
MISSING = "transformers is not installed: pip install 'dpt-workbench[bench]'"


@cache
def folder(name: str) -> Path:
    """A checkpoint of the oracle's weights in transformers' layout, which both sides load."""
    keep = tempfile.TemporaryDirectory(prefix=f"bench-{name}-")
    _kept.append(keep)
    transformers_folder(name, Path(keep.name))
    config = Path(keep.name) / "config.json"
    # The hub's files name the class elsewhere.
    config.write_text(json.dumps({"model_type": "depth_anything"} | json.loads(config.read_text())))
    return Path(keep.name)


_kept: list[tempfile.TemporaryDirectory] = []


def ours(name: str, dtype: str, device: str = "cpu") -> dpt.DPT:
    if name == "demo":
        return dpt.load("demo", dtype=DTYPES[dtype], device=device)
    return dpt.load(folder(name), dtype=DTYPES[dtype], device=device)


def transformers(name: str, dtype: str, attention: str, device: str = "cpu") -> torch.nn.Module:
    """attention: "sdpa" or "eager". Returns a module whose forward gives predicted_depth."""
    from transformers import AutoModelForDepthEstimation
    from transformers.utils import logging

    logging.set_verbosity_error()
    with suppress(AttributeError):
        logging.disable_progress_bar()
    # Fused attention is what the encoders do unasked; asked of the whole model, the depth classes refuse it.
    asked = {} if attention == "sdpa" else {"attn_implementation": attention}
    model = AutoModelForDepthEstimation.from_pretrained(folder(name), dtype=DTYPES[dtype], **asked)
    used = model.backbone.config._attn_implementation
    assert used == attention, f"{name} in transformers computes attention by {used}, not {attention}"
    return model.eval().requires_grad_(False).to(device)


def onnx(model: dpt.DPT, name: str, fixed: tuple[int, int] | None = None) -> Callable[[np.ndarray], object]:
    """Our own export in onnxruntime, with torch's number of threads."""
    import onnxruntime

    path = folder(name) / ("dynamic.onnx" if fixed is None else "{}x{}.onnx".format(*fixed))
    if not path.exists():
        dpt.export_onnx(model, path, dynamic=fixed is None, size=fixed, verify=False, report=None)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"x": x})
