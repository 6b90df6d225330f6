"""A small model of each family, and a batch of pictures that it takes."""

from __future__ import annotations

import pytest
import torch

from dpt import DPT
from tests.models import OBLONG, TINY, pictures


@pytest.fixture(params=TINY)
def family(request) -> str:
    return request.param


@pytest.fixture
def model(family) -> DPT:
    return TINY[family]()


@pytest.fixture
def x(family) -> torch.Tensor:
    return pictures(2, *OBLONG[family])
