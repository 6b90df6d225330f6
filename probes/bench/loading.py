"""What loading a checkpoint costs: time and memory of `dpt.load`, beside the plain way to load one.

    plain       read all tensors, build the model with its random weights, copy the tensors into it
    dpt.load    map the file, build without memory, make the mapped tensors the parameters

The plain way is timed with the original layout, in a .pth and a .safetensors file; dpt.load also with the layout of
Hugging Face transformers, where a quarter of the weights must be joined, and with a file of `dpt.save`, whose checksum
is compared. Weights are random; each measurement is a fresh process. `dpt.load` looks at every weight for NaN, and at
the checksums of a .pth file, so that no page is left for the first prediction to read.

Limits: files come from the system's cache, where they were just written, so that no disk is measured. Memory is what
Linux reports; elsewhere the columns stay empty. The peak counts mapped pages, which the system can take back at any
time, like anonymous ones, which it cannot.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import dpt
from dpt import DPT
from dpt.checkpoints import depth_anything, transformers

from ..errors import InvalidValueError
from .forward import SHAPES, Case, _machine, _mib, _prepare, _status

NAME = "depth_anything_v2"  # which settles the version


def _write_pth(model: DPT, folder: Path) -> Path:
    torch.save(_original(model), folder / f"{NAME}.pth")
    return folder / f"{NAME}.pth"


def _write_safetensors(model: DPT, folder: Path) -> Path:
    save_file(_original(model), folder / f"{NAME}.safetensors")
    return folder / f"{NAME}.safetensors"


def _write_transformers(model: DPT, folder: Path) -> Path:
    save_file(transformers.from_original(_original(model), "depth-anything"), folder / f"{NAME}_hf.safetensors")
    return folder / f"{NAME}_hf.safetensors"


def _write_own(model: DPT, folder: Path) -> Path:
    dpt.save(model, folder / "own.safetensors")
    return folder / "own.safetensors"


FILES: dict[str, Callable[[DPT, Path], Path]] = {
    ".pth": _write_pth,
    ".safetensors": _write_safetensors,
    "transformers": _write_transformers,
    "dpt.save": _write_own,
}
WAYS = [("plain", ".pth"), ("dpt.load", ".pth"), ("plain", ".safetensors"), ("dpt.load", ".safetensors")]
WAYS += [("dpt.load", "transformers"), ("dpt.load", "dpt.save")]


def run(variants: list[str], repeats: int, threads: int | None) -> Iterator[str]:
    """Lines of a Markdown table, each as soon as it is known. ValueError for a shape that there is none of."""
    for variant in variants:
        if variant not in SHAPES:
            raise InvalidValueError(f"no model shape is called {variant!r}; there are {', '.join(SHAPES)}")
    yield f"{_machine(Case(variants[0], 518, threads))}; float32; medians of {repeats} fresh processes"
    yield ""
    yield "| model | file | way | seconds | peak MiB | peak / weights | anonymous MiB | mapped MiB |"
    yield "| --- | --- | --- | --: | --: | --: | --: | --: |"
    for variant in variants:
        with tempfile.TemporaryDirectory() as folder:
            model, _ = _prepare(Case(variant, 14, threads))
            weights = sum(t.nbytes for t in _original(model).values())
            paths = {kind: write(model, Path(folder)) for kind, write in FILES.items()}
            del model
            for way, kind in WAYS:
                runs = [_in_fresh_process(way, variant, paths[kind], threads) for _ in range(repeats)]
                seconds = statistics.median(run.seconds for run in runs)
                peak, anonymous, mapped = (_median(sizes) for sizes in zip(*(run.sizes for run in runs), strict=True))
                ratio = "?" if peak is None else f"{peak / weights:.2f}"
                sizes = f"{_mib(peak)} | {ratio} | {_mib(anonymous)} | {_mib(mapped)}"
                yield f"| {variant}, {_mib(weights)} MiB | {kind} | {way} | {seconds:.2f} | {sizes} |"


def load_plainly(variant: str, path: Path) -> DPT:
    """The plain way, from a file in the original layout."""
    state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    config = Case(variant, 14).config
    model = DPT(config)
    model.load_state_dict({key: state[theirs] for key, theirs in depth_anything.key_map(config).items()})
    return model.eval().requires_grad_(False)


class Loading(NamedTuple):
    """One measurement: seconds, and bytes added at the height of loading, and then in anonymous and in mapped pages."""

    seconds: float
    sizes: list[int | None]


def measure(way: str, variant: str, path: Path) -> Loading:
    clear = Path("/proc/self/clear_refs")
    before = None
    if clear.exists():
        clear.write_text("5")  # man 5 proc: sets the peak to the current size
        before = {field: _status(field) for field in ("VmRSS", "RssAnon", "RssFile")}
    start = time.perf_counter()
    model = load_plainly(variant, path) if way == "plain" else dpt.load(path)
    seconds = time.perf_counter() - start
    sizes: list[int | None] = [None] * 3
    if before is not None:
        after = {field: _status(field) for field in ("VmHWM", "RssAnon", "RssFile")}
        sizes = [after["VmHWM"] - before["VmRSS"], *(after[f] - before[f] for f in ("RssAnon", "RssFile"))]
    del model  # it had to live until here
    return Loading(seconds, sizes)


def _original(model: DPT) -> dict[str, Tensor]:
    return depth_anything.to_original(model.state_dict(), model.config)  # type: ignore[arg-type]


def _median(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return round(statistics.median(known)) if known else None


def _in_fresh_process(way: str, variant: str, path: Path, threads: int | None) -> Loading:
    order = json.dumps({"way": way, "variant": variant, "path": str(path), "threads": threads})
    command = [sys.executable, "-m", "probes.bench.loading", order]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise OSError(f"loading {path.name} of {variant} failed: {last}")
    return Loading(*json.loads(done.stdout))


def _main(order: str) -> None:
    given = json.loads(order)
    if given["threads"] is not None:
        torch.set_num_threads(given["threads"])
    print(json.dumps(measure(given["way"], given["variant"], Path(given["path"]))))


if __name__ == "__main__":
    _main(sys.argv[1])
