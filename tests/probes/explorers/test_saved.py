"""What the output of an explorer holds beside the live view: a picture and words, for notebooks without a kernel."""

from __future__ import annotations

import base64
import io
import threading
from typing import Any

import ipywidgets
import numpy as np
import pytest
import torch
from PIL import Image

import dpt
from probes.explorers import AttentionExplorer, DepthExplorer, DepthUpload, FusionExplorer, ModelTour, NormExplorer
from probes.explorers.shared import lifetime, live_subject, saved, turns
from probes.explorers.shared.progress import silent
from tests.models import tiny_model
from tests.probes.explorers.test_pictures import IMAGE, every_explorer
from tests.probes.explorers.wire import Wire

VIEW = "application/vnd.jupyter.widget-view+json"


def output_of(widget: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a cell outputs for a widget: (data, metadata)."""
    data, metadata = widget._repr_mimebundle_()
    return data, metadata


def picture_in(data: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(data["image/png"])))


@pytest.fixture
def passes(monkeypatch) -> list[str]:
    """One entry per pass of any model."""
    run: list[str] = []
    forward = dpt.DPT.forward

    def counted(self: dpt.DPT, x: torch.Tensor) -> torch.Tensor:
        run.append("pass")
        return forward(self, x)

    monkeypatch.setattr(dpt.DPT, "forward", counted)
    return run


@pytest.fixture
def slow(monkeypatch) -> None:
    """Every pass would delay the view."""
    monkeypatch.setattr(live_subject, "pass_seconds", lambda model, grid: 1e6)


def test_the_output_of_every_explorer_holds_view_picture_and_words():
    for explorer in every_explorer(tiny_model()):
        data, metadata = output_of(explorer)
        assert data[VIEW]["model_id"]
        assert picture_in(data).width == 900
        words = data["text/plain"]
        assert words.startswith(type(explorer).__name__)
        assert saved.NOTE in words
        assert "object at 0x" not in words
        assert metadata["image/png"]["alt"] == words
        assert explorer._saved_picture == data["image/png"]
        assert explorer._saved_words == words


@pytest.mark.parametrize(
    ("kind", "request_"),
    [
        (AttentionExplorer, {"kind": "block", "block": 2}),
        (NormExplorer, {"kind": "norms"}),
        (DepthExplorer, {"kind": "map", "name": "depth"}),
        (FusionExplorer, {"kind": "baseline"}),
        (ModelTour, {"kind": "tour"}),
    ],
)
def test_the_model_runs_once_for_the_picture_and_the_view(passes, kind, request_):
    explorer = kind(tiny_model(), IMAGE)
    output_of(explorer)
    once = len(passes)
    assert once <= 1
    message, _ = Wire(explorer).ask(**request_)
    assert message["kind"] == request_["kind"]
    assert len(passes) == once


def test_a_long_pass_does_not_delay_the_view(passes, slow):
    for explorer in every_explorer(tiny_model()):
        data, _ = output_of(explorer)
        assert data[VIEW]
        assert picture_in(data).width == 900  # the image and the words
    assert not passes


def test_where_nobody_waits_a_long_pass_is_run(passes, slow, monkeypatch):
    monkeypatch.setattr(lifetime, "is_unattended", lambda: True)
    output_of(AttentionExplorer(tiny_model(), IMAGE))
    assert passes


def test_a_view_is_not_delayed_by_another_explorer_that_runs_the_model(passes):
    explorer = AttentionExplorer(tiny_model(), IMAGE)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with turns.model_lock(explorer._owner):
            held.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert held.wait(60)
        data, _ = output_of(explorer)
        assert data[VIEW]
        assert not passes
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("error", [MemoryError("out"), RuntimeError("CUDA"), ValueError("refused")])
def test_an_error_of_the_picture_leaves_the_view(monkeypatch, error):
    def fail(*_: object, **__: object) -> bytes:
        raise error

    explorer = NormExplorer(tiny_model(), IMAGE)
    monkeypatch.setattr(NormExplorer, "_draw", fail)
    monkeypatch.setattr(NormExplorer, "_summary", fail)
    data, metadata = output_of(explorer)
    assert data[VIEW]
    assert "image/png" not in data
    assert not metadata
    assert type(explorer).__name__ in data["text/plain"]
    assert type(explorer).__name__ in repr(explorer)


def test_a_depth_with_nan_shows_the_view_without_a_picture():
    model = tiny_model()
    with torch.no_grad():
        next(model.head.parameters()).fill_(float("nan"))
    data, _ = output_of(DepthExplorer(model, IMAGE))
    assert data[VIEW]
    assert "image/png" not in data


def test_boxes_hold_the_pictures_of_their_explorers():
    attention, depth = AttentionExplorer(tiny_model(), IMAGE), DepthExplorer(tiny_model(), IMAGE)
    box = ipywidgets.Tab([ipywidgets.HBox([attention, attention]), depth, ipywidgets.Label("text")])
    data, _ = saved._output_of_box(box)
    assert data[VIEW]
    heights = [picture_in(output_of(one)[0]).height for one in (attention, depth)]
    assert picture_in(data).height == sum(heights)
    for explorer in (attention, depth):
        assert explorer._saved_words in data["text/plain"]


def test_other_boxes_stay_as_they_are():
    box = ipywidgets.HBox([ipywidgets.Label("text")])
    assert saved._output_of_box(box) == box._repr_mimebundle_()


def test_an_upload_says_what_it_is_and_shows_what_was_chosen():
    upload = DepthUpload(tiny_model())
    data, _ = output_of(upload)
    assert "image/png" not in data
    assert data["text/plain"].startswith("DepthUpload")
    file = io.BytesIO()
    Image.fromarray(IMAGE).save(file, format="PNG")
    upload._use("mine.png", file.getvalue(), silent)
    data, _ = output_of(upload)
    assert picture_in(data).width == 900
    assert "mine.png, 90 x 60 pixels" in data["text/plain"]


def test_only_programs_count_as_unattended(monkeypatch):
    class Shell:
        def __init__(self, **content: Any):
            self.content = content

        def get_parent(self) -> dict[str, Any]:
            return {"content": self.content, "header": {"msg_id": "1"}, "metadata": {}}

    import IPython

    for content, expected in (({"allow_stdin": False}, True), ({"allow_stdin": True}, False), ({}, False)):
        monkeypatch.setattr(IPython, "get_ipython", lambda content=content: Shell(**content))
        assert lifetime.is_unattended() is expected
    monkeypatch.setattr(IPython, "get_ipython", lambda: None)
    assert not lifetime.is_unattended()


def test_a_large_model_on_a_cpu_takes_longer_than_a_view_may_wait():
    from probes.explorers.shared.speed import pass_seconds

    small, grid = tiny_model(), dpt.TokenGrid(37, 37, 1)
    assert pass_seconds(small, grid) < saved.PATIENCE
    wide = tiny_model(width=1024, depth=24)  # the blocks of ViT-L
    assert pass_seconds(wide, grid) * torch.get_num_threads() > 10
    assert np.isclose(pass_seconds(wide, dpt.TokenGrid(74, 37, 1)) / pass_seconds(wide, grid), 2, rtol=0.01)
