"""Hooks on the modules of a model that cannot be lost, and that copies of the model do not have.

Problem. torch registers a hook and then returns the handle that removes it: an interrupt in between loses the handle,
and the hook stays for ever. Its numbers for hooks, and its flag for hooks with keyword arguments, are not safe between
threads. And ``copy.deepcopy``, ``pickle`` and ``torch.save`` copy hooks along with a module.

Approach. `Hooks` writes to the same tables as torch, in another order: first it notes where the hook will be, then it
places it. The numbers are negative, so they never meet torch's, and come from one counter. The flag is set before the
hook exists, and every hook of ours can be called without keyword arguments too. A reducer for the class of each module
with a hook leaves instances of `Hook` out of copies; copy and pickle both ask for it (`copyreg`).
"""

from __future__ import annotations

import copyreg
import itertools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, ClassVar

from torch import nn

_numbers = itertools.count(-1, -1)  # next() is atomic
_TABLES = ("_forward_hooks", "_forward_pre_hooks")
_FLAGS = ("_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs", "_forward_hooks_always_called")


class Hook:
    """A hook of this package. It is called as torch calls hooks; subclasses define ``__call__``."""

    __call__: ClassVar[Callable[..., Any]]

    def __reduce__(self) -> tuple[object, ...]:
        # Reached only if a module's class copies its hooks in its own way.
        return _Nothing, ()


class _Nothing(Hook):
    """A hook that does nothing."""

    def __call__(self, *_: object) -> None:
        pass


class Hooks:
    """The hooks of one block. `remove` removes all of them, whatever was interrupted before."""

    def __init__(self) -> None:
        self._places: list[tuple[dict[int, Any], dict[int, bool], int]] = []

    def before(self, module: nn.Module, hook: Hook, keywords: bool = False) -> None:
        """Has a hook called before a module runs, with (module, args) or, if keywords, (module, args, kwargs)."""
        self._add(module, module._forward_pre_hooks, module._forward_pre_hooks_with_kwargs, hook, keywords)

    def after(self, module: nn.Module, hook: Hook) -> None:
        """Has a hook called after a module ran, with (module, args, output)."""
        self._add(module, module._forward_hooks, module._forward_hooks_with_kwargs, hook, False)

    def _add(
        self, module: nn.Module, table: dict[int, Any], flags: dict[int, bool], hook: Hook, keywords: bool
    ) -> None:
        leave_out_of_copies(type(module))
        number = next(_numbers)
        self._places.append((table, flags, number))  # before the hook exists, so that no interrupt can lose it
        if keywords:
            flags[number] = True
        table[number] = hook

    def remove(self) -> None:
        """Removes the hooks. Can be called again after an interrupt."""
        for table, flags, number in self._places:
            table.pop(number, None)
            flags.pop(number, None)


def leave_out_of_copies(kind: type[nn.Module]) -> None:
    """Has copies and pickles of modules of a class made without instances of `Hook`."""
    copyreg.dispatch_table.setdefault(kind, _reduce)


def _reduce(module: nn.Module) -> Any:  # what __reduce_ex__ returns
    reduced: Any = module.__reduce_ex__(4)
    if not isinstance(reduced, tuple) or len(reduced) < 3 or not isinstance(reduced[2], dict):
        return reduced
    return (*reduced[:2], _without_hooks(reduced[2]), *reduced[3:])


def _without_hooks(state: dict[str, Any]) -> dict[str, Any]:
    ours = {
        number for table in _TABLES for number, hook in list(state.get(table, {}).items()) if isinstance(hook, Hook)
    }
    if not ours:
        return state
    kept = {
        table: OrderedDict((number, value) for number, value in list(state[table].items()) if number not in ours)
        for table in (*_TABLES, *_FLAGS)
        if table in state
    }
    return state | kept
