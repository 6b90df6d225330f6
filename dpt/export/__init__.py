"""A model as an ONNX file that any runtime reads, for pictures of every size the model takes.

    dpt.export_onnx(model, "depth.onnx")                                # x (B, 3, h, w) float32 -> depth (B, h, w)
    dpt.export_onnx(model, "depth.onnx", preprocess=True)               # image (B, H, W, 3) uint8 -> depth (B, h, w)
    dpt.export_onnx(model, "depth.onnx", probes=("norms", "encoder.blocks.7.attention[0]"))
    dpt.export_onnx(model, "depth.onnx", dynamic=False, size=(252, 336))

How it is done: `traceable` makes a copy that torch.export can follow for all sizes at once (`windows` for SwinV2),
`outputs` names what comes out beside the depth, `graph` adds preprocessing and metadata, `verification` compares
onnxruntime with torch. A file that was not found right is not written.

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
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..config import TokenGrid
from ..errors import InvalidTypeError, MissingDependencyError
from ..image import Size, as_image, network_size
from ..model import DPT
from . import graph, verification, windows
from .files import staged, write
from .outputs import ExportError, Output, chosen, read
from .traceable import Traceable

__all__ = ["ExportError", "Exported", "export_onnx", "submodels"]

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
OPSETS = range(18, 24)  # what torch's exporter writes
DTYPES = (torch.float32, torch.float16)
LARGEST = 4096  # steps along a side, and pictures at once: a bound that torch.export wants


@dataclass(frozen=True)
class Exported:
    """What was written: the files, inputs, outputs and nodes, and the verification, a row a size."""

    path: Path
    files: list[Path]
    inputs: dict[str, str]
    outputs: dict[str, str]
    nodes: int
    rows: list[verification.Row] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        return sum(file.stat().st_size for file in self.files)

    def __str__(self) -> str:
        lines = [f"{self.path}: {self.bytes / 2**20:.1f} MiB in {len(self.files)} file(s), {self.nodes} nodes"]
        for title, values in (("takes", self.inputs), ("gives", self.outputs)):
            lines += [f"  {title} {name}: {shape}" for name, shape in values.items()]
        return "\n".join([*lines, *([verification.Row.HEADER, *map(str, self.rows)] if self.rows else [])])


def export_onnx(
    model: DPT,
    path: str | os.PathLike[str],
    *,
    dynamic: bool = True,
    probes: Sequence[str] = (),
    preprocess: bool = False,
    opset: int = 18,
    size: Size = None,
    dtype: torch.dtype = torch.float32,
    verify: bool | NDArray[np.uint8] = True,
    say: Callable[[str], None] | None = print,
) -> Exported:
    """Writes a model as ONNX and compares what onnxruntime makes of it with torch.

    dynamic: number, height and width of the pictures are free, for every size the model takes; other sizes make the
        graph fail, with the reason as the name of the failing node. False: one picture of one size; smaller and faster.
    probes: points that become outputs, as `outputs` lists them; their names are the outputs' names.
    preprocess: the input is "image", (B, H, W, 3) uint8 RGB, resized and normalised in the graph as `model.prepare`
        does it. Otherwise "x", (B, 3, h, w) float32, as `model.prepare` returns it.
    opset: of ONNX, 18 to 23.
    size: (height, width) of the input for dynamic=False, or one number for a square; with preprocess, what pictures are
        resized to, as in `model.prepare`. Default: the model's base size.
    dtype: torch.float16 for weights and arithmetic in half precision; inputs and outputs stay float32.
    verify: True compares on generated pictures, an (H, W, 3) uint8 picture on that; False compares nothing.
    say: where progress and the table go; None for nowhere.

    Returns what was written. Weights over 2 GB go to a second file, PATH.data, that must stay beside the first. Both
    appear whole or not at all.

    ImportError without the packages; OSError if the files cannot be written; ExportError for what cannot be
    exported, and if the comparison finds an error above 1e-3 standard deviations of an output (float16: 0.1).
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            f"export needs {', '.join(missing)}; install with: pip install 'dpt-workbench[onnx]'"
        )
    if not isinstance(model, DPT):
        raise InvalidTypeError(f"expected a dpt.DPT model, as dpt.load returns it, not {type(model).__name__}")
    if opset not in OPSETS:
        raise ExportError(f"opset {opset} is not supported; give one of {OPSETS[0]} to {OPSETS[-1]}")
    if dtype not in DTYPES:
        raise ExportError(f"dtype is {dtype}; give torch.float32 or torch.float16")
    if size is not None and dynamic and not preprocess:
        raise ExportError(
            "size has no meaning where every size is taken; give it with dynamic=False or preprocess=True"
        )
    if any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):
        raise ExportError(
            "the model has forward hooks, as inside probes.capture or probes.edit; leave those blocks first, "
            "as the graph would hold some of what they do and not the rest"
        )
    tell = say or (lambda line: None)
    outputs = chosen(model, probes)
    fixed = None if dynamic else _fixed(model, size)
    photo = as_image(verify) if isinstance(verify, np.ndarray) else None
    with staged(Path(path)) as place:
        tell("tracing the model")
        program = _traced(model, outputs, fixed, dtype)
        tell(f"translating {len(program.graph.nodes)} operations to ONNX, opset {opset}")
        written = _translated(program, outputs, fixed, opset)
        if preprocess:
            graph.add_preprocessing(written.graph, model.config.preprocess, size, fixed)
        tell("simplifying the graph")
        _simplify(written)
        graph.name_nodes(written.graph)
        about = {"probes": [o.name for o in outputs], "fixed_size": fixed, "preprocess": preprocess}
        graph.describe(written, model.config, about | {"precision": str(dtype).removeprefix("torch.")})
        tell("writing")
        files = write(written, place)
        rows = []
        if verify is not False:
            tell("checking, and comparing onnxruntime with torch")
            how = verification.How(dtype, preprocess, size, fixed, photo)
            rows = verification.check(place, model, outputs, how, tell)
        inputs, outs = ({v.name: _shape(v) for v in values} for values in (written.graph.inputs, written.graph.outputs))
        nodes = sum(1 for _ in written.graph)
    done = Exported(Path(path), [Path(path).with_name(f.name) for f in files], inputs, outs, nodes, rows)
    tell(str(done).split("\n", 1)[0])
    return done


def submodels(path: str | os.PathLike[str]) -> dict[str, Counter[str]]:
    """Operators of an exported file by the part of the model that they belong to, in the order of the graph."""
    import onnx

    found: dict[str, Counter[str]] = {}
    for node in onnx.load(path, load_external_data=False).graph.node:
        properties = {p.key: p.value for p in node.metadata_props}
        found.setdefault(properties.get("submodel", "unknown"), Counter())[node.op_type] += 1
    return found


def _fixed(model: DPT, size: Size) -> tuple[int, int]:
    """(height, width) of the one size; ValueError for one that the model does not take."""
    preprocess = model.config.preprocess
    if not isinstance(size, tuple | list):
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
        return tuple(value.clone() for value in values)  # a stage may be a block's output, and each needs its name


def _traced(model: DPT, outputs: list[Output], fixed: tuple[int, int] | None, dtype: torch.dtype) -> Any:
    """The model as a torch.export program."""
    config, step = model.config, model.config.multiple
    grid: TokenGrid | None = None if fixed is None else config.token_grid(*fixed)
    with torch.no_grad():
        module = _Outputs(Traceable(model, grid, dtype), outputs)
    # Any size will do for tracing; 5 and 7 are not special anywhere.
    args: tuple[Tensor, ...] = (torch.zeros(1, 3, *fixed) if fixed else torch.zeros(2, 3, 5 * step, 7 * step),)
    dims = {name: torch.export.Dim(name, min=1, max=LARGEST) for name in ("batch", "rows", "cols", "n")}
    sizes = {} if fixed else {0: dims["batch"], 2: step * dims["rows"], 3: step * dims["cols"]}
    shapes: tuple[dict, ...] = (sizes,)
    if any(output.tokens == () for output in outputs):
        args += (torch.tensor([0, 1, 2]),)
        shapes += ({0: dims["n"]},)
    with torch.no_grad(), _quiet():
        return torch.export.export(module, args, dynamic_shapes=shapes)


def _translated(program: Any, outputs: list[Output], fixed: tuple[int, int] | None, opset: int) -> Any:
    """The program as a model of onnxscript's intermediate representation."""
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


def _simplify(written: Any) -> None:
    from onnxscript import ir, optimizer

    with _quiet():
        # SwinV2's blocks of one stage work out the same windows: once is enough, and the rest is quicker afterwards.
        ir.passes.common.CommonSubexpressionEliminationPass()(written)
        ir.passes.common.RemoveUnusedNodesPass()(written)
        optimizer.optimize_ir(written, num_iterations=1)


class _quiet(warnings.catch_warnings):
    """Without what torch and onnxscript say about themselves while they work."""

    LOGGERS = ("torch.onnx", "onnxscript", "onnx_ir")

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore")
        self.levels = {name: logging.getLogger(name).level for name in self.LOGGERS}
        for name in self.levels:
            logging.getLogger(name).setLevel(logging.ERROR)
        # Where anybody listens to torch's trace of itself, it notes a stack at every step: more work than the export.
        self.listening = logging.getLogger("torch.__trace").handlers[:]
        logging.getLogger("torch.__trace").handlers.clear()

    def __exit__(self, *args: Any) -> None:
        logging.getLogger("torch.__trace").handlers[:] = self.listening
        for name, level in self.levels.items():
            logging.getLogger(name).setLevel(level)
        super().__exit__(*args)


def _shape(value: Any) -> str:
    return f"{value.dtype.name.lower()} ({', '.join(str(n) for n in value.shape)})"
