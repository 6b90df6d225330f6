"""`verify` calls a run undamaged only if everything is what was written, and `repair` restores it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from probes.runs.cleaning import SET_ASIDE
from probes.runs.disk import seal, sha256, unseal
from probes.runs.errors import StoreError
from probes.runs.lists import FAILURES, MANIFEST, SUMMARY
from probes.runs.parts import PART, PARTS
from probes.runs.store import SETTINGS
from probes.runs.verify import Verification, recomputed, repair, verify
from tests import runs

SELECTORS = ("encoder.blocks.1.norms", "depth")


def capture(root: Path) -> None:
    runs.capture(root, list(runs.pictures()[:8]), *SELECTORS, part=2)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four parts of two images, with a failure in the third."""
    root = tmp_path_factory.mktemp("verify") / "run"
    capture(root)
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


def checked(root: Path) -> Verification:
    return verify(root, progress=False)


def fix(root: Path) -> Verification:
    return repair(root, runs.model(), list(runs.pictures()), workers=0, progress=False)


def part(root: Path, index: int) -> Path:
    (found,) = (root / PARTS).glob(f"{index:06d}-*")
    return found


def flip(path: Path, at: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(at * (len(data) - 1))] ^= 1
    path.write_bytes(data)


def lines(root: Path, keep: Callable[[int], bool]) -> str:
    return "".join(line for n, line in enumerate((root / MANIFEST).read_text().splitlines(True)) if keep(n))


def lose(root: Path, *indices: int) -> None:
    """Removes parts together with their lines."""
    for index in indices:
        shutil.rmtree(part(root, index))
    (root / MANIFEST).write_text(lines(root, lambda n: n not in indices))


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def chunk(root: Path, index: int = 0) -> Path:
    return next(iter(sorted(part(root, index).rglob("depth/c.*"))))


def swap_lines(root: Path) -> None:
    first, second, *rest = (root / MANIFEST).read_text().splitlines(True)
    (root / MANIFEST).write_text("".join([second, first, *rest]))


def double_the_failure(root: Path) -> None:
    append(root / FAILURES, (root / FAILURES).read_text())


def exchange(root: Path) -> None:
    shutil.rmtree(part(root, 1))
    shutil.copytree(part(root, 0), part_of(root, 1))


def make_folder(root: Path) -> None:
    path = chunk(root, 1)
    path.unlink()
    path.mkdir()


# What each damage must be called by, and how to do it. All of it can be repaired to the same bytes.
DAMAGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a bit of the failures": (FAILURES, lambda root: flip(root / FAILURES)),
    "the failures are gone": (FAILURES, lambda root: (root / FAILURES).unlink()),
    "the failures are empty": (FAILURES, lambda root: (root / FAILURES).write_text("")),
    "a failure twice": (FAILURES, double_the_failure),
    "a failure that was none": (FAILURES, lambda root: append(root / FAILURES, '{"picture": "~", "reason": "x"}\n')),
    "half a failure": (FAILURES, lambda root: append(root / FAILURES, '{"picture": ')),
    "the manifest is gone": (MANIFEST, lambda root: (root / MANIFEST).unlink()),
    "the manifest is empty": (MANIFEST, lambda root: (root / MANIFEST).write_text("")),
    "a bit of the manifest": (MANIFEST, lambda root: flip(root / MANIFEST)),
    "a line twice": (MANIFEST, lambda root: append(root / MANIFEST, lines(root, lambda n: n == 0))),
    "the manifest twice": (MANIFEST, lambda root: append(root / MANIFEST, lines(root, lambda n: True))),
    "half a line": (MANIFEST, lambda root: append(root / MANIFEST, '{"part":')),
    "an empty line": (MANIFEST, lambda root: append(root / MANIFEST, "\n")),
    "lines exchanged": (MANIFEST, swap_lines),
    "the last line is gone": (MANIFEST, lambda root: (root / MANIFEST).write_text(lines(root, lambda n: n < 3))),
    "a middle line is gone": (MANIFEST, lambda root: (root / MANIFEST).write_text(lines(root, lambda n: n != 1))),
    "the end of the manifest": (MANIFEST, lambda root: os.truncate(root / MANIFEST, 500)),
    "the summary is gone": (SUMMARY, lambda root: (root / SUMMARY).unlink()),
    "a bit of the summary": (SUMMARY, lambda root: flip(root / SUMMARY)),
    "the summary is empty": (SUMMARY, lambda root: (root / SUMMARY).write_text("")),
    "a part is gone": ("part", lambda root: shutil.rmtree(part(root, 1))),
    "a part is empty": ("part", lambda root: (shutil.rmtree(part(root, 1)), part_of(root, 1).mkdir())),
    "a part is a file": ("part", lambda root: (shutil.rmtree(part(root, 1)), part_of(root, 1).touch())),
    "another part in its place": ("part", exchange),
    "a bit of a value": ("part", lambda root: flip(chunk(root, 1))),
    "a bit of an index": ("part", lambda root: flip(chunk(root, 1), 1.0)),
    "a value is longer": ("part", lambda root: chunk(root, 1).write_bytes(chunk(root, 1).read_bytes() + b"\0")),
    "a value is a folder": ("part", make_folder),
    "a bit of a record": ("part", lambda root: flip(part(root, 1) / PART)),
    "space after a record": ("part", lambda root: append(part(root, 1) / PART, " ")),
}  # fmt: skip
NAMES: dict[int, str] = {}


def part_of(root: Path, index: int) -> Path:
    return root / PARTS / NAMES[index]


@pytest.mark.parametrize("what", DAMAGES)
def test_damage_is_found_and_named_and_repaired_to_the_same_bytes(root, made, what):
    NAMES.update({int(path.name[:6]): path.name for path in (root / PARTS).iterdir()})
    assert checked(root).damage == []
    before = runs.files(root)
    where, damage = DAMAGES[what]
    damage(root)
    found = checked(root)
    assert (NAMES[1] if where == "part" else where) in {damage.part for damage in found.damage}
    assert "none damaged" not in str(found)
    assert bool(recomputed(found)) == (where == "part")
    fix(root)
    assert checked(root).damage == []
    after = runs.files(root)
    aside = [name for name in after if name.startswith(SET_ASIDE)]
    assert {name: data for name, data in after.items() if name not in aside} == before


FOREIGN: dict[str, Callable[[Path], object]] = {
    "a file": lambda place: place.write_text("mine"),
    "a pipe": lambda place: os.mkfifo(place),
    "an empty folder": lambda place: place.mkdir(),
    "a folder": lambda place: (place.mkdir(), (place / "deep").mkdir(), (place / "deep" / "a").write_text("mine")),
    "a link": lambda place: place.symlink_to("/etc/passwd"),
    "a link to nothing": lambda place: place.symlink_to("nothing"),
    "a link to a folder": lambda place: place.symlink_to("/etc"),
}


@pytest.mark.skipif(os.name == "nt", reason="pipes and links as on POSIX")
@pytest.mark.parametrize("inside", ["mine", "3x3/mine", "3x3/depth/mine"])
@pytest.mark.parametrize("what", FOREIGN)
def test_what_is_no_file_of_a_part_is_found_and_kept_aside_without_a_model(root, made, what, inside):
    place = part(root, 0) / inside
    if not place.parent.exists():
        place = part(root, 0) / inside.replace("3x3", "3x5")
    FOREIGN[what](place)
    found = checked(root)
    assert [damage.part for damage in found.damage] == [part(root, 0).name]
    stamps = {path: path.stat().st_mtime_ns for path in part(root, 0).rglob("c.*")}
    repair(root, progress=False)
    assert checked(root).damage == []
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    (aside,) = (root / SET_ASIDE).iterdir()
    assert aside.name.startswith(part(root, 0).name)
    kept = aside / place.relative_to(part(root, 0))
    assert os.path.lexists(kept)
    assert kept.is_symlink() == what.startswith("a link")
    shutil.rmtree(root / SET_ASIDE)
    assert runs.files(root) == runs.files(made)


def test_what_a_file_manager_leaves_in_a_part_is_no_damage_and_is_never_deleted(root):
    left = [part(root, 0) / ".DS_Store", next(part(root, 1).glob("*x*")) / "desktop.ini"]
    for path in left:
        path.write_bytes(b"icons")
    assert checked(root).damage == []
    flip(part(root, 1) / PART)
    fix(root)
    assert checked(root).damage == []
    assert left[0].read_bytes() == b"icons"
    assert [path.read_bytes() for path in (root / SET_ASIDE).rglob("desktop.ini")] == [b"icons"]


@pytest.mark.parametrize("indices", [(3,), (1,), (0,), (2, 3), (0, 1, 2, 3)])
def test_parts_that_are_gone_with_their_lines_are_missed_and_captured_again(root, made, indices):
    lose(root, *indices)
    found = checked(root)
    assert any(f"{len(indices)} parts are gone" in damage.what for damage in found.damage)
    repair(root, progress=False)
    again = checked(root)
    assert again.damage == []
    assert any(f"{len(indices)} parts were lost" in note for note in again.notes)
    capture(root)
    assert checked(root) == Verification(root, 4, checked(made).bytes, [], [])
    assert runs.files(root) == runs.files(made)


def test_the_next_run_does_it_too(root, made):
    lose(root, 1, 3)
    capture(root)
    assert runs.files(root) == runs.files(made)


def test_parts_are_not_recomputed_without_a_model_and_images(root):
    flip(chunk(root, 1))
    before = runs.files(root)
    with pytest.raises(ValueError, match=r"1 parts .* model"):
        repair(root, progress=False)
    assert runs.files(root) == before


@pytest.mark.parametrize("how", [lambda text: f"{text} \n", lambda text: "", lambda text: text.replace("3", "4", 1)])
def test_damaged_settings_are_said(root, how):
    (root / SETTINGS).write_text(how((root / SETTINGS).read_text()))
    with pytest.raises(StoreError, match=SETTINGS):
        checked(root)


def test_what_a_kill_leaves_is_no_damage_except_for_half_a_line(root):
    """A part without its line, a line without its summary, unfinished files."""
    earlier = unseal((root / SUMMARY).read_text())
    text = lines(root, lambda n: n < 3)
    counted = lines(root, lambda n: n < 2)
    summary = {"parts": 2, "bytes": len(counted), "manifest": sha256(counted.encode())}
    (root / SUMMARY).write_text(seal(summary))
    (root / MANIFEST).write_text(text)
    (root / PARTS / ".tmp-000009-0123456789ab-1-01234567").mkdir()
    assert earlier["parts"] == 4
    found = checked(root)
    assert found.damage == []
    assert "1 parts are stored and not listed" in str(found)
    assert "1 unfinished files" in str(found)
    (root / FAILURES).unlink()  # its image is in the third part, which the summary does not count
    assert checked(root).damage == []
    append(root / MANIFEST, '{"part":')
    assert [damage.part for damage in checked(root).damage] == [MANIFEST]


def test_of_an_old_run_verify_says_what_it_cannot_know(root):
    """Version 0.1 wrote no summary, and did not say so in run.json."""
    (root / SUMMARY).unlink()
    settings = unseal((root / SETTINGS).read_text())
    assert settings.pop("summary") is True
    (root / SETTINGS).write_text(seal(settings))
    assert checked(root).damage == []
    assert "without a summary" in str(checked(root))
    lose(root, 3)
    assert checked(root).damage == []  # what the note says
    append(root / MANIFEST, lines(root, lambda n: n == 0))
    assert [damage.part for damage in checked(root).damage] == [MANIFEST]
    capture(root)
    assert checked(root).damage == []
    assert checked(root).notes == []
    lose(root, 3)
    assert checked(root).damage


def test_a_part_of_another_run_is_damage_though_its_record_is_whole(root, tmp_path):
    runs.capture(tmp_path / "other", list(runs.pictures()[:2]), "depth", part=2)
    theirs = part(tmp_path / "other", 0)
    shutil.copytree(theirs, root / PARTS / theirs.name)
    (damage,) = checked(root).damage
    assert (damage.part, "another run" in damage.what) == (theirs.name, True)


def test_failures_are_as_json_lines(root):
    (line,) = (root / FAILURES).read_text().splitlines()
    assert json.loads(line)["picture"] == runs.pictures()[5][0]
