"""The text of the tour: for each part a formula, its purpose, and what is specific to the model's family.

Symbols in formulas: N is the number of patches, x are tokens, r reassembled maps and f fused maps.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

from dpt import BeitConfig, Config, DepthAnythingConfig, SwinV2Config


class Words(NamedTuple):
    """The text about one part.

    Attributes:
        formula: What the part computes.
        why: The purpose of the part.
        family: What this family does differently from others; may be empty.
    """

    formula: str
    why: str
    family: str = ""


def words(config: Config, kind: str, number: int = 0) -> Words:
    """Returns the text about a part.

    Args:
        config: The model's configuration.
        kind: Kind of the part, e.g. "block"; see `parts.Part`.
        number: Number of the block, stage, reassembly or fusion level.

    Returns:
        The text.
    """
    match kind:
        case "block":
            return _block(config, number)
        case "stage":
            return _stage(config, number)
        case "tokens":
            return _tokens(config)
        case "readout":
            return _readout(config)
        case "reassembly":
            return _reassembly(config, number)
        case "fusion":
            return _fusion(number)
        case "depth":
            return _depth(config)
    p, c = config.patch_size, config
    size = c.preprocess.base
    fixed = {
        "picture": Words(
            "image: H × W × 3, 8 bits",
            "These numbers are all that the model knows about the scene.",
        ),
        "input": Words(
            "x = (resize(image) / 255 − mean) / std",
            "The model was trained on images of this size and range of values. Its patches and maps need sides that "
            f"are multiples of {c.multiple}.",
            f"Trained at {size} × {size} pixels. mean {_list(c.preprocess.mean)}, std {_list(c.preprocess.std)}.",
        ),
        "patches": Words(
            f"N = rows · cols = (h / {p}) · (w / {p})",
            "A transformer works on a list. Patches keep the list short, which matters because attention costs N².",
            "SwinV2 uses small patches, 4 × 4. It can afford them because attention stays inside windows."
            if isinstance(c, SwinV2Config)
            else "",
        ),
        "embedding": Words(
            "tᵢ = W · patchᵢ + b",
            f"One linear map turns the 3·{p}·{p} = {3 * p * p} numbers of a patch into {c.width}. It is the same for "
            "all patches, so similar patches become similar tokens.",
            "SwinV2 normalises the tokens right after the embedding." if isinstance(c, SwinV2Config) else "",
        ),
        "head": Words(
            "conv₃( relu( conv₂( resize( conv₁( f₀ )))))",
            "Three convolutions turn the fused features into one number per pixel, at the size of the input.",
            "Metric models end with a sigmoid times the largest distance. Other models end with a ReLU.",
        ),
    }
    return fixed[kind]


def _list(values: tuple[float, ...]) -> str:
    return ", ".join(f"{v:g}" for v in values)


def _tokens(config: Config) -> Words:
    if isinstance(config, SwinV2Config):
        return Words(
            "x = t",
            "The tokens enter the first block unchanged.",
            "SwinV2 has no class token and no position table. Each block adds a bias by offset to its attention.",
        )
    if isinstance(config, BeitConfig):
        return Words(
            "x = [class; t₁ … t_N]",
            "The class token belongs to no patch. It collects information about the whole image.",
            "BEiT adds no position table to the tokens. Each block adds a bias by offset to its attention.",
        )
    return Words(
        "x = [class; t₁ … t_N] + positions",
        "Attention does not know the position of a token, so the model adds a learned vector per position. The class "
        "token belongs to no patch; it collects information about the whole image.",
        "The table was learned for 37 × 37 patches and is resized to the grid of this input.",
    )


def _block(config: Config, i: int) -> Words:
    why = (
        "Attention moves information between patches. The MLP processes each patch by itself. Block by block, tokens "
        "turn from colours and edges into objects and their distances."
    )
    heads = f"{config.block_heads(i)} heads"
    if isinstance(config, SwinV2Config):
        return Words(
            "x ← x + norm(attention(x));  x ← x + norm(mlp(x))",
            why,
            f"SwinV2: {heads}, softmax(s · cos(q, k) + bias by offset), inside windows only. Every second block shifts "
            "the windows by half a window, so neighbours across a border can exchange information.",
        )
    if isinstance(config, BeitConfig):
        return Words(
            "x ← x + s₁ · attention(norm(x));  x ← x + s₂ · mlp(norm(x))",
            why,
            f"BEiT: {heads}, softmax(q·k / √d + bias). The bias is a learned number per offset between two patches. "
            "Each block and head has its own.",
        )
    return Words(
        "x ← x + s₁ · attention(norm(x));  x ← x + s₂ · mlp(norm(x))",
        why,
        f"DINOv2: {heads}, softmax(q·k / √d) over all tokens. s₁ and s₂ are learned scales, one per channel.",
    )


def _stage(config: Config, s: int) -> Words:
    block = config.stage_block(s)
    normed = isinstance(config, DepthAnythingConfig)
    note = "Depth-Anything applies the encoder's last norm to every stage." if normed else ""
    if isinstance(config, SwinV2Config):
        note = "SwinV2 merges 2 × 2 tokens between stages: a quarter of the tokens, twice the width."
    elif isinstance(config, BeitConfig):
        note = "BEiT passes the tokens on unchanged."
    return Words(
        f"stage {s} = {'norm(' if normed else ''}x after block {block}{')' if normed else ''}",
        "Early blocks still know edges, and late blocks know objects. The decoder reads tokens at four depths.",
        note,
    )


def _readout(config: Config) -> Words:
    if isinstance(config, SwinV2Config):
        return Words("r = x", "Without a class token there is nothing to read out. The tokens go on unchanged.")
    if isinstance(config, BeitConfig):
        return Words(
            "xᵢ ← gelu( W · [xᵢ; class] + b )",
            "A map has no position for the class token, so its information is added to every patch.",
            "This is DPT's “project” readout. MiDaS models have it, Depth-Anything does not.",
        )
    return Words(
        "xᵢ, without the class token",
        "A map has no position for the class token. Depth-Anything drops it. Every block let the patches read it.",
        "MiDaS BEiT models add its information to every patch instead.",
    )


def _reassembly(config: Config, s: int) -> Words:
    share = Fraction(config.finest, 2**s)
    times = str(share) if share.denominator == 1 else f"1/{share.denominator}"
    if isinstance(config, SwinV2Config):
        return Words(
            f"r{_low(s)} = conv3×3( tokens as a map )",
            f"Turns tokens back into a map with {times} times the grid's sides, in the channels of fusion.",
            "SwinV2's stages already have the right sizes, so nothing is resized.",
        )
    how = {
        0: "Resized by a transposed convolution with stride 4",
        1: "Resized by a transposed convolution with stride 2",
        2: "Not resized",
    }.get(s, "Resized by a convolution with stride 2")
    return Words(
        f"r{_low(s)} = conv3×3( resize×{times}( conv1×1( tokens as a map )))",
        "Turns tokens back into maps for the convolutions, at several scales: fine for edges, coarse for the layout.",
        f"{how}: {times} times the grid's sides.",
    )


def _fusion(s: int) -> Words:
    if s == 3:
        return Words(
            "f₃ = conv( resize( unit( r₃ )))",
            "The decoder starts with the coarsest map, which holds the layout of the scene.",
            "A unit is x + conv(relu(conv(relu(x)))).",
        )
    return Words(
        f"f{_low(s)} = conv( resize( unit( f{_low(s + 1)} + unit( r{_low(s)} ))))",
        "Refines the coarser result with the next finer map: layout first, then edges.",
        "A unit is x + conv(relu(conv(relu(x))))." + (" Level 0 doubles the size." if s == 0 else ""),
    )


def _depth(config: Config) -> Words:
    if config.metric:
        return Words(
            f"z = {config.max_depth:g} m · sigmoid(…)",
            "One distance per pixel, in metres. Small values are near.",
        )
    return Words(
        "d ≥ 0,  1/z = a · d + b  with unknown a and b",
        "Inverse depth: large values are near, and it is never negative. Two known distances convert it to metres.",
    )


def _low(n: int) -> str:
    return "₀₁₂₃₄₅₆₇₈₉"[n]
