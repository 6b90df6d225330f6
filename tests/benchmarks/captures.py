"""Captures, beside the bare model and beside two ways that compute attention matrices."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch

import probes
from probes.bench.forward import explicit_attention
from probes.bench.measuring import available_memory, peak_memory, reset_peak
from tests.models import pictures

from . import peers
from .rounds import answer, fresh, interleaved, ratio, table

SELECTORS = {"attention": ("attention",), "norms": ("norms",), "everything": ("*",)}
LARGEST_IN_ROUNDS = 1036  # pixels on a CPU; larger inputs run once per way, in the process that measures memory
PLAIN = "nothing"
EXPLICIT = "explicit matrices"
OUTPUT_ATTENTIONS = "transformers, output_attentions"


def run(model: torch.nn.Module, x: torch.Tensor, way: str) -> Any:
    """Runs one forward pass. Returns the captured values too, so they count as memory."""
    with torch.no_grad(), ExitStack() as stack:
        if way == OUTPUT_ATTENTIONS:
            return model(x, output_attentions=True)
        kept: object = None
        if way == EXPLICIT:
            kept = stack.enter_context(explicit_attention(model))
        elif way in SELECTORS:
            kept = stack.enter_context(probes.capture(model, *SELECTORS[way]))
        return model(x), kept


def load(name: str, way: str, dtype: str, device: str) -> torch.nn.Module:
    """Returns the model that a way runs."""
    if way == OUTPUT_ATTENTIONS:
        return peers.transformers(name, dtype, "eager", device)
    return peers.ours(name, dtype, device)


def matrices(side: int, blocks: int, heads: int, item: int) -> int:
    """Returns the bytes of all attention matrices."""
    return blocks * heads * ((side // 14) ** 2 + 1) ** 2 * item


def peak(name: str, side: int, way: str, dtype: str, device: str) -> dict[str, float | None]:
    """Runs one way once in this process. Returns the bytes it added and its seconds."""
    model, x = load(name, way, dtype, device), random_input(side, dtype, device)
    before = reset_peak(device)
    start = time.perf_counter()
    kept = run(model, x, way)
    seconds = time.perf_counter() - start
    top = peak_memory(device)
    del kept
    return {"added": None if top is None or before is None else top - before, "seconds": seconds}


def random_input(side: int, dtype: str, device: str) -> torch.Tensor:
    return pictures(1, side, side).to(device, peers.DTYPES[dtype])


def report(name: str, sides: list[int], dtype: str, repeats: int, device: str) -> Iterator[str]:
    """Yields the table."""
    blocks, heads = {"da_v2_vits": (12, 6), "da_v2_vitl": (24, 16)}[name]
    head = ["model", "input", "captured", "time / nothing", "ms", "added MiB", "added / attention's"]
    rows = []
    for side in sides:
        room = 0.6 * (available_memory(device) or float("inf"))
        large = matrices(side, blocks, heads, peers.DTYPES[dtype].itemsize) > room
        once = device == "cpu" and side > LARGEST_IN_ROUNDS
        names = [PLAIN, "attention"] if once else [PLAIN, *SELECTORS, *([] if large else [EXPLICIT, OUTPUT_ATTENTIONS])]
        times: dict[str, list[float]] = {}
        if not once:
            x = random_input(side, dtype, device)
            ours = load(name, PLAIN, dtype, device)
            theirs = None if large else load(name, OUTPUT_ATTENTIONS, dtype, device)
            models = {way: theirs if way == OUTPUT_ATTENTIONS else ours for way in names}
            times = interleaved({way: partial(run, models[way], x, way) for way in names}, repeats)
            del models, theirs, ours
        ask = partial(fresh, "tests.benchmarks.captures", "peak", name=name, side=side, dtype=dtype, device=device)
        alone = {way: ask(way=way) for way in names}
        added = {way: alone[way]["added"] for way in names}
        times = times or {way: [alone[way]["seconds"]] for way in names}
        for way in names:
            middle, memory = statistics.median(times[way]), added[way]
            share = "" if not memory or not added["attention"] else f"{memory / added['attention']:.1f}"
            size = "" if memory is None else f"{memory / 2**20:.0f}"
            cells = (f"{ratio(times[way], times[PLAIN]):.3f}", f"{middle * 1e3:.0f}", size, share)
            rows.append((name, f"{side} x {side}", way, *cells))
            print(*rows[-1], sep=" | ", flush=True)
        if large:
            rows.append((name, f"{side} x {side}", f"{EXPLICIT}: the matrices do not fit into memory", "", "", "", ""))
    yield from table(head, rows, 3)


if __name__ == "__main__":
    answer({"peak": peak})
