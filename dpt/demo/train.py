"""Train the demo model on rendered scenes.

    python -m dpt.demo.train --out runs/demo --minutes 100
    torchrun --nproc-per-node 2 -m dpt.demo.train --out runs/demo --minutes 100    # one process a core

Problem: a depth model small enough to ship, from nothing, on two CPU cores and in an evening.

Approach: the real `dpt.DPT`, in Depth-Anything v2's layout, learns inverse depth divided by the picture's mean: L1 on
the values, L1 on their differences between neighbours, and 1 - R2, which is how it is judged in the end. It trains
through the value before the head's last ReLU: with the ReLU in the way a small model starves of gradient. Muon
(Jordan et al. 2024) trains the matrices of the blocks and the kernels of the decoder, AdamW the rest; an exponential
average of the weights is what is kept. The position table is a smooth sine-cosine table that is not trained: a small
grid reads only some of the 37 x 37 rows, so training would leave it rough, and other grids would read the roughness.
The patch projection starts at whitened principal components, and the four maps enter the fusion at one spread.
`batches` says which scenes are seen.

On a busy machine one process a core is faster than one process with many threads, which all wait for the slowest of
them at every operation. The processes share each batch out and average their gradients.

Progress is the larger of the share of --steps and of --minutes; learning rate and picture size follow it. A run resumes
from its last checkpoint; with --steps and on one machine it ends at the same weights as if it had not been stopped.
`--initial demo` goes on from a finished model, with fresh rates and without the smallest pictures.

A picture counts by how widely its own depth is spread, as R2 counts it: the standard deviation of inverse depth is 0.44
of its mean in rooms, 0.85 in the open (medians of 256 scenes), and a loss over the mean alone would see less of rooms.

Limits: what is learned is the geometry of simple solids. Of photographs the model reads little.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.distributed
from safetensors.torch import save_file
from torch import Tensor, nn

from ..attention import Attend, OffsetBias
from ..checkpoints import load
from ..checkpoints.depth_anything import to_original
from ..depth_anything import TABLE_SIDE, DepthAnythingConfig, depth_anything
from ..model import DPT
from .batches import SIZES, Source, unexplained
from .evaluate import normalise, r2
from .optimizers import Optimizers, place
from .scenes import render

VALIDATION_SEEDS = range(10_000, 10_064)
WHITENING_SEEDS = range(900_000, 900_064)
FUSED_FROM = 512  # tokens


def demo_config() -> DepthAnythingConfig:
    return depth_anything(
        variant="demo", width=192, depth=12, reassembly_channels=(48, 96, 192, 192), fusion_channels=48, version=2
    )


@dataclass(frozen=True)
class Settings:
    out: Path
    steps: int | None = None
    minutes: float | None = None
    batch: int = 16  # pictures of 112 x 168
    rate: float = 6e-4  # of AdamW
    matrix_rate: float = 0.012  # of Muon; 0: AdamW for everything
    warmup: int = 50  # steps
    average: float = 0.996  # of the weights, per step
    save_every: float = 120.0  # seconds
    seed: int = 0
    device: str = "cpu"
    bfloat16: bool | None = None  # None: where it is faster
    sizes: tuple = SIZES
    initial: str | None = None  # a checkpoint to go on from; None: from nothing
    config: DepthAnythingConfig = field(default_factory=demo_config)


class Explicit(Attend):
    """Attention as two products and a softmax.

    The fused kernel's backward pass takes 8 ms for 97 tokens (8 pictures, 3 heads, bfloat16, one thread of a Zen 4),
    these 2.
    """

    def forward(self, q: Tensor, k: Tensor, v: Tensor, bias: OffsetBias | Tensor | None = None) -> Tensor:
        assert bias is None
        if q.shape[2] > FUSED_FROM or q.device.type != "cpu":
            return super().forward(q, k, v)
        return torch.softmax((q * self.scale) @ k.transpose(-1, -2), dim=-1) @ v


def trainable(model: DPT) -> DPT:
    """In place: no last ReLU, positions fixed, everything else free."""
    model.head.activation = nn.Identity()  # type: ignore[assignment]
    for module in model.modules():
        if type(module) is Attend:
            module.__class__ = Explicit
    model.requires_grad_(True)
    model.encoder.positions.table.requires_grad_(False)
    return model.train()


def start(config: DepthAnythingConfig, seed: int) -> DPT:
    """A fresh model, ready to train."""
    torch.manual_seed(seed)
    model = trainable(DPT(config))
    for name, parameter in model.encoder.named_parameters():
        if parameter.dim() == 2:  # the blocks' matrices: unit variance through each layer
            nn.init.xavier_uniform_(parameter)
            if name.endswith(("projection.weight", "fc2.weight")):  # ends of residual branches: small at first
                parameter.data /= math.sqrt(2 * config.depth)
        elif name.endswith("bias") and "norm" not in name:
            nn.init.zeros_(parameter)
    for part in (model.reassembly, model.fusion, model.head):
        for module in part.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                # A stride-equals-kernel transposed convolution sums over its input channels alone.
                fan_in = module.in_channels if isinstance(module, nn.ConvTranspose2d) else module.weight[0].numel()
                nn.init.normal_(module.weight, std=fan_in**-0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    nn.init.normal_(model.head.conv3.weight, std=0.02)
    nn.init.normal_(model.encoder.class_token, std=0.02)
    if model.head.conv3.bias is not None:
        nn.init.ones_(model.head.conv3.bias)  # the mean of what is to be learned
    model.encoder.positions.table[0, 1:] = sine_cosine(config.width)
    return model


def whiten(model: DPT, image: Tensor) -> None:
    """Start the patch projection at the whitened principal components of the patches of pictures (B, 3, h, w).

    At random weights 85 % of a token is the patch's mean brightness, and texture and edges are under 1 %; a model
    that starts there is blind to them for its first tens of thousands of pictures.
    """
    projection = model.patch_embed.projection
    weight = projection.weight
    width, channels, patch, _ = weight.shape
    patches = normalise(image).unfold(2, patch, patch).unfold(3, patch, patch)  # (B, 3, rows, cols, 14, 14)
    patches = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, channels * patch**2).double()
    mean = patches.mean(0)
    variance, component = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
    variance, component = variance[-width:], component[:, -width:]  # the largest; at least as many as channels
    # What varies less than the sensor's noise is not blown up to the size of the rest.
    whitened = (component / (variance + 0.05).sqrt()).T  # (width, 588)
    # Spread over all channels: layer norm looks at all of them.
    spread = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(0)).double())[0]
    matrix = 0.7 * spread.to(whitened.device) @ whitened
    with torch.no_grad():
        weight.copy_(matrix.view_as(weight))
        projection.bias.copy_(-matrix @ mean)


def balance(model: DPT, image: Tensor) -> None:
    """Scale the four maps that enter the fusion to the same spread on pictures (B, 3, h, w).

    At random weights the coarsest is spread 15 times as widely as the finest, and a model that starts there leans on it
    alone.
    """
    x = normalise(image)
    grid = model.grid_of(x)
    with torch.no_grad():
        maps = model.reassembly(model.encoder(model.patch_embed(x), grid), grid)
        for convolution, produced in zip(model.reassembly.to_fusion, maps, strict=True):
            convolution.weight /= produced.std()


def sine_cosine(width: int) -> Tensor:
    """Smooth positions (37 * 37, width): a quarter of the channels each for sine and cosine of row and column."""
    place = (torch.arange(TABLE_SIDE) + 0.5) / TABLE_SIDE
    waves = torch.logspace(math.log10(0.25), math.log10(4.0), width // 4)  # periods across the picture
    phase = 2 * math.pi * place[:, None] * waves
    one = torch.cat([torch.sin(phase), torch.cos(phase)], 1)  # (37, width / 2)
    rows = one[:, None].expand(TABLE_SIDE, TABLE_SIDE, -1)
    cols = one[None].expand(TABLE_SIDE, TABLE_SIDE, -1)
    return 0.7 * torch.cat([rows, cols], -1).reshape(TABLE_SIDE**2, width)


def loss(prediction: Tensor, inverse_depth: Tensor) -> Tensor:
    """L1 on values and on neighbouring differences, of inverse depth over the picture's mean; and 1 - R2.

    A picture counts the more in L1 the less its depth varies, between 0.4 and 2.5.
    """
    target = inverse_depth / inverse_depth.mean((1, 2), keepdim=True).clamp_min(1e-4)
    target = target.clamp(max=10.0)
    weight = (0.6 / target.std((1, 2)).clamp_min(1e-4)).clamp(0.4, 2.5)
    error = prediction - target
    slope = error.diff(dim=1).abs().mean((1, 2)) + error.diff(dim=2).abs().mean((1, 2))
    values = weight * (error.abs().mean((1, 2)) + 0.5 * slope)
    # The gradient of 1 - R2 is 0.6 times as long as the rest's, in the median of 48 scenes. Counted three, then eight
    # times for the last 128,000 of 490,000 pictures, 1 - R2 of the evaluation scenes fell no faster.
    return (values + unexplained(prediction, target)).mean()


def rate(step: int, progress: float, settings: Settings) -> float:
    """Share of the peak learning rate: linear warm-up, then a cosine to 2 %.

    At a constant rate the loss swings instead of falling: averaged weights after 12,000 pictures scored R2 0.548, and
    weights after 2,400 under a falling rate 0.541 (AdamW alone, 48 scenes of 84 x 126).
    """
    warm = min(1.0, (step + 1) / settings.warmup)
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that a crash leaves either the old one or the new one whole."""
    partial = path.with_name(path.name + ".partial")
    write(partial)
    os.replace(partial, path)


def export(state: Mapping[str, Tensor], config: DepthAnythingConfig, path: Path) -> None:
    """Store weights in Depth-Anything v2's own key layout, fp16."""
    original = to_original(state, config)
    tensors = {key: tensor.detach().cpu().to(torch.float16).contiguous() for key, tensor in original.items()}
    replace(path, lambda partial: save_file(tensors, partial, metadata={"model": "dpt demo", "version": "2"}))


def validate(model: DPT, device: str) -> float:
    """Mean R2 on the validation scenes, 112 x 168."""
    model.eval()
    values = []
    with torch.no_grad():
        for first in range(0, len(VALIDATION_SEEDS), 32):
            picture = render(VALIDATION_SEEDS[first : first + 32], 112, 168, device=device)
            values.append(r2(model(normalise(picture.image)).relu(), picture.inverse_depth))
    model.train()
    return float(torch.cat(values).mean())


class Run:
    """A training run in a folder: checkpoint.pt, log.md, and averaged weights: demo.safetensors, half.safetensors."""

    def __init__(self, settings: Settings) -> None:
        if settings.steps is None and settings.minutes is None:
            raise ValueError("say how long to train: steps, minutes or both")
        self.settings = settings
        settings.out.mkdir(parents=True, exist_ok=True)
        self.model = start(settings.config, settings.seed).to(settings.device)
        if settings.initial is not None:
            finished = load(settings.initial, version=2)
            if _sizes(finished.config) != _sizes(settings.config):
                raise ValueError(
                    f"--initial {settings.initial} is a {finished.config.variant} model of {_sizes(finished.config)} "
                    f"channels, and what is trained here has {_sizes(settings.config)}; give a demo model"
                )
            self.model.load_state_dict(finished.state_dict())
            torch.manual_seed(settings.seed)
        elif not self.checkpoint.exists():
            image = render(WHITENING_SEEDS, 112, 168, device=settings.device).image
            whiten(self.model, image)
            balance(self.model, image[:32])
        # convolutions run faster so, on CPUs and GPUs
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = start(settings.config, settings.seed).to(settings.device)
        self.average.load_state_dict(self.model.state_dict())
        self.optimizers = Optimizers(self.model, settings)
        self.source = Source(settings)
        self.step, self.pictures, self.elapsed, self.halved = 0, 0, 0.0, False
        self.clock = time.monotonic()
        if self.checkpoint.exists():
            self._resume()

    @property
    def checkpoint(self) -> Path:
        return self.settings.out / "checkpoint.pt"

    @property
    def progress(self) -> float:
        steps, minutes = self.settings.steps, self.settings.minutes
        return max(self.step / steps if steps else 0.0, self.elapsed / (60 * minutes) if minutes else 0.0)

    def train(self) -> float:
        """Train to the end. Returns the last step's loss."""
        log, chief = self.settings.out / "log.md", place()[0] == 0
        self.clock = time.monotonic()
        if chief and not log.exists():
            columns = ("step", "pictures", "minutes", "size", "loss", "validation R2", "pictures/s")
            _tell(log, *columns)
            _tell(log, *["---"] * len(columns))
        saved, since, losses, last = self.elapsed, (time.monotonic(), self.pictures), [], math.nan
        while self.progress < 1:
            size = self.source.size(self.step, self.progress)
            last = self.train_step(size)
            losses.append(last)
            if not math.isfinite(last):
                raise FloatingPointError(
                    f"the loss became {last} at step {self.step}; lower --rate and --matrix-rate and start again from "
                    f"{self.checkpoint}"
                )
            if self.progress >= 0.5 and not self.halved:
                self.halved = True
                if chief:
                    export(self.average.state_dict(), self.settings.config, self.settings.out / "half.safetensors")
            if self.elapsed - saved > self.settings.save_every or self.progress >= 1:  # all agree on this
                speed = (self.pictures - since[1]) / (time.monotonic() - since[0])
                self.save()
                if chief:
                    score = validate(self.average, self.settings.device)
                    recent = sum(losses) / len(losses)
                    numbers = (f"{recent:.4f}", f"{score:.4f}", f"{speed:.1f}")
                    _tell(log, self.step, self.pictures, f"{self.elapsed / 60:.1f}", f"{size[0]}x{size[1]}", *numbers)
                saved, since, losses = self.elapsed, (time.monotonic(), self.pictures), []
        return last

    def train_step(self, size: tuple[int, int]) -> float:
        image, inverse_depth = self.source.batch(self.step, size)
        self.model.zero_grad(set_to_none=True)
        device = torch.device(self.settings.device)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.bfloat16):
            prediction = self.model(normalise(image).contiguous(memory_format=torch.channels_last))
        prediction = prediction.float()
        value = loss(prediction, inverse_depth)
        value.backward()
        self.source.learn(self.share(unexplained(prediction.detach(), inverse_depth)))
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizers.step(rate(self.step, self.progress, self.settings))
        self.step += 1
        self.pictures += len(image) * place()[1]
        decay = min(self.settings.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for old, new in zip(self.average.parameters(), self.model.parameters(), strict=True):
                if new.requires_grad:
                    old.lerp_(new, 1 - decay)
        return value.item()

    def share(self, difficulty: Tensor) -> list[float]:
        """Average gradients over the processes, and count the time since the last step's; all must agree on both.

        Takes how hard this process's pictures were, (B,); returns that of the whole step's.
        """
        now = time.monotonic()
        spent, self.clock = torch.tensor([now - self.clock]), now
        rank, workers = place()
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
        """Measured on a Zen 4 (AVX512-BF16, no AMX): 1.6 times as many pictures a second as fp32."""
        if self.settings.bfloat16 is not None:
            return self.settings.bfloat16
        return self.settings.device != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()

    def save(self) -> None:
        """By the first process; all must ask."""
        optimizers = self.optimizers.state_dict()
        if place()[0] > 0:
            return
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": optimizers,
            "step": self.step,
            "pictures": self.pictures,
            "elapsed": self.elapsed,
            "halved": self.halved,
            "hard": self.source.hard,
        }
        replace(self.checkpoint, lambda partial: torch.save(state, partial))
        export(self.average.state_dict(), self.settings.config, self.settings.out / "demo.safetensors")

    def _resume(self) -> None:
        state = torch.load(self.checkpoint, map_location=self.settings.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizers.load_state_dict(state["optimizers"])
        self.step, self.pictures = state["step"], state["pictures"]
        self.elapsed, self.halved, self.source.hard = state["elapsed"], state["halved"], state["hard"]


def _sizes(config: object) -> tuple:
    names = ("width", "depth", "heads", "reassembly_channels", "fusion_channels")
    return tuple(getattr(config, name, None) for name in names)


def _tell(log: Path, *columns: object) -> None:
    """Print a row of a Markdown table, and keep it."""
    line = f"| {' | '.join(str(column) for column in columns)} |"
    print(line, flush=True)
    with open(log, "a") as file:
        file.write(line + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m dpt.demo.train", description="Train the demo model on rendered scenes."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; an existing one is resumed")
    parser.add_argument("--minutes", type=float, help="train that long")
    parser.add_argument("--steps", type=int, help="train that many steps")
    parser.add_argument("--initial", metavar="CHECKPOINT", help='go on from a finished model, e.g. "demo"')
    parser.add_argument("--batch", type=int, default=16, help="pictures of 112 x 168 a step")
    parser.add_argument("--rate", type=float, default=6e-4, help="AdamW's learning rate")
    parser.add_argument("--matrix-rate", type=float, default=0.012, help="Muon's learning rate; 0: AdamW alone")
    parser.add_argument(
        "--seed", type=int, help="of the scenes; default: 0, with --initial 1, so that none comes again"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--bfloat16", action=argparse.BooleanOptionalAction, default=None)
    parser.add_argument("--save-every", type=float, default=120.0, help="seconds")
    options = vars(parser.parse_args(arguments))
    if "WORLD_SIZE" in os.environ:  # started by torchrun
        torch.distributed.init_process_group("nccl" if options["device"].startswith("cuda") else "gloo")
    if options["initial"] is not None:
        options["sizes"] = SIZES[1:]
    if options["seed"] is None:
        options["seed"] = 0 if options["initial"] is None else 1
    Run(Settings(**options)).train()


if __name__ == "__main__":
    main()
