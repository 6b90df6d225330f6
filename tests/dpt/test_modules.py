"""What is asked of modules that were replaced: by adapters, quantised layers, offloaded ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import dpt
import probes
from dpt.modules import float_dtype, hooked, input_device, is_plain, within
from tests.models import OBLONG, TINY, pictures


def test_all_modules_inside_are_listed_once_and_a_child_can_be_left_out():
    shared = nn.ReLU()
    inner = nn.Sequential(nn.Linear(2, 2), shared)
    whole = nn.ModuleDict({"one": inner, "two": nn.Sequential(shared)})
    assert set(within(whole)) == set(whole.modules()) - {whole}
    assert len(list(within(whole))) == 4
    assert set(within(whole, "one")) == {whole["two"], shared}


def test_all_kinds_of_hooks_are_found():
    layer = nn.Linear(2, 2)
    assert not hooked([layer])
    handle = layer.register_forward_pre_hook(lambda module, arguments: None)
    assert hooked([nn.ReLU(), layer])
    handle.remove()
    assert not hooked([layer])


@pytest.mark.parametrize("change", ["subclass", "parametrized", "weight_norm", "hook", "forward", "none"])
def test_a_layer_whose_call_may_do_more_is_not_plain(change: str):
    layer: nn.Module = nn.Linear(2, 2)
    if change == "subclass":
        layer = type("Adapter", (nn.Linear,), {})(2, 2)
    elif change == "parametrized":
        nn.utils.parametrizations.weight_norm(layer)
    elif change == "weight_norm":
        layer.register_forward_pre_hook(lambda module, arguments: None)  # as the older torch.nn.utils.weight_norm
    elif change == "hook":
        layer.register_forward_hook(lambda module, arguments, result: 2 * result)
    elif change == "forward":
        layer.forward = lambda x: x  # as accelerate's hooks
    assert is_plain(layer, nn.Linear) == (change == "none")


def test_the_dtype_of_a_layer_ignores_integers_and_defaults_to_float32():
    assert float_dtype(nn.Linear(2, 2).half()) == torch.float16
    assert float_dtype(nn.ReLU()) == torch.float32
    quantised = nn.Module()
    quantised.register_buffer("packed", torch.zeros(2, dtype=torch.int8))
    assert float_dtype(quantised) == torch.float32


def test_offloaded_weights_do_not_tell_the_device():
    empty = nn.Linear(2, 2, device="meta")
    model = nn.Sequential(empty, nn.Linear(2, 2))
    assert input_device(empty, model).type == "cpu", "another layer holds data"
    model[1] = nn.Linear(2, 2, device="meta")
    assert input_device(empty, model).type == "meta", "a model without data"
    empty.register_forward_pre_hook(lambda module, arguments: None)  # brings the weights
    assert input_device(empty, model).type == "cpu"


# Replaced layers in models


@pytest.fixture(params=TINY)
def model(request: pytest.FixtureRequest) -> dpt.DPT:
    return TINY[request.param]()


def inputs(model: dpt.DPT) -> Tensor:
    return pictures(1, *OBLONG[model.config.family])


class Adapter(nn.Module):
    """A layer wrapped as peft's LoRA does: the base layer inside, its weight as a property."""

    def __init__(self, base: nn.Linear, rank: int = 2):
        super().__init__()
        self.base_layer = base
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)

    @property
    def weight(self) -> Tensor:
        return self.base_layer.weight

    @property
    def bias(self) -> Tensor | None:
        return self.base_layer.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) + self.up(self.down(x))


def linear_layers(model: dpt.DPT) -> list[str]:
    return [name for name, module in model.named_modules() if type(module) is nn.Linear]


def test_an_adapter_on_any_linear_layer_takes_part_and_is_trained(model: dpt.DPT):
    x = inputs(model)
    before = model(x)
    for name in linear_layers(model):
        base = model.get_submodule(name)
        adapter = Adapter(base)
        model.set_submodule(name, adapter)
        assert not torch.equal(model(x), before), name
        model(x).mean().backward()
        assert adapter.up.weight.grad is not None, name
        model.set_submodule(name, base)
        assert torch.equal(model(x), before), name


def test_hooks_and_registered_points_of_every_layer_fire(model: dpt.DPT):
    x = inputs(model)
    wanted = model(x)
    layers = [m for m in model.modules() if not list(m.children()) and not isinstance(m, nn.Identity)]
    fired: set[nn.Module] = set()
    handles = [layer.register_forward_hook(lambda layer, args, output: fired.add(layer)) for layer in layers]
    assert torch.equal(model(x), wanted)
    for handle in handles:
        handle.remove()
    unused = [name for name, layer in model.named_modules() if layer in set(layers) - fired]
    assert unused == []


def test_a_registered_qkv_is_captured_and_the_depth_stays(model: dpt.DPT):
    x = inputs(model)
    wanted = model(x)
    qkv = model.encoder.blocks[1].attention.qkv
    probes.registry.register("my.qkv", qkv)
    try:
        with probes.capture(model, "my.qkv") as cap:
            assert torch.equal(model(x), wanted)
    finally:
        probes.registry.unregister(qkv)
    given: list[Tensor] = []
    with qkv.register_forward_pre_hook(lambda layer, args: given.append(args[0])):
        model(x)
    assert torch.equal(cap["my.qkv"], qkv(given[0])), "the layer's own output, before a bias that is stored outside"


@pytest.mark.filterwarnings("ignore:.*quanti", "ignore::DeprecationWarning")
def test_a_dynamically_quantised_model_runs_and_is_captured(model: dpt.DPT):
    image = np.random.default_rng(0).integers(0, 256, (*OBLONG[model.config.family], 3), np.uint8)
    wanted = model.predict(image)
    small = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, torch.qint8)
    with probes.capture(small, "norms", "attention") as cap:
        depth = small.predict(image)
    assert np.corrcoef(depth.ravel(), wanted.ravel())[0, 1] > 0.95
    assert len(cap) == 2 * model.config.depth
    assert (small.device.type, small.dtype) == ("cpu", torch.float32)


@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm", "pruned"])
def test_reparametrised_layers_run(model: dpt.DPT, kind: str):
    x = inputs(model)
    layer = model.encoder.blocks[1].attention.qkv
    if kind == "weight_norm":
        nn.utils.parametrizations.weight_norm(layer)
        torch.testing.assert_close(model(x), type(model).forward(model, x))
        layer.parametrizations.weight.original0.data.mul_(2)
    elif kind == "spectral_norm":
        nn.utils.parametrizations.spectral_norm(layer)
    else:
        prune.random_unstructured(layer, "weight", amount=0.5)
    assert model(x).isfinite().all()


def offload(model: nn.Module) -> None:
    """Keeps every tensor of a model on the "meta" device, except while the module that owns it is called."""
    for module in model.modules():
        stored = dict(module.named_parameters(recurse=False))
        if not stored:
            continue

        def called(*args: object, module: nn.Module = module, stored: dict = stored, **named: object) -> object:
            module._parameters.update(stored)
            try:
                return type(module).forward(module, *args, **named)
            finally:
                module._parameters.update(empty(stored))

        module.forward = called
        module._parameters.update(empty(stored))


def empty(stored: dict[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    return {name: nn.Parameter(p.to("meta"), requires_grad=False) for name, p in stored.items()}


def test_an_offloaded_model_prepares_predicts_and_is_inspected(model: dpt.DPT):
    image = np.random.default_rng(0).integers(0, 256, (*OBLONG[model.config.family], 3), np.uint8)
    wanted, x = model.predict(image), model.prepare(image)
    positions = probes.positions(model)
    offload(model)
    assert all(p.is_meta for p in model.parameters())
    assert torch.equal(model.prepare(image), x)
    with probes.capture(model, "attention", "norms") as cap:
        np.testing.assert_array_equal(model.predict(image), wanted)
    assert cap["encoder.blocks.1.attention"].rows([3]).isfinite().all()
    np.testing.assert_array_equal(probes.FusionReplay(model, image)(), wanted)
    found = probes.positions(model)
    if isinstance(found, probes.PositionTable):
        np.testing.assert_array_equal(found.table, positions.table)
    else:
        np.testing.assert_array_equal(found[1], positions[1])
