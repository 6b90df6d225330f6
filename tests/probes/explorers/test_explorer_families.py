"""The attention explorer on models with biases and windows: its messages, and tokens that move between grids."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
import torch
import traitlets

import dpt
import probes
from dpt import TokenGrid
from dpt.attention import OffsetBias
from probes.explorers import AttentionExplorer
from probes.explorers.shared.packing import pack_attention
from probes.explorers.shared.progress import silent
from tests.models import tiny_beit, tiny_swinv2
from tests.probes.explorers.wire import ask, data_of

IMAGE = np.random.default_rng(3).integers(0, 255, (60, 90, 3), dtype=np.uint8)
# Input pixels: 5 x 7 patches and a class token; 16 x 24, 8 x 12, 4 x 6, 2 x 3 patches in windows of 4 x 4.
SIZES = {"beit": (80, 112), "swinv2": (64, 96)}
MODELS = {"beit": tiny_beit, "swinv2": tiny_swinv2}
BLOCKS = [("beit", block) for block in range(4)] + [("swinv2", block) for block in range(7)]


@pytest.fixture(scope="module")
def models() -> dict[str, dpt.DPT]:
    return {family: make() for family, make in MODELS.items()}


@pytest.fixture(scope="module")
def captures(models) -> dict[str, probes.Capture]:
    found = {}
    for family, model in models.items():
        with probes.capture(model, "attention") as found[family]:
            model.predict(IMAGE, SIZES[family], keep_aspect=False)
    return found


def explorer_of(model: dpt.DPT, **more: Any) -> AttentionExplorer:
    return AttentionExplorer(model, IMAGE, size=SIZES[model.config.family], keep_aspect=False, **more)


def matrix_of(message: dict[str, Any], parts: list[bytes]) -> np.ndarray:
    """(heads, queries, keys) on the block's grid, decoded from a message by the definitions of its fields."""
    heads, tokens, prefix = message["heads"], message["tokens"], message["prefix"]
    q, k = (np.frombuffer(part, "<f2").reshape(heads, tokens, -1).astype(np.float64) for part in parts[:2])
    lse = np.frombuffer(parts[2], "<f4").reshape(heads, tokens)
    window = message.get("window")
    grid = TokenGrid(message["rows"], message["cols"], prefix, window, message.get("shift", (0, 0)))
    members = grid.windows().numpy()  # (windows, T)
    rows, cols = window or (grid.rows, grid.cols)
    table = np.frombuffer(parts[3], "<f4").reshape(heads, 2 * rows - 1, 2 * cols - 1)
    of_prefix = np.frombuffer(parts[4], "<f4").reshape(heads, 3) if prefix else None
    at = np.array([(r, c) for r in range(rows) for c in range(cols)])
    down, right = (at[:, None, axis] - at[None, :, axis] + side - 1 for axis, side in enumerate((rows, cols)))
    bias = np.zeros((heads, members.shape[1], members.shape[1]))
    bias[:, prefix:, prefix:] = table[:, down, right]
    if of_prefix is not None:
        bias[:, 0, 1:], bias[:, 1:, 0], bias[:, 0, 0] = of_prefix[:, :1], of_prefix[:, 1:2], of_prefix[:, 2]
    found = np.zeros((heads, tokens, tokens))
    for w, tokens_in in enumerate(members):
        run = slice(w * len(tokens_in), (w + 1) * len(tokens_in))
        weights = np.exp(q[:, run] @ k[:, run].transpose(0, 2, 1) + bias - lse[:, run, None])
        if any(grid.shift):  # masked unless the offset on the image equals the offset in the window
            row, col = np.divmod(tokens_in, grid.cols)
            apart = (row[:, None] - row[None] != down - rows + 1) | (col[:, None] - col[None] != right - cols + 1)
            weights[:, apart] = 0
        found[:, tokens_in[:, None], tokens_in] = weights
    return found


# ----------------------------------------------------------------------------------------------------------- messages


@pytest.mark.parametrize(("family", "block"), BLOCKS)
def test_every_block_arrives_as_the_attention_of_the_model(models, captures, family, block):
    maps = captures[family][f"encoder.blocks.{block}.attention"]
    message, parts = ask(explorer_of(models[family]), kind="block", block=block)
    assert message["biased"]
    assert message.get("window") == maps.grid.window
    assert (message["heads"], message["rows"], message["cols"]) == (maps.heads, maps.grid.rows, maps.grid.cols)
    exact = maps.matrix()[0].numpy()
    found = matrix_of(message, parts)
    assert np.abs(found - exact).max() < 4e-3  # rows and columns alike
    assert np.abs(found.sum(-1) - 1).max() < 2e-5
    assert (found[exact == 0] == 0).all()
    entropy = -np.where(exact > 0, exact * np.log(np.maximum(exact, 1e-38)), 0).sum(-1).mean(-1)
    assert message["entropy"] == pytest.approx(entropy.tolist(), abs=0.02)


def test_the_size_that_is_foretold_is_the_size_that_comes(models):
    for family, block in BLOCKS:
        explorer = explorer_of(models[family])
        _, parts = ask(explorer, kind="block", block=block)
        assert explorer._attention.bytes_of_parts(block) == sum(map(len, parts))


def test_the_memory_that_is_foretold_bounds_what_is_kept(models, captures):
    """Queries, keys and values share a storage, except in SwinV2, whose normalised copies lack the values."""
    for family, capture in captures.items():
        stores = {
            t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
            for maps in capture.values()
            for t in (maps.q, maps.k)
        }
        foretold = explorer_of(models[family])._subject.bytes_of("attention")
        assert 0.6 * foretold < sum(stores.values()) <= foretold


def test_the_picture_tells_heads_and_grid_of_every_block(models):
    message, _ = ask(explorer_of(models["swinv2"]), kind="picture")
    assert [tuple(shape) for shape in message["shapes"]] == [
        *[(1, 16, 24)] * 2, *[(2, 8, 12)] * 2, *[(4, 4, 6)] * 2, (8, 2, 3)
    ]  # fmt: skip
    assert (message["rows"], message["cols"], message["prefix"]) == (16, 24, 0)


def test_an_attention_that_no_table_describes_is_refused(models, monkeypatch):
    explorer = explorer_of(models["beit"])
    maps = explorer._attention.maps(1, silent)
    monkeypatch.setattr(maps, "bias", torch.zeros(1, 2, 36, 36))
    message, _ = ask(explorer, kind="block", block=1)
    assert message["kind"] == "error"
    assert "UnsupportedBiasError: encoder.blocks.1.attention" in message["text"]


# ------------------------------------------------------------------------------------------------------------ packing


def test_the_mean_key_is_that_of_each_window():
    """The windows have different common parts. Control: with one mean for all windows, rounding errors grow."""
    gen = torch.Generator().manual_seed(0)
    q, k = (torch.randn(2, 3 * 50, 32, generator=gen) for _ in range(2))
    common = 20 * torch.randn(2, 3, 1, 32, generator=gen)
    k = (k.unflatten(1, (3, 50)) + common).flatten(1, 2)
    table = OffsetBias(torch.randn(2, 9, 19, generator=gen))

    def worst(windows: int) -> float:
        packed = pack_attention(q, k, 0.2, table if windows == 3 else None, windows)
        scores = lambda q, k: q.double().unflatten(1, (3, 50)) @ k.double().unflatten(1, (3, 50)).mT  # noqa: E731
        bias = table.dense.double()[0][:, None]
        found, truth = scores(packed.q, packed.k) + bias, 0.2 * scores(q, k) + bias
        return float((found.softmax(-1) - truth.softmax(-1)).abs().max())

    assert worst(3) < 2e-3
    assert worst(1) > 5 * worst(3)


def test_a_bias_of_another_size_is_refused():
    q = torch.zeros(1, 8, 4)
    with pytest.raises(ValueError, match="6 tokens does not fit 8 tokens in 2 windows"):
        pack_attention(q, q, 1.0, OffsetBias(torch.zeros(1, 3, 5)), windows=2)


def test_cosine_attention_at_its_largest_scale_is_still_close():
    """Scale 100 on unit vectors, which trained SwinV2 heads reach: the limit stated in `packing`."""
    gen = torch.Generator().manual_seed(0)
    q, k = (torch.nn.functional.normalize(torch.randn(4, 256, 32, generator=gen), dim=-1) for _ in range(2))
    packed = pack_attention(100 * q, k, 1.0)
    truth = (100 * q.double() @ k.double().mT).softmax(-1)
    found = (packed.q.double() @ packed.k.double().mT).softmax(-1)
    assert float((found - truth).abs().max()) < 1e-2


# ------------------------------------------------------------------------------------------------ from grid to grid


def test_tokens_follow_a_block_to_its_grid(models):
    explorer = explorer_of(models["swinv2"], block=0)
    assert explorer.patch == (8, 12)  # the middle
    explorer.patch = (13, 7)
    explorer.pins = [13 * 24 + 7, 2 * 24 + 20]
    explorer.block = 1
    assert (explorer.patch, explorer.pins) == ((13, 7), [13 * 24 + 7, 2 * 24 + 20])
    explorer.block = 2
    assert (explorer.patch, explorer.pins) == ((6, 3), [6 * 12 + 3, 1 * 12 + 10])
    explorer.block = 6
    assert (explorer.patch, explorer.pins) == ((1, 0), [1 * 3 + 0, 0 * 3 + 2])
    explorer.block = 0  # the centre lies between patches: the lower right one
    assert explorer.patch == (12, 4)
    explorer.patch = (15, 23)
    with pytest.raises(traitlets.TraitError, match="token must be a whole number from 0 to 383, got 384"):
        explorer.token = 384
    explorer.block = 3
    with pytest.raises(IndexError, match="outside the grid of 8 rows x 12 columns"):
        explorer.patch = (8, 0)


def test_pins_that_meet_become_one_and_a_missing_head_the_mean(models):
    explorer = explorer_of(models["swinv2"], block=0, pins=[0, 25], compare="difference")
    explorer.block = 2
    assert (explorer.pins, explorer.compare) == ([0], "a")
    explorer.block, explorer.head = 6, 7
    explorer.block = 5
    assert explorer.head == -1
    with pytest.raises(traitlets.TraitError, match="head must be a whole number from -1 to 3, got 7"):
        explorer.head = 7
    explorer.head = 2
    explorer.block = 6
    assert explorer.head == 2


def test_a_view_that_changes_the_block_has_moved_the_tokens_itself(models):
    explorer = explorer_of(models["swinv2"], block=0)
    explorer.set_state({"_placed": 2, "token": 17, "pins": [5], "block": 2})
    assert (explorer.block, explorer.token, explorer.pins) == (2, 17, [5])
    # a view that changes only the block, e.g. a linked slider: Python moves the tokens and sends one message
    told: list[set[str]] = []
    explorer.send_state = lambda key=None: told.append({key} if isinstance(key, str) else set(key))
    explorer.set_state({"block": 4})
    assert (explorer.token, explorer.pins, explorer._placed) == (0 * 6 + 2, [2], 4)  # (1, 5) and (0, 5) of 8 x 12
    assert sum({"token", "pins", "_placed"} <= names for names in told) == 1


def test_a_change_of_block_in_python_is_one_message(models):
    """Otherwise a view would briefly show tokens of one grid on the grid of another block."""
    explorer = explorer_of(models["swinv2"], block=0, pins=[3])
    told: list[set[str]] = []
    explorer.send_state = lambda key=None: told.append({key} if isinstance(key, str) else set(key))
    explorer.block = 4
    assert told == [{"block", "_placed", "token", "patch", "pins"}]


def test_a_class_token_stays_one_and_beit_keeps_its_patches(models):
    explorer = explorer_of(models["beit"], block=0, token=0, pins=[0, 9])
    explorer.block = 3
    assert (explorer.token, explorer.pins, explorer.patch) == (0, [0, 9], None)


def test_settings_of_the_first_block_are_checked_against_it(models):
    assert explorer_of(models["swinv2"], block=6, token=5, head=7).head == 7
    with pytest.raises(traitlets.TraitError, match="token must be a whole number from 0 to 5, got 6"):
        explorer_of(models["swinv2"], token=6, block=6)
    with pytest.raises(traitlets.TraitError, match="block must be a whole number from 0 to 6, got 7"):
        explorer_of(models["swinv2"], token=6, block=7)


# -------------------------------------------------------------------------------------------------------------- pages


def test_a_page_holds_blocks_of_several_grids_and_starts_on_one_of_them(models, tmp_path):
    explorer = explorer_of(models["swinv2"], block=6, head=7)
    explorer.patch = (1, 2)
    path = explorer.to_html(tmp_path / "page.html", blocks=[0, 3])
    data = data_of(path)
    assert {key: data["state"][key] for key in ("block", "_placed", "token", "head")} == {
        "block": 0,
        "_placed": 0,
        "token": 12 * 24 + 20,
        "head": -1,
    }
    assert (explorer.block, explorer.patch, explorer.head) == (6, (1, 2), 7)  # the widget does not change
    blocks = [reply for reply in data["replies"] if reply["message"]["kind"] == "block"]
    assert [(reply["message"]["rows"], reply["message"]["cols"]) for reply in blocks] == [(16, 24), (8, 12)]
    assert [sum(len(base64.b64decode(part)) for part in reply["buffers"]) for reply in blocks] == [
        explorer._attention.bytes_of_parts(0),
        explorer._attention.bytes_of_parts(3),
    ]
    with pytest.raises(ValueError, match=r"7 blocks of up to 384 tokens takes \d+kiB, limit 97\.7kiB"):
        explorer.to_html(path, blocks="all", limit=100_000)
