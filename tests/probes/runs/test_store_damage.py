"""Reading notices damage anywhere in a run and names the part. No changed value is returned."""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import xarray

from probes.runs import errors
from probes.runs.errors import StoreError
from probes.runs.verify import verify
from tests import runs
from tests.broken_writers import broken
from tests.runs import same

CASES = 300
KINDS = ("a bit flipped", "cut short", "emptied", "removed", "zeros in the middle", "something added")
POINTS = ("encoder.blocks.1.norms", "encoder.blocks.2.attention")


def may_be_harmless(file: str) -> bool:
    """Whether damage to a file can leave all values unchanged.

    The lists are rebuilt from the parts if their end is missing. The lock is empty. An "image" array holds names for
    xarray; `probes` takes the names from part.json. `verify` notices all of these, except the lock.
    """
    return file in ("manifest.jsonl", "failures.jsonl", "summary.json", "lock") or "/image/" in file


@dataclass(frozen=True)
class Damaged:
    kind: str
    file: str
    outcome: str  # "noticed", "harmless", or the fault


def capture(root: Path, count: int = 5) -> None:
    runs.capture(root, list(runs.pictures()[:count]), *POINTS, part=3)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("damage") / "run"
    capture(root)
    return root


def spoil(path: Path, kind: str, chance: random.Random) -> bool:
    """Damages a file. Returns False if this kind of damage is impossible for it."""
    data = bytearray(path.read_bytes())
    if kind == "removed":
        path.unlink()
        return True
    if not data:
        return False
    at = chance.randrange(len(data))
    match kind:
        case "a bit flipped":
            data[at] ^= 1 << chance.randrange(8)
        case "cut short":
            del data[at:]
        case "emptied":
            data.clear()
        case "zeros in the middle":
            length = min(len(data) - at, chance.randrange(1, 65))
            if not any(data[at : at + length]):
                return False
            data[at : at + length] = bytes(length)
        case "something added":
            data += chance.randbytes(chance.randrange(1, 9))
    path.write_bytes(data)
    return True


def outcome(root: Path, file: str, whole: dict) -> str:
    """What a user gets who opens the run and reads everything."""
    part = file.split("/")[1] if file.startswith("parts/") else None
    try:
        read = runs.values(runs.opened(root))
    except StoreError as error:
        named = part or file
        return "noticed" if named in str(error) else f"does not name {named}: {error}"
    except Exception as error:
        return f"not an error of the store: {error!r}"
    if not same(read, whole):
        return "other numbers were read silently"
    return "harmless"


def damaged(root: Path, cases: int, seed: int) -> Iterator[Damaged]:
    """Damages one file after another and restores it. All kinds of files are equally likely."""
    chance = random.Random(seed)
    whole = runs.values(runs.opened(root))
    by_sort: dict[str, list[str]] = {}
    for file in sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()):
        *folders, name = file.split("/")
        by_sort.setdefault("/".join([*folders[3:], name]), []).append(file)
    done = 0
    while done < cases:
        file = chance.choice(by_sort[chance.choice(sorted(by_sort))])
        kind = chance.choice(KINDS)
        before = (root / file).read_bytes()
        if spoil(root / file, kind, chance):
            yield Damaged(kind, file, outcome(root, file, whole))
            (root / file).write_bytes(before)
            done += 1
    assert same(runs.values(runs.opened(root)), whole)


def test_damage_anywhere_is_noticed_or_does_no_harm(root):
    cases = list(damaged(root, CASES, seed=1))
    assert [case for case in cases if case.outcome not in ("noticed", "harmless")] == []
    # In files with values or their locations, only unused bits of the compressed data go unnoticed.
    telling = [case for case in cases if not may_be_harmless(case.file)]
    harmless = [case for case in telling if case.outcome == "harmless"]
    assert len(telling) > 150
    assert len(harmless) <= len(telling) // 20
    assert all(case.kind in ("a bit flipped", "zeros in the middle") and "/c." in case.file for case in harmless)
    assert {case.kind for case in cases if case.outcome == "noticed"} == set(KINDS)


@pytest.mark.parametrize(
    ("writer", "whats"),
    [
        ("compresses without checksum", ("a bit flipped", "zeros in the middle")),
        ("checks no sizes", ("removed", "emptied", "cut short")),
    ],
)
def test_damage_catches_a_store_that(tmp_path, writer, whats):
    with broken(writer):
        capture(tmp_path / "run")
        found = (case for case in damaged(tmp_path / "run", CASES, seed=2) if "other numbers" in case.outcome)
        case = next(found, None)
    assert case is not None, f"not caught in {CASES} cases"
    assert case.kind in whats


def test_a_part_whose_folder_is_gone_is_noticed(root, tmp_path):
    shutil.copytree(root, tmp_path / "run")
    part = sorted((tmp_path / "run" / "parts").iterdir())[0]
    shutil.rmtree(part)
    run = runs.opened(tmp_path / "run")
    with pytest.raises(StoreError, match=f"part {part.name} is damaged"):
        runs.values(run)
    with pytest.raises(StoreError, match=f"part {part.name} is damaged"):
        runs.capture(tmp_path / "run", [Path(__file__)], *POINTS)


@pytest.mark.parametrize("file", ["part.json", "zarr.json", "c.*"])
@pytest.mark.parametrize(("code", "is_damage"), [(errno.EACCES, False), (errno.EMFILE, False), (errno.EIO, True)])
def test_what_only_cannot_be_read_now_is_not_called_damaged(root, monkeypatch, file, code, is_damage):
    """Otherwise `verify --repair` would recompute it, and the user would believe that data is lost."""

    whole = os.open

    def refuse(path, *arguments, **keywords):
        if isinstance(path, (str, Path)) and root in Path(path).parents and Path(path).match(file):
            raise OSError(code, os.strerror(code), str(path))
        return whole(path, *arguments, **keywords)

    run = runs.opened(root)
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StoreError, match=os.strerror(code)) as raised:
        runs.values(run)
    assert isinstance(raised.value, errors.Damaged) is is_damage
    assert ("is damaged" in str(raised.value)) is is_damage
    if is_damage:
        assert os.strerror(code) in str(verify(root, progress=False).damage[0])
    else:
        with pytest.raises(StoreError, match=os.strerror(code)):
            verify(root, progress=False)


def test_two_parts_exchanged_are_noticed(root, tmp_path):
    """Each is complete, but in the place of the other."""
    shutil.copytree(root, tmp_path / "run")
    first, second = sorted((tmp_path / "run" / "parts").iterdir())
    first.rename(tmp_path / "aside")
    second.rename(first)
    (tmp_path / "aside").rename(second)
    with pytest.raises(StoreError, match=f"part {first.name} is damaged .*it belongs to part {second.name}"):
        runs.values(runs.opened(tmp_path / "run"))


def test_all_folders_of_parts_gone_is_said(root, tmp_path):
    shutil.copytree(root, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "parts")
    for use in (lambda: runs.opened(tmp_path / "run"), lambda: capture(tmp_path / "run")):
        with pytest.raises(StoreError, match=r"parts is damaged.*missing"):
            use()


def test_a_run_whose_list_is_damaged_is_not_written_to(root, tmp_path):
    shutil.copytree(root, tmp_path / "run")
    manifest = tmp_path / "run" / "manifest.jsonl"
    manifest.write_bytes(manifest.read_bytes().replace(b"index", b"indfx", 1))
    before = runs.files(tmp_path / "run")
    with pytest.raises(
        StoreError, match=r"manifest.jsonl is damaged .line 1: it does not match its checksum.*--repair"
    ):
        capture(tmp_path / "run", 8)
    assert runs.files(tmp_path / "run") == before


def test_xarray_alone_notices_flipped_bits_in_arrays(root, tmp_path):
    """The arrays contain checksums. Only `probes` notices missing or short files."""
    chance = random.Random(3)
    noticed = 0
    for number in range(20):
        shutil.copytree(root, tmp_path / str(number))
        file = chance.choice(sorted((tmp_path / str(number)).rglob("c.*")))
        grid = file.parents[1]
        before = xarray.open_zarr(root / grid.relative_to(tmp_path / str(number)), consolidated=False).load()
        spoil(file, "a bit flipped", chance)
        try:
            after = xarray.open_zarr(grid, consolidated=False).load()
        except Exception:
            noticed += 1
        else:
            assert after.identical(before)
    assert noticed >= 18
