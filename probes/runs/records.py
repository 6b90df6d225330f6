"""The records of a run, as they stand in its JSON files. msgspec converts and checks them.

    run.json         RunRecord: the settings of the run, with its CaptureRecord
    manifest.jsonl   one ManifestLine per part
    summary.json     Summary: how many parts the manifest lists, and its digest
    part.json        PartRecord: the part's images and files
    zarr.json        GroupAttributes of a patch grid, ArrayAttributes of an array
    failures.jsonl   one FailureLine per failed image

A Struct is msgspec's dataclass. The order of the fields is the order on disk, and optional fields are left out when
they are empty, so a run that is captured again has the same bytes. The stored keys say "pictures" where this package
says images.

Names of parts, grids, arrays and files become paths, so their patterns are exact: nothing in a record, however it came
there, can name a place outside the run.

`to_json` and `from_json` convert between records and JSON values. Names of files can hold lone surrogates, which
msgspec's own decoder refuses; Python's `json` reads and writes the text.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
from msgspec import Meta, Struct

from dpt import TokenGrid

from ..errors import InvalidValueError

FORMAT = "dpt-workbench run 1"
PART_NAME = r"[0-9]{6,18}-[0-9a-f]{12}"
GRID_NAME = r"[0-9]{1,9}x[0-9]{1,9}"  # "20x28": rows x columns of patches
# Points name folders: no separators, no control characters, not only dots, and no dot or space at the end, which
# Windows ignores.
POINT_NAME = r"[^/\\:\x00-\x1f\x7f]*[^/\\:\x00-\x1f\x7f. ]"
FILE_KEY = rf"{GRID_NAME}/({POINT_NAME}/)?(zarr\.json|c(\.[0-9]{{1,9}})*)"  # files of a Zarr group and its arrays

PartName = Annotated[str, Meta(pattern=rf"^{PART_NAME}\Z")]
GridName = Annotated[str, Meta(pattern=rf"^{GRID_NAME}\Z")]
PointName = Annotated[str, Meta(pattern=rf"^{POINT_NAME}\Z", max_length=200)]
FileKey = Annotated[str, Meta(pattern=rf"^{FILE_KEY}\Z", max_length=240)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Token = int | tuple[int, int]

T = TypeVar("T")


class Failure(NamedTuple):
    """An image that could not be captured."""

    image: str
    reason: str


class ListedImage(NamedTuple):
    """An image of a part, as the manifest lists it. Failed images have no grid."""

    name: str
    grid: GridName | None


class StoredFile(NamedTuple):
    """Size and SHA-256 of a file of a part."""

    bytes: Count
    sha256: Sha256


class ModelRecord(Struct, frozen=True):
    """The model of a run. `config` holds the fields of the family's configuration class."""

    family: str
    variant: str
    config: dict[str, Any]
    weights: str
    dtype: str


class EditRecord(Struct, frozen=True, omit_defaults=True):
    """An edit that was active, as `probes.Edit.to_json` describes it, and what identifies its parts.

    Attributes:
        tensor: SHA-256 of the values of a replacing tensor.
        source: SHA-256 of a function's source text.
        code: SHA-256 of a function's bytecode, in runs that version 0.1 began. Not computed any more.
    """

    action: str
    where: dict[str, list[int]]
    factor: float | None = None
    value: float | None = None
    function: str | None = None
    version: str | None = None
    tensor: str | None = None
    source: str | None = None
    code: str | None = None


class CaptureRecord(Struct, frozen=True):
    """What a run captures. Its digest is the run's fingerprint."""

    model: ModelRecord
    points: list[PointName]
    tokens: list[Token]
    dtype: str | None
    size: int | tuple[int, int] | None
    keep_aspect: bool
    keep_images: bool
    edits: list[tuple[str, EditRecord]]


class RunRecord(Struct, frozen=True, omit_defaults=True):
    """The settings of a run: run.json.

    Attributes:
        capture: What is captured.
        fingerprint: SHA-256 of `capture`. A call with another fingerprint cannot resume the run.
        part: Images per part.
        batch: Images per forward pass.
        source: Notes of the caller, stored unchanged.
        summary: Whether the run keeps a summary.json from its first part on. Version 0.1 did not.
    """

    capture: CaptureRecord
    fingerprint: Sha256
    part: Positive
    batch: Positive
    source: dict[str, Any]
    summary: bool = False


class ImageRecord(Struct, frozen=True, omit_defaults=True):
    """A captured image of a part.

    Attributes:
        name: Unique in the run.
        grid: The group that holds its values.
        row: Its row in the arrays of the group.
        size: (height, width) of the image in pixels.
        sha256: Of the file's bytes; of the pixels for arrays and frames.
        source: Absolute path of the file; None for arrays.
        frame: Number of the video frame, from 0.
        stamp: State of the file when it was read: bytes, times of the last change of content and of entry, in ns.
    """

    name: str
    grid: GridName
    row: Count
    size: tuple[Positive, Positive]
    sha256: Sha256
    source: str | None = None
    frame: Count | None = None
    stamp: tuple[Count, int, int] | None = None


class PartRecord(Struct, frozen=True, rename={"images": "pictures"}):
    """A part: part.json.

    Attributes:
        names: All images of the part in order, failed ones included.
        images: The captured images.
        files: Size and SHA-256 of every other file of the part, by path.
    """

    part: PartName
    fingerprint: Sha256
    index: Count
    names: list[str]
    images: list[ImageRecord]
    failures: list[Failure]
    files: dict[FileKey, StoredFile]


class ManifestLine(Struct, frozen=True, rename={"images": "pictures"}):
    """A part as the manifest lists it.

    Attributes:
        images: All images of the part in order.
        bytes: Size of all its files.
        seal: SHA-256 of its part.json.
    """

    part: PartName
    index: Count
    images: list[ListedImage]
    failures: list[Failure]
    bytes: Count
    seal: Sha256

    @property
    def grids(self) -> dict[str, str]:
        """The captured images of the part: name -> grid."""
        return {image.name: image.grid for image in self.images if image.grid is not None}


class Summary(Struct, frozen=True, omit_defaults=True):
    """What the manifest held after the last commit: summary.json. It tells a lost part from one that never was.

    Attributes:
        parts: Number of lines.
        bytes: Size of the manifest. A kill can leave more lines, never fewer.
        manifest: SHA-256 of these bytes.
        lost: Parts that were lost together with their lines, and that a later run has not captured again.
    """

    parts: Count
    bytes: Count
    manifest: Sha256
    lost: Count = 0


class FailureLine(Struct, frozen=True, rename={"image": "picture"}):
    """A line of failures.jsonl, for people: this package reads failures from the manifest."""

    image: str
    reason: str


class GroupAttributes(Struct, frozen=True):
    """Attributes of a Zarr group: the patch grid and the (height, width) of the model's input in pixels."""

    grid: TokenGrid
    input_size: tuple[Positive, Positive]


class ArrayAttributes(Struct, frozen=True, omit_defaults=True):
    """Attributes of a Zarr array.

    Attributes:
        meaning: What the point holds, in words.
        grid: How the tokens of the point lie on the image.
        point: The attention point that was reduced, with `reduction` and the chosen `tokens`.
        kind: "attention" for queries and keys, with the `scale` of their products.
    """

    meaning: str = ""
    grid: TokenGrid | None = None
    point: str | None = None
    reduction: str | None = None
    tokens: list[int] | None = None
    kind: str | None = None
    scale: float | None = None


def to_json(record: object) -> dict[str, Any]:
    """The JSON object of a record or dataclass, with its keys in the order on disk."""
    plain: dict[str, Any] = msgspec.to_builtins(record)
    return plain


def from_json(value: object, kind: type[T]) -> T:
    """The record that a JSON object describes.

    Raises:
        InvalidValueError: A field is missing, has the wrong type or a value outside its range.
    """
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, TypeError) as error:
        raise InvalidValueError(f"not a valid {kind.__name__}: {error}") from error
