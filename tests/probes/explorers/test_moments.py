"""Explorers of one model and image share what the model computed, and nothing else; what no page shows is freed."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterator
from typing import Any

import ipywidgets
import numpy as np
import pytest
import torch
from torch import nn

import probes
from probes.explorers import AttentionExplorer, DepthExplorer, FusionExplorer, ModelTour, NormExplorer
from probes.explorers.shared import lifetime, live_subject, moments
from probes.explorers.shared.progress import silent
from tests.models import tiny_model
from tests.probes.explorers.wire import ask

IMAGE = np.random.default_rng(5).integers(0, 256, (56, 70, 3), dtype=np.uint8)
ONES = [1.0] * 7
SMALL: dict[str, Any] = {"size": (42, 56), "keep_aspect": False}


@pytest.fixture
def model() -> Any:
    return tiny_model()


@pytest.fixture
def passes(model: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with every pass of the encoder."""
    found: list[int] = []
    forward = type(model.encoder).forward

    def counted(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        found.append(1)
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(type(model.encoder), "forward", counted)
    return found


@pytest.fixture(autouse=True)
def nothing_else() -> Iterator[None]:
    yield
    ipywidgets.Widget.close_all()


def block_of(explorer: Any, block: int = 2) -> list[bytes]:
    message, parts = ask(explorer, kind="block", block=block)
    assert message["kind"] == "block", message
    return parts


def views(explorer: Any, count: int, page: str = "page") -> None:
    explorer._handle_custom_msg({"kind": "views", "client": page, "count": count}, [])


# ----------------------------------------------------------------------------------------------------------- sharing


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 1, 0, 3), (3, 2, 1, 0)])
def test_explorers_of_one_image_share_passes(model, passes, order):
    requests = [
        (AttentionExplorer, {"kind": "block", "block": 1}),
        (NormExplorer, {"kind": "tokens", "block": 3}),
        (FusionExplorer, {"kind": "map", "scales": [1.0, 0.5, -1.0, 1.0, 1.0, 1.0, 1.0]}),
        (DepthExplorer, {"kind": "map", "name": "depth"}),
    ]
    held, shared = [], {}
    for n in order:
        kind, request = requests[n]
        held.append(kind(model, IMAGE.copy(), **SMALL))
        shared[n] = ask(held[-1], **request)[1]
    assert len(passes) <= (1 if order[0] == 0 else 2)  # the fusion explorer's pass computes no depth
    for n, (kind, request) in enumerate(requests):
        assert ask(kind(tiny_model(), IMAGE, **SMALL), **request)[1] == shared[n]


def test_another_explorer_of_the_same_kind_runs_nothing(model, passes):
    first = ModelTour(model, IMAGE, **SMALL)
    tour = ask(first, kind="tour")
    assert len(passes) == 1
    second = ModelTour(model, IMAGE.copy(), **SMALL)
    assert ask(second, kind="tour")[1] == tour[1]
    assert len(passes) == 1


def test_the_attention_below_the_norms_runs_nothing_and_outlives_their_views(model, passes):
    norms = NormExplorer(model, IMAGE, **SMALL)
    assert ask(norms, kind="norms")[0]["kind"] == "norms"
    attention = norms.attention()
    before = block_of(attention)
    assert len(passes) == 1
    for explorer in (norms, attention):
        views(explorer, 1)
    views(norms, 0)
    assert attention._subject.held()
    assert block_of(attention) == before
    assert len(passes) == 1


def change_weights(model: Any) -> None:
    model.encoder.blocks[0].mlp.fc1.weight.data.mul_(1.5)  # raises no version


def change_module(model: Any) -> None:
    """Another class with the same parameters."""

    class Doubled(nn.LayerNorm):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    model.encoder.blocks[1].norm1.__class__ = Doubled


def change_epsilon(model: Any) -> None:
    model.encoder.blocks[1].norm1.eps = 0.5


def add_hook(model: Any) -> None:
    model.encoder.blocks[1].register_forward_hook(lambda module, args, output: output * 2)


def patch_forward(model: Any) -> None:
    block = model.encoder.blocks[1]
    block.forward = lambda *args, forward=block.forward, **kwargs: forward(*args, **kwargs) * 2


def scale_blocks(model: Any) -> None:
    """A global hook that doubles what one block returns."""
    block = model.encoder.blocks[1]
    nn.modules.module.register_module_forward_hook(
        lambda module, args, output: output * 2 if module is block else output
    )


@pytest.mark.parametrize(
    "change", [change_weights, change_module, change_epsilon, add_hook, patch_forward, scale_blocks]
)
def test_an_explorer_shows_the_model_as_it_is_now(model, change):
    first = AttentionExplorer(model, IMAGE, **SMALL)
    before = block_of(first)
    assert block_of(AttentionExplorer(model, IMAGE, **SMALL)) == before  # found, until the model changes
    try:
        change(model)
        second = AttentionExplorer(model, IMAGE, **SMALL)
        with probes.capture(model, "attention") as capture:
            model.predict(IMAGE, **SMALL)
        after = block_of(second)
        maps = capture["encoder.blocks.2.attention"]
        assert torch.equal(second._subject.captured("attention", 2, silent).q, maps.q)
        assert after != before
        assert block_of(first) == before  # one explorer shows one moment
        third = AttentionExplorer(model, IMAGE, **SMALL)
        assert block_of(third) == after
    finally:
        nn.modules.module._global_forward_hooks.clear()


def test_training_and_autocast_share_nothing(model, passes):
    first = AttentionExplorer(model, IMAGE, **SMALL)
    block_of(first)
    model.train()
    block_of(AttentionExplorer(model, IMAGE, **SMALL))
    assert len(passes) == 2
    model.eval()
    block_of(AttentionExplorer(model, IMAGE, **SMALL))
    assert len(passes) == 2
    with torch.autocast("cpu"):
        assert np.array_equal(DepthExplorer(model, IMAGE, **SMALL).depth, model.predict(IMAGE, **SMALL))
    assert len(passes) == 4


def test_an_edited_pass_is_never_shared(model):
    plain = DepthExplorer(model, IMAGE, **SMALL)
    depth = plain.depth
    with probes.edit(model, {"encoder.blocks.1.tokens": probes.scale(2.0)}):
        edited = DepthExplorer(model, IMAGE, **SMALL)
        assert np.array_equal(edited.depth, model.predict(IMAGE, **SMALL))
    assert not np.array_equal(edited.depth, depth)
    assert np.array_equal(DepthExplorer(model, IMAGE, **SMALL).depth, depth)


@pytest.mark.parametrize("arguments", [{"size": 98}, {"size": (70, 70), "keep_aspect": False}])
def test_another_size_or_image_is_another_subject(model, passes, arguments):
    first = AttentionExplorer(model, IMAGE, **SMALL)
    block_of(first)
    block_of(AttentionExplorer(model, IMAGE, **arguments))
    assert len(passes) == 2
    image = IMAGE.copy()
    second = AttentionExplorer(model, image, **SMALL)
    block_of(second)
    assert len(passes) == 2
    image[:] = 255 - image  # in place
    third = AttentionExplorer(model, image, **SMALL)
    block_of(third)
    assert len(passes) == 3


def test_a_copy_of_the_model_shares_nothing(model, passes):
    first = AttentionExplorer(model, IMAGE, **SMALL)
    block_of(first)
    block_of(AttentionExplorer(copy.deepcopy(model), IMAGE, **SMALL))
    assert len(passes) == 2


# -------------------------------------------------------------------------------------------------------- the bound


def test_all_moments_together_keep_a_bounded_number_of_bytes(model, monkeypatch):
    images = [np.roll(IMAGE, n, 0) for n in range(6)]
    held = [AttentionExplorer(model, image, **SMALL) for image in images]
    before = block_of(held[0])
    one = moments.kept_bytes()
    monkeypatch.setattr(moments, "BUDGET", 3 * one)
    for explorer in held[1:]:
        block_of(explorer)
        block_of(held[1])  # it stays in use
        assert moments.kept_bytes() <= 3 * one
    assert not held[0]._subject.held()
    assert held[1]._subject.held()
    assert held[-1]._subject.held()
    assert block_of(held[0]) == before  # computed again
    change_weights(model)
    assert ask(held[2], kind="block", block=2)[0]["kind"] == "error"  # and refused where values would be mixed


def test_a_large_subject_is_captured_alone(model, monkeypatch):
    monkeypatch.setattr(live_subject, "ALONG", 0)
    explorer = AttentionExplorer(model, IMAGE, **SMALL)
    block_of(explorer)
    assert {name.rpartition(".")[2] for name in explorer._subject.held()} == {"attention"}


# ------------------------------------------------------------------------------------------------------------- views


@pytest.mark.parametrize("kind", [AttentionExplorer, DepthExplorer, FusionExplorer, ModelTour, NormExplorer])
def test_an_explorer_without_views_keeps_nothing(model, passes, kind):
    request = {
        AttentionExplorer: {"kind": "block", "block": 2},
        DepthExplorer: {"kind": "map", "name": "depth"},
        FusionExplorer: {"kind": "map", "scales": ONES},
        ModelTour: {"kind": "tour"},
        NormExplorer: {"kind": "norms"},
    }[kind]
    explorer = kind(model, IMAGE, **SMALL)
    views(explorer, 1)
    views(explorer, 1, "another page")
    before = ask(explorer, **request)[1]
    views(explorer, 0)
    assert moments.kept_bytes() > 0
    views(explorer, 0, "another page")
    assert moments.kept_bytes() == 0
    views(explorer, 1)
    after = ask(explorer, **request)[1]
    assert before == after
    assert len(passes) == 2


def test_python_gets_values_without_a_view(model):
    explorer = DepthExplorer(model, IMAGE, **SMALL)
    views(explorer, 1)
    before = explorer.depth
    views(explorer, 0)
    change_weights(model)
    assert np.array_equal(explorer.depth, model.predict(IMAGE, **SMALL))  # nothing shows the former values any more
    assert not np.array_equal(explorer.depth, before)


@pytest.mark.parametrize("ending", ["run again", "closed"])
def test_explorers_that_go_leave_nothing_of_their_own_to_those_that_stay(model, monkeypatch, ending):
    monkeypatch.setattr(lifetime, "_cells", {})
    staying = AttentionExplorer(model, IMAGE, **SMALL)
    block_of(staying)
    sizes = []
    for run in range(4):
        monkeypatch.setattr(lifetime, "current_cell", lambda run=run: ("cell", str(run)))
        explorer = FusionExplorer(model, IMAGE, **SMALL)
        explorer._repr_mimebundle_()
        assert ask(explorer, kind="map", scales=ONES)[0]["kind"] == "map"
        sizes.append(moments.kept_bytes())
        if ending == "closed":
            explorer.close()
    assert len(set(sizes)) == 1


def test_running_a_cell_again_takes_over_what_the_former_explorer_computed(model, passes, monkeypatch):
    monkeypatch.setattr(lifetime, "_cells", {})
    out = []
    for run in range(4):
        monkeypatch.setattr(lifetime, "current_cell", lambda run=run: ("cell", str(run)))
        explorer = AttentionExplorer(model, IMAGE, **SMALL)
        explorer._repr_mimebundle_()
        out.append(explorer)  # as IPython does
        views(explorer, 1)
        block_of(explorer)
        assert sum(bool(one._subject.held()) for one in out) == 1
    assert len(passes) == 1
    views(explorer, 0)
    assert moments.kept_bytes() == 0


def test_tensors_go_with_the_last_explorer(model):
    explorers = [AttentionExplorer(model, IMAGE, **SMALL), NormExplorer(model, IMAGE, **SMALL)]
    block_of(explorers[0])
    assert ask(explorers[1], kind="norms")[0]["kind"] == "norms"
    kept = weakref.ref(explorers[0]._subject.captured("attention", 1, silent))
    explorers[0].close()
    assert kept() is not None
    explorers[1].close()
    assert kept() is None


def test_pages_that_do_not_answer_count_as_closed(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(lifetime.time, "monotonic", lambda: clock[0])
    sent: list[Any] = []
    viewers = lifetime.Viewers()
    assert viewers.note("reloaded", 1, sent.append) is False
    assert sent == []
    assert viewers.note("new", 1, sent.append) is False
    assert [message["kind"] for message in sent] == ["count views"]
    assert viewers.note("new", 0, sent.append) is False  # the other page has had no time to answer
    assert viewers.note("new", 2, sent.append) is False
    clock[0] += 60
    assert viewers.note("new", 0, sent.append) is True
    assert viewers.note("new", 0, sent.append) is False
    # A page that answers stays.
    viewers.note("first", 1, sent.append)
    viewers.note("second", 1, sent.append)
    viewers.note("first", 1, sent.append)
    clock[0] += 60
    assert viewers.note("second", 0, sent.append) is False
    assert viewers.note("first", 0, sent.append) is True
