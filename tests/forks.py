"""Cheap processes to kill: forks of a server process that has imported everything.

    with Forks() as forks:
        child = forks.start("capture", out)
        child.kill()

Starting Python with torch takes seconds, forking takes milliseconds. The server runs no threads, because locks that
they hold would stay locked in its children.
"""

from __future__ import annotations

import json
import os
import pickle
import selectors
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


class Forks:
    """The server process. One thread at a time may use it; its children run in parallel."""

    def __enter__(self) -> Forks:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.forks"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._ended: dict[int, int] = {}
        assert self._answer() == {"ready": True}
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()

    def start(self, job: str, out: Path, broken: str | None = None, fault: Any = None, **options: Any) -> Child:
        """Runs a function of `tests.runs` on a folder in a new process.

        Args:
            job: Name of the function.
            out: The folder.
            broken: Name of a broken implementation in `tests.broken_writers`.
            fault: A `tests.faulty.Fault`.
            **options: Further arguments of the function.
        """
        log = out.with_name(f"{out.name}.log")
        request: dict[str, Any] = {"job": job, "out": str(out), "log": str(log), "options": options, "broken": broken}
        request["fault"] = None if fault is None else [fault.at, fault.how, fault.code]
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        while "began" not in (answer := self._answer()):
            self._ended[answer["pid"]] = answer["code"]
        return Child(self, answer["began"], log)

    def run(self, job: str, out: Path, **options: Any) -> Child:
        """Like `start`, but waits until the process has ended."""
        child = self.start(job, out, **options)
        child.wait()
        return child

    def code(self, pid: int) -> int:
        while pid not in self._ended:
            answer = self._answer()
            self._ended[answer["pid"]] = answer["code"]
        return self._ended[pid]

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the server process has died")
        return json.loads(line)


class Child:
    def __init__(self, forks: Forks, pid: int, log: Path):
        self._forks, self.pid, self.log = forks, pid, log

    def kill(self, number: int = signal.SIGKILL) -> None:
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return  # it has ended already

    def wait(self) -> int:
        """Its exit code; negative for a signal, as in `subprocess`."""
        return self._forks.code(self.pid)

    @property
    def output(self) -> str:
        """Its output, followed by the result or the traceback of its function."""
        return self.log.read_text()

    def wait_for(self, condition: Callable[[], bool], seconds: float = 30.0) -> None:
        """Waits until a condition is true."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the condition did not become true: {self.output}")
            time.sleep(0.001)


def main() -> None:
    import torch

    torch.set_num_threads(1)
    import zarr  # noqa: F401 - otherwise each child would import it when it writes

    from tests import broken_writers, faulty, runs

    runs.model()
    runs.pictures()
    runs.ENCODED.update(_in_a_child(runs.encode))  # zarr starts a thread
    read, wake = os.pipe()
    for end in (read, wake):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    waiting = selectors.DefaultSelector()
    waiting.register(read, selectors.EVENT_READ)
    waiting.register(0, selectors.EVENT_READ)
    rest = b""
    _reply({"ready": True})
    while True:
        ready = {key.fd for key, _ in waiting.select()}
        if read in ready:
            os.read(read, 4096)
            _reap()
        if 0 in ready:
            data = os.read(0, 65536)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                request = json.loads(line)
                pid = os.fork()
                if pid == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    _child(request, runs, broken_writers, faulty)
                _reply({"began": pid})


def _child(request: dict[str, Any], runs: Any, broken_writers: Any, faulty: Any) -> None:
    code = 1
    try:
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        out = Path(request["out"])
        if request["broken"]:
            broken_writers.install(request["broken"])
        job = getattr(runs, request["job"])
        if request["fault"]:
            with faulty.disk(out, faulty.Fault(*request["fault"]), faulty.sleeping):
                result = job(out, **request["options"])
        else:
            result = job(out, **request["options"])
        print(result, flush=True)
        code = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _in_a_child(function: Any) -> Any:
    """Calls a function in another process and returns its result."""
    read, write = os.pipe()
    if os.fork() == 0:
        with os.fdopen(write, "wb") as file:
            pickle.dump(function(), file)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as file:
        result = pickle.load(file)
    os.wait()
    return result


def _reap() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _reply({"pid": pid, "code": os.waitstatus_to_exitcode(status)})


def _reply(message: Any) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
