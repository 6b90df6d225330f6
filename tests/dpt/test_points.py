"""Probe points are declared once: names, selectors, captures, edits and exports read the same declaration."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import dpt
import probes
from dpt import points as declared
from dpt.export.outputs import available, chosen, read
from dpt.points import Axis, Point, close_matches, group_of, points, select, suggestion
from probes.errors import UnknownPointError
from tests.models import TINY, pictures, tiny_model


def hidden(model: dpt.DPT) -> Iterator[Point]:
    """A toy point: what the first layer of each MLP returns, before the activation."""
    for i, block in enumerate(model.encoder.blocks):
        channels = Axis("channel", "4C", lambda batch, grid: 4 * model.config.width)
        axes = (declared.BATCH, Axis("token", "1+N", lambda batch, grid: grid.tokens), channels)
        name = f"encoder.blocks.{i}.hidden"
        yield Point(name, "hidden", "a toy", block.mlp.fc1, lambda args, output, grid: output, axes)


def test_a_point_that_is_declared_once_reaches_every_consumer(monkeypatch):
    monkeypatch.setattr(declared, "SECTIONS", (*declared.SECTIONS, hidden))
    model, x = tiny_model(), pictures(1, 28, 42)
    name = "encoder.blocks.1.hidden"
    assert name in probes.names(model)
    with torch.no_grad(), probes.capture(model, "hidden", "depth") as cap:
        model(x)
    assert [n for n in cap if n != "depth"] == [f"encoder.blocks.{i}.hidden" for i in range(4)]
    point = probes.names(model)[name]
    assert cap[name].shape == point.shape(1, model.grid_of(x)) == (1, 7, 512)
    with torch.no_grad(), probes.edit(model, {name: probes.zero(channels=[3])}), probes.capture(model, name) as edited:
        model(x)
    assert (edited[name][..., 3] == 0).all()
    assert not (edited[name] == 0).all()
    assert name in [output.name for output in available(model)]
    with torch.no_grad():
        depth, value = read(model, chosen(model, ["*.1.hidden"]), lambda: model(x), model.grid_of(x), None)
    assert torch.equal(depth, cap["depth"])
    assert torch.equal(value, cap[name])


@pytest.mark.parametrize("family", TINY)
def test_shapes_are_as_declared(family):
    model = TINY[family]()
    x = pictures(2, 2 * model.config.multiple, 3 * model.config.multiple)
    with torch.no_grad(), probes.capture(model, "*") as cap:
        model(x)
    for point in points(model):
        assert point.axes is not None
        value = cap[point.name]
        shape = (2, value.heads, value.tokens, value.tokens) if point.rows else tuple(value.shape)
        assert shape == point.shape(2, model.grid_of(x)), point.name
        assert len(point.axis_names) == len(shape) - 1


@pytest.mark.parametrize("family", TINY)
def test_the_group_can_be_read_off_every_declared_name(family):
    assert all(group_of(point.name) == point.group for point in points(TINY[family]()))
    assert group_of("encoder.blocks.11.attention.entropy") == "attention.entropy"
    for own in ("mine", "mlp.1", "encoder.blocks.1.mlp", "encoder.blocks.1", "fusion.4", "fusion"):
        assert group_of(own) == "own"


@pytest.mark.parametrize("family", TINY)
def test_a_point_that_cannot_be_edited_names_one_that_can(family):
    table = {point.name: point for point in points(TINY[family]())}
    fixed = [point for point in table.values() if point.write is None]
    assert {point.group for point in fixed} == {"attention", "norms"}
    assert all(table[point.instead].write is not None and point.why for point in fixed)


# Selectors

NAMES = ["encoder.blocks.1.norms", "encoder.blocks.12.norms", "fusion.1", "fusion.0", "Fusion.9", "a[12]", "depth"]
GROUPS = {name: group_of(name) for name in NAMES}


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("norms", NAMES[:2]),
        ("fusion", ["fusion.1", "fusion.0"]),
        ("fusion.0", ["fusion.0"]),
        ("fusion.*", ["fusion.1", "fusion.0"]),
        ("FUSION.*", []),
        ("Fusion.?", ["Fusion.9"]),
        ("a[12]", ["a[12]"]),
        ("a[1*", ["a[12]"]),
        ("encoder.blocks.[12].norms", []),
        ("*", NAMES),
        ("norm", []),
    ],
)
def test_a_selector_is_a_name_a_group_or_a_glob_whose_case_and_brackets_count(selector, expected):
    assert select(NAMES, GROUPS, selector) == expected


def test_case_counts_on_systems_that_fold_it_in_file_names(monkeypatch):
    monkeypatch.setattr("os.path.normcase", str.lower)  # as on Windows
    assert select(NAMES, GROUPS, "F*") == ["Fusion.9"]


def test_close_matches_are_groups_and_names():
    assert close_matches(NAMES, GROUPS, "norm")[0] == "norms"
    assert "'fusion.1'" in suggestion(NAMES, GROUPS, "fusion.11")
    assert "norms, fusion" in suggestion(NAMES, GROUPS, "xyzzy")


def test_unknown_selectors_are_errors_of_their_own_kind():
    model = tiny_model()
    with pytest.raises(UnknownPointError, match="'norms'"), probes.capture(model, "norm"):
        raise AssertionError("unreachable")
    with pytest.raises(UnknownPointError, match=r"'fusion\.4'"):
        probes.capture(model, "norms", stop_after="fusion.4").__enter__()
    with pytest.raises(dpt.ExportError, match="'norms'"):
        chosen(model, ["norm"])
    assert issubclass(dpt.ExportError, dpt.DPTError)
