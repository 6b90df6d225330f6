"""The depth explorer: its messages, arrays and page, and its JavaScript against `probes.depth`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import traitlets

from probes import depth as numbers
from probes.explorers import DepthExplorer
from probes.explorers.shared import base
from tests.models import tiny_model
from tests.probes.explorers.wire import ask, code_and_rest, data_of, loaded_by

STATIC = Path(__file__).parents[3] / "probes" / "explorers"
IMAGE = np.random.default_rng(3).integers(0, 255, (60, 90, 3), dtype=np.uint8)


def explorer(**more: Any) -> DepthExplorer:
    return DepthExplorer(tiny_model(), IMAGE, size=70, **more)


def test_maps_arrive_as_they_are():
    other = np.random.default_rng(1).random((60, 90))
    widget = explorer(others={"other": other})
    for name, values in (("depth", widget.depth), ("other", other)):
        message, parts = ask(widget, kind="map", name=name)
        assert (message["height"], message["width"], message["names"]) == (60, 90, ["depth", "other"])
        assert np.array_equal(np.frombuffer(parts[0], "<f4").reshape(60, 90), values.astype(np.float32))
    assert widget.left == "other"
    message, _ = ask(widget, kind="map", name="third")
    assert "name must be one of depth, other, got 'third'" in message["text"]


def test_large_maps_are_sent_smaller_as_means(monkeypatch):
    monkeypatch.setattr("probes.explorers.depth.PICTURE_SIDE", 45)
    widget = explorer()
    message, parts = ask(widget, kind="map", name="depth")
    assert (message["height"], message["width"]) == (30, 45)
    means = widget.depth.reshape(30, 2, 45, 2).mean(axis=(1, 3))
    assert np.allclose(np.frombuffer(parts[0], "<f4").reshape(30, 45), means, atol=1e-5)
    assert base.PICTURE_SIDE == 1000


def test_arrays_follow_the_controls():
    widget = explorer(far=0.2, near=0.9)
    mask = widget.mask
    assert np.array_equal(mask, numbers.within(widget.depth, 0.2, 0.9))
    assert 0 < mask.sum() < mask.size
    assert np.array_equal(np.isnan(widget.map), ~mask)
    assert np.array_equal(widget.map[mask], widget.depth[mask])
    widget.plane = True
    assert abs(widget.map[mask].mean()) < 1e-4
    widget.equalise = True
    assert (float(np.nanmin(widget.map)), float(np.nanmax(widget.map))) == (0, 1)
    assert (widget.metres.min(), widget.metres.max()) == pytest.approx((1, 20))


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match=r"'small' must .* \(60, 90\), got \(3, 4\)"):
        explorer(others={"small": np.zeros((3, 4))})
    with pytest.raises(ValueError, match="'depth' is reserved"):
        explorer(others={"depth": np.zeros((60, 90))})
    with pytest.raises(ValueError, match="'holed' contains NaN or infinity, or is masked"):
        explorer(others={"holed": np.full((60, 90), np.nan)})
    with pytest.raises(traitlets.TraitError, match="left must be one of picture, depth, got 'b'"):
        explorer(left="b")
    with pytest.raises(TypeError, match=r"DepthExplorer .*block"):
        explorer(block=1)


def test_the_state_is_small():
    widget = explorer()
    ask(widget, kind="map", name="depth")
    code, rest = code_and_rest(widget)
    assert code < 100_000
    assert rest < 2000


def test_a_page_holds_picture_and_maps_and_no_address(tmp_path):
    widget = explorer(others={"other": np.random.default_rng(1).random((60, 90))}, far=0.1)
    path = widget.to_html(tmp_path / "depth.html")
    data = data_of(path)
    assert [r["match"].get("name") for r in data["replies"]] == [None, "depth", "other"]
    assert data["state"]["far"] == 0.1
    assert set(data["state"]) == set(widget.trait_names(ui=True))
    assert loaded_by(path) == []


RUN = """
import * as depth from "{static}/depth/numbers.js";
const values = Float32Array.from({values});
const map = depth.decodeDepth({{ name: "depth", width: 30, height: 20, metric: {metric} }}, values.buffer);
const result = depth.processed(map, {settings});
const metres = Array.from(values, (value) => depth.metresAt(depth.nearnessOf(map, value), 2, 50));
console.log(JSON.stringify({{ mask: [...result.mask], shown: [...result.shown], plane: result.plane, metres }}));
"""


@pytest.mark.parametrize("metric", [False, True])
@pytest.mark.parametrize(("plane", "equalise"), [(False, False), (True, False), (True, True)])
def test_the_browser_computes_what_python_does(node, metric, plane, equalise):
    values = np.random.default_rng(0).random((20, 30), dtype=np.float32) * 7 + 3
    settings = {"far": 0.21, "near": 0.83, "plane": plane, "equalise": equalise}
    script = RUN.format(
        static=STATIC.as_uri(),
        values=values.ravel().tolist(),
        metric=json.dumps(metric),
        settings=json.dumps(settings),
    )
    done = subprocess.run([node, "--input-type=module", "-e", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    mask = numbers.within(values, 0.21, 0.83, metric)
    assert np.array_equal(np.array(answer["mask"], bool).reshape(20, 30), mask)
    wanted = values - numbers.plane(values, mask) if plane else values
    wanted = numbers.equalise(wanted, mask) if equalise else wanted
    shown = np.array(answer["shown"]).reshape(20, 30)
    # the browser ranks 65536 levels, not exact values: close values may share a rank
    assert np.allclose(shown[mask], wanted[mask], atol=0.01 if equalise else 1e-5)
    if not metric:
        assert np.allclose(np.array(answer["metres"]).reshape(20, 30), numbers.metres(values, 2.0, 50.0), rtol=1e-5)


def test_the_browser_refuses_a_plane_that_nothing_fixes(node):
    script = RUN.format(
        static=STATIC.as_uri(),
        values=[float(n % 30 == 4) for n in range(600)],
        metric="false",
        settings=json.dumps({"far": 0.5, "near": 1, "plane": True, "equalise": False}),
    )
    done = subprocess.run([node, "--input-type=module", "-e", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["plane"] is None
