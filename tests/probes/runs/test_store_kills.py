"""A run that is killed at random moments and at every call loses no part and shows no incomplete part."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import probes
from probes.runs.store import SETTINGS
from tests import broken_writers, runs
from tests.faulty import Fault, disk, sleeping
from tests.forks import Forks
from tests.probes.runs import kill_run
from tests.runs import Reference

KILLS = 25


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks() as forks:
        yield forks


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    root = tmp_path_factory.mktemp("reference") / "run"
    report = runs.capture(root)
    assert (report.images, report.failed, len(list((root / "parts").iterdir()))) == (13, 1, 5)
    return Reference.of(root)


# At random moments ----------------------------------------------------------------------------------------------------


def test_killed_at_random_moments_it_resumes_to_the_same_bytes(forks, reference, tmp_path):
    tally = kill_run.kill_and_resume(forks, reference, tmp_path, kills=KILLS, seed=1)
    assert tally.faults == []
    assert tally.kills == KILLS
    assert tally.finished >= 2  # finished runs, each compared byte by byte
    assert tally.committed > 0  # kills after a commit


def test_random_kills_catch_a_writer_that_writes_straight_into_the_final_folder(forks, reference, tmp_path):
    writer = "writes straight into the final folder"
    tally = kill_run.kill_and_resume(forks, reference, tmp_path, kills=40, seed=2, broken=writer, until_fault=True)
    assert tally.faults


def test_a_reader_beside_a_writer_sees_whole_parts_and_ever_more_of_them(forks, reference, tmp_path):
    root = tmp_path / "run"
    child = forks.start("capture_slowly", root, count=14, seconds=0.02)
    child.wait_for((root / SETTINGS).exists)
    counts = [0]
    known: set[str] = set()
    while counts[-1] < 13:
        assert reference.unread(root, known) == []
        counts.append(len(probes.open_run(root)))
    assert child.wait() == 0, child.output
    assert counts == sorted(counts)
    assert len(set(counts)) > 2
    assert reference.differences(root) == []


# At every call --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> tuple[Reference, list]:
    """The files of a session of two commits, and its calls."""
    root = tmp_path_factory.mktemp("steps") / "run"
    runs.encode()
    with disk(root) as calls:
        runs.session(root)
    assert {call.name for call in calls} >= {"open", "write", "fsync", "close", "mkdir", "rename", "replace"}
    return Reference.of(root, read=False), calls


def kill_at(
    forks: Forks, reference: Reference, root: Path, fault: Fault, broken: str | None = None
) -> list[str] | None:
    """The faults after a kill at one call and after resuming; None if the session has fewer calls."""
    child = forks.start("session", root, fault=fault, broken=broken)
    if child.wait() != -9:
        assert child.wait() == 0, child.output
        return None
    before = set(runs.folders(root))
    found = reference.faults(root)
    try:
        with broken_writers.broken(broken), disk(root, fsync=sleeping):
            runs.session(root)
    except OSError as error:
        return [*found, f"it does not resume: {error}"]
    return found + reference.faults(root, before) + reference.differences(root)


def test_killed_between_any_two_calls_of_a_commit_and_within_writes(forks, steps, tmp_path):
    """A kill before a call equals a kill after the previous call: the disk is the same."""
    reference, calls = steps
    faults = {}
    for number, call in enumerate(calls):
        moments = ["before"] + ["within"] * (call.name == "write") + ["after"] * (number == len(calls) - 1)
        for how in moments:
            found = kill_at(forks, reference, tmp_path / f"{number}-{how}", Fault(number, how))
            if found != []:
                faults[how, str(call)] = found
    assert faults == {}


@pytest.mark.parametrize(
    "writer", ["writes straight into the final folder", "lists before renaming", "never mends", "never sweeps"]
)
def test_kills_at_every_call_catch_a_writer_that(forks, steps, tmp_path, writer):
    reference, _ = steps
    number = 0
    while (found := kill_at(forks, reference, tmp_path / str(number), Fault(number, "within"), writer)) == []:
        number += 1
    assert found, f"not caught in {number} kills"
