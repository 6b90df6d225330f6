"""Which values count as a number, as what they are returned, and what is refused."""

from __future__ import annotations

import enum
import json
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

import dpt.errors
import probes
import probes.scalars
from dpt import scalars


class Size(enum.IntEnum):
    SMALL = 3


WHOLE = [
    3,
    Size.SMALL,
    np.int8(3),
    np.int64(3),
    np.uint64(3),
    np.array(3),
    np.array(3, ">i4"),
    torch.tensor(3),
    torch.tensor(3, dtype=torch.uint8),
]
REAL = [
    0.5,
    np.float16(0.5),
    np.float32(0.5),
    np.float64(0.5),
    np.longdouble(0.5),
    np.array(0.5),
    torch.tensor(0.5),
    torch.tensor(0.5, dtype=torch.bfloat16),
    torch.tensor(0.5, requires_grad=True),
    Fraction(1, 2),
]
NOT_NUMBERS = [
    None,
    True,
    np.True_,
    np.array(True),
    torch.tensor(True),
    "3",
    b"3",
    3j,
    np.complex64(3),
    np.datetime64("2026-01-01"),
    np.timedelta64(3),
    np.ma.masked,
    np.array("3"),
    np.array(3, object),
    np.array([3]),
    torch.tensor([3]),
    torch.empty((), device="meta"),
    [3],
    Decimal(3),
    pytest.param(object(), id="object"),
]


@pytest.mark.parametrize("value", WHOLE, ids=repr)
def test_whole_numbers_become_plain_ints(value: object):
    number = scalars.whole(value, "size", least=3, most=3)
    assert type(number) is int
    assert number == 3
    assert json.dumps(number) == "3"
    assert scalars.is_whole(value)
    assert type(scalars.real(value, "size")) is float


@pytest.mark.parametrize("value", REAL, ids=repr)
def test_real_numbers_become_plain_floats(value: object):
    number = scalars.real(value, "factor", least=0.5, most=0.5)
    assert type(number) is float
    assert number == 0.5
    assert scalars.is_real(value)
    assert not scalars.is_whole(value)
    with pytest.raises(dpt.errors.InvalidValueError, match=r"factor.*whole number.*0\.5|1, 2"):
        scalars.whole(value, "factor")


@pytest.mark.parametrize("value", NOT_NUMBERS, ids=repr)
def test_other_values_are_refused_by_name(value: object):
    assert not scalars.is_whole(value)
    assert not scalars.is_real(value)
    for check in (scalars.whole, scalars.real):
        with pytest.raises(dpt.errors.InvalidTypeError, match=r"^size must be .* number"):
            check(value, "size")


def test_numbers_out_of_range_are_refused_with_the_range():
    with pytest.raises(dpt.errors.InvalidValueError, match=r"batch.* >= 1, got 0"):
        scalars.whole(0, "batch", least=1)
    with pytest.raises(dpt.errors.InvalidValueError, match=r"rate.* from 1 to 100, got .*101"):
        scalars.whole(np.int64(101), "rate", least=1, most=100)
    with pytest.raises(dpt.errors.InvalidValueError, match=r"timeout.* > 0, got 0\.0"):
        scalars.real(0.0, "timeout", above=0)
    with pytest.raises(dpt.errors.InvalidValueError, match=r"size.* whole number.* got 3.0"):
        scalars.whole(3.0, "size")
    with pytest.raises(dpt.errors.InvalidValueError, match=r"factor.* finite"):
        scalars.real(10**400, "factor")


@pytest.mark.parametrize("value", [float("nan"), np.float32("nan"), torch.tensor(float("nan")), float("inf")], ids=repr)
def test_nan_and_infinity_are_refused_unless_wanted(value: object):
    with pytest.raises(dpt.errors.InvalidValueError, match="finite"):
        scalars.real(value, "factor")
    assert not np.isfinite(scalars.real(value, "factor", finite=False))


def test_nan_lies_in_no_range():
    with pytest.raises(dpt.errors.InvalidValueError, match="nan"):
        scalars.real(float("nan"), "factor", above=0, finite=False)
    with pytest.raises(dpt.errors.InvalidValueError, match="nan"):
        scalars.real(float("nan"), "factor", least=0, finite=False)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2, (2,)),
        (np.int64(2), (2,)),
        (torch.tensor(2), (2,)),
        ([np.int64(4), 0], (4, 0)),
        (range(2), (0, 1)),
        (np.argsort([0.3, 0.1, 0.2])[:2], (1, 2)),
        (torch.tensor([0.3, 0.1, 0.2]).topk(2).indices, (0, 2)),
        ([], ()),
    ],
    ids=repr,
)
def test_several_whole_numbers_become_a_tuple_of_ints(value: object, expected: tuple[int, ...]):
    numbers = scalars.wholes(value, "heads", least=0)
    assert numbers == expected
    assert {type(number) for number in numbers} <= {int}


@pytest.mark.parametrize(
    "value",
    [
        np.array([True, False]),
        torch.tensor([True, False]),
        [True, False],
        np.array(True),
        "01",
        [[0, 1]],
        np.eye(2, dtype=int),
    ],
    ids=repr,
)
def test_masks_strings_and_tables_are_not_indices(value: object):
    with pytest.raises(dpt.errors.InvalidTypeError, match="heads"):
        scalars.wholes(value, "heads")


def test_probes_raises_its_own_errors():
    assert probes.scalars.whole(np.int64(3), "part", least=1) == 3
    assert probes.scalars.wholes(np.array([3, 5]), "tokens") == (3, 5)
    assert probes.scalars.real(np.float32(0.5), "factor") == 0.5
    with pytest.raises(probes.ProbeError, match=r"part.*>= 1.*'3'") as wrong_type:
        probes.scalars.whole("3", "part", least=1)
    assert isinstance(wrong_type.value, TypeError)
    with pytest.raises(probes.ProbeError, match=r"factor.*nan") as wrong_value:
        probes.scalars.real(float("nan"), "factor")
    assert isinstance(wrong_value.value, ValueError)
    assert not isinstance(wrong_value.value, dpt.DPTError)


def test_what_was_given_is_shown_on_one_printable_line():
    with pytest.raises(dpt.errors.InvalidTypeError) as error:
        scalars.whole(np.zeros((30, 30)), "size")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 200
