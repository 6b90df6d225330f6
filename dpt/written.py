"""Paths of written files, which show as links in notebooks.

    written(path)        # a Path; as the last line of a cell: tour.html (2.1 MB), a link

JupyterLab, Notebook and VS Code resolve a relative link in an output against the folder of the notebook. A kernel knows
that folder from its host, or starts in it. JupyterLab opens linked files itself, and shows an error for binary ones
that it has no viewer for; it leaves links with the attribute "download" to the browser.
"""

from __future__ import annotations

import os
import sys
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .printable import encodable

__all__ = ["written"]

_OPENED = {".csv", ".gif", ".html", ".jpeg", ".jpg", ".json", ".pdf", ".png", ".svg", ".txt"}  # by every host


class _WrittenFile(type(Path())):  # type: ignore[misc]  # PosixPath or WindowsPath: Path() has no subclasses in 3.11
    """A path that shows as a link in a notebook. Everywhere else it is a plain path, also after pickling."""

    def __repr__(self) -> str:
        return repr(Path(os.fspath(self)))

    def __reduce__(self) -> tuple[Any, ...]:
        return Path, (os.fspath(self),)

    def with_segments(self, *segments: str | os.PathLike[str]) -> Path:  # Python 3.12 and later: path / "name", parent
        return Path(*segments)

    def _repr_html_(self) -> str | None:
        try:
            if not self.is_file():
                return None  # a path derived from a written one, or a file that was deleted
            size = self.stat().st_size
        except OSError:
            return None
        href = _href(Path(os.path.abspath(self)), _notebook_folder())
        name = escape(encodable(self.name), quote=True)
        address = escape(href, quote=True)
        kind = 'target="_blank"' if self.suffix.lower() in _OPENED else f'download="{name}"'
        return f'<a href="{address}" {kind}>{name}</a> ({_size(size)})'


def written(path: Path) -> Path:
    """The same path, as a link in notebooks.

    Args:
        path: A file that was written.
    """
    return _WrittenFile(path)


def _notebook_folder() -> Path:
    """The folder of the running notebook, or else the one that the kernel started in."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    named = getattr(shell, "user_ns", {}).get("__vsc_ipynb_file__") or os.environ.get("JPY_SESSION_NAME")
    if isinstance(named, str) and os.path.isabs(named) and os.path.isdir(os.path.dirname(named)):
        return Path(named).parent
    start = getattr(shell, "starting_dir", None)
    return Path(start) if isinstance(start, str) else Path.cwd()


def _href(path: Path, folder: Path) -> str:
    """The address of a path in a page of the folder."""
    try:
        relative = os.path.relpath(path, folder)
    except ValueError:  # another drive of Windows
        return path.as_uri()
    address = quote(os.fsencode(Path(relative).as_posix()))
    return f"./{address}" if ":" in relative.split(os.sep)[0] else address


def _size(size: int) -> str:
    if size < 1000:
        return f"{size} B"
    return f"{size / 1000:.0f} kB" if size < 1e6 else f"{size / 1e6:.1f} MB"
