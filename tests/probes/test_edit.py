"""Edits change only the points that they name, in the order of entry, and leave nothing behind."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest
import torch

import dpt
import probes
from dpt import demo
from probes.errors import ProbeWarning, UnknownPointError
from tests.models import OBLONG, pictures, tiny_model


def hooks_of(model) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def editable(model) -> list[str]:
    return [name for name, point in probes.names(model).items() if point.group not in ("attention", "norms")]


def test_scaling_by_one_changes_no_bit_anywhere(model, x):
    before = model(x)
    with probes.edit(model, {name: probes.scale(1.0) for name in editable(model)}):
        assert torch.equal(model(x), before)
    assert hooks_of(model) == 0


def test_every_point_that_can_be_edited_changes_the_depth_and_is_restored(model, x):
    before = model(x)
    for name in editable(model):
        with probes.edit(model, {name: probes.scale(0.5)}):
            changed = model(x)
        assert not torch.equal(changed, before), name
        assert torch.equal(model(x), before), name
    assert hooks_of(model) == 0


def test_captures_see_edited_values_whichever_block_is_outside(model, x):
    points = ("encoder.blocks.1.heads", "encoder.blocks.1.tokens", "encoder.stages.2", "fusion.2", "depth")
    with probes.capture(model, *points) as plain:
        model(x)
    edits = {name: probes.scale(2.0) for name in points}
    with probes.edit(model, edits), probes.capture(model, *points) as inside:
        model(x)
    with probes.capture(model, *points) as outside, probes.edit(model, edits):
        model(x)
    assert torch.equal(inside[points[0]], 2 * plain[points[0]])  # no edit acts before the first point
    for name in points:
        assert torch.equal(inside[name], outside[name]), name
    assert inside.edits == outside.edits == [(name, edits[name]) for name in points]


def test_single_heads_are_zeroed_before_the_projection(model, x):
    block = model.encoder.blocks[-1].attention
    seen: dict[str, torch.Tensor] = {}
    block.projection.register_forward_pre_hook(lambda m, args: seen.update(x=args[0]))
    name = f"encoder.blocks.{model.config.depth - 1}.heads"
    with probes.capture(model, name) as cap, probes.edit(model, {name: probes.zero([1])}):
        model(x)
    assert (cap[name][:, 1] == 0).all()
    assert (cap[name][:, 0] != 0).any()
    width = seen["x"].shape[-1] // block.heads
    assert (seen["x"][..., width : 2 * width] == 0).all()
    assert (seen["x"][..., :width] != 0).any()


def test_token_indices_of_heads_refer_to_the_unshifted_grid(model, x):
    name = "encoder.blocks.1.heads"  # SwinV2 shifts its windows here
    with probes.capture(model, name) as plain:
        model(x)
    with probes.capture(model, name) as cap, probes.edit(model, {name: probes.replace(7.0, heads=[0], tokens=[0, 5])}):
        model(x)
    expected = plain[name].clone()
    expected[:, 0, [0, 5]] = 7.0
    assert torch.equal(cap[name], expected)


def test_edits_of_one_point_apply_in_order_outer_block_first(model, x):
    name = "reassembly.1"
    with probes.capture(model, name) as plain:
        model(x)
    add, double = (lambda t: t + 1), probes.scale(2.0)
    with (
        probes.edit(model, {name: add}),
        probes.edit(model, {"reassembly": double}),
        probes.capture(model, name) as cap,
    ):
        model(x)
    assert torch.equal(cap[name], (plain[name] + 1) * 2)
    with probes.edit(model, {name: double}), probes.edit(model, {name: add}), probes.capture(model, name) as cap:
        model(x)
    assert torch.equal(cap[name], plain[name] * 2 + 1)
    with probes.edit(model, {name: add, "reassembly.*": double}), probes.capture(model, name) as cap:
        model(x)
    assert torch.equal(cap[name], (plain[name] + 1) * 2)


def test_a_skipped_block_passes_its_input_on(model, x):
    # The second block of a stage: its input and output have the same shape in every family.
    with probes.edit(model, {"encoder.blocks.1.tokens": probes.skip()}), probes.capture(model, "tokens") as cap:
        model(x)
    assert torch.equal(cap["encoder.blocks.1.tokens"], cap["encoder.blocks.0.tokens"])


def test_channels_and_tokens_are_selected_by_axis_name(model, x):
    edits = {"fusion.1": probes.zero(channels=[0, 3]), "encoder.blocks.0.tokens": probes.scale(0.0, tokens=[2])}
    with probes.edit(model, edits), probes.capture(model, "fusion.1", "encoder.blocks.0.tokens") as cap:
        model(x)
    assert (cap["fusion.1"][:, [0, 3]] == 0).all()
    assert (cap["fusion.1"][:, 1] != 0).any()
    assert (cap["encoder.blocks.0.tokens"][:, 2] == 0).all()
    assert (cap["encoder.blocks.0.tokens"][:, 1] != 0).any()


def test_an_edited_tensor_is_not_modified_in_place(model, x):
    kept = []
    model.patch_embed.register_forward_hook(lambda m, args, output: kept.append((output, output.clone())))
    with probes.edit(model, {"patch_embed": probes.zero([0])}):
        model(x)
    before, copy = kept[0]
    assert torch.equal(before, copy)


def test_an_exception_in_block_or_model_restores_everything(model, x):
    before = model(x)
    with pytest.raises(KeyError), probes.edit(model, {"fusion": probes.zero()}):
        raise KeyError
    assert hooks_of(model) == 0

    def fail(t):
        raise ArithmeticError("in the model")

    with pytest.raises(ArithmeticError, match="in the model"), probes.edit(model, {"fusion.1": fail}):
        model(x)
    assert hooks_of(model) == 0
    assert torch.equal(model(x), before)


def run_to_its_end(thread: threading.Thread) -> None:
    thread.start()
    thread.join()


def test_an_edit_does_not_affect_other_threads_and_says_so_once():
    model, x = tiny_model(), pictures(1, 42, 70)
    before, other = model(x), []
    with probes.edit(model, {"fusion.0": probes.zero()}):
        thread = threading.Thread(target=lambda: other.extend([model(x), model(x)]), name="reader")
        with pytest.warns(ProbeWarning, match=r"fusion\.0.*reader") as said:
            run_to_its_end(thread)
        assert not torch.equal(model(x), before)
    assert len(said) == 1
    assert torch.equal(other[0], before)
    assert torch.equal(other[1], before)


def test_an_edit_keeps_no_model_and_no_tensor_alive():
    model = tiny_model()
    value = torch.ones(1)
    with probes.edit(model, {"fusion.0": probes.replace(value)}):
        model(pictures(1, 42, 70))
    references = weakref.ref(model), weakref.ref(value)
    del model, value
    gc.collect()
    assert [reference() for reference in references] == [None, None]


def test_an_edit_is_saved_with_a_capture_and_applies_again(tmp_path):
    model, x = tiny_model(), pictures(1, 42, 70)
    patch = torch.randn(16, 12, 20)
    edits = {
        "encoder.blocks.1.heads": probes.zero([0]),
        "fusion.1": probes.scale(-1.5, channels=[2, 3]),
        "reassembly.0": probes.replace(patch),
        "depth": probes.scale(2.0),
    }
    with probes.edit(model, edits), probes.capture(model, "depth") as cap:
        model(x)
    cap.save(tmp_path / "capture.safetensors")
    again = probes.load(tmp_path / "capture.safetensors")
    assert [name for name, _ in again.edits] == [name for name, _ in cap.edits] == list(edits)
    with probes.edit(model, dict(again.edits)):
        assert torch.equal(model(x), cap["depth"])


def test_a_function_is_saved_by_name_only_and_its_error_says_how_to_pass_it_again(tmp_path):
    model, x = tiny_model(), pictures(1, 42, 70)
    with probes.edit(model, {"fusion.0": torch.neg}), probes.capture(model, "depth") as cap:
        model(x)
    cap.save(tmp_path / "capture.safetensors")
    again = probes.load(tmp_path / "capture.safetensors")
    with probes.edit(model, dict(again.edits)), pytest.raises(probes.ProbeError, match=r"neg .*probes\.apply"):
        model(x)


X = pictures(1, 42, 70)
WRONG = [
    ({"encoder.blocks.0.attention": probes.scale(0.5)}, ValueError, r"fused kernel.* encoder\.blocks\.0\.heads"),
    ({"encoder.blocks.0.norms": probes.zero()}, ValueError, r"tokens.* encoder\.blocks\.0\.tokens"),
    ({"fusion.9": probes.zero()}, UnknownPointError, r"'fusion\.9'.*'fusion\.[0-3]'"),
    ({"fusion.1": probes.zero(heads=[0])}, ValueError, r"fusion\.1 .*heads.* channels, rows, cols"),
    ({"fusion.1": probes.skip()}, ValueError, r"skip\(\).* fusion\.1"),
    ({"fusion.1": probes.zero([16])}, IndexError, r"fusion\.1 .*channels 0 to 15, got 16"),
    ({"fusion.1": probes.replace(torch.ones(5))}, ValueError, r"\(1, 16, 12, 20\).* got \(5,\)"),
    ({"fusion.1": lambda t: t[:, :3]}, ValueError, r"\(1, 16, 12, 20\), got \(1, 3, 12, 20\)"),
]


@pytest.mark.parametrize(("edits", "error", "message"), WRONG)
def test_wrong_edits_are_refused_and_leave_no_hook(edits, error, message):
    model = tiny_model()
    with pytest.raises(error, match=message) as raised, probes.edit(model, edits):
        model(X)
    assert isinstance(raised.value, probes.ProbeError)
    assert hooks_of(model) == 0


def test_the_repr_of_an_edit_shows_what_was_given_and_zeros_too():
    assert repr(probes.scale(0.0)) == "probes.scale(0.0)"
    assert repr(probes.replace(0.0)) == "probes.replace(0.0)"
    assert repr(probes.replace(torch.zeros(2))) == "probes.replace(<tensor of (2,)>)"
    assert repr(probes.zero(heads=0)) == "probes.zero(heads=[0])"
    assert repr(probes.skip()) == "probes.skip()"


def test_negative_indices_are_refused_on_creation():
    with pytest.raises(ValueError, match=r"heads .*\[-1\]"):
        probes.zero(heads=[-1])


# -------------------------------------------------------------------------------------------------------------- replay


def by_hand(model, maps, scales):
    """The four fusion levels, written out."""
    one = {f"{g}.{s}": 1.0 for g in ("fusion", "reassembly") for s in range(4)} | scales
    r = [maps[s] * one[f"reassembly.{s}"] for s in range(4)]
    blocks = model.fusion.blocks
    f3 = blocks[3](r[3], None, tuple(maps[2].shape[-2:])) * one["fusion.3"]
    f2 = blocks[2](r[2], f3, tuple(maps[1].shape[-2:])) * one["fusion.2"]
    f1 = blocks[1](r[1], f2, tuple(maps[0].shape[-2:])) * one["fusion.1"]
    return blocks[0](r[0], f1, tuple(2 * side for side in maps[0].shape[-2:])) * one["fusion.0"]


@pytest.fixture
def image(family):
    gen = torch.Generator().manual_seed(3)
    height, width = OBLONG[family]
    return torch.randint(0, 256, (height, width, 3), generator=gen, dtype=torch.uint8).numpy()


def test_a_replay_without_scales_is_the_model(model, image, family):
    size = OBLONG[family]
    replay = probes.FusionReplay(model, image, size, keep_aspect=False)
    assert (replay() == model.predict(image, size, keep_aspect=False)).all()


def test_a_replay_equals_the_edit_and_the_loop_by_hand_at_random_settings(model, image, family):
    size = OBLONG[family]
    replay = probes.FusionReplay(model, image, size, keep_aspect=False)
    gen = torch.Generator().manual_seed(0)
    points = [f"{g}.{s}" for g in ("fusion", "reassembly") for s in range(4)]
    seen = set()
    for _ in range(10):
        values = (10 * torch.rand(8, generator=gen) - 5).tolist()
        chosen = (torch.rand(8, generator=gen) < 0.6).tolist()
        scales = {p: v for p, v, c in zip(points, values, chosen, strict=True) if c}
        depth = replay(scales)
        seen.add(replay.blocks_run)
        with probes.edit(model, {p: probes.scale(v) for p, v in scales.items()} or {"depth": probes.scale(1.0)}):
            assert (depth == model.predict(image, size, keep_aspect=False)).all(), scales
        fused = by_hand(model, replay.maps, scales)
        assert torch.equal(model.head(fused, replay.input_size), replay.output(scales))
        assert replay.blocks_run == 0  # nothing changed since
    assert len(seen) > 1


def test_a_changed_scale_reruns_only_the_blocks_that_it_reaches(model, image):
    replay = probes.FusionReplay(model, image)
    replay()
    for point, blocks in {
        "fusion.0": 0, "fusion.1": 1, "reassembly.0": 1, "fusion.2": 2, "reassembly.1": 2,
        "fusion.3": 3, "reassembly.2": 3, "reassembly.3": 4,
    }.items():  # fmt: skip
        replay({point: 0.5})
        assert replay.blocks_run == blocks, point
        replay()  # scales back to 1: the same blocks run again
        assert replay.blocks_run == blocks, point


def test_a_preview_is_close_and_leaves_the_full_map_exact():
    model = dpt.load("demo")
    image, _ = demo.sample("plaza")
    replay, fresh = (probes.FusionReplay(model, image, size=140) for _ in range(2))
    for scales in ({}, {"fusion.2": -2.0}, {"fusion.1": 3.0, "reassembly.3": -1.0}):
        full = fresh.output(scales)
        height, width = full.shape[-2:]
        small = replay.output(scales, shrink=2)
        assert small.shape == (1, height // 2, width // 2)
        large = torch.nn.functional.interpolate(small[None], (height, width), mode="bilinear", align_corners=True)[0]
        assert torch.corrcoef(torch.stack([large.flatten(), full.flatten()]))[0, 1] > 0.9
        assert torch.equal(replay.output(scales), full)
        assert replay.blocks_run == 1  # blocks 3 to 1 are exact in a preview and do not run again


def test_an_interrupted_replay_keeps_no_partial_result(image):
    model = tiny_model()
    replay = probes.FusionReplay(model, image)
    before = replay()

    def interrupted(*_):
        raise KeyboardInterrupt

    handle = model.fusion.blocks[1].register_forward_hook(interrupted)
    with pytest.raises(KeyboardInterrupt):
        replay({"fusion.3": 2.0})
    handle.remove()
    assert (replay() == before).all()


def test_a_replay_refuses_wrong_arguments_and_edited_models(image):
    model = tiny_model()
    replay = probes.FusionReplay(model, image)
    with pytest.raises(ValueError, match=r"shrink .*\b0$"):
        replay.output(shrink=0)
    with pytest.raises(probes.ProbeError, match=r"fusion\.4.* reassembly\.0"):
        replay({"fusion.4": 1.0})
    with pytest.raises(ValueError, match=r"fusion\.1.* nan"):
        replay({"fusion.1": float("nan")})
    with probes.edit(model, {"depth": probes.zero()}), pytest.raises(probes.ProbeError, match=r"probes\.edit"):
        probes.FusionReplay(model, image)
