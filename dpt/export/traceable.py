"""A copy of a model that torch.export can trace for all sizes at once.

The models take size-dependent decisions in Python: which table to use, whether to resize it, how many windows to make.
A traced graph would contain the decisions for one size only. Export therefore works on a copy that shares the model's
parameters. In the copy, modules with such decisions are replaced by modules that compute the same from a symbolic size.
All other modules, and so almost the whole graph, are traced unchanged. For a fixed size, tables are computed before
tracing.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from .. import beit, depth_anything, swinv2
from ..attention import OffsetBias
from ..compiled import uncompile
from ..config import TokenGrid
from ..model import DPT
from ..modules import is_plain
from . import resampling, windows
from .outputs import ExportError

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)  # dtypes of weights that can be exported
QUANTISED = ("torch.ao.", "torch.nn.quantized", "torchao.", "bitsandbytes.")  # packages of quantised layers


class Traceable(nn.Module):
    """The forward pass of a depth model with a check of the input size in the graph.

    (B, 3, h, w) float32 -> (B, h, w) float32. The submodules of `model` have the original's names.
    """

    def __init__(self, model: DPT, fixed: TokenGrid | None, dtype: torch.dtype):
        """Copies a model.

        Args:
            model: The model to export. It is not changed.
            fixed: Patch grid of the only input size; None for all sizes.
            dtype: dtype of weights and arithmetic.
        """
        super().__init__()
        self.config, self.fixed, self.dtype = model.config, fixed, dtype
        self.model = _copied(model, dtype)
        for name, module in list(self.model.named_modules()):
            if replaced := _replacement(module, fixed):
                self.model.set_submodule(name, replaced)

    def forward(self, x: Tensor) -> Tensor:
        config, model = self.config, self.model
        height, width = x.shape[2:]
        if self.fixed is None:
            window = config.window if isinstance(config, swinv2.SwinV2Config) else 0
            x = windows.checked(x, config.multiple, window)
        grid = TokenGrid(height // config.patch_size, width // config.patch_size, config.prefix)
        stages = model.encoder(model.patch_embed(x.to(self.dtype)), grid)
        fused = model.fusion(model.reassembly(stages, grid))
        return model.head(fused, (height, width)).float()


def check_model(model: DPT) -> None:
    """Checks that a model's layers can be traced.

    Raises:
        ExportError: A layer is quantised or offloaded, or its weights are read by SwinV2's attention operator and it
            was replaced.
    """
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_meta:
            raise ExportError(
                f"cannot export {name}, which holds no data. If the model is offloaded, load it as a whole: "
                "dpt.load(checkpoint)"
            )
        if isinstance(tensor, nn.Parameter) and tensor.dtype not in FLOATS:
            raise ExportError(
                f"cannot export {name} of {tensor.dtype}; expected {', '.join(str(dtype) for dtype in FLOATS)}. Export "
                "the model before quantising it"
            )
    for name, module in model.named_modules():
        if type(module).__module__.startswith(QUANTISED):
            raise ExportError(
                f"cannot export {name}, a quantised {type(module).__name__}. Export the model before quantising it"
            )
        if isinstance(module, swinv2.RelativePositions):
            for layer in (module.fc1, module.fc2):
                if not is_plain(layer, nn.Linear):
                    raise ExportError(
                        f"cannot export {name}, whose layers must be torch.nn.Linear, got {type(layer).__name__}. "
                        "Merge adapters into the weights first"
                    )


def _copied(model: DPT, dtype: torch.dtype) -> DPT:
    """Copies the model to the CPU. The copy shares parameters that already have the right dtype and device."""
    shared = {id(p): p for p in model.parameters() if p.dtype == dtype and p.device.type == "cpu"}
    copied = copy.deepcopy(model, dict(shared))
    uncompile(copied)
    if len(shared) < sum(1 for _ in model.parameters()):
        copied = copied.to("cpu", dtype)
    return copied.eval()


def _replacement(module: nn.Module, fixed: TokenGrid | None) -> nn.Module | None:
    match module:
        case depth_anything.Positions():
            return Positions(module) if fixed is None else Given(module(fixed))
        case beit.RelativePositions():
            return RelativePositions(module) if fixed is None else GivenBias(module(fixed, small=True))
        case swinv2.Encoder():
            return windows.Encoder(module)
    return None


class Positions(nn.Module):
    """`depth_anything.Positions` for a symbolic grid."""

    def __init__(self, positions: depth_anything.Positions):
        super().__init__()
        self.table = positions.table

    def forward(self, grid: TokenGrid) -> Tensor:
        # -> (1, 1 + rows*cols, C)
        side, table = depth_anything.TABLE_SIDE, self.table.float()
        rows, cols = (torch.scalar_tensor(n, dtype=torch.float32) for n in (grid.rows, grid.cols))
        # The table's own grid uses the table unchanged, all others add 0.1 (see depth_anything.Positions).
        extra = 0.1 * ((rows != side) | (cols != side)).float()
        down, across = (
            resampling.cubic(n, side, side / (length + extra)) for n, length in ((grid.rows, rows), (grid.cols, cols))
        )
        patches = table[0, 1:].mT.unflatten(1, (side, side))  # (C, 37, 37)
        patches = resampling.resize(patches, down, across).flatten(1).mT  # (rows*cols, C)
        return torch.cat((table[:, :1], patches[None]), dim=1).to(self.table.dtype)


class RelativePositions(nn.Module):
    """`beit.RelativePositions` for a symbolic grid."""

    def __init__(self, positions: beit.RelativePositions):
        super().__init__()
        self.side, self.table = positions.side, positions.table

    def forward(self, grid: TokenGrid) -> OffsetBias:
        stored = 2 * self.side - 1
        offsets, prefix = self.table.mT.split((stored**2, 3), dim=1)
        table = offsets.float().unflatten(1, (stored, stored))  # (heads, 2 side - 1, 2 side - 1)
        down, across = (resampling.linear(2 * n - 1, stored) for n in (grid.rows, grid.cols))
        return OffsetBias(resampling.resize(table, down, across).to(self.table.dtype), prefix)


class Given(nn.Module):
    """A position table that was computed for the only size."""

    table: Tensor

    def __init__(self, table: Tensor):
        super().__init__()
        self.register_buffer("table", table.detach().clone())

    def forward(self, grid: TokenGrid) -> Tensor:
        return self.table


class GivenBias(nn.Module):
    """A bias table that was computed for the only size. The graph gathers the full bias, which keeps the file small."""

    table: Tensor
    prefix: Tensor

    def __init__(self, bias: OffsetBias):
        super().__init__()
        assert bias.prefix is not None
        self.register_buffer("table", bias.table.detach().clone())
        self.register_buffer("prefix", bias.prefix.detach().clone())

    def forward(self, grid: TokenGrid) -> OffsetBias:
        return OffsetBias(self.table, self.prefix)
