"""Accepts images that are arrays already, and says how to convert those that are not (H, W, 3) uint8."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from .errors import ImageError
from .printable import printable
from .reading import Source, read_image


def as_image(image: Source | np.ndarray | Tensor) -> NDArray[np.uint8]:
    """Return an (H, W, 3) uint8 array unchanged, and read anything else.

    Arrays of other libraries, such as xarray, are used if they have this shape and dtype. Other arrays and tensors are
    refused, because only the caller knows the range of floats and which axis holds the colours. The message contains
    the line that converts them.

    Args:
        image: An array, or anything that `read_image` accepts.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ImageError: `image` is another array, has masked pixels, is a tensor or a list, or cannot be read.
    """
    if isinstance(image, Tensor):
        shape = tuple(image.shape)
        floats = " (floats in 0..1: first t = (t * 255).round().to(torch.uint8))" if image.is_floating_point() else ""
        advice = f"pass t.permute(1, 2, 0).cpu().numpy() for a tensor t of shape (3, H, W){floats}"
        if len(shape) == 4:
            advice = f"pass one image at a time, t = x[0]; {advice}"
        if len(shape) == 4 and floats:
            advice = f"if it is a prepared input x, call the model directly, model(x); else {advice}"
        raise ImageError(
            f"expected an (H, W, 3) uint8 array, got a torch tensor {image.dtype} {shape}. To convert it, {advice}"
        )
    if isinstance(image, np.ma.MaskedArray):
        image = _unmasked(image)
    elif isinstance(image, list | tuple) and any(_is_image(item) for item in image):
        raise ImageError(
            f"expected one (H, W, 3) uint8 array, got a {type(image).__name__} of {len(image)} images. Use a loop, "
            "[model.predict(image) for image in images], probes.run(model, images, out) for many, or "
            "model(torch.cat([model.prepare(image) for image in images])) for images of one size"
        )
    elif isinstance(image, Mapping):
        raise ImageError(
            f"expected one (H, W, 3) uint8 array, got a {type(image).__name__} with the keys "
            f"{printable(', '.join(map(str, image)))}. Pass one of its values"
        )
    elif type(image).__name__ == "DataFrame":
        raise ImageError("expected an (H, W, 3) uint8 array, got a DataFrame. Pass one image or the path of one")
    elif isinstance(image, list | tuple):
        raise ImageError(
            f"expected one image, got a {type(image).__name__} of {len(image)}. Pass one image at a time; nested lists "
            "of numbers become an image with np.array(..., dtype=np.uint8)"
        )
    elif not isinstance(image, np.ndarray):
        if not (hasattr(image, "__array__") and hasattr(image, "shape")):
            return read_image(image)
        image = _foreign(image)
    if image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8 and image.size:
        return image
    fixes = [fix for fix in (_shape_fix(image.shape), _dtype_fix(image.dtype)) if fix]
    raise ImageError(
        f"expected an (H, W, 3) uint8 RGB array, got {image.dtype} {image.shape}. To convert an array a: "
        + ", then ".join(fixes)
    )


def _unmasked(image: np.ma.MaskedArray) -> np.ndarray:
    """The data of an array without masked pixels."""
    if (masked := int(np.ma.count_masked(image))) > 0:
        raise ImageError(
            f"the array masks {masked:,} of {image.size:,} values, and a model sees all pixels. Choose what it sees "
            "there with a.filled(0), or pass a.data"
        )
    return image.data


def _foreign(image: object) -> np.ndarray:
    """An array of another library as a NumPy array."""
    try:
        return np.asarray(image)
    except Exception as error:  # e.g. on a GPU; libraries raise almost any type of exception
        raise ImageError(
            f"expected an (H, W, 3) uint8 array, got a {type(image).__name__} that NumPy cannot convert: {error}"
        ) from error


def _shape_fix(shape: tuple[int, ...]) -> str | None:
    """How to bring an array to the shape (H, W, 3); None if it has it."""
    if 0 in shape:
        return "it has no pixels, check how it was sliced"
    match shape:
        case (_, _, 3):
            return None
        case (_, _):
            return "make greyscale RGB with np.stack([a, a, a], axis=-1)"
        case (_, _, 1):
            return "make greyscale RGB with np.repeat(a, 3, axis=2)"
        case (_, _, 4):
            return "drop alpha with a[..., :3], or composite over white with dpt.read_image(PIL.Image.fromarray(a))"
        case (3, _, _):
            return "move the channels to the last axis with a.transpose(1, 2, 0)"
        case (_, _, _, _):
            return "pass one image at a time, a[0]"
    return "reshape it to (H, W, 3)"


def _dtype_fix(dtype: np.dtype[np.generic]) -> str | None:
    """How to convert an array to uint8; None if it is uint8."""
    if dtype == np.uint8:
        return None
    if dtype == np.bool_:
        return "a.astype(np.uint8) * 255"
    if dtype == np.uint16:
        return "(a / 257).round().astype(np.uint8) if its values go up to 65535"
    if dtype.kind == "f":
        return "(a * 255).round().astype(np.uint8) for values in 0..1, a.round().astype(np.uint8) for values in 0..255"
    return "a.astype(np.uint8) if its values are in 0..255"


def _is_image(item: object) -> bool:
    """Whether an item of a list is an image of its own, not a row of pixels."""
    if isinstance(item, np.ndarray | Tensor):
        return item.ndim >= 3
    return isinstance(item, str | os.PathLike | bytes | Image.Image)
