"""The table of probe points lists every point, prints folded, and takes users' own modules."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

import probes
from probes.errors import ProbeError
from probes.registry import register, unregister
from tests.models import pictures, tiny_model, tiny_swinv2


def test_the_table_lists_every_point_once_in_forward_order():
    table = probes.names(tiny_model())
    assert len(table) == 1 + 4 * 4 + 4 + 4 + 4 + 1
    assert list(table)[:5] == [
        "patch_embed",
        *(f"encoder.blocks.0.{w}" for w in ("attention", "heads", "tokens", "norms")),
    ]
    assert list(table)[-5:] == ["fusion.3", "fusion.2", "fusion.1", "fusion.0", "depth"]
    assert table["encoder.blocks.3.attention"].label == "(B, 2, 1+N, 1+N)"
    assert table["fusion.0"].label == "(B, 16, 8·rows, 8·cols)"
    text = repr(table)
    assert "encoder.stages.0" in text
    assert "L2 norm of each output token" in text
    assert probes.names(tiny_model(), all=True)._repr_html_().count("<tr>") == len(table) + 1


def lines(table: probes.PointTable) -> list[str]:
    """The first column of the printed table."""
    return [line.split()[0] for line in repr(table).splitlines()][1:]


def test_the_printed_table_folds_equal_blocks_unless_asked_for_all():
    model = tiny_model()
    folded = [f"encoder.blocks.0-3.{w}" for w in ("attention", "heads", "tokens", "norms")]
    assert lines(probes.names(model))[:6] == ["patch_embed", *folded, "encoder.stages.0"]
    assert lines(probes.names(model, all=True)) == list(probes.names(model))
    assert "encoder.blocks.2.norms" in probes.names(model)
    html = probes.names(model)._repr_html_()
    assert html.count("<tr>") == 1 + len(lines(probes.names(model)))
    assert "encoder.blocks.0-3.heads" in html


def test_blocks_of_different_shapes_fold_separately():
    heads = [name for name in lines(probes.names(tiny_swinv2())) if name.endswith(".heads")]
    assert heads == [f"encoder.blocks.{run}.heads" for run in ("0-1", "2-3", "4-5", "6")]


def test_a_registered_module_does_not_break_the_fold():
    model = tiny_model()
    register("encoder.blocks.2.{mine}", model.encoder.blocks[2].mlp)
    found = lines(probes.names(model))
    assert "encoder.blocks.0-3.norms" in found
    assert found[-1] == "encoder.blocks.2.{mine}"


def test_the_table_of_a_metric_model_mentions_metres():
    assert "metres" in probes.names(tiny_model(max_depth=20.0))["depth"].meaning


@pytest.mark.parametrize(
    ("selectors", "expected"),
    [
        (["reassembly"], [f"reassembly.{s}" for s in range(4)]),
        (["fusion.?"], [f"fusion.{s}" for s in (3, 2, 1, 0)]),
        (["depth", "patch_embed", "depth"], ["patch_embed", "depth"]),
        (["encoder.blocks.*.norms"], [f"encoder.blocks.{i}.norms" for i in range(4)]),
        (["norms", "encoder.blocks.0.*"], None),
    ],
)
def test_selectors_are_groups_names_and_globs(selectors, expected):
    model = tiny_model()
    with probes.capture(model, *selectors) as cap:
        model(pictures(1, 28, 28))
    if expected is None:
        expected = [*(f"encoder.blocks.0.{w}" for w in ("attention", "heads", "tokens", "norms")),
                    *(f"encoder.blocks.{i}.norms" for i in (1, 2, 3))]  # fmt: skip
    assert list(cap) == expected


def test_a_users_own_module_becomes_a_point():
    model, other = tiny_model(), tiny_model()
    module = model.encoder.blocks[1].mlp
    register("mlp.1", module, meaning="the MLP of block 1")
    assert "mlp.1" not in probes.names(other)
    point = probes.names(model)["mlp.1"]
    assert (point.group, point.meaning, point.label) == ("own", "the MLP of block 1", "any")
    with probes.capture(model, "mlp.1", "own") as cap:
        model(pictures(1, 28, 28))
    assert cap["mlp.1"].shape == (1, 5, 128)
    unregister(module)
    assert "mlp.1" not in probes.names(model)


def test_registering_does_not_keep_a_model_alive():
    model = tiny_model()
    register("mine", model.encoder.blocks[0].norm1)
    alive = weakref.ref(model.encoder.blocks[0].norm1)
    del model
    gc.collect()
    assert alive() is None


def test_bad_registrations_are_refused():
    model = tiny_model()
    with pytest.raises(ProbeError, match=r"a\*"):
        register("a*", model.head)
    register("depth", model.head)
    with pytest.raises(ProbeError, match=r"two .*'depth'"):
        probes.names(model)


def test_a_registered_module_must_run_once_and_return_one_tensor():
    model = tiny_model()
    register("norm", model.encoder.norm)  # one norm serves all four taps
    with pytest.raises(ProbeError, match=r"norm .*twice"), probes.capture(model, "norm"):
        model(pictures(1, 28, 28))
    register("all_maps", model.reassembly)
    with pytest.raises(ProbeError, match=r"all_maps .*tuple"), probes.capture(model, "all_maps"):
        model(pictures(1, 28, 28))


def test_listing_points_registers_no_hooks():
    model = tiny_model()
    probes.names(model)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.isfinite(model(pictures(1, 28, 28))).all()
