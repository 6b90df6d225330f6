"""Draws the contents of scenes from seeds: camera, room or open ground, solids, materials, light and sensor.

A scene is a row of uniform random numbers. All functions here map these numbers to tensors, for a batch of scenes at
once. The order of the draws decides what a seed means: adding or moving a draw changes every scene, including the
sample images and the training data of the demo model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..ambient import usual_defaults
from ..errors import UnavailableError
from .raycast import BALL, BOX, CYLINDER, Solids
from .shading import PATTERNS, Light, Materials, Sensor

BALLS, BOXES, PANELS, CYLINDERS = 5, 6, 3, 8
KINDS = (BALL,) * BALLS + (BOX,) * (BOXES + PANELS) + (CYLINDER,) * CYLINDERS
SOLIDS = len(KINDS)
SURFACES = 4  # floor, ceiling, walls across x, walls across z; their materials follow those of the solids
NUMBERS = 3000  # random numbers per scene; a few are unused
FAR = 1e6  # metres; the distance of the walls of an open scene
INDOORS = 0.3  # share of rooms


@dataclass(frozen=True)
class Scene:
    """A batch of scenes. The first axis of every tensor is B. World coordinates: metres, y up, floor at y = 0."""

    eye: Tensor  # (B, 3)
    view: Tensor  # (B, 3, 3) columns: the camera's right, up and forward in the world
    spread: Tensor  # (B,) tangent of half of the diagonal field of view
    room: Tensor  # (B, 2, 3) lowest and highest corner of the room; +-FAR for open ground
    solids: Solids
    materials: Materials  # of the solids, then the SURFACES
    light: Light
    sensor: Sensor


class _Draws:
    """Returns the random numbers of a batch of scenes, column by column, always in the same order."""

    def __init__(self, seeds: Iterable[int]) -> None:
        rows = [torch.rand(NUMBERS, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds]
        self.numbers = torch.stack(rows)
        self.used = 0

    def __call__(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Uniform numbers in low..high, (B, *shape)."""
        count = math.prod(shape)
        if self.used + count > NUMBERS:
            raise UnavailableError(f"a scene needs more than NUMBERS = {NUMBERS} random numbers. Increase NUMBERS")
        part = self.numbers[:, self.used : self.used + count]
        self.used += count
        return low + (high - low) * part.reshape(-1, *shape)

    def log(self, *shape: int, low: float, high: float) -> Tensor:
        """Log-uniform numbers in low..high, (B, *shape)."""
        return torch.exp(self(*shape, low=math.log(low), high=math.log(high)))

    def chance(self, probability: float | Tensor, *shape: int) -> Tensor:
        """True with a probability, (B, *shape)."""
        return self(*shape) < probability


def _turn(axis: int, angle: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) about one axis. angle: (...), in radians."""
    c, s = torch.cos(angle), torch.sin(angle)
    matrix = torch.zeros(*angle.shape, 3, 3)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix[..., axis, axis] = 1
    matrix[..., i, i], matrix[..., i, j], matrix[..., j, i], matrix[..., j, j] = c, -s, s, c
    return matrix


@usual_defaults()
def sample(seeds: Iterable[int], indoors: float = INDOORS) -> Scene:
    """Draw scenes on the CPU, one per seed. indoors: share of rooms."""
    draw = _Draws(seeds)
    indoor = draw.chance(indoors)
    eye, view, spread, room, yaw = _camera(draw, indoor)
    solids = _solids(draw, indoor, eye, yaw, spread, room)
    return Scene(eye, view, spread, room, solids, _materials(draw), _light(draw, indoor), _sensor(draw))


def _camera(draw: _Draws, indoor: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    half = draw.log(2, low=2.6, high=6.0)  # half of the room's extent in x and z
    ceiling = draw(low=2.4, high=3.6)
    # A wall closer than 0.8 m would fill half of the image with one colour.
    place = (draw(2, low=0.6, high=0.92) * half).minimum(half - 0.8) * torch.where(draw.chance(0.5, 2), 1.0, -1.0)
    height = torch.where(indoor, draw(low=1.1, high=1.7), draw.log(low=1.0, high=2.6))
    eye = torch.stack([place[:, 0], height, place[:, 1]], -1)
    room = torch.stack(
        [
            torch.stack([-half[:, 0], 0 * ceiling, -half[:, 1]], -1),
            torch.stack([half[:, 0], ceiling, half[:, 1]], -1),
        ],
        1,
    )
    open_air = torch.tensor([[-FAR, 0.0, -FAR], [FAR, FAR, FAR]])
    room = torch.where(indoor[:, None, None], room, open_air)

    # Indoors, look across the room instead of at the nearest wall: towards the centre, with some deviation.
    towards = torch.atan2(-eye[:, 0], -eye[:, 2])
    yaw = torch.where(indoor, towards + draw(low=-0.35, high=0.35), draw(low=-math.pi, high=math.pi))
    # As in photographs, most views are level; some look up or down or are tilted.
    pitch = torch.where(draw.chance(0.1), draw(low=-0.4, high=0.15), draw(low=-0.32, high=0.08))  # down is negative
    roll = torch.where(draw.chance(0.2), draw(low=-0.2, high=0.2), draw(low=-0.03, high=0.03))
    view = _turn(1, yaw) @ _turn(0, -pitch) @ _turn(2, roll)
    spread = torch.tan(draw(low=62, high=72) * math.pi / 360)
    return eye, view, spread, room, yaw


def _solids(draw: _Draws, indoor: Tensor, eye: Tensor, yaw: Tensor, spread: Tensor, room: Tensor) -> Solids:
    scale = torch.where(indoor, draw.log(low=0.6, high=1.1), draw.log(low=0.7, high=1.6))[:, None]
    size = draw.log(SOLIDS, low=0.15, high=1.1) * scale
    slender = draw.log(SOLIDS, 3, low=0.5, high=1.6)
    half_size = size[..., None] * slender
    balls, boxes = slice(0, BALLS), slice(BALLS, BALLS + BOXES)
    panels, cylinders = slice(BALLS + BOXES, BALLS + BOXES + PANELS), slice(SOLIDS - CYLINDERS, SOLIDS)

    round_ball = draw.chance(0.6, BALLS)[..., None]
    half_size[:, balls] = torch.where(round_ball, half_size[:, balls, :1], half_size[:, balls]) * 0.8
    pole = draw.chance(0.4, CYLINDERS)
    thin = draw.log(CYLINDERS, low=0.03, high=0.15) * scale
    half_size[:, cylinders, 0] = torch.where(pole, thin, half_size[:, cylinders, 0])
    half_size[:, cylinders, 2] = half_size[:, cylinders, 0]  # circular
    half_size[:, cylinders, 1] *= torch.where(pole, draw(CYLINDERS, low=1.0, high=3.0), torch.ones(()))
    building = draw.chance(torch.where(indoor, 0.0, 0.15)[:, None], BOXES)  # of the size of a cupboard at a small scale
    half_size[:, boxes] *= torch.where(building, draw.log(BOXES, low=2.0, high=7.0), torch.ones(()))[..., None]

    # Positions: within the view, at a log-uniform distance, standing on the floor (a few float).
    distance = draw.log(SOLIDS, low=2.0, high=9.0) * torch.where(indoor, torch.ones(()), scale[:, 0] * 1.3)[:, None]
    distance[:, boxes] *= torch.where(building, torch.tensor(3.0), torch.ones(()))
    lateral = draw(SOLIDS, low=-1.0, high=1.0) * (distance * spread[:, None] * 0.9 + 0.3)
    x = eye[:, :1] + distance * torch.sin(yaw)[:, None] + lateral * torch.cos(yaw)[:, None]
    z = eye[:, 2:] + distance * torch.cos(yaw)[:, None] - lateral * torch.sin(yaw)[:, None]
    floating = draw.chance(0.02, SOLIDS)
    y = half_size[..., 1] + torch.where(floating, draw(SOLIDS, low=0.0, high=2.0) * scale, torch.zeros(()))
    center = torch.stack([x, y, z], -1)

    # Rotated about the vertical, a few about all axes. Indoors, most boxes are parallel to the walls.
    aligned = draw.chance(torch.where(indoor, 0.6, 0.3)[:, None], SOLIDS)
    rotation = _turn(1, torch.where(aligned, (draw(SOLIDS) * 4).floor() * math.pi / 2, draw(SOLIDS, high=2 * math.pi)))
    tumbled = draw.chance(0.05, SOLIDS)[..., None, None]
    tumble = _turn(0, draw(SOLIDS, low=-1.5, high=1.5)) @ _turn(2, draw(SOLIDS, low=-1.5, high=1.5))
    rotation = torch.where(tumbled, rotation @ tumble, rotation)

    # Clamp into the room: a solid beyond a wall is moved to the wall.
    inset = half_size.norm(dim=-1, keepdim=True) * 0.6
    low, high = room[:, :1] + inset, room[:, 1:] - inset
    low, high = torch.minimum(low, high), torch.maximum(low, high)
    level = center[..., 1].clone()
    center = torch.minimum(torch.maximum(center, low), high)
    center[..., 1] = level

    # Panels: thin boxes on a wall (paintings, doors, shelves) indoors, walls and fences outdoors.
    thickness = draw(PANELS, low=0.01, high=0.06)
    flat = torch.stack([draw(PANELS, low=0.25, high=1.1), draw(PANELS, low=0.25, high=1.1), thickness], -1)
    across_x = draw.chance(0.5, PANELS)
    side = torch.where(draw.chance(0.5, PANELS), room[:, 1, 0, None], room[:, 0, 0, None])
    other = torch.where(draw.chance(0.5, PANELS), room[:, 1, 2, None], room[:, 0, 2, None])
    along = draw(PANELS, low=-0.9, high=0.9)
    on_wall = torch.stack(
        [
            torch.where(across_x, side, along * room[:, 1, 0, None]),
            draw(PANELS, low=0.3, high=0.75) * room[:, 1, 1, None],
            torch.where(across_x, along * room[:, 1, 2, None], other),
        ],
        -1,
    )
    inside = indoor[:, None, None]
    fence = flat * scale[..., None] * torch.tensor([4.0, 1.0, 2.0])
    upright = center[:, panels].clone()
    upright[..., 1] = fence[..., 1]
    half_size[:, panels] = torch.where(inside, flat, fence)
    center[:, panels] = torch.where(inside, on_wall, upright)
    facing = _turn(1, torch.where(across_x, math.pi / 2, 0.0))
    rotation[:, panels] = torch.where(inside[..., None], facing, rotation[:, panels])

    # Stacks: a box on a box, a ball on a cylinder (trees, lamps, people).
    upright_turn = _turn(1, draw(BOXES, high=6.28))
    for k in range(1, 3):
        lower, upper = BALLS + 2 * k, BALLS + 2 * k + 1
        _stack(draw.chance(0.5), center, rotation, half_size, lower, upper, upright_turn[:, k])
    for k in range(4):
        _stack(draw.chance(0.45), center, rotation, half_size, SOLIDS - CYLINDERS + k, k, upright_turn[:, k])
    _stack(
        draw.chance(0.4), center, rotation, half_size, BALLS - 1, BALLS - 2, upright_turn[:, 0], sink=0.1
    )  # a ball on a ball
    # Tables: the first box becomes a board, the last four cylinders its legs.
    table = draw.chance(torch.where(indoor, 0.5, 0.15))
    board = torch.stack([draw(low=0.4, high=1.0), draw(low=0.015, high=0.05), draw(low=0.3, high=0.6)], -1)
    top = draw(low=0.4, high=1.0)
    _table(table, center, rotation, half_size, board, top)

    crowd = draw(low=0.12, high=0.5)[:, None]  # some scenes are almost empty, some are full
    present = draw.chance(crowd, SOLIDS)
    legs = slice(SOLIDS - 4, SOLIDS)
    present[:, legs] = torch.where(table[:, None], torch.ones((), dtype=torch.bool), present[:, legs])
    present[:, BALLS] |= table
    solids = Solids(KINDS, center, rotation, half_size, present)
    # Remove solids that contain the camera or are so close that they fill the image.
    clear = (center - eye[:, None]).norm(dim=-1) > 1.25 * solids.radius() + 1.0
    return Solids(KINDS, center, rotation, half_size, present & clear)


def _stack(
    chosen: Tensor, center: Tensor, rotation: Tensor, half_size: Tensor,
    lower: int, upper: int, turn: Tensor, sink: float = 0.0,
) -> None:  # fmt: skip
    """Where chosen, put the upper solid on the lower one (in place)."""
    on_top = center[:, lower].clone()
    on_top[:, 1] += (half_size[:, lower, 1] + half_size[:, upper, 1]) * (1 - sink)
    center[:, upper] = torch.where(chosen[:, None], on_top, center[:, upper])
    rotation[:, upper] = torch.where(chosen[:, None, None], turn, rotation[:, upper])
    rotation[:, lower] = torch.where(chosen[:, None, None], turn, rotation[:, lower])


def _table(chosen: Tensor, center: Tensor, rotation: Tensor, half_size: Tensor, board: Tensor, top: Tensor) -> None:
    """Where chosen, turn solid BALLS into a board at height top, and the last four cylinders into legs (in place)."""

    def put(new: Tensor, old: Tensor) -> Tensor:
        return torch.where(chosen.reshape(-1, *[1] * (old.dim() - 1)), new, old)

    center[:, BALLS, 1] = put(top, center[:, BALLS, 1])
    half_size[:, BALLS] = put(board, half_size[:, BALLS])
    upright = _turn(1, torch.atan2(rotation[:, BALLS, 0, 2], rotation[:, BALLS, 2, 2]))
    rotation[:, BALLS] = put(upright, rotation[:, BALLS])
    for leg, (sx, sz) in enumerate(((-1, -1), (-1, 1), (1, -1), (1, 1))):
        k = SOLIDS - 4 + leg
        local = board * torch.tensor([0.9 * sx, 0.0, 0.9 * sz])
        foot = center[:, BALLS] + (upright @ local[..., None])[..., 0]
        foot[:, 1] = top / 2
        center[:, k] = put(foot, center[:, k])
        half_size[:, k] = put(torch.stack([top * 0 + 0.03, top / 2, top * 0 + 0.03], -1), half_size[:, k])
        rotation[:, k] = put(upright, rotation[:, k])


def _materials(draw: _Draws) -> Materials:
    count = SOLIDS + SURFACES
    pattern = (draw(count) * len(PATTERNS)).floor().to(torch.int64)
    pattern = torch.where(draw.chance(0.4, count), torch.zeros_like(pattern), pattern)
    brightness = draw.log(count, low=0.12, high=0.9)[..., None]
    tint = draw(count, 3, low=0.0, high=1.0)
    strength = draw(count)[..., None]  # most colours are dull
    first = brightness * (1 - strength + strength * tint / tint.amax(-1, keepdim=True))
    related = (first * draw.log(count, low=0.35, high=1.8)[..., None]).clamp(max=0.95)
    second = torch.where(draw.chance(0.8, count)[..., None], related, draw(count, 3, low=0.05, high=0.9))
    tilt = _turn(1, draw(count, high=6.28)) @ _turn(0, draw(count, high=6.28))
    straight = draw.chance(0.6, count)[..., None, None]
    frequency = draw.log(count, low=1.0, high=12.0)[..., None, None]
    frame = torch.where(straight, torch.eye(3), tilt) * frequency * draw.log(count, 3, low=0.6, high=1.6)[..., None, :]
    frame[:, SOLIDS:] *= 0.5  # floors and walls have larger patterns
    return Materials(
        pattern=pattern,
        color=torch.stack([first, second], -2),
        frame=frame,
        shift=draw(count, 3, low=0.05, high=9.0),
        grain=draw(count, high=0.5),
        gloss=torch.where(draw.chance(0.4, count), draw(count, high=0.5), torch.zeros(())),
        shine=draw.log(count, low=5, high=80),
    )


def _light(draw: _Draws, indoor: Tensor) -> Light:
    azimuth, elevation = draw(low=-math.pi, high=math.pi), draw(low=0.3, high=1.35)
    flat = torch.cos(elevation)
    direction = torch.stack([flat * torch.sin(azimuth), torch.sin(elevation), flat * torch.cos(azimuth)], -1)
    warm = draw(low=-0.25, high=0.25)[:, None] * torch.tensor([1.0, 0.0, -1.0])
    ambient = draw(low=0.15, high=0.6)[:, None] * (1 - 0.6 * warm)
    grey = draw(low=0.5, high=1.0)[:, None]
    blue = draw(low=0.0, high=1.0)[:, None]
    horizon = grey * torch.lerp(torch.tensor([1.0, 1.0, 1.0]), torch.tensor([0.8, 0.92, 1.0]), blue) * (1 + 0.5 * warm)
    zenith = grey * torch.lerp(torch.tensor([0.9, 0.9, 0.9]), torch.tensor([0.2, 0.42, 0.85]), blue)
    misty = draw.chance(torch.where(indoor, 0.1, 0.7))
    fog = torch.where(misty, draw.log(low=0.002, high=0.025), torch.zeros(()))
    cloud = torch.stack([draw(high=0.9) * draw.chance(0.6), draw.log(low=0.5, high=3.0), draw(high=20)], -1)
    return Light(direction, 0.9 * (1 + warm), ambient, draw(low=0.3, high=1.0), fog, horizon, zenith, cloud)


def _sensor(draw: _Draws) -> Sensor:
    return Sensor(
        exposure=draw.log(low=0.22, high=0.5),
        balance=draw(3, low=0.88, high=1.12),
        gamma=draw(low=1.7, high=2.5),
        blur=torch.where(draw.chance(0.5), draw(), torch.zeros(())),
        noise=torch.where(draw.chance(0.7), draw.log(low=0.002, high=0.015), torch.zeros(())),
        vignette=draw(low=0.0, high=0.35),
    )
