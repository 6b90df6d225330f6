"""BEiT's attention bias, its resizing and caching, and the sizes that BEiT models take."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dpt.attention import OffsetBias
from dpt.beit import BIASES_KEPT, RelativePositions
from tests import oracle
from tests.models import pictures, tiny_beit


@pytest.fixture
def model():
    return tiny_beit()


def positions(side: int, heads: int = 2) -> RelativePositions:
    part = RelativePositions(heads, side)
    torch.nn.init.normal_(part.table, generator=torch.Generator().manual_seed(0))
    return part.requires_grad_(False)


def test_at_the_native_grid_the_bias_is_the_table_read_through_the_stored_index(model):
    side = 5
    part = positions(side)
    grid = model.token_grid(16 * side, 16 * side)
    index = oracle.beit_relative_position_index((side, side))  # as stored in checkpoints of that size
    assert torch.equal(part(grid).dense[0], part.table.T[:, index])


@pytest.mark.parametrize(("height", "width"), [(48, 80), (112, 64), (16, 16)])
def test_at_other_grids_offsets_are_resized_and_class_rows_are_not(model, height, width):
    part, grid = positions(5), model.token_grid(height, width)
    rows, cols = grid.rows, grid.cols
    offsets = part.table[:-3].T.reshape(1, 2, 9, 9)
    resized = F.interpolate(offsets, (2 * rows - 1, 2 * cols - 1), mode="bilinear")[0].flatten(1)
    table = torch.cat((resized, part.table[-3:].T), dim=1)
    index = oracle.beit_relative_position_index((rows, cols))
    assert torch.equal(part(grid).dense[0], table[:, index])


def test_a_part_of_a_bias_equals_that_part_of_the_full_bias(model):
    bias = positions(5)(model.token_grid(48, 80))
    queries, keys = torch.tensor([0, 3, 15]), torch.tensor([7, 0, 1, 14])
    assert torch.equal(bias.between(queries, keys), bias.dense[0][:, queries[:, None], keys])
    assert bias.tokens == 16


def test_a_bias_is_computed_once_per_size(model, monkeypatch):
    computed = []
    resized = RelativePositions._offsets
    monkeypatch.setattr(RelativePositions, "_offsets", lambda *a: computed.append(1) or resized(*a))
    for _ in range(3):
        model(pictures(1, 48, 80))
    assert len(computed) == model.config.depth
    model(pictures(1, 64, 80))
    model(pictures(1, 48, 80))
    assert len(computed) == 2 * model.config.depth
    for side in range(1, 2 + BIASES_KEPT):  # more sizes than the cache holds drop the first ones
        model(pictures(1, 16 * side, 32))
    model(pictures(1, 48, 80))
    assert len(computed) == (2 + 1 + BIASES_KEPT + 1) * model.config.depth


def test_a_bias_changes_with_its_table(model):
    x = pictures(1, 48, 80)
    before = model(x)
    assert torch.equal(model(x), before)
    model.encoder.blocks[1].attention.positions.table.mul_(3)
    after = model(x)
    assert not torch.equal(after, before)
    fresh = tiny_beit()
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(x), after)
    assert torch.equal(copy.deepcopy(model)(x), after)


@pytest.mark.parametrize("side", [5, 3])
def test_a_bias_stays_as_it_was_when_the_table_changes(model, side):
    part = positions(5, heads=1)  # the transposed table of one head is contiguous
    grid = model.token_grid(16 * side, 16 * side)
    for small in (True, False):
        bias = part(grid, small=small)
        table, prefix = bias.table.clone(), bias.prefix.clone()
        part.table.data.mul_(2.0)
        assert torch.equal(bias.table, table)
        assert torch.equal(bias.prefix, prefix)


def test_gradients_reach_the_tables(model):
    model.requires_grad_(True)
    model(pictures(1, 48, 80)).sum().backward()
    gradient = model.encoder.blocks[2].attention.positions.table.grad
    assert gradient is not None
    assert gradient.abs().max() > 0


def test_a_bias_cached_in_inference_mode_can_be_used_in_training(model):
    with torch.inference_mode():
        model(pictures(1, 48, 80))
    x = pictures(1, 48, 80).requires_grad_(True)
    model(x).sum().backward()  # autograd rejects tensors made in inference mode
    assert x.grad is not None


def test_odd_grids_work_and_other_sizes_name_the_nearest(model):
    assert model(pictures(1, 240, 272)).shape == (1, 240, 272)
    with pytest.raises(ValueError, match=r"multiples of 16 .*250 x 272.* 256 x 272"):
        model(pictures(1, 250, 272))


def test_images_are_prepared_in_steps_of_32_unless_the_exact_size_is_given(model):
    image = np.zeros((100, 130, 3), np.uint8)
    # 80 / 100 is closer to 1 than 80 / 130, so 80 x 104, rounded half to even in steps of 32.
    assert tuple(model.prepare(image).shape[2:]) == (64, 96)
    assert tuple(model.prepare(image, size=(240, 272), keep_aspect=False).shape[2:]) == (240, 272)
    with pytest.raises(ValueError, match=r"16\b.*256 x 272"):
        model.prepare(image, size=(250, 272), keep_aspect=False)


def test_the_readout_is_a_linear_map_of_patch_and_class_concatenated(model):
    readout = model.reassembly.readouts[0]
    tokens = torch.randn(2, 7, 128, generator=torch.Generator().manual_seed(1))
    beside = torch.cat((tokens[:, 1:], tokens[:, :1].expand(-1, 6, -1)), dim=-1)
    assert torch.allclose(readout(tokens), F.gelu(readout.project(beside)), atol=1e-5)


def test_half_precision_runs(model):
    x = pictures(1, 48, 80)
    exact, half = model(x), model.to(torch.bfloat16)(x.bfloat16()).float()
    assert (half - exact).abs().mean() < 0.1 * exact.std()


def test_converting_a_bias_converts_all_its_tensors():
    bias = OffsetBias(torch.randn(2, 3, 5), torch.randn(2, 3), bands=None).to(dtype=torch.float16)
    assert bias.table.dtype == bias.prefix.dtype == bias.dense.dtype == torch.float16
