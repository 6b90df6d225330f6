"""Parts that all benchmarks share: models of the released shapes, memory readings, fresh processes, table cells.

Weights are random, because neither time nor memory depends on them.

Limits: peak memory on a CPU is the resident size that Linux and macOS report. It includes weights and torch itself.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dpt import DPT, DepthAnythingConfig
from dpt.depth_anything import depth_anything

from ..errors import InvalidValueError, UnavailableError
from ..interpreter import NO_PYTHON, python_program

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

SHAPES = {
    "vits": (384, 12, (48, 96, 192, 384), 64),
    "vitb": (768, 12, (96, 192, 384, 768), 128),
    "vitl": (1024, 24, (256, 512, 1024, 1024), 256),
    "vitg": (1536, 40, (1536, 1536, 1536, 1536), 384),
}
"""Width, number of blocks, reassembly channels and fusion channels of the released models."""


@dataclass(frozen=True)
class Case:
    """One model on one square input.

    Args:
        variant: A key of `SHAPES`.
        side: Height and width of the input in pixels.
        threads: CPU threads; None leaves torch's own choice.
        device: "cpu", "cuda" or "mps".
        dtype: A key of `DTYPES`.
    """

    variant: str
    side: int
    threads: int | None = None
    device: str = "cpu"
    dtype: str = "float32"

    @property
    def config(self) -> DepthAnythingConfig:
        """The configuration of the model."""
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
        """Number of tokens, including the class token."""
        return self.config.token_grid(self.side, self.side).tokens

    @property
    def matrices(self) -> int:
        """Size of all attention matrices together, in bytes."""
        config = self.config
        return config.depth * config.heads * self.tokens**2 * DTYPES[self.dtype].itemsize


def check_shapes(variants: list[str]) -> None:
    """Raises InvalidValueError unless every name is a key of `SHAPES`."""
    for variant in variants:
        if variant not in SHAPES:
            raise InvalidValueError(f"unknown model shape {variant!r}. Available shapes: {', '.join(SHAPES)}")


def prepare(case: Case) -> tuple[DPT, Tensor]:
    """Builds the model of a case with random weights, and a random input.

    Args:
        case: The model and its input size. Its `threads` become torch's setting for this process.

    Returns:
        The model in inference mode, and an input of shape (1, 3, side, side).
    """
    if case.threads is not None:
        torch.set_num_threads(case.threads)
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        model = DPT(case.config)
    model = model.to_empty(device="cpu").to(DTYPES[case.dtype])
    for parameter in model.parameters():
        # Keeps activations at an ordinary size. Zeros, infinities and denormal numbers can run at a different speed.
        if parameter.ndim > 1:
            parameter.data.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
        else:
            parameter.data.fill_(1)
    model = model.to(case.device).eval().requires_grad_(False)
    x = torch.randn(1, 3, case.side, case.side, dtype=torch.float32, device="cpu", generator=generator)
    x = x.to(case.device, DTYPES[case.dtype])
    return model, x


def synchronise(x: Tensor) -> None:
    """Waits until the device of a tensor has finished its queue."""
    if x.is_cuda:
        torch.cuda.synchronize()
    elif x.device.type == "mps":
        torch.mps.synchronize()


# Memory


def reset_peak(device: str) -> int | None:
    """Resets the peak that `peak_memory` reports.

    Args:
        device: "cpu", "cuda" or "mps".

    Returns:
        Bytes in use now, or None if the system cannot reset its peak.
    """
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    if not (clear := Path("/proc/self/clear_refs")).exists():
        return None
    clear.write_text("5")  # man 5 proc: resets the peak to the current size
    return process_status("VmRSS")


def peak_memory(device: str) -> int | None:
    """Returns the largest number of bytes in use since `reset_peak`, or None where the system does not report it."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    if Path("/proc/self/status").exists():
        # Not getrusage: on Linux a child process inherits the peak of its parent.
        return process_status("VmHWM")
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None


def process_status(field: str) -> int:
    """Returns one field of Linux's /proc/self/status in bytes, e.g. "VmRSS" or "RssAnon"."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise UnavailableError(f"/proc/self/status has no field {field}")


def available_memory(device: str) -> int | None:
    """Returns the free memory in bytes, or None if the system does not report it."""
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


# Processes and tables


def in_fresh_process(module: str, task: str, order: Mapping[str, Any]) -> Any:
    """Runs a module of this package in a new process. An allocator keeps its memory, so peaks need fresh processes.

    Args:
        module: Name of the module. Run as a script, it must read JSON from its first argument and print JSON.
        task: Description for the error message, e.g. "loading vits".
        order: The argument.

    Returns:
        The JSON value that the module printed.

    Raises:
        UnavailableError: No process can be started, or it failed. The message ends with the last line of its stderr.
    """
    python = python_program()
    if python is None:
        raise UnavailableError(f"{task} needs a new process, but {NO_PYTHON}. Run it with the Python of an environment")
    command = [python, "-m", module, json.dumps(order)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="backslashreplace", check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UnavailableError(f"{task} failed: {last}")
    return json.loads(done.stdout)


def machine(case: Case) -> str:
    """Describes the torch version, the processor and the number of threads, or the GPU."""
    if case.device == "cuda":
        where = torch.cuda.get_device_name()
    else:
        where = f"{processor()}, {case.threads or torch.get_num_threads()} threads"
    return f"torch {torch.__version__}; {where}"


def processor() -> str:
    """Returns the name of the processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def mib(size: int | None) -> str:
    """A table cell: whole MiB without the unit, so the cells of a column compare; "?" for an unknown size."""
    return "?" if size is None else f"{size / 2**20:.0f}"
