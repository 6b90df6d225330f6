"""Exchanges messages with a widget as a browser does, and reads exported pages without a browser."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Generic, TypeVar

from probes.explorers.shared.answering import AnsweringExplorer

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


def loaded_by(path: Path) -> list[str]:
    """What a page from to_html() would load from elsewhere: not its own picture, which is inside the page."""
    page = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    page, pictures = re.subn(r'<img src="data:image/png;base64,[A-Za-z0-9+/=]+" alt="[^"]+">', "", page)
    assert pictures == 1, "the picture for places where scripts are off"
    return re.findall(r"https?://|url\(|@import|(?<!\.)\b(?:src|href)=", page)


def code_and_rest(explorer: AnsweringExplorer) -> tuple[int, int]:
    """Bytes of a widget's module, and of the rest of its state without its style sheet, as JSON."""
    state = {name: value for name, value in explorer.get_state().items() if name not in ("layout", "_css")}
    assert not any(isinstance(value, bytes | memoryview) for value in state.values())
    return len(state.pop("_esm").encode()), len(json.dumps(state))


def data_of(path: Path) -> dict[str, Any]:
    """The data of a page from to_html(): the widget's state and the replies to its requests."""
    found = re.search(
        r'<script type="application/json"[^>]*>(.*?)</script>', path.read_text(encoding="utf-8"), re.DOTALL
    )
    assert found is not None
    return json.loads(found.group(1))
