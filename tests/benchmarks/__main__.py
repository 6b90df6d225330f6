"""Runs the benchmarks and writes RESULTS.md beside this file.

    python -m tests.benchmarks                        # all parts that this machine can run, about half an hour
    python -m tests.benchmarks --only forward,accuracy
    python -m tests.benchmarks --device cuda

Needs the extras `bench` (transformers, to compare with) and `onnx`. The file keeps the tables of parts that did not
run. Run it while the machine does nothing else. `dpt-workbench bench suite` prints the tables instead.
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
    "Written by `python -m tests.benchmarks`. "
    "Each table compares the project with its alternatives, measured in one run."
)


def every_part(device: str, repeats: int, quick: bool) -> dict[str, Callable[[], Iterator[str]]]:
    """Returns the parts of the suite by title. Each yields the lines of its section."""
    fast = str(fast_dtype(device)).removeprefix("torch.")
    types = [torch.float32] if fast == "float32" else [torch.float32, getattr(torch, fast)]
    found = cache(lambda: limits.measured(device, types))

    def machine() -> Iterator[str]:
        yield "The shares in the tables below refer to these limits.\n"
        yield from found().lines()

    def passes() -> Iterator[str]:
        cases = forward.QUICK if quick else forward.CPU if device == "cpu" else forward.GPU
        yield (
            "`transformers` runs with its defaults and the same weights: float32, and fused attention except for "
            f'SwinV2. `ours, {fast}` is `dpt.load(..., dtype="auto")` on this machine. Share of products: operations '
            "per second in matrix products and convolutions, relative to large matrix products of that dtype. Share of "
            "bandwidth: the least that the layers must read and write per second, relative to copies of large arrays. "
            "Peak memory: of a fresh process that ran this way once, including weights and libraries.\n"
        )
        yield from forward.report(cases, fast, found(), repeats, device)

    def accurate() -> Iterator[str]:
        yield (
            f"The demo model on {len(accuracy.SEEDS)} rendered scenes of {accuracy.SIZE[1]} x {accuracy.SIZE[0]} "
            "pixels that are not in its training data. Medians; compared with the truth, then with its own float32.\n"
        )
        yield from accuracy.report(["float32", *({fast, "float16"} - {"float32"})], device)

    def capturing() -> Iterator[str]:
        yield (
            "A capture of attention keeps queries and keys and computes rows on demand. Memory is what the pass and "
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
        yield "Interpolated position tables and biases are cached per grid.\n"
        yield from steps.caches(repeats)

    def hovering() -> Iterator[str]:
        from tests.e2e import bench_hover, bench_open

        output = io.StringIO()
        with redirect_stdout(output):
            bench_hover.main()
        yield "`python -m tests.e2e.bench_hover`: pointer moves in headless Chromium.\n"
        yield "```text"
        yield output.getvalue().rstrip()
        yield "```\n"
        yield "`python -m tests.e2e.bench_open`: opening a notebook in JupyterLab, running it, moving the pointer.\n"
        yield from bench_open.report(repeats)

    parts = {
        "Limits of the machine": machine,
        "Forward pass": passes,
        "Accuracy of the fast types": accurate,
        "Captures": capturing,
        "Steps": stepping,
        "Caches between images": keeping,
    }
    return parts if device != "cpu" or quick else {**parts, "Hover": hovering}


def about(device: str, repeats: int) -> str:
    """Describes the machine, the versions and the date."""
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
    parser.add_argument(
        "--only", default="", help="first words of the parts to run, separated by commas: forward,accuracy"
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, help="CPU threads; default: chosen by torch")
    parser.add_argument(
        "--quick", action="store_true", help="run one small case per part, to check that all parts work"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    wanted = [word for word in options.only.lower().split(",") if word]
    every = every_part(options.device, options.repeats, options.quick)
    chosen = {t: p for t, p in every.items() if not wanted or any(t.lower().startswith(word) for word in wanted)}
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        parser.exit(1, f"{', '.join(missing)} not installed. Install with: pip install 'dpt-workbench[onnx,bench]'\n")
    if not chosen:
        parser.exit(2, f"--only: got {options.only!r}, expected first words of: {', '.join(every)}\n")
    heading = "CPU" if options.device == "cpu" else "GPU"
    for title, part in chosen.items():
        print(f"== {title}", flush=True)
        text = "\n".join(part()).rstrip()
        replace(options.out, f"## {heading}: {title}", f"{about(options.device, options.repeats)}\n\n{text}")


def replace(path: Path, heading: str, body: str) -> None:
    """Replaces the section with the same heading in a Markdown file, or appends it."""
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
