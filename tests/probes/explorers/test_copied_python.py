"""The code of "Copy Python" runs as it stands, whatever things are called, and overwrites nobody's variables."""

from __future__ import annotations

import ast
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import dpt
import probes
from dpt.checkpoints.origins import loading_code
from probes.explorers import AttentionExplorer, DepthExplorer, FusionExplorer, ModelTour, NormExplorer, PositionExplorer
from tests.models import tiny_model
from tests.probes.explorers.wire import ask

STATIC = (Path(__file__).parents[3] / "probes" / "explorers").as_uri()
HOSTILE = [
    'it\'s "quoted" \\ \\n',
    "a\nline\r\u2028\u2029\x85\x00\x1b",
    "\u202e\u2066gnp.exe\u2069 \u200b\ufeff",
    "\ud83d \udc80",
    "C:\\new\\x41\\N{DASH}\\u0041.png",
    "Straße 日本 e\u0301 🌍 {}%s${x}`",
    "\"\"\"'''",
]
IMAGE = np.random.default_rng(5).integers(0, 256, (42, 56, 3), dtype=np.uint8)
FIXED = {"size": (42, 56), "keep_aspect": False}
NAME = 'it\'s a "test" \\ \u202e日本'  # of a folder


def in_node(node: str, module: str, call: str) -> Any:
    """The value of an expression that uses the exports of a module as `m`."""
    script = f'import * as m from "{STATIC}/{module}"; process.stdout.write(JSON.stringify({call}));'
    done = subprocess.run([node, "--input-type=module", "-e", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def run(code: str, **names: Any) -> dict[str, Any]:
    """The names after the code has run, and as "result" the value of its last line, if that is an expression.

    Checks that the code assigns nothing but names of its own.
    """
    tree = ast.parse(code)
    assigned = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    assert assigned
    assert all(name.startswith("shown_") for name in assigned), assigned
    found = dict(names)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "copied", "exec"), found)
    if last:
        found["result"] = eval(compile(ast.Expression(last.value), "copied", "eval"), found)
    return found


def test_every_string_becomes_a_literal_of_one_line(node):
    literals = in_node(node, "shared/python.js", f"{json.dumps(HOSTILE)}.map(m.pythonString)")
    assert [ast.literal_eval(literal) for literal in literals] == HOSTILE
    for literal in literals:
        assert literal.isprintable()
    assert literals[5].startswith('"Straße 日本 e')  # letters stay readable


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("copied") / NAME
    folder.mkdir()
    dpt.save(tiny_model(), folder / "model.safetensors")
    Image.fromarray(IMAGE).save(folder / "photo.png")
    return folder


@pytest.fixture(scope="module")
def model(place):
    return dpt.load(place / "model.safetensors")


ATTENTION = {"block": 1, "direction": "row", "mode": "a", "tokens": [5], "head": None}
ATTENTION |= {"grid": {"rows": 3, "cols": 4, "prefix": 1}}
TO = {"far": 0.25, "near": 0.75, "plane": True, "equalise": False, "nearest": 1, "farthest": 20}


def codes(node: str, source: Any, image: Any, **more: Any) -> dict[str, str]:
    """The code of each explorer."""

    def said(kind: Any, request: str = "picture") -> str:
        explorer = kind(source, image, **more) if kind is not PositionExplorer else kind(source)
        return json.dumps(ask(explorer, kind=request)[0])

    parts = {"points": ["fusion.1"], "shapes": [["", "(1)"]]}
    return {
        "attention": in_node(
            node,
            "attention/snapshot.js",
            f"m.snapshotPython({{...{json.dumps(ATTENTION)}, ...{said(AttentionExplorer)}}})",
        ),
        "norms": in_node(
            node, "norms/python.js", f"m.normsPython({{...{said(NormExplorer)}, block: 1, what: 'norm'}})"
        ),
        "fusion": in_node(
            node, "fusion/setting.js", f"m.settingPython(['fusion.2', 'reassembly.0'], [2, 1], {said(FusionExplorer)})"
        ),
        "depth": in_node(node, "depth/python.js", f"m.depthPython({json.dumps(TO)}, false, {said(DepthExplorer)})"),
        "positions": in_node(
            node,
            "positions/python.js",
            "m.positionPython({data: {height: 42, width: 56}, cell: [0, 1], image: null, about: "
            f"{said(PositionExplorer, 'about')}}})",
        ),
        "tour": in_node(node, "tour/python.js", f"m.partPython({json.dumps(parts)}, {said(ModelTour, 'tour')})"),
        "input": in_node(node, "tour/python.js", f"m.partPython({{points: []}}, {said(ModelTour, 'tour')})"),
    }


def test_the_code_of_all_six_runs_in_a_new_kernel(node, model, place):
    depth = model.predict(IMAGE, **FIXED)
    for name, code in codes(node, model, place / "photo.png", **FIXED).items():
        found = run(code)
        assert found["shown_model"].name == "model" or found["shown_model"].name == place.name
        if name == "attention":
            assert found["shown_maps"].shape == (2, 3, 4)
        if name == "norms":
            assert found["result"].shape == (3, 4)
        if name == "fusion":
            with probes.edit(model, {"fusion.2": probes.scale(2.0)}):
                np.testing.assert_array_equal(found["shown_depth"], model.predict(IMAGE, **FIXED))
        if name == "depth":
            assert np.isfinite(found["shown_depth"]).all()
            assert found["shown_mask"].shape == depth.shape
        if name == "input":
            assert found["shown_input"].shape == (1, 3, 42, 56)


def test_a_model_and_an_image_without_a_file_are_explained_free_names(node):
    model = tiny_model()
    for name, code in codes(node, model, IMAGE, **FIXED).items():
        assert "# model: " in code
        assert ("# image: " in code) == (name != "positions")
        run(code, model=model, image=IMAGE)


def test_the_packages_own_model_and_image_are_loaded_by_name(node):
    demo = dpt.load("demo")
    said = json.dumps(ask(FusionExplorer(demo, dpt.demo.sample("table")[0]), kind="picture")[0])
    code = in_node(node, "fusion/setting.js", f"m.settingPython([], [], {said})")
    assert "dpt.load('demo')" in code
    assert "dpt.demo.sample('table')[0]" in code
    np.testing.assert_array_equal(run(code)["shown_depth"], demo.predict(dpt.demo.sample("table")[0]))


def test_images_of_runs_are_read_from_the_run(node, model, place, tmp_path):
    name = "photo.png"
    probes.run(model, [place / name], place / "run", "attention", "norms", "depth", workers=0, progress=False)
    stored = probes.open_run(place / "run")[name]
    said = {
        kind: json.dumps(ask(kind(stored), kind="picture")[0])
        for kind in (AttentionExplorer, NormExplorer, DepthExplorer)
    }
    for module, call in (
        ("attention/snapshot.js", f"m.snapshotPython({{...{json.dumps(ATTENTION)}, ...{said[AttentionExplorer]}}})"),
        ("norms/python.js", f"m.normsPython({{...{said[NormExplorer]}, block: 1, what: 'norm'}})"),
        ("depth/python.js", f"m.depthPython({json.dumps(TO)}, false, {said[DepthExplorer]})"),
    ):
        run(in_node(node, module, call))


@pytest.mark.parametrize("name", HOSTILE)
def test_other_maps_may_have_any_name(name, node):
    call = in_node(node, "shared/python.js", f"m.pythonString({json.dumps(name)})")
    code = in_node(
        node, "depth/python.js", f"m.depthPython({json.dumps(TO)}, false, {{call: `others[${{{json.dumps(call)}}}]`}})"
    )
    shown = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    assert run(code, others={name: shown})["shown_mask"].shape == (3, 4)


def test_a_model_whose_weights_changed_is_not_loaded_again(place):
    import copy

    import torch

    model = dpt.load(place / "model.safetensors", device="cpu")
    assert loading_code(model) == f"dpt.load({str(place / 'model.safetensors')!r})"
    assert loading_code(copy.deepcopy(model)) is None
    half = dpt.load(place / "model.safetensors", dtype=torch.float16)
    assert loading_code(half).endswith("dtype=torch.float16)")
    assert loading_code(half.float()) is None
    with torch.no_grad():
        model.head.conv3.bias.add_(1)
    assert loading_code(model) is None
