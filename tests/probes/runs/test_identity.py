"""A function that edits is identified by its source text; what is not in the text does not count, as documented."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from probes.runs.identity import source_sha256


def doubled(x):
    return x * 2


class Tripled:
    def forward(self, x):
        return x * 3


class InAClass:
    def doubled(self, x):
        return x * 2


def scaled_by(factor):
    return lambda x: x * factor


def with_default(factor=2):
    return lambda x, by=factor: x * by


def test_a_function_keeps_its_digest():
    assert source_sha256(doubled) == source_sha256(doubled)
    assert len(source_sha256(doubled)) == 64


def test_indentation_does_not_count():
    def doubled(x):
        return x * 2

    assert source_sha256(doubled) == source_sha256(globals()["doubled"])


def test_other_text_is_another_function():
    def doubled(x):
        return x * 3

    assert source_sha256(doubled) != source_sha256(globals()["doubled"])


def test_comments_count():
    def doubled(x):
        return x * 2  # twice

    assert source_sha256(doubled) != source_sha256(globals()["doubled"])


@pytest.mark.parametrize("pair", [(scaled_by(2), scaled_by(3)), (with_default(2), with_default(3))])
def test_closures_and_defaults_computed_elsewhere_do_not_count(pair):
    one, other = pair
    assert one(torch.ones(1)) != other(torch.ones(1))
    assert source_sha256(one) == source_sha256(other)


def test_methods_have_source():
    assert source_sha256(Tripled().forward) is not None
    assert source_sha256(Tripled().forward) != source_sha256(InAClass().doubled)


@pytest.mark.parametrize(
    "function", [torch.relu, functools.partial(torch.mul, other=2), nn.ReLU(), eval("lambda x: x")]
)
def test_what_has_no_source_has_no_digest(function):
    assert source_sha256(function) is None
