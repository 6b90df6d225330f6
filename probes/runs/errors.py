"""Errors about stored runs. `StoreError`, which is `probes.StoreError`, is the base of all of them.

    StoreError                     a run cannot be written, resumed or trusted
      StoreIOError                 the disk failed (also OSError: errno, strerror)
        Damaged                    stored bytes differ from what was written: part, what
        DiskSpaceError             the run would not fit on the disk: needed, free
        MissingRunError            the folder holds no run (also FileNotFoundError)
        OutputFolderError          the folder holds something else (also FileExistsError)
        RunLockedError             another process is writing (also BlockingIOError)
      RunMismatchError             the call does not fit the stored run (also ValueError): differences
        ChangedImagesError         image files changed since they were captured: images
        MissingImagesError         images that a repair needs were not given: images
        ModelChangedError          the weights or edits of the model changed during the run
      RunFormatError               another version of the package wrote the run (also ValueError): found
      UnavailableImageError        the pixels of a captured image cannot be read (also RuntimeError): image
      EngineError                  the Dask cluster failed (also RuntimeError)
      MachineError                 a disk or network share is gone, or memory is full (also RuntimeError)

Every class can be pickled with its attributes, because Dask workers send errors to the client.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path

from dpt.errors import NotAFileError

from ..errors import ExistingFileError, MissingFileError, ProbeError, UnavailableError


class StoreError(ProbeError):
    """A run on disk cannot be written, resumed or trusted."""


class StoreIOError(StoreError, OSError):
    """The disk failed. Created with (errno, message).

    Attributes:
        errno: The system's code, e.g. errno.ENOSPC.
        strerror: The message.
    """

    def __str__(self) -> str:  # OSError would add "[Errno 5]"
        return str(self.strerror)


class Damaged(StoreIOError):
    """Stored bytes differ from what was written.

    Attributes:
        part: Name of the damaged part, or of the file beside the parts.
        what: The damage, in a few words.
    """

    part: str = ""
    what: str = ""

    @classmethod
    def of_part(cls, root: Path, part: str, what: str) -> Damaged:
        """The error for a damaged part, which `repair` can recompute."""
        advice = f"`dpt-workbench verify {root}` lists all damage; with --repair it recomputes damaged parts"
        return cls._made(part, what, f"part {part} is damaged ({what}). {advice}")

    @classmethod
    def of_file(cls, path: Path, what: str, advice: str) -> Damaged:
        """The error for a damaged file beside the parts."""
        return cls._made(path.name, what, f"{path} is damaged ({what}). {advice}")

    @classmethod
    def _made(cls, part: str, what: str, message: str) -> Damaged:
        error = cls(errno.EIO, message)
        error.part, error.what = part, what
        return error


# Errors of reading that mean damage: the file is gone, is something else, is too large, or the disk has failed.
LOST = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO, errno.ELOOP, errno.EFBIG})


def is_damage(error: OSError) -> bool:
    """Whether an error of reading means damage.

    A transient error such as EACCES or EMFILE does not: it must not trigger recomputation.
    """
    return error.errno in LOST or isinstance(error, NotAFileError)


def damage_of(root: Path, key: str, error: OSError, advice: str) -> StoreIOError:
    """The error for a file beside the parts that cannot be read."""
    if isinstance(error, StoreIOError):
        return error
    what = error.strerror or str(error)
    if is_damage(error):
        return Damaged.of_file(root / key, what, advice)
    return StoreIOError(error.errno, f"cannot read {root / key}: {what}. Resolve the cause, then read again")


class DiskSpaceError(StoreIOError):
    """The disk has less free space than the run is estimated to need.

    Attributes:
        needed: Estimated bytes before compression.
        free: Free bytes on the disk.
    """

    needed: int = 0
    free: int = 0


class MissingRunError(StoreIOError, MissingFileError):
    """The folder does not exist or holds no run."""


class OutputFolderError(StoreIOError, ExistingFileError):
    """The path for a new run is a file, or a folder that holds something else."""


class RunLockedError(StoreIOError, BlockingIOError):
    """Another process is writing to the run."""


class RunMismatchError(StoreError, ValueError):
    """The call does not fit the stored run, so it cannot resume or repair it.

    Attributes:
        differences: One line per setting that differs.
    """

    def __init__(self, message: str, differences: Sequence[str] = ()):
        super().__init__(message)
        self.differences = tuple(differences)


class ChangedImagesError(RunMismatchError):
    """Image files have changed since they were captured.

    Attributes:
        images: Their names in the run.
    """

    def __init__(self, message: str, images: Sequence[str] = ()):
        super().__init__(message)
        self.images = tuple(images)


class MissingImagesError(RunMismatchError):
    """Images of damaged parts are not among the images given for the repair.

    Attributes:
        images: Their names in the run.
    """

    def __init__(self, message: str, images: Sequence[str] = ()):
        super().__init__(message)
        self.images = tuple(images)


class ModelChangedError(RunMismatchError):
    """The weights or edits of the model changed during the run. Parts computed before are intact."""


class RunFormatError(StoreError, ValueError):
    """The run has a format or a model family that this version does not know.

    Attributes:
        found: The format or family that the run states.
    """

    def __init__(self, message: str, found: object = None):
        super().__init__(message)
        self.found = found


class UnavailableImageError(StoreError, UnavailableError):
    """The pixels of a captured image cannot be read.

    Attributes:
        image: Its name in the run.
    """

    def __init__(self, message: str, image: str = ""):
        super().__init__(message)
        self.image = image


class EngineError(StoreError, UnavailableError):
    """The Dask cluster failed. Committed parts are intact; the same call resumes the run."""


class MachineError(StoreError, UnavailableError):
    """A disk or network share is gone, or memory is full. Committed parts are intact; the same call resumes."""
