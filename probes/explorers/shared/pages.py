"""A widget's JavaScript and CSS, and pages that embed both.

esbuild joins the modules of each widget into ``bundles/NAME.js`` and ``bundles/NAME.css`` (see ``build.mjs``). The
built files are committed, so a clone without Node.js works. A page written by `page` holds the same script as the
notebook, with the data that a kernel would send, and requests nothing: its content policy forbids it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import TypeAlias

from tqdm import tqdm

from ...errors import InvalidValueError

PAGE_LIMIT = 100 * 2**20
"""Largest page in bytes, unless a caller allows more. Browsers open pages of this size without trouble."""

Reply: TypeAlias = tuple[Mapping[str, object], Mapping[str, object], Sequence[bytes]]
"""(match, message, binary parts): the answer to requests of the message's kind that have the fields in `match`."""

_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>
body {{ margin: 0 auto; padding: 20px; max-width: 1640px; background: #f6f7f9; font-family: system-ui, sans-serif; }}
@media (prefers-color-scheme: dark) {{ body {{ background: #0d0f12; }} }}
{style}
</style>
</head>
<body>
<script type="application/json" data-dptx-page="{name}">{data}</script>
<script type="module">
{script}
</script>
</body>
</html>
"""


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
    if (size := part_bytes * 4 // 3) > limit:
        raise PageTooLargeError.of(contents, size, limit, advice)


def _in_bytes(size: int) -> str:
    """A size with its unit, e.g. "10B" or "48.8kiB"."""
    return f"{size}B" if size < 1000 else tqdm.format_sizeof(size, "iB", 1024)


def page(name: str, title: str, state: Mapping[str, object], replies: Sequence[Reply]) -> str:
    """One HTML page that runs a widget without a kernel or a network.

    Args:
        name: The widget's folder, e.g. "attention".
        title: The page's title.
        state: The widget's traits by name.
        replies: What the page can answer.

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
    return _PAGE.format(
        policy=escape(_POLICY, quote=True),
        title=escape(title),
        style=style_of(name),
        name=name,
        # "<" is escaped, so no string in the data can end the script element.
        data=json.dumps(data, allow_nan=False).replace("<", "\\u003c"),
        script=script_of(name),
    )
