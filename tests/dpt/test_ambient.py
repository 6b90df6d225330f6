"""Depth does not depend on settings around the pass: autocast, default dtype and device, transforms."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, jacrev, jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

import dpt
import probes
from dpt.ambient import transformed, usual_defaults
from dpt.demo import layout
from tests.models import OBLONG, TINY, pictures, tiny_model


@pytest.fixture(params=TINY)
def model(request: pytest.FixtureRequest) -> dpt.DPT:
    return TINY[request.param]()


def inputs(model: dpt.DPT, batch: int = 1, seed: int = 0) -> Tensor:
    return pictures(batch, *OBLONG[model.config.family], seed)


def image_for(model: dpt.DPT) -> np.ndarray:
    height, width = OBLONG[model.config.family]
    return np.random.default_rng(0).integers(0, 256, (height + 9, width + 5, 3), np.uint8)


def error(found: Tensor, wanted: Tensor) -> float:
    """Mean error in standard deviations of the wanted depth."""
    return float((found.float() - wanted).abs().mean() / wanted.std())


# Autocast


def test_depth_inside_autocast_is_float32_and_as_exact_as_in_half_precision(model: dpt.DPT):
    x = inputs(model)
    with torch.no_grad():
        wanted = copy.deepcopy(model)(x)
        half = copy.deepcopy(model).bfloat16()(x)
        with torch.autocast("cpu", torch.bfloat16):
            inside = model(x)
    assert inside.dtype == torch.float32
    assert error(inside, wanted) < 3 * error(half, wanted) + 1e-3
    assert len(inside.unique()) > inside.numel() // 3, "bfloat16 has 128 levels per octave"


@pytest.mark.parametrize("inside", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("own", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_any_input_and_model_run_inside_any_autocast(model: dpt.DPT, own: torch.dtype, inside: torch.dtype):
    x = inputs(model)
    with torch.no_grad():
        wanted = copy.deepcopy(model)(x)
        model = model.to(own)
        for given in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
            with torch.autocast("cpu", inside):
                depth = model(x.to(given))
            assert depth.dtype == torch.promote_types(own, torch.float32)
            assert error(depth, wanted) < 0.1


def test_a_half_precision_model_is_the_same_inside_an_autocast_of_the_other_kind(model: dpt.DPT):
    x, model = inputs(model), model.bfloat16()
    with torch.no_grad():
        wanted = model(x)
        with torch.autocast("cpu", torch.float16):
            assert torch.equal(model(x), wanted)


def test_the_head_alone_runs_outside_autocast(model: dpt.DPT):
    with torch.no_grad(), probes.capture(model, "fusion.0") as cap:
        depth = model(inputs(model))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        size = tuple(depth.shape[-2:])
        assert torch.equal(model.head(cap["fusion.0"], size), depth)
        converted = copy.deepcopy(model).bfloat16().head(cap["fusion.0"], size)
    assert converted.dtype == torch.float32


def test_preparing_and_resizing_ignore_autocast(model: dpt.DPT):
    image, depth = image_for(model), torch.rand(1, 20, 30, generator=torch.Generator().manual_seed(0))
    x, large = model.prepare(image), dpt.image.restore(depth, (50, 40), model.config.preprocess)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.prepare(image), x)
        assert torch.equal(dpt.image.restore(depth, (50, 40), model.config.preprocess), large)


def test_training_inside_autocast_reaches_every_weight(model: dpt.DPT):
    model.requires_grad_(True)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(inputs(model)).mean()
    loss.backward()
    lacking = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert lacking == []


# Defaults of dtype and device


@pytest.fixture(params=["float64", "float16", "bfloat16", "meta"])  # "meta" stands in for a GPU
def defaults(request: pytest.FixtureRequest) -> Iterator[Callable[[], None]]:
    def change() -> None:
        if request.param == "meta":
            torch.set_default_device("meta")
        else:
            torch.set_default_dtype(getattr(torch, request.param))

    yield change
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)


def test_other_defaults_change_no_number(model: dpt.DPT, defaults: Callable[[], None]):
    image = image_for(model)

    def everything(model: dpt.DPT) -> list[np.ndarray]:
        with probes.capture(model, "attention", "norms", "tokens") as cap:
            depth = model.predict(image)
        maps = cap["encoder.blocks.1.attention"]
        found = [model.prepare(image).numpy(), depth, maps.rows([3]).numpy(), maps.map((0, 1)).values]
        found += [maps.statistics()["distance"].values, maps.columns([2]).numpy(), maps.matrix().numpy()]
        found += [probes.tokens.norms(cap)[1].values, probes.tokens.pca(cap, 1, 2).values]
        attend = model.encoder.blocks[1].attention.attend
        arguments = (maps.q, maps.k, None) if maps.bias is None else (maps.q, maps.k, None, maps.bias)
        found.append(attend.rows(arguments, maps.grid, torch.tensor([0, 3], device="cpu")).numpy())
        positions = probes.positions(model)
        if isinstance(positions, probes.PositionTable):
            return [*found, positions.table.values]
        return [*found, positions[1].values]

    wanted = everything(copy.deepcopy(model))
    defaults()
    for n, (mine, other) in enumerate(zip(everything(model), wanted, strict=True)):
        assert mine.dtype == other.dtype, n
        np.testing.assert_array_equal(mine, other, err_msg=str(n))


def test_a_checkpoint_is_loaded_as_it_is_whatever_the_defaults_are(defaults: Callable[[], None], tmp_path):
    wanted = tiny_model()
    path = tmp_path / "tiny.safetensors"
    dpt.save(wanted, path)
    defaults()
    model = dpt.load(path)
    assert (model.device.type, model.dtype) == ("cpu", torch.float32)
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), wanted.state_dict().values(), strict=True)
    )


def test_a_scene_is_the_same_whatever_the_defaults_are(defaults: Callable[[], None]):
    wanted = layout.sample([5])
    defaults()
    assert torch.equal(layout.sample([5]).room, wanted.room)


def test_usual_defaults_are_set_and_set_back(defaults: Callable[[], None]):
    defaults()
    before = torch.get_default_dtype(), torch.get_default_device()

    @usual_defaults()
    def made() -> Tensor:
        return torch.ones(2)

    assert (made().dtype, made().device.type) == (torch.float32, "cpu")
    assert (torch.get_default_dtype(), torch.get_default_device()) == before


@pytest.mark.parametrize("setting", ["inference", "grad", "deterministic", "math"])
def test_other_settings_change_no_number_and_leave_nothing_behind(model: dpt.DPT, setting: str):
    x = inputs(model)
    with torch.no_grad():
        wanted = copy.deepcopy(model)(x)
    contexts = {
        "inference": torch.inference_mode,
        "grad": torch.enable_grad,
        "deterministic": torch.enable_grad,
        "math": lambda: sdpa_kernel(SDPBackend.MATH),
    }
    if setting == "deterministic":
        torch.use_deterministic_algorithms(True)
    try:
        with contexts[setting]():
            inside = model(x)
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(inside, wanted) or (setting == "math" and error(inside, wanted) < 1e-4)
    with torch.no_grad():
        assert torch.equal(model(x), wanted)


# Transforms


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("used", [False, True])
def test_a_traced_model_is_the_model_at_that_size(model: dpt.DPT, used: bool):
    x, other = inputs(model), inputs(model, seed=1)
    with torch.no_grad():
        if used:
            model(x)
        traced = torch.jit.trace(model, x, check_trace=False)
        torch.testing.assert_close(traced(other), model(other), rtol=1e-5, atol=1e-5)
        with pytest.raises(RuntimeError):
            traced(torch.nn.functional.interpolate(x, scale_factor=2))


def weights(model: dpt.DPT) -> dict[str, Tensor]:
    return {name: p.clone() for name, p in model.named_parameters()}


def test_derivatives_over_weights_and_input_are_those_of_backward(model: dpt.DPT):
    x, state = inputs(model), weights(model)
    model(x)  # fills the caches
    found = grad(lambda state: functional_call(model, state, (x,)).mean())(state)
    of_input = grad(lambda x: model(x).mean())(x)
    trained = copy.deepcopy(model).requires_grad_(True)
    y = x.clone().requires_grad_(True)
    trained(y).mean().backward()
    for name, p in trained.named_parameters():
        torch.testing.assert_close(found[name], p.grad, rtol=1e-4, atol=1e-6, msg=name)
    torch.testing.assert_close(of_input, y.grad, rtol=1e-3, atol=1e-5)
    with torch.no_grad():
        assert torch.equal(model(x), copy.deepcopy(model)(x)), "nothing of a transform stays"


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_forward_derivatives_agree_with_backward(model: dpt.DPT):
    x = inputs(model)
    direction = inputs(model, seed=1)
    with sdpa_kernel(SDPBackend.MATH):  # torch's fused kernel has no forward derivative
        change = jvp(lambda x: model(x).mean(), (x,), (direction,))[1]
        state = weights(model)
        name = next(name for name in state if "positions" in name)
        tangents = {key: torch.zeros_like(value) for key, value in state.items()}
        tangents[name] = torch.ones_like(state[name])
        of_table = jvp(lambda state: functional_call(model, state, (x,)).mean(), (state,), (tangents,))[1]
    gradients = grad(lambda x: model(x).mean())(x)
    torch.testing.assert_close(change, (gradients * direction).sum(), rtol=1e-3, atol=1e-6)
    gradients = grad(lambda state: functional_call(model, state, (x,)).mean())(state)
    torch.testing.assert_close(of_table, gradients[name].sum(), rtol=1e-3, atol=1e-6)


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_vmap_over_weights_and_inputs_is_a_loop(model: dpt.DPT):
    x, state = inputs(model), weights(model)
    model(x)
    many = {name: torch.stack((value, 1.1 * value)) for name, value in state.items()}
    depths = vmap(lambda state: functional_call(model, state, (x,)))(many)
    for n in range(2):
        with torch.no_grad():
            one = functional_call(model, {name: value[n] for name, value in many.items()}, (x,))
        torch.testing.assert_close(depths[n], one, rtol=1e-3, atol=1e-4)
    two = torch.cat((x, inputs(model, seed=1)))
    torch.testing.assert_close(vmap(lambda one: model(one[None])[0])(two), model(two), rtol=1e-3, atol=1e-4)
    jacobian = jacrev(lambda x: model(x)[:, :1, :2].sum(dim=(0, 1)))(x)
    assert jacobian.shape == (2, *x.shape)
    torch.testing.assert_close(jacobian[1], grad(lambda x: model(x)[0, 0, 1])(x), rtol=1e-3, atol=1e-6)


def test_transforms_are_noticed():
    assert not transformed()
    assert vmap(lambda x: x * transformed())(torch.ones(1)).item() == 1
    with torch._subclasses.FakeTensorMode():
        assert transformed()
    with torch.autograd.forward_ad.dual_level():
        assert transformed()
    assert not transformed()
