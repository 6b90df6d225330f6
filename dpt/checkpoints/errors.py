"""The error for checkpoints that cannot be used, and the lists of keys in its messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from ..errors import DPTError
from ..printable import printable

SHOWN = 5  # keys listed in a message before "and N more"


class CheckpointError(DPTError, ValueError):
    """A checkpoint that cannot be read safely, is damaged, or does not belong to a known model.

    Attributes:
        missing: Keys that the recognised model needs and the checkpoint lacks.
        unexpected: Keys of the checkpoint that the recognised model does not have.
        shapes: Key -> (shape found, shape expected), for tensors of the wrong shape.
        dtypes: Key -> dtype, for tensors that are not floating point.

    The four are empty unless the tensors were compared with a recognised model.
    """

    def __init__(
        self,
        message: str,
        *,
        missing: Iterable[str] = (),
        unexpected: Iterable[str] = (),
        shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] | None = None,
        dtypes: Mapping[str, torch.dtype] | None = None,
    ) -> None:
        super().__init__(message)
        self.missing = tuple(missing)
        self.unexpected = tuple(unexpected)
        self.shapes = dict(shapes or {})
        self.dtypes = dict(dtypes or {})


def short(value: object) -> str:
    """A value from a file as a message shows it: on one line and cut."""
    return printable(repr(value), 80)


def first_few(keys: Iterable[str]) -> str:
    """The first few keys and the number of the rest, on one line even if a damaged file has unprintable keys."""
    keys = list(keys)
    shown = ", ".join(printable(key) for key in keys[:SHOWN])
    return shown + (f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else "")
