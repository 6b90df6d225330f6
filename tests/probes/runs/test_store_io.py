"""A disk that refuses, fills up or writes incompletely: one clear error, no incomplete part, and the call resumes."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from dpt import writing
from probes.runs import parts
from probes.runs.errors import StoreError
from tests import runs
from tests.broken_writers import broken
from tests.faulty import Call, Fault, disk, sleeping, unsynced
from tests.forks import ROOT
from tests.runs import Reference

CODES = (errno.ENOSPC, errno.EIO, errno.EACCES)


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> tuple[Reference, list[Call]]:
    """The files of a session of two commits, and its calls."""
    root = tmp_path_factory.mktemp("steps") / "run"
    runs.encode()
    with disk(root) as calls:
        runs.session(root)
    return Reference.of(root, read=False), calls


def fail_at(reference: Reference, root: Path, fault: Fault, writer: str | None = None) -> list[str]:
    """The faults after a call of a session fails, and after the session is repeated on a working disk."""
    found = []
    with broken(writer):
        try:
            with disk(root, fault, sleeping) as calls:
                runs.session(root)
            if reference.differences(root):
                found.append("the error was not raised")
        except StoreError as error:
            if os.strerror(fault.code) not in str(error) or str(root) not in str(error):
                found.append(f"the message names neither cause nor place: {error}")
        except OSError as error:
            found.append(f"not an error of the store: {error!r}")
        assert len(calls) > fault.at
        before = set(runs.folders(root))
        if root.exists():
            found += reference.faults(root)
        try:
            with disk(root, fsync=sleeping):
                runs.session(root)
        except OSError as error:
            return [*found, f"it does not resume: {error}"]
    return found + reference.faults(root, before) + reference.differences(root)


@pytest.mark.parametrize(("how", "code"), [*(("error", code) for code in CODES), ("from here", errno.EIO)])
def test_every_call_of_a_commit_fails_in_turn(steps, tmp_path, how, code):
    """Each call fails once, or it and all later ones fail, so cleaning up fails as well."""
    reference, calls = steps
    faults = {}
    for number, call in enumerate(calls):
        if found := fail_at(reference, tmp_path / str(number), Fault(number, how, code)):
            faults[number, str(call)] = found
    assert faults == {}


@pytest.mark.parametrize("writer", ["ignores errors", "writes straight into the final folder"])
def test_failing_calls_catch_a_writer_that(steps, tmp_path, writer):
    reference, calls = steps
    faults = []
    for number in range(len(calls)):
        try:
            faults += fail_at(reference, tmp_path / str(number), Fault(number, "error", errno.ENOSPC), writer)
        except AssertionError:  # it makes fewer calls
            break
    assert faults


def test_writes_that_take_less_than_they_were_given(steps, tmp_path):
    reference, calls = steps
    for number, call in enumerate(calls):
        if call.name == "write":
            with disk(tmp_path / str(number), Fault(number, "short"), sleeping) as made:
                runs.session(tmp_path / str(number))
            assert len(made) > len(calls)  # it wrote the rest
            assert reference.differences(tmp_path / str(number)) == []


def write_once(path: Path, data: bytes) -> None:
    descriptor = writing._create(path)
    os.write(descriptor, data)
    os.close(descriptor)


def test_short_writes_catch_a_writer_that_looks_at_no_count(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "create_file", write_once)
    with disk(tmp_path / "control", fsync=sleeping) as calls:
        runs.session(tmp_path / "control")
    number = next(n for n, call in enumerate(calls) if call.name == "write" and call.path.endswith("part.json"))
    with pytest.raises(StoreError, match="damaged"), disk(tmp_path / "run", Fault(number, "short"), sleeping):
        runs.session(tmp_path / "run")


# Power cuts -----------------------------------------------------------------------------------------------------------


def test_everything_is_on_the_disk_before_it_is_named(steps):
    _, calls = steps
    assert [call for call in calls if call.name == "fsync"]
    assert unsynced(calls) == []


@pytest.mark.parametrize(
    ("writer", "what"),
    [
        ("does not sync files", "c.0.0.0 is not on the disk when"),
        ("does not sync folders", "3x4 is not on the disk when"),
        ("does not sync the folder of parts", "parts is not on the disk when manifest.jsonl names it"),
        ("writes straight into the final folder", "is not on the disk when manifest.jsonl names it"),
    ],
)
def test_the_order_of_calls_catches_a_writer_that(tmp_path, writer, what):
    with broken(writer), disk(tmp_path / "run") as calls:
        runs.session(tmp_path / "run")
    assert any(what in fault for fault in unsynced(calls)), unsynced(calls)


# A full disk ----------------------------------------------------------------------------------------------------------

FULL = """
import errno, json, sys
from pathlib import Path
from tests import runs
from probes.runs.errors import StoreError
from tests.runs import Reference

reference, disk = Reference.of(runs_root := Path(sys.argv[1])), Path(sys.argv[2])
root, ballast = disk / "run", disk / "ballast"
said, counts = [], []
ballast.write_bytes(bytes(int(sys.argv[3])))
while True:
    try:
        runs.capture(root, yes=True)
        break
    except StoreError as error:
        assert error.errno == errno.ENOSPC, error
        said.append(str(error))
    assert reference.faults(root) == [], reference.faults(root)
    if (root / "run.json").exists():
        assert reference.unread(root, set()) == []
    counts.append(len(runs.folders(root)))
    with ballast.open("r+b") as file:
        size = ballast.stat().st_size
        assert size, said
        file.truncate(max(0, size - 150_000))
assert reference.differences(root) == []
print(json.dumps([said, counts]))
"""
SIZE = 1_200_000  # bytes of the disk


def on_a_small_disk(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Runs a command with a small disk mounted at a folder, in a namespace that unmounts it at the end."""
    script = f'mount -t tmpfs -o size={SIZE} tmpfs "$0" || exit 77; exec "$@"'
    user = [] if os.getuid() == 0 else ["--user", "--map-root-user"]
    given = ["unshare", "--mount", *user, "sh", "-c", script, str(folder), *command]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(given, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    """A folder for `on_a_small_disk`. Skips if the system does not permit mounting."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("unshare") is None:
        pytest.skip("no unshare on PATH (util-linux): a small disk is mounted in a namespace")
    done = on_a_small_disk(folder, "df", "--output=size", "--block-size=1", str(folder))
    if done.returncode:
        assert any(word in done.stderr.lower() for word in ("permi", "denied", "not allowed", "operation")), done.stderr
        pytest.skip(f"this system does not let a test mount a disk: {done.stderr.strip()}")
    assert abs(int(done.stdout.split()[-1]) - SIZE) < 10_000
    return folder


def test_a_disk_that_is_really_full(small_disk, tmp_path):
    """The disk starts full. After each failure, some space is freed."""
    import json

    runs.capture(tmp_path / "reference")
    given = [sys.executable, "-c", FULL, str(tmp_path / "reference"), str(small_disk), str(SIZE - 8192)]
    done = on_a_small_disk(small_disk, *given)
    assert done.returncode == 0, done.stderr
    said, counts = json.loads(done.stdout)
    assert len(said) > 3
    assert all("No space left on device" in text and str(small_disk / "run") in text for text in said)
    assert counts == sorted(counts)
    assert len(set(counts)) > 2  # it failed before the first part and later, and resumed each time


def test_a_program_that_fails_on_a_small_disk_is_not_skipped(small_disk):
    """The test above fails if its program fails."""
    done = on_a_small_disk(small_disk, sys.executable, "-c", "raise AssertionError('lost')")
    assert done.returncode == 1
    assert "lost" in done.stderr


def test_a_file_system_without_fsync_for_folders_is_no_obstacle(tmp_path, monkeypatch):
    fsync = os.fsync

    def refuses_folders(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(writing.os, "fsync", refuses_folders)
    writing.sync_folder(tmp_path)
    monkeypatch.setattr(writing.os, "fsync", raiser(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        writing.sync_folder(tmp_path)


def raiser(code: int):
    def fails(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    return fails
