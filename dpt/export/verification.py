"""Whether a graph computes what the model computes: onnx's checker, then onnxruntime against torch, size by size.

The model itself is the reference, not the copy that was traced. The measure is the largest difference over the
standard deviation of what torch says, for every output at every size.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..compiled import is_compiled, take_back
from ..config import Config
from ..image import Size, network_size, prepare
from ..model import DPT
from .outputs import ExportError, Output, read

ROUNDING = 8  # times what float32 itself leaves open, where that is more than the limit
LIMITS = {torch.float32: 1e-3, torch.float16: 0.1}
TOKENS = (0, 2)  # whose attention rows are compared where the graph is given tokens
# Pictures at once, rows and columns as shares of the base size, and whether both are made odd numbers of steps.
SHAPES = [(1, 1, 1, False), (1, 0.5, 0.8, True), (1, 0.25, 0.9, True), (1, 0.9, 0.5, False), (3, 0.65, 0.4, True)]
PHOTOS = [(1, 480, 640), (1, 333, 501), (1, 720, 405), (1, 120, 90), (3, 271, 380)]  # pictures, height, width


@dataclass(frozen=True)
class Row:
    """One size: pictures at once, height, width, the worst output and its error, seconds a picture."""

    batch: int
    height: int
    width: int
    output: str
    error: float
    torch: float
    onnxruntime: float

    HEADER = f"{'pictures':>18}  {'max error / std':>15}  {'torch':>9}  {'onnxruntime':>11}"

    def __str__(self) -> str:
        shape = f"{self.batch} x {self.height} x {self.width}"
        times = f"{self.torch * 1e3:6.0f} ms  {self.onnxruntime * 1e3:8.0f} ms"
        return f"{shape:>18}  {self.error:15.1e}  {times}  {self.output}"


def sizes(config: Config) -> list[tuple[int, int, int]]:
    """(pictures, height, width) of inputs to compare: the base size, odd grids, oblong ones, three at once."""
    step = config.multiple
    base = max(8, config.preprocess.base // step)  # of less, shares of it would be the same
    found: list[tuple[int, int, int]] = []
    for batch, *shares, odd in SHAPES:
        steps = [max(1, round(base * share)) for share in shares]
        steps = [n - (n + 1) % 2 if odd and n > 1 else n for n in steps]
        shape = (batch, *(_taken(config, n) * step for n in steps))
        found.append(shape)  # type: ignore[arg-type]
    return found


def _taken(config: Config, steps: int) -> int:
    """The number of steps, or the nearest below that the model takes."""
    for n in range(steps, 1, -1):
        try:
            config.token_grid(n * config.multiple, n * config.multiple)
        except ValueError:
            continue
        return n
    return 1


def _shapes(config: Config, how: How, outputs: Sequence[Output]) -> list[tuple[int, int, int]]:
    """Those of the sizes whose pictures have the tokens that were chosen at export."""
    if how.fixed is None:
        shapes = PHOTOS if how.preprocess else sizes(config)
    else:
        shapes = [(1, height, width) for _, height, width in PHOTOS] if how.preprocess else [(1, *how.fixed)]

    def has_tokens(height: int, width: int) -> bool:
        if how.preprocess:
            height, width = how.fixed or network_size(height, width, config.preprocess, how.size)
        grid = config.token_grid(height, width)
        return all(max(o.tokens) < o.grid(grid).tokens for o in outputs if o.tokens)

    found = [shape for shape in shapes if has_tokens(*shape[1:])]
    if not found:
        raise ExportError(
            "no picture of the usual sizes has the tokens whose attention rows were chosen; they count "
            f"from 0, the largest here is {max(max(o.tokens) for o in outputs if o.tokens)}"
        )
    return found


@dataclass(frozen=True)
class How:
    """What was exported: `export_onnx` says more. fixed: the one (height, width) there is."""

    dtype: torch.dtype
    preprocess: bool
    size: Size
    fixed: tuple[int, int] | None
    photo: NDArray[np.uint8] | None


def check(
    path: Path,
    model: DPT,
    outputs: Sequence[Output],
    how: How,
    say: Callable[[str], None],
) -> list[Row]:
    """A row a shape. ExportError if the checker finds a fault, or an output is further off than the limit."""
    import onnx
    import onnxruntime

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"onnx's checker finds a fault in the graph: {error}") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    tokens = torch.tensor(TOKENS)
    limit, rows = LIMITS[how.dtype], []
    say(Row.HEADER)
    reference = _in_float32(model)
    for batch, height, width in _shapes(model.config, how, outputs):
        images = [_picture(height, width, seed, how.photo) for seed in range(batch)]
        prepared = partial(_prepared, images, model.config, how)
        x = prepared()
        feed = {"image": np.stack(images)} if how.preprocess else {"x": x.numpy()}
        if any(output.tokens == () for output in outputs):
            feed["tokens"] = tokens.numpy()
        # Where the graph prepares its pictures, torch's time is that of preparing them, too.
        want, slow = _timed(partial(_torch, reference, outputs, prepared if how.preprocess else x.detach, tokens))
        got, fast = _timed(partial(session.run, None, feed))
        errors = {
            name: error_over_std(torch.from_numpy(found), wanted)
            for name, found, wanted in zip(["depth", *(o.name for o in outputs)], got, want, strict=True)
        }
        worst = max(errors, key=lambda name: errors[name])
        rows.append(Row(batch, height, width, worst, errors[worst], slow / batch, fast / batch))
        say(str(rows[-1]))
        over = [n for n, name in enumerate(errors) if not errors[name] < limit]
        exact = _in_float64(model, outputs, prepared, tokens) if over and how.dtype == torch.float32 else None
        for n in over:
            name = list(errors)[n]
            own = 0.0 if exact is None else error_over_std(want[n], exact[n])
            theirs = errors[name] if exact is None else error_over_std(torch.from_numpy(got[n]), exact[n])
            if not theirs < max(limit, ROUNDING * own):
                raise ExportError(
                    f"{name} differs by {errors[name]:.1e} standard deviations between onnxruntime and torch at "
                    f"{batch} x {height} x {width} pixels, over the limit of {limit:g}; nothing was written"
                )
            say(f"    {name}: against float64, torch is off by {own:.1e} there and onnxruntime by {theirs:.1e}")
    return rows


def error_over_std(found: Tensor, wanted: Tensor) -> float:
    """The largest difference over the standard deviation of what is wanted; infinite where shapes differ.

    Where all that is wanted is one number (the norm of a stage's only token, say), over that number's size.
    """
    if found.shape != wanted.shape or not bool(found.isfinite().all()):
        return float("inf")
    found, wanted = found.double(), wanted.double()
    spread = float(wanted.std(correction=0)) or float(wanted.abs().max()) or 1.0
    return float((found - wanted).abs().max()) / spread


def _in_float64(model: DPT, outputs: Sequence[Output], prepared: Callable[[], Tensor], tokens: Tensor) -> list[Tensor]:
    """The outputs without the rounding of float32, by which steep attention can differ more than the limit."""
    return _torch(_plain(model).cpu().double(), outputs, lambda: prepared().double(), tokens)


def _in_float32(model: DPT) -> DPT:
    """The model, or a copy of it on the CPU where it is elsewhere, in another precision, or compiled."""
    like = next(model.parameters())
    if (like.device.type, like.dtype, is_compiled(model)) == ("cpu", torch.float32, False):
        return model
    return _plain(model).float().cpu()


def _plain(model: DPT) -> DPT:
    copied = copy.deepcopy(model)
    take_back(copied)
    return copied


def _torch(model: DPT, outputs: Sequence[Output], prepared: Callable[[], Tensor], tokens: Tensor) -> list[Tensor]:
    with torch.no_grad():
        x = prepared()
        return read(model, outputs, lambda: model(x), model.grid_of(x), tokens)


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call returns and the seconds of its second run: the first makes what is kept for a size."""
    call()
    begin = time.perf_counter()
    return call(), time.perf_counter() - begin


def _prepared(images: list[NDArray[np.uint8]], config: Config, how: How) -> Tensor:
    """What the model is given for pictures that the graph is given, (B, 3, h, w)."""
    size, keep_aspect = images[0].shape[:2], False
    if how.preprocess:
        size, keep_aspect = (how.size, True) if how.fixed is None else (how.fixed, False)  # type: ignore[assignment]
    return torch.cat([prepare(image, config.preprocess, size, keep_aspect) for image in images])


def _picture(height: int, width: int, seed: int, photo: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """A photo at that size, the next ones mirrored; without one, smooth noise in three colours."""
    if photo is None:
        noise = torch.rand(1, 3, 9, 12, generator=torch.Generator().manual_seed(seed))
    else:
        noise = torch.from_numpy(photo.copy()).permute(2, 0, 1)[None] / 255
        noise = noise.flip(3) if seed % 2 else noise
    picture = torch.nn.functional.interpolate(noise, (height, width), mode="bilinear", antialias=photo is not None)
    return (picture[0] * 255).round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()
