"""Reads the header of a safetensors file, strictly: the tensors cover the data without gaps or overlaps.

    length of the header (8 bytes, little endian), header (JSON), data

The header is an object of {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]} by key, and of text by text
under "__metadata__". It is read here, and not by the library safetensors, because the library opens and maps the file
itself: the file could be another one than the one that was checked, and a mapped file can change later.

Source:
    https://huggingface.co/docs/safetensors, "Format".
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping

import torch
from torch import Tensor

from .contents import first_line
from .errors import CheckpointError
from .stored import Place, StoredFile

LARGEST_HEADER = 1 << 22  # bytes; a header has about 100 per tensor
MOST_TENSORS = 20_000  # the largest released model has 741
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}
_MOST_DIMENSIONS = 32


def read_header(file: StoredFile) -> tuple[dict[str, Tensor], dict[int, Place], Mapping[str, str]]:
    """Reads the header.

    Returns:
        The tensors on the meta device, the place of each by its id(), and the metadata.

    Raises:
        CheckpointError: The header is damaged, too long, or does not describe the file.
    """
    if file.size < 8:
        raise _incomplete(file, "it is shorter than its header")
    (length,) = struct.unpack("<Q", file.read(0, 8))
    if length > file.size - 8:
        raise _incomplete(file, f"its header has {length} bytes, the file {file.size}")
    if length > LARGEST_HEADER:
        raise _incomplete(file, f"its header has {length} bytes, more than the {LARGEST_HEADER} of any model")
    try:
        header = json.loads(file.read(8, length), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _incomplete(file, f"its header is not JSON: {first_line(error)}") from error
    if not isinstance(header, dict):
        raise _incomplete(file, "its header is not a JSON object")
    metadata = header.pop("__metadata__", None) or {}
    if not (isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())):
        raise _incomplete(file, "its metadata is not text")
    if len(header) > MOST_TENSORS:
        raise _incomplete(file, f"it has {len(header)} tensors, more than the {MOST_TENSORS} of any model")
    begin = 8 + length
    tensors: dict[str, Tensor] = {}
    places: dict[int, Place] = {}
    ends: list[tuple[int, int]] = []
    for key, entry in header.items():
        place = _place(file, begin, entry)
        tensors[key] = torch.empty(place.shape, dtype=place.dtype, device="meta")
        places[id(tensors[key])] = place
        ends.append((place.start, place.start + place.size))
    at = begin
    for start, end in sorted(ends):
        if start != at:
            raise _incomplete(file, "its tensors overlap or leave gaps")
        at = end
    if at != file.size:
        raise _incomplete(file, f"its tensors end at byte {at}, the file at {file.size}")
    return tensors, places, metadata


def _place(file: StoredFile, begin: int, entry: object) -> Place:
    """The place of a tensor, from its entry in the header."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _incomplete(file, "the entry of a tensor lacks dtype, shape or data_offsets")
    name, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    dtype = DTYPES.get(name) if isinstance(name, str) else None
    if dtype is None:
        raise _incomplete(file, f"{str(name)[:20]!r} is not a known dtype")
    if not (_are_sizes(shape) and len(shape) <= _MOST_DIMENSIONS and _are_sizes(offsets) and len(offsets) == 2):
        raise _incomplete(file, "a shape or an offset is not a list of numbers of 0 or more")
    start, end = offsets
    if math.prod(size or 1 for size in shape) >= 2**62:  # beside a size of 0
        raise _incomplete(file, f"no tensor can have the shape {tuple(shape)}")
    if math.prod(shape) * dtype.itemsize != end - start:
        raise _incomplete(file, f"a tensor of shape {tuple(shape)} and dtype {name} cannot have {end - start} bytes")
    stride = tuple(math.prod(shape[n + 1 :]) for n in range(len(shape)))
    return Place(file, begin + start, end - start, 0, dtype, tuple(shape), stride)


def _are_sizes(values: object) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**62 for value in values)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("two entries have the same name")
    return found


def _incomplete(file: StoredFile, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{file.path} is not a complete safetensors file: {reason}. Get the file again and compare its size or sha256"
    )
