"""From a picture and its distances to points in space, and to a file that 3D programs open.

A pinhole camera of known field of view sees pixel (u, v) of a W x H picture at distance z (along the viewing axis) at

    x = (u + 1/2 - W/2) z / f,   y = (H/2 - v - 1/2) z / f,   depth z,   f = (W/2) / tan(fov/2)

Points are written as 3D programs expect them: x to the right, y up, and the camera looking down -z, in metres.

Limits. Lens distortion is not known and not undone. One distance a pixel: nothing is behind anything else. Distances
from a relative model rest on the two that its user gave (see `probes.depth.metres`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

import numpy as np
from jaxtyping import Bool, Float, Float32, Int32, UInt8

from ..errors import InvalidValueError

Picture = UInt8[np.ndarray, "height width 3"]
Map = Float[np.ndarray, "rows cols"]  # of the picture's size, which is checked with a message of its own
Mask = Bool[np.ndarray, "high wide"]  # likewise


@dataclass(frozen=True, eq=False)
class Cloud:
    """Points in space with their colours; faces, if it is a surface, name three points each."""

    xyz: Float32[np.ndarray, "points 3"]
    rgb: UInt8[np.ndarray, "points 3"]
    faces: Int32[np.ndarray, "faces 3"]

    def __len__(self) -> int:
        return len(self.xyz)

    def __repr__(self) -> str:
        if not len(self):
            return "Cloud(empty)"
        sides = " x ".join(f"{side:.3g}" for side in np.ptp(self.xyz, axis=0))
        return f"Cloud({len(self):,} points, {len(self.faces):,} faces, {sides} m)"


def back_project(
    image: Picture,
    z: Map,
    fov: float = 60.0,
    where: Mask | None = None,
    surface: bool = False,
    tear: float = 0.1,
    most: int | None = None,
) -> Cloud:
    """The picture's pixels in space.

    z: metres along the viewing axis. fov: horizontal field of view in degrees (phones have about 65). where: the pixels
    to keep; those without a finite, positive distance are never kept. surface: join neighbours by triangles, except
    where the farther corner is more than `tear` times farther than the nearer: there one thing ends.
    most: thin evenly to about as many points.
    """
    height, width = image.shape[:2]
    for name, given in (("z", z), ("where", where)):
        if given is not None and given.shape != (height, width):
            raise InvalidValueError(
                f"{name} is {given.shape}, but the picture is {(height, width)}; give one of its size"
            )
    if not 0 < fov < 180:
        raise InvalidValueError(f"fov is an angle in degrees, more than 0 and less than 180, not {fov}")
    step = 1 if most is None else max(1, math.ceil((z.size / most) ** 0.5))
    v, u = np.mgrid[0:height:step, 0:width:step]
    z, rgb = z[::step, ::step].astype(np.float64), image[::step, ::step]
    with np.errstate(invalid="ignore"):
        kept = np.isfinite(z) & (z > 0)
    if where is not None:
        kept &= where[::step, ::step]
    focal = width / 2 / math.tan(math.radians(fov) / 2)
    x, y, far = (a[kept] for a in (u + 0.5 - width / 2, height / 2 - v - 0.5, z))
    xyz = np.stack([x * far / focal, y * far / focal, -far], axis=1).astype(np.float32)
    faces = _faces(z, kept, tear) if surface else np.empty((0, 3), np.int32)
    return Cloud(xyz, rgb[kept], faces)


def _faces(
    z: Float[np.ndarray, "rows cols"], kept: Bool[np.ndarray, "rows cols"], tear: float
) -> Int32[np.ndarray, "faces 3"]:
    """Two triangles a cell of four pixels, counterclockwise as seen by the camera."""
    number = np.where(kept, np.cumsum(kept).reshape(kept.shape) - 1, -1).astype(np.int32)
    first, last = slice(0, -1), slice(1, None)
    a, b, c, d = (first, first), (first, last), (last, last), (last, first)  # around a cell
    found = []
    for corners in ((a, d, b), (b, d, c)):
        at = np.stack([number[corner].ravel() for corner in corners], axis=1)
        far = np.stack([z[corner].ravel() for corner in corners], axis=1)
        at, far = at[(at >= 0).all(axis=1)], far[(at >= 0).all(axis=1)]
        found.append(at[far.max(axis=1) <= (1 + tear) * far.min(axis=1)])
    return np.concatenate(found)


def ply(cloud: Cloud) -> Callable[[IO[bytes]], None]:
    """A writer of binary PLY (little endian) with a colour a point, for `probes.figures.depth_files.write`."""
    points = np.empty(len(cloud), [("xyz", "<f4", 3), ("rgb", "u1", 3)])
    points["xyz"], points["rgb"] = cloud.xyz, cloud.rgb
    faces = np.empty(len(cloud.faces), [("count", "u1"), ("points", "<i4", 3)])
    faces["count"], faces["points"] = 3, cloud.faces
    lines = ["ply", "format binary_little_endian 1.0", "comment x right, y up, camera looking down -z, metres"]
    lines += [f"element vertex {len(points)}", *(f"property float {axis}" for axis in "xyz")]
    lines += [f"property uchar {colour}" for colour in ("red", "green", "blue")]
    if len(faces):
        lines += [f"element face {len(faces)}", "property list uchar int vertex_indices"]
    header = "\n".join([*lines, "end_header", ""]).encode("ascii")
    return lambda file: file.writelines([header, points.tobytes(), faces.tobytes()])
