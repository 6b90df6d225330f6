"""The directory of an archive is read strictly, and what it claims is compared with the file."""

from __future__ import annotations

import io
import struct
import time
import warnings
import zipfile
from pathlib import Path

import pytest
import torch

import dpt
from dpt import CheckpointError
from dpt.checkpoints import zip_files
from dpt.checkpoints.stored import StoredFile
from dpt.checkpoints.zip_files import read_directory, start_of


def written(path: Path, **entries: bytes) -> bytes:
    with zipfile.ZipFile(path, "w") as target:
        for name, data in entries.items():
            target.writestr(f"a/{name}", data)
    return path.read_bytes()


def test_the_directory_agrees_with_zipfile(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"x": torch.randn(100), "y": torch.randn(3, 5), "empty": torch.zeros(0)}, path)
    with StoredFile(path) as file, zipfile.ZipFile(path) as expected:
        entries = read_directory(file)
        assert [*entries] == expected.namelist()
        for info in expected.infolist():
            entry = entries[info.filename]
            assert (entry.size, entry.crc) == (info.file_size, info.CRC)
            assert file.read(start_of(file, entry), entry.size) == expected.read(info)


def test_sizes_of_more_than_32_bits_are_read(tmp_path):
    """zip64, forced: PyTorch uses it for files above 4 GB."""
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as target, target.open("a/data.pkl", "w", force_zip64=True) as data:
        data.write(b"content")
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\1\2")
    extra = struct.pack("<HHQQ", 1, 16, 7, 7)
    name_length = struct.unpack_from("<H", content, at + 28)[0]
    struct.pack_into("<LL", content, at + 20, 0xFFFFFFFF, 0xFFFFFFFF)
    struct.pack_into("<H", content, at + 30, len(extra))
    content[at + 46 + name_length : at + 46 + name_length] = extra
    end = content.rindex(b"PK\5\6")
    struct.pack_into("<L", content, end + 12, end - at)
    path.write_bytes(content)
    with StoredFile(path) as file:
        (entry,) = read_directory(file).values()
        assert file.read(start_of(file, entry), entry.size) == b"content"


def changed(content: bytes, mark: bytes, offset: int, form: str, value: int) -> bytes:
    found = bytearray(content)
    struct.pack_into(form, found, content.rindex(mark) + offset, value)
    return bytes(found)


END, ENTRY = b"PK\5\6", b"PK\1\2"
LIES = {
    "an entry of 4 GB": lambda c: changed(c, ENTRY, 20, "<LL"[:2], 2**32 - 2),
    "an unpacked size of 3 GB": lambda c: changed(c, ENTRY, 24, "<L", 3 * 2**30),
    "a directory of 4 GB": lambda c: changed(c, END, 12, "<L", 2**32 - 2),
    "a directory behind the file": lambda c: changed(c, END, 16, "<L", 2**32 - 2),
    "65,534 entries": lambda c: changed(c, END, 10, "<H", 65_534),
    "another method": lambda c: changed(c, ENTRY, 10, "<H", 8),
    "a header elsewhere": lambda c: changed(c, ENTRY, 42, "<L", 3),
    "no end": lambda c: c[: c.rindex(END)],
    "another directory": lambda c: changed(c, ENTRY, 0, "<L", 0),
    "a longer name": lambda c: changed(c, ENTRY, 28, "<H", 60_000),
}


@pytest.mark.parametrize("what", LIES)
def test_a_lying_directory_is_refused(what, tmp_path):
    path = tmp_path / "a.pth"
    content = written(path, **{"data.pkl": b"\x80\x02}."})
    path.write_bytes(LIES[what](content))
    with pytest.raises(CheckpointError, match=str(path)) as caught:
        dpt.load(path)
    assert "\n" not in str(caught.value)


def test_overlapping_entries_cannot_claim_more_than_the_file(tmp_path):
    """Many entries that lie in the same bytes, as in archives that unpack to petabytes."""
    path = tmp_path / "a.pth"
    content = written(path, **{"data.pkl": bytes(10_000)})
    at, end = content.rindex(ENTRY), content.rindex(END)
    record = content[at:end]
    names = [record.replace(b"a/data.pkl", b"a/da%06d" % n) for n in range(1000)]
    tail = bytearray(content[end:])
    struct.pack_into("<HHLL", tail, 8, 1001, 1001, len(record) * 1001, at)
    path.write_bytes(content[:at] + record + b"".join(names) + tail)
    with pytest.raises(CheckpointError, match="claim more bytes than the file has"):
        dpt.load(path)


def test_an_archive_of_many_entries_is_refused_in_a_moment(tmp_path):
    path = tmp_path / "a.pth"
    record = struct.pack("<4s6H3L5H2L", ENTRY, *([0] * 9), 1, *([0] * 6))
    count = 500_000
    end = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 0, 0, 0, 0, count, count, (len(record) + 1) * count, 4)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, 4 + (len(record) + 1) * count, 1)
    last = struct.pack("<4s4H2LH", END, 0, 0, 0xFFFF, 0xFFFF, 2**32 - 1, 2**32 - 1, 0)
    path.write_bytes(b"PK\3\4" + (record + b"n") * count + end + locator + last)
    start = time.monotonic()
    with pytest.raises(CheckpointError, match=rf"{count} entries, more than the {zip_files.MOST_ENTRIES}"):
        dpt.load(path)
    assert time.monotonic() - start < 5


def test_compressed_entries_are_refused_before_they_are_unpacked(tmp_path):
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("a/data.pkl", bytes(50_000_000))
    assert path.stat().st_size < 100_000
    with pytest.raises(CheckpointError, match="compressed"):
        dpt.load(path)


def test_two_entries_of_one_name_are_refused(tmp_path):
    path = tmp_path / "a.pth"
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as target:
        warnings.simplefilter("ignore")
        for _ in range(2):
            target.writestr("a/data.pkl", b"\x80\x02}.")
    with pytest.raises(CheckpointError, match="same name"):
        dpt.load(path)


def test_a_torchscript_archive_is_named(tmp_path):
    data = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), data)
    (tmp_path / "a.pt").write_bytes(data.getvalue())
    with pytest.raises(CheckpointError, match="TorchScript"):
        dpt.load(tmp_path / "a.pt")
