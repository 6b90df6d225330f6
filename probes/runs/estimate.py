"""Estimates size and duration of a run from a sample of its images, before anything is computed."""

from __future__ import annotations

import errno
import re
import shutil
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from tqdm.auto import tqdm

from dpt.image import network_size

from .decoding import Decoders
from .errors import DiskSpaceError
from .job import Job, Work, base_input, size_text

LONG = 100  # images from which on size and time are printed
SAMPLE = 64  # images whose sizes are read
MARGIN = 16  # by so much can images need more than a square image


def estimate(job: Job, work: Work, force: bool, decoders: Callable[[], AbstractContextManager[Decoders]]) -> None:
    """Checks that the disk has enough space, and prints the expected size and duration of a long run.

    Args:
        job: The job.
        work: What is left of the run.
        force: Whether to start anyway.
        decoders: Gives decoding processes, which read the sizes of some images.

    Raises:
        DiskSpaceError: The disk has too little space, and `force` is not set.
    """
    if not work.left:
        return
    free = shutil.disk_usage(work.store.root).free
    height, width = base_input(job.recorder.model, job.size, job.keep_aspect)
    each, pixels = float(bytes_of(job, height, width)), float(height * width)
    shown = work.left >= LONG and not work.quiet
    if work.listed and (shown or each * work.left * MARGIN > free):
        each, pixels = _sampled(job, work, decoders) or (each, pixels)
    needed = int(each * work.left)
    if needed > free and not force:
        error = DiskSpaceError(
            errno.ENOSPC,
            f"{work.left:,} images need about {size_text(needed)} before compression, and {work.store.root} has "
            f"{size_text(free)} left. Select fewer points, use dtype=torch.float16, or start anyway with yes=True "
            "(--yes)",
        )
        error.needed, error.free = needed, free
        raise error
    if shown:
        seconds = _seconds_per_image(job, height, width) * pixels / (height * width) * work.left
        duration = tqdm.format_interval(seconds)
        size = re.sub(r"(?<=\d)(?=[A-Za-z])", " ", size_text(needed))
        work.print_line(f"{work.left:,} images: about {size} before compression, {duration} of computation")


def bytes_of(job: Job, height: int, width: int) -> int:
    """Bytes that are stored of an image whose input has this size, before compression."""
    return job.recorder.bytes_per_image(job.recorder.model.token_grid(height, width)) + (
        3 * height * width * job.keep_images
    )


def _sampled(
    job: Job, work: Work, decoders: Callable[[], AbstractContextManager[Decoders]]
) -> tuple[float, float] | None:
    """Mean (bytes, pixels of the input) of images at equal distances in the list; None if none can be read."""
    assert work.listed is not None
    count = len(work.listed)
    sample = [work.listed[place * count // SAMPLE] for place in range(SAMPLE)] if count > SAMPLE else work.listed
    found: list[tuple[int, int]] = []
    preprocess = job.recorder.model.config.preprocess
    with decoders() as pool:
        for size in pool.sizes(sample):
            if size is None:
                continue
            try:
                height, width = network_size(*size, preprocess, job.size, job.keep_aspect)
                found.append((bytes_of(job, height, width), height * width))
            except ValueError:  # the model does not take this image
                found.append((0, 0))
    if not found:
        return None
    return statistics.fmean(each for each, _ in found), statistics.fmean(pixels for _, pixels in found)


def _seconds_per_image(job: Job, height: int, width: int) -> float:
    model = job.recorder.model
    x = torch.zeros(job.batch, 3, height, width, dtype=model.dtype, device=model.device)
    with torch.no_grad():
        model(x)  # the first pass also computes what is cached per grid
        began = time.monotonic()
        model(x)
        if x.device.type == "cuda":
            torch.cuda.synchronize(x.device)
    return (time.monotonic() - began) / job.batch
