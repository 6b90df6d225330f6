"""Compiled models that can still be looked into: `model.compile()`.

Problem: torch.compile of a whole model does not see hooks that are put on later, and every probe and edit is one.

Approach: only regions that lie between probe points are compiled, one function for all blocks of a shape: what follows
attention in a block, a fusion block, the head, and SwinV2's normalised queries and keys. Modules, their hooks and
attention itself are called as ever, so captures and edits meet the same numbers as a pass without them. A region with a
hook on a module inside it (a user's own point) runs uncompiled as long as the hook is there, and rounds as the plain
model does.

Two more steps are for CUDA. FlexAttention adds an attention bias from its table inside the kernel, where the fused
kernel must be handed a dense tensor of tokens x tokens a head. A CUDA graph replays a pass of one input shape with a
single launch; it serves while no hook is on the model, and passes with hooks run as if there were none.

Limits: a compiled region rounds differently from the plain one, within the type's precision. The first passes take up
to minutes. Modules that are exchanged, and settings of theirs that are changed, ask for compiling again. On a CPU
regions gain nothing (ViT-S at 252 px on a Zen 4: 0.99 of the speed in float32, 0.90 in bfloat16), since its time is
spent in matrix products that are as fast without. What is for CUDA was written from its documentation and tested on
stand-ins; it has not run on a GPU yet.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from inspect import signature
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .attention import MASKED, Attend, OffsetBias
from .errors import InvalidValueError, UnavailableError
from .kept import KeptPerGrid, noted

RECOMPILES = 64  # of one function, for widths and picture sizes; torch gives up after 8 unless told
GRAPHS_KEPT = 4  # recorded passes, one an input shape; each holds its own activations
OWN_GRAPHS = ("reduce-overhead", "max-autotune")  # of torch.compile's modes
_lock = threading.RLock()  # one for all: a lock of its own would keep a model from being copied
WARM_UP = 3  # passes before a recording, in which libraries pick their kernels and take their memory


class DepthModel(Protocol):
    """What this module needs of `dpt.DPT`, which imports it."""

    encoder: Any
    fusion: Any
    head: Any

    def forward(self, x: Tensor) -> Tensor: ...

    def grid_of(self, x: Tensor) -> object: ...

    def modules(self) -> Iterator[nn.Module]: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...


def compile_model(model: DepthModel, *, graphs: bool, flex: bool | None, **options: Any) -> None:
    """See `DPT.compile`."""
    device = next(model.parameters()).device
    if graphs and device.type != "cuda":
        raise InvalidValueError(
            f"graphs=True replays CUDA graphs, and this model is on {device}; load it with device='cuda'"
        )
    inductor = options.get("options") or {}
    if options.get("mode") in OWN_GRAPHS or inductor.get("triton.cudagraphs"):
        # Each region's result would be written over by the next region, while captures and stages still hold it.
        raise InvalidValueError(
            f"mode={options.get('mode')!r} makes a CUDA graph of every region, which overwrite one another's results; "
            'give graphs=True for one graph of the whole model, or mode="max-autotune-no-cudagraphs"'
        )
    take_back(model)
    if "recompile_limit" in signature(torch.compile).parameters:  # torch 2.13
        options.setdefault("recompile_limit", RECOMPILES)
    else:
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, RECOMPILES)
    functions: dict[Callable, Compiled] = {}
    for module, method, inside in regions(model):
        function = getattr(type(module), method)
        compiled = functions.setdefault(function, Compiled(function, options))
        setattr(module, method, Region(compiled, module, inside))
    half = next(model.parameters()).dtype != torch.float32  # in float32 its products do without tensor cores
    if flex or (flex is None and device.type == "cuda" and half):
        kernel = Flex(Compiled(_flex, options))
        for attend, positions in biased(model):
            attend.kernel = kernel
            _keep_dense(positions, False)
    if graphs:
        model.forward = Graphs(model)  # type: ignore[method-assign]


def take_back(model: DepthModel) -> None:
    """Undo `compile_model`; a model that was not compiled is left as it is."""
    if isinstance(vars(model).get("forward"), Graphs):  # a user's own stand-in is not ours to take away
        del model.forward
    for module, method, _ in regions(model):
        if isinstance(vars(module).get(method), Region):
            delattr(module, method)
    for attend, positions in biased(model):
        attend.kernel = None
        _keep_dense(positions, True)


def is_compiled(model: DepthModel) -> bool:
    return any(isinstance(vars(module).get(method), Region) for module, method, _ in regions(model))


def regions(model: DepthModel) -> Iterator[tuple[nn.Module, str, list[nn.Module]]]:
    """(module, its method that is compiled, the modules that the method calls)."""
    for block in model.encoder.blocks:
        inside = [module for name, child in block.named_children() if name != "attention" for module in child.modules()]
        yield block, "joined", inside
        if hasattr(block.attention, "directions"):
            yield block.attention, "directions", [block.attention.qkv]
    for block in model.fusion.blocks:
        yield block, "forward", _below(block)
    yield model.head, "forward", _below(model.head)


def biased(model: DepthModel) -> Iterator[tuple[Attend, nn.Module]]:
    """Attention with a bias, and what makes the bias."""
    for block in model.encoder.blocks:
        if hasattr(block.attention, "positions"):
            yield block.attention.attend, block.attention.positions


class Compiled:
    """torch.compile of a function, when it is first called. Copies and pickles compile anew."""

    def __init__(self, function: Callable, options: Mapping[str, Any]) -> None:
        self.function, self.options = function, dict(options)
        self._ready: Callable | None = None

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if self._ready is None:
            self._ready = torch.compile(self.function, **self.options)
        try:
            return self._ready(*arguments, **named)
        except torch._dynamo.exc.TorchRuntimeError:  # of the computation itself, e.g. shapes that do not fit
            raise
        except torch._dynamo.exc.TorchDynamoException as error:
            cause = " ".join(str(error).split("\n\n")[0].split())
            raise UnavailableError(
                f"torch.compile failed on this machine: {cause or type(error).__name__}. It needs a C++ compiler (CPU) "
                "or Triton (CUDA); model.compile(enabled=False) makes the model run without"
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        return {"function": self.function, "options": self.options, "_ready": None}


class Region:
    """A module's method, compiled."""

    def __init__(self, compiled: Compiled, module: nn.Module, inside: list[nn.Module]) -> None:
        self.compiled, self.module, self.inside = compiled, module, inside

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if hooked(self.inside) or torch.compiler.is_compiling() or torch.jit.is_tracing():
            return self.compiled.function(self.module, *arguments, **named)
        return self.compiled(self.module, *arguments, **named)


class Graphs:
    """A model's forward pass, replayed as a CUDA graph where nobody is looking."""

    def __init__(self, model: DepthModel) -> None:
        self.model = model
        self._inside = _below(model)
        self._kept: OrderedDict[int, tuple[tuple, Callable[[Tensor], Tensor]]] = OrderedDict()

    def __call__(self, x: Tensor) -> Tensor:
        plain = partial(type(self.model).forward, self.model)
        if not x.is_cuda or torch.is_autocast_enabled() or torch.compiler.is_compiling() or hooked(self._inside):
            return plain(x)
        parameters = [p for module in self._inside for p in module._parameters.values() if p is not None]
        if torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in parameters)):
            return plain(x)
        # A graph reads weights where they lay: it is good until one moves or changes.
        states = tuple((p.data_ptr(), 0 if p.is_inference() else p._version) for p in parameters)
        key = (x.shape, x.dtype, x.device, states)
        number = hash(key)
        with _lock:
            known = self._kept.get(number)
            if known is None or known[0] != key:
                self.model.grid_of(x)  # refuses what the model cannot take, before anything is recorded
                while len(self._kept) >= GRAPHS_KEPT:
                    self._kept.popitem(last=False)
                known = self._kept[number] = (key, record(plain, x))
            self._kept.move_to_end(number)
            return known[1](x)

    def __getstate__(self) -> dict[str, Any]:
        return {"model": self.model, "_kept": OrderedDict(), "_inside": self._inside}


def record(run: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[Tensor], Tensor]:
    """A pass over inputs like x as a CUDA graph: copies the input in, replays, and copies the result out."""
    with torch.cuda.device(x.device), torch.inference_mode(False), torch.no_grad(), noted() as tables:
        given = x.clone()
        run(given)  # works out what is kept for the grid, on the stream that everybody uses
        here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                run(given)
        here.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=aside, capture_error_mode="thread_local"):
            made = run(given)
        done = torch.cuda.Event()
        done.record()
    # The graph reads position tables and biases where they lie; they stay as long as it does.
    with_tables = (graph, tables)

    def replay(x: Tensor) -> Tensor:
        graph, _ = with_tables
        with torch.cuda.device(given.device), torch.inference_mode(False), torch.no_grad():
            torch.cuda.current_stream().wait_event(done)  # of a pass on another stream
            given.copy_(x)
            graph.replay()
            result = made.clone()  # the next replay writes over it
            done.record()
        return result

    return replay


class Flex:
    """Attention with a bias by offset through FlexAttention (Dong et al. 2024): the table is read in the kernel."""

    def __init__(self, compiled: Compiled) -> None:
        self.compiled = compiled

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, bias: OffsetBias, scale: float) -> Tensor:
        entries = bias.table.flatten(1)
        if bias.prefix is not None:
            entries = torch.cat((entries, bias.prefix), dim=1)
        return self.compiled(q, k, v, entries, bias.bands, bias.rows, bias.cols, bias.prefix is not None, scale)


def _flex(
    q: Tensor, k: Tensor, v: Tensor, entries: Tensor, bands: Tensor | None, rows: int, cols: int, prefix: bool,
    scale: float,
) -> Tensor:  # fmt: skip
    """entries: (heads, (2 rows - 1) (2 cols - 1)), then class to patches, patches to class and class to itself."""
    from torch.nn.attention.flex_attention import flex_attention

    across = 2 * cols - 1
    last = (2 * rows - 1) * across
    first = int(prefix)

    def add(logit: Tensor, b: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        at, of = query - first, key - first
        index = (at // cols - of // cols + rows - 1) * across + at % cols - of % cols + cols - 1
        if prefix:
            to_class = torch.where(of < 0, last + 1, index)
            index = torch.where(at < 0, torch.where(of < 0, last + 2, last), to_class)
        logit = logit + entries[head, index]
        if bands is not None:
            window = b % len(bands)
            logit = torch.where(bands[window, query] == bands[window, key], logit, logit + MASKED)
        return logit

    made = flex_attention(q, k, v, score_mod=add, scale=scale)
    assert isinstance(made, Tensor)
    return made


def hooked(modules: Iterable[nn.Module]) -> bool:
    if nn.modules.module._has_any_global_hook():
        return True
    return any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks for m in modules)


def _below(module: nn.Module | DepthModel) -> list[nn.Module]:
    """All modules inside a module, itself left out: its own hooks are called around it."""
    return [part for part in module.modules() if part is not module]


def _keep_dense(positions: nn.Module, dense: bool) -> None:
    if positions.dense == dense:
        return
    positions.dense = dense  # type: ignore[assignment]
    kept: KeptPerGrid = positions._kept  # type: ignore[assignment]
    kept.forget()
