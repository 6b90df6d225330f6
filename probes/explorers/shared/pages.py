"""A widget's JavaScript and CSS, and pages that embed both.

esbuild joins the modules of each widget into ``bundles/NAME.js`` and ``bundles/NAME.css`` (see ``build.mjs``). The
built files are committed, so a clone without Node.js works. A page written by `page` holds the same script as the
notebook, with the data that a kernel would send, and requests nothing: its content policy forbids it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from types import MappingProxyType
from typing import TypeAlias, TypedDict

from tqdm import tqdm

from ...errors import InvalidValueError
from . import page_shell

PAGE_LIMIT = 100 * 2**20
"""Largest page in bytes, unless a caller allows more. Browsers open pages of this size without trouble."""

Reply: TypeAlias = tuple[Mapping[str, object], Mapping[str, object], Sequence[bytes]]
"""(match, message, binary parts): the answer to requests of the message's kind that have the fields in `match`."""


class LargerPage(TypedDict):
    """A page that the view offers beside the one it saves."""

    words: str
    """What it holds, e.g. "all 12 blocks"."""
    bytes: int
    """Its size."""
    payload: Mapping[str, object]
    """Fields of the request for it."""


@dataclass(frozen=True)
class PagePlan:
    """What a page contains, before anything is computed for it.

    Attributes:
        requests: What it must be able to answer.
        extent: Which part of the data it holds, e.g. "Block 6 of 0 to 11 (the only one saved)".
        state: Traits whose values on the page differ from those of the widget.
        changes: Fields to change in the first message, "picture" or "about".
        more: A page with more data, which the view offers.
        advice: What a user can change if the page exceeds `PAGE_LIMIT`; "" if its size was checked before.
    """

    requests: Sequence[Mapping[str, object]]
    extent: str = ""
    state: Mapping[str, object] = field(default_factory=dict)
    changes: Mapping[str, object] = field(default_factory=dict)
    more: LargerPage | None = None
    advice: str = ""


def _built(file: str) -> str:
    return (files("probes.explorers") / "bundles" / file).read_text(encoding="utf-8")


def script_of(name: str) -> str:
    """The widget's module, for anywidget's ``_esm``. name: its folder, e.g. "attention"."""
    return _built(f"{name}.js")


def style_of(name: str) -> str:
    """The widget's style sheet, for anywidget's ``_css``."""
    return _built(f"{name}.css")


class PageTooLargeError(InvalidValueError):
    """A page would exceed its limit.

    Attributes:
        size: Bytes of the page's data.
        limit: Largest number of bytes allowed.
    """

    def __init__(self, message: str, size: int = 0, limit: int = 0):
        super().__init__(message)
        self.size, self.limit = size, limit

    @classmethod
    def of(cls, contents: str, size: int, limit: int, advice: str) -> PageTooLargeError:
        """The error for a page with these contents."""
        return cls(f"a page with {contents} takes {_in_bytes(size)}, limit {_in_bytes(limit)}. {advice}", size, limit)


def check_size(contents: str, part_bytes: int, limit: int, advice: str) -> None:
    """Checks the size of a page before any work is done for it.

    Args:
        contents: What the page holds, e.g. "3 blocks of 601 tokens".
        part_bytes: Bytes of all binary parts. The page stores them in base64, which takes a third more.
        limit: Largest number of bytes allowed.
        advice: What the caller can change.

    Raises:
        PageTooLargeError: The parts exceed the limit (also a ValueError).
    """
    if (size := size_of_page(part_bytes)) > limit:
        raise PageTooLargeError.of(contents, size, limit, advice)


def size_of_page(part_bytes: int) -> int:
    """Bytes of a page whose binary parts have this size."""
    return part_bytes * 4 // 3


def size_of_code(name: str) -> int:
    """Bytes of a widget's script and style sheet, which every page of it contains."""
    return len(script_of(name)) + len(style_of(name))


def extent_words(unit: str, chosen: Sequence[int], count: int) -> str:
    """Which of several numbered things a page holds, in words.

    Args:
        unit: What they are, e.g. "block".
        chosen: Their numbers, counted from 0.
        count: How many the model has.
    """
    if len(chosen) == count:
        return f"All {count} {unit}s"
    if len(chosen) == 1:
        return f"{unit.capitalize()} {chosen[0]} of 0 to {count - 1} (the only one saved)"
    numbers = ", ".join(map(str, chosen))
    return f"{unit.capitalize()}s {numbers} of 0 to {count - 1} (no others are saved)"


def _in_bytes(size: int) -> str:
    """A size with its unit, e.g. "10B" or "48.8kiB"."""
    return f"{size}B" if size < 1000 else tqdm.format_sizeof(size, "iB", 1024)


def page(
    name: str,
    title: str,
    state: Mapping[str, object],
    replies: Sequence[Reply],
    *,
    facts: Mapping[str, str] = MappingProxyType({}),
    picture: bytes | None = None,
    alt: str = "",
) -> str:
    """One HTML page that runs a widget without a kernel or a network.

    Args:
        name: The widget's folder, e.g. "attention".
        title: The page's title.
        state: The widget's traits by name.
        replies: What the page can answer.
        facts: Lines under the title, by what they are about.
        picture: A PNG of the view, for places where scripts do not run.
        alt: What the picture shows, in words.

    Returns:
        The page's source.
    """
    data = {
        "state": state,
        "replies": [
            {"match": match, "message": message, "buffers": [base64.b64encode(part).decode("ascii") for part in parts]}
            for match, message, parts in replies
        ],
    }
    # "<" is escaped, so no string in the data can end the script element.
    text = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
    return page_shell.fill(name, title, facts, picture, alt, data=text, style=style_of(name), script=script_of(name))
