"""What can be asked of a module whatever it was replaced by: an adapter, a quantised or an offloaded layer.

Such modules may have no `weight`, one that is no tensor, or one without data between their calls. Code in this package
therefore calls modules and does not read their weights. Where it needs to know their dtype or kind, it asks here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn


def within(module: nn.Module, without: str = "") -> Iterator[nn.Module]:
    """Lists all modules inside a module, each once, but not the module itself.

    Args:
        module: Any module.
        without: Name of a child that is left out, with all modules inside it.
    """
    left: list[nn.Module | None] = [child for name, child in module._modules.items() if name != without]
    seen: set[int] = set()
    while left:  # faster than nn.Module.modules, which compares names
        child = left.pop()
        if child is not None and id(child) not in seen:
            seen.add(id(child))
            yield child
            left += child._modules.values()


def hooked(modules: Iterable[nn.Module]) -> bool:
    """Tells whether any of the modules has hooks, or all modules have global ones."""
    if nn.modules.module._has_any_global_hook():
        return True
    return any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks for m in modules)


def is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Tells whether a call of a module depends on nothing but its parameters and its input.

    Args:
        module: The module.
        kind: The class that the model was built with. Adapters, quantised layers and parametrized ones have others.
    """
    return type(module) is kind and "forward" not in vars(module) and not hooked((module,))


def tensors_of(module: nn.Module) -> Iterator[Tensor]:
    """Lists all parameters, then all buffers."""
    yield from module.parameters()
    yield from module.buffers()


def float_dtype(module: nn.Module) -> torch.dtype:
    """Returns the dtype that a module computes in: of its first floating-point tensor, else float32.

    Quantised layers keep their weights outside the module's parameters, or as integers, and take float32.
    """
    return next((t.dtype for t in tensors_of(module) if t.is_floating_point()), torch.float32)


def input_device(module: nn.Module, whole: nn.Module) -> torch.device:
    """Returns the device on which a module expects its input.

    Args:
        module: The module.
        whole: The model that contains it.

    Returns:
        The device of the first tensor of the module, else of the model, that holds data. Offloaded weights hold none
        between calls; the hooks that bring them move the input, too. If no tensor holds data, the CPU for an offloaded
        model, and "meta" for one that was made without data.
    """
    first: Tensor | None = None
    for part in (module, whole):
        for tensor in tensors_of(part):
            if not tensor.is_meta:
                return tensor.device
            first = tensor
    return torch.device("cpu") if first is None or moves_input(whole) else first.device


def moves_input(module: nn.Module) -> bool:
    """Tells whether a module may move its input itself: by a hook that runs before it, or a replaced `forward`."""
    return any("forward" in vars(part) or part._forward_pre_hooks for part in (module, *within(module)))
