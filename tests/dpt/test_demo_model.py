"""The demo model is complete, small, and better than a constant guess; the sample images are what the code renders."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

import dpt
from dpt import demo
from dpt.demo import sample_images
from dpt.demo.evaluate import constant, evaluate, mean_map, normalise, r2
from dpt.demo.scenes import render

FLOOR = 0.90  # mean R2 on 16 scenes never trained on, 112 x 168
SEEDS = range(30_000, 30_016)  # neither trained on nor in the published evaluation


@pytest.fixture(scope="module")
def model() -> dpt.DPT:
    return dpt.load("demo")


def test_weights_are_small_and_in_the_original_layout() -> None:
    path = demo.weights()
    assert path.stat().st_size <= 16_000_000
    with safe_open(path, framework="pt") as file:
        keys = set(file.keys())
        assert {file.get_tensor(key).dtype for key in keys} == {torch.float16}
    unread = {"pretrained.mask_token", "depth_head.scratch.refinenet4.resConfUnit1.conv1.weight"}
    assert unread | {"pretrained.pos_embed"} <= keys
    assert all(key.startswith(("pretrained.", "depth_head.")) for key in keys)


def test_it_is_a_relative_model_of_version_2(model: dpt.DPT) -> None:
    config = model.config
    assert (config.family, config.variant, config.version, config.max_depth) == ("depth-anything", "demo", 2, None)
    assert (config.width, config.depth, config.heads, config.taps) == (192, 12, 3, (2, 5, 8, 11))
    assert isinstance(model.head.activation, nn.ReLU)
    assert 5e6 < sum(p.numel() for p in model.parameters()) < 8e6
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_it_scores_better_than_a_constant_guess(model: dpt.DPT) -> None:
    guess = mean_map(112, 168, seeds=range(2_000_000, 2_000_064))
    found = evaluate({"trained": model, "guessed": constant(guess)}, SEEDS, 112, 168)
    trained, guessed = found["trained"], found["guessed"]
    assert trained.r2 > FLOOR
    assert guessed.r2 < trained.r2 - 0.18
    assert trained.delta1 > guessed.delta1
    assert trained.absrel < guessed.absrel


def test_the_depth_of_another_image_scores_like_a_guess(model: dpt.DPT) -> None:
    """Control: the score depends on the image, and not on what all scenes have in common."""
    rendered = render(SEEDS, 112, 168)
    with torch.no_grad():
        prediction = model(normalise(rendered.image))
    assert r2(prediction.roll(1, 0), rendered.inverse_depth).mean() < 0.6


@pytest.mark.parametrize("name", demo.samples())
def test_sample_images_are_what_their_seeds_render(name: str) -> None:
    image, inverse_depth = demo.sample(name)
    assert image.dtype == np.uint8
    assert inverse_depth.dtype == np.float32
    assert image.shape == (sample_images.HEIGHT, sample_images.WIDTH, 3)
    assert inverse_depth.shape == image.shape[:2]
    rendered = render([sample_images.SEEDS[name]], sample_images.HEIGHT, sample_images.WIDTH, supersample=2)
    want = (rendered.image[0].movedim(0, -1) * 255).round().numpy()
    # Processors round differently, so a ray along an outline may hit another solid.
    assert (np.abs(image - want) <= 1).mean() > 0.995
    assert np.isclose(inverse_depth, rendered.inverse_depth[0].numpy(), rtol=1e-3, atol=1e-6).mean() > 0.995
    folder = Path(demo.__file__).parent / "samples"
    assert (folder / f"{name}.png").stat().st_size < 400_000


def test_the_model_predicts_the_samples(model: dpt.DPT) -> None:
    scores = []
    for name in demo.samples():
        image, inverse_depth = demo.sample(name)
        prediction = model.predict(image, size=280)
        assert prediction.shape == inverse_depth.shape
        scores.append(r2(torch.from_numpy(prediction)[None], torch.from_numpy(inverse_depth)[None]).item())
    assert len(scores) >= 4
    assert np.mean(scores) > 0.90


def test_the_error_for_an_unknown_sample_lists_the_names() -> None:
    with pytest.raises(KeyError) as caught:
        demo.sample("garden")
    assert isinstance(caught.value, dpt.DPTError)
    assert isinstance(caught.value, demo.UnknownSampleError)
    assert (caught.value.name, caught.value.names) == ("garden", demo.samples())
    assert vars(pickle.loads(pickle.dumps(caught.value))) == vars(caught.value)
    for name in ("'garden'", *demo.samples()):
        assert name in str(caught.value)


def test_a_failed_write_leaves_the_old_samples_and_no_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_images, "SEEDS", {"table": 3140})
    monkeypatch.setattr(sample_images, "HEIGHT", 28)
    monkeypatch.setattr(sample_images, "WIDTH", 42)
    sample_images.write(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert before.keys() == {"table.png", "table.npz"}
    monkeypatch.setattr(sample_images, "SEEDS", {"table": 3141})

    def full(file, **arrays) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez_compressed", full)
        with pytest.raises(OSError, match=r"table\.npz.*No space left"):
            sample_images.write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == before.keys()
    assert (tmp_path / "table.npz").read_bytes() == before["table.npz"]
    sample_images.write(tmp_path)  # control: without the fault the file is replaced
    assert (tmp_path / "table.npz").read_bytes() != before["table.npz"]
