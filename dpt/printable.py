"""Makes text from outside safe to show: names of files, keys of checkpoints, messages of other libraries.

Problem. A file name may hold escape sequences, a bell, a line feed or a character that reverses the direction of the
text. Printed as they are, they control the terminal or forge lines of our own.

Approach. Such characters are spelled out (``\\x1b``). Letters of all scripts stay as they are, composed or decomposed,
and so do spaces and the joiners that emoji and several scripts need.
"""

from __future__ import annotations

import unicodedata

_JOINERS = "\u200c\u200d"  # zero width (non-)joiner: part of words in Persian and Indic scripts, and of emoji


def printable(text: str, longest: int = 200) -> str:
    """Returns the text as one line without control characters, cut to a length that fits a message.

    Args:
        text: Any string, also with surrogates from undecodable file names.
        longest: Number of characters of `text` that are shown before "...".

    Returns:
        The text, with control characters, line feeds, surrogates, unassigned characters and characters that change the
        direction of text spelled out.

    Example:
        >>> printable("depth\\x1b[2J.png")
        'depth\\\\x1b[2J.png'
    """
    shown = "".join(c if is_printable(c) else ascii(c)[1:-1] for c in text[:longest])
    return shown if len(text) <= longest else f"{shown}..."


def encodable(text: str) -> str:
    """Returns a file's name as text that UTF-8 can encode: for files that hold it, and for messages to a browser.

    Python reads bytes of a name that are not UTF-8, and under ``LC_ALL=C`` all bytes above 127, as lone surrogates.

    Args:
        text: The name as `os` functions return it.

    Returns:
        The text with its surrogates decoded as UTF-8 where they are, or else replaced by U+FFFD.
    """
    return text.encode(errors="surrogateescape").decode(errors="replace")


def is_printable(character: str) -> bool:
    """Whether one character can be shown as it is."""
    return character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs"
