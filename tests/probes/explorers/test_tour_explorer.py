"""The Python half of the tour: its messages and its page."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import traitlets
from PIL import Image

import probes
from probes.explorers import ModelTour
from tests.models import TINY, tiny_model
from tests.probes.explorers.wire import Wire, code_and_rest, data_of, loaded_by

IMAGE = np.random.default_rng(3).integers(0, 255, (60, 90, 3), dtype=np.uint8)


@pytest.mark.parametrize("family", TINY)
def test_the_diagram_has_every_part_with_its_words_and_shapes(family):
    model = TINY[family]()
    tour = ModelTour(model, IMAGE)
    message, thumbnails = Wire(tour).ask(kind="tour")
    assert [part["name"] for part in message["parts"]] == tour.parts
    json.dumps(message)  # everything can be sent to a browser
    for part in message["parts"]:
        assert part["formula"]
        assert part["why"]
        assert part["shapes"]
        assert Image.open(io.BytesIO(thumbnails[part["thumbnail"]])).size[0] > 0
    blocks = [part for part in message["parts"] if part["kind"] == "block"]
    # a block belongs to the stage that reads its tokens
    assert [b["number"] for b in blocks if b["group"] == 0][-1] == model.config.stage_block(0)
    assert {b["group"] for b in blocks} == {0, 1, 2, 3}
    names = {name for part in message["parts"] for name, _, _ in part["shapes"]}
    assert set(probes.names(model)) <= names


def test_the_model_runs_once_for_all_pictures():
    model = tiny_model()
    passes = []
    model.register_forward_hook(lambda *_: passes.append(1))
    wire = Wire(ModelTour(model, IMAGE, size=70))
    for request in ({"kind": "tour"}, {"kind": "shot", "part": "fusion.2", "view": "norm"}):
        wire.ask(**request)
    message, parts = wire.ask(kind="shot", part="fusion.2", view="channels")
    assert (message["part"], message["view"]) == ("fusion.2", "channels")
    assert "12 of 16 channels" in message["caption"]
    assert Image.open(io.BytesIO(parts[0])).mode == "RGBA"
    assert len(passes) == 1


def test_what_is_not_there_is_an_error_in_the_view():
    wire = Wire(ModelTour(tiny_model(), IMAGE, size=70))
    message, _ = wire.ask(kind="shot", part="fusion.7", view="norm")
    assert message["kind"] == "error"
    assert "'fusion.7'" in message["text"]
    message, _ = wire.ask(kind="shot", part="depth", view="norm")
    assert "depth has no view 'norm'" in message["text"]


def test_wrong_controls_are_refused_at_once():
    model = tiny_model()
    with pytest.raises(traitlets.TraitError, match=r"part must be one of picture.*got 'fusion'"):
        ModelTour(model, IMAGE, part="fusion")
    with pytest.raises(traitlets.TraitError, match=r"view must be one of picture.*got 'side'"):
        ModelTour(model, IMAGE, view="side")
    with pytest.raises(TypeError, match=r"block.* Its controls: part, view"):
        ModelTour(model, IMAGE, block=3)


def test_the_state_is_small_and_holds_no_pictures():
    tour = ModelTour(tiny_model(), IMAGE, size=70)
    Wire(tour).ask(kind="tour")
    code, rest = code_and_rest(tour)
    assert code < 100_000
    assert rest < 2000


def test_a_page_holds_every_picture_and_no_address(tmp_path):
    tour = ModelTour(tiny_model(), IMAGE, size=70, part="fusion.1")
    path = tour.to_html(tmp_path / "tour.html")
    data = data_of(path)
    assert data["state"] == {"part": "fusion.1", "view": ""}
    shots = {(r["match"]["part"], r["match"]["view"]) for r in data["replies"] if r["message"]["kind"] == "shot"}
    assert shots == {
        (part["name"], view) for part in data["replies"][0]["message"]["parts"] for view, _ in part["views"]
    }
    assert loaded_by(path) == []
