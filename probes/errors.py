"""The errors of this package. Each one is a `ProbeError` and also of the built-in type that fits.

``except probes.ProbeError`` catches whatever the package raises on purpose; ``except ValueError`` and its like still
work. Errors of the models themselves derive from `dpt.DPTError`.
"""

from __future__ import annotations


class ProbeError(Exception):
    """Base of all errors that a caller of this package can cause."""


class InvalidValueError(ProbeError, ValueError):
    """An argument has the right type and a value that cannot be used."""


class InvalidTypeError(ProbeError, TypeError):
    """An argument has the wrong type."""


class UnavailableError(ProbeError, RuntimeError):
    """The call cannot work in the current state, on this machine or in this environment."""


class MissingFileError(ProbeError, FileNotFoundError):
    """A file or folder that the caller named does not exist."""


class UnknownPointError(ProbeError, ValueError):
    """A selector matches no probe point of the model."""


class OutOfRangeError(ProbeError, IndexError):
    """An index lies outside the model, the token grid or the capture."""
