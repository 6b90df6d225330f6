"""What reaches the terminal: lines that cannot be forged, in any encoding, without tracebacks for closed pipes."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from dpt.terminal import ArgumentParser, echo, echo_traceback, guarded

ROOT = Path(__file__).parents[2]
HOSTILE = "a\x1b[2J\x07\x9b31m\u202eb\nforged\r\x85c"
SHOWN = "a\\x1b[2J\\x07\\x9b31m\\u202eb\\nforged\\r\\x85c"


def test_a_line_stays_one_line(capsys: pytest.CaptureFixture[str]):
    echo(HOSTILE, "", Path("b\nc"), 3)
    echo(HOSTILE, err=True)
    printed = capsys.readouterr()
    assert printed.out == f"{SHOWN}\n\nb\\nc\n3\n"
    assert printed.err == f"{SHOWN}\n"


def test_a_long_line_is_not_cut(capsys: pytest.CaptureFixture[str]):
    echo("a" * 5000)
    assert capsys.readouterr().out == "a" * 5000 + "\n"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_every_encoding_can_show_every_name(encoding: str, monkeypatch: pytest.MonkeyPatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    echo("Müller 東京 😀 \udcff")
    with guarded():
        print("Müller 東京 😀 \udcff")
    assert stream.errors == "strict"
    plain, behind_guard = stream.buffer.getvalue().decode(encoding).splitlines()
    assert plain == behind_guard
    assert ("Müller" if encoding != "ascii" else "M\\xfcller") in plain
    assert ("東京" if encoding == "utf-8" else "\\u6771\\u4eac") in plain
    assert plain.endswith("\\udcff")


def test_a_closed_stream_takes_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdout", None)
    with guarded():
        echo("a")
        assert sys.stdout is None


def test_the_guard_covers_print_logging_warnings_and_tracebacks(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended, guarded():  # noqa: PT012 # the last line raises it
        print("one\ttwo\r\x1b[2J")
        handler = logging.StreamHandler()
        handler.emit(logging.makeLogRecord({"msg": "logged \x1b[2J"}))
        print(warnings.formatwarning("warned \x1b[2J", UserWarning, "a\x07.py", 1), file=sys.stderr)
        raise ValueError(HOSTILE)
    assert ended.value.code == 1
    printed = capsys.readouterr()
    assert printed.out == "one\ttwo\r\\x1b[2J\n"
    for line in ("logged \\x1b[2J", "a\\x07.py:1: UserWarning: warned \\x1b[2J"):
        assert line in printed.err.splitlines()
    assert printed.err.endswith("ValueError: a\\x1b[2J\\x07\\x9b31m\\u202eb\n    forged\\r\\x85c\n")
    assert "\nforged" not in printed.err
    assert not set("\x1b\x07\x9b\u202e") & set(printed.out + printed.err)


def test_a_traceback_shows_its_frames_and_its_cause(capsys: pytest.CaptureFixture[str]):
    try:
        try:
            raise KeyError("first\nforged")
        except KeyError as error:
            raise ValueError("second\nforged") from error
    except ValueError as error:
        echo_traceback(error)
    lines = capsys.readouterr().err.splitlines()
    assert lines.count("Traceback (most recent call last):") == 2
    assert "ValueError: second" in lines
    assert lines[-1] == "    forged"
    assert "forged" not in lines
    assert f'  File "{__file__}", line' in "\n".join(lines)


def test_the_guard_is_transparent(monkeypatch: pytest.MonkeyPatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stderr", stream)
    with guarded():
        assert sys.stderr.encoding == "ascii"
        assert not sys.stderr.isatty()
        sys.stderr.writelines(["a\n", "b\x1b"])
        with pytest.raises(TypeError):
            sys.stderr.write(b"bytes")
    assert sys.stderr is stream
    assert stream.buffer.getvalue() == b"a\nb\\x1b"


def test_usage_errors_of_a_parser_are_one_line(capsys: pytest.CaptureFixture[str]):
    parser = ArgumentParser(prog="program")
    with pytest.raises(SystemExit):
        parser.parse_args(["a\nprogram: error: forged\x1b[2J"])
    assert capsys.readouterr().err.splitlines()[-1].endswith("a\\nprogram: error: forged\\x1b[2J")


SCRIPT = """
from dpt.terminal import echo, guarded
with guarded():
    for n in range(100_000):
        {statement}
"""


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
@pytest.mark.parametrize("statement", ["echo(n)", "print(n)", "print('x' * 100_000)"])
def test_a_reader_that_leaves_early_is_no_error(statement: str):
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(statement=statement)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdout
    assert process.stderr
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 1
    process.stderr.close()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_said():
    script = "from dpt.terminal import guarded\nwith guarded():\n    print('a')"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", script], stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False
        )
    assert done.returncode != 0
    assert "No space left on device" in done.stderr
