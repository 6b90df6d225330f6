"""Requests that take long: they report their stages, and can be cancelled, interrupted and asked about."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from dpt import DPT
from probes.explorers import (
    AttentionExplorer,
    DepthExplorer,
    FusionExplorer,
    ModelTour,
    NormExplorer,
    PositionExplorer,
)
from probes.explorers.shared import jobs, progress, turns
from tests.models import tiny_beit, tiny_model, tiny_swinv2
from tests.probes.explorers.wire import Wire

IMAGE = np.random.default_rng(0).integers(0, 256, (42, 56, 3), dtype=np.uint8)
FIRST = {
    AttentionExplorer: "block",
    NormExplorer: "norms",
    FusionExplorer: "baseline",
    DepthExplorer: "map",
    ModelTour: "tour",
}
FIELDS: dict[str, dict[str, Any]] = {"block": {"block": 1}, "map": {"name": "depth"}}


def hooks_of(model: DPT) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


class Gate:
    """Holds the first pass of a model at a module until it is opened. Counts how often the next module is entered."""

    def __init__(self, module: torch.nn.Module, following: torch.nn.Module):
        self.reached, self.open, self.passed = threading.Event(), threading.Event(), 0
        self.handles = [module.register_forward_pre_hook(self.hold), following.register_forward_hook(self.count)]

    def hold(self, *_: object) -> None:
        self.reached.set()
        assert self.open.wait(20)

    def count(self, *_: object) -> None:
        self.passed += 1

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()


class Page(Wire):
    """A page whose requests are answered on a thread."""

    def __init__(self, explorer: Any, client: str = "page"):
        super().__init__(explorer)
        self.client = client

    def send(self, kind: str, seq: int = 1, **fields: Any) -> None:
        self.explorer._handle_custom_msg({"kind": kind, "seq": seq, "client": self.client, **fields}, [])

    def wait(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first message that is wanted."""
        for _ in range(2000):
            for message, _parts in list(self.sent):
                if wanted(message):
                    return message
            threading.Event().wait(0.01)
        raise AssertionError([message for message, _ in self.sent])

    def answered(self, seq: int = 1) -> dict[str, Any]:
        return self.wait(lambda message: message["seq"] == seq and message["kind"] not in ("status", "pong"))


@pytest.fixture
def threaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "threaded", lambda: True)


@pytest.fixture
def model() -> DPT:
    return tiny_model()


@pytest.fixture
def gate(model: DPT) -> Iterator[Gate]:
    gate = Gate(model.encoder.blocks[1], model.encoder.blocks[2])
    yield gate
    gate.open.set()
    gate.remove()


@pytest.mark.parametrize("make", [tiny_model, tiny_beit, tiny_swinv2])
@pytest.mark.parametrize("kind", FIRST, ids=lambda kind: kind.__name__)
def test_every_explorer_reports_every_stage_of_its_pass(kind, make, monkeypatch):
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    model = make()
    wire = Wire(kind(model, IMAGE))
    message, _ = wire.ask(kind=FIRST[kind], **FIELDS.get(FIRST[kind], {}))
    assert message["kind"] == FIRST[kind]
    blocks = model.config.depth
    expected = [f"block {n} of {blocks}" for n in range(1, blocks + 1)]
    expected += ["reassembly", *(f"fusion {n} of 4" for n in range(1, 5)), "depth head"]
    assert wire.stages() == expected
    shares = [message["done"] / message["total"] for message, _ in wire.sent if "stage" in message]
    assert shares == sorted(shares)
    assert max(shares) < 1
    assert hooks_of(model) == 0


def test_a_second_pass_of_a_request_reports_too(model, monkeypatch):
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    wire = Wire(FusionExplorer(model, IMAGE))
    wire.ask(kind="baseline")
    wire.sent.clear()
    wire.ask(kind="map", scales=[1, 1, 0.5, 1, 1, 1, 1])  # replays fusion from the third map
    assert wire.stages() == ["fusion 3 of 4", "fusion 4 of 4", "depth head"]


def test_stages_that_follow_each_other_fast_are_not_sent(model, monkeypatch):
    monkeypatch.setattr(progress, "INTERVAL", 60.0)
    wire = Wire(AttentionExplorer(model, IMAGE))
    wire.ask(kind="block", block=1)
    assert wire.stages() == []
    assert len(wire.status()) > 0


def test_cancel_ends_the_pass_at_the_next_block_and_leaves_nothing(model, gate, threaded):
    explorer = AttentionExplorer(model, IMAGE)
    page = Page(explorer)
    page.send("block", block=1)
    assert gate.reached.wait(20)
    page.send("cancel", 1)
    gate.open.set()
    message = page.answered()
    assert (message["kind"], message["cancelled"], message["asked"]) == ("error", True, "block")
    assert gate.passed == 0
    assert not explorer._subject.held()
    explorer._jobs.join(20.0)
    gate.remove()
    assert hooks_of(model) == 0
    assert turns.model_lock(model).acquire(blocking=False)
    turns.model_lock(model).release()
    page.send("block", 2, block=1)
    assert page.answered(2)["kind"] == "block"


def test_a_request_of_another_page_is_not_cancelled(model, gate, threaded):
    page = Page(AttentionExplorer(model, IMAGE))
    page.send("block", block=1)
    assert gate.reached.wait(20)
    page.explorer._handle_custom_msg({"kind": "cancel", "seq": 1, "client": "another"}, [])
    gate.open.set()
    assert page.answered()["kind"] == "block"


def test_an_explorer_that_waits_says_for_which_and_can_be_cancelled(model, gate, threaded):
    first, second = Page(AttentionExplorer(model, IMAGE)), Page(NormExplorer(model, IMAGE))
    first.send("block", block=1)
    assert gate.reached.wait(20)
    second.send("norms")
    assert "AttentionExplorer" in second.wait(lambda message: message["kind"] == "status")["text"]
    second.send("cancel", 1)
    message = second.answered()
    assert (message["kind"], message["cancelled"]) == ("error", True)
    second.send("norms", 2)  # goes on when the first is done
    gate.open.set()
    assert first.answered()["kind"] == "block"
    assert second.answered(2)["kind"] == "norms"


def test_explorers_take_turns_in_the_order_in_which_they_came():
    """Control: threading.RLock gives no order, and the thread that released it takes it again."""
    lock, order = turns.Turns(), []
    assert lock.acquire(holder="first")
    assert lock.acquire()  # again, by its thread
    assert lock.holder == "first"

    def take(number: int) -> None:
        with lock:
            order.append(number)

    threads = [threading.Thread(target=take, args=[number]) for number in range(5)]
    for number, thread in enumerate(threads):
        thread.start()
        while len(lock._queue) <= number:
            threading.Event().wait(0.001)
    lock.release()
    assert order == []
    lock.release()
    assert lock.holder == ""
    take(5)  # after those that waited
    for thread in threads:
        thread.join(20)
    assert order == list(range(6))
    with pytest.raises(RuntimeError):
        lock.release()


def test_a_wait_for_the_lock_ends_in_time_and_leaves_the_queue():
    lock = turns.Turns()
    seen: list[bool] = []
    with lock:
        for arguments in ({"blocking": False}, {"timeout": 0.01}):
            thread = threading.Thread(target=lambda given=arguments: seen.append(lock.acquire(**given)))
            thread.start()
            thread.join(20)
    assert seen == [False, False]
    assert not lock._queue
    assert lock.acquire(blocking=False)


def test_an_explorer_that_waits_says_who_has_the_next_turn(model, gate, threaded):
    pages = [Page(kind(model, IMAGE)) for kind in (AttentionExplorer, NormExplorer, DepthExplorer)]
    requests = [("block", {"block": 1}), ("norms", {}), ("map", {"name": "depth"})]
    for page, (kind, fields) in zip(pages, requests, strict=True):
        page.send(kind, **fields)
        if page is pages[0]:
            assert gate.reached.wait(20)
        else:
            page.wait(lambda message: "AttentionExplorer" in message.get("text", ""))
    slow = Gate(model.encoder.blocks[1], model.encoder.blocks[2])
    slow.reached.clear()
    gate.open.set()
    pages[2].wait(lambda message: "NormExplorer" in message.get("text", ""))
    slow.open.set()
    assert [page.answered()["kind"] for page in pages] == ["block", "norms", "map"]
    slow.remove()


def test_a_picture_does_not_wait_for_the_pass_of_another_explorer(model, gate, threaded):
    first, second = Page(AttentionExplorer(model, IMAGE)), Page(NormExplorer(model, IMAGE))
    first.send("block", block=1)
    assert gate.reached.wait(20)
    second.send("picture")
    assert second.answered()["kind"] == "picture"


def test_a_ping_is_answered_during_a_pass_and_lists_what_is_not_answered(model, gate, threaded):
    page = Page(AttentionExplorer(model, IMAGE))
    page.send("block", block=1)
    page.send("block", 2, block=2)
    assert gate.reached.wait(20)
    page.send("ping", 3)
    pong = page.wait(lambda message: message["kind"] == "pong")
    assert [request["seq"] for request in pong["requests"]] == [1, 2]
    assert pong["requests"][0]["stage"].startswith("block ")
    gate.open.set()
    assert page.answered(2)["kind"] == "block"
    page.explorer._jobs.join(20.0)
    page.send("ping", 4)
    assert page.wait(lambda message: message["seq"] == 4)["requests"] == []


def test_an_interrupt_of_an_idle_kernel_cancels_all_requests(model, gate, threaded):
    first, second = Page(AttentionExplorer(model, IMAGE)), Page(PositionExplorer(model))
    first.send("block", block=1)
    assert gate.reached.wait(20)
    second.send("about")
    jobs._interrupt()
    gate.open.set()
    for page in (first, second):
        message = page.answered()
        assert (message["kind"], message["cancelled"]) == ("error", True)
        assert "Interrupted" in message["text"]


def test_passes_of_other_code_are_neither_reported_nor_stopped(model, gate, threaded):
    page = Page(AttentionExplorer(model, IMAGE))
    page.send("block", block=1)
    assert gate.reached.wait(20)
    page.send("cancel", 1)
    gate.handles.pop(0).remove()  # only the first pass waits
    depth = model.predict(IMAGE)  # with all hooks in place
    assert np.isfinite(depth).all()
    assert gate.passed == 1
    gate.open.set()
    assert page.answered()["cancelled"]
    assert gate.passed == 1


def test_closing_an_explorer_cancels_its_requests(model, gate, threaded):
    page = Page(AttentionExplorer(model, IMAGE))
    page.send("block", block=1)
    assert gate.reached.wait(20)
    page.explorer.close()
    gate.open.set()
    assert page.answered()["cancelled"]


def test_progress_for_python_places_no_hooks(model):
    with progress.silent.followed(model):
        assert hooks_of(model) == 0
    with progress.Progress(lambda report: None).followed(model):  # control
        assert hooks_of(model) == len(progress.stages_of(model))
    assert hooks_of(model) == 0
