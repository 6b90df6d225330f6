"""The same run on a Dask cluster: its workers compute and write parts, this process lists them.

    from distributed import Client, LocalCluster
    probes.run(model, "photos/", "run/", "norms", engine=Client(LocalCluster(n_workers=2, threads_per_worker=1)))

The model travels to each worker once, as a plugin, and to workers that come later; a task is a part: its number and its
pictures. What is safe about a run is so by its store: a part that two workers compute, as Dask does when it believes a
worker lost, is written once. At any time only `WINDOW` parts a worker are under way, so that a million pictures do not
become a million tasks.

Workers must reach the pictures and the run's folder under the same paths, and have this package installed. A
model that is on a GPU here goes to a GPU there. Arrays given as pictures travel with their task.
"""

from __future__ import annotations

import errno
import itertools
import threading
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path
from typing import Any

from distributed import Client, WorkerPlugin, as_completed, get_worker

from ..edit import active as active_edits
from ..errors import InvalidTypeError, InvalidValueError
from .decoding import Decoders
from .disk import StoreError
from .parts import part_id, write_part
from .run import Job, Report, Work, interruptible
from .sources import Item

PATIENCE = 20.0  # seconds to wait for a scheduler
WINDOW = 2  # parts under way for each worker: one computed, one waiting


def connected(address: str) -> Client:
    """A client of the scheduler at an address; ValueError if there is none."""
    try:
        return Client(address, timeout=PATIENCE)
    except (OSError, ValueError) as error:
        raise InvalidValueError(
            f"there is no Dask scheduler at {address!r} ({error}); expected e.g. tcp://host:8786"
        ) from error


class Task:
    """What all parts of a run share. Travels to each worker once; each of its threads has decoders of its own."""

    def __init__(self, job: Job, root: Path, fingerprint: str):
        self.job, self.root, self.fingerprint = job, root, fingerprint
        self._local = threading.local()
        self._decoders: list[Decoders] = []

    def __reduce__(self) -> tuple[Any, ...]:
        return Task, (self.job, self.root, self.fingerprint)

    def compute(self, index: int, items: list[Item]) -> tuple[dict[str, Any], int, int]:
        """(line for the manifest, pictures captured, pictures failed) of one part, written."""
        if not hasattr(self._local, "decoders"):
            self._local.decoders = self.job.decoders()
            self._decoders.append(self._local.decoders)
        part = self.job.part(index, self._local.decoders.decode(items))
        return write_part(self.root, self.fingerprint, part), len(part.pictures), len(part.failures)

    def close(self) -> None:
        for decoders in self._decoders:
            decoders.close()


class CapturePlugin(WorkerPlugin):
    """Holds the task with its model on a worker, and is closed with it."""

    def __init__(self, task: Task):
        self.task = task

    def teardown(self, worker: Any) -> None:
        self.task.close()


def plugin_name(fingerprint: str) -> str:
    return f"dpt-workbench-{fingerprint[:16]}"


def run_on(client: Any, job: Job, work: Work) -> Report:
    """`probes.run` on the workers of a `distributed.Client`."""
    if not isinstance(client, Client):
        raise InvalidTypeError(f'engine is "local" or a distributed.Client, not {type(client).__name__}')
    if active_edits(job.recorder.model):
        raise InvalidValueError("edits are not carried to other processes; run with engine='local' inside probes.edit")
    if any(point.point.group == "own" for point in job.recorder.wanted):
        raise InvalidValueError("points of your own are not known to other processes; run them with engine='local'")
    store, size = work.store, work.store.settings["part"]
    # Half the processors for reading would be taken by every worker of a machine.
    job = replace(job, workers=1 if job.workers is None else job.workers)
    task = Task(job, store.root.resolve(), store.fingerprint)
    name = plugin_name(store.fingerprint)
    numbered = zip(store.indices(), iter(lambda: list(itertools.islice(work.items, size)), []), strict=False)
    try:
        client.register_plugin(CapturePlugin(task), name=name)
        with interruptible(work):
            waiting = as_completed(with_results=True)
            under_way = 0
            while True:
                room = max(1, len(client.nthreads())) * WINDOW - under_way
                for index, items in [] if work.stop.is_set() else itertools.islice(numbered, max(0, room)):
                    key = part_id(store.fingerprint, index, [item.name for item in items])
                    waiting.add(client.submit(_compute, name, index, items, key=f"capture-{key}", pure=False))
                    under_way += 1
                if not under_way:
                    break
                _, outcome = next(waiting)
                # What ended a part is handed over instead of raised if its future was cancelled: by itself where that
                # was all, else as (type, error, traceback).
                if isinstance(outcome, CancelledError):
                    raise outcome
                if isinstance(outcome[1], BaseException):
                    raise outcome[1]
                line, captured, failed = outcome
                under_way -= 1
                store.adopt(line)
                work.tell(captured, failed)
            work.report.interrupted = work.stop.is_set()
            store.tidy()
    except (StoreError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise StoreError(
            errno.EIO,
            f"the Dask cluster failed ({type(error).__name__}: {' '.join(str(error).split())[:300]}); what "
            f"{store.root} holds stays, and the same call goes on from there",
        ) from error
    finally:
        report = work.close()
    return report


def _compute(plugin: str, index: int, items: list[Item]) -> tuple[dict[str, Any], int, int]:
    holder: Any = get_worker().plugins[plugin]
    result: tuple[dict[str, Any], int, int] = holder.task.compute(index, items)
    return result
