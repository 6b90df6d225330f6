"""Files are whole or not there, whatever goes wrong, and what went wrong is said of the path that was asked for."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

import dpt
import probes
from dpt.writing import replacing
from probes.explorers import NormExplorer
from probes.figures import depth_files as pictures
from tests.models import tiny_model


@contextmanager
def no_room(size: int = 4096) -> Iterator[None]:
    """No file may become larger than that: to those who write, a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="module")
def written():
    """What users write, by the name of the file."""
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
    written[name](path)  # the control: with room, it is written


@pytest.mark.parametrize("name", NAMES)
def test_where_no_file_can_be_nothing_is_written(written, name, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{name}: .*/none"):
        written[name](tmp_path / "none" / name)
    (tmp_path / name).mkdir()
    with pytest.raises(IsADirectoryError, match=f"{name}: .*folder"):
        written[name](tmp_path / name)
    assert os.listdir(tmp_path) == [name]
    assert os.listdir(tmp_path / name) == []


@pytest.mark.parametrize("name", NAMES)
def test_others_may_read_what_was_written(written, name, tmp_path):
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


def test_a_folder_that_may_not_be_written_is_said_and_no_hidden_name(tmp_path, monkeypatch):
    def refuse(path, *arguments, **keywords):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionError) as error, replacing(tmp_path / "a.txt"):
        pytest.fail("entered")
    assert str(error.value) == f"[Errno 13] cannot write {tmp_path / 'a.txt'}: Permission denied"


def test_an_exception_inside_comes_through_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def half_of_it(temporary: Path) -> None:
        temporary.write_text("half of the new")
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"), replacing(path) as temporary:
        half_of_it(temporary)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]
