"""Runs of earlier versions open and resume. A record with wrong types or values is damage, never a crash."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import probes
from probes.runs import errors, identity
from probes.runs.disk import seal, sha256, unseal
from probes.runs.errors import Damaged, RunFormatError, RunMismatchError, StoreError
from probes.runs.parts import PART, PARTS, read_part
from probes.runs.records import FORMAT, from_json, to_json
from probes.runs.store import MANIFEST, SETTINGS, Store, read_settings
from probes.runs.verify import verify
from tests import runs
from tests.forks import ROOT

SELECTORS = ("encoder.blocks.1.norms", "encoder.blocks.2.attention.rows", "encoder.blocks.2.attention")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A run that version 0.1 wrote: six images, of which one failed, in two parts, under two edits."""
    with zipfile.ZipFile(ROOT / "tests" / "data" / "run_of_version_0.1.zip") as file:
        file.extractall(tmp_path / "old")
    return tmp_path / "old"


def resume(root: Path, count: int = 9) -> probes.Report:
    edits = {"fusion.2": probes.scale(0.5), "fusion.1": probes.replace(torch.ones(1))}
    with probes.edit(runs.model(), edits):
        return runs.capture(root, list(runs.pictures()[:count]), *SELECTORS, tokens=[0, (1, 1)])


# Runs of version 0.1 --------------------------------------------------------------------------------------------------


def test_an_old_run_opens_with_all_that_it_holds(old):
    assert verify(old, progress=False).damage == []
    run = runs.opened(old)
    assert list(run) == [name for name, _ in runs.pictures()[:5]]
    assert run.points == [SELECTORS[0], "encoder.blocks.2.attention", "encoder.blocks.2.attention.rows"]
    assert run.config == runs.model().config
    assert list(run.failures) == [runs.pictures()[5][0]]
    assert run.settings.source == {"note": "written by version 0.1"}
    capture = run["~"]
    assert capture.record.size == (42, 42)
    assert [(point, edit.action) for point, edit in capture.edits] == [("fusion.2", "scale"), ("fusion.1", "replace")]
    assert capture["encoder.blocks.2.attention"].rows([0, 5]).shape == (1, 2, 2, 10)
    assert capture["encoder.blocks.2.attention.rows"].shape == (1, 2, 2, 10)


def test_an_old_run_is_resumed_by_the_same_call_and_none_of_its_bytes_change(old):
    before = runs.files(old)
    report = resume(old)
    assert (report.already_stored, report.images, report.failed) == (5, 3, 0)
    after = runs.files(old)
    assert {name: after[name] for name in before if name != MANIFEST} == {
        name: data for name, data in before.items() if name != MANIFEST
    }
    assert after[MANIFEST].startswith(before[MANIFEST])


def test_records_are_written_as_version_0_1_wrote_them(old):
    store = Store.read(old)
    lines = [seal(to_json(line)) for line in store.lines.values()]
    assert "".join(f"{line}\n" for line in lines) == (old / MANIFEST).read_text()
    assert seal({"format": FORMAT, **to_json(store.settings)}) == (old / SETTINGS).read_text()
    assert identity.fingerprint(store.settings.capture) == store.fingerprint
    for name in store.lines:
        path = old / PARTS / name / PART
        record = read_part(old, name)
        assert seal(to_json(record)) == path.read_text()


def test_a_function_that_version_0_1_identified_by_its_bytecode_is_read_and_not_resumed(tmp_path):
    def edited(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    root = tmp_path / "run"
    with probes.edit(runs.model(), {"fusion.2": edited}):
        runs.capture(root, list(runs.pictures()[:1]), "depth")
        change(root / SETTINGS, bytecode)
        assert runs.opened(root)[runs.pictures()[0][0]].edits[0][0] == "fusion.2"
        with pytest.raises(RunMismatchError, match=r"edited.* fusion.2") as caught:
            runs.capture(root, list(runs.pictures()[:2]), "depth")
    assert len(caught.value.differences) == 1


def bytecode(settings: dict[str, Any]) -> None:
    (edit,) = (edit for _, edit in settings["capture"]["edits"])
    del edit["source"]
    edit["code"] = "0" * 64
    settings["fingerprint"] = "1" * 64


# Records that nobody wrote --------------------------------------------------------------------------------------------


def change(path: Path, how: Callable[[dict[str, Any]], None]) -> str:
    """Changes a sealed record and seals it again, as only a program could. Returns the SHA-256 of the file."""
    record = unseal(path.read_text().splitlines()[0])
    how(record)
    path.write_text(seal(record))
    return sha256(path.read_bytes())


def put(value: object, *keys: str | int) -> Callable[[dict[str, Any]], None]:
    """Puts a value at a place of a record; the word "nothing" removes what is there."""

    def how(record: Any) -> None:
        for key in keys[:-1]:
            record = record[key]
        if value == "nothing":
            del record[keys[-1]]
        else:
            record[keys[-1]] = value

    return how


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One part of two images."""
    runs.capture(tmp_path / "run", list(runs.pictures()[:2]), SELECTORS[0], SELECTORS[2])
    return tmp_path / "run"


SETTINGS_CHANGES = [
    put("nothing", "capture"), put([], "capture"), put("nothing", "fingerprint"), put(7, "fingerprint"),
    put("../x", "fingerprint"), put("3", "part"), put(0, "part"), put(None, "batch"), put([], "source"),
    put("nothing", "capture", "model"), put(3, "capture", "points"), put([7], "capture", "points"),
    put(["../../etc"], "capture", "points"), put(["a/b"], "capture", "points"), put([[1, 2, 3]], "capture", "tokens"),
    put(5, "capture", "model", "family"), put({}, "capture", "model", "config"),
    put("x", "capture", "model", "config", "depth"), put([], "capture", "model", "config", "preprocess"),
    put([["fusion.2"]], "capture", "edits"), put([["fusion.2", {}]], "capture", "edits"),
    put("yes", "capture", "keep_aspect"), put("large", "capture", "size"),
]  # fmt: skip
LINE_CHANGES = [
    put("nothing", "part"), put("../../x", "part"), put(-1, "index"), put("0", "index"), put("nothing", "pictures"),
    put([["a"]], "pictures"), put([["a", "../.."]], "pictures"), put([["a", 3]], "pictures"), put(1.5, "bytes"),
    put([["a", "3x5"]], "pictures"), put({}, "failures"), put(None, "seal"),
]  # fmt: skip
PART_CHANGES = [
    put("nothing", "names"), put("a", "names"), put("nothing", "pictures", 0, "row"), put(-3, "pictures", 0, "row"),
    put(99, "pictures", 0, "row"), put("1", "pictures", 0, "row"), put("../..", "pictures", 0, "grid"),
    put("9x9", "pictures", 0, "grid"), put([1], "pictures", 0, "size"), put(None, "pictures", 0, "sha256"),
    put(5, "pictures", 0, "source"), put("nothing", "pictures", 0), put({}, "files"), put([], "files"),
    put([3], "files", "3x3/zarr.json"), put([3, "0" * 64], "files", "../../../x"), put("nothing", "fingerprint"),
]  # fmt: skip


def read_all(root: Path) -> None:
    run = runs.opened(root)
    runs.values(run)
    for capture in run.values():
        assert capture.edits == []
    assert run.config
    assert all(run.stack(SELECTORS[0], grid=grid) for grid in run.grids)
    assert len(run) == 2


@pytest.mark.parametrize("number", range(len(SETTINGS_CHANGES)))
def test_settings_with_wrong_types_are_damage(root, number):
    read_all(root)
    change(root / SETTINGS, SETTINGS_CHANGES[number])
    with pytest.raises(Damaged) as caught:
        read_all(root)
    assert caught.value.part == SETTINGS
    assert caught.value.what in str(caught.value)


def test_an_unknown_family_or_format_is_said(root):
    change(root / SETTINGS, put("newer", "capture", "model", "family"))
    with pytest.raises(RunFormatError, match="'newer'") as caught:
        read_all(root)
    assert caught.value.found == "newer"


@pytest.mark.parametrize("number", range(len(LINE_CHANGES)))
def test_a_manifest_with_wrong_types_is_damage(root, number):
    path = root / MANIFEST
    change(path, LINE_CHANGES[number])
    path.write_text(path.read_text() + "\n")
    with pytest.raises(StoreError):
        read_all(root)


@pytest.mark.parametrize("number", range(len(PART_CHANGES)))
def test_a_part_with_wrong_types_is_damage_and_is_named(root, number):
    (part,) = (root / PARTS).iterdir()
    digest = change(part / PART, PART_CHANGES[number])
    path = root / MANIFEST
    change(path, put(digest, "seal"))
    path.write_text(path.read_text() + "\n")
    with pytest.raises(Damaged, match=part.name) as caught:
        read_all(root)
    assert caught.value.part == part.name
    assert caught.value.what in str(caught.value)


def test_what_verify_finds_is_what_the_error_carries(root):
    (part,) = (root / PARTS).iterdir()
    change(part / PART, put(None, "index"))
    with pytest.raises(Damaged) as caught:
        read_part(root, part.name)
    (damage,) = verify(root, progress=False).damage
    assert (damage.part, damage.what) == (caught.value.part, caught.value.what)


def test_a_record_says_which_field_is_wrong():
    settings = to_json(runs.SETTINGS)
    settings["part"] = "three"
    with pytest.raises(ValueError, match=r"RunRecord.*part"):
        from_json(settings, type(runs.SETTINGS))


def test_settings_are_read_back_as_they_were_given(root):
    assert from_json(to_json(runs.SETTINGS), type(runs.SETTINGS)) == runs.SETTINGS
    settings = read_settings(root)
    assert settings.capture.size == runs.CHOSEN["size"]


@pytest.mark.parametrize(
    "error",
    [
        errors.Damaged.of_part(Path("run"), "000000-0123456789ab", "c.0 is missing"),
        errors.RunMismatchError("settings differ", ["size is 42 and 56"]),
        errors.ChangedImagesError("images changed", ["a.png"]),
        errors.StoreIOError(28, "no space"),
        errors.UnavailableImageError("gone", "a.png"),
        errors.RunFormatError("unknown", "x"),
    ],
)
def test_errors_keep_their_facts_on_the_way_from_a_worker(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)
    assert isinstance(again, probes.StoreError)
    assert isinstance(again, probes.ProbeError)
