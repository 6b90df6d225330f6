"""Runs the benchmarks and writes RESULTS.md beside this file.

    python -m tests.benchmarks                        # everything this machine can do, about half an hour
    python -m tests.benchmarks --only forward,accuracy
    python -m tests.benchmarks --device cuda

Needs the extra `bench` (transformers, for the rows beside it) and `onnx`. Tables of parts that did not run stay as they
are in the file. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import datetime
import io
import platform
import re
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import torch

from dpt.machine import fast_dtype
from probes.bench.measuring import processor

from . import accuracy, captures, forward, limits, steps

RESULTS = Path(__file__).with_name("RESULTS.md")
PACKAGES = ("torch", "transformers", "onnxruntime", "numpy")
TITLE = "# Measured speed, memory and accuracy"
INTRODUCTION = (
    "Written by `python -m tests.benchmarks`; every row stands beside what else a user could take, from one run."
)


def every_part(device: str, repeats: int, quick: bool) -> dict[str, Callable[[], Iterator[str]]]:
    fast = str(fast_dtype(device)).removeprefix("torch.")
    types = [torch.float32] if fast == "float32" else [torch.float32, getattr(torch, fast)]
    found = cache(lambda: limits.measured(device, types))

    def machine() -> Iterator[str]:
        yield "What the shares below refer to.\n"
        yield from found().lines()

    def passes() -> Iterator[str]:
        cases = forward.QUICK if quick else forward.CPU if device == "cpu" else forward.GPU
        yield (
            "`transformers` is its default: fused attention where it has it (not SwinV2), float32, the same weights. "
            f'`ours, {fast}` is `dpt.load(..., dtype="auto")` on this machine. Share of products: operations in matrix '
            "products and convolutions, of what the machine does in large matrix products of that type. Share of "
            "bandwidth: what layers read and write at least, of what the machine copies. Peak memory of a fresh "
            "process that ran this way once, weights and libraries included.\n"
        )
        yield from forward.report(cases, fast, found(), repeats, device)

    def accurate() -> Iterator[str]:
        yield (
            f"The demo model on {len(accuracy.SEEDS)} rendered scenes of {accuracy.SIZE[1]} x {accuracy.SIZE[0]} "
            "pixels that it was not trained on; medians. Against the truth, then against its own float32.\n"
        )
        yield from accuracy.report(["float32", *({fast, "float16"} - {"float32"})], device)

    def capturing() -> Iterator[str]:
        yield (
            "Captured attention is queries and keys, from which rows are made on demand. Memory is what the pass and "
            "the capture added in a fresh process.\n"
        )
        sides = [252] if quick else [252, 518, 1036, 1428, 1904]
        yield from captures.report("da_v2_vits", sides, "float32", repeats, device)
        if device == "cuda":
            yield ""
            yield from captures.report("da_v2_vitl", [252, 392, 504, 756, 1036, 1428, 1904], "float16", repeats, device)

    def stepping() -> Iterator[str]:
        for side in [252] if quick else [518, 1036]:
            yield from steps.looks(side, repeats)
            yield ""
        yield from steps.slider(repeats)
        yield ""
        yield from steps.starts(repeats)

    def keeping() -> Iterator[str]:
        yield "Interpolated position tables and biases are kept per grid.\n"
        yield from steps.caches(repeats)

    def hovering() -> Iterator[str]:
        from tests.e2e import bench_hover, bench_open

        said = io.StringIO()
        with redirect_stdout(said):
            bench_hover.main()
        yield "`python -m tests.e2e.bench_hover`: pointer moves in headless Chromium.\n"
        yield "```text"
        yield said.getvalue().rstrip()
        yield "```\n"
        yield "`python -m tests.e2e.bench_open`: a notebook opened in JupyterLab, run, and the pointer moved.\n"
        yield from bench_open.report(repeats)

    parts = {
        "Limits of the machine": machine,
        "Forward pass": passes,
        "Accuracy of the fast types": accurate,
        "Captures": capturing,
        "Steps": stepping,
        "What is kept between pictures": keeping,
    }
    return parts if device != "cpu" or quick else {**parts, "Hover": hovering}


def about(device: str, repeats: int) -> str:
    where = torch.cuda.get_device_name() if device == "cuda" else f"{processor()}, {torch.get_num_threads()} threads"
    found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    has = [name for name in ("avx512_bf16", "amx_bf16") if found.get(name)]
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    return (
        f"{where} ({', '.join(has) or 'no bfloat16 instructions'}); Python {platform.python_version()}, {versions}; "
        f"{datetime.date.today()}. Medians of up to {repeats} interleaved rounds, also of ratios."
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("--only", default="", help="first words of parts, with commas: forward,accuracy")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, help="CPU threads; default: torch's own choice")
    parser.add_argument("--quick", action="store_true", help="one small case of each, to see that all runs")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    wanted = [word for word in options.only.lower().split(",") if word]
    every = every_part(options.device, options.repeats, options.quick)
    chosen = {t: p for t, p in every.items() if not wanted or any(t.lower().startswith(word) for word in wanted)}
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        parser.error(f"{', '.join(missing)} not installed: pip install 'dpt-workbench[onnx,bench]'")
    if not chosen:
        parser.error(f"--only {options.only} names no part; there are {', '.join(every)}")
    heading = "CPU" if options.device == "cpu" else "GPU"
    for title, part in chosen.items():
        print(f"== {title}", flush=True)
        text = "\n".join(part()).rstrip()
        replace(options.out, f"## {heading}: {title}", f"{about(options.device, options.repeats)}\n\n{text}")


def replace(path: Path, heading: str, body: str) -> None:
    """Puts a section in the place of the one of the same heading, or at the end."""
    text = path.read_text(encoding="utf-8") if path.exists() else f"{TITLE}\n\n{INTRODUCTION}\n"
    section = f"{heading}\n\n{body}\n"
    found = re.compile(rf"^{re.escape(heading)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    if found.search(text):
        text = found.sub(lambda _: section + "\n", text)
    else:
        text = f"{text.rstrip()}\n\n{section}"
    path.write_text(text.rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
