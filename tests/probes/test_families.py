"""Captures of every model family: batches, shapes, and attention against its definition."""

from __future__ import annotations

import torch

import probes


def test_a_batch_of_two_equals_two_singles(model, x):
    with torch.no_grad():
        together = model(x)
        apart = torch.cat([model(one[None]) for one in x])
    assert together.std() > 0.1
    assert torch.allclose(together, apart, atol=1e-5)


def test_capturing_everything_changes_no_bit_and_leaves_no_hook(model, x):
    with torch.no_grad():
        alone = model(x)
        with probes.capture(model, "*"):
            observed = model(x)
    assert torch.equal(alone, observed)
    assert not any(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_every_point_has_its_declared_shape_and_grid(model, x):
    table = probes.names(model)
    with torch.no_grad(), probes.capture(model, "*") as cap:
        model(x)
    assert list(cap) == list(table)
    for name, value in cap.items():
        attention = isinstance(value, probes.AttentionMaps)
        shape = (value.batch, value.heads, value.tokens, value.tokens) if attention else tuple(value.shape)
        assert shape == table[name].shape(2, cap.grid), name
        if table[name].group in ("tokens", "norms", "stages"):
            assert value.shape[1] == cap.grid_of(name).tokens, name


def test_attention_rows_times_values_equal_the_heads_outputs(model, x):
    values = {}
    for i, block in enumerate(model.encoder.blocks):
        block.attention.attend.register_forward_hook(lambda m, args, output, i=i: values.update({i: args[2]}))
    with torch.no_grad(), probes.capture(model, "attention", "heads") as cap:
        model(x)
    for i, v in values.items():
        maps = cap[f"encoder.blocks.{i}.attention"]
        order = maps.grid.windows()
        v = v.unflatten(0, (-1, len(order))).transpose(1, 2).flatten(2, 3)  # (B, heads, N, d), window by window
        v = v[:, :, order.flatten().argsort()]
        rows = maps.rows(range(maps.tokens))
        assert torch.allclose(rows @ v, cap[f"encoder.blocks.{i}.heads"], atol=1e-4), i


def test_rows_columns_and_statistics_agree_with_the_whole_matrix(model, x):
    with torch.no_grad(), probes.capture(model, "attention") as cap:
        model(x)
    for name, maps in cap.items():
        matrix = maps.matrix()
        assert torch.allclose(matrix.sum(-1), torch.ones(()), atol=1e-5), name
        some = [0, maps.tokens // 2, maps.tokens - 1]
        assert torch.equal(maps.rows(some), matrix[:, :, some])
        assert torch.allclose(maps.columns(some), matrix[..., some].mT, atol=1e-6)
        assert torch.allclose(maps.mean(), matrix.mean(2), atol=1e-6)
        entropy = -(matrix * matrix.clamp_min(1e-30).log()).sum(-1)
        assert torch.allclose(maps.entropy(), entropy, atol=1e-4)
        figures = maps.statistics()
        assert torch.allclose(torch.tensor(figures["entropy"].values), entropy.mean(-1), atol=1e-4)
        assert torch.allclose(torch.tensor(figures["peak"].values), matrix.amax(-1).mean(-1), atol=1e-5)
        diagonal = matrix.diagonal(dim1=-2, dim2=-1).mean(-1)
        assert torch.allclose(torch.tensor(figures["itself"].values), diagonal, atol=1e-5)


def test_a_row_on_the_grid_is_zero_outside_the_window(model, x):
    with torch.no_grad(), probes.capture(model, "attention") as cap:
        model(x)
    for maps in cap.values():
        grid = maps.grid
        token = grid.token(grid.rows - 1, 0)
        row = maps.map(patch=(grid.rows - 1, 0))
        assert row.shape == (maps.heads, grid.rows, grid.cols)
        weights = torch.tensor(row.values).flatten(1)
        outside = torch.ones(grid.tokens, dtype=torch.bool)
        outside[maps.window(token)] = False
        assert (weights[:, outside[grid.prefix :]] == 0).all()


def test_a_saved_capture_gives_the_same_attention(model, x, tmp_path):
    with torch.no_grad(), probes.capture(model, "attention", "norms") as cap:
        model(x)
    cap.save(tmp_path / "capture.safetensors")
    again = probes.load(tmp_path / "capture.safetensors")
    for name, value in cap.items():
        assert again.grid_of(name) == cap.grid_of(name)
        if isinstance(value, probes.AttentionMaps):
            assert torch.equal(again[name].rows([1, 2]), value.rows([1, 2]))
        else:
            assert torch.equal(again[name], value)


def test_conversion_to_half_precision_keeps_the_bias(model, x):
    with torch.no_grad(), probes.capture(model, "attention") as cap:
        model(x)
    with torch.no_grad(), probes.capture(model, "attention", dtype=torch.float16, device="cpu") as half:
        model(x)
    for name, maps in cap.items():
        assert half[name].q.dtype == torch.float16
        assert torch.allclose(half[name].rows([1, 2]), maps.rows([1, 2]), atol=0.03), name
