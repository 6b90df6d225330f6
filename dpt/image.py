"""Turns images into model input, and model output into depth maps of the image's size.

`prepare` repeats the original code (MiDaS, ``transforms.Resize``, which Depth-Anything also uses). `network_size` finds
the same sizes. Resizing is bicubic without antialiasing on RGB in 0..1; then mean and standard deviation are applied.

The original code resizes with OpenCV's INTER_CUBIC. torch's bicubic is the same function (a = -0.75, half-pixel
centres, repeated border), and both compute positions in float32. The largest difference from OpenCV 5.0 on white noise
in 0..1 is 1e-5 at 100 x 50 pixels, 9e-5 at 640 x 480 and 4.4e-4 at 4032 x 3024. On smooth images it is about 10 times
smaller. One step of 8 bits is 3.9e-3.

`reading` describes how files are read, and which are refused.

Limits. The whole image is held in memory once as float32, 12 bytes per pixel. The original code enlarges very long
images without a limit: 1 x 400 pixels would become 518 x 207200 for Depth-Anything, 107 megapixels of noise.
`network_size` therefore refuses inputs of more than `LONGEST` times the area of the model's base size.
Panoramas of 1:8, and up to 1:12, pass. Inputs of more than `LARGEST` pixels are refused whatever was asked for.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal, SupportsIndex, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .ambient import without_autocast
from .errors import ImageError, InvalidValueError, NotFiniteWarning
from .image_arrays import as_image
from .reading import Source, read_image
from .scalars import plain

__all__ = [
    "LARGEST",
    "LONGEST",
    "ImageError",
    "Preprocess",
    "as_image",
    "check_finite",
    "network_size",
    "original_size",
    "prepare",
    "read_image",
    "restore",
]

LONGEST = 12  # largest input, as a multiple of the area of the model's base size (or of a larger requested size)
LARGEST = 2**28 // 12  # pixels of the largest input: 22 megapixels, 256 MiB in float32, 100,000 patches

Size: TypeAlias = "SupportsIndex | Sequence[SupportsIndex] | np.ndarray | Tensor | None"
"""The size of an input, as callers give it: None, one number, or (height, width). See `plain_size`."""

PlainSize: TypeAlias = "int | tuple[int, int] | None"
"""A size in plain numbers."""
"""The requested size of an input in pixels: None for the model's base, one number, or (height, width)."""


@dataclass(frozen=True)
class Preprocess:
    """How a model's input is made from an image, and how its output is resized to the image.

    Attributes:
        base: Side of the input for which the model was made, in pixels.
        multiple: Sides of an input are rounded to multiples of this number of pixels.
        method: How an image is scaled with its aspect ratio kept. "lower_bound": both sides are at least base.
            "minimal": by the one of the factors base / height and base / width that is closer to 1.
        keep_aspect: False for models with one input size, to which images are always stretched.
        mean: Of RGB in 0..1, one number per channel.
        std: Of RGB in 0..1, one number per channel.
        restore: (interpolation, align_corners) with which the output is resized.
        exact_multiple: Sides of an exact size must be multiples of this number; None: of multiple.

    Raises:
        ValueError: A field has a value that cannot be used.
    """

    base: int
    multiple: int
    method: Literal["lower_bound", "minimal"]
    keep_aspect: bool
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    restore: tuple[Literal["bilinear", "bicubic"], bool] = ("bilinear", True)
    exact_multiple: int | None = None

    def __post_init__(self) -> None:
        for field in ("base", "multiple", *(["exact_multiple"] if self.exact_multiple is not None else [])):
            object.__setattr__(self, field, _side(getattr(self, field), field))
        for field in ("mean", "std"):
            values = tuple(float(value) for value in getattr(self, field))
            if len(values) != 3 or not all(map(math.isfinite, values)):
                raise InvalidValueError(
                    f"{field} must be three finite numbers, for R, G and B, got {getattr(self, field)}"
                )
            object.__setattr__(self, field, values)
        if min(self.std) <= 0:
            raise InvalidValueError(f"std must be three positive numbers, got {self.std}")
        if self.method not in ("lower_bound", "minimal"):
            raise InvalidValueError(f"method must be 'lower_bound' or 'minimal', got {self.method!r}")
        object.__setattr__(self, "restore", tuple(self.restore))  # JSON gives lists
        match self.restore:
            case ("bilinear" | "bicubic", bool()):
                return
        raise InvalidValueError(
            f"restore must be ('bilinear' or 'bicubic', align_corners as True or False), got {self.restore!r}"
        )


def network_size(
    height: int, width: int, preprocess: Preprocess, size: Size = None, keep_aspect: bool = True
) -> tuple[int, int]:
    """The size of the input that an image becomes.

    Sides are rounded to multiples, half to even, and upwards where "lower_bound" needs it. The sizes equal those of the
    original code, with one exception: for very long images, it rounds a side to 0, and this function to one multiple.

    Args:
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        preprocess: Of the model.
        size: None for the model's base, one number for another base, or a pair (height, width).
        keep_aspect: Scale both sides by the same factor: with "lower_bound" the input covers size, with "minimal" one
            of its sides equals size. False: scale each side by its own factor; a pair is then the exact size of the
            input. Models whose preprocess.keep_aspect is False ignore keep_aspect=True.

    Returns:
        (height, width) of the input, in pixels.

    Raises:
        ImageError: The image is so long that its input would be more than `LONGEST` times as large as the base size
            (or as a larger requested size), or has more than `LARGEST` pixels. It is also a ValueError.
        InvalidValueError: A side is not a whole number of 1 or more, or an exact size is not a multiple or too large.

    Source:
        MiDaS, ``midas/transforms.py``, class Resize.
    """
    found = original_size(height, width, preprocess, size, keep_aspect)
    _check_area(height, width, found, preprocess, size, keep_aspect and preprocess.keep_aspect)
    return found


def original_size(
    height: int, width: int, preprocess: Preprocess, size: Size = None, keep_aspect: bool = True
) -> tuple[int, int]:
    """The size of the input by the rule of the original code, without a limit. See `network_size`.

    Raises:
        InvalidValueError: A side is not a whole number of 1 or more, or an exact size is not a multiple.
    """
    height, width, size = _side(height, "height"), _side(width, "width"), plain_size(size)
    keep_aspect = keep_aspect and preprocess.keep_aspect
    step = preprocess.multiple
    base_h, base_w = _base(preprocess.base if size is None else size)
    if isinstance(size, tuple) and not keep_aspect:
        step = preprocess.exact_multiple or step
        if base_h % step or base_w % step:
            near_h, near_w = (max(step, round(side / step) * step) for side in (base_h, base_w))
            raise InvalidValueError(
                f"an exact size must have sides that are multiples of {step} for this model, got {base_h} x {base_w}. "
                f"The nearest such size is {near_h} x {near_w}"
            )
        return base_h, base_w
    scale_h, scale_w = base_h / height, base_w / width
    if keep_aspect and preprocess.method == "lower_bound":
        scale_h = scale_w = max(scale_h, scale_w)
    elif keep_aspect:
        scale_h = scale_w = scale_w if abs(1 - scale_w) < abs(1 - scale_h) else scale_h
    least_h, least_w = (base_h, base_w) if preprocess.method == "lower_bound" else (step, step)
    return _to_multiple(scale_h * height, step, least_h), _to_multiple(scale_w * width, step, least_w)


def _check_area(
    height: int, width: int, found: tuple[int, int], preprocess: Preprocess, size: Size, keep_aspect: bool
) -> None:
    """ImageError or InvalidValueError if an input is too large."""
    area = found[0] * found[1]
    becomes = f"{height} x {width} pixels become an input of {found[0]} x {found[1]}"
    if not keep_aspect:
        if area > LARGEST:
            raise InvalidValueError(
                f"the size {found[0]} x {found[1]} has {area:,} pixels, more than the {LARGEST:,} that an input can "
                "have. Give a smaller size"
            )
        return
    wanted_h, wanted_w = _base(preprocess.base if size is None else size)
    limit = _largest_area(preprocess, wanted_h * wanted_w)
    if area <= limit:
        return
    smaller = _size_within(limit, height, width, preprocess, found)
    longer = max(height, width) / min(height, width)
    reason = f"elongated (1:{longer:.0f})" if longer >= 4 else "large"
    raise ImageError(
        f"the image is too {reason}: {becomes}, {area / preprocess.base**2:.0f} times the area of the model's base "
        f"size ({preprocess.base} x {preprocess.base}); the limit is {limit / preprocess.base**2:.0f} times. Crop the "
        "image, "
        f"{f'give a smaller size, e.g. {smaller}, ' if smaller else ''}or stretch it: size=(height, width) with "
        "keep_aspect=False"
    )


def _largest_area(preprocess: Preprocess, wanted: int) -> int:
    """Pixels of the largest input, if the requested size has so many pixels."""
    return min(LARGEST, LONGEST * max(preprocess.base**2, wanted))


def _size_within(limit: int, height: int, width: int, preprocess: Preprocess, found: tuple[int, int]) -> int | None:
    """About the largest single number for size that is accepted; None if there is none."""
    step = preprocess.multiple
    side = int(math.sqrt(limit * min(found) / max(found)))  # the area is about side * side * max / min
    for size in range(side // step * step, 0, -step):
        h, w = original_size(height, width, preprocess, size)
        if h * w <= _largest_area(preprocess, size * size):
            return size
    return None


def prepare(image: Source | np.ndarray, preprocess: Preprocess, size: Size = None, keep_aspect: bool = True) -> Tensor:
    """Resize and normalise an image.

    Args:
        image: (H, W, 3) uint8 RGB, or anything that `read_image` accepts.
        preprocess: Of the model.
        size: As for `network_size`.
        keep_aspect: As for `network_size`.

    Returns:
        (1, 3, h, w) float32.

    Raises:
        ImageError: `image` cannot be read, is an array of another shape or dtype, or is too elongated for the model
            (see `network_size`).
        ValueError: `size` cannot be used.
    """
    image = as_image(image)
    height, width = image.shape[:2]
    target = network_size(height, width, preprocess, size, keep_aspect)  # refuses before memory is taken
    # One pass from (H, W, 3) bytes to (3, H, W) floats without a transposed copy. Accepts views and read-only arrays.
    x = torch.from_numpy(np.divide(image.transpose(2, 0, 1), 255, dtype=np.float32, order="C"))[None]
    if x.shape[2:] != target:
        with without_autocast(x.device):
            x = F.interpolate(x, target, mode="bicubic", align_corners=False, antialias=False)
    mean, std = (
        torch.tensor(values, dtype=torch.float32, device="cpu").view(3, 1, 1)
        for values in (preprocess.mean, preprocess.std)
    )
    return x.sub_(mean).div_(std)


def restore(depth: Tensor, size: tuple[int, int], preprocess: Preprocess) -> Tensor:
    """Resize depth maps to the size of the image.

    Args:
        depth: (B, h, w), the output of a model.
        size: (H, W) of the image, in pixels.
        preprocess: Of the model.

    Returns:
        (B, H, W) float32 on the same device.

    Raises:
        ValueError: `depth` has another number of axes, or size cannot be used.
    """
    if depth.ndim != 3:
        raise InvalidValueError(f"depth must have the shape (B, h, w), got {tuple(depth.shape)}")
    target = _base(size)
    depth = depth.float()
    if depth.shape[1:] == target:
        return depth.clone()  # a copy, because a capture may hold the original
    mode, align_corners = preprocess.restore
    with without_autocast(depth.device):
        return F.interpolate(depth[:, None], target, mode=mode, align_corners=align_corners)[:, 0]


def _to_multiple(side: float, step: int, least: int) -> int:
    """The multiple closest to side, or the next one above side if the closest is less than least."""
    multiple = round(side / step) * step
    return multiple if multiple >= least else math.ceil(side / step) * step


def _base(size: object) -> tuple[int, int]:
    """A size as (height, width): one number stands for both sides."""
    if isinstance(size, np.ndarray | Tensor) and size.ndim:
        size = size.tolist()
    if not isinstance(size, tuple | list):
        side = _side(size, "size")
        return side, side
    if len(size) != 2:
        raise InvalidValueError(f"size must be one number or a pair (height, width), got {size}")
    return _side(size[0], "the height in size"), _side(size[1], "the width in size")


def _side(value: object, name: str) -> int:
    """A number of pixels; ValueError unless it is a whole number of 1 or more."""
    side = plain(value)
    if not isinstance(side, int) or side < 1:
        raise InvalidValueError(f"{name} must be a whole number of pixels >= 1, got {value!r}")
    return side


def plain_size(size: object) -> PlainSize:
    """Returns a size as plain numbers, which JSON can hold.

    Args:
        size: None, one number or a pair (height, width). Numbers of NumPy and torch, lists and arrays are accepted.

    Raises:
        InvalidValueError: It is not a size (also a ValueError).
    """
    if size is None or plain(size) is not None or isinstance(size, bool):
        return None if size is None else _side(size, "size")
    return _base(size)


_silent: ContextVar[bool] = ContextVar("silent", default=False)


@contextmanager
def silent_about_nan() -> Iterator[None]:
    """`check_finite` does not warn in this block, for callers that say it themselves. Other threads are unaffected."""
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)


def check_finite(depth: NDArray[np.floating], stacklevel: int = 2) -> None:
    """Warns if a depth map contains NaN or infinity.

    Args:
        depth: (H, W) of a model.
        stacklevel: Of the warning, as in `warnings.warn`.

    Warns:
        NotFiniteWarning: It does. The message counts the pixels.
    """
    finite = np.isfinite(depth)
    if _silent.get() or finite.all():
        return
    bad = int(depth.size - np.count_nonzero(finite))
    warnings.warn(
        f"the depth map contains NaN or infinity in {bad:,} of {depth.size:,} pixels. Check the weights (NaN, or "
        "values too large for half precision) and what is edited",
        NotFiniteWarning,
        stacklevel=stacklevel + 1,
    )
