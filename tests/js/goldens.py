"""Writes tests/data/core_js.json: what core.js must compute, computed by torch, numpy and matplotlib.

python -m tests.js.goldens
"""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch

TARGET = Path(__file__).parents[1] / "data" / "core_js.json"


def encoded(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")


def half_checksum() -> dict[str, int]:
    """All 65536 halves as floats; NaN, whose bits are nobody's business, as 0 and counted."""
    values = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float32)
    nan = np.isnan(values)
    return {"crc32": zlib.crc32(np.where(nan, np.float32(0), values).tobytes()), "nan": int(nan.sum())}


def attention(heads: int = 3, rows: int = 4, cols: int = 5, prefix: int = 2, dim: int = 12) -> dict[str, Any]:
    """A small block with explicit softmax matrices in float64. dim is no multiple of 8, tokens none of 4."""
    generator = torch.Generator().manual_seed(20)
    tokens = prefix + rows * cols
    q, k = (torch.randn(heads, tokens, dim, generator=generator).half() for _ in range(2))
    scores = q.double() @ k.double().mT
    matrix = scores.softmax(-1)
    picked = [0, 1, 9, tokens - 1]
    own = matrix / matrix.sum(-2, keepdim=True)
    return {
        "header": {
            "heads": heads,
            "tokens": tokens,
            "dim": dim,
            "rows": rows,
            "cols": cols,
            "prefix": prefix,
            "block": 4,
        },
        "q": encoded(q.numpy()),
        "k": encoded(k.numpy()),
        "lse": encoded(scores.logsumexp(-1).float().numpy()),
        "picked": picked,
        "rows": [matrix[:, token].flatten().tolist() for token in picked],
        "columns": [matrix[:, :, token].flatten().tolist() for token in picked],
        "row_mean": [matrix[:, token].mean(0).tolist() for token in picked],
        "row_entropy": [(-(matrix[:, t] * matrix[:, t].log2()).sum(-1)).tolist() for t in picked],
        "column_entropy": [(-(own[:, :, t] * own[:, :, t].log2()).sum(-1)).tolist() for t in picked],
    }


def colormaps() -> dict[str, str]:
    names = {"viridis": "viridis", "cividis": "cividis", "magma": "magma", "grey": "gray"}
    names |= {"difference": "RdBu_r", "difference-dark": "berlin"}
    return {
        own: encoded((matplotlib.colormaps[theirs](np.arange(256))[:, :3] * 255).round().astype(np.uint8))
        for own, theirs in names.items()
    }


def scales() -> list[dict[str, Any]]:
    """Positions by matplotlib's norms, clipped to 0..1."""
    from matplotlib.colors import CenteredNorm, LogNorm, Normalize

    top = 0.37
    plain = np.array([0.0, 1e-9, 5e-5, 1e-3, 0.02, 0.1, 0.3699, 0.37, 0.9])
    both = np.concatenate([-plain[::-1], plain])
    log = LogNorm(top * 1e-4, top)

    def signed_log(value: float) -> float:
        depth = float(np.clip(log(abs(value)), 0, 1)) if abs(value) > top * 1e-4 else 0.0
        return (1 + np.sign(value) * depth) / 2

    cases = []
    for mode in ("head", "shared"):
        cases.append((mode, False, plain, np.clip(Normalize(0, top)(plain), 0, 1)))
        cases.append((mode, True, both, np.clip(CenteredNorm(0, top)(both), 0, 1)))
    cases.append(("log", False, plain, [float(np.clip(log(value), 0, 1)) if value > 0 else 0.0 for value in plain]))
    cases.append(("log", True, both, [signed_log(value) for value in both]))
    return [
        {"mode": mode, "signed": signed, "top": top, "values": values.tolist(), "positions": np.asarray(t).tolist()}
        for mode, signed, values, t in cases
    ]


def goldens() -> dict[str, Any]:
    return {"half": half_checksum(), "attention": attention(), "colormaps": colormaps(), "scales": scales()}


if __name__ == "__main__":
    TARGET.write_text(json.dumps(goldens()) + "\n", encoding="utf-8")
    print(f"wrote {TARGET.name}: {TARGET.stat().st_size} bytes")
