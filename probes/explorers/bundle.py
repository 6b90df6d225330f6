"""From the modules in static/ to one piece of JavaScript, and to one page.

Problem: a widget's code reaches the browser as a single module, and a page opened from disk cannot import others; yet
one file for everything would be shared by copying. A build tool would be a second toolchain for a few hundred lines.

Approach: the modules are written as plain ES modules (node runs and tests them as they are) in a narrow dialect: named
imports from "./name.js", `export` in front of a declaration, one `export default` in the widget's own module. Joining
them is then a matter of dropping the import statements and the word `export`, dependencies first. Comments and
indentation stay behind, most line ends, and declarations that nothing reachable mentions: every widget on a page
carries its code.

Limits: all modules share one scope, so a top-level name may be used once; template literals stay on one line, so that
no line of one can be taken for code or comment; and at top level there are declarations only. `module_source` checks
all three. And every statement ends with a semicolon: lines joined without one do not parse.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

_IMPORT = re.compile(r'^import \{[^}]*\} from "\./([\w-]+\.js)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async |)(?:function|class|const|let)\b)", re.MULTILINE)
_DEFAULT = re.compile(r"^export default ", re.MULTILINE)
_COMMENT = re.compile(r"^[ ]*(?://[^\n]*|/\*.*?\*/)\n", re.MULTILINE | re.DOTALL)
_INDENT = re.compile(r"^ +", re.MULTILINE)
_LEFTOVER = re.compile(r"^(?:import|export)\b.*$", re.MULTILINE)
_DECLARED = re.compile(r"^(?:async |)(?:function\*?|class|const|let|var) ([\w$]+)", re.MULTILINE)
_TOP_LEVEL = re.compile(rf"(?:{_DECLARED.pattern}|[ )}}\]]|$)")  # a declaration begins, goes on or ends here
_BEHIND = re.compile(r"(?<=[{};,]) //[^\"'`\n]*$", re.MULTILINE)  # a comment behind code; with a quote it may be a text
_ENDED = re.compile(r"(?<=[{};,])\n+")  # line ends that a style sheet can do without
_JOINED = re.compile(r"^((?:(?!//|/\*).)*[{};,(\[])\n+", re.MULTILINE)  # and those that the code can
_WORD = re.compile(r"[\w$]+")

# Nothing may be fetched, whatever the code does: the page holds all it needs.
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
<main></main>
<script type="application/json">{data}</script>
<script type="module">
{source}
startPage(explorer(), JSON.parse(document.querySelector('script[type="application/json"]').textContent),
          document.querySelector("main"));
</script>
</body>
</html>
"""


def _static(name: str) -> str:
    return (files(__package__) / "static" / name).read_text(encoding="utf-8")


def _joined(name: str, seen: list[str]) -> str:
    """The module with what it imports in front, each once; `export default` becomes the constant `explorer`."""
    seen.append(name)
    text = _static(name)
    parts = [_joined(needed, seen) for needed in _IMPORT.findall(text) if needed not in seen]
    body = _DEFAULT.sub("const explorer = ", _EXPORT.sub("", _COMMENT.sub("", _IMPORT.sub("", text))))
    if open_end := next((line for line in body.splitlines() if line.count("`") % 2), None):
        raise ValueError(f"static/{name}: a template literal that does not end on its line: {open_end.strip()}")
    if leftover := _LEFTOVER.search(body):
        raise ValueError(f"static/{name}: cannot join {leftover.group()!r}; see the dialect in {__name__}")
    return "\n".join([*parts, body])


def _reachable(name: str, source: str, roots: tuple[str, ...]) -> str:
    """The declarations that the roots need: those that they mention, those that these mention, and so on.

    A name in a text or as a property counts as mentioned, so too much may stay, never too little.
    """
    places = [match.start() for match in _DECLARED.finditer(source)]
    pieces = [source[start:end] for start, end in itertools.pairwise([*places, len(source)])]
    if loose := next((line for line in source.splitlines() if not _TOP_LEVEL.match(line)), None):
        raise ValueError(f"static/{name} and its imports hold more than declarations at top level: {loose}")
    bodies = dict(zip(_DECLARED.findall(source), pieces, strict=True))
    needed, wanted = set[str](), [root for root in roots if root in bodies]
    while wanted:
        needed.add(found := wanted.pop())
        wanted += [word for word in set(_WORD.findall(bodies[found])) if word in bodies and word not in needed]
    return "".join(body for declared, body in bodies.items() if declared in needed)


def _checked(name: str, *roots: str) -> str:
    source = _joined(name, [])
    names = _DECLARED.findall(source)
    if twice := sorted({declared for declared in names if names.count(declared) > 1}):
        raise ValueError(f"static/{name} and its imports declare twice at top level: {', '.join(twice)}")
    return _JOINED.sub(r"\1", _BEHIND.sub("", _INDENT.sub("", _reachable(name, source, roots))))


def module_source(name: str) -> str:
    """A widget's JavaScript as one module with a default export, for anywidget's ``_esm``."""
    return _checked(name, "explorer") + "\nexport default explorer;\n"


def style_source(name: str) -> str:
    """The sheet of all explorers, and behind it those of the widget's modules, its own last: cells.js, cells.css."""
    modules: list[str] = []
    _joined(name, modules)
    own = [module.removesuffix(".js") + ".css" for module in reversed(modules)]
    sheets = ["explorer.css", *(sheet for sheet in own if (files(__package__) / "static" / sheet).is_file())]
    return "".join(_ENDED.sub("", _INDENT.sub("", _COMMENT.sub("", _static(sheet)))) for sheet in sheets)


def page(
    name: str,
    title: str,
    state: Mapping[str, Any],
    replies: Sequence[tuple[Mapping[str, Any], Mapping[str, Any], Sequence[bytes]]],
) -> str:
    """A page that runs the widget without a kernel.

    state: the widget's traits. replies: (match, message, parts) for each request that the page can answer: a request of
    the message's kind with the fields in match.
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
        style=style_source(name),
        # "<" is written as an escape: a string in the data must not end the script element.
        data=json.dumps(data, allow_nan=False).replace("<", "\\u003c"),
        source=_checked(name, "explorer", "startPage"),
    )
