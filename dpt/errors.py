"""Exceptions raised by `dpt`.

Every exception derives from `DPTError` and from the built-in exception that fits. Callers can catch
``dpt.DPTError`` for all of them, or ``ValueError``, ``TypeError`` and so on as usual.
"""

from __future__ import annotations


class DPTError(Exception):
    """Base class of all exceptions that a caller of `dpt` can cause."""


class InvalidValueError(DPTError, ValueError):
    """An argument has the right type but a value that cannot be used."""


class InvalidTypeError(DPTError, TypeError):
    """An argument has the wrong type."""


class UnavailableError(DPTError, RuntimeError):
    """The call cannot work in the current state, on this machine or in this environment."""


class MissingFileError(DPTError, FileNotFoundError):
    """A file or folder that the caller named does not exist."""


class OutOfRangeError(DPTError, IndexError):
    """An index lies outside the model or the token grid."""


class MissingDependencyError(DPTError, ImportError):
    """An optional dependency is not installed."""


class ImageError(DPTError, ValueError):
    """An image cannot be read or used. The message names the image, the problem, and what to do."""


class ImageWarning(UserWarning):
    """An image was read, but not all that it holds: a frame of several, or fewer grey levels than its values have."""


class NotFiniteWarning(UserWarning):
    """A depth map contains NaN or infinity."""


class WriteError(DPTError, OSError):
    """A file cannot be written. `errno` says why, as for any OSError; `path` is the requested file."""

    path: str = ""


class AddressError(DPTError, ValueError):
    """An address such as s3://bucket/run was given where a path of this machine is needed."""


class WriteToFolderError(WriteError, IsADirectoryError):
    """A file cannot be written because its path is an existing folder."""


class WriteToMissingFolderError(WriteError, MissingFileError):
    """A file cannot be written because its folder does not exist."""


class WritePermissionError(WriteError, PermissionError):
    """A file cannot be written because the user lacks the permission."""


class NotAFileError(DPTError, OSError):
    """A path leads to a folder, a pipe, a socket or a device where a regular file is needed."""


class FileTooLargeError(DPTError, OSError):
    """A file has more bytes than its kind can have."""
