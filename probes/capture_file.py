"""The file of a saved capture: tensors and a description, in safetensors, with checksums.

Problem. safetensors has no checksums: a flipped bit reads as another value. And a file can claim sizes, grids and
numbers that do not fit its tensors; maps drawn from them would be wrong, or take all memory.

Approach. The description holds the SHA-256 of each tensor (with its name, dtype and shape), and the file holds the
SHA-256 of the description. `read` takes the header apart itself, from one open regular file: all sizes are compared
with the size of the file before a tensor is allocated. The functions named check compare the description with the
tensors. Files of the first format, which had no checksums, are read too.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import save_file
from torch import Tensor

from dpt.errors import NotAFileError
from dpt.opening import open_file
from dpt.points import group_of
from dpt.printable import printable
from dpt.writing import replacing

from .errors import InvalidValueError, IrregularFileError, IsAFolderError, MissingFileError

FORMAT = "dpt-workbench capture 2"
WITHOUT_CHECKSUMS = "dpt-workbench capture 1"
LONGEST_HEADER = 50_000_000  # bytes; 1,000 points take about 500 kB
LARGEST = 2**31  # no side of a grid, image or batch reaches it
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
    "C128": torch.complex128,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
# Axes after the batch, by group. "t" stands for the tokens of the point's grid, "p" for its patches, "*" for any size.
_AXES = {
    "patch_embed": "p*",
    "heads": "*t*",
    "tokens": "t*",
    "norms": "t",
    "stages": "t*",
    "reassembly": "***",
    "fusion": "***",
    "depth": "hw",
}


class Damage(Exception):
    """What is wrong with a file, for the message of `read`'s caller."""


def write(path: Path, about: dict[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Writes a capture. The file is complete or does not appear.

    Args:
        path: The file.
        about: The description, as plain data.
        tensors: Contiguous tensors on the CPU, by name.

    Raises:
        OSError: The file cannot be written.
    """
    about = about | {"sha256": {name: digest(name, tensor) for name, tensor in tensors.items()}}
    text = json.dumps(about)
    metadata = {"format": FORMAT, "capture": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    with replacing(path) as temporary:
        save_file(dict(tensors), temporary, metadata=metadata)


def digest(name: str, tensor: Tensor) -> str:
    """SHA-256 of a tensor and of what it is called and looks like."""
    found = hashlib.sha256(f"{name}\0{_NAMES.get(tensor.dtype, tensor.dtype)}\0{tuple(tensor.shape)}\0".encode())
    found.update(_bytes(tensor))
    return found.hexdigest()


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads (description, tensors by name), and compares all checksums.

    Raises:
        MissingFileError: The file does not exist.
        IsAFolderError, IrregularFileError: The path leads to something else. Other OSErrors report an unreadable file.
        InvalidValueError: The file is not a capture, or is damaged.
    """
    try:
        file = open_file(path)
    except FileNotFoundError:
        raise MissingFileError(errno.ENOENT, "No such capture file", str(path)) from None
    except NotAFileError as error:
        kind = IsAFolderError if error.errno == errno.EISDIR else IrregularFileError
        raise kind(error.errno, error.strerror, str(path)) from None
    except ValueError:
        raise InvalidValueError(f"{str(path)!r} is not a path: it contains a NUL character") from None
    with file:
        try:
            header, start = _header(file)
        except Damage as damage:
            raise damaged(path, str(damage)) from None
        metadata = header.pop("__metadata__", None)
        metadata = metadata if isinstance(metadata, dict) else {}
        found = metadata.get("format")
        if found not in (FORMAT, WITHOUT_CHECKSUMS):
            raise InvalidValueError(
                f"{path} is not a capture: expected the format {FORMAT!r}, got {printable(repr(found))}"
            )
        try:
            about = _description(metadata)
            tensors = _tensors(file, header, start)
            if found == FORMAT:
                _compare(about.get("sha256"), tensors)
        except Damage as damage:
            raise damaged(path, str(damage)) from None
    return about, tensors


def damaged(path: Path, what: str) -> InvalidValueError:
    """Creates the error for a damaged file."""
    return InvalidValueError(f"{path} is damaged: {what}. Capture again.")


def _header(file: BinaryIO) -> tuple[dict[str, Any], int]:
    """(the JSON header of a safetensors file, where the values start)."""
    length = int.from_bytes(file.read(8), "little")
    size = os.fstat(file.fileno()).st_size
    if not 2 <= length <= min(LONGEST_HEADER, size - 8):
        raise Damage("it is not a complete safetensors file (no header)")
    header = _json(file.read(length), "its header")
    return header, 8 + length


def _json(text: bytes | str, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise Damage(f"{what} is not JSON") from None
    if not isinstance(value, dict):
        raise Damage(f"{what} is not a JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice")
    return found


def _description(metadata: Mapping[str, Any]) -> dict[str, Any]:
    text = metadata.get("capture")
    if not isinstance(text, str):
        raise Damage("it has no description of its tensors")
    # The checksum may be absent: programs that rewrite a safetensors file keep the description without it.
    expected = metadata.get("sha256", "")
    if expected and hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() != expected:
        raise Damage("the checksum of its description does not match")
    return _json(text, "its description")


def _tensors(file: BinaryIO, header: Mapping[str, Any], start: int) -> dict[str, Tensor]:
    """Reads the tensors. They must follow each other without gaps, to the end of the file."""
    places = []
    for name, entry in header.items():
        try:
            kind, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
            dtype = _DTYPES[kind]
            numbers = [*shape, begin, end]
        except (KeyError, TypeError, ValueError):
            raise Damage(f"the header of {printable(name)!r} is malformed") from None
        if not all(_is_count(number) for number in numbers):
            raise Damage(f"the header of {printable(name)!r} holds numbers that are no sizes")
        if end - begin != math.prod(shape) * dtype.itemsize:
            raise Damage(f"the header of {printable(name)!r} does not match the bytes that it has")
        places.append((begin, end, name, dtype, shape))
    places.sort(key=lambda place: place[:2])
    at = 0
    for begin, end, name, *_ in places:
        if begin != at:
            raise Damage(f"the values of {printable(name)!r} overlap or leave a gap")
        at = end
    if os.fstat(file.fileno()).st_size != start + at:
        raise Damage("it is not a complete safetensors file (its size does not match its header)")
    tensors = {}
    for begin, end, name, dtype, shape in places:
        data = bytearray(end - begin)
        if file.readinto(data) != len(data):  # type: ignore[attr-defined]  # BufferedReader has it
            raise Damage("it is not a complete safetensors file (it ends early)")
        tensors[name] = torch.frombuffer(data, dtype=dtype).view(shape) if data else torch.empty(shape, dtype=dtype)
    return tensors


def _is_count(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 2**62


def _compare(expected: object, tensors: Mapping[str, Tensor]) -> None:
    if not isinstance(expected, dict) or expected.keys() != tensors.keys():
        raise Damage("its description names other tensors than it holds")
    for name, tensor in tensors.items():
        if digest(name, tensor) != expected[name]:
            raise Damage(f"the checksum of {printable(name)!r} does not match")


def _bytes(tensor: Tensor) -> memoryview:
    if not tensor.numel():
        return memoryview(b"")
    return memoryview(tensor.reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]  # numpy's arrays are buffers


def check_setting(about: Mapping[str, Any]) -> None:
    """Checks the input that a description states. Raises Damage."""
    height, width = about["input_size"]
    for number in (height, width, about["batch"]):
        _check_side(number)
    check_grid(about["grid"], about["grid"])
    rows, cols = about["grid"]["rows"], about["grid"]["cols"]
    patch = height // rows
    if not patch or (height, width) != (patch * rows, patch * cols):
        raise Damage(f"a grid of {rows} x {cols} patches does not cover an input of {height} x {width} pixels")


def check_grid(grid: Mapping[str, Any], whole: Mapping[str, Any]) -> None:
    """Checks a point's grid: it is the input's patch grid, or a coarser one (SwinV2). Raises Damage."""
    rows, cols, prefix, window, shift = (grid[name] for name in ("rows", "cols", "prefix", "window", "shift"))
    for number in (rows, cols, *(window or ())):
        _check_side(number)
    if not _is_count(prefix) or prefix > 1000 or len(shift) != 2 or len(window or (0, 0)) != 2:
        raise Damage("a grid is malformed")
    if not all(_is_count(by) and by < side for by, side in zip(shift, window or (1, 1), strict=True)):
        raise Damage("a grid is shifted by more than its window")
    if not any((whole["rows"] >> halved, whole["cols"] >> halved) == (rows, cols) for halved in range(8)):
        raise Damage(f"a grid of {rows} x {cols} does not cover an input of {whole['rows']} x {whole['cols']} patches")


def check_tensor(name: str, tensor: Tensor, batch: int, tokens: int, patches: int, size: tuple[int, int]) -> None:
    """Checks the shape of a point's tensor against its grid, as far as the point's name tells it. Raises Damage."""
    kinds: dict[str, Callable[[int], bool]] = {
        "*": lambda side: side > 0,
        "t": lambda side: side == tokens,
        "p": lambda side: side == patches,
        "h": lambda side: side == size[0],
        "w": lambda side: side == size[1],
    }
    axes = _AXES.get(group_of(name))
    if axes is None:  # a module that a user registered
        return
    sides = tuple(tensor.shape)
    fits = len(sides) == len(axes) + 1 and sides[0] == batch
    if not fits or not all(kinds[axis](side) for axis, side in zip(axes, sides[1:], strict=True)):
        raise Damage(f"the shape {sides} of {name} does not match its batch of {batch} and its grid of {tokens} tokens")
    if not tensor.is_floating_point():
        raise Damage(f"{name} holds {tensor.dtype}, expected floating-point numbers")


def check_attention(name: str, tensors: Mapping[str, Tensor], scale: object, batch: int, grid: Any) -> None:
    """Checks the parts of an attention point against its grid (a `TokenGrid`). Raises Damage."""
    q, k = tensors[f"{name}/q"], tensors[f"{name}/k"]
    parts = {part: tensors.get(f"{name}/bias{part}") for part in ("", ".table", ".prefix", ".bands")}
    bias, table, prefix, bands = parts.values()
    for tensor in (q, k, bias, table, prefix):
        if tensor is not None and not tensor.is_floating_point():
            raise Damage(f"{name} holds {tensor.dtype}, expected floating-point numbers")
    if not isinstance(scale, int | float) or isinstance(scale, bool) or not math.isfinite(scale):
        raise Damage(f"the scale of {name} is not a finite number")
    rows, cols = (grid.rows, grid.cols) if grid.window is None else grid.window
    windows = grid.patches // (rows * cols)
    inside = rows * cols + grid.prefix
    if q.shape != k.shape or q.ndim != 4 or 0 in q.shape or (q.shape[0], q.shape[2]) != (batch * windows, inside):
        raise Damage(f"queries {tuple(q.shape)} and keys {tuple(k.shape)} of {name} do not match its grid")
    heads = q.shape[1]
    if bias is not None and (table is not None or not _broadcasts(bias, (q.shape[0], heads, inside, inside))):
        raise Damage(f"the bias {tuple(bias.shape)} of {name} does not match its queries")
    if table is None:
        if prefix is not None or bands is not None:
            raise Damage(f"the bias of {name} lacks its table")
        return
    expected = {"table": (heads, 2 * rows - 1, 2 * cols - 1), "prefix": (heads, 3), "bands": (windows, inside)}
    found = {"table": table, "prefix": prefix, "bands": bands}
    shapes_fit = all(tensor is None or tensor.shape == expected[part] for part, tensor in found.items())
    if not shapes_fit or grid.prefix > 1 or (prefix is not None) != bool(grid.prefix):
        raise Damage(f"the bias of {name} does not match its grid")


def _broadcasts(tensor: Tensor, shape: tuple[int, ...]) -> bool:
    return tensor.ndim <= len(shape) and all(
        side in (1, whole) for side, whole in zip(tensor.shape[::-1], shape[::-1], strict=False)
    )


def check_names(names: object) -> None:
    """Checks that names of points can be shown and looked up. Raises Damage."""
    for name in names:  # type: ignore[attr-defined]  # a TypeError is reported as damage
        if not isinstance(name, str) or not name or not name.isprintable():
            raise Damage(f"{printable(repr(name))} is not the name of a point")


def _check_side(number: object) -> None:
    if not _is_count(number) or not 1 <= number < LARGEST:  # type: ignore[operator]
        raise Damage(f"{printable(repr(number))} is not a size")
