"""Depth maps of one model and image under scales, with previews that stay within a time limit."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
from numpy.typing import NDArray

import dpt
from dpt.image import Size, network_size

from ...replay import FusionReplay
from ..shared.live_subject import Live
from ..shared.progress import Status
from .encoding import MapMessage, ThumbnailMessage, encode_map, encode_thumbnail
from .settings import POINTS, Scales

PACE = 0.06  # seconds that a preview may take
CHECK_EVERY = 1.0  # seconds between comparisons of the weights during previews
COARSEST_PREVIEW = 4  # largest factor by which a preview shrinks the input of the finest fusion level

_numbers = itertools.count(1)


class ScaledMapMessage(MapMessage):
    """Describes the map of a setting. Its parts are the map and four thumbnails, coarsest level first."""

    scales: list[float]  # in the order of POINTS
    shrink: int
    input: tuple[int, int]  # (height, width) of the model's input
    blocks: int  # fusion levels that ran; the others were cached
    thumbs: list[ThumbnailMessage]
    ms: float


class ScaledMaps:
    """Runs the encoder once per input size, and the fusion levels once per setting."""

    def __init__(self) -> None:
        self._name = f"replay {next(_numbers)}"  # each explorer has one: it caches the setting that it computed last
        self._other: Live | None = None
        self._used: Live | None = None  # the subject of the last replay
        self._checked = -math.inf  # when the weights were last compared
        self._shrink = 1  # of the next preview

    def replay(
        self, subject: Live, size: Size, keep_aspect: bool, status: Status, *, preview: bool = False
    ) -> FusionReplay:
        """The replay for an input size. A change of size or weights creates a new one.

        Args:
            subject: The model and the image.
            size: The requested input size.
            keep_aspect: Whether the input keeps the image's aspect ratio.
            status: Shows progress.
            preview: Whether the replay is for a preview. While previews follow each other, weights are compared once
                per `CHECK_EVERY`; the full map that follows compares them again.
        """
        if input_size_of(subject.model, subject.image, size, keep_aspect) != subject.input_size:
            subject = self._of_other_size(subject, size, keep_aspect)
        if self._used is not subject:
            self._drop()
            self._used = subject
        if not preview or time.monotonic() - self._checked > CHECK_EVERY:
            self._checked = time.monotonic()
            subject.renew()

        def start() -> FusionReplay:
            self._shrink = 1
            arguments = subject.model, subject.image, subject.size, subject.keep_aspect
            weights = subject.state().weights
            if weights is None:  # offloaded: nobody can tell whether they changed
                height, width = subject.input_size
                status(f"Running the encoder on the image ({width} × {height} pixels)")
                return FusionReplay(*arguments)
            return FusionReplay(*arguments, maps=(subject.maps(status), weights))

        return subject.kept(self._name, start, _bytes_of)

    def release(self) -> None:
        """Frees what can be computed again. Call it before the subject lets go of its moment, which others may keep."""
        self._drop()
        self._other, self._used, self._checked = None, None, -math.inf

    def _drop(self) -> None:
        if self._used is not None:
            self._used.drop(self._name)

    def _of_other_size(self, subject: Live, size: Size, keep_aspect: bool) -> Live:
        """A subject for a size that one request asks for. The last one is kept."""
        other, kept = Live(subject.model, subject.image, size, keep_aspect), self._other
        same = kept is not None and kept.model is other.model and kept.image is other.image
        if kept is None or not same or kept.input_size != other.input_size:
            self._other = kept = other
        return kept

    def encode(
        self, replay: FusionReplay, scales: Scales, *, preview: bool = False, coarse: bool = False
    ) -> tuple[ScaledMapMessage, list[bytes]]:
        """The map of a setting.

        Args:
            replay: A result of `replay`, which has compared the weights.
            scales: Factors of all points.
            preview: Whether the map may be shrunk to stay within `PACE`.
            coarse: Whether 8-bit levels are enough.
        """
        shrink = self._shrink if preview else 1
        started = time.perf_counter()
        map_message, part = encode_map(replay.output(scales, shrink, check=False)[0], 8 if coarse else 16)
        thumbnails = [encode_thumbnail(replay.fused[stage]) for stage in (3, 2, 1, 0)]
        seconds = time.perf_counter() - started
        if preview:
            self._adapt_shrink(shrink, seconds)
        message = ScaledMapMessage(
            **map_message,
            scales=[scales[point] for point in POINTS],
            shrink=shrink,
            input=(replay.input_size[0], replay.input_size[1]),
            blocks=replay.blocks_run,
            thumbs=[thumbnail for thumbnail, _ in thumbnails],
            ms=round(1000 * seconds, 1),
        )
        return message, [part, *(thumbnail for _, thumbnail in thumbnails)]

    def _adapt_shrink(self, shrink: int, seconds: float) -> None:
        """Makes the next preview coarser if this one took too long, and finer if time allows."""
        if seconds > PACE:
            # Time grows with the area, so the required factor follows from the time of this preview.
            wanted = math.ceil(shrink * math.sqrt(seconds / PACE))
            self._shrink = min(COARSEST_PREVIEW, max(shrink + 1, wanted))
        elif shrink > 1 and seconds * (shrink / (shrink - 1)) ** 2 < 0.7 * PACE:
            self._shrink = shrink - 1


def _bytes_of(replay: FusionReplay) -> int:
    """What a replay comes to keep: each level's output has four times the pixels of its map. The maps are shared."""
    return 4 * sum(tensor.nbytes for tensor in replay.maps)


def input_size_of(model: dpt.DPT, image: NDArray[np.uint8], size: Size, keep_aspect: bool) -> tuple[int, int]:
    """(h, w) of the model's input. ValueError for a size that the model cannot take."""
    height, width = image.shape[:2]
    found = network_size(height, width, model.config.preprocess, size, keep_aspect)
    model.token_grid(*found)
    return found
