"""One writer at a time where locks do not hold: live writers keep the run, dead ones do not, and two do no harm."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from probes.runs import lease, store
from probes.runs.disk import append_line, seal
from probes.runs.errors import RunLockedError, StoreError
from probes.runs.lease import LEASE, _Holder, acquire, is_dead, this_writer
from probes.runs.lists import MANIFEST, SUMMARY
from probes.runs.parts import PARTS, write_part
from probes.runs.records import to_json
from probes.runs.store import Store
from probes.runs.verify import verify
from tests import runs

ELSEWHERE = "0123abcd-4711-99"  # a process of another machine


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "STALE", 0.6)
    monkeypatch.setattr(lease, "BEAT", 0.05)
    monkeypatch.setattr(lease, "PAUSE", 0.02)
    monkeypatch.setattr(lease, "SETTLE", 0.02)


@pytest.fixture(params=["ENOSYS", "EOPNOTSUPP", "ENOLCK", "alone"])
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A share without locks, or with locks that other machines do not see."""
    fcntl = pytest.importorskip("fcntl")

    def flock(descriptor: int, operation: int) -> None:
        if request.param != "alone":
            raise OSError(getattr(errno, request.param), "not supported")

    monkeypatch.setattr(fcntl, "flock", flock)


def leave_lease(root: Path, writer: str, host: str = "other-host", locked: bool = True, beat: int = 7) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / LEASE).write_bytes(_Holder(writer, host, "f" * 16, locked).content(beat))


@pytest.fixture
def dead() -> str:
    """A process of this machine that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return f"{this_writer().split('-')[0]}-{process.pid}-1"


class Beating(threading.Thread):
    """A writer on another machine: its counter grows."""

    def __init__(self, root: Path):
        super().__init__(daemon=True)
        self.root, self.ended = root, threading.Event()
        leave_lease(root, ELSEWHERE)

    def __enter__(self) -> Beating:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.join()

    def run(self) -> None:
        beat = 8
        while not self.ended.wait(0.05):
            with open(self.root / LEASE, "r+b") as file:
                file.write(f"{beat:012d}".encode())
            beat += 1


def test_a_lease_exists_while_a_writer_is_at_work_and_beats(tmp_path):
    with Store.write(tmp_path / "run", runs.SETTINGS):
        first = (tmp_path / "run" / LEASE).read_bytes()
        deadline = time.monotonic() + 20
        while (tmp_path / "run" / LEASE).read_bytes() == first:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert not (tmp_path / "run" / LEASE).exists()
    assert not [thread for thread in threading.enumerate() if thread.name == "lease of a run" and not thread.daemon]


@pytest.mark.usefixtures("no_locks")
def test_a_writer_on_another_machine_that_is_at_work_is_not_disturbed(tmp_path):
    root = tmp_path / "run"
    with Beating(root), pytest.raises(RunLockedError, match=r"process 4711 on other-host.*--take-over"):
        Store.write(root, runs.SETTINGS)
    assert not (root / PARTS).exists()


@pytest.mark.usefixtures("no_locks")
def test_a_writer_that_ends_meanwhile_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "STALE", 30)
    root = tmp_path / "run"
    with Beating(root) as other:
        ending = threading.Timer(0.3, lambda: (other.ended.set(), other.join(), os.unlink(root / LEASE)))
        ending.start()
        began = time.monotonic()
        with Store.write(root, runs.SETTINGS):
            assert time.monotonic() - began < 20
        ending.join()


@pytest.mark.usefixtures("no_locks")
def test_a_killed_writer_on_another_machine_is_followed_after_a_while(tmp_path):
    """It was refused for ever."""
    root = tmp_path / "run"
    leave_lease(root, ELSEWHERE)
    began = time.monotonic()
    with Store.write(root, runs.SETTINGS) as opened:
        assert time.monotonic() - began >= 0.6
        opened.commit(runs.part(0))
    assert not (root / LEASE).exists()


@pytest.mark.usefixtures("no_locks")
def test_a_killed_writer_on_this_machine_is_followed_at_once(tmp_path, dead, monkeypatch):
    monkeypatch.setattr(lease, "STALE", 60)
    leave_lease(tmp_path / "run", dead)
    began = time.monotonic()
    with Store.write(tmp_path / "run", runs.SETTINGS):
        assert time.monotonic() - began < 20


def test_a_lease_of_a_live_process_that_gave_up_the_lock_is_taken_at_once(tmp_path, monkeypatch):
    """Its number may belong to another program by now."""
    monkeypatch.setattr(lease, "STALE", 60)
    leave_lease(tmp_path / "run", f"{this_writer().split('-')[0]}-{os.getppid()}-0")
    with Store.write(tmp_path / "run", runs.SETTINGS):
        pass


@pytest.mark.parametrize("content", [b"", b"\0" * 300, b"{", b"000000000000 []", b"000000000000 {}", b"[" * 4000])
def test_a_lease_that_cannot_be_read_counts_by_whether_it_changes(tmp_path, content):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LEASE).write_bytes(content)
    with Store.write(tmp_path / "run", runs.SETTINGS):
        pass


def test_the_name_of_the_other_machine_cannot_control_the_terminal(tmp_path):
    assert "\x1b" not in str(_Holder(ELSEWHERE, "a\x1b[2J\n", "f" * 16, True))


@pytest.mark.usefixtures("no_locks")
def test_who_is_taken_over_stops_before_the_next_commit(tmp_path):
    root = tmp_path / "run"
    with Store.write(root, runs.SETTINGS) as first:
        first.commit(runs.part(0))
        with Store.write(root, take_over=True) as second:
            with pytest.raises(RunLockedError, match="taken over"):
                first.commit(runs.part(1))
            with pytest.raises(RunLockedError, match="taken over"):
                first.adopt(write_part(root, "f" * 64, runs.part(2)))
            second.commit(runs.part(1))
    assert verify(root, progress=False).damage == []
    with Store.write(root) as opened:
        assert [line.index for line in opened.lines.values()] == [0, 1, 2]


def test_take_over_also_where_the_lock_is_held_for_ever(tmp_path):
    """As on a share that remembers the lock of a machine that is gone."""
    root = tmp_path / "run"
    with Store.write(root, runs.SETTINGS) as first:
        with pytest.raises(RunLockedError):
            Store.write(root)
        with Store.write(root, take_over=True):
            pass
        with pytest.raises(RunLockedError):
            first.commit(runs.part(0))


def test_two_that_take_over_at_once_do_not_both_get_the_run(tmp_path):
    root = tmp_path / "run"
    leave_lease(root, ELSEWHERE)
    holder = _Holder(this_writer(), "here", "0" * 16, False)
    replace = os.replace

    def late(source: Path, target: Path) -> None:
        replace(source, target)
        leave_lease(root, "89abcdef-1-1", "third")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", late)
        assert lease._taken(root, holder, None, settle=True) is None
    assert b"third" in (root / LEASE).read_bytes()


def test_whether_a_writer_is_dead_is_said_of_this_machine_only(dead):
    machine, pid, started = this_writer().split("-")
    assert is_dead(dead)
    assert not is_dead(this_writer())
    assert not is_dead(ELSEWHERE)
    assert not is_dead(f"{machine}-{pid}-0")
    if Path("/proc/self/stat").exists():
        assert is_dead(f"{machine}-{pid}-{int(started) + 1}")  # the number was given to another process


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="zombies are told by /proc")
def test_a_process_that_nobody_has_waited_for_is_dead():
    process = subprocess.Popen([sys.executable, "-c", ""])
    writer = f"{this_writer().split('-')[0]}-{process.pid}-0"
    deadline = time.monotonic() + 30
    while not is_dead(writer):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.wait()


# Two writers at once --------------------------------------------------------------------------------------------------


class NoLease:
    def check(self) -> None:
        pass

    def release(self) -> None:
        pass


@pytest.fixture
def hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither writer sees the other."""
    monkeypatch.setattr(store, "_locked", lambda root: (root.mkdir(parents=True, exist_ok=True), NoLease())[1])


def alone(root: Path, count: int = 4) -> dict[str, bytes]:
    with Store.write(root, runs.SETTINGS) as opened:
        for index in range(count):
            opened.commit(runs.part(index))
    return runs.files(root)


@pytest.mark.usefixtures("hidden")
@pytest.mark.parametrize("order", ["ABABABAB", "AABBAABB", "ABBBBAAA", "BAAAABBB", "AAAABBBB"])
def test_two_writers_that_do_not_see_each_other_end_with_the_bytes_of_one(tmp_path, order):
    wanted = alone(tmp_path / "alone")
    root = tmp_path / "run"
    writers = {"A": Store.write(root, runs.SETTINGS), "B": Store.write(root, runs.SETTINGS)}
    done = {"A": 0, "B": 0}
    for name in order:
        writers[name].commit(runs.part(done[name]))
        done[name] += 1
    for writer in writers.values():
        writer.close()
    assert verify(root, progress=False).damage == []
    assert runs.files(root) == wanted


@pytest.mark.usefixtures("hidden")
def test_a_line_that_comes_twice_is_mended_by_the_last_to_end(tmp_path):
    wanted = alone(tmp_path / "alone", 2)
    root = tmp_path / "run"
    with Store.write(root, runs.SETTINGS) as opened:
        opened.commit(runs.part(0))
        append_line(root / MANIFEST, seal(to_json(next(iter(opened.lines.values())))))
        assert verify(root, progress=False).damage
        opened.commit(runs.part(1))
    assert runs.files(root) == wanted
    assert (root / SUMMARY).exists()


@pytest.fixture
def other() -> Iterator[str]:
    """Another process of this machine that is at work."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield f"{this_writer().split('-')[0]}-{process.pid}-{lease._started(process.pid) or 0}"
    process.communicate(b"\n")


def test_a_live_writer_of_this_machine_keeps_its_unfinished_part(tmp_path, other, dead):
    root = tmp_path / "run"
    alone(root, 1)
    for writer in (other, dead, ELSEWHERE, this_writer()):
        (root / PARTS / f".tmp-000001-0123456789ab-{writer}-01234567" / "3x4").mkdir(parents=True)
        (root / f".tmp-{writer}-01234567-{MANIFEST}").write_text("{")
    with Store.write(root):
        left = sorted(path.name for path in (*root.iterdir(), *(root / PARTS).iterdir()) if path.name[:5] == ".tmp-")
    assert left == sorted([f".tmp-000001-0123456789ab-{other}-01234567", f".tmp-{other}-01234567-{MANIFEST}"])


def test_the_lock_is_released_if_the_run_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").touch()
    for _ in range(2):
        with pytest.raises(StoreError, match="holds mine"):
            Store.write(tmp_path / "run", runs.SETTINGS)
    held = acquire(tmp_path / "other")
    held.release()
    held.release()
    acquire(tmp_path / "other").release()
