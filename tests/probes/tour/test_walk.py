"""The walk through a model of every family: its parts match the registry, its shapes match the tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import probes
from probes.tour.shots import SHOTS
from probes.tour.walk import VIEWS, Walk, as_picture, untrained
from tests.models import TINY

IMAGE = np.random.default_rng(3).integers(0, 255, (60, 90, 3), dtype=np.uint8)


@pytest.fixture(scope="module", params=TINY)
def walk(request) -> Walk:
    model = TINY[request.param]()
    return Walk(model, IMAGE, size=None if request.param == "swinv2" else 70)


def test_the_walk_holds_every_probe_point_in_forward_order(walk):
    points = [name for part in walk.parts for name in part.points]
    assert set(points) == set(probes.names(walk.model))
    firsts = [part.points[0] for part in walk.parts if part.points]
    order = [name for name in probes.names(walk.model) if name in firsts]
    assert firsts == order


def test_shapes_match_the_tensors_of_a_capture(walk):
    with probes.capture(walk.model, "*") as cap:
        walk.model(walk.input)
    for part in walk.parts:
        for name, symbols, here in walk.shapes(part.name):
            assert symbols
            if name in cap and not name.endswith("attention"):
                assert here == " × ".join(map(str, cap[name].shape))


def test_the_shapes_between_the_points_match_the_points(walk):
    shapes = {name: here for part in walk.parts for name, _, here in walk.shapes(part.name)}
    config, grid = walk.config, walk.grid
    assert shapes["image"] == "60 × 90 × 3"
    assert shapes["tokens"] == f"1 × {grid.tokens} × {config.width}"
    assert shapes["x, cut"] == f"1 × {grid.patches} × {3 * config.patch_size**2}"
    assert shapes["stage 0, read out"].startswith(f"1 × {grid.patches} × ")
    if config.family == "beit":
        read_out = walk.between["readout of stage 0"]
        assert shapes["stage 0, read out"] == " × ".join(map(str, read_out.shape))
    height, width = walk.input.shape[-2:]
    assert shapes["convolution 2"] == f"1 × 32 × {height} × {width}"


def test_every_view_is_an_image_with_a_caption(walk):
    assert set(VIEWS) == set(SHOTS)
    for part in walk.parts:
        assert part.words.formula
        assert part.words.why.endswith(".")
        thumbnail = walk.thumbnail(part.name)
        assert (thumbnail is None) == (not part.views)
        for view in part.views:
            assert view in VIEWS
            tile, caption = walk.shot(part.name, view)
            assert tile.dtype == np.uint8
            assert tile.shape[2] == 4
            assert max(tile.shape) <= 1400
            assert caption
            assert tile[..., 3].any()


def test_the_words_on_depth_hold_for_every_image(walk):
    words = next(part.words for part in walk.parts if part.name == "depth")
    assert "never negative" in words.why
    assert "sky" not in words.why  # not every image has one
    assert walk.model(walk.input).min() >= 0


def test_views_of_one_family_are_shown_only_for_that_family(walk):
    views = {view for part in walk.parts for view in part.views}
    family = walk.config.family
    assert ("positions" in views) == (family == "depth-anything")
    assert ("bias" in views) == (family in ("beit", "swinv2"))
    assert ("windows" in views) == (family == "swinv2")
    assert ("class" in views) == (family != "swinv2")
    words = " ".join(part.words.family for part in walk.parts)
    assert {"depth-anything": "DINOv2", "beit": "BEiT", "swinv2": "SwinV2"}[family] in words


def test_the_pass_leaves_no_hooks_and_keeps_the_depth(walk):
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in walk.model.modules())
    assert torch.equal(walk.values["depth"], walk.model(walk.input))


def test_a_failing_pass_leaves_no_hooks():
    model = TINY["beit"]()

    def fail(*_: object) -> None:
        raise RuntimeError("broken")

    handle = model.head.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="broken"):
        Walk(model, IMAGE)
    handle.remove()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_block_without_effect_shows_no_change():
    model = TINY["depth-anything"]()
    model.encoder.blocks[2].scale1.zero_()
    model.encoder.blocks[2].scale2.zero_()
    walk = Walk(model, IMAGE, size=70)
    assert "0% to 0%" in walk.shot("encoder.blocks.2", "change").caption
    assert "0% to 0%" not in walk.shot("encoder.blocks.1", "change").caption


def test_an_input_can_be_turned_back_into_the_image():
    model = TINY["depth-anything"]()
    image = np.random.default_rng(1).integers(0, 255, (70, 98, 3), dtype=np.uint8)
    assert np.array_equal(as_picture(model.prepare(image, size=(70, 98), keep_aspect=False), model.config), image)


def test_maps_are_the_tensors_on_their_grid(walk):
    assert torch.equal(walk.maps("fusion.1"), walk.values["fusion.1"][0])
    embedded = walk.maps("patch_embed")
    assert torch.equal(embedded[:, 1, 2], walk.values["patch_embed"][0, walk.grid.cols + 2])
    with pytest.raises(probes.ProbeError, match="picture has no channels"):
        walk.maps("picture")


def test_unknown_names_are_refused_with_the_known_ones(walk):
    with pytest.raises(probes.ProbeError, match=r"'block 3'.*picture, input"):
        walk["block 3"]
    with pytest.raises(probes.ProbeError, match=r"depth .*'norm'.*: depth"):
        walk.shot("depth", "norm")


def test_untrained_models_are_the_same_each_time_and_leave_the_generator_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, second = untrained("beit"), untrained("beit")
    assert torch.equal(torch.random.get_rng_state(), before)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    assert first.config.variant == "untrained"
    assert untrained("swinv2").predict(IMAGE).shape == (60, 90)
    with pytest.raises(ValueError, match=r'"beit" or "swinv2", got .vit'):
        untrained("vit")
