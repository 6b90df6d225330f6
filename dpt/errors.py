"""The errors of this package. Each one is a `DPTError` and also of the built-in type that fits.

``except dpt.DPTError`` catches whatever the package raises on purpose; ``except ValueError`` and its like still
work.
"""

from __future__ import annotations


class DPTError(Exception):
    """Base of all errors that a caller of this package can cause."""


class InvalidValueError(DPTError, ValueError):
    """An argument has the right type and a value that cannot be used."""


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
