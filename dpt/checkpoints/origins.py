"""Remembers where loaded models came from, for code that loads the same model again.

An origin is kept beside the model, not in it: copies and pickles, whose weights may be changed unseen, have none.
"""

from __future__ import annotations

import os
import weakref
from typing import Any, NamedTuple

import torch
from torch import nn


class _Origin(NamedTuple):
    code: str
    state: tuple[object, ...]


_origins: weakref.WeakKeyDictionary[nn.Module, _Origin] = weakref.WeakKeyDictionary()


def remember(model: nn.Module, source: object, arguments: dict[str, Any]) -> None:
    """Remembers the call of `load` that made a model.

    Args:
        model: The model, as it was loaded.
        source: As for `load`. A state dict leaves no trace.
        arguments: Keyword arguments of the call that differ from their defaults.
    """
    if not isinstance(source, str | os.PathLike):
        return
    text = os.fspath(source)
    expanded = os.path.expanduser(text)
    if text != "demo" and os.path.exists(expanded):
        text = os.path.abspath(expanded)
    given = "".join(f", {name}={_literal(value)}" for name, value in arguments.items())
    _origins[model] = _Origin(f"dpt.load({text!r}{given})", _state(model))


def loading_code(model: nn.Module) -> str | None:
    """Python that loads the same model, after ``import dpt, torch``. None if it is unknown or its weights have changed.

    Changes that torch does not count, through ``parameter.data``, go unnoticed.
    """
    origin = _origins.get(model)
    return origin.code if origin is not None and origin.state == _state(model) else None


def _literal(value: object) -> str:
    if isinstance(value, torch.dtype):
        return str(value)
    return repr(value) if isinstance(value, str | int | float | bool) else repr(str(value))


def _state(model: nn.Module) -> tuple[object, ...]:
    return tuple((name, tensor.dtype, str(tensor.device), tensor._version) for name, tensor in model.named_parameters())
