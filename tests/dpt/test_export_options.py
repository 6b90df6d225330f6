"""Export options: preprocessing in the graph, fixed sizes, half precision, opsets, large files, and refusals."""

from __future__ import annotations

import errno
import importlib.util
import json
import resource
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import dpt
import probes
from dpt.errors import WriteError
from dpt.export import ExportError, files, graph, verification
from dpt.image import Preprocess, original_size, prepare
from tests.models import TINY, tiny_model, tiny_swinv2

PHOTOS = [(480, 640), (333, 501), (37, 300), (300, 37), (64, 64), (101, 99), (84, 84), (77, 76)]


def quiet(model: dpt.DPT, path: Path, **options) -> dpt.Exported:
    return dpt.export_onnx(model, path, say=None, **options)


def photo(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


# Preprocessing


@pytest.mark.parametrize("family", TINY)
@pytest.mark.parametrize("size", [None, 140, (96, 128)])
def test_the_graph_prepares_images_like_the_library(family: str, size):
    preprocess = replace(TINY[family]().config.preprocess, base=128)
    model = onnx.parser.parse_model(graph.preprocessing(preprocess, size, None))
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for height, width in PHOTOS:
        image = photo(height, width)
        (x,) = session.run(None, {"image": np.stack([image, image[:, ::-1]])})
        wanted = torch.cat([prepare(p, preprocess, size) for p in (image, image[:, ::-1])])
        assert x.shape == tuple(wanted.shape), f"{height} x {width}"
        assert np.abs(x - wanted.numpy()).max() < 2e-3  # half a step of 8 bits; white noise is the worst case


def test_the_size_rule_in_the_graph_agrees_with_the_library_for_thousands_of_sizes():
    """Rounds half to even in float64, for both methods."""
    gen = np.random.default_rng(0)
    sides = [(int(h), int(w)) for h, w in gen.integers(1, 3000, (2000, 2))]
    sides += [(h, w) for h in range(130, 170) for w in range(130, 170, 3)]
    for method, base, multiple in (("lower_bound", 518, 14), ("minimal", 384, 32), ("minimal", 512, 16)):
        preprocess = Preprocess(base, multiple, method, True, (0.5,) * 3, (0.5,) * 3)
        text = graph.preprocessing(preprocess, None, None)
        rule = text[text.index("given =") : text.index("full =")].replace(
            "given = Shape <start = 1, end = 3> (image)", ""
        )
        rule = rule.replace("pictures = Shape <start = 0, end = 1> (image)", "")
        whole = f'<ir_version: 8, opset_import: ["" : 18]> rule (int64[2] given) => (int64[2] target) {{ {rule} }}'
        session = onnxruntime.InferenceSession(onnx.parser.parse_model(whole).SerializeToString())
        for height, width in sides:
            (target,) = session.run(None, {"given": np.array([height, width])})
            assert tuple(target) == original_size(height, width, preprocess), (method, height, width)


@pytest.fixture(scope="module")
def of_bytes(tmp_path_factory) -> dpt.Exported:
    path = tmp_path_factory.mktemp("bytes") / "m.onnx"
    return quiet(tiny_model(base=84), path, preprocess=True, probes=["norms"])


def test_a_graph_with_preprocessing_takes_uint8_images(of_bytes: dpt.Exported):
    model, image = tiny_model(base=84), photo(131, 211)
    assert of_bytes.inputs == {"image": "uint8 (batch, height, width, 3)"}
    assert len({(row.height, row.width) for row in of_bytes.rows}) >= 5
    depth, *_ = onnxruntime.InferenceSession(of_bytes.path).run(None, {"image": image[None]})
    with torch.no_grad():
        wanted = model(model.prepare(image))
    assert verification.error_over_std(torch.from_numpy(depth), wanted) < 1e-3


# One size, half precision, opsets


@pytest.mark.parametrize("family", [pytest.param("beit", marks=pytest.mark.slow), "depth-anything", "swinv2"])
def test_a_fixed_graph_refuses_other_sizes(family: str, tmp_path: Path):
    model = TINY[family]()
    step = model.config.multiple
    size = (3 * step, 5 * step)
    fixed = quiet(model, tmp_path / "fixed.onnx", dynamic=False, size=size, probes=["encoder.blocks.1.attention[0]"])
    assert fixed.inputs == {"x": f"float (1, 3, {size[0]}, {size[1]})"}
    assert [(row.height, row.width) for row in fixed.rows] == [size]
    about = {p.key: p.value for p in onnx.load(fixed.path).metadata_props}
    assert json.loads(about["dpt.fixed_size"]) == list(size)
    session = onnxruntime.InferenceSession(fixed.path)
    with pytest.raises(Exception, match=r"(?i)invalid dimensions"):
        session.run(None, {"x": np.zeros((1, 3, 4 * step, 5 * step), np.float32)})


def test_half_precision_and_one_size_make_a_smaller_file_that_is_close(of_bytes: dpt.Exported, tmp_path: Path):
    model = tiny_model()
    half = quiet(model, tmp_path / "half.onnx", dtype=torch.float16, dynamic=False, size=(70, 98))
    assert half.bytes < 0.5 * of_bytes.bytes, "half the bytes per weight, and a smaller position table"
    assert half.nodes < 0.8 * of_bytes.nodes
    assert half.inputs == {"x": "float (1, 3, 70, 98)"}, "float32 outside"
    assert half.rows[0].error < 0.1
    assert next(model.parameters()).dtype == torch.float32, "the model itself does not change"
    kinds = {init.data_type for init in onnx.load(half.path).graph.initializer if init.name.endswith("weight")}
    assert kinds == {onnx.TensorProto.FLOAT16}


@pytest.mark.parametrize("change", ["bfloat16", "half", "double", "mixed", "tuned"])
def test_a_model_in_any_floating_point_dtype_becomes_a_float32_file_and_stays_as_it_is(change: str, tmp_path: Path):
    model = tiny_model()
    if change == "mixed":
        model.fusion.half()
    elif change == "tuned":
        model.train().requires_grad_(True)
    else:
        getattr(model, change)()
    before = {name: (tensor.dtype, tensor.clone()) for name, tensor in model.state_dict().items()}
    written = quiet(model, tmp_path / "model.onnx", dynamic=False, size=(42, 56))
    assert written.inputs == {"x": "float (1, 3, 42, 56)"}
    assert written.outputs == {"depth": "float (1, 42, 56)"}
    assert written.rows[0].error < 1e-3
    assert model.training == (change == "tuned")
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == before[name][0]
        assert torch.equal(tensor, before[name][1])


@pytest.mark.parametrize(
    ("setting", "value"), [("set_default_dtype", torch.bfloat16), ("set_default_device", "meta"), ("autocast", None)]
)
def test_an_export_does_not_depend_on_settings_around_it(setting: str, value: object, tmp_path: Path):
    model, path = tiny_model(), tmp_path / "model.onnx"
    try:
        if setting == "autocast":
            with torch.autocast("cpu", torch.bfloat16):
                written = quiet(model, path, dynamic=False, size=(42, 56))
        else:
            getattr(torch, setting)(value)
            written = quiet(model, path, dynamic=False, size=(42, 56))
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert written.rows[0].error < 1e-3


class Adapter(torch.nn.Linear):
    """Stands in for a layer of a library."""


@pytest.mark.filterwarnings("ignore:.*quanti", "ignore::DeprecationWarning")
@pytest.mark.parametrize("change", ["quantised", "meta", "int8", "adapter"])
def test_layers_that_cannot_be_exported_are_refused_by_name(change: str, tmp_path: Path):
    model, named = tiny_swinv2(), "patch_embed.projection"
    if change == "quantised":
        model = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, torch.qint8)
        named = "attention.qkv"
    elif change == "meta":
        model.to("meta")
    elif change == "int8":
        weight = model.patch_embed.projection.weight
        model.patch_embed.projection.weight = torch.nn.Parameter(weight.to(torch.int8), requires_grad=False)
        named = "torch.int8"
    else:
        positions, named = model.encoder.blocks[1].attention.positions, "Adapter"
        positions.fc1 = Adapter(2, 512)
    with pytest.raises(ExportError, match=named):
        quiet(model, tmp_path / "model.onnx", dynamic=False, size=(64, 64))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("family", TINY)
def test_half_precision_is_close_for_every_family_and_size(family: str, tmp_path: Path):
    written = quiet(TINY[family](), tmp_path / "half.onnx", dtype=torch.float16, probes=["norms"])
    assert max(row.error for row in written.rows) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("opset", [19, 20, 21, 22, 23])
@pytest.mark.parametrize("family", TINY)
def test_every_opset_computes_the_same(family: str, opset: int, tmp_path: Path):
    written = quiet(TINY[family](), tmp_path / "m.onnx", opset=opset, probes=["norms"])
    assert {o.version for o in onnx.load(written.path).opset_import if o.domain == ""} == {opset}
    assert max(row.error for row in written.rows) < 1e-3


# SwinV2's windows


@pytest.mark.slow
def test_every_size_of_a_small_swinv2_is_right_or_refused(tmp_path: Path):
    """Of all grids up to 12 x 12 steps, the graph takes exactly those that the model takes."""
    model = tiny_swinv2()
    written = quiet(model, tmp_path / "m.onnx", verify=False)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(written.path, options)
    refused = 0
    for rows in range(1, 13):
        for cols in range(1, 13):
            x = torch.randn(1, 3, 32 * rows, 32 * cols)
            try:
                with torch.no_grad():
                    wanted = model(x)
            except ValueError:
                refused += 1
                with pytest.raises(Exception, match=r"do_not_tile_this_(height|width)"):
                    session.run(None, {"x": x.numpy()})
                continue
            (depth,) = session.run(None, {"x": x.numpy()})
            assert verification.error_over_std(torch.from_numpy(depth), wanted) < 1e-3, (rows, cols)
    assert refused == 23  # 11 x anything: 11 tokens have no divisor from 2 to 7


# Files


@pytest.fixture
def small_graph(tmp_path: Path):
    """A graph before it is written: one product with a weight of 64 KiB."""
    from onnxscript import ir

    weight = onnx.numpy_helper.from_array(np.random.default_rng(0).random((128, 128), dtype=np.float32), "w")
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    values = [onnx.helper.make_tensor_value_info(name, 1, [1, 128]) for name in "xy"]
    made = onnx.helper.make_graph([node], "g", values[:1], values[1:], [weight])
    return ir.from_proto(onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8))


def test_large_weights_go_to_a_second_file(small_graph, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(files, "LARGEST_FILE", 1000)
    path = tmp_path / "large.onnx"
    path.write_text("old")
    with files.staged(path) as place:
        written = files.write(small_graph, place)
    assert [file.name for file in written] == ["large.onnx", "large.onnx.data"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["large.onnx", "large.onnx.data"]
    assert path.stat().st_size < 1000 < (tmp_path / "large.onnx.data").stat().st_size
    (y,) = onnxruntime.InferenceSession(path).run(None, {"x": np.ones((1, 128), np.float32)})
    assert y.shape == (1, 128)
    monkeypatch.undo()
    with files.staged(path) as place:
        files.write(small_graph, place)
    assert [file.name for file in tmp_path.iterdir()] == ["large.onnx"], "the data file of the earlier model is deleted"


def test_a_full_disk_leaves_the_old_file(small_graph, tmp_path: Path):
    """A limit on the size of files acts like a full disk: the first part is written, then writing fails."""
    path = tmp_path / "m.onnx"
    path.write_text("old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(OSError, match=f"cannot write {path}") as error, files.staged(path) as place:
            files.write(small_graph, place)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert isinstance(error.value, WriteError)
    assert error.value.path == str(path)
    assert error.value.errno == errno.EFBIG
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]
    assert path.read_text() == "old"
    with files.staged(path) as place:  # control: without the limit
        files.write(small_graph, place)
    assert path.stat().st_size > 60_000


def test_a_full_file_system_is_reported_and_nothing_is_left(small_graph, tmp_path: Path):
    if shutil.which("mount") is None:
        pytest.skip("this system has no mount command")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", tmp_path], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.decode().strip()}")
    try:
        with pytest.raises(OSError, match="No space left on device"), files.staged(tmp_path / "m.onnx") as place:
            files.write(small_graph, place)
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", tmp_path], check=True)


# Refusals, each before any work is done


def test_an_unwritable_path_is_refused_before_any_work(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("dpt.export._traced", lambda *args: pytest.fail("the export has started"))
    for path in (tmp_path / "nowhere" / "m.onnx", tmp_path, Path("/proc/m.onnx")):
        with pytest.raises(OSError, match=f"cannot write {path}") as error:
            quiet(tiny_model(), path)
        assert isinstance(error.value, WriteError)
        assert error.value.path == str(path)


def test_a_missing_package_is_named_with_the_command_that_installs_it(tmp_path: Path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr("dpt.export.find_spec", lambda name: None if name == "onnxscript" else find(name))
    with pytest.raises(ImportError, match=r"onnxscript.*pip install 'dpt-workbench\[onnx\]'"):
        quiet(tiny_model(), tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opset": 17}, "18 to 23, got 17"),
        ({"opset": 99}, "got 99"),
        ({"dtype": torch.bfloat16}, r"torch\.float32 or torch\.float16, got torch\.bfloat16"),
        ({"size": 140}, "size=140 needs dynamic=False or preprocess=True"),
        ({"dynamic": False, "size": (70, 71)}, r"multiples of 14\b"),
        ({"probes": ["norm"]}, "'norm' .*'norms'"),
        ({"probes": ["encoder.blocks.0.attention[a]"]}, r"\[a\]"),
        ({"probes": ["encoder.blocks.99.attention[0]"]}, r"blocks\.99\.attention\[0\]'"),
    ],
)
def test_unsupported_options_are_refused_with_the_values(options: dict, message: str, tmp_path: Path):
    with pytest.raises(ValueError, match=message):
        quiet(tiny_model(), tmp_path / "m.onnx", **options)
    assert list(tmp_path.iterdir()) == []


def test_other_types_are_refused(tmp_path: Path):
    with pytest.raises(TypeError, match=r"dpt\.DPT .*got Linear"):
        quiet(torch.nn.Linear(1, 1), tmp_path / "m.onnx")
    with pytest.raises(TypeError, match="list"):
        quiet(tiny_model(), tmp_path / "m.onnx", probes="norms")


def test_a_swinv2_size_without_windows_is_refused_at_export(tmp_path: Path):
    with pytest.raises(ValueError, match="windows of about 4 tokens do not tile an input of 352 x 64"):
        quiet(tiny_swinv2(), tmp_path / "m.onnx", dynamic=False, size=(352, 64))


def test_a_graph_that_computes_something_else_is_not_written(tmp_path: Path, monkeypatch):
    """The reference is the original model, so the comparison detects a wrong copy, e.g. without a position table."""
    from dpt.export import traceable

    class Wrong(traceable.Given):
        def forward(self, grid: dpt.TokenGrid) -> torch.Tensor:
            return 0 * self.table

    monkeypatch.setattr(traceable, "Given", Wrong)
    with pytest.raises(dpt.ExportError, match=r"differs by .* standard deviations .* not written"):
        quiet(tiny_model(), tmp_path / "m.onnx", dynamic=False, size=(42, 42))
    assert list(tmp_path.iterdir()) == []


def test_a_model_inside_a_capture_or_an_edit_is_refused(tmp_path: Path):
    model = TINY["depth-anything"]()
    with (
        probes.edit(model, {"fusion.1": probes.scale(0.5)}),
        pytest.raises(ExportError, match=r"probes\.edit"),
    ):
        dpt.export_onnx(model, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
