"""The terminal shows what the program says, whatever the names of files and the encoding are."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import dpt
from tests.probes.cli.commands import dpt_workbench

ROOT = Path(__file__).parents[3]
FORGED = "dpt-workbench: 0 images of the run failed"
NAMES = {  # as given, as shown
    "\x1b]0;PWNED\x07\x1b[2J": "\\x1b]0;PWNED\\x07\\x1b[2J",
    f"x\n{FORGED}": f"x\\n{FORGED}",
    "b\x9b31mred": "b\\x9b31mred",
    "\u202egpj.exe": "\\u202egpj.exe",
    "a\u2028b\x85c": "a\\u2028b\\x85c",
}
RAW = "\x1b\x07\x9b\u202e\u2028\x85"

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows allows no such names")


@pytest.fixture
def workbench(tmp_path: Path) -> Callable[..., tuple[int, list[str], list[str]]]:
    """Runs a command line in a process of its own: (exit code, lines of stdout, lines of stderr)."""

    def run(*arguments: object, **environment: str) -> tuple[int, list[str], list[str]]:
        command = [sys.executable, "-c", "from probes.cli import app; app()", *map(str, arguments)]
        encoding = environment.get("PYTHONIOENCODING", "utf-8")
        settings = {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, capture_output=True, env=os.environ | settings | environment, cwd=tmp_path, check=False
        )
        out, err = (stream.decode(encoding).split("\n") for stream in (done.stdout, done.stderr))
        return done.returncode, out, err

    return run


def assert_clean(out: list[str], err: list[str]):
    for line in [*out, *err]:
        assert not set(RAW) & set(line), line
        assert not line.startswith(FORGED)


@pytest.fixture
def hostile(tmp_path: Path, photo: Path) -> Path:
    """A folder with good and broken images of hostile names."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name in NAMES:
        shutil.copy(photo, folder / f"{name}.png")
        (folder / f"{name}.jpg").write_bytes(b"not an image")
    return folder


def test_names_are_spelled_out_by_depth(workbench, hostile: Path, checkpoint: Path, tmp_path: Path):
    images = [hostile / f"{name}{suffix}" for name in NAMES for suffix in (".png", ".jpg")]
    for image in images[::2]:
        image.rename(image.with_name(f"good {image.name}"))
    images[::2] = [image.with_name(f"good {image.name}") for image in images[::2]]
    code, out, err = workbench("depth", *images, "--model", checkpoint, "--size", 28, "--out", tmp_path / "out")
    assert code == 3, err
    assert_clean(out, err)
    assert out == [*(f"{tmp_path}/out/good {shown}_depth.png" for shown in NAMES.values()), ""]
    for name, shown in NAMES.items():
        assert (tmp_path / "out" / f"good {name}_depth.png").is_file()
        assert any(line.startswith(f"dpt-workbench: images/{shown}.jpg: ") for line in err)


def test_names_are_spelled_out_by_capture_and_verify(workbench, hostile: Path, checkpoint: Path, tmp_path: Path):
    run = tmp_path / f"run\x1b[2J\n{FORGED}"
    code, out, err = workbench(
        "capture", hostile, "--out", run, "-p", "norms", "--model", checkpoint, "--size", 28, "--workers", 0
    )
    assert code == 3, err
    assert_clean(out, err)
    text = "\n".join(err)
    for shown in NAMES.values():
        assert f"dpt-workbench: {shown}.jpg: " in text.replace("\\\\", "\\")
    assert any(f"run\\x1b[2J\\n{FORGED}" in line for line in out)
    code, out, err = workbench("verify", run)
    assert code == 0, err
    assert_clean(out, err)


@pytest.mark.parametrize("debug", [[], ["--debug"]], ids=["", "debug"])
@pytest.mark.parametrize(
    "command",
    [
        ["depth", "{}.png", "--out", "out"],
        ["depth", "{}.png", "--out", "out", "--model", "{}"],
        ["depth", "photo.png", "--out", "out", "--colormap", "{}"],
        ["depth", "photo.png", "--out", "out", "--size", "{}"],
        ["capture", "{}.png", "--out", "run", "-p", "norms"],
        ["capture", "photo.png", "--out", "run", "-p", "{}"],
        ["capture", "photo.png", "--out", "run", "-p", "norms", "--frames", "{}"],
        ["verify", "{}"],
        ["inspect", "{}.pth"],
        ["inspect", "{}"],
        ["export-onnx", "demo", "{}/a.onnx"],
        ["export-onnx", "demo", "a.onnx", "--size", "{}"],
        ["demo", "--sample", "{}"],
        ["lab", "{}"],
        ["bench", "forward", "--models", "{}"],
        ["bench", "{}"],
        ["{}"],
        ["--{}"],
        ["models", "{}"],
        ["models", "--here", "--{}"],
    ],
    ids=" ".join,
)
def test_arguments_are_spelled_out_in_errors(command: list[str], debug: list[str], photo: Path, monkeypatch):
    monkeypatch.chdir(photo.parent)
    for name in NAMES:
        result = dpt_workbench(*debug, *(argument.format(name) for argument in command))
        assert result.exit_code in (1, 2), result.output
        assert_clean(result.stdout.split("\n"), result.stderr.split("\n"))


def test_a_traceback_cannot_be_used_either(workbench, tmp_path: Path):
    for name in NAMES:
        (tmp_path / f"{name}.pth").write_bytes(b"junk")
        code, out, err = workbench("--debug", "inspect", f"{name}.pth")
        assert code == 1
        assert "Traceback (most recent call last):" in err
        assert_clean(out, err)


def test_warnings_become_notes(monkeypatch: pytest.MonkeyPatch):
    def warn(*_: object, **__: object) -> Iterator[None]:
        warnings.warn(f"\x1b[2Jx\n{FORGED}", UserWarning, stacklevel=1)
        return iter(())

    monkeypatch.setattr(dpt, "available", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        result = dpt_workbench("models", "--json")
    assert result.exit_code == 0
    assert result.stderr == f"note: \\x1b[2Jx {FORGED}\n"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_narrow_encoding_ends_nothing(workbench, photo: Path, checkpoint: Path, tmp_path: Path, encoding: str):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a", "Müller 東京 😀", "z"):
        shutil.copy(photo, folder / f"{name}.png")
    narrow = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    options = ["--model", checkpoint, "--size", 28, "--out"]
    images = sorted(folder.iterdir())
    code, out, err = workbench("depth", *images, *options, tmp_path / "out", **narrow)
    assert code == 0, err
    u = "ü" if encoding == "cp1252" else "\\xfc"
    stems = (f"M{u}ller \\u6771\\u4eac \\U0001f600", "a", "z")
    assert out == [*(f"{tmp_path}/out/{stem}_depth.png" for stem in stems), ""]
    assert len(list((tmp_path / "out").iterdir())) == 3
    (folder / "東.png").write_bytes(b"not an image")
    code, out, err = workbench("capture", folder, "-p", "norms", *options, tmp_path / "run", "--workers", 0, **narrow)
    assert code == 3, err
    assert out[0].startswith("captured        3 images")
    assert err[0].startswith("dpt-workbench: \\u6771.png: ")


def test_a_locale_without_letters_ends_nothing(workbench, photo: Path, checkpoint: Path, tmp_path: Path):
    image = tmp_path / "Müller 東京.png"
    shutil.copy(photo, image)
    c = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    code, out, err = workbench("depth", image, "--model", checkpoint, "--size", 28, "--out", tmp_path / "out", **c)
    assert code == 0, err
    assert out[0].startswith(f"{tmp_path}/out/M\\udcc3\\udcbcller ")
    assert (tmp_path / "out" / "Müller 東京_depth.png").is_file()


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path):
    for arguments in (["models"], ["models", "--json"], ["inspect", "demo", "--points"], ["--help"]):
        process = subprocess.Popen(
            [sys.executable, "-c", "from probes.cli import app; app()", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() in (0, 1)
        process.stderr.close()


# The kind: nothing else in the programs of this project writes to a terminal.

WRITERS = {"print", "secho", "write", "writelines", "print_exc", "print_exception"}
TERMINAL = {"sys.stdout", "sys.stderr", "typer", "click", "rich", "tqdm", "progress", "bar", "traceback", "self.bar"}


def direct_writes(source: str) -> list[str]:
    """Calls that write to the terminal without `echo`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name, _, method = ast.unparse(node.func).rpartition(".")
        if (not name and method == "print") or (name in TERMINAL and method in {*WRITERS, "echo", "Console"}):
            found.append(ast.unparse(node))
    return found


def test_only_echo_writes_to_the_terminal():
    files = [*(ROOT / "probes" / "cli").glob("*.py"), *(ROOT / "dpt" / "demo").glob("*.py")]
    assert len(files) > 15
    assert {file.name: writes for file in files if (writes := direct_writes(file.read_text("utf-8")))} == {}


@pytest.mark.parametrize(
    "line",
    ["print(name)", "typer.echo(name)", "sys.stderr.write(name)", "progress.write(name)", "traceback.print_exc()"],
)
def test_the_check_notices_a_direct_write(line: str):
    """The control for the test above."""
    assert direct_writes(line) == [line]
    assert direct_writes("echo(name)\nfile.write(name)\n") == []
