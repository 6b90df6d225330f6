"""Measures what `probes.run` costs: images per second beside the bare model, and memory by number of images.

    bare        the model alone on prepared tensors; captures and writes nothing
    run         `probes.run`: reads and prepares files, captures norms and reassembly, writes and flushes parts
    dask N      the same on a Dask cluster of N workers on this machine

Every way processes a number of images, and then three times as many. The difference gives its speed without the start
of its processes, which the table reports in a column of its own. Ways are timed in interleaved rounds; a ratio is the
median of the ratios of the rounds.

Memory is measured with a tiny model on tiny images, in a fresh process per number of images. It shows the growth of
the bookkeeping, which a large model would hide.

Limits: the operating system still caches the image files, so no disk is measured. Weights are random.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

import dpt
from dpt import DPT
from dpt.depth_anything import depth_anything

from ..errors import UnavailableError
from ..interpreter import NO_PYTHON, python_program
from ..runs.run import run as capture_run
from .measuring import Case, check_shapes, in_fresh_process, machine, mib, prepare, process_status

if TYPE_CHECKING:
    from distributed import Client

SELECTORS = ("norms", "reassembly.*")
BATCH = 4
IMAGE_SIZE = (480, 640)
COUNTS = (1_000, 20_000)


def run(
    variant: str, side: int, images: int, repeats: int, threads: int | None = None, workers: tuple[int, ...] = ()
) -> Iterator[str]:
    """Measures images per second.

    Args:
        variant: A model shape, key of `measuring.SHAPES`, or "demo".
        side: Side of the square input in pixels.
        images: Number of images of a short run; a long one has three times as many.
        repeats: Number of rounds.
        threads: CPU threads; None leaves torch's own choice.
        workers: Also measure Dask clusters with these numbers of workers.

    Yields:
        Lines of a Markdown table.

    Raises:
        InvalidValueError: An unknown shape, or a size that the model cannot take.
    """
    if variant != "demo":
        check_shapes([variant])
        case = Case(variant, side, threads)
        case.config.token_grid(side, side)  # raises for a size that the model cannot take
        model, _ = prepare(case)
    else:
        case = Case("vits", 14, threads)  # for the description of the machine only
        torch.set_num_threads(threads or torch.get_num_threads())
        model = dpt.load("demo")
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        files = _write_images(folder / "images", 3 * images)
        x = torch.cat([model.prepare(dpt.read_image(file), side) for file in files[:BATCH]])
        ways: dict[str, Callable[[list[Path]], None]] = {
            "bare": lambda some: _bare(model, x, len(some)),
            "run": partial(_captured, model, side, folder=folder),
        }
        for count in workers:
            client = stack.enter_context(_cluster(count))
            ways[f"dask {count}"] = partial(_captured, model, side, folder=folder, engine=client)
        ways["run"](files[:BATCH])  # warm-up
        seconds: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for turn in range(repeats):
            order = list(ways)[turn % len(ways) :] + list(ways)[: turn % len(ways)]
            for way in order:
                few, many = (_timed(ways[way], files[: n * images]) for n in (1, 3))
                seconds[way].append((few, (many - few) / (2 * images)))
    yield f"{machine(case)}; {variant} at {side} px, {IMAGE_SIZE[1]} x {IMAGE_SIZE[0]} JPEG files"
    yield f"norms and reassembly, batches of {BATCH}; medians of {repeats} interleaved rounds"
    yield ""
    yield "| way | speed / bare | images per second | start, s |"
    yield "| --- | --: | --: | --: |"
    for way, times in seconds.items():
        each = statistics.median(time for _, time in times)
        ratio = statistics.median(bare / mine for (_, bare), (_, mine) in zip(seconds["bare"], times, strict=True))
        start = statistics.median(few - images * time for few, time in times)
        yield f"| {way} | {ratio:.3f} | {1 / each:.2f} | {max(0.0, start):.1f} |"


def memory(counts: tuple[int, ...] = COUNTS) -> Iterator[str]:
    """Measures the peak memory of runs over tiny images.

    Args:
        counts: Numbers of images; one run each.

    Yields:
        Lines of a Markdown table.
    """
    yield "| images | peak MiB | added by the run | decoders, MiB | images per second |"
    yield "| --: | --: | --: | --: | --: |"
    for count in counts:
        found = in_fresh_process("probes.bench.captures", f"measuring {count} images", {"count": count})
        sizes = " | ".join(mib(found[name]) for name in ("peak", "added", "children"))
        yield f"| {count:,} | {sizes} | {found['speed']:.0f} |"


def _write_images(folder: Path, count: int) -> list[Path]:
    """Different images with waves and noise, so JPEG has as much to decode as in photographs."""
    folder.mkdir()
    random = np.random.default_rng(0)
    rows, cols = np.mgrid[: IMAGE_SIZE[0], : IMAGE_SIZE[1]] / 100
    files = []
    for number in range(count):
        phase = random.uniform(0, 6, (3, 2))
        waves = [np.sin(rows * (1 + channel) + a) + np.cos(cols * 2 + b) for channel, (a, b) in enumerate(phase)]
        pixels = 128 + 40 * np.stack(waves, -1) + random.normal(0, 8, (*IMAGE_SIZE, 3))
        files.append(folder / f"{number:05d}.jpg")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(files[-1], quality=90)
    return files


def _bare(model: DPT, x: torch.Tensor, count: int) -> None:
    with torch.no_grad():
        for _ in range(-(-count // BATCH)):
            model(x)


def _captured(model: DPT, side: int, files: list[Path], folder: Path, engine: Client | str = "local") -> None:
    with tempfile.TemporaryDirectory(dir=folder) as out:
        # One part per batch, so a few images are enough work for several workers.
        sizes: dict[str, Any] = {"size": side, "batch": BATCH, "part": BATCH}
        report = capture_run(
            model, files, Path(out) / "run", *SELECTORS, **sizes, engine=engine, progress=False, yes=True
        )
    if report.failures:
        raise UnavailableError(f"{len(report.failures)} images failed: {report.failures[0]}")


@contextmanager
def _cluster(workers: int) -> Iterator[Client]:
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise UnavailableError("Dask is not installed. Install it with: pip install 'dpt-workbench[scale]'") from error
    if python_program() is None:  # the workers are new processes
        raise UnavailableError(f"Cannot start Dask workers: {NO_PYTHON}. Run it with the Python of an environment")
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
    """One run of a tiny model over `count` images of 28 x 28 pixels, in this process."""
    import resource

    torch.set_num_threads(1)
    config = depth_anything(
        variant="tiny", width=64, depth=4, reassembly_channels=(8, 8, 8, 8), fusion_channels=8, version=2
    )
    model = DPT(config).eval()
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        images.mkdir()
        for number in range(count):
            pixels = random.integers(0, 256, (28, 28, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(images / f"{number:05d}.png")
        capture_run(model, sorted(images.iterdir())[:8], Path(folder) / "warm", *SELECTORS, size=28, progress=False)
        before = process_status("VmRSS")
        start = time.perf_counter()
        capture_run(model, images, Path(folder) / "run", *SELECTORS, size=28, progress=False)
        seconds = time.perf_counter() - start
    top = process_status("VmHWM")
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return {"peak": top, "added": top - before, "children": children, "speed": count / seconds}


if __name__ == "__main__":
    print(json.dumps(_measure(**json.loads(sys.argv[1]))))
