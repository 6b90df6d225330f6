"""Colours the points that the rays hit: procedural textures, one directional light, fog, sky, and a camera's flaws.

A texture is a function of a point in the solid's own frame, in metres, so it needs no unwrapping and looks the same at
any resolution. Each pixel computes only the pattern of its material.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Materials:
    """One material per solid and room surface of every scene. Tensors start with the axes (B, M)."""

    pattern: Tensor  # (B, M) index into PATTERNS
    color: Tensor  # (B, M, 2, 3) the two colours that the pattern mixes, linear RGB
    frame: Tensor  # (B, M, 3, 3) metres -> pattern units; rotates and stretches
    shift: Tensor  # (B, M, 3) pattern units
    grain: Tensor  # (B, M) strength of dirt and grain, 0..1
    gloss: Tensor  # (B, M) strength of the highlight
    shine: Tensor  # (B, M) exponent of the highlight


def _hash(cell: Tensor) -> Tensor:
    """Integer lattice points (..., 3) -> pseudo-random numbers in 0..1."""
    # Integer arithmetic, because hashes based on sin differ between devices and precisions.
    x, y, z = cell.to(torch.int64).unbind(-1)
    n = (x * 73856093) ^ (y * 19349663) ^ (z * 83492791)
    n = (n ^ ((n & 0xFFFFFFFF) >> 13)) * 1274126177
    return ((n ^ ((n & 0xFFFFFFFF) >> 16)) & 0xFFFF).to(torch.float32) / 65535


def _smooth_noise(p: Tensor) -> Tensor:
    cell = p.floor()
    f = p - cell
    f = f * f * (3 - 2 * f)
    value: Tensor | None = None
    for corner in range(8):
        at = [corner & 1, corner >> 1 & 1, corner >> 2]
        weight = torch.ones_like(f[..., 0])
        for axis in range(3):
            weight = weight * (f[..., axis] if at[axis] else 1 - f[..., axis])
        term = weight * _hash(cell + cell.new_tensor(at))
        value = term if value is None else value + term
    assert value is not None
    return value


def _flat(p: Tensor) -> Tensor:
    return torch.zeros_like(p[..., 0])


def _checker(p: Tensor) -> Tensor:
    return p.floor().sum(-1) % 2


def _stripes(p: Tensor) -> Tensor:
    return (4 * torch.sin(3 * p[..., 0]) + 0.5).clamp(0, 1)


def _noise(p: Tensor) -> Tensor:
    value = 0.6 * _smooth_noise(p) + 0.4 * _smooth_noise(2.7 * p + 11)
    return (2.4 * value - 0.7).clamp(0, 1)


def _dots(p: Tensor) -> Tensor:
    from_middle = p - p.floor() - 0.5
    return ((0.16 - (from_middle * from_middle).sum(-1)) * 30).clamp(0, 1)


def _bricks(p: Tensor) -> Tensor:
    row = p[..., 1].floor()
    along = torch.stack([p[..., 0], p[..., 2]], -1) / 2 + 0.5 * (row % 2)[..., None]
    cell = along.floor()
    joint = torch.minimum((along - cell).amin(-1) * 2, p[..., 1] - row) < 0.1
    tone = 0.45 * _hash(torch.cat([cell, row[..., None]], -1))
    return torch.where(joint, torch.ones_like(tone), tone)


def _gradient(p: Tensor) -> Tensor:
    return 0.5 + 0.5 * torch.sin(0.7 * p[..., 1])


def _mosaic(p: Tensor) -> Tensor:
    return _hash(p.floor())


def _marble(p: Tensor) -> Tensor:
    x, y, z = p.unbind(-1)
    bend = 1.5 * torch.sin(1.3 * y + 1.7 * torch.sin(1.1 * z)) + torch.sin(3.1 * z + 2.3 * x)
    return 0.5 + 0.5 * torch.sin(2 * x + bend)


def _planks(p: Tensor) -> Tensor:
    board = p[..., 0].floor()
    tone = _hash(torch.stack([board, torch.zeros_like(board), (p[..., 2] / 6 + 0.37 * board).floor()], -1))
    streak = torch.sin(9 * p[..., 0] + torch.sin(1.2 * p[..., 2] + 5 * tone))
    return (0.7 * tone + 0.15 * streak + 0.1).clamp(0, 1)


PATTERNS: tuple[Callable[[Tensor], Tensor], ...] = (
    _flat, _checker, _stripes, _noise, _dots, _bricks, _gradient, _mosaic, _marble, _planks,
)  # fmt: skip


def albedo(materials: Materials, material: Tensor, point: Tensor, footprint: Tensor) -> Tensor:
    """The colour of surface points before lighting.

    Args:
        materials: Of all scenes.
        material: (P,) index into B * M.
        point: (P, 3) in the frame of the solid, in metres.
        footprint: (P,) size of the surface that one pixel covers, in metres.

    Returns:
        (P, 3) linear RGB.
    """
    frame = materials.frame.reshape(-1, 3, 3)[material]
    p = torch.einsum("pc,pcd->pd", point, frame) + materials.shift.reshape(-1, 3)[material]
    # Patterns finer than a pixel fade to their mean, or distant floors would show moire.
    detail = footprint * frame[:, :, 0].norm(dim=-1)  # pattern units per pixel
    pattern = materials.pattern.reshape(-1)[material]
    mix = torch.zeros_like(p[..., 0])
    for index, function in enumerate(PATTERNS[1:], start=1):
        chosen = (pattern == index).nonzero()[:, 0]
        mix[chosen] = torch.lerp(function(p[chosen]), mix.new_tensor(0.5), (3 * detail[chosen] - 0.5).clamp(0, 1))
    color = materials.color.reshape(-1, 2, 3)[material]
    mixed = torch.lerp(color[:, 0], color[:, 1], mix[:, None])
    # Real surfaces are never uniform: add coarse dirt and fine grain to every pattern.
    x, y, z = p.unbind(-1)
    dirt = torch.sin(0.9 * x + 1.3 * torch.sin(1.1 * z)) + torch.sin(0.7 * y + 1.1 * torch.sin(0.8 * x + 1.7))
    speckle = torch.sin(9 * x + 3 * torch.sin(7 * y)) * torch.sin(11 * z + 3 * torch.sin(8 * x))
    speckle = speckle / (1 + (9 * detail) ** 2)
    return mixed * (1 + materials.grain.reshape(-1)[material] * (0.3 * dirt + 0.5 * speckle))[:, None]


@dataclass(frozen=True)
class Light:
    """The light, air and sky of a batch of scenes."""

    direction: Tensor  # (B, 3) unit vector towards the light
    color: Tensor  # (B, 3)
    ambient: Tensor  # (B, 3)
    shadow: Tensor  # (B,) 1: only ambient light in shadows; 0: no shadows
    fog: Tensor  # (B,) per metre
    horizon: Tensor  # (B, 3) colour of the fog, and of the sky at the horizon
    zenith: Tensor  # (B, 3)
    cloud: Tensor  # (B, 3) strength, scale, shift


def sky(light: Light, direction: Tensor) -> Tensor:
    """The colour of the sky (B, tiles, 64, 3) along directions (B, tiles, 64, 3) of any length."""
    d = torch.nn.functional.normalize(direction, dim=-1)
    up = d[..., 1].clamp_min(0)
    color = torch.lerp(light.horizon[:, None, None], light.zenith[:, None, None], (up**0.5)[..., None])
    strength, scale, shift = light.cloud[:, None, None].unbind(-1)
    u, v = scale * d[..., 0] / (up + 0.15) + shift, scale * d[..., 2] / (up + 0.15)
    wave = torch.sin(u + 1.7 * torch.sin(0.7 * v + shift)) + torch.sin(1.9 * v + 1.3 * torch.sin(1.3 * u))
    wave = wave + 0.5 * torch.sin(3.7 * u + 2.1 * torch.sin(2.9 * v))
    color = color + (strength * (wave - 0.4).clamp(0, 1.4) * (4 * up).clamp(max=1))[..., None] * (1.1 - color)
    glow = (d * light.direction[:, None, None]).sum(-1).clamp_min(0) ** 40
    return color + 0.6 * glow[..., None] * light.color[:, None, None]


@dataclass(frozen=True)
class Sensor:
    """How the cameras of a batch of scenes turn radiance into pixel values."""

    exposure: Tensor  # (B,) target mean brightness, linear
    balance: Tensor  # (B, 3) white balance gains
    gamma: Tensor  # (B,)
    blur: Tensor  # (B,) 0: sharp .. 1: a 3 x 3 binomial filter
    noise: Tensor  # (B,) standard deviation in the 0..1 output
    vignette: Tensor  # (B,) darkening of the corners


def develop(sensor: Sensor, radiance: Tensor, noise: Tensor) -> Tensor:
    """Linear radiance and standard normal noise, both (B, h, w, 3) -> image (B, 3, h, w) in multiples of 1/255."""
    x = radiance.movedim(-1, 1)
    h, w = x.shape[-2:]

    def column(values: Tensor) -> Tensor:
        return values[:, None, None, None]

    rows = torch.linspace(-1, 1, h, device=x.device)[:, None] ** 2
    cols = torch.linspace(-1, 1, w, device=x.device)[None] ** 2
    x = x * (1 - column(sensor.vignette) * 0.5 * (rows + cols))
    x = x * column(sensor.exposure / x.mean((1, 2, 3)).clamp_min(1e-6)) * sensor.balance[:, :, None, None]
    x = (x.clamp_min(0) / (1 + 0.25 * x.clamp_min(0)) * 1.25).clamp(0, 1)  # compress highlights, then clip
    x = x ** column(1 / sensor.gamma)
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1), mode="replicate")
    rowwise = (padded[..., :-2, :] + 2 * padded[..., 1:-1, :] + padded[..., 2:, :]) / 4
    soft = (rowwise[..., :-2] + 2 * rowwise[..., 1:-1] + rowwise[..., 2:]) / 4
    x = torch.lerp(x, soft, column(sensor.blur))
    x = x + column(sensor.noise) * noise.movedim(-1, 1)
    return (x.clamp(0, 1) * 255).round() / 255
