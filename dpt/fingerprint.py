"""SHA-256 fingerprints of weights and tensors.

Two sets of tensors have the same fingerprint exactly if their names, types, shapes and bytes are equal. The device does
not matter. Stored runs refer to models by these digests, so the byte sequence that is hashed must not change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn


def fingerprint(tensors: nn.Module | Mapping[str, Tensor]) -> str:
    """Identifies the weights of a model.

    Args:
        tensors: A model, of which all parameters and buffers in its state dict count, or tensors by name. The order of
            the names does not matter.

    Returns:
        SHA-256 in hex over name, dtype, shape and bytes of every tensor, sorted by name.

    Example:
        >>> fingerprint(dpt.load("demo")) == fingerprint(dpt.load("demo").state_dict())
        True
    """
    named = tensors.state_dict() if isinstance(tensors, nn.Module) else tensors
    digest = hashlib.sha256()
    for name, tensor in sorted(named.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def tensor_fingerprint(tensor: Tensor) -> str:
    """Identifies the values of one tensor.

    Args:
        tensor: Any shape, dtype and device.

    Returns:
        SHA-256 in hex over the bytes alone. Reshaping a contiguous tensor keeps it.
    """
    return hashlib.sha256(_bytes(tensor)).hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().view(-1)  # view(dtype) needs a last axis, which a scalar lacks
    return flat.view(torch.uint8).numpy().data
