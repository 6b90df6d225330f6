"""The parts of a model in the order of the forward pass, with the probe points and the views of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dpt import BeitConfig, Config, SwinV2Config

from .words import Words, words

VIEWS = {
    "picture": "Picture",
    "stretched": "Stretched",
    "values": "Values",
    "patches": "Patches",
    "closer": "Closer",
    "colour": "Colour",
    "channels": "Channels",
    "norm": "Norm",
    "change": "Change",
    "bias": "Bias",
    "windows": "Windows",
    "positions": "Positions",
    "class": "Class token",
    "stages": "Stages",
    "depth": "Depth",
}
"""Label of every view."""


@dataclass(frozen=True)
class Part:
    """One part of a model.

    Attributes:
        name: Name of its probe point, e.g. "fusion.2"; a name of its own if it has none or several.
        kind: Class of the part, e.g. "block" or "fusion".
        title: Label for people.
        words: Formula and explanations.
        points: Probe points of the part.
        views: Keys of `VIEWS` that the part can show, the default first.
        number: Number of the block, stage, reassembly or fusion level.
    """

    name: str
    kind: str
    title: str
    words: Words
    points: tuple[str, ...]
    views: tuple[str, ...]
    number: int = 0


def parts(config: Config) -> Iterator[Part]:
    """Lists the parts of a model.

    Args:
        config: The model's configuration.

    Yields:
        The parts in the order of the forward pass; fusion goes from coarse to fine.
    """

    def part(name: str, kind: str, title: str, views: tuple[str, ...], *points: str, number: int = 0) -> Part:
        return Part(name, kind, title, words(config, kind, number), points, views, number)

    tokens = ("colour", "channels", "norm")
    # Depth-Anything normalises the tokens of a stage, so they all have the same length.
    of_stage = tokens[:2] if config.family == "depth-anything" else tokens
    swin, bias = isinstance(config, SwinV2Config), isinstance(config, BeitConfig | SwinV2Config)
    yield part("picture", "picture", "Picture", ("picture",))
    yield part("input", "input", "Input", ("picture", "stretched", "values"))
    yield part("patches", "patches", "Patches", ("patches", "closer"))
    yield part("patch_embed", "embedding", "Embedding", ("channels", "colour", "norm"), "patch_embed")
    added = (*(("positions",) if config.family == "depth-anything" else ()), *(("class",) if config.prefix else ()))
    yield part("tokens", "tokens", "Tokens", ("colour", *added, "channels", "norm"))
    for i in range(config.depth):
        merged = i > 0 and config.block_width(i) != config.block_width(i - 1)
        views = (
            *tokens,
            *(() if merged else ("change",)),
            *(("windows",) if swin else ()),
            *(("bias",) if bias else ()),
        )
        block = f"encoder.blocks.{i}"
        points = (f"{block}.tokens", f"{block}.attention", f"{block}.heads", f"{block}.norms")
        yield part(block, "block", f"Block {i}", views, *points, number=i)
    for s in range(4):
        yield part(f"encoder.stages.{s}", "stage", f"Stage {s}", of_stage, f"encoder.stages.{s}", number=s)
    yield part("readout", "readout", "Readout", ("stages",))
    for s in range(4):
        yield part(f"reassembly.{s}", "reassembly", f"Reassembly {s}", tokens, f"reassembly.{s}", number=s)
    for s in (3, 2, 1, 0):
        yield part(f"fusion.{s}", "fusion", f"Fusion {s}", tokens, f"fusion.{s}", number=s)
    yield part("head", "head", "Head", ("channels",))
    yield part("depth", "depth", "Depth", ("depth",), "depth")
