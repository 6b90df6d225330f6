"""Compiled models return the plain model's depth and remain open to captures and edits."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import dpt
import probes
from dpt import compiled
from dpt.kept import KeptPerGrid
from probes import registry
from tests.models import OBLONG, TINY, pictures, tiny_beit, tiny_model

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:torch", "ignore:The .grad attribute:UserWarning")


@pytest.fixture(params=TINY)
def model(request: pytest.FixtureRequest) -> Iterator[dpt.DPT]:
    torch._dynamo.reset()
    yield TINY[request.param]()
    torch._dynamo.reset()


def compiled_calls(model: dpt.DPT) -> list[str]:
    """Compiles with a backend that runs graphs unchanged and records each call."""
    calls: list[str] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]):
        def run(*arguments: Tensor) -> object:
            calls.append(str(len(graph.graph.nodes)))
            return graph(*arguments)

        return run

    model.compile(backend=backend)
    return calls


def test_depth_is_the_plain_models(model: dpt.DPT):
    x = pictures_for(model)
    with torch.no_grad():
        plain = model(x)
        calls = compiled_calls(model)
        assert torch.equal(model(x), plain)
        assert len(calls) >= model.config.depth + 5, "all blocks, four fusion levels and the head are compiled"
        calls.clear()
        assert torch.equal(model.compile(enabled=False)(x), plain)
        assert not calls


def test_captures_of_a_compiled_model_equal_those_of_the_plain_model(model: dpt.DPT):
    x = pictures_for(model)
    with torch.no_grad():
        with probes.capture(model, "*") as plain:
            model(x)
        calls = compiled_calls(model)
        bare = model(x)
        calls.clear()
        with probes.capture(model, "*") as seen:
            assert torch.equal(model(x), bare)
    assert calls, "regions stay compiled while points between them are captured"
    assert set(seen) == set(plain)
    for name, value in plain.items():
        if isinstance(value, probes.AttentionMaps):
            assert torch.equal(seen[name].q, value.q)
            assert torch.equal(seen[name].k, value.k)
        else:
            assert torch.equal(seen[name], value), name


def test_edits_reach_the_compiled_model(model: dpt.DPT):
    x = pictures_for(model)
    edits = {"encoder.blocks.1.heads": probes.zero(heads=0), "fusion.2": probes.scale(1.5)}
    with torch.no_grad():
        with probes.edit(model, edits):
            plain = model(x)
        compiled_calls(model)
        model(x)  # compiled before the edit
        with probes.edit(model, edits):
            assert torch.equal(model(x), plain)


def test_a_region_with_a_captured_point_inside_runs_uncompiled_until_the_capture_ends(model: dpt.DPT):
    x = pictures_for(model)
    inside = model.encoder.blocks[2].mlp.fc1
    calls = compiled_calls(model)
    with torch.no_grad():
        model(x)
        every = len(calls)
        registry.register("inside", inside)
        calls.clear()
        try:
            with probes.capture(model, "inside") as seen:
                model(x)
        finally:
            registry.unregister(inside)
        assert seen["inside"].shape[-1] == inside.out_features
        assert len(calls) == every - 1
        calls.clear()
        model(x)
    assert len(calls) == every


def test_one_function_serves_all_blocks_and_all_sizes(model: dpt.DPT):
    made: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]):
        made.append(graph)
        return graph

    model.compile(backend=backend)
    side = model.config.multiple
    with torch.no_grad():
        for rows, cols in ((3, 4), (4, 3), (5, 5), (4, 6)):
            model(pictures(1, rows * side, cols * side))
        count = len(made)
        model(pictures(1, 6 * side, 7 * side))
    assert len(made) == count, "a fifth size needs no compilation"
    widths = len({model.config.block_width(i) for i in range(model.config.depth)})
    regions = list(compiled.regions(model))
    assert count <= 3 * widths * len({type(module) for module, _, _ in regions}) + 6, "not one per block"


def test_copies_and_pickles_are_compiled_separately(model: dpt.DPT):
    x = pictures_for(model)
    with torch.no_grad():
        plain = model(x)
        model.compile(backend="eager")
        model(x)
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            region = vars(other.encoder.blocks[0])["joined"]
            assert region.module is other.encoder.blocks[0]
            assert region.compiled._ready is None
            assert torch.equal(other(x), plain)


def test_uncompiling_leaves_methods_that_users_replaced(tmp_path: Path):
    model = tiny_model()
    block, head = model.fusion.blocks[1], model.head
    own = lambda *arguments: type(block).forward(block, *arguments)  # noqa: E731
    block.forward, head.forward = own, own  # type: ignore[method-assign]
    model.encoder.positions(model.token_grid(42, 70))
    assert not compiled.is_compiled(model)
    compiled.uncompile(model)
    assert block.forward is own
    assert head.forward is own
    assert len(model.encoder.positions._kept) == 1


@pytest.mark.parametrize("family", ["depth-anything", "beit"])
def test_compiled_models_can_be_saved_and_exported(tmp_path: Path, family: str):
    torch._dynamo.reset()
    model = TINY[family]()
    plain = model.state_dict()
    model.compile(backend=refuse_to_compile, flex=family == "beit")  # neither saving nor exporting may compile
    assert model.state_dict().keys() == plain.keys()
    dpt.save(model, tmp_path / "model.safetensors")
    pytest.importorskip("onnxruntime")
    size = OBLONG[family]
    dpt.export_onnx(model, tmp_path / "model.onnx", dynamic=False, size=size, say=None)  # verified against torch
    assert compiled.is_compiled(model)


def refuse_to_compile(graph: torch.fx.GraphModule, inputs: list[Tensor]):
    raise AssertionError("compiled")


@pytest.mark.parametrize(
    "options",
    [{"mode": "reduce-overhead"}, {"mode": "max-autotune"}, {"options": {"triton.cudagraphs": True}}],
    ids=["reduce-overhead", "max-autotune", "cudagraphs"],
)
def test_modes_that_overwrite_results_are_refused(options: dict):
    model = tiny_model()
    with pytest.raises(ValueError, match="graphs=True"):
        model.compile(**options)
    assert not compiled.is_compiled(model)


def test_regions_take_arguments_by_name_and_see_backward_hooks():
    torch._dynamo.reset()
    model = tiny_model().requires_grad_(True)
    calls = compiled_calls(model)
    x = torch.randn(1, model.config.fusion_channels, 6, 6, requires_grad=True)
    assert torch.equal(model.head(x, size=(12, 12)), model.head(x, (12, 12)))
    assert calls
    calls.clear()
    seen: list[object] = []
    handle = model.head.conv1.register_full_backward_hook(lambda module, *gradients: seen.append(module))
    model.head(x, (12, 12)).sum().backward()
    handle.remove()
    assert seen == [model.head.conv1]
    assert not calls
    torch._dynamo.reset()


def test_without_a_compiler_the_error_says_so(monkeypatch: pytest.MonkeyPatch):
    torch._dynamo.reset()
    model = tiny_model()

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]):
        raise RuntimeError("no compiler here")

    model.compile(backend=backend)
    with torch.no_grad(), pytest.raises(RuntimeError, match=r"no compiler here.*enabled=False"):
        model(pictures_for(model))
    torch._dynamo.reset()


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_compiling_for_real(whole: bool, monkeypatch: pytest.MonkeyPatch):
    """With Inductor's C++, depth agrees within float32 rounding, and a capture leaves it bit-identical.

    The compiler takes over a minute for all regions, so by default only those of the blocks are compiled.
    """
    torch._dynamo.reset()
    model = tiny_model()
    if not whole:
        regions = compiled.regions
        monkeypatch.setattr(compiled, "regions", lambda m: (r for r in regions(m) if r[0] in set(m.encoder.blocks)))
    x = pictures_for(model)
    with torch.no_grad():
        plain = model(x)
        bare = model.compile()(x)
        assert compiled.is_compiled(model)
        torch.testing.assert_close(bare, plain, rtol=1e-4, atol=1e-5)
        with probes.capture(model, "*"):
            assert torch.equal(model(x), bare)
    torch._dynamo.reset()


# FlexAttention


@pytest.mark.filterwarnings("ignore:.*flex_attention called without torch.compile")
@pytest.mark.parametrize("family", ["beit", "swinv2"])
def test_the_bias_inside_the_kernel_is_the_dense_one(family: str):
    model = TINY[family]()
    x = pictures_for(model)
    with torch.no_grad():
        with probes.capture(model, "*.heads") as plain:
            depth = model(x)
        torch._dynamo.reset()
        model.compile(flex=True, backend="eager")
        for attend, _ in compiled.biased(model):
            assert isinstance(attend.kernel, compiled.Flex)
            attend.kernel.compiled._ready = compiled._flex  # torch's own reference of it, uncompiled
        with probes.capture(model, "*.heads") as seen:
            torch.testing.assert_close(model(x), depth, rtol=1e-4, atol=1e-4)
    for name, value in plain.items():
        torch.testing.assert_close(seen[name], value, rtol=1e-4, atol=1e-4)
    kept = [bias for _, positions in compiled.biased(model) for bias in positions._kept._kept.values()]
    assert kept
    assert not any("dense" in vars(bias) for bias in kept), "no dense bias is cached"


def test_the_bias_is_dense_where_gradients_are_needed():
    model = tiny_beit().requires_grad_(True)
    model.compile(flex=True, backend="eager")
    for attend, _ in compiled.biased(model):
        attend.kernel = None if attend.kernel is None else refuse
    model(pictures_for(model)).sum().backward()
    assert model.encoder.blocks[0].attention.positions.table.grad is not None
    torch._dynamo.reset()


def refuse(*arguments: object) -> Tensor:
    raise AssertionError("called")


# CUDA graphs


def test_graphs_need_cuda():
    with pytest.raises(ValueError, match=r"cpu.*device='cuda'"):
        tiny_model().compile(graphs=True)


class OnGPU(Tensor):
    """A tensor that claims to be on a GPU."""

    is_cuda = True


def on_gpu(batch: int, height: int, width: int) -> Tensor:
    return pictures(batch, height, width).as_subclass(OnGPU)


@pytest.fixture
def graphed(monkeypatch: pytest.MonkeyPatch) -> tuple[dpt.DPT, list[tuple]]:
    """A model whose passes are "recorded" by shape, and the list of recorded shapes."""
    recorded: list[tuple] = []

    def record(run, x: Tensor):
        recorded.append(tuple(x.shape))
        return run

    monkeypatch.setattr(compiled, "record", record)
    model = tiny_model()
    model.forward = compiled.Graphs(model)  # type: ignore[method-assign]
    return model, recorded


def test_a_graph_serves_its_shape_until_weights_or_modules_are_elsewhere(graphed):
    model, recorded = graphed
    with torch.no_grad():
        for side in (42, 56, 42, 56):
            model(on_gpu(1, side, side))
        assert recorded == [(1, 3, 42, 42), (1, 3, 56, 56)]
        model.head.conv1.weight.mul_(2)
        model(on_gpu(1, 42, 42))
        assert len(recorded) == 2, "a graph reads the weights in place"
        model.head.conv1.weight.data = 2 * model.head.conv1.weight
        plain = type(model).forward(model, pictures(1, 42, 42))
        assert torch.equal(model(on_gpu(1, 42, 42)), plain)
        assert len(recorded) == 3
        qkv = model.encoder.blocks[0].attention.qkv
        model.encoder.blocks[0].attention.qkv = nn.Sequential(qkv, nn.ReLU())
        plain = type(model).forward(model, pictures(1, 42, 42))
        assert torch.equal(model(on_gpu(1, 42, 42)), plain)
        assert len(recorded) == 4
        for side in range(14, 14 * 8, 14):
            model(on_gpu(1, side, side))
    assert len(vars(model)["forward"]._kept) == compiled.GRAPHS_KEPT


def test_graphs_are_not_used_with_hooks_or_gradients(graphed):
    model, recorded = graphed
    x = on_gpu(1, 42, 42)
    with torch.no_grad(), probes.capture(model, "fusion.0") as seen:
        depth = model(x)
    assert recorded == []
    assert seen["fusion.0"].shape[0] == 1
    model.requires_grad_(True)
    model(x)
    model.requires_grad_(False)
    model(pictures(1, 42, 42))  # on the CPU
    assert recorded == []
    with torch.inference_mode():
        assert torch.equal(model(x), depth)
    assert recorded == [tuple(x.shape)]
    with pytest.raises(ValueError, match="multiple"):
        model(torch.zeros(1, 3, 40, 42).as_subclass(OnGPU))
    assert len(recorded) == 1
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert vars(other)["forward"].model is other
        assert not vars(other)["forward"]._kept


class Recording:
    """Stands in for torch.cuda's graphs: a replay runs the recorded pass again on the same tensors."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.passes: list[tuple[Tensor, Tensor]] = []
        self.recorded: tuple[Tensor, Tensor] | None = None
        self.streams: list[str] = []
        replaced = {
            "device": lambda device: nullcontext(),
            "Stream": lambda: self,
            "current_stream": lambda: self,
            "stream": lambda stream: nullcontext(),
            "Event": lambda: self,
            "CUDAGraph": lambda: self,
            "graph": self.graph,
        }
        for name, value in replaced.items():
            monkeypatch.setattr(torch.cuda, name, value)

    @contextmanager
    def graph(self, graph: object, stream: object, capture_error_mode: str) -> Iterator[None]:
        assert graph is self
        assert capture_error_mode == "thread_local"
        yield
        self.recorded = self.passes[-1]

    def wait_stream(self, other: object) -> None:
        self.streams.append("wait")

    def wait_event(self, other: object) -> None: ...

    def record(self) -> None: ...

    def replay(self) -> None:
        assert self.recorded is not None
        given, made = self.recorded
        made.copy_(self.run(given))

    def run(self, x: Tensor) -> Tensor:
        return 2 * x + kept((), "grid", lambda: torch.ones(3)) + doubled((weight,), "grid", lambda: 2 * weight)

    def noting(self, x: Tensor) -> Tensor:
        self.passes.append((x, self.run(x)))
        return self.passes[-1][1]


kept: KeptPerGrid[Tensor] = KeptPerGrid(1)
doubled: KeptPerGrid[Tensor] = KeptPerGrid(1)
weight = torch.zeros(3)


def test_a_recorded_pass_copies_input_and_output_and_keeps_its_tables_alive(monkeypatch: pytest.MonkeyPatch):
    recording = Recording(monkeypatch)
    with torch.inference_mode():
        replay = compiled.record(recording.noting, torch.zeros(3))
        table = next(iter(kept._kept.values()))
        assert not len(doubled), "results of parameters are computed inside the graph, at each replay"
        first = replay(torch.arange(3.0))
    with torch.no_grad():  # a graph recorded in inference mode works outside it
        second = replay(torch.ones(3))
    assert first.tolist() == [1, 3, 5], "a copy that the second replay does not overwrite"
    assert second.tolist() == [3, 3, 3]
    assert len(recording.passes) == 1 + compiled.WARM_UP + 1
    assert len({x.data_ptr() for x, _ in recording.passes}) == 1
    alive = weakref.ref(table)
    kept.clear()
    del table
    gc.collect()
    assert alive() is not None
    del replay
    recording.recorded = None
    gc.collect()
    assert alive() is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("family", TINY)
def test_a_graph_on_cuda_gives_the_same_depth(family: str):
    model = TINY[family]().to("cuda")
    x, other = pictures_for(model).cuda(), pictures_for(model).flip(-1).cuda()
    with torch.no_grad():
        plain = model(x), model(other)
        model.compile(graphs=True)
        for _ in range(2):
            made = model(x), model(other)
    for a, b in zip(made, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def pictures_for(model: dpt.DPT, batch: int = 2) -> Tensor:
    return pictures(batch, *OBLONG[model.config.family])
