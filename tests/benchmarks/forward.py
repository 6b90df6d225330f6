"""Forward passes, beside transformers with the same weights and beside our ONNX export in onnxruntime."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from dpt.attention import Attend
from probes.bench.measuring import peak_memory, reset_peak
from tests.models import pictures

from . import peers
from .limits import Limits
from .rounds import answer, fresh, interleaved, ratio, table


class Case(NamedTuple):
    """One of the oracle's models on one square input."""

    model: str
    side: int
    batch: int = 1


CPU = [
    *(Case("da_v2_vits", side) for side in (252, 518, 1036)),
    *(Case("da_v2_vits", side, 8) for side in (252, 518)),
    Case("da_v2_vitb", 518),
    Case("da_v2_vitl", 518),
    Case("beit_base_384", 384),
    Case("swin2_tiny_256", 256),
]
GPU = [
    *(Case("da_v2_vits", side, batch) for side in (252, 518, 1036) for batch in (1, 8)),
    *(Case("da_v2_vitl", side) for side in (252, 392, 504, 756, 1036, 1428, 1904)),
    Case("da_v2_vitl", 1036, 8),
    Case("beit_base_384", 384),
    Case("swin2_tiny_256", 256),
]
QUICK = [Case("da_v2_vits", 252)]
BASE = "transformers"  # its defaults: float32, and fused attention if the model supports it


def ways(case: Case, fast: str, device: str) -> dict[str, tuple[str, ...]]:
    """Returns (implementation, dtype, ...) of each way by its name in the table."""
    fused = "eager" if case.model.startswith("swin2") else "sdpa"  # the only one that transformers has for SwinV2
    found = {
        BASE: ("transformers", "float32", fused),
        f"transformers, {fast}": ("transformers", fast, fused),
        "ours": ("ours", "float32"),
        f"ours, {fast}": ("ours", fast),
    }
    if device == "cuda":
        found[f"ours, {fast}, compiled"] = ("ours", fast, "compile")
        found[f"ours, {fast}, CUDA graph"] = ("ours", fast, "graphs")
    if fused == "sdpa" and case.side < 1036:
        found["transformers, eager"] = ("transformers", "float32", "eager")
    if device == "cpu" and case.model in ("da_v2_vits", "beit_base_384", "swin2_tiny_256") and case.side < 1036:
        found["onnxruntime, our export"] = ("onnx", "dynamic")
        if case.batch == 1:
            found["onnxruntime, fixed size"] = ("onnx", "fixed")
    return found


def prepared(case: Case, way: tuple[str, ...], device: str) -> Callable[[], object]:
    """Loads the model of a way. Returns a function that runs it once."""
    x = pictures(case.batch, case.side // 7 * 7, case.side // 7 * 7)
    if x.shape[-1] != case.side:  # sides that are not multiples of 7
        x = torch.nn.functional.interpolate(x, (case.side, case.side), mode="bilinear")
    if way[0] == "onnx":
        fixed = (case.side, case.side) if way[1] == "fixed" else None
        session = peers.onnx(peers.ours(case.model, "float32"), case.model, fixed)
        return lambda: session(x.numpy())
    if way[0] == "ours":
        mine = peers.ours(case.model, way[1], device)
        if len(way) > 2:
            mine.compile(graphs=way[2] == "graphs")
        model: torch.nn.Module = mine
    else:
        model = peers.transformers(case.model, way[1], way[2], device)
    x = x.to(device, peers.DTYPES[way[1]])

    def run() -> object:
        with torch.no_grad():
            return model(x)

    return run


def operations(case: Case) -> float:
    """Counts the floating-point operations of one forward pass in products: torch's counter plus fused attention."""
    model, x = peers.ours(case.model, "float32"), torch.zeros(case.batch, 3, case.side, case.side)
    attention: list[float] = []

    def count(module: torch.nn.Module, args: tuple) -> None:
        q, _, v = args[:3]
        attention.append(2 * q.shape[0] * q.shape[1] * q.shape[2] ** 2 * (q.shape[3] + v.shape[3]))

    for module in model.modules():
        if isinstance(module, Attend):
            module.register_forward_pre_hook(count)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(x)
    counted = counter.get_flop_counts().get("Global", {})
    rest = sum(number for name, number in counted.items() if "attention" not in str(name))
    return rest + sum(attention)


LAYERS = (torch.nn.Linear, torch.nn.LayerNorm, torch.nn.Conv2d, torch.nn.ConvTranspose2d, Attend)


def traffic(case: Case) -> int:
    """Counts the values that one forward pass reads and writes, if each layer reads and writes everything once.

    Layers are products, convolutions, norms and attention. Operations between them (GELU, sums, resizing) are not
    counted, as if they were fused. The count is a lower bound, except for values that stay in the cache.
    """
    model, x = peers.ours(case.model, "float32"), torch.zeros(case.batch, 3, case.side, case.side)
    numbers: list[int] = []

    def count(module: torch.nn.Module, args: tuple, output: torch.Tensor) -> None:
        tensors = [*(arg for arg in args if isinstance(arg, torch.Tensor)), output, *module.parameters()]
        numbers.append(sum(tensor.numel() for tensor in tensors))

    for module in model.modules():
        if isinstance(module, LAYERS):
            module.register_forward_hook(count)
    with torch.no_grad():
        model(x)
    return sum(numbers)


def peak(case: list, way: list[str], device: str) -> int | None:
    """Runs one way once in this process. Returns its peak memory in bytes."""
    run = prepared(Case(*case), tuple(way), device)
    reset_peak(device)
    run()
    return peak_memory(device)


def report(cases: list[Case], fast: str, limits: Limits, repeats: int, device: str) -> Iterator[str]:
    """Yields the table."""
    head = ["model", "input", "way", "speed / transformers", "ms per image", "images/s"]
    head += ["share of products", "share of bandwidth", "peak MiB"]
    rows = []
    for case in cases:
        chosen = ways(case, fast, device)
        runs = {name: prepared(case, way, device) for name, way in chosen.items()}
        times = interleaved(runs, repeats)
        work, moved = operations(case), traffic(case)
        runs.clear()
        for name, way in chosen.items():
            middle = statistics.median(times[name])
            dtype = peers.DTYPES[way[1]] if way[0] != "onnx" else torch.float32
            share = f"{work / middle / limits.products[dtype]:.0%}" if dtype in limits.products else ""
            stream = f"{moved * dtype.itemsize / middle / limits.bandwidth:.0%}"
            top = fresh("tests.benchmarks.forward", "peak", case=list(case), way=list(way), device=device)
            shape = f"{case.batch} x {case.side} x {case.side}"
            each = middle / case.batch
            speed = ratio(times[BASE], times[name])
            memory = "" if top is None else f"{top / 2**20:.0f}"
            figures = (f"{speed:.2f}", f"{each * 1e3:.0f}", f"{1 / each:.2f}", share, stream, memory)
            rows.append((case.model, shape, name, *figures))
            print(*rows[-1], sep=" | ", flush=True)
    yield from table(head, rows, 3)


if __name__ == "__main__":
    answer({"peak": peak})
