"""Exports a model as an ONNX file, for images of every size that the model takes.

    dpt.export_onnx(model, "depth.onnx")                                # x (B, 3, h, w) float32 -> depth (B, h, w)
    dpt.export_onnx(model, "depth.onnx", preprocess=True)               # image (B, H, W, 3) uint8 -> depth (B, h, w)
    dpt.export_onnx(model, "depth.onnx", probes=("norms", "encoder.blocks.7.attention[0]"))
    dpt.export_onnx(model, "depth.onnx", dynamic=False, size=(252, 336))

The steps:

* `traceable` makes a copy of the model that torch.export can trace for all sizes at once (`windows` for SwinV2).
* `outputs` chooses the outputs beside the depth, from the probe points in `dpt.points`.
* `graph` adds preprocessing, names and metadata.
* `verification` compares onnxruntime with torch. A file that fails the comparison is not written.
* `files` writes the model as a whole or not at all.

Needs the packages of the extra: pip install 'dpt-workbench[onnx]'.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..ambient import usual_defaults
from ..config import TokenGrid
from ..errors import InvalidTypeError, MissingDependencyError
from ..image import PlainSize, Size, as_image, network_size, plain_size
from ..model import DPT
from ..printable import printable
from ..scalars import is_whole, whole
from ..written import written
from . import graph, verification, windows
from .files import staged, write
from .outputs import ExportError, Output, chosen, read
from .traceable import Traceable, check_model

if TYPE_CHECKING:
    from onnxscript import ir
    from torch.export import ExportedProgram

__all__ = ["ExportError", "Exported", "export_onnx", "submodels"]


def __dir__() -> list[str]:  # completion offers public names only
    return sorted(__all__)


PACKAGES = ("onnx", "onnxscript", "onnxruntime")
OPSETS = range(18, 24)  # supported by torch's exporter
DTYPES = (torch.float32, torch.float16)
LARGEST = 4096  # upper bound for torch.export, of steps along a side and of images in a batch


@dataclass(frozen=True)
class Exported:
    """The result of an export. Prints as a summary.

    Attributes:
        path: The ONNX file.
        files: All files: the ONNX file and, for large weights, its data file.
        inputs: Type and shape of each input, by name.
        outputs: Type and shape of each output, by name.
        nodes: Number of nodes in the graph.
        rows: The verification, one row per size; empty if it was skipped.
    """

    path: Path
    files: list[Path]
    inputs: dict[str, str]
    outputs: dict[str, str]
    nodes: int
    rows: list[verification.Row] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(file.stat().st_size for file in self.files)

    def __str__(self) -> str:
        path, size = printable(str(self.path), 1000), f"{self.bytes / 2**20:.1f} MiB"
        lines = [f"{path}: {size} in {len(self.files)} file(s), {self.nodes} nodes"]
        for title, values in (("input", self.inputs), ("output", self.outputs)):
            lines += [f"  {title} {name}: {shape}" for name, shape in values.items()]
        return "\n".join([*lines, *([verification.Row.HEADER, *map(str, self.rows)] if self.rows else [])])


@usual_defaults()  # torch's exporter makes many constants
def export_onnx(
    model: DPT,
    path: str | os.PathLike[str],
    *,
    dynamic: bool = True,
    probes: Sequence[str] = (),
    preprocess: bool = False,
    opset: SupportsIndex = 18,
    size: Size = None,
    dtype: torch.dtype = torch.float32,
    verify: bool | NDArray[np.uint8] = True,
    say: Callable[[str], None] | None = print,
) -> Exported:
    """Writes a model as ONNX and verifies onnxruntime's results against torch.

    Weights over 2 GB go to a second file, PATH.data, which must stay in the same folder. Files are written as a whole
    or not at all.

    Args:
        model: The model, in any floating-point dtype. It is not changed.
        path: The ONNX file to write.
        dynamic: True leaves number, height and width of the images free, within the sizes that the model takes. For
            other sizes the graph fails, and the name of the failing node is the reason. False fixes the input to one
            image of one size, which makes the graph smaller and faster.
        probes: Probe points that become outputs of the same name: groups, exact names or globs. For attention, the
            outputs are rows for some tokens; `dpt.export.outputs` documents the syntax.
        preprocess: True makes the input "image", (B, H, W, 3) uint8 RGB, which the graph resizes and normalises like
            `model.prepare`. False makes it "x", (B, 3, h, w) float32, as `model.prepare` returns it.
        opset: ONNX opset, 18 to 23.
        size: With dynamic=False, the (height, width) of the input, or one number for a square. With preprocess=True,
            the size that images are resized to, as in `model.prepare`. Default: the model's base size.
        dtype: torch.float16 stores weights and computes in half precision. Inputs and outputs stay float32.
        verify: True compares on generated images, an (H, W, 3) uint8 image on that image. False skips the comparison.
        say: Receives progress and the verification table line by line; None for silence.

    Returns:
        Files, inputs, outputs and verification.

    Raises:
        MissingDependencyError: The packages of the extra "onnx" are not installed.
        InvalidTypeError: `model` is not a `dpt.DPT`, or `probes` is a string.
        InvalidValueError: The model does not take `size`.
        ExportError: Options are not supported, a selector matches no point, the model has hooks, layers that cannot be
            exported (quantised, offloaded) or dtypes other than floating point, or the error exceeds 1e-3 standard
            deviations of an output (float16: 0.1).
        WriteError: The files cannot be written.

    Example:
        dpt.export_onnx(model, "depth.onnx", preprocess=True, probes=["norms", "encoder.blocks.7.attention[0]"])
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            f"ONNX export needs {', '.join(missing)}. Install with: pip install 'dpt-workbench[onnx]'"
        )
    if not isinstance(model, DPT):
        raise InvalidTypeError(f"model must be a dpt.DPT as dpt.load returns it, got {type(model).__name__}")
    size = plain_size(size)
    if not is_whole(opset) or whole(opset, "opset") not in OPSETS:
        raise ExportError(f"opset must be {OPSETS[0]} to {OPSETS[-1]}, got {opset}")
    if dtype not in DTYPES:
        raise ExportError(f"dtype must be torch.float32 or torch.float16, got {dtype}")
    if size is not None and dynamic and not preprocess:
        raise ExportError(f"size={size} needs dynamic=False or preprocess=True: a dynamic graph takes every size")
    if any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):
        raise ExportError(
            "cannot export a model with forward hooks, because the graph would contain only part of their effect. "
            "Leave the blocks of probes.capture and probes.edit first"
        )
    check_model(model)
    report, opset = say or (lambda line: None), whole(opset, "opset")
    outputs = chosen(model, probes)
    fixed = None if dynamic else _fixed(model, size)
    image = as_image(verify) if isinstance(verify, np.ndarray) else None
    with staged(Path(path)) as place:
        report("tracing the model")
        program = _traced(model, outputs, fixed, dtype)
        report(f"translating {len(program.graph.nodes)} operations to ONNX, opset {opset}")
        translated = _translated(program, outputs, fixed, opset)
        if preprocess:
            graph.add_preprocessing(translated.graph, model.config.preprocess, size, fixed)
        report("simplifying the graph")
        _simplify(translated)
        graph.name_nodes(translated.graph)
        about = {"probes": [o.name for o in outputs], "fixed_size": fixed, "preprocess": preprocess}
        graph.describe(translated, model.config, about | {"precision": str(dtype).removeprefix("torch.")})
        report("writing")
        files = write(translated, place)
        rows = []
        if verify is not False:
            report("checking the graph and comparing onnxruntime with torch")
            settings = verification.Settings(dtype, preprocess, size, fixed, image)
            rows = verification.check(place, model, outputs, settings, report)
        inputs, outs = _shapes(translated.graph.inputs), _shapes(translated.graph.outputs)
        nodes = sum(1 for _ in translated.graph)
    done = Exported(written(Path(path)), [Path(path).with_name(f.name) for f in files], inputs, outs, nodes, rows)
    report(str(done).split("\n", 1)[0])
    return done


def submodels(path: str | os.PathLike[str]) -> dict[str, Counter[str]]:
    """Counts the operators of an exported file per part of the model.

    Args:
        path: A file that `export_onnx` wrote.

    Returns:
        Counts by operator, for each part ("encoder.blocks.3", "head", ...), in the order of the graph.
    """
    import onnx

    found: dict[str, Counter[str]] = {}
    for node in onnx.load(path, load_external_data=False).graph.node:
        properties = {p.key: p.value for p in node.metadata_props}
        found.setdefault(properties.get("submodel", "unknown"), Counter())[node.op_type] += 1
    return found


def _fixed(model: DPT, size: PlainSize) -> tuple[int, int]:
    """(height, width) of a fixed input. Raises InvalidValueError if the model does not take this size."""
    preprocess = model.config.preprocess
    if not isinstance(size, tuple):
        side = preprocess.base if size is None else size
        size = (side, side)
    height, width = network_size(1, 1, preprocess, (size[0], size[1]), keep_aspect=False)
    model.token_grid(height, width)
    return height, width


class _Outputs(nn.Module):
    """The graph's inputs and outputs: (x[, tokens]) -> (depth, *probes)."""

    def __init__(self, traceable: Traceable, outputs: Sequence[Output]):
        super().__init__()
        self.traceable, self.outputs = traceable, outputs

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> tuple[Tensor, ...]:
        values = read(self.traceable.model, self.outputs, lambda: self.traceable(x), None, tokens)
        return tuple(value.clone() for value in values)  # a stage can be a block's output


def _traced(model: DPT, outputs: list[Output], fixed: tuple[int, int] | None, dtype: torch.dtype) -> ExportedProgram:
    """Traces the model with torch.export."""
    config, step = model.config, model.config.multiple
    grid: TokenGrid | None = None if fixed is None else config.token_grid(*fixed)
    with torch.no_grad():
        module = _Outputs(Traceable(model, grid, dtype), outputs)
    # The size for tracing must not be special for any operation: 5 x 7 steps are not.
    shape = (1, 3, *fixed) if fixed else (2, 3, 5 * step, 7 * step)
    args: tuple[Tensor, ...] = (torch.zeros(shape, dtype=torch.float32, device="cpu"),)
    dims = {name: torch.export.Dim(name, min=1, max=LARGEST) for name in ("batch", "rows", "cols", "n")}
    sizes = {} if fixed else {0: dims["batch"], 2: step * dims["rows"], 3: step * dims["cols"]}
    shapes: tuple[dict, ...] = (sizes,)
    if any(output.tokens == () for output in outputs):
        args += (torch.tensor([0, 1, 2]),)
        shapes += ({0: dims["n"]},)
    with torch.no_grad(), _quiet():
        return torch.export.export(module, args, dynamic_shapes=shapes)


def _translated(program: ExportedProgram, outputs: list[Output], fixed: tuple[int, int] | None, opset: int) -> ir.Model:
    """Translates the program to onnxscript's intermediate representation."""
    names = ["x", *(["tokens"] if any(output.tokens == () for output in outputs) else [])]
    with torch.no_grad(), _quiet():
        written = torch.onnx.export(
            program,
            (),
            input_names=names,
            output_names=["depth", *(output.name for output in outputs)],
            opset_version=opset,
            dynamo=True,
            optimize=False,
            verbose=False,
            custom_translation_table=windows.translations(),
        )
    assert written is not None
    if fixed is None:
        graph.check_first(written.model.graph)
    graph.name_axes(written.model, fixed is not None)
    return written.model


def _simplify(written: ir.Model) -> None:
    from onnxscript import ir, optimizer

    with _quiet():
        # SwinV2's blocks of a stage compute the same windows. Removing the duplicates first speeds up the optimizer.
        ir.passes.common.CommonSubexpressionEliminationPass()(written)
        ir.passes.common.RemoveUnusedNodesPass()(written)
        optimizer.optimize_ir(written, num_iterations=1)


class _quiet(warnings.catch_warnings):
    """Silences warnings and logs of torch and onnxscript."""

    LOGGERS = ("torch.onnx", "onnxscript", "onnx_ir")

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore")
        self.levels = {name: logging.getLogger(name).level for name in self.LOGGERS}
        for name in self.levels:
            logging.getLogger(name).setLevel(logging.ERROR)
        # With a handler, torch's trace log records a stack at every step, which takes longer than the export itself.
        self.listening = logging.getLogger("torch.__trace").handlers[:]
        logging.getLogger("torch.__trace").handlers.clear()

    def __exit__(self, *args: Any) -> None:
        logging.getLogger("torch.__trace").handlers[:] = self.listening
        for name, level in self.levels.items():
            logging.getLogger(name).setLevel(level)
        super().__exit__(*args)


def _shapes(values: Sequence[ir.Value]) -> dict[str, str]:
    """Type and shape of each value by name, e.g. "float (batch, 3, 14*rows, 14*cols)"."""
    found = {}
    for value in values:
        assert value.name is not None
        assert value.dtype is not None
        found[value.name] = f"{value.dtype.name.lower()} ({', '.join(str(n) for n in value.shape or ())})"
    return found
