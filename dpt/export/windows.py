"""SwinV2's windows for sizes that are known only when the graph runs, and the check of the input size.

The number and size of windows depend on the input. The shapes inside a block are not simple expressions of height and
width: one rule takes the largest divisor of a side between half and twice the window. torch.export cannot express such
shapes. ONNX can, because shapes are values in a graph. For torch.export, the attention of a block is therefore a single
operator from tokens to tokens. `translations` expands it to ONNX operators: window sizes, partition, bias network,
shift mask, softmax and the inverse partition. The rules are those of `swinv2.SwinV2Config`.

ONNX has no assertions. For a size that the model does not take, a Gather reads outside its table of one entry. The node
is named after the reason, because runtimes report the names of failing nodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import swinv2
from ..attention import MASKED
from ..config import TokenGrid
from ..swinv2 import HEAD_WIDTH

# Each copy of this package in a process registers its own operators.
NAMESPACE = __name__.replace(".", "_")


@cache
def _operators() -> Any:
    """Registers the two operators. They have no kernels, because they exist in traced graphs only."""
    library = torch.library.Library(NAMESPACE, "DEF")
    same = lambda x, *args: torch.empty_like(x)  # noqa: E731
    for signature in (
        "checked(Tensor x, int multiple, int window) -> Tensor",
        "attend(Tensor q, Tensor k, Tensor v, Tensor fc1, Tensor bias1, Tensor fc2, SymInt rows, SymInt cols, "
        "int window, int pretrained, int native, int odd) -> Tensor",
    ):
        library.define(signature)
        torch.library.register_fake(f"{NAMESPACE}::{signature.partition('(')[0]}", same, lib=library)
    _operators.library = library  # type: ignore[attr-defined] # an operator lives as long as its library
    return getattr(torch.ops, NAMESPACE)


def checked(x: Tensor, multiple: int, window: int) -> Tensor:
    """Returns its input; in the graph, checks the size of the images.

    Args:
        x: Images (B, 3, h, w).
        multiple: Both sides must be multiples of this.
        window: Side of SwinV2's windows in tokens; 0 for other families.
    """
    return _operators().checked(x, multiple, window)


class Encoder(nn.Module):
    """`swinv2.Encoder` for a symbolic grid. Outside the attention operator, tokens keep the order of the image."""

    def __init__(self, encoder: swinv2.Encoder):
        super().__init__()
        self.config, self.merges = encoder.config, encoder.merges
        self.blocks = nn.ModuleList(Block(block, encoder.config, i) for i, block in enumerate(encoder.blocks))

    def forward(self, x: Tensor, grid: TokenGrid) -> tuple[Tensor, ...]:
        ends = [self.config.stage_block(s) for s in range(4)]
        stages: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            at = TokenGrid(grid.rows // 2 ** len(stages), grid.cols // 2 ** len(stages))
            x = block(x, at)
            if i in ends:
                stages.append(x)
                if len(stages) < 4:
                    x = self.merges[len(stages) - 1](x, at)
        return tuple(stages)


class Block(nn.Module):
    """`swinv2.Block`: (B, N, C) -> same."""

    def __init__(self, block: Any, config: swinv2.SwinV2Config, index: int):
        super().__init__()
        self.norm1, self.mlp, self.norm2 = block.norm1, block.mlp, block.norm2
        self.attention = Attention(block.attention, config, index)

    def forward(self, x: Tensor, grid: TokenGrid) -> Tensor:
        x = x + self.norm1(self.attention(x, grid))
        return x + self.norm2(self.mlp(x))


class Attention(nn.Module):
    """`swinv2.Attention`, with the partition into windows inside `Attend`."""

    def __init__(self, attention: swinv2.Attention, config: swinv2.SwinV2Config, index: int):
        super().__init__()
        self.heads, self.qkv, self.projection = attention.heads, attention.qkv, attention.projection
        self.q_bias, self.v_bias, self.logit_scale = attention.q_bias, attention.v_bias, attention.logit_scale
        self.attend = Attend(attention.positions, config, index)

    directions = swinv2.Attention.directions  # of all tokens, rather than window by window

    def forward(self, x: Tensor, grid: TokenGrid) -> Tensor:
        x = self.attend(*self.directions(x), grid)  # type: ignore[misc]  # from (B, heads, N, d) each
        return self.projection(x.transpose(1, 2).flatten(2))  # (B, N, C)


class Attend(nn.Module):
    """Attention within windows. Queries, keys, values and the result are in the order of the image."""

    def __init__(self, positions: swinv2.RelativePositions, config: swinv2.SwinV2Config, index: int):
        super().__init__()
        self.fc1, self.fc2 = positions.fc1, positions.fc2
        stage = config.stage_of(index)
        self.window = config.window
        self.pretrained = config.pretrained[stage] if config.pretrained else 0
        self.native = min(config.window, config.preprocess.base // swinv2.PATCH // 2**stage)
        self.odd = (index - sum(config.depths[:stage])) % 2

    def forward(self, q: Tensor, k: Tensor, v: Tensor, grid: TokenGrid) -> Tensor:
        weights = (self.fc1.weight, self.fc1.bias, self.fc2.weight)
        numbers = (self.window, self.pretrained, self.native, self.odd)
        return _operators().attend(q, k, v, *weights, grid.rows, grid.cols, *numbers)

    def rows(self, args: tuple, grid: TokenGrid, tokens: Tensor) -> Tensor:
        """`Attend.rows` for a symbolic grid, which is the last of `args`; q and k are (B, heads, N, d)."""
        q, k, _, grid = args
        every = torch.arange(grid.rows * grid.cols)
        rows, cols = (torch.scalar_tensor(n, dtype=torch.int64) for n in (grid.rows, grid.cols))
        same: list[Tensor] = []
        together: list[Tensor] = []
        offsets: list[Tensor] = []
        for side, at in ((rows, every // cols), (cols, every % cols)):
            window, shift, reach = self._side(side)
            at = (at - shift) % side  # position on the shifted grid
            band = ((at >= side - window).long() + (at >= side - shift)) * (shift > 0)
            place = at % window
            for found, values in ((same, at // window), (together, band)):
                found.append(values[tokens][:, None] == values)  # (n, N)
            offset = (place[tokens][:, None] - place).float() / (reach - 1).clamp(min=1)
            offsets.append(offset.sign() * torch.log2(1 + 8 * offset.abs()) / 3)
        hidden = F.relu(self.fc1(torch.stack(offsets, dim=-1).to(q.dtype)))
        bias = 16 * torch.sigmoid(self.fc2(hidden)).permute(2, 0, 1).float()  # (heads, n, N)
        bias = bias + MASKED * (~(together[0] & together[1])).float()
        logits = q[:, :, tokens].float() @ k.float().mT + bias
        return logits.masked_fill(~(same[0] & same[1]), -math.inf).softmax(dim=-1)

    def _side(self, side: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(window, shift, window that offsets are relative to) along a side in tokens; all scalars."""
        candidates = torch.arange(self.window // 2, 2 * self.window)
        divisor = torch.where(side % candidates == 0, candidates, 0).amax(dim=0)
        natural = (side <= self.window) | (side % self.window == 0)
        window = torch.where(natural, side.clamp(max=self.window), divisor)
        shift = torch.where(side > window, window // 2, 0) if self.odd else torch.zeros_like(side)
        reach = torch.full_like(side, self.pretrained) if self.pretrained else torch.where(natural, window, self.native)
        return window, shift, reach


def translations() -> dict[Any, Callable]:
    """Returns the ONNX translations of the operators, for torch.onnx.export's custom_translation_table."""
    from onnxscript import opset18

    op: Any = opset18

    def ints(*n: int) -> Any:
        return op.Constant(value_ints=list(n))

    def one(n: Any) -> Any:
        """A size as a tensor with one number."""
        return ints(n) if isinstance(n, int) else op.Reshape(n, [1])

    def natural(side: Any, window: int) -> Any:
        return op.Or(op.LessOrEqual(side, [window]), op.Equal(op.Mod(side, [window]), [0]))

    def window_of(side: Any, window: int) -> Any:
        candidates = ints(*range(window // 2, 2 * window))
        fits = op.Equal(op.Mod(side, candidates), [0])
        divisor = op.ReduceMax(op.Where(fits, candidates, [0]), keepdims=1)
        return op.Where(natural(side, window), op.Min(side, ints(window)), divisor)

    def fail_unless_zero(fault: Any, name: str) -> Any:
        """Returns [1]; makes the graph fail if `fault` is not 0."""
        found = op.Gather([1], fault)
        found.producer().name = name
        return found

    def checked(x: Any, multiple: int, window: int) -> Any:
        good = ints(1)
        for axis, called in ((2, "height"), (3, "width")):
            side = op.Shape(x, start=axis, end=axis + 1)
            name = f"the_{called}_must_be_a_multiple_of_{multiple}_pixels"
            good = op.Mul(good, fail_unless_zero(op.Mod(side, [multiple]), name))
            for stage in range(4 if window else 0):
                tokens = op.Div(side, [swinv2.PATCH * 2**stage])
                name = f"windows_of_about_{window}_tokens_do_not_tile_this_{called}_at_stage_{stage}"
                none = op.Cast(op.Equal(window_of(tokens, window), [0]), to=7)
                good = op.Mul(good, fail_unless_zero(none, name))
        return op.Reshape(x, op.Mul(op.Shape(x), good))  # the reshape depends on all checks

    def steps(start: Any, end: Any) -> Any:
        return op.Range(op.Squeeze(start), op.Squeeze(end), op.Constant(value_int=1))

    def attend(
        q: Any, k: Any, v: Any, fc1: Any, bias1: Any, fc2: Any, rows: Any, cols: Any,
        window: int, pretrained: int, native: int, odd: int,
    ) -> Any:  # fmt: skip
        dtype = q.dtype
        sides = [one(rows), one(cols)]
        sizes = [window_of(side, window) for side in sides]
        counts = [op.Div(side, size) for side, size in zip(sides, sizes, strict=True)]
        zero = ints(0)
        shifts = [zero, zero]
        if odd:
            shifts = [
                op.Where(op.Greater(side, size), op.Div(size, [2]), [0])
                for side, size in zip(sides, sizes, strict=True)
            ]
        inside = op.Mul(*sizes)  # tokens of a window

        def grid(down: Any, across: Any, times: Any) -> Any:
            """(rows, cols) of down * times + across."""
            return op.Add(op.Mul(op.Unsqueeze(down, [1]), times), op.Unsqueeze(across, [0]))

        def cut(numbers: Any) -> Any:
            """(rows, cols) of the shifted grid -> (windows, tokens per window)."""
            shape = op.Concat(counts[0], sizes[0], counts[1], sizes[1], axis=0)
            return op.Reshape(
                op.Transpose(op.Reshape(numbers, shape), perm=[0, 2, 1, 3]), op.Concat(ints(-1), inside, axis=0)
            )

        # The token at each place of each window, and the place of each token.
        froms, tos = [], []
        for side, size, shift in zip(sides, sizes, shifts, strict=True):
            every = steps(zero, side)
            froms.append(op.Mod(op.Add(every, shift), side))
            at = op.Mod(op.Sub(op.Add(every, side), shift), side)
            tos.append((op.Div(at, size), op.Mod(at, size)))
        order = op.Reshape(cut(grid(froms[0], froms[1], sides[1])), [-1])
        number = grid(tos[0][0], tos[1][0], counts[1])
        place = grid(tos[0][1], tos[1][1], sizes[1])
        back = op.Reshape(op.Add(op.Mul(number, inside), place), [-1])

        def windows(x: Any, perm: list[int]) -> Any:
            """(B, heads, N, d) -> (B, heads, windows, T, d), permuted."""
            shape = op.Concat(ints(0, 0, -1), inside, ints(HEAD_WIDTH), axis=0)
            return op.Transpose(op.Reshape(op.Gather(x, order, axis=2), shape), perm=perm)

        # The bias for each offset, from the network.
        offsets = []
        for side, size in zip(sides, sizes, strict=True):
            reach = ints(pretrained)
            if not pretrained:
                reach = op.Where(natural(side, window), size, [native])
            far = op.Cast(steps(op.Sub([1], size), size), to=1)
            far = op.Div(far, op.Cast(op.Max(op.Sub(reach, ints(1)), ints(1)), to=1))
            log = op.Div(op.Log(op.Add(op.Mul(op.Abs(far), [8.0]), [1.0])), [3 * math.log(2)])
            offsets.append(op.CastLike(op.Mul(op.Sign(far), log), fc1))
        by_row, by_col = (op.Unsqueeze(op.Gather(fc1, [axis], axis=1), [0]) for axis in (0, 1))  # (1, 512, 1)
        by_row, by_col = (op.Transpose(weight, perm=[0, 2, 1]) for weight in (by_row, by_col))  # (1, 1, 512)
        hidden = op.Add(
            op.Add(op.Mul(op.Unsqueeze(offsets[0], [1, 2]), by_row), op.Mul(op.Unsqueeze(offsets[1], [0, 2]), by_col)),
            bias1,
        )  # (2 wh - 1, 2 ww - 1, 512)
        network = op.Sigmoid(op.MatMul(op.Relu(hidden), op.Transpose(fc2, perm=[1, 0])))
        table = op.Mul(network, op.CastLike([16.0], network))
        table = op.Transpose(table, perm=[2, 0, 1])  # (heads, 2 wh - 1, 2 ww - 1)
        table = op.Reshape(table, [0, -1])
        places = steps(zero, inside)
        parts = []
        for values, size in ((op.Div(places, sizes[1]), sizes[0]), (op.Mod(places, sizes[1]), sizes[1])):
            between = op.Sub(op.Unsqueeze(values, [1]), op.Unsqueeze(values, [0]))
            parts.append(op.Sub(op.Add(between, size), [1]))
        index = op.Add(op.Mul(parts[0], op.Sub(op.Mul(sizes[1], [2]), [1])), parts[1])
        bias = op.Gather(table, index, axis=1)  # (heads, T, T)

        if odd:  # mask tokens that wrapped around
            bands = []
            for side, size, shift in zip(sides, sizes, shifts, strict=True):
                every = steps(zero, side)
                late = [op.Cast(op.GreaterOrEqual(every, op.Sub(side, n)), to=7) for n in (size, shift)]
                bands.append(op.Mul(op.Add(*late), op.Min(shift, ints(1))))
            region = cut(grid(bands[0], bands[1], ints(3)))  # (windows, T)
            apart = op.Not(op.Equal(op.Unsqueeze(region, [1, 3]), op.Unsqueeze(region, [1, 2])))
            mask = op.Mul(op.Cast(apart, to=1), [MASKED])  # (windows, 1, T, T)
            bias = op.Add(bias, op.CastLike(mask, bias))

        logits = op.MatMul(windows(q, [0, 2, 1, 3, 4]), windows(k, [0, 2, 1, 4, 3]))  # (B, windows, heads, T, T)
        weights = op.Softmax(op.Add(logits, bias), axis=-1)
        x = op.MatMul(weights, windows(v, [0, 2, 1, 3, 4]))
        x = op.Transpose(x, perm=[0, 2, 1, 3, 4])
        x = op.Reshape(x, [0, 0, -1, HEAD_WIDTH])  # (B, heads, N, d)
        x = op.Gather(x, back, axis=2)
        x.dtype = dtype
        return x

    operators = _operators()
    return {operators.checked.default: checked, operators.attend.default: attend}
