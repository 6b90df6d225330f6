"""An explorer lives as long as a cell shows it or somebody holds it, and no longer."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import comm
import ipywidgets
import numpy as np
import pytest
from ipywidgets.widgets import widget as registry_of

import probes
from probes.explorers import (
    AttentionExplorer,
    DepthExplorer,
    FusionExplorer,
    ModelTour,
    NormExplorer,
    PositionExplorer,
)
from probes.explorers.shared import lifetime
from probes.explorers.shared.progress import silent
from tests.models import tiny_model

IMAGE = np.random.default_rng(0).integers(0, 256, (56, 70, 3), dtype=np.uint8)


def make(kind: type, model: Any = None) -> Any:
    """An explorer of a small input, which keeps passes short."""
    model = model or tiny_model()
    if kind is PositionExplorer:
        return kind(model, (56, 70))
    return kind(model, IMAGE.copy(), size=(56, 70), keep_aspect=False)


KINDS = [AttentionExplorer, DepthExplorer, FusionExplorer, ModelTour, NormExplorer, PositionExplorer]


@pytest.fixture(autouse=True)
def cell(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Runs a cell: what is shown next is its output."""
    executions = 0
    running: tuple[str | None, str] = (None, "")

    def run(name: str) -> None:
        nonlocal executions, running
        executions += 1
        running = (name, str(executions))

    monkeypatch.setattr(lifetime, "current_cell", lambda: running)
    monkeypatch.setattr(lifetime, "_cells", {})
    yield run
    ipywidgets.Widget.close_all()


def show(explorer: Any) -> str:
    """Shows an explorer as the result of a cell; its number in the browser."""
    explorer._repr_mimebundle_()
    return str(explorer.model_id)


def is_alive(reference: weakref.ref[Any]) -> bool:
    gc.collect()
    return reference() is not None


def send(number: str, name: str, value: object) -> None:
    """What a view sends when a control changes."""
    content = {"data": {"method": "update", "state": {name: value}, "buffer_paths": []}}
    comm.get_comm_manager().comms[number].handle_msg({"content": content, "buffers": []})


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_never_shown_goes_with_its_model(kind: type):
    model = tiny_model()
    explorer = make(kind, model)
    number, seen, of_model = explorer.model_id, weakref.ref(explorer), weakref.ref(model)
    assert number in registry_of._instances
    assert number in comm.get_comm_manager().comms
    del explorer, model
    assert not is_alive(seen)
    assert not is_alive(of_model)
    assert number not in registry_of._instances
    assert number not in comm.get_comm_manager().comms


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_cell_shows_works_after_its_variable_is_gone(kind: type, cell: Callable[[str], None]):
    cell("a")
    explorer = make(kind)
    number, seen = show(explorer), weakref.ref(explorer)
    del explorer
    assert is_alive(seen)
    control = {AttentionExplorer: "block", NormExplorer: "block", PositionExplorer: "first", FusionExplorer: "frames"}
    if kind in control:
        send(number, control[kind], 3)
        assert getattr(seen(), control[kind]) == 3
    cell("b")  # another cell
    show(make(kind))
    assert is_alive(seen)


def test_a_view_of_an_explorer_that_is_only_held_works():
    explorer = make(AttentionExplorer)
    send(explorer.model_id, "block", 1)
    assert explorer.block == 1


def test_an_explorer_in_a_box_lives_with_the_box():
    explorer = make(AttentionExplorer)
    box, number, seen = ipywidgets.HBox([explorer]), explorer.model_id, weakref.ref(explorer)
    del explorer
    assert is_alive(seen)
    send(number, "block", 1)
    assert box.children[0].block == 1
    box.close()
    del box
    assert not is_alive(seen)


@pytest.mark.parametrize("kind", KINDS)
def test_running_a_cell_again_lets_the_former_explorer_go(kind: type, cell: Callable[[str], None]):
    cell("a")
    model = tiny_model()
    explorer = make(kind, model)
    show(explorer)
    seen, of_model = weakref.ref(explorer), weakref.ref(model)
    cell("a")
    model = tiny_model()
    explorer = make(kind, model)
    assert is_alive(seen)
    show(explorer)
    assert not is_alive(seen)
    assert not is_alive(of_model)
    assert is_alive(weakref.ref(explorer))


def test_two_explorers_of_one_execution_stay(cell: Callable[[str], None]):
    cell("a")
    seen = []
    for _ in range(2):
        explorer = make(AttentionExplorer)
        show(explorer)
        seen.append(weakref.ref(explorer))
    del explorer
    assert [is_alive(one) for one in seen] == [True, True]


def test_what_another_cell_still_shows_stays(cell: Callable[[str], None]):
    explorer = make(AttentionExplorer)
    for name in ("a", "b"):
        cell(name)
        show(explorer)
    seen = weakref.ref(explorer)
    del explorer
    cell("a")
    show(make(AttentionExplorer))
    assert is_alive(seen)
    cell("b")
    show(make(AttentionExplorer))
    assert not is_alive(seen)


def test_an_explorer_that_its_variable_holds_forgets_only_what_it_can_compute(cell: Callable[[str], None]):
    cell("a")
    explorer = make(AttentionExplorer)
    show(explorer)
    before = explorer._answer({"kind": "block", "block": 2}, silent)
    assert explorer._subject.held()
    cell("a")
    show(make(AttentionExplorer))
    assert not explorer._subject.held()
    after = explorer._answer({"kind": "block", "block": 2}, silent)
    assert before[1] == after[1]
    show(explorer)
    seen = weakref.ref(explorer)
    del explorer
    assert is_alive(seen)


@pytest.mark.parametrize("kind", KINDS)
def test_close_frees_the_model_of_an_explorer_that_is_still_held(kind: type, cell: Callable[[str], None]):
    cell("a")
    model = tiny_model()
    explorer = make(kind, model)
    number, of_model = show(explorer), weakref.ref(model)
    del model
    if kind is NormExplorer:
        explorer.attention()
    explorer.close()
    explorer.close()  # again
    assert not is_alive(of_model)
    assert number not in registry_of._instances
    assert number not in comm.get_comm_manager().comms
    with pytest.raises(probes.ProbeError, match="closed"):
        explorer._answer({"kind": "about" if kind is PositionExplorer else "picture"}, silent)


def test_dropping_the_norm_explorer_closes_no_attention_explorer_that_is_shown(cell: Callable[[str], None]):
    cell("a")
    norms = make(NormExplorer)
    attention = norms.attention()
    show(attention)
    del norms
    gc.collect()
    send(attention.model_id, "block", 1)
    assert attention.block == 1


def test_the_cell_is_known_by_what_the_front_end_sends(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    assert lifetime.current_cell() == (None, "")
    import IPython

    parent: dict[str, Any] = {"metadata": {"cellId": "c1"}, "header": {"msg_id": "m1"}}

    class Shell:
        def get_parent(self) -> dict[str, Any]:
            return parent

    monkeypatch.setattr(IPython, "get_ipython", Shell)
    assert lifetime.current_cell() == ("c1", "m1")
    parent["metadata"] = {}
    assert lifetime.current_cell() == (None, "m1")
    parent.clear()
    assert lifetime.current_cell() == (None, "")
