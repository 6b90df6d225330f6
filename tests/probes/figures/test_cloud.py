"""Point clouds: positions from the pinhole camera, and the PLY file."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from probes.figures import depth_files
from probes.figures.cloud import Cloud, back_project, ply

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
FLAT = np.full((20, 30), 4.0, np.float32)


def read(content: bytes) -> Cloud:
    """Reads a PLY file by its header."""
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


def test_the_field_of_view_decides_the_width_of_a_wall():
    cloud = back_project(IMAGE, FLAT, fov=90.0)
    assert len(cloud) == 600
    assert (cloud.xyz[:, 2] == -4).all()  # the camera looks down -z
    # At 90 degrees a wall 4 m away is 8 m wide. The centres of the outermost pixels are half a pixel inside.
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


def test_a_surface_is_torn_at_the_edges_of_objects():
    cloud = back_project(IMAGE, FLAT, surface=True)
    assert len(cloud.faces) == 2 * 19 * 29
    a, b, c = (cloud.xyz[cloud.faces[:, n]] for n in range(3))
    assert (np.cross(b - a, c - a)[:, 2] > 0).all()  # towards the camera
    step = np.where(np.arange(30) < 12, 4.0, 8.0) * np.ones((20, 1))
    assert len(back_project(IMAGE, step, surface=True).faces) == 2 * 19 * 28  # without one column of cells
    assert len(back_project(IMAGE, step, surface=True, tear=1.0).faces) == 2 * 19 * 29  # control
    holed = FLAT.copy()
    holed[5, 5] = np.nan
    torn = back_project(IMAGE, holed, surface=True)
    assert len(torn.faces) == 2 * 19 * 29 - 6
    assert torn.faces.max() == len(torn) - 1


def test_large_images_are_thinned_evenly():
    whole, thin = (back_project(IMAGE, FLAT, most=most) for most in (None, 100))
    assert 50 <= len(thin) <= 110
    assert np.ptp(thin.xyz[:, 0]) > 0.85 * np.ptp(whole.xyz[:, 0])


@pytest.mark.parametrize("surface", [False, True])
def test_a_ply_file_holds_the_cloud(tmp_path: Path, surface: bool):
    cloud = back_project(IMAGE, RNG.uniform(1, 1.05, (20, 30)), surface=surface)
    path = tmp_path / "cloud.ply"
    depth_files.write(path, ply(cloud))
    again = read(path.read_bytes())
    assert np.array_equal(again.xyz, cloud.xyz)
    assert np.array_equal(again.rgb, cloud.rgb)
    assert np.array_equal(again.faces, cloud.faces)
    assert len(again.faces) == (2 * 19 * 29 if surface else 0)
    assert list(tmp_path.iterdir()) == [path]


def test_an_empty_cloud_can_be_written():
    file = io.BytesIO()
    cloud = back_project(IMAGE, FLAT, where=np.zeros((20, 30), bool))
    ply(cloud)(file)
    assert len(read(file.getvalue())) == 0
    assert repr(cloud) == "Cloud(empty)"


def test_wrong_sizes_and_angles_are_refused():
    with pytest.raises(ValueError, match=r"z .*\(20, 30\).*\(19, 30\)"):
        back_project(IMAGE, FLAT[:19])
    with pytest.raises(ValueError, match=r"where .*\(2, 2\)"):
        back_project(IMAGE, FLAT, where=np.ones((2, 2), bool))
    with pytest.raises(ValueError, match=r"180\.0"):
        back_project(IMAGE, FLAT, fov=180.0)
    with pytest.raises(ValueError, match=r"fov=50\.0 and fx=30"):
        back_project(IMAGE, FLAT, fov=50.0, fx=30)
    with pytest.raises(ValueError, match="fy=30 needs fx"):
        back_project(IMAGE, FLAT, fy=30)
    for wrong in ({"fx": 0}, {"fx": -5.0}, {"fx": np.nan}, {"fx": 30, "fy": 0}, {"fx": 30, "cx": np.inf}):
        with pytest.raises(ValueError, match=f"{next(reversed(wrong))} must be"):
            back_project(IMAGE, FLAT, **wrong)


def test_the_cameras_own_focal_lengths_and_principal_point_are_used():
    fx, fy, cx, cy = 41.0, 37.5, 12.25, 11.0
    z = RNG.uniform(1, 9, (20, 30))
    cloud = back_project(IMAGE, z, fx=fx, fy=fy, cx=cx, cy=cy)
    v, u = np.mgrid[0:20, 0:30]
    # OpenCV's pinhole camera: y points down and z forwards there
    camera = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    pixels = np.stack([u.ravel(), v.ravel(), np.ones(600)])
    expected = (np.linalg.inv(camera) @ pixels * z.ravel()).T * (1, -1, -1)
    assert np.allclose(cloud.xyz, expected, atol=1e-5)
    on_axis = back_project(IMAGE, z, fx=fx, cx=12, cy=11).xyz[11 * 30 + 12]
    assert np.allclose(on_axis, (0, 0, -z[11, 12]))


def test_the_focal_length_alone_equals_its_field_of_view():
    by_angle = back_project(IMAGE, FLAT, fov=90.0)
    assert np.allclose(by_angle.xyz, back_project(IMAGE, FLAT, fx=15.0).xyz, atol=1e-6)
    explicit = back_project(IMAGE, FLAT, fx=np.float32(15), fy=15, cx=14.5, cy=np.float64(9.5))
    assert np.allclose(by_angle.xyz, explicit.xyz, atol=1e-6)
    assert np.array_equal(back_project(IMAGE, FLAT).xyz, back_project(IMAGE, FLAT, fov=60.0).xyz)


def test_masked_distances_are_dropped():
    hidden = np.zeros((20, 30), bool)
    hidden[:4] = True
    cloud = back_project(IMAGE, np.ma.masked_array(FLAT, hidden))
    assert len(cloud) == 600 - 120
    assert np.array_equal(cloud.rgb, IMAGE[4:].reshape(-1, 3))


def test_points_that_are_not_finite_are_not_written():
    cloud = back_project(IMAGE, FLAT)
    broken = Cloud(np.where(np.arange(600)[:, None] < 7, np.nan, cloud.xyz).astype(np.float32), cloud.rgb, cloud.faces)
    with pytest.raises(ValueError, match="7 of 600 points"):
        ply(broken)
