"""Writes an ONNX model: one file, or two if the weights exceed the limit of a protocol buffer."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..writing import TEMPORARY, check_place, sync_folder, write_error

if TYPE_CHECKING:
    from onnxscript import ir

# A protocol buffer holds at most 2 GiB. The difference leaves room for the graph itself.
LARGEST_FILE = 2**31 - 2**27


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Provides a path in a temporary folder, whose files replace `path` and its data file when the block ends.

    If the block raises, the old files stay. A reader never sees a model beside the weights of another one.

    Args:
        path: The ONNX file to write. Its folder must exist.

    Yields:
        A path with the same name in the temporary folder.

    Raises:
        WriteError: The file cannot be written. Raised on entry where possible, before any work is done.
    """
    check_place(path)
    folder = None
    try:
        folder = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY}{path.name}-", dir=path.parent))
        yield folder / path.name
        # The weights are renamed first, and the old model is removed before them.
        data = folder / f"{path.name}.data"
        beside = path.with_name(data.name)
        if large := data.exists():
            path.unlink(missing_ok=True)
            os.replace(data, beside)
        os.replace(folder / path.name, path)
        if not large:
            beside.unlink(missing_ok=True)  # from an earlier, larger model
        sync_folder(path.parent)
    except OSError as error:
        raise write_error(path, error.errno, error.strerror or str(error)) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def write(model: ir.Model, path: Path) -> list[Path]:
    """Writes a model and flushes it to disk. Weights that are too large for one file go to a second, PATH.data.

    Args:
        model: The model in onnxscript's intermediate representation.
        path: The ONNX file.

    Returns:
        The files that were written.
    """
    from onnxscript import ir

    weights = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    data = f"{path.name}.data" if weights > LARGEST_FILE else None
    ir.save(model, path, external_data=data)
    files = [path, *([path.with_name(data)] if data else [])]
    for file in files:
        with open(file, "rb+") as written:
            os.fsync(written.fileno())
    return files
