"""What an explorer shows, in words: for its output in a saved notebook, and for exported pages.

explorer.summary()
Summary(title="Attention", model="Depth-Anything demo", image="photo.jpg, 560 x 420 pixels", shows="block 6 ...")
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import PurePath
from urllib.parse import unquote, urlsplit

import dpt
from dpt import TokenGrid
from dpt.printable import encodable


@dataclass(frozen=True)
class Summary:
    """What an explorer shows at one moment.

    Attributes:
        title: What kind of view it is, e.g. "Attention".
        model: The model, e.g. "Depth-Anything V2 ViT-S, demo".
        image: The image: its name, if it has one, and its size. "" for a view of weights alone.
        shows: What is on display, e.g. "block 6 of 0 to 11, patch (8, 24)".
    """

    title: str
    model: str
    image: str
    shows: str

    @property
    def heading(self) -> str:
        """Title and model, e.g. "Attention of Depth-Anything V2 ViT-S, demo"."""
        return f"{self.title}: {self.model}"

    def __str__(self) -> str:
        return ". ".join(part for part in (self.heading, self.shows, self.image) if part)


def model_words(model: dpt.DPT | None, config: dpt.Config) -> str:
    """The model in words.

    Args:
        model: The model, or None if only its configuration is known, as for a stored image.
        config: Its configuration.
    """
    title = getattr(model, "title", "") if model is not None else ""
    return str(title) or config.title


def image_words(name: str | None, size: tuple[int, ...]) -> str:
    """An image in words, e.g. "photo.jpg, 560 x 420 pixels".

    Args:
        name: The name of its file, or None.
        size: (height, width, ...).
    """
    pixels = f"{size[1]} x {size[0]} pixels"
    return f"{name}, {pixels}" if name else pixels


def name_of(image: object) -> str | None:
    """The name of an image's file. Arrays, tensors, bytes and open streams without a name have none."""
    if not isinstance(image, str | os.PathLike):
        return None
    path = os.fspath(image)
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    if path.startswith(("http://", "https://")):
        path = unquote(urlsplit(path).path)
    return encodable(PurePath(path).name) or None


def block_words(block: int, depth: int) -> str:
    """A block in words. Blocks count from 0, so "6 of 12" could be read in two ways."""
    return f"block {block} of 0 to {depth - 1}"


def token_words(grid: TokenGrid, token: int) -> str:
    """A token in words: "patch (8, 24)", "class token" or "register 1"."""
    if (patch := grid.patch(token)) is not None:
        return f"patch ({patch[0]}, {patch[1]})"
    return "class token" if token == 0 else f"register {token}"
