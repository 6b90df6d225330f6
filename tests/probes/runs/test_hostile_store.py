"""A run that somebody else has prepared: no name or link in it leads elsewhere, and nothing is read without bound."""

from __future__ import annotations

import importlib
import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probes.runs import array_file
from probes.runs.cleaning import SET_ASIDE
from probes.runs.disk import seal, sha256, unseal
from probes.runs.errors import Damaged, OutputFolderError, StoreError, UnavailableImageError
from probes.runs.lists import FAILURES, MANIFEST, SUMMARY
from probes.runs.parts import PART, PARTS
from probes.runs.records import ManifestLine, PartRecord, from_json
from probes.runs.store import LEASE, LOCK, SETTINGS, Store
from probes.runs.verify import repair, verify
from tests import runs

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links and pipes as on POSIX")

NORMS = "encoder.blocks.1.norms"
ODD = (
    "../../victim", "/victim", ".", "..", "", "000000-0123456789ab/..", "000000-0123456789ab/", "a\0b", "..\\victim",
    "C:victim", "000000-0123456789ab.", "000000-0123456789ab ", "000000-0123456789ab\n", "٠٠٠٠٠٠-0123456789ab",
    "000000-0123456789AB", "000000-0123456789abc", "../parts/000000-0123456789ab",
)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two parts: three images and a failure."""
    root = tmp_path_factory.mktemp("hostile") / "run"
    runs.capture(root, list(runs.pictures()[3:7]), NORMS, "depth", part=2)
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "store" / "run")
    return tmp_path / "store" / "run"


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A folder beside the store. Nothing in it may change."""
    folder = tmp_path / "victim"
    (folder / "3x3").mkdir(parents=True)
    (folder / "thesis.txt").write_text("precious")
    (folder / PART).write_text("precious")
    (folder / "3x3" / "zarr.json").write_text("precious")
    before = contents(tmp_path, "victim")
    yield folder
    assert contents(tmp_path, "victim") == before


def contents(folder: Path, name: str) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in (folder / name).rglob("*") if path.is_file()}


def parts(root: Path) -> list[Path]:
    return sorted(path for path in (root / PARTS).iterdir() if path.name[0] != ".")


def change(path: Path, how: Callable[[dict[str, Any]], None], line: int = 0) -> None:
    """Changes a sealed record and seals it again, as only a program could."""
    lines = path.read_text().splitlines()
    record = unseal(lines[line])
    how(record)
    lines[line] = seal(record)
    path.write_text("\n".join(lines) + "\n" * (path.name == MANIFEST))


def reseal(root: Path, how: Callable[[dict[str, Any]], None] = lambda record: None) -> None:
    """Changes the record of the first part, and gives it and the manifest the digests of what is on disk."""
    part = parts(root)[0]

    def again(record: dict[str, Any]) -> None:
        how(record)
        for key in record["files"]:
            if (part / key).is_file() and not (part / key).is_symlink():
                data = (part / key).read_bytes()
                record["files"][key] = [len(data), sha256(data)]

    change(part / PART, again)
    change(root / MANIFEST, lambda line: line.update(seal=sha256((part / PART).read_bytes())))
    (root / SUMMARY).unlink()


def use(root: Path) -> None:
    """Everything that a person does with a run from somebody else."""
    run = runs.opened(root)
    runs.values(run)
    run.sizes()
    assert run.failures


def fix(root: Path) -> None:
    repair(root, runs.model(), list(runs.pictures()), workers=0, progress=False)


@contextmanager
def little_memory(more: int = 2**30) -> Iterator[None]:
    """Limits what this process can allocate in addition."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


# Names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ODD)
def test_no_name_of_a_part_leads_elsewhere(root, victim, name):
    """`repair` deleted the folder that the manifest named."""
    name = str(victim) if name == "/victim" else name
    change(root / MANIFEST, lambda line: line.update(part=name))
    change(parts(root)[0] / PART, lambda record: record.update(part=name))
    with pytest.raises(StoreError):
        use(root)
    assert verify(root, progress=False).damage
    fix(root)
    assert {path.name for path in root.parent.iterdir()} == {"run"}
    assert verify(root, progress=False).damage == []


def test_a_line_whose_name_does_not_follow_from_its_images_names_no_part_to_remove(root):
    """A folder with files of a person, under a name that a part could have."""
    mine = root / PARTS / "000007-0123456789ab"
    (mine / "1x1").mkdir(parents=True)
    (mine / "thesis.txt").write_text("precious")
    (mine / "1x1" / "notes.txt").write_text("precious")
    change(root / MANIFEST, lambda line: line.update(part=mine.name, index=7))
    found = verify(root, progress=False)
    assert any("000007-0123456789ab" in damage.what for damage in found.damage if damage.part == MANIFEST)
    fix(root)
    kept = {path.name: path.read_text() for path in (root / SET_ASIDE).rglob("*.txt")}
    assert kept == {"thesis.txt": "precious", "notes.txt": "precious"}
    assert verify(root, progress=False).damage == []
    use(root)


@pytest.mark.parametrize("name", ["../..", "/tmp", "3x3/..", "", ".", "3x3\n", "３x3", "3x3\0", "-3x3", "3x", "x"])
def test_no_name_of_a_grid_leads_elsewhere(name):
    line = {"part": "000000-0123456789ab", "index": 0, "pictures": [["a", name]], "failures": [], "bytes": 0}
    with pytest.raises(ValueError, match="ManifestLine"):
        from_json(line | {"seal": "0" * 64}, ManifestLine)


@pytest.mark.parametrize(
    "key",
    [
        "../../../etc/passwd", "/etc/passwd", "3x3/../../x", "3x3/./zarr.json", "3x3//zarr.json", "3x3/a/../zarr.json",
        "3x3/a\0/c.0", "3x3/a\\b/c.0", "3x3/C:/c.0", "3x3/a./c.0", "3x3/a /c.0", "3x3/a\n/c.0", "3x3/a/b/c.0", "3x3",
        "3x3/a/c.0/", "3x3/a/passwd", "3x3/.../c.0", "part.json", "", ".",
    ],
)  # fmt: skip
def test_no_name_of_a_file_leads_elsewhere(key):
    record = {"part": "000000-0123456789ab", "fingerprint": "f" * 64, "index": 0, "names": [], "pictures": []}
    record |= {"failures": []}
    assert from_json(record | {"files": {"3x3/a.b/c.0.0": [1, "0" * 64]}}, PartRecord).files  # control
    with pytest.raises(ValueError, match="PartRecord"):
        from_json(record | {"files": {key: [1, "0" * 64]}}, PartRecord)


# Links ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [SETTINGS, MANIFEST, FAILURES, SUMMARY, LOCK, LEASE])
def test_nothing_is_written_through_a_link_in_place_of_a_file(root, tmp_path, name):
    outside = tmp_path / "outside"
    if (root / name).exists():
        (root / name).rename(outside)
    else:
        outside.write_text("precious")
    (root / name).symlink_to(outside)
    before = outside.read_bytes()
    with pytest.raises(StoreError, match=name):
        runs.capture(root, list(runs.pictures()[3:9]), NORMS, "depth", part=2)
    with pytest.raises(StoreError, match=name):
        fix(root)
    assert outside.read_bytes() == before
    assert (root / name).is_symlink()


@pytest.mark.parametrize("name", [PARTS, SET_ASIDE])
def test_nothing_is_written_or_removed_through_a_link_in_place_of_a_folder(root, tmp_path, name):
    outside = tmp_path / "outside"
    if (root / name).exists():
        (root / name).rename(outside)
    else:
        outside.mkdir()
    (outside / ".tmp-mine").mkdir()
    (outside / ".tmp-000000-0123456789ab-1-01234567").mkdir()  # as a killed writer of version 0.1 leaves it
    (root / name).symlink_to(outside)
    before = sorted(str(path) for path in outside.rglob("*"))
    with pytest.raises(OutputFolderError, match=name):
        Store.write(root)
    with pytest.raises(StoreError, match=name):
        runs.capture(root, list(runs.pictures()[3:9]), NORMS, "depth", part=2)
    assert sorted(str(path) for path in outside.rglob("*")) == before


def test_a_part_that_is_a_link_is_not_followed(root, victim):
    part = parts(root)[0]
    shutil.rmtree(part)
    part.symlink_to(victim)
    with pytest.raises(Damaged, match="leads out of the run"):
        use(root)
    assert [damage.part for damage in verify(root, progress=False).damage] == [part.name]
    fix(root)
    assert not part.is_symlink()
    assert verify(root, progress=False).damage == []
    use(root)


@pytest.mark.parametrize("inner", ["3x5", f"3x5/{NORMS}", f"3x5/{NORMS}/zarr.json", f"3x5/{NORMS}/c.0.0", PART])
def test_a_link_inside_a_part_is_read_inside_the_run_only(root, tmp_path, inner):
    part = next(part for part in parts(root) if (part / "3x5").exists())
    for place, is_fine in ((root / "elsewhere", True), (tmp_path / "elsewhere", False)):
        target = part / inner
        data = target.resolve()
        data.rename(place)
        if target.is_symlink():
            target.unlink()
        target.symlink_to(place)
        if is_fine:
            use(root)
        else:
            with pytest.raises(Damaged, match="leads out of the run") as caught:
                use(root)
            assert caught.value.part == part.name
            assert part.name in {damage.part for damage in verify(root, progress=False).damage}


def test_unfinished_files_are_removed_by_their_exact_names_and_no_link_is_followed(root, victim):
    for folder in (root, root / PARTS):
        (folder / ".tmp-mine").mkdir()
        (folder / ".tmp-link").symlink_to(victim)
    named = root / PARTS / ".tmp-000000-0123456789ab-1-01234567"
    named.symlink_to(victim)
    (root / PARTS / ".tmp-000001-0123456789ab-1-01234567").mkdir()
    (root / ".tmp-01234567-manifest.jsonl").write_text("{")
    with Store.write(root):
        pass
    left = {path.name for path in (*root.iterdir(), *(root / PARTS).iterdir()) if path.name.startswith(".tmp-")}
    assert left == {".tmp-mine", ".tmp-link", named.name}


# Devices, pipes, and files without end --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "without end"])
@pytest.mark.parametrize("name", [SETTINGS, MANIFEST, SUMMARY, FAILURES, PART, "zarr.json", "c.0.0"])
@pytest.mark.timeout(60)
def test_something_else_in_place_of_a_file_is_damage_and_is_not_read(root, name, kind):
    path = (
        root / name
        if (root / name).exists()
        else next(iter(sorted(parts(root)[0].rglob(f"{NORMS}/{name}"))), parts(root)[0] / name)
    )
    path.unlink()
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "without end":
            path.touch()
            os.truncate(path, 2**40)
    with little_memory():
        if name not in (SUMMARY, FAILURES):
            with pytest.raises(StoreError):
                use(root)
        if name == SETTINGS:
            with pytest.raises(StoreError, match=name):
                verify(root, progress=False)
        else:
            named = {damage.part for damage in verify(root, progress=False).damage}
            assert (name if (root / name) == path else parts(root)[0].name) in named


@pytest.mark.timeout(60)
def test_the_file_of_an_image_is_opened_only_if_it_is_a_file(made, tmp_path):
    for number, source in enumerate(
        ("/dev/zero", "pipe", "relative.png", "/nowhere/a.png", "a\0b", "http://host/a.png")
    ):
        root = tmp_path / str(number)
        shutil.copytree(made, root)
        if source == "pipe":
            source = str(tmp_path / "pipe")
            os.mkfifo(source)
        for frame in (None, 0):
            reseal_source(root, source, frame)
            run = runs.opened(root)
            with pytest.raises(UnavailableImageError):
                run[next(iter(run))].image()


def reseal_source(root: Path, source: str, frame: int | None) -> None:
    def how(record: dict[str, Any]) -> None:
        for image in record["pictures"]:
            image["source"] = source
            if frame is not None:
                image["frame"] = frame

    (root / SUMMARY).touch()
    reseal(root, how)


# What is declared, and what is stored ---------------------------------------------------------------------------------


def zeros(count: int) -> bytes:
    """A Zstandard frame of a few kilobytes that decompresses to many zeros."""
    data = b"\x28\xb5\x2f\xfd" + bytes([0xC0 | 0x20]) + count.to_bytes(8, "little")
    while count:
        size = min(count, 2**17)
        count -= size
        data += (int(count == 0) | 1 << 1 | size << 3).to_bytes(3, "little") + b"\0"
    return data


def metadata_of(root: Path) -> tuple[Path, dict[str, Any]]:
    path = next(iter(sorted(parts(root)[0].glob("*/depth/zarr.json"))))
    return path, json.loads(path.read_text())


CODECS: list[Any] = [
    [{"name": name}] for name in ("numcodecs.pickle", "pickle", "numcodecs.json2", "vlen-utf8", "vlen-bytes", "bytes")
] + [[{"name": "bytes"}, {"name": "zstd"}], [{"name": "sharding_indexed"}], [], ["zstd"], None]


@pytest.mark.parametrize("codecs", CODECS)
def test_only_codecs_that_a_run_writes_are_used(root, codecs):
    path, about = metadata_of(root)
    path.write_text(json.dumps(about | {"codecs": codecs}))
    reseal(root)
    with pytest.raises(Damaged, match=r"zarr\.json"):
        use(root)
    assert verify(root, progress=False).damaged_parts == [parts(root)[0].name]


@pytest.mark.parametrize(
    "changes",
    [
        {"data_type": "object"},
        {"shape": [1, -1, 4]},
        {"shape": "x"},
        {"shape": [1e9]},
        {"zarr_format": 2},
        {"dimension_names": None},
        {"storage_transformers": [{"name": "x"}]},
    ],
)
def test_metadata_of_other_kinds_are_damage(root, changes):
    path, about = metadata_of(root)
    path.write_text(json.dumps(about | changes))
    reseal(root)
    with pytest.raises(Damaged, match=r"zarr\.json"):
        use(root)


@pytest.mark.parametrize("deep", ['{"a":' * 100_000, "[" * 100_000, "", "null", '{"attributes": []}'])
@pytest.mark.parametrize("of", ["depth/zarr.json", "zarr.json"])
def test_metadata_that_are_no_metadata_are_damage(root, deep, of):
    grid = metadata_of(root)[0].parents[1]
    (grid / of).write_text(deep)
    reseal(root)
    with pytest.raises(Damaged, match=r"zarr\.json"):
        use(root)


def test_a_small_file_that_declares_gigabytes_is_refused_before_they_are_allocated(root):
    path, about = metadata_of(root)
    images = about["shape"][0]
    row = [1, 40_000, 20_000]
    about["shape"] = [images, *row[1:]]
    about["chunk_grid"]["configuration"]["chunk_shape"] = [images, *row[1:]]
    about["codecs"][0]["configuration"]["chunk_shape"] = row
    path.write_text(json.dumps(about))
    reseal(root)
    with little_memory(), pytest.raises(Damaged, match=r"row 0 declares"):
        use(root)


def test_compressed_data_that_decompress_to_gigabytes_are_refused_before_they_do(root):
    path, about = metadata_of(root)
    images = about["shape"][0]
    file = path.with_name("c.0.0.0")
    frame = zeros(7 * 10**9)
    assert len(frame) < 250_000
    size = file.stat().st_size
    index = file.read_bytes()[size - 16 * images - 4 :]
    bomb = (0).to_bytes(8, "little") + len(frame).to_bytes(8, "little") + index[16:]
    file.write_bytes(frame + bomb)
    reseal(root)
    with little_memory(), pytest.raises(Damaged, match="row 0 declares 7000000000 bytes"):
        use(root)
    assert any("7000000000" in damage.what for damage in verify(root, progress=False).damage)


@pytest.mark.parametrize("count", [0, 1, 255, 256, 65_535 + 256, 65_536 + 256, 2**32 - 1, 2**32])
def test_what_a_frame_declares_is_read_from_its_header(count):
    if 0 < count < 2**20:
        encode = importlib.import_module("numcodecs").Zstd(1, checksum=True).encode
        assert array_file.frame_bytes(bytes(encode(np.zeros(count, np.uint8))[:18])) == count
    assert array_file.frame_bytes(zeros(count)[:18]) == count
    assert array_file.frame_bytes(b"\0" * 18) is None
    assert array_file.frame_bytes(b"\x28\xb5\x2f\xfd") is None


def test_a_file_with_values_that_the_record_does_not_list_is_not_read(root):
    path, _ = metadata_of(root)
    key = f"{path.parent.relative_to(parts(root)[0])}/c.0.0.0"
    reseal(root, lambda record: record["files"].pop(key))
    with pytest.raises(Damaged, match=r"c\.0\.0\.0"):
        use(root)


def test_an_array_of_fewer_images_than_the_part_has_is_damage(root):
    part = parts(root)[0]
    record = unseal((part / PART).read_text())
    grid = record["pictures"][0]["grid"]

    def how(record: dict[str, Any]) -> None:
        record["pictures"].append(record["pictures"][0] | {"name": "another", "row": 1})

    reseal(root, how)
    with pytest.raises(Damaged, match=f"{grid}.*images, expected"):
        use(root)


def test_an_image_that_claims_to_be_huge_makes_no_huge_depth(root):
    reseal(root, lambda record: [image.update(size=[10**9, 10**9]) for image in record["pictures"]] and None)
    run = runs.opened(root)
    capture = run[next(iter(run))]
    with pytest.raises(ValueError, match="1000000000 x 1000000000"):
        capture.depth()
    assert capture.depth((10, 12)).shape == (10, 12)


@pytest.mark.parametrize("row", [1, 2, 99, 10**9, 10**30])
def test_a_row_that_the_arrays_do_not_have_is_damage(root, row):
    """A slice beyond the end gave an empty tensor."""
    reseal(root, lambda record: [image.update(row=row) for image in record["pictures"]] and None)
    with pytest.raises(Damaged, match="rows of the images"):
        use(root)
    assert parts(root)[0].name in verify(root, progress=False).damaged_parts


def test_a_group_of_another_grid_is_damage(root):
    path = next(iter(sorted(parts(root)[0].glob("*/zarr.json"))))
    about = json.loads(path.read_text())
    about["attributes"]["grid"]["rows"] = 10**6
    path.write_text(json.dumps(about))
    reseal(root)
    with pytest.raises(Damaged, match="1000000x"):
        use(root)


def test_settings_with_an_edit_of_another_kind_are_damage(root):
    change(root / SETTINGS, lambda record: record["capture"].update(edits=[["fusion.2", {"action": "x", "where": {}}]]))
    with pytest.raises(Damaged, match=r"run\.json"):
        use(root)
