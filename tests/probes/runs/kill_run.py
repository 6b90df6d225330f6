"""Kills a run at random moments, checks what is on disk, resumes it, and repeats.

    python -m tests.probes.runs.kill_run --kills 500
    python -m tests.probes.runs.kill_run --kills 100 --broken "lists before renaming"

The moments are uniform over the duration of a run, from a seed. After each kill and before the next writer repairs
anything, a reader opens the run. Each visible part must have the bytes and values of an uninterrupted run, and no
earlier part may be missing. A finished run is compared file by file. The next run then starts in a new folder.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from probes.runs.lists import FAILURES, Manifest
from probes.runs.parts import PARTS
from probes.runs.store import SETTINGS, Store
from tests import runs
from tests.broken_writers import BROKEN
from tests.forks import Forks
from tests.runs import Reference


@dataclass
class Tally:
    kills: int = 0
    finished: int = 0  # runs that finished and were compared
    committed: int = 0  # kills after the first commit
    faults: list[str] = field(default_factory=list)
    moments: Counter[str] = field(default_factory=Counter)  # where the kills hit
    seconds: float = 0.0  # duration of an uninterrupted run


def kill_and_resume(
    forks: Forks,
    reference: Reference,
    folder: Path,
    kills: int,
    seed: int,
    broken: str | None = None,
    until_fault: bool = False,
) -> Tally:
    """Kills runs that write to folder. until_fault stops at the first fault; broken names a broken implementation."""
    tally = Tally()
    chance = random.Random(seed)
    tally.seconds = min(_whole_run(forks, reference, folder / f"whole-{i}", tally, broken) for i in range(2))
    root, parts, known = folder / "run-0", set[str](), set[str]()
    while tally.kills < kills and not (until_fault and tally.faults):
        child = forks.start("capture", root, broken=broken)
        time.sleep(chance.uniform(0, tally.seconds))
        child.kill()
        code = child.wait()
        if code != -9 and code != 0:
            tally.faults.append(f"kill {tally.kills}: it does not resume: {child.output.strip().splitlines()[-1]}")
            root, parts, known = folder / f"run-{tally.kills}", set(), set()
            tally.kills += 1
            continue
        found = reference.faults(root, parts)
        if not found and (root / SETTINGS).exists():
            found = reference.unread(root, known)
        if code == 0:
            found += [f"{name} differs at the end" for name in reference.differences(root)]
            tally.finished += 1
        else:
            tally.kills += 1
            parts = set(runs.folders(root))
            tally.committed += bool(parts)
            tally.moments[moment(root)] += 1
        tally.faults += [f"kill {tally.kills}: {fault}" for fault in found]
        if code == 0 or found:
            shutil.rmtree(root)
            root, parts, known = folder / f"run-{tally.kills}", set(), set()
    if not tally.faults:
        _whole_run(forks, reference, root, tally, broken)
    return tally


def _whole_run(forks: Forks, reference: Reference, root: Path, tally: Tally, broken: str | None) -> float:
    """Runs to the end and returns the seconds."""
    began = time.monotonic()
    child = forks.run("capture", root, broken=broken)
    seconds = time.monotonic() - began
    if child.wait() != 0:
        tally.faults.append(f"it does not finish: {child.output}")
    tally.faults += [f"{name} differs after a whole run" for name in reference.differences(root)]
    tally.finished += 1
    shutil.rmtree(root)
    return seconds


def moment(root: Path) -> str:
    """Where a kill hit, according to the files it left."""
    if not (root / SETTINGS).exists():
        return "before run.json was written"
    manifest = Manifest.read(root)
    there = set(runs.folders(root))
    if manifest.torn:
        return "within a line of the manifest"
    if there - manifest.lines.keys():
        return "after a part's rename, before its line"
    if any((root / PARTS).glob(".tmp-*")):
        return "while a part was written"
    if any(root.glob(".tmp-*")):
        return "while a list was replaced"
    listed = (root / FAILURES).read_text() if (root / FAILURES).exists() else ""
    if listed != Store.read(root)._failure_lines():
        return "after a part's line, before its failures"
    return "while nothing was written"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--broken", choices=BROKEN, help="use a broken implementation, which must be caught")
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name, Forks() as forks:
        folder = Path(name)
        forks.run("capture", folder / "reference")
        reference = Reference.of(folder / "reference")
        tally = kill_and_resume(forks, reference, folder, given.kills, given.seed, given.broken)
    print(
        f"{tally.kills} kills, uniform over the {tally.seconds:.2f} s of a run; seed {given.seed}; "
        f"writer: {given.broken}"
    )
    for what, count in tally.moments.most_common():
        print(f"  {count:5d}  {what}")
    print(f"  {tally.committed:5d}  of them after a commit: no part may be lost or changed")
    print(f"  {tally.finished:5d}  finished runs, compared with an uninterrupted one, file by file")
    print(f"  {len(tally.faults):5d}  faults; {time.monotonic() - began:.0f} s in all")
    for fault in tally.faults[:20]:
        print(f"         {fault}")
    sys.exit(bool(tally.faults))


if __name__ == "__main__":
    main()
