"""What an explorer shows, in words and as a picture: for saved notebooks and for pages without scripts."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

import dpt
import probes
from probes.explorers import (
    AttentionExplorer,
    DepthExplorer,
    FusionExplorer,
    ModelTour,
    NormExplorer,
    PositionExplorer,
)
from probes.explorers.attention import picture as attention_picture
from probes.explorers.norms import picture as norm_picture
from probes.explorers.shared import drawing
from probes.explorers.shared.scales import linear_scale, log_scale, signed_log_scale, signed_scale
from probes.explorers.shared.summary import Summary, image_words, name_of
from tests.models import OBLONG, tiny_model

IMAGE = np.random.default_rng(3).integers(0, 255, (60, 90, 3), dtype=np.uint8)
SIZE = (70, 98)  # 5 x 7 patches of the tiny Depth-Anything model
FIXED = {"size": SIZE, "keep_aspect": False}


def every_explorer(model: dpt.DPT, image: Any = IMAGE) -> list[Any]:
    kinds = (AttentionExplorer, NormExplorer, FusionExplorer, DepthExplorer, ModelTour)
    height, width = (2 * side for side in OBLONG[model.config.family])
    small = {"size": (height, width), "keep_aspect": False}
    return [*(kind(model, image, **small) for kind in kinds), PositionExplorer(model, (height, width))]


def opened(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png)).convert("RGB")


def test_every_explorer_of_every_family_draws_a_small_picture_of_itself(model):
    for explorer in every_explorer(model):
        png = explorer._picture()
        assert png is not None, type(explorer).__name__
        assert opened(png).width == drawing.WIDTH
        assert len(png) < 150_000
        assert np.asarray(opened(png)).std() > 10  # not a blank sheet


def test_a_summary_names_the_file_the_model_and_the_state(tmp_path):
    model, path = tiny_model(), tmp_path / "photo.png"
    Image.fromarray(IMAGE).save(path)
    explorer = AttentionExplorer(model, path, block=2, token=0, **FIXED)
    summary = explorer._summary()
    assert summary.image == "photo.png, 90 x 60 pixels"
    assert summary.model == model.title == "Depth-Anything V2 ViT (width 128, 4 blocks)"
    model.name = "my garden"
    assert explorer._summary().model == "Depth-Anything V2 ViT (width 128, 4 blocks), my garden"
    assert "block 2 of 0 to 3, class token" in summary.shows
    explorer.patch = (3, 5)
    assert "patch (3, 5)" in explorer._summary().shows


def test_a_summary_of_the_tour_says_no_name_twice():
    tour = ModelTour(tiny_model(), IMAGE, part="picture", **FIXED)
    assert tour._summary().shows.startswith("Picture;")
    tour.part = "encoder.blocks.1"
    assert "(encoder.blocks.1), " in tour._summary().shows


def test_the_name_of_a_file_can_be_sent_to_a_browser(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")
    Image.fromarray(IMAGE).save(path)
    assert AttentionExplorer(tiny_model(), path, **FIXED)._summary().image == "caf\ufffd.png, 90 x 60 pixels"


def test_a_summary_of_a_changed_image_has_its_name(tmp_path):
    path = tmp_path / "other.png"
    Image.fromarray(IMAGE).save(path)
    explorer = FusionExplorer(tiny_model(), IMAGE)
    assert explorer._summary().image == "90 x 60 pixels"
    explorer.image = path
    assert explorer._summary().image == "other.png, 90 x 60 pixels"
    explorer.size = 56  # another subject of the same image
    assert explorer._summary().image == "other.png, 90 x 60 pixels"


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("a/b photo.jpg", "b photo.jpg"),
        (Path("x/y.png"), "y.png"),
        ("https://host/d/p%C3%A9.jpg?size=2", "p\u00e9.jpg"),
        (IMAGE, None),
        (b"\xff\xd8", None),
    ],
)
def test_only_paths_and_addresses_have_names(given, name):
    assert name_of(given) == name


def test_words_of_an_image_without_a_name():
    assert image_words(None, (60, 90, 3)) == "90 x 60 pixels"


@pytest.fixture
def panels(monkeypatch) -> list[Any]:
    """What pictures are made of, in place of the pictures."""
    drawn: list[Any] = []

    def picture(summary: Summary, main: Any, tiles: Any = (), bar: Any = None, note: str = "") -> bytes:
        drawn.extend([main, tiles])
        return b""

    for module in (attention_picture, norm_picture):
        monkeypatch.setattr(module, "picture", picture)
    return drawn


def viridis(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return matplotlib.colormaps["viridis"]((values - low) / (high - low), bytes=True)[..., :3]


def test_tiles_of_attention_hold_the_exact_weights_of_the_heads(panels):
    model = tiny_model()
    explorer = AttentionExplorer(model, IMAGE, block=2, **FIXED)
    explorer.patch = (1, 4)
    explorer._picture()
    with probes.capture(model, "encoder.blocks.2.attention") as cap:
        model.predict(IMAGE, SIZE, keep_aspect=False)
    weights = cap["encoder.blocks.2.attention"].map(patch=(1, 4)).values
    main, tiles = panels
    assert [tile.label for tile in tiles] == ["Mean", "Head 0", "Head 1"]
    for tile, values in zip(tiles, [weights.mean(axis=0), *weights], strict=True):
        np.testing.assert_array_equal(tile.pixels, viridis(values.astype(np.float64), 0, float(values.max())))
    assert main[0].marks[0].cell == (1, 4)


def test_the_difference_of_two_pins_marks_both(panels):
    explorer = AttentionExplorer(tiny_model(), IMAGE, pins=[3, 9], compare="difference", head=1, scale="log", **FIXED)
    explorer._picture()
    main, tiles = panels
    assert [mark.second for mark in main[0].marks] == [False, True]
    assert [tile.label for tile in tiles if tile.chosen] == ["Head 1"]
    assert "less" in explorer._summary().shows


def test_tiles_of_norms_hold_the_norms_of_the_blocks(panels):
    model = tiny_model()
    explorer = NormExplorer(model, IMAGE, block=1, **FIXED)
    explorer._picture()
    with probes.capture(model, "norms") as cap:
        model.predict(IMAGE, SIZE, keep_aspect=False)
    maps = probes.tokens.norms(cap)
    _, tiles = panels
    assert [tile.chosen for tile in tiles] == [False, True, False, False]
    for tile, norms in zip(tiles, maps.values(), strict=True):
        values = norms.values.astype(np.float64)
        np.testing.assert_array_equal(tile.pixels, viridis(values, values.min(), values.max()))


@pytest.mark.parametrize(("what", "centred"), [("channel", False), ("similarity", False), ("similarity", True)])
def test_the_norm_explorer_draws_channels_and_similarities(panels, what, centred):
    explorer = NormExplorer(tiny_model(), IMAGE, what=what, centred=centred, pin=4, **FIXED)
    explorer._picture()
    main, _ = panels
    assert what in main[0].label
    assert any(mark.second for mark in main[0].marks)


def test_pixels_outside_the_thresholds_are_blank():
    explorer = DepthExplorer(tiny_model(), IMAGE, **FIXED)
    whole = np.asarray(opened(explorer._picture()))
    explorer.far, explorer.near = 0.4, 0.5
    cut = np.asarray(opened(explorer._picture()))
    blank = lambda pixels: (pixels == (238, 240, 242)).all(axis=-1).mean()  # noqa: E731
    assert blank(cut) > blank(whole) + 0.1


def test_a_depth_with_nan_leaves_out_the_picture_only():
    model = tiny_model()
    with torch.no_grad():
        next(model.head.parameters()).fill_(float("nan"))
    explorer = DepthExplorer(model, IMAGE)
    assert explorer._picture() is None
    assert explorer._summary().image
    assert AttentionExplorer(model, IMAGE)._picture() is not None


def test_scales_agree_with_those_of_the_browser():
    # positionOn() of scale.js, by hand
    assert linear_scale(2, 4).positions(np.array([1.0, 2, 3, 5])).tolist() == [0, 0, 0.5, 1]
    assert linear_scale(2, 2).positions(np.array([2.0])).tolist() == [0.5]
    assert signed_scale(2).positions(np.array([-2.0, 0, 1])).tolist() == [0, 0.5, 0.75]
    np.testing.assert_allclose(log_scale(0, 100, 4).positions(np.array([0, 0.01, 1, 100])), [0, 0, 0.5, 1])
    np.testing.assert_allclose(signed_log_scale(1, 2).positions(np.array([-1, 0, 0.001, 0.1])), [0, 0.5, 0.5, 0.75])
    assert log_scale(-2, -1).kind == "linear"


def test_a_long_name_and_a_narrow_image_fit():
    summary = Summary("Depth", "m" * 300, "name " * 100, "shows " * 100)
    narrow = np.zeros((2000, 3, 3), np.uint8)
    png = drawing.picture(summary, [drawing.Panel(narrow)], [drawing.Panel(narrow, "label " * 20)] * 49)
    assert opened(png).width == drawing.WIDTH
