"""The training images of the demo model: which scenes, at which sizes, in which colours.

Problem. Scenes cost only time, but most of them teach a half-trained model little.

Approach. Nearly every scene is new. Half are rooms, against three in ten of the evaluation scenes, because rooms are
hard: of the 16 worst of 256 scenes, 14 were rooms. Scenes with a large error are shown again, up to three times, in
other colours and at other sizes. A tenth of the scenes (mainly those with large objects close to the camera) holds 45 %
of the error: over 256 scenes the median R2 was 0.952 and the mean 0.895. Image sizes change every few steps. Large
sizes come late.

    source = Source(settings)
    size = source.size(step=0, progress=0.0)
    image, inverse_depth = source.batch(0, size)   # the share of this process
    source.record(difficulty)                       # one number per image of the whole step

Limits. All processes must pass the same numbers to `learn`. Otherwise their shares no longer make up one batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .optimizers import rank_and_workers
from .scenes import render
from .settings import Settings

TRAINING_SEEDS = 1_000_000  # the first; smaller seeds are reserved for evaluation and the sample images
PIXELS = 112 * 168  # a batch of another size has the same number of pixels, but at most 1.25 times as many images
SAME_SIZE_STEPS = 8
ROOMS = 0.5  # share of rooms among the training scenes

REPEATED = 0.25  # share of a batch that is shown again
HARD = 0.1  # unexplained variance (1 - R2) above which a scene is shown again
MAX_REPEATS = 3  # how often a scene is shown again at most
QUEUE_LENGTH = 400  # scenes in the queue of those to be shown again


def unexplained(prediction: Tensor, truth: Tensor) -> Tensor:
    """1 - R2 after scale and shift, as in `evaluate.r2`, but in float32 and with a gradient.

    Args:
        prediction: (B, h, w).
        truth: (B, h, w).

    Returns:
        (B,) in 0..1; 1 where prediction or truth is constant.
    """
    p = prediction - prediction.mean((1, 2), keepdim=True)
    t = truth - truth.mean((1, 2), keepdim=True)
    together = (p**2).sum((1, 2)) * (t**2).sum((1, 2))
    return 1 - (p * t).sum((1, 2)) ** 2 / together.clamp_min(1e-9)


def jitter(image: Tensor, generator: torch.Generator) -> Tensor:
    """Change gamma, saturation, contrast, brightness and colour balance of images (B, 3, h, w) in 0..1."""

    def draw(channels: int, low: float, high: float) -> Tensor:
        numbers = torch.rand(len(image), channels, 1, 1, generator=generator).to(image.device)
        return low + (high - low) * numbers

    x = image ** torch.exp(draw(1, -0.25, 0.25))
    x = torch.lerp(x.mean(1, keepdim=True), x, draw(1, 0.3, 1.3))  # photographs are less colourful than the scenes
    x = torch.lerp(x.mean((1, 2, 3), keepdim=True), x, draw(1, 0.7, 1.3))
    return (x * draw(1, 0.8, 1.2) * draw(3, 0.92, 1.08)).clamp(0, 1)


class Source:
    """Batches by step number. Half of the images are mirrored, all are recoloured."""

    # Showing every scene twice saves half of the rendering (an eighth of a step), but halves the variety. Learning was
    # visibly slower.

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.hard: list[tuple[float, int, int]] = []  # (unexplained, seed, times shown again), the worst first
        self.step: list[tuple[int, int]] = []  # (seed, times shown again) for all processes' last step

    def size(self, step: int, progress: float) -> tuple[int, int]:
        """(height, width) of the images of a step. progress: share of the run that is done, 0..1."""
        sizes = next(sizes for until, sizes in self.settings.sizes if progress <= until)
        generator = torch.Generator().manual_seed(self.settings.seed * 7919 + step // SAME_SIZE_STEPS)
        return sizes[int(torch.randint(len(sizes), (1,), generator=generator))]

    def batch(self, step: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """This process's share of a step's batch: images (B, 3, h, w) in 0..1 and inverse depth (B, h, w)."""
        settings, (rank, workers) = self.settings, rank_and_workers()
        count = max(1, round(settings.batch * min(1.25, PIXELS / (size[0] * size[1])) / workers))
        first = TRAINING_SEEDS * (1 + settings.seed) + step * settings.batch * 2
        self.step = [(seed, 0) for seed in range(first, first + count * workers)]
        # Drawn at random: taking the worst first would show the same scenes in consecutive steps.
        again = min(round(REPEATED * len(self.step)), len(self.hard) // 4)
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

    def record(self, difficulty: Sequence[float]) -> None:
        """Queue the hard scenes of the last step. difficulty: `unexplained` of each image, ordered by process."""
        for left, (seed, times) in zip(difficulty, self.step, strict=True):
            if left > HARD and times < MAX_REPEATS:
                self.hard.append((left, seed, times))
        self.hard = sorted(self.hard, reverse=True)[:QUEUE_LENGTH]
