"""Loads checkpoints: finds the file, reads its tensors safely, recognises the model, and builds it strictly.

    lookup -> files -> recognition -> loading

* `lookup` resolves a name to a file: in a folder weights/, or downloaded (`hub`) if `zoo` knows it.
* `files` reads tensors without running code from the file.
* `recognition` infers family and sizes from the tensors, and accounts for every tensor.
* `loading` builds the model. The file is mapped, the model is built without memory, and the mapped tensors become its
  parameters, so nothing is copied without need.
* `saving` writes and reads our own format.

Model code lives in `dpt`, not here: this package maps other projects' keys to it.
"""

from __future__ import annotations

from .errors import CheckpointError
from .loading import inspect, load
from .lookup import available
from .recognition import Recognised
from .saving import save

__all__ = ["CheckpointError", "Recognised", "available", "inspect", "load", "save"]
