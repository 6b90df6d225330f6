"""Only regular files are opened, without waiting, and no more bytes are read than asked for."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from dpt.errors import FileTooLargeError, NotAFileError
from dpt.opening import open_file, read_file


def test_a_regular_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    with open_file(tmp_path / "file") as file:
        assert file.read() == b"12345"
    assert read_file(tmp_path / "file", 5) == b"12345"
    (tmp_path / "link").symlink_to("file")
    assert read_file(tmp_path / "link", 5) == b"12345"


def test_a_larger_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    with pytest.raises(FileTooLargeError, match="4 bytes"):
        read_file(tmp_path / "file", 4)


@pytest.mark.timeout(20)
def test_a_pipe_a_socket_a_device_and_a_folder_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link to pipe").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for path, kind in (
            (tmp_path / "pipe", "pipe"),
            (tmp_path / "link to pipe", "pipe"),
            (tmp_path / "socket", "socket"),
            (Path("/dev/zero"), "device"),
            (tmp_path, "folder"),
        ):
            with pytest.raises(NotAFileError, match=kind):
                read_file(path, 100)


def test_a_link_is_refused_on_request(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    (tmp_path / "link").symlink_to("file")
    with pytest.raises(NotAFileError, match="link"):
        read_file(tmp_path / "link", 5, follow_links=False)
    assert read_file(tmp_path / "file", 5, follow_links=False) == b"1"


@pytest.mark.timeout(20)
def test_a_pipe_that_takes_the_place_of_a_file_after_the_check_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"1")
    os.mkfifo(tmp_path / "pipe")
    honest = os.stat(tmp_path / "file")
    monkeypatch.setattr(os, "stat", lambda *_, **__: honest)
    with pytest.raises(NotAFileError, match="pipe"):
        open_file(tmp_path / "pipe")
