"""Exchanges messages with a widget as a browser does, and reads exported pages without a browser."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Generic, TypeVar

from probes.explorers.shared.base import AnsweringExplorer

Widget = TypeVar("Widget", bound=AnsweringExplorer)


class Wire(Generic[Widget]):
    """Collects the messages that a widget sends."""

    def __init__(self, explorer: Widget):
        self.explorer = explorer
        self.sent: list[tuple[dict[str, Any], list[bytes]]] = []
        explorer.send = lambda content, buffers=None: self.sent.append((content, list(buffers or [])))

    def ask(self, **request: Any) -> tuple[dict[str, Any], list[bytes]]:
        """Sends a request and returns the last message."""
        self.explorer._handle_custom_msg({"seq": 1, "client": "page", **request}, [])
        return self.sent[-1]

    def replaced(self) -> int:
        """How often views had to start over with another image, model or size."""
        kinds = [content["kind"] for content, _ in self.sent if content["kind"] in ("replacing", "replaced")]
        assert kinds == ["replacing", "replaced"] * (len(kinds) // 2)
        return len(kinds) // 2

    def tell(self, parts: list[memoryview], **request: Any) -> None:
        """Sends a request with binary parts."""
        self.explorer._handle_custom_msg({"seq": 1, "client": "page", **request}, parts)

    def status(self) -> list[str]:
        """The texts of progress. Stages of a pass, which repeat the text, are left out."""
        return [content["text"] for content, _ in self.sent if content["kind"] == "status" and "stage" not in content]

    def stages(self) -> list[str]:
        """The stages of passes."""
        return [content["stage"] for content, _ in self.sent if content["kind"] == "status" and "stage" in content]


def ask(explorer: AnsweringExplorer, **request: Any) -> tuple[dict[str, Any], list[bytes]]:
    """Sends one request through a new wire."""
    return Wire(explorer).ask(**request)


def data_of(path: Path) -> dict[str, Any]:
    """The data of a page from to_html(): the widget's state and the replies to its requests."""
    found = re.search(
        r'<script type="application/json"[^>]*>(.*?)</script>', path.read_text(encoding="utf-8"), re.DOTALL
    )
    assert found is not None
    return json.loads(found.group(1))
