"""PyTorch's .pth and .pt files: zip archives, and the format before PyTorch 1.6.

Both formats are pickles, and a pickle is a program. Files are read with torch.load(weights_only=True), which accepts
tensors and plain containers only. No option of this package loosens that.

A zip archive stores a checksum of each entry. torch ignores them when it maps the file, so they are compared here, at
4 GB/s. The older format has no checksum. There, tensors that share memory or skip elements are refused, because that is
what a damaged offset or stride looks like.
"""

from __future__ import annotations

import io
import mmap
import pickle
import struct
import zipfile
import zlib
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from .contents import CheckpointError, first_few, first_line, printable, unwrap

CHUNK = 1 << 20  # bytes


def read_torch(path: Path, zipped: bool, whole: bool) -> object:
    """Load a file written by torch.save, and check it for damage.

    Args:
        path: The file.
        zipped: Whether it is a zip archive.
        whole: Compare the checksums of all entries. Otherwise skip entries above 1 MB, to avoid reading the whole file.

    Returns:
        The object that was saved.

    Raises:
        CheckpointError: The file is damaged, or it needs code to be run.
    """
    try:
        checked, parts = _check_archive(path, whole) if zipped else (False, {})
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is not a plain file of weights ({_refusal(error)}). Files that need code to be run are never "
            "loaded. Save the state dict alone, preferably as .safetensors"
        ) from error
    except Exception as error:  # a damaged pickle can raise almost any exception
        raise CheckpointError(
            f"{path} is not a complete PyTorch or safetensors file ({first_line(error)}). Get the file again and "
            "compare its size or sha256"
        ) from error
    tensors, _ = unwrap(loaded, str(path))
    if zipped:
        _check_places(path, tensors, parts)
    if not checked:
        _check_memory(path, tensors)
    return loaded


def _check_archive(path: Path, whole: bool) -> tuple[bool, dict[int, int]]:
    """Compare the checksums of an archive; returns (whether it has checksums, start of each entry -> its bytes).

    An entry is read from the place where torch maps it: at its offset, behind a header of the length stated there.
    """
    parts = {}
    with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        if not any(name.endswith("/data.pkl") for name in names):
            raise CheckpointError(f"{path} is a zip archive that PyTorch did not write: {first_few(names)}")
        if len(set(names)) < len(names):
            raise CheckpointError(f"{path} is damaged: two entries have the same name. Get the file again")
        # torch.serialization.set_crc32_options can leave the checksums out; all of them are 0 then.
        checked = any(entry.CRC for entry in entries)
        for entry in entries:
            file.seek(entry.header_offset)
            header = file.read(30)
            if header[:4] != b"PK\3\4" or entry.compress_type != zipfile.ZIP_STORED:
                raise CheckpointError(f"{path} is damaged, or another program packed it. Get the file again")
            start = file.seek(sum(struct.unpack("<HH", header[26:30])), 1)
            parts[start] = entry.file_size
            if checked and (whole or entry.file_size <= CHUNK) and _crc32(file, entry.file_size) != entry.CRC:
                raise CheckpointError(
                    f"{path} is damaged: the checksum of {printable(entry.filename)} does not match. Get the file again"
                )
            file.seek(start + entry.file_size)
            if file.read(2) != b"PK":  # every record of an archive starts with these bytes
                raise CheckpointError(f"{path} is damaged: its entries are not contiguous. Get the file again")
    return checked, parts


def _crc32(file: io.BufferedReader, size: int) -> int:
    """The checksum of the next bytes of a file. A file that ends early has another checksum."""
    buffer = memoryview(bytearray(min(size, CHUNK)))
    crc = 0
    while size > 0 and (count := file.readinto(buffer[:size])):
        crc = zlib.crc32(buffer[:count], crc)
        size -= count
    return crc


def _check_places(path: Path, tensors: Mapping[str, Tensor], parts: Mapping[int, int]) -> None:
    """Refuse tensors that do not cover whole entries of the archive: torch ignores where an entry ends."""
    places = sorted(
        {(s.data_ptr(), s.nbytes()) for t in tensors.values() if not t.is_meta and (s := t.untyped_storage()).nbytes()}
    )
    if not places:
        return
    # torch does not report the address of the map. It is the start of a page.
    bases = {places[0][0] - start for start in parts}
    for base in (base for base in bases if base % mmap.PAGESIZE == 0):
        if all(parts.get(at - base) == size for at, size in places):
            return
    raise CheckpointError(f"{path} is damaged: its tensors do not match the sizes of its entries. Get the file again")


def _check_memory(path: Path, state: Mapping[str, Tensor]) -> None:
    """Refuse tensors that overlap or skip elements: without a checksum, only this finds a damaged offset or stride."""
    tensors = {key: value for key, value in state.items() if value.numel() > 0 and not value.is_meta}
    for key, tensor in tensors.items():
        run = 1
        for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
            if size > 1 and stride != run:
                raise CheckpointError(
                    f"{path} is damaged: {printable(key)} of shape {tuple(tensor.shape)} has strides "
                    f"{tensor.stride()}. Get the file again"
                )
            run *= size
    spans = sorted((t.data_ptr(), t.data_ptr() + t.nbytes, key) for key, t in tensors.items())
    for (_, end, key), (start, _, other) in pairwise(spans):
        if start < end:
            raise CheckpointError(
                f"{path} is damaged: {printable(key)} and {printable(other)} share memory. Get the file again"
            )


def _refusal(error: pickle.UnpicklingError) -> str:
    """Why torch refused a pickle, without torch's advice to load it anyway."""
    reason = str(error).partition("WeightsUnpickler error:")[2].strip().partition("\n")[0].partition(". ")[0]
    return printable(reason, 300) or "a pickle that torch.save did not write"
