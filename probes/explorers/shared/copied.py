"""Python for "Copy Python": how the code that a view copies gets its model and its image.

The code runs as it stands where the model came from `dpt.load` and the image from a file or the package. Otherwise it
uses the free names ``model`` and ``image``, which comments at its top explain. Everything that it assigns is called
``shown_...``, so it overwrites no variable of the user.
"""

from __future__ import annotations

import os
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

import dpt
from dpt.checkpoints.origins import loading_code
from dpt.image import PlainSize


class Code(TypedDict):
    """What a view needs to write Python."""

    setup: list[str]  # lines before all others
    model: str  # the expression for the model
    image: str  # the expression for the image


def model_code(model: dpt.DPT) -> Code:
    """Code of explorers that show a model without an image."""
    if origin := loading_code(model):
        imports = ["import dpt", *["import torch"] * ("=torch." in origin)]
        return Code(setup=[*imports, f"shown_model = {origin}"], model="shown_model", image="")
    return Code(setup=["# model: the dpt.DPT that the explorer was given"], model="model", image="")


def subject_code(model: dpt.DPT, image: NDArray[np.uint8], path: str | None) -> Code:
    """Code of explorers that run a model on an image.

    Args:
        model: The model.
        image: The image.
        path: The file that the image was read from, if it was.
    """
    code = model_code(model)
    imports = [line for line in code["setup"] if line.startswith("import ")]
    others = code["setup"][len(imports) :]
    if path is not None:
        read = f"dpt.read_image({path!r})"
    elif sample := dpt.demo.sample_of(image):
        read = f"dpt.demo.sample({sample!r})[0]"
    else:
        return Code(setup=[*imports, *others, "# image: the (H, W, 3) uint8 array"], model=code["model"], image="image")
    imports = list(dict.fromkeys(["import dpt", *imports]))
    return Code(setup=[*imports, *others, f"shown_image = {read}"], model=code["model"], image="shown_image")


def call_code(code: Code, size: PlainSize | list[int], keep_aspect: bool) -> str:
    """An expression for the depth."""
    arguments = [code["image"]]
    if size is not None:
        arguments.append(f"size={tuple(size) if isinstance(size, list) else size!r}")
    if not keep_aspect:
        arguments.append("keep_aspect=False")
    return f"{code['model']}.predict({', '.join(arguments)})"


def path_of(image: object) -> str | None:
    """The absolute path of an image that is given by its file, else None."""
    return os.path.abspath(os.fsdecode(image)) if isinstance(image, str | os.PathLike) else None
