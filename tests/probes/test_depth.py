"""Depth maps as numbers: facts that hold for every map."""

from __future__ import annotations

import numpy as np
import pytest

from probes.depth import equalise, fit, metres, nearness, plane, within

RNG = np.random.default_rng(0)
DEPTH = RNG.random((20, 30), dtype=np.float32) * 7 + 3
Y, X = np.mgrid[0:20, 0:30].astype(np.float64)


def test_nearness_runs_from_the_farthest_to_the_nearest():
    unit = nearness(DEPTH)
    assert (unit.min(), unit.max()) == (0, 1)
    assert unit.argmax() == DEPTH.argmax()
    assert np.allclose(nearness(DEPTH, metric=True), 1 - unit, atol=1e-6)
    assert not nearness(np.full((3, 4), 5.0)).any()
    assert not nearness(np.full((3, 4), 5.0), metric=True).any()
    holed = DEPTH.copy()
    holed[2, 3], holed[4, 5] = np.nan, np.inf
    assert np.isnan(nearness(holed)[[2, 4], [3, 5]]).all()
    with pytest.raises(ValueError, match="only NaN or infinity"):
        nearness(np.full((3, 4), np.nan))


def test_thresholds_keep_the_pixels_between_them():
    unit = nearness(DEPTH)
    mask = within(DEPTH, far=0.25, near=0.75)
    assert mask.sum() == ((unit >= 0.25) & (unit <= 0.75)).sum()
    assert 0 < mask.sum() < mask.size
    assert within(DEPTH).all()
    # Metres increase with distance: the same scene gives the same pixels.
    assert np.array_equal(within(-DEPTH, 0.25, 0.75, metric=True), mask)
    holed = DEPTH.copy()
    holed[2, 3] = np.nan
    assert within(holed).sum() == DEPTH.size - 1
    with pytest.raises(ValueError, match=r"got far=0.8, near=0.2"):
        within(DEPTH, 0.8, 0.2)


def test_metres_are_right_at_both_ends_and_linear_in_inverse_depth_between():
    z = metres(DEPTH, near=2.0, far=50.0)
    assert z.flat[DEPTH.argmax()] == pytest.approx(2.0)
    assert z.flat[DEPTH.argmin()] == pytest.approx(50.0)
    assert np.allclose(np.corrcoef(1 / z.ravel(), DEPTH.ravel())[0, 1], 1)
    # The result does not depend on the scale and offset of the prediction.
    assert np.allclose(metres(3 * DEPTH - 1, 2.0, 50.0), z, rtol=1e-4)
    sky = metres(DEPTH, 1.0, np.inf)
    assert np.isinf(sky).sum() == 1
    assert sky.min() == pytest.approx(1.0)
    with pytest.raises(ValueError, match=r"0 < near < far.* near=5.0, far=5.0"):
        metres(DEPTH, 5.0, 5.0)


def test_a_plane_minus_its_fit_is_zero():
    exact = 0.3 * X - 1.7 * Y + 40
    assert np.abs(exact - plane(exact)).max() < 1e-12 * np.abs(exact).max()
    # An object on a floor is preserved if only the floor is fitted.
    standing = np.where((X > 10) & (Y > 8), 5.0, 0.0)
    levelled = exact + standing - plane(exact + standing, where=standing == 0)
    assert np.allclose(levelled, standing, atol=1e-10)
    # The control: fitted to all pixels, the floor is not level.
    assert not np.allclose(exact + standing - plane(exact + standing), standing, atol=0.1)
    holed = exact.copy()
    holed[3, 4] = np.nan
    assert np.allclose(plane(holed), exact)


def test_the_plane_is_the_least_squares_fit():
    residual = (DEPTH - plane(DEPTH)).astype(np.float64)
    for direction in (np.ones_like(X), X, Y):
        assert abs((residual * direction).mean()) < 1e-4  # the residual is orthogonal to the plane


@pytest.mark.parametrize("where", [np.zeros((20, 30), bool), X == 4, (X == 4) & (Y < 2)])
def test_pixels_that_determine_no_plane_are_refused(where):
    with pytest.raises(ValueError, match=rf"got {where.sum()} pixels"):
        plane(DEPTH, where)


def test_equalised_values_are_spread_evenly_and_in_order():
    skewed = DEPTH**9
    even = equalise(skewed)
    assert (even.min(), even.max()) == (0, 1)
    counts, _ = np.histogram(even, bins=10)
    assert np.ptp(counts) <= 1
    assert np.array_equal(np.argsort(even.ravel(), kind="stable"), np.argsort(skewed.ravel(), kind="stable"))
    steps = np.repeat(np.arange(4.0), 5).reshape(4, 5)
    assert np.allclose(np.unique(equalise(steps)), [0, 1 / 3, 2 / 3, 1])
    assert not equalise(np.ones((3, 4))).any()  # flat


def test_equalising_counts_only_the_selected_pixels():
    where = X < 10
    even = equalise(DEPTH, where)
    assert np.isnan(even[~where]).all()
    assert np.nanmax(even) == 1
    with pytest.raises(ValueError, match=r"\(20, 30\), got \(3, 3\)"):
        equalise(DEPTH, np.ones((3, 3), bool))


HIDDEN = RNG.random((20, 30)) > 0.8


@pytest.mark.parametrize(
    "of",
    [nearness, within, lambda depth: metres(depth, 1.5, 20.0), plane, equalise],
    ids=["nearness", "within", "metres", "plane", "equalise"],
)
def test_masked_pixels_count_as_little_as_nan(of):
    spoilt = np.where(HIDDEN, np.float32(1e6), DEPTH)
    masked = of(np.ma.masked_array(spoilt, HIDDEN))
    assert not isinstance(masked, np.ma.MaskedArray)
    assert np.array_equal(masked, of(np.where(HIDDEN, np.float32(np.nan), DEPTH)), equal_nan=True)
    assert not np.array_equal(masked, of(spoilt), equal_nan=True)  # control: the hidden values matter


def test_a_fit_needs_a_value_in_every_pixel():
    assert fit(DEPTH, 2 * DEPTH + 1)[1] == pytest.approx(1)
    for bad in (np.nan, np.inf):
        spoilt = DEPTH.copy()
        spoilt[0, :5] = bad
        with pytest.raises(ValueError, match=r"depth .* in 5 of 600 pixels"):
            fit(spoilt, DEPTH)
        with pytest.raises(ValueError, match=r"truth .* in 5 of 600 pixels"):
            fit(DEPTH, spoilt)
    with pytest.raises(ValueError, match=f"truth .* in {HIDDEN.sum()} of 600 pixels"):
        fit(DEPTH, np.ma.masked_array(DEPTH, HIDDEN))
    assert fit(DEPTH[~HIDDEN][None], 2 * DEPTH[~HIDDEN][None])[1] == pytest.approx(1)  # the advice works
