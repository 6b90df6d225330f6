"""The Python side of a file chooser: it receives a file in parts.

Jupyter servers accept messages of 10 MB unless they are told otherwise, and close the connection on larger ones: the
file vanishes. `ipywidgets.FileUpload` sends a file in one message. This chooser's view (`upload/`) sends parts of
`PART` bytes, one at a time, so that files of any size pass every server.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

from dpt import DPT

from ...errors import InvalidValueError
from ..shared import pages
from ..shared.answering import Answer, AnsweringExplorer, Request
from ..shared.progress import Status

PART = 2 * 2**20
"""Bytes of a part. Text encodings of a message, and other limits on the way, leave room up to 10 MB."""

LARGEST = 2**30
"""Bytes of the largest file that is accepted."""


class FileChooser(AnsweringExplorer):
    """A button that is also a place to drop and to paste a file.

    Args:
        model: Returns the model that `use` runs.
        use: Called with the name and the content of a file.
        refuse: Called with the name of a file that is not accepted, and the reason.
    """

    _name = "upload"
    _LIGHT = ("start", "part")
    _esm = pages.script_of(_name)
    _css = pages.style_of(_name)

    def __init__(
        self, model: Callable[[], DPT], use: Callable[[str, bytes, Status], None], refuse: Callable[[str, str], None]
    ) -> None:
        self._model_now, self._use, self._refuse = model, use, refuse
        self._name_of_file, self._size = "", 0
        self._content = io.BytesIO()
        super().__init__()

    @property
    def _owner(self) -> object:
        return self._model_now()

    def _answer_start(self, request: Request, status: Status) -> Answer:
        """Announces a file: its name, size and type. The reply says how large parts may be."""
        name, size, kind = str(request.get("name")), request.get("size"), str(request.get("type"))
        if not isinstance(size, int) or size < 0:
            raise InvalidValueError(f"size must be the number of bytes of the file, got {size!r}")
        why = ""
        if size > LARGEST:
            why = (
                f"it is too large: {size / 2**20:,.0f} MB, at most {LARGEST / 2**20:,.0f} MB. Use dpt.read_image(path)"
            )
        elif kind.partition("/")[0] in ("video", "audio", "text") or kind in ("application/pdf", "application/zip"):
            why = f"it is not an image but {kind}"
        if why:
            self._refuse(name, why)
            return {"part": 0}, []
        self._name_of_file, self._size = name, size
        self._content = io.BytesIO()
        return {"part": PART}, []

    def _answer_part(self, request: Request, status: Status) -> Answer:
        """Receives the next part. A part that was sent again is ignored."""
        start, parts = request.get("start"), request.get("parts")
        if not isinstance(parts, Sequence) or len(parts) != 1:
            raise InvalidValueError("a part must be one binary part of a message")
        if start == self._content.tell():
            self._content.write(parts[0])
        if self._content.tell() > self._size:
            raise InvalidValueError(f"{self._name_of_file} is longer than the {self._size} bytes that were announced")
        return {"received": self._content.tell()}, []

    def _answer_use(self, request: Request, status: Status) -> Answer:
        """Uses the file, which has arrived in full."""
        content = self._content.getvalue()
        if len(content) != self._size:
            raise InvalidValueError(f"{len(content)} of {self._size} bytes of {self._name_of_file} have arrived")
        self._use(self._name_of_file, content, status)
        self._content = io.BytesIO()
        return {}, []
