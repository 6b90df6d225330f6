"""Settings of torch that surround a pass: autocast, and transforms that see its operations.

Results must not depend on them silently. Depth, prepared images and cached results are therefore computed outside
autocast, and nothing is cached while a transform runs.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

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
