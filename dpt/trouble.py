"""Tells trouble of the machine from faults of a file: the same file may succeed a moment later.

A full memory, too many open files, a failing disk or a network share that went away say nothing about the image or the
checkpoint that was being read. Long jobs must not write such an error down as the fault of that file.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

_ERRNOS = frozenset(
    getattr(errno, name)
    for name in (
        "EAGAIN", "EBUSY", "ECONNABORTED", "ECONNREFUSED", "ECONNRESET", "EDQUOT", "EHOSTDOWN", "EHOSTUNREACH", "EINTR",
        "EIO", "EMFILE", "ENETDOWN", "ENETUNREACH", "ENFILE", "ENODEV", "ENOLCK", "ENOMEM", "ENOSPC", "ENOTCONN",
        "ENXIO", "EREMOTE", "EREMOTEIO", "ESHUTDOWN", "ESTALE", "ETIMEDOUT",
    )
    if hasattr(errno, name)
)  # fmt: skip
# Windows: not enough memory or quota, too many open files, network path or name gone, device not ready, I/O error
_WINERRORS = frozenset({4, 8, 14, 21, 51, 53, 55, 59, 64, 67, 121, 1117, 1450, 1455, 1816})
# Only the text tells these apart: torch raises RuntimeError, Pillow OSError without errno.
_MEMORY_WORDS = (
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "out of memory",
    "unable to allocate",
    "failed to allocate",
    "alloc_failed",  # cuBLAS and cuDNN: CUBLAS_STATUS_ALLOC_FAILED
    "invalid buffer size",  # MPS
)


def is_machine_trouble(error: BaseException) -> bool:
    """Whether an error, or one that led to it, is the machine's trouble: memory, descriptors, disk or network.

    Args:
        error: Any exception.

    Example:
        >>> is_machine_trouble(OSError(errno.EMFILE, "Too many open files"))
        True
    """
    return any(_memory(cause) or _system(cause) for cause in _chain(error))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory, of the processor or a GPU, was too short.

    Args:
        error: Any exception.

    Example:
        >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"))
        True
    """
    return any(_memory(cause) for cause in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yields an error and the errors that it was raised from."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


def _memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    if not isinstance(error, (RuntimeError, OSError)):
        return False
    text = str(error).lower()
    return type(error).__name__ == "OutOfMemoryError" or any(word in text for word in _MEMORY_WORDS)


def _system(error: BaseException) -> bool:
    number = getattr(error, "errno", None)  # FFmpeg's errors carry one and are not all OSErrors
    if isinstance(error, OSError) and getattr(error, "winerror", None) in _WINERRORS:
        return True
    return isinstance(number, int) and number in _ERRNOS
