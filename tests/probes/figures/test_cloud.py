"""Points in space: where the pinhole camera puts them, and the file that they are written to."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from probes.figures import depth_files as pictures
from probes.figures.cloud import Cloud, back_project, ply

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
FLAT = np.full((20, 30), 4.0, np.float32)


def read(content: bytes) -> Cloud:
    """A PLY file, read by what its header says."""
    head, body = content.split(b"end_header\n", 1)
    lines = head.decode("ascii").splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    counts = {line.split()[1]: int(line.split()[2]) for line in lines if line.startswith("element")}
    properties = [tuple(line.split()[1:]) for line in lines if line.startswith("property")]
    kinds = {"float": "<f4", "uchar": "u1"}
    point = np.dtype([(name, kinds[kind]) for kind, name, *rest in properties if not rest])
    points = np.frombuffer(body[: counts["vertex"] * point.itemsize], point)
    rest = body[counts["vertex"] * point.itemsize :]
    faces = np.frombuffer(rest, [("n", "u1"), ("at", "<i4", 3)])
    assert len(faces) == counts.get("face", 0)
    assert (faces["n"] == 3).all()
    return Cloud(
        np.stack([points[axis] for axis in "xyz"], 1),
        np.stack([points[colour] for colour in ("red", "green", "blue")], 1),
        faces["at"].astype(np.int32),
    )


def test_a_wall_is_as_wide_as_the_field_of_view_says():
    cloud = back_project(IMAGE, FLAT, fov=90.0)
    assert len(cloud) == 600
    assert (cloud.xyz[:, 2] == -4).all()  # the camera looks down -z
    # At 90 degrees a wall 4 m away is 8 m wide; the outermost pixels' centres are half a pixel inside.
    assert np.ptp(cloud.xyz[:, 0]) == pytest.approx(8 * 29 / 30)
    assert np.ptp(cloud.xyz[:, 1]) == pytest.approx(8 * 19 / 30)  # square pixels
    assert np.allclose(cloud.xyz.mean(0), [0, 0, -4], atol=1e-6)
    assert np.array_equal(cloud.rgb, IMAGE.reshape(-1, 3))
    top_left, right, below = cloud.xyz[0], cloud.xyz[1], cloud.xyz[30]
    assert right[0] > top_left[0]
    assert below[1] < top_left[1]


def test_points_project_back_onto_their_pixels():
    z = RNG.uniform(1, 9, (20, 30))
    cloud = back_project(IMAGE, z, fov=50.0)
    focal = 15 / np.tan(np.radians(25))
    x, y, depth = cloud.xyz.T
    v, u = np.mgrid[0:20, 0:30]
    assert np.allclose(x / -depth * focal + 15 - 0.5, u.ravel(), atol=1e-4)
    assert np.allclose(10 - y / -depth * focal - 0.5, v.ravel(), atol=1e-4)


def test_only_pixels_with_a_distance_and_inside_the_mask_are_kept():
    z = FLAT.copy()
    z[0, :4] = np.nan, np.inf, 0, -1
    where = np.ones((20, 30), bool)
    where[5] = False
    assert len(back_project(IMAGE, z, where=where)) == 600 - 4 - 30
    assert len(back_project(IMAGE, z, where=np.zeros((20, 30), bool), surface=True)) == 0


def test_a_surface_is_torn_where_one_thing_ends():
    cloud = back_project(IMAGE, FLAT, surface=True)
    assert len(cloud.faces) == 2 * 19 * 29
    a, b, c = (cloud.xyz[cloud.faces[:, n]] for n in range(3))
    assert (np.cross(b - a, c - a)[:, 2] > 0).all()  # towards the camera
    step = np.where(np.arange(30) < 12, 4.0, 8.0) * np.ones((20, 1))
    assert len(back_project(IMAGE, step, surface=True).faces) == 2 * 19 * 28  # one column of cells is gone
    assert len(back_project(IMAGE, step, surface=True, tear=1.0).faces) == 2 * 19 * 29  # control
    holed = FLAT.copy()
    holed[5, 5] = np.nan
    torn = back_project(IMAGE, holed, surface=True)
    assert len(torn.faces) == 2 * 19 * 29 - 6
    assert torn.faces.max() == len(torn) - 1


def test_large_pictures_are_thinned_over_the_same_view():
    whole, thin = (back_project(IMAGE, FLAT, most=most) for most in (None, 100))
    assert 50 <= len(thin) <= 110
    assert np.ptp(thin.xyz[:, 0]) > 0.85 * np.ptp(whole.xyz[:, 0])


@pytest.mark.parametrize("surface", [False, True])
def test_ply_reads_back_as_it_was(tmp_path: Path, surface: bool):
    cloud = back_project(IMAGE, RNG.uniform(1, 1.05, (20, 30)), surface=surface)
    path = tmp_path / "cloud.ply"
    pictures.write(path, ply(cloud))
    again = read(path.read_bytes())
    assert np.array_equal(again.xyz, cloud.xyz)
    assert np.array_equal(again.rgb, cloud.rgb)
    assert np.array_equal(again.faces, cloud.faces)
    assert len(again.faces) == (2 * 19 * 29 if surface else 0)
    assert list(tmp_path.iterdir()) == [path]


def test_an_empty_cloud_is_a_file_too():
    file = io.BytesIO()
    cloud = back_project(IMAGE, FLAT, where=np.zeros((20, 30), bool))
    ply(cloud)(file)
    assert len(read(file.getvalue())) == 0
    assert repr(cloud) == "Cloud(empty)"


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match=r"z is \(19, 30\), but the picture is \(20, 30\)"):
        back_project(IMAGE, FLAT[:19])
    with pytest.raises(ValueError, match=r"where is \(2, 2\)"):
        back_project(IMAGE, FLAT, where=np.ones((2, 2), bool))
    with pytest.raises(ValueError, match=r"less than 180, not 180\.0"):
        back_project(IMAGE, FLAT, fov=180.0)
