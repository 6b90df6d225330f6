"""A walk through a model, part by part: purpose, formula, tensor shapes, and images of the tensors.

Problem: a figure in a paper shows boxes, and a debugger shows numbers. Neither shows what this model does with this
image.

Approach: `Walk` runs the model once and keeps the tensors at the probe points, and a few tensors between them (the
tokens that enter block 0, BEiT's readouts, the head's features). `Walk.parts` lists the parts in the order of the
forward pass. Formulas and explanations differ by family where the families differ.

    walk = Walk(model, image)
    walk["fusion.2"].words.formula
    walk.shapes("fusion.2")              # [(name, shape in symbols, shape in this pass), ...]
    walk.shot("fusion.2", "channels")    # Shot(tile, caption): (height, width, 4) uint8, and one line of text

Limits: one image. The tensors of all blocks stay in memory: 0.14 GB for ViT-L at 518 pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from dpt import DPT
from dpt.beit import beit
from dpt.image import Size
from dpt.swinv2 import swinv2

from ..errors import InvalidValueError
from ..figures import tiles
from . import shots
from .parts import VIEWS, Part, parts
from .recorded import BLOCK_INPUT, HEAD_1, HEAD_2, RecordedPass, as_picture
from .shots import Shot

__all__ = ["VIEWS", "Part", "Shot", "Walk", "as_picture", "parts", "untrained"]


def untrained(family: str, seed: int = 0) -> DPT:
    """Builds a small model with random weights, to show the shapes and the structure of a family.

    BEiT's bias tables are random too. In a new model they are zero, which would show nothing.

    Args:
        family: "beit" or "swinv2".
        seed: Seed of the weights. The global random state is not changed.

    Returns:
        The model in inference mode.

    Raises:
        InvalidValueError: The family is unknown.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if family == "beit":
            config = beit(
                variant="untrained",
                width=192,
                depth=8,
                table_side=12,
                reassembly_channels=(48, 96, 192, 192),
                fusion_channels=32,
            )
            model = DPT(config)
            for block in model.encoder.blocks:
                nn.init.normal_(block.attention.positions.table)
        elif family == "swinv2":
            model = DPT(
                swinv2(variant="untrained", width=32, depths=(2, 2, 4, 2), window=8, base=192, fusion_channels=32)
            )
        else:
            raise InvalidValueError(f'expected the family "beit" or "swinv2", got {family!r}')
        assert model.head.conv3.bias is not None
        nn.init.constant_(model.head.conv3.bias, 0.5)  # above the final ReLU, so the map is not all zero
    return model.eval().requires_grad_(False)


class Walk(RecordedPass):
    """The forward pass of one image, part by part.

    Args:
        model: The model. It is run once, on construction.
        image: RGB image, (H, W, 3) uint8.
        size: See `dpt.DPT.predict`.
        keep_aspect: See `dpt.DPT.predict`.

    Attributes:
        parts: The parts in the order of the forward pass.

    Example:
        walk = Walk(model, image)
        walk.shot("encoder.blocks.5", "change").caption
    """

    def __init__(self, model: DPT, image: np.ndarray, size: Size = None, keep_aspect: bool = True):
        super().__init__(model, image, size, keep_aspect)
        self.parts = list(parts(self.config))
        self._by_name = {part.name: part for part in self.parts}

    def __getitem__(self, name: str) -> Part:
        if name not in self._by_name:
            raise InvalidValueError(f"unknown part {name!r}. Parts of this walk: {', '.join(self._by_name)}")
        return self._by_name[name]

    def shapes(self, name: str) -> list[tuple[str, str, str]]:
        """Lists the tensors of a part.

        Args:
            name: Name of the part.

        Returns:
            (name, shape in symbols, shape in this pass) of each tensor. Probe points have their own names.

        Raises:
            InvalidValueError: The part does not exist.
        """
        part = self[name]
        rows = [(label, symbols, _times(shape)) for label, symbols, shape in self._shapes_between_points(part)]
        for point in (self.points[n] for n in part.points):
            shape = point.shape(1, self.grid)
            rows.append((point.name, point.label, _times(shape) if shape else ""))
        return rows

    def _shapes_between_points(self, part: Part) -> list[tuple[str, str, tuple[int, ...]]]:
        """(name, shape in symbols, shape in this pass) of the tensors that are not probe points."""
        c, p, n = self.config, self.config.patch_size, self.grid.patches
        match part.kind:
            case "picture":
                return [("image", "(H, W, 3) uint8", tuple(self.image.shape))]
            case "input":
                return [("x", f"(B, 3, {p}·rows, {p}·cols)", tuple(self.input.shape))]
            case "patches":
                return [("x, cut", f"(B, N, 3·{p}·{p})", (1, n, 3 * p * p))]
            case "embedding":
                return [("weight W", f"({c.width}, 3·{p}·{p})", (c.width, 3 * p * p))]
            case "tokens":
                encoder = self.model.encoder
                rows = []
                if c.prefix:
                    rows.append(("class token", f"(1, 1, {c.width})", tuple(encoder.class_token.shape)))
                if hasattr(encoder, "positions"):
                    rows.append(("positions", f"(1, 1+N, {c.width})", tuple(encoder.positions(self.grid).shape)))
                label = f"(B, {f'{c.prefix}+' if c.prefix else ''}N, {c.width})"
                return [*rows, ("tokens", label, tuple(self.between[BLOCK_INPUT].shape))]
            case "readout":
                return [self._readout_shape(stage) for stage in range(4)]
            case "head":
                f, doubled = c.fusion_channels, 2 * c.finest
                first = (f"(B, {f // 2}, {doubled}·rows, {doubled}·cols)", tuple(self.between[HEAD_1].shape))
                second = (f"(B, 32, {p}·rows, {p}·cols)", tuple(self.between[HEAD_2].shape))
                return [("convolution 1", *first), ("convolution 2", *second)]
        return []

    def _readout_shape(self, stage: int) -> tuple[str, str, tuple[int, ...]]:
        prefix, point = self.config.prefix, self.points[f"encoder.stages.{stage}"]
        one, count, channels = point.shape(1, self.grid) or ()
        symbols = point.label.replace(f"{prefix}+", "") if prefix else point.label
        return f"stage {stage}, read out", symbols, (one, count - prefix, channels)

    def thumbnail(self, name: str) -> tiles.Tile | None:
        """Draws a small image of a part for a diagram.

        Args:
            name: Name of the part.

        Returns:
            RGBA image, or None for a part without views.

        Raises:
            InvalidValueError: The part does not exist.
        """
        return shots.thumbnail(self, self[name])

    def shot(self, name: str, view: str) -> Shot:
        """Draws one view of a part.

        Args:
            name: Name of the part.
            view: One of its `views`.

        Returns:
            The image and its caption.

        Raises:
            InvalidValueError: The part does not exist, or does not have the view.
        """
        part = self[name]
        if view not in part.views:
            raise InvalidValueError(f"{name} has no view {view!r}. Its views: {', '.join(part.views) or 'none'}")
        return shots.SHOTS[view](self, part)

    def maps(self, name: str) -> Tensor:
        """Returns the output of a part on its grid.

        Args:
            name: Name of the part.

        Returns:
            Tokens on their grid, or maps: (channels, rows, cols).

        Raises:
            InvalidValueError: The part does not exist, or has no channels on a grid.
        """
        part = self[name]
        if "channels" not in part.views:
            raise InvalidValueError(f"{name} has no channels on a grid. Choose a part with the view 'channels'")
        return shots.channel_maps(self, part)


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))
