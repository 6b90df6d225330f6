"""The keyword arguments of `probes.run` and `repair` are checked before anything is done."""

from __future__ import annotations

import inspect
import re

import pytest

import probes
from probes.errors import InvalidTypeError
from probes.runs.options import (
    REPAIR_DEFAULTS,
    RUN_DEFAULTS,
    ReadOptions,
    RepairOptions,
    ResumeOptions,
    RunOptions,
    StoreOptions,
)
from probes.runs.verify import repair
from tests import runs


def test_an_unknown_option_names_close_matches(tmp_path):
    with pytest.raises(InvalidTypeError, match=r"'keep_image'.*keep_images"):
        runs.capture(tmp_path / "run", keep_image=True)
    with pytest.raises(InvalidTypeError, match=r"'zzz'.*frames.*timeout"):
        repair(tmp_path / "run", runs.model(), "photos", zzz=1)  # type: ignore[call-arg]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("kind", "defaults"), [(RunOptions, RUN_DEFAULTS), (RepairOptions, REPAIR_DEFAULTS)])
def test_every_option_has_a_default_and_an_explanation(kind, defaults):
    assert set(defaults) == set(kind.__annotations__)
    groups = (ReadOptions, StoreOptions, ResumeOptions) if kind is RunOptions else (kind,)
    explained = "\n".join(str(group.__doc__) for group in groups)
    assert [name for name in defaults if not re.search(rf"^ +{name}: ", explained, re.MULTILINE)] == []


def test_the_signature_names_the_options():
    signature = inspect.signature(probes.run)
    assert list(signature.parameters) == ["model", "images", "out", "selectors", "options"]
