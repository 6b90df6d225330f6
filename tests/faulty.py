"""A disk that fails on demand: counts every call of `os` below a folder, and makes one call fail or kill the process.

The store calls functions through the module `os`, so a test can stop it between any two calls, as a kill or a failing
disk does. Reading a whole file counts as one call.
"""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

BY_PATH = ("open", "mkdir", "rename", "replace", "unlink", "rmdir")
BY_FILE = ("write", "fsync", "fstat", "ftruncate", "close")


@dataclass(frozen=True)
class Call:
    name: str
    path: str  # relative to the folder
    writing: bool = False  # of open
    target: str | None = None  # of rename and replace

    def __str__(self) -> str:
        return f"{self.name}({self.path}{f' -> {self.target}' if self.target else ''})"


@dataclass(frozen=True)
class Fault:
    """A fault at one call.

    Attributes:
        at: Number of the call, from 0.
        how: "error" raises OSError(code), after half of a write; "from here" does so for all later calls, too;
            "before", "after", "within" kill this process; "short" writes fewer bytes than given.
        code: The errno.
    """

    at: int
    how: str
    code: int = 0


def sleeping(descriptor: int) -> None:
    """Replaces fsync in tests that kill processes but not the machine: the system keeps what was written."""


@contextmanager
def disk(root: Path, fault: Fault | None = None, fsync: Callable[[int], None] | None = None) -> Iterator[list[Call]]:
    """Records the calls of this process below root in a list, with a fault if given."""
    calls: list[Call] = []
    names: dict[int, str] = {}  # of open files
    real = {name: getattr(os, name) for name in (*BY_PATH, *BY_FILE)}
    real_open = io.open
    if fsync is not None:
        real["fsync"] = fsync

    def below(path: Any) -> str | None:
        if isinstance(path, int) or not os.fspath(path):
            return None
        relative = os.path.relpath(os.fsdecode(path), root)
        return None if relative.startswith("..") else relative

    def made(call: Call, do: Callable[[], Any], half: Callable[[], Any] | None = None) -> Any:
        number = len(calls)
        calls.append(call)
        if fault is None or number < fault.at or (number > fault.at and fault.how != "from here"):
            return do()
        if fault.how in ("error", "from here"):
            if half is not None and number == fault.at:
                half()
            if call.name == "close":
                do()  # Linux closes the file even if it returns an error
            raise OSError(fault.code, os.strerror(fault.code), call.path)
        if fault.how == "short":
            return (half or do)()
        try:
            if fault.how == "within" and half is not None:
                half()
            elif fault.how != "before":
                do()
        finally:
            os.kill(os.getpid(), signal.SIGKILL)

    def by_path(name: str) -> Callable[..., Any]:
        def called(path: Any, *args: Any, **kwargs: Any) -> Any:
            relative = below(path) if kwargs.get("dir_fd") is None else _at(names, kwargs["dir_fd"], path)
            if relative is None:
                result = real[name](path, *args, **kwargs)
                if name == "open":
                    names.pop(result, None)  # a file object may have closed the file that had this number
                return result
            target = below(args[0]) if name in ("rename", "replace") else None
            writing = name == "open" and bool(args[0] & (os.O_WRONLY | os.O_RDWR))
            result = made(Call(name, relative, writing, target), lambda: real[name](path, *args, **kwargs))
            if name == "open":
                names[result] = relative
            return result

        return called

    def by_file(name: str) -> Callable[..., Any]:
        def called(descriptor: int, *args: Any) -> Any:
            if descriptor not in names:
                return real[name](descriptor, *args)
            half = None
            if name == "write":
                half = lambda: real["write"](descriptor, bytes(args[0])[: max(1, len(args[0]) // 2)])  # noqa: E731
            call = Call(name, names[descriptor])
            if name == "close":
                del names[descriptor]
            return made(call, lambda: real[name](descriptor, *args), half)

        return called

    def opened(path: Any, *args: Any, **kwargs: Any) -> Any:
        relative = below(path)
        if relative is None:
            return real_open(path, *args, **kwargs)
        return made(Call("read", relative), lambda: real_open(path, *args, **kwargs))

    with ExitStack() as stack:
        for name in BY_PATH:
            stack.enter_context(patch.object(os, name, by_path(name)))
        for name in BY_FILE:
            stack.enter_context(patch.object(os, name, by_file(name)))
        stack.enter_context(patch.object(io, "open", opened))
        yield calls


def _at(names: dict[int, str], folder: int, path: Any) -> str | None:
    """Path of an entry of an open folder, as `shutil.rmtree` names it."""
    return os.path.join(names[folder], os.fsdecode(path)) if folder in names else None


# What must be flushed, and in which order -----------------------------------------------------------------------------


def unsynced(calls: list[Call]) -> list[str]:
    """Finds data that a power cut could lose although something on disk refers to it.

    A file must be flushed (fsync) after a write, and a folder after an entry was added: before their folder is renamed
    to its final name, and before the manifest lists them.
    """
    dirty: set[str] = set()  # paths with unflushed changes
    faults = []
    for call in calls:
        folder = os.path.dirname(call.path) or "."
        match call.name:
            case "open" if call.writing:
                dirty |= {call.path, folder}
            case "mkdir":
                dirty |= {call.path, folder}
            case "write":
                if call.path == "manifest.jsonl":
                    # the lists may be lost: they are rebuilt from the parts
                    late = dirty - {call.path, ".", "failures.jsonl", "lock", "lease"}
                    faults += [f"{path} is not on the disk when {call.path} names it" for path in sorted(late)]
                dirty.add(call.path)
            case "fsync":
                dirty.discard(call.path)
            case "rename" | "replace":
                assert call.target is not None
                inside = {path for path in dirty if path == call.path or path.startswith(f"{call.path}/")}
                faults += [f"{path} is not on the disk when {call.path} is renamed" for path in sorted(inside)]
                dirty = {call.target + path.removeprefix(call.path) if path in inside else path for path in dirty}
                dirty |= {os.path.dirname(call.target) or "."}
    lasting = dirty - {"lock", "lease", ".", "failures.jsonl"}
    return faults + [f"{path} is not on the disk at the end" for path in sorted(lasting)]
