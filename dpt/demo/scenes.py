"""Renders rooms and open ground made of simple solids, with exact depth: the training data of the demo model.

Problem. Real depth data cannot be shipped, and an untrained model shows nothing.

Approach. A scene is a row of random numbers, drawn from one seed (`layout`). They place a camera, a room or open
ground, up to 22 balls, boxes and cylinders (alone, stacked, against walls, as trees and tables), textures, one light,
fog, sky and a sensor. `render` casts one ray through the centre of each pixel, and one shadow ray from the point that
it hits (`raycast`, `shading`).

    rendered = render(range(8), 112, 168)
    rendered.image          # (8, 3, 112, 168) in 0..1, multiples of 1 / 255
    rendered.inverse_depth  # (8, 112, 168): 1 / z in 1 / metres, z along the camera's axis; 0 for sky

An image depends only on its seed and size, not on the batch in which it was rendered. The same seed at another size
with the same aspect ratio shows the same view.

Limits. Distances of a few metres to tens of metres, hard-edged solids, no glass, no mirrors. Random numbers are drawn
on the CPU, so a seed means the same scene on every device, up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from ..ambient import usual_defaults
from ..errors import InvalidValueError
from .layout import FAR, INDOORS, SOLIDS, SURFACES, Scene, sample
from .raycast import BALL, BOX, CYLINDER, TILE, Solids, from_tiles, in_shadow, nearest, to_tiles
from .shading import Light, Materials, Sensor, albedo, develop, sky

T = TypeVar("T", Scene, Solids, Materials, Light, Sensor)


class Rendered(NamedTuple):
    """A batch of images with their depth."""

    image: Tensor  # (B, 3, h, w) in 0..1
    inverse_depth: Tensor  # (B, h, w) 1 / metres, 0 for sky


def rays(scene: Scene, height: int, width: int) -> Tensor:
    """Rays through the pixel centres: (B, height, width, 3) in the world, of length 1 along the camera's axis."""
    diagonal = math.hypot(height, width) / 2
    up = -(torch.arange(height, device=scene.eye.device) + 0.5 - height / 2) / diagonal
    right = (torch.arange(width, device=scene.eye.device) + 0.5 - width / 2) / diagonal
    spread = scene.spread[:, None, None]
    forward = torch.ones(len(scene.eye), height, width, device=scene.eye.device)
    local = torch.stack([right[None, None, :] * spread * forward, up[None, :, None] * spread * forward, forward], -1)
    return torch.einsum("bhwc,bdc->bhwd", local, scene.view)


def cast(scene: Scene, height: int, width: int) -> Rendered:
    """Trace a scene. `image` is linear radiance (B, h, w, 3) before exposure; inverse depth is final."""
    batch = len(scene.eye)
    padded = [-(-size // TILE) * TILE for size in (height, width)]
    directions = rays(scene, height, width)
    pad = (0, padded[1] - width, 0, padded[0] - height)
    # Pad to whole tiles by repeating the outermost rays, which are cropped at the end.
    direction = to_tiles(torch.nn.functional.pad(directions.movedim(-1, 1), pad, mode="replicate").movedim(1, -1))
    eye = scene.eye[:, None, None]

    t, owner = nearest(scene.solids, scene.eye, direction)
    # The camera is inside the room: the hit is the first of its six planes that the ray leaves through.
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
    # The size of the surface that a pixel covers grows with distance and at grazing angles.
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
    return Rendered(from_tiles(radiance, height, width), from_tiles(inverse_depth, height, width))


def _surface(solids: Solids, point: Tensor, owner: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For points (B, tiles, 64, 3): whether each is on a solid, its place in the solid's frame, and its normal."""
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
    """The colour of surface points under the light of the scene, (B, tiles, 64, 3)."""
    light = scene.light
    towards = light.direction[:, None, None]
    facing = (normal * towards).sum(-1)
    lit = facing.clamp_min(0)
    # A small step off the surface, or the shadow ray would hit the solid where it starts.
    start = point + normal * (1e-3 + 1e-4 * (point - scene.eye[:, None, None]).norm(dim=-1, keepdim=True))
    dark = in_shadow(scene.solids, start, light.direction, ground & (facing > 0)).to(point.dtype)
    # Soft edges: averaging the shadow over 3 x 3 pixels costs one ray, an area light would cost many.
    rows, cols = -(-height // TILE) * TILE, -(-width // TILE) * TILE
    dark = torch.nn.functional.avg_pool2d(from_tiles(dark, rows, cols)[:, None], 3, 1, 1, count_include_pad=False)[:, 0]
    lit = lit * (1 - light.shadow[:, None, None] * to_tiles(dark))
    # Skylight comes from above and a little from the side, so faces in shadow still differ.
    around = 0.65 + 0.25 * normal[..., 1] + 0.1 * normal[..., 0]
    gloss, shine = scene.materials.gloss.reshape(-1)[material], scene.materials.shine.reshape(-1)[material]
    halfway = torch.nn.functional.normalize(towards - torch.nn.functional.normalize(direction, dim=-1), dim=-1)
    highlight = gloss * (normal * halfway).sum(-1).clamp_min(1e-4) ** shine * (lit > 0)
    return (
        color * (lit[..., None] * light.color[:, None, None] + around[..., None] * light.ambient[:, None, None])
        + highlight[..., None] * light.color[:, None, None]
    )


def _to(value: T, device: torch.device | str) -> T:
    """A copy of a scene or a part of one with its tensors on a device."""
    moved = {}
    for field in fields(value):
        part = getattr(value, field.name)
        if isinstance(part, Tensor):
            part = part.to(device)
        elif is_dataclass(part):
            part = _to(part, device)  # type: ignore[type-var]
        moved[field.name] = part
    return type(value)(**moved)


@usual_defaults()
def render(
    seeds: Iterable[int],
    height: int,
    width: int,
    *,
    device: torch.device | str = "cpu",
    supersample: int = 1,
    indoors: float = INDOORS,
) -> Rendered:
    """Render scenes.

    Args:
        seeds: One whole number per scene.
        height: Pixels, at least 1.
        width: Pixels, at least 1.
        device: Where to render. The result stays there.
        supersample: With n, the colour is the average of n x n rays per pixel. The depth is always that of the ray
            through the centre of the pixel.
        indoors: Share of rooms. A seed means the same scene at two shares, unless it is a room at one of them only.

    Returns:
        image (B, 3, height, width) in 0..1, and inverse depth (B, height, width) in 1 / metres along the camera's axis,
        0 for sky.

    Raises:
        ValueError: `seeds` is empty, or a size or supersample is less than 1.
    """
    seeds = [int(seed) for seed in seeds]
    if not seeds or height < 1 or width < 1 or supersample < 1:
        raise InvalidValueError(
            "render needs at least 1 seed, a size of at least 1 x 1 and supersample >= 1, got "
            f"{len(seeds)} seeds, {height} x {width} and supersample={supersample}"
        )
    # On a CPU, the intermediate tensors of a chunk should fit in the cache.
    size = max(1, 160_000 // (height * width * supersample**2)) if torch.device(device).type == "cpu" else 256
    chunks = []
    for first in range(0, len(seeds), size):
        part = seeds[first : first + size]
        scene = _to(sample(part, indoors), device)
        radiance, inverse_depth = cast(scene, height * supersample, width * supersample)
        if supersample > 1:
            fine = radiance.movedim(-1, 1)
            radiance = torch.nn.functional.avg_pool2d(fine, supersample).movedim(1, -1)
            inverse_depth = cast(scene, height, width).inverse_depth
        noise = [torch.randn(height, width, 3, generator=torch.Generator().manual_seed(seed)) for seed in part]
        chunks.append(Rendered(develop(scene.sensor, radiance, torch.stack(noise).to(device)), inverse_depth))
    return Rendered(torch.cat([c.image for c in chunks]), torch.cat([c.inverse_depth for c in chunks]))
