"""The one mapping between tokens, patches and pixels, also for images that the grid does not divide."""

from __future__ import annotations

import numpy as np
import pytest

from dpt import TokenGrid
from dpt.errors import DPTError

GRID = TokenGrid(3, 5, prefix=2)
SIZES = [(42, 70), (43, 71), (101, 99), (7, 13), (3, 5), (480, 641)]


def test_tokens_number_the_patches_row_by_row_after_the_prefix():
    assert (GRID.patches, GRID.tokens) == (15, 17)
    assert [GRID.patch(t) for t in (0, 1, 2, 6, 7, 16)] == [None, None, (0, 0), (0, 4), (1, 0), (2, 4)]
    assert all(GRID.token(*patch) == t for t in range(2, 17) if (patch := GRID.patch(t)))
    with pytest.raises(IndexError, match=r"patch \(3, 0\) is outside the grid of 3 rows x 5 columns"):
        GRID.token(3, 0)
    with pytest.raises(IndexError, match="token 17 is outside"):
        GRID.patch(17)


def test_positions_fall_into_patches():
    assert GRID.patch_at(0, 0, (42, 70)) == (0, 0)
    assert GRID.patch_at(13.99, 14, (42, 70)) == (0, 1)
    assert GRID.patch_at(14, 13.99, (42, 70)) == (1, 0)
    assert GRID.patch_at(42, 70, (42, 70)) == (2, 4), "the outer border belongs to the last patch"
    assert GRID.patch_at(0.34, 0.61, (1.0, 1.0)) == (1, 3), "shares of an image"
    assert GRID.patch_at(14, 14, (43, 71)) == (0, 0), "patches of 14.33 x 14.2 pixels"
    assert GRID.patch_at(15, 15, (43, 71)) == (1, 1)


@pytest.mark.parametrize(("y", "x"), [(-0.1, 0), (0, -1), (42.1, 0), (0, 71)])
def test_positions_outside_the_image_are_refused(y, x):
    with pytest.raises(IndexError, match="outside an image of 42 x 70") as error:
        GRID.patch_at(y, x, (42, 70))
    assert isinstance(error.value, DPTError)


@pytest.mark.parametrize("size", SIZES)
def test_boxes_partition_the_image_and_agree_with_positions(size):
    covered = np.zeros(size, int)
    rows, cols = GRID.patches_of_pixels(size)
    for row in range(3):
        for col in range(5):
            top, left, bottom, right = GRID.box(row, col, size)
            covered[top:bottom, left:right] += 1
            assert {GRID.patch_at(y, x, size) for y in range(top, bottom) for x in range(left, right)} == {(row, col)}
            assert set(rows[top:bottom]) == {row}
            assert set(cols[left:right]) == {col}
            exact = GRID.edges(row, col, size)
            assert all(0 <= whole - edge < 1 for whole, edge in zip((top, left, bottom, right), exact, strict=True))
    assert (covered == 1).all()


def test_boxes_of_known_images():
    assert GRID.box(1, 2, (42, 70)) == GRID.edges(1, 2, (42, 70)) == (14, 28, 28, 42)
    assert GRID.box(1, 2, (43, 71)) == (15, 29, 29, 43)
    assert GRID.edges(1, 2, (43, 71)) == pytest.approx((43 / 3, 28.4, 86 / 3, 42.6))
    with pytest.raises(IndexError, match=r"patch \(0, 5\)"):
        GRID.box(0, 5, (42, 70))
    with pytest.raises(TypeError, match=r"1\.5"):
        GRID.edges(1.5, 0, (42, 70))


def test_a_grid_larger_than_the_image_has_empty_boxes():
    boxes = [TokenGrid(4, 4).box(row, 0, (2, 2)) for row in range(4)]
    assert [bottom - top for top, _, bottom, _ in boxes] == [1, 0, 1, 0]


def test_a_patch_keeps_its_place_on_another_grid():
    fine, coarse = TokenGrid(8, 12), TokenGrid(2, 3)
    assert [fine.patch_in(coarse, row, 5)[0] for row in range(8)] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert coarse.patch_in(fine, 1, 2) == (6, 10), "its centre lies on a border and belongs to the lower right patch"
    assert TokenGrid(37, 49).patch_in(TokenGrid(19, 25), 36, 48) == (18, 24)
    before, after = TokenGrid(8, 12, prefix=1), TokenGrid(2, 3, prefix=1)
    assert [before.token_in(after, t) for t in (0, 1, 96)] == [0, 1, 6]
    with pytest.raises(IndexError, match=r"patch \(8, 0\)"):
        fine.patch_in(coarse, 8, 0)
