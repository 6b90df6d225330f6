"""How long the kernel keeps an explorer: as long as somebody can see it or holds it.

Problem. ipywidgets registers every widget for good, so an explorer that was only created keeps its image, its captures
and its model. The opposite is as bad: the variable of an explorer is often reassigned while a cell still shows it.

Captures are a matter of their own: IPython keeps every explorer that a cell ended with in ``Out``, and users keep them
in variables. What can be computed again goes as soon as no page shows it (`Viewers`), whoever holds the explorer.

Approach. The registry and the connection to the views refer to an explorer weakly at first, and strongly from the
moment it is shown. When a cell is run again, its former output is gone: what only this cell showed is held weakly
again, and forgets what it can compute again. ``close()`` frees everything at once.

Limits. A cell is known by the name that JupyterLab, Notebook 7 and VS Code send. Elsewhere, and if a cell is deleted
or no longer shows an explorer, call ``close()``. IPython keeps results of cells in ``Out``, and with them explorers.
"""

from __future__ import annotations

import atexit
import gc
import time
import weakref
from collections.abc import Callable
from typing import Any

from ipywidgets.widgets import widget as registry_of

PATIENCE = 5.0  # seconds that a page has to say that it is still there

_ending = False
_cells: dict[str, tuple[str, weakref.WeakSet[Any]]] = {}  # cell -> (its last execution, what that showed)


def hold_weakly(widget: Any) -> None:
    """Lets a widget go when nobody else holds it. Its views work until then."""
    if widget.comm is None:  # closed
        return
    reference = weakref.ref(widget)

    def pass_on(message: dict[str, Any]) -> None:
        if (found := reference()) is not None:
            found._handle_msg(message)

    registry_of._instances[widget.model_id] = weakref.proxy(widget)
    widget.comm.on_msg(pass_on)


def hold(widget: Any) -> None:
    """Keeps a widget until it is closed, as ipywidgets does."""
    if widget.comm is None:
        return
    registry_of._instances[widget.model_id] = widget
    widget.comm.on_msg(widget._handle_msg)


def note_shown(explorer: Any) -> None:
    """Keeps an explorer that a cell shows. Lets go of those that an earlier execution of the same cell showed.

    Args:
        explorer: An explorer with a method ``_release``, which is called when no cell shows it any more.
    """
    explorer._retain()
    cell, execution = current_cell()
    if cell is None:
        return
    before, shown = _cells.get(cell, ("", weakref.WeakSet()))
    if before != execution:
        former, shown = shown, weakref.WeakSet()
        _cells[cell] = execution, shown
        elsewhere = [there for _, there in _cells.values()]
        gone = [other for other in former if other is not explorer and not any(other in there for there in elsewhere)]
        for other in gone:
            other._release()
        if gone:
            del other, gone
            gc.collect()  # widgets are parts of cycles; a page must hear at once that they are gone, not after a reload
    shown.add(explorer)


class Viewers:
    """The pages that show an explorer.

    Each page says when its first view appears and when its last one is gone. A page that was closed or reloaded may be
    unable to say so. When another page appears, all pages are asked to say it again; those that have not answered until
    the next page goes are taken for closed. Until then, the bound of `moments` limits what they keep alive.
    """

    def __init__(self) -> None:
        self._pages: dict[object, float | None] = {}  # page -> when it was asked; None if it has answered

    def note(self, page: object, count: object, send: Callable[[dict[str, object]], None]) -> bool:
        """Takes a message of a page.

        Args:
            page: The page.
            count: The number of its views.
            send: Sends a message to all pages.

        Returns:
            Whether the last page is gone now.
        """
        now = time.monotonic()
        if count:
            if page not in self._pages and self._pages:
                self._pages = dict.fromkeys(self._pages, now)
                send({"kind": "count views"})
            self._pages[page] = None
            return False
        if self._pages.pop(page, 0.0) == 0.0:
            return False
        self._pages = {one: asked for one, asked in self._pages.items() if asked is None or now - asked < PATIENCE}
        return not self._pages

    def __len__(self) -> int:
        return len(self._pages)


def is_ending() -> bool:
    """Whether the kernel ends. Its pages then no longer know its explorers."""
    return _ending


@atexit.register  # runs before IPython deletes the variables of the user, which it registered earlier
def _end() -> None:
    global _ending
    _ending = True


def is_unattended() -> bool:
    """Whether a program runs the notebook (nbclient, nbconvert, papermill): nobody could answer `input()`."""
    try:
        from IPython import get_ipython

        return get_ipython().get_parent()["content"].get("allow_stdin") is False
    except (ImportError, AttributeError, KeyError, TypeError):  # no notebook
        return False


def current_cell() -> tuple[str | None, str]:
    """(identity of the cell that is running, identity of this execution). None if the front end does not send it."""
    try:
        from IPython import get_ipython

        parent = get_ipython().get_parent()
        cell = parent["metadata"].get("cellId")
        return (str(cell) if cell else None), str(parent["header"]["msg_id"])
    except (ImportError, AttributeError, KeyError, TypeError):  # no notebook
        return None, ""
