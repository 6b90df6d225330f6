"""Finds names whether their accents are composed (NFC, as keyboards type them) or decomposed (NFD, as on a Mac).

"é" is one character or two, and both look the same. Two names that differ only in this are one name, unless both exist:
then each stands for itself.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Container, Iterable


def composed(name: str) -> str:
    """The name with composed characters."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def decomposed(name: str) -> str:
    """The name with decomposed characters."""
    return name if name.isascii() else unicodedata.normalize("NFD", name)


class Names:
    """Looks up names in either form.

    Args:
        names: The names that exist.

    Example:
        Names(["Cafe\\u0301.jpg"]).find("Caf\\u00e9.jpg")
    """

    def __init__(self, names: Iterable[str]):
        self._exact = frozenset(names)
        self._by_composed: dict[str, list[str]] = {}
        for name in self._exact:
            if not name.isascii():
                self._by_composed.setdefault(composed(name), []).append(name)

    def find(self, name: object) -> str | None:
        """The existing name that a name means; None if there is none, or several in other forms than the given one."""
        if not isinstance(name, str):
            return None
        if name in self._exact:
            return name
        same = [] if name.isascii() else self._by_composed.get(composed(name), [])
        return same[0] if len(same) == 1 else None

    def find_among(self, name: str, others: Container[str]) -> str | None:
        """As `find`, for a name that is given with others: a name in another form is not found if it is one of them."""
        found = self.find(name)
        return found if found == name or found not in others else None


def existing_path(path: str) -> str:
    """The path as it is written on disk, if it exists with accents in the other form; else the path as given.

    Args:
        path: An absolute or relative path.
    """
    if path.isascii() or os.path.lexists(path):
        return path
    parent, name = os.path.split(path)
    if not name:
        return path
    folder = existing_path(parent) if parent else ""
    if os.path.lexists(os.path.join(folder, name)):
        return os.path.join(folder, name)
    if name.isascii():
        return path
    try:
        listed = os.listdir(folder or ".")
    except OSError:
        return path
    same = [entry for entry in listed if composed(entry) == composed(name)]
    return os.path.join(folder, same[0]) if len(same) == 1 else path
