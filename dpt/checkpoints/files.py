"""Reading tensors from files without running anything that is in them.

Three formats: safetensors, alone or in shards under an index; PyTorch's zip archives; PyTorch's format before 1.6.
Which one it is, the contents tell, not the name. Tensors are memory-mapped where the format allows it (the first two),
so that reading costs next to no memory.

PyTorch's files are pickles, and pickles are programs. They go through torch.load(weights_only=True), which knows
tensors and plain containers and refuses everything else; there is no way to ask for more.

Damage. A zip archive carries a checksum of each entry, which torch does not look at when it maps the file; it is
compared here (4 GB/s), so that a flipped bit is found wherever it is. safetensors has no checksum: its header must
describe the file without gaps or overlaps, but a bit flipped inside a weight goes unnoticed, unless the file is one of
`dpt.save`, which adds a checksum. PyTorch's old format has none either; tensors that share memory or leave out parts
of it are refused there, as a damaged pickle can say so. Compare the sha256 of a download with the published one.

Limits. A mapped file must not be overwritten in place while the model lives; replacing it (as most programs save) is
safe. Format and damage apart, nothing is judged here: what the tensors are is for the package's other modules to say.
"""

from __future__ import annotations

import json
import mmap
import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import safe_open
from torch import Tensor

WRAPPERS = ("model", "state_dict", "model_state_dict")  # what training scripts put the weights under
PREFIXES = ("module.", "_orig_mod.", "model.")  # what DataParallel, torch.compile and Lightning put before keys
IN_FOLDERS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
OTHERS = {  # how other files begin that are given by mistake
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"\x89HDF": "an HDF5 file, perhaps of Keras",
    b"\x1f\x8b": "packed by gzip",
    b"%PDF": "a PDF document",
    b"\x93NUMPY": "a NumPy array",
}
CHUNK = 1 << 20
LONGEST_JSON = 100_000_000  # bytes; an index of a model with many shards has some 100 kB
SHOWN = 5  # keys listed in a message before "and N more"


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, is damaged, or is of no known model."""


@dataclass(frozen=True)
class Contents:
    """The tensors of a checkpoint, and what else the file says."""

    name: str  # the file, or how a state dict was given: what messages call it
    tensors: dict[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)  # texts in a safetensors header
    path: Path | None = None  # the file, or the index of several; None for a mapping
    places: Mapping[str, tuple[Path, str]] = field(default_factory=dict)  # key -> safetensors file, its key there

    def apart(self, keys: Iterable[str]) -> list[Tensor]:
        """These tensors, for one who copies them: mapped once more where they are mapped, and let go with the result.

        A page of a mapped file counts as the process's memory from its first use until the mapping is gone, and the
        mapping behind `tensors` lives as long as the model does.
        """
        opened: dict[Path, Any] = {}
        tensors = []
        for key in keys:
            if key not in self.places:
                tensors.append(self.tensors[key])
                continue
            path, stored = self.places[key]
            if path not in opened:
                opened[path] = safe_open(path, framework="pt")
            tensors.append(opened[path].get_tensor(stored))
        return tensors


def read(path: Path, whole: bool = True) -> Contents:
    """What a checkpoint file holds, or the one that a folder holds.

    whole: compare all checksums that there are. Otherwise parts above 1 MB are taken as they are, which saves reading
    the file through.
    """
    if path.is_dir():
        path = _in_folder(path)
    if path.suffix == ".json":
        return _read_shards(path, whole)
    loaded, metadata, mapped = _read_file(path, whole)
    return _contents(str(path), loaded, metadata, path, dict.fromkeys(mapped, path))


def of_mapping(state: Mapping[str, Tensor]) -> Contents:
    return _contents("the given state dict", state, {}, None, {})


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; CheckpointError for anything else."""
    try:
        with open(path, "rb") as file:
            text = file.read(LONGEST_JSON + 1)
        if len(text) > LONGEST_JSON:
            raise CheckpointError(f"{path} has more than {LONGEST_JSON} bytes, too many for what it should be")
        value = json.loads(text)
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON ({_first_line(error)}); get the file again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a {type(value).__name__}, not an object; get the file again")
    return value


def some(keys: Iterable[str]) -> str:
    """The first few, and how many more there are; fit for one line whatever a damaged file calls its tensors."""
    keys = list(keys)
    shown = ", ".join(_printable(key) for key in keys[:SHOWN])
    return shown + (f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else "")


def _contents(
    name: str, loaded: object, metadata: Mapping[str, str], path: Path | None, mapped: Mapping[str, Path]
) -> Contents:
    tensors, renamed = unwrap(loaded, name)
    places = {key: (mapped[stored], stored) for key, stored in renamed.items() if stored in mapped}
    return Contents(name, tensors, metadata, path, places)


def _in_folder(folder: Path) -> Path:
    try:
        for name in IN_FOLDERS:
            if (folder / name).is_file():
                return folder / name
        found = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file())
    except OSError as error:
        raise CheckpointError(f"{folder} is a folder that cannot be read: {error.strerror or error}") from error
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} of them ({some(path.name for path in found)}); name the file" if found else "none"
    raise CheckpointError(
        f"{folder} is a folder; expected one checkpoint in it ({', '.join(IN_FOLDERS[:2])} or a single "
        f"{', '.join(SUFFIXES)} file), found {what}"
    )


def _read_shards(path: Path, whole: bool) -> Contents:
    """The tensors of several files, which an index lists: {"weight_map": {key: file beside the index}}."""
    index = read_json(path).get("weight_map")
    if not (isinstance(index, dict) and index and all(isinstance(shard, str) for shard in index.values())):
        raise CheckpointError(
            f"{path} is no index of checkpoint shards: it lacks a weight_map of tensors to file names; give the "
            "checkpoint file or its folder"
        )
    shards: dict[str, set[str]] = {}
    for key, shard in index.items():
        shards.setdefault(shard, set()).add(key)
    if strange := [shard for shard in shards if shard in ("", ".", "..") or any(c in shard for c in "/\\:\0")]:
        raise CheckpointError(f"{path} names shards outside its own folder, which are never opened: {some(strange)}")
    if absent := [shard for shard in shards if not (path.parent / shard).is_file()]:
        raise CheckpointError(
            f"{path} names {len(shards)} shards, of which {len(absent)} are not beside it: {some(absent)}; get them all"
        )
    state: dict[str, object] = {}
    mapped: dict[str, Path] = {}
    for shard, keys in shards.items():
        file = path.parent / shard
        loaded, _, in_place = _read_file(file, whole)
        if not isinstance(loaded, Mapping):
            raise CheckpointError(f"{file} holds a {type(loaded).__name__}, not a state dict (names -> tensors)")
        for problem, odd in (("lacks", keys - loaded.keys()), ("also holds", loaded.keys() - keys)):
            if odd:
                raise CheckpointError(
                    f"{file} is not the shard that {path.name} describes: it {problem} {len(odd)} tensors: "
                    f"{some(sorted(map(str, odd)))}; get index and shards again"
                )
        state |= loaded
        mapped |= dict.fromkeys(in_place, file)
    return _contents(str(path), state, {}, path, mapped)


def _read_file(path: Path, whole: bool) -> tuple[object, Mapping[str, str], list[str]]:
    """(what was saved, metadata, keys of the tensors that can be mapped once more)."""
    if not path.is_file():  # a pipe would be waited for
        raise CheckpointError(f"{path} is not a file that can be read")
    try:
        with open(path, "rb") as file:
            start = file.read(16)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    if not start:
        raise CheckpointError(f"{path} is empty; get the file again")
    if start.startswith(b"version https://"):
        raise CheckpointError(f"{path} is a Git LFS pointer, not the weights; fetch the real file (git lfs pull)")
    if start.lstrip()[:1] == b"<":
        raise CheckpointError(f"{path} is a web page, not a checkpoint; the download was probably refused")
    # A safetensors file starts with the length of its JSON header, then the header.
    if path.suffix == ".safetensors" or start[8:9] == b"{":
        tensors, metadata = _read_safetensors(path)
        return tensors, metadata, list(tensors)
    if not start.startswith((b"PK", b"\x80")):  # a zip archive, or a pickle of protocol 2 and later
        kind = next((f"{kind}, " for begin, kind in OTHERS.items() if start.startswith(begin)), "")
        raise CheckpointError(
            f"{path} is {kind}no checkpoint; expected a safetensors file, or what torch.save wrote (.pth, .pt, .bin)"
        )
    return _read_torch(path, start.startswith(b"PK"), whole), {}, []


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118 - no mapping
    except Exception as error:  # a damaged header can trip any step of the parser and of torch's views
        raise CheckpointError(
            f"{path} is not a complete safetensors file ({_first_line(error)}); get the file again and compare its "
            "size or sha256"
        ) from error


def _read_torch(path: Path, zipped: bool, whole: bool) -> object:
    try:
        checked, parts = _check_archive(path, whole) if zipped else (False, {})
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is not a plain file of weights ({_refused(error)}). Files that need code to be run are never "
            "loaded; save the state dict alone, best as .safetensors"
        ) from error
    except Exception as error:  # a damaged pickle calls what it may call with anything: no list of errors is complete
        raise CheckpointError(
            f"{path} is not a complete PyTorch or safetensors file ({_first_line(error)}); get the file again and "
            "compare its size or sha256"
        ) from error
    tensors, _ = unwrap(loaded, str(path))
    if zipped:
        _check_places(path, tensors, parts)
    if not checked:
        _check_memory(path, tensors)
    return loaded


def _check_archive(path: Path, whole: bool) -> tuple[bool, dict[int, int]]:
    """Whether checksums vouch for a PyTorch archive's entries, and where they lie: start -> bytes.

    Reads where torch does when it maps the file: at the entry's offset, behind a header of the length stated there.
    CheckpointError where a checksum does not fit.
    """
    parts = {}
    with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        if not any(name.endswith("/data.pkl") for name in names):
            raise CheckpointError(f"{path} is a zip archive, but not one that PyTorch saved: {some(names)}")
        if len(set(names)) < len(names):
            raise CheckpointError(f"{path} holds two entries of one name; get the file again")
        # torch can be told to leave checksums out (set_crc32_options); they are 0 then, all of them.
        checked = any(entry.CRC for entry in entries)
        for entry in entries:
            file.seek(entry.header_offset)
            header = file.read(30)
            if header[:4] != b"PK\3\4" or entry.compress_type != zipfile.ZIP_STORED:
                raise CheckpointError(f"{path} is damaged or packed by another program than PyTorch; get it again")
            start = file.seek(sum(struct.unpack("<HH", header[26:30])), 1)
            parts[start] = entry.file_size
            if checked and (whole or entry.file_size <= CHUNK) and _crc32(file, entry.file_size) != entry.CRC:
                raise CheckpointError(
                    f"{path} is damaged: the checksum of its part {_printable(entry.filename)} does not fit; "
                    "get the file again"
                )
            file.seek(start + entry.file_size)
            if file.read(2) != b"PK":  # which every record of an archive starts with
                raise CheckpointError(f"{path} is damaged: its parts do not follow each other; get the file again")
    return checked, parts


def _crc32(file: IO[bytes], size: int) -> int:
    buffer = memoryview(bytearray(min(size, CHUNK)))
    crc = 0
    while size > 0:
        count = file.readinto(buffer[:size])  # type: ignore[attr-defined]
        if count == 0:
            raise EOFError("it ends too early")
        crc = zlib.crc32(buffer[:count], crc)
        size -= count
    return crc


def _check_places(path: Path, tensors: Mapping[str, Tensor], parts: Mapping[int, int]) -> None:
    """Refuses tensors that are not mapped from whole parts of an archive: torch does not look where a part ends."""
    places = sorted(
        {(s.data_ptr(), s.nbytes()) for t in tensors.values() if not t.is_meta and (s := t.untyped_storage()).nbytes()}
    )
    if not places:
        return
    # Where the file was mapped is not told, but it is the start of a page.
    bases = {places[0][0] - start for start in parts}
    for base in (base for base in bases if base % mmap.PAGESIZE == 0):
        if all(parts.get(at - base) == size for at, size in places):
            return
    raise CheckpointError(f"{path} is damaged: its tensors are not of the sizes of its parts; get the file again")


def _check_memory(path: Path, state: Mapping[str, Tensor]) -> None:
    """Refuses tensors that overlap or skip elements: where no checksum does, this finds a damaged offset or stride."""
    tensors = {key: value for key, value in state.items() if value.numel() > 0 and not value.is_meta}
    for key, tensor in tensors.items():
        run = 1
        for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
            if size > 1 and stride != run:
                raise CheckpointError(
                    f"{path} is damaged: {_printable(key)} of shape {tuple(tensor.shape)} has strides "
                    f"{tensor.stride()}; get the file again"
                )
            run *= size
    spans = sorted((t.data_ptr(), t.data_ptr() + t.nbytes, key) for key, t in tensors.items())
    for (_, end, key), (start, _, other) in pairwise(spans):
        if start < end:
            raise CheckpointError(
                f"{path} is damaged: {_printable(key)} and {_printable(other)} share memory; get the file again"
            )


def unwrap(loaded: object, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(state dict, its keys -> keys as stored): out of a {"model": ...} wrapper, without module. prefixes."""
    for _ in WRAPPERS:
        for wrapper in WRAPPERS:
            if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
                loaded = loaded[wrapper]
                break
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"{name} holds a {type(loaded).__name__}, not a state dict (names -> tensors)")
    if not loaded:
        raise CheckpointError(f"{name} holds an empty state dict")
    for key, value in loaded.items():
        if not (isinstance(key, str) and isinstance(value, Tensor)):
            shown = _printable(repr(key))
            raise CheckpointError(f"{name} is not a state dict of tensors: {shown} is a {type(value).__name__}")
        if value.layout is not torch.strided or value.is_quantized or value.is_nested:
            raise CheckpointError(
                f"{name} holds {_printable(key)} in sparse or quantised form; save it as plain numbers"
            )
    renamed = {key: key for key in loaded}
    for _ in PREFIXES:  # wrapped several times, in any order
        for prefix in PREFIXES:
            if all(key.startswith(prefix) for key in renamed):
                renamed = {key.removeprefix(prefix): stored for key, stored in renamed.items()}
    return {key: loaded[stored] for key, stored in renamed.items()}, renamed


def _refused(error: pickle.UnpicklingError) -> str:
    """What torch would not load, without its advice to load it all the same."""
    said = str(error).partition("WeightsUnpickler error:")[2].strip().partition("\n")[0].partition(". ")[0]
    return _printable(said, 300) or "a pickle that is not of torch.save"


def _first_line(error: BaseException) -> str:
    text = str(error).strip().split("\n")[0]
    return _printable(text, 300) or type(error).__name__


def _printable(text: str, longest: int = 200) -> str:
    """Without control characters, and cut where a damaged file made it endless."""
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[: longest + 1])
    return text if len(text) <= longest else f"{text[:longest]}..."
