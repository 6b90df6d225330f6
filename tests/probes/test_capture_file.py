"""Saved captures: damage is noticed, and what a file claims is compared with what it holds."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import safetensors
import torch
from safetensors.torch import save_file

import probes
from probes.errors import ProbeError
from tests.models import OBLONG, TINY, pictures, tiny_model

FIRST = "dpt-workbench capture 1"


@pytest.fixture
def path(tmp_path):
    model = tiny_model()
    with (
        probes.edit(model, {"fusion.2": probes.replace(torch.ones(1))}),
        probes.capture(model, "norms", "encoder.blocks.3.attention") as cap,
    ):
        model(pictures(1, 42, 70))
    cap.save(tmp_path / "capture.safetensors")
    return tmp_path / "capture.safetensors"


def contents(path):
    with safetensors.safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
        return json.loads(file.metadata()["capture"]), tensors


def values(cap):
    return {n: (v.q, v.k) if isinstance(v, probes.AttentionMaps) else (v,) for n, v in cap.items()}


def test_a_flipped_bit_anywhere_is_refused_or_harmless(path):
    whole, expected = path.read_bytes(), values(probes.load(path))
    rng = np.random.default_rng(0)
    for place in [*rng.integers(len(whole), size=100), *rng.integers(3000, size=100)]:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        try:
            found = values(probes.load(path))
        except ProbeError:
            continue
        assert found.keys() == expected.keys()
        assert all(torch.equal(a, b) for n in expected for a, b in zip(found[n], expected[n], strict=True))


@pytest.mark.parametrize("family", TINY)
def test_files_without_checksums_still_open(family, tmp_path):
    model, path = TINY[family](), tmp_path / "old.safetensors"
    with probes.capture(model, "*") as cap:
        model(pictures(2, *OBLONG[family]))
    cap.save(path)
    about, tensors = contents(path)
    del about["sha256"]
    save_file(tensors, path, {"format": FIRST, "capture": json.dumps(about)})
    again = probes.load(path)
    assert list(again) == list(cap)
    for name, parts in values(cap).items():
        assert all(torch.equal(a, b) for a, b in zip(parts, values(again)[name], strict=True))


ATTENTION, NORMS = "encoder.blocks.3.attention", "encoder.blocks.3.norms"
WRONG = {
    "grid": lambda about, tensors: about["grid"].update(rows=1000, cols=1000),
    "turned": lambda about, tensors: about["points"][ATTENTION]["grid"].update(rows=5, cols=3),
    "scale": lambda about, tensors: about["points"][ATTENTION].update(scale=float("nan")),
    "batch": lambda about, tensors: about.update(batch=10**9),
    "kind": lambda about, tensors: about["points"][NORMS].update(kind="other"),
    "integers": lambda about, tensors: tensors.update({f"{ATTENTION}/q": tensors[f"{ATTENTION}/q"].int()}),
    "short": lambda about, tensors: tensors.update({NORMS: torch.zeros(1, 3)}),
    "no width": lambda about, tensors: tensors.update(
        {f"{ATTENTION}/{part}": torch.zeros(1, 2, 16, 0) for part in "qk"}
    ),
    "edit": lambda about, tensors: about.update(edits=[["fusion.2", {"action": "other", "where": {}}]]),
    "size": lambda about, tensors: about.update(input_size=[70, 42]),
    "name": lambda about, tensors: about["points"].update({"\x1b[2J": about["points"][NORMS]}),
}


@pytest.mark.parametrize("change", WRONG)
def test_a_file_that_contradicts_itself_is_refused(path, change):
    about, tensors = contents(path)
    del about["sha256"]
    save_file(tensors, path, {"format": FIRST, "capture": json.dumps(about)})
    assert probes.load(path).grid.rows == 3  # the control
    WRONG[change](about, tensors)
    save_file(tensors, path, {"format": FIRST, "capture": json.dumps(about)})
    with pytest.raises(ProbeError, match=r"capture\.safetensors is damaged"):
        probes.load(path)


def test_a_pipe_and_a_link_to_a_device_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(ProbeError, match=name):
            probes.load(tmp_path / name)
