"""What a scripted capture costs: pictures a second of `probes.run` beside the bare model, memory beside their number.

    bare        the model on tensors that are prepared beforehand, nothing captured, nothing written
    run         `probes.run`: files are read and prepared, norms and reassembly captured, parts written and synchronised
    dask N      the same on a Dask cluster of N workers on this machine

Each way does so many pictures, and then three times as many; the difference tells its speed, as starting processes is
paid once. That is reported by itself. Ways are timed in turn; a ratio is the median of the rounds'.

Memory is that of a tiny model on tiny pictures, in a fresh process for each number of pictures: what grows there is the
bookkeeping, which a large model would hide.

Limits: pictures lie in the system's cache, where they were just written. Weights are random; they change nothing.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import dpt
from dpt import DPT
from dpt.depth_anything import depth_anything

from ..errors import UnavailableError
from ..runs.run import run as capture_run
from .forward import Case, _machine, _mib, _prepare, _status

SELECTORS = ("norms", "reassembly.*")
BATCH = 4
PICTURE = (480, 640)
COUNTS = (1_000, 20_000)


def run(variant: str, side: int, pictures: int, repeats: int, threads: int | None, workers: list[int]) -> Iterator[str]:
    """Lines of a Markdown table: pictures a second."""
    case = Case(variant, side, threads) if variant != "demo" else None
    if case is not None:
        model, _ = _prepare(case)
    else:
        torch.set_num_threads(threads or torch.get_num_threads())
        model = dpt.load("demo")
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        files = _write_pictures(folder / "pictures", 3 * pictures)
        x = torch.cat([model.prepare(dpt.read_image(file), side) for file in files[:BATCH]])
        ways: dict[str, Callable[[list[Path]], None]] = {
            "bare": lambda some: _bare(model, x, len(some)),
            "run": partial(_captured, model, side, folder=folder),
        }
        for count in workers:
            client = stack.enter_context(_cluster(count))
            ways[f"dask {count}"] = partial(_captured, model, side, folder=folder, engine=client)
        ways["run"](files[:BATCH])  # warm
        seconds: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for turn in range(repeats):
            order = list(ways)[turn % len(ways) :] + list(ways)[: turn % len(ways)]
            for way in order:
                few, many = (_timed(ways[way], files[: n * pictures]) for n in (1, 3))
                seconds[way].append((few, (many - few) / (2 * pictures)))
    machine = _machine(case or Case("vits", 14, threads))
    yield f"{machine}; {variant} at {side} px, {PICTURE[1]} x {PICTURE[0]} JPEG files"
    yield f"norms and reassembly, batches of {BATCH}; medians of {repeats} interleaved rounds"
    yield ""
    yield "| way | speed / bare | pictures a second | start, s |"
    yield "| --- | --: | --: | --: |"
    for way, times in seconds.items():
        each = statistics.median(time for _, time in times)
        ratio = statistics.median(bare / mine for (_, bare), (_, mine) in zip(seconds["bare"], times, strict=True))
        start = statistics.median(few - pictures * time for few, time in times)
        yield f"| {way} | {ratio:.3f} | {1 / each:.2f} | {max(0.0, start):.1f} |"


def memory(counts: tuple[int, ...] = COUNTS) -> Iterator[str]:
    """Lines of a Markdown table: the height of memory by number of pictures."""
    yield "| pictures | peak MiB | of it by the run | decoders, MiB | pictures a second |"
    yield "| --: | --: | --: | --: | --: |"
    for count in counts:
        command = [sys.executable, "-m", "probes.bench.captures", str(count)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UnavailableError(f"measuring {count} pictures failed: {done.stderr.strip().splitlines()[-1:]}")
        found = json.loads(done.stdout)
        sizes = " | ".join(_mib(found[name]) for name in ("peak", "added", "children"))
        yield f"| {count:,} | {sizes} | {found['speed']:.0f} |"


def _write_pictures(folder: Path, count: int) -> list[Path]:
    """Different pictures with something in them, as photographs have: a few waves and noise."""
    folder.mkdir()
    random = np.random.default_rng(0)
    rows, cols = np.mgrid[: PICTURE[0], : PICTURE[1]] / 100
    files = []
    for number in range(count):
        phase = random.uniform(0, 6, (3, 2))
        waves = [np.sin(rows * (1 + channel) + a) + np.cos(cols * 2 + b) for channel, (a, b) in enumerate(phase)]
        pixels = 128 + 40 * np.stack(waves, -1) + random.normal(0, 8, (*PICTURE, 3))
        files.append(folder / f"{number:05d}.jpg")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(files[-1], quality=90)
    return files


def _bare(model: DPT, x: torch.Tensor, count: int) -> None:
    with torch.no_grad():
        for _ in range(-(-count // BATCH)):
            model(x)


def _captured(model: DPT, side: int, files: list[Path], folder: Path, engine: object = "local") -> None:
    with tempfile.TemporaryDirectory(dir=folder) as out:
        # A part a batch, so that few pictures are work for several workers.
        sizes: dict[str, Any] = {"size": side, "batch": BATCH, "part": BATCH}
        report = capture_run(
            model, files, Path(out) / "run", *SELECTORS, **sizes, engine=engine, progress=False, yes=True
        )
    if report.failures:
        raise UnavailableError(f"{len(report.failures)} pictures failed: {report.failures[0]}")


@contextmanager
def _cluster(workers: int) -> Iterator[object]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        client.run(torch.set_num_threads, max(1, torch.get_num_threads() // workers))
        yield client


def _timed(way: Callable[[list[Path]], None], files: list[Path]) -> float:
    start = time.perf_counter()
    way(files)
    return time.perf_counter() - start


def _measure(count: int) -> dict[str, float]:
    """One run of a tiny model over so many pictures of 28 x 28, in this process."""
    import resource

    torch.set_num_threads(1)
    config = depth_anything(
        variant="tiny", width=64, depth=4, reassembly_channels=(8, 8, 8, 8), fusion_channels=8, version=2
    )
    model = DPT(config).eval()
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder) / "pictures"
        pictures.mkdir()
        for number in range(count):
            pixels = random.integers(0, 256, (28, 28, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(pictures / f"{number:05d}.png")
        capture_run(model, sorted(pictures.iterdir())[:8], Path(folder) / "warm", *SELECTORS, size=28, progress=False)
        before = _status("VmRSS") or 0
        start = time.perf_counter()
        capture_run(model, pictures, Path(folder) / "run", *SELECTORS, size=28, progress=False)
        seconds = time.perf_counter() - start
    top = _status("VmHWM") or 0
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return {"peak": top, "added": top - before, "children": children, "speed": count / seconds}


if __name__ == "__main__":
    print(json.dumps(_measure(int(sys.argv[1]))))
