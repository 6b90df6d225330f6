"""Verifies an exported graph: onnx's checker, then onnxruntime against torch at several sizes.

The reference is the original model, not the traced copy. The error of an output at a size is the largest difference,
divided by the standard deviation of torch's result.
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

from ..compiled import is_compiled, uncompile
from ..config import Config
from ..image import PlainSize, network_size, prepare
from ..model import DPT
from ..modules import tensors_of
from .outputs import ExportError, Output, read

ROUNDING = 8  # allowed error in multiples of torch's own float32 error, where that exceeds the limit
LIMITS = {torch.float32: 1e-3, torch.float16: 0.1}
TOKENS = (0, 2)  # tokens whose attention rows are compared if the graph takes tokens as input
# Images per batch, rows and columns as shares of the base size, and whether both become odd numbers of steps.
SHAPES = [(1, 1, 1, False), (1, 0.5, 0.8, True), (1, 0.25, 0.9, True), (1, 0.9, 0.5, False), (3, 0.65, 0.4, True)]
IMAGES = [(1, 480, 640), (1, 333, 501), (1, 720, 405), (1, 120, 90), (3, 271, 380)]  # images, height, width


@dataclass(frozen=True)
class Row:
    """The verification at one size.

    Attributes:
        batch: Number of images.
        height: Height of the input in pixels.
        width: Width of the input in pixels.
        output: The output with the largest error.
        error: That error, in standard deviations of torch's result.
        torch: Seconds per image in torch.
        onnxruntime: Seconds per image in onnxruntime.
    """

    batch: int
    height: int
    width: int
    output: str
    error: float
    torch: float
    onnxruntime: float

    HEADER = f"{'images':>18}  {'max error / std':>15}  {'torch':>9}  {'onnxruntime':>11}"

    def __str__(self) -> str:
        shape = f"{self.batch} x {self.height} x {self.width}"
        times = f"{self.torch * 1e3:6.0f} ms  {self.onnxruntime * 1e3:8.0f} ms"
        return f"{shape:>18}  {self.error:15.1e}  {times}  {self.output}"


def sizes(config: Config) -> list[tuple[int, int, int]]:
    """Chooses the inputs to compare: the base size, odd grids, oblong ones, and a batch of three.

    Returns:
        (images, height, width) of each.
    """
    step = config.multiple
    base = max(8, config.preprocess.base // step)  # shares of a smaller base would coincide
    found: list[tuple[int, int, int]] = []
    for batch, *shares, odd in SHAPES:
        steps = [max(1, round(base * share)) for share in shares]
        steps = [n - (n + 1) % 2 if odd and n > 1 else n for n in steps]
        shape = (batch, *(_taken(config, n) * step for n in steps))
        found.append(shape)  # type: ignore[arg-type]
    return found


def _taken(config: Config, steps: int) -> int:
    """The number of steps, or the nearest smaller one that the model takes."""
    for n in range(steps, 1, -1):
        try:
            config.token_grid(n * config.multiple, n * config.multiple)
        except ValueError:
            continue
        return n
    return 1


def _shapes(config: Config, settings: Settings, outputs: Sequence[Output]) -> list[tuple[int, int, int]]:
    """The sizes whose grids contain all tokens that were chosen at export."""
    if settings.fixed is None:
        shapes = IMAGES if settings.preprocess else sizes(config)
    else:
        shapes = [(1, height, width) for _, height, width in IMAGES] if settings.preprocess else [(1, *settings.fixed)]

    def has_tokens(height: int, width: int) -> bool:
        if settings.preprocess:
            height, width = settings.fixed or network_size(height, width, config.preprocess, settings.size)
        grid = config.token_grid(height, width)
        return all(max(o.tokens) < o.grid(grid).tokens for o in outputs if o.tokens)

    found = [shape for shape in shapes if has_tokens(*shape[1:])]
    if not found:
        raise ExportError(
            "the chosen attention rows cannot be verified: none of the usual sizes has a token "
            f"{max(max(o.tokens) for o in outputs if o.tokens)}. Choose smaller tokens, which count from 0"
        )
    return found


@dataclass(frozen=True)
class Settings:
    """The options of an export; `dpt.export_onnx` documents them.

    Attributes:
        dtype: dtype of weights and arithmetic.
        preprocess: Whether the graph resizes and normalises images.
        size: Size that images are resized to.
        fixed: (height, width) of the only input size; None for all sizes.
        image: The image to compare on; None for generated ones.
    """

    dtype: torch.dtype
    preprocess: bool
    size: PlainSize
    fixed: tuple[int, int] | None
    image: NDArray[np.uint8] | None


def check(
    path: Path,
    model: DPT,
    outputs: Sequence[Output],
    settings: Settings,
    report: Callable[[str], None],
) -> list[Row]:
    """Verifies an exported file.

    Args:
        path: The ONNX file.
        model: The original model.
        outputs: The outputs beside the depth.
        settings: The options of the export.
        report: Receives the table line by line.

    Returns:
        One row per size.

    Raises:
        ExportError: The checker rejects the graph, or an error exceeds the limit.
    """
    import onnx
    import onnxruntime

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"onnx's checker rejects the graph: {error}") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised, not logged
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    tokens = torch.tensor(TOKENS, device="cpu")
    limit, rows = LIMITS[settings.dtype], []
    report(Row.HEADER)
    reference = _in_float32(model)
    for batch, height, width in _shapes(model.config, settings, outputs):
        images = [_image(height, width, seed, settings.image) for seed in range(batch)]
        prepared = partial(_prepared, images, model.config, settings)
        x = prepared()
        feed = {"image": np.stack(images)} if settings.preprocess else {"x": x.numpy()}
        if any(output.tokens == () for output in outputs):
            feed["tokens"] = tokens.numpy()
        # If the graph prepares its images, torch's time includes preparing them.
        want, slow = _timed(partial(_torch, reference, outputs, prepared if settings.preprocess else x.detach, tokens))
        got, fast = _timed(partial(session.run, None, feed))
        errors = {
            name: error_over_std(torch.from_numpy(found), wanted)
            for name, found, wanted in zip(["depth", *(o.name for o in outputs)], got, want, strict=True)
        }
        worst = max(errors, key=lambda name: errors[name])
        rows.append(Row(batch, height, width, worst, errors[worst], slow / batch, fast / batch))
        report(str(rows[-1]))
        over = [n for n, name in enumerate(errors) if not errors[name] < limit]
        exact = _in_float64(model, outputs, prepared, tokens) if over and settings.dtype == torch.float32 else None
        for n in over:
            name = list(errors)[n]
            own = 0.0 if exact is None else error_over_std(want[n], exact[n])
            theirs = errors[name] if exact is None else error_over_std(torch.from_numpy(got[n]), exact[n])
            if not theirs < max(limit, ROUNDING * own):
                raise ExportError(
                    f"{name} differs by {errors[name]:.1e} standard deviations between onnxruntime and torch at "
                    f"{batch} x {height} x {width} pixels. The limit is {limit:g}. The file was not written"
                )
            report(f"    {name}: error against float64: torch {own:.1e}, onnxruntime {theirs:.1e}")
    return rows


def error_over_std(found: Tensor, wanted: Tensor) -> float:
    """Computes the largest difference, divided by the standard deviation of the wanted values.

    Args:
        found: The result.
        wanted: The reference.

    Returns:
        The error; infinite if shapes differ or values are not finite. If all wanted values are equal, e.g. the norm of
        a stage's only token, their magnitude replaces the standard deviation.
    """
    if found.shape != wanted.shape or not bool(found.isfinite().all()):
        return float("inf")
    found, wanted = found.double(), wanted.double()
    spread = float(wanted.std(correction=0)) or float(wanted.abs().max()) or 1.0
    return float((found - wanted).abs().max()) / spread


def _in_float64(model: DPT, outputs: Sequence[Output], prepared: Callable[[], Tensor], tokens: Tensor) -> list[Tensor]:
    """The outputs in float64. With steep attention, float32 rounding alone can exceed the limit."""
    return _torch(_plain(model).cpu().double(), outputs, lambda: prepared().double(), tokens)


def _in_float32(model: DPT) -> DPT:
    """The model, or an uncompiled float32 copy on the CPU."""
    kinds = {(tensor.device.type, tensor.dtype) for tensor in tensors_of(model)}
    if kinds == {("cpu", torch.float32)} and not is_compiled(model):
        return model
    return _plain(model).float().cpu()


def _plain(model: DPT) -> DPT:
    copied = copy.deepcopy(model)
    uncompile(copied)
    return copied


def _torch(model: DPT, outputs: Sequence[Output], prepared: Callable[[], Tensor], tokens: Tensor) -> list[Tensor]:
    with torch.no_grad():
        x = prepared()
        return read(model, outputs, lambda: model(x), model.grid_of(x), tokens)


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """The result of a call and the seconds of its second run; the first run fills caches."""
    call()
    begin = time.perf_counter()
    return call(), time.perf_counter() - begin


def _prepared(images: list[NDArray[np.uint8]], config: Config, settings: Settings) -> Tensor:
    """The model's input (B, 3, h, w) for the images that the graph receives."""
    size, keep_aspect = images[0].shape[:2], False
    if settings.preprocess:
        size, keep_aspect = (settings.size, True) if settings.fixed is None else (settings.fixed, False)  # type: ignore[assignment]
    return torch.cat([prepare(image, config.preprocess, size, keep_aspect) for image in images])


def _image(height: int, width: int, seed: int, image: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """The image resized, every second one mirrored; without an image, smooth noise in three colours."""
    if image is None:
        generator = torch.Generator().manual_seed(seed)
        noise = torch.rand(1, 3, 9, 12, dtype=torch.float32, device="cpu", generator=generator)
    else:
        noise = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
        noise = noise.flip(3) if seed % 2 else noise
    resized = torch.nn.functional.interpolate(noise, (height, width), mode="bilinear", antialias=image is not None)
    return (resized[0] * 255).round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()
