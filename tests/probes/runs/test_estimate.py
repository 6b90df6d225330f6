"""The size that is announced before a run is about the size that the run has."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import probes
from probes.runs.errors import DiskSpaceError
from tests.models import tiny_model

SETTINGS = {"size": 28, "workers": 0}
UNITS = {"kB": 1e3, "MB": 1e6, "GB": 1e9}
SIZES = {
    "square": [(40, 40)],
    "panoramas": [(20, 160)],
    "portraits": [(200, 40)],
    "mixed": [(40, 40), (20, 160), (40, 40), (20, 100)],
    "with one that is refused": [(40, 40), (2, 400)],
}


def photos(folder: Path, count: int, sizes: list[tuple[int, int]]) -> Path:
    folder.mkdir()
    for number in range(count):
        height, width = sizes[number % len(sizes)]
        Image.fromarray(np.full((height, width, 3), number, np.uint8)).save(folder / f"{number:03d}.bmp")
    return folder


@pytest.mark.parametrize("keep_images", [False, True])
@pytest.mark.parametrize("sizes", SIZES)
def test_the_announced_size_is_what_is_stored(tmp_path, capsys, sizes, keep_images):
    folder = photos(tmp_path / "photos", 130, SIZES[sizes])
    out = tmp_path / "run"
    probes.run(tiny_model(), folder, out, "tokens", progress=True, keep_images=keep_images, **SETTINGS)
    found = re.search(r"130 images: about ([\d.]+) ?(kB|MB|GB)", capsys.readouterr().err)
    announced = float(found[1]) * UNITS[found[2]]
    run = probes.open_run(out)
    true = sum(sum(value.nbytes for value in run[name].values()) for name in run)
    if keep_images:
        true += sum(3 * run[name].input_size[0] * run[name].input_size[1] for name in run)
    assert 1 / 1.5 < announced / true < 1.5


def test_a_disk_that_panoramas_would_fill_is_refused_before_anything_is_computed(tmp_path, monkeypatch):
    folder = photos(tmp_path / "photos", 20, [(20, 160)])
    needed = 20 * 4 * 128 * (2 * 16 + 1) * 4
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=needed // 2))
    with pytest.raises(DiskSpaceError, match="20 images") as caught:
        probes.run(tiny_model(), folder, tmp_path / "run", "tokens", progress=False, **SETTINGS)
    assert caught.value.needed == pytest.approx(needed, rel=0.5)


def test_a_call_with_nothing_to_do_shows_no_bar(tmp_path, capsys):
    images = {"a": np.zeros((56, 70, 3), np.uint8)}
    probes.run(tiny_model(), images, tmp_path / "run", "norms", progress=True)
    assert "1/1" in capsys.readouterr().err
    probes.run(tiny_model(), images, tmp_path / "run", "norms", progress=True)
    assert "image" not in capsys.readouterr().err
