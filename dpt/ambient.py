"""Settings of torch that surround a pass: autocast, defaults of dtype and device, transforms that see its operations.

Results must not depend on them silently. Depth, prepared images and cached results are computed outside autocast, every
tensor is created with its dtype and device, and nothing is cached while a transform runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _get_current_dispatch_mode


def autocasts(device: torch.device | str) -> bool:
    """Tells whether torch.autocast is active for a device."""
    kind = torch.device(device).type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


def without_autocast(device: torch.device | str) -> AbstractContextManager:
    """Returns a context in which operations on a device keep their dtypes."""
    # Entering torch.autocast is an operation of a traced graph, so it is entered only where it changes something.
    return torch.autocast(torch.device(device).type, enabled=False) if autocasts(device) else nullcontext()


def transformed() -> bool:
    """Tells whether a transform sees the operations that run now.

    Such as torch.compile, torch.export, torch.jit.trace, torch.func, forward-mode derivatives, fake tensors. Tensors
    then stand for others: their values cannot be read, and must not outlive the transform.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return True
    if torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0:
        return True
    return _get_current_dispatch_mode() is not None


@contextmanager
def usual_defaults() -> Iterator[None]:
    """Sets torch's usual defaults, float32 on the CPU without autocast, for long computations with many constants.

    Also a decorator. The default dtype belongs to the whole process, other threads included.
    """
    dtype = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float32)
        with torch.device("cpu"), without_autocast("cpu"):
            yield
    finally:
        torch.set_default_dtype(dtype)
