"""Finite values never become infinite without a word."""

from __future__ import annotations

import pytest
import torch

import probes
from dpt import TokenGrid
from dpt.attention import OffsetBias
from probes.errors import InvalidTypeError, InvalidValueError
from probes.narrowed import checked_device, checked_dtype
from tests.models import pictures, tiny_model

X = pictures(1, 42, 42)


def loud_model():
    model = tiny_model()
    model.encoder.blocks[0].mlp.fc2.weight.mul_(1e6)
    return model


def test_a_capture_refuses_a_dtype_that_cannot_hold_its_values():
    model = loud_model()
    with probes.capture(model, "encoder.blocks.0.tokens") as cap:
        model(X)
    count = int((cap["encoder.blocks.0.tokens"].half().isinf()).sum())
    assert count
    refused = pytest.raises(InvalidValueError, match=rf"65504.* {count:,} of encoder\.blocks\.0\.tokens.*bfloat16")
    with refused, probes.capture(model, "encoder.blocks.0.tokens", "norms", dtype=torch.float16):
        model(X)
    with probes.capture(model, "*", dtype=torch.bfloat16) as wide:
        model(X)
    assert wide["encoder.blocks.0.tokens"].isfinite().all()


def test_values_that_the_model_made_infinite_are_not_counted():
    model = tiny_model()
    for value in (float("inf"), float("nan")):
        with (
            probes.edit(model, {"fusion.0": probes.replace(value)}),
            probes.capture(model, "fusion.0", dtype=torch.float16) as cap,
        ):
            model(X)
        assert not cap["fusion.0"].isfinite().any()
    mixed = {"fusion.0": lambda t: torch.cat([t[:, :1] * float("nan"), t[:, 1:] * 0 + 1e6], 1)}
    with (
        pytest.raises(InvalidValueError, match=r"fusion\.0"),
        probes.edit(model, mixed),
        probes.capture(model, "fusion.0", dtype=torch.float16),
    ):
        model(X)


@pytest.mark.parametrize("part", ["q", "k", "bias", "table"])
def test_attention_maps_refuse_it_too(part):
    grid = TokenGrid(2, 2)
    tensors = {"q": torch.zeros(1, 1, 4, 3), "k": torch.zeros(1, 1, 4, 3)}
    bias = torch.zeros(1, 1, 4, 4) if part == "bias" else torch.zeros(1, 3, 3) if part == "table" else None
    target = bias if bias is not None else tensors[part]
    target.view(-1)[0] = 7e4
    offsets = OffsetBias(bias) if part == "table" else bias
    maps = probes.AttentionMaps(tensors["q"], tensors["k"], 1.0, grid, offsets, "here")
    with pytest.raises(InvalidValueError, match="1 of here"):
        maps.to(dtype=torch.float16)
    assert maps.to(dtype=torch.bfloat16).q.dtype == torch.bfloat16
    assert maps.to("cpu").q is maps.q


@pytest.mark.parametrize("device", [1.5, True, 0, torch.tensor(0), object()])
def test_what_is_no_device_is_refused(device):
    with pytest.raises(InvalidTypeError, match="'cpu', got"):
        checked_device(device)


def test_an_unknown_device_is_refused_on_entry():
    model = tiny_model()
    with pytest.raises(InvalidValueError, match=r"cpu.*'gpu0'"), probes.capture(model, "attention", device="gpu0"):
        raise AssertionError("the block must not start")
    with probes.capture(model, "attention", device="cpu") as cap:
        model(X)
    with pytest.raises(InvalidValueError, match=r"cpu.*'gpu0'"):
        cap["encoder.blocks.0.attention"].to("gpu0")


@pytest.mark.parametrize("dtype", ["float16", 16, torch.int32, torch.bool])
def test_what_is_no_floating_point_type_is_refused(dtype):
    with pytest.raises(InvalidTypeError, match=r"float16, got"):
        checked_dtype(dtype)


def test_attention_maps_refuse_whole_numbers():
    model = tiny_model()
    with probes.capture(model, "attention") as cap:
        model(X)
    with pytest.raises(InvalidTypeError, match=r"float16, got torch\.int32"):
        cap["encoder.blocks.0.attention"].to(dtype=torch.int32)
