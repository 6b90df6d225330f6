"""Trains the demo model on rendered scenes.

    python -m dpt.demo.train --out runs/demo --minutes 100
    torchrun --nproc-per-node 2 -m dpt.demo.train --out runs/demo --minutes 100    # one process per core

Problem. The package needs a depth model small enough to ship, trained from random weights on two CPU cores in one
evening.

Approach. The model is a `dpt.DPT` in the layout of Depth-Anything v2.

* The target is inverse depth divided by its mean over the image. `loss` has three terms: L1 on values, L1 on
  differences between neighbours, and 1 - R2, which is the evaluation score.
* The loss is taken before the last ReLU of the head. Behind the ReLU, a small model gets almost no gradient.
* Muon (Jordan et al. 2024) trains the matrices of the blocks and the kernels of the decoder, AdamW the rest. The result
  is an exponential average of the weights.
* The position table is a smooth sine-cosine table and is not trained. A small grid reads only some of the 37 x 37 rows,
  so training would leave the table rough, and other grids would read the roughness.
* The patch projection starts at whitened principal components, and the four maps enter the fusion with the same
  standard deviation (`initialization`).
* `batches` chooses the scenes.

On a busy machine, one process per core is faster than one process with many threads, because every operation waits for
the slowest thread. The processes share each batch and average their gradients.

Progress is the larger of the shares of --steps and --minutes. Learning rate and image size follow it. A run resumes
from its last checkpoint. With --steps, on the same machine, it ends with the same weights as an uninterrupted run.
`--initial demo` starts from a finished model, with new learning rates and without the smallest images.

The loss weights each image by the spread of its depth, as R2 does. The standard deviation of inverse depth is 0.44 of
its mean in rooms and 0.85 outdoors (medians of 256 scenes), so an unweighted loss would neglect rooms.

Limits. The model learns the geometry of simple solids. On photographs it is weak.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import torch
import torch.distributed
from safetensors.torch import save_file
from torch import Tensor, nn

from ..checkpoints import CheckpointError, load
from ..checkpoints.depth_anything import to_original
from ..depth_anything import DepthAnythingConfig
from ..errors import AddressError, DPTError, InvalidValueError, MissingFileError
from ..model import DPT
from ..terminal import ArgumentParser, echo, guarded
from ..writing import local_path, replacing
from .batches import Source, unexplained
from .evaluate import normalise, r2
from .initialization import balance, new_model, whiten
from .optimizers import Optimizers, rank_and_workers
from .scenes import render
from .settings import SIZES, Settings

VALIDATION_SEEDS = range(10_000, 10_064)
WHITENING_SEEDS = range(900_000, 900_064)


class DivergedError(DPTError, FloatingPointError):
    """The loss became NaN or infinite.

    Attributes:
        step: The number of steps trained.
        loss: The loss of the last one.
    """

    def __init__(self, message: str, *, step: int = 0, loss: float = math.nan) -> None:
        super().__init__(message)
        self.step = step
        self.loss = loss


def loss(prediction: Tensor, inverse_depth: Tensor) -> Tensor:
    """L1 on values and on differences between neighbours, of inverse depth divided by its mean, plus 1 - R2.

    The L1 terms of an image have a weight between 0.4 and 2.5, which is larger for images with less variation in depth.

    Args:
        prediction: (B, h, w), before the last ReLU.
        inverse_depth: (B, h, w) in 1 / metres.

    Returns:
        A scalar.
    """
    target = inverse_depth / inverse_depth.mean((1, 2), keepdim=True).clamp_min(1e-4)
    target = target.clamp(max=10.0)
    weight = (0.6 / target.std((1, 2)).clamp_min(1e-4)).clamp(0.4, 2.5)
    error = prediction - target
    slope = error.diff(dim=1).abs().mean((1, 2)) + error.diff(dim=2).abs().mean((1, 2))
    values = weight * (error.abs().mean((1, 2)) + 0.5 * slope)
    # The gradient of 1 - R2 is 0.6 times as long as that of the other terms (median of 48 scenes). With a weight of
    # three, then eight, for the last 128,000 of 490,000 images, 1 - R2 of the evaluation scenes did not fall faster.
    return (values + unexplained(prediction, target)).mean()


def rate(step: int, progress: float, settings: Settings) -> float:
    """The learning rate as a share of its peak: linear warm-up, then a cosine down to 2 %.

    At a constant rate the loss oscillates instead of falling. Averaged weights scored R2 0.548 after 12,000 images at a
    constant rate, and 0.541 after only 2,400 images at a falling one (AdamW alone, 48 scenes of 84 x 126).
    """
    warm = min(1.0, (step + 1) / settings.warmup)
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def write_weights(state: Mapping[str, Tensor], config: DepthAnythingConfig, path: Path) -> None:
    """Write weights in float16, in the original key layout of Depth-Anything v2."""
    original = to_original(state, config)
    tensors = {key: tensor.detach().cpu().to(torch.float16).contiguous() for key, tensor in original.items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"model": "dpt demo", "version": "2"})


def validate(model: DPT, device: str) -> float:
    """Mean R2 on the validation scenes at 112 x 168."""
    model.eval()
    values = []
    with torch.no_grad():
        for first in range(0, len(VALIDATION_SEEDS), 32):
            rendered = render(VALIDATION_SEEDS[first : first + 32], 112, 168, device=device)
            values.append(r2(model(normalise(rendered.image)).relu(), rendered.inverse_depth))
    model.train()
    return float(torch.cat(values).mean())


class Run:
    """A training run and its folder, which is resumed if it holds a checkpoint.

    The folder holds checkpoint.pt, log.md, and the averaged weights: half.safetensors at half of the progress, and
    demo.safetensors. Each file is replaced as a whole, so a crash never leaves a damaged one.

    Args:
        settings: The settings of the run.

    Raises:
        ValueError: The model of settings.initial has other sizes than settings.config, or settings.out is an address.
        CheckpointError: `settings.initial` cannot be loaded.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        local_path(settings.out).mkdir(parents=True, exist_ok=True)
        self.model = new_model(settings.config, settings.seed).to(settings.device)
        if settings.initial is not None:
            finished = load(settings.initial, version=2)
            if _sizes(finished.config) != _sizes(settings.config):
                raise InvalidValueError(
                    f"initial must be a model with the sizes {_sizes(settings.config)} ({', '.join(SIZE_FIELDS)}), "
                    f"got {settings.initial} with {_sizes(finished.config)}. Give a demo model"
                )
            self.model.load_state_dict(finished.state_dict())
            torch.manual_seed(settings.seed)
        elif not self.checkpoint.exists():
            image = render(WHITENING_SEEDS, 112, 168, device=settings.device).image
            whiten(self.model, image)
            balance(self.model, image[:32])
        # convolutions are faster in this format, on CPUs and GPUs
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = new_model(settings.config, settings.seed).to(settings.device)
        self.average.load_state_dict(self.model.state_dict())
        self.optimizers = Optimizers(self.model, settings)
        self.source = Source(settings)
        self.step, self.images, self.elapsed, self.halved = 0, 0, 0.0, False
        self.clock = time.monotonic()
        if self.checkpoint.exists():
            self._resume()

    @property
    def checkpoint(self) -> Path:
        """The file from which the run resumes."""
        return self.settings.out / "checkpoint.pt"

    @property
    def progress(self) -> float:
        """The share of the run that is done; 1 or more at the end."""
        steps, minutes = self.settings.steps, self.settings.minutes
        return max(self.step / steps if steps else 0.0, self.elapsed / (60 * minutes) if minutes else 0.0)

    def train(self) -> float:
        """Train to the end.

        Returns:
            The loss of the last step; NaN if the run was already complete.

        Raises:
            DivergedError: the loss is not finite.
        """
        log, is_first = self.settings.out / "log.md", rank_and_workers()[0] == 0
        self.clock = time.monotonic()
        if is_first and not log.exists():
            columns = ("step", "images", "minutes", "size", "loss", "validation R2", "images/s")
            _report(log, *columns)
            _report(log, *["---"] * len(columns))
        saved, since, losses, last = self.elapsed, (time.monotonic(), self.images), [], math.nan
        while self.progress < 1:
            size = self.source.size(self.step, self.progress)
            last = self.train_step(size)
            losses.append(last)
            if not math.isfinite(last):
                raise DivergedError(
                    f"the loss is {last} after {self.step} steps. Lower --rate and --matrix-rate, and start again from "
                    f"{self.checkpoint}",
                    step=self.step,
                    loss=last,
                )
            if self.progress >= 0.5 and not self.halved:
                self.halved = True
                if is_first:
                    write_weights(
                        self.average.state_dict(), self.settings.config, self.settings.out / "half.safetensors"
                    )
            if self.elapsed - saved > self.settings.save_every or self.progress >= 1:  # the same in all processes
                speed = (self.images - since[1]) / (time.monotonic() - since[0])
                self.save()
                if is_first:
                    score = validate(self.average, self.settings.device)
                    recent = sum(losses) / len(losses)
                    numbers = (f"{recent:.4f}", f"{score:.4f}", f"{speed:.1f}")
                    _report(log, self.step, self.images, f"{self.elapsed / 60:.1f}", f"{size[0]}x{size[1]}", *numbers)
                saved, since, losses = self.elapsed, (time.monotonic(), self.images), []
        return last

    def train_step(self, size: tuple[int, int]) -> float:
        """Train on one batch of images of size (height, width). Returns the loss."""
        image, inverse_depth = self.source.batch(self.step, size)
        self.model.zero_grad(set_to_none=True)
        device = torch.device(self.settings.device)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.bfloat16):
            prediction = self.model(normalise(image).contiguous(memory_format=torch.channels_last))
        prediction = prediction.float()
        value = loss(prediction, inverse_depth)
        value.backward()
        self.source.record(self.average_gradients(unexplained(prediction.detach(), inverse_depth)))
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizers.step(rate(self.step, self.progress, self.settings))
        self.step += 1
        self.images += len(image) * rank_and_workers()[1]
        decay = min(self.settings.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for old, new in zip(self.average.parameters(), self.model.parameters(), strict=True):
                if new.requires_grad:
                    old.lerp_(new, 1 - decay)
        return value.item()

    def average_gradients(self, difficulty: Tensor) -> list[float]:
        """Average the gradients and the elapsed time over all processes, which must agree on both.

        Args:
            difficulty: (B,) `unexplained` of this process's images.

        Returns:
            The same of all processes' images, ordered by process.
        """
        now = time.monotonic()
        spent, self.clock = torch.tensor([now - self.clock]), now
        rank, workers = rank_and_workers()
        if workers > 1:
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            device, count = gradients[0].device, len(difficulty)
            every = torch.zeros(workers, count, device=device)
            every[rank] = difficulty
            flat = torch.cat([spent.to(device), every.flatten(), *(g.flatten() for g in gradients)]) / workers
            torch.distributed.all_reduce(flat)
            spent, difficulty = flat[:1], flat[1 : 1 + workers * count] * workers
            pieces = flat[1 + workers * count :].split([g.numel() for g in gradients])
            torch._foreach_copy_(gradients, [piece.view_as(g) for piece, g in zip(pieces, gradients, strict=True)])
        self.elapsed += float(spent)
        return difficulty.tolist()

    @property
    def bfloat16(self) -> bool:
        """Whether to compute in bfloat16. On a Zen 4 (AVX512-BF16, no AMX) it trains 1.6 times as fast as float32."""
        if self.settings.bfloat16 is not None:
            return self.settings.bfloat16
        return self.settings.device != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()

    def save(self) -> None:
        """Write checkpoint.pt and demo.safetensors. All processes must call this; the first one writes."""
        optimizers = self.optimizers.state_dict()
        if rank_and_workers()[0] > 0:
            return
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": optimizers,
            "step": self.step,
            "pictures": self.images,
            "elapsed": self.elapsed,
            "halved": self.halved,
            "hard": self.source.hard,
        }
        with replacing(self.checkpoint) as temporary:
            torch.save(state, temporary)
        write_weights(self.average.state_dict(), self.settings.config, self.settings.out / "demo.safetensors")

    def _resume(self) -> None:
        """Restore what `save` wrote."""
        state = torch.load(self.checkpoint, map_location=self.settings.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizers.load_state_dict(state["optimizers"])
        self.step, self.images = state["step"], state["pictures"]
        self.elapsed, self.halved, self.source.hard = state["elapsed"], state["halved"], state["hard"]


SIZE_FIELDS = ("width", "depth", "heads", "reassembly_channels", "fusion_channels")


def _sizes(config: object) -> tuple[object, ...]:
    return tuple(getattr(config, name, None) for name in SIZE_FIELDS)


def _report(log: Path, *columns: object) -> None:
    """Print a row of a Markdown table, and append it to the log."""
    line = f"| {' | '.join(str(column) for column in columns)} |"
    echo(line)
    with open(log, "a", encoding="utf-8") as file:
        file.write(line + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = ArgumentParser(prog="python -m dpt.demo.train", description="Train the demo model on rendered scenes.")
    default = {option.name: option.default for option in fields(Settings)}
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; an existing run is resumed")
    parser.add_argument("--minutes", type=float, help="train for this long")
    parser.add_argument("--steps", type=int, help="train for this many steps")
    parser.add_argument("--initial", metavar="CHECKPOINT", help='start from a finished model, e.g. "demo"')
    parser.add_argument("--batch", type=int, default=default["batch"], help="images of 112 x 168 per step")
    parser.add_argument("--rate", type=float, default=default["rate"], help="learning rate of AdamW")
    parser.add_argument(
        "--matrix-rate", type=float, default=default["matrix_rate"], help="learning rate of Muon; 0: AdamW alone"
    )
    parser.add_argument(
        "--seed", type=int, help="seed of the scenes; default: 0, or 1 with --initial, which gives other scenes"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--bfloat16", action=argparse.BooleanOptionalAction, default=None)
    parser.add_argument("--save-every", type=float, default=default["save_every"], help="seconds between checkpoints")
    options = vars(parser.parse_args(arguments))
    if options["initial"] is not None:
        options["sizes"] = SIZES[1:]
    if options["seed"] is None:
        options["seed"] = 0 if options["initial"] is None else 1
    try:
        settings = Settings(**options)
        if "WORLD_SIZE" in os.environ:  # started by torchrun
            torch.distributed.init_process_group("nccl" if settings.device.startswith("cuda") else "gloo")
        run = Run(settings)
    except (AddressError, InvalidValueError, CheckpointError, MissingFileError) as error:
        parser.error(str(error))
    run.train()


if __name__ == "__main__":
    with guarded():
        main()
