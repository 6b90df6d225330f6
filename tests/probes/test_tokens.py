"""Token maps and the outlier rule agree with numbers computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray

import probes
from dpt import TokenGrid
from probes import tokens
from tests.models import OBLONG, TINY, pictures


@pytest.fixture(params=TINY)
def family(request) -> str:
    return request.param


def captured(family: str, *selectors: str, batch: int = 2) -> probes.Capture:
    model = TINY[family]()
    with torch.no_grad(), probes.capture(model, *selectors) as cap:
        model(pictures(batch, *OBLONG[family]))
    return cap


def test_norms_lie_on_their_block_s_grid(family):
    cap = captured(family, "tokens")
    found = tokens.norms(cap, batch=1)
    assert list(found) == list(range(len(cap)))
    for block, map_ in found.items():
        grid = cap.grid_of(f"encoder.blocks.{block}.tokens")
        values = cap[f"encoder.blocks.{block}.tokens"][1].double()
        assert map_.dims == ("row", "col")
        assert map_.shape == (grid.rows, grid.cols)
        for row, col in [(0, 0), (grid.rows - 1, 0), (0, grid.cols - 1)]:
            by_hand = float((values[grid.token(row, col)] ** 2).sum()) ** 0.5
            assert float(map_.sel(row=row, col=col)) == pytest.approx(by_hand, rel=1e-5)
        if grid.prefix:
            assert float(map_.class_token) == pytest.approx(float(values[0].norm()), rel=1e-5)
        else:
            assert "class_token" not in map_.coords
        assert map_.attrs == {"block": block, "batch": 1}


def test_norms_of_either_group_are_the_same(family):
    both = captured(family, "norms", "tokens")
    only = captured(family, "norms")
    for block, map_ in tokens.norms(only).items():
        xarray.testing.assert_allclose(map_, tokens.norms(both)[block])
        xarray.testing.assert_allclose(map_, tokens.norms(captured(family, "tokens"))[block])
    assert tokens.norms(captured(family, "*.1.norms")).keys() == {1}


def test_channels_are_the_tokens(family):
    cap = captured(family, "tokens")
    block = len(cap) - 1
    grid = cap.grid_of(f"encoder.blocks.{block}.tokens")
    maps = tokens.channels(cap, block, batch=1)
    values = cap[f"encoder.blocks.{block}.tokens"][1]
    assert maps.dims == ("channel", "row", "col")
    assert maps.shape == (values.shape[1], grid.rows, grid.cols)
    assert float(maps.sel(channel=5, row=1, col=0)) == float(values[grid.token(1, 0), 5])
    if grid.prefix:
        assert np.array_equal(maps.class_token, values[0])
    norms = np.sqrt((maps**2).sum("channel"))
    np.testing.assert_allclose(norms, tokens.norms(cap, batch=1)[block], rtol=1e-5)


def test_registers_have_names():
    grid = TokenGrid(2, 3, prefix=3)
    maps = tokens.on_grid(np.arange(18.0).reshape(2, 9), grid)
    assert maps.class_token.values.tolist() == [0, 9]
    assert maps.register_2.values.tolist() == [2, 11]
    assert maps.values.tolist() == [[[3, 4, 5], [6, 7, 8]], [[12, 13, 14], [15, 16, 17]]]


def test_values_that_a_capture_lacks_are_refused(family):
    cap = captured(family, "depth")
    with pytest.raises(probes.ProbeError, match='"norms" or "tokens"'):
        tokens.norms(cap)
    with pytest.raises(probes.ProbeError, match=r"encoder\.blocks\.1\.tokens"):
        tokens.channels(cap, 1)
    with pytest.raises(IndexError, match=r"0 to 1 .*got 2"):
        tokens.norms(captured(family, "norms"), batch=2)
    with pytest.raises(ValueError, match="1 prefix tokens and 2 x 3 patches needs 7 tokens, got 5"):
        tokens.on_grid(np.zeros((1, 5)), TokenGrid(2, 3, prefix=1))


# ---------------------------------------------------------------------------------------------------------- outliers


def test_the_rule_by_hand():
    """Sorted: 1 2 2 3 4 4 5 40. The median is 3.5. The median of the deviations below, the MAD, is 1.5."""
    norms = np.array([[2.0, 40.0, 3.0, 1.0], [4.0, 5.0, 2.0, 4.0]])
    deviations = sorted(abs(value - 3.5) for value in norms.flat)
    assert deviations == [0.5, 0.5, 0.5, 1.5, 1.5, 1.5, 2.5, 36.5]
    assert tokens.threshold(norms, k=6.0) == 3.5 + 6 * 1.5
    assert np.argwhere(tokens.outliers(norms, k=6.0)).tolist() == [[0, 1]]
    assert np.argwhere(tokens.outliers(norms, k=0.5)).tolist() == [[0, 1], [1, 1]]  # 5 > 4.25
    assert not tokens.outliers(norms, k=24.4).any()  # 3.5 + 36.6


def test_equal_norms_have_no_outliers_and_few_others_do():
    """With a MAD of 0 not every differing token is an outlier. By hand: 8 of 9 are 10, the mean deviation is 90 / 9."""
    same = np.full((3, 3), 10.0)
    assert tokens.threshold(same) == 10
    assert not tokens.outliers(same, k=0.0).any()
    one = same.copy()
    one[1, 2] = 100.0
    assert tokens.threshold(one, k=6.0) == pytest.approx(10 + 6 * 10 * 0.6744897501960817 / (2 / np.pi) ** 0.5)
    assert np.argwhere(tokens.outliers(one, k=6.0)).tolist() == [[1, 2]]
    nearly = np.repeat(10.0, 100)
    nearly[:3] = [10.1, 9.9, 60.0]
    assert np.flatnonzero(tokens.outliers(nearly)).tolist() == [2]


def test_outliers_do_not_shift_the_threshold():
    """Control: a rule of mean and standard deviation misses half of the same outliers."""
    norms = np.random.default_rng(0).normal(50, 3, 1000)
    norms[:150] = 500.0
    norms[150:300] = 200.0
    assert np.flatnonzero(tokens.outliers(norms)).tolist() == list(range(300))
    assert (norms > norms.mean() + 3 * norms.std()).sum() < 300


def test_the_mask_keeps_the_map_s_coordinates():
    cap = captured("depth-anything", "norms")
    map_ = tokens.norms(cap)[2]
    mask = tokens.outliers(map_, k=1.0)
    assert mask.dtype == bool
    assert mask.dims == ("row", "col")
    assert "class_token" in mask.coords
    assert 0 < int(mask.sum()) < mask.size / 2


@pytest.mark.parametrize("k", [-1.0, float("nan"), float("inf")])
def test_an_impossible_k_is_refused(k):
    with pytest.raises(ValueError, match=f"k .*{k}"):
        tokens.outliers(np.ones((2, 2)), k)


def test_norms_that_overflowed_are_refused():
    with pytest.raises(ValueError, match=r"NaN or infinity.* overflowed"):
        tokens.outliers(np.array([1.0, np.inf, 2.0]))


# -------------------------------------------------------------------------------------------------- similarity and PCA


@pytest.mark.parametrize("centred", [False, True])
def test_similarity_is_the_cosine_of_two_tokens(family, centred):
    cap = captured(family, "tokens")
    block = 1
    name = f"encoder.blocks.{block}.tokens"
    grid, values = cap.grid_of(name), cap[name][1].double()
    if centred:
        values = values - values[grid.prefix :].mean(0)
    found = tokens.similarity(cap, block, patch=(1, 0), centred=centred, batch=1)
    assert found.dims == ("row", "col")
    assert found.shape == (grid.rows, grid.cols)
    own = values[grid.token(1, 0)]
    for row, col in [(0, 0), (1, 0), (grid.rows - 1, grid.cols - 1)]:
        by_hand = float(torch.nn.functional.cosine_similarity(values[grid.token(row, col)], own, dim=0))
        assert float(found.sel(row=row, col=col)) == pytest.approx(by_hand, abs=1e-6)
    assert float(found.sel(row=1, col=0)) == pytest.approx(1, abs=1e-6)
    assert found.attrs == {"block": block, "batch": 1, "token": grid.token(1, 0), "centred": centred}
    if grid.prefix:
        by_hand = float(torch.nn.functional.cosine_similarity(values[0], own, dim=0))
        assert float(found.class_token) == pytest.approx(by_hand, abs=1e-6)
        other = tokens.similarity(cap, block, token=0, centred=centred, batch=1)
        assert float(other.sel(row=1, col=0)) == pytest.approx(by_hand, abs=1e-6)
        assert float(other.class_token) == pytest.approx(1, abs=1e-6)


def test_similarity_refuses_patches_tokens_and_points_that_do_not_exist():
    cap = captured("depth-anything", "tokens")
    grid = cap.grid_of("encoder.blocks.1.tokens")
    with pytest.raises(IndexError, match=rf"patch \({grid.rows}, 0\) is outside the grid"):
        tokens.similarity(cap, 1, patch=(grid.rows, 0))
    count = grid.tokens
    with pytest.raises(IndexError, match=rf"block 1 .*0 to {count - 1}, got token {count}"):
        tokens.similarity(cap, 1, token=count)
    for wrong in ({}, {"patch": (0, 0), "token": 0}):
        with pytest.raises(ValueError, match=r"patch=.* token="):
            tokens.similarity(cap, 1, **wrong)
    with pytest.raises(probes.ProbeError, match=r"encoder\.blocks\.1\.tokens"):
        tokens.similarity(captured("depth-anything", "norms"), 1, token=0)
    assert tokens.cosines_with(np.zeros(2), np.ones((3, 2))).tolist() == [0, 0, 0]


def test_principal_components_are_those_of_a_singular_value_decomposition(family):
    cap = captured(family, "tokens")
    block = 1
    name = f"encoder.blocks.{block}.tokens"
    grid, values = cap.grid_of(name), cap[name][1].double().numpy()
    found = tokens.pca(cap, block, 4, batch=1)
    assert found.dims == ("component", "row", "col")
    assert found.shape == (4, grid.rows, grid.cols)
    mean = values[grid.prefix :].mean(0)
    _, sizes, axes = np.linalg.svd(values[grid.prefix :] - mean, full_matrices=False)
    np.testing.assert_allclose(found.explained, (sizes**2 / (sizes**2).sum())[:4], rtol=1e-9)
    for n in range(4):
        axis = axes[n] if axes[n][abs(axes[n]).argmax()] > 0 else -axes[n]
        coordinates = (values - mean) @ axis
        np.testing.assert_allclose(found[n].values.ravel(), coordinates[grid.prefix :], atol=1e-5 * sizes[0])
        if grid.prefix:
            assert float(found.class_token[n]) == pytest.approx(coordinates[0], abs=1e-5 * sizes[0])


def test_an_impossible_number_of_components_is_refused():
    cap = captured("depth-anything", "tokens")
    grid = cap.grid_of("encoder.blocks.1.tokens")
    channels = cap["encoder.blocks.1.tokens"].shape[-1]
    most = min(channels, grid.patches - 1)
    assert len(tokens.pca(cap, 1, most)) == most
    for wrong in (0, most + 1):
        message = f"1 to {most} .*{grid.patches} patches x {channels} channels of block 1, got {wrong}"
        with pytest.raises(ValueError, match=message):
            tokens.pca(cap, 1, wrong)
    for wrong in (2.5, "3"):
        with pytest.raises(TypeError, match=f"1 to {most}, got {wrong!r}"):
            tokens.pca.__wrapped__(cap, 1, wrong)  # bypasses the type checker of the tests, which users do not run


def test_tokens_that_overflowed_have_neither_similarity_nor_components():
    cap = captured("depth-anything", "tokens")
    cap["encoder.blocks.1.tokens"][0, 2, 3] = float("nan")
    for work in (tokens.pca, lambda cap, block, **more: tokens.similarity(cap, block, token=1, **more)):
        with pytest.raises(ValueError, match=r"block 1 .*NaN or infinity.*model\.float\(\)"):
            work(cap, 1)
        assert np.isfinite(work(cap, 1, batch=1)).all()  # the control: the other image
