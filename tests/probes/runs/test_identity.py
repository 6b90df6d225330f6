"""Functions that do the same are told to be the same, and others are told apart, whatever they are called."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from probes.runs.identity import sha256


def made(source: str, **names: object) -> Callable:
    """A function `f` as a cell of a notebook would define it."""
    namespace = {"torch": torch, "np": np, **names}
    exec(compile(source, "<cell>", "exec"), namespace)
    return namespace["f"]  # type: ignore[return-value]


def closed(value: object) -> Callable:
    return lambda x: (x, value)


def defaulted(value: object) -> Callable:
    def f(x, by=value, *, of=value):
        return x, by, of

    return f


class Called:
    def __init__(self, factor: float):
        self.factor = factor

    def __call__(self, x):
        return x * self.factor

    def method(self, x):
        return x + self.factor


def itself() -> Callable:
    def f(x):
        return f(x)

    return f


def holding_itself() -> Callable:
    held: list = []
    held.append(held)
    return lambda x: (x, held)


SAME = {
    "formatting": lambda: (made("f = lambda x: x * 2"), made("# a comment\n\nf = lambda x: (x *\n  2)")),
    "closure": lambda: (closed(3), closed(3)),
    "closed-over tensor": lambda: (closed(torch.ones(3)), closed(torch.ones(3))),
    "closed-over slice of a tensor": lambda: (closed(torch.ones(3)), closed(torch.ones(6)[::2])),
    "set": lambda: (closed({"a", "b", "c"}), closed({"c", "b", "a"})),
    "global": lambda: (made("f = lambda x: x * k", k=2), made("f = lambda x: x * k", k=2)),
    "a global that is not read": lambda: (made("f = lambda x: x.k", k=2), made("f = lambda x: x.k", k=3)),
    "module": lambda: (made("f = lambda x: torch.relu(x)"), made("f = lambda x: torch.relu(x)")),
    "layer": lambda: (torch.manual_seed(0) and nn.Linear(2, 2), torch.manual_seed(0) and nn.Linear(2, 2)),
    "object": lambda: (Called(2), Called(2)),
    "calls itself": lambda: (itself(), itself()),
    "holds itself": lambda: (holding_itself(), holding_itself()),
    "built in": lambda: (torch.relu, torch.relu),
    "of a package": lambda: (nn.functional.softmax, nn.functional.softmax),
}
OTHER = {
    "constant": lambda: (made("f = lambda x: x * 2"), made("f = lambda x: x * 3")),
    "operation": lambda: (made("f = lambda x: x * 2"), made("f = lambda x: x + 2")),
    "name": lambda: (made("f = lambda x: x.sin()"), made("f = lambda x: x.cos()")),
    "number or text": lambda: (closed(1), closed("1")),
    "whole or not": lambda: (closed(1), closed(1.0)),
    "closure": lambda: (closed(3), closed(4)),
    "closed-over tensor": lambda: (closed(torch.ones(3)), closed(torch.ones(3) * 2)),
    "closed-over type of number": lambda: (closed(torch.zeros(3)), closed(torch.zeros(3, dtype=torch.int32))),
    "closed-over shape": lambda: (closed(torch.zeros(3)), closed(torch.zeros(3, 1))),
    "closed-over array": lambda: (closed(np.ones(3)), closed(np.zeros(3))),
    "nested collection": lambda: (closed([1, {"a": (2,)}]), closed([1, {"a": (3,)}])),
    "defaults": lambda: (defaulted(1), defaulted(2)),
    "global": lambda: (made("f = lambda x: x * k", k=2), made("f = lambda x: x * k", k=3)),
    "function inside": lambda: (
        made("def f(x):\n def g(y): return y * 2\n return g(x)"),
        made("def f(x):\n def g(y): return y * 3\n return g(x)"),
    ),
    "function of the module": lambda: (
        made("def g(x): return x * 2\ndef f(x): return g(x)"),
        made("def g(x): return x * 3\ndef f(x): return g(x)"),
    ),
    "global of a function inside": lambda: (
        made("f = lambda x: (lambda y: y * k)(x)", k=2),
        made("f = lambda x: (lambda y: y * k)(x)", k=3),
    ),
    "partial": lambda: (functools.partial(torch.mul, other=2), functools.partial(torch.mul, other=3)),
    "layer": lambda: (torch.manual_seed(0) and nn.Linear(2, 2), torch.manual_seed(1) and nn.Linear(2, 2)),
    "kind of layer": lambda: (nn.ReLU(), nn.GELU()),
    "object": lambda: (Called(2), Called(3)),
    "method": lambda: (Called(2).method, Called(3).method),
    "built in": lambda: (torch.relu, torch.sigmoid),
    "of a package": lambda: (nn.functional.softmax, nn.functional.log_softmax),
}


@pytest.mark.parametrize("what", SAME)
def test_the_same(what):
    one, other = SAME[what]()
    assert sha256(one) == sha256(other)


@pytest.mark.parametrize("what", OTHER)
def test_told_apart(what):
    one, other = OTHER[what]()
    assert sha256(one) != sha256(other)
