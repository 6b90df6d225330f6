"""Notes on the facts that a checkpoint's tensors cannot tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Fact = Literal["configuration", "version", "max_depth", "pretrained", "preprocess", "weights"]


@dataclass(frozen=True)
class Note:
    """Where one fact about a checkpoint comes from. Prints as its text.

    Attributes:
        fact: The configuration's field that the note is about; "configuration" for all fields of a file of `dpt.save`,
            "weights" for the choice among several sets of weights.
        text: One sentence for the user.
        assumed: True if the value is a guess that `dpt.load` warns about.
    """

    fact: Fact
    text: str
    assumed: bool = False

    def __str__(self) -> str:
        return self.text
