"""What users pass to explorers, as subjects and models, or refused with advice.

subject_of(model, image, size, keep_aspect)
subject_of(run["photo.jpg"], None, None, True)
"""

from __future__ import annotations

import dpt
from dpt.image import Size

from ...captured import Capture
from ...errors import InvalidTypeError
from ...runs.stored import Run, StoredCapture
from .live_subject import Live
from .stored_subject import Stored
from .subject import ImageLike, Subject


def subject_of(source: object, image: ImageLike | None, size: Size, keep_aspect: bool) -> Subject:
    """The subject that an explorer's arguments describe.

    Args:
        source: A model, one image of a run, or the subject of another explorer, which both then share.
        image: The image to run the model on. For a run, only needed if the image's file is gone.
        size: Input size, for a model only.
        keep_aspect: Whether the input keeps the aspect ratio, for a model only.

    Raises:
        InvalidTypeError: `source` is something else, or a size was given for an image of a run.
    """
    if isinstance(source, Subject):
        return source.another()
    if not isinstance(source, StoredCapture):
        return Live(checked_model(source), image, size, keep_aspect)
    if size is not None or not keep_aspect:
        raise InvalidTypeError(
            f"{source.name} was captured as {source.input_size[0]} x {source.input_size[1]} pixels. size and "
            "keep_aspect apply to a model only. Leave them out"
        )
    return Stored(source, image)


def checked_model(model: object) -> dpt.DPT:
    """Returns the model, or raises an InvalidTypeError that says how to get one."""
    if isinstance(model, dpt.DPT):
        return model
    hint = ""
    if isinstance(model, StoredCapture):
        hint = (
            ". This explorer runs the model, and a run does not contain one. Load the captured model with dpt.load; "
            f"the image is run[{model.name!r}].image()"
        )
    elif isinstance(model, Run):
        hint = '. Choose an image of the run: run["photo.jpg"]. list(run) returns their names'
    elif isinstance(model, Capture):
        hint = '. A capture does not contain the image. A run contains both: probes.open_run("run/")["photo.jpg"]'
    elif isinstance(model, str) or hasattr(model, "__fspath__"):
        hint = f". Load it first: dpt.load({str(model)!r})"
    raise InvalidTypeError(f"model must be a DPT model from dpt.load, got {type(model).__name__}{hint}")
