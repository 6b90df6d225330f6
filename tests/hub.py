"""A fake Hugging Face hub: a local server for the requests of a download, with faults that tests can switch on.

It answers HEAD and GET for /OWNER/NAME/resolve/REVISION/FILE with the headers of the real hub: the commit, and as ETag
the sha256 of large files (with a redirect to the store behind the hub) or git's blob sha1 of small ones.
"""

from __future__ import annotations

import hashlib
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OLDER = "89abcdef0123456789abcdef0123456789abcdef"


@dataclass
class Hub:
    """The files by (repository, commit, name), the faults, and a log of the requests."""

    files: dict[tuple[str, str, str], bytes] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=lambda: {"main": COMMIT})
    large: tuple[str, ...] = (".pth", ".bin", ".safetensors")  # suffixes of large files
    etag: str | None = None  # announced instead of the digest
    etags: list[str] = field(default_factory=list)  # announced first, one per request of metadata
    commit: str | None = None  # announced instead of the commit, also with errors
    location: str | None = None  # announced instead of the address in the store
    size: int | None = None  # announced instead of the size
    endless: bool = False  # whether large files are sent again and again, without an announced length
    body: bytes | None = None  # sent instead of a large file
    bodies: int = -1  # how often body is sent; -1: always
    cut_after: int | None = None  # bytes of a large file after which the connection is dropped
    cuts: int = -1  # how often it is dropped; -1: always
    token: str | None = None  # required to download
    gated: bool = False  # whether access is denied even with a token
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)  # method, path, Range
    tokens: list[str | None] = field(default_factory=list)
    url: str = ""

    def gets(self, file: str) -> list[str | None]:
        """The Range header of each GET request for a file."""
        return [range for method, path, range in self.requests if method == "GET" and path.endswith("/" + file)]


class Handler(BaseHTTPRequestHandler):
    """Answers requests from the files and faults of a `Hub`."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        hub = self.hub
        if "/resolve/" not in self.path:  # the library's telemetry
            return self.send(404, {}, b"", False)
        hub.requests.append((self.command, self.path, self.headers.get("Range")))
        hub.tokens.append(self.headers.get("Authorization"))
        stored = self.path.startswith("/store/")
        owner, name, _, revision, file = self.path.removeprefix("/store").split("/")[1:]
        repository = f"{owner}/{name}"
        commit = hub.branches.get(revision, revision)
        if hub.token and not stored and self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self.fail(
                401, "GatedRepo", f"Access to model {repository} is restricted. You must have access to it."
            )
        if hub.gated:
            return self.fail(403, "GatedRepo", f"Access to model {repository} is restricted; ask for access.")
        if repository not in {key[0] for key in hub.files}:
            return self.fail(404, "RepoNotFound", "Repository not found")
        if commit not in {key[1] for key in hub.files}:
            return self.fail(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        content = hub.files.get((repository, commit, file))
        if content is None:
            return self.fail(404, "EntryNotFound", "Entry not found", hub.commit or commit)
        large = file.endswith(hub.large)
        etag = hub.etags.pop(0) if hub.etags and not body else hub.etag
        size = len(content) if hub.size is None else hub.size
        headers = {"Accept-Ranges": "bytes"}
        if large and not stored:
            digest = hashlib.sha256(content).hexdigest()
            headers |= {"X-Linked-Etag": f'"{etag or digest}"', "X-Linked-Size": str(size)}
            # Another host for the client, like the real store, which must not get the token.
            headers |= {
                "X-Repo-Commit": hub.commit or commit,
                "Location": hub.location or hub.url.replace("127.0.0.1", "localhost") + "/store" + self.path,
            }
            return self.send(302, headers, b"", False)
        if not large:
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
            headers |= {"X-Repo-Commit": hub.commit or commit, "ETag": f'"{etag or blob}"'}
        if not body:
            return self.send(200, headers, content, False)
        if large and hub.body is not None and hub.bodies != 0:
            content, hub.bodies = hub.body, hub.bodies - 1
        if large and hub.endless:
            return self.send_without_end(content)
        start = int(self.headers["Range"].removeprefix("bytes=").split("-")[0]) if "Range" in self.headers else 0
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return self.send(206 if start else 200, headers, content[start:], True, cut=large)

    def send(self, status: int, headers: dict[str, str], content: bytes, body: bool, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if not body:
            return
        if cut and self.hub.cut_after is not None and self.hub.cuts != 0:
            self.hub.cuts -= 1
            content = content[: self.hub.cut_after]
            self.close_connection = True
        self.wfile.write(content)

    def send_without_end(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        with suppress(OSError):
            while True:
                self.wfile.write(content)

    def fail(self, status: int, code: str, message: str, commit: str | None = None) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message} | ({"X-Repo-Commit": commit} if commit else {})
        self.send(status, headers, b"", False)


def serve(hub: Hub) -> ThreadingHTTPServer:
    """Serve on a free local port and set hub.url. Call shutdown() to stop."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("HubHandler", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return server
