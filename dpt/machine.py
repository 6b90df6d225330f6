"""The capabilities of this machine that decide which code path or dtype is used."""

from __future__ import annotations

import torch

from .errors import InvalidValueError

# The oldest supported torch lacks get_capabilities. The processor then counts as having none of these capabilities.
_found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}

TILES = bool(_found.get("amx_bf16"))  # multiplies bfloat16 matrix tiles: Intel since Sapphire Rapids
DOT_PRODUCTS = bool(_found.get("avx512_bf16"))  # bfloat16 dot products: Intel since Cooper Lake, AMD since Zen 4
BFLOAT16_WITHOUT_TILES = DOT_PRODUCTS and not TILES


def checked_device(device: torch.device | str) -> torch.device:
    """Checks that a device exists on this machine.

    Args:
        device: E.g. "cpu", "cuda", "cuda:1" or "mps".

    Returns:
        The device.

    Raises:
        InvalidValueError: The device does not exist. The message lists the available ones.
    """
    backends = {"cuda": torch.cuda, "mps": torch.backends.mps, "xpu": torch.xpu}
    present = ["cpu", *(kind for kind, backend in backends.items() if backend.is_available())]
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        found = None
    if found is None or (found.type in backends and found.type not in present):
        raise InvalidValueError(f"device must be one of {', '.join(present)}, got {str(device)!r}")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise InvalidValueError(
            f"device {str(device)!r} does not exist. This machine has {torch.cuda.device_count()} CUDA devices, "
            "numbered from 0"
        )
    return found


def fast_dtype(device: torch.device | str) -> torch.dtype:
    """Returns the dtype that `dtype="auto"` stands for: the fastest one of sufficient accuracy.

    Args:
        device: Where the model runs.

    Returns:
        CPU: bfloat16 if the processor has instructions for it, else float32. CUDA: bfloat16 from compute capability 8.0
        (Ampere), else float16. Other devices: float32.
    """
    device = torch.device(device)
    if device.type == "cpu":
        return torch.bfloat16 if TILES or DOT_PRODUCTS else torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    return torch.float32
