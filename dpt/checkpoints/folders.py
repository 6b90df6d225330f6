"""Finds the checkpoint in a folder, among the other files that training programs leave beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from .errors import CheckpointError, first_few

NAMES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
# Files of Trainer, accelerate and DeepSpeed that hold no weights of a model.
STATES = re.compile(r"(optimizer|scheduler|scaler|rng_state|random_states|training_args|sampler)\w*$|.*_optim_states$")
MOST_ENTRIES = 10_000
MOST_FOLDERS = 200  # looked into, for the message about a folder of checkpoints


def checkpoint_in(folder: Path) -> Path:
    """The checkpoint in a folder: one of the names that Hugging Face uses, else the only file with a known suffix.

    Raises:
        CheckpointError: The folder holds none or several. The message lists those to choose from.
    """
    try:
        for name in NAMES:
            if (folder / name).is_file():
                return folder / name
        found = _candidates(folder)
        if len(found) == 1:
            return found[0]
        if found:
            what = f"{len(found)} ({first_few(path.name for path in found)}). Pass the path of one of them"
        elif (folder / ".metadata").is_file() and any(folder.glob("*.distcp")):
            raise CheckpointError(
                f"{folder} holds a distributed checkpoint. Convert it with python -m "
                f"torch.distributed.checkpoint.format_utils dcp_to_torch {folder} model.pth, and pass model.pth"
            )
        elif inside := sorted(_holding(folder), key=_by_number):
            what = (
                f"none, but {len(inside)} folders with one: {first_few(path.name for path in inside)}. Pass one of "
                f"them, e.g. the last, {inside[-1]}"
            )
        else:
            what = "none"
    except OSError as error:
        raise CheckpointError(f"{folder} is a folder that cannot be read: {error.strerror or error}") from error
    raise CheckpointError(
        f"{folder} is a folder. Expected one checkpoint in it ({', '.join(NAMES[:2])} or a single "
        f"{', '.join(SUFFIXES)} file), found {what}"
    )


def _candidates(folder: Path) -> list[Path]:
    files = [path for path in islice(folder.iterdir(), MOST_ENTRIES) if path.suffix in SUFFIXES and path.is_file()]
    # A folder that holds nothing else gives the message about that file.
    return sorted([path for path in files if not STATES.match(path.stem)] or files)


def _holding(folder: Path) -> Iterator[Path]:
    """The folders inside a folder that hold a checkpoint."""
    for path in islice((path for path in islice(folder.iterdir(), MOST_ENTRIES) if path.is_dir()), MOST_FOLDERS):
        try:
            if any((path / name).is_file() for name in NAMES) or _candidates(path):
                yield path
        except OSError:  # may not be entered
            continue


def _by_number(path: Path) -> tuple[list[int], str]:
    """Sorts checkpoint-1000 behind checkpoint-500."""
    return [int(number) for number in re.findall(r"\d{1,18}", path.name)], path.name
