"""Another image, model or input size for an explorer that is on display, and where its tokens go.

    explorer.image = other              # subject_with(subject, image=other)
    explorer.image = run["b.jpg"]       # another stored image, if the explorer shows a run

A new subject is created and checked before the explorer changes. A refused value leaves it as it was.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import dpt
from dpt import TokenGrid

from ...errors import InvalidTypeError, InvalidValueError
from ...runs.stored import StoredCapture
from .arguments import checked_model, subject_of
from .controls import ControlError
from .live_subject import Live
from .stored_subject import Stored
from .subject import Subject


def subject_with(subject: Subject, **changes: Any) -> Subject:
    """The subject of an explorer with another image, model, input size or aspect ratio.

    Args:
        subject: The present one. It is not changed.
        **changes: One of image, model, size and keep_aspect. If another model or image cannot take the present size,
            the new subject has the model's own size.

    Raises:
        InvalidTypeError: The subject does not take this change. The message says what to do.
        dpt.ImageError, InvalidValueError, StoreError: The new value is not usable.
    """
    if isinstance(subject, Stored):
        return _stored_with(subject, **changes)
    assert isinstance(subject, Live)
    if isinstance(image := changes.get("image"), StoredCapture):
        raise InvalidTypeError(
            f"this explorer runs a model, and {image.name} is an image that a run has stored. To run the model on it, "
            f"set explorer.image = run[{image.name!r}].image(). To show what is stored, create another explorer"
        )
    if "model" in changes:
        checked_model(changes["model"])
    given: dict[str, Any] = {
        "model": subject.model,
        "image": subject.image,
        "size": subject.size,
        "keep_aspect": subject.keep_aspect,
    }
    given |= changes
    model, image = given["model"], given["image"]
    name = subject.name if image is subject.image else None
    try:
        shown = Live(model, image, given["size"], given["keep_aspect"], name)
    except (InvalidValueError, dpt.DPTError):
        if given["size"] is None or "size" in changes or "keep_aspect" in changes:
            raise
        shown = Live(model, image, None, given["keep_aspect"], name)  # only the former model can take that size
    if image is subject.image:
        shown.path = subject.path
    return shown


def _stored_with(subject: Stored, **changes: Any) -> Subject:
    name = subject.stored.name
    if isinstance(image := changes.get("image"), StoredCapture):
        return subject_of(image, None, None, True)
    what = next(iter(changes))
    if what == "image":
        advice = 'Set another stored image, explorer.image = run["other.jpg"], or'
    else:
        advice = "The run decides it. To compute with another one,"
    raise InvalidTypeError(
        f"{what} cannot be set: this explorer shows what a run has stored for {name}, without a model. {advice} create "
        "an explorer of a model and an image"
    )


def moved_token(before: TokenGrid, after: TokenGrid, token: int) -> int | None:
    """The token at the same place of another image or grid. None for a prefix token that the other grid lacks."""
    if before.patch(token) is None and token >= after.prefix:
        return None
    return before.token_in(after, token)


def moved_tokens(before: TokenGrid, after: TokenGrid, tokens: Iterable[int]) -> list[int]:
    """The tokens at the same places, without those that the other grid lacks and those that meet."""
    moved = (moved_token(before, after, token) for token in tokens)
    return list(dict.fromkeys(token for token in moved if token is not None))


def central_token(grid: TokenGrid) -> int:
    """The token of the patch in the middle."""
    return grid.token(grid.rows // 2, grid.cols // 2)


def token_of(control: str, grid: TokenGrid, place: Any) -> int:
    """The token of a patch (row, col), as set by a user or a view. None is the first prefix token.

    Raises:
        ControlError: The value is neither a pair nor None, or the grid has no prefix tokens.
        OutOfRangeError, InvalidTypeError: The patch lies outside the grid, or its numbers are not whole.
    """
    if place is None and grid.prefix:
        return 0
    expected = f"(row, col) on {grid.rows} x {grid.cols} patches"
    try:
        row, col = place
    except (TypeError, ValueError):
        raise ControlError(control, place, expected) from None
    return grid.token(row, col)
