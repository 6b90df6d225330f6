"""The errors of this package. Each one is a `ProbeError` and also of the built-in type that fits.

``except probes.ProbeError`` catches every error that the package raises on purpose. ``except ValueError`` and the other
built-in types work too. Errors of the models themselves derive from `dpt.DPTError`.
"""

from __future__ import annotations


class ProbeError(Exception):
    """Base of all errors that a caller of this package can cause."""


class InvalidValueError(ProbeError, ValueError):
    """An argument has the right type but an unusable value."""


class InvalidTypeError(ProbeError, TypeError):
    """An argument has the wrong type."""


class UnavailableError(ProbeError, RuntimeError):
    """The call cannot work in the current state, on this machine or in this environment."""


class CancelledError(UnavailableError):
    """The user cancelled the computation, e.g. with the Cancel button of an explorer."""


class UnsupportedModelError(ProbeError, NotImplementedError):
    """The model does not have the parts that the call works on."""


class MissingFileError(ProbeError, FileNotFoundError):
    """A file or folder that the caller named does not exist."""


class IsAFolderError(ProbeError, IsADirectoryError):
    """A path leads to a folder, where a file is expected."""


class IrregularFileError(ProbeError, OSError):
    """A path leads to a pipe, socket or device, where a file is expected."""


class ExistingFileError(ProbeError, FileExistsError):
    """A file to write exists already, and the caller did not ask to replace it."""


class MissingDependencyError(ProbeError, ImportError):
    """An optional dependency is not installed."""


class UnknownPointError(ProbeError, ValueError):
    """A selector matches no probe point of the model."""


class OutOfRangeError(ProbeError, IndexError):
    """An index lies outside the model, the token grid or the capture."""


class UnknownKeyError(ProbeError, KeyError):
    """A mapping has no value for the given key."""

    def __str__(self) -> str:  # KeyError shows the repr of its message, in quotes
        return str(self.args[0]) if self.args else ""


class ProbeWarning(UserWarning):
    """The result of a call may not be what its caller expects."""
