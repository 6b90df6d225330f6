"""SwinV2's windows, shifts, bias network and sizes agree with definitions written out by hand."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch

import dpt
from dpt.swinv2 import BIASES_KEPT, RelativePositions, swinv2
from probes import AttentionMaps
from tests import oracle
from tests.models import pictures, tiny_swinv2


@pytest.fixture
def model():
    return tiny_swinv2()


def test_the_documented_example_of_shifted_windows_is_right():
    def numbers(shift):
        grid = dpt.TokenGrid(4, 4, window=(2, 2), shift=shift)
        found = np.empty(16, int)
        for number, members in enumerate(grid.windows().numpy()):
            found[members] = number
        return found.reshape(4, 4).tolist()

    assert numbers((0, 0)) == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    assert numbers((1, 1)) == [[3, 2, 2, 3], [1, 0, 0, 1], [1, 0, 0, 1], [3, 2, 2, 3]]


@pytest.mark.parametrize(("window", "shift"), [((4, 4), (0, 0)), ((4, 4), (2, 2)), ((2, 8), (1, 0)), ((8, 2), (3, 1))])
def test_partitioning_and_its_inverse_restore_the_order_of_tokens(window, shift):
    grid = dpt.TokenGrid(8, 16, window=window, shift=shift)
    order = grid.windows()
    assert sorted(order.flatten().tolist()) == list(range(grid.tokens))
    for token in (0, 5, 77, grid.tokens - 1):
        one_hot = torch.zeros(grid.tokens)
        one_hot[token] = 1
        inside = one_hot[order]  # (windows, T)
        back = inside.flatten()[order.flatten().argsort()]
        assert torch.equal(back, one_hot)
        # By definition: roll by minus the shift, then partition.
        row, col = divmod(token, grid.cols)
        row, col = (row - shift[0]) % grid.rows, (col - shift[1]) % grid.cols
        number = (row // window[0]) * (grid.cols // window[1]) + col // window[1]
        place = (row % window[0]) * window[1] + col % window[1]
        assert inside[number, place] == 1


def by_definition(q, k, table, grid):
    """Attention (heads, N, N) of one image in float64, pair by pair, from q, k (heads, N, d)."""
    heads, tokens, _ = q.shape
    (high, wide), (down, right) = grid.window, grid.shift
    logits = np.full((heads, tokens, tokens), -np.inf)
    for i in range(tokens):
        for j in range(tokens):
            (ri, ci), (rj, cj) = grid.patch(i), grid.patch(j)
            ri, rj = (ri - down) % grid.rows, (rj - down) % grid.rows
            ci, cj = (ci - right) % grid.cols, (cj - right) % grid.cols
            if ri // high != rj // high or ci // wide != cj // wide:
                continue
            # Tokens that wrapped around lie within one shift of the end of the shifted grid.
            apart = (down and (ri >= grid.rows - down) != (rj >= grid.rows - down)) or (
                right and (ci >= grid.cols - right) != (cj >= grid.cols - right)
            )
            offset = table[:, ri - rj + high - 1, ci - cj + wide - 1]
            logits[:, i, j] = (q[:, i] * k[:, j]).sum(-1) + offset - 100 * bool(apart)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def bias_by_definition(positions, window, reach):
    """(heads, 2 wh - 1, 2 ww - 1) in float64."""
    w1, b1, w2 = (p.double().numpy() for p in (positions.fc1.weight, positions.fc1.bias, positions.fc2.weight))
    table = np.empty((len(w2), 2 * window[0] - 1, 2 * window[1] - 1))
    for dr in range(1 - window[0], window[0]):
        for dc in range(1 - window[1], window[1]):
            seen = [
                math.copysign(math.log2(1 + 8 * abs(d) / (p - 1)) / 3, d) for d, p in zip((dr, dc), reach, strict=True)
            ]
            hidden = np.maximum(w1 @ np.array(seen) + b1, 0)
            table[:, dr + window[0] - 1, dc + window[1] - 1] = 16 / (1 + np.exp(-w2 @ hidden))
    return table


# Pixels, block -> grid, window, shift and the window that offsets are relative to, computed by hand for windows of 4
# and a base size of 64 pixels: grids 16, 8, 4, 2.
CASES = [
    ((64, 64), 0, (16, 16), (4, 4), (0, 0), (4, 4)),
    ((64, 64), 1, (16, 16), (4, 4), (2, 2), (4, 4)),
    ((64, 96), 3, (8, 12), (4, 4), (2, 2), (4, 4)),
    ((64, 96), 5, (4, 6), (4, 6), (0, 0), (4, 4)),  # 4 does not tile 6: one window of 6, relative to the native 4
    ((64, 160), 5, (4, 10), (4, 5), (0, 2), (4, 4)),  # 4 does not tile 10: windows of 5
    ((64, 160), 6, (2, 5), (2, 5), (0, 0), (2, 2)),  # 4 does not tile 5; the native window of this stage is 2
    ((64, 128), 6, (2, 4), (2, 4), (0, 0), (2, 4)),  # one window of 4, relative to itself
]


@pytest.mark.parametrize(("pixels", "block", "sides", "window", "shift", "reach"), CASES)
def test_windows_shift_bias_and_mask_follow_the_definition(model, pixels, block, sides, window, shift, reach):
    config, whole = model.config, model.token_grid(*pixels)
    grid = config.block_grid(block, whole)
    assert (grid.rows, grid.cols) == sides
    assert (grid.window, grid.shift) == (window, shift)
    assert config.reach(block, whole) == reach

    attention = model.encoder.blocks[block].attention
    x = torch.randn(1, grid.tokens, config.block_width(block), generator=torch.Generator().manual_seed(block))
    seen: dict[str, tuple] = {}
    attention.attend.register_forward_hook(lambda m, args, output: seen.update(args=args))
    out = model.encoder.blocks[block]._attended(x, grid, config.reach(block, whole))

    # By definition, from queries and keys of the whole grid, pair by pair.
    weight = attention.qkv.weight.double().chunk(3)
    q, k, v = (x[0].double() @ w.T for w in weight)
    q, v = q + attention.q_bias.double(), v + attention.v_bias.double()
    q, k, v = (t.unflatten(1, (attention.heads, -1)).transpose(0, 1) for t in (q, k, v))
    scale = attention.logit_scale.double().clamp(max=math.log(100)).exp()
    q, k = q / q.norm(dim=-1, keepdim=True) * scale, k / k.norm(dim=-1, keepdim=True)
    table = bias_by_definition(attention.positions, window, reach)
    expected = by_definition(q.numpy(), k.numpy(), table, grid)
    gathered = torch.from_numpy(expected) @ v  # (heads, N, d)
    projected = gathered.transpose(0, 1).flatten(1) @ attention.projection.weight.double().T
    assert torch.allclose(out[0].double(), projected + attention.projection.bias.double(), atol=1e-4)

    q, k, _, bias = seen["args"]
    maps = AttentionMaps(q, k, 1.0, grid, bias)
    rows = maps.rows(range(grid.tokens))[0].numpy()
    assert np.abs(rows - expected).max() < 1e-5
    # Pairs in different windows and masked pairs have a weight of exactly zero.
    assert (rows[expected < 1e-38] == 0).all()
    assert (rows[expected > 1e-30] > 0).all()


def test_the_masks_equal_those_stored_in_checkpoints():
    config = swinv2(variant="t", width=96, depths=(2, 2, 6, 2), window=16, base=256)
    grid = config.block_grid(1, config.token_grid(256, 256))
    part = RelativePositions(3).requires_grad_(False)
    torch.nn.init.zeros_(part.fc2.weight)
    bias = part(grid, (16, 16))
    mask = oracle.swin_shift_mask((64, 64), (16, 16), (8, 8))
    assert np.array_equal(bias.dense[:, 0].numpy(), mask + 8)  # 16 sigmoid(0)


def test_a_bias_is_computed_once_per_size_and_changes_with_its_network(model, monkeypatch):
    calls = []
    computed = RelativePositions._offsets
    monkeypatch.setattr(RelativePositions, "_offsets", lambda *a: calls.append(1) or computed(*a))
    x = pictures(1, 64, 96)
    before = model(x)
    for _ in range(2):
        assert torch.equal(model(x), before)
    assert len(calls) == model.config.depth
    for _ in range(BIASES_KEPT - 1):
        model(pictures(1, 64, 64))
    model(x)
    assert len(calls) == 2 * model.config.depth
    model.encoder.blocks[0].attention.positions.fc1.bias.add_(0.5)
    assert not torch.equal(model(x), before)
    assert len(calls) == 2 * model.config.depth + 1


REAL = {"tiny_256": (16, 256), "base_384": (24, 384)}


@pytest.mark.parametrize("name", REAL)
def test_sizes_that_no_window_tiles_are_refused_with_sizes_that_work(name):
    window, base = REAL[name]
    config = swinv2(variant=name, width=96, depths=(2, 2, 2, 2), window=window, base=base)
    for side in range(32, 2049, 32):
        if config._tiled(side):
            grid = config.token_grid(side, base)
            for block in range(config.depth):
                assert config.block_grid(block, grid).rows == side // 4 // 2 ** config.stage_of(block)
            continue
        with pytest.raises(ValueError, match=r"nearest .* (\d+) x \d+$") as raised:
            config.token_grid(side, base)
        nearest = int(re.findall(r"(\d+) x \d+", str(raised.value))[-1])
        assert config._tiled(nearest)
        assert all(not config._tiled(other) for other in range(side, 0, -32) if abs(other - side) < abs(nearest - side))
    with pytest.raises(ValueError, match=r"multiples of 32 .*250 x 256.* 256 x 256"):
        config.token_grid(250, 256)


def test_the_window_rule_at_a_size_known_from_another_implementation():
    config = swinv2(variant="tiny_256", width=96, depths=(2, 2, 6, 2), window=16, base=256)
    grid = config.block_grid(3, config.token_grid(320, 256))
    assert (grid.rows, grid.cols, grid.window, grid.shift) == (40, 32, (20, 16), (10, 8))
    assert config.reach(3, config.token_grid(320, 256)) == (16, 16)


def test_offsets_are_relative_to_the_pretrained_windows_of_models_that_have_them():
    config = swinv2(
        variant="base_384", width=128, depths=(2, 2, 18, 2), window=24, base=384, pretrained=(12, 12, 12, 6)
    )
    whole = config.token_grid(384, 384)
    assert [config.reach(config.stage_block(s), whole) for s in range(4)] == [(12, 12), (12, 12), (12, 12), (6, 6)]


def test_images_are_stretched_to_the_one_size_of_the_original_models(model):
    image = np.zeros((100, 170, 3), np.uint8)
    assert tuple(model.prepare(image).shape[2:]) == (64, 64)
    assert tuple(model.prepare(image, size=(64, 96)).shape[2:]) == (64, 96)


def test_half_precision_runs(model):
    x = pictures(1, 64, 96)
    exact, half = model(x), model.to(torch.bfloat16)(x.bfloat16()).float()
    assert (half - exact).abs().mean() < 0.15 * exact.std()
