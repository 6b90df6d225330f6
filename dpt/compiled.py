"""`model.compile()`: compiled models that probes can still inspect.

Problem: torch.compile of a whole model ignores hooks that are added later. Every probe and edit is such a hook.

Approach: only regions between probe points are compiled, with one function for all blocks of the same shape. The
regions are the part of a block after attention, a fusion level, the head, and SwinV2's normalised queries and keys.
Modules, their hooks and attention itself are called as usual, so a capture or edit sees the same numbers as a pass
without it. If a module inside a region has a hook (a user's own point), the region runs uncompiled and rounds like the
uncompiled model.

CUDA has two additional steps:

* FlexAttention computes an attention bias inside the kernel from its table. The fused kernel needs a dense tensor of
  tokens x tokens per head instead.
* A CUDA graph replays the pass of one input shape with a single launch. It is used while the model has no hooks. Passes
  with hooks run without the graph. A graph reads the weights in place and computes position tables and biases itself,
  so every replay sees the weights as they are.

Limits:

* A compiled region rounds differently from the uncompiled one, within the precision of the dtype.
* The first passes can take minutes.
* After one of a module's settings is changed, the model must be compiled again.
* CPUs gain nothing (ViT-S at 252 px on a Zen 4: 0.99 times the speed in float32, 0.90 in bfloat16), because matrix
  products dominate.
* The CUDA steps follow the documentation and are tested with stand-ins. They have not run on a GPU yet.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from inspect import signature
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from .ambient import autocasts, transformed
from .attention import MASKED, Attend, OffsetBias
from .errors import InvalidValueError, UnavailableError
from .kept import KeptPerGrid, recording
from .modules import hooked, within

RECOMPILES = 64  # versions of one function, for widths and image sizes; torch's default limit is 8
GRAPHS_KEPT = 4  # cached graphs, one per input shape; each holds its own activations
OWN_GRAPHS = ("reduce-overhead", "max-autotune")  # torch.compile modes that make CUDA graphs
_lock = threading.RLock()  # shared by all models: a model with a lock of its own could not be copied
WARM_UP = 3  # passes before recording, in which libraries choose kernels and allocate memory


class DepthModel(Protocol):
    """The part of `dpt.DPT` that this module uses. `dpt.model` imports this module, not the other way round."""

    encoder: Any
    fusion: Any
    head: Any

    def forward(self, x: Tensor) -> Tensor: ...

    def grid_of(self, x: Tensor) -> object: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...


def compile_model(model: DepthModel, *, graphs: bool, flex: bool | None, **options: Any) -> None:
    """Compiles a model in place. `DPT.compile` documents the arguments.

    Raises:
        InvalidValueError: `graphs` without CUDA, or options that make CUDA graphs of single regions.
    """
    device = model.device
    if graphs and device.type != "cuda":
        raise InvalidValueError(f"graphs=True needs CUDA, but the model is on {device}. Load it with device='cuda'")
    inductor = options.get("options") or {}
    if options.get("mode") in OWN_GRAPHS or inductor.get("triton.cudagraphs"):
        # The next region would overwrite a region's result while captures and stages still hold it.
        raise InvalidValueError(
            f"mode={options.get('mode')!r} makes a CUDA graph per region, and these overwrite each other's results. "
            'Use graphs=True for one graph of the whole model, or mode="max-autotune-no-cudagraphs"'
        )
    uncompile(model)
    if "recompile_limit" in signature(torch.compile).parameters:  # torch 2.13
        options.setdefault("recompile_limit", RECOMPILES)
    else:
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, RECOMPILES)
    functions: dict[Callable, Compiled] = {}
    for module, method, inside in regions(model):
        function = getattr(type(module), method)
        compiled = functions.setdefault(function, Compiled(function, options))
        setattr(module, method, Region(compiled, module, inside))
    half = model.dtype != torch.float32  # FlexAttention in float32 does not use tensor cores
    if flex or (flex is None and device.type == "cuda" and half):
        kernel = Flex(Compiled(_flex, options))
        for attend, positions in biased(model):
            attend.kernel = kernel
            _keep_dense(positions, False)
    if graphs:
        model.forward = Graphs(model)  # type: ignore[method-assign]


def uncompile(model: DepthModel) -> None:
    """Restores the uncompiled model. Does nothing to a model that is not compiled, nor to methods users replaced."""
    if isinstance(vars(model).get("forward"), Graphs):
        del model.forward
    for module, method, _ in regions(model):
        if isinstance(vars(module).get(method), Region):
            delattr(module, method)
    for attend, positions in biased(model):
        attend.kernel = None
        _keep_dense(positions, True)


def is_compiled(model: DepthModel) -> bool:
    """Tells whether any region of a model is compiled."""
    return any(isinstance(vars(module).get(method), Region) for module, method, _ in regions(model))


def regions(model: DepthModel) -> Iterator[tuple[nn.Module, str, Callable[[], Iterable[nn.Module]]]]:
    """Lists the regions of a model.

    Yields:
        (module, name of the method to compile, function that lists the modules that the method calls now).
    """
    for block in model.encoder.blocks:
        yield block, "joined", partial(within, block, "attention")
        if hasattr(block.attention, "directions"):
            yield block.attention, "directions", partial(_from, block.attention, "qkv")
    for block in model.fusion.blocks:
        yield block, "forward", partial(within, block)
    yield model.head, "forward", partial(within, model.head)


def biased(model: DepthModel) -> Iterator[tuple[Attend, nn.Module]]:
    """Lists the attention modules that have an `OffsetBias`, each with the module that computes the bias."""
    for block in model.encoder.blocks:
        if hasattr(block.attention, "positions"):
            yield block.attention.attend, block.attention.positions


class Compiled:
    """A function that is compiled at its first call. Copies and pickles are compiled again."""

    def __init__(self, function: Callable, options: Mapping[str, Any]) -> None:
        self.function, self.options = function, dict(options)
        self._ready: Callable | None = None

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if self._ready is None:
            self._ready = torch.compile(self.function, **self.options)
        try:
            return self._ready(*arguments, **named)
        except torch._dynamo.exc.TorchRuntimeError:  # from the computation itself, e.g. mismatched shapes
            raise
        except torch._dynamo.exc.TorchDynamoException as error:
            cause = " ".join(str(error).split("\n\n")[0].split())
            raise UnavailableError(
                f"torch.compile failed on this machine: {cause or type(error).__name__}. It needs a C++ compiler (CPU) "
                "or Triton (CUDA). To run the model uncompiled, call model.compile(enabled=False)"
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        return {"function": self.function, "options": self.options, "_ready": None}


class Region:
    """A compiled method of a module, which runs uncompiled while a module inside it has hooks."""

    def __init__(self, compiled: Compiled, module: nn.Module, inside: Callable[[], Iterable[nn.Module]]) -> None:
        self.compiled, self.module, self.inside = compiled, module, inside

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if transformed() or hooked(self.inside()):
            return self.compiled.function(self.module, *arguments, **named)
        return self.compiled(self.module, *arguments, **named)


class Graphs:
    """A model's forward pass, replayed as a CUDA graph while the model has no hooks and needs no gradients."""

    def __init__(self, model: DepthModel) -> None:
        self.model = model
        self._kept: OrderedDict[tuple, Callable[[Tensor], Tensor]] = OrderedDict()

    def __call__(self, x: Tensor) -> Tensor:
        plain = partial(type(self.model).forward, self.model)
        inside = tuple(within(cast(nn.Module, self.model)))  # modules may have been replaced
        if not x.is_cuda or transformed() or autocasts("cuda") or hooked(inside):
            return plain(x)
        weights = [
            t for module in inside for t in (*module._parameters.values(), *module._buffers.values()) if t is not None
        ]
        if torch.is_grad_enabled() and (x.requires_grad or any(t.requires_grad for t in weights)):
            return plain(x)
        # A graph reads the weights in place, whatever their values are, so it is valid while they are where they were.
        # The key holds the modules, so no other module gets the identity of one of them.
        places = tuple((t.data_ptr(), t.dtype, t.shape, t.stride()) for t in weights)
        key = (x.shape, x.dtype, x.device, inside, places)
        with _lock:
            replay = self._kept.get(key)
            if replay is None:
                self.model.grid_of(x)  # refuses invalid shapes before recording
                while len(self._kept) >= GRAPHS_KEPT:
                    self._kept.popitem(last=False)
                replay = self._kept[key] = record(plain, x)
            self._kept.move_to_end(key)
            return replay(x)

    def __getstate__(self) -> dict[str, Any]:
        return {"model": self.model, "_kept": OrderedDict()}


def record(run: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[Tensor], Tensor]:
    """Records a forward pass as a CUDA graph.

    Args:
        run: The forward pass.
        x: An input of the shape, dtype and device to record for.

    Returns:
        A function that copies its input in, replays the graph, and returns a copy of the result.
    """
    with torch.cuda.device(x.device), torch.inference_mode(False), torch.no_grad(), recording() as tables:
        given = x.clone()
        run(given)  # fills the caches for this grid, on the current stream
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
    # The graph reads cached results at fixed addresses, so they must live as long as the graph.
    with_tables = (graph, tables)

    def replay(x: Tensor) -> Tensor:
        graph, _ = with_tables
        with torch.cuda.device(given.device), torch.inference_mode(False), torch.no_grad():
            torch.cuda.current_stream().wait_event(done)  # a pass on another stream may still run
            given.copy_(x)
            graph.replay()
            result = made.clone()  # the next replay overwrites `made`
            done.record()
        return result

    return replay


class Flex:
    """Attention with an `OffsetBias` through FlexAttention, whose kernel reads the bias table.

    Source:
        Dong et al. 2024, "Flex Attention: A Programming Model for Generating Optimized Attention Kernels".
    """

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


def _from(module: nn.Module, name: str) -> Iterator[nn.Module]:
    """A child of a module and all modules inside it."""
    child = module.get_submodule(name)
    yield child
    yield from within(child)


def _keep_dense(positions: nn.Module, dense: bool) -> None:
    if positions.dense == dense:
        return
    positions.dense = dense  # type: ignore[assignment]
    kept: KeptPerGrid = positions._kept  # type: ignore[assignment]
    kept.clear()
