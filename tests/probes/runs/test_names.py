"""Names with composed (NFC) and decomposed (NFD) accents are one, unless both exist."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import probes
from probes.runs.names import Names, existing_path
from probes.runs.sources import find
from probes.runs.stored import UnknownImageError
from tests.models import tiny_model

NFC = "Caf\u00e9/M\u00fcller.jpg"
NFD = unicodedata.normalize("NFD", NFC)
MIXED = NFC[:5] + NFD[6:]
SETTINGS = {"size": 28, "workers": 0, "progress": False}


def save(folder: Path, *names: str) -> Path:
    for level, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((28, 42, 3), 50 * level, np.uint8)).save(folder / name)
    return folder


def other_form_is_another_file(folder: Path) -> bool:
    """Whether the file system tells both forms apart. APFS and HFS+ do not."""
    (folder / "\u00e9").touch()
    return not (folder / "e\u0301").exists()


@pytest.fixture(autouse=True)
def two_forms(tmp_path):
    (tmp_path / "probe").mkdir()
    if not other_form_is_another_file(tmp_path / "probe"):
        pytest.skip("the file system takes both forms as one name")


def run(images, out: Path) -> probes.Run:
    probes.run(tiny_model(), images, out, "norms", **SETTINGS)
    return probes.open_run(out)


@pytest.mark.parametrize("stored", [NFC, NFD])
def test_an_image_is_found_in_either_form(tmp_path, stored):
    captures = run(save(tmp_path / "photos", stored, "plain.jpg"), tmp_path / "run")
    for typed in (NFC, NFD):
        assert captures[typed].name == stored
        assert typed in captures
        for chosen in (typed, [typed], unicodedata.normalize("NFC" if typed == NFC else "NFD", "Caf\u00e9/*")):
            assert captures.stack("norms", images=chosen)["image"].values.tolist() == [stored]
    assert list(captures) == [stored, "plain.jpg"]
    assert "Cafe/Muller.jpg" not in captures


def test_where_both_forms_exist_each_is_itself(tmp_path):
    captures = run(save(tmp_path / "photos", NFC, NFD), tmp_path / "run")
    assert len(captures) == 2
    for name in (NFC, NFD):
        assert captures[name].name == name
    with pytest.raises(UnknownImageError):
        captures[MIXED]


def test_a_failure_is_told_in_either_form(tmp_path):
    photos = save(tmp_path / "photos", "plain.jpg")
    (photos / "caf\u00e9.jpg").write_bytes(b"no image")
    captures = run(photos, tmp_path / "run")
    with pytest.raises(UnknownImageError, match="could not be captured"):
        captures["cafe\u0301.jpg"]


def test_photos_that_a_copy_renamed_are_not_captured_twice(tmp_path):
    run(save(tmp_path / "mac", NFD), tmp_path / "run")
    report = probes.run(tiny_model(), save(tmp_path / "linux", NFC), tmp_path / "run", "norms", **SETTINGS)
    assert (report.already_stored, report.images) == (1, 0)
    both = save(tmp_path / "both", NFD, NFC)
    report = probes.run(tiny_model(), both, tmp_path / "run", "norms", **SETTINGS)
    assert (report.already_stored, report.images) == (1, 1)
    assert set(probes.open_run(tmp_path / "run")) == {NFC, NFD}


@pytest.mark.parametrize("stored", [NFC, NFD])
def test_paths_globs_and_lists_find_files_in_either_form(tmp_path, stored):
    photos = save(tmp_path / "photos", stored)
    for typed in (NFC, NFD):
        (tmp_path / "list.txt").write_text(f"photos/{typed}\n")
        folder = typed.split("/")[0]
        for given in (photos / typed, photos / folder, photos / folder / "*.jpg", tmp_path / "list.txt"):
            (item,) = find(given)
            assert item.path == photos / stored


def test_names_and_paths():
    names = Names([NFD, "a"])
    assert [names.find(name) for name in (NFC, NFD, MIXED, "a", "b", "\u00e9", 3)] == [NFD, NFD, NFD, "a", *[None] * 3]
    assert Names([NFC, NFD]).find(MIXED) is None
    assert existing_path("/no/such/\u00e9") == "/no/such/\u00e9"


def test_repair_takes_images_in_either_form(tmp_path):
    from probes.runs.verify import repair, verify

    model = tiny_model()
    probes.run(model, save(tmp_path / "mac", NFD, "a.jpg"), tmp_path / "run", "norms", **SETTINGS)
    damaged = next((tmp_path / "run" / "parts").rglob("c.*"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    photos = save(tmp_path / "linux", NFC, "a.jpg")
    (photos / NFC).write_bytes((tmp_path / "mac" / NFD).read_bytes())
    (photos / "a.jpg").write_bytes((tmp_path / "mac" / "a.jpg").read_bytes())
    repair(tmp_path / "run", model, photos, progress=False, workers=0)
    assert verify(tmp_path / "run", progress=False).damage == []
    assert set(probes.open_run(tmp_path / "run")) == {NFD, "a.jpg"}


def test_repair_does_not_make_a_captured_image_a_failed_one(tmp_path):
    from probes.runs.errors import ChangedImagesError
    from probes.runs.verify import repair

    model = tiny_model()
    photos = save(tmp_path / "photos", "a.jpg", "b.jpg")
    probes.run(model, photos, tmp_path / "run", "norms", **SETTINGS)
    damaged = next((tmp_path / "run" / "parts").rglob("c.*"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    (photos / "b.jpg").write_bytes(b"no image any more")
    with pytest.raises(ChangedImagesError, match=r"b\.jpg"):
        repair(tmp_path / "run", model, photos, progress=False, workers=0)
    assert probes.open_run(tmp_path / "run").failures == {}
