"""dpt.save refuses a model that its configuration and tensors do not describe completely, before it writes anything."""

from __future__ import annotations

import dataclasses
import types
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import dpt
from tests.models import OBLONG, TINY, pictures, tiny_model


class Adapter(nn.Module):
    """As LoRA libraries wrap a layer."""

    def __init__(self, base: nn.Linear):
        super().__init__()
        self.base_layer = base
        self.lora_A = nn.ModuleDict({"default": nn.Linear(base.in_features, 2, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(2, base.out_features, bias=False)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base_layer(x) + self.lora_B["default"](self.lora_A["default"](x))


class Doubled(dpt.DPT):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def set_weight(module: nn.Module, weight: torch.Tensor) -> None:
    module.weight = nn.Parameter(weight, requires_grad=False)


def quantise(model: dpt.DPT) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, but in use
        model.encoder = torch.ao.quantization.quantize_dynamic(model.encoder, {nn.Linear}, torch.qint8)


def normalise(model: dpt.DPT) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.weight_norm(model.head.conv1)


def reconfigure(model: dpt.DPT, **changes: object) -> None:
    model.config = dataclasses.replace(model.config, **changes)


def widen(model: dpt.DPT) -> None:
    set_weight(model.head.conv3, torch.randn(2, 32, 1, 1))
    model.head.conv3.bias = nn.Parameter(torch.zeros(2))


def tie(model: dpt.DPT) -> None:
    model.encoder.blocks[1].mlp.fc1.weight = model.encoder.blocks[0].mlp.fc1.weight


def tie_part(model: dpt.DPT) -> None:
    both = torch.randn(200, 128)
    set_weight(model.encoder.blocks[0].attention.projection, both[:128])
    set_weight(model.encoder.blocks[1].attention.projection, both[72:])


def another_method(model: dpt.DPT) -> None:
    twice = types.MethodType(lambda self, x, size: 2 * type(self).forward(self, x, size), model.head)
    vars(model.head)["forward"] = twice


FC1 = "encoder.blocks.0.mlp.fc1"
# what: (change of the model, words that name the place, words that say what to do)
CHANGES = {
    "pruned": (lambda m: prune.l1_unstructured(m.encoder.blocks[0].mlp.fc1, "weight", 0.3), FC1, "prune.remove"),
    "weight norm": (lambda m: parametrizations.weight_norm(m.head.conv1), "head.conv1", "remove_parametrizations"),
    "orthogonal": (
        lambda m: parametrizations.orthogonal(m.encoder.blocks[0].attention.projection),
        "encoder.blocks.0.attention.projection",
        "remove_parametrizations",
    ),
    "weight norm, old": (normalise, "head.conv1", "remove_weight_norm"),
    "spectral norm, old": (
        lambda m: nn.utils.spectral_norm(m.encoder.blocks[0].mlp.fc1),
        FC1,
        "remove_spectral_norm",
    ),
    "LoRA": (
        lambda m: setattr(m.encoder.blocks[0].attention, "qkv", Adapter(m.encoder.blocks[0].attention.qkv)),
        "encoder.blocks.0.attention.qkv",
        "merge_and_unload",
    ),
    "quantised": (quantise, "encoder.blocks.0", "before it is quantised"),
    "a second head": (lambda m: setattr(m, "uncertainty", nn.Conv2d(16, 1, 1)), "uncertainty", "delete"),
    "a module less": (lambda m: delattr(m.encoder, "norm"), "encoder.norm", "Restore"),
    "another activation": (lambda m: setattr(m.head, "activation", nn.Softplus()), "head.activation", "Restore"),
    "no activation": (lambda m: setattr(m.head, "activation", nn.Identity()), "Identity", "Restore"),
    "a layer skipped": (lambda m: m.encoder.blocks.__setitem__(2, nn.Identity()), "encoder.blocks.2", "Restore"),
    "a block less": (lambda m: m.encoder.blocks.__delitem__(3), "encoder.blocks.3", "Restore"),
    "an extra buffer": (lambda m: m.register_buffer("scale", torch.ones(1)), "scale", "delete"),
    "a parameter less": (lambda m: m.head.conv1.register_parameter("bias", None), "head.conv1.bias", "Restore"),
    "another stride": (lambda m: setattr(m.fusion.blocks[0].out, "stride", (2, 2)), "fusion.blocks.0.out", "(2, 2)"),
    "another epsilon": (lambda m: setattr(m.encoder.norm, "eps", 1e-3), "encoder.norm.eps", "0.001"),
    "other taps": (lambda m: setattr(m.encoder, "taps", (3, 3, 3, 3)), "encoder.taps", "(3, 3, 3, 3)"),
    "another configuration": (lambda m: reconfigure(m, taps=(0, 0, 0, 3)), "encoder.taps", "(0, 0, 0, 3)"),
    "another width in it": (lambda m: reconfigure(m, width=192, heads=3), "192", "config"),
    "a range in it": (lambda m: reconfigure(m, max_depth=20.0), "head.activation", "Restore"),
    "another method": (another_method, "head", "forward"),
    "a subclass": (lambda m: setattr(m, "__class__", Doubled), "Doubled", "Restore"),
    "widened": (widen, "head.conv3.weight is (2, 32, 1, 1), expected (1, 32, 1, 1)", "Restore"),
    "tied": (tie, "encoder.blocks.1.mlp.fc1.weight", "clone"),
    "tied in part": (tie_part, "encoder.blocks.1.attention.projection.weight", "clone"),
    "meta": (lambda m: m.to("meta"), "patch_embed.projection.weight", "device='cpu'"),
    "half on meta": (lambda m: m.encoder.blocks[3].to("meta"), "encoder.blocks.3.", "device='cpu'"),
    "sparse": (
        lambda m: set_weight(m.encoder.blocks[0].mlp.fc1, m.encoder.blocks[0].mlp.fc1.weight.to_sparse()),
        f"{FC1}.weight",
        "to_dense",
    ),
    "integers": (
        lambda m: set_weight(m.encoder.blocks[0].mlp.fc1, torch.ones(512, 128, dtype=torch.int8)),
        f"{FC1}.weight is torch.int8",
        "float",
    ),
    "8-bit floats": (
        lambda m: set_weight(m.encoder.blocks[0].mlp.fc1, torch.ones(512, 128).to(torch.float8_e4m3fn)),
        f"{FC1}.weight is torch.float8_e4m3fn",
        "float",
    ),
    "NaN": (lambda m: m.head.conv1.bias[0].fill_(float("nan")), "head.conv1.bias", "diverged"),
    "infinity": (lambda m: m.head.conv1.bias[0].fill_(float("-inf")), "head.conv1.bias", "diverged"),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_model_is_refused_and_nothing_is_written(what, tmp_path):
    change, place, advice = CHANGES[what]
    model = tiny_model()
    dpt.save(model, tmp_path / "control.safetensors")  # control: without the change
    change(model)
    with pytest.raises((dpt.DPTError, ValueError)) as caught:
        dpt.save(model, tmp_path / "model.safetensors")
    assert isinstance(caught.value, dpt.DPTError)
    message = str(caught.value)
    assert place in message
    assert advice in message
    assert "\n" not in message
    assert len(message) < 700
    assert [path.name for path in tmp_path.iterdir()] == ["control.safetensors"]


def undo_pruning(model: dpt.DPT) -> None:
    layer = model.encoder.blocks[0].mlp.fc1
    prune.l1_unstructured(layer, "weight", 0.3)
    prune.remove(layer, "weight")


def undo_weight_norm(model: dpt.DPT) -> None:
    parametrizations.weight_norm(model.head.conv1)
    parametrize.remove_parametrizations(model.head.conv1, "weight")


def hooked(model: dpt.DPT) -> None:
    model.encoder.register_forward_hook(lambda module, arguments, output: None)


def bound(model: dpt.DPT) -> None:
    vars(model.head)["forward"] = model.head.forward  # as accelerate leaves it behind


def strided(model: dpt.DPT) -> None:
    layer = model.encoder.blocks[0].attention.projection
    set_weight(layer, layer.weight.mT.contiguous().mT)


def interleaved(model: dpt.DPT) -> None:
    both = torch.randn(128, 256)
    set_weight(model.encoder.blocks[0].attention.projection, both[:, :128])
    set_weight(model.encoder.blocks[1].attention.projection, both[:, 128:])


UNCHANGED = {
    "pruning made permanent": undo_pruning,
    "weight norm removed": undo_weight_norm,
    "hooks": hooked,
    "a bound method": bound,
    "in training mode": lambda model: model.train().requires_grad_(True),
    "compiled": lambda model: model.compile(),
    "another memory layout": strided,
    "columns of one tensor": interleaved,
    "dtypes mixed": lambda model: model.encoder.norm.double() and model.head.double(),
    "a pass before": lambda model: model(pictures(1, 42, 56)),
}


@pytest.mark.parametrize("what", UNCHANGED)
def test_what_changes_no_function_is_saved(what, tmp_path):
    model = tiny_model()
    UNCHANGED[what](model)
    dpt.save(model, tmp_path / "model.safetensors")
    again = dpt.load(tmp_path)
    assert again.config == model.config
    for key, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], tensor), key
        assert again.state_dict()[key].dtype == tensor.dtype


@pytest.mark.parametrize("family", TINY)
@pytest.mark.parametrize("mapped", [False, True])
def test_a_reloaded_model_computes_the_same_and_can_be_saved(family, mapped, tmp_path):
    model, x = TINY[family](), pictures(1, *OBLONG[family])
    depth = model(x)
    dpt.save(model, tmp_path / "a.safetensors")
    again = dpt.load(tmp_path / "a.safetensors", mmap=mapped)
    dpt.save(again, tmp_path / "b.safetensors")
    if mapped:  # the alignment of a weight in the file decides the order of its sums
        assert torch.allclose(dpt.load(tmp_path / "b.safetensors")(x), depth, atol=1e-4)
    else:
        assert torch.equal(dpt.load(tmp_path / "b.safetensors")(x), depth)


@pytest.mark.parametrize(
    ("wrap", "advice"),
    [
        (nn.DataParallel, r"DataParallel\. .*model\.module"),
        (lambda model: torch.compile(model, backend="eager"), r"OptimizedModule\. .*model\._orig_mod"),
        (torch.optim.swa_utils.AveragedModel, r"AveragedModel\. .*model\.module"),
    ],
)
def test_a_wrapped_model_is_refused_with_the_way_to_the_model(wrap, advice, tmp_path):
    with pytest.raises(TypeError, match=advice):
        dpt.save(wrap(tiny_model()), tmp_path / "model.safetensors")
