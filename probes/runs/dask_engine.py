"""Runs a capture on a Dask cluster. Workers compute and write the parts; the calling process lists them.

    from distributed import Client, LocalCluster
    probes.run(model, "photos/", "run/", "norms", engine=Client(LocalCluster(n_workers=2, threads_per_worker=1)))

The model travels to each worker once, as a plugin, also to workers that join later. A task is one part: its index and
its images. The store makes this safe: Dask computes a part twice if it believes a worker lost, and the part is written
once. At most `WINDOW` parts per worker are submitted at a time, so a million images do not become a million tasks.

Workers must reach the images and the run's folder under the same paths, and need this package. A model on a GPU here
goes to a GPU there. Images given as arrays travel with their task.
"""

from __future__ import annotations

import itertools
import secrets
import threading
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distributed import Client, WorkerPlugin, as_completed, get_worker

from ..edit import active as active_edits
from ..errors import InvalidTypeError, InvalidValueError, UnavailableError
from ..interpreter import python_program
from .decoding import Decoders
from .errors import EngineError, StoreError
from .job import Job, Report, Work, interruptible
from .parts import part_id, write_part
from .records import Failure, ManifestLine
from .sources import Item

PATIENCE = 20.0  # seconds to wait for a scheduler
WINDOW = 2  # submitted parts per worker: one computing, one waiting


@dataclass
class Outcome:
    """What a worker made of a part.

    Attributes:
        line: Of the manifest; None if nothing of the part is stored.
        captured, failed: Numbers of images.
        left_out: The images that failed by trouble of the machine.
        notes: What the pixels of images do not show.
        hopeless: Whether files cannot be read in time.
    """

    line: ManifestLine | None
    captured: int
    failed: int
    left_out: list[Failure]
    notes: list[Failure]
    hopeless: bool


def connected(address: str) -> Client:
    """A client of a scheduler.

    Args:
        address: E.g. "tcp://host:8786".

    Raises:
        UnavailableError: No scheduler answers.
    """
    try:
        return Client(address, timeout=PATIENCE)
    except (OSError, ValueError) as error:
        raise UnavailableError(
            f"no Dask scheduler at {address!r} ({error}). Expected an address such as tcp://host:8786"
        ) from error


class Task:
    """What all parts of a run share. Travels to each worker once; each of its threads has its own decoders."""

    def __init__(self, job: Job, root: Path, fingerprint: str):
        self.job, self.root, self.fingerprint = job, root, fingerprint
        self._local = threading.local()
        self._check = threading.Lock()
        self._decoders: list[Decoders] = []

    def __reduce__(self) -> tuple[object, ...]:
        # The state of the model holds in one process. A worker compares the weights that it received.
        return Task, (replace(self.job, state=None), self.root, self.fingerprint)

    def compute(self, index: int, items: list[Item]) -> Outcome:
        """Computes and writes one part."""
        if not hasattr(self._local, "decoders"):
            self._local.decoders = self.job.decoders()
            self._decoders.append(self._local.decoders)
            self._local.job = replace(self.job)  # counts the trouble of one thread
        with self._check:
            self.job.check_model()
        job = self._local.job
        job.state = self.job.state
        part = job.part(index, self._local.decoders.decode(items))
        line = write_part(self.root, self.fingerprint, part) if part.names else None
        return Outcome(line, len(part.images), len(part.failures), part.left_out, part.notes, job.hopeless)

    def close(self) -> None:
        """Ends the decoding processes."""
        for decoders in self._decoders:
            decoders.close()


class CapturePlugin(WorkerPlugin):
    """Holds the task with its model on a worker."""

    def __init__(self, task: Task):
        self.task = task

    def teardown(self, worker: object) -> None:
        self.task.close()


def plugin_name(fingerprint: str) -> str:
    """Name of the plugin for a run."""
    return f"dpt-workbench-{fingerprint[:16]}"


def run_on(client: object, job: Job, work: Work) -> Report:
    """`probes.run` on the workers of a `distributed.Client`.

    Raises:
        InvalidTypeError: `client` is not a Client.
        InvalidValueError: Edits are active, or points of the user are selected; neither can travel.
        EngineError: The cluster failed. Committed parts are intact.
    """
    if not isinstance(client, Client):
        raise InvalidTypeError(f'engine must be "local" or a distributed.Client, got {type(client).__name__}')
    if active_edits(job.recorder.model):
        raise InvalidValueError("edits do not travel to Dask workers. Inside probes.edit, use engine='local'")
    if any(point.point.group == "own" for point in job.recorder.wanted):
        raise InvalidValueError("registered points do not travel to Dask workers. Use engine='local'")
    store, size = work.store, work.store.settings.part
    # By default a worker would use half of the processors for decoding, and a machine can run several workers.
    # A worker sees few parts, so it cannot tell whether the values of all images are not finite.
    few = 0 if python_program() is None else 1
    job = replace(job, workers=few if job.workers is None else job.workers, proven=True)
    task = Task(job, store.root.resolve(), store.fingerprint)
    name = plugin_name(store.fingerprint)
    call = secrets.token_hex(4)  # a task of an earlier call that failed would give its error again
    numbered = zip(store.indices(), iter(lambda: list(itertools.islice(work.items, size)), []), strict=False)
    try:
        client.register_plugin(CapturePlugin(task), name=name)
        with interruptible(work):
            waiting = as_completed(with_results=True)
            submitted = 0
            while True:
                room = max(1, len(client.nthreads())) * WINDOW - submitted
                for index, items in [] if work.stop.is_set() else itertools.islice(numbered, max(0, room)):
                    key = part_id(store.fingerprint, index, [item.name for item in items])
                    waiting.add(client.submit(_compute, name, index, items, key=f"capture-{key}-{call}", pure=False))
                    submitted += 1
                if not submitted:
                    break
                _, outcome = next(waiting)
                # as_completed() returns the exception of a cancelled future: alone, or as (type, error, traceback).
                if isinstance(outcome, CancelledError):
                    raise outcome
                if not isinstance(outcome, Outcome):
                    raise outcome[1]
                submitted -= 1
                if outcome.line is not None:
                    store.adopt(outcome.line)
                work.advance(outcome.captured, outcome.failed + len(outcome.left_out))
                work.note(outcome.left_out, outcome.notes)
                if outcome.hopeless:
                    work.end_for_trouble()
            work.report.interrupted = work.stop.is_set()
            store.tidy()
    except (StoreError, KeyboardInterrupt):
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise EngineError(
            f"the Dask cluster failed ({reason}). Committed parts in {store.root} are intact; repeat the call to resume"
        ) from error
    finally:
        report = work.close()
    return report


def _compute(plugin: str, index: int, items: list[Item]) -> Outcome:
    holder: Any = get_worker().plugins[plugin]
    outcome: Outcome = holder.task.compute(index, items)
    return outcome
