"""What seeing attention costs: time and memory of a forward pass, three ways.

    plain       the model alone, fused attention
    captured    the same inside probes.capture(model, "attention"), for all blocks
    explicit    softmax(q k^T) v with the matrix of every block kept, as attention is usually collected

Weights are random, since neither time nor memory depends on them. Ways are timed in turn within each round, in
rotating order, so that whatever else the machine does meets all of them; a ratio is the median of the rounds' own
ratios, which a slow spell moves less than a ratio of medians. Peak memory is taken in a fresh process for each way: an
allocator keeps what it once had, and the second way would look free.

Limits: peak memory on a CPU is the resident size that Linux and macOS report, weights and torch itself included; the
column beside it is what the pass added. A way that would not fit into memory is skipped, and the table says so.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MethodType

import torch
from torch import Tensor

from dpt import DPT, DepthAnythingConfig
from dpt.attention import Attend
from dpt.depth_anything import depth_anything

from ..capture import capture
from ..errors import InvalidValueError

WAYS = ("plain", "captured", "explicit")
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
# width, blocks, channels of reassembly and fusion, as in the released models
SHAPES = {
    "vits": (384, 12, (48, 96, 192, 384), 64),
    "vitb": (768, 12, (96, 192, 384, 768), 128),
    "vitl": (1024, 24, (256, 512, 1024, 1024), 256),
    "vitg": (1536, 40, (1536, 1536, 1536, 1536), 384),
}
SPARE = 0.8  # of the free memory that a way may be expected to need


@dataclass(frozen=True)
class Case:
    """One model on one input size."""

    variant: str
    side: int
    threads: int | None = None
    device: str = "cpu"
    dtype: str = "float32"

    @property
    def config(self) -> DepthAnythingConfig:
        width, depth, reassembly, fusion = SHAPES[self.variant]
        swiglu = self.variant == "vitg"
        return depth_anything(
            variant=self.variant,
            width=width,
            depth=depth,
            reassembly_channels=reassembly,
            fusion_channels=fusion,
            hidden=4096 if swiglu else None,
            swiglu=swiglu,
        )

    @property
    def tokens(self) -> int:
        return self.config.token_grid(self.side, self.side).tokens

    @property
    def matrices(self) -> int:
        """Bytes of all attention matrices."""
        config = self.config
        return config.depth * config.heads * self.tokens**2 * DTYPES[self.dtype].itemsize

    def needs(self, way: str) -> int:
        """Bytes that a way is expected to need, roughly: weights, activations of the widest layers, what it keeps."""
        config, item = self.config, DTYPES[self.dtype].itemsize
        weights = config.depth * 12 * config.width**2 * 4
        activations = (8 * self.tokens * config.width + 2 * self.side**2 * config.fusion_channels) * item
        kept = {"plain": 0, "captured": config.depth * 3 * self.tokens * config.width * item, "explicit": self.matrices}
        one = self.matrices // config.depth  # logits beside the matrix that is made of them
        return weights + activations + kept[way] + (2 * one if way == "explicit" else 0)


@contextmanager
def explicit_attention(model: DPT) -> Iterator[list[Tensor]]:
    """Replaces fused attention by softmax(scale q k^T + bias) v, and collects the matrices (B, heads, N, N)."""
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
    """(seconds, bytes kept for the reader of attention) of one forward pass."""
    with torch.no_grad(), ExitStack() as stack:
        _synchronise(x)
        start = time.perf_counter()
        if way == "captured":
            captured = stack.enter_context(capture(model, "attention"))
        elif way == "explicit":
            matrices = stack.enter_context(explicit_attention(model))
        model(x)
        _synchronise(x)
        if way == "plain":
            return time.perf_counter() - start, 0
        stack.close()  # removing hooks belongs to the price
        seconds = time.perf_counter() - start
        kept = captured.nbytes if way == "captured" else sum(m.untyped_storage().nbytes() for m in matrices)
        return seconds, kept


def time_ways(case: Case, ways: Iterable[str], repeats: int) -> dict[str, list[float]]:
    """Seconds of every round by way, after one round to warm up."""
    ways = list(ways)
    model, x = _prepare(case)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(repeats + 1):
        start = turn % len(ways)
        for way in ways[start:] + ways[:start]:
            taken, _ = forward(model, x, way)
            if turn > 0:
                seconds[way].append(taken)
    return seconds


def peak(case: Case, way: str) -> dict[str, int | None]:
    """Bytes at the height of one forward pass, the part that the pass added, and the part still kept after it."""
    model, x = _prepare(case)
    gc.collect()
    before = _reset_peak(case.device)
    _, kept = forward(model, x, way)
    top = _peak(case.device)
    return {"peak": top, "added": None if top is None or before is None else max(0, top - before), "kept": kept}


def run(
    variants: list[str], sides: list[int], repeats: int, threads: int | None, device: str, dtype: str
) -> Iterator[str]:
    """Lines of a Markdown table, each as soon as it is known. ValueError for what cannot be run."""
    cases = [Case(variant, side, threads, device, dtype) for variant in variants for side in sides]
    _check(cases)
    yield f"{_machine(cases[0])}; {dtype}; batch 1; medians of {repeats} interleaved rounds"
    yield ""
    yield "| model | input | tokens | attention | time / plain | ms | peak MiB | of it by the pass | kept MiB |"
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
            sizes = " | ".join(_mib(memory[name]) for name in ("peak", "added", "kept"))
            yield f"{at} {ratio:.3f} | {middle:.0f} | {sizes} |"
    yield ""
    for (variant, tokens), size in kept.items():
        yield f"{variant}, {tokens} tokens: a capture keeps {size / tokens / 1024:.1f} KiB for each token"


def _prepare(case: Case) -> tuple[DPT, Tensor]:
    if case.threads is not None:
        torch.set_num_threads(case.threads)
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        model = DPT(case.config)
    model = model.to_empty(device="cpu").to(DTYPES[case.dtype])
    for parameter in model.parameters():
        # Activations of ordinary size: zeros, infinities and denormal numbers can run at another speed.
        if parameter.ndim > 1:
            parameter.data.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
        else:
            parameter.data.fill_(1)
    model = model.to(case.device).eval().requires_grad_(False)
    x = torch.randn(1, 3, case.side, case.side, generator=generator).to(case.device, DTYPES[case.dtype])
    return model, x


def _synchronise(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize()
    elif x.device.type == "mps":
        torch.mps.synchronize()


def _reset_peak(device: str) -> int | None:
    """Bytes in use now; the peak is counted from here on where the system can do that."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    if not (clear := Path("/proc/self/clear_refs")).exists():
        return None
    clear.write_text("5")  # man 5 proc: sets the peak to the current size
    return _status("VmRSS")


def _peak(device: str) -> int | None:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    if Path("/proc/self/status").exists():
        # Not getrusage: on Linux a child inherits the peak of the process that started it.
        return _status("VmHWM")
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def _available(device: str) -> int | None:
    """Bytes of memory that are free to use, or None where there is no telling."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    names = os.sysconf_names if hasattr(os, "sysconf_names") else {}
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if "SC_PHYS_PAGES" in names else None


def _too_large(case: Case, way: str) -> str | None:
    available = _available(case.device)
    if available is None or case.needs(way) < SPARE * available:
        return None
    return f"needs about {case.needs(way) / 2**30:.1f} GiB, {available / 2**30:.1f} GiB are free"


def _check(cases: list[Case]) -> None:
    if not cases:
        raise InvalidValueError("nothing to run: name at least one model and one size")
    for case in cases:
        if case.variant not in SHAPES:
            raise InvalidValueError(f"no model shape is called {case.variant!r}; there are {', '.join(SHAPES)}")
        if case.dtype not in DTYPES:
            raise InvalidValueError(f"no dtype is called {case.dtype!r}; there are {', '.join(DTYPES)}")
        case.config.token_grid(case.side, case.side)  # raises for sizes that the model cannot take
    if cases[0].device == "cuda" and not torch.cuda.is_available():
        raise InvalidValueError("torch finds no cuda device here; leave --device out to run on the CPU")


def _in_fresh_process(task: str, case: Case, arguments: dict) -> dict:
    order = json.dumps({"task": task, "case": asdict(case), "arguments": arguments})
    done = subprocess.run(
        [sys.executable, "-m", "probes.bench.forward", order], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise OSError(f"running {case.variant} at {case.side} x {case.side} failed: {last}")
    return json.loads(done.stdout)


def _machine(case: Case) -> str:
    if case.device == "cuda":
        where = torch.cuda.get_device_name()
    else:
        where = f"{_processor()}, {case.threads or torch.get_num_threads()} threads"
    return f"torch {torch.__version__}; {where}"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _mib(size: int | None) -> str:
    return "?" if size is None else f"{size / 2**20:.0f}"


def _main(order: str) -> None:
    command = json.loads(order)
    case, arguments = Case(**command["case"]), command["arguments"]
    result = time_ways(case, **arguments) if command["task"] == "time" else peak(case, **arguments)
    print(json.dumps(result))


if __name__ == "__main__":
    _main(sys.argv[1])
