"""The tensors of a checkpoint, whatever file they came from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from torch import Tensor

from ..printable import printable
from .errors import CheckpointError
from .notes import Note
from .stored import Place, StoredFile
from .wrappers import unwrap


@dataclass(frozen=True)
class Contents:
    """The tensors of a checkpoint, and the other facts that its file states.

    The tensors of a file are on the meta device: shapes and dtypes without values. `values` reads the values from their
    places, once it is known which are needed.
    """

    name: str  # what messages call the checkpoint: its path, or "the given state dict"
    tensors: dict[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)  # from a safetensors header
    path: Path | None = None  # the file, or the index of a sharded checkpoint; None for a state dict
    places: Mapping[str, Place] = field(default_factory=dict)  # key -> where its values are; none for a state dict
    files: tuple[StoredFile, ...] = ()  # open files that the places refer to
    notes: tuple[Note, ...] = ()  # on the choice of the tensors among others in the file

    def __enter__(self) -> Contents:
        return self

    def __exit__(self, *exception: object) -> None:
        for file in self.files:
            file.close()


def of_mapping(state: Mapping[str, Tensor]) -> Contents:
    """The contents of a state dict that the caller holds in memory."""
    found = unwrap(state, "the given state dict")
    return Contents("the given state dict", found.tensors, notes=found.notes)


def of_files(
    path: Path, loaded: object, metadata: Mapping[str, str], places: Mapping[int, Place | str], files: list[StoredFile]
) -> Contents:
    """The contents of parsed files.

    Args:
        path: The file, or the index of several.
        loaded: The object that was saved, with tensors on the meta device.
        metadata: From the header of a safetensors file.
        places: Where the values of each tensor are, or why they cannot be read, by id() of the tensor.
        files: The open files.

    Raises:
        CheckpointError: The object is not a state dict of dense tensors, or claims more values than are stored.
    """
    tensors, notes = unwrap(loaded, str(path))
    found: dict[str, Place] = {}
    for key, tensor in tensors.items():
        place = places[id(tensor)]
        if isinstance(place, str):
            raise CheckpointError(f"{path} cannot be loaded: {printable(key)} {place}")
        found[key] = place
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    stored = sum(file.size for file in files)
    if claimed > 2 * stored:  # a few tensors may share a storage
        raise CheckpointError(
            f"{path} claims {claimed} bytes of weights, but only {stored} bytes are stored: many tensors share the "
            "same values. Save copies of them (tensor.clone())"
        )
    check_overlap(path, {key: place for key, place in found.items() if place.crc is None})
    return Contents(str(path), tensors, metadata, path, found, tuple(files), notes)


def check_overlap(path: Path, places: Mapping[str, Place]) -> None:
    """Refuse tensors that overlap or skip elements: without a checksum, only this finds a damaged offset or stride."""
    spans = []
    for key, place in places.items():
        if place.span != math.prod(place.shape) * place.dtype.itemsize:
            raise CheckpointError(
                f"{path} is damaged, or holds a part of a larger tensor: {printable(key)} of shape {place.shape} has "
                f"strides {place.stride}, which skip elements. Get the file again, or save copies (tensor.clone())"
            )
        if place.span:
            start = place.start + place.offset
            spans.append((str(place.file.path), start, start + place.span, key))
    for (file, _, end, key), (other_file, start, _, other) in pairwise(sorted(spans)):
        if file == other_file and start < end:
            raise CheckpointError(
                f"{path} is damaged, or holds tied weights: {printable(key)} and {printable(other)} share memory. Get "
                "the file again, or save copies (tensor.clone())"
            )


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type if it has none."""
    return printable(str(error).strip().split("\n")[0], 300) or type(error).__name__
