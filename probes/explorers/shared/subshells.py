"""Messages of a page reach the kernel also after the thread that answered the ones before has ended.

Problem: JupyterLab 4.4 and later send messages of widgets to a thread of their own in the kernel, a subshell, and end
it when no widget of the page is left. ipykernel 7.4 sends each message to the subshell whose message the widget
answered last, whatever the message itself names. If that one has ended, ipykernel refuses every later message of the
widget. A view then waits for ever while the kernel is idle: a page that was opened again, or the next explorer of a
cell whose former one was closed while its subshell was being made.

Approach: a widget's connection names a subshell that lives: the one that ipykernel chose, else the one that the message
names, else the main thread, which is there always.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from typing import Any


def heed_ended(comm: Any, living: Callable[[], Collection[str]] | None = None) -> None:
    """Has messages to a widget go to a subshell that lives.

    Args:
        comm: The connection of the widget. One that does not choose subshells (not ipykernel 7.4) stays as it is.
        living: Returns the subshells that live. None: those of the running kernel.
    """
    choose = getattr(comm, "_reply_subshell_for", None)
    if choose is None:
        return
    there = living or _living

    def choose_living(data: object, named: str | None) -> str | None:
        chosen = choose(data, named)
        if chosen is None:
            return None
        alive = there()
        return next((one for one in (chosen, named) if one in alive), None)

    comm._reply_subshell_for = choose_living


def _living() -> Collection[str]:
    """The subshells of the running kernel. ipykernel calls this on the thread that distributes messages."""
    kernel = sys.modules["ipykernel.kernelbase"].Kernel.instance()
    found: Collection[str] = kernel.shell_channel_thread.manager.list_subshell()
    return found
