"""Writes tests/data/explorer_numbers.json: what the explorers' JavaScript must compute, by torch, NumPy and matplotlib.

python -m tests.probes.explorers.js.goldens
"""

from __future__ import annotations

import base64
import json
import zlib
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch

TARGET = Path(__file__).parents[3] / "data" / "explorer_numbers.json"


def encoded(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")


def half_checksum() -> dict[str, int]:
    """All 65536 halves as floats. NaN counts as 0, because its bits may differ."""
    values = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float32)
    nan = np.isnan(values)
    return {"crc32": zlib.crc32(np.where(nan, np.float32(0), values).tobytes()), "nan": int(nan.sum())}


def attention(heads: int = 3, rows: int = 4, cols: int = 5, prefix: int = 2, dim: int = 12) -> dict[str, Any]:
    """A small block with float64 softmax matrices. dim is not a multiple of 8, nor is tokens of 4."""
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
        "row_entropy": [(-(matrix[:, t] * matrix[:, t].log()).sum(-1)).tolist() for t in picked],
        "column_entropy": [(-(own[:, :, t] * own[:, :, t].log()).sum(-1)).tolist() for t in picked],
    }


Sides = tuple[int, int]


def placed(rows: int, cols: int, window: Sides, shift: Sides) -> list[dict[str, Any]]:
    """Per token: its (row, col), (row, col) on the shifted grid, window, and place in the order by windows."""
    tokens = []
    for row, col in product(range(rows), range(cols)):
        down, right = (row - shift[0]) % rows, (col - shift[1]) % cols
        number = down // window[0] * (cols // window[1]) + right // window[1]
        inside = (down % window[0], right % window[1])
        place = number * window[0] * window[1] + inside[0] * window[1] + inside[1]
        tokens.append({"at": (row, col), "shifted": (down, right), "window": number, "place": place})
    return tokens


def biased(
    rows: int,
    cols: int,
    prefix: int = 0,
    window: Sides | None = None,
    shift: Sides = (0, 0),
    heads: int = 2,
    dim: int = 6,
) -> dict[str, Any]:
    """A block with a bias by offset, computed pair by pair. Pairs that share a window only by the shift are masked."""
    generator = torch.Generator().manual_seed(rows * cols)
    n = prefix + rows * cols
    high, wide = window or (rows, cols)
    where = placed(rows, cols, (high, wide), shift)
    q, k = (torch.randn(heads, n, dim, generator=generator).half() for _ in range(2))
    table = torch.randn(heads, 2 * high - 1, 2 * wide - 1, generator=generator)
    of_prefix = torch.randn(heads, 3, generator=generator)  # class to patches, patches to class, class to itself
    scores = q.double() @ k.double().mT
    for i, j in product(range(n), repeat=2):
        if i < prefix or j < prefix:
            scores[:, i, j] += of_prefix[:, 2 if i == j else 0 if i < prefix else 1]
            continue
        query, key = where[i - prefix], where[j - prefix]
        near, far = (tuple(a - b for a, b in zip(query[on], key[on], strict=True)) for on in ("shifted", "at"))
        if query["window"] != key["window"] or near != far:
            scores[:, i, j] = -torch.inf
        else:
            scores[:, i, j] += table[:, near[0] + high - 1, near[1] + wide - 1]
    order = list(range(prefix)) + [prefix + t for t in np.argsort([token["place"] for token in where]).tolist()]
    matrix = scores.softmax(-1)
    picked = sorted({0, prefix, n // 2, n - 2, n - 1})
    header = {"heads": heads, "tokens": n, "dim": dim, "rows": rows, "cols": cols, "prefix": prefix, "block": 0}
    header |= {"biased": True} | ({"window": window, "shift": shift} if window else {})
    parts = [q[:, order], k[:, order], scores.logsumexp(-1).float()[:, order], table, *([of_prefix] if prefix else [])]
    return {
        "header": header,
        "parts": [encoded(part.numpy()) for part in parts],
        "order": order,
        "picked": picked,
        "rows": [matrix[:, token].flatten().tolist() for token in picked],
        "columns": [matrix[:, :, token].flatten().tolist() for token in picked],
    }


def biased_blocks() -> dict[str, Any]:
    return {
        "class token": biased(3, 4, prefix=1),
        "windows": biased(4, 6, window=(2, 3)),
        "shifted windows": biased(6, 8, window=(3, 4), shift=(1, 2)),
        "windows shifted along one side": biased(3, 8, window=(3, 4), shift=(0, 2)),
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
    return {
        "half": half_checksum(),
        "attention": attention(),
        "biased": biased_blocks(),
        "colormaps": colormaps(),
        "scales": scales(),
    }


if __name__ == "__main__":
    TARGET.write_text(json.dumps(goldens()) + "\n", encoding="utf-8")
    print(f"wrote {TARGET.name}: {TARGET.stat().st_size} bytes")
