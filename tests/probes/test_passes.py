"""Which passes belong to a block of captures or edits, and how a block is opened and left."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import torch

import probes
import probes.hooks
import probes.passes
from probes.edit import _edits, active
from probes.errors import InvalidTypeError, ProbeError, ProbeWarning, UnavailableError
from probes.passes import _carried, _open
from tests.models import pictures, tiny_model

ROOT = Path(__file__).parents[2]
X = pictures(1, 42, 42, seed=1)
capture_module, edit_module = sys.modules["probes.capture"], sys.modules["probes.edit"]


@pytest.fixture(autouse=True)
def no_running_loop():
    """Playwright leaves a running event loop in the thread of tests that run before in the same process."""
    loop = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    yield
    asyncio._set_running_loop(loop)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def plain(model):
    return model(X)


@pytest.fixture(scope="module")
def edited(model):
    with probes.edit(model, EDIT):
        return model(X)


EDIT = {"fusion.0": probes.scale(0.5)}


def hooks_of(model) -> int:
    tables = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs")
    return sum(len(getattr(module, table)) for module in model.modules() for table in tables)


@pytest.fixture(autouse=True)
def nothing_is_left(model):
    yield
    assert hooks_of(model) == 0
    assert not _edits
    assert not _open


# ------------------------------------------------------------------------------------------------------------ contexts


def test_to_thread_carries_edits_and_captures(model, edited):
    async def work():
        with probes.edit(model, EDIT), probes.capture(model, "depth", "norms") as cap:
            got = await asyncio.gather(*(asyncio.to_thread(model, X) for _ in range(4)))
        return got, cap

    got, cap = asyncio.run(work())
    assert all(torch.equal(depth, edited) for depth in got)
    assert torch.equal(cap["depth"], edited)
    assert cap.edits == list(EDIT.items())


def test_passes_of_one_block_in_several_threads_do_not_mix(model):
    inputs = [pictures(1, 42, 42 + 14 * (n % 3), seed=n) for n in range(12)]
    expected = {}
    for n, x in enumerate(inputs):
        with probes.edit(model, EDIT):
            expected[n] = model(x)

    async def work():
        with probes.edit(model, EDIT), probes.capture(model, "*") as cap:
            got = await asyncio.gather(*(asyncio.to_thread(model, x) for x in inputs))
        return got, cap

    got, cap = asyncio.run(work())
    assert all(torch.equal(got[n], expected[n]) for n in expected)
    n = next(n for n in expected if torch.equal(got[n], cap["depth"]))  # the pass that finished last
    assert cap.input_size == tuple(inputs[n].shape[-2:])
    assert cap["encoder.blocks.3.norms"].shape[1] == cap.grid.tokens


def test_a_task_that_was_created_inside_the_block_belongs_to_it_and_others_do_not(model, plain, edited):
    async def work():
        entered, done = asyncio.Event(), asyncio.Event()

        async def other():
            await entered.wait()
            found = model(X), active(model)
            done.set()
            return found

        task = asyncio.create_task(other())
        with probes.edit(model, EDIT), probes.capture(model, "depth") as cap:
            entered.set()
            await done.wait()
            assert "depth" not in cap
            depth = await asyncio.create_task(asyncio.sleep(0, model)) is model and model(X)
            child = asyncio.create_task(asyncio.to_thread(model, X))
            inside = await child
        return await task, depth, inside, cap

    (theirs, seen), mine, child, cap = asyncio.run(work())
    assert torch.equal(theirs, plain)
    assert seen == []
    assert torch.equal(mine, edited)
    assert torch.equal(child, edited)
    assert torch.equal(cap["depth"], edited)


def test_a_capture_names_the_place_of_a_pass_that_it_does_not_record(model):
    async def other(entered, done):
        await entered.wait()
        model(X)
        done.set()

    async def work():
        entered, done = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(other(entered, done))
        with probes.capture(model, "depth"):
            entered.set()
            await done.wait()
        await task

    with pytest.raises(UnavailableError, match="another asyncio task"):
        asyncio.run(work())
    with (
        pytest.raises(UnavailableError, match="worker_0"),
        probes.capture(model, "depth"),
        ThreadPoolExecutor(1, "worker") as pool,
    ):
        pool.submit(model, X).result()


def test_a_pool_inside_an_edit_is_warned_of_once_and_copy_context_carries(model, plain, edited):
    with ThreadPoolExecutor(1, "worker") as pool:
        with (
            pytest.warns(ProbeWarning, match=r"fusion\.0.*worker_0.*copy_context") as said,
            probes.edit(model, EDIT),
        ):
            assert all(torch.equal(depth, plain) for depth in pool.map(model, [X, X]))
        assert len(said) == 1
        with probes.edit(model, EDIT):
            assert torch.equal(pool.submit(contextvars.copy_context().run, model, X).result(), edited)


def test_a_block_that_outlives_its_task_belongs_to_the_thread(model, plain, edited):
    """As an ExitStack across notebook cells: each cell is a task of its own, perhaps with a context of its own."""
    stack = ExitStack()
    caps = []

    async def first_cell():
        stack.enter_context(probes.edit(model, EDIT))
        caps.append(stack.enter_context(probes.capture(model, "depth")))

    async def second_cell():
        assert active(model) == list(EDIT.items())
        return model(X)

    async def last_cell():
        stack.close()

    loop = asyncio.new_event_loop()
    try:
        for cell in (first_cell, second_cell, last_cell):
            task = loop.create_task(cell(), context=contextvars.Context())
            found = loop.run_until_complete(task)
            if cell is second_cell:
                assert torch.equal(found, edited)
    finally:
        loop.close()
    assert torch.equal(model(X), plain)
    assert torch.equal(caps[0]["depth"], edited)


def test_blocks_can_be_left_in_another_context_or_thread(model, plain):
    contexts = contextvars.Context(), contextvars.Context()
    for block, refused in (
        (probes.edit(model, EDIT), ExitStack()),
        (probes.capture(model, "depth"), pytest.raises(UnavailableError, match="No forward pass")),
    ):
        contexts[0].run(block.__enter__)
        with refused:
            contexts[1].run(block.__exit__, None, None, None)
        assert hooks_of(model) == 0
        assert contexts[0].run(_carried.get)  # a number that means nothing any more
        assert torch.equal(contexts[0].run(model, X), plain)
    edit = probes.edit(model, EDIT)
    edit.__enter__()
    thread = threading.Thread(target=edit.__exit__, args=(None, None, None))
    thread.start()
    thread.join()
    assert torch.equal(model(X), plain)
    with probes.edit(model, {"fusion.1": probes.zero()}):
        assert len(_carried.get()) == 1  # closed blocks are forgotten


def test_generators_and_async_generators_can_hold_a_block(model, plain, edited):
    def generator():
        with probes.edit(model, EDIT):
            yield model(X)
            yield model(X)

    values = generator()
    assert torch.equal(next(values), edited)
    assert torch.equal(next(values), edited)
    values.close()
    assert torch.equal(model(X), plain)

    async def asynchronous():
        with probes.edit(model, EDIT):
            yield model(X)

    async def work():
        stream = asynchronous()
        assert torch.equal(await anext(stream), edited)
        await asyncio.create_task(stream.aclose())  # another task, another context

    asyncio.run(work())
    assert torch.equal(model(X), plain)

    @contextmanager
    def half():
        with probes.edit(model, EDIT):
            yield

    with half():
        assert torch.equal(model(X), edited)


# -------------------------------------------------------------------------------------------- objects and forgetting


def test_a_forgotten_with_says_so_at_every_use(model):
    held = [probes.capture(model, "norms")]
    model(X)
    uses = (
        lambda cap: cap["encoder.blocks.0.norms"],
        lambda cap: cap.grid,
        lambda cap: cap.save("x"),
        lambda cap: list(cap),
        lambda cap: len(cap),
        lambda cap: "norms" in cap,
        lambda cap: cap.items(),
    )
    for use in uses:
        with pytest.raises(UnavailableError, match=r"probes\.capture\(\.\.\.\) is used in a with block"):
            use(held[0])
    assert "with probes.capture" in repr(held[0])
    assert not hasattr(held[0], "_repr_html_")
    with pytest.warns(ProbeWarning, match=r"probes\.capture\(\.\.\.\) had no effect"):
        held.clear()


def test_an_edit_that_is_never_entered_warns(model):
    with pytest.warns(ProbeWarning, match=r"probes\.edit\(\.\.\.\) had no effect.*with probes\.edit"):
        probes.edit(model, EDIT)


def test_an_object_serves_one_block(model):
    block = probes.edit(model, EDIT)
    with block:
        with pytest.raises(UnavailableError, match="used before"), block:
            raise AssertionError("unreachable")
        assert active(model) == list(EDIT.items())
    with pytest.raises(UnavailableError, match="used before"), block:
        raise AssertionError("unreachable")


def test_an_edit_decorates_functions_and_refuses_those_that_run_later(model, edited):
    @probes.edit(model, EDIT)
    def run():
        return model(X)

    assert torch.equal(run(), edited)
    assert torch.equal(run(), edited)

    async def later():
        return model(X)

    with pytest.raises(InvalidTypeError, match="later"):
        probes.edit(model, EDIT)(later)


def test_a_module_called_by_itself_is_edited_and_not_recorded(model):
    name = "encoder.blocks.1.tokens"
    with probes.capture(model, name) as cap, probes.edit(model, {name: probes.scale(2.0)}):
        block = model.encoder.blocks[1]
        tokens = torch.zeros(1, 10, 128)
        with pytest.raises(ProbeError, match=r"encoder\.blocks\.1\.tokens.* before any pass"):
            block(tokens)
        model(X)
        held = cap[name].clone()
        alone = block(tokens)
    assert torch.equal(cap[name], held)
    assert torch.equal(alone, 2 * block(tokens))


def test_keyword_arguments_reach_the_model(model, edited):
    with probes.edit(model, EDIT), probes.capture(model, "depth") as cap:
        assert torch.equal(model(x=X), edited)
    assert torch.equal(cap["depth"], edited)
    with pytest.raises(TypeError, match="x"), probes.edit(model, EDIT):
        model()


def test_dropped_blocks_are_closed_and_keep_nothing_alive():
    model = tiny_model()
    for make in (lambda: probes.edit(model, EDIT), lambda: probes.capture(model, "*")):
        block = make()
        block.__enter__()
        del block
        assert hooks_of(model) == 0
    held = probes.edit(model, EDIT)
    model.__dict__["held"] = held
    held.__enter__()
    gone = weakref.ref(model)
    del model, make, held
    gc.collect()
    assert gone() is None


# ----------------------------------------------------------------------------------------------------------- interrupts


TRACED = {__file__, *(module.__file__ for module in (probes.passes, probes.hooks, edit_module, capture_module))}


def with_capture(model):
    with probes.capture(model, "fusion.*"):
        raise ZeroDivisionError


def with_edit(model):
    with probes.edit(model, {"encoder.blocks.1.heads": probes.scale(0.5), "fusion.0": probes.scale(2.0)}):
        raise ZeroDivisionError


def with_nested(model):
    with probes.edit(model, EDIT), probes.capture(model, "fusion.0"), probes.edit(model, EDIT):
        raise ZeroDivisionError


def interrupted_at(place: int, run, opcodes: bool) -> bool:
    """Runs a function with a KeyboardInterrupt at the n-th traced place. False if it has fewer places."""
    count = 0

    def trace(frame, event, arg):
        nonlocal count
        if frame.f_code.co_filename not in TRACED:
            return None
        frame.f_trace_opcodes = opcodes
        count += 1
        if count == place:
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    except (KeyboardInterrupt, ZeroDivisionError):
        pass
    finally:
        sys.settrace(before)
    return count >= place


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # an interrupt inside __del__
@pytest.mark.parametrize("run", [with_capture, with_edit, with_nested])
@pytest.mark.parametrize("opcodes", [False, True])
def test_an_interrupt_at_any_place_leaves_nothing_behind(model, plain, run, opcodes):
    step = 7 if opcodes else 1
    place, left = 1, []
    while interrupted_at(place, lambda: run(model), opcodes):
        if hooks_of(model) or _edits:
            left.append(place)
        place += step
    assert left == []
    assert place > 100
    assert torch.equal(model(X), plain)


# In a process of its own, because the checks of types under the tests do not stand so quick changes of threads.
RACE = """
import sys, threading, warnings
import torch
import probes
from tests.models import tiny_model

model, x = tiny_model(), torch.zeros(1, 3, 28, 42)
plain = model(x)
stop, errors, entered = threading.Event(), [], []

def enter_and_leave():
    while not stop.is_set():
        try:
            with probes.edit(model, {"fusion.0": probes.scale(1.0)}):
                pass
            try:
                with probes.capture(model, "norms"):
                    raise ZeroDivisionError
            except ZeroDivisionError:
                entered.append(1)
        except BaseException as error:
            errors.append(error)

warnings.simplefilter("ignore", probes.errors.ProbeWarning)
threads = [threading.Thread(target=enter_and_leave) for _ in range(2)]
sys.setswitchinterval(1e-6)
for thread in threads:
    thread.start()
try:
    for _ in range(30):
        assert torch.equal(model(x), plain)
finally:
    stop.set()
    for thread in threads:
        thread.join()
assert errors == [], errors
assert entered
"""


def test_hooks_of_other_threads_never_disturb_a_pass():
    """Registered with torch's own functions, a pass would see a hook without its flag for keyword arguments."""
    done = subprocess.run([sys.executable, "-c", RACE], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
