"""Measures what loading a checkpoint costs: time and memory of `dpt.load` beside the usual way.

    plain       read all tensors, build the model with random weights, copy the tensors into it
    dpt.load    build the model without memory, read each parameter into its own memory
    mmap        dpt.load(..., mmap=True): use the tensors in the file as parameters

The plain way reads the original layout, from a .pth and from a .safetensors file. `dpt.load` also reads the .pth format
before PyTorch 1.6, half precision (which it converts to float32), three shards, the layout of Hugging Face
transformers, where it joins query, key and value, and a file of `dpt.save`, whose checksum it compares. It checks every
weight for NaN, and the checksums of a .pth file, so the first prediction finds every page in memory. Each measurement
is a fresh process.

Limits: the operating system still caches the files, so no disk is measured. Memory is what Linux reports; elsewhere
the columns are empty. The peak counts mapped pages, which the system can take back at any time, the same as anonymous
pages, which it cannot.
"""

from __future__ import annotations

import json
import statistics
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

from .measuring import Case, check_shapes, in_fresh_process, machine, mib, prepare, process_status, reset_peak

NAME = "depth_anything_v2"  # file name, from which dpt.load recognises the version


def _write_pth(model: DPT, folder: Path) -> Path:
    torch.save(_original(model), folder / f"{NAME}.pth")
    return folder / f"{NAME}.pth"


def _write_safetensors(model: DPT, folder: Path) -> Path:
    save_file(_original(model), folder / f"{NAME}.safetensors")
    return folder / f"{NAME}.safetensors"


def _write_legacy(model: DPT, folder: Path) -> Path:
    torch.save(_original(model), folder / f"{NAME}.pt", _use_new_zipfile_serialization=False)
    return folder / f"{NAME}.pt"


def _write_half(model: DPT, folder: Path) -> Path:
    half = {key: tensor.half() for key, tensor in _original(model).items()}
    save_file(half, folder / f"{NAME}_half.safetensors")
    return folder / f"{NAME}_half.safetensors"


def _write_shards(model: DPT, folder: Path) -> Path:
    state = _original(model)
    index: dict[str, str] = {}
    for n in range(3):
        part = dict(list(state.items())[n::3])
        save_file(part, folder / f"{NAME}-{n}.safetensors")
        index |= dict.fromkeys(part, f"{NAME}-{n}.safetensors")
    path = folder / f"{NAME}.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": index}))
    return path


def _write_transformers(model: DPT, folder: Path) -> Path:
    save_file(transformers.from_original(_original(model), "depth-anything"), folder / f"{NAME}_hf.safetensors")
    return folder / f"{NAME}_hf.safetensors"


def _write_own(model: DPT, folder: Path) -> Path:
    dpt.save(model, folder / "own.safetensors")
    return folder / "own.safetensors"


FILES: dict[str, Callable[[DPT, Path], Path]] = {
    ".pth": _write_pth,
    ".pt before 1.6": _write_legacy,
    ".safetensors": _write_safetensors,
    "float16": _write_half,
    "shards": _write_shards,
    "transformers": _write_transformers,
    "dpt.save": _write_own,
}
WAYS = [("plain", ".pth"), ("dpt.load", ".pth"), ("mmap", ".pth"), ("dpt.load", ".pt before 1.6")]
WAYS += [("plain", ".safetensors"), ("dpt.load", ".safetensors"), ("mmap", ".safetensors")]
WAYS += [("dpt.load", kind) for kind in ("float16", "shards", "transformers", "dpt.save")]


def run(variants: list[str], repeats: int, threads: int | None = None) -> Iterator[str]:
    """Runs the benchmark.

    Args:
        variants: Model shapes, keys of `measuring.SHAPES`.
        repeats: Number of processes per way.
        threads: CPU threads; None leaves torch's own choice.

    Yields:
        Lines of a Markdown table, each as soon as it is measured.

    Raises:
        InvalidValueError: An unknown shape.
        UnavailableError: A measuring process failed.
    """
    check_shapes(variants)
    yield f"{machine(Case(variants[0], 518, threads))}; float32; medians of {repeats} fresh processes"
    yield ""
    yield "| model | file | way | seconds | peak MiB | peak / weights | anonymous MiB | mapped MiB |"
    yield "| --- | --- | --- | --: | --: | --: | --: | --: |"
    for variant in variants:
        with tempfile.TemporaryDirectory() as folder:
            model, _ = prepare(Case(variant, 14, threads))
            weights = sum(t.nbytes for t in _original(model).values())
            paths = {kind: write(model, Path(folder)) for kind, write in FILES.items()}
            del model
            for way, kind in WAYS:
                runs = [_in_fresh_process(way, variant, paths[kind], threads) for _ in range(repeats)]
                seconds = statistics.median(run.seconds for run in runs)
                peak, anonymous, mapped = (_median(sizes) for sizes in zip(*(run.sizes for run in runs), strict=True))
                ratio = "?" if peak is None else f"{peak / weights:.2f}"
                sizes = f"{mib(peak)} | {ratio} | {mib(anonymous)} | {mib(mapped)}"
                yield f"| {variant}, {mib(weights)} MiB | {kind} | {way} | {seconds:.2f} | {sizes} |"


def load_by(way: str, variant: str, path: Path) -> DPT:
    """Loads a file by one of the ways."""
    return load_plainly(variant, path) if way == "plain" else dpt.load(path, mmap=way == "mmap")


def load_plainly(variant: str, path: Path) -> DPT:
    """Loads a file in the original layout the plain way.

    Args:
        variant: The model shape, a key of `measuring.SHAPES`.
        path: A .pth or .safetensors file.

    Returns:
        The model in inference mode.
    """
    state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    config = Case(variant, 14).config
    model = DPT(config)
    model.load_state_dict({key: state[theirs] for key, theirs in depth_anything.key_map(config).items()})
    return model.eval().requires_grad_(False)


class Loading(NamedTuple):
    """One measurement.

    Attributes:
        seconds: Time of loading.
        sizes: Bytes added at the peak of loading, and afterwards in anonymous and in mapped pages.
    """

    seconds: float
    sizes: list[int | None]


def measure(way: str, variant: str, path: Path) -> Loading:
    """Loads a file in this process and measures time and memory."""
    before = None
    if reset_peak("cpu") is not None:
        before = {field: process_status(field) for field in ("VmRSS", "RssAnon", "RssFile")}
    start = time.perf_counter()
    model = load_by(way, variant, path)
    seconds = time.perf_counter() - start
    sizes: list[int | None] = [None] * 3
    if before is not None:
        after = {field: process_status(field) for field in ("VmHWM", "RssAnon", "RssFile")}
        sizes = [after["VmHWM"] - before["VmRSS"], *(after[f] - before[f] for f in ("RssAnon", "RssFile"))]
    del model  # keeps the model alive until the memory is read
    return Loading(seconds, sizes)


def _original(model: DPT) -> dict[str, Tensor]:
    """The weights in the layout of the released files."""
    return depth_anything.to_original(model.state_dict(), model.config)  # type: ignore[arg-type]


def _median(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return round(statistics.median(known)) if known else None


def _in_fresh_process(way: str, variant: str, path: Path, threads: int | None) -> Loading:
    order = {"way": way, "variant": variant, "path": str(path), "threads": threads}
    return Loading(*in_fresh_process("probes.bench.loading", f"loading {path.name} of {variant}", order))


def _main(order: str) -> None:
    given = json.loads(order)
    if given["threads"] is not None:
        torch.set_num_threads(given["threads"])
    print(json.dumps(measure(given["way"], given["variant"], Path(given["path"]))))


if __name__ == "__main__":
    _main(sys.argv[1])
