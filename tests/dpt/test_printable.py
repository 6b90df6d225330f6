"""Text from outside is shown without control over the terminal, and unchanged where it is harmless."""

from __future__ import annotations

import unicodedata

import pytest

from dpt.printable import encodable, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mred", "a\\x1b[31mred"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("bell\x07 nul\x00 del\x7f", "bell\\x07 nul\\x00 del\\x7f"),
        ("c1\x9b2J", "c1\\x9b2J"),  # the one-character form of ESC [
        ("\u202egnp.exe", "\\u202egnp.exe"),  # right-to-left override
        ("\u2066a\u2069", "\\u2066a\\u2069"),  # isolates
        ("\u200e\u200f\u061c", "\\u200e\\u200f\\u061c"),  # marks of direction
        ("a\u2028b\u2029c\x85d", "a\\u2028b\\u2029c\\x85d"),  # line separators
        ("\ufeffa\u200bb", "\\ufeffa\\u200bb"),
        (b"caf\xe9".decode("utf-8", "surrogateescape"), "caf\\udce9"),
        ("\U000e0041", "\\U000e0041"),  # an invisible tag
    ],
)
def test_what_controls_the_terminal_is_spelled_out(text: str, shown: str):
    assert printable(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        unicodedata.normalize("NFC", "Übersicht é"),
        unicodedata.normalize("NFD", "Übersicht é"),
        "写真\u30001枚目.png",
        "صورة.png",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian, with a non-joiner
        "\u0915\u094d\u200d\u0937",  # Devanagari, with a joiner
        "👩\u200d🚀.jpg",
        "a\u202fb\u00a0c",  # the narrow space of macOS screenshots
        r"C:\pictures\new.png",
    ],
)
def test_names_of_all_scripts_stay_as_they_are(text: str):
    assert printable(text) == text


def test_every_character_is_safe_or_spelled_out():
    allowed = {"\u200c", "\u200d"}
    for number in range(0x110000):
        for character in printable(chr(number)):
            category = unicodedata.category(character)
            assert category not in ("Cc", "Cs", "Zl", "Zp")
            assert category != "Cf" or character in allowed


def test_long_texts_are_cut():
    assert printable("a" * 200) == "a" * 200
    assert printable("a" * 201) == "a" * 200 + "..."
    assert printable("\x1b" * 3, 2) == "\\x1b\\x1b..."


def test_names_with_surrogates_become_text_that_utf_8_can_encode():
    assert encodable("Müller 東京.png") == "Müller 東京.png"
    assert encodable("Müller 東京.png".encode().decode("ascii", "surrogateescape")) == "Müller 東京.png"
    assert encodable(b"caf\xe9.png".decode(errors="surrogateescape")) == "caf\ufffd.png"
