"""Finds out within seconds whether a server can be reached, before a download waits for minutes.

HTTP libraries try every address of a name, each with its own limit, and repeat: without a network, users would wait
half a minute and more. Name and connection get `SECONDS` in all. The download itself may take as long as it needs.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

SECONDS = 4.0
PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080, "socks4": 1080}


class UnreachableError(ConnectionError):
    """No connection to the server, or to the proxy on the way, in `SECONDS`."""


def check(address: str) -> None:
    """Returns once a connection was made.

    Args:
        address: An address of the web. A proxy that applies to it is tried in its place.

    Raises:
        UnreachableError: The name is unknown, or no connection was made in time.
    """
    host, port = _first_hop(address)
    failures: list[str] = []
    done = threading.Event()

    def connect() -> None:  # on a thread: resolvers have no limit of their own
        deadline = time.monotonic() + SECONDS
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            for family, kind, protocol, _, place in found:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                with socket.socket(family, kind, protocol) as connection:
                    connection.settimeout(max(0.05, left / 2) if len(found) > 1 else left)
                    try:
                        connection.connect(place)
                    except OSError as error:
                        failures.append(str(error))
                        continue
                failures.clear()
                failures.append("")
                break
        except (OSError, UnicodeError) as error:
            failures.append(str(error))
        done.set()

    threading.Thread(target=connect, daemon=True).start()
    if not done.wait(SECONDS):
        raise UnreachableError(f"no connection to {host} within {SECONDS:g} s")
    if failures[-1:] != [""]:
        raise UnreachableError(f"no connection to {host}: {failures[-1] if failures else 'timed out'}")


def _first_hop(address: str) -> tuple[str, int]:
    """Host and port of the server, or of the proxy for it."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if proxy and not proxy_bypass(host):
        parts = urlsplit(proxy if "//" in proxy else f"http://{proxy}")
    return parts.hostname or host, parts.port or PORTS.get(parts.scheme, 443)


def folder_for_files() -> str:
    """The folder weights/ into which users put files themselves."""
    return os.environ.get("DPT_WEIGHTS") or os.path.join(os.getcwd(), "weights")
