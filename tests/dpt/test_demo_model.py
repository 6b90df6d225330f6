"""The demo model that ships: whole, small enough, and better than guessing; and the sample pictures beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

import dpt
from dpt import demo
from dpt.demo import pictures
from dpt.demo.evaluate import evaluate, mean_map, normalise, r2, same_for_all
from dpt.demo.scenes import render

FLOOR = 0.90  # mean R2 on 16 scenes never trained on, 112 x 168
SEEDS = range(30_000, 30_016)  # neither trained on nor in the published evaluation


@pytest.fixture(scope="module")
def model() -> dpt.DPT:
    return dpt.load("demo")


def test_weights_are_small_and_in_the_ordinary_layout() -> None:
    path = demo.weights()
    assert path.stat().st_size <= 16_000_000
    with safe_open(path, framework="pt") as file:
        keys = set(file.keys())
        assert {file.get_tensor(key).dtype for key in keys} == {torch.float16}
    unread = {"pretrained.mask_token", "depth_head.scratch.refinenet4.resConfUnit1.conv1.weight"}
    assert unread | {"pretrained.pos_embed"} <= keys
    assert all(key.startswith(("pretrained.", "depth_head.")) for key in keys)


def test_it_is_a_whole_relative_model_of_version_2(model: dpt.DPT) -> None:
    config = model.config
    assert (config.family, config.variant, config.version, config.max_depth) == ("depth-anything", "demo", 2, None)
    assert (config.width, config.depth, config.heads, config.taps) == (192, 12, 3, (2, 5, 8, 11))
    assert isinstance(model.head.activation, nn.ReLU)
    assert 5e6 < sum(p.numel() for p in model.parameters()) < 8e6
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_it_sees_depth_where_a_guess_does_not(model: dpt.DPT) -> None:
    guess = mean_map(112, 168, seeds=range(2_000_000, 2_000_064))
    found = evaluate({"trained": model, "guessed": same_for_all(guess)}, SEEDS, 112, 168)
    trained, guessed = found["trained"], found["guessed"]
    assert trained.r2 > FLOOR
    assert guessed.r2 < trained.r2 - 0.18
    assert trained.delta1 > guessed.delta1
    assert trained.absrel < guessed.absrel


def test_shuffled_pictures_score_like_a_guess(model: dpt.DPT) -> None:
    """The control: the score comes from the picture, not from the scenes being alike."""
    picture = render(SEEDS, 112, 168)
    with torch.no_grad():
        prediction = model(normalise(picture.image))
    assert r2(prediction.roll(1, 0), picture.inverse_depth).mean() < 0.6


@pytest.mark.parametrize("name", demo.samples())
def test_sample_pictures_are_what_their_seeds_render(name: str) -> None:
    image, inverse_depth = demo.sample(name)
    assert image.dtype == np.uint8
    assert inverse_depth.dtype == np.float32
    assert image.shape == (pictures.HEIGHT, pictures.WIDTH, 3)
    assert inverse_depth.shape == image.shape[:2]
    rendered = render([pictures.SEEDS[name]], pictures.HEIGHT, pictures.WIDTH, supersample=2)
    want = (rendered.image[0].movedim(0, -1) * 255).round().numpy()
    # other processors round differently, and a ray along an outline may then meet another solid
    assert (np.abs(image - want) <= 1).mean() > 0.995
    assert np.isclose(inverse_depth, rendered.inverse_depth[0].numpy(), rtol=1e-3, atol=1e-6).mean() > 0.995
    folder = Path(demo.__file__).parent / "samples"
    assert (folder / f"{name}.png").stat().st_size < 400_000


def test_model_reads_the_samples(model: dpt.DPT) -> None:
    scores = []
    for name in demo.samples():
        image, inverse_depth = demo.sample(name)
        prediction = model.predict(image, size=280)
        assert prediction.shape == inverse_depth.shape
        scores.append(r2(torch.from_numpy(prediction)[None], torch.from_numpy(inverse_depth)[None]).item())
    assert len(scores) >= 4
    assert np.mean(scores) > 0.90


def test_a_wrong_name_is_answered_with_the_right_ones() -> None:
    with pytest.raises(KeyError, match=r"'garden'.*table"):
        demo.sample("garden")
