"""The recorded values of one forward pass: reading them, and keeping them in a file.

`capture` records them. A `Capture` holds tensors by reference and knows the token grid of each.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dpt import TokenGrid
from dpt.attention import OffsetBias
from dpt.written import written

from . import capture_file
from .actions import Edit
from .attention import AttentionMaps
from .errors import UnavailableError, UnknownKeyError

Value = Tensor | AttentionMaps


class NotCaptured(UnknownKeyError):
    """The capture has no value for this name."""


@dataclass(frozen=True)
class Setting:
    """The input of a forward pass: its patch grid, its size (height, width) in pixels, and the number of images."""

    grid: TokenGrid
    input_size: tuple[int, int]
    batch: int


class Capture(Mapping[str, Any]):
    """The recorded values of one forward pass, by point name, in forward order.

    Values are `AttentionMaps` for attention points and tensors for all others. `capture` and `load` create captures.

    Args:
        wanted: Names of the points to record, in forward order.

    Example:
        >>> with probes.capture(model, "attention", "norms") as cap:
        ...     model.predict(image)
        >>> cap["encoder.blocks.7.norms"]  # tensor (B, tokens)
        >>> cap.grid_of("encoder.blocks.7.norms").rows
    """

    def __init__(self, wanted: list[str]):
        self._wanted = wanted
        self._values: dict[str, Value] = {}
        self._grids: dict[str, TokenGrid] = {}
        self._edits: list[tuple[str, Edit]] = []
        self._setting: Setting | None = None
        self._finished = False

    @property
    def setting(self) -> Setting:
        """The input of the recorded pass.

        Raises:
            UnavailableError: No forward pass has started in the capture.
        """
        if self._setting is None:
            raise UnavailableError(
                "The capture is empty: no forward pass has started. Call model.predict(image) inside its block."
            )
        return self._setting

    @property
    def grid(self) -> TokenGrid:
        """The grid of the image's patches."""
        return self.setting.grid

    def grid_of(self, name: str) -> TokenGrid:
        """Returns the token grid of one captured point. SwinV2 has coarser grids in later stages.

        Raises:
            NotCaptured: The capture has no value for this name.
        """
        self[name]
        return self._grids[name]

    @property
    def edits(self) -> list[tuple[str, Edit]]:
        """The edits that were active in the pass, as (point name, edit), in order of application. See `probes.edit`."""
        return list(self._edits)

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the model's input in pixels."""
        return self.setting.input_size

    @property
    def batch(self) -> int:
        """Number of images in the pass."""
        return self.setting.batch

    def __getitem__(self, name: str) -> Any:  # AttentionMaps or Tensor: the caller knows which it captured
        if name in self._values and self._finished:
            return self._values[name]
        if name not in self._wanted:
            points = ", ".join(self._wanted[:4]) + (", ..." if len(self._wanted) > 4 else "")
            raise NotCaptured(f"{name!r} was not captured. Captured points: {points}")
        if not self._finished:
            raise NotCaptured(f"{name!r} has no value yet: no forward pass has finished in this capture.")
        raise NotCaptured(f"{name!r} did not fire in the last forward pass.")

    def __contains__(self, name: object) -> bool:
        return self._finished and name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter([name for name in self._wanted if name in self])

    def __len__(self) -> int:
        return len(self._values) if self._finished else 0

    def _ipython_key_completions_(self) -> list[str]:  # of cap["
        return list(self)

    @property
    def nbytes(self) -> int:
        """Memory in bytes that the captured tensors keep alive. Shared storage counts once."""
        storages = {}
        for value in self._values.values():
            for tensor in _tensors(value).values():
                storage = tensor.untyped_storage()
                storages[(str(tensor.device), storage.data_ptr())] = storage.nbytes()
        return sum(storages.values())

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the capture to one safetensors file. `probes.load` reads it back; any safetensors reader can too.

        The file is complete or does not appear. It holds checksums, which `probes.load` compares.

        Args:
            path: The file to write. An existing file is replaced.

        Returns:
            The path, which a notebook shows as a link.

        Raises:
            UnavailableError: No forward pass has finished in the capture.
            OSError: The file cannot be written.
        """
        if not self._finished:
            raise UnavailableError(
                "Cannot save an empty capture: no forward pass finished. Call model.predict(image) inside its block."
            )
        tensors: dict[str, Tensor] = {}
        points: dict[str, dict[str, object]] = {}
        for name, value in self.items():
            points[name] = {"kind": "tensor", "grid": asdict(self.grid_of(name))}
            if isinstance(value, AttentionMaps):
                points[name] |= {"kind": "attention", "scale": value.scale}
            for part, tensor in _tensors(value).items():
                # safetensors refuses tensors that share storage, so each view becomes a tensor of its own.
                tensors[f"{name}{part}"] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        about = {"grid": asdict(self.grid), "input_size": self.input_size, "batch": self.batch, "points": points}
        about["edits"] = [[name, edit.to_json()] for name, edit in self._edits]
        for number, (_, edit) in enumerate(self._edits):
            if isinstance(edit.value, Tensor):
                tensors[f"edits/{number}"] = edit.value.detach().cpu().clone(memory_format=torch.contiguous_format)
        path = Path(path).expanduser()
        capture_file.write(path, about, tensors)
        return written(path)

    def __repr__(self) -> str:
        if not self._finished:
            return f"Capture({len(self._wanted)} points, no forward pass yet)"
        lines = [f"Capture of {self.batch} x {self.input_size} pixels, {self.nbytes / 2**20:.1f} MiB:"]
        for name, value in self.items():
            summary = repr(value) if isinstance(value, AttentionMaps) else f"{tuple(value.shape)} {value.dtype}"
            lines.append(f"  {name}: {summary}")
        return "\n".join(lines)


def _tensors(value: Value) -> dict[str, Tensor]:
    """The tensors of a value, by the suffix of their names in a file."""
    if isinstance(value, Tensor):
        return {"": value}
    parts: dict[str, Tensor | None] = {"/q": value.q, "/k": value.k}
    if isinstance(value.bias, OffsetBias):
        parts |= {f"/bias.{part}": getattr(value.bias, part) for part in ("table", "prefix", "bands")}
    else:
        parts["/bias"] = value.bias
    return {part: tensor for part, tensor in parts.items() if tensor is not None}


def load(path: str | os.PathLike[str]) -> Capture:
    """Reads a capture from a file that `Capture.save` wrote. No model is needed.

    Args:
        path: The file.

    Returns:
        The capture, with tensors on the CPU.

    Raises:
        MissingFileError: The file does not exist.
        IsAFolderError, IrregularFileError: The path leads to something else. Other OSErrors report an unreadable file.
        InvalidValueError: The file is not a capture, or is damaged.
    """
    path = Path(path).expanduser()
    about, tensors = capture_file.read(path)
    try:
        return _restored(about, tensors)
    except capture_file.Damage as damage:
        raise capture_file.damaged(path, str(damage)) from None
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise capture_file.damaged(path, "its description does not match its tensors") from error


def _restored(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Capture:
    capture_file.check_names(about["points"])
    capture_file.check_setting(about)
    cap = Capture(list(about["points"]))
    height, width = about["input_size"]
    cap._setting = Setting(TokenGrid(**about["grid"]), (height, width), about["batch"])
    edits = enumerate(about.get("edits", []))
    cap._edits = [(name, Edit.from_json(plain, tensors.get(f"edits/{number}"))) for number, (name, plain) in edits]
    capture_file.check_names([name for name, _ in cap._edits])
    for name, point in about["points"].items():
        capture_file.check_grid(point["grid"], about["grid"])
        grid = cap._grids[name] = TokenGrid(**point["grid"])
        if point["kind"] == "attention":
            capture_file.check_attention(name, tensors, point["scale"], cap.batch, grid)
            bias = tensors.get(f"{name}/bias")
            table, prefix, bands = (tensors.get(f"{name}/bias.{part}") for part in ("table", "prefix", "bands"))
            maps_bias = bias if table is None else OffsetBias(table, prefix, bands)
            q, k = tensors[f"{name}/q"], tensors[f"{name}/k"]
            cap._values[name] = AttentionMaps(q, k, float(point["scale"]), grid, maps_bias, name)
        elif point["kind"] == "tensor":
            capture_file.check_tensor(name, tensors[name], cap.batch, grid.tokens, grid.patches, cap.input_size)
            cap._values[name] = tensors[name]
        else:
            raise capture_file.Damage(f"unknown kind {point['kind']!r}")
    cap._finished = True
    return cap
