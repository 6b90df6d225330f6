"""Reads a run: captures by image name, and values of many images as one xarray dataset.

    run = probes.open_run("run/")
    run["cats/tom.jpg"]["encoder.blocks.7.norms"]      # (1, tokens), read when asked for
    run.stack("encoder.blocks.*.norms")                # xarray: all images whose grids agree

Values are read when they are asked for, and checked before they are returned. Damage raises `Damaged` with the name of
the part. The parts are plain Zarr v3 groups: `xarray.open_zarr(path, consolidated=False)` reads them without this
package.
"""

from __future__ import annotations

import difflib
import fnmatch
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import xarray
from tqdm import tqdm

from dpt import Config
from dpt.checkpoints.saving import CONFIGS
from dpt.points import close_matches, group_of, select
from dpt.writing import write_file
from dpt.written import written

from ..errors import InvalidValueError, UnknownKeyError, UnknownPointError
from .errors import Damaged, RunFormatError
from .names import Names, composed
from .part_reader import PartReader
from .recording import REDUCTIONS
from .records import RunRecord, from_json
from .store import RESTORE, SETTINGS, Store
from .stored_capture import StoredCapture

__all__ = ["Run", "StoredCapture", "UnknownImageError", "open_run"]

OPEN_PARTS = 16  # records of parts kept in memory
STACK_BUDGET = 2 * 2**30


class UnknownImageError(UnknownKeyError):
    """The run does not hold an image of this name.

    Attributes:
        image: The name.
    """

    def __init__(self, message: str, image: object = None):
        super().__init__(message)
        self.image = image


class Run(Mapping[str, StoredCapture]):
    """A stored run: a mapping from image names to captures, in the order of the parts. `probes.open_run` creates it.

    Attributes:
        root: Folder of the run.
        settings: What was captured, as stored in run.json.
        store: The parts.
    """

    def __init__(self, root: str | os.PathLike[str]):
        self.store = store = Store.read(root)
        self.root: Path = store.root
        self.settings: RunRecord = store.settings
        self._where: dict[str, tuple[str, str]] = {}  # image -> (part, grid)
        for part, line in store.lines.items():
            self._where |= {name: (part, grid) for name, grid in line.grids.items()}
        self._known = Names(self._where)
        self._open = lru_cache(OPEN_PARTS)(self._opened)

    def _opened(self, part: str) -> PartReader:
        return PartReader(self.root, part, self.store.lines[part].seal)

    @property
    def config(self) -> Config:
        """Configuration of the captured model.

        Raises:
            RunFormatError: This version does not know the family of the model.
            Damaged: The stored configuration is not valid.
        """
        model = self.settings.capture.model
        if model.family not in CONFIGS:
            known = ", ".join(CONFIGS)
            raise RunFormatError(
                f"{self.root} holds a model of family {model.family!r}, expected one of {known}", model.family
            )
        kind: type[Config] = CONFIGS[model.family]
        try:
            return from_json(model.config, kind)
        except ValueError as error:
            raise Damaged.of_file(self.root / SETTINGS, str(error), RESTORE) from error

    @property
    def points(self) -> list[str]:
        """Names of the stored points and reductions."""
        return list(self.settings.capture.points)

    @property
    def failures(self) -> dict[str, str]:
        """The images that could not be captured, with reasons."""
        return dict(self.store.failures)

    @property
    def grids(self) -> dict[tuple[int, int], int]:
        """Number of images per patch grid (rows, cols)."""
        return dict(Counter(_rows_cols(grid) for _, grid in self._where.values()))

    def __getitem__(self, name: str) -> StoredCapture:
        found = self._known.find(name)
        if found is None:
            failures = self.failures
            if failed := Names(failures).find(name):
                raise UnknownImageError(f"{name!r} could not be captured: {failures[failed]}", name)
            close = difflib.get_close_matches(str(name), self._where, n=3)
            hint = f"Close matches: {', '.join(map(repr, close))}" if close else f"list(run) returns its {len(self)}"
            raise UnknownImageError(f"the run {self.root} holds no image {name!r}. {hint}", name)
        part = self._open(self._where[found][0])
        return StoredCapture(found, part, self.settings.capture, self.config)

    def __contains__(self, name: object) -> bool:
        return self._known.find(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)

    def _ipython_key_completions_(self) -> list[str]:  # of run["
        return list(self)

    def stack(
        self,
        *selectors: str,
        images: str | Sequence[str] | None = None,
        grid: tuple[int, int] | None = None,
        max_bytes: int = STACK_BUDGET,
    ) -> xarray.Dataset:
        """Reads points of many images into one dataset.

        Args:
            *selectors: Stored points: exact names ("fusion.2"), groups ("norms") or globs ("encoder.blocks.3.*"). The
                start of a name alone, such as "encoder.blocks.3", matches nothing. Default: all. Attention cannot be
                stacked; its reductions can.
            images: Names of images, or a glob. Default: all.
            grid: (rows, cols) of patches. Required if the images have several grids.
            max_bytes: Largest size of the result.

        Returns:
            One variable per point, with the dimension "image" first. The coordinate "image" holds the names.

        Raises:
            UnknownPointError: A selector matches nothing that can be stacked.
            UnknownImageError: A name is not in the run.
            InvalidValueError: No images match, their grids differ, or the result exceeds `max_bytes`.

        Example:
            norms = run.stack("norms", grid=(37, 37))
            norms["encoder.blocks.7.norms"].mean("image")
        """
        names = self._images(images, grid)
        points = self._points(selectors)
        by_part: dict[str, list[str]] = {}
        for name in names:
            by_part.setdefault(self._where[name][0], []).append(name)
        path = self._where[names[0]][1]
        first = self._open(next(iter(by_part)))
        nodes = {point: first.about(path, point) for point in points}
        dims = _plain_dims({point: node.dimension_names for point, node in nodes.items()})
        total = sum(node.row_bytes for node in nodes.values()) * len(names)
        if total > max_bytes:
            raise InvalidValueError(
                f"these points of {len(names)} images take {total:,} bytes, more than max_bytes={max_bytes:,}. Select "
                f"fewer points or images, or pass stack(..., max_bytes={total})"
            )
        variables: dict[str, xarray.Variable] = {}
        for point, node in nodes.items():
            values = np.empty((len(names), *node.shape[1:]), node.dtype)
            at = 0
            for part, some in by_part.items():
                reader = self._open(part)
                rows = [reader.image(name).row for name in some]
                whole = reader.about(path, point)
                if (whole.shape[1:], whole.dtype) != (node.shape[1:], node.dtype):
                    raise reader.damage(f"{path}/{point} differs in shape or number format from part {first.name}")
                if 4 * len(rows) > whole.rows:
                    values[at : at + len(some)] = reader.read(path, point)[rows]
                else:
                    for place, row in enumerate(rows, at):
                        values[place] = reader.read(path, point, row)
                at += len(some)
            meaning = first.attributes(path, point).meaning
            variables[point] = xarray.Variable(dims[point], values, {"meaning": meaning})
        ordered = [name for some in by_part.values() for name in some]
        return xarray.Dataset(variables, coords={"image": ordered}, attrs={"grid": _rows_cols(path)})

    def to_safetensors(
        self,
        path: str | os.PathLike[str],
        *selectors: str,
        images: str | Sequence[str] | None = None,
        grid: tuple[int, int] | None = None,
        max_bytes: int = STACK_BUDGET,
    ) -> Path:
        """Writes the result of `stack` to a safetensors file. `run[name].save(path)` writes one image with attention.

        Args:
            path: The file to write. Its metadata "images" lists the names of the images as JSON.
            *selectors: As for `stack`: exact names, groups or globs such as "encoder.blocks.3.*".
            images, grid, max_bytes: As for `stack`.

        Returns:
            The path.

        Raises:
            dpt.DPTError: The file cannot be written, see `dpt.writing`.
            ProbeError: As for `stack`.
        """
        from safetensors.numpy import save

        from dpt.writing import check_place

        path = Path(path)
        check_place(path)
        data = self.stack(*selectors, images=images, grid=grid, max_bytes=max_bytes)
        arrays = {str(name): np.ascontiguousarray(variable.values) for name, variable in data.items()}
        names = json.dumps([str(name) for name in data["image"].values])
        write_file(path, save(arrays, metadata={"images": names}))
        return written(path)

    def sizes(self) -> dict[str, int]:
        """Bytes on disk per point, for all images together."""
        total = dict.fromkeys(self.points, 0)
        for part in self.store.lines:
            for key, file in self._open(part).record.files.items():
                array = key.split("/")[1]
                names = (array, array.removesuffix(".q").removesuffix(".k"), array.partition(".bias.")[0])
                if point := next((name for name in names if name in total), None):
                    total[point] += file.bytes
        return total

    def _images(self, chosen: str | Sequence[str] | None, grid: tuple[int, int] | None) -> list[str]:
        """Names of the chosen images, which share a grid."""
        if chosen is None:
            names = list(self._where)
        elif isinstance(chosen, str):
            found = self._known.find(chosen)
            pattern = composed(chosen)
            names = [n for n in self._where if fnmatch.fnmatchcase(composed(n), pattern)] if found is None else [found]
        else:
            names = list(dict.fromkeys(self._known.find(name) or self[name].name for name in chosen))
        if grid is not None:
            names = [name for name in names if _rows_cols(self._where[name][1]) == tuple(grid)]
        if not names:
            grids = ", ".join(f"{rows} x {cols}" for rows, cols in self.grids) or "none"
            raise InvalidValueError(
                f"no image of the run {self.root} matches images={chosen!r}, grid={grid}. It holds {len(self)} images; "
                f"grids: {grids}"
            )
        counts = Counter(self._where[name][1] for name in names)
        if len(counts) > 1:
            listed = ", ".join(f"{_rows_cols(grid)} ({count} images)" for grid, count in counts.items())
            raise InvalidValueError(f"the images have several patch grids: {listed}. Choose one with grid=(rows, cols)")
        return names

    def _points(self, selectors: Sequence[str]) -> list[str]:
        """Names of the chosen points that can be stacked."""
        stackable = [point for point in self.points if not point.endswith(".attention")]
        if not selectors:
            return stackable
        groups = {point: group_of(point) for point in self.points}
        chosen: dict[str, None] = {}
        for selector in selectors:
            found = select(stackable, groups, selector)
            if not found:
                close = close_matches(stackable, groups, selector)
                hint = f"Close matches: {', '.join(close)}" if close else f"Stored: {', '.join(self.points[:6])}"
                if select(self.points, groups, selector):
                    reductions = ", ".join(f"attention.{name}" for name in REDUCTIONS)
                    hint = f"Attention is read per image: run[name]. Reductions can be stacked: {reductions}"
                raise UnknownPointError(f"{selector!r} matches no stored point that can be stacked. {hint}")
            chosen |= dict.fromkeys(found)
        return list(chosen)

    def __repr__(self) -> str:
        model = self.settings.capture.model
        failed = f", {len(self.failures)} failed" if self.failures else ""
        size = tqdm.format_sizeof(self.store.bytes, "B", 1000)
        return (
            f"Run({self.root}: {len(self)} images{failed} of {model.family} {model.variant}, "
            f"{len(self.points)} points, {len(self.store.lines)} parts, {size})"
        )


def open_run(path: str | os.PathLike[str]) -> Run:
    """Opens a run that `probes.run` has written or is writing.

    Args:
        path: Folder of the run.

    Returns:
        The parts that are committed now.

    Raises:
        MissingRunError: The folder holds no run.
        Damaged: run.json or the manifest is damaged.

    Example:
        run = probes.open_run("run/")
        print(run, list(run)[:3], run.points)
    """
    return Run(path)


def _plain_dims(stored: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Names of axes without the lengths that they carry on disk, unless one name has several lengths."""
    lengths: dict[str, set[str]] = {}
    for dims in stored.values():
        for dim in dims[1:]:
            name, _, length = dim.rpartition("_")
            lengths.setdefault(name, set()).add(length)

    def plain(dim: str) -> str:
        name, _, length = dim.rpartition("_")
        return name if length.isdigit() and len(lengths[name]) == 1 else dim

    return {point: [dims[0], *map(plain, dims[1:])] for point, dims in stored.items()}


def _rows_cols(grid: str) -> tuple[int, int]:
    rows, cols = grid.split("x")
    return int(rows), int(cols)
