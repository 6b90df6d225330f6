"""What the walk says about each part of a model: a formula, why the part is there, and what is the family's own.

Words apart from the code that shows tensors, so that either can be read at one go. Symbols: p is the side of a patch, N
the number of patches, F channels; x are tokens, r reassembled and f fused maps.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

from dpt import BeitConfig, Config, DepthAnythingConfig, SwinV2Config


class Words(NamedTuple):
    formula: str
    why: str
    family: str = ""  # what this family does here that others do not


def words(config: Config, kind: str, number: int = 0) -> Words:
    """The words for a part of this kind; number: of the block or stage."""
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
            "All that the model will know of the scene is in these numbers.",
        ),
        "input": Words(
            "x = (resize(image) / 255 − mean) / std",
            "The model was trained on pictures of such a size and brightness, and its patches and maps need sides that "
            f"are multiples of {c.multiple}.",
            f"Made for {size} × {size} pixels. mean {_list(c.preprocess.mean)}, std {_list(c.preprocess.std)}.",
        ),
        "patches": Words(
            f"N = rows · cols = (h / {p}) · (w / {p})",
            "A transformer works on a list. Squares of the picture make one, and a short one: attention costs N².",
            "SwinV2 cuts small patches, 4 × 4, and can afford them because attention stays in windows."
            if isinstance(c, SwinV2Config)
            else "",
        ),
        "embedding": Words(
            "tᵢ = W · patchᵢ + b",
            f"One linear map turns the 3·{p}·{p} = {3 * p * p} numbers of a patch into {c.width}; the same for all "
            "patches, so that alike patches become alike tokens.",
            "SwinV2 normalises the tokens at once." if isinstance(c, SwinV2Config) else "",
        ),
        "head": Words(
            "conv₃( relu( conv₂( resize( conv₁( f₀ )))))",
            "Three convolutions turn the fused features into one number a pixel, at the size of the input.",
            "Metric models end with a sigmoid times the largest distance, others with a ReLU.",
        ),
    }
    return fixed[kind]


def _list(values: tuple[float, ...]) -> str:
    return ", ".join(f"{v:g}" for v in values)


def _tokens(config: Config) -> Words:
    if isinstance(config, SwinV2Config):
        return Words(
            "x = t",
            "The tokens go into the first block as they are.",
            "SwinV2 has no class token and no table of positions: each block adds a bias by offset to its attention.",
        )
    if isinstance(config, BeitConfig):
        return Words(
            "x = [class; t₁ … t_N]",
            "The class token stands for no patch: it gathers what concerns the whole picture.",
            "BEiT adds no positions here: each block adds a bias by offset to its attention.",
        )
    return Words(
        "x = [class; t₁ … t_N] + positions",
        "Attention does not see where a token comes from, so a learned vector for every place is added; the class "
        "token stands for no patch and gathers what concerns the whole picture.",
        "The table was learned for 37 × 37 patches and is resized to the grid at hand.",
    )


def _block(config: Config, i: int) -> Words:
    why = (
        "Attention moves information between patches, the MLP works on each by itself. Block by block tokens turn from "
        "colours and edges into what is there, and how far."
    )
    heads = f"{config.block_heads(i)} heads"
    if isinstance(config, SwinV2Config):
        return Words(
            "x ← x + norm(attention(x));  x ← x + norm(mlp(x))",
            why,
            f"SwinV2: {heads} attend within windows only, softmax(s · cos(q, k) + bias by offset); every second block "
            "shifts the windows by half, so that neighbours across a border meet.",
        )
    if isinstance(config, BeitConfig):
        return Words(
            "x ← x + s₁ · attention(norm(x));  x ← x + s₂ · mlp(norm(x))",
            why,
            f"BEiT: {heads}, softmax(q·k / √d + bias): the bias is a learned number for each offset between two "
            "patches, and each block and head has its own.",
        )
    return Words(
        "x ← x + s₁ · attention(norm(x));  x ← x + s₂ · mlp(norm(x))",
        why,
        f"DINOv2: {heads}, softmax(q·k / √d) over all tokens; s₁ and s₂ are learned scales, one a channel.",
    )


def _stage(config: Config, s: int) -> Words:
    block = config.stage_block(s)
    normed = isinstance(config, DepthAnythingConfig)
    note = "Depth-Anything passes every stage through the encoder's last norm." if normed else ""
    if isinstance(config, SwinV2Config):
        note = "SwinV2 merges 2 × 2 tokens between stages: a quarter as many, twice as wide."
    elif isinstance(config, BeitConfig):
        note = "BEiT hands on the tokens as they are."
    return Words(
        f"stage {s} = {'norm(' if normed else ''}x after block {block}{')' if normed else ''}",
        "Early blocks still know edges, late ones know what things are. The decoder is given four depths of tokens.",
        note,
    )


def _readout(config: Config) -> Words:
    if isinstance(config, SwinV2Config):
        return Words("r = x", "There is no class token, so there is nothing to read out: tokens go on as they are.")
    if isinstance(config, BeitConfig):
        return Words(
            "xᵢ ← gelu( W · [xᵢ; class] + b )",
            "A map has no place for the class token, so every patch is told what it knows.",
            "This is DPT's “project” readout; MiDaS models have it, Depth-Anything does not.",
        )
    return Words(
        "xᵢ, without the class token",
        "A map has no place for the class token. Depth-Anything drops it: the patches have attended to it all along.",
        "MiDaS BEiT models tell every patch what the class token knows instead.",
    )


def _reassembly(config: Config, s: int) -> Words:
    share = Fraction(config.finest, 2**s)
    times = str(share) if share.denominator == 1 else f"1/{share.denominator}"
    if isinstance(config, SwinV2Config):
        return Words(
            f"r{_low(s)} = conv3×3( tokens as a map )",
            f"Back to a picture, of {times} times the grid's sides, in the channels that fusion works with.",
            "SwinV2's stages have the right sizes already, so nothing is resized.",
        )
    how = {0: "transposed convolution, stride 4", 1: "transposed convolution, stride 2", 2: "as it is"}
    return Words(
        f"r{_low(s)} = conv3×3( resize×{times}( conv1×1( tokens as a map )))",
        "Convolutions need a picture again, at several scales: fine maps for edges, coarse ones for the layout.",
        f"Resized by {how.get(s, 'convolution, stride 2')}: {times} times the grid's sides.",
    )


def _fusion(s: int) -> Words:
    if s == 3:
        return Words(
            "f₃ = conv( resize( unit( r₃ )))",
            "The decoder begins with the coarsest map: the layout of the scene.",
            "A unit is x + conv(relu(conv(relu(x)))).",
        )
    return Words(
        f"f{_low(s)} = conv( resize( unit( f{_low(s + 1)} + unit( r{_low(s)} ))))",
        "What coarser maps say is refined by the next finer one: layout first, then edges.",
        "A unit is x + conv(relu(conv(relu(x))))." + (" The last one doubles the size." if s == 0 else ""),
    )


def _depth(config: Config) -> Words:
    if config.metric:
        return Words(
            f"z = {config.max_depth:g} m · sigmoid(…)",
            "One distance a pixel, in metres; small is near.",
        )
    return Words(
        "d ≥ 0,  1/z = a · d + b  with unknown a and b",
        "Inverse depth: large is near, and nothing is below 0. Two known distances turn it into metres.",
    )


def _low(n: int) -> str:
    return "₀₁₂₃₄₅₆₇₈₉"[n]
