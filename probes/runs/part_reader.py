"""Reads the arrays of one committed part, and checks each before its values are used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ..errors import InvalidValueError
from .disk import sha256
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
        self._checked: set[str] = set()

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
        return self._attributes(self._open_group(grid), f"{grid}/zarr.json", GroupAttributes)

    def attributes(self, grid: str, array: str) -> ArrayAttributes:
        """Attributes of an array."""
        return self._attributes(self.array(grid, array), f"{grid}/{array}/zarr.json", ArrayAttributes)

    def dims(self, grid: str, array: str) -> list[str]:
        """Names of the axes of an array."""
        names = getattr(self.array(grid, array).metadata, "dimension_names", None) or ()
        if not names or None in names:
            raise self.damage(f"{grid}/{array}/zarr.json names no axes")
        return list(names)

    def read(self, grid: str, array: str, row: int | slice | None = None) -> np.ndarray:
        """Values of an array: all, or the rows of some images.

        Raises:
            Damaged: The values do not match their checksum.
            StoreIOError: They cannot be read at the moment.
        """
        node = self.array(grid, array)
        try:
            values = node[...] if row is None else node[row]
        except OSError as error:
            raise unreadable(self.root, self.name, f"{grid}/{array}", error) from error
        except Exception as error:  # codecs raise many types for damaged data
            raise self.damage(f"{grid}/{array}: {error}") from error
        return np.asarray(values)

    def array(self, grid: str, array: str) -> zarr.Array:
        """The Zarr array. Nothing but its metadata is read."""
        import zarr

        self._check(f"{grid}/{array}/")
        try:
            return zarr.open_array(self.root / PARTS / self.name / grid / array, mode="r", zarr_format=3)
        except OSError as error:
            raise unreadable(self.root, self.name, f"{grid}/{array}", error) from error
        except Exception as error:
            raise self.damage(f"{grid}/{array}: {error}") from error

    def _open_group(self, grid: str) -> zarr.Group:
        import zarr

        self._check(f"{grid}/zarr.json")
        try:
            return zarr.open_group(self.root / PARTS / self.name / grid, mode="r")
        except OSError as error:
            raise unreadable(self.root, self.name, grid, error) from error
        except Exception as error:
            raise self.damage(f"{grid}: {error}") from error

    def _attributes(self, node: zarr.Array | zarr.Group, key: str, kind: type[A]) -> A:
        try:
            return from_json(dict(node.attrs), kind)
        except InvalidValueError as error:
            raise self.damage(f"{key}: {error}") from error

    def _check(self, prefix: str) -> None:
        """Checks metadata by checksum and array files by size, because zarr reads missing or short files as zeros."""
        if prefix in self._checked:
            return
        for key, (size, digest) in self.record.files.items():
            if not key.startswith(prefix):
                continue
            path = self.root / PARTS / self.name / key
            try:
                if key.endswith("zarr.json"):
                    if sha256(path.read_bytes()) != digest:
                        raise self.damage(f"{key} does not match its checksum")
                elif path.stat().st_size != size:
                    raise self.damage(f"{key} has {path.stat().st_size} bytes, expected {size}")
            except Damaged:
                raise
            except OSError as error:
                raise unreadable(self.root, self.name, key, error) from error
        self._checked.add(prefix)

    def damage(self, what: str) -> Damaged:
        """The error for damage of this part."""
        return Damaged.of_part(self.root, self.name, what)
