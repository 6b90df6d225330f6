"""Kills a run at random moments and lets it go on, again and again, and looks at what is there each time.

    python -m tests.probes.kill_run --kills 500
    python -m tests.probes.kill_run --kills 100 --broken "lists before renaming"

The moments are even over the time that a run takes, from a seed. After each kill, before anybody mends anything, a
reader opens the run: every part that is visible must be byte for byte that of a run which was left alone, its numbers
too, and none that was there before may be missing. A run that has come to its end is compared file by file, and the
next one begins in a new folder.
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

from probes.runs.parts import PARTS
from probes.runs.store import FAILURES, SETTINGS, Manifest, Store
from tests import runs
from tests.broken_writers import BROKEN
from tests.forks import Forks
from tests.runs import Reference


@dataclass
class Tally:
    kills: int = 0
    finished: int = 0  # runs that came to their end, and were compared
    committed: int = 0  # kills when parts were there
    faults: list[str] = field(default_factory=list)
    moments: Counter[str] = field(default_factory=Counter)  # where kills have hit
    seconds: float = 0.0  # that a run takes when nobody kills it


def kill_and_resume(
    forks: Forks,
    reference: Reference,
    folder: Path,
    kills: int,
    seed: int,
    broken: str | None = None,
    until_fault: bool = False,
) -> Tally:
    """Kills runs that write to folder. broken: a writer of `tests.broken_writers`. until_fault: stop at the first."""
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
            tally.faults.append(f"kill {tally.kills}: it does not go on: {child.said.strip().splitlines()[-1]}")
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
    """The seconds that a run takes which comes to its end, from wherever it is."""
    began = time.monotonic()
    child = forks.run("capture", root, broken=broken)
    seconds = time.monotonic() - began
    if child.wait() != 0:
        tally.faults.append(f"it does not come to its end: {child.said}")
    tally.faults += [f"{name} differs after a whole run" for name in reference.differences(root)]
    tally.finished += 1
    shutil.rmtree(root)
    return seconds


def moment(root: Path) -> str:
    """Where a kill has hit, by what it has left."""
    if not (root / SETTINGS).exists():
        return "before run.json was there"
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
    parser.add_argument("--broken", choices=BROKEN, help="put a wrong writer in place, to see it caught")
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name, Forks() as forks:
        folder = Path(name)
        forks.run("capture", folder / "reference")
        reference = Reference.of(folder / "reference")
        tally = kill_and_resume(forks, reference, folder, given.kills, given.seed, given.broken)
    print(
        f"{tally.kills} kills, even over the {tally.seconds:.2f} s of a run; seed {given.seed}; writer: {given.broken}"
    )
    for what, count in tally.moments.most_common():
        print(f"  {count:5d}  {what}")
    print(f"  {tally.committed:5d}  of them with parts on the disk: none may be lost or changed")
    print(f"  {tally.finished:5d}  runs at their end, compared with one left alone, file by file")
    print(f"  {len(tally.faults):5d}  faults; {time.monotonic() - began:.0f} s in all")
    for fault in tally.faults[:20]:
        print(f"         {fault}")
    sys.exit(bool(tally.faults))


if __name__ == "__main__":
    main()
