"""The model takes images of any valid size, batch and precision, caches position tables, and refuses bad inputs."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest
import torch

import dpt
from dpt.depth_anything import TABLES_KEPT, Positions
from tests.models import pictures, tiny_config, tiny_model


@pytest.mark.parametrize(("height", "width"), [(14, 14), (14, 70), (70, 14), (98, 42), (518, 518), (266, 350)])
def test_any_multiple_of_14_gives_depth_of_the_same_size(height, width):
    depth = tiny_model()(pictures(2, height, width))
    assert depth.shape == (2, height, width)
    assert torch.isfinite(depth).all()


def test_a_batch_equals_its_images_one_by_one():
    model, x = tiny_model(), pictures(3, 56, 84)
    alone = torch.cat([model(x[i : i + 1]) for i in range(3)])
    assert torch.allclose(model(x), alone, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_agrees_with_single(dtype):
    x = pictures(1, 98, 126)
    single, half = tiny_model()(x), tiny_model().to(dtype)(x.to(dtype))
    assert half.dtype == torch.float32  # the head's last step is float32
    error = (half - single).square().mean().sqrt() / single.std()
    assert error < {torch.float16: 0.02, torch.bfloat16: 0.15}[dtype]  # measured: 0.007 and 0.05


@pytest.mark.parametrize("shape", [(3, 28, 28), (1, 4, 28, 28), (28, 28)])
def test_inputs_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=rf"\(B, 3, h, w\), got {re.escape(str(shape))}.*model.prepare"):
        tiny_model()(torch.zeros(shape))


@pytest.mark.parametrize(
    ("x", "given"),
    [
        (torch.zeros(1, 3, 28, 28, dtype=torch.uint8), "a tensor of torch.uint8"),
        (np.zeros((1, 3, 28, 28), np.float32), "a ndarray"),
    ],
)
def test_inputs_that_are_not_floating_point_tensors_are_refused(x, given):
    with pytest.raises(TypeError, match=f"floating-point tensor .*got {given}.*model.prepare"):
        tiny_model()(x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_float32_images_are_converted_to_the_dtype_of_the_model(dtype):
    model, x = tiny_model().to(dtype), pictures(1, 42, 56)
    assert model.dtype == dtype
    with torch.no_grad():
        assert torch.equal(model(x), model(x.to(dtype)))
        assert torch.equal(tiny_model()(x.half()), tiny_model()(x.half().float()))


def test_an_input_on_another_device_is_refused_with_both_devices():
    model = tiny_model()
    with pytest.raises(dpt.DPTError, match=r"cpu.*meta.*prepare") as raised:
        model(pictures(1, 42, 56).to("meta"))
    assert isinstance(raised.value, TypeError)
    empty = tiny_model().to("meta")  # e.g. to count operations
    assert empty(pictures(1, 42, 56).to("meta")).shape == (1, 42, 56)
    assert empty.device.type == "meta"


@pytest.mark.parametrize(("size", "nearest"), [((30, 28), "28 x 28"), ((7, 500), "14 x 504"), ((28, 0), "28 x 14")])
def test_sizes_off_the_patch_grid_are_refused_with_the_nearest(size, nearest):
    with pytest.raises(ValueError, match=f"multiples of 14 .*{size[0]} x {size[1]}.* {nearest}"):
        tiny_model()(torch.zeros(1, 3, *size))


def test_predict_returns_depth_at_the_size_of_the_image():
    image = np.random.default_rng(0).integers(0, 256, (37, 90, 3), dtype=np.uint8)
    model = tiny_model()
    depth = model.predict(image, size=70)
    assert depth.shape == (37, 90)
    assert depth.dtype == np.float32
    # By hand: prepare, run, resize with aligned corners.
    x = model.prepare(image, size=70)
    assert x.shape == (1, 3, 70, 168)
    by_hand = torch.nn.functional.interpolate(model(x)[None], (37, 90), mode="bilinear", align_corners=True)
    assert np.allclose(depth, by_hand[0, 0].numpy(), atol=1e-6)
    assert model.predict(image, size=(28, 56), keep_aspect=False).shape == (37, 90)


def test_the_returned_depth_is_a_copy_even_without_resizing():
    image = np.random.default_rng(0).integers(0, 256, (28, 42, 3), dtype=np.uint8)
    seen = []
    model = tiny_model()
    model.register_forward_hook(lambda module, args, output: seen.append(output))
    depth = model.predict(image, size=28)
    before = seen[0].clone()
    depth += 1
    assert torch.equal(seen[0], before)


def test_metric_models_return_metres_up_to_their_range():
    model = tiny_model(max_depth=20.0)
    relative = tiny_model()
    relative.head.activation = torch.nn.Identity()  # type: ignore[assignment]
    x = pictures(1, 42, 42)
    assert torch.allclose(model(x), 20 * torch.sigmoid(relative(x)))
    assert model.config.metric


def test_relative_depth_is_never_negative():
    model = tiny_model()
    model.head.conv3.bias.fill_(-100.0)
    assert (model(pictures(1, 28, 28)) == 0).all()


# ------------------------------------------------------------------------------------------ position tables


def bicubic_by_hand(table: np.ndarray, rows: int, cols: int) -> np.ndarray:
    """DINOv2's resizing from the formula: output row y samples at (y + 0.5) * 37 / (rows + 0.1) - 0.5."""

    def weights(t: float) -> list[float]:
        a = -0.75
        near = [(a + 2) * d**3 - (a + 3) * d**2 + 1 for d in (t, 1 - t)]
        far = [a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a for d in (1 + t, 2 - t)]
        return [far[0], near[0], near[1], far[1]]

    def along(table: np.ndarray, count: int) -> np.ndarray:
        out = []
        for y in range(count):
            at = (y + 0.5) * 37 / (count + 0.1) - 0.5
            low = int(np.floor(at))
            out.append(sum(w * table[np.clip(low - 1 + n, 0, 36)] for n, w in enumerate(weights(at - low))))
        return np.stack(out)

    return along(along(table, rows).swapaxes(0, 1), cols).swapaxes(0, 1)


@pytest.mark.parametrize(("rows", "cols"), [(18, 24), (1, 1), (37, 38), (50, 3)])
def test_position_tables_are_resized_as_in_dinov2(rows, cols):
    positions = Positions(4).requires_grad_(False)
    positions.table.normal_(generator=torch.Generator().manual_seed(0))
    table = positions.table[0].double().numpy()
    expected = bicubic_by_hand(table[1:].reshape(37, 37, 4), rows, cols)
    got = positions(dpt.TokenGrid(rows, cols, 1))[0].numpy()
    assert np.allclose(got[1:].reshape(rows, cols, 4), expected, atol=1e-4)
    assert np.array_equal(got[0], positions.table[0, 0].numpy())


def test_the_native_grid_uses_the_table_unchanged():
    positions = Positions(4).requires_grad_(False)
    assert positions(dpt.TokenGrid(37, 37, 1)) is positions.table
    # 37 x 37 patches in another shape are resized, as in the original.
    assert positions(dpt.TokenGrid(1, 1369, 1)) is not positions.table


def test_a_table_is_resized_once_per_grid_and_the_cache_is_bounded(monkeypatch):
    positions = Positions(4).requires_grad_(False)
    computed = []
    resize = positions._resized

    def counted(grid):
        computed.append(grid)
        return resize(grid)

    monkeypatch.setattr(positions, "_resized", counted)
    small, wide = dpt.TokenGrid(3, 4, 1), dpt.TokenGrid(4, 3, 1)
    assert positions(small) is positions(small)
    positions(wide)
    assert computed == [small, wide]
    for n in range(5, 5 + TABLES_KEPT):
        positions(dpt.TokenGrid(n, n, 1))
    assert len(positions._kept) == TABLES_KEPT
    positions(small)
    assert computed.count(small) == 2  # the first entry was dropped


@pytest.mark.parametrize("change", ["in place", "load", "cast", "train"])
def test_a_changed_table_is_resized_again(change):
    model, x = tiny_model(), pictures(1, 42, 56)
    before = model(x)
    fresh = tiny_model(seed=1)
    if change == "in place":
        model.encoder.positions.table.mul_(2)
        fresh = tiny_model()
        fresh.encoder.positions.table.mul_(2)
    elif change == "load":
        model.load_state_dict(fresh.state_dict())
    elif change == "cast":
        model, fresh = model.double(), tiny_model().double()
        x, before = x.double(), before.double()
    else:
        model.requires_grad_(True)
        table = model.encoder.positions.table
        torch.optim.SGD([table], lr=1e-3).zero_grad()
        model(x).sum().backward()
        assert table.grad is not None
        assert table.grad.abs().max() > 0
        with torch.no_grad():
            table.sub_(table.grad)
        fresh = tiny_model()
        fresh.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(model(x), fresh(x))
        assert not torch.equal(model(x), before)


def test_copies_of_a_model_are_independent():
    model, x = tiny_model(), pictures(1, 42, 56)
    before = model(x)
    other = copy.deepcopy(model)
    other.encoder.positions.table.zero_()
    assert not torch.equal(other(x), before)
    assert torch.equal(model(x), before)


def test_a_cache_filled_in_inference_mode_can_be_used_in_training():
    model, x = tiny_model(), pictures(1, 42, 56)
    with torch.inference_mode():
        model(x)
    y = x.clone().requires_grad_(True)
    model(y).sum().backward()
    assert y.grad is not None


# ---------------------------------------------------------------------------------------------- configurations


def test_impossible_configurations_are_refused():
    for changes, message in (
        ({"width": 100}, "multiple"),
        ({"depth": 3}, "at least 4"),
        ({"version": 3}, "1 or 2, got 3"),
        ({"max_depth": 0.0}, r"metres > 0.*got 0\.0"),
    ):
        with pytest.raises(ValueError, match=message):
            tiny_config(**changes)
