"""Steps that users wait for: a row of attention, a slider, the first depth. Also the gain of caches between images."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count

import numpy as np
import torch

import dpt
import probes
from dpt.kept import KeptPerGrid
from tests.models import pictures

from . import peers
from .rounds import answer, fresh, interleaved, ratio, table


def looks(side: int, repeats: int) -> Iterator[str]:
    """Yields a table: results computed from captured q and k, beside the whole matrix of the block."""
    model, x = peers.ours("da_v2_vits", "float32"), pictures(1, side, side)
    with torch.no_grad(), probes.capture(model, "attention") as captured:
        model(x)
    maps = captured["encoder.blocks.6.attention"]
    tokens = count(1)
    ways: dict[str, Callable[[], object]] = {
        "the whole matrix": lambda: maps.rows(list(range(maps.tokens))),
        "one row, all heads": lambda: maps.rows([next(tokens) % maps.tokens]),
        "one column, all heads": lambda: maps.columns([next(tokens) % maps.tokens]),
        "entropy of every row": maps.entropy,
    }
    ways["one column, all heads"]()  # computes the normalisers, which are cached per block
    times = interleaved(ways, repeats)
    base = times["the whole matrix"]
    rows = [
        (f"{side} x {side}", way, f"{ratio(base, seconds):.1f}", f"{statistics.median(seconds) * 1e3:.2f}")
        for way, seconds in times.items()
    ]
    yield from table(["input", "of one block of ViT-S", "times faster", "ms"], rows, 2)


def slider(repeats: int) -> Iterator[str]:
    """Yields a table: a change of one fusion scale, including the new depth map, beside the whole model."""
    rows = []
    for name, side in (("demo", 252), ("da_v2_vits", 518)):
        model = peers.ours(name, "float32")
        image = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
        replay = probes.FusionReplay(model, image, size=side)
        whole = [_seconds(partial(model.predict, image, size=side)) for _ in range(repeats + 1)][1:]
        for scale in ("fusion.1", "fusion.2", "fusion.3", "reassembly.3"):
            times = []
            for n in range(repeats + 1):
                replay({})
                times.append(_seconds(partial(replay, {scale: 1.5 + n / 50})))
            middle = statistics.median(times[1:])
            faster = f"{statistics.median(whole) / middle:.1f}"
            rows.append((name, f"{side} x {side}", scale, faster, f"{middle * 1e3:.0f}"))
    yield from table(["model", "input", "scale", "times faster than model.predict", "ms"], rows, 3)


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def first_depth() -> dict[str, float]:
    """Returns the seconds of dpt.load and of the first depth map."""
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    start = time.perf_counter()
    model = dpt.load("demo")
    loaded = time.perf_counter()
    model.predict(image)
    return {"load": loaded - start, "predict": time.perf_counter() - loaded}


def starts(repeats: int) -> Iterator[str]:
    """Yields a table: the time until the first depth map in a new process."""
    found = [fresh("tests.benchmarks.steps", "first_depth") for _ in range(repeats)]
    rows = [
        (what, f"{statistics.median(values) * 1e3:.0f}")
        for what, values in (
            ('dpt.load("demo"), modules imported', [f["load"] for f in found]),
            ("then the first depth of a 640 x 480 image", [f["predict"] for f in found]),
            ("together", [f["load"] + f["predict"] for f in found]),
        )
    ]
    yield from table(["from dpt.load to the first depth, in a new process", "ms"], rows)


def caches(repeats: int) -> Iterator[str]:
    """Yields a table: forward passes with cached tables of the grid, beside passes that recompute them."""
    rows = []
    for name, side in (("da_v2_vits", 504), ("beit_base_384", 512), ("swin2_tiny_256", 384)):
        model, x = peers.ours(name, "float32"), pictures(1, side, side)
        if x.shape[-1] != side:
            x = torch.nn.functional.interpolate(x, (side, side), mode="bilinear")
        kept = [value for m in model.modules() for value in vars(m).values() if isinstance(value, KeptPerGrid)]
        assert kept, f"{name} has no cache"

        ways = {"recomputed": partial(_clear_and_run, model, x, kept), "cached": partial(_clear_and_run, model, x, [])}
        times = interleaved(ways, repeats)
        gain = ratio(times["recomputed"], times["cached"])
        rows.append((name, f"{side} x {side}", f"{gain:.3f}", f"{statistics.median(times['cached']) * 1e3:.0f}"))
    yield from table(["model", "input", "time recomputed / cached", "ms, cached"], rows, 2)


def _clear_and_run(model: dpt.DPT, x: torch.Tensor, caches: list[KeptPerGrid]) -> None:
    for cache in caches:
        cache._kept.clear()
    with torch.no_grad():
        model(x)


if __name__ == "__main__":
    answer({"first_depth": first_depth})
