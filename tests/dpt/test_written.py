"""Paths of written files: links in notebooks, plain paths everywhere else."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import dpt
import probes
from dpt.written import written
from probes.explorers import DepthExplorer
from probes.figures import depth_files
from tests.models import tiny_model

IMAGE = np.random.default_rng(3).integers(0, 255, (60, 90, 3), dtype=np.uint8)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    (tmp_path / "out").mkdir()
    plain = Path("out/a page.html")
    plain.write_bytes(b"x" * 2_340_000)
    return plain


def html(path: Path) -> str | None:
    return path._repr_html_()


def test_it_is_a_path_everywhere(file):
    path = written(file)
    assert isinstance(path, Path)
    assert path == file
    assert hash(path) == hash(file)
    assert {file: 1}[path] == 1
    assert repr(path) == repr(file)
    assert str(path) == os.fspath(path) == os.fspath(file)
    assert path.read_bytes() == file.read_bytes()
    assert path / "x" == file / "x"
    assert path.parent == file.parent
    assert path.with_suffix(".png") == file.with_suffix(".png")
    assert path.resolve() == file.resolve()
    assert sorted([path, file]) == [file, file]
    for again in (pickle.loads(pickle.dumps(path)), copy.copy(path), copy.deepcopy(path)):
        assert again == file
    assert type(pickle.loads(pickle.dumps(path))) is type(file)
    with open(path, "rb") as stream:
        assert stream.read(1) == b"x"


def test_a_notebook_shows_a_link_with_name_and_size(file):
    assert html(written(file)) == '<a href="out/a%20page.html" target="_blank">a page.html</a> (2.3 MB)'
    assert html(written(file.absolute())) == html(written(file))


def test_binary_files_are_downloaded_instead_of_opened(file):
    for name, word in (("a.npy", "download"), ("a.safetensors", "download"), ("a.PNG", "_blank"), ("a.csv", "_blank")):
        path = Path(name)
        path.write_bytes(b"x")
        assert word in str(html(written(path)))


def test_names_cannot_leave_the_link(file):
    for name in ('"><img src=x>.html', "a#b?c.html", "a:b.html"):
        path = Path(name)
        path.write_bytes(b"x")
        link = html(written(path))
        assert link is not None
        assert link.count("<") == 2
        href = link.split('"')[1]
        assert not set(href) & set("#?<>")
        assert not href.startswith("a:")


def test_a_name_that_is_not_utf_8_has_a_link(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path / "M") + b"\xfcller.html"))
    path.write_bytes(b"12")
    html = written(path)._repr_html_()
    assert html.encode()  # no surrogates, which no message of a kernel may hold
    assert "M%FCller.html" in html


def test_what_is_no_file_shows_no_link(file, tmp_path):
    assert html(written(tmp_path)) is None
    assert html(written(tmp_path / "gone.html")) is None


def test_the_link_starts_at_the_folder_of_the_notebook(file, tmp_path, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", str(tmp_path / "out" / "book.ipynb"))
    assert 'href="a%20page.html"' in str(html(written(file)))
    monkeypatch.setenv("JPY_SESSION_NAME", "1234")  # no path: hosts may put an id there
    assert 'href="out/a%20page.html"' in str(html(written(file)))


def test_a_shell_that_moved_still_links_to_where_it_started(file, tmp_path):
    code = (
        "import os, json; from pathlib import Path; from IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance(); os.chdir('out')\n"
        "from dpt.written import written\n"
        "print(json.dumps(shell.display_formatter.format(written(Path('a page.html')))[0]))"
    )
    folder = str(Path(dpt.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": folder},
        capture_output=True,
        text=True,
    )
    shown = json.loads(done.stdout.splitlines()[-1])
    assert 'href="out/a%20page.html"' in shown["text/html"]
    assert "a page.html" in shown["text/plain"]


def test_whatever_writes_a_file_returns_its_path_as_a_link(tmp_path):
    model = tiny_model()
    with probes.capture(model, "norms") as cap:
        depth = model.predict(IMAGE, size=70)
    replay = probes.FusionReplay(model, IMAGE, size=70)
    paths = [
        cap.save(tmp_path / "cap.safetensors"),
        dpt.save(model, tmp_path / "model.safetensors"),
        depth_files.write(tmp_path / "depth.npy", depth_files.npy(depth)),
        probes.animate(replay, {}, {"fusion.2": -2.0}, tmp_path / "film.gif", frames=2),
        DepthExplorer(model, IMAGE, size=70).to_html(tmp_path / "depth.html"),
    ]
    for path in paths:
        assert path.parent == tmp_path
        assert path.name in str(html(path))
