"""Files are written as a whole or not at all, and errors name the requested path."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch

import dpt
import probes
from dpt.errors import AddressError, DPTError, WriteError
from dpt.writing import TEMPORARY, check_place, create_file, local_path, replacing, sync_folder, write_file
from probes.explorers import NormExplorer
from probes.figures import depth_files as pictures
from probes.runs.verify import repair, verify
from tests.models import tiny_model


@contextmanager
def no_room(size: int = 4096) -> Iterator[None]:
    """Limits the size of files, which looks like a full disk to a writer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="module")
def written():
    """Functions that write a user's file, by the name of the file."""
    model = tiny_model()
    with probes.capture(model, "*") as cap:
        model(torch.zeros(1, 3, 42, 42))
    explorer = NormExplorer(model, np.zeros((42, 42, 3), np.uint8))
    depth = np.zeros((100, 100), np.float32)
    return {
        "model.safetensors": lambda path: dpt.save(model, path),
        "capture.safetensors": cap.save,
        "page.html": explorer.to_html,
        "depth.npy": lambda path: pictures.write(Path(path), pictures.npy(depth)),
    }


NAMES = ("model.safetensors", "capture.safetensors", "page.html", "depth.npy")


@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk_leaves_the_old_file_and_nothing_else(written, name, tmp_path):
    path = tmp_path / name
    written[name](path)
    before = path.read_bytes()
    assert len(before) > 4096
    with no_room(), pytest.raises(OSError, match=f"cannot write {path}: .*[Ff]ile too large"):
        written[name](path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [name]
    written[name](path)  # control: without the limit, the file is written


@pytest.mark.parametrize("name", NAMES)
def test_an_impossible_path_is_refused_and_nothing_is_written(written, name, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{name}: .*/none"):
        written[name](tmp_path / "none" / name)
    (tmp_path / name).mkdir()
    with pytest.raises(IsADirectoryError, match=f"{name}: .*folder"):
        written[name](tmp_path / name)
    assert os.listdir(tmp_path) == [name]
    assert os.listdir(tmp_path / name) == []


@pytest.mark.parametrize("name", NAMES)
def test_permissions_follow_the_umask(written, name, tmp_path):
    before = os.umask(0o027)
    try:
        written[name](tmp_path / name)
    finally:
        os.umask(before)
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("name", ["capture.safetensors", "page.html"])
def test_a_tilde_is_the_home_folder(written, name, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    written[name](f"~/{name}")
    assert (tmp_path / name).is_file()


def test_a_missing_permission_names_the_requested_file_not_the_temporary_one(tmp_path, monkeypatch):
    def refuse(path, *arguments, **keywords):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionError) as error, replacing(tmp_path / "a.txt"):
        pytest.fail("entered")
    assert str(error.value) == f"[Errno 13] cannot write {tmp_path / 'a.txt'}: Permission denied"
    assert isinstance(error.value, WriteError)
    assert error.value.path == str(tmp_path / "a.txt")


def test_an_exception_in_the_block_passes_through_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def half_of_it(temporary: Path) -> None:
        temporary.write_text("half of the new")
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"), replacing(path) as temporary:
        half_of_it(temporary)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_bytes_replace_a_file_in_this_order(tmp_path):
    """The content is flushed before the rename, and the folder after it."""
    path, calls = tmp_path / "a.bin", []
    write_file(path, b"old")
    real = {name: getattr(os, name) for name in ("write", "fsync", "replace")}

    def noting(name):
        def call(*arguments):
            calls.append(name)
            return real[name](*arguments)

        return call

    with patch.multiple(os, **{name: noting(name) for name in real}):
        write_file(path, memoryview(b"new"))
    assert path.read_bytes() == b"new"
    assert calls == ["write", "fsync", "replace", "fsync"]
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_fault_at_any_step_leaves_the_old_content(step, tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def fails(*_: object):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with patch.object(os, step, fails), pytest.raises(DPTError, match=f"{path}: Input/output error") as error:
        write_file(path, b"new")
    assert error.value.errno == errno.EIO
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_temporary_files_can_be_recognised_and_keep_the_suffix(tmp_path):
    with replacing(tmp_path / "a.png") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(TEMPORARY)
        assert temporary.suffix == ".png"


def test_a_new_file_is_not_written_over_an_existing_one(tmp_path):
    create_file(tmp_path / "a", b"1")
    with pytest.raises(FileExistsError):
        create_file(tmp_path / "a", b"2")
    assert (tmp_path / "a").read_bytes() == b"1"
    sync_folder(tmp_path)
    check_place(tmp_path / "a")


ADDRESSES = (
    "s3://bucket/run",
    "gs://bucket/run",
    "hdfs://host/run",
    "file:///tmp/run",
    "S3://bucket",
    "host:/run",
    "zip::s3://bucket",
)


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_is_refused_where_a_path_is_written_and_makes_no_folder(written, tmp_path, monkeypatch, address):
    monkeypatch.chdir(tmp_path)
    for name, write in written.items():
        with pytest.raises(AddressError):
            write(f"{address}/{name}")
    for given in (address, Path(address)):  # Path joins the slashes
        with pytest.raises(AddressError, match=address.split("/")[0]):
            local_path(given)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_run_is_neither_written_to_nor_read_from_an_address(tmp_path, monkeypatch, address):
    monkeypatch.chdir(tmp_path)
    image = [("a", np.zeros((42, 42, 3), np.uint8))]
    for use in (
        lambda: probes.run(tiny_model(), image, address, "norms", workers=0, progress=False),
        lambda: probes.open_run(address),
        lambda: verify(address),
        lambda: repair(address, tiny_model(), image),
    ):
        with pytest.raises(AddressError, match=address.split("/")[0]):
            use()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["run", "./a/b", "/tmp/a:b", "C:/run", "C:\\run", "a:b", "~/run", "user@host:/x"])
def test_a_path_of_this_machine_is_returned_unchanged(path):
    assert local_path(path) == Path(path)
