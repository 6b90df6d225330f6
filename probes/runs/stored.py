"""Reading a run: captures by picture name, many pictures at once, and what damage there is.

    run = probes.open_run("run/")
    run["cats/tom.jpg"]["encoder.blocks.7.norms"]      # (1, tokens), read when asked for
    run.stack("encoder.blocks.*.norms")                # xarray: all pictures whose grids agree

Nothing is read before it is asked for, and nothing that was read is trusted before its checksum: damage raises
`Damaged` with the name of the part. The parts are also plain Zarr v3 groups, which
`xarray.open_zarr(path, consolidated=False)` reads without this package.
"""

from __future__ import annotations

import copy
import difflib
import errno
import fnmatch
import hashlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray
from numpy.typing import NDArray
from torch import Tensor

import dpt
from dpt import Config, TokenGrid
from dpt.attention import OffsetBias
from dpt.beit import BeitConfig
from dpt.depth_anything import DepthAnythingConfig
from dpt.image import Preprocess, restore
from dpt.swinv2 import SwinV2Config

from ..attention import AttentionMaps
from ..capture import Capture, Setting
from ..edit import Edit
from ..errors import InvalidValueError, MissingFileError
from .decode_worker import pixels_sha256
from .disk import StoreError
from .parts import PARTS, damaged, line_grids, read_part, unreadable
from .recording import BIAS_PARTS, REDUCTIONS
from .store import Store

OPEN_PARTS = 16  # records of parts kept in memory
STACK_BUDGET = 2 * 2**30
CONFIGS = {"depth-anything": DepthAnythingConfig, "beit": BeitConfig, "swinv2": SwinV2Config}


class NoSuchPicture(KeyError):
    """A picture that a run does not hold."""

    def __str__(self) -> str:  # KeyError would show the message quoted
        return str(self.args[0])


class StoredPart:
    """One part, opened: its record is checked, its arrays are checked as they are read."""

    def __init__(self, root: Path, name: str, expected: str | None):
        self.root, self.name = root, name
        self.record = read_part(root, name, expected=expected)
        self.pictures = {picture["name"]: picture for picture in self.record["pictures"]}
        self._checked: set[str] = set()

    def arrays(self, grid: str) -> set[str]:
        """Names of the arrays of the pictures on a grid."""
        return {key.split("/")[1] for key in self.record["files"] if key.startswith(f"{grid}/") and key.count("/") > 1}

    def attributes(self, grid: str, array: str | None = None) -> dict[str, Any]:
        node = self._node(grid, array)
        return dict(node.attrs)

    def read(self, grid: str, array: str, row: int | slice | None = None) -> np.ndarray:
        """An array, or one picture's row of it."""
        node = self._node(grid, array)
        try:
            values = node[...] if row is None else node[row]
        except OSError as error:
            raise unreadable(self.root, self.name, f"{grid}/{array}", error) from error
        except Exception as error:  # what a codec says of a flipped bit is its own affair
            raise damaged(self.root, self.name, f"{grid}/{array}: {error}") from error
        return np.asarray(values)

    def _node(self, grid: str, array: str | None) -> Any:
        import zarr

        prefix = f"{grid}/{array}/" if array else f"{grid}/zarr.json"
        if prefix not in self._checked:
            self._check(prefix)
            self._checked.add(prefix)
        path = self.root / PARTS / self.name / grid
        try:
            return zarr.open_array(path / array, mode="r", zarr_format=3) if array else zarr.open_group(path, mode="r")
        except OSError as error:
            raise unreadable(self.root, self.name, prefix, error) from error
        except Exception as error:
            raise damaged(self.root, self.name, f"{prefix}: {error}") from error

    def _check(self, prefix: str) -> None:
        """Metadata by their sums, arrays by their lengths: a file that is short or missing would be read as zeros."""
        for key, (size, digest) in self.record["files"].items():
            if not key.startswith(prefix):
                continue
            path = self.root / PARTS / self.name / key
            try:
                if key.endswith("zarr.json"):
                    if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
                        raise damaged(self.root, self.name, f"{key} does not match its checksum")
                elif path.stat().st_size != size:
                    raise damaged(self.root, self.name, f"{key} has {path.stat().st_size} bytes, not {size}")
            except StoreError:
                raise
            except OSError as error:
                raise unreadable(self.root, self.name, key, error) from error


class _Values(Mapping[str, Any]):
    """The values of a stored capture, read when they are asked for, and then kept."""

    def __init__(self, part: StoredPart, grid: str, row: int, points: Sequence[str], arrays: set[str]):
        self._part, self._grid, self._row, self._points, self._arrays = part, grid, row, points, arrays
        self.read: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._points:
            raise KeyError(name)
        if name not in self.read:
            self.read[name] = self._attention(name) if f"{name}.q" in self._arrays else self._tensor(name)
        return self.read[name]

    def __contains__(self, name: object) -> bool:  # without reading it
        return name in self._points

    def __iter__(self) -> Iterator[str]:
        return iter(self._points)

    def __len__(self) -> int:
        return len(self._points)

    def grid(self, name: str) -> TokenGrid:
        return TokenGrid(**self._about(name)["grid"])

    def _about(self, name: str) -> dict[str, Any]:
        return self._part.attributes(self._grid, f"{name}.q" if f"{name}.q" in self._arrays else name)

    def _tensor(self, name: str) -> Tensor:
        return torch.from_numpy(self._part.read(self._grid, name, slice(self._row, self._row + 1)))

    def _attention(self, name: str) -> AttentionMaps:
        about = self._about(name)
        q, k = (torch.from_numpy(self._part.read(self._grid, f"{name}.{part}", self._row)) for part in "qk")
        bias: dict[str, Tensor | None] = dict.fromkeys(BIAS_PARTS)
        for part in BIAS_PARTS:
            if f"{name}.bias.{part}" in self._arrays:
                bias[part] = torch.from_numpy(self._part.read(self._grid, f"{name}.bias.{part}"))
        offsets = OffsetBias(bias["table"], bias["prefix"], bias["bands"]) if bias["table"] is not None else None
        return AttentionMaps(q, k, about["scale"], TokenGrid(**about["grid"]), offsets, name)


class StoredCapture(Capture):
    """What a run holds of one picture; a `Capture` of batch 1 whose values are read when asked for."""

    _values: Any

    def __init__(self, name: str, run: Run, part: StoredPart):
        capture = run.settings["capture"]
        super().__init__(list(capture["points"]))
        record = part.pictures[name]
        path, row = record["grid"], record["row"]
        about = part.attributes(path)
        height, width = about["input_size"]
        arrays = part.arrays(path)
        self.name, self.record, self.config, self.root = name, record, run.config, run.root
        self.dtype: str = capture["dtype"] or capture["model"]["dtype"]
        self._part, self._path, self._row, self._arrays = part, path, row, arrays
        self._values = _Values(part, path, row, self._wanted, arrays)
        self._edits = [(point, Edit.from_json(said)) for point, said in capture["edits"]]
        self._setting = Setting(TokenGrid(**about["grid"]), (height, width), 1)
        self._finished = True
        self.size, self.keep_aspect = _pair(capture["size"]), capture["keep_aspect"]

    def grid_of(self, name: str) -> TokenGrid:
        if name not in self._wanted:
            self[name]  # says what there is
        return self._values.grid(name)

    @property
    def nbytes(self) -> int:
        """Memory that the values read so far take."""
        total = 0
        for value in self._values.read.values():
            tensors = (value.q, value.k) if isinstance(value, AttentionMaps) else (value,)
            total += sum(tensor.nbytes for tensor in tensors)
        return total

    def only(self, *names: str) -> StoredCapture:
        """The same picture with these points alone, nothing of them read yet; NotCaptured for what is not stored."""
        for name in names:
            if name not in self._wanted:
                self[name]  # says what there is
        other = copy.copy(self)
        other._wanted = list(names)
        other._values = _Values(self._part, self._path, self._row, other._wanted, self._arrays)
        return other

    def has_bias(self, name: str) -> bool:
        """Whether the attention of that name adds a bias; nothing is read."""
        return f"{name}.bias.table" in self._arrays

    def depth(self, size: tuple[int, int] | None = None) -> NDArray[np.float32]:
        """The depth as `model.predict` gives it, (H, W) float32; size: another (height, width) than the picture's.

        Raises NotCaptured if the run does not hold "depth".
        """
        values = restore(self["depth"], size or _pair(self.record["size"]), self.config.preprocess)
        return values[0].numpy()

    def image(self) -> NDArray[np.uint8]:
        """The picture, (H, W, 3) uint8: from its file if that is as it was, else as the model saw it if that was kept.

        Raises StoreError if there is neither, and says how to give it.
        """
        try:
            return self._from_file()
        except StoreError:
            if "picture" not in self._arrays:
                raise
            return self._part.read(self._path, "picture", self._row)

    def _from_file(self) -> NDArray[np.uint8]:
        hint = f"give it, as in AttentionExplorer(run[{self.name!r}], image), or capture with keep_images=True"
        source = self.record.get("source")
        if source is None:
            raise StoreError(errno.ENOENT, f"{self.name} came as an array and was not stored; {hint}")
        if not os.path.exists(source):
            raise StoreError(errno.ENOENT, f"{self.name} is no longer at {source}; {hint}")
        changed = StoreError(errno.EINVAL, f"{source} has changed since {self.name} was captured; {hint}")
        if "frame" in self.record:
            from .video import VideoError, frame

            try:
                pixels = frame(source, self.record["frame"])
            except VideoError as error:
                raise StoreError(errno.EINVAL, f"{error}; {hint}") from error
            if pixels_sha256(pixels) != self.record["sha256"]:
                raise changed
            return pixels
        try:
            with open(source, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            said = f"{source}, which {self.name} was captured from, cannot be read: {error.strerror}; {hint}"
            raise StoreError(error.errno or errno.EIO, said) from error
        if digest != self.record["sha256"]:
            raise changed
        return dpt.read_image(source)

    def __repr__(self) -> str:
        lines = [f"Capture of {self.name}, {self.input_size[0]} x {self.input_size[1]} pixels, stored:"]
        return "\n".join([*lines, *(f"  {name}" for name in self._wanted)])


class Run(Mapping[str, StoredCapture]):
    """A stored run: captures by picture name, in the order of the parts."""

    def __init__(self, root: str | os.PathLike[str]):
        self.store = store = Store.read(root)
        self.root, self.settings = store.root, store.settings
        self._where: dict[str, tuple[str, str]] = {}  # name -> (part, grid)
        for part, line in store.lines.items():
            self._where |= {name: (part, grid) for name, grid in line_grids(line).items()}
        self._open = lru_cache(OPEN_PARTS)(self._opened)

    def _opened(self, part: str) -> StoredPart:
        return StoredPart(self.root, part, self.store.lines[part]["seal"])

    @property
    def config(self) -> Config:
        """Of the model that was captured."""
        return config_from_json(self.settings["capture"]["model"]["config"])

    @property
    def points(self) -> list[str]:
        return list(self.settings["capture"]["points"])

    @property
    def failures(self) -> dict[str, str]:
        """Pictures that could not be captured, and why."""
        return dict(self.store.failures)

    @property
    def grids(self) -> dict[tuple[int, int], int]:
        """(rows, cols) of patches -> how many pictures have that grid."""
        counts: dict[tuple[int, int], int] = {}
        for _, grid in self._where.values():
            key = _rows_cols(grid)
            counts[key] = counts.get(key, 0) + 1
        return counts

    def __getitem__(self, name: str) -> StoredCapture:
        if name not in self._where:
            if name in self.failures:
                raise NoSuchPicture(f"{name!r} could not be captured: {self.failures[name]}")
            close = difflib.get_close_matches(str(name), self._where, n=3)
            hint = f"close are {', '.join(map(repr, close))}" if close else f"it holds {len(self)} pictures; list(run)"
            raise NoSuchPicture(f"{name!r} is not in the run {self.root}; {hint}")
        return StoredCapture(name, self, self._open(self._where[name][0]))

    def __contains__(self, name: object) -> bool:
        return name in self._where

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)

    def stack(
        self,
        *selectors: str,
        pictures: str | Sequence[str] | None = None,
        grid: tuple[int, int] | None = None,
        max_bytes: int = STACK_BUDGET,
    ) -> xarray.Dataset:
        """Points of many pictures, each a variable with the dimension "image" first; pictures by name.

        selectors: names of stored points, or globs; all if none is given. Attention is not stacked: its reductions are.
        pictures: a glob, or names. grid: (rows, cols) of patches; needed where the pictures have several.

        Raises ProbeError for selectors that name nothing stored, where grids disagree, and above max_bytes.
        """
        names = self._pictures(pictures, grid)
        points = self._points(selectors)
        by_part: dict[str, list[str]] = {}
        for name in names:
            by_part.setdefault(self._where[name][0], []).append(name)
        path = self._where[names[0]][1]
        variables: dict[str, xarray.Variable] = {}
        nodes = {point: self._open(next(iter(by_part)))._node(path, point) for point in points}
        dims = _plain_dims({point: node.metadata.dimension_names for point, node in nodes.items()})
        total = sum(math.prod(node.shape[1:]) * node.dtype.itemsize for node in nodes.values()) * len(names)
        if total > max_bytes:
            raise InvalidValueError(
                f"{len(names)} pictures of these points take {total:,} bytes, over the budget of {max_bytes:,}; choose "
                f"fewer points or pictures, or say stack(..., max_bytes={total})"
            )
        for point, node in nodes.items():
            values = np.empty((len(names), *node.shape[1:]), node.dtype)
            at = 0
            for part, some in by_part.items():
                opened = self._open(part)
                rows = [opened.pictures[name]["row"] for name in some]
                values[at : at + len(some)] = opened.read(path, point)[rows]
                at += len(some)
            about = {"meaning": node.attrs["meaning"]}
            variables[point] = xarray.Variable(dims[point], values, about)
        ordered = [name for some in by_part.values() for name in some]
        return xarray.Dataset(variables, coords={"image": ordered}, attrs={"grid": _rows_cols(path)})

    def to_safetensors(
        self,
        path: str | os.PathLike[str],
        *selectors: str,
        pictures: str | Sequence[str] | None = None,
        grid: tuple[int, int] | None = None,
        max_bytes: int = STACK_BUDGET,
    ) -> Path:
        """Writes what `stack` gives as one safetensors file; the names of the pictures are its metadata "images".

        One picture with everything, attention too, is written by run[name].save(path).
        """
        import json

        from safetensors.numpy import save

        from .disk import replace_file

        if not Path(path).absolute().parent.is_dir():
            raise MissingFileError(f"cannot write {path}: there is no folder {Path(path).absolute().parent}")
        data = self.stack(*selectors, pictures=pictures, grid=grid, max_bytes=max_bytes)
        arrays = {str(name): np.ascontiguousarray(variable.values) for name, variable in data.items()}
        path = Path(path)
        names = json.dumps([str(name) for name in data["image"].values])
        replace_file(path, save(arrays, metadata={"images": names}))
        return path

    def sizes(self) -> dict[str, int]:
        """Bytes on the disk of each point, all pictures together."""
        total = dict.fromkeys(self.points, 0)
        for part in self.store.lines:
            for key, (size, _) in self._open(part).record["files"].items():
                array = key.split("/")[1]
                names = (array, array.removesuffix(".q").removesuffix(".k"), array.partition(".bias.")[0])
                if point := next((name for name in names if name in total), None):
                    total[point] += size
        return total

    def _pictures(self, chosen: str | Sequence[str] | None, grid: tuple[int, int] | None) -> list[str]:
        if chosen is None:
            names = list(self._where)
        elif isinstance(chosen, str):
            names = fnmatch.filter(self._where, chosen)
        else:
            names = [name for name in dict.fromkeys(chosen) if name in self._where or self[name] is not None]
        if grid is not None:
            names = [name for name in names if _rows_cols(self._where[name][1]) == tuple(grid)]
        if not names:
            raise InvalidValueError(
                f"no picture of the run {self.root} is meant by pictures={chosen!r}, grid={grid}; it has {len(self)}, "
                f"on the grids {', '.join(f'{rows} x {cols}' for rows, cols in self.grids) or 'of none'}"
            )
        grids: dict[str, int] = {}
        for name in names:
            grids[self._where[name][1]] = grids.get(self._where[name][1], 0) + 1
        if len(grids) > 1:
            listed = ", ".join(f"{_rows_cols(g)} ({count} pictures)" for g, count in grids.items())
            raise InvalidValueError(
                f"the pictures have several patch grids: {listed}; choose one with grid=(rows, cols)"
            )
        return names

    def _points(self, selectors: Sequence[str]) -> list[str]:
        attention = {p for p in self.points if p.endswith(".attention")}
        stackable = [p for p in self.points if p not in attention]
        if not selectors:
            return stackable
        chosen: list[str] = []
        for selector in selectors:
            found = fnmatch.filter(stackable, selector.replace("[", "[[]"))
            found = found or [p for p in stackable if p.endswith(f".{selector}") or p.startswith(f"{selector}.")]
            if not found:
                more = ""
                if fnmatch.filter(attention, selector):
                    more = f"; attention is read picture by picture, or kept as {', '.join(REDUCTIONS)} when capturing"
                close = difflib.get_close_matches(selector, stackable, n=3)
                listed = f"close are {', '.join(close)}" if close else f"stored are {', '.join(self.points[:6])}"
                raise InvalidValueError(f"{selector!r} names nothing that can be stacked{more}; {listed}")
            chosen += found
        return list(dict.fromkeys(chosen))

    def __repr__(self) -> str:
        model = self.settings["capture"]["model"]
        failed = f", {len(self.failures)} failed" if self.failures else ""
        return (
            f"Run({self.root}: {len(self)} pictures{failed} of {model['family']} {model['variant']}, "
            f"{len(self.points)} points, {len(self.store.lines)} parts, {self.store.bytes / 2**20:.1f} MiB)"
        )


def open_run(path: str | os.PathLike[str]) -> Run:
    """A run that `probes.run` has written, or is writing: what is committed when it is opened.

    Raises StoreError if there is none, Damaged if its list of parts is damaged.
    """
    return Run(path)


def config_from_json(plain: Mapping[str, Any]) -> Config:
    """A model's configuration from what JSON makes of it."""
    values = {key: _tuples(value) for key, value in plain.items()}
    values["preprocess"] = Preprocess(**{key: _tuples(value) for key, value in plain["preprocess"].items()})
    config: Config = CONFIGS[plain["family"]](**values)
    return config


def _plain_dims(stored: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Names of axes without the lengths that they carry on the disk, unless several lengths meet here."""
    lengths: dict[str, set[str]] = {}
    for dims in stored.values():
        for dim in dims[1:]:
            name, _, length = dim.rpartition("_")
            lengths.setdefault(name, set()).add(length)

    def plain(dim: str) -> str:
        name, _, length = dim.rpartition("_")
        return name if length.isdigit() and len(lengths[name]) == 1 else dim

    return {point: [dims[0], *map(plain, dims[1:])] for point, dims in stored.items()}


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _pair(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _rows_cols(grid: str) -> tuple[int, int]:
    rows, cols = grid.split("x")
    return int(rows), int(cols)
