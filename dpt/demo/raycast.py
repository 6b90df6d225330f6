"""Finds the nearest hits of many rays with many simple solids, in batched tensor operations.

Problem. An image has 20,000 rays and a scene about 20 solids. Testing every pair costs more than training on the image,
and a Python loop over pixels costs even more.

Approach. Rays are grouped in tiles of 8 x 8. A cheap test of each tile against the bounding sphere of each solid leaves
a short list of (tile, solid) pairs, and only these are intersected exactly. All solids are convex. In its own frame,
each is the unit ball, the cube [-1, 1]^3, or the cylinder of radius 1 and |y| <= 1. The change of frame is affine, so
the ray parameter t is the same in both frames.

Limits. A ray that starts inside a solid does not hit it, because only entry points count.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

TILE = 8  # pixels along a side of a tile
RAYS = TILE * TILE
BALL, BOX, CYLINDER = 0, 1, 2


@dataclass(frozen=True)
class Solids:
    """The solids of a batch of scenes. Slot k holds the same kind of solid in every scene."""

    kinds: tuple[int, ...]  # (O,) BALL, BOX or CYLINDER
    center: Tensor  # (B, O, 3) world coordinates
    rotation: Tensor  # (B, O, 3, 3) columns: the axes of the solid in the world
    half_size: Tensor  # (B, O, 3) along the axes of the solid
    present: Tensor  # (B, O) bool; other slots are empty

    def radius(self) -> Tensor:
        """The radius of the bounding spheres, (B, O)."""
        kinds = torch.tensor(self.kinds, device=self.center.device)
        x, y, z = self.half_size.unbind(-1)
        ball = self.half_size.amax(-1)
        box = self.half_size.norm(dim=-1)
        cylinder = torch.sqrt(torch.maximum(x, z) ** 2 + y**2)
        return torch.where(kinds == BALL, ball, torch.where(kinds == BOX, box, cylinder))


def to_tiles(pixels: Tensor) -> Tensor:
    """(B, h, w, ...), h and w multiples of 8 -> (B, tiles, 64, ...)."""
    b, h, w = pixels.shape[:3]
    rest = pixels.shape[3:]
    tiles = pixels.reshape(b, h // TILE, TILE, w // TILE, TILE, *rest).transpose(2, 3)
    return tiles.reshape(b, -1, RAYS, *rest)


def from_tiles(tiles: Tensor, height: int, width: int) -> Tensor:
    """(B, tiles, 64, ...) -> (B, height, width, ...), without the padding to whole tiles."""
    b, rest = tiles.shape[0], tiles.shape[3:]
    rows, cols = -(-height // TILE), -(-width // TILE)
    pixels = tiles.reshape(b, rows, cols, TILE, TILE, *rest).transpose(2, 3)
    return pixels.reshape(b, rows * TILE, cols * TILE, *rest)[:, :height, :width]


def nearest(solids: Solids, origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Find the first solid on each ray. The rays of a scene share their origin.

    Args:
        solids: Of B scenes.
        origin: (B, 3).
        direction: (B, tiles, 64, 3), of any length.

    Returns:
        (t, slot): t (B, tiles, 64), infinite without a hit; the solid's slot (B, tiles, 64), -1 without a hit. The hit
        is at origin + t * direction.
    """
    # The tile's cone: axis and half angle, from the directions of its four corner rays.
    corners = torch.nn.functional.normalize(direction[:, :, [0, TILE - 1, RAYS - TILE, RAYS - 1]], dim=-1)
    axis = torch.nn.functional.normalize(corners.mean(2), dim=-1)  # (B, tiles, 3)
    tile_angle = torch.acos((corners * axis[:, :, None]).sum(-1).amin(-1).clamp(-1, 1))  # (B, tiles)
    offset = solids.center - origin[:, None]
    distance = offset.norm(dim=-1)  # (B, O)
    solid_angle = torch.asin((solids.radius() / distance.clamp_min(1e-9)).clamp(max=1.0))
    cosine = torch.einsum("btc,boc->bto", axis, offset / distance[..., None].clamp_min(1e-9))
    reach = (tile_angle[:, :, None] + solid_angle[:, None] + 1e-3).clamp(max=torch.pi)
    candidates = (cosine > torch.cos(reach)) & solids.present[:, None]
    return _first_hits(solids, candidates, origin[:, None, None].expand(-1, direction.shape[1], 1, -1), direction)


def in_shadow(solids: Solids, points: Tensor, light: Tensor, valid: Tensor) -> Tensor:
    """Find the points that a solid hides from the light.

    Args:
        solids: Of B scenes.
        points: (B, tiles, 64, 3).
        light: (B, 3) unit vectors towards the light.
        valid: (B, tiles, 64) bool; other points are skipped.

    Returns:
        (B, tiles, 64) bool; False for skipped points.
    """
    helper = torch.where(light[:, :1].abs() < 0.9, light.new_tensor([1.0, 0, 0]), light.new_tensor([0, 0, 1.0]))
    side = torch.nn.functional.normalize(torch.linalg.cross(helper, light), dim=-1)
    frame = torch.stack([side, torch.linalg.cross(light, side), light], dim=-1)  # (B, 3, 3); light is the last axis
    seen = torch.einsum("btpc,bcd->btpd", points, frame)
    low = seen.masked_fill(~valid[..., None], torch.inf).amin(2)[:, :, None]  # (B, tiles, 1, 3)
    high = seen.masked_fill(~valid[..., None], -torch.inf).amax(2)[:, :, None]
    center, radius = (solids.center @ frame)[:, None], solids.radius()[:, None]  # (B, 1, O, 3), (B, 1, O)
    overlap = (center + radius[..., None] >= low) & (center - radius[..., None] <= high)
    ahead = center[..., 2] + radius >= low[..., 2]
    candidates = overlap[..., 0] & overlap[..., 1] & ahead & solids.present[:, None]
    direction = light[:, None, None].expand(-1, points.shape[1], 1, -1)
    t, _ = _first_hits(solids, candidates, points, direction)
    return torch.isfinite(t) & valid


def _first_hits(solids: Solids, candidates: Tensor, origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Intersect the pairs marked in candidates (B, tiles, O); origin and direction are (B, tiles, 64 or 1, 3)."""
    batch, tiles, slots = candidates.shape
    # The pairs are sorted by scene, tile and slot. rank counts the candidates of a tile.
    scene, tile, slot = candidates.nonzero(as_tuple=True)
    rank = (candidates.to(torch.int32).cumsum(-1) - 1)[scene, tile, slot]
    row = scene * tiles + tile
    into = (solids.rotation / solids.half_size[..., None, :]).reshape(-1, 3, 3)  # world vector @ into = own frame
    center = solids.center.reshape(-1, 3)
    origins, directions = origin.reshape(batch * tiles, -1, 3), direction.reshape(batch * tiles, -1, 3)
    kinds = torch.tensor(solids.kinds, device=slot.device)[slot]

    t = directions.new_full((len(slot), RAYS), torch.inf)
    for kind, intersect in ((BALL, _ball), (BOX, _box), (CYLINDER, _cylinder)):
        chosen = (kinds == kind).nonzero()[:, 0]
        which = scene[chosen] * slots + slot[chosen]
        frame = into[which]
        o = (origins[row[chosen]] - center[which][:, None]) @ frame  # (pairs, 64 or 1, 3)
        d = directions[row[chosen]] @ frame
        enter, leave = intersect(o, d)
        hit = (enter < leave) & (enter > 1e-4)
        t[chosen] = torch.where(hit, enter, torch.inf).expand(-1, RAYS)

    best = t.new_full((batch * tiles, RAYS), torch.inf)
    owner = torch.full((batch * tiles, RAYS), -1, dtype=torch.int64, device=t.device)
    for k in range(int(rank.max()) + 1 if len(rank) else 0):
        chosen = (rank == k).nonzero()[:, 0]
        rows, new = row[chosen], t[chosen]
        old = best[rows]
        owner[rows] = torch.where(new < old, slot[chosen][:, None], owner[rows])
        best[rows] = torch.minimum(new, old)
    return best.view(batch, tiles, RAYS), owner.view(batch, tiles, RAYS)


# Each function returns where a line enters and leaves the unit solid. enter >= leave is a miss.
# Ball and cylinder use the point closest to the centre or axis, because b * b - a * c loses precision far from the
# solid.


def _ball(o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    a = (d * d).sum(-1)
    middle = -(o * d).sum(-1) / a
    nearest_point = o + middle[..., None] * d
    half = torch.sqrt(((1 - (nearest_point * nearest_point).sum(-1)) / a).clamp_min(0))
    return middle - half, middle + half


def _box(o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    inverse = 1 / torch.where(d.abs() < 1e-12, torch.full_like(d, 1e-12), d)
    half = inverse.abs()
    middle = -o * inverse
    near, far = middle - half, middle + half
    # Nested maxima, because amax over a last axis of 3 is several times slower.
    return (
        torch.maximum(torch.maximum(near[..., 0], near[..., 1]), near[..., 2]),
        torch.minimum(torch.minimum(far[..., 0], far[..., 1]), far[..., 2]),
    )


def _cylinder(o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    ox, oy, oz = o.unbind(-1)
    dx, dy, dz = d.unbind(-1)
    a = (dx * dx + dz * dz).clamp_min(1e-20)
    middle = -(ox * dx + oz * dz) / a
    px, pz = ox + middle * dx, oz + middle * dz
    inside = 1 - px * px - pz * pz
    half = torch.sqrt(inside.clamp_min(0) / a)
    inverse = 1 / torch.where(dy.abs() < 1e-12, torch.full_like(dy, 1e-12), dy)
    slab_middle, slab_half = -oy * inverse, inverse.abs()
    near = torch.maximum(middle - half, slab_middle - slab_half)
    far = torch.minimum(middle + half, slab_middle + slab_half)
    return near, torch.where(inside > 0, far, torch.full_like(far, -torch.inf))
