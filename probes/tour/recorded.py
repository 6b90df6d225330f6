"""Runs a model once and keeps the tensors that a tour shows.

Limits: one image. The tensors of all blocks stay in memory: 0.14 GB for ViT-L at 518 pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from dpt import DPT, Config, TokenGrid
from dpt.image import Size, as_image

from ..capture import capture
from ..figures import tiles
from ..registry import PointTable, names
from .parts import Part

BLOCK_INPUT = "tokens into block 0"  # names in RecordedPass.between
HEAD_1, HEAD_2 = "head, first convolution", "head, second convolution"


def readout_name(stage: int) -> str:
    """The name of a stage's readout in `RecordedPass.between`."""
    return f"readout of stage {stage}"


def as_picture(x: Tensor, config: Config) -> np.ndarray:
    """Turns a model input back into an image.

    Args:
        x: Normalised input, (1, 3, h, w).
        config: The model's configuration.

    Returns:
        RGB image, (h, w, 3) uint8.
    """
    x = x[0].float().cpu()
    mean, std = (x.new_tensor(v).view(3, 1, 1) for v in (config.preprocess.mean, config.preprocess.std))
    pixels = (x * std + mean).clamp(0, 1) * 255
    return np.ascontiguousarray(pixels.round().byte().permute(1, 2, 0).numpy())


class RecordedPass:
    """The tensors of one forward pass.

    Args:
        model: The model. Its hooks are restored, also after an exception.
        image: RGB image, (H, W, 3) uint8.
        size: See `dpt.DPT.predict`.
        keep_aspect: See `dpt.DPT.predict`.

    Attributes:
        input: The model's input, (1, 3, h, w).
        grid: The patch grid of the input.
        points: All probe points of the model.
        values: Tensor by probe point.
        between: Tensors that are not probe points: the tokens as they enter block 0, BEiT's readouts, and the outputs
            of the head's first two convolutions.
    """

    def __init__(self, model: DPT, image: np.ndarray, size: Size = None, keep_aspect: bool = True):
        self.model, self.config = model, model.config
        self.points: PointTable = names(model)
        self.image = as_image(image)
        self.size = size
        self.input = model.prepare(self.image, size, keep_aspect)
        self.grid = model.grid_of(self.input)
        self.between: dict[str, Tensor] = {}
        self.values: dict[str, Tensor] = {}
        self._run()

    def _run(self) -> None:
        model, between = self.model, self.between

        def keep(name: str) -> Callable[[nn.Module, tuple[object, ...], Tensor], None]:
            return lambda module, args, output: between.__setitem__(name, output)

        def keep_input(module: nn.Module, args: tuple[object, ...]) -> None:
            tokens = args[0]  # the grid follows
            assert isinstance(tokens, Tensor)
            between[BLOCK_INPUT] = tokens

        groups = ("patch_embed", "tokens", "stages", "reassembly", "fusion", "depth")
        handles = [model.encoder.blocks[0].register_forward_pre_hook(keep_input)]
        for stage, readout in enumerate(getattr(model.reassembly, "readouts", None) or ()):
            handles.append(readout.register_forward_hook(keep(readout_name(stage))))
        handles.append(model.head.conv1.register_forward_hook(keep(HEAD_1)))
        handles.append(model.head.conv2.register_forward_hook(keep(HEAD_2)))
        try:
            with torch.no_grad(), capture(model, *groups) as cap:
                model(self.input)
        finally:
            for handle in handles:
                handle.remove()
        self.values = {name: cap[name] for name in cap}

    @property
    def nbytes(self) -> int:
        """Memory in bytes that the tensors take. Shared storage counts once."""
        tensors = [self.input, *self.values.values(), *self.between.values()]
        storages = [tensor.untyped_storage() for tensor in tensors]
        return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())

    def resized(self) -> np.ndarray:
        """Returns the input as an image, (h, w, 3) uint8."""
        return as_picture(self.input, self.config)

    def features(self) -> Tensor:
        """Returns the features that the head's last convolution turns into depth, (channels, h, w)."""
        return torch.relu(self.between[HEAD_2][0].float())

    def maps_of(self, part: Part) -> Tensor:
        """Returns the tokens of a part on their grid, or its maps: (channels, rows, cols)."""
        if part.kind == "tokens":
            return tiles.maps_of(self.between[BLOCK_INPUT][0], self.grid)
        value = self.values[part.points[0]][0]
        if value.ndim == 3:
            return value.float()
        grid = self.points[part.points[0]].grid(self.grid)
        if part.kind == "embedding":
            grid = TokenGrid(grid.rows, grid.cols)
        return tiles.maps_of(value, grid)
