"""Position tables and biases equal what the model adds to its tokens and logits in a forward pass."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray

import dpt
from dpt.attention import Attend, OffsetBias
from probes.positions import PositionBiases, PositionTable, frequencies, offered_sizes, positions, strengths
from tests.models import OBLONG, TINY, pictures, tiny_beit, tiny_model, tiny_swinv2

BIASED = [("beit", None), ("beit", (48, 112)), ("swinv2", None), ("swinv2", (64, 96)), ("swinv2", (96, 96))]


def table_of(model: dpt.DPT, size=None) -> PositionTable:
    found = positions(model, size)
    assert isinstance(found, PositionTable)
    return found


def biases_of(model: dpt.DPT, size=None) -> PositionBiases:
    found = positions(model, size)
    assert isinstance(found, PositionBiases)
    return found


def biases_used(model: dpt.DPT, size: tuple[int, int]) -> list[OffsetBias]:
    """The bias argument of each block's attention."""
    used: list[OffsetBias] = []
    handles = [
        module.register_forward_pre_hook(lambda _, args: used.append(args[3]))
        for module in model.modules()
        if isinstance(module, Attend)
    ]
    model(pictures(1, *size))
    for handle in handles:
        handle.remove()
    return used


# ------------------------------------------------------------------------------------------------------------- tables


@pytest.mark.parametrize("size", [(518, 518), (42, 70), (70, 42)])
def test_the_table_is_what_is_added_to_the_tokens(size):
    model = tiny_model()
    seen: dict[str, torch.Tensor] = {}
    model.patch_embed.register_forward_hook(lambda _, args, out: seen.update(patches=out))
    model.encoder.blocks[0].register_forward_pre_hook(lambda _, args: seen.update(tokens=args[0]))
    model(pictures(1, *size))
    tokens = torch.cat((model.encoder.class_token, seen["patches"]), dim=1)
    added = (seen["tokens"] - tokens)[0].numpy()  # (1 + rows*cols, C)
    found = table_of(model, size)
    assert found.table.dims == ("channel", "row", "col")
    assert found.grid == model.token_grid(*size)
    np.testing.assert_allclose(found.table.values.reshape(128, -1).T, added[1:], atol=1e-6)
    np.testing.assert_allclose(found.table["class_token"], added[0], atol=1e-6)


def test_the_default_is_the_stored_table_bit_for_bit():
    model = tiny_model()
    found = table_of(model)
    assert found.stored
    assert not table_of(model, (518, 532)).stored
    stored = model.encoder.positions.table[0, 1:].T.unflatten(1, (37, 37))
    np.testing.assert_array_equal(found.table, stored)
    found.table.values[:] = 0  # a copy: the model is unchanged
    assert stored.abs().max() > 0


def test_resizing_has_dinov2_s_offset():
    """A table whose value is the column index: the scale (g + 0.1) / 37 moves the centres of columns together."""
    model = tiny_model()
    model.encoder.positions.table[0, 1:, 0] = torch.arange(37.0).repeat(37)
    across = table_of(model, (42, 42)).table.sel(channel=0, row=1).values
    assert (across[2] - across[0]) / 2 == pytest.approx(37 / 3.1, abs=0.05)  # control: 37 / 3 is 0.4 more


@pytest.mark.parametrize("centred", [False, True])
def test_similarity_is_the_cosine_of_rows_of_the_table(centred):
    found = table_of(tiny_model(), (42, 70))
    vectors = found.table.stack(token=("row", "col")).T.values.astype(np.float64)
    class_token = found.table["class_token"].values.astype(np.float64)
    if centred:
        class_token, vectors = class_token - vectors.mean(0), vectors - vectors.mean(0)
    own = vectors[1 * 5 + 3]
    expected = [v @ own / np.sqrt((v @ v) * (own @ own)) for v in [*vectors, class_token]]
    similar = found.similarity((1, 3), centred)
    np.testing.assert_allclose(similar.values.ravel(), expected[:-1], atol=1e-6)
    assert float(similar["class_token"]) == pytest.approx(expected[-1], abs=1e-6)
    assert float(similar[1, 3]) == pytest.approx(1)


def test_a_wave_appears_at_its_frequency_in_the_spectrum():
    model = tiny_model()
    row, col = np.mgrid[0:37, 0:37] / 37
    model.encoder.positions.table[0, 1:, 5] = torch.tensor(3 + np.cos(2 * np.pi * (2 * row - 4 * col))).flatten()
    spectrum = table_of(model).spectrum()
    own = spectrum.sel(channel=5)
    assert float(own.sel(down=2, right=-4)) == pytest.approx(0.25, rel=1e-4)  # half of the variance, 1 / 2
    assert float(own.sel(down=-2, right=4)) == pytest.approx(0.25, rel=1e-4)
    assert float(own.sum()) == pytest.approx(0.5, rel=1e-4)
    assert frequencies(spectrum)[5] == pytest.approx(20**0.5, rel=1e-3)


@pytest.mark.parametrize("size", [(518, 518), (42, 70), (56, 56)])
def test_a_channel_s_powers_sum_to_its_variance(size):
    found = table_of(tiny_model(), size)
    power = found.spectrum()
    np.testing.assert_allclose(power.sum(("down", "right")), found.table.var(("row", "col")), rtol=1e-4)
    np.testing.assert_allclose(strengths(found.table.values) ** 2, found.table.var(("row", "col")), rtol=1e-4)
    assert float(power.sel(down=0, right=0).max()) < 1e-12


def test_each_channel_of_the_demo_model_varies_along_one_axis_only():
    """Its table consists of sine waves: half of the channels vary by row, half by column."""
    found = table_of(dpt.load("demo"))
    assert float(found.table[:96].std("col").max()) < 1e-6
    assert float(found.table[96:].std("row").max()) < 1e-6
    assert float(found.table[:96].std("row").min()) > 0.01


# ------------------------------------------------------------------------------------------------------------- biases


@pytest.mark.parametrize(("family", "size"), BIASED)
def test_biases_are_what_attention_was_called_with(family, size):
    model = TINY[family]()
    found = biases_of(model, size)
    used = biases_used(model, found.size)
    assert len(found) == len(used) == model.config.depth
    for block, bias in enumerate(used):
        span, prefix = found.span(block), int(family == "beit")
        dense = replace(bias, bands=None).dense[0].numpy()  # the mask of shifted windows is not part of the bias
        own = found[block]
        assert own.dims == ("head", "down", "right")
        assert own.shape == (model.config.block_heads(block), 2 * span.rows - 1, 2 * span.cols - 1)
        for query in [(0, 0), (span.rows - 1, 1), (1, span.cols - 1)]:
            keys = dense[:, prefix + query[0] * span.cols + query[1], prefix:]
            crop = found.from_query(block, query)
            assert crop.dims == ("head", "row", "col")
            np.testing.assert_array_equal(crop.values.reshape(len(own), -1), keys)
            for key in [(0, 0), (span.rows - 1, span.cols - 1), (1, 0)]:
                entry = own.sel(down=key[0] - query[0], right=key[1] - query[1])
                np.testing.assert_array_equal(entry, crop[:, key[0], key[1]])
        if prefix:
            np.testing.assert_array_equal(own["class_to_patches"], dense[:, 0, 1])
            np.testing.assert_array_equal(own["patches_to_class"], dense[:, 1, 0])
            np.testing.assert_array_equal(own["class_to_class"], dense[:, 0, 0])
        else:
            assert set(own.coords) == {"head", "down", "right"}


@pytest.mark.parametrize("family", ["beit", "swinv2"])
def test_reading_biases_caches_nothing(family):
    """A dense bias is heads x tokens x tokens: 1.6 GB for BEiT-L. Control: a forward pass does cache it."""
    model = TINY[family]()
    for bias in biases_of(model).values():
        assert isinstance(bias, xarray.DataArray)
    modules = [block.attention.positions for block in model.encoder.blocks]
    assert sum(len(module._kept) for module in modules) == 0
    model(pictures(1, *OBLONG[family]))
    assert sum(len(module._kept) for module in modules) == len(modules)


def test_a_larger_window_is_among_the_sizes_of_swinv2():
    model = tiny_swinv2(window=8, base=128)  # tokens of 4 pixels: grids of 32, 16, 8, 4
    native, larger, *_ = offered_sizes(model)
    assert native == (128, 128)
    assert [biases_of(model, size).span(0).rows for size in (native, larger)] == [8, 8]
    assert [biases_of(model, size).span(2).rows for size in (native, larger)] == [8, 10]


# ------------------------------------------------------------------------------------------------------------- both


@pytest.mark.parametrize("family", TINY)
def test_every_suggested_size_works_and_the_first_is_the_default(family):
    model = TINY[family]()
    sizes = offered_sizes(model)
    assert len(set(sizes)) == len(sizes) >= 4
    assert positions(model).size == sizes[0]
    assert [positions(model, size).size for size in sizes] == sizes
    assert str(positions(model)).startswith(("PositionTable(128 channels, 37 x 37", "PositionBiases("))


def test_models_in_half_precision_or_training_mode_are_not_changed():
    model = tiny_model().half()
    assert table_of(model).table.dtype == np.float32
    model = tiny_beit().train().requires_grad_(True)
    assert biases_of(model)[0].dtype == np.float32
    assert model.training
    assert all(p.grad is None for p in model.parameters())


def test_wrong_sizes_blocks_patches_and_models_are_refused():
    model = tiny_model()
    with pytest.raises(ValueError, match=r"14.* 500 x 500.* 504 x 504"):
        positions(model, 500)
    with pytest.raises(IndexError, match=r"\(3, 0\)"):
        table_of(model, (42, 70)).similarity((3, 0))
    biases = biases_of(tiny_beit())
    with pytest.raises(KeyError, match=r"0 to 3, got 4"):
        biases[4]
    with pytest.raises(IndexError, match=r"\(5, 0\)"):
        biases.from_query(0, (5, 0))
    model.encoder.positions = torch.nn.Identity()
    with pytest.raises(NotImplementedError, match=r"depth.anything: .*BEiT, SwinV2"):
        positions(model)
