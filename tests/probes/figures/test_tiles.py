"""Tiles hold every value in its place, and their colours mean what the documentation says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dpt import TokenGrid
from probes.figures import tiles

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (28, 42, 3), dtype=np.uint8)


def test_diced_patches_are_those_of_the_image_and_the_gaps_are_transparent():
    diced = tiles.dice(IMAGE, 14, gap=3)
    assert diced.shape == (2 * 14 + 3, 3 * 14 + 2 * 3, 4)
    for row in range(2):
        for col in range(3):
            cell = diced[17 * row : 17 * row + 14, 17 * col : 17 * col + 14]
            assert np.array_equal(cell[..., :3], IMAGE[14 * row : 14 * row + 14, 14 * col : 14 * col + 14])
    assert (diced[..., 3] == 255).sum() == 28 * 42
    with pytest.raises(ValueError, match="multiples of 16 pixels, got 28 x 42"):
        tiles.dice(IMAGE, 16)


def test_tokens_are_arranged_row_by_row_after_the_prefix():
    tokens = torch.arange(14.0).view(7, 2)
    maps = tiles.maps_of(tokens, TokenGrid(2, 3, prefix=1))
    assert maps[0].tolist() == [[2, 4, 6], [8, 10, 12]]
    with pytest.raises(ValueError, match=r"expected 9 tokens .*, got 7"):
        tiles.maps_of(tokens, TokenGrid(3, 3))


def test_principal_colours_distinguish_different_tokens_and_only_those():
    gen = torch.Generator().manual_seed(0)
    kinds = torch.randn(3, 16, generator=gen)
    which = torch.arange(40).view(5, 8) // 14  # three bands, each of identical tokens
    tile = tiles.principal(kinds[which].permute(2, 0, 1))
    colours = {tuple(int(c) for c in tile[which.numpy() == n][0]) for n in range(3)}
    assert len(colours) == 3
    for n in range(3):
        assert (tile[which.numpy() == n] == tile[which.numpy() == n][0]).all()
    # the sign of a component is arbitrary: the colours stay the same
    assert np.array_equal(tiles.principal(-kinds[which].permute(2, 0, 1)), tile)
    assert (tiles.principal(torch.ones(2, 3, 4))[..., 3] == 255).all()  # a flat map with fewer than three channels


def test_the_liveliest_channels_come_first():
    maps = (
        torch.randn(6, 9, 9, generator=torch.Generator().manual_seed(0))
        * torch.tensor([1.0, 5, 2, 0, 9, 3])[:, None, None]
        + torch.tensor([100.0, 0, 0, 50, 0, 0])[:, None, None]
    )
    assert tiles.liveliest(maps, 3) == [4, 1, 5]


def test_a_colour_range_can_be_symmetric_about_zero():
    values = torch.tensor([[-1.0, 0.0, 3.0]])
    middle = tiles.coloured(torch.tensor([[-3.0, 0.0, 3.0]]), "RdBu_r", zero=True)[0, 1]
    assert np.array_equal(tiles.coloured(values, "RdBu_r", zero=True)[0, 1], middle)
    assert not np.array_equal(tiles.coloured(values, "RdBu_r")[0, 1], middle)
    assert tiles.coloured(torch.zeros(2, 2)).shape == (2, 2, 4)  # a flat map


def test_tiles_are_enlarged_by_whole_numbers_and_laid_out_in_rows():
    tile = np.dstack([IMAGE, np.full((28, 42), 255, np.uint8)])
    big = tiles.enlarged(tile, 100)
    assert np.array_equal(big[::2, ::2], tile)
    assert big.shape == (56, 84, 4)
    assert tiles.enlarged(tile, 21).shape == (14, 21, 4)
    whole = tiles.mosaic([tile] * 5, columns=3, side=42, gap=2)
    assert whole.shape == (2 * 28 + 2, 3 * 42 + 4, 4)
    assert np.array_equal(whole[30:58, 44:86], tile)
    assert not whole[30:, 88:].any()  # the sixth place is empty


def test_tokens_of_a_window_share_a_tint():
    grid = TokenGrid(4, 4, window=(2, 2), shift=(1, 1))
    tinted = tiles.tinted_windows(np.zeros((40, 40, 3), np.uint8), grid)
    tint = {token: tuple(tinted[token // 4 * 10 + 5, token % 4 * 10 + 5]) for token in range(16)}
    for window in grid.windows().tolist():
        assert len({tint[token] for token in window}) == 1
    assert len(set(tint.values())) == 4
    plain = tiles.tinted_windows(IMAGE, TokenGrid(2, 3))
    assert np.array_equal(plain[..., :3], IMAGE)
