"""What the processor is good at, as far as a choice of ours depends on it."""

from __future__ import annotations

import torch

from .errors import InvalidValueError

# Newer than the oldest torch that we run on; without it nothing is known of the processor, and nothing assumed.
_found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}

TILES = bool(_found.get("amx_bf16"))  # products of bfloat16 matrices, Intel since Sapphire Rapids
DOT_PRODUCTS = bool(_found.get("avx512_bf16"))  # of bfloat16 pairs, Intel since Cooper Lake, AMD since Zen 4
BFLOAT16_WITHOUT_TILES = DOT_PRODUCTS and not TILES


def checked_device(device: torch.device | str) -> torch.device:
    """A device that is there; ValueError, naming those that are, for others."""
    backends = {"cuda": torch.cuda, "mps": torch.backends.mps, "xpu": torch.xpu}
    there = ["cpu", *(kind for kind, backend in backends.items() if backend.is_available())]
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        found = None
    if found is None or (found.type in backends and found.type not in there):
        raise InvalidValueError(f"device is {str(device)!r}; here there are {', '.join(there)}")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise InvalidValueError(
            f"device is {str(device)!r}; here there are {torch.cuda.device_count()}, counted from 0"
        )
    return found


def fast_dtype(device: torch.device | str) -> torch.dtype:
    """The type in which a device computes fastest at an accuracy that serves: what dtype="auto" stands for.

    CPU: bfloat16 where the processor multiplies it, else float32. CUDA: bfloat16 since compute capability 8.0 (Ampere),
    else float16. Elsewhere float32.
    """
    device = torch.device(device)
    if device.type == "cpu":
        return torch.bfloat16 if TILES or DOT_PRODUCTS else torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    return torch.float32
