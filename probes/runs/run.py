"""Captures many images to disk in parts. A run can be killed at any time and resumed with the same call.

    probes.run(model, "photos/", "run/", "norms", "reassembly.*")
    run = probes.open_run("run/")

Worker processes decode and prepare images ahead of the model (`decoding`). The model runs on batches of equal input
size. A writer thread stores the results (`store`). The image list alone decides which images go into which part: the
images that are not stored yet, in order, `part` at a time. A resumed run therefore produces the same parts, byte for
byte, as an uninterrupted one.

Ctrl-C (or SIGTERM from a batch scheduler) finishes the current part and stops; a second Ctrl-C stops immediately.
Committed parts survive both, and `kill -9`.

Images that cannot be read, for which the memory does not suffice, or whose values are not finite are logged in
`failures.jsonl` and skipped. Trouble of the machine (a full memory, too many open files, a lost network share) is not
logged: such images are left out, and the next run tries them again. Other errors in the model stop the run, because
they would affect every image.
"""

from __future__ import annotations

import itertools
import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from typing import Unpack

from dpt import DPT
from dpt.image import plain_size
from dpt.scalars import real, whole

from ..errors import MissingDependencyError
from ..registry import check_model
from .errors import RunMismatchError
from .estimate import estimate
from .identity import capture_record, fingerprint
from .job import Job, Report, Work, base_input, interruptible
from .model_state import ModelState
from .options import RUN_DEFAULTS, Images, RunOptions, completed, positive
from .recording import Recorder
from .records import RunRecord
from .sources import find
from .store import Store
from .unchanged import check_unchanged

PART_IMAGES = 50
PART_BYTES = 256 * 2**20  # of arrays in memory; two parts are held at a time
BATCH = 4
NO_DASK = "Dask is not installed. Install it with: pip install 'dpt-workbench[scale]'"


def run(
    model: DPT, images: Images, out: str | os.PathLike[str], *selectors: str, **options: Unpack[RunOptions]
) -> Report:
    """Captures probe points of many images into a folder, or resumes the run in that folder.

    Args:
        model: The model. Active edits (`probes.edit`) apply and are recorded.
        images: A file, folder, glob, text list (one path per line) or video; a (name, array) pair with an array of
            shape (H, W, 3), uint8; or a list or generator of these. See `probes.runs.sources`.
        out: Folder of the run. `probes.open_run` reads it.
        *selectors: Points to capture, e.g. "norms", "attention.entropy". See `probes.runs.recording`.
        **options: See `RunOptions`: reading images (frames, size, keep_aspect, workers, timeout), storing (tokens,
            dtype, keep_images, part, source), execution (batch, engine, retry, yes, take_over, progress).

    Returns:
        How many images were captured, failed, or already stored.

    Raises:
        ProbeError: An argument is invalid. Nothing was written.
        SourceError: The images cannot be found. Nothing was written.
        MissingDependencyError: `engine` needs Dask, which is not installed.
        RunMismatchError: The folder holds a run with other settings, or images or the model have changed.
        MachineError: Many files in a row cannot be read in time. The same call resumes.
        StoreError: See `probes.runs.errors`. If the disk failed, committed parts survive and the same call resumes.

    Example:
        report = probes.run(model, "photos/*.jpg", "run/", "norms", "attention.rows", tokens=[0], part=20)
        print(report)
    """
    given = completed(options, RUN_DEFAULTS, "run")
    check_model(model)
    recorder = Recorder(model, selectors, given["tokens"], given["dtype"])
    batch, part = positive("batch", given["batch"]), positive("part", given["part"])
    items = find(images, frames=given["frames"])
    size, keep_aspect, keep_images = plain_size(given["size"]), given["keep_aspect"], given["keep_images"]
    state = ModelState(model)  # before the fingerprint, so that no change falls between the two
    capture = capture_record(recorder, size, keep_aspect, keep_images)
    height, width = base_input(model, size, keep_aspect)
    bytes_per_image = recorder.bytes_per_image(model.token_grid(height, width)) + 3 * height * width * keep_images
    settings = RunRecord(
        capture=capture,
        fingerprint=fingerprint(capture),
        part=part or max(1, min(PART_IMAGES, PART_BYTES // max(1, bytes_per_image))),
        batch=batch or BATCH,
        source=dict(given["source"] or {}),
    )
    with Store.write(out, settings, take_over=given["take_over"]) as store:
        stored = store.settings
        for name, asked, used in (("part", part, stored.part), ("batch", batch, stored.batch)):
            if asked is not None and asked != used:
                difference = f"{name} is {used} in the stored run and {asked} in this call"
                raise RunMismatchError(f"cannot resume {out}: {difference}. Omit {name} to resume", [difference])
        job = Job(
            recorder,
            stored.batch,
            size,
            keep_aspect,
            keep_images,
            None if given["workers"] is None else whole(given["workers"], "workers", least=0),
            real(given["timeout"], "timeout", least=0.01),
            capture.model.weights,
            state=state,
        )
        check_unchanged(store, items, job.decoders)
        work = Work(store, items, given["retry"], given["progress"])
        job.proven = work.report.already_stored > 0
        if given["engine"] == "local":
            return _run_here(job, work, given["yes"])
        estimate(job, work, given["yes"], job.decoders)
        try:
            from .dask_engine import run_on
        except ImportError as error:
            raise MissingDependencyError(NO_DASK) from error
        return run_on(given["engine"], job, work)


def _run_here(job: Job, work: Work, force: bool) -> Report:
    """Computes the parts in this process. A thread writes each part while the model computes the next."""
    store, size = work.store, work.store.settings.part
    try:
        with interruptible(work), job.decoders() as decoders, ThreadPoolExecutor(1) as writer:
            estimate(job, work, force, lambda: nullcontext(decoders))
            images = decoders.decode(work.items)
            written: Future[None] | None = None
            for index in store.indices():
                first = next(images, None)
                if first is None:
                    break
                part = job.part(index, itertools.chain([first], itertools.islice(images, size - 1)), work.advance)
                work.note(part.left_out, part.notes)
                if written is not None:
                    written.result()
                written = writer.submit(store.commit, part) if part.names else None
                if job.hopeless:
                    break
                if work.stop.is_set():
                    work.report.interrupted = True
                    break
            if written is not None:
                written.result()
            if job.hopeless:
                work.end_for_trouble()
    finally:
        report = work.close()
    return report
