"""SHA-256 fingerprints of weights and tensors.

Two sets of tensors have the same fingerprint exactly if their names, types, shapes and bytes are equal. The device does
not matter. Stored runs refer to models by these digests, so the byte sequence that is hashed must not change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from .errors import UnavailableError


def fingerprint(tensors: nn.Module | Mapping[str, Tensor]) -> str:
    """Identifies the weights of a model.

    Args:
        tensors: A model, of which all parameters and buffers in its state dict count, or tensors by name. The order of
            the names does not matter.

    Returns:
        SHA-256 in hex over name, dtype, shape and bytes of every tensor, sorted by name. A quantised tensor counts by
        its integers, scales and zero points.

    Raises:
        UnavailableError: A tensor is on the meta device, e.g. because it is offloaded (also a RuntimeError).

    Example:
        >>> fingerprint(dpt.load("demo")) == fingerprint(dpt.load("demo").state_dict())
        True
    """
    named = tensors.state_dict() if isinstance(tensors, nn.Module) else tensors
    digest = hashlib.sha256()
    for name, tensor in dense_tensors(named):
        if tensor.is_meta:
            raise UnavailableError(
                f"the weights have no fingerprint: {name} holds no data. Load a model whose weights are not offloaded"
            )
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def dense_tensors(state: Mapping[str, object]) -> Iterator[tuple[str, Tensor]]:
    """Lists what a state dict holds as dense tensors, sorted by name.

    Args:
        state: Tensors by name. Quantised layers put tuples of quantised tensors, dtypes and numbers among them.

    Yields:
        (name, tensor). A dense tensor of the state dict is yielded itself.
    """
    for name, value in sorted(state.items()):
        if isinstance(value, Tensor) and value.is_quantized:
            yield f"{name}.integers", value.int_repr()
            if value.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
                yield f"{name}.scale", torch.tensor(value.q_scale(), dtype=torch.float64, device="cpu")
                yield f"{name}.zero", torch.tensor(value.q_zero_point(), dtype=torch.int64, device="cpu")
            else:
                yield f"{name}.scale", value.q_per_channel_scales()
                yield f"{name}.zero", value.q_per_channel_zero_points()
        elif isinstance(value, Tensor):
            yield name, value
        elif isinstance(value, tuple | list):
            yield from dense_tensors({f"{name}.{place:03d}": part for place, part in enumerate(value)})
        else:
            text = bytearray(repr(value), "utf-8")
            yield name, torch.frombuffer(text, dtype=torch.uint8)


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
