"""Trouble of the machine is told from faults of a file, also behind errors that were raised from it."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest
import torch

from dpt.reading import ImageError
from dpt.trouble import is_machine_trouble, is_out_of_memory


def os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EIO, errno.ESTALE, errno.ENOSPC, errno.ETIMEDOUT])
def test_the_machine_s_errors(number: int):
    assert is_machine_trouble(os_error(number))
    assert not is_out_of_memory(os_error(number))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        os_error(errno.ENOMEM),
        OSError("out of memory error when reading image file"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 80 bytes."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    ],
)
def test_memory(error: BaseException):
    assert is_machine_trouble(error)
    assert is_out_of_memory(error)


def test_allocators_that_refuse():
    with pytest.raises(RuntimeError) as torchs:
        torch.empty(2**60, dtype=torch.uint8)
    with pytest.raises(MemoryError) as numpys:
        np.empty(2**60, np.uint8)
    assert is_out_of_memory(torchs.value)
    assert is_out_of_memory(numpys.value)


@pytest.mark.parametrize(
    "error",
    [
        ImageError("a.png is empty (0 bytes)"),
        FileNotFoundError(errno.ENOENT, "No such file"),
        PermissionError(errno.EACCES, "Permission denied"),
        OSError("image file is truncated"),
        ValueError("out of memory"),
        RuntimeError("shape mismatch"),
        KeyboardInterrupt(),
    ],
)
def test_faults_of_a_file(error: BaseException):
    assert not is_machine_trouble(error)
    assert not is_out_of_memory(error)


@pytest.mark.parametrize("cause", [os_error(errno.EMFILE), MemoryError()])
def test_the_cause_counts(cause: BaseException):
    error = ImageError("a.png cannot be decoded")
    error.__cause__ = ValueError("while decoding")
    error.__cause__.__context__ = cause
    assert is_machine_trouble(error)


def test_causes_in_a_circle_end():
    circle = ImageError("a")
    circle.__cause__ = ImageError("b")
    circle.__cause__.__cause__ = circle
    assert not is_machine_trouble(circle)
