"""Checkpoint files are regular files that hold what they claim, and their changes are noticed."""

from __future__ import annotations

import os
import time

import pytest
import torch
from safetensors.torch import save_file

import dpt
from dpt import CheckpointError
from dpt.checkpoints.stored import Identity, StoredFile
from tests.dpt.test_values import NAME, original
from tests.models import tiny_model


@pytest.fixture
def path(tmp_path):
    (tmp_path / "a.bin").write_bytes(bytes(range(100)))
    return tmp_path / "a.bin"


def test_bytes_are_read_from_their_place(path):
    with StoredFile(path) as file:
        assert file.size == 100
        assert file.read(10, 5) == bytes(range(10, 15))
        assert b"".join(bytes(piece) for piece in file.pieces()) == bytes(range(100))
        for start, count in ((99, 2), (-1, 2), (101, 0), (0, 2**62), (0, -1)):
            with pytest.raises(CheckpointError, match=str(path)):
                file.read(start, count)


def test_reading_works_without_preadv(path, monkeypatch):
    """As on Windows."""
    monkeypatch.delattr(os, "preadv", raising=False)
    with StoredFile(path) as file:
        assert file.read(10, 5) == bytes(range(10, 15))


def with_its_old_time(path):
    before = path.stat()
    path.write_bytes(bytes(100))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES = {
    "nothing": (lambda path: None, ""),
    "longer": (lambda path: path.write_bytes(bytes(101)), "size"),
    "other bytes": (lambda path: path.write_bytes(bytes(100)), "content"),
    "other bytes with the old time": (with_its_old_time, "attributes"),
    "permissions": (lambda path: path.chmod(0o400), "attributes"),
    "replaced": (lambda path: (path.with_name("b").write_bytes(b""), os.replace(path.with_name("b"), path)), ""),
    "deleted": (lambda path: path.unlink(), ""),
}


@pytest.mark.parametrize("how", CHANGES)
def test_changes_are_noticed(how, path):
    change, expected = CHANGES[how]
    os.utime(path, ns=(1, 10**18))
    with StoredFile(path) as file:
        time.sleep(0.02)  # the clock of the file system has ticks
        change(path)
        assert file.changes() == expected
        assert file.identity == Identity(*file.identity)
        if expected:
            with pytest.raises(CheckpointError, match="changed while it was read"):
                file.check_unchanged()
            file.accept()
        file.check_unchanged()


@pytest.mark.parametrize("kind", ["pipe", "device", "link to a device", "folder", "socket"])
def test_only_regular_files_are_opened(kind, tmp_path):
    import socket

    path = tmp_path / "a.safetensors"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = "/dev/zero"
    elif kind == "link to a device":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(path))
        server.close()
    else:
        path.mkdir()
    start = time.monotonic()
    with pytest.raises(CheckpointError, match=str(path)):
        dpt.load(path)
    assert time.monotonic() - start < 5


@pytest.mark.skipif(not hasattr(os, "SEEK_DATA"), reason="the system does not report holes")
def test_a_file_of_holes_is_an_unfinished_download(tmp_path):
    path = tmp_path / f"{NAME}.safetensors"
    header = b'{"x":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}' % (2**34, 2**34)
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(path, 8 + len(header) + 2**34)
    with pytest.raises(CheckpointError, match=r"has \d+ bytes, but only \d+ of them were ever written"):
        dpt.load(path)


def test_a_file_with_some_holes_is_loaded(tmp_path):
    path = tmp_path / f"{NAME}.safetensors"
    model = tiny_model()
    save_file(original(model), path)
    size = path.stat().st_size
    os.truncate(path, size)
    with StoredFile(path) as file:
        file.check_holes()
    assert torch.equal(dpt.load(path).head.conv1.weight, model.head.conv1.weight)
