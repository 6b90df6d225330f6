"""Telling whether two functions would do the same: a run goes on only with what it was begun with.

Problem: `lambda x: x * 2` and `lambda x: x * 3` have one name, and so have a cell's `edited` before and after it was
changed.

Approach: a checksum of what a function is made of: its bytecode, its defaults, and the values that it closes over or
reads from its module, functions among these likewise. Formatting, comments and line numbers do not count.

    identity.sha256(lambda x: x * 2) == identity.sha256(lambda x: x * 2)    # True
    identity.sha256(lambda x: x * 2) == identity.sha256(lambda x: x * 3)    # False

Limits: bytecode differs between minor versions of Python. Of objects that are neither plain data, tensors, functions
nor modules the type counts alone; of functions that are installed with a package, their names.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import inspect
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

INSTALLED = tuple({sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib", "platstdlib")})
Seen = dict[int, Any]  # by id; the values keep ids from being given to others


def sha256(function: Callable[..., Any]) -> str:
    """64 hexadecimal digits, the same for functions that are made of the same things."""
    digest = hashlib.sha256()
    for piece in _pieces(function, {}):
        digest.update(len(piece).to_bytes(8, "big"))
        digest.update(piece)
    return digest.hexdigest()


def _pieces(value: Any, seen: Seen) -> Iterator[bytes]:
    """What a value is made of; what was seen before, and may hold itself, is not gone into again."""
    yield type(value).__qualname__.encode()
    if value is None or isinstance(value, bool | int | float | complex | str | type):
        yield repr(value).encode(errors="surrogateescape")
    elif isinstance(value, bytes):
        yield value
    elif isinstance(value, torch.Tensor):
        yield f"{value.dtype} {tuple(value.shape)}".encode()
        yield value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, np.ndarray):
        yield f"{value.dtype} {value.shape}".encode()
        yield repr(value.tolist()).encode() if value.dtype.hasobject else value.tobytes()
    elif isinstance(value, ModuleType):
        yield value.__name__.encode()
    elif id(value) not in seen:
        seen[id(value)] = value
        yield from _parts(value, seen)


def _parts(value: Any, seen: Seen) -> Iterator[bytes]:
    if isinstance(value, list | tuple):
        for item in value:
            yield from _pieces(item, seen)
    elif isinstance(value, set | frozenset):
        yield from sorted(b" ".join(_pieces(item, seen)) for item in value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _pieces(key, seen)
            yield from _pieces(item, seen)
    elif isinstance(value, CodeType):
        yield value.co_code
        yield " ".join(value.co_names + value.co_varnames + value.co_freevars).encode()
        yield from _pieces(value.co_consts, seen)
    elif isinstance(value, functools.partial):
        yield from _pieces((value.func, value.args, value.keywords), seen)
    elif inspect.ismethod(value):
        yield from _pieces((value.__func__, value.__self__), seen)
    elif isinstance(value, nn.Module):
        yield from _pieces((type(value).forward, repr(value), dict(value.state_dict())), seen)
    elif isinstance(value, FunctionType):
        yield from _function(value, seen)
    else:  # built in, or an object that can be called
        yield str(getattr(value, "__qualname__", "")).encode()
        called = [vars(parent).get("__call__") for parent in type(value).__mro__]
        yield from _pieces((called, getattr(value, "__dict__", {})), seen)


def _function(function: FunctionType, seen: Seen) -> Iterator[bytes]:
    code = function.__code__
    if code.co_filename.startswith(INSTALLED):
        yield f"{function.__module__}.{function.__qualname__}".encode()
        return
    cells = []
    for cell in function.__closure__ or ():
        try:
            cells.append(cell.cell_contents)
        except ValueError:  # not assigned yet
            cells.append(None)
    yield from _pieces((code, function.__defaults__, function.__kwdefaults__, cells), seen)
    for name in sorted(_globals(code)):
        if name in function.__globals__:
            yield name.encode()
            yield from _pieces(function.__globals__[name], seen)


def _globals(code: CodeType) -> set[str]:
    """Names that a function and those inside it read from their module."""
    found = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return found.union(*(_globals(constant) for constant in code.co_consts if isinstance(constant, CodeType)))
