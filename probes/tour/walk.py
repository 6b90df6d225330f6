"""A walk through a model, part by part: what each computes, why, the shapes of its tensors, and pictures of them.

Problem: a paper's figure shows boxes, a debugger shows numbers; neither says what this model does with this picture.

Approach: `Walk` runs the model once and keeps what passes the probe points, and a few tensors between them (the
tokens as they enter block 0, what BEiT reads out of the class token, the head's features). `Walk.parts` lists the parts
in the order of the pass; each names its points of the registry, and the pictures it can show. Words and formulas
differ by family where the families do.

    walk = Walk(model, image)
    walk["fusion.2"].formula
    walk.shapes("fusion.2")              # [(name, shape in symbols, shape here), ...]
    walk.shot("fusion.2", "channels")    # Shot(tile, caption): (height, width, 4) uint8 and one line of words

Limits: one picture. The tensors of all blocks stay alive with the walk: 0.14 GB for ViT-L at 518 pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from dpt import DPT, BeitConfig, Config, SwinV2Config, TokenGrid
from dpt.beit import beit
from dpt.image import Size, as_image
from dpt.swinv2 import swinv2

from ..capture import capture
from ..errors import InvalidValueError
from ..figures import tiles
from ..registry import PointTable, names
from .words import Words, words

CHANNELS = 12  # of a tensor, shown side by side
SIDE = 640  # pixels that a picture is enlarged to
TILE_SIDE = 200  # likewise, of one of several
THUMB_SIDE = 132


@dataclass(frozen=True)
class Part:
    """One part of the model. name: of a registry point where the part is one, e.g. "fusion.2", else its own."""

    name: str
    kind: str
    title: str
    words: Words
    points: tuple[str, ...]  # of the registry, seen here
    views: tuple[str, ...]
    number: int = 0


class Shot(NamedTuple):
    tile: tiles.Tile
    caption: str


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


def as_picture(x: Tensor, config: Config) -> np.ndarray:
    """An input (1, 3, h, w) as a picture again: (h, w, 3) uint8."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (config.preprocess.mean, config.preprocess.std))
    picture = (x[0].float().cpu() * std + mean).clamp(0, 1) * 255
    return np.ascontiguousarray(picture.round().byte().permute(1, 2, 0).numpy())


def untrained(family: str, seed: int = 0) -> DPT:
    """A small model of the family "beit" or "swinv2" with random weights: its shapes and its structure, and no sense.

    BEiT's bias tables, which a new model has at zero, are random, too, so that there is something to see in them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if family == "beit":
            channels = (48, 96, 192, 192)
            sizes: dict[str, Any] = {"width": 192, "depth": 8, "table_side": 12, "reassembly_channels": channels}
            model = DPT(beit(variant="untrained", fusion_channels=32, **sizes))
            for block in model.encoder.blocks:
                nn.init.normal_(block.attention.positions.table)
        elif family == "swinv2":
            sizes = {"width": 32, "depths": (2, 2, 4, 2), "window": 8, "base": 192}
            model = DPT(swinv2(variant="untrained", fusion_channels=32, **sizes))
        else:
            raise InvalidValueError(f'the families beside Depth-Anything are "beit" and "swinv2", not {family!r}')
        assert model.head.conv3.bias is not None
        nn.init.constant_(model.head.conv3.bias, 0.5)  # above the final ReLU, so that the map is not all zero
    return model.eval().requires_grad_(False)


class Walk:
    """One picture on its way through a model. size, keep_aspect: as for `model.predict`."""

    def __init__(self, model: DPT, image: np.ndarray, size: Size = None, keep_aspect: bool = True):
        self.model, self.config = model, model.config
        self.points: PointTable = names(model)
        self.image = as_image(image)
        self.input = model.prepare(self.image, size, keep_aspect)  # (1, 3, h, w)
        self._size = size
        self.grid = model.grid_of(self.input)
        self.between: dict[str, Tensor] = {}  # tensors that are no points of the registry, by a name for the table
        self.values: dict[str, Tensor] = {}
        self._run()
        self.parts = list(parts(self.config))
        self._by_name = {part.name: part for part in self.parts}

    def __getitem__(self, name: str) -> Part:
        if name not in self._by_name:
            raise InvalidValueError(f"{name!r} is no part of this walk; parts are {', '.join(self._by_name)}")
        return self._by_name[name]

    def _run(self) -> None:
        """One pass: what the registry's points give, and what lies between them."""
        model, between = self.model, self.between

        def keep(name: str) -> Callable[..., None]:
            return lambda module, args, output: between.__setitem__(name, output)

        def enter(module: nn.Module, args: tuple) -> None:
            between["tokens into block 0"] = args[0]

        groups = ("patch_embed", "tokens", "stages", "reassembly", "fusion", "depth")
        handles = [model.encoder.blocks[0].register_forward_pre_hook(enter)]
        for s, readout in enumerate(getattr(model.reassembly, "readouts", None) or ()):
            handles.append(readout.register_forward_hook(keep(f"readout of stage {s}")))
        handles.append(model.head.conv1.register_forward_hook(keep("head, first convolution")))
        handles.append(model.head.conv2.register_forward_hook(keep("head, second convolution")))
        try:
            with torch.no_grad(), capture(model, *groups) as cap:
                model(self.input)
        finally:
            for handle in handles:
                handle.remove()
        self.values = {name: cap[name] for name in cap}

    # --------------------------------------------------------------------------------------------------------- shapes

    def shapes(self, name: str) -> list[tuple[str, str, str]]:
        """(name, shape in symbols, shape here) of every tensor of a part; points of the registry under their names."""
        part, c = self[name], self.config
        height, width = self.image.shape[:2]
        p, n = c.patch_size, self.grid.patches
        rows: list[tuple[str, str, tuple[int, ...]]] = []
        if part.kind == "picture":
            rows.append(("image", "(H, W, 3) uint8", (height, width, 3)))
        elif part.kind == "input":
            rows.append(("x", f"(B, 3, {p}·rows, {p}·cols)", tuple(self.input.shape)))
        elif part.kind == "patches":
            rows.append(("x, cut", f"(B, N, 3·{p}·{p})", (1, n, 3 * p * p)))
        elif part.kind == "embedding":
            rows.append(("weight W", f"({c.width}, 3·{p}·{p})", (c.width, 3 * p * p)))
        elif part.kind == "tokens":
            if c.prefix:
                rows.append(("class token", f"(1, 1, {c.width})", tuple(self.model.encoder.class_token.shape)))
            if hasattr(self.model.encoder, "positions"):
                rows.append(("positions", f"(1, 1+N, {c.width})", tuple(self.model.encoder.positions(self.grid).shape)))
            label = f"(B, {f'{c.prefix}+' if c.prefix else ''}N, {c.width})"
            rows.append(("tokens", label, tuple(self.between["tokens into block 0"].shape)))
        elif part.kind == "readout":
            for s in range(4):
                point = self.points[f"encoder.stages.{s}"]
                one, count, channels = point.shape(1, self.grid) or ()
                symbols = point.label.replace(f"{c.prefix}+", "") if c.prefix else point.label
                rows.append((f"stage {s}, read out", symbols, (one, count - c.prefix, channels)))
        elif part.kind == "head":
            f = c.fusion_channels
            doubled = 2 * c.finest
            sizes = (f"{doubled}·rows, {doubled}·cols", f"{p}·rows, {p}·cols")
            rows.append(("convolution 1", f"(B, {f // 2}, {sizes[0]})", self._shape("head, first convolution")))
            rows.append(("convolution 2", f"(B, 32, {sizes[1]})", self._shape("head, second convolution")))
        found = [(label, symbols, _times(shape)) for label, symbols, shape in rows]
        for point in (self.points[n] for n in part.points):
            shape = point.shape(1, self.grid)
            found.append((point.name, point.label, _times(shape) if shape else ""))
        return found

    def _shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.between[name].shape)

    # ------------------------------------------------------------------------------------------------------- pictures

    def thumbnail(self, name: str) -> tiles.Tile | None:
        """A small picture of a part for the diagram; None for a part without one."""
        part = self[name]
        if part.kind == "patches":
            return self._thumb_patches()
        if not part.views:
            return None
        if part.kind in ("embedding", "tokens", "block", "stage", "reassembly", "fusion"):
            return tiles.enlarged(tiles.principal(self._maps_of(part)), THUMB_SIDE)
        if part.kind == "head":
            return tiles.enlarged(self._channel(self._features()), THUMB_SIDE)
        return tiles.enlarged(self.shot(name, part.views[0]).tile, THUMB_SIDE)

    def _thumb_patches(self) -> tiles.Tile:
        """Few enough patches that a thumbnail shows them as such."""
        picture = self._resized()
        patch = self.config.patch_size
        while min(picture.shape[:2]) // patch > 12:
            patch *= 2
        height, width = (side // patch * patch for side in picture.shape[:2])
        return tiles.enlarged(tiles.dice(np.ascontiguousarray(picture[:height, :width]), patch), THUMB_SIDE)

    def shot(self, name: str, view: str) -> Shot:
        """A picture of a part. view: one of its `views`."""
        part = self[name]
        if view not in part.views:
            raise InvalidValueError(f"{name} has no view {view!r}; it has {', '.join(part.views) or 'none'}")
        shot: Shot = getattr(self, f"_shot_{view}")(part)
        return shot

    def maps(self, name: str) -> Tensor:
        """(channels, rows, cols) of what a part gives: its tokens on their grid, or its maps."""
        part = self[name]
        if "channels" not in part.views:
            raise InvalidValueError(f"{name} gives no channels to lay on a grid")
        return self._features() if part.kind == "head" else self._maps_of(part)

    def _maps_of(self, part: Part) -> Tensor:
        if part.kind == "tokens":
            return tiles.maps_of(self.between["tokens into block 0"][0], self.grid)
        value = self.values[part.points[0]][0]
        if value.ndim == 3:
            return value.float()
        grid = self.points[part.points[0]].grid(self.grid)
        if part.kind == "embedding":
            grid = TokenGrid(grid.rows, grid.cols)
        return tiles.maps_of(value, grid)

    def _resized(self) -> np.ndarray:
        """The input as a picture again: (h, w, 3) uint8."""
        return as_picture(self.input, self.config)

    def _shot_picture(self, part: Part) -> Shot:
        if part.kind == "picture":
            height, width = self.image.shape[:2]
            return Shot(tiles.enlarged(_opaque(self.image), SIDE), f"{width} × {height} pixels, as it was read")
        picture = self._resized()
        height, width = picture.shape[:2]
        words = "the sides keep their ratio, up to rounding" if self._aspect_kept() else "stretched to the model's size"
        return Shot(tiles.enlarged(_opaque(picture), SIDE), f"{width} × {height} pixels: {words}")

    def _aspect_kept(self) -> bool:
        (height, width), (h, w) = self.image.shape[:2], self.input.shape[-2:]
        return abs(h / w * width / height - 1) < 0.12

    def _shot_stretched(self, part: Part) -> Shot:
        side = self._size if isinstance(self._size, int) else self.config.preprocess.base
        x = self.model.prepare(self.image, side, keep_aspect=False)
        height, width = x.shape[-2:]
        tile = tiles.enlarged(_opaque(as_picture(x, self.config)), SIDE)
        return Shot(tile, f"{width} × {height} pixels with keep_aspect=False: what is round becomes oval")

    def _shot_values(self, part: Part) -> Shot:
        x = self.input[0].float()
        shown = tiles.mosaic([tiles.coloured(x[c], "RdBu_r", zero=True) for c in range(3)], 3, 2 * TILE_SIDE)
        low, high = float(x.min()), float(x.max())
        return Shot(shown, f"red, green, blue after normalising: {low:.2f} to {high:.2f}; white is 0")

    def _shot_patches(self, part: Part) -> Shot:
        p = self.config.patch_size
        words = f"{self.grid.rows} × {self.grid.cols} = {self.grid.patches} patches of {p} × {p} pixels"
        return Shot(tiles.enlarged(tiles.dice(self._resized(), p), 2 * SIDE), words)

    def _shot_closer(self, part: Part) -> Shot:
        p = self.config.patch_size
        picture = self._resized()
        rows, cols = min(4, self.grid.rows), min(6, self.grid.cols)
        top, left = (self.grid.rows - rows) // 2 * p, (self.grid.cols - cols) // 2 * p
        cut = np.ascontiguousarray(picture[top : top + rows * p, left : left + cols * p])
        words = f"{rows} × {cols} patches from the middle; each is a list of 3·{p}·{p} = {3 * p * p} numbers"
        return Shot(tiles.enlarged(tiles.dice(cut, p), SIDE), words)

    def _shot_colour(self, part: Part) -> Shot:
        maps = self._maps_of(part)
        words = f"the {len(maps)} channels as colour (first three principal components): like colour, alike tokens"
        return Shot(tiles.enlarged(tiles.principal(maps), SIDE), words)

    def _features(self) -> Tensor:
        return torch.relu(self.between["head, second convolution"][0].float())

    def _channel(self, maps: Tensor) -> tiles.Tile:
        return tiles.coloured(maps[tiles.liveliest(maps, 1)[0]])

    def _shot_channels(self, part: Part) -> Shot:
        maps = self.maps(part.name)
        chosen = tiles.liveliest(maps, CHANNELS)
        shown = tiles.mosaic([tiles.coloured(maps[n]) for n in chosen], 4, TILE_SIDE)
        numbers = ", ".join(map(str, chosen))
        return Shot(shown, f"{len(chosen)} of {len(maps)} channels, those that vary most: {numbers}")

    def _shot_norm(self, part: Part) -> Shot:
        maps = self._maps_of(part)
        norms = maps.norm(dim=0)
        what = "each token" if part.kind in ("embedding", "tokens", "block", "stage") else "each pixel's channels"
        words = f"length (L2 norm) of {what}: {float(norms.min()):.3g} to {float(norms.max()):.3g}"
        return Shot(tiles.enlarged(tiles.coloured(norms), SIDE), words)

    def _shot_change(self, part: Part) -> Shot:
        i = part.number
        after = self.values[f"encoder.blocks.{i}.tokens"][0].float()
        before = self.values[f"encoder.blocks.{i - 1}.tokens"] if i else self.between["tokens into block 0"]
        change = after - before[0].float()
        grid = self.config.block_grid(i, self.grid)
        share = change.norm(dim=1) / before[0].float().norm(dim=1).clamp_min(1e-12)
        tile = tiles.coloured(tiles.maps_of(share[:, None], grid)[0], "magma")
        inside = share[grid.prefix :]
        low, high = float(inside.min()), float(inside.max())
        return Shot(tiles.enlarged(tile, SIDE), f"how much the block changed each token: {low:.0%} to {high:.0%} of it")

    def _shot_bias(self, part: Part) -> Shot:
        """The bias of two patches, to all keys: the second is the first, moved along."""
        block = self.model.encoder.blocks[part.number]
        grid = self.config.block_grid(part.number, self.grid)
        if isinstance(self.config, SwinV2Config):
            table = block.attention.positions(grid, self.config.reach(part.number, self.grid)).table
            tile = [tiles.coloured(table[h], "RdBu_r") for h in range(min(8, len(table)))]
            words = f"bias by offset, the patch itself in the middle; heads 0 to {len(tile) - 1}"
            return Shot(tiles.mosaic(tile, 4, TILE_SIDE), words)
        bias = block.attention.positions(grid)
        places = [(grid.rows // 2, grid.cols // 3), (grid.rows // 2, grid.cols * 2 // 3)]
        queries = torch.tensor([grid.token(*place) for place in places])
        every = bias.between(queries.to(bias.table.device), torch.arange(grid.tokens, device=bias.table.device))
        heads = range(min(4, len(every)))
        shown = [
            tiles.coloured(tiles.maps_of(every[h, n][:, None], grid)[0], "RdBu_r", zero=True)
            for n in range(2)
            for h in heads
        ]
        words = (
            f"bias of heads 0 to {heads[-1]} from patch {places[0]}, and below from {places[1]}: the same, moved along"
        )
        return Shot(tiles.mosaic(shown, len(heads), TILE_SIDE), words)

    def _shot_windows(self, part: Part) -> Shot:
        grid = self.config.block_grid(part.number, self.grid)
        assert grid.window is not None
        tinted = tiles.tinted_windows(self._enlarged_input(), grid)
        count = len(grid.windows())
        words = f"{count} window{'s' * (count > 1)} of {grid.window[0]} × {grid.window[1]} tokens"
        if any(grid.shift):
            words += f", shifted by {grid.shift[0]}, {grid.shift[1]}: like tints at opposite borders are one window"
        return Shot(tinted, words)

    def _enlarged_input(self) -> np.ndarray:
        return np.ascontiguousarray(tiles.enlarged(_opaque(self._resized()), SIDE)[..., :3])

    def _shot_positions(self, part: Part) -> Shot:
        maps = tiles.maps_of(self.model.encoder.positions(self.grid)[0], self.grid)
        chosen = tiles.liveliest(maps, CHANNELS)
        shown = tiles.mosaic([tiles.coloured(maps[n], "RdBu_r", zero=True) for n in chosen], 4, TILE_SIDE)
        return Shot(shown, f"{len(chosen)} of {len(maps)} channels of what is added to say where a patch lies")

    def _shot_class(self, part: Part) -> Shot:
        token = self.between["tokens into block 0"][0, 0].float()
        lines = 12
        padded = torch.zeros(-(-len(token) // lines) * lines)
        padded[: len(token)] = token.cpu()
        tile = tiles.coloured(padded.view(lines, -1), "RdBu_r", zero=True)
        return Shot(tiles.enlarged(tile, SIDE), f"the {len(token)} numbers of the class token, line by line")

    def _shot_stages(self, part: Part) -> Shot:
        shown = []
        for s in range(4):
            grid = self.points[f"encoder.stages.{s}"].grid(self.grid)
            x = self.between.get(f"readout of stage {s}")
            if x is None:
                maps = tiles.maps_of(self.values[f"encoder.stages.{s}"][0], grid)
            else:
                maps = tiles.maps_of(x[0], TokenGrid(grid.rows, grid.cols))
            shown.append(_to_side(tiles.principal(maps), 2 * TILE_SIDE))
        return Shot(tiles.mosaic(shown, 2, 2 * TILE_SIDE), "what goes on to reassembly, stages 0 to 3, as colour")

    def _shot_depth(self, part: Part) -> Shot:
        depth = self.values["depth"][0]
        tile = tiles.coloured(-depth if self.config.metric else depth, "inferno")
        unit = "metres" if self.config.metric else "inverse depth"
        words = f"{unit}, {float(depth.min()):.3g} to {float(depth.max()):.3g}; bright is near"
        return Shot(tiles.enlarged(tile, SIDE), words)


def _opaque(picture: np.ndarray) -> tiles.Tile:
    return np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)])


def _to_side(tile: tiles.Tile, side: int) -> tiles.Tile:
    """To exactly this side, unevenly if need be: the grids of SwinV2's stages differ, and tiles of a mosaic may not."""
    height, width = tile.shape[:2]
    sizes = [max(1, side * length // max(height, width)) for length in (height, width)]
    rows, cols = (np.arange(size) * length // size for size, length in zip(sizes, (height, width), strict=True))
    return np.ascontiguousarray(tile[rows][:, cols])


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))


def parts(config: Config) -> Iterator[Part]:
    """The parts in the order of the pass, fusion from coarse to fine."""

    def part(name: str, kind: str, title: str, views: tuple[str, ...], *points: str, number: int = 0) -> Part:
        return Part(name, kind, title, words(config, kind, number), points, views, number)

    tokens = ("colour", "channels", "norm")
    of_stage = tokens[:2] if config.family == "depth-anything" else tokens  # behind a norm all are of one length
    swin, bias = isinstance(config, SwinV2Config), isinstance(config, BeitConfig | SwinV2Config)
    yield part("picture", "picture", "Picture", ("picture",))
    yield part("input", "input", "Input", ("picture", "stretched", "values"))
    yield part("patches", "patches", "Patches", ("patches", "closer"))
    yield part("patch_embed", "embedding", "Embedding", ("channels", "colour", "norm"), "patch_embed")
    beside = (*(("positions",) if config.family == "depth-anything" else ()), *(("class",) if config.prefix else ()))
    yield part("tokens", "tokens", "Tokens", ("colour", *beside, "channels", "norm"))
    for i in range(config.depth):
        merged = i > 0 and config.block_width(i) != config.block_width(i - 1)
        views = (
            *tokens,
            *(() if merged else ("change",)),
            *(("windows",) if swin else ()),
            *(("bias",) if bias else ()),
        )
        at = f"encoder.blocks.{i}"
        points = (f"{at}.tokens", f"{at}.attention", f"{at}.heads", f"{at}.norms")
        yield part(at, "block", f"Block {i}", views, *points, number=i)
    for s in range(4):
        yield part(f"encoder.stages.{s}", "stage", f"Stage {s}", of_stage, f"encoder.stages.{s}", number=s)
    yield part("readout", "readout", "Readout", ("stages",))
    for s in range(4):
        yield part(f"reassembly.{s}", "reassembly", f"Reassembly {s}", tokens, f"reassembly.{s}", number=s)
    for s in (3, 2, 1, 0):
        yield part(f"fusion.{s}", "fusion", f"Fusion {s}", tokens, f"fusion.{s}", number=s)
    yield part("head", "head", "Head", ("channels",))
    yield part("depth", "depth", "Depth", ("depth",), "depth")
