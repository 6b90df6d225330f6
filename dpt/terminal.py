"""The only way in which this project writes to a terminal: `echo`, and `guarded`, which protects the streams.

Problem. Names of files, keys of checkpoints and messages of other libraries reach the terminal. An escape sequence in
one of them moves the cursor or renames the window, and a line feed forges a line of ours. A terminal or pipe of a
narrow encoding (ASCII in containers and cron, cp1252 on Windows) cannot show some names, and Python raises an error.

Approach. `echo` prints each argument as one line and spells out what `printable` spells out. `guarded` covers all else
that writes to stdout and stderr: progress bars, logging, warnings, tracebacks, usage messages of other libraries. It
lets line feeds, carriage returns and tabs pass. Characters outside the encoding are spelled out, too.

Limits. Libraries in C and other processes write to the file descriptor and are not covered.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, TextIO, cast

from .printable import is_printable, printable

LAYOUT = "\n\r\t"  # what progress bars and tables need


def echo(*lines: object, err: bool = False) -> None:
    """Prints each argument as one line.

    Args:
        *lines: Any objects. A line feed inside one of them is spelled out. To print a text of several lines of our own,
            pass ``*text.split("\\n")``; make names in it `printable` first.
        err: Print to stderr instead of stdout.

    Raises:
        OSError: The stream cannot be written, e.g. because the reader of a pipe is gone (BrokenPipeError).
    """
    stream: TextIO | None = sys.stderr if err else sys.stdout
    if stream is None:  # closed by the caller of the process
        return
    for line in lines:
        text = str(line)
        _write(stream, printable(text, len(text)) + "\n")
    stream.flush()


def echo_traceback(error: BaseException) -> None:
    """Prints the traceback of an error to stderr. Further lines of its message are indented, and so forge no lines."""
    for entry in traceback.format_exception(error):
        first, *others = entry.strip("\n").split("\n")
        echo(first, *(line if line.startswith(" ") else f"    {line}" for line in others), err=True)


@contextmanager
def guarded() -> Iterator[None]:
    """Replaces stdout and stderr by streams that spell out control characters and what their encoding lacks.

    For the main function of a program: an exception is shown as its traceback. A pipe whose reader is gone ends the
    program quietly.

    Raises:
        SystemExit: Instead of any exception, with code 1.
    """
    before = sys.stdout, sys.stderr
    streams = [stream for stream in before if stream is not None]  # None: closed by the caller of the process
    reconfigured = {stream: stream.errors for stream in streams if hasattr(stream, "reconfigure")}
    for stream in reconfigured:
        cast(Any, stream).reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = (cast(TextIO, stream and _Guarded(stream)) for stream in before)
    failed = True
    try:
        yield
        failed = False
    except BrokenPipeError:
        raise SystemExit(1) from None
    except Exception as error:
        echo_traceback(error)
        raise SystemExit(1) from error
    finally:
        sys.stdout, sys.stderr = before
        for stream in streams:
            _flush(stream, quietly=failed)
        for stream, errors in reconfigured.items():
            with suppress(OSError, ValueError):  # reconfigure flushes
                cast(Any, stream).reconfigure(errors=errors)


class ArgumentParser(argparse.ArgumentParser):
    """A parser whose error messages are one printable line, whatever the arguments."""

    def error(self, message: str) -> NoReturn:
        super().error(printable(message, len(message)))


class _Guarded:
    """A stream that spells out control characters. All else is that of the stream behind it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if not isinstance(text, str):  # click asks in this way whether a stream is binary
            raise TypeError(f"expected a str, got {type(text).__name__}")
        _write(self._stream, _spelled_out(text))
        return len(text)

    def writelines(self, lines: Iterator[str]) -> None:
        for line in lines:
            self.write(line)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stream)

    def __getattr__(self, name: str) -> Any:  # Any: as the stream behind it
        return getattr(self._stream, name)


def _spelled_out(text: str) -> str:
    """The text without control characters except those of `LAYOUT`."""
    if text.isprintable():
        return text
    return "".join(c if is_printable(c) or c in LAYOUT else ascii(c)[1:-1] for c in text)


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
    except UnicodeEncodeError:  # a stream that is not guarded
        encoding = stream.encoding or "ascii"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))


def _flush(stream: TextIO, quietly: bool) -> None:
    """Flushes a stream. If its reader is gone, drops the rest, which Python would complain about at exit.

    Args:
        stream: The stream.
        quietly: Another error is on its way and explains all errors of the stream.
    """
    try:
        stream.flush()
    except ValueError:  # the stream is closed
        pass
    except OSError as error:
        with suppress(OSError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
        if error.errno != errno.EPIPE and not quietly:
            raise
