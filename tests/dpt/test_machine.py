"""dtype="auto" chooses the machine's fast dtype, and the code path for that dtype computes the same attention."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import dpt
from dpt import attention, machine
from dpt.attention import Attend, by_rows
from tests.models import OBLONG, TINY, pictures


def tensors(batch: int, heads: int, tokens: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """q, k, v as views of one tensor, as blocks make them. The keys have a mean that shifts whole rows of logits."""
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(batch, tokens, 3, heads, 32, generator=generator)
    qkv[:, :, 1] += 3 * torch.randn(heads, 32, generator=generator)
    q, k, v = qkv.to(dtype).permute(2, 0, 3, 1, 4)
    return q, k, v


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("batch", "heads", "tokens"), [(1, 2, 700), (3, 6, 65), (2, 5, 1031)])
def test_attention_by_rows_is_attention(batch: int, heads: int, tokens: int, masked: bool):
    q, k, v = tensors(batch, heads, tokens, torch.float64)
    mask = torch.randn(1, heads, tokens, tokens, dtype=torch.float64) if masked else None
    found = by_rows(q, k, v, mask, scale=0.2)
    torch.testing.assert_close(found, F.scaled_dot_product_attention(q, k, v, mask, scale=0.2))
    assert found.transpose(1, 2).is_contiguous(), "the projection needs no copy"


def test_attention_by_rows_rounds_about_as_well_as_the_fused_kernel():
    q, k, v = tensors(1, 4, 900, torch.float64)
    exact = F.scaled_dot_product_attention(q, k, v, scale=0.2)
    q, k, v = tensors(1, 4, 900, torch.bfloat16)
    fused = F.scaled_dot_product_attention(q, k, v, scale=0.2)
    rows = by_rows(q, k, v, None, 0.2)
    errors = [float((one.double() - exact).std() / exact.std()) for one in (fused, rows)]
    assert errors[1] < 2 * errors[0]  # measured: 1.5
    shifted = by_rows(q, k + 8, v, None, 0.2)  # a constant added to all keys changes no weight
    assert float((shifted.double() - exact).std() / exact.std()) < 4 * errors[0], "the mean key is subtracted first"


@pytest.mark.parametrize("family", ["depth-anything", "beit"])
def test_bfloat16_models_compute_by_rows_on_processors_without_tiles(family: str, monkeypatch: pytest.MonkeyPatch):
    calls: list[tuple] = []

    def spy(*arguments: object) -> torch.Tensor:
        calls.append(arguments)
        return by_rows(*arguments)

    monkeypatch.setattr(attention, "by_rows", spy)
    monkeypatch.setattr(attention, "ROWS_FROM", 20)
    side = {"depth-anything": 70, "beit": 80}[family]
    model, x = TINY[family](), pictures(2, 70, 70)
    x = F.interpolate(x, (side, side))
    single = model(x)
    half = TINY[family]().bfloat16()
    depths = {}
    for without_tiles in (True, False):
        monkeypatch.setattr(machine, "BFLOAT16_WITHOUT_TILES", without_tiles)
        depths[without_tiles] = half(x.bfloat16())
        assert len(calls) == (4 if without_tiles else 0)
        calls.clear()
        error = float((depths[without_tiles] - single).square().mean().sqrt() / single.std())
        assert error < 0.15
    monkeypatch.setattr(machine, "BFLOAT16_WITHOUT_TILES", True)
    model(x)
    assert calls == [], "float32 uses the fused kernel"


@pytest.mark.parametrize("shape", [(1, 1, 600, 600), (2, 4, 600, 600), (600, 600)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.bool])
def test_every_mask_of_the_fused_kernel_is_accepted(shape, dtype, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "BFLOAT16_WITHOUT_TILES", True)
    q, k, v = tensors(2, 4, 600, torch.bfloat16)
    mask = (
        torch.randn(shape, generator=torch.Generator().manual_seed(1)) > -1
        if dtype == torch.bool
        else torch.zeros(shape, dtype=dtype)
    )
    wanted = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.2)
    torch.testing.assert_close(Attend(0.2)(q, k, v, mask), wanted)


def test_gradients_go_through_the_fused_kernel(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "BFLOAT16_WITHOUT_TILES", True)
    q, k, v = (t.clone().requires_grad_() for t in tensors(1, 2, 600, torch.bfloat16))
    Attend(0.2)(q, k, v).sum().backward()
    assert v.grad is not None
    assert float(v.grad.float().sum()) == pytest.approx(2 * 600 * 32, rel=0.02)


@pytest.mark.parametrize(
    ("tiles", "products", "wanted"),
    [(True, True, torch.bfloat16), (False, True, torch.bfloat16), (False, False, torch.float32)],
)
def test_auto_is_bfloat16_if_the_processor_multiplies_it(tiles, products, wanted, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "TILES", tiles)
    monkeypatch.setattr(machine, "DOT_PRODUCTS", products)
    model = dpt.load("demo", dtype="auto")
    assert {p.dtype for p in model.parameters()} == {wanted}
    assert machine.fast_dtype("mps") == torch.float32


@pytest.mark.parametrize(
    ("capability", "wanted"), [((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16), ((7, 5), torch.float16)]
)
def test_auto_on_a_gpu_depends_on_its_compute_capability(capability, wanted, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert machine.fast_dtype("cuda") == wanted


@pytest.mark.parametrize("dtype", ["bf16", "float32", 16])
def test_other_values_of_dtype_are_refused(dtype):
    with pytest.raises(TypeError, match=rf"[ =]{dtype!r}"):
        dpt.load("demo", dtype=dtype)


def test_the_demo_model_in_bfloat16_is_as_good():
    """tests/benchmarks/RESULTS.md has numbers for more images."""
    from dpt.demo import sample

    image, _ = sample("table")
    single, half = (dpt.load("demo", dtype=dtype).predict(image) for dtype in (torch.float32, torch.bfloat16))
    assert half.dtype == np.float32
    assert np.abs(half - single).max() < 0.15 * single.std()  # measured: 0.04
    assert len(np.unique(half)) > 0.5 * half.size, "no terraces"


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("family", TINY)
def test_channels_are_adjacent_in_memory_from_reassembly_to_head(family: str, batch: int):
    """Otherwise convolutions and resizing are slower on the CPU. A batch of one can lose this order unnoticed."""
    model = TINY[family]()
    seen: list[torch.Tensor] = []
    for module in (*model.reassembly.to_fusion, *model.fusion.blocks, model.head.conv2):
        module.register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.no_grad():
        model(torch.zeros(batch, 3, *OBLONG[family]))
    assert len(seen) == 9
    assert all(t.is_contiguous(memory_format=torch.channels_last) for t in seen)
    assert not any(t.is_contiguous() for t in seen if min(t.shape[2:]) > 1)
