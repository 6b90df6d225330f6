"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# A file of protocol buffers ends at 2 GiB; some room is left for the graph itself.
LARGEST_FILE = 2**31 - 2**27


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """A path in a new folder beside `path`; what is in that folder at the end of the block takes its place there.

    Entering fails at once where nothing can be written, before any work is done. An exception inside leaves what was
    there before. OSError names the path that was asked for.
    """
    folder = None
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "there is a folder of that name", str(path))
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        yield folder / path.name
        # The weights first, and between the two no model at all: a model never stands beside another one's weights.
        data = folder / f"{path.name}.data"
        beside = path.with_name(data.name)
        if large := data.exists():
            path.unlink(missing_ok=True)
            os.replace(data, beside)
        os.replace(folder / path.name, path)
        if not large:
            beside.unlink(missing_ok=True)  # of an earlier, larger model
    except OSError as error:
        raise OSError(error.errno, f"cannot write the ONNX file: {error.strerror or error}", str(path)) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def write(model: Any, path: Path) -> list[Path]:
    """Writes a model; weights that are too large for one file go to a second, PATH.data. Returns the files."""
    from onnxscript import ir

    weights = sum(value.const_value.nbytes for value in model.graph.initializers.values())
    data = f"{path.name}.data" if weights > LARGEST_FILE else None
    ir.save(model, path, external_data=data)
    files = [path, *([path.with_name(data)] if data else [])]
    for file in files:
        with open(file, "rb+") as written:
            os.fsync(written.fileno())
    return files
