"""A handle for one child process that decodes images: starts it, asks it, ends it when it is overdue.

`decode_worker` is the program of the child. `decoding` runs several of them.

A child is overdue by the time that this process has watched it, not by the clock on the wall. A process that was
suspended (Ctrl-Z, a batch scheduler, a closed laptop) finds the clock far ahead when it continues, and the answer in
the pipe.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import IO, cast

import numpy as np

from dpt.trouble import is_machine_trouble

from ..errors import UnavailableError
from ..interpreter import NO_PYTHON, python_program
from . import decode_worker
from .decode_worker import Answer, Request, Settings

START = 120.0  # seconds that a child may take to import torch from a busy disk
STARTS = 3  # attempts
PAUSE = 0.5  # seconds between attempts
BURIAL = 10.0  # seconds for a killed process to end. One that waits for a lost network share does not end
# Signals that come from outside: the system's, for lack of memory, or a person's. A decoder that crashes gets others.
_FROM_OUTSIDE = frozenset(
    getattr(signal, name) for name in ("SIGKILL", "SIGTERM", "SIGHUP", "SIGINT", "SIGALRM", "SIGXCPU")
    if hasattr(signal, name)
)  # fmt: skip


class DecoderError(UnavailableError):
    """The child processes do not start. The images are not the cause."""


class ProcessDied(Exception):
    """A child ended before it answered. The message completes a sentence that begins with the image's name.

    Attributes:
        machine: Whether the machine is to blame, not the image.
        crashed: Whether the decoder crashed.
        stuck: Whether the file could not be read in time.
    """

    def __init__(self, message: str, machine: bool = False, crashed: bool = False, stuck: bool = False):
        super().__init__(message)
        self.machine, self.crashed, self.stuck = machine, crashed, stuck


class DecodeProcess:
    """One child process. It starts with the first request, and starts again after it died.

    One thread calls `ask`. Other threads may call `check_time` and `end`.

    Attributes:
        video: Path of the last video whose frames this child read.
    """

    def __init__(self, settings: Settings):
        self._settings = settings
        self._timeout = settings["timeout"]
        self._lock = threading.Lock()  # check_time must not kill a child that has just answered
        self._process: subprocess.Popen[bytes] | None = None
        self._left: float | None = None  # seconds until the child is overdue
        self._checked = 0.0  # when `_left` was counted
        self._overdue = False
        self._reading = False  # the child has not yet read the file
        self._ended = False
        self.video: str | None = None

    def ask(self, request: Request, array: np.ndarray | None) -> tuple[Answer, list[np.ndarray]]:
        """Sends a request and waits for the answer.

        Args:
            request: The image to decode.
            array: Its pixels, if it was given as an array.

        Raises:
            ProcessDied: The child ended before it answered.
            DecoderError: The child does not start.
        """
        process = self._process or self._started()
        self._reading = array is None and request["frame"] is None
        self._set_clock(self._timeout)
        try:
            decode_worker.send(_stdin(process), request, [] if array is None else [array])
            answer, arrays = decode_worker.receive(_stdout(process), self._stop_clock, self._note_read)
        except (OSError, EOFError, ValueError, MemoryError) as error:
            raise self._death(error) from error
        finally:
            self._stop_clock()
        return cast(Answer, answer), arrays

    def _started(self) -> subprocess.Popen[bytes]:
        reason = ""
        for _ in range(STARTS):
            if self._ended:
                break
            try:
                process = self._spawn()
            except OSError as error:
                reason = error.strerror or str(error)
                if not is_machine_trouble(error):
                    break
                time.sleep(PAUSE)
                continue
            self._set_clock(START)
            try:
                decode_worker.send(_stdin(process), self._settings)
                answer, _ = decode_worker.receive(_stdout(process))
            except (OSError, EOFError, ValueError) as error:
                reason = f"it took more than {START:g} seconds" if self._overdue else str(error)
                reason = f"{reason} ({describe_exit(self.reap(patience=5.0))})"
                continue
            finally:
                self._stop_clock()
            if "failed" in answer:
                self.reap()
                raise _start_error(f"\n{answer['failed']}")
            return process
        raise _start_error(f" {reason}")

    def _spawn(self) -> subprocess.Popen[bytes]:
        program = python_program()
        if program is None:
            raise DecoderError(f"{NO_PYTHON}. Decode with workers=0")
        # The child imports what this process can import. It uses one thread, because there are several children.
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [program, "-P", decode_worker.__file__],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # Ctrl-C in the terminal does not reach the child
        )
        with self._lock:
            self._process, self._overdue = process, False
            if self._ended:
                process.kill()
        return process

    def _death(self, error: BaseException) -> ProcessDied:
        """Reaps the child and says how it ended."""
        code = self.reap(patience=5.0 if isinstance(error, (EOFError, BrokenPipeError)) else 0.0)
        if self._overdue:
            what, stuck = "read" if self._reading else "decoded", self._reading
            return ProcessDied(f"was not {what} within {self._timeout:g} seconds", machine=stuck, stuck=stuck)
        if isinstance(error, MemoryError):
            return ProcessDied("needs more memory than is available", machine=True)
        ended = describe_exit(code)
        if -code in _FROM_OUTSIDE:
            return ProcessDied(f"was not decoded, because its process was killed ({ended})", machine=True)
        return ProcessDied(f"crashed the process that decoded it ({ended})", crashed=True)

    def reap(self, patience: float = 0.0) -> int:
        """Ends the process and closes its pipes.

        Args:
            patience: Seconds to wait until it ends by itself.

        Returns:
            Its exit code.
        """
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return 0
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)  # the pipe closes shortly before the process ends
        process.kill()
        _stdin(process).close()
        _stdout(process).close()
        try:
            return process.wait(BURIAL)
        except subprocess.TimeoutExpired:
            return -getattr(signal, "SIGKILL", 9)

    def _note_read(self) -> None:
        self._reading = False

    def _set_clock(self, seconds: float) -> None:
        with self._lock:
            self._left, self._checked = seconds, time.monotonic()

    def _stop_clock(self) -> None:
        with self._lock:
            self._left = None

    def check_time(self, longest: float) -> None:
        """Kills the process if it is overdue.

        Args:
            longest: Seconds since the last check that count at most. This process has slept through the rest.
        """
        with self._lock:
            if self._left is None or self._process is None:
                return
            now = time.monotonic()
            self._left -= min(now - self._checked, longest)
            self._checked = now
            if self._left < 0 and not _has_answered(self._process):
                self._overdue = True
                self._process.kill()

    def end(self) -> None:
        """Kills the process for good. The thread that waits in `ask` sees it die."""
        with self._lock:
            self._ended = True
            if self._process is not None:
                self._process.kill()


def _start_error(reason: str) -> DecoderError:
    return DecoderError(f"the decoding process ({sys.executable}) does not start:{reason}")


def _has_answered(process: subprocess.Popen[bytes]) -> bool:
    """Whether bytes wait in the pipe. On Windows, pipes cannot be asked."""
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(_stdout(process), select.POLLIN)
    return any(event & select.POLLIN for _, event in poll.poll(0))


def _stdin(process: subprocess.Popen[bytes]) -> IO[bytes]:
    return cast("IO[bytes]", process.stdin)


def _stdout(process: subprocess.Popen[bytes]) -> IO[bytes]:
    return cast("IO[bytes]", process.stdout)


def describe_exit(code: int) -> str:
    """The exit code of a process in words: "SIGSEGV", or "exit code 1"."""
    if code >= 0:
        return f"exit code {code}"
    return signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
