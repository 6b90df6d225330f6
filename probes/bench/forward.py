"""Measures what capturing attention costs: time and memory of one forward pass, in three ways.

    plain       the model alone, with fused attention
    captured    the model inside probes.capture(model, "attention"), for all blocks
    explicit    softmax(q k^T) v that keeps the matrix of every block, as attention is usually collected

All ways are timed once per round, in rotating order, so background load affects all of them alike. A ratio is the
median of the ratios of the rounds: a slow round moves it less than a ratio of medians. Peak memory is measured in a
fresh process per way.

Limits: a way that does not fit into memory is skipped, and the table says so.
"""

from __future__ import annotations

import gc
import json
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from dpt import DPT
from dpt.attention import Attend
from dpt.machine import checked_device

from ..capture import capture
from ..errors import InvalidValueError
from .measuring import (
    DTYPES,
    Case,
    available_memory,
    check_shapes,
    in_fresh_process,
    machine,
    mib,
    peak_memory,
    prepare,
    reset_peak,
    synchronise,
)

WAYS = ("plain", "captured", "explicit")
SPARE = 0.8  # fraction of the free memory that one way may need


@contextmanager
def explicit_attention(model: DPT) -> Iterator[list[Tensor]]:
    """Replaces fused attention by softmax(scale q k^T + bias) v inside the block.

    Args:
        model: The model. Its attention is restored at the end, also after an exception.

    Yields:
        A list that receives one attention matrix per block and pass, of shape (B, heads, N, N).
    """
    collected: list[Tensor] = []

    def forward(self: Attend, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        logits = q @ k.mT * self.scale
        weights = (logits if bias is None else logits + bias).softmax(dim=-1)
        collected.append(weights)
        return weights @ v

    attends = [module for module in model.modules() if isinstance(module, Attend)]
    for attend in attends:
        attend.forward = MethodType(forward, attend)  # type: ignore[method-assign]
    try:
        yield collected
    finally:
        for attend in attends:
            del attend.forward


def forward(model: DPT, x: Tensor, way: str) -> tuple[float, int]:
    """Times one forward pass.

    Args:
        model: The model.
        x: Its input, (B, 3, h, w).
        way: One of `WAYS`.

    Returns:
        Seconds, and the bytes that remain allocated for whoever reads the attention.
    """
    with torch.no_grad(), ExitStack() as stack:
        synchronise(x)
        start = time.perf_counter()
        if way == "captured":
            captured = stack.enter_context(capture(model, "attention"))
        elif way == "explicit":
            matrices = stack.enter_context(explicit_attention(model))
        model(x)
        synchronise(x)
        if way == "plain":
            return time.perf_counter() - start, 0
        stack.close()  # the time includes removing the hooks
        seconds = time.perf_counter() - start
        kept = captured.nbytes if way == "captured" else sum(m.untyped_storage().nbytes() for m in matrices)
        return seconds, kept


def time_ways(case: Case, ways: Iterable[str], repeats: int) -> dict[str, list[float]]:
    """Times several ways in interleaved rounds, after one warm-up round.

    Args:
        case: The model and its input.
        ways: Some of `WAYS`.
        repeats: Number of timed rounds.

    Returns:
        Seconds of every timed round, by way.
    """
    ways = list(ways)
    model, x = prepare(case)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(repeats + 1):
        start = turn % len(ways)
        for way in ways[start:] + ways[:start]:
            taken, _ = forward(model, x, way)
            if turn > 0:
                seconds[way].append(taken)
    return seconds


def peak(case: Case, way: str) -> dict[str, int | None]:
    """Measures the memory of one forward pass in this process.

    Args:
        case: The model and its input.
        way: One of `WAYS`.

    Returns:
        Bytes by name: "peak" of the process, "added" by the pass, "kept" after the pass. None if unknown.
    """
    model, x = prepare(case)
    gc.collect()
    before = reset_peak(case.device)
    _, kept = forward(model, x, way)
    top = peak_memory(case.device)
    return {"peak": top, "added": None if top is None or before is None else max(0, top - before), "kept": kept}


def memory_needed(case: Case, way: str) -> int:
    """Estimates the bytes that a way needs: weights, activations of the widest layers, and the tensors it keeps."""
    config, item = case.config, DTYPES[case.dtype].itemsize
    weights = config.depth * 12 * config.width**2 * 4
    activations = (8 * case.tokens * config.width + 2 * case.side**2 * config.fusion_channels) * item
    kept = {"plain": 0, "captured": config.depth * 3 * case.tokens * config.width * item, "explicit": case.matrices}
    one = case.matrices // config.depth  # the logits exist beside the matrix that is computed from them
    return weights + activations + kept[way] + (2 * one if way == "explicit" else 0)


def run(
    variants: list[str], sides: list[int], repeats: int, threads: int | None, device: str, dtype: str
) -> Iterator[str]:
    """Runs the benchmark.

    Args:
        variants: Model shapes, keys of `measuring.SHAPES`.
        sides: Sides of the square inputs in pixels.
        repeats: Number of timed rounds.
        threads: CPU threads; None leaves torch's own choice.
        device: "cpu", "cuda" or "mps".
        dtype: A key of `measuring.DTYPES`.

    Yields:
        Lines of a Markdown table, each as soon as it is measured.

    Raises:
        InvalidValueError: A shape, size or dtype that does not exist.
        UnavailableError: A measuring process failed.
        dpt.DPTError: The model cannot take a size, or this machine does not have the device.
    """
    cases = check(variants, sides, dtype, threads, device)
    checked_device(device)
    yield f"{machine(cases[0])}; {dtype}; batch 1; medians of {repeats} interleaved rounds"
    yield ""
    yield "| model | input | tokens | attention | time / plain | ms | peak MiB | added by the pass | kept MiB |"
    yield "| --- | --- | --: | --- | --: | --: | --: | --: | --: |"
    kept: dict[tuple[str, int], int] = {}
    for case in cases:
        skipped = {way: reason for way in WAYS if (reason := _too_large(case, way))}
        ways = [way for way in WAYS if way not in skipped]
        seconds = _in_fresh_process("time", case, {"ways": ways, "repeats": repeats}) if ways else {}
        for way in WAYS:
            at = f"| {case.variant} | {case.side} x {case.side} | {case.tokens} | {way} |"
            if way in skipped:
                yield f"{at} skipped: {skipped[way]} | | | | |"
                continue
            memory = _in_fresh_process("peak", case, {"way": way})
            if way == "captured":
                kept[case.variant, case.tokens] = memory["kept"]
            ratio = statistics.median(a / b for a, b in zip(seconds[way], seconds["plain"], strict=True))
            middle = statistics.median(seconds[way]) * 1000
            sizes = " | ".join(mib(memory[name]) for name in ("peak", "added", "kept"))
            yield f"{at} {ratio:.3f} | {middle:.0f} | {sizes} |"
    yield ""
    for (variant, tokens), size in kept.items():
        yield f"{variant}, {tokens} tokens: a capture keeps {tqdm.format_sizeof(size / tokens, 'B')} per token"


def check(
    variants: list[str], sides: list[int], dtype: str = "float32", threads: int | None = None, device: str = "cpu"
) -> list[Case]:
    """Returns every combination of shape and size.

    Raises:
        InvalidValueError: A shape, size or dtype that does not exist, or an empty list.
    """
    if not variants or not sides:
        raise InvalidValueError("no model shape or no input size given. Give at least one of each")
    if dtype not in DTYPES:
        raise InvalidValueError(f"unknown dtype {dtype!r}. Available dtypes: {', '.join(DTYPES)}")
    check_shapes(variants)
    cases = [Case(variant, side, threads, device, dtype) for variant in variants for side in sides]
    for case in cases:
        case.config.token_grid(case.side, case.side)  # raises for a size that the model cannot take
    return cases


def _too_large(case: Case, way: str) -> str | None:
    """Why a way does not fit into memory; None if it fits, or if the free memory is unknown."""
    available = available_memory(case.device)
    if available is None or memory_needed(case, way) < SPARE * available:
        return None
    needed, free = (tqdm.format_sizeof(size, "B") for size in (memory_needed(case, way), available))
    return f"needs about {needed}, {free} are free"


def _in_fresh_process(task: str, case: Case, arguments: Mapping[str, Any]) -> Any:
    what = f"running {case.variant} at {case.side} x {case.side}"
    order = {"task": task, "case": asdict(case), "arguments": arguments}
    return in_fresh_process("probes.bench.forward", what, order)


def _main(order: str) -> None:
    command = json.loads(order)
    case, arguments = Case(**command["case"]), command["arguments"]
    result = time_ways(case, **arguments) if command["task"] == "time" else peak(case, **arguments)
    print(json.dumps(result))


if __name__ == "__main__":
    _main(sys.argv[1])
