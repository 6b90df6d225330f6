"""What is asked of modules that were replaced: by adapters, quantised layers, offloaded ones."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dpt.modules import float_dtype, hooked, input_device, is_plain, within


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
        layer.forward = lambda x: x  # type: ignore[method-assign]  # as accelerate's hooks
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
