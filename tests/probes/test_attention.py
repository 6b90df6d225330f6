"""Attention computed from queries and keys equals the softmax matrix of a plain float64 loop."""

from __future__ import annotations

import inspect
import math
import re

import numpy as np
import pytest
import torch

import probes
from dpt import TokenGrid
from probes import AttentionMaps, attention
from probes.attention import token_of
from probes.errors import InvalidTypeError, InvalidValueError
from tests import oracle
from tests.models import DATA

GRID = TokenGrid(rows=5, cols=7, prefix=1)


def softmax_by_hand(q, k, scale, bias=None) -> np.ndarray:
    """(B, heads, N, N) in float64 numpy, one row at a time, from the definition."""
    q, k = q.double().numpy(), k.double().numpy()
    batch, heads, tokens, _ = q.shape
    p = np.empty((batch, heads, tokens, tokens))
    for b, h, i in np.ndindex(batch, heads, tokens):
        logits = np.array([scale * math.fsum(q[b, h, i] * k[b, h, j]) for j in range(tokens)])
        if bias is not None:
            logits = logits + bias.double().numpy()[0, h, i]
        p[b, h, i] = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    return p


@pytest.fixture(scope="module")
def maps() -> AttentionMaps:
    gen = torch.Generator().manual_seed(0)
    q, k = (3 * torch.randn(2, 3, GRID.tokens, 16, generator=gen) for _ in range(2))
    return AttentionMaps(q, k, 0.25, GRID, name="test")


@pytest.fixture(scope="module")
def exact(maps) -> np.ndarray:
    return softmax_by_hand(maps.q, maps.k, maps.scale)


def test_the_weights_of_the_fixture_range_from_almost_0_to_almost_1(exact):
    assert exact.max() > 0.99
    assert exact.min() < 1e-9


def test_rows_and_columns_are_exact(maps, exact):
    at = [0, 5, 9, 35]
    assert np.abs(maps.rows(at).numpy() - exact[:, :, at]).max() < 1e-6
    assert np.abs(maps.columns(at).numpy() - exact[:, :, :, at].swapaxes(2, 3)).max() < 1e-6
    assert torch.equal(maps.rows(5), maps.rows(torch.tensor([5])))


def test_token_indices_are_integers_of_any_type(maps):
    assert torch.equal(maps.rows(np.int64(5)), maps.rows([5]))
    assert torch.equal(maps.rows(torch.tensor(5)), maps.rows([5]))
    assert maps.rows([]).shape == (*maps.rows([5]).shape[:2], 0, GRID.tokens)
    assert maps.map(token=np.int64(1)).identical(maps.map(token=1))
    assert maps.map(patch=np.array([1, 2])).identical(maps.map(patch=(1, 2)))
    for wrong in (1.7, True, "cls", [1.0], [[1]], None):
        with pytest.raises(TypeError, match=f"integers, got {re.escape(repr(wrong))}"):
            maps._indices(wrong)  # bypasses the annotation, which only the tests check
    for wrong in (1.7, "cls"):
        with pytest.raises(TypeError, match=f"token .*integer.* got {wrong!r}"):
            token_of(GRID, None, wrong)
    for patch in (5, (1, 2, 3), "1,2"):
        with pytest.raises(TypeError, match=rf"patch .*\(row, col\).* got {re.escape(repr(patch))}"):
            token_of(GRID, patch, None)
    with pytest.raises(TypeError, match=r"\(1\.5, 2\)"):
        token_of(GRID, (1.5, 2), None)  # not through map: the type checker of the tests looks at one random element


def test_large_logits_keep_their_accuracy():
    # Logits near 40, where float32 sums have errors of several 1e-6.
    gen = torch.Generator().manual_seed(1)
    q, k = (7 * torch.randn(1, 1, GRID.tokens, 64, generator=gen) for _ in range(2))
    maps, exact = AttentionMaps(q, k, 0.125, GRID), softmax_by_hand(q, k, 0.125)
    in_float32 = (q @ k.mT * 0.125).softmax(-1).numpy()
    ours = np.abs(maps.matrix().numpy() - exact).max()
    assert ours < 1e-6
    assert np.abs(in_float32 - exact).max() > 3 * ours  # the control: float32 is worse


@pytest.mark.parametrize("chunk", [1, 4000, attention.CHUNK_BYTES])
def test_statistics_over_all_rows_do_not_depend_on_the_chunks(maps, exact, chunk, monkeypatch):
    monkeypatch.setattr(attention, "CHUNK_BYTES", chunk)
    maps = AttentionMaps(maps.q, maps.k, maps.scale, GRID)
    entropy = -(exact * np.log(np.maximum(exact, 1e-300))).sum(-1)
    assert np.abs(maps.entropy().numpy() - entropy).max() < 1e-6
    assert np.abs(maps.mean().numpy() - exact.mean(2)).max() < 1e-6
    assert np.abs(maps.matrix().numpy() - exact).max() < 1e-6
    figures = maps.statistics()
    assert np.allclose(figures["entropy"], entropy.mean(-1), rtol=0, atol=1e-6)
    assert np.allclose(figures["peak"], exact.max(-1).mean(-1), rtol=0, atol=1e-6)
    assert np.allclose(figures["prefix"], exact[..., :1].sum(-1).mean(-1), rtol=0, atol=1e-6)
    assert np.allclose(figures["itself"], np.einsum("bhii->bh", exact) / GRID.tokens, rtol=0, atol=1e-6)
    at = np.array([divmod(i, GRID.cols) for i in range(GRID.patches)])
    far = np.hypot(*(at[:, None] - at[None]).transpose(2, 0, 1))
    patches = exact[..., 1:, 1:]
    distance = ((patches * far).sum(-1) / patches.sum(-1)).mean(-1)
    assert np.allclose(figures["distance"], distance, rtol=0, atol=1e-5)  # in patches, not a share


def test_a_bias_is_added_to_the_logits():
    gen = torch.Generator().manual_seed(2)
    q, k = (torch.randn(1, 2, GRID.tokens, 8, generator=gen) for _ in range(2))
    bias = torch.randn(1, 2, GRID.tokens, GRID.tokens, generator=gen)
    maps, exact = AttentionMaps(q, k, 0.3, GRID, bias), softmax_by_hand(q, k, 0.3, bias)
    assert np.abs(maps.rows([3, 4]).numpy() - exact[:, :, [3, 4]]).max() < 1e-6
    assert np.abs(maps.columns([3, 4]).numpy() - exact[..., [3, 4]].swapaxes(2, 3)).max() < 1e-6
    assert np.abs(maps.mean().numpy() - exact.mean(2)).max() < 1e-6


def test_real_shapes_with_the_reference_inputs_are_exact():
    golden = oracle.load_golden(DATA / "goldens" / "da_v2_vits_252x336.npz")
    # Queries and keys with the shape and spread of a real block, compared with an explicit float64 softmax.
    tokens = golden.meta["attention"]["attn.00"]["tokens"]
    grid = TokenGrid(18, 24, 1)
    assert grid.tokens == tokens
    gen = torch.Generator().manual_seed(3)
    q, k = (2 * torch.randn(1, 6, tokens, 64, generator=gen) for _ in range(2))
    maps = AttentionMaps(q, k, 0.125, grid)
    exact = (q.double() @ k.double().mT * 0.125).softmax(-1)
    everything = list(range(tokens))
    assert (maps.rows(everything) - exact).abs().max() < 1e-6
    assert (maps.columns(everything) - exact.mT).abs().max() < 1e-6


def test_map_places_a_row_on_the_grid(maps, exact):
    row = maps.map(patch=(2, 3), batch=1)
    token = 1 + 2 * GRID.cols + 3
    assert row.dims == ("head", "row", "col")
    assert row.shape == (3, 5, 7)
    assert row.attrs == {"point": "test", "direction": "row", "token": token, "prefix": 1, "batch": 1}
    for r in range(5):
        for c in range(7):
            expected = exact[1, :, token, 1 + r * 7 + c]
            assert np.allclose(row.sel(row=r, col=c), expected, atol=1e-6)
    assert np.allclose(row.class_token, exact[1, :, token, 0], atol=1e-6)
    assert np.allclose(row.sum(("row", "col")) + row.class_token, 1, atol=1e-6)

    column = maps.map(token=0, direction="column")
    assert np.allclose(column.sel(row=4, col=6), exact[0, :, -1, 0], atol=1e-6)


def test_registers_are_coordinates_of_the_map():
    grid = TokenGrid(2, 3, prefix=3)
    q = k = torch.randn(1, 1, grid.tokens, 4)
    row = AttentionMaps(q, k, 1.0, grid).map(patch=(0, 0))
    assert row.shape == (1, 2, 3)
    assert {"class_token", "register_1", "register_2"} <= set(row.coords)
    assert row.attrs["token"] == 3
    none = AttentionMaps(q[:, :, 3:], k[:, :, 3:], 1.0, TokenGrid(2, 3)).map(patch=(1, 2))
    assert none.attrs["token"] == 5
    assert "class_token" not in none.coords


def test_half_precision_gives_the_softmax_of_the_rounded_queries_and_keys(maps):
    for dtype in (torch.float16, torch.bfloat16):
        half = maps.to(dtype=dtype)
        assert half.q.dtype == dtype
        exact = softmax_by_hand(half.q, half.k, half.scale)
        assert half.rows([4]).dtype == torch.float32
        assert np.abs(half.rows([4]).numpy() - exact[:, :, [4]]).max() < 1e-6


def test_matrix_refuses_to_exceed_its_budget(maps):
    assert maps.matrix_bytes == 2 * 3 * 36 * 36 * 4
    with pytest.raises(ValueError, match=r"31,104 bytes \(2 x 3 heads x 36 x 36 float32\).* max_bytes=1,000"):
        maps.matrix(max_bytes=1000)
    assert maps.matrix(max_bytes=maps.matrix_bytes).shape == (2, 3, 36, 36)
    with pytest.raises(InvalidValueError, match=r"max_bytes must be .*nan"):
        maps.matrix(max_bytes=float("nan"))


@pytest.mark.parametrize("max_bytes", [np.int64(31_104), np.float32(31_104), torch.tensor(31_104), float("inf")])
def test_a_budget_is_any_number(maps, max_bytes):
    assert maps.matrix(max_bytes=max_bytes).shape == (2, 3, 36, 36)


@pytest.mark.parametrize("max_bytes", [None, "1 GB", True, [1], 1j])
def test_a_budget_that_is_no_number_is_refused(maps, max_bytes):
    with pytest.raises(InvalidTypeError, match="max_bytes"):
        inspect.unwrap(AttentionMaps.matrix)(maps, max_bytes)  # without the tests' own check of types


@pytest.mark.parametrize("token", [[], [1, 2], None, "1", 1.5])
def test_the_window_is_that_of_one_token(maps, token):
    with pytest.raises(probes.ProbeError, match="token"):
        inspect.unwrap(AttentionMaps.window)(maps, token)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m.rows([36]), IndexError, r"0 to 35 \(1 prefix tokens, then 5 x 7 patches\), got 36"),
        (lambda m: m.columns([-1]), IndexError, r"got -1"),
        (lambda m: m.rows(torch.tensor([0.5])), TypeError, r"integers, got tensor\(\[0\.5"),
        (lambda m: m.map(patch=(5, 0)), IndexError, r"\(5, 0\)"),
        (lambda m: m.map(), ValueError, r"patch=.* token="),
        (lambda m: m.map(patch=(0, 0), token=1), ValueError, r"patch=.* token="),
        (lambda m: m.map(token=0, batch=2), IndexError, r"0 to 1 .*got 2"),
    ],
)
def test_wrong_arguments_are_refused(maps, call, error, message):
    with pytest.raises(error, match=message):
        call(maps)


def test_queries_that_do_not_fit_the_grid_are_refused():
    q = torch.zeros(1, 1, 7, 4)
    with pytest.raises(ValueError, match=r"6 tokens .*\(batch, heads, 6, d\), got \(1, 1, 7, 4\)"):
        AttentionMaps(q, q, 1.0, TokenGrid(2, 3))


# ------------------------------------------------------------------------------------------------------------ gradients


def by_hand(maps: probes.AttentionMaps) -> torch.Tensor:
    """The whole softmax matrix in float64, as plain differentiable operations."""
    order = maps.grid.windows()
    count, inside = order.shape
    whole = torch.zeros(maps.batch, maps.heads, maps.tokens, maps.tokens, dtype=torch.float64)
    for w in range(count):
        q, k = (t.unflatten(0, (-1, count))[:, w].double() for t in (maps.q, maps.k))
        logits = maps.scale * q @ k.mT
        if maps.bias is not None:
            logits = logits + maps.bias.between(torch.arange(inside), torch.arange(inside), w).double()
        index = (..., order[w][:, None], order[w][None])
        whole = whole.index_put(
            (*(torch.arange(n).view(-1, *[1] * (3 - i)) for i, n in enumerate(whole.shape[:2])), *index[1:]),
            logits.softmax(-1),
        )
    return whole


def test_gradients_are_those_of_a_hand_written_softmax(model, x):
    model.requires_grad_(True)
    with probes.capture(model, "encoder.blocks.1.attention") as cap:
        model(x)
    maps = cap["encoder.blocks.1.attention"]
    inputs = [maps.q, maps.k] + ([maps.bias.table] if maps.bias is not None else [])
    matrix = by_hand(maps)
    entropy = -(matrix * matrix.clamp_min(1e-300).log()).sum(-1)
    pairs = (
        (maps.rows([3, 0]), matrix[:, :, [3, 0]]),
        (maps.columns([2, 5]), matrix[..., [2, 5]].mT),
        (maps.mean(), matrix.mean(dim=2)),
        (maps.entropy(), entropy),
        (maps.matrix(), matrix),
        (maps.log_sum_exp(), None),
    )
    gen = torch.Generator().manual_seed(0)
    for got, expected in pairs:
        assert got.requires_grad
        if expected is None:
            continue
        weights = torch.randn(got.shape, generator=gen)
        found = torch.autograd.grad((got * weights).sum(), inputs, retain_graph=True)
        wanted = torch.autograd.grad((expected * weights).sum(), inputs, retain_graph=True)
        for a, b in zip(found, wanted, strict=True):
            assert (a - b).abs().max() < 1e-4 * b.abs().max()


def test_no_graph_is_kept_where_no_gradient_is_wanted(model, x):
    given = x.clone().requires_grad_(True)
    with probes.capture(model, "encoder.blocks.1.attention") as cap:
        model(given)
    maps = cap["encoder.blocks.1.attention"]
    with torch.no_grad():
        plain = maps.columns([2])
        assert not any(
            t.requires_grad for t in (plain, maps.rows([2]), maps.entropy(), maps.mean(), maps.log_sum_exp())
        )
    assert torch.equal(maps.columns([2]).detach(), plain)
    assert maps.columns([2]).requires_grad  # not spoiled by the cached normaliser
    assert maps.map(token=2).values.dtype == np.float32
    assert maps.statistics()["entropy"].shape
    with torch.inference_mode():
        assert torch.equal(maps.columns([2]), plain)
    torch.autograd.grad(maps.columns([2]).sum(), given)


def test_the_normaliser_follows_changed_queries():
    q, k = (torch.randn(1, 2, 6, 4, generator=torch.Generator().manual_seed(n)) for n in (0, 1))
    maps = probes.AttentionMaps(q, k, 0.5, TokenGrid(2, 3))
    maps.columns([0])
    q.mul_(2)
    assert torch.equal(maps.columns([0]), probes.AttentionMaps(q, k, 0.5, TokenGrid(2, 3)).columns([0]))
