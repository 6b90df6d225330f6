"""Estimates how long a pass takes, without running one.

A pass multiplies every weight with every token once, and convolutions more often. The estimate is right within a factor
of about three, which is enough to tell a pass that delays a view from one that does not.
"""

from __future__ import annotations

import torch

import dpt

CPU_RATE = 20e9
"""Multiplications and additions per second and thread of a CPU."""

GPU_RATE = 5e12
"""The same of a GPU."""


def pass_seconds(model: dpt.DPT, grid: dpt.TokenGrid) -> float:
    """About how many seconds a pass takes.

    Args:
        model: The model.
        grid: The token grid of its input.
    """
    weights = sum(parameter.numel() for parameter in model.parameters())
    on_cpu = next(model.parameters()).device.type == "cpu"
    rate = CPU_RATE * torch.get_num_threads() if on_cpu else GPU_RATE
    return 2 * weights * grid.tokens / rate
