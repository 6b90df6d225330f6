"""The depth of rendered scenes is exact and reproducible, and the images look like a camera's."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dpt.demo import layout, raycast, shading
from dpt.demo.layout import FAR, Scene, sample
from dpt.demo.raycast import BALL, BOX, CYLINDER, TILE, Solids
from dpt.demo.scenes import cast, rays, render

OPEN_AIR = torch.tensor([[[-FAR, 0.0, -FAR], [FAR, FAR, FAR]]])
INDOOR, OUTDOOR = 1, 3  # seeds


def level_camera(height: float) -> Scene:
    """One open scene without solids; the camera looks along +z, with a diagonal field of view of 60 degrees."""
    scene = sample([0])
    return replace(
        scene,
        eye=torch.tensor([[0.0, height, 0.0]]),
        view=torch.eye(3)[None],
        spread=torch.tensor([math.tan(math.radians(30))]),
        room=OPEN_AIR,
        solids=replace(scene.solids, present=torch.zeros_like(scene.solids.present)),
    )


def place(scene: Scene, kind: int, center: list[float], half: list[float], rotation: Tensor | None = None) -> Scene:
    """The scene with one more solid."""
    slot = layout.KINDS.index(kind)
    solids = scene.solids
    parts = {name: getattr(solids, name).clone() for name in ("center", "half_size", "rotation", "present")}
    parts["center"][0, slot] = torch.tensor(center)
    parts["half_size"][0, slot] = torch.tensor(half)
    parts["rotation"][0, slot] = torch.eye(3) if rotation is None else rotation
    parts["present"][0, slot] = True
    return replace(scene, solids=Solids(solids.kinds, **parts))


def pinhole(height: int, width: int) -> tuple[Tensor, Tensor]:
    """x / z and y / z of each pixel's centre for `level_camera`, float64, y up, from the definition of a pinhole."""
    diagonal = math.sqrt(height**2 + width**2) / 2
    focal = diagonal / math.tan(math.radians(30))  # pixels
    y = -(torch.arange(height, dtype=torch.float64) + 0.5 - height / 2) / focal
    x = (torch.arange(width, dtype=torch.float64) + 0.5 - width / 2) / focal
    return x[None].expand(height, width), y[:, None].expand(height, width)


def test_the_depth_of_the_ground_is_eye_height_over_slope() -> None:
    got = cast(level_camera(1.5), 30, 44).inverse_depth[0].double()
    _, y = pinhole(30, 44)
    want = torch.where(y < 0, -y / 1.5, 0.0)  # z = 1.5 / -slope below the horizon, sky above
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-7)


def test_the_depth_of_a_ball_is_the_nearer_root_of_the_quadratic() -> None:
    center, radius = (0.4, 1.7, 6.0), 0.9
    got = cast(place(level_camera(1.5), BALL, list(center), [radius] * 3), 45, 61).inverse_depth[0].double()
    x, y = pinhole(45, 61)
    a = x**2 + y**2 + 1
    b = -2 * (x * center[0] + y * (center[1] - 1.5) + center[2])
    c = center[0] ** 2 + (center[1] - 1.5) ** 2 + center[2] ** 2 - radius**2
    root = b**2 - 4 * a * c
    ball = 2 * a / (-b - torch.sqrt(root.clamp_min(0)))  # 1 / z
    inside = root > 1e-2  # away from the outline, where rounding decides which object is hit
    assert inside.sum() > 100
    torch.testing.assert_close(got[inside], ball[inside], rtol=1e-5, atol=0)
    ground = torch.where(y < 0, -y / 1.5, 0.0)
    torch.testing.assert_close(got[root < -1e-2], ground[root < -1e-2], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", [BALL, BOX, CYLINDER])
def test_hits_lie_on_the_surface_of_a_rotated_stretched_solid(kind: int) -> None:
    turn = layout._turn(1, torch.tensor(0.7)) @ layout._turn(0, torch.tensor(0.4))
    half = torch.tensor([0.5, 1.1, 0.5])
    center = torch.tensor([-0.3, 2.0, 5.0])
    scene = place(level_camera(1.6), kind, center.tolist(), half.tolist(), turn)
    inverse = cast(scene, 56, 56).inverse_depth[0]
    empty = cast(level_camera(1.6), 56, 56).inverse_depth[0]
    on = inverse > empty
    points = scene.eye + rays(scene, 56, 56)[0][on] / inverse[on][:, None]
    unit = ((points - center) @ turn / half).abs().double()
    radial = (unit[:, 0] ** 2 + unit[:, 2] ** 2).sqrt()
    surface = {
        BALL: unit.norm(dim=-1),
        BOX: unit.amax(-1),
        CYLINDER: torch.maximum(radial, unit[:, 1]),
    }[kind]
    assert on.sum() > 200
    torch.testing.assert_close(surface, torch.ones_like(surface), rtol=0, atol=1e-4)


def intersect_everything(scene: Scene, direction: Tensor) -> Tensor:
    """t of the first hits, from all pairs of tile and solid."""
    every = scene.solids.present[:, None].expand(-1, direction.shape[1], -1)
    origin = scene.eye[:, None, None].expand(-1, direction.shape[1], 1, -1)
    return raycast._first_hits(scene.solids, every, origin, direction)[0]


def test_skipping_distant_solids_loses_no_hit(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = sample(range(40, 52))
    direction = raycast.to_tiles(rays(scene, 8 * TILE, 12 * TILE))
    want = intersect_everything(scene, direction)
    assert torch.equal(raycast.nearest(scene.solids, scene.eye, direction)[0], want)
    # control: if the bounding spheres are a fifth too small, hits are lost, and the comparison finds it
    radius = Solids.radius
    monkeypatch.setattr(Solids, "radius", lambda self: 0.8 * radius(self))
    assert not torch.equal(raycast.nearest(scene.solids, scene.eye, direction)[0], want)


def test_skipping_distant_solids_loses_no_shadow(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = sample(range(60, 72))
    direction = raycast.to_tiles(rays(scene, 8 * TILE, 8 * TILE))
    t = intersect_everything(scene, direction)
    valid = torch.isfinite(t)
    points = scene.eye[:, None, None] + 0.999 * torch.where(valid, t, 1.0)[..., None] * direction
    light = scene.light.direction
    every = scene.solids.present[:, None].expand(-1, direction.shape[1], -1)
    towards = light[:, None, None].expand(-1, direction.shape[1], 1, -1)
    want = torch.isfinite(raycast._first_hits(scene.solids, every, points, towards)[0]) & valid
    assert 0.05 < want[valid].float().mean() < 0.95
    assert torch.equal(raycast.in_shadow(scene.solids, points, light, valid), want)
    radius = Solids.radius
    monkeypatch.setattr(Solids, "radius", lambda self: 0.7 * radius(self))
    assert not torch.equal(raycast.in_shadow(scene.solids, points, light, valid), want)


def test_a_ball_shades_the_points_whose_shadow_ray_passes_through_it() -> None:
    light = torch.nn.functional.normalize(torch.tensor([[0.6, 1.0, 0.3]]), dim=-1)
    scene = place(level_camera(1.5), BALL, [0.0, 2.0, 5.0], [0.8] * 3)
    ground = torch.rand(1, 4, 64, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([6.0, 0.0, 6.0])
    ground = ground + torch.tensor([-4.0, 0.0, 1.0])
    to_center = torch.tensor([0.0, 2.0, 5.0]) - ground
    # distance of each shadow ray from the centre of the ball
    from_line = torch.linalg.cross(to_center, light.expand_as(to_center)).norm(dim=-1)
    got = raycast.in_shadow(scene.solids, ground, light, torch.ones(1, 4, 64, dtype=torch.bool))
    assert torch.equal(got, from_line < 0.8)
    assert 5 < got.sum() < 200


def test_a_scene_does_not_depend_on_its_batch() -> None:
    alone, among = render([77], 42, 56), render([5, 77, 6], 42, 56)
    # Sums over tensors of other shapes may differ in the last bit. Images are rounded to multiples of 1 / 255.
    torch.testing.assert_close(among.inverse_depth[1], alone.inverse_depth[0], rtol=1e-5, atol=1e-6)
    assert ((among.image[1] - alone.image[0]).abs() > 1e-6).float().mean() < 1e-3
    again = render([77], 42, 56)
    assert torch.equal(again.image, alone.image)
    assert torch.equal(again.inverse_depth, alone.inverse_depth)
    assert not torch.equal(among.image[0], among.image[2])


def test_rendering_does_not_change_the_global_random_state() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    render([1], 14, 14)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_seed_shows_the_same_view_at_three_times_the_size() -> None:
    coarse = render([INDOOR, OUTDOOR, 20, 21], 28, 42).inverse_depth
    fine = render([INDOOR, OUTDOOR, 20, 21], 84, 126).inverse_depth
    # The centre of 3 x 3 small pixels has the ray of the large pixel. Rays along an outline may hit either object.
    close = torch.isclose(fine[:, 1::3, 1::3], coarse, rtol=1e-4, atol=1e-6)
    assert close.float().mean() > 0.999


@pytest.mark.parametrize("size", [(1, 1), (7, 23), (112, 168), (33, 8)])
def test_any_size_can_be_rendered(size: tuple[int, int]) -> None:
    rendered = render([2, 9], *size)
    assert rendered.image.shape == (2, 3, *size)
    assert rendered.inverse_depth.shape == (2, *size)
    assert torch.isfinite(rendered.image).all()
    assert torch.isfinite(rendered.inverse_depth).all()


def test_sky_is_exactly_zero_and_rooms_have_none() -> None:
    scene = sample(range(30))
    inverse = cast(scene, 24, 32).inverse_depth
    up = rays(scene, 24, 32)[..., 1]
    sky = inverse == 0
    indoor = scene.room[:, 1, 1] < FAR
    assert 5 < indoor.sum() < 25
    assert not sky[indoor].any()
    assert sky[~indoor].any()
    assert (up[sky] > -1e-3).all()  # every ray that points down hits the ground
    assert (inverse >= 0).all()


def test_images_are_eight_bit_and_well_exposed() -> None:
    image = render(range(200, 232), 28, 42).image
    assert 0 <= image.min() < image.max() <= 1
    levels = image * 255
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)
    brightness, contrast = image.mean((1, 2, 3)), image.std((1, 2, 3))
    assert ((brightness > 0.1) & (brightness < 0.95)).all()
    assert (contrast > 0.02).float().mean() > 0.9
    assert brightness.std() > 0.05  # exposures differ


def test_supersampling_changes_colour_but_not_depth() -> None:
    plain, smooth = render([INDOOR], 35, 49), render([INDOOR], 35, 49, supersample=3)
    assert torch.equal(plain.inverse_depth, smooth.inverse_depth)
    assert not torch.equal(plain.image, smooth.image)
    torch.testing.assert_close(plain.image.mean(), smooth.image.mean(), rtol=0, atol=0.03)


@pytest.mark.parametrize("pattern", shading.PATTERNS)
def test_patterns_stay_between_their_two_colours(pattern) -> None:
    points = torch.randn(5000, 3, generator=torch.Generator().manual_seed(0)) * 20
    mix = pattern(points)
    assert mix.shape == (5000,)
    assert mix.min() >= 0
    assert mix.max() <= 1
    assert pattern is shading.PATTERNS[0] or mix.std() > 0.05


def test_every_kind_of_pattern_and_solid_occurs() -> None:
    scene = sample(range(40))
    assert set(scene.materials.pattern.flatten().tolist()) == set(range(len(shading.PATTERNS)))
    count = scene.solids.present.sum(1)
    assert count.min() <= 3
    assert count.max() >= 12
    for kind in (BALL, BOX, CYLINDER):
        assert scene.solids.present[:, torch.tensor(layout.KINDS) == kind].any()


@pytest.mark.parametrize(("seeds", "size", "supersample"), [([], (8, 8), 1), ([1], (0, 8), 1), ([1], (8, 8), 0)])
def test_an_empty_rendering_is_an_error(seeds: list[int], size: tuple[int, int], supersample: int) -> None:
    with pytest.raises(ValueError, match=f"{size[0]} x {size[1]} and supersample={supersample}"):
        render(seeds, *size, supersample=supersample)
