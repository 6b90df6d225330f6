"""The demo model: a small DPT trained on rendered scenes, and a few sample images with their exact depth.

    import dpt
    from dpt import demo

    model = dpt.load("demo")                     # reads demo.weights()
    image, inverse_depth = demo.sample("table")  # an image, and the exact answer to compare with

This package holds the weights, the samples, and the code that made both. `scenes` renders, `train` trains, `evaluate`
scores, `sample_images` writes the samples. The last three run as ``python -m dpt.demo.<name>``. Importing this package
imports none of them.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..checkpoints.loading import is_demo
from ..checkpoints.lookup import DEMO
from ..errors import DPTError
from ..image import read_image
from ..model import DPT

__all__ = ["UnknownSampleError", "advice", "is_demo", "sample", "sample_of", "samples", "weights"]


def __dir__() -> list[str]:  # completion offers public names only
    return sorted(__all__)


_SAMPLES = Path(__file__).parent / "samples"


class UnknownSampleError(DPTError, KeyError):
    """No sample image has the requested name.

    Attributes:
        name: The requested name.
        names: The names of all samples.
    """

    def __init__(self, name: str, names: list[str]) -> None:
        super().__init__(name, names)
        self.name = name
        self.names = names

    def __str__(self) -> str:
        return f"name must be one of {', '.join(self.names)}, got {self.name!r}"


def weights() -> Path:
    """The path of the demo model's checkpoint: float16 safetensors in the original layout of Depth-Anything v2."""
    return DEMO


def samples() -> list[str]:
    """The names of the sample images, sorted."""
    return sorted(path.stem for path in _SAMPLES.glob("*.png"))


def sample(name: str) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Read a sample image and its exact depth.

    Args:
        name: One of `samples`.

    Returns:
        (image, inverse depth): (H, W, 3) uint8 RGB, and (H, W) float32 in 1 / metres along the camera's axis, 0 for
        sky.

    Raises:
        UnknownSampleError: No sample has this name. It is also a KeyError.

    Example:
        >>> image, inverse_depth = demo.sample("table")
        >>> image.shape, inverse_depth.shape
        ((336, 504, 3), (336, 504))
    """
    if name not in samples():
        raise UnknownSampleError(name, samples())
    image = read_image(_SAMPLES / f"{name}.png")
    with np.load(_SAMPLES / f"{name}.npz") as stored:
        return image, stored["inverse_depth"].astype(np.float32)


FOR_PHOTOGRAPHS = "depth-anything-v2-small"
"""The name of a model that was trained on photographs. `dpt.available` lists all names."""


def sample_of(image: NDArray[np.uint8]) -> str | None:
    """The name of the sample image that these pixels are, or None.

    Args:
        image: (H, W, 3) uint8 RGB.
    """
    for name, pixels in _pictures():
        if image.shape == pixels.shape and np.array_equal(image, pixels):
            return name
    return None


def advice(model: DPT, image: NDArray[np.uint8]) -> str:
    """One line about the demo model, for results on images that it was not made for; "" for other results.

    Args:
        model: The model of the result.
        image: The image, (H, W, 3) uint8 RGB. The samples of this package need no advice.
    """
    if sample_of(image) is not None or not is_demo(model):
        return ""
    return (
        "This is the demo model, trained on rendered scenes. For photographs, load a larger one: "
        f'dpt.load("{FOR_PHOTOGRAPHS}")'
    )


@cache
def _pictures() -> list[tuple[str, NDArray[np.uint8]]]:
    return [(name, read_image(_SAMPLES / f"{name}.png")) for name in samples()]
