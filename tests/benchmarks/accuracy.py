"""Accuracy of the fast dtypes: the demo model on rendered scenes, compared with float32 and with the truth."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import torch

import dpt
from dpt.demo.evaluate import align, delta1_and_absrel, normalise, r2
from dpt.demo.scenes import render

from . import peers
from .rounds import table

SEEDS = range(16)
SIZE = (280, 392)


def report(types: list[str], device: str) -> Iterator[str]:
    """Yields a table: R2, AbsRel and delta1 against the truth as in dpt.demo.evaluate, and errors against float32."""
    exact = dpt.load("demo", device=device)
    rows = []
    for name in types:
        model = dpt.load("demo", dtype=peers.DTYPES[name], device=device)
        found: dict[str, list[float]] = {key: [] for key in ("r2", "truth", "delta1", "absrel", "max")}
        for seed in SEEDS:
            scene = render([seed], *SIZE)
            x = normalise(scene.image).to(device)
            with torch.no_grad():
                want = exact(x).cpu()
                got = model(x.to(peers.DTYPES[name])).float().cpu()
            found["r2"].append(float(r2(got, scene.inverse_depth)))
            delta1, absrel = delta1_and_absrel(got, scene.inverse_depth)
            found["truth"].append(float(absrel))
            found["delta1"].append(float(delta1))
            near = want > 0.05 * want.max()  # the sky has inverse depth 0, so no relative error
            found["absrel"].append(float(((align(got, want) - want).abs() / want)[near].mean()))
            found["max"].append(float((got - want).abs().max() / want.std()))
        median = {key: statistics.median(value) for key, value in found.items()}
        accuracy = (f"{median['r2']:.4f}", f"{median['truth']:.4f}", f"{median['delta1']:.4f}")
        apart = (f"{median['absrel']:.2%}", f"{median['max']:.3f}", f"{max(found['max']):.3f}")
        rows.append((name, *accuracy, *apart))
        print(*rows[-1], sep=" | ", flush=True)
    head = ["type", "R2", "AbsRel", "delta1", "AbsRel from float32", "largest error / std", "of all images"]
    yield from table(head, rows)
