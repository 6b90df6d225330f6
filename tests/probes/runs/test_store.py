"""A store belongs to one run and one writer: refused calls, and two writers at the same time."""

from __future__ import annotations

import errno
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import probes
from probes.runs import parts
from probes.runs.disk import seal, unseal
from probes.runs.errors import DiskSpaceError, OutputFolderError, RunMismatchError, StoreError
from probes.runs.parts import PARTS, manifest_line, part_id
from probes.runs.sources import SourceError
from probes.runs.store import FAILURES, MANIFEST, SETTINGS, Store
from tests import runs
from tests.broken_writers import broken
from tests.forks import Forks
from tests.models import tiny_model


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks() as forks:
        yield forks


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        Image.fromarray(rng.integers(0, 256, (42, 42, 3), dtype=np.uint8)).save(folder / f"m{i}.png")
    return folder


def some(count: int) -> list:
    return list(runs.pictures()[:count])


# Two writers ----------------------------------------------------------------------------------------------------------


def test_a_second_runner_is_refused_until_the_first_is_gone(forks, tmp_path):
    root = tmp_path / "run"
    first = forks.start("hold", root)
    first.wait_for((tmp_path / "held").exists)
    second = forks.run("session", root)
    assert second.wait() == 1
    assert f"RunLockedError: another process is writing to {root}" in second.output
    assert runs.folders(root) == {}
    first.kill()
    assert first.wait() == -signal.SIGKILL
    third = forks.run("session", root)
    assert third.wait() == 0, third.output
    assert len(runs.folders(root)) == 2


def test_the_same_run_started_twice_writes_nothing_the_second_time(tmp_path):
    root = tmp_path / "run"
    first = runs.capture(root)
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in root.rglob("*") if path.name != "lock"}
    files = runs.files(root)
    second = runs.capture(root)
    assert (first.images, first.failed, first.already_stored) == (13, 1, 0)
    assert (second.images, second.failed, second.already_stored) == (0, 0, 13)
    assert second.failures == first.failures
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in before} == before
    assert runs.files(root) == files


def write_at_once(forks: Forks, root: Path) -> tuple[list[str], dict[str, bytes]]:
    """Two processes rename the same part at the same time, with different values. Returns (faults, the part)."""
    with Store.write(root, runs.SETTINGS):
        pass
    children = [
        forks.start("meet", root, own=own, other=other, seed=seed)
        for seed, (own, other) in enumerate((("a", "b"), ("b", "a")))
    ]
    found = [child.output for child in children if child.wait() != 0]
    leftovers = [path.name for path in (root / PARTS).iterdir() if path.name.startswith(".tmp-")]
    (part,) = runs.folders(root).values()
    return found + leftovers, part


def test_two_processes_write_the_same_part_at_once(forks, tmp_path):
    wanted: list[dict[str, bytes]] = []
    for seed in (0, 1):
        with Store.write(tmp_path / f"alone-{seed}", runs.SETTINGS) as store:
            store.commit(runs.part(0, seed))
        wanted += runs.folders(tmp_path / f"alone-{seed}").values()
    assert wanted[0] != wanted[1]
    for attempt in ("first", "second", "third"):
        root = tmp_path / attempt / "run"
        root.parent.mkdir()
        found, part = write_at_once(forks, root)
        assert found == []
        assert part in wanted  # one of the two, complete
        with Store.write(root, runs.SETTINGS) as store:
            store.commit(runs.part(0, seed=1))
            store.commit(runs.part(0, seed=0))
        assert len((root / MANIFEST).read_text().splitlines()) == 1


def first_stays(root: Path, writer: str | None = None) -> bool:
    """Whether a part stays unchanged when a later writer has other values for it."""
    with broken(writer):
        with Store.write(root, runs.SETTINGS) as store:
            store.commit(runs.part(0))
        before = runs.folders(root)
        parts.write_part(root, "f" * 64, runs.part(0, seed=1))
        return runs.folders(root) == before


def test_the_first_writer_of_a_part_wins(tmp_path):
    assert first_stays(tmp_path / "run")


def test_that_catches_a_writer_that_replaces_parts(tmp_path):
    assert not first_stays(tmp_path / "run", "replaces existing parts")


# Resuming -------------------------------------------------------------------------------------------------------------


def captured_once(root: Path, writer: str | None = None) -> bool:
    """Captures three images, then a list with others between them. Returns whether each is stored once."""
    with broken(writer):
        runs.capture(root, [some(8)[i] for i in (1, 3, 6)], part=2)
        runs.capture(root, some(8), part=2)
    listed = [picture for line in Store.read(root).lines.values() for picture, _ in line.images]
    return sorted(listed) == sorted(name for name, _ in some(8))


def test_images_that_come_later_are_captured_and_no_others(tmp_path):
    assert captured_once(tmp_path / "run")


def test_that_catches_a_run_that_counts_parts(tmp_path):
    assert not captured_once(tmp_path / "run", "resumes by the number of parts")


def test_failures_are_tried_again_when_asked_and_leave_the_list_then(photos, tmp_path):
    root = tmp_path / "run"
    whole = (photos / "m2.png").read_bytes()
    (photos / "m2.png").write_bytes(whole[:100])
    assert runs.capture(root, photos).failed == 1
    reason = dict(probes.open_run(root).failures)["m2.png"]
    assert f'{{"picture": "m2.png", "reason": "{reason}"}}\n' == (root / FAILURES).read_text()
    (photos / "m2.png").write_bytes(whole)
    again = runs.capture(root, photos)
    assert (again.images, again.failed, len(again.failures)) == (0, 0, 1)
    retried = runs.capture(root, photos, retry=True)
    assert (retried.images, retried.failed, retried.failures) == (1, 0, [])
    assert (root / FAILURES).read_text() == ""
    assert set(probes.open_run(root)) == {"m0.png", "m1.png", "m2.png", "m3.png"}
    assert runs.capture(root, photos, retry=True).images == 0


def test_a_generator_is_read_once_and_resumed_by_its_names(tmp_path):
    root = tmp_path / "run"
    runs.capture(root, (pair for pair in some(4)))
    taken = []

    def generator():
        for pair in some(7):
            taken.append(pair[0])
            yield pair

    report = runs.capture(root, generator())
    assert (report.already_stored, report.images, report.failed) == (4, 2, 1)
    assert taken == [name for name, _ in some(7)]


class Listed:
    """Like a torch Dataset: the length is known, and each access reads an image."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def __len__(self) -> int:
        return 7

    def __iter__(self):
        for pair in some(7):
            self.read.append(pair[0])
            yield pair


def test_an_iterable_of_known_length_is_gone_through_once(tmp_path):
    images = Listed()
    assert runs.capture(tmp_path / "run", images).images == 6
    assert len(images.read) <= 8  # `find` reads the first one


# Refused calls --------------------------------------------------------------------------------------------------------


def refused(root: Path, call, kind: type[StoreError] = RunMismatchError) -> StoreError:
    """The error with which a call is refused. The run does not change."""
    before = runs.files(root)
    with pytest.raises(kind) as caught:
        call()
    assert runs.files(root) == before
    return caught.value


def unchanged(root: Path, call) -> str:
    """The message with which a call that does not fit the run is refused."""
    return str(refused(root, call))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"selectors": ("depth",)}, "only in the stored run: encoder.blocks.1.norms, encoder.blocks.2.attention"),
        ({"selectors": (*runs.SELECTORS, "fusion.0")}, "only in this call: fusion.0"),
        ({"size": 56}, "size is 42 in the stored run and 56 in this call"),
        ({"size": None}, "size is 42 in the stored run and not given in this call"),
        ({"size": (42, 42)}, "size is 42 in the stored run and [42, 42] in this call"),
        ({"dtype": torch.float16}, 'dtype is not given in the stored run and "float16" in this call'),
        ({"keep_aspect": False}, "keep_aspect is true in the stored run and false in this call"),
        ({"keep_images": True}, "keep_images is false in the stored run and true in this call"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_other_settings_are_refused_with_what_differs(tmp_path, changes, what):
    runs.capture(tmp_path / "run", some(2))
    selectors = changes.pop("selectors", ()) if "selectors" in changes else ()
    error = refused(tmp_path / "run", lambda: runs.capture(tmp_path / "run", some(3), *selectors, **changes))
    assert error.differences == (what,)
    assert str(tmp_path / "run") in str(error)
    assert what in str(error)
    assert isinstance(error, ValueError)
    assert not isinstance(error, OSError)


@pytest.mark.parametrize(("name", "value"), [("part", 4), ("batch", 1)])
def test_other_part_and_batch_sizes_are_refused(tmp_path, name, value):
    runs.capture(tmp_path / "run", some(2))
    error = refused(tmp_path / "run", lambda: runs.capture(tmp_path / "run", some(3), **{name: value}))
    assert error.differences == (f"{name} is {runs.CHOSEN[name]} in the stored run and {value} in this call",)
    assert runs.capture(tmp_path / "run", some(3), **{name: None}).already_stored == 2


def test_changed_weights_are_refused(tmp_path):
    root = tmp_path / "run"
    probes.run(tiny_model(), some(2), root, "depth", **runs.CHOSEN)
    changed = tiny_model()
    with torch.no_grad():
        changed.head.conv3.bias[0] += 1e-7 * changed.head.conv3.bias[0].abs() + 1e-6
    said = unchanged(root, lambda: probes.run(changed, some(3), root, "depth", **runs.CHOSEN))
    assert "model.weights is" in said
    assert "model.weights is" in unchanged(
        root, lambda: probes.run(tiny_model(1), some(3), root, "depth", **runs.CHOSEN)
    )
    assert probes.run(tiny_model(), some(3), root, "depth", **runs.CHOSEN).already_stored == 2


def test_edits_are_settings_too(tmp_path):
    model = tiny_model()
    with probes.edit(model, {"fusion.2": probes.scale(0.5)}):
        probes.run(model, some(2), tmp_path / "run", "depth", **runs.CHOSEN)
    said = unchanged(tmp_path / "run", lambda: probes.run(model, some(3), tmp_path / "run", "depth", **runs.CHOSEN))
    assert 'edits is [["fusion.2", {"action": "scale"' in said
    other = probes.edit(model, {"fusion.2": probes.replace(torch.ones(1))})
    more = probes.edit(model, {"fusion.2": probes.replace(torch.zeros(1))})
    with other:
        probes.run(model, some(2), tmp_path / "ones", "depth", **runs.CHOSEN)
    with more:
        unchanged(tmp_path / "ones", lambda: probes.run(model, some(3), tmp_path / "ones", "depth", **runs.CHOSEN))
    assert probes.open_run(tmp_path / "run")[some(1)[0][0]].edits[0][0] == "fusion.2"


def scaled_by(factor: float):
    return lambda x: x * factor


def test_a_run_is_not_resumed_with_another_function_of_the_same_name(tmp_path):
    model = tiny_model()

    def go_on(function):
        with probes.edit(model, {"fusion.2": function}):
            return probes.run(model, some(3), tmp_path / "run", "depth", **runs.CHOSEN)

    def edited(x):
        return x * 0.5

    before = edited

    def edited(x):  # type: ignore[no-redef]
        return x * 0.25

    edited, other = before, edited

    with probes.edit(model, {"fusion.2": edited}):
        probes.run(model, some(2), tmp_path / "run", "depth", **runs.CHOSEN)
    said = unchanged(tmp_path / "run", lambda: go_on(other))
    assert "edited" in said
    assert "fusion.2" in said
    assert "source" in said
    said = unchanged(tmp_path / "run", lambda: go_on(probes.scale(0.5)))
    assert "the edit of fusion.2.action is " in said
    said = unchanged(tmp_path / "run", lambda: go_on(probes.apply(edited, version="2")))
    assert 'version not given in the stored run and "2" in this call' in said
    assert go_on(edited).already_stored == 2


def test_a_version_tells_functions_apart_that_differ_in_a_closure(tmp_path):
    """The source is the same; the factor is not part of it."""
    model = tiny_model()

    def go_on(factor: float, version: str):
        with probes.edit(model, {"fusion.2": probes.apply(scaled_by(factor), version=version)}):
            return probes.run(model, some(3), tmp_path / "run", "depth", **runs.CHOSEN)

    go_on(0.5, "half")
    assert 'version "half" in the stored run and "quarter"' in unchanged(
        tmp_path / "run", lambda: go_on(0.25, "quarter")
    )
    assert go_on(0.25, "half").images == 0  # not noticed: documented


def test_a_function_without_source_needs_a_version(tmp_path):
    model = tiny_model()
    with probes.edit(model, {"fusion.2": torch.relu}), pytest.raises(probes.ProbeError, match=r"relu.*version="):
        probes.run(model, some(2), tmp_path / "run", "depth", **runs.CHOSEN)
    assert list(tmp_path.iterdir()) == []
    with probes.edit(model, {"fusion.2": probes.apply(torch.relu, version="1")}):
        probes.run(model, some(2), tmp_path / "run", "depth", **runs.CHOSEN)
        assert probes.run(model, some(2), tmp_path / "run", "depth", **runs.CHOSEN).already_stored == 2
    ((point, edit),) = probes.open_run(tmp_path / "run")[some(1)[0][0]].edits
    assert (point, edit.version) == ("fusion.2", "1")


def test_a_run_without_parts_may_begin_anew_with_other_settings(tmp_path, monkeypatch):
    """After a DiskSpaceError, the user follows the advice and uses the same folder."""
    root = tmp_path / "run"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 99, 1000))
    with pytest.raises(DiskSpaceError, match=r"7 images.* has 1.00kB left.* yes=True") as caught:
        runs.capture(root, some(7))
    assert (caught.value.errno, caught.value.free) == (errno.ENOSPC, 1000)
    assert caught.value.needed > 1000
    assert runs.folders(root) == {}
    monkeypatch.undo()
    assert runs.capture(root, some(7), "depth", dtype=torch.float16).images == 6


def test_too_small_a_disk_is_tried_all_the_same_with_yes(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 99, 1000))
    assert runs.capture(tmp_path / "run", some(7), yes=True).images == 6


def test_a_changed_image_is_refused(photos, tmp_path):
    root = tmp_path / "run"
    runs.capture(root, photos)
    assert runs.capture(root, photos).already_stored == 4
    Image.new("RGB", (42, 42)).save(photos / "m1.png")
    said = unchanged(root, lambda: runs.capture(root, photos))
    assert f"1 images have changed since {root} captured them: m1.png" in said


def test_a_changed_image_is_refused_though_its_file_is_older(photos, tmp_path):
    """A file that is moved keeps its modification time."""
    Image.new("RGB", (42, 42)).save(tmp_path / "old.png")
    runs.capture(tmp_path / "run", photos)
    (tmp_path / "old.png").rename(photos / "m1.png")
    assert "m1.png" in unchanged(tmp_path / "run", lambda: runs.capture(tmp_path / "run", photos))


def test_a_touched_image_is_no_other(photos, tmp_path):
    runs.capture(tmp_path / "run", photos)
    (photos / "m1.png").touch()
    (photos / "m2.png").unlink()  # its captured values stay
    assert runs.capture(tmp_path / "run", photos).already_stored == 4


@pytest.mark.parametrize("content", ["notes.txt", "parts/mine.txt", MANIFEST])
def test_a_folder_that_is_no_run_is_refused_and_untouched(tmp_path, content):
    root = tmp_path / "mine"
    (root / content).parent.mkdir(parents=True)
    (root / content).write_text("mine")
    error = refused(root, lambda: runs.capture(root, some(2)), OutputFolderError)
    assert f"it holds {content.split('/')[0]}" in str(error)
    assert isinstance(error, FileExistsError)
    assert sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()) == [content]
    with pytest.raises(StoreError, match=r"is not a run \(it has no run.json\)"):
        probes.open_run(root)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(StoreError, match="is a file"):
        runs.capture(tmp_path / "run", some(2))
    assert (tmp_path / "run").read_text() == "mine"


def test_reading_what_is_not_there_makes_nothing(tmp_path):
    for use in (probes.open_run, Store.write):
        with pytest.raises(StoreError, match=r"is not a run \(the folder does not exist\)"):
            use(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_what_systems_leave_beside_the_parts_is_no_part(tmp_path):
    runs.capture(tmp_path / "run", some(2))
    (tmp_path / "run" / PARTS / ".DS_Store").write_bytes(b"\0")
    (tmp_path / "run" / PARTS / "lost+found").mkdir()
    assert len(probes.open_run(tmp_path / "run")) == 2


def test_a_run_of_another_format_is_refused(tmp_path):
    runs.capture(tmp_path / "run", some(2))
    path = tmp_path / "run" / SETTINGS
    settings = unseal(path.read_text())
    settings.pop("sha256", None)
    path.write_text(seal(settings | {"format": "dpt-workbench run 2"}))
    with pytest.raises(StoreError, match=r"'dpt-workbench run 2'.*'dpt-workbench run 1'"):
        probes.open_run(tmp_path / "run")


@pytest.mark.parametrize("name", ["../out", "a/../../out", "/tmp/out", "a//b", "c:\\out", "..", "a\0b", ""])
def test_names_that_lead_elsewhere_are_refused(tmp_path, name):
    with pytest.raises(SourceError, match="not a valid image name"):
        runs.capture(tmp_path / "run", [(name, some(1)[0][1])])
    assert list(tmp_path.iterdir()) == []


def test_odd_names_make_no_files_elsewhere(tmp_path):
    """Names are stored in records and never become paths."""
    runs.capture(tmp_path / "deep" / "run")
    assert {path.name for path in tmp_path.iterdir()} == {"deep"}
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {"run"}
    known = {"lock", "run.json", "manifest.jsonl", "failures.jsonl", "summary.json", "part.json", "zarr.json"}
    odd = [p.name for p in (tmp_path / "deep").rglob("*") if p.is_file() and p.name not in known and p.name[:2] != "c."]
    assert odd == []
    assert set(probes.open_run(tmp_path / "deep" / "run")) == {n for n, a in runs.pictures() if a.dtype == np.uint8}


@pytest.mark.parametrize("name", ["image", "picture", "../evil", "a/b", ".."])
def test_points_of_ones_own_that_cannot_be_folders_are_refused(tmp_path, name):
    model = tiny_model()
    module = model.encoder.blocks[0].mlp
    probes.registry.register(name, module)
    try:
        with pytest.raises(probes.ProbeError, match=f"{name!r} cannot be stored"):
            probes.run(model, some(2), tmp_path / "run", name, **runs.CHOSEN)
    finally:
        probes.registry.unregister(module)
    assert list(tmp_path.iterdir()) == []


# Interrupting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_finishes_the_part_and_says_how_to_go_on(forks, tmp_path, number):
    root = tmp_path / "run"
    child = forks.start("capture_slowly", root, count=24, seconds=0.05)
    child.wait_for(lambda: len(runs.folders(root)) > 1)
    child.kill(number)
    assert child.wait() == 0, child.output
    assert "Stopping after the current part" in child.output
    assert "Repeat the call or command to resume" in child.output
    run = probes.open_run(root)
    assert len(run) % 3 in (0, 2)  # complete parts; one image of the second failed
    assert 0 < len(run) < 23
    assert not list((root / PARTS).glob(".tmp-*"))
    assert runs.capture(root, list(runs.pictures(24))).already_stored == len(run)


def test_a_second_interrupt_stops_at_once_and_loses_the_part_in_hand_alone(forks, tmp_path):
    root = tmp_path / "run"
    child = forks.start("capture_slowly", root, seconds=0.3)
    child.wait_for(lambda: len(runs.folders(root)) > 0)
    child.kill(signal.SIGINT)
    child.wait_for(lambda: "Interrupt again to stop immediately" in child.output)
    child.kill(signal.SIGINT)
    assert child.wait() == 1
    assert "KeyboardInterrupt" in child.output
    there = runs.folders(root)
    assert there
    report = runs.capture(root, list(runs.pictures(9)))
    assert report.already_stored == len(probes.open_run(root)) - report.images > 0
    assert there.items() <= runs.folders(root).items()


# Records --------------------------------------------------------------------------------------------------------------


def test_a_sealed_line_is_told_from_any_that_differs_by_a_bit():
    line = seal({"picture": "ü\udcff\n", "n": [1, 2.5, None]})
    assert unseal(line)["picture"] == "ü\udcff\n"
    for at in range(len(line)):
        for bit in range(7):
            other = line[:at] + chr(ord(line[at]) ^ 1 << bit) + line[at + 1 :]
            with pytest.raises(ValueError, match="checksum"):
                unseal(other)


def test_numbers_of_parts_that_are_missing_are_given_first(tmp_path):
    with Store.write(tmp_path / "run", runs.SETTINGS) as store:
        for index in (0, 1, 3):
            store.commit(runs.part(index))
        numbers = store.indices()
        assert [next(numbers) for _ in range(4)] == [2, 4, 5, 6]
    name = part_id("f" * 64, 3, runs.part(3).names)
    assert manifest_line(tmp_path / "run", name).index == 3
