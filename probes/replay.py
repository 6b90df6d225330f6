"""FusionReplay recomputes fusion under changed scales, and reuses everything that the scales do not reach.

Problem: a slider on a fusion scale should redraw the depth map while it moves, and a full forward pass takes too long.

Approach: patch embedding, encoder and reassembly do not depend on fusion scales, and a fusion level does not depend on
the scales of finer maps. The encoder and reassembly run once. A change of scales reruns the fusion levels from the
coarsest affected one down, and the head. The result is bit-identical to `probes.edit` with the same scales:

    f3 = level3(r3 * R3)                  R: scales of reassembly.0 to reassembly.3
    f2 = level2(r2 * R2, f3 * F3)         F: scales of fusion.0 to fusion.3
    f1 = level1(r1 * R1, f2 * F2)
    f0 = level0(r0 * R0, f1 * F1)
    depth = head(f0 * F0)

A replay notices when the weights of the model change, and then runs the encoder again. Everything is computed outside
torch.autocast, so that cached and new parts fit together.

Level 0 and the head work at the finest resolution and take most of the time. A preview averages their inputs down to a
smaller size; levels 3 to 1 stay exact. With the demo model, a preview at a quarter of the side takes about a tenth of
the time, and its correlation with the full map is 0.97 to 0.99.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import SupportsFloat, SupportsIndex

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from torch import Tensor

from dpt import DPT
from dpt.ambient import without_autocast
from dpt.image import Size, as_image, check_finite, restore
from dpt.kept import Checksums
from dpt.modules import tensors_of
from dpt.scalars import plain

from .edit import active
from .errors import InvalidTypeError, InvalidValueError, UnavailableError, UnknownPointError
from .registry import check_model
from .scalars import real

POINTS = tuple(f"{group}.{s}" for group in ("reassembly", "fusion") for s in range(4))


class FusionReplay:
    """One image, ready for repeated fusion under different scales.

    Args:
        model: The model. It must not be inside a `probes.edit` block.
        image: (H, W, 3) uint8 RGB, or anything else that `dpt.read_image` takes.
        size: As for `model.predict`.
        keep_aspect: As for `model.predict`.
        maps: What an earlier pass captured of this image and size at the points reassembly.0 to reassembly.3, and the
            weights that it ran with. By default the encoder runs.

    Attributes:
        model: The model.
        maps: The four reassembled maps (1, F, h, w), finest first.
        fused: The latest output (1, F, h, w) of each fusion level, before its scale.
        image_size: (height, width) of the image in pixels.
        input_size: (height, width) of the model's input in pixels.
        blocks_run: Number of fusion levels that the last call ran.

    Raises:
        UnavailableError: The model is being edited, now or in a later call that must run the encoder again.

    Example:
        >>> replay = probes.FusionReplay(model, image)
        >>> depth = replay({"fusion.2": 0.0})  # (H, W) float32, equal to model.predict under that edit
    """

    def __init__(
        self,
        model: DPT,
        image: np.ndarray,
        size: Size = None,
        keep_aspect: bool = True,
        maps: tuple[tuple[Tensor, ...], Checksums] | None = None,
    ):
        check_model(model)
        image = as_image(image)
        self.model = model
        self.image_size = image.shape[:2]
        self._x = model.prepare(image, size, keep_aspect)
        self.input_size = tuple(self._x.shape[-2:])
        if maps is None:
            self._run_encoder()
        else:
            self._refuse_edits()
            self._start(self._x.to(model.device, model.dtype), *maps)

    def _refuse_edits(self) -> None:
        if active(self.model):
            raise UnavailableError(
                "A FusionReplay cannot run the encoder inside probes.edit(). Leave the edit block first."
            )

    def _run_encoder(self) -> None:
        model = self.model
        self._refuse_edits()
        weights = Checksums(tensors_of(model))  # before the pass: a change during the pass is noticed later
        x = self._x.to(model.device, model.dtype)
        grid = model.grid_of(x)
        with torch.no_grad(), without_autocast(x.device):
            maps: tuple[Tensor, ...] = model.reassembly(model.encoder(model.patch_embed(x), grid), grid)
        self._start(x, maps, weights)

    def _start(self, x: Tensor, maps: tuple[Tensor, ...], weights: Checksums) -> None:
        self._x, self.maps, self._weights = x, maps, weights
        self.fused: dict[int, Tensor] = {}
        self._scales: dict[str, float] = {}
        self._output: Tensor | None = None
        self._shrink = 1
        self.blocks_run = 0

    def is_current(self) -> bool:
        """Tells whether the weights are those of the last encoder run. Reads all weights: 10 ms for 100 MB on one core.

        False if weights hold no data to read, because they are offloaded.
        """
        return self._weights.same(tensors_of(self.model))

    def __call__(self, scales: Mapping[str, SupportsFloat] | None = None) -> Float32[np.ndarray, "H W"]:
        """Computes depth under the given scales.

        Args:
            scales: Maps fusion and reassembly points to factors, e.g. {"fusion.2": 0.0}. Other points have factor 1.

        Returns:
            (H, W) float32 depth at the image's size.

        Raises:
            UnknownPointError: A name is not a fusion or reassembly point.
            InvalidTypeError: scales is not a mapping, or a factor is not a number.
            InvalidValueError: A factor is not finite.

        Warns:
            NotFiniteWarning: The depth contains NaN or infinity.
        """
        depth = restore(self.output(scales).float().cpu(), self.image_size, self.model.config.preprocess)
        values: np.ndarray = depth[0].numpy()
        check_finite(values)
        return values

    def output(
        self, scales: Mapping[str, SupportsFloat] | None = None, shrink: SupportsIndex = 1, check: bool = True
    ) -> Float[Tensor, "1 h w"]:
        """Computes the model's output under the given scales, at the input's size.

        Args:
            scales: As for calling the replay.
            shrink: 1 for the exact output. From 2, an approximate preview with the sides divided by this number;
                `fused[0]` shrinks too.
            check: False skips `is_current`, for callers that have just asked.

        Returns:
            (1, h // shrink, w // shrink) inverse depth, or metres for metric models.

        Raises:
            UnknownPointError: A name is not a fusion or reassembly point.
            InvalidValueError: A factor is not finite, or shrink is not an integer >= 1.
        """
        wanted = dict.fromkeys(POINTS, 1.0) | _checked({} if scales is None else scales)
        number = plain(shrink)
        if not isinstance(number, int) or number < 1:
            raise InvalidValueError(f"shrink must be an integer >= 1, got {shrink!r}")
        shrink = number
        if check and not self.is_current():
            self._run_encoder()
        if shrink != self._shrink:
            self.fused.pop(0, None)
            self._shrink = shrink
        first = next((s for s in (3, 2, 1, 0) if self._stale(s, wanted)), -1)
        self.blocks_run = first + 1
        fused, output = dict(self.fused), self._output  # stored at the end: an interrupted call must change nothing
        with torch.no_grad(), without_autocast(self._x.device):
            for s in range(first, -1, -1):
                coarser = None if s == 3 else _times(fused[s + 1], wanted[f"fusion.{s + 1}"])
                own, size = _times(self.maps[s], wanted[f"reassembly.{s}"]), self._size(s)
                if s == 0 and shrink > 1:
                    assert coarser is not None
                    own, coarser = _shrunk(own, shrink), _shrunk(coarser, shrink)
                    size = (2 * own.shape[-2], 2 * own.shape[-1])
                fused[s] = self.model.fusion.blocks[s](own, coarser, size)
            if first >= 0 or output is None or wanted["fusion.0"] != self._scales["fusion.0"]:
                height, width = (max(1, side // shrink) for side in self.input_size)
                output = self.model.head(_times(fused[0], wanted["fusion.0"]), (height, width))
        self.fused, self._output, self._scales = fused, output, wanted
        return output.clone()  # callers may write to their result

    def _stale(self, s: int, wanted: Mapping[str, SupportsFloat]) -> bool:
        """Whether the direct inputs of fusion level s changed. Callers check coarser levels first."""
        inputs = [f"reassembly.{s}"] + ([f"fusion.{s + 1}"] if s < 3 else [])
        return s not in self.fused or any(wanted[name] != self._scales[name] for name in inputs)

    def _size(self, s: int) -> tuple[int, int]:
        """(h, w) that fusion level s resizes to: the size of the next finer map, or twice the finest."""
        height, width = self.maps[max(s - 1, 0)].shape[-2:]
        return (height, width) if s else (2 * height, 2 * width)


def _times(x: Tensor, factor: float) -> Tensor:
    return x if factor == 1.0 else x * factor


def _shrunk(x: Tensor, factor: int) -> Tensor:
    return F.interpolate(x, tuple(-(-side // factor) for side in x.shape[-2:]), mode="area")


def _checked(scales: object) -> dict[str, float]:
    if not isinstance(scales, Mapping):
        raise InvalidTypeError(f'scales must map points to factors, e.g. {{"fusion.2": 0.0}}, got {scales!r}')
    for name in scales:
        if name not in POINTS:
            raise UnknownPointError(f"{name!r} is not a point with a scale; expected one of {', '.join(POINTS)}")
    return {name: real(factor, f"the scale of {name}") for name, factor in scales.items()}
