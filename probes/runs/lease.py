"""Keeps a run to one writer at a time, also where file locks do not hold.

Problem. A lock works between the processes of one machine. Network shares often have none, or one per machine, and a
lock that a killed machine held may stay for ever. Two writers then remove each other's unfinished parts.

Approach. A writer holds two things: the lock on the file ``lock``, where the system has locks, and a lease, the file
``lease``, which says who writes and carries a counter that a thread increases every few seconds. A lease counts as
abandoned if its process is known to be dead (same machine), or if its counter stands still for `STALE` seconds. The
observer measures these seconds with its own clock, so the clocks of two machines need not agree. A writer whose lease
was taken over notices before its next commit and stops.

Limit. A share that delays reading by more than `STALE` seconds can make a live writer look dead. Nothing is lost even
then: parts are never replaced, and the writer that lost its lease stops.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
import secrets
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

from dpt.printable import printable
from dpt.writing import TEMPORARY, sync_folder, write_all

from .disk import read_inside
from .errors import RunLockedError

LOCK, LEASE = "lock", "lease"
BEAT = 2.0  # seconds between two steps of the counter
STALE = 15.0  # seconds without a step after which a lease is abandoned
PAUSE = 0.2  # seconds between two looks at somebody else's lease
SETTLE = 0.5  # seconds after which only one of two that take over still finds its own lease
WRITER = r"[0-9a-f]{8}-[0-9]{1,10}-[0-9]{1,20}"  # machine, process, start of the process
_LARGEST = 4096
_HELD = (errno.EACCES, errno.EAGAIN)
_NO_LOCKS = tuple(
    getattr(errno, name) for name in ("ENOSYS", "EOPNOTSUPP", "ENOTSUP", "ENOLCK", "EINVAL") if hasattr(errno, name)
)
_OPEN = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_active: set[str] = set()  # leases that this process holds


# Who writes -----------------------------------------------------------------------------------------------------------


def this_writer() -> str:
    """Names this process in file names: machine, process and its start, e.g. "5f2c01ab-4711-99"."""
    return _writer(os.getpid(), platform.node())


@cache
def _writer(pid: int, host: str) -> str:
    return f"{_machine(host)}-{pid}-{_started(pid) or 0}"


@cache
def _machine(host: str) -> str:
    """Digest of the machine since its last start, and of the container in which its process numbers are valid."""
    facts = [host]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        with suppress(OSError):
            facts.append(os.readlink(path) if "/ns/" in path else Path(path).read_text())
    return hashlib.sha256("\n".join(facts).encode(errors="replace")).hexdigest()[:8]


def _started(pid: int) -> int | None:
    """When a process started, in ticks since the machine did. None if it does not run, 0 if that is all we know."""
    try:
        status = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except FileNotFoundError:
        return None if Path("/proc/self/stat").exists() else _runs(pid)
    except OSError:
        return _runs(pid)
    return None if status[0] in (b"Z", b"X") else int(status[19])  # a zombie writes nothing


def _runs(pid: int) -> int | None:
    if os.name == "nt":  # os.kill would end the process
        return 0
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:  # somebody else's process
        pass
    return 0


def is_dead(writer: str) -> bool:
    """Whether a writer, as in `this_writer`, is known to be dead. False also if that cannot be known from here."""
    machine, pid, started = writer.split("-")
    if machine != this_writer().split("-")[0]:
        return False
    now = _started(int(pid))
    return now is None or (now != int(started) and 0 not in (now, int(started)))


# The lease ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Holder:
    """Content of the file `lease`, except for the counter."""

    writer: str
    host: str
    id: str
    locked: bool  # whether it also holds the lock

    def __str__(self) -> str:
        return f"process {self.writer.split('-')[1]} on {printable(self.host, 60)}"

    def content(self, beat: int) -> bytes:
        text = json.dumps({"writer": self.writer, "host": self.host, "id": self.id, "locked": self.locked})
        return f"{beat:012d} {text}\n".encode()

    @classmethod
    def parsed(cls, content: bytes) -> _Holder | None:
        """None if the content is not that of a lease, e.g. after a power cut."""
        try:
            given = json.loads(content[13:])
            holder = cls(*(given[key] for key in ("writer", "host", "id", "locked")))
            texts = isinstance(holder.host, str) and isinstance(holder.id, str)
            return holder if texts and re.fullmatch(WRITER, holder.writer) else None
        except (ValueError, TypeError, KeyError, RecursionError):
            return None


class Lease:
    """The right to write to a run. `acquire` creates it; end it with `release`.

    Attributes:
        root: Folder of the run.
    """

    def __init__(self, root: Path, holder: _Holder, descriptor: int, lock: int | None):
        self.root = root
        self._holder, self._descriptor, self._lock = holder, descriptor, lock
        self._ended = threading.Event()
        self._guard = threading.Lock()
        _active.add(holder.id)
        self._thread = threading.Thread(target=self._beat, name="lease of a run", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        beat = 0
        while not self._ended.wait(BEAT):
            beat += 1
            with self._guard, suppress(OSError):  # a share that is away for a moment
                if not self._ended.is_set():
                    _write_at_start(self._descriptor, f"{beat:012d}".encode())

    def check(self) -> None:
        """Raises RunLockedError if another writer has taken over."""
        content = _read(self.root)
        holder = None if content is None else _Holder.parsed(content)
        if holder is None or holder.id != self._holder.id:
            by = f"by {holder}" if holder else "or its lease was removed"
            raise RunLockedError(
                errno.EAGAIN,
                f"the run {self.root} was taken over {by}. What this process has committed is stored; repeat the call "
                "when the other writer has ended",
            )

    def release(self) -> None:
        """Ends the lease and releases the lock. Does nothing the second time."""
        with self._guard:
            if self._ended.is_set():
                return
            self._ended.set()
            with suppress(OSError):
                os.close(self._descriptor)
            with suppress(OSError):
                content = _read(self.root)
                holder = None if content is None else _Holder.parsed(content)
                if holder is not None and holder.id == self._holder.id:
                    os.unlink(self.root / LEASE)
            _active.discard(self._holder.id)
            if self._lock is not None:
                with suppress(OSError):
                    os.close(self._lock)


def revoke(root: Path) -> None:
    """Takes lock and lease from whoever has them: the next `acquire` gets new ones. The other writer stops by itself.

    Raises:
        OSError: As the system raises it.
    """
    for name in (LEASE, LOCK):
        with suppress(FileNotFoundError):
            os.unlink(root / name)


def acquire(root: Path) -> Lease:
    """Takes the lock and the lease of a run's folder, which is created if needed.

    Where the lock does not tell, this waits up to `STALE` seconds to see whether another writer is alive.

    Args:
        root: Folder of the run.

    Raises:
        RunLockedError: Another process is writing.
        OSError: As the system raises it.
    """
    if not root.exists():
        root.mkdir(parents=True, exist_ok=True)
        sync_folder(root.absolute().parent)
    lock = _lock(root)
    try:
        return _lease(root, lock)
    except BaseException:
        if lock is not None:
            os.close(lock)
        raise


def _lease(root: Path, lock: int | None) -> Lease:
    holder = _Holder(this_writer(), platform.node(), secrets.token_hex(8), lock is not None)
    began = time.monotonic()
    first: bytes | None = None
    while True:
        with suppress(FileExistsError):
            return _created(root, holder, lock)
        content = _read(root)
        if content is None:
            time.sleep(PAUSE)
            continue
        other = _Holder.parsed(content)
        if other is not None and _is_abandoned(other, lock is not None):
            lease = _taken(root, holder, lock, settle=lock is None)
        elif time.monotonic() - began < STALE:
            first = content if first is None else first
            time.sleep(PAUSE)
            continue
        elif content != first:
            raise _locked_error(root, other)
        else:
            lease = _taken(root, holder, lock, settle=True)
        if lease is not None:
            return lease
        began, first = time.monotonic(), None


def _is_abandoned(other: _Holder, locked: bool) -> bool:
    """Whether a lease is known to be abandoned: its process is dead, or has given up the lock that we hold."""
    mine = this_writer()
    if other.writer == mine:
        return other.id not in _active
    same_machine = other.writer.split("-")[0] == mine.split("-")[0]
    return is_dead(other.writer) or (same_machine and locked and other.locked)


def _created(root: Path, holder: _Holder, lock: int | None) -> Lease:
    """Raises FileExistsError if there is a lease."""
    descriptor = os.open(root / LEASE, _OPEN | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        write_all(descriptor, holder.content(0))
    except BaseException:
        os.close(descriptor)
        with suppress(OSError):
            os.unlink(root / LEASE)
        raise
    return Lease(root, holder, descriptor, lock)


def _taken(root: Path, holder: _Holder, lock: int | None, settle: bool) -> Lease | None:
    """Replaces the lease of another writer. Returns None if a third one did so at the same time."""
    temporary = root / f"{TEMPORARY}{holder.writer}-{secrets.token_hex(4)}-{LEASE}"
    descriptor = os.open(temporary, _OPEN | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        write_all(descriptor, holder.content(0))
        os.replace(temporary, root / LEASE)
    except BaseException:
        os.close(descriptor)
        with suppress(OSError):
            os.unlink(temporary)
        raise
    if settle:
        time.sleep(SETTLE)
        if (content := _read(root)) is None or _Holder.parsed(content) != holder:
            os.close(descriptor)
            return None
    return Lease(root, holder, descriptor, lock)


def _read(root: Path) -> bytes | None:
    """Content of the lease; None if there is none."""
    try:
        return read_inside(root, LEASE, _LARGEST)  # opening a file on a network share asks its server
    except FileNotFoundError:
        return None


def _locked_error(root: Path, other: _Holder | None) -> RunLockedError:
    who = f" ({other})" if other else ""
    return RunLockedError(
        errno.EAGAIN,
        f"another process is writing to {root}{who}. Wait until it ends, or capture into another folder. If it hangs, "
        "or its machine is gone, take over with take_over=True (--take-over)",
    )


# The lock -------------------------------------------------------------------------------------------------------------


def _lock(root: Path) -> int | None:
    """Locks the file `lock`. Returns its descriptor, which holds the lock; None if the system has no locks here.

    Raises:
        RunLockedError: Another process holds the lock.
    """
    descriptor = os.open(root / LOCK, _OPEN, 0o666)
    try:
        if _try_lock(descriptor):
            return descriptor
        content = _read(root)
        raise _locked_error(root, None if content is None else _Holder.parsed(content))
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, RunLockedError) or error.errno not in _NO_LOCKS:
            raise
        return None


def _try_lock(descriptor: int) -> bool:
    """Returns False if another process holds the lock. Raises OSError if there are no locks."""
    try:
        if os.name == "nt":
            msvcrt: ModuleType = __import__("msvcrt")
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return False
        raise
    return True


def _write_at_start(descriptor: int, data: bytes) -> None:
    if hasattr(os, "pwrite"):
        os.pwrite(descriptor, data, 0)
    else:
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, data)
