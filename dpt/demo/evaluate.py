"""Scores of depth maps after the scale and shift that relative depth leaves open, on scenes never trained on.

    python -m dpt.demo.evaluate                              # the demo model, a Markdown table
    python -m dpt.demo.evaluate --compare half.safetensors   # beside another checkpoint

Conventions, per picture, then averaged over pictures:

* R2 = 1 - sum (y - p)^2 / sum (y - mean y)^2 over all pixels, sky included (inverse depth 0); p is the predicted
  inverse depth after the least-squares scale and shift to the true one, y.
* AbsRel = mean |z' - z| / z and delta1 = share of pixels with max(z'/z, z/z') < 1.25, of depth z = 1/y against
  z' = 1/p with the same p. Sky and all beyond MAX_DEPTH are left out, and p is kept at or above 1 / MAX_DEPTH, as is
  usual in the literature.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .scenes import render

EVALUATION_SEEDS = range(512)  # training starts at seed 1,000,000: see train.py
MAX_DEPTH = 80.0  # metres
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the model's input, as for Depth-Anything


Predictor = Callable[[Tensor], Tensor]


class Scores(NamedTuple):
    r2: float
    delta1: float
    absrel: float


def normalise(image: Tensor) -> Tensor:
    """(B, 3, h, w) in 0..1 -> the model's input."""
    mean, std = image.new_tensor(MEAN), image.new_tensor(STD)
    return (image - mean[:, None, None]) / std[:, None, None]


def align(prediction: Tensor, truth: Tensor) -> Tensor:
    """The prediction after each picture's least-squares scale and shift to the truth; all (B, h, w), in float64."""
    p, y = prediction.double().flatten(1), truth.double().flatten(1)
    p_mean, y_mean = p.mean(1, keepdim=True), y.mean(1, keepdim=True)
    covariance = ((p - p_mean) * (y - y_mean)).sum(1, keepdim=True)
    variance = ((p - p_mean) ** 2).sum(1, keepdim=True)
    # A constant prediction has no scale; what is left of it is the mean.
    scale = torch.where(variance > 1e-12, covariance / variance.clamp_min(1e-12), torch.zeros_like(variance))
    return (scale * (p - p_mean) + y_mean).view(prediction.shape)


def r2(prediction: Tensor, truth: Tensor) -> Tensor:
    """R2 of inverse depth after scale and shift, per picture: (B,)."""
    y = truth.double().flatten(1)
    left = ((align(prediction, truth).flatten(1) - y) ** 2).sum(1)
    return 1 - left / ((y - y.mean(1, keepdim=True)) ** 2).sum(1).clamp_min(1e-12)


def delta1_and_absrel(prediction: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) each; NaN for a picture that is all sky."""
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
    """Mean scores of several predictors on the same scenes.

    A predictor takes normalised pictures (B, 3, h, w) and returns inverse depth (B, h, w), of any scale and shift.
    """
    columns: dict[str, list[Tensor]] = {name: [] for name in predictors}
    for first in range(0, len(seeds), batch):
        picture = render(seeds[first : first + batch], height, width, device=device)
        x, truth = normalise(picture.image), picture.inverse_depth
        for name, predict in predictors.items():
            with torch.no_grad():
                prediction = predict(x)
            columns[name].append(torch.stack([r2(prediction, truth), *delta1_and_absrel(prediction, truth)]))
    return {name: Scores(*torch.cat(parts, 1).nanmean(1).tolist()) for name, parts in columns.items()}


def mean_map(height: int, width: int, seeds: Sequence[int] = range(2_000_000, 2_000_512)) -> Tensor:
    """The mean of many true maps, each divided by its own mean: the best guess without looking, (height, width)."""
    total = torch.zeros(height, width)
    for start in range(0, len(seeds), 32):
        truth = render(seeds[start : start + 32], height, width).inverse_depth
        total += (truth / truth.mean((1, 2), keepdim=True)).sum(0)
    return total / len(seeds)


def same_for_all(guess: Tensor) -> Predictor:
    """The predictor that answers (h, w) to every picture."""
    return lambda x: guess.expand(len(x), -1, -1)


def main(arguments: Sequence[str] | None = None) -> None:
    from .. import load

    parser = argparse.ArgumentParser(
        prog="python -m dpt.demo.evaluate", description="Score depth on scenes never trained on."
    )
    parser.add_argument("--model", default="demo", help="what to score (default: the demo model)")
    parser.add_argument("--compare", nargs="*", default=[], metavar="FILE", help="more checkpoints to score beside it")
    parser.add_argument("--sizes", nargs="*", default=["112x168", "280x392"], metavar="HxW", help="pixels")
    parser.add_argument("--scenes", type=int, default=len(EVALUATION_SEEDS), help="how many scenes (default: 512)")
    options = parser.parse_args(arguments)
    print("| size | model | R2 | delta1 | AbsRel |")
    print("| --- | --- | --- | --- | --- |")
    for size in options.sizes:
        height, width = (int(side) for side in size.split("x"))
        guess = mean_map(height, width)
        predictors: dict[str, Predictor] = {"mean depth map": same_for_all(guess)}
        predictors |= {source: load(source, version=2) for source in (*options.compare, options.model)}
        for name, s in evaluate(predictors, EVALUATION_SEEDS[: options.scenes], height, width).items():
            print(f"| {height} x {width} | {name} | {s.r2:.4f} | {s.delta1:.4f} | {s.absrel:.4f} |", flush=True)


if __name__ == "__main__":
    main()
