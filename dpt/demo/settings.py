"""The settings of a training run of the demo model, and the model that is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from ..depth_anything import DepthAnythingConfig, depth_anything
from ..errors import InvalidValueError
from ..machine import checked_device

# (progress up to which a row is used, sizes (height, width) in pixels to draw from)
Sizes = tuple[tuple[float, tuple[tuple[int, int], ...]], ...]
SIZES: Sizes = (
    (0.30, ((84, 126), (126, 84), (98, 112), (112, 140), (112, 168))),
    (0.70, ((112, 168), (112, 168), (168, 112), (140, 140), (126, 182), (98, 154))),
    (1.00, ((112, 168), (112, 168), (168, 112), (140, 140), (168, 224), (196, 280), (280, 392), (392, 280))),
)


def demo_config() -> DepthAnythingConfig:
    """Depth-Anything v2 in miniature: 12 blocks of 3 heads, 192 channels."""
    return depth_anything(
        variant="demo", width=192, depth=12, reassembly_channels=(48, 96, 192, 192), fusion_channels=48, version=2
    )


@dataclass(frozen=True)
class Settings:
    """The settings of one training run.

    Attributes:
        out: Folder of the run.
        steps: Steps to train; None: no limit.
        minutes: Minutes to train; None: no limit. At least one of the two must be given.
        batch: Images of 112 x 168 per step.
        rate: Peak learning rate of AdamW.
        matrix_rate: Peak learning rate of Muon; 0: AdamW for all parameters.
        warmup: Steps until the peak rate.
        average: Decay of the averaged weights per step.
        save_every: Seconds between checkpoints.
        seed: Of weights and scenes.
        device: A device of torch.
        bfloat16: Compute in bfloat16; None: where it is faster.
        sizes: Image sizes by progress.
        initial: A checkpoint to start from; None: random weights.
        config: The model.

    Raises:
        ValueError: A number is out of range, or the device is not available.
    """

    out: Path
    steps: int | None = None
    minutes: float | None = None
    batch: int = 16
    rate: float = 6e-4
    matrix_rate: float = 0.012
    warmup: int = 50
    average: float = 0.996
    save_every: float = 120.0
    seed: int = 0
    device: str = "cpu"
    bfloat16: bool | None = None
    sizes: Sizes = SIZES
    initial: str | None = None
    config: DepthAnythingConfig = field(default_factory=demo_config)

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None:
            raise InvalidValueError("steps or minutes must be given, got neither")
        for name, lowest in (("steps", 1), ("batch", 1), ("warmup", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise InvalidValueError(f"{name} must be {lowest} or more, got {value}")
        if self.minutes is not None and not 0 < self.minutes < math.inf:
            raise InvalidValueError(f"minutes must be a finite number > 0, got {self.minutes}")
        for name in ("rate", "matrix_rate", "save_every"):
            if not 0 <= (value := getattr(self, name)) < math.inf:
                raise InvalidValueError(f"{name} must be a finite number >= 0, got {value}")
        checked_device(self.device)
