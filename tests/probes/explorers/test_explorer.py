"""The Python half of the attention explorer. The tests exchange messages with it as a browser does."""

from __future__ import annotations

import copy
import gc
import io
import json
import pickle
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import traitlets
from PIL import Image

import dpt
import probes
from probes.explorers import AttentionExplorer
from probes.explorers.shared import answering, live_subject, pages, turns
from probes.explorers.shared.controls import ControlError, UnknownControlError
from probes.explorers.shared.packing import HALF_MAX, pack_attention
from probes.explorers.shared.progress import silent
from tests.models import tiny_model
from tests.probes.explorers.wire import Wire, code_and_rest

ROOT = Path(__file__).parents[3]
IMAGE = np.random.default_rng(3).integers(0, 255, (60, 90, 3), dtype=np.uint8)
SIZE = (70, 98)  # pixels of the model's input: 5 x 7 patches


@pytest.fixture
def model() -> dpt.DPT:
    return tiny_model()


def explorer_of(model: dpt.DPT, **more: Any) -> tuple[AttentionExplorer, Wire[AttentionExplorer]]:
    explorer = AttentionExplorer(model, IMAGE, size=SIZE, keep_aspect=False, **more)
    return explorer, Wire(explorer)


def decoded(message: dict[str, Any], parts: list[bytes]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    shape = (message["heads"], message["tokens"])
    q, k = (np.frombuffer(part, "<f2").reshape(*shape, message["dim"]).astype(np.float64) for part in parts[:2])
    return q, k, np.frombuffer(parts[2], "<f4").reshape(shape)


def hooks_of(model: dpt.DPT) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def exact(model: dpt.DPT, block: int) -> torch.Tensor:
    with probes.capture(model, f"encoder.blocks.{block}.attention") as capture:
        model.predict(IMAGE, SIZE, keep_aspect=False)
    maps = capture[f"encoder.blocks.{block}.attention"]
    assert isinstance(maps, probes.AttentionMaps)
    return maps.matrix()[0]  # (heads, queries, keys)


# --------------------------------------------------------------------------------------------------------- requests


def test_a_block_arrives_as_the_attention_of_the_model(model):
    _, wire = explorer_of(model)
    message, parts = wire.ask(kind="block", block=2, seq=41, client="abc")
    assert {key: message[key] for key in ("kind", "seq", "client", "block")} == {
        "kind": "block",
        "seq": 41,
        "client": "abc",
        "block": 2,
    }
    assert {key: message[key] for key in ("heads", "tokens", "dim", "rows", "cols", "prefix")} == {
        "heads": 2,
        "tokens": 36,
        "dim": 64,
        "rows": 5,
        "cols": 7,
        "prefix": 1,
    }
    q, k, lse = decoded(message, parts)
    matrix = exact(model, 2).double().numpy()
    rows = np.exp(q @ k.transpose(0, 2, 1) - lse[..., None])
    # fp16 keeps 11 bits: scores of about 10 are off by about 3e-3, and weights change by that fraction.
    assert np.abs(rows - matrix).max() < 2e-3
    assert np.abs(np.log(rows) - np.log(matrix)).max() < 2e-2
    # log-sum-exp is computed from the rounded numbers, so rows sum to 1 much more accurately.
    assert np.abs(rows.sum(-1) - 1).max() < 1e-5
    entropy = -(matrix * np.log(matrix)).sum(-1).mean(-1)
    assert message["entropy"] == pytest.approx(entropy.tolist(), abs=0.01)
    with probes.capture(model, "encoder.blocks.2.attention") as cap:  # the unit of the API
        model.predict(IMAGE, SIZE, keep_aspect=False)
    of_api = cap["encoder.blocks.2.attention"].entropy()[0].mean(-1)
    assert message["entropy"] == pytest.approx(of_api.tolist(), abs=0.01)


def test_the_model_runs_once_for_all_blocks_and_the_depth(model):
    passes = []
    handle = model.register_forward_hook(lambda *_: passes.append(1))
    _, wire = explorer_of(model)
    for block in range(4):
        assert wire.ask(kind="block", block=block)[0]["block"] == block
    assert wire.ask(kind="depth")[0]["kind"] == "depth"
    assert len(passes) == 1
    assert sum("Running the model" in text for text in wire.status()) == 1
    handle.remove()


def test_where_memory_is_short_each_block_gets_a_pass_of_its_own(model, monkeypatch):
    first, plenty = explorer_of(model)
    wanted = [plenty.ask(kind="block", block=block)[1] for block in (1, 3)]
    first.close()  # or its captures would be used
    monkeypatch.setattr("probes.explorers.shared.subject.MEMORY_BUDGET", 1000)
    explorer, short = explorer_of(model)
    got = [short.ask(kind="block", block=block)[1] for block in (1, 3)]
    assert got == wanted
    assert explorer._subject.held() == ["encoder.blocks.3.attention"]
    assert sum("Running the model" in text for text in short.status()) == 2


def test_a_pass_of_other_weights_is_not_mixed_with_what_is_shown(model, monkeypatch):
    monkeypatch.setattr("probes.explorers.shared.subject.MEMORY_BUDGET", 1000)  # a pass for each block
    model = copy.deepcopy(model)
    _, wire = explorer_of(model)
    shown = wire.ask(kind="block", block=1)[1]
    assert wire.ask(kind="block", block=1)[1] == shown
    model.encoder.blocks[0].mlp.fc1.weight.data.mul_(1.5)  # raises no version
    message, parts = wire.ask(kind="block", block=3)
    assert message["kind"] == "error"
    assert "weights have changed" in message["text"]
    assert parts == []
    # An explorer made now shows the model as it is.
    assert explorer_of(model)[1].ask(kind="block", block=3)[0]["block"] == 3


def test_the_picture_and_its_grid(model):
    _, wire = explorer_of(model)
    message, (content,) = wire.ask(kind="picture")
    picture = Image.open(io.BytesIO(content))
    assert (picture.format, picture.size) == ("JPEG", (90, 60))
    assert (message["width"], message["height"]) == (90, 60)
    assert (message["rows"], message["cols"], message["prefix"], message["blocks"]) == (5, 7, 1, [0, 1, 2, 3])
    assert message["call"] == "model.predict(image, size=(70, 98), keep_aspect=False)"
    assert wire.status() == []  # this runs no pass


def test_a_large_picture_is_sent_small(model):
    large = np.zeros((300, 2400, 3), np.uint8)
    _, (content,) = Wire(AttentionExplorer(model, large, size=(28, 56), keep_aspect=False)).ask(kind="picture")
    assert Image.open(io.BytesIO(content)).size == (1000, 125)


def test_depth_is_grey_with_near_bright(model):
    _, wire = explorer_of(model)
    _, (content,) = wire.ask(kind="depth")
    depth = model.predict(IMAGE, SIZE, keep_aspect=False)
    grey = np.asarray(Image.open(io.BytesIO(content)))
    assert grey.shape == depth.shape
    assert np.unravel_index(grey.argmax(), grey.shape) == np.unravel_index(depth.argmax(), depth.shape)
    assert (grey.min(), grey.max()) == (0, 255)


# ------------------------------------------------------------------------------------------------- what can go wrong


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"kind": "block", "block": 4}, "block must be a whole number from 0 to 3, got 4"),
        ({"kind": "block", "block": "2"}, "block must be a whole number from 0 to 3, got '2'"),
        ({"kind": "block"}, "got None"),
        ({"kind": "nonsense"}, "does not answer requests of kind 'nonsense'"),
        ({}, "of kind None"),
    ],
)
def test_a_bad_request_is_answered_with_what_was_wrong(model, request_, said):
    _, wire = explorer_of(model)
    message, parts = wire.ask(**request_)
    assert (message["kind"], message["seq"], message["client"]) == ("error", 1, "page")
    assert message["asked"] == request_.get("kind")
    assert said in message["text"]
    assert parts == []


def test_a_failure_in_the_model_reaches_the_view_and_leaves_nothing_behind(model):
    _, wire = explorer_of(model)
    flags = [(m.training, [p.requires_grad for p in m.parameters(recurse=False)]) for m in model.modules()]

    def explode(*_: object) -> None:
        raise RuntimeError("out of memory, say")

    handle = model.encoder.blocks[2].register_forward_hook(explode)
    message, _ = wire.ask(kind="block", block=1)
    assert (message["kind"], message["text"]) == ("error", "RuntimeError: out of memory, say")
    handle.remove()
    assert hooks_of(model) == 0
    assert flags == [(m.training, [p.requires_grad for p in m.parameters(recurse=False)]) for m in model.modules()]
    assert wire.ask(kind="block", block=1)[0]["kind"] == "block"  # and the next request works
    assert hooks_of(model) == 0


def test_an_interrupted_kernel_tells_the_view_and_stays_interrupted(model, monkeypatch):
    explorer, wire = explorer_of(model)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "predict", interrupted)
    with pytest.raises(KeyboardInterrupt):
        explorer._on_message(explorer, {"kind": "block", "block": 1, "seq": 1, "client": "page"}, [])
    message = wire.sent[-1][0]
    assert "Interrupted" in message["text"]
    assert message["cancelled"]
    assert turns.model_lock(model).acquire(blocking=False)  # the lock is free again
    turns.model_lock(model).release()


def test_a_message_that_is_no_request_is_dropped(model, caplog):
    explorer, wire = explorer_of(model)
    explorer._handle_custom_msg("hello", [])
    assert wire.sent == []
    assert "hello" in caplog.text


def test_explorers_of_one_model_take_turns(model):
    """Two captures at once would see each other's passes. Control: without the lock, the passes overlap."""
    inside, most = 0, 0

    def count(*_: object) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        threading.Event().wait(0.05)

    def leave(*_: object) -> None:
        nonlocal inside
        inside -= 1

    model.register_forward_pre_hook(count)
    model.register_forward_hook(leave)

    def both() -> list[Wire]:
        wires = [explorer_of(model)[1] for _ in range(2)]
        threads = [threading.Thread(target=wire.ask, kwargs={"kind": "block", "block": 1}) for wire in wires]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return wires

    wires = both()
    assert most == 1
    assert all(wire.sent[-1][0]["kind"] == "block" for wire in wires)
    assert sum("Waiting for another explorer" in text for wire in wires for text in wire.status()) == 1

    most = 0
    with pytest.MonkeyPatch.context() as patch:
        for module in (answering, live_subject):
            patch.setattr(module, "model_lock", lambda _: turns.Turns())
        both()
    assert most == 2


def test_nothing_outlives_the_explorer(model):
    explorer, wire = explorer_of(model)
    wire.ask(kind="block", block=1)
    assert hooks_of(model) == 0
    maps = explorer._subject.captured("attention", 1, silent)
    assert isinstance(maps, probes.AttentionMaps)
    kept = weakref.ref(maps.q)
    assert kept() is not None
    explorer.close()
    del explorer, wire, maps
    gc.collect()
    assert kept() is None


# ------------------------------------------------------------------------------------------------------------- state


def test_traits_hold_the_state_of_the_controls_and_no_data(model):
    explorer, wire = explorer_of(model)
    wire.ask(kind="block", block=1)
    wire.ask(kind="picture")
    state = explorer.get_state()
    controls = {name: state[name] for name in explorer.trait_names(ui=True)}
    assert len(json.dumps(controls)) < 1000
    code, rest = code_and_rest(explorer)
    assert code < 100_000
    assert rest < 2000


def test_traits_start_sensibly_and_are_two_way(model):
    explorer, _ = explorer_of(model)
    assert (explorer.block, explorer.direction, explorer.pins, explorer.head) == (2, "row", [], None)
    assert explorer.patch == (2, 3)  # the middle
    explorer.patch = (0, 1)
    assert explorer.token == 2
    explorer.token = 0
    assert explorer.patch is None  # the class token
    explorer.set_state({"block": 0, "pins": [3, 0], "head": -1})  # as a browser does
    assert (explorer.block, explorer.pins, explorer.head) == (0, [3, 0], -1)
    given, _ = explorer_of(model, block=1, direction="column", scale="log", colormap="magma")
    assert (given.block, given.direction, given.scale, given.colormap) == (1, "column", "log", "magma")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("block", 4),
        ("block", -1),
        ("block", 1.5),
        ("token", 36),
        ("pins", [1, 1]),
        ("pins", [1, 2, 3]),
        ("pins", [99]),
        ("head", 2),
        ("head", -2),
        ("direction", "diagonal"),
        ("scale", "cubic"),
        ("colormap", "jet"),
        ("opacity", 1.5),
    ],
)
def test_impossible_settings_are_refused_and_change_nothing(model, name, value):
    explorer, _ = explorer_of(model)
    before = getattr(explorer, name)
    with pytest.raises(traitlets.TraitError) as refused:
        setattr(explorer, name, value)
    assert isinstance(refused.value, ControlError)
    assert isinstance(refused.value, probes.ProbeError)
    assert (refused.value.control, refused.value.given) == (name, value)
    assert str(refused.value)
    assert getattr(explorer, name) == before


def test_wrong_arguments_fail_before_anything_is_run(model, monkeypatch):
    monkeypatch.setattr(dpt.DPT, "forward", lambda *_: pytest.fail("the model ran"))
    with pytest.raises(dpt.ImageError, match=r"expected an \(H, W, 3\) uint8 RGB array, got float64"):
        AttentionExplorer(model, IMAGE / 255)
    with pytest.raises(traitlets.TraitError, match="block must be a whole number from 0 to 3, got 12"):
        AttentionExplorer(model, IMAGE, 12)
    with pytest.raises(TypeError, match="colormap") as unknown:
        AttentionExplorer(model, IMAGE, colormp="magma")
    assert isinstance(unknown.value, UnknownControlError)
    assert unknown.value.names == ("colormp",)
    assert {"base", "block", "colormap"} <= set(unknown.value.known)
    assert not any(name.startswith("_") for name in unknown.value.known)
    with pytest.raises(ValueError, match="multiple"):
        AttentionExplorer(model, IMAGE, size=(71, 98), keep_aspect=False)


def test_something_else_than_a_model_is_named():
    """Runs in a separate interpreter, because the type checks of the test suite would refuse the arguments first."""
    script = """
import numpy as np, torch
from probes.explorers import AttentionExplorer, FusionExplorer, ModelTour, PositionExplorer
from probes.runs.stored import StoredCapture
stored = object.__new__(StoredCapture)
stored.name = "a.png"
image = np.zeros((28, 28, 3), np.uint8)
for cls, *given in (
    (AttentionExplorer, "demo", image),
    (AttentionExplorer, torch.nn.Linear(2, 2), image),
    (FusionExplorer, stored),
    (ModelTour, stored),
    (PositionExplorer, stored),
):
    try:
        cls(*given)
    except TypeError as error:
        print(error)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.splitlines() == [
        "model must be a DPT model from dpt.load, got str. Load it first: dpt.load('demo')",
        "model must be a DPT model from dpt.load, got Linear",
    ] + 3 * [
        "model must be a DPT model from dpt.load, got StoredCapture. This explorer runs the model, and a run does not "
        "contain one. Load the captured model with dpt.load; the image is run['a.png'].image()"
    ]


# ----------------------------------------------------------------------------------------------------------- packing


def scores(packed) -> torch.Tensor:
    return packed.q.double() @ packed.k.double().mT


def worst_row_error(q: torch.Tensor, k: torch.Tensor, packed_scores: torch.Tensor, scale: float) -> float:
    truth = (q.double() * scale @ k.double().mT).softmax(-1)
    return float((packed_scores.softmax(-1) - truth).abs().max())


def test_centring_the_keys_saves_what_rounding_would_lose():
    """Keys have a large common part, as in attention layers. Control: the same without centring."""
    gen = torch.Generator().manual_seed(0)
    q = torch.randn(2, 200, 64, generator=gen)
    k = torch.randn(2, 200, 64, generator=gen) + 20 * torch.randn(2, 1, 64, generator=gen)
    scale = 64**-0.5
    error = worst_row_error(q, k, scores(pack_attention(q, k, scale)), scale)
    plain = worst_row_error(q, k, (q * scale).half().double() @ k.half().double().mT, scale)
    assert error < 1e-3
    assert plain > 5 * error


def test_numbers_beyond_half_precision_are_balanced_and_impossible_ones_refused():
    gen = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 50, 16, generator=gen) * 1e-4, torch.randn(2, 50, 16, generator=gen) * 1e6
    assert float(k.abs().max()) > HALF_MAX  # control: without balancing, keys would be infinite
    packed = pack_attention(q, k, 0.01)
    assert torch.isfinite(packed.q).all()
    assert torch.isfinite(packed.k).all()
    assert worst_row_error(q, k, scores(packed), 0.01) < 2e-3
    with pytest.raises(ValueError, match="65504"):
        pack_attention(q * 1e12, k, 1.0)
    with pytest.raises(ValueError, match="NaN or infinity"):
        pack_attention(q * float("nan"), k, 1.0)
    with pytest.raises(ValueError, match=r"must both be \(heads, tokens, dim\)"):
        pack_attention(q, k[:, :3], 1.0)


def test_queries_of_zero_give_even_attention():
    packed = pack_attention(torch.zeros(1, 8, 4), torch.randn(1, 8, 4, generator=torch.Generator().manual_seed(0)), 1.0)
    assert packed.log_sum_exp.tolist() == [pytest.approx([np.log(8)] * 8)]
    assert packed.entropy == pytest.approx([np.log(8)])


def test_statistics_do_not_depend_on_the_chunks(monkeypatch):
    gen = torch.Generator().manual_seed(0)
    q, k = torch.randn(3, 37, 8, generator=gen), torch.randn(3, 37, 8, generator=gen)
    whole = pack_attention(q, k, 0.5)
    monkeypatch.setattr("probes.explorers.shared.packing.CHUNK_BYTES", 4 * 3 * 37 * 5)
    parts = pack_attention(q, k, 0.5)
    assert torch.allclose(whole.log_sum_exp, parts.log_sum_exp, atol=1e-6)
    assert whole.entropy == pytest.approx(parts.entropy, abs=1e-6)


def test_errors_of_explorers_keep_their_facts_on_the_way_between_processes():
    errors = (
        UnknownControlError.of("TestExplorer", ["blok", "x"], ["opacity", "block"]),
        ControlError("block", -1, "0 to 3"),
        ControlError("size", 7, "a multiple of 14", "size: 7 pixels are too few"),
        pages.PageTooLargeError.of("4 blocks", 2**20, 2**10, "Choose fewer"),
    )
    for error in errors:
        copied = pickle.loads(pickle.dumps(error))
        assert type(copied) is type(error)
        assert str(copied) == str(error)
        assert vars(copied) == vars(error)
    assert errors[0].names == ("blok", "x")
    assert errors[0].known == ("block", "opacity")
    assert (errors[3].size, errors[3].limit) == (2**20, 2**10)


@pytest.mark.parametrize(("limit", "shown"), [(0, "0B"), (10, "10B"), (999, "999B"), (2000, "1.95kiB")])
def test_a_limit_of_a_page_is_shown_with_its_unit(limit: int, shown: str):
    with pytest.raises(pages.PageTooLargeError, match=rf"limit {shown}\."):
        pages.check_size("4 blocks", 3000, limit, "Choose fewer")
