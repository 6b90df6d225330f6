"""Measures the limits of the machine: products of large matrices, and copies of large arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from .rounds import interleaved, table

SIDE = 4096
COPY = 1 << 29  # bytes, much larger than any cache


def products(dtype: torch.dtype, device: str = "cpu", side: int = SIDE) -> float:
    """Returns floating-point operations per second: the best of several products of side x side matrices."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    times = interleaved({"product": lambda: a @ b}, repeats=5)["product"]
    return 2 * side**3 / min(times)


def bandwidth(device: str = "cpu") -> float:
    """Returns bytes per second, read and written: the best of several copies."""
    source = torch.zeros(COPY // 4, device=device)
    target = torch.empty_like(source)
    times = interleaved({"copy": lambda: target.copy_(source)}, repeats=5)["copy"]
    return 2 * COPY / min(times)


class Limits(NamedTuple):
    """Measured limits of a machine."""

    products: dict[torch.dtype, float]  # floating-point operations per second, by dtype
    bandwidth: float  # bytes per second

    def lines(self) -> Iterator[str]:
        """Yields the table."""
        rows = [
            (f"matrix products, {str(dtype).removeprefix('torch.')}", f"{peak / 1e9:.0f} GFLOP/s")
            for dtype, peak in self.products.items()
        ]
        yield from table(
            ["limit", "measured"], [*rows, ("memory, read and written", f"{self.bandwidth / 1e9:.1f} GB/s")]
        )


def measured(device: str, types: list[torch.dtype]) -> Limits:
    """Measures the limits of a device."""
    return Limits({dtype: products(dtype, device) for dtype in types}, bandwidth(device))
