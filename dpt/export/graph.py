"""Edits a graph after torch has translated it: moves checks to the front, adds preprocessing, names and metadata."""

from __future__ import annotations

import ast
import json
import re
from importlib import metadata
from typing import TYPE_CHECKING

from ..config import Config
from ..image import PlainSize, Preprocess, network_size
from .resampling import CUBIC

if TYPE_CHECKING:
    from onnxscript import ir

PARTS = ("patch_embed", "encoder", "reassembly", "fusion", "head")
CLUTTER = "pkg.torch"  # prefix of the exporter's metadata, which contains paths of this machine's source files


def check_first(graph: ir.Graph) -> None:
    """Moves the check of the input size to the front, so every other node depends on it.

    Args:
        graph: Graph of a dynamic export, changed in place.
    """
    x = graph.inputs[0]
    last = next(node for node in graph if _operator(node) == "checked" and node.op_type == "Reshape")
    before: set[ir.Node] = set()
    reached = [last]
    while reached:
        node = reached.pop()
        before.add(node)
        producers = (value.producer() for value in node.inputs if value is not None)
        reached += [producer for producer in producers if producer is not None]
    for use in list(x.uses()):
        if use.node not in before:
            use.node.replace_input_with(use.idx, last.outputs[0])
    first = [node for node in graph if node in before]
    graph.remove(first)
    graph.insert_before(graph[0], first)
    for node in first:
        node.metadata_props["submodel"] = "size check"


def _operator(node: ir.Node) -> str:
    """Name of the torch operator that became this node."""
    scopes = node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]")
    return re.sub(r"_\d+$", "", (ast.literal_eval(scopes) or [""])[-1])


def add_preprocessing(graph: ir.Graph, preprocess: Preprocess, size: PlainSize, fixed: tuple[int, int] | None) -> None:
    """Puts resizing and normalisation before the model. The input becomes "image", (B, H, W, 3) uint8 RGB.

    Args:
        graph: The model's graph, changed in place.
        preprocess: How the model's images become inputs.
        size: Size that images are resized to, as in `model.prepare`.
        fixed: (height, width) of the only input size; None for all sizes.
    """
    from onnxscript import ir

    text = preprocessing(preprocess, size, fixed)
    before = ir.from_onnx_text(text).graph
    image, x = before.inputs[0], before.outputs[0]
    nodes = list(before)
    before.outputs.clear()
    before.inputs.clear()
    before.remove(nodes)
    for number, node in enumerate(nodes):
        node.name = f"preprocess/{node.op_type}_{number}"
        node.metadata_props["submodel"] = "preprocess"
    graph.insert_before(graph[0], nodes)
    ir.convenience.replace_all_uses_with(graph.inputs[0], x)
    graph.inputs[0] = image


def preprocessing(preprocess: Preprocess, size: PlainSize, fixed: tuple[int, int] | None) -> str:
    """Writes `dpt.image.prepare` as a graph in ONNX's text format.

    Args:
        preprocess: How the model's images become inputs.
        size: Size that images are resized to.
        fixed: (height, width) of the only input size; None for all sizes.

    Returns:
        The graph, from "image" to "x".
    """
    batch = "batch" if fixed is None else 1
    mean, std = ([repr(float(v)) for v in values] for values in (preprocess.mean, preprocess.std))
    return f"""
<ir_version: 8, opset_import: ["" : 18]>
preprocess (uint8[{batch}, height, width, 3] image) => (float[{batch}, 3, h, w] x) {{
    given = Shape <start = 1, end = 3> (image)
    {_size_rule(preprocess, size, fixed)}
    full = Constant <value = float {{255.0}}> ()
    as_float = Cast <to = 1> (image)
    in_one = Div (as_float, full)
    planes = Transpose <perm = [0, 3, 1, 2]> (in_one)
    {_resampled("planes", 0)}
    {_resampled("planes_0", 1)}
    mean = Constant <value = float[1, 3, 1, 1] {{{", ".join(mean)}}}> ()
    std = Constant <value = float[1, 3, 1, 1] {{{", ".join(std)}}}> ()
    centred = Sub (planes_0_1, mean)
    x = Div (centred, std)
}}"""


def _resampled(x: str, axis: int) -> str:
    """Nodes that resample images along the rows (0) or columns (1), bicubic as in `resampling.cubic`.

    Gathering four neighbours and weighting them is ten times as fast as onnxruntime's cubic Resize. The result is named
    {x}_{axis}.
    """
    a, n = CUBIC, axis
    steps = {
        "place": f"Constant <value = int64[1] {{{n}}}> ()",
        "from": f"Gather (given, place{n})",
        "to": f"Gather (target, place{n})",
        "zero": "Constant <value = int64 {0}> ()",
        "unit": "Constant <value = int64 {1}> ()",
        "end": f"Squeeze (to{n})",
        "pixels": f"Range (zero{n}, end{n}, unit{n})",
        "half": "Constant <value = float {0.5}> ()",
        "fine": f"Cast <to = 1> (to{n})",
        "coarse": f"Cast <to = 1> (from{n})",
        "step": f"Div (coarse{n}, fine{n})",
        "whole": f"Cast <to = 1> (pixels{n})",
        "middle": f"Add (whole{n}, half{n})",
        "source": f"Mul (middle{n}, step{n})",
        "at": f"Sub (source{n}, half{n})",
        "first": f"Floor (at{n})",
        "share": f"Sub (at{n}, first{n})",
        "last_axis": "Constant <value = int64[1] {1}> ()",
        "taps": "Constant <value = float[4] {-1.0, 0.0, 1.0, 2.0}> ()",
        "column": f"Unsqueeze (share{n}, last_axis{n})",
        "between": f"Sub (column{n}, taps{n})",
        "far": f"Abs (between{n})",
        # The two pieces of the cubic kernel in Horner form, for distances up to 1 and up to 2.
        **{
            f"c{i}_": f"Constant <value = float {{{value}}}> ()"
            for i, value in enumerate((a + 2, -(a + 3), 1.0, a, -5 * a, 8 * a, -4 * a))
        },
        "near_a": f"Mul (far{n}, c0_{n})",
        "near_b": f"Add (near_a{n}, c1_{n})",
        "square": f"Mul (far{n}, far{n})",
        "near_c": f"Mul (near_b{n}, square{n})",
        "near": f"Add (near_c{n}, c2_{n})",
        "outer_a": f"Mul (far{n}, c3_{n})",
        "outer_b": f"Add (outer_a{n}, c4_{n})",
        "outer_c": f"Mul (outer_b{n}, far{n})",
        "outer_d": f"Add (outer_c{n}, c5_{n})",
        "outer_e": f"Mul (outer_d{n}, far{n})",
        "outer": f"Add (outer_e{n}, c6_{n})",
        "is_near": f"LessOrEqual (far{n}, c2_{n})",
        "weights": f"Where (is_near{n}, near{n}, outer{n})",
        "firsts": f"Unsqueeze (first{n}, last_axis{n})",
        "neighbours": f"Add (firsts{n}, taps{n})",
        "index": f"Cast <to = 7> (neighbours{n})",
        "none": "Constant <value = int64[1] {0}> ()",
        "not_below": f"Max (index{n}, none{n})",
        "border": f"Sub (from{n}, last_axis{n})",
        "inside": f"Min (not_below{n}, border{n})",
        "four": f"Gather <axis = {n + 2}> ({x}, inside{n})",  # the axis splits into (pixels, 4)
        **({"beyond": "Constant <value = int64[1] {2}> ()"} if axis == 0 else {}),
        "fitting": f"Unsqueeze (weights{n}, beyond{n})" if axis == 0 else f"Identity (weights{n})",
        "weighted": f"Mul (four{n}, fitting{n})",
        "summed": f"Constant <value = int64[1] {{{n + 3}}}> ()",
    }
    lines = [f"{name}{n} = {value}" for name, value in steps.items()]
    return "\n    ".join([*lines, f"{x}_{n} = ReduceSum <keepdims = 0> (weighted{n}, summed{n})"])


def _size_rule(preprocess: Preprocess, size: PlainSize, fixed: tuple[int, int] | None) -> str:
    """Nodes that compute `original_size`: from given, int64[2] (H, W), to target, int64[2] (h, w). In float64.

    The graph has no limit for elongated images, which `network_size` refuses.
    """
    size = preprocess.base if size is None else size
    base = size if isinstance(size, tuple) else (size, size)
    if fixed is None and not preprocess.keep_aspect:  # all images get the same size
        fixed = network_size(*base, preprocess, size)
    if fixed is not None:
        return f"target = Constant <value = int64[2] {{{fixed[0]}, {fixed[1]}}}> ()"
    step = preprocess.multiple
    lower = preprocess.method == "lower_bound"
    scale = (
        "scale = ReduceMax <keepdims = 1> (scales)"
        if lower
        else """
    unit = Constant <value = double {1.0}> ()
    from_one = Sub (unit, scales)
    far = Abs (from_one)
    at_w = Constant <value = int64[1] {1}> ()
    at_h = Constant <value = int64[1] {0}> ()
    far_h = Gather (far, at_h)
    far_w = Gather (far, at_w)
    by_width = Less (far_w, far_h)
    scale_h = Gather (scales, at_h)
    scale_w = Gather (scales, at_w)
    scale = Where (by_width, scale_w, scale_h)"""
    )
    least = [float(side) for side in (base if lower else (step, step))]
    return f"""
    base = Constant <value = double[2] {{{float(base[0])}, {float(base[1])}}}> ()
    step = Constant <value = double {{{float(step)}}}> ()
    least = Constant <value = double[2] {{{least[0]}, {least[1]}}}> ()
    sides = Cast <to = 11> (given)
    scales = Div (base, sides)
    {scale}
    scaled = Mul (scale, sides)
    in_steps = Div (scaled, step)
    nearest = Round (in_steps)
    rounded = Mul (nearest, step)
    next = Ceil (in_steps)
    up = Mul (next, step)
    enough = GreaterOrEqual (rounded, least)
    chosen = Where (enough, rounded, up)
    target = Cast <to = 7> (chosen)"""


def name_nodes(graph: ir.Graph) -> None:
    """Names nodes after their part of the model and removes metadata of the exporting machine.

    Args:
        graph: Changed in place.
    """
    for number, node in enumerate(graph.all_nodes()):
        submodel = node.metadata_props.get("submodel") or _submodel(node)
        for key in [key for key in node.metadata_props if key.startswith(CLUTTER) or key == "namespace"]:
            del node.metadata_props[key]
        node.metadata_props["submodel"] = submodel
        if not (node.name or "").startswith(("the_", "windows_", "preprocess/")):
            node.name = f"{submodel}/{node.op_type}_{number}"
    for value in list(graph.initializers.values()):
        value.metadata_props.clear()
        value.name = (value.name or "").removeprefix("traceable.").removeprefix("model.")


def _submodel(node: ir.Node) -> str:
    """The part of the model, e.g. "encoder.blocks.3" or "head", from the module path in the exporter's metadata."""
    scopes = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]"))
    path = scopes[-2].removeprefix("traceable.").removeprefix("model.") if len(scopes) > 1 else ""
    block = re.match(r"\w+\.blocks\.\d+", path)
    part = block[0] if block else path.split(".")[0]
    return part if part in PARTS or block else "sizes"


def name_axes(written: ir.Model, fixed: bool) -> None:
    """Names the free axes: batch, rows and cols of the patch grid, n tokens.

    Args:
        written: The model, changed in place.
        fixed: Whether the input size is fixed.
    """
    from onnxscript import ir

    given = {value.name: list(value.shape or ()) for value in written.graph.inputs}
    names = {str(given["tokens"][0]): "n"} if "tokens" in given else {}
    if not fixed:
        for axis, name in ((0, "batch"), (2, "rows"), (3, "cols")):
            names[re.findall(r"s\d+", str(given["x"][axis]))[0]] = name
    values = [*written.graph.inputs, *(value for node in written.graph.all_nodes() for value in node.outputs)]
    for value in values:
        shape = value.shape or ir.Shape(())
        for axis, size in enumerate(shape):
            if isinstance(size, ir.SymbolicDim) and size.value is not None:
                shape[axis] = re.sub(r"\bs\d+\b", lambda found: names.get(found[0], found[0]), size.value)


def describe(model: ir.Model, config: Config, about: dict[str, object]) -> None:
    """Adds metadata that a reader of the file needs. Values other than text are JSON.

    Args:
        model: The model, changed in place.
        config: The configuration of the exported model.
        about: Additional facts; None values are left out.
    """
    preprocess = config.preprocess
    try:
        version = metadata.version("dpt-workbench")
    except metadata.PackageNotFoundError:  # a copy of this folder in another project
        version = "unknown"
    title = f"{config.family} {config.variant}"
    known = {
        "model": title,
        "family": config.family,
        "variant": config.variant,
        "output": "metres" if config.metric else "inverse depth, larger is nearer",
        "max_depth": config.max_depth,
        "mean": preprocess.mean,
        "std": preprocess.std,
        "multiple": config.multiple,
        "base": preprocess.base,
        "patch_size": config.patch_size,
        "prefix_tokens": config.prefix,
        "version": version,
        **about,
    }
    for key, value in known.items():
        if value is None:
            continue
        model.metadata_props[f"dpt.{key}"] = value if isinstance(value, str) else json.dumps(value)
    model.producer_name, model.producer_version = "dpt-workbench", version
    model.doc_string = f"{title}: {known['output']}"
    model.graph.name = re.sub(r"\W", "_", title)
