"""How far a request is, and how it is cancelled.

Problem: one pass of a large model takes half a minute on a CPU. Its user must see that it advances, and be able to stop
it. A pass is one call into torch, so nothing outside the model knows how far it is.

Approach: a `Progress` places a hook on each block of the encoder, on the reassembly, on each fusion block and on the
head (`followed`). A hook reports its stage, and raises a `CancelledError` if the request was cancelled: the pass then
ends before that stage. The hooks act in the context that placed them only (see `probes.passes`), so a cell that uses
the same model is neither reported nor stopped.

Limit: compiled modules run no hooks. Their passes report nothing, and a cancelled one ends after the pass.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

from torch import Tensor, nn

from dpt import DPT

from ...errors import CancelledError
from ...hooks import Hook
from ...passes import Block

INTERVAL = 0.1  # seconds between two reports of stages

Report: TypeAlias = dict[str, object]
"""The fields of a status message: text and, inside a pass, stage, done and total."""


class Progress:
    """Shows what a request is doing. Called with a text, it shows the text; without `show`, it shows nothing.

    Args:
        show: Receives each `Report`.
    """

    def __init__(self, show: Callable[[Report], None] | None = None):
        self._show = show
        self._cancelled: str | None = None
        self._latest: Report = {}
        self._shown = -INTERVAL

    def __call__(self, text: str) -> None:
        """Shows a text.

        Raises:
            CancelledError: The request was cancelled.
        """
        self.check()
        self._report({"text": text})

    @property
    def latest(self) -> Report:
        """What was reported last."""
        return self._latest

    def cancel(self, why: str = "Cancelled") -> None:
        """Ends the request at its next report. Can be called from any thread."""
        self._cancelled = why

    def check(self) -> None:
        """Raises a CancelledError if the request was cancelled."""
        if self._cancelled is not None:
            raise CancelledError(self._cancelled)

    @contextmanager
    def followed(self, model: object) -> Iterator[None]:
        """Reports each stage of the passes of a model that run inside the with block, in this thread."""
        if self._show is None or not isinstance(model, DPT):
            yield
            return
        following = _Following(model, self._enter)
        following.open()
        try:
            yield
        finally:
            following.close()

    def _enter(self, stage: str, done: int, total: int) -> None:
        self.check()
        text = self._latest.get("text", "Running the model")
        report: Report = {"text": text, "stage": stage, "done": done, "total": total}
        if time.monotonic() - self._shown < INTERVAL:
            self._latest = report
        else:
            self._report(report)

    def _report(self, report: Report) -> None:
        self._latest, self._shown = report, time.monotonic()
        if self._show is not None:
            self._show(report)


Status = Progress
silent = Progress()
"""Shows nothing, for calls from Python."""


def stages_of(model: DPT) -> list[tuple[nn.Module, str]]:
    """The modules that a pass runs one after the other, each with its name."""
    blocks = list(model.encoder.blocks)
    fusion = list(model.fusion.blocks)[::-1]  # from coarse to fine
    return [
        *((block, f"block {n} of {len(blocks)}") for n, block in enumerate(blocks, 1)),
        (model.reassembly, "reassembly"),
        *((block, f"fusion {n} of {len(fusion)}") for n, block in enumerate(fusion, 1)),
        (model.head, "depth head"),
    ]


class _Following(Block[None]):
    """The hooks of `Progress.followed`. They need no beginning of a pass: replays run parts of the model."""

    def __init__(self, model: DPT, enter: Callable[[str, int, int], None]):
        super().__init__(model)
        self._enter = enter

    def start(self, x: Tensor) -> None:
        return None

    def place_hooks(self) -> None:
        model = self.model()
        assert model is not None
        stages = stages_of(model)
        for done, (module, name) in enumerate(stages):
            self.hooks.before(module, _Entered(self, module, name, done, len(stages)))

    def enter(self, stage: str, done: int, total: int) -> None:
        if self._thread == threading.get_ident() and self.carried():
            self._enter(stage, done, total)


class _Entered(Hook):
    """Reports that a stage begins."""

    def __init__(self, following: _Following, module: nn.Module, name: str, done: int, total: int):
        self.following, self.module = following, module
        self.place = (name, done, total)

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None) -> None:
        if module is self.module:
            self.following.enter(*self.place)
