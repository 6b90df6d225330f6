"""What a run was started with, and its fingerprint: a call resumes a run only if both fingerprints are equal.

The fingerprint covers the model (configuration and weights), the points, the settings of the input and the active
edits. `capture_record` collects them, `fingerprint` hashes them, and `check_same` explains how two of them differ.

Functions that edit (`probes.apply(f)`) are identified in two ways, and both count:

* the label that the caller gives: ``probes.apply(f, version="2")``
* a hash of the function's source text, if `inspect.getsource` finds it

The source text includes comments and formatting. It does not include values that the function reads from elsewhere:
globals, closures, default arguments computed outside, attributes of its object, functions that it calls. Change the
version when one of these changes. For several lambdas in one statement, the text is the whole statement.
`inspect.getsource` reads the file as it is now, so a file edited after its import gives the new text. It follows
`functools.wraps` to the wrapped function, so the text of the wrapper does not count.
Functions without source text (built-in functions, `functools.partial`, callable objects, functions typed at the prompt
of plain Python) need a version.
"""

from __future__ import annotations

import inspect
import json
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dpt import DPT
from dpt.fingerprint import fingerprint as weights_fingerprint
from dpt.fingerprint import tensor_fingerprint

from ..actions import Edit
from ..edit import active as active_edits
from ..errors import InvalidValueError
from .disk import sha256
from .errors import RunMismatchError
from .recording import Recorder
from .records import CaptureRecord, EditRecord, ModelRecord, RunRecord, from_json, to_json

Size = int | tuple[int, int] | None


def capture_record(recorder: Recorder, size: Size, keep_aspect: bool, keep_images: bool) -> CaptureRecord:
    """What a run captures, with the edits that are active now.

    Raises:
        InvalidValueError: An edit is a function without source text and without a version.
    """
    model = recorder.model
    return CaptureRecord(
        model=model_record(model),
        points=recorder.names,
        tokens=list(recorder.tokens),
        dtype=dtype_name(recorder.dtype) if recorder.dtype else None,
        size=size,
        keep_aspect=keep_aspect,
        keep_images=keep_images,
        edits=[(point, _edit_record(point, edit)) for point, edit in active_edits(model)],
    )


def model_record(model: DPT) -> ModelRecord:
    """The model's configuration, the fingerprint of its weights and their dtype."""
    # The same fields as in JSON, so that a new record equals one that was read.
    config: dict[str, Any] = json.loads(json.dumps(to_json(model.config)))
    return ModelRecord(
        family=model.config.family,
        variant=model.config.variant,
        config=config,
        weights=weights_fingerprint(model),
        dtype=dtype_name(model.dtype),
    )


def dtype_name(dtype: torch.dtype) -> str:
    """ "float32" for torch.float32."""
    return str(dtype).removeprefix("torch.")


def fingerprint(capture: CaptureRecord) -> str:
    """SHA-256 in hex of what a run captures."""
    return sha256(json.dumps(to_json(capture), sort_keys=True).encode())


def source_sha256(function: Callable[[Tensor], Tensor]) -> str | None:
    """SHA-256 in hex of a function's source text, without common indentation; None if there is no source text."""
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):
        return None
    return sha256(textwrap.dedent(source).strip().encode(errors="surrogatepass"))


def _edit_record(point: str, edit: Edit) -> EditRecord:
    about = edit.to_json()
    if isinstance(edit.value, Tensor):
        about["tensor"] = tensor_fingerprint(edit.value)
    if edit.function is not None:
        about["source"] = source_sha256(edit.function)
        if about["source"] is None and edit.version is None:
            raise InvalidValueError(
                f"cannot identify {about['function']}, which edits {point}: it has no source text. Give it a label, "
                'and change the label with the function: probes.apply(f, version="1")'
            )
    return from_json(about, EditRecord)


def check_same(root: Path, stored: RunRecord, given: RunRecord) -> None:
    """Checks that a call fits the stored run.

    Raises:
        RunMismatchError: The fingerprints differ. The message says what differs.
    """
    if stored.fingerprint == given.fingerprint:
        return
    differences = list(_differences(to_json(stored.capture), to_json(given.capture)))
    shown = "; ".join(differences[:6])
    raise RunMismatchError(
        f"{root} holds a run with different settings: {shown}. Use another folder, or the settings of the run",
        differences,
    )


def _differences(stored: Any, given: Any, path: str = "") -> Iterator[str]:
    """Yields one line per difference between two JSON values."""
    if isinstance(stored, dict) and isinstance(given, dict):
        for key in sorted(stored.keys() | given.keys()):
            yield from _differences(stored.get(key), given.get(key), f"{path}.{key}" if path else key)
    elif path == "edits" and [name for name, _ in stored] == [name for name, _ in given]:
        for (name, before), (_, now) in zip(stored, given, strict=True):
            yield from _edit_differences(name, before, now)
    elif path == "points" and stored != given:  # long lists: show the points that only one of them has
        for where, mine, other in (("the stored run", stored, given), ("this call", given, stored)):
            if only := [name for name in mine if name not in other]:
                more = f" and {len(only) - 3} more" if len(only) > 3 else ""
                yield f"only in {where}: {', '.join(only[:3])}{more}"
    elif stored != given:
        yield f"{path} is {_short(stored)} in the stored run and {_short(given)} in this call"


def _edit_differences(point: str, stored: dict[str, Any], given: dict[str, Any]) -> Iterator[str]:
    identity = ("source", "code", "version")
    before, now = ({key: value for key, value in edit.items() if key not in identity} for edit in (stored, given))
    if before != now:
        yield from _differences(before, now, f"the edit of {point}")
    elif "code" in stored:
        yield f"the function {given['function']} that edits {point} was stored in a way that can no longer be compared"
    elif stored.get("version") != given.get("version"):
        versions = f"{_short(stored.get('version'))} in the stored run and {_short(given.get('version'))} in this call"
        yield f"the function {given['function']} that edits {point} has version {versions}"
    elif stored != given:
        yield f"the function {given['function']} that edits {point} has other source text than in the stored run"


def _short(value: Any) -> str:
    text = "not given" if value is None else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:40]}... ({len(value)} items)"
