"""The JavaScript of the explorers: each of its tests under node, and its files read by NumPy and Python."""

from __future__ import annotations

import csv
import functools
import io
import json
import re
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

import probes
from tests.models import tiny_model
from tests.probes.explorers.js import goldens

EXPLORERS = Path(__file__).parents[3] / "probes" / "explorers"
FILES = sorted((Path(__file__).parent / "js").glob("*.test.mjs"))
IMAGE = np.random.default_rng(3).integers(0, 255, (60, 90, 3), dtype=np.uint8)

# A view of a block with 2 heads, one class token and 3 x 4 patches. The value of (tile, token) is 100 tile + token.
SHOT = """
import * as files from "{static}/attention/snapshot.js";
const [heads, tokens] = [2, 13];
const length = (heads + 1) * tokens;
const values = Float32Array.from({{length}}, (_, n) => 100 * Math.floor(n / tokens) + (n % tokens));
const shot = {{
  block: 1, direction: "row", mode: "a", tokens: [6], head: null, grid: {{rows: 3, cols: 4, prefix: 1}}, heads, values,
  call: "model.predict(image, size=(42, 56), keep_aspect=False)",
  origin: {{model: "M", image: "a, b.png", software: "S"}}, scaleMode: "head", ...{changes},
}};
process.stdout.write(files.{function}(shot));
"""


def written(node: str, function: str, **changes) -> bytes:
    script = SHOT.format(static=EXPLORERS.as_uri(), changes=json.dumps(changes), function=function)
    done = subprocess.run([node, "--input-type=module", "-e", script], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def names_in(file: Path) -> list[str]:
    """The names of a file's tests. A test of the file's own checks that node runs exactly these."""
    found = re.findall(r'^test\(\s*("(?:[^"\\]|\\.)*")', file.read_text(encoding="utf-8"), re.MULTILINE)
    return [json.loads(name) for name in found]


@functools.cache
def results_of(node: str, file: Path) -> dict[str, str]:
    """Runs a file under node: the failure of each test by its name, "" for one that passed."""
    command = [node, "--test", "--test-reporter=junit", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    cases = list(ET.fromstring(done.stdout).iter("testcase"))
    assert len({case.get("name") for case in cases}) == len(cases), "two tests of one name"
    return {case.get("name", ""): "".join(failure.text or "failed" for failure in case) for case in cases}


CASES = [
    pytest.param(file, name, id=f"{file.name.removesuffix('.test.mjs')}: {name}")
    for file in FILES
    for name in names_in(file)
]


@pytest.mark.parametrize(("file", "name"), CASES)
def test_javascript(node, npm_packages, file, name):
    results = results_of(node, file)
    assert name in results, f"node ran no such test of {file.name}"
    assert not results[name], results[name]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_javascript_test_is_reported(node, npm_packages, file):
    assert sorted(results_of(node, file)) == sorted(names_in(file))


def test_a_failing_javascript_test_is_reported_with_its_reason(node, tmp_path):
    file = tmp_path / "control.test.mjs"
    file.write_text('import test from "node:test";\ntest("fails", () => { throw new Error("because of 17"); });\n')
    assert "because of 17" in results_of(node, file)["fails"]


def test_the_goldens_are_those_that_torch_computes():
    """goldens.py writes the committed file, up to the last bits of exp on another machine."""
    committed = json.loads(goldens.TARGET.read_text(encoding="utf-8"))
    fresh = json.loads(json.dumps(goldens.goldens()))
    for part in ("half", "colormaps"):
        assert committed[part] == fresh[part]
    for name in ("rows", "columns", "row_mean", "row_entropy", "column_entropy"):
        np.testing.assert_allclose(committed["attention"][name], fresh["attention"][name], atol=1e-12)
    assert committed["biased"].keys() == fresh["biased"].keys()
    for block, again in ((committed["biased"][name], fresh["biased"][name]) for name in fresh["biased"]):
        assert block["header"] == again["header"]
        for direction in ("rows", "columns"):
            np.testing.assert_allclose(block[direction], again[direction], atol=1e-12)
    for old, new in zip(committed["scales"], fresh["scales"], strict=True):
        np.testing.assert_allclose(old["positions"], new["positions"], atol=1e-12)


def test_numpy_reads_the_npz(node, npm_packages):
    with np.load(io.BytesIO(written(node, "snapshotNpz")), allow_pickle=False) as archive:
        arrays = dict(archive)
    patches = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(arrays["attention"], [patches, 100 + patches])
    np.testing.assert_array_equal(arrays["mean"], 200 + patches)
    np.testing.assert_array_equal(arrays["prefix"], [[0], [100]])
    assert (int(arrays["block"]), arrays["tokens"].tolist(), str(arrays["direction"])) == (1, [6], "row")
    assert (str(arrays["model"]), str(arrays["image"])) == ("M", "a, b.png")
    meta = json.loads(str(arrays["meta"]))
    assert meta["title"] == "Patch (1, 1): what it looks at, block 1"
    assert (meta["block"], meta["tokens"], meta["direction"], meta["image"]) == (1, ["(1, 1)"], "row", "a, b.png")
    assert "1 is the sum of a row" in meta["unit"]
    names = ("model", "image", "meta")
    assert {name: array.dtype.str for name, array in arrays.items() if name not in names} == {
        "attention": "<f4",
        "mean": "<f4",
        "prefix": "<f4",
        "block": "<i4",
        "tokens": "<i4",
        "direction": "<U3",
    }


def test_the_csv_has_a_line_for_every_head_and_token(node, npm_packages):
    rows = list(csv.DictReader(io.StringIO(written(node, "snapshotCsv").decode())))
    assert len(rows) == 2 * 13
    whole = {"block": "1", "direction": "row", "of": "(1, 1)", "model": "M", "image": "a, b.png"}
    assert rows[0] == {"head": "0", "token": "cls", "row": "", "col": "", "value": "0", **whole}
    assert rows[13 + 7] == {"head": "1", "token": "patch", "row": "1", "col": "2", "value": "107", **whole}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"direction": "column"},
        {"tokens": [0]},
        {"tokens": [6, 9], "mode": "difference"},
        {"head": 1},
        {"head": -1},
    ],
)
def test_the_copied_python_runs_and_computes_the_view(node, npm_packages, changes):
    code = written(node, "snapshotPython", **changes).decode()
    model = tiny_model()
    *statements, last = code.rstrip().splitlines()
    names = {"model": model, "image": IMAGE}
    exec("\n".join(statements), names)
    if last.startswith("shown_maps = "):
        exec(last, names)
        result = names["shown_maps"]
    else:
        result = eval(last, names)

    with probes.capture(model, "encoder.blocks.1.attention") as capture:
        model.predict(IMAGE, (42, 56), keep_aspect=False)
    matrix = capture["encoder.blocks.1.attention"].matrix()[0].numpy()
    if changes.get("direction") == "column":
        matrix = matrix.transpose(0, 2, 1)
    tokens = changes.get("tokens", [6])
    wanted = matrix[:, tokens[0]] - (matrix[:, tokens[1]] if len(tokens) == 2 else 0)
    wanted = wanted[:, 1:].reshape(2, 3, 4)
    head = changes.get("head")
    wanted = wanted if head is None else wanted.mean(0) if head < 0 else wanted[head]
    np.testing.assert_allclose(np.asarray(result), wanted, atol=1e-6)
