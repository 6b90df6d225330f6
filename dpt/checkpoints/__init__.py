"""Loads checkpoints: finds the file, reads its tensors safely, recognises the model, and builds it strictly.

    lookup -> files -> recognition -> loading

* `lookup` resolves a name to a file: in a folder weights/, or downloaded (`hub`) if `zoo` knows it.
* `files` opens the file and reads shapes and places of its tensors, without running code from it.
* `wrappers` finds the weights among everything else in a file.
* `recognition` infers family and sizes from the tensors, and accounts for every tensor. `relatives` names files that
  hold something else; `preprocessor` reads the input of a fine-tuned model.
* `loading` builds the model without memory, and `values` reads each parameter into memory of its own. `mapped` uses the
  file in place, on request.
* `saving` writes and reads our own format, for models that pass `saveable`.

Model code lives in `dpt`, not here: this package maps other projects' keys to it.
"""

from __future__ import annotations

from .errors import CheckpointError
from .loading import inspect, load
from .lookup import available
from .recognition import Recognised
from .saving import save

__all__ = ["CheckpointError", "Recognised", "available", "inspect", "load", "save"]


def __dir__() -> list[str]:  # completion offers public names only
    return sorted(__all__)
