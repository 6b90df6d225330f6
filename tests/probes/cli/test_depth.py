"""dpt-workbench depth: the files it writes, and how it treats images that fail."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import dpt
from dpt import machine
from probes.cli.app import ExitCode
from probes.depth import metres
from probes.figures import cloud, depth_files, plot
from tests.probes.cli.commands import assert_wrong_usage, dpt_workbench, tiny_checkpoint

SIZE = ["--size", "56"]


def test_depth_writes_what_predict_returns(checkpoint: Path, photo: Path, tmp_path: Path):
    out = tmp_path / "new" / "out"
    result = dpt_workbench("depth", photo, "-o", out, "--model", checkpoint, "--npy", "--16bit", *SIZE)
    assert result.exit_code == 0, result.stderr
    names = ["photo_depth.npy", "photo_depth.png", "photo_depth16.png"]
    assert sorted(file.name for file in out.iterdir()) == names, "and no temporary file is left"
    assert sorted(result.stdout.split()) == [str(out / name) for name in names]

    expected = dpt.load(checkpoint).predict(dpt.read_image(photo), size=56)
    depth = np.load(out / "photo_depth.npy")
    assert depth.dtype == np.float32
    np.testing.assert_array_equal(depth, expected)

    with Image.open(out / "photo_depth16.png") as grey:
        assert grey.mode == "I;16"
        low, high = float(grey.info["depth_min"]), float(grey.info["depth_max"])
        restored = low + np.asarray(grey).astype(np.float64) / 65535 * (high - low)
    assert np.abs(restored - expected).max() <= (high - low) / 65535

    with Image.open(out / "photo_depth.png") as image:
        assert (image.mode, image.size) == ("RGB", (90, 60))
        brightness = np.asarray(image.convert("L"))
    assert brightness.flat[expected.argmax()] > brightness.flat[expected.argmin()] + 100, "near is bright"


def test_a_figure_has_a_title_and_a_colour_bar(checkpoint: Path, photo: Path, tmp_path: Path, monkeypatch):
    drawn = []
    make = plot.titled_depth
    monkeypatch.setattr(plot, "titled_depth", lambda *args, **more: drawn.append(make(*args, **more)) or drawn[-1])
    command = ["depth", photo, "-o", tmp_path, "--model", checkpoint, "--bar", "--range", "0,9", *SIZE]
    assert dpt_workbench(*command).exit_code == 0
    (figure,) = drawn
    shown, bar = figure.axes
    model = dpt.load(checkpoint)
    assert shown.get_title() == f"{photo.name}\n{model.title}"
    assert bar.get_ylabel() == "inverse depth, larger is nearer"
    np.testing.assert_array_equal(shown.images[0].get_array(), model.predict(dpt.read_image(photo), size=56))
    assert shown.images[0].get_clim() == (0, 9)
    with Image.open(tmp_path / "photo_depth_bar.png") as image:
        assert image.size[0] > 600
    with Image.open(tmp_path / "photo_depth.png") as image:  # the plain one stays, and names its origin
        assert image.size == (90, 60)
        assert image.info == {"model": model.title, "image": photo.name}
    metres = plot.titled_depth(np.array([[1.0, 4.0]]), "a", metric=True)
    assert metres.axes[1].get_ylabel() == "metres"
    assert metres.axes[0].images[0].cmap(0.0) == plot.titled_depth(np.eye(2), "b").axes[0].images[0].cmap(1.0)


def test_fast_depth_equals_a_model_of_the_fast_dtype(checkpoint: Path, photo: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(machine, "DOT_PRODUCTS", True)
    assert dpt_workbench("depth", photo, "-o", tmp_path, "--model", checkpoint, "--npy", "--fast", *SIZE).exit_code == 0
    expected = dpt.load(checkpoint, dtype=torch.bfloat16).predict(dpt.read_image(photo), size=56)
    np.testing.assert_array_equal(np.load(tmp_path / "photo_depth.npy"), expected)


def test_near_is_bright_for_metres_too(checkpoint: Path, photo: Path, tmp_path: Path):
    command = ["depth", photo, "-o", tmp_path, "--model", checkpoint, "--max-depth", 20, "--npy", *SIZE]
    assert dpt_workbench(*command).exit_code == 0
    distances = np.load(tmp_path / "photo_depth.npy")
    assert 0 < distances.min() < distances.max() < 20
    brightness = np.asarray(Image.open(tmp_path / "photo_depth.png").convert("L"))
    assert brightness.flat[distances.argmin()] > brightness.flat[distances.argmax()] + 100


def test_a_broken_image_is_reported_and_does_not_stop_the_others(
    checkpoint: Path, photo: Path, broken: Path, tmp_path: Path
):
    missing = tmp_path / "missing.jpg"
    result = dpt_workbench("depth", broken, missing, photo, "-o", tmp_path / "out", "--model", checkpoint, *SIZE)
    assert result.exit_code == ExitCode.SOME_FAILED
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["photo_depth.png"]
    first, second, last = result.stderr.splitlines()
    assert str(broken) in first
    assert str(missing) in second
    assert last == "dpt-workbench: 2 of 3 images failed"


def test_exit_code_is_1_when_every_image_failed(checkpoint: Path, broken: Path, tmp_path: Path):
    result = dpt_workbench("depth", broken, "-o", tmp_path / "out", "--model", checkpoint)
    assert result.exit_code == 1
    assert list((tmp_path / "out").iterdir()) == []


def test_existing_files_are_overwritten_only_on_request(checkpoint: Path, photo: Path, tmp_path: Path):
    command = ["depth", photo, "-o", tmp_path, "--model", checkpoint, *SIZE]
    target = tmp_path / "photo_depth.png"
    target.write_text("precious")
    refused = dpt_workbench(*command)
    assert refused.exit_code == 1
    assert str(target) in refused.stderr
    assert "--force" in refused.stderr
    assert target.read_text() == "precious"
    assert dpt_workbench(*command, "--force").exit_code == 0
    assert target.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("second", ["b/photo.png", "a/PHOTO.jpg"])
def test_two_images_of_one_name_are_refused_before_anything_is_computed(tmp_path: Path, second: str):
    result = dpt_workbench("depth", tmp_path / "a/photo.png", tmp_path / second, "-o", tmp_path / "out")
    assert_wrong_usage(result, "a/photo.png", second, "_depth.png")
    assert not (tmp_path / "out").exists()


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target = tmp_path / "depth.npy"
    target.write_text("before")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="No space left"):
            depth_files.write(target, depth_files.npy(np.ones((2, 3), np.float32)))
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]

    depth_files.write(target, depth_files.npy(np.ones((2, 3), np.float32)))  # control: the disk has space
    assert np.load(target).shape == (2, 3)


def test_a_flat_map_has_one_colour_and_an_infinite_map_is_refused():
    flat = depth_files.colour_depth(np.full((4, 5), 2.0, np.float32))
    assert len(np.unique(flat.reshape(-1, 3), axis=0)) == 1
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="NaN or infinity"):
            depth_files.colour_depth(np.array([[1.0, bad]], np.float32))


@pytest.mark.parametrize("below", ["", "out"])
def test_a_file_as_out_is_wrong_usage(photo: Path, tmp_path: Path, below: str):
    place = tmp_path / "taken"
    place.write_text("mine")
    for command in (["depth", photo, *SIZE], ["demo"]):
        assert_wrong_usage(dpt_workbench(*command, "-o", place / below), "--out", str(place / below))
    assert place.read_text() == "mine"


def test_an_unknown_colormap_is_wrong_usage_and_close_names_are_listed(photo: Path, tmp_path: Path):
    result = dpt_workbench("depth", photo, "-o", tmp_path / "out", "--colormap", "infernal")
    assert_wrong_usage(result, "--colormap", "'infernal'", "inferno")
    assert not (tmp_path / "out").exists()


def test_an_assumption_about_the_checkpoint_is_noted(tmp_path: Path, photo: Path):
    unnamed = tiny_checkpoint(tmp_path / "renamed.safetensors")
    command = ["depth", photo, "-o", tmp_path / "out", "--model", unnamed, *SIZE]
    result = dpt_workbench(*command, "--force")
    assert "note: " in result.stderr
    assert "version" in result.stderr
    told = dpt_workbench(*command, "--force", "--model-version", 2, "--max-depth", 20)
    assert told.stderr == ""


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def picture(seed: int, height: int = 60, width: int = 90) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with images of one name in two subfolders."""
    for number, name in enumerate(("a/1.png", "b/1.png", "2.png", "b/c/3.jpg")):
        save(tmp_path / "photos" / name, picture(number))
    (tmp_path / "photos/notes.md").write_text("not an image")
    return tmp_path / "photos"


TREE = ["2_depth.png", "a/1_depth.png", "b/1_depth.png", "b/c/3_depth.png"]


def files_below(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["photos"], TREE),
        (["photos/**/*.png"], TREE[:3]),
        (["photos/a/1.png", "photos/b/1.png"], ["a/1_depth.png", "b/1_depth.png"]),
        (["photos/list.txt"], ["2_depth.png", "a/1_depth.png"]),
        (["photos/b", "photos/a/1.png"], ["a/1_depth.png", "b/1_depth.png", "b/c/3_depth.png"]),
        (["photos/2.png", "photos/2.png"], ["2_depth.png"]),
    ],
    ids=["folder", "quoted glob", "two of one name", "list", "folder and file", "twice"],
)
def test_the_output_keeps_the_tree_of_the_images(checkpoint: Path, tree: Path, monkeypatch, given, names):
    monkeypatch.chdir(tree.parent)
    (tree / "list.txt").write_text("a/1.png\n2.png\n")
    result = dpt_workbench("depth", *given, "-o", "out", "--model", checkpoint, *SIZE)
    assert result.exit_code == 0, result.stderr
    assert files_below(Path("out")) == names
    assert sorted(result.stdout.split()) == [f"out/{name}" for name in names]


def test_each_image_of_a_tree_has_its_own_depth(checkpoint: Path, tree: Path, tmp_path: Path):
    assert dpt_workbench("depth", tree, "-o", tmp_path / "out", "--model", checkpoint, "--npy", *SIZE).exit_code == 0
    model = dpt.load(checkpoint)
    for name in ("a/1", "b/1"):
        expected = model.predict(dpt.read_image(tree / f"{name}.png"), size=56)
        np.testing.assert_array_equal(np.load(tmp_path / f"out/{name}_depth.npy"), expected)


def test_depth_maps_of_an_earlier_command_are_not_images(checkpoint: Path, tree: Path, monkeypatch):
    monkeypatch.chdir(tree)
    command = ["depth", ".", "-o", "out", "--model", checkpoint, *SIZE]
    assert dpt_workbench(*command).exit_code == 0
    again = dpt_workbench(*command, "--force")
    assert again.exit_code == 0
    assert "4 depth maps" in again.stderr
    assert files_below(Path("out")) == TREE


def test_an_image_is_never_overwritten_by_a_depth_map(checkpoint: Path, tmp_path: Path):
    photo, other = save(tmp_path / "x.png", picture(0)), save(tmp_path / "x_depth.png", picture(1))
    before = other.read_bytes()
    result = dpt_workbench("depth", photo, other, "-o", tmp_path, "--model", checkpoint, "--force", *SIZE)
    assert result.exit_code == ExitCode.SOME_FAILED
    assert str(other) in result.stderr
    assert other.read_bytes() == before
    assert (tmp_path / "x_depth_depth.png").exists()


def test_a_folder_without_images_and_a_glob_without_matches_are_failures(checkpoint: Path, photo: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    command = ["depth", tmp_path / "empty", tmp_path / "*.webp", photo, "-o", tmp_path / "out", "--model", checkpoint]
    result = dpt_workbench(*command, *SIZE)
    assert result.exit_code == ExitCode.SOME_FAILED
    first, second, last = result.stderr.splitlines()
    assert "empty" in first
    assert "*.webp" in second
    assert "2 of 3" in last


def test_a_video_is_refused_with_the_command_that_reads_it(checkpoint: Path, photo: Path, tmp_path: Path):
    (tmp_path / "my clip.mp4").write_bytes(b"a video")
    command = ["depth", tmp_path / "my clip.mp4", photo, "-o", tmp_path / "out", "--model", checkpoint]
    result = dpt_workbench(*command, *SIZE)
    assert result.exit_code == ExitCode.SOME_FAILED
    assert f"capture '{tmp_path}/my clip.mp4' --probe depth --frames" in result.stderr
    assert files_below(tmp_path / "out") == ["photo_depth.png"]


def test_an_animation_says_that_its_first_frame_is_used(checkpoint: Path, tmp_path: Path):
    frames = [Image.fromarray(picture(seed)) for seed in range(3)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    command = ["depth", tmp_path / "a.webp", "-o", tmp_path / "out", "--model", checkpoint, "--npy", *SIZE]
    result = dpt_workbench(*command)
    assert result.exit_code == 0
    assert f"note: {tmp_path}/a.webp has 3 frames: only the first" in result.stderr
    expected = dpt.load(checkpoint).predict(picture(0), size=56)
    np.testing.assert_array_equal(np.load(tmp_path / "out/a_depth.npy"), expected)


def test_an_elongated_image_fails_and_the_others_are_done(checkpoint: Path, photo: Path, tmp_path: Path):
    spacer = save(tmp_path / "spacer.png", picture(0, 1, 400))
    result = dpt_workbench("depth", spacer, photo, "-o", tmp_path / "out", "--model", checkpoint)
    assert result.exit_code == ExitCode.SOME_FAILED
    line, _ = result.stderr.splitlines()
    assert f"{spacer}: " in line
    assert "518 x 207200" in line
    assert "Crop" in line
    assert files_below(tmp_path / "out") == ["photo_depth.png"]


# Ranges -----------------------------------------------------------------------------------------------------------


def two_photos(folder: Path) -> tuple[Path, Path]:
    """Two images of different contrast, so their depths have different ranges."""
    dull = (picture(1) // 8 + 100).astype(np.uint8)
    return save(folder / "a.png", picture(0)), save(folder / "b.png", dull)


def restored_grey(path: Path) -> tuple[np.ndarray, float, float]:
    with Image.open(path) as image:
        low, high = float(image.info["depth_min"]), float(image.info["depth_max"])
        return low + np.asarray(image).astype(np.float64) / 65535 * (high - low), low, high


def test_a_shared_range_spans_the_depths_of_all_images(checkpoint: Path, broken: Path, tmp_path: Path):
    a, b = two_photos(tmp_path)
    out = tmp_path / "out"
    command = ["depth", a, broken, b, "-o", out, "--model", checkpoint, "--npy", "--16bit", "--range", "shared", *SIZE]
    result = dpt_workbench(*command)
    assert result.exit_code == ExitCode.SOME_FAILED
    model = dpt.load(checkpoint)
    maps = [model.predict(dpt.read_image(path), size=56) for path in (a, b)]
    low, high = min(float(m.min()) for m in maps), max(float(m.max()) for m in maps)
    assert maps[0].min() != maps[1].min(), "control: the images have ranges of their own"
    for name, expected in zip(("a", "b"), maps, strict=True):
        np.testing.assert_array_equal(np.load(out / f"{name}_depth.npy"), expected)
        depth, least, most = restored_grey(out / f"{name}_depth16.png")
        assert (least, most) == (low, high)
        assert np.abs(depth - expected).max() <= (high - low) / 65535
        coloured = depth_files.colour_depth(expected, span=(low, high))
        np.testing.assert_array_equal(np.asarray(Image.open(out / f"{name}_depth.png")), coloured)
    assert f"{low:g} to {high:g}" in result.stderr
    assert len(files_below(out)) == 6, "and no temporary file is left"


@pytest.mark.parametrize("given", [["--range", "-1,2.5"], ["--range", "-1", "2.5"], ["--range=-1,2.5"]])
def test_a_range_of_two_numbers_is_used_and_what_lies_beyond_is_said(checkpoint: Path, photo: Path, tmp_path, given):
    expected = dpt.load(checkpoint).predict(dpt.read_image(photo), size=56)
    command = ["depth", photo, "-o", tmp_path / "out", "--model", checkpoint, "--16bit", *given, *SIZE]
    result = dpt_workbench(*command)
    assert result.exit_code == 0, result.stderr
    depth, low, high = restored_grey(tmp_path / "out/photo_depth16.png")
    assert (low, high) == (-1, 2.5)
    assert np.abs(depth - expected.clip(-1, 2.5)).max() <= 3.5 / 65535
    beyond = int(((expected < -1) | (expected > 2.5)).sum())
    assert (f"{beyond:,} of 5,400 pixels" in result.stderr) == (beyond > 0)


def test_depths_beyond_the_range_are_counted(checkpoint: Path, photo: Path, tmp_path: Path):
    expected = dpt.load(checkpoint).predict(dpt.read_image(photo), size=56)
    middle = float(np.median(expected))
    command = ["depth", photo, "-o", tmp_path / "out", "--model", checkpoint, "--range", f"{middle},1e9", *SIZE]
    result = dpt_workbench(*command)
    assert f"{int((expected < middle).sum()):,} of 5,400 pixels" in result.stderr


@pytest.mark.parametrize("given", ["all", "1", "1,2,3", "2,1", "1,1", "1,nan", "0,inf", ""])
def test_a_wrong_range_is_wrong_usage(photo: Path, tmp_path: Path, given: str):
    for option in ("--range", "--input-range"):
        assert_wrong_usage(dpt_workbench("depth", photo, "-o", tmp_path / "out", option, given), option, repr(given))
    assert not (tmp_path / "out").exists()


def test_the_range_of_thermal_images_can_be_chosen(checkpoint: Path, tmp_path: Path):
    thermal = (7000 + np.arange(60 * 90).reshape(60, 90) % 1500).astype(np.uint16)
    path = save(tmp_path / "t.png", thermal)
    command = ["depth", path, "-o", tmp_path / "out", "--model", checkpoint, "--npy", "--force", *SIZE]
    said = dpt_workbench(*command)
    assert said.exit_code == 0
    assert "--input-range" in said.stderr
    chosen = dpt_workbench(*command, "--input-range", "7000,8500")
    assert (chosen.exit_code, chosen.stderr) == (0, "")
    expected = dpt.load(checkpoint).predict(dpt.read_image(path, range=(7000, 8500)), size=56)
    np.testing.assert_array_equal(np.load(tmp_path / "out/t_depth.npy"), expected)


# Metres -----------------------------------------------------------------------------------------------------------


def test_a_metric_model_gives_millimetres(checkpoint: Path, photo: Path, tmp_path: Path):
    command = ["depth", photo, "-o", tmp_path, "--model", checkpoint, "--max-depth", 120, "--npy", "--millimetres"]
    result = dpt_workbench(*command, *SIZE)
    assert result.exit_code == 0, result.stderr
    distances = np.load(tmp_path / "photo_depth.npy").astype(np.float64)
    with Image.open(tmp_path / "photo_depth_mm.png") as image:
        assert image.mode == "I;16"
        values = np.asarray(image)
    np.testing.assert_array_equal(values, np.round(distances * 1000).clip(0, 65535))
    beyond = int((np.round(distances * 1000) > 65535).sum())
    assert beyond > 0, "this test needs distances above 65.535 m"
    assert f"{beyond:,} of 5,400 pixels" in result.stderr


@pytest.mark.parametrize("option", ["--millimetres", "--ply"])
def test_a_relative_model_needs_two_distances_for_metres(checkpoint: Path, photo: Path, tmp_path: Path, option: str):
    command = ["depth", photo, "-o", tmp_path / "out", "--model", checkpoint, "--npy", option, *SIZE]
    assert_wrong_usage(dpt_workbench(*command), option, "--near", "--far", "--max-depth")
    assert not (tmp_path / "out").exists()
    assert dpt_workbench(*command, "--near", 1.5, "--far", 20).exit_code == 0
    expected = metres(np.load(tmp_path / "out/photo_depth.npy"), 1.5, 20.0)
    if option == "--millimetres":
        values = np.asarray(Image.open(tmp_path / "out/photo_depth_mm.png"))
        np.testing.assert_array_equal(values, np.round(expected.astype(np.float64) * 1000))
        assert (values.min(), values.max()) == (1500, 20000)
    else:
        points = cloud.ply(cloud.back_project(dpt.read_image(photo), expected))
        depth_files.write(tmp_path / "expected.ply", points)
        assert (tmp_path / "out/photo_depth.ply").read_bytes() == (tmp_path / "expected.ply").read_bytes()


@pytest.mark.parametrize(
    ("options", "camera"),
    [
        (["--fov", 90], {"fov": 90.0}),
        (["--camera", "80,81.5,44,30.25"], {"fx": 80.0, "fy": 81.5, "cx": 44.0, "cy": 30.25}),
        (["--camera", "80,81.5,44,30.25", "--range", "shared"], {"fx": 80.0, "fy": 81.5, "cx": 44.0, "cy": 30.25}),
    ],
)
def test_the_camera_of_a_point_cloud_can_be_given(checkpoint: Path, photo: Path, tmp_path: Path, options, camera):
    command = ["depth", photo, "-o", tmp_path, "--model", checkpoint, "--max-depth", 20, "--npy", "--ply", *options]
    assert dpt_workbench(*command, *SIZE).exit_code == 0
    points = cloud.back_project(dpt.read_image(photo), np.load(tmp_path / "photo_depth.npy"), **camera)
    depth_files.write(tmp_path / "expected.ply", cloud.ply(points))
    assert (tmp_path / "photo_depth.ply").read_bytes() == (tmp_path / "expected.ply").read_bytes()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--camera", "1,2,3"], "--camera"),
        (["--camera", "0,2,3,4", "--ply"], "--camera"),
        (["--camera", "1,2,3,x", "--ply"], "--camera"),
        (["--camera", "9,9,3,4", "--fov", "60", "--ply"], "--fov"),
        (["--fov", "180", "--ply"], "--fov"),
        (["--fov", "60"], "--ply"),
        (["--near", "2"], "--far"),
        (["--near", "5", "--far", "2"], "--far"),
        (["--near", "1", "--far", "2"], "--millimetres"),
        (["--near", "1", "--far", "2", "--max-depth", "20", "--ply"], "--near"),
    ],
)
def test_options_that_cannot_be_used_are_wrong_usage(checkpoint: Path, photo: Path, tmp_path: Path, options, named):
    result = dpt_workbench("depth", photo, "-o", tmp_path / "out", "--model", checkpoint, *options)
    assert_wrong_usage(result, named)
    assert not (tmp_path / "out").exists()


# Depth that is not finite -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("span", ["own", "shared", "0,1"])
def test_depth_with_nan_is_a_failure_and_nothing_is_written(checkpoint, photo, tmp_path, monkeypatch, span):
    def broken(self: dpt.DPT, x: torch.Tensor) -> torch.Tensor:
        depth = x.mean(1)
        depth[:, 0, :3] = torch.nan
        return depth

    monkeypatch.setattr(dpt.DPT, "forward", broken)
    command = ["depth", photo, "-o", tmp_path / "out", "--model", checkpoint, "--npy", "--range", span, *SIZE]
    result = dpt_workbench(*command)
    assert result.exit_code == ExitCode.FAILED
    assert "NaN" in result.stderr
    assert files_below(tmp_path / "out") == []
