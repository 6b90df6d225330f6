"""Explorers as pictures and words.

`Pictured` is the part of every explorer that a reader without scripts or without a kernel sees. A subclass says what it
shows (`_summary`) and draws it (`_draw`). Errors while drawing are logged: neither a view nor a page may fail for want
of a picture.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import traitlets

from . import drawing, lifetime, saved
from .summary import Summary
from .turns import model_lock

log = logging.getLogger(__name__)

BUSY = 0.2  # seconds to wait for another explorer of the model before a view is displayed


class Pictured(traitlets.HasTraits):
    """Base of widgets with a picture.

    Attributes:
        _saved_picture: The picture of the last output, in base64: see `saved`.
        _saved_words: Its words.
    """

    _saved_picture = traitlets.Unicode().tag(sync=True)
    _saved_words = traitlets.Unicode().tag(sync=True)

    if TYPE_CHECKING:  # of ipywidgets
        comm: Any
        hold_sync: Any

    @property
    def _owner(self) -> object:
        """The object that two explorers must not use at the same time."""
        raise NotImplementedError

    def _summary(self) -> Summary:
        """What the explorer shows now, in words."""
        raise NotImplementedError

    def _draw(self, summary: Summary, note: str) -> bytes:
        """Draws what the explorer shows now. Runs the model if it must. Callers hold the lock of `_owner`."""
        raise NotImplementedError

    def _draw_without_model(self, summary: Summary, note: str) -> bytes:
        """Draws what is known before the model has run."""
        return drawing.picture(summary, [], note=note)

    def _seconds(self) -> float:
        """About how long `_draw` runs the model."""
        return 0.0

    def _picture(self, note: str = "") -> bytes | None:
        """What the explorer shows now, as a PNG. None if it cannot be drawn, e.g. because the depth contains NaN.

        Args:
            note: A line below the picture.
        """
        try:
            with model_lock(self._owner):
                return self._draw(self._summary(), note)
        except Exception:  # a picture is an extra: neither a view nor a page may fail for want of it
            log.info("no picture of the %s", type(self).__name__, exc_info=True)
            return None

    def _saved_form(self) -> tuple[str, bytes | None]:
        """(words, PNG) for a saved notebook. Also kept in traits, for a view that finds no kernel."""
        words, png = f"{type(self).__name__}. {saved.NOTE}", None
        if self.comm is not None and not saved.is_shown_as_text():
            png = self._picture_in_time()
        try:
            words = saved.words_of(self, self._summary())
        except Exception:  # as for a picture
            log.info("no words for the %s", type(self).__name__, exc_info=True)
        with self.hold_sync():
            self._saved_picture, self._saved_words = saved.as_text(png), words
        return words, png

    def _picture_in_time(self) -> bytes | None:
        """The picture of the view if it may be drawn now; else one without what the model computes."""
        try:
            lock = model_lock(self._owner)
            if saved.may_run(self._seconds()) and lock.acquire(timeout=-1.0 if lifetime.is_unattended() else 0.2):
                try:
                    return self._picture(saved.NOTE)
                finally:
                    lock.release()
            return self._draw_without_model(self._summary(), saved.NOTE)
        except Exception:  # as for a picture
            log.info("no picture of the %s", type(self).__name__, exc_info=True)
            return None

    def __repr__(self) -> str:
        try:
            return f"{type(self).__name__}({self._summary()})"
        except Exception:  # a closed explorer, or one that is not complete yet
            return f"{type(self).__name__}()"
