"""Pictures on their way into a model, and its maps on their way back.

`prepare` repeats the original code (MiDaS, ``transforms.Resize``, which Depth-Anything also uses): `network_size` finds
the same sizes, the resizing is bicubic without antialias on RGB in 0..1, then mean and standard deviation are applied.

The original resizes with OpenCV's INTER_CUBIC. torch's bicubic is the same function (a = -0.75, half-pixel centres,
border repeated); both compute positions in float32. Largest difference seen from OpenCV 5.0 on white noise in 0..1:
1e-5 at 100 x 50 pixels, 9e-5 at 640 x 480, 4.4e-4 at 4032 x 3024; on smooth pictures about 10 times less. One step of
8 bits is 3.9e-3.

How files are read, and what is refused, is in `reading`.

Limits. The whole picture is held in float32 once: 12 bytes a pixel. Sizes follow the original where they are absurd,
too: 33 x 1000 pixels become 518 x 15694 for Depth-Anything, so crop very long pictures.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .errors import InvalidValueError
from .reading import ImageError, Source, read_image

__all__ = ["ImageError", "Preprocess", "as_image", "network_size", "prepare", "read_image", "restore"]

Size: TypeAlias = "int | tuple[int, int] | None"


@dataclass(frozen=True)
class Preprocess:
    """How a model wants its pictures, and how its output becomes a map of the picture's size.

    base: the side of the input that the model was made for, in pixels.
    multiple: the sides of an input are rounded to multiples of this.
    exact_multiple: what the sides of a size that is to be met exactly must be multiples of; None: the same.
    method: with the aspect ratio kept, "lower_bound" scales so that both sides are at least the base; "minimal" scales
        by the one of the two factors (base / height, base / width) that is nearer to 1.
    keep_aspect: False for models that take one size only; pictures are then always stretched.
    mean, std: of RGB in 0..1, one number a channel.
    restore: (interpolation, align_corners) on the way back.
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
                raise InvalidValueError(f"{field} has three finite numbers, for R, G and B; not {getattr(self, field)}")
            object.__setattr__(self, field, values)
        if min(self.std) <= 0:
            raise InvalidValueError(f"std is what values are divided by and must be positive, not {self.std}")
        if self.method not in ("lower_bound", "minimal"):
            raise InvalidValueError(f"method is 'lower_bound' or 'minimal', not {self.method!r}")
        object.__setattr__(self, "restore", tuple(self.restore))  # lists come from JSON
        match self.restore:
            case ("bilinear" | "bicubic", bool()):
                return
        raise InvalidValueError(
            f"restore is ('bilinear' or 'bicubic', align_corners as True or False), not {self.restore!r}"
        )


def network_size(
    height: int, width: int, preprocess: Preprocess, size: Size = None, keep_aspect: bool = True
) -> tuple[int, int]:
    """(h, w) of the input that a picture of height x width becomes.

    size: None for the model's base, one number for another base, or a pair (h, w). With keep_aspect the picture is
    scaled as a whole, by the method of the preprocessing: for "lower_bound" the input covers size, for "minimal" one of
    its sides meets it. Without, both sides take their own scale. Sides are then rounded to multiples, half to even,
    and upwards where "lower_bound" asks for it. A pair without keep_aspect is taken exactly: ValueError if a side
    is not an exact multiple. A preprocessing whose keep_aspect is False stretches always.

    Equal to the original's but for one thing: very long pictures round to a side of 0 there, to one multiple here.
    """
    height, width = _side(height, "height"), _side(width, "width")
    keep_aspect = keep_aspect and preprocess.keep_aspect
    step = preprocess.multiple
    base_h, base_w = _base(preprocess.base if size is None else size)
    if isinstance(size, tuple | list) and not keep_aspect:
        step = preprocess.exact_multiple or step
        if base_h % step or base_w % step:
            near_h, near_w = (max(step, round(side / step) * step) for side in (base_h, base_w))
            raise InvalidValueError(
                f"size {base_h} x {base_w} is to be met exactly, but this model takes multiples of {step}; "
                f"the nearest such size is {near_h} x {near_w}"
            )
        return base_h, base_w
    scale_h, scale_w = base_h / height, base_w / width
    if keep_aspect and preprocess.method == "lower_bound":
        scale_h = scale_w = max(scale_h, scale_w)
    elif keep_aspect:
        scale_h = scale_w = scale_w if abs(1 - scale_w) < abs(1 - scale_h) else scale_h
    least_h, least_w = (base_h, base_w) if preprocess.method == "lower_bound" else (step, step)
    return _to_multiple(scale_h * height, step, least_h), _to_multiple(scale_w * width, step, least_w)


def prepare(image: Source | np.ndarray, preprocess: Preprocess, size: Size = None, keep_aspect: bool = True) -> Tensor:
    """A picture as the input of a model: (1, 3, h, w) float32, resized bicubically and normalised.

    image: (H, W, 3) uint8 RGB, or anything `read_image` takes. size, keep_aspect: see `network_size`.
    """
    image = as_image(image)
    # One pass from (H, W, 3) bytes to (3, H, W) floats, without the copy in bytes; takes views and read-only arrays.
    x = torch.from_numpy(np.divide(image.transpose(2, 0, 1), 255, dtype=np.float32, order="C"))[None]
    height, width = image.shape[:2]
    target = network_size(height, width, preprocess, size, keep_aspect)
    if x.shape[2:] != target:
        x = F.interpolate(x, target, mode="bicubic", align_corners=False, antialias=False)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocess.mean, preprocess.std))
    return x.sub_(mean).div_(std)


def restore(depth: Tensor, size: tuple[int, int], preprocess: Preprocess) -> Tensor:
    """Maps (B, h, w) of a model at the size of the picture: (B, H, W) float32, on the same device. size: (H, W)."""
    if depth.ndim != 3:
        raise InvalidValueError(f"expected depth maps of shape (B, h, w), not {tuple(depth.shape)}")
    target = _base(size)
    depth = depth.float()
    if depth.shape[1:] == target:
        return depth.clone()  # the caller's own: changing it must not change what a probe captured
    mode, align_corners = preprocess.restore
    return F.interpolate(depth[:, None], target, mode=mode, align_corners=align_corners)[:, 0]


def _to_multiple(side: float, step: int, least: int) -> int:
    multiple = round(side / step) * step
    return multiple if multiple >= least else math.ceil(side / step) * step


def _base(size: Any) -> tuple[int, int]:
    """One number or a pair, as a pair."""
    if not isinstance(size, tuple | list):
        side = _side(size, "size")
        return side, side
    if len(size) != 2:
        raise InvalidValueError(f"size is one number or a pair (height, width), not {size}")
    return _side(size[0], "the height in size"), _side(size[1], "the width in size")


def _side(value: Any, name: str) -> int:
    try:
        side = operator.index(value)
    except TypeError:
        side = 0
    if side < 1 or isinstance(value, bool):
        raise InvalidValueError(f"{name} is a whole number of pixels, 1 or more, not {value!r}")
    return side


def as_image(image: Source | np.ndarray | Tensor) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 from what a caller calls a picture: such an array is returned as it is, the rest is read.

    Other arrays and tensors are refused with the line that makes them fit: whether floats run to 1 or to 255, or
    which axis holds the colours, only their owner knows.
    """
    if isinstance(image, Tensor):
        shape = tuple(image.shape)
        advice = "pass t.permute(1, 2, 0).cpu().numpy() of a uint8 tensor t of shape (3, H, W)"
        if len(shape) == 4 and image.is_floating_point():
            advice = "if it is a prepared input, call the model itself: model(x); else " + advice
        raise ImageError(f"expected an (H, W, 3) uint8 array, not a torch tensor {image.dtype} {shape}; {advice}")
    if not isinstance(image, np.ndarray):
        return read_image(image)
    if image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8 and image.size:
        return image
    fixes = [fix for fix in (_shape_fix(image.shape), _dtype_fix(image.dtype)) if fix]
    raise ImageError(
        f"expected an (H, W, 3) uint8 RGB array, not {image.dtype} {image.shape}; with your array as a: "
        + ", then ".join(fixes)
    )


def _shape_fix(shape: tuple[int, ...]) -> str | None:
    if 0 in shape:
        return "it has no pixels, look where it was cut"
    match shape:
        case (_, _, 3):
            return None
        case (_, _):
            return "grey becomes RGB with np.stack([a, a, a], axis=-1)"
        case (_, _, 1):
            return "grey becomes RGB with np.repeat(a, 3, axis=2)"
        case (_, _, 4):
            return "drop the alpha with a[..., :3], or lay it over white with dpt.read_image(PIL.Image.fromarray(a))"
        case (3, _, _):
            return "move the colours last with a.transpose(1, 2, 0)"
        case (_, _, _, _):
            return "give one picture at a time, a[0]"
    return "bring it to the shape (H, W, 3)"


def _dtype_fix(dtype: np.dtype[Any]) -> str | None:
    if dtype == np.uint8:
        return None
    if dtype == np.bool_:
        return "a.astype(np.uint8) * 255"
    if dtype == np.uint16:
        return "(a / 257).round().astype(np.uint8) if it runs to 65535"
    if dtype.kind == "f":
        return "(a * 255).round().astype(np.uint8) if it runs from 0 to 1, a.round().astype(np.uint8) if to 255"
    return "a.astype(np.uint8) if its values lie in 0..255"
