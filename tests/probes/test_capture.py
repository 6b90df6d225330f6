"""A capture records what the model computed, does not change it, and leaves nothing behind."""

from __future__ import annotations

import gc
import json
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
import safetensors
import torch

import probes
from dpt import TokenGrid
from probes.capture import _checked_stop
from probes.captured import NotCaptured
from probes.errors import InvalidTypeError, ProbeError, UnknownPointError
from probes.registry import names
from tests.models import pictures, tiny_model

X = pictures(1, 70, 98)


@pytest.fixture
def model():
    return tiny_model()


def hooks_of(model) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules())


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 70, 98), (2, 42, 42), (1, 518, 28)])
def test_every_point_fires_once_with_its_declared_shape(model, batch, height, width):
    fired: dict[str, int] = {}
    table = names(model)
    for name, point in table.items():

        def count(module, args, output=None, name=name):
            fired[name] = fired.get(name, 0) + 1

        register = point.module.register_forward_pre_hook if point.before else point.module.register_forward_hook
        register(count)
    with probes.capture(model, "*") as cap:
        model(pictures(batch, height, width))
    assert fired == dict.fromkeys(table, 1)
    assert list(cap) == list(table)
    grid = TokenGrid(height // 14, width // 14, 1)
    assert (cap.grid, cap.batch, cap.input_size) == (grid, batch, (height, width))
    for name, value in cap.items():
        declared = table[name].shape(batch, grid)
        if isinstance(value, probes.AttentionMaps):
            assert (value.batch, value.heads, value.tokens, value.tokens) == declared
        else:
            assert value.shape == declared


def test_depth_is_bit_identical_with_and_without_capture(model):
    x = pictures(2, 70, 98)
    before = model(x)
    with probes.capture(model, "*") as cap:
        during = model(x)
    assert torch.equal(before, during)
    assert torch.equal(before, model(x))
    assert cap["depth"] is during  # by reference, not a copy


def test_values_are_what_the_model_computed(model):
    with probes.capture(model, "*") as cap:
        model(X)
    block = model.encoder.blocks[2]
    before = cap["encoder.blocks.1.tokens"]
    assert torch.equal(block(before), cap["encoder.blocks.2.tokens"])
    norms = cap["encoder.blocks.2.tokens"].double().square().sum(-1).sqrt()
    assert torch.allclose(cap["encoder.blocks.2.norms"].double(), norms, rtol=1e-6)
    # Heads are attention times values, computed from the weights alone.
    q, k, v = model.encoder.blocks[2].attention.qkv(block.norm1(before)).unflatten(2, (3, 2, 64)).permute(2, 0, 3, 1, 4)
    weights = (q.double() @ k.double().mT / 8).softmax(-1)
    maps = cap["encoder.blocks.2.attention"]
    assert (maps.matrix() - weights).abs().max() < 1e-6
    assert torch.allclose(cap["encoder.blocks.2.heads"].double(), weights @ v.double(), atol=1e-5)
    assert torch.equal(cap["encoder.stages.3"], model.encoder.norm(cap["encoder.blocks.3.tokens"]))


def test_each_image_of_a_batch_is_captured_as_if_alone(model):
    x = pictures(2, 42, 70)
    with probes.capture(model, "norms", "attention", "fusion") as both:
        model(x)
    with probes.capture(model, "norms", "attention", "fusion") as second:
        model(x[1:])
    for name, value in second.items():
        if isinstance(value, probes.AttentionMaps):
            assert torch.allclose(both[name].rows([0, 9])[1:], value.rows([0, 9]), atol=1e-5)
        else:
            assert torch.allclose(both[name][1:], value, atol=1e-4)


def test_predict_is_captured_too(model):
    image = np.random.default_rng(0).integers(0, 256, (50, 80, 3), dtype=np.uint8)
    with probes.capture(model, "norms") as cap:
        depth = model.predict(image, size=70)
    assert depth.shape == (50, 80)
    assert cap.grid == model.token_grid(*cap.input_size)
    assert not cap["encoder.blocks.0.norms"].requires_grad
    torch.nn.Linear(cap.grid.tokens, 1)(cap["encoder.blocks.0.norms"]).sum().backward()  # usable for training a probe


class Boom(Exception):
    pass


def check_nothing_outlives(capture, model, fault):
    """Raises AssertionError unless hooks, tensors and flags are the same after the block as before."""
    foreign = model.encoder.blocks[0].register_forward_hook(lambda *_: None)
    model.encoder.blocks[1].train()
    model.head.conv1.weight.requires_grad_(True)
    flags = [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]
    if fault == "in the model":

        def fail(*_):
            raise Boom

        raising = model.fusion.blocks[1].register_forward_hook(fail)
    seen = []
    x = pictures(1, 42, 42)
    gc.disable()  # reference counts must free everything: no cycles
    try:
        try:
            with capture(model, "*") as cap:
                mine = model.encoder.blocks[3].register_forward_hook(lambda m, a, out: seen.append(weakref.ref(out)))
                model(x)
                seen.append(weakref.ref(cap["fusion.0"]))
                if fault:
                    raise Boom
        except Boom:
            assert fault
            assert not list(cap) or fault == "in the block"
        else:
            assert fault is None
            assert seen[0]() is not None
        del cap
        assert all(ref() is None for ref in seen)
    finally:
        gc.enable()
    assert len(seen) == (1 if fault == "in the model" else 2)
    mine.remove()
    if fault == "in the model":
        raising.remove()
    assert hooks_of(model) == 1  # the user's own is still there
    foreign.remove()
    assert hooks_of(model) == 0
    assert flags == ([m.training for m in model.modules()], [p.requires_grad for p in model.parameters()])


FAULTS = (None, "in the model", "in the block")


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_outlives_the_block(model, fault):
    check_nothing_outlives(probes.capture, model, fault)


@contextmanager
def leaving_a_hook(model, *selectors):
    model.fusion.register_forward_hook(lambda *_: None)
    with probes.capture(model, *selectors) as cap:
        yield cap


@contextmanager
def leaving_a_hook_after_an_exception(model, *selectors):
    hook = model.fusion.register_forward_hook(lambda *_: None)
    with probes.capture(model, *selectors) as cap:
        yield cap
    hook.remove()


@contextmanager
def clearing_all_hooks(model, *selectors):
    try:
        with probes.capture(model, *selectors) as cap:
            yield cap
    finally:
        for module in model.modules():
            module._forward_hooks.clear()


@contextmanager
def holding_a_tensor(model, *selectors):
    held = model.__dict__.setdefault("held", [])
    hook = model.encoder.blocks[3].register_forward_hook(lambda module, given, output: held.append(output))
    try:
        with probes.capture(model, *selectors) as cap:
            yield cap
    finally:
        hook.remove()


@contextmanager
def in_a_cycle(model, *selectors):
    """Holds a tensor that only the garbage collector frees."""
    cycle: list = []
    cycle.append(cycle)
    hook = model.encoder.blocks[3].register_forward_hook(lambda module, given, output: cycle.append(output))
    try:
        with probes.capture(model, *selectors) as cap:
            yield cap
    finally:
        hook.remove()


@contextmanager
def leaving_it_in_eval_mode(model, *selectors):
    with probes.capture(model.eval(), *selectors) as cap:
        yield cap


@contextmanager
def freezing_it(model, *selectors):
    with probes.capture(model.requires_grad_(False), *selectors) as cap:
        yield cap


@pytest.mark.parametrize(
    ("broken", "faults"),
    [
        (leaving_a_hook, FAULTS),
        (leaving_a_hook_after_an_exception, FAULTS[1:]),
        (clearing_all_hooks, FAULTS),
        (holding_a_tensor, FAULTS),
        (in_a_cycle, FAULTS),
        (leaving_it_in_eval_mode, FAULTS),
        (freezing_it, FAULTS),
    ],
)
def test_the_check_catches_captures_that_leave_something_behind(broken, faults):
    """The control for the test above."""
    for fault in faults:
        with pytest.raises(AssertionError):
            check_nothing_outlives(broken, tiny_model(), fault)


def test_nested_and_repeated_captures_are_independent(model):
    first_x, second_x = pictures(1, 42, 42, seed=1), pictures(1, 70, 42, seed=2)
    with probes.capture(model, "norms") as outer:
        with probes.capture(model, "fusion.0", "encoder.blocks.0.norms") as inner:
            model(first_x)
        model(second_x)
    assert inner["encoder.blocks.0.norms"].shape == (1, 10)
    assert outer["encoder.blocks.0.norms"].shape == (1, 16)
    assert set(inner) == {"encoder.blocks.0.norms", "fusion.0"}
    assert hooks_of(model) == 0


def test_passes_of_other_threads_are_not_recorded(model):
    mine, theirs = pictures(1, 42, 42, seed=1), pictures(2, 70, 42, seed=2)
    with probes.capture(model, "*") as cap, ThreadPoolExecutor(4) as pool:
        depth = model(mine)
        others = [pool.submit(model, theirs) for _ in range(8)]
        assert cap["depth"] is depth
    assert all(other.result().shape == (2, 70, 42) for other in others)
    assert cap["depth"] is depth
    assert cap.batch == 1

    def on_another_thread():
        with probes.capture(model, "norms") as cap:
            model(theirs)
        return cap

    with ThreadPoolExecutor(4) as pool:  # captures side by side
        captured = [pool.submit(on_another_thread) for _ in range(8)]
        with probes.capture(model, "norms") as cap:
            for _ in range(8):
                model(mine)
    assert cap["encoder.blocks.0.norms"].shape == (1, 10)
    assert all(torch.equal(c.result()["encoder.blocks.3.norms"], captured[0].result()["encoder.blocks.3.norms"])
               for c in captured)  # fmt: skip
    refused = pytest.raises(ProbeError, match="pool_0")
    with refused, probes.capture(model, "norms"), ThreadPoolExecutor(1, "pool") as pool:
        pool.submit(model, mine).result()
    assert hooks_of(model) == 0


def test_each_pass_starts_a_new_record(model):
    x = pictures(2, 42, 42)
    with probes.capture(model, "norms") as cap:
        model(x[:1])
        first = cap["encoder.blocks.3.norms"]
        model(x[1:])
        assert not torch.equal(first, cap["encoder.blocks.3.norms"])
        with pytest.raises(ValueError, match="14"):
            model(torch.zeros(1, 3, 15, 14))
        # An unfinished pass leaves no values, neither its own nor those of the pass before.
        with pytest.raises(NotCaptured, match=r"encoder\.blocks\.3\.norms.* no forward pass has finished"):
            cap["encoder.blocks.3.norms"]
        model(x)
    assert cap["encoder.blocks.3.norms"].shape == (2, 10)


def test_stop_after_ends_the_pass_and_the_block(model):
    ran = []
    model.fusion.register_forward_hook(lambda *_: ran.append("fusion"))
    with probes.capture(model, "encoder.blocks.1.*", stop_after="encoder.blocks.1.tokens") as cap:
        model(X)
        ran.append("after")
    assert ran == []
    assert set(cap) == {f"encoder.blocks.1.{what}" for what in ("attention", "heads", "tokens", "norms")}
    with probes.capture(model, "encoder.blocks.1.norms") as whole:
        model(X)
    assert torch.equal(cap["encoder.blocks.1.norms"], whole["encoder.blocks.1.norms"])
    assert ran == ["fusion"]


@pytest.mark.parametrize("stop_after", [3, True, ["fusion.3"], torch.tensor(3)])
def test_stop_after_must_be_a_name(model, stop_after):
    with pytest.raises(InvalidTypeError, match=r"stop_after.*'fusion\.3', got"):
        _checked_stop(model, [], stop_after)


def test_stop_after_may_be_the_last_point(model):
    with probes.capture(model, "depth", stop_after="depth") as cap:
        model(X)
    assert torch.equal(cap["depth"], model(X))


def test_an_inner_capture_does_not_catch_an_outer_stop(model):
    with probes.capture(model, "patch_embed", stop_after="patch_embed") as outer:
        with probes.capture(model, "patch_embed") as inner:
            model(X)
        raise AssertionError("the outer block should have ended at the model's call")
    assert "patch_embed" in outer
    assert len(inner) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype_converts_captured_tensors_and_not_the_model(model, dtype):
    expected = model(X)
    with probes.capture(model, "attention", "fusion.0", dtype=dtype, device="cpu") as cap:
        assert torch.equal(model(X), expected)
    assert cap["fusion.0"].dtype == cap["encoder.blocks.0.attention"].q.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_models_in_half_precision_are_captured(model, dtype):
    single = model(X)
    half = tiny_model().to(dtype)
    with probes.capture(half, "*") as cap:
        depth = half(X.to(dtype))
    assert cap["encoder.blocks.0.tokens"].dtype == dtype
    assert cap["encoder.blocks.0.norms"].dtype == torch.float32
    assert (cap["encoder.blocks.3.attention"].rows([0]).sum(-1) - 1).abs().max() < 1e-6
    assert (depth.float() - single).abs().max() < 0.1 * single.abs().max()


def test_memory_grows_with_tokens_and_not_with_their_square(model):
    held = {}
    for side in (140, 280):
        with probes.capture(model, "attention") as cap:
            model(pictures(1, side, side))
        held[side] = cap.nbytes
        matrices = sum(maps.matrix_bytes for maps in cap.values())
    ratio = (400 + 1) / (100 + 1)
    assert held[280] == pytest.approx(held[140] * ratio)
    assert held[280] < matrices / 2
    with probes.capture(model, "attention", "encoder.blocks.0.norms", dtype=torch.float16) as cap:
        model(pictures(1, 280, 280))
    # Converted copies hold only queries and keys: 4 blocks x 2 tensors x 401 tokens x 128 channels x 2 bytes.
    assert cap.nbytes == 4 * 2 * 401 * 128 * 2 + 401 * 2


@pytest.mark.parametrize(
    ("selectors", "message"),
    [
        (("encoder.blocks.9.norms",), r"'encoder.blocks.9.norms' .*'encoder\.blocks\.[0-3]\.norms'"),
        (("norm",), r"'norm' .*'norms'"),
        (("attentions",), r"'attentions' .*'attention'"),
        (("xyzzy",), r"'xyzzy' .*patch_embed, attention"),
        (("norms", "fusion.7*"), r"'fusion.7\*'"),
        ((), r"probe point"),
    ],
)
def test_the_error_for_an_unknown_point_suggests_similar_names(model, selectors, message):
    error = UnknownPointError if selectors else ProbeError
    with pytest.raises(error, match=message), probes.capture(model, *selectors):
        raise AssertionError("unreachable")
    assert hooks_of(model) == 0


def test_a_point_that_does_not_fire_is_an_error(model):
    idle = torch.nn.Linear(2, 2)
    model.idle = idle
    probes.registry.register("idle", idle)
    with pytest.raises(ProbeError, match=r"1 of 5 .*idle"), probes.capture(model, "norms", "idle"):
        model(X)
    with pytest.raises(ProbeError, match="same model"), probes.capture(model, "norms"):
        tiny_model()(X)  # not the captured model
    assert hooks_of(model) == 0


def test_points_after_stop_after_are_refused(model):
    refused = pytest.raises(ProbeError, match=r"encoder\.blocks\.3\.norms.* 1 .*fusion\.0")
    with refused, probes.capture(model, "norms", "fusion.0", stop_after="encoder.blocks.3.norms"):
        raise AssertionError("unreachable")
    with pytest.raises(UnknownPointError, match=r"stop_after='fusion.4'"):
        probes.capture(model, "norms", stop_after="fusion.4").__enter__()


def test_reading_a_point_that_was_not_captured_is_an_error(model):
    with probes.capture(model, "norms") as cap:
        with pytest.raises(NotCaptured, match=r"encoder\.blocks\.0\.norms.* no forward pass has finished"):
            cap["encoder.blocks.0.norms"]
        model(X)
    with pytest.raises(KeyError, match=r"^'fusion.0'.* encoder\.blocks\.0\.norms"):
        cap["fusion.0"]
    assert "fusion.0" not in cap
    assert cap.get("fusion.0") is None


def test_gradients_pass_through_captured_tensors(model):
    x = X.clone().requires_grad_(True)
    with probes.capture(model, "fusion.0") as cap:
        model(x)
    cap["fusion.0"].square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().max() > 0


def test_a_saved_capture_loads_unchanged(model, tmp_path):
    path = tmp_path / "capture.safetensors"
    with probes.capture(model, "*") as cap:
        model(pictures(2, 42, 70))
    cap.save(path)
    again = probes.load(path)
    assert list(again) == list(cap)
    assert (again.grid, again.input_size, again.batch) == (cap.grid, cap.input_size, cap.batch)
    for name, value in cap.items():
        if isinstance(value, probes.AttentionMaps):
            assert torch.equal(again[name].rows([0, 3]), value.rows([0, 3]))
        else:
            assert torch.equal(again[name], value)
    with safetensors.safe_open(path, "np") as file:  # readable without this package
        assert np.array_equal(file.get_tensor("depth"), cap["depth"].numpy())
    assert [p.name for p in tmp_path.iterdir()] == ["capture.safetensors"]


def test_a_damaged_or_foreign_file_is_not_loaded(model, tmp_path):
    path = tmp_path / "capture.safetensors"
    with probes.capture(model, "norms") as cap:
        model(X)
    cap.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ProbeError, match=r"capture\.safetensors is damaged"):
        probes.load(path)
    safetensors.torch.save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ProbeError, match=r"capture\.safetensors is not a capture.* got None"):
        probes.load(path)
    path.write_bytes(whole)
    assert list(probes.load(path)) == list(cap)


def rewrite_description(path, change):
    """Rewrites a capture file with a changed description of its tensors."""
    with safetensors.safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
        metadata = file.metadata()
    about = json.loads(metadata["capture"])
    change(about)
    safetensors.torch.save_file(tensors, path, metadata | {"capture": json.dumps(about)})


@pytest.mark.parametrize(
    "change",
    [
        lambda about: about.pop("points"),
        lambda about: about["points"].update(depth={"kind": "tensor"}),
        lambda about: about["points"].update(other=about["points"]["depth"]),
        lambda about: about.update(grid=3),
        lambda about: about.update(input_size=[1]),
        lambda about: about["edits"].append("fusion.0"),
    ],
)
def test_a_description_that_does_not_match_the_tensors_is_reported_as_damage(model, tmp_path, change):
    path = tmp_path / "capture.safetensors"
    with probes.capture(model, "depth") as cap:
        model(X)
    cap.save(path)
    rewrite_description(path, lambda about: None)
    assert list(probes.load(path)) == ["depth"]  # the control
    rewrite_description(path, change)
    with pytest.raises(ProbeError, match=f"{path} is damaged"):
        probes.load(path)


def test_a_missing_capture_file_is_reported(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors") as raised:
        probes.load(tmp_path / "none.safetensors")
    assert isinstance(raised.value, ProbeError)
    with pytest.raises(IsADirectoryError):
        probes.load(tmp_path)
