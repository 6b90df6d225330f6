"""Without a network, a download fails within seconds, and says how to get the file."""

from __future__ import annotations

import socket
import time

import pytest

import dpt
from dpt.checkpoints import reachability


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def closed_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def test_a_server_that_listens_is_reached():
    with socket.create_server(("127.0.0.1", 0)) as server:
        reachability.check(f"http://127.0.0.1:{server.getsockname()[1]}/file")


def refused(monkeypatch) -> str:
    return f"http://127.0.0.1:{closed_port()}"


def unknown(monkeypatch) -> str:
    return "http://no-such-host.invalid"


def swallowed(monkeypatch) -> str:
    """Packets vanish: connecting only ever ends by its limit."""

    def connect(self, place):
        time.sleep(self.gettimeout())
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket.socket, "connect", connect)
    return "http://127.0.0.1:9"


def slow_names(monkeypatch) -> str:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(20) or [])
    return "http://slow.invalid"


@pytest.mark.parametrize("fault", [refused, unknown, swallowed, slow_names])
def test_a_named_download_fails_within_five_seconds_and_says_what_to_do(fault, monkeypatch, tmp_path):
    from huggingface_hub import constants

    endpoint = fault(monkeypatch)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    start = time.monotonic()
    with pytest.raises(ConnectionError) as caught:
        dpt.load("depth-anything-v2-small")
    assert time.monotonic() - start < 5
    assert f"{endpoint}/depth-anything/Depth-Anything-V2-Small/resolve/main/depth_anything_v2_vits.pth" in str(
        caught.value
    )
    assert str(tmp_path / "weights") in str(caught.value)


def test_a_proxy_is_tried_in_place_of_the_server(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        reachability.check("https://no-such-host.invalid/file")
        monkeypatch.setenv("no_proxy", "no-such-host.invalid")
        with pytest.raises(ConnectionError):
            reachability.check("https://no-such-host.invalid/file")
