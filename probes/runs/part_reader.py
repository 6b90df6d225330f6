"""Reads the arrays of one committed part, and checks each before its values are used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec
import numpy as np

from dpt.errors import FileTooLargeError

from ..errors import InvalidValueError
from .array_file import Metadata, check_rows, metadata
from .disk import LONGEST_RECORD, open_inside, read_inside, sha256
from .errors import Damaged
from .parts import PARTS, read_part, unreadable
from .records import ArrayAttributes, GroupAttributes, ImageRecord, from_json

if TYPE_CHECKING:
    import zarr

A = TypeVar("A", ArrayAttributes, GroupAttributes)


class PartReader:
    """One part of a run. Its record is checked at once, its arrays when they are read.

    Args:
        root: Folder of the run.
        name: Name of the part.
        expected: SHA-256 of its part.json according to the manifest.

    Attributes:
        record: Content of part.json.
        images: The captured images by name.

    Raises:
        Damaged: The record is not the one that was committed.
    """

    def __init__(self, root: Path, name: str, expected: str | None):
        self.root, self.name = root, name
        self.record = read_part(root, name, expected=expected)
        self.images = {image.name: image for image in self.record.images}
        self._metadata: dict[str, Metadata] = {}
        rows: dict[str, list[int]] = {}
        for image in self.record.images:
            rows.setdefault(image.grid, []).append(image.row)
        for grid, some in rows.items():
            if sorted(some) != list(range(len(some))):
                raise self.damage(f"part.json: the rows of the images on {grid} are not 0 to {len(some) - 1}")

    def image(self, name: str) -> ImageRecord:
        """Record of an image that the manifest lists for this part."""
        if name not in self.images:
            raise self.damage(f"part.json lacks the image {name!r}, which the manifest lists")
        return self.images[name]

    def arrays(self, grid: str) -> set[str]:
        """Names of the arrays for the images on a patch grid."""
        return {key.split("/")[1] for key in self.record.files if key.startswith(f"{grid}/") and key.count("/") > 1}

    def group(self, grid: str) -> GroupAttributes:
        """Attributes of the images on a patch grid."""
        key = f"{grid}/zarr.json"
        try:
            plain = msgspec.json.decode(self._checked(key))
        except (ValueError, RecursionError) as error:
            raise self.damage(f"{key}: not valid JSON: {error}") from error
        found = self._attributes(plain.get("attributes") if isinstance(plain, dict) else None, key, GroupAttributes)
        if f"{found.grid.rows}x{found.grid.cols}" != grid:
            raise self.damage(f"{key} is of the grid {found.grid.rows}x{found.grid.cols}")
        return found

    def attributes(self, grid: str, array: str) -> ArrayAttributes:
        """Attributes of an array."""
        return self._attributes(self.about(grid, array).attributes, f"{grid}/{array}/zarr.json", ArrayAttributes)

    def about(self, grid: str, array: str) -> Metadata:
        """Shape, number format and names of the axes of an array. Reads no values."""
        path = f"{grid}/{array}"
        if path not in self._metadata:
            key = f"{path}/zarr.json"
            try:
                found = metadata(self._checked(key))
            except InvalidValueError as error:
                raise self.damage(f"{key}: {error}") from error
            images = sum(image.grid == grid for image in self.record.images)
            if found.by_image and found.shape[0] != images:
                raise self.damage(f"{key}: it holds {found.shape[0]} images, expected {images}")
            self._check_file(f"{path}/{found.key}")
            self._metadata[path] = found
        return self._metadata[path]

    def read(self, grid: str, array: str, row: int | slice | None = None) -> np.ndarray:
        """Values of an array: all, or the rows of some images.

        Raises:
            Damaged: The values do not match their checksum, or are not those of the part.
            StoreIOError: They cannot be read at the moment.
        """
        found = self.about(grid, array)
        node = self._node(grid, array)
        try:
            rows = range(found.rows)
            if row is not None:
                rows = rows[row] if isinstance(row, slice) else range(rows[row], rows[row] + 1)
            check_rows(self.root / PARTS / self.name / grid / array / found.key, found, rows)
            values = node[...] if row is None else node[row]
        except OSError as error:
            raise unreadable(self.root, self.name, f"{grid}/{array}", error) from error
        except Exception as error:  # codecs raise many types for damaged data
            raise self.damage(f"{grid}/{array}: {error}") from error
        return np.asarray(values)

    def _node(self, grid: str, array: str) -> zarr.Array:
        import zarr

        try:
            return zarr.open_array(self.root / PARTS / self.name / grid / array, mode="r", zarr_format=3)
        except OSError as error:
            raise unreadable(self.root, self.name, f"{grid}/{array}", error) from error
        except Exception as error:
            raise self.damage(f"{grid}/{array}: {error}") from error

    def _attributes(self, given: object, key: str, kind: type[A]) -> A:
        try:
            return from_json(given, kind)
        except InvalidValueError as error:
            raise self.damage(f"{key}: {error}") from error

    def _checked(self, key: str) -> bytes:
        """Content of a file with metadata, after a comparison with its checksum."""
        if key not in self.record.files:
            raise self.damage(f"part.json lists no {key}")
        size, digest = self.record.files[key]
        try:
            content = read_inside(self.root, f"{PARTS}/{self.name}/{key}", min(size, LONGEST_RECORD))
        except FileTooLargeError:
            content = b""
        except OSError as error:
            raise unreadable(self.root, self.name, key, error) from error
        if sha256(content) != digest:
            raise self.damage(f"{key} does not match its checksum")
        return content

    def _check_file(self, key: str) -> None:
        """Checks the size of a file with values, because zarr reads missing or short files as zeros."""
        if key not in self.record.files:
            raise self.damage(f"part.json lists no {key}")
        expected = self.record.files[key].bytes
        try:
            with open_inside(self.root, f"{PARTS}/{self.name}/{key}") as file:
                size = file.seek(0, 2)
        except OSError as error:
            raise unreadable(self.root, self.name, key, error) from error
        if size != expected:
            raise self.damage(f"{key} has {size} bytes, expected {expected}")

    def damage(self, what: str) -> Damaged:
        """The error for damage of this part."""
        return Damaged.of_part(self.root, self.name, what)
