"""How an explorer ends: by `close`, when nobody can see it any more, or with the kernel.

`lifetime` decides how long the kernel keeps an explorer, and which pages show it. `Living` follows: it frees what can
be computed again as soon as no page shows the explorer, and refuses to be used after `close`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, SupportsIndex

import anywidget

from ...errors import InvalidTypeError, UnavailableError
from . import lifetime, saved
from .attributes import KnownAttributes
from .pictured import Pictured
from .subshells import heed_ended

_FREED = ("_subject", "_model", "_attention", "_maps", "_others", "_box")
"""Attributes of explorers that `close` frees."""


class Living(KnownAttributes, Pictured, anywidget.AnyWidget):
    """Base of widgets that live as long as a cell shows them or somebody holds them.

    A subclass overrides `_stop`, and `_free` and `_forget` if it keeps what can be computed again.
    """

    _closed = False

    def __init__(self, **traits: object):
        super().__init__(**traits)
        self._viewers = lifetime.Viewers()
        lifetime.hold_weakly(self)
        saved.describe_boxes()

    def close(self) -> None:
        """Removes the explorer from all cells and frees its model, image and captures. It cannot be used afterwards."""
        super().close()
        self._stop("The explorer was closed")
        if not self._closed:
            self._free()
        for name in (*_FREED, "_repr_mimebundle_", "_derived"):  # ipywidgets would say that None is not callable
            self.__dict__.pop(name, None)
        self._closed = True

    def open(self) -> None:
        """Connects the explorer to its views. ipywidgets calls this once."""
        self._check_open()
        super().open()
        heed_ended(self.comm)

    def _check_open(self) -> None:
        """Refuses to go on after `close`."""
        if self._closed:
            raise UnavailableError(f"This {type(self).__name__} was closed. Create a new one")

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise InvalidTypeError(
            f"{type(self).__name__} cannot be copied or pickled: it belongs to its views. Create another one of "
            "the same model, with the controls as keyword arguments"
        )

    def __copy__(self) -> NoReturn:
        self.__reduce_ex__(2)

    def __deepcopy__(self, memo: object) -> NoReturn:
        self.__reduce_ex__(2)

    def __del__(self) -> None:
        if not lifetime.is_ending():
            super().close()  # tells the views; what this explorer opened may be in use elsewhere

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("_") and name != "comm" and self.has_trait(name):
            self._check_open()
        super().__setattr__(name, value)

    if not TYPE_CHECKING:  # a type checker would accept any attribute

        def __getattr__(self, name: str) -> Any:
            if name in _FREED:
                self._check_open()
            return super().__getattr__(name)

    def _stop(self, why: str) -> None:
        """Ends what the explorer is doing."""

    def _free(self) -> None:
        """Frees what can be computed again. A view may still show former values: new ones must belong to them."""

    def _forget(self) -> None:
        """Frees what can be computed again, and starts over: no view shows anything."""

    def _retain(self) -> None:
        """Called when a cell shows the explorer."""
        lifetime.hold(self)

    def _release(self) -> None:
        """Called when no cell shows the explorer any more."""
        lifetime.hold_weakly(self)
        self._stop("No cell shows this explorer any more")
        self._let_go()

    def _let_go(self) -> None:
        if self._closed:  # it has nothing any more
            return
        if self._viewers:
            self._free()
        else:
            self._forget()

    def _count_views(self, client: object, count: object) -> None:
        """Notes how many views a page has. The last page that has none any more has the explorer free what it can."""
        if self._viewers.note(client, count, self.send) and not self._closed:
            self._stop("No page shows this explorer any more")
            self._forget()

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:  # as anywidget
        self._check_open()
        lifetime.note_shown(self)
        return saved.output(self, super()._repr_mimebundle_(**kwargs))
