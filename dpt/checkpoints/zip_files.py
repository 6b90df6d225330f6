"""Reads the directory of a zip archive that torch.save wrote, strictly.

Python's zipfile reads a directory of any size and describes each entry with about 1 kB. torch.save writes neither
compressed entries nor comments nor bytes before the first entry, so this module refuses what it does not write, and
directories of more entries than a model has. It reads entries of the archive's own file only, from the places that the
directory states.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from .errors import CheckpointError
from .stored import StoredFile

MOST_ENTRIES = 20_000  # a large model with the state of its optimizer has about 3,000

_END = struct.Struct("<4s4H2LH")  # end of central directory
_LOCATOR = struct.Struct("<4sLQL")  # zip64: where the next record is
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_FULL = 0xFFFFFFFF  # a number that stands in the zip64 field
_STORED = 0  # method: not compressed


class Entry(NamedTuple):
    """An entry of an archive."""

    name: str
    header: int  # place of its local header in the file
    size: int  # bytes of its data
    crc: int


def read_directory(file: StoredFile) -> dict[str, Entry]:
    """Reads the entries of an archive, by name.

    Raises:
        CheckpointError: The directory is damaged, too long, or names compressed or repeated entries.
    """
    start, size, count = _find_directory(file)
    if count > MOST_ENTRIES or size > 1000 * MOST_ENTRIES:
        raise CheckpointError(
            f"{file.path} is a zip archive of {count} entries, more than the {MOST_ENTRIES} that a checkpoint can have"
        )
    data = file.read(start, size)
    entries: dict[str, Entry] = {}
    compressed = False
    at = 0
    while at < len(data):
        try:
            fields = _ENTRY.unpack_from(data, at)
        except struct.error as error:
            raise _damaged(file, "its directory ends early") from error
        signature, method, crc, packed, unpacked = fields[0], fields[4], *fields[7:10]
        name_length, extra_length, comment_length, header = *fields[10:13], fields[16]
        name_at = at + _ENTRY.size
        name = data[name_at : name_at + name_length].decode("utf-8", "backslashreplace")
        extra = data[name_at + name_length : name_at + name_length + extra_length]
        at = name_at + name_length + extra_length + comment_length
        if signature != b"PK\1\2" or at > len(data):
            raise _damaged(file, "its directory cannot be read")
        unpacked, packed, header = _wide(file, extra, (unpacked, packed, header))
        compressed |= method != _STORED or packed != unpacked
        if name in entries:
            raise _damaged(file, "two entries have the same name")
        entries[name] = Entry(name, header, packed, crc)
        if len(entries) > MOST_ENTRIES:
            raise _damaged(file, f"it has more than {MOST_ENTRIES} entries")
    # TorchScript compresses its code. The caller refuses it by name.
    if compressed and not any(name.endswith("/constants.pkl") for name in entries):
        raise CheckpointError(
            f"{file.path} is a zip archive with compressed entries, as torch.save does not write. If it was packed for "
            "a download, unpack it"
        )
    if len(entries) != count:
        raise _damaged(file, f"it has {len(entries)} entries and states {count}")
    if sum(entry.size for entry in entries.values()) > file.size:
        raise _damaged(file, "its entries claim more bytes than the file has")
    return entries


def start_of(file: StoredFile, entry: Entry) -> int:
    """The place in the file of the first byte of an entry's data.

    Raises:
        CheckpointError: The local header contradicts the directory, or another record does not follow the data.
    """
    fields = _LOCAL.unpack(file.read(entry.header, _LOCAL.size))
    signature, method, name_length, extra_length = fields[0], fields[3], *fields[9:11]
    start = entry.header + _LOCAL.size + name_length + extra_length
    name = file.read(entry.header + _LOCAL.size, name_length).decode("utf-8", "backslashreplace")
    if signature != b"PK\3\4" or method != _STORED or name != entry.name:
        raise _damaged(file, "the header of an entry contradicts the directory")
    if file.read(start + entry.size, 2) != b"PK":  # every record of an archive starts with these bytes
        raise _damaged(file, "its entries are not contiguous")
    return start


def _find_directory(file: StoredFile) -> tuple[int, int, int]:
    """Start, bytes and entries of the directory, from the record at the end of the file."""
    tail_at = max(0, file.size - _END.size - 0xFFFF)
    tail = file.read(tail_at, file.size - tail_at)
    at = tail.rfind(b"PK\5\6")
    if at < 0 or at + _END.size > len(tail):
        raise _damaged(file, "its directory is missing")
    _, _, _, _, count, size, start, _ = _END.unpack_from(tail, at)
    locator_at = tail_at + at - _LOCATOR.size
    if locator_at >= 0:
        signature, _, end64_at, _ = _LOCATOR.unpack(file.read(locator_at, _LOCATOR.size))
        if signature == b"PK\6\7":
            record = _END64.unpack(file.read(end64_at, _END64.size))
            if record[0] != b"PK\6\6":
                raise _damaged(file, "its directory is missing")
            count, size, start = record[7:10]
    return start, size, count


def _wide(file: StoredFile, extra: bytes, values: tuple[int, int, int]) -> tuple[int, int, int]:
    """Replaces the numbers that do not fit into 32 bits by those of the zip64 field, in the order of the format."""
    found = list(values)
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            field = extra[at + 4 : at + 4 + length]
            for n, value in enumerate(found):
                if value == _FULL:
                    if len(field) < 8:
                        raise _damaged(file, "the size of an entry is missing")
                    found[n] = struct.unpack_from("<Q", field)[0]
                    field = field[8:]
            break
        at += 4 + length
    return found[0], found[1], found[2]


def _damaged(file: StoredFile, reason: str) -> CheckpointError:
    return CheckpointError(f"{file.path} is damaged: {reason}. Get the file again")
