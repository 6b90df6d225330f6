"""What the demo model sees in training: which scenes, at which sizes, in which colours.

Problem: scenes cost nothing but time, and most of them teach a half-trained model little.

Approach: nearly every scene is new. Half are rooms, though three in ten of those that are judged are: of the sixteen
worst of 256 scenes fourteen were rooms. And what came out worst comes again, up to three times, in other colours and
at other sizes, since a tenth of the scenes (large things close by, above all) holds 45 % of the error: of 256 scenes
the median R2 was 0.952 when the mean was 0.895. Sizes vary from one run of steps to the next; large ones come late.

    source = Source(settings)
    size = source.size(step=0, progress=0.0)
    image, inverse_depth = source.batch(0, size)   # this process's share
    source.learn(difficulty)                       # of the whole step's pictures, one number each

Limits: all processes must learn the same numbers, or their shares no longer fit together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .optimizers import place
from .scenes import render

if TYPE_CHECKING:
    from .train import Settings

TRAINING_SEEDS = 1_000_000  # the first; scenes below are kept for evaluation and the sample pictures
PIXELS = 112 * 168  # a batch of another size holds as many pixels, but at most 1.25 times as many pictures
# (progress up to which they are used, sizes to draw from)
SIZES = (
    (0.30, ((84, 126), (126, 84), (98, 112), (112, 140), (112, 168))),
    (0.70, ((112, 168), (112, 168), (168, 112), (140, 140), (126, 182), (98, 154))),
    (1.00, ((112, 168), (112, 168), (168, 112), (140, 140), (168, 224), (196, 280), (280, 392), (392, 280))),
)
SAME_SIZE_STEPS = 8
ROOMS = 0.5  # share of the scenes trained on

AGAIN = 0.25  # share of a batch that was seen before and came out badly
HARD = 0.1  # what part of a picture's depth is left unexplained, from which on it is seen again
TIMES = 3  # that a scene is seen again at most
KEPT = 400  # scenes to be seen again


def unexplained(prediction: Tensor, truth: Tensor) -> Tensor:
    """1 - R2 after scale and shift: (B, h, w) twice -> (B,), in 0..1, 1 where either is constant.

    As `evaluate.r2` counts it, but in float32 and with a gradient.
    """
    p = prediction - prediction.mean((1, 2), keepdim=True)
    t = truth - truth.mean((1, 2), keepdim=True)
    together = (p**2).sum((1, 2)) * (t**2).sum((1, 2))
    return 1 - (p * t).sum((1, 2)) ** 2 / together.clamp_min(1e-9)


def jitter(image: Tensor, generator: torch.Generator) -> Tensor:
    """Change gamma, saturation, contrast, brightness and colour balance of pictures (B, 3, h, w) in 0..1."""

    def draw(channels: int, low: float, high: float) -> Tensor:
        numbers = torch.rand(len(image), channels, 1, 1, generator=generator).to(image.device)
        return low + (high - low) * numbers

    x = image ** torch.exp(draw(1, -0.25, 0.25))
    x = torch.lerp(x.mean(1, keepdim=True), x, draw(1, 0.3, 1.3))  # photographs are less colourful than the scenes
    x = torch.lerp(x.mean((1, 2, 3), keepdim=True), x, draw(1, 0.7, 1.3))
    return (x * draw(1, 0.8, 1.2) * draw(3, 0.92, 1.08)).clamp(0, 1)


class Source:
    """Batches by step number, some pictures mirrored, all recoloured."""

    # Using every scene twice saves half the rendering, which is an eighth of a step, and costs half the variety:
    # learning got visibly slower.

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.hard: list[tuple[float, int, int]] = []  # (unexplained, seed, times seen again), the worst first
        self.step: list[tuple[int, int]] = []  # the scenes of the last step of all processes: seed, times seen again

    def size(self, step: int, progress: float) -> tuple[int, int]:
        sizes = next(sizes for until, sizes in self.settings.sizes if progress <= until)
        generator = torch.Generator().manual_seed(self.settings.seed * 7919 + step // SAME_SIZE_STEPS)
        return sizes[int(torch.randint(len(sizes), (1,), generator=generator))]

    def batch(self, step: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Pictures (B, 3, h, w) in 0..1 and inverse depth (B, h, w): this process's share of a step's batch."""
        settings, (rank, workers) = self.settings, place()
        count = max(1, round(settings.batch * min(1.25, PIXELS / (size[0] * size[1])) / workers))
        first = TRAINING_SEEDS * (1 + settings.seed) + step * settings.batch * 2
        self.step = [(seed, 0) for seed in range(first, first + count * workers)]
        # Drawn by lot: the worst of all would come again at once, step after step.
        again = min(round(AGAIN * len(self.step)), len(self.hard) // 4)
        lot = torch.randperm(len(self.hard), generator=torch.Generator().manual_seed(first))[:again].tolist()
        for place_in_step, k in enumerate(lot):
            _, seed, times = self.hard[k]
            self.step[place_in_step * len(self.step) // again] = (seed, times + 1)  # spread over the processes
        self.hard = [scene for k, scene in enumerate(self.hard) if k not in set(lot)]

        own = self.step[rank * count : (rank + 1) * count]
        image, inverse_depth = render([seed for seed, _ in own], *size, device=settings.device, indoors=ROOMS)
        generator = torch.Generator().manual_seed(first + rank * count)
        mirrored = (torch.rand(count, generator=generator) < 0.5).to(image.device)
        image = torch.where(mirrored[:, None, None, None], image.flip(-1), image)
        inverse_depth = torch.where(mirrored[:, None, None], inverse_depth.flip(-1), inverse_depth)
        return jitter(image, generator), inverse_depth

    def learn(self, difficulty: Sequence[float]) -> None:
        """How much was left unexplained of each picture of the last step, of all processes in their order."""
        for left, (seed, times) in zip(difficulty, self.step, strict=True):
            if left > HARD and times < TIMES:
                self.hard.append((left, seed, times))
        self.hard = sorted(self.hard, reverse=True)[:KEPT]
