"""Checks the file of a Zarr array before its values are read: its metadata, and what the compressed data claim to hold.

Problem. Metadata decide how much memory reading takes, and which decoders run. A file of a few kilobytes can declare
gigabytes, in its shape or in the header of its compressed data.

Approach. Only metadata that `parts.encoded` writes are accepted: one shard, numbers, Zstandard. The shape must fit the
images of the part, each compressed row must declare exactly the bytes of a row, and a row of many bytes must not come
from a tiny file. Reading is left to `zarr`.
"""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct

from dpt.opening import open_file

from ..errors import InvalidValueError
from .records import from_json

LARGE = 2**28  # bytes of a row that need a plausible file
RATIO = 1000  # bytes of values per byte of file, beyond which a large row is not plausible
_NUMBERS = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
    "complex64", "complex128",
)  # fmt: skip
_INDEX_ENTRY, _CHECKSUM = 16, 4  # bytes in the index of a shard
_EMPTY = 2**64 - 1  # offset of a row that is not stored
_FRAME, _HEADER = b"\x28\xb5\x2f\xfd", 18  # start of a Zstandard frame; bytes of its longest header

Side = Annotated[int, Meta(ge=0, le=2**40)]


class _Grid(Struct, forbid_unknown_fields=True):
    class Configuration(Struct, forbid_unknown_fields=True):
        chunk_shape: list[Side]

    name: Literal["regular"]
    configuration: Configuration


class _Keys(Struct, forbid_unknown_fields=True):
    class Configuration(Struct, forbid_unknown_fields=True):
        separator: Literal["."]

    name: Literal["default"]
    configuration: Configuration


class _Shard(Struct, forbid_unknown_fields=True):
    class Configuration(Struct, forbid_unknown_fields=True):
        chunk_shape: list[Side]
        codecs: list[dict[str, Any]]
        index_codecs: list[dict[str, Any]]
        index_location: Literal["end"]

    name: Literal["sharding_indexed"]
    configuration: Configuration


class Metadata(Struct):
    """zarr.json of an array, as `parts.encoded` makes it.

    Attributes:
        shape: Of the array.
        data_type: Its number format.
        dimension_names: Names of its axes.
        attributes: The record `ArrayAttributes`, not yet checked.
    """

    zarr_format: Literal[3]
    node_type: Literal["array"]
    shape: list[Side]
    data_type: str
    chunk_grid: _Grid
    chunk_key_encoding: _Keys
    codecs: Annotated[list[_Shard], Meta(min_length=1, max_length=1)]
    dimension_names: list[str]
    attributes: dict[str, Any] = {}
    storage_transformers: Annotated[list[Any], Meta(max_length=0)] = []

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy's number format."""
        return np.dtype(self.data_type)

    @property
    def by_image(self) -> bool:
        """Whether the array has one row per image."""
        return self.dimension_names[:1] == ["image"]

    @property
    def rows(self) -> int:
        """How many times the file holds compressed data: once per image, or once for all."""
        return self.shape[0] if self.by_image else 1

    @property
    def row(self) -> tuple[int, ...]:
        """Shape of what one read decodes: the row of an image, or a whole array that all images share."""
        return tuple(self.codecs[0].configuration.chunk_shape)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return math.prod(self.row) * self.dtype.itemsize

    @property
    def key(self) -> str:
        """Name of the only file with values."""
        return ".".join(["c", *("0" for _ in self.shape)])


def metadata(content: bytes) -> Metadata:
    """Reads the metadata of an array.

    Raises:
        InvalidValueError: They are not what this package writes.
    """
    try:
        plain = msgspec.json.decode(content)
    except (ValueError, RecursionError) as error:
        raise InvalidValueError(f"not valid JSON: {error}") from error
    found = from_json(plain, Metadata)
    shape, shard = tuple(found.shape), found.codecs[0].configuration
    if found.data_type not in _NUMBERS:
        raise InvalidValueError(f"the number format is {found.data_type!r}, expected one of {', '.join(_NUMBERS)}")
    whole = tuple(max(1, side) for side in shape)
    row = (1, *whole[1:]) if found.by_image else whole
    if (
        len(found.dimension_names) != len(shape)
        or tuple(found.chunk_grid.configuration.chunk_shape) != whole
        or found.row != row
        or [codec.get("name") for codec in shard.codecs] != ["bytes", "zstd"]
        or [codec.get("name") for codec in shard.index_codecs] != ["bytes", "crc32c"]
    ):
        raise InvalidValueError("its chunks or codecs are not those that a run writes")
    return found


def check_rows(path: Path, found: Metadata, rows: range) -> None:
    """Checks that rows of an array declare as many bytes as they must have, before they are decompressed.

    Args:
        path: The file with the values.
        found: Its metadata.
        rows: Numbers of the rows.

    Raises:
        InvalidValueError: They do not.
        OSError: The file cannot be read.
    """
    if 0 in found.shape:
        return
    count = found.rows
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        start = size - count * _INDEX_ENTRY - _CHECKSUM
        if start < 0:
            raise InvalidValueError(f"its file has {size} bytes, too few for the index of {count} rows")
        file.seek(start)
        index = file.read(count * _INDEX_ENTRY)
        for row in rows:
            offset, length = struct.unpack_from("<QQ", index, row * _INDEX_ENTRY)
            if offset == _EMPTY or offset + length > start:
                raise InvalidValueError(f"row {row} is not in its file")
            if found.row_bytes > max(LARGE, RATIO * length):
                raise InvalidValueError(
                    f"row {row} declares {found.row_bytes:,} bytes, and {length:,} bytes are stored"
                )
            file.seek(offset)
            declared = frame_bytes(file.read(min(length, _HEADER)))
            if declared != found.row_bytes:
                raise InvalidValueError(f"row {row} declares {declared} bytes, expected {found.row_bytes}")


def frame_bytes(start: bytes) -> int | None:
    """How many bytes a Zstandard frame says that it decompresses to (RFC 8878, 3.1.1.1); None if it does not say.

    Args:
        start: The first 18 bytes of the frame.
    """
    if len(start) < 6 or start[:4] != _FRAME:
        return None
    descriptor = start[4]
    flag, single = descriptor >> 6, descriptor >> 5 & 1
    if flag == 0 and not single:
        return None
    at = 5 + (not single) + (0, 1, 2, 4)[descriptor & 3]
    field = start[at : at + (1, 2, 4, 8)[flag]]
    if len(field) < (1, 2, 4, 8)[flag]:
        return None
    return int.from_bytes(field, "little") + (256 if flag == 1 else 0)
