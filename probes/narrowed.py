"""Converts captured tensors to another precision, and refuses to turn finite values into infinities.

float16 ends at 65504. Tokens of large models exceed that, and an infinity in a stored value looks like an overflow of
the model. On a GPU the counts stay on the device until `Narrowed.check`, so that converting does not wait for them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dpt.machine import checked_device as checked_by_dpt

from .errors import InvalidTypeError, InvalidValueError


def checked_dtype(dtype: object) -> torch.dtype | None:
    """Returns a dtype to convert to.

    Raises:
        InvalidTypeError: It is not a floating-point type.
    """
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise InvalidTypeError(f"dtype must be a floating-point type, e.g. torch.float16, got {dtype!r}")
    return dtype


def checked_device(device: object) -> torch.device | None:
    """Returns a device to convert to.

    Raises:
        InvalidTypeError: It is not a device or the name of one.
        InvalidValueError: There is no such device on this machine.
    """
    if device is None:
        return None
    if not isinstance(device, torch.device | str):
        raise InvalidTypeError(f"device must be a torch.device or its name, e.g. 'cpu', got {device!r}")
    try:
        return checked_by_dpt(device)
    except ValueError as error:
        raise InvalidValueError(str(error)) from None


class Narrowed:
    """Converts tensors to one dtype and device. Call `check` after the last one.

    Args:
        dtype: The dtype, or None to keep each tensor's own.
        device: The device, or None to keep each tensor's own.
    """

    def __init__(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None):
        self.dtype, self.device = dtype, device
        self._lost: list[tuple[str, Tensor]] = []

    def __call__(self, value: Tensor, name: str) -> Tensor:
        """Converts a tensor. Tensors of whole numbers keep their dtype."""
        if not value.is_floating_point():
            return value.to(device=self.device)
        new = value.to(device=self.device, dtype=self.dtype)
        if self.dtype is not None and torch.finfo(new.dtype).max < torch.finfo(value.dtype).max and value.numel():
            self._count(value.detach(), new.detach(), name)
        return new

    def _count(self, value: Tensor, new: Tensor, name: str) -> None:
        if value.device.type == "cpu":
            low, high = (float(bound) for bound in value.aminmax())
            limit = torch.finfo(new.dtype).max
            if -limit <= low and high <= limit:  # not if one of them is NaN
                return
        self._lost.append((name, new.isinf().sum().to(value.device) - value.isinf().sum()))

    def check(self, argument: str) -> None:
        """Checks that no finite value became infinite.

        Args:
            argument: Name of the argument that chose the dtype.

        Raises:
            InvalidValueError: One did. The message counts them and says what to do.
        """
        counts = [(name, int(count)) for name, count in self._lost]
        self._lost = []
        lost: dict[str, int] = {}
        for name, count in counts:
            if count:
                lost[name] = lost.get(name, 0) + count
        if not lost:
            return
        limit = torch.finfo(self.dtype).max  # type: ignore[arg-type]  # without a dtype nothing is lost
        named = ", ".join(f"{count:,} of {name}" for name, count in list(lost.items())[:4])
        raise InvalidValueError(
            f"{argument}={self.dtype} ends at {limit:.6g} and cannot hold {sum(lost.values()):,} values, which would "
            f"become infinite: {named}{', ...' if len(lost) > 4 else ''}. Use torch.float32, or torch.bfloat16, which "
            "has the range of float32 and fewer digits"
        )
