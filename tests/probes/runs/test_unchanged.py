"""A run resumes only with the images that it captured, whatever the clocks say."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import probes
from probes.runs import parts, unchanged
from probes.runs.errors import ChangedImagesError
from tests.models import tiny_model

SETTINGS = {"size": 28, "part": 4, "batch": 2, "workers": 0, "progress": False}
HOUR = 3600 * 10**9


def save(path: Path, seed: int) -> None:
    """BMP, so that all files have the same number of bytes."""
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (28, 42, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(6):
        save(folder / f"{number}.bmp", number)
        move_clock(folder / f"{number}.bmp", -HOUR)
    return folder


def move_clock(path: Path, by: int) -> None:
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns + by, status.st_mtime_ns + by))


def run(images, out: Path, **changes) -> probes.Report:
    return probes.run(tiny_model(), images, out, "depth", **SETTINGS | changes)


def in_place(path: Path) -> None:
    save(path, 99)


def same_times(path: Path) -> None:
    """As an editor that keeps the time of the file, and on a disk whose clock went back."""
    before = path.stat()
    save(path, 99)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def older(path: Path) -> None:
    """As a copy from an archive, with `cp -p`."""
    save(path, 99)
    move_clock(path, -1000 * HOUR)


def a_pipe(path: Path) -> None:
    if os.name == "nt":
        pytest.skip("pipes are POSIX's")
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("change", [in_place, same_times, older, a_pipe])
def test_a_changed_image_is_said(photos, tmp_path, change):
    run(photos, tmp_path / "run")
    change(photos / "2.bmp")
    with pytest.raises(ChangedImagesError, match=r"2\.bmp") as caught:
        run(photos, tmp_path / "run")
    assert caught.value.images == ("2.bmp",)


def test_an_image_that_changes_between_its_decoding_and_the_commit_is_said(photos, tmp_path, monkeypatch):
    import probes.runs.store as store

    write_part = store.write_part

    def slow(*arguments):
        for name in ("1.bmp", "5.bmp"):
            in_place(photos / name)
        line = write_part(*arguments)
        later = (tmp_path / "run" / parts.PARTS / line.part / parts.PART).stat().st_mtime_ns + HOUR
        os.utime(tmp_path / "run" / parts.PARTS / line.part / parts.PART, ns=(later, later))
        return line

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_part", slow)
        run(photos, tmp_path / "run", part=6)
    with pytest.raises(ChangedImagesError) as caught:
        run(photos, tmp_path / "run", part=6)
    assert caught.value.images == ("1.bmp", "5.bmp")


def test_images_that_were_only_touched_copied_or_deleted_are_unchanged(photos, tmp_path):
    run(photos, tmp_path / "run")
    move_clock(photos / "0.bmp", 5 * HOUR)
    shutil.copy(photos / "1.bmp", tmp_path / "copy.bmp")
    os.replace(tmp_path / "copy.bmp", photos / "1.bmp")
    (photos / "2.bmp").unlink()
    save(photos / "7.bmp", 7)
    report = run(photos, tmp_path / "run")
    assert (report.already_stored, report.images) == (6, 1)


def test_a_run_with_its_images_can_be_copied_and_resumed(photos, tmp_path):
    """cp -r gives all files new times. The content decides."""
    run(photos, tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "copy", copy_function=shutil.copy)
    images = shutil.copytree(photos, tmp_path / "copied", copy_function=shutil.copy)
    report = run(images, tmp_path / "copy")
    assert (report.already_stored, report.images) == (6, 0)
    in_place(images / "3.bmp")
    with pytest.raises(ChangedImagesError, match=r"3\.bmp"):
        run(images, tmp_path / "copy")


def test_unchanged_files_are_not_read(photos, tmp_path, monkeypatch):
    run(photos, tmp_path / "run")
    for part in (tmp_path / "run" / parts.PARTS).iterdir():
        later = (part / parts.PART).stat().st_mtime_ns + HOUR
        os.utime(part / parts.PART, ns=(later, later))
    read = []
    monkeypatch.setattr(unchanged, "file_sha256", lambda path: read.append(path))
    assert run(photos, tmp_path / "run").already_stored == 6
    assert read == []


@pytest.mark.parametrize("stream", [False, True])
def test_arrays_of_the_same_name_must_hold_the_same_pixels(tmp_path, stream):
    random = np.random.default_rng(0)
    arrays = {f"{n}": random.integers(0, 256, (28, 42, 3), dtype=np.uint8) for n in range(5)}

    def given():
        return iter(list(arrays.items())) if stream else list(arrays.items())

    run(given(), tmp_path / "run")
    assert run(given(), tmp_path / "run").already_stored == 5
    arrays["3"] = arrays["3"] ^ np.uint8(1)
    with pytest.raises(ChangedImagesError) as caught:
        run(given(), tmp_path / "run")
    assert caught.value.images == ("3",)


def test_a_changed_video_is_said(tmp_path, monkeypatch):
    from tests.probes.runs import test_video
    from tests.probes.runs.test_video import picture, write

    options = {"g": "10", "bf": "2", "crf": "18"}
    clip = tmp_path / "clip.mp4"
    write(clip, "libx264", "yuv420p", options)
    chosen = slice(0, 4)
    assert run(clip, tmp_path / "run", frames=chosen).images == 4
    move_clock(clip, HOUR)
    assert run(clip, tmp_path / "run", frames=chosen).already_stored == 4
    monkeypatch.setattr(test_video, "picture", lambda number: picture(number + 8))
    write(tmp_path / "other.mp4", "libx264", "yuv420p", options)
    os.replace(tmp_path / "other.mp4", clip)
    with pytest.raises(ChangedImagesError, match=r"clip\.mp4#00000"):
        run(clip, tmp_path / "run", frames=slice(0, 8))
