"""Attributes of an explorer: which exist, which are computed from others, and who hears of their changes.

Python lets a program set any attribute of any object. ``explorer.colormapp = "magma"`` would therefore do nothing, and
so would an observer of a name that never changes. `KnownAttributes` refuses both, with the name that was meant.

Some public attributes follow from others: the patch from the token and the block, the image from the subject. `Derived`
makes traits of them, so they can be set, observed and linked like the others.

Limits. A subclass outside this package may set attributes of its own in its methods, unless they look like a misspelt
one. Names that it declares on the class are always accepted.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import traitlets

from ...errors import ProbeError

Value = TypeVar("Value")
OWN = ("probes", "anywidget", "ipywidgets", "traitlets", "builtins")
"""Packages whose classes declare all their public attributes."""


class UnknownAttributeError(ProbeError, AttributeError):
    """An explorer has no attribute of this name, or the attribute cannot be set."""


class Derived(traitlets.TraitType[Any, Any], Generic[Value]):
    """A trait whose value is computed from others when it is read.

    Observers hear of a change when one of the traits that it follows from changes, and the value with it.
    """

    def __init__(
        self, read: Callable[[Any], Value], write: Callable[[Any, Any], None] | None, *follows: str, help: str = ""
    ):
        """Declares the trait.

        Args:
            read: Computes the value, from the explorer.
            write: Sets the value, by setting those that it follows from. None: it cannot be set.
            *follows: Names of the traits that it follows from. Without any, the explorer notifies observers itself.
            help: What the value is.
        """
        super().__init__(help=help, read_only=write is None)
        self.read, self.write, self.follows = read, write, follows
        self.__doc__ = help

    def get(self, obj: Any, cls: Any = None) -> Value:
        return self.read(obj)

    def set(self, obj: Any, value: Any) -> None:
        assert self.write is not None
        self.write(obj, value)


class KnownAttributes(traitlets.HasTraits):
    """Base of widgets that refuse unknown attributes and notify observers of `Derived` traits."""

    _ADVICE: ClassVar[dict[str, str]] = {}
    """For public names that are no traits: what to do instead of setting or observing them."""

    # -------------------------------------------------------------------------------------------------------- unknown

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("_") and name not in self.__dict__ and not self._declares(name):
            close = self._close_to(name)
            if close or self._is_ours():
                raise self._unknown(name, close)
        found = getattr(type(self), name, None)
        if isinstance(found, property) and found.fset is None:
            raise UnknownAttributeError(f"{name} of {type(self).__name__} cannot be set. {self._advice(name)}")
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if hasattr(type(self), name):  # a property raised an AttributeError: repeat it instead of hiding it
            return object.__getattribute__(self, name)
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        raise self._unknown(name, self._close_to(name))

    def observe(self, handler: Any, names: Any = traitlets.All, type: Any = "change") -> None:  # as traitlets
        """Calls a function when attributes change.

        Args:
            handler: Called with the change: a mapping with name, old, new and owner.
            names: One name, several, or `traitlets.All`.
            type: Kind of notification.

        Raises:
            UnknownAttributeError: No such attribute, or one that is only computed when it is read.
        """
        for name in [names] if isinstance(names, str) else [] if names is traitlets.All else names:
            if isinstance(name, str) and not name.startswith("_") and not self.has_trait(name):
                if not self._declares(name):
                    raise self._unknown(name, self._close_to(name))
                raise UnknownAttributeError(
                    f"{name} of {self.__class__.__name__} cannot be observed. {self._advice(name)}"
                )
        super().observe(handler, names, type)

    def _declares(self, name: str) -> bool:
        """Whether a class of this object, a subclass of a user included, has or annotates the name."""
        kind = type(self)
        return hasattr(kind, name) or any(name in vars(base).get("__annotations__", ()) for base in kind.__mro__)

    def _is_ours(self) -> bool:
        return all(base.__module__.partition(".")[0] in OWN for base in type(self).__mro__)

    def _public(self) -> list[str]:
        """Public names that a user of the widget may mean: traits and methods of our own, not those of ipywidgets."""
        bases = [base for base in type(self).__mro__ if base.__module__.partition(".")[0] not in OWN[1:]]
        names = {name for base in bases for name in vars(base) if not name.startswith("_")}
        return sorted(names - {"notify_change", "observe", "open"})

    def _close_to(self, name: str) -> list[str]:
        return get_close_matches(name, [*self._public(), "layout"], n=1, cutoff=0.65)

    def _advice(self, name: str) -> str:
        return self._ADVICE.get(name, "It is computed when it is read")

    def _unknown(self, name: str, close: list[str]) -> UnknownAttributeError:
        hint = f" Did you mean {close[0]}?" if close else ""
        known = ", ".join(self._public())
        more = "" if self._is_ours() else f'. To add one in a subclass, declare it in the class: "{name} = None"'
        return UnknownAttributeError(
            f"{type(self).__name__} has no attribute {name}.{hint} Its attributes: {known}{more}"
        )

    # -------------------------------------------------------------------------------------------------------- derived

    def notify_change(self, change: Any) -> None:  # traitlets' Bunch
        super().notify_change(change)
        self._notify_derived(change["name"])

    def _notify_derived(self, *changed: str) -> None:
        """Notifies observers of the derived traits that follow from these, if their values have changed."""
        known: dict[str, Any] | None = self.__dict__.get("_derived")
        if known is None:  # still being created
            return
        for name, trait in self.traits().items():
            if isinstance(trait, Derived) and not set(changed).isdisjoint(trait.follows):
                before, now = known[name], trait.read(self)
                if not same(before, now):
                    known[name] = now
                    self._notify_trait(name, before, now)

    def _start_deriving(self) -> None:
        """Remembers the first values of derived traits, which observers then hear of changes to."""
        traits = self.traits().items()
        self.__dict__["_derived"] = {n: t.read(self) for n, t in traits if isinstance(t, Derived) and t.follows}


def same(one: object, other: object) -> bool:
    """Whether an attribute's value is unchanged. Arrays are compared by identity."""
    if one is other:
        return True
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray) or type(one) is not type(other):
        return False
    return bool(one == other)
