"""The keyword arguments of `probes.run` and `repair`, with their defaults, checked when they are given."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict, TypeVar

import numpy as np
import torch

from dpt.scalars import whole

from ..errors import InvalidTypeError
from .records import Token

if TYPE_CHECKING:
    from distributed import Client

Pathlike: TypeAlias = "str | os.PathLike[str]"
NamedArray: TypeAlias = "tuple[str, np.ndarray]"
Images: TypeAlias = "Pathlike | NamedArray | Mapping[str, np.ndarray] | Iterable[Pathlike | NamedArray]"
"""Images of a run: a file, folder, glob, text list or video; a (name, array) pair; or several of these."""

Engine: TypeAlias = "str | Client"
"""Where the parts are computed: "local", or on the workers of a Dask client."""


class ReadOptions(TypedDict, total=False):
    """How images are read and prepared.

    Attributes:
        frames: Frames of every video, e.g. slice(0, 900, 30). Default: all.
        size: Input size in pixels, a number or (height, width), as for `model.predict`. Default: the model's.
        keep_aspect: Whether the input keeps the aspect ratio of the image. Default: True.
        workers: Decoding processes. Default: half of the processors, at most 8. 0 decodes in this process.
        timeout: Seconds that decoding one image may take. Default: 60.
    """

    frames: slice | None
    size: int | tuple[int, int] | None
    keep_aspect: bool
    workers: int | None
    timeout: float


class StoreOptions(TypedDict, total=False):
    """What is stored, and how.

    Attributes:
        tokens: For "attention.rows" and "attention.columns": numbers of tokens (0 is the class token) or patches
            (row, col).
        dtype: Of the stored values: torch.float16, float32 or float64. Default: the model's dtype, and float16 for
            attention.
        keep_images: Whether to store the images at the input's size, uint8, so that explorers can show them when the
            files are gone. Default: False.
        part: Images per part, i.e. per commit. Default: 50, or fewer so that a part has about 256 MiB.
        source: Notes about the origin of model and images, stored unchanged. The command line repairs runs by them.
    """

    tokens: Sequence[Token]
    dtype: torch.dtype | None
    keep_images: bool
    part: int | None
    source: Mapping[str, Any] | None


class ResumeOptions(TypedDict, total=False):
    """How the run is executed and resumed.

    Attributes:
        batch: Images per forward pass. Default: 4.
        engine: "local", or a `distributed.Client`, whose workers compute and write the parts. They must reach images
            and `out` under the same paths. Default: "local".
        retry: Whether to try images again that failed before. Default: False.
        yes: Whether to start even if the disk seems too small. Default: False.
        take_over: Whether to take the run from another writer, e.g. one on a machine that no longer answers. The other
            one stops before its next commit. Default: False.
        progress: Whether to show a progress bar. Default: on a terminal and in notebooks.
    """

    batch: int | None
    engine: Engine
    retry: bool
    yes: bool
    take_over: bool
    progress: bool | None


class RunOptions(ReadOptions, StoreOptions, ResumeOptions, total=False):
    """All keyword arguments of `probes.run`: see `ReadOptions`, `StoreOptions`, `ResumeOptions`."""


class RepairOptions(TypedDict, total=False):
    """Keyword arguments of `probes.runs.verify.repair`.

    Attributes:
        frames: Frames of every video, as given to `probes.run`.
        workers: Decoding processes, as for `probes.run`.
        timeout: Seconds that decoding one image may take. Default: 60.
        progress: Whether to show progress bars. Default: on a terminal and in notebooks.
        take_over: Whether to take the run from another writer, as for `probes.run`. Default: False.
    """

    frames: slice | None
    workers: int | None
    timeout: float
    progress: bool | None
    take_over: bool


RUN_DEFAULTS = RunOptions(
    frames=None,
    size=None,
    keep_aspect=True,
    workers=None,
    timeout=60.0,
    tokens=(),
    dtype=None,
    keep_images=False,
    part=None,
    source=None,
    batch=None,
    engine="local",
    retry=False,
    yes=False,
    take_over=False,
    progress=None,
)
REPAIR_DEFAULTS = RepairOptions(frames=None, workers=None, timeout=60.0, progress=None, take_over=False)

T = TypeVar("T", RunOptions, RepairOptions)


def completed(given: T, defaults: T, function: str) -> T:
    """The given options with defaults for the rest.

    Raises:
        InvalidTypeError: An option does not exist.
    """
    for name in given:
        if name not in defaults:
            close = difflib.get_close_matches(name, defaults, n=3)
            listed = f"close matches: {', '.join(close)}" if close else f"options: {', '.join(sorted(defaults))}"
            raise InvalidTypeError(f"{function}() has no option {name!r}; {listed}")
    options = defaults.copy()
    options.update(given)
    return options


def positive(name: str, value: object) -> int | None:
    """A number of images >= 1, or None.

    Raises:
        InvalidTypeError: The value is not a number.
        InvalidValueError: The number is smaller, or not whole.
    """
    return None if value is None else whole(value, name, least=1)
