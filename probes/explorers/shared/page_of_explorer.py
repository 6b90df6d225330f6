"""Makes the page of an explorer: the replies to what its view will ask, a header, and a picture."""

from __future__ import annotations

import datetime
import inspect
import types
from collections.abc import Mapping
from typing import Any, TypeAlias

from . import pages
from .progress import Status, silent
from .summary import Summary

Explorer: TypeAlias = Any
"""An `AnsweringExplorer`, whose module imports this one."""


def page_of(explorer: Explorer, plan: pages.PagePlan, title: str, status: Status) -> str:
    """Answers the requests of a plan and returns a page with the replies and the widget's code.

    Args:
        explorer: Whose page it is.
        plan: What the page contains.
        title: Its title; "" for what the page shows, and the model.
        status: Shows the progress.

    Raises:
        PageTooLargeError: The plan could not be checked before, and the page is too large.
    """
    replies = []
    for n, request in enumerate(plan.requests):
        status(f"Writing the page: {n} of {len(plan.requests)} parts")
        message, parts = explorer._answer(request, silent)
        if request["kind"] in ("picture", "about"):
            message = {**message, **plan.changes}
        match = {key: value for key, value in request.items() if key != "kind"}
        replies.append((match, {**message, "kind": request["kind"]}, parts))
    values = {name: getattr(explorer, name) for name in explorer.trait_names(ui=True)}
    shown: Any = _OnPage(explorer, plan.state)
    summary = shown._summary()
    content = pages.page(
        explorer._name,
        title or summary.heading,
        {**values, **plan.state},
        replies,
        facts=_facts(summary, plan.extent, title),
        picture=shown._picture(),
        alt=f"{summary}.",
    )
    if plan.advice and len(content) > pages.PAGE_LIMIT:
        what = f"all data of the view ({summary.heading})"
        raise pages.PageTooLargeError.of(what, len(content), pages.PAGE_LIMIT, plan.advice)
    return content


class _OnPage:
    """An explorer as it would be with other traits, to describe and draw it. Its views do not notice.

    A page can start in another state than the widget, e.g. in a block that it contains.
    """

    def __init__(self, explorer: Explorer, state: Mapping[str, object]):
        self.__dict__.update(state)
        self._explorer = explorer

    def __getattr__(self, name: str) -> object:
        kind = type(self._explorer)
        found = inspect.getattr_static(kind, name, None)
        if isinstance(found, property) and found.fget:
            return found.fget(self)
        if isinstance(found, types.FunctionType):
            return found.__get__(self, kind)
        return getattr(self._explorer, name)


def _facts(summary: Summary, extent: str, title: str) -> dict[str, str]:
    """What the header of a page says below the title. `page.js` removes "shows" when the page saves itself changed."""
    return {
        "heading": summary.heading if title else "",
        "picture": f"Picture: {summary.image}" if summary.image else "",
        "shows": f"Shows: {summary.shows}" if summary.shows else "",
        "extent": extent,
        "date": f"Saved on {datetime.date.today().isoformat()}",
    }
