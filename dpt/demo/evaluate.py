"""Scores depth maps on scenes that training never uses, after a scale and a shift, which relative depth leaves open.

    python -m dpt.demo.evaluate                              # the demo model, as a Markdown table
    python -m dpt.demo.evaluate --compare half.safetensors   # with another checkpoint

Each score is computed per image, then averaged over images.

* R2 = 1 - sum (y - p)^2 / sum (y - mean y)^2 over all pixels, sky included (inverse depth 0). y is the true inverse
  depth, p the prediction after the least-squares scale and shift to y.
* AbsRel = mean |z' - z| / z, and delta1 = share of pixels with max(z'/z, z/z') < 1.25, of depth z = 1/y and z' = 1/p
  with the same p. As usual in the literature, sky and everything beyond MAX_DEPTH is left out, and p is clamped to at
  least 1 / MAX_DEPTH.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..checkpoints import CheckpointError, load
from ..errors import MissingFileError
from ..terminal import ArgumentParser, echo, guarded
from .scenes import render

EVALUATION_SEEDS = range(512)  # batches.TRAINING_SEEDS starts at 1,000,000
MAX_DEPTH = 80.0  # metres
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the model's input, as for Depth-Anything

Predictor = Callable[[Tensor], Tensor]
"""Normalised images (B, 3, h, w) -> inverse depth (B, h, w), of any scale and shift."""


class Scores(NamedTuple):
    """Mean scores over images."""

    r2: float
    delta1: float
    absrel: float


def normalise(image: Tensor) -> Tensor:
    """Images (B, 3, h, w) in 0..1 -> the input of the model, of the same shape."""
    mean, std = image.new_tensor(MEAN), image.new_tensor(STD)
    return (image - mean[:, None, None]) / std[:, None, None]


def align(prediction: Tensor, truth: Tensor) -> Tensor:
    """Apply the least-squares scale and shift to each prediction. Shapes are (B, h, w); the result is float64."""
    p, y = prediction.double().flatten(1), truth.double().flatten(1)
    p_mean, y_mean = p.mean(1, keepdim=True), y.mean(1, keepdim=True)
    covariance = ((p - p_mean) * (y - y_mean)).sum(1, keepdim=True)
    variance = ((p - p_mean) ** 2).sum(1, keepdim=True)
    # A constant prediction has no scale. It becomes the mean of the truth.
    scale = torch.where(variance > 1e-12, covariance / variance.clamp_min(1e-12), torch.zeros_like(variance))
    return (scale * (p - p_mean) + y_mean).view(prediction.shape)


def r2(prediction: Tensor, truth: Tensor) -> Tensor:
    """R2 of inverse depth after scale and shift, per image: (B, h, w) twice -> (B,)."""
    y = truth.double().flatten(1)
    left = ((align(prediction, truth).flatten(1) - y) ** 2).sum(1)
    return 1 - left / ((y - y.mean(1, keepdim=True)) ** 2).sum(1).clamp_min(1e-12)


def delta1_and_absrel(prediction: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """delta1 and AbsRel per image: (B, h, w) twice -> (B,) each. NaN for an image that shows only sky."""
    y = truth.double().flatten(1)
    counted = y > 1 / MAX_DEPTH
    depth = 1 / y.clamp_min(1 / MAX_DEPTH)
    predicted = 1 / align(prediction, truth).flatten(1).clamp_min(1 / MAX_DEPTH)
    ratio = torch.maximum(predicted / depth, depth / predicted)
    pixels = counted.sum(1)
    return (
        ((ratio < 1.25) & counted).sum(1) / pixels,
        ((predicted - depth).abs() / depth * counted).sum(1) / pixels,
    )


def evaluate(
    predictors: Mapping[str, Predictor],
    seeds: Sequence[int],
    height: int,
    width: int,
    *,
    device: str = "cpu",
    batch: int = 16,
) -> dict[str, Scores]:
    """Score several predictors on the same scenes.

    Args:
        predictors: By name.
        seeds: One scene each.
        height: Of the images, in pixels.
        width: Of the images, in pixels.
        device: Where to render and predict.
        batch: Images per call of a predictor.

    Returns:
        Mean scores by name.
    """
    columns: dict[str, list[Tensor]] = {name: [] for name in predictors}
    for first in range(0, len(seeds), batch):
        rendered = render(seeds[first : first + batch], height, width, device=device)
        x, truth = normalise(rendered.image), rendered.inverse_depth
        for name, predict in predictors.items():
            with torch.no_grad():
                prediction = predict(x)
            columns[name].append(torch.stack([r2(prediction, truth), *delta1_and_absrel(prediction, truth)]))
    return {name: Scores(*torch.cat(parts, 1).nanmean(1).tolist()) for name, parts in columns.items()}


def mean_map(height: int, width: int, seeds: Sequence[int] = range(2_000_000, 2_000_512)) -> Tensor:
    """The mean of many true depth maps, each divided by its own mean: the best constant prediction, (height, width)."""
    total = torch.zeros(height, width)
    for start in range(0, len(seeds), 32):
        truth = render(seeds[start : start + 32], height, width).inverse_depth
        total += (truth / truth.mean((1, 2), keepdim=True)).sum(0)
    return total / len(seeds)


def constant(guess: Tensor) -> Predictor:
    """A predictor that returns the same map (h, w) for every image."""
    return lambda x: guess.expand(len(x), -1, -1)


def _size(text: str) -> tuple[int, int]:
    """An option such as 112x168 as (height, width)."""
    if not (match := re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)):
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH in pixels, e.g. 112x168, got {text!r}")
    return int(match[1]), int(match[2])


def _count(text: str) -> int:
    """An option that is a whole number of 1 or more."""
    if not re.fullmatch(r"[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"expected a whole number >= 1, got {text!r}")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = ArgumentParser(
        prog="python -m dpt.demo.evaluate", description="Score depth on scenes that training never uses."
    )
    parser.add_argument("--model", default="demo", help="checkpoint to score (default: the demo model)")
    parser.add_argument("--compare", nargs="*", default=[], metavar="FILE", help="other checkpoints to score")
    parser.add_argument(
        "--sizes", nargs="*", type=_size, default=[(112, 168), (280, 392)], metavar="HxW", help="image sizes in pixels"
    )
    parser.add_argument("--scenes", type=_count, default=len(EVALUATION_SEEDS), help="number of scenes (default: 512)")
    options = parser.parse_args(arguments)
    try:
        models = {source: load(source, version=2) for source in (*options.compare, options.model)}
    except (CheckpointError, MissingFileError) as error:
        parser.error(str(error))
    echo("| size | model | R2 | delta1 | AbsRel |", "| --- | --- | --- | --- | --- |")
    for height, width in options.sizes:
        guess = mean_map(height, width)
        predictors: dict[str, Predictor] = {"mean depth map": constant(guess)}
        predictors |= models
        for name, s in evaluate(predictors, EVALUATION_SEEDS[: options.scenes], height, width).items():
            echo(f"| {height} x {width} | {name} | {s.r2:.4f} | {s.delta1:.4f} | {s.absrel:.4f} |")


if __name__ == "__main__":
    with guarded():
        main()
