"""Projects an image and its distances to points in space, and writes them to a file for 3D programs.

A pinhole camera sees pixel (u, v) of a W x H image at distance z along the viewing axis at

    x = (u - cx) z / fx,   y = (cy - v) z / fy,   depth z

fx and fy are its focal lengths and (cx, cy) its principal point, in pixels. As in OpenCV, the centre of the upper left
pixel is at (0, 0). A calibration gives all four numbers. Without one, a field of view gives

    fx = fy = (W/2) / tan(fov/2),   cx = (W - 1)/2,   cy = (H - 1)/2

Points follow the convention of 3D programs: x points right, y up, and the camera looks along -z, in metres.

Limits: lens distortion is not corrected. Every pixel has one distance, so nothing lies behind anything else. Distances
from a relative model depend on the two distances that its user gave (see `probes.depth.metres`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, SupportsFloat, TypedDict

import numpy as np
from jaxtyping import Bool, Float, Float32, Int32, UInt8

from ..errors import InvalidValueError
from ..scalars import real

RGB = UInt8[np.ndarray, "height width 3"]
# Must have the size of the image. Its axes have other names, so that `back_project` raises the error, not jaxtyping.
Map = Float[np.ndarray, "rows cols"]
Mask = Bool[np.ndarray, "high wide"]


class Camera(TypedDict, total=False):
    """The arguments of `back_project` that describe the camera."""

    fov: float
    fx: float
    fy: float
    cx: float
    cy: float


@dataclass(frozen=True, eq=False)
class Cloud:
    """Points in space with colours.

    Attributes:
        xyz: Positions in metres, (points, 3).
        rgb: Colours, (points, 3).
        faces: Triangles as three point numbers each, (faces, 3). Empty unless the cloud is a surface.
    """

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
    image: RGB,
    z: Map,
    fov: SupportsFloat | None = None,
    where: Mask | None = None,
    surface: bool = False,
    tear: float = 0.1,
    most: int | None = None,
    *,
    fx: SupportsFloat | None = None,
    fy: SupportsFloat | None = None,
    cx: SupportsFloat | None = None,
    cy: SupportsFloat | None = None,
) -> Cloud:
    """Projects the pixels of an image into space.

    Args:
        image: RGB image, (H, W, 3) uint8.
        z: Distance along the viewing axis in metres, (H, W). Pixels without a finite, positive distance are dropped,
            and so are masked ones.
        fov: Horizontal field of view in degrees, instead of fx. Default: 60. Phones have about 65.
        where: Pixels to keep, (H, W) bool. Default: all.
        surface: Join neighbouring pixels by triangles.
        tear: No triangle joins corners if the farthest is more than this fraction farther away than the nearest.
        most: Thin the pixels evenly to about this number of points.
        fx: Horizontal focal length in pixels of this image. If the camera was calibrated at another size, scale it.
        fy: Vertical focal length in pixels. Default: fx.
        cx: Column of the principal point; 0 is the centre of the left column. Default: the middle, (W - 1) / 2.
        cy: Row of the principal point; 0 is the centre of the upper row. Default: the middle, (H - 1) / 2.

    Returns:
        The points.

    Raises:
        InvalidValueError: The sizes differ, fov is not an angle between 0 and 180, a focal length is not positive, or
            both fov and fx are given, or fy without fx.

    Example:
        z = probes.depth.metres(depth, near=1.5, far=20.0)
        points = back_project(image, z, fov=65)
        points = back_project(image, z, fx=1050.2, fy=1049.7, cx=641.3, cy=358.9)
    """
    height, width = image.shape[:2]
    for name, given in (("z", z), ("where", where)):
        if given is not None and given.shape != (height, width):
            raise InvalidValueError(f"{name} must have the size of the image, {(height, width)}, got {given.shape}")
    focal_x, focal_y = _focal_lengths(width, fov, fx, fy)
    middle_x = (width - 1) / 2 if cx is None else real(cx, "cx")
    middle_y = (height - 1) / 2 if cy is None else real(cy, "cy")
    step = 1 if most is None else max(1, math.ceil((z.size / most) ** 0.5))
    v, u = np.mgrid[0:height:step, 0:width:step]
    if isinstance(z, np.ma.MaskedArray):
        z = np.ma.filled(z.astype(np.float64), np.nan)
    z, rgb = z[::step, ::step].astype(np.float64), image[::step, ::step]
    with np.errstate(invalid="ignore"):
        kept = np.isfinite(z) & (z > 0)
    if where is not None:
        kept &= where[::step, ::step]
    x, y, far = (a[kept] for a in (u - middle_x, middle_y - v, z))
    xyz = np.stack([x * far / focal_x, y * far / focal_y, -far], axis=1).astype(np.float32)
    faces = _faces(z, kept, tear) if surface else np.empty((0, 3), np.int32)
    return Cloud(xyz, rgb[kept], faces)


def _focal_lengths(
    width: int, fov: SupportsFloat | None, fx: SupportsFloat | None, fy: SupportsFloat | None
) -> tuple[float, float]:
    """fx and fy in pixels, from what was given."""
    if fx is None:
        if fy is not None:
            raise InvalidValueError(f"fy={fy} needs fx, too. Give both, or fov")
        angle = 60.0 if fov is None else real(fov, "fov")
        if not 0 < angle < 180:
            raise InvalidValueError(f"fov must be an angle in degrees > 0 and < 180, got {fov}")
        focal = width / 2 / math.tan(math.radians(angle) / 2)
        return focal, focal
    if fov is not None:
        raise InvalidValueError(f"fov={fov} and fx={fx} both set the focal length. Give one of them")
    focal = real(fx, "fx", above=0)
    return focal, focal if fy is None else real(fy, "fy", above=0)


def _faces(
    z: Float[np.ndarray, "rows cols"], kept: Bool[np.ndarray, "rows cols"], tear: float
) -> Int32[np.ndarray, "faces 3"]:
    """Two triangles per cell of four pixels, counterclockwise as seen from the camera."""
    number = np.where(kept, np.cumsum(kept).reshape(kept.shape) - 1, -1).astype(np.int32)
    first, last = slice(0, -1), slice(1, None)
    a, b, c, d = (first, first), (first, last), (last, last), (last, first)  # corners of a cell, clockwise
    found = []
    for corners in ((a, d, b), (b, d, c)):
        at = np.stack([number[corner].ravel() for corner in corners], axis=1)
        far = np.stack([z[corner].ravel() for corner in corners], axis=1)
        at, far = at[(at >= 0).all(axis=1)], far[(at >= 0).all(axis=1)]
        found.append(at[far.max(axis=1) <= (1 + tear) * far.min(axis=1)])
    return np.concatenate(found)


def ply(cloud: Cloud) -> Callable[[IO[bytes]], None]:
    """Returns a writer of a binary PLY file (little endian) with one colour per point.

    Args:
        cloud: The points.

    Returns:
        A function that writes to an open binary file, for `depth_files.write`.

    Raises:
        InvalidValueError: A position is NaN or infinite.

    Example:
        depth_files.write(Path("cloud.ply"), ply(points))
    """
    if not (finite := np.isfinite(cloud.xyz).all(axis=1)).all():
        raise InvalidValueError(
            f"{np.count_nonzero(~finite):,} of {len(cloud):,} points are NaN or infinite. Drop them"
        )
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
