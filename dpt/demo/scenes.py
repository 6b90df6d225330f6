"""Rooms and landscapes made of simple solids, with their exact depth: what the demo model is trained on.

Problem: real depth data cannot be shipped, and a model trained on nothing shows nothing.

Approach: a scene is a row of random numbers, drawn from one seed, that places a camera, a room or open ground,
up to thirty-two balls, boxes and cylinders (alone, stacked, against walls, as trees and tables), their textures,
one light, fog, sky and a sensor (`layout`). `render` casts one ray through the middle of each pixel and one shadow ray
from what it hits (`raycast`, `shading`). A picture depends on its seed and size alone, not on the batch it was rendered
in, and the same seed at another size of the same shape is the same view.

    picture = render(range(8), 112, 168)
    picture.image          # (8, 3, 112, 168) in 0..1, whole 255ths
    picture.inverse_depth  # (8, 112, 168) 1 / z in 1 / metres; z is measured along the camera's axis; the sky is 0

Limits: a few metres to tens of metres, hard-edged solids, no glass, no mirrors. Random numbers are drawn on the CPU, so
seeds mean the same scenes on every device, up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .layout import FAR, INDOORS, SOLIDS, SURFACES, Scene, sample
from .raycast import BALL, BOX, CYLINDER, TILE, Solids, from_tiles, in_shadow, nearest, to_tiles
from .shading import albedo, develop, sky


class Picture(NamedTuple):
    image: Tensor  # (B, 3, h, w) in 0..1
    inverse_depth: Tensor  # (B, h, w) 1 / metres, 0 for sky


def rays(scene: Scene, height: int, width: int) -> Tensor:
    """Directions through the pixel centres in the world, (B, height, width, 3), of length 1 along the camera's axis."""
    diagonal = math.hypot(height, width) / 2
    up = -(torch.arange(height, device=scene.eye.device) + 0.5 - height / 2) / diagonal
    right = (torch.arange(width, device=scene.eye.device) + 0.5 - width / 2) / diagonal
    spread = scene.spread[:, None, None]
    forward = torch.ones(len(scene.eye), height, width, device=scene.eye.device)
    local = torch.stack([right[None, None, :] * spread * forward, up[None, :, None] * spread * forward, forward], -1)
    return torch.einsum("bhwc,bdc->bhwd", local, scene.view)


def cast(scene: Scene, height: int, width: int) -> Picture:
    """Radiance (B, h, w, 3), linear and unexposed, in place of the image; and inverse depth."""
    batch = len(scene.eye)
    padded = [-(-size // TILE) * TILE for size in (height, width)]
    directions = rays(scene, height, width)
    pad = (0, padded[1] - width, 0, padded[0] - height)
    # whole tiles; the rays added at the edges repeat the last ones and are cropped away at the end
    direction = to_tiles(torch.nn.functional.pad(directions.movedim(-1, 1), pad, mode="replicate").movedim(1, -1))
    eye = scene.eye[:, None, None]

    t, owner = nearest(scene.solids, scene.eye, direction)
    # The room is met from inside: the first of its six planes that the ray leaves through.
    planes = torch.where(direction > 0, scene.room[:, 1, None, None], scene.room[:, 0, None, None])
    exits = (planes - eye) / torch.where(direction.abs() < 1e-9, torch.full_like(direction, 1e-9), direction)
    exits = torch.where(exits >= 0, exits, torch.inf)
    wall_t, wall_axis = exits.min(-1)
    is_wall = wall_t < t
    t = torch.where(is_wall, wall_t, t)
    is_sky = t > FAR / 20

    up = torch.gather(direction, -1, wall_axis[..., None])[..., 0] > 0
    surface = torch.where(wall_axis == 1, torch.where(up, 1, 0), torch.where(wall_axis == 0, 2, 3))
    material = torch.where(is_wall, SOLIDS + surface, owner) + (
        torch.arange(batch, device=t.device)[:, None, None] * (SOLIDS + SURFACES)
    )
    wall_normal = torch.nn.functional.one_hot(wall_axis, 3) * torch.where(up, -1.0, 1.0)[..., None]

    point = eye + t.masked_fill(is_sky, 1.0)[..., None] * direction
    solid, local, normal = _surface(scene.solids, point, owner)
    local = torch.where((is_wall | ~solid)[..., None], point, local)
    normal = torch.where((is_wall | ~solid)[..., None], wall_normal, normal)
    color = torch.zeros_like(point)
    ground = ~is_sky
    # How much surface a pixel covers: larger far away and at grazing angles.
    pixel = 2 * scene.spread[:, None, None] / math.hypot(height, width) * t
    slant = (normal * torch.nn.functional.normalize(direction, dim=-1)).sum(-1).abs().clamp_min(0.05)
    footprint = (pixel / slant)[ground]
    color[ground] = albedo(scene.materials, material[ground], local[ground], footprint)
    shaded = _shade(scene, color, point, normal, direction, material.masked_fill(is_sky, 0), ground, height, width)
    away = t.masked_fill(is_sky, 0.0) * direction.norm(dim=-1)
    clear = torch.exp(-scene.light.fog[:, None, None] * away)[..., None]
    radiance = torch.lerp(scene.light.horizon[:, None, None], shaded, clear)
    radiance = torch.where(is_sky[..., None], sky(scene.light, direction), radiance)
    inverse_depth = torch.where(is_sky, torch.zeros_like(t), 1 / t)
    return Picture(from_tiles(radiance, height, width), from_tiles(inverse_depth, height, width))


def _surface(solids: Solids, point: Tensor, owner: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For points (B, tiles, 64, 3): which are on a solid, where in its frame, in metres, and the outward normal."""
    batch, slots = solids.present.shape
    chosen = owner >= 0
    scene = torch.arange(batch, device=owner.device)[:, None, None].expand_as(owner)
    index = (scene * slots + owner)[chosen]
    rotation = solids.rotation.reshape(-1, 3, 3)[index]
    half = solids.half_size.reshape(-1, 3)[index]
    local = torch.einsum("pc,pcd->pd", point[chosen] - solids.center.reshape(-1, 3)[index], rotation)
    unit = local / half
    kind = torch.tensor(solids.kinds, device=owner.device)[owner[chosen]][:, None]
    size = unit.abs()
    box = (size == size.amax(-1, keepdim=True)) * torch.sign(unit)
    side = unit * unit.new_tensor([1.0, 0.0, 1.0])
    cap = (size[:, 1:2] > side.norm(dim=-1, keepdim=True)) & (kind == CYLINDER)
    top = unit.new_tensor([0.0, 1.0, 0.0]) * torch.sign(unit)
    normal = torch.where(kind == BALL, unit, torch.where(kind == BOX, box * half, torch.where(cap, top * half, side)))
    normal = torch.nn.functional.normalize(torch.einsum("pd,pcd->pc", normal / half, rotation), dim=-1)
    full_local, full_normal = torch.zeros_like(point), torch.zeros_like(point)
    full_local[chosen], full_normal[chosen] = local, normal
    return chosen, full_local, full_normal


def _shade(
    scene: Scene, color: Tensor, point: Tensor, normal: Tensor, direction: Tensor, material: Tensor, ground: Tensor,
    height: int, width: int,
) -> Tensor:  # fmt: skip
    light = scene.light
    towards = light.direction[:, None, None]
    facing = (normal * towards).sum(-1)
    lit = facing.clamp_min(0)
    # A step off the surface keeps a shadow ray from meeting the solid it starts on.
    start = point + normal * (1e-3 + 1e-4 * (point - scene.eye[:, None, None]).norm(dim=-1, keepdim=True))
    dark = in_shadow(scene.solids, start, light.direction, ground & (facing > 0)).to(point.dtype)
    # Soft edges: the shadow is averaged over 3 x 3 pixels, which costs one ray where an area light costs many.
    rows, cols = -(-height // TILE) * TILE, -(-width // TILE) * TILE
    dark = torch.nn.functional.avg_pool2d(from_tiles(dark, rows, cols)[:, None], 3, 1, 1, count_include_pad=False)[:, 0]
    lit = lit * (1 - light.shadow[:, None, None] * to_tiles(dark))
    # Skylight comes from above, and a little from the side, so that faces in shadow still differ.
    around = 0.65 + 0.25 * normal[..., 1] + 0.1 * normal[..., 0]
    gloss, shine = scene.materials.gloss.reshape(-1)[material], scene.materials.shine.reshape(-1)[material]
    halfway = torch.nn.functional.normalize(towards - torch.nn.functional.normalize(direction, dim=-1), dim=-1)
    highlight = gloss * (normal * halfway).sum(-1).clamp_min(1e-4) ** shine * (lit > 0)
    return (
        color * (lit[..., None] * light.color[:, None, None] + around[..., None] * light.ambient[:, None, None])
        + highlight[..., None] * light.color[:, None, None]
    )


def _to(value: Any, device: torch.device | str) -> Any:
    """The same dataclass with its tensors on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(**{field.name: _to(getattr(value, field.name), device) for field in fields(value)})
    return value


def render(
    seeds: Iterable[int],
    height: int,
    width: int,
    *,
    device: torch.device | str = "cpu",
    supersample: int = 1,
    indoors: float = INDOORS,
) -> Picture:
    """Render the scenes of some seeds.

    Args:
        seeds: one whole number a scene.
        height, width: pixels, at least 1.
        device: where to render; the result stays there.
        supersample: with n, the colour is the average of n x n rays a pixel. The depth is always that
            of the ray through the pixel's centre.
        indoors: the share of rooms. A seed means the same scene at every share, unless it is a room at one and open
            ground at the other.

    Returns:
        image (B, 3, height, width) in 0..1, and inverse depth (B, height, width) in 1 / metres along the camera's axis,
        0 for sky.
    """
    seeds = [int(seed) for seed in seeds]
    if not seeds or height < 1 or width < 1 or supersample < 1:
        raise ValueError(
            f"render needs a seed or more and a size of at least 1 x 1, not {len(seeds)} seeds at {height} x {width}, "
            f"supersample={supersample}"
        )
    # On a CPU a chunk's intermediate tensors should stay in the cache.
    size = max(1, 160_000 // (height * width * supersample**2)) if torch.device(device).type == "cpu" else 256
    pictures = []
    for first in range(0, len(seeds), size):
        part = seeds[first : first + size]
        scene = _to(sample(part, indoors), device)
        radiance, inverse_depth = cast(scene, height * supersample, width * supersample)
        if supersample > 1:
            fine = radiance.movedim(-1, 1)
            radiance = torch.nn.functional.avg_pool2d(fine, supersample).movedim(1, -1)
            inverse_depth = cast(scene, height, width).inverse_depth
        noise = [torch.randn(height, width, 3, generator=torch.Generator().manual_seed(seed)) for seed in part]
        pictures.append(Picture(develop(scene.sensor, radiance, torch.stack(noise).to(device)), inverse_depth))
    return Picture(torch.cat([p.image for p in pictures]), torch.cat([p.inverse_depth for p in pictures]))
