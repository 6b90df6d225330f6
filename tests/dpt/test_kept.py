"""Cached results are those of the parameters as they are, however these were changed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

import dpt
from dpt.kept import Checksums, KeptPerGrid, same_bits
from tests.models import OBLONG, TINY, pictures


@pytest.fixture(params=TINY)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


def inputs(family: str) -> Tensor:
    return pictures(1, *OBLONG[family])


def fresh_depth(model: dpt.DPT, x: Tensor) -> Tensor:
    """The depth of a model with the same weights and no caches."""
    with torch.no_grad():
        return copy.deepcopy(model)(x)


def moving_average(model: dpt.DPT, other: dpt.DPT) -> None:
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        mine.data.mul_(0.5).add_(theirs.data, alpha=0.5)


def through_numpy(model: dpt.DPT, other: dpt.DPT) -> None:
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        mine.detach().numpy()[...] = theirs.detach().numpy()


def assigned(model: dpt.DPT, other: dpt.DPT) -> None:
    model.load_state_dict(other.state_dict(), assign=True)


def data_replaced(model: dpt.DPT, other: dpt.DPT) -> None:
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        mine.data = theirs.data


def one_element(model: dpt.DPT, other: dpt.DPT) -> None:
    for name, mine in model.named_parameters():
        if "positions" in name:
            mine.data.view(-1)[mine.numel() // 2] += 1


def exchanged(model: dpt.DPT, other: dpt.DPT) -> None:
    for name, mine in model.named_parameters():
        if "positions" in name and mine.ndim > 1:
            mine.data.copy_(mine.data.flip(0, -1))


CHANGES = (moving_average, through_numpy, assigned, data_replaced, one_element, exchanged)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_depth_after_a_change_is_that_of_a_fresh_model(family: str, change: Callable[[dpt.DPT, dpt.DPT], None]):
    model, x = TINY[family](), inputs(family)
    with torch.no_grad():
        before = model(x)
        change(model, TINY[family](seed=1))
        after = model(x)
    assert torch.equal(after, fresh_depth(model, x))
    assert not torch.equal(after, before)


def test_a_functional_call_leaves_nothing_behind(family: str):
    model, other, x = TINY[family](), TINY[family](seed=1), inputs(family)
    with torch.no_grad():
        before = model(x)
        for _ in range(3):  # freed copies of the weights return to the same addresses
            state = {name: tensor.clone() for name, tensor in other.state_dict().items()}
            assert torch.equal(functional_call(model, state, (x,)), other(x))
            del state
            assert torch.equal(model(x), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_pass_inside_autocast_leaves_nothing_behind(family: str, dtype: torch.dtype):
    model, x = TINY[family](), inputs(family)
    with torch.no_grad():
        with torch.autocast("cpu", dtype):
            inside = model(x)
            assert torch.equal(model(x), inside)
        assert torch.equal(model(x), fresh_depth(model, x))
        with torch.autocast("cpu", dtype):
            assert torch.equal(model(x), inside), "a pass outside does not change passes inside"


def test_swinv2s_bias_follows_a_network_that_was_wrapped_or_switched():
    model, x = TINY["swinv2"](), inputs("swinv2")
    switched = [block.attention.positions for block in model.encoder.blocks]

    class Adapter(nn.Module):
        """An adapter with a setting that no tensor shows."""

        def __init__(self, base: nn.Linear):
            super().__init__()
            self.base_layer, self.factor = base, 0.0

        def forward(self, x: Tensor) -> Tensor:
            return self.base_layer(x) * (1 + self.factor)

    with torch.no_grad():
        before = model(x)
        for positions in switched:
            positions.fc2 = Adapter(positions.fc2)
        assert torch.equal(model(x), before)
        for positions in switched:
            positions.fc2.factor = 0.5
        assert not torch.equal(model(x), before)
        for positions in switched:
            positions.fc2.factor = 0.0
        assert torch.equal(model(x), before)


@pytest.fixture
def table() -> Tensor:
    return torch.arange(6.0).view(2, 3)


@pytest.fixture
def cache() -> KeptPerGrid[Tensor]:
    return KeptPerGrid(2)


def results(cache: KeptPerGrid[Tensor], table: Tensor) -> Iterator[Tensor]:
    while True:
        yield cache((table,), "grid", lambda: 2 * table)


def test_equal_bits_are_cached_and_any_other_bit_is_not(cache: KeptPerGrid[Tensor], table: Tensor):
    result = results(cache, table)
    first = next(result)
    assert next(result) is first
    table.mul_(1)  # raises the version only
    assert next(result) is first
    table.data[0, 0] = -0.0
    assert torch.signbit(next(result)[0, 0])
    table.data[0, 0] = float("nan")
    assert next(result)[0, 0].isnan()
    assert next(result) is next(result), "NaN equals itself bit by bit"
    moved = table.clone()
    assert cache((moved,), "grid", lambda: 3 * moved) is next(result), "equal values at another address"


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_nothing_is_cached_while_values_cannot_be_read(cache: KeptPerGrid[Tensor], table: Tensor):
    torch.func.vmap(lambda t: cache((t,), "grid", lambda: 2 * t))(table)
    torch.func.grad(lambda t: cache((t,), "grid", lambda: 2 * t).sum())(table)
    torch.func.jvp(lambda t: cache((t,), "grid", lambda: 2 * t), (table,), (table,))
    # Inside a transform, results are wrapped even where no argument is.
    torch.func.grad(lambda t: (t + cache((table,), "grid", lambda: 2 * table)).sum())(table)
    with torch.autograd.forward_ad.dual_level():
        cache((torch.autograd.forward_ad.make_dual(table, table),), "grid", lambda: table)
    torch.jit.trace(lambda t: t + cache((table,), "grid", lambda: 2 * table), (table,), check_trace=False)
    with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True):
        cache((), "grid", lambda: torch.ones(2))
    trained = table.clone().requires_grad_(True)
    assert cache((trained,), "grid", lambda: 2 * trained).requires_grad
    cache((torch.empty(2, device="meta"),), "grid", lambda: torch.empty(2, device="meta"))
    assert len(cache) == 0


def test_results_are_computed_outside_autocast_also_where_they_are_not_cached(cache: KeptPerGrid[Tensor]):
    square = torch.ones(4, 4)
    trained = square.clone().requires_grad_(True)
    with torch.autocast("cpu", torch.bfloat16):
        assert cache((square,), "grid", lambda: square @ square).dtype == torch.float32
        assert cache((trained,), "grid", lambda: trained @ trained).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.uint8])
def test_checksums_notice_every_change(dtype: torch.dtype):
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randint(0, 200, shape, generator=generator).to(dtype) for shape in ((70, 90), (3,), (), (0, 4))]
    known = Checksums(tensors)
    assert known.same([t.clone() for t in tensors])
    assert known.same([torch.cat((t.view(-1)[:1], t.view(-1)))[1:].view(t.shape) for t in tensors]), "at any alignment"
    big = tensors[0]
    for n, change in enumerate(
        (
            lambda: big[69, 89].add_(1),
            lambda: tensors[1].data[0].add_(1),
            lambda: tensors[2].add_(1),
            lambda: big.copy_(big.flip(0)),
            lambda: big.copy_(big.roll(1, 1)),
        )
    ):
        before = Checksums(tensors)
        change()
        assert not before.same(tensors), n
    assert not known.same([*tensors[:3], tensors[3].view(4, 0)])
    assert not known.same(tensors[:3])
    assert not Checksums([torch.empty(2, device="meta")]).same([torch.empty(2, device="meta")]), "nothing to read"


def test_bits_of_other_dtypes_are_not_equal():
    assert same_bits([torch.zeros(2)], [torch.zeros(2)])
    assert not same_bits([torch.zeros(2)], [torch.zeros(2, dtype=torch.int32)])
    assert not same_bits([torch.zeros(2)], [])
