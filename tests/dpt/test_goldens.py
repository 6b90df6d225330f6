"""Every stored tensor of the original implementations is reproduced within its stored tolerance.

The goldens contain the outputs of each family's original code for pseudo-random weights; see `oracle`.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import dpt
import probes
from tests import oracle
from tests.models import DATA, oracle_weights, transformers_folder

CASES: dict[str, dict] = {
    "da_v1_vits_308x308": {"version": 1},
    "da_v2_vits_252x336": {"version": 2},
    "da_v2_vits_518x518": {"version": 2},
    "da_v2_metric_vits_266x350": {"version": 2, "max_depth": 20.0},
    "beit_base_384_256x320": {},
    "beit_base_384_384x384": {},
    "swin2_tiny_256_256x256": {},
}


def run(model: dpt.DPT, x: torch.Tensor, golden: oracle.Golden) -> dict[str, torch.Tensor]:
    """Every tensor that the golden names: from probe points where they exist, otherwise from hooks on modules."""
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str, module: torch.nn.Module, of_input: bool = False):
        def hook(module, args, output):
            seen[name] = args[0] if of_input else output

        return module.register_forward_hook(hook)

    model.encoder.blocks[0].register_forward_pre_hook(lambda module, args: seen.update(tokens_in=args[0]))
    for s in range(4):
        keep(f"reasm_raw.{s + 1}", model.reassembly.to_fusion[s], of_input=True)
    keep("head.conv1", model.head.conv1)
    keep("head.up", model.head.conv2, of_input=True)
    keep("head.conv2", model.head.conv2)
    keep("head.logit", model.head.conv3)
    with torch.no_grad(), probes.capture(model, "*") as cap:
        model(x)

    seen["patch_tokens"] = cap["patch_embed"]
    seen["depth"] = cap["depth"]
    blocks = block_names(model.config)
    for i, name in enumerate(blocks):
        seen[f"block.{name}"] = cap[f"encoder.blocks.{i}.tokens"]
        seen[f"block_norm.{name}"] = cap[f"encoder.blocks.{i}.norms"]
    for s in range(4):
        seen[f"stage.{s + 1}"] = cap[f"encoder.stages.{s}"]
        seen[f"reasm.{s + 1}"] = cap[f"reassembly.{s}"]
        seen[f"fusion.{s + 1}"] = cap[f"fusion.{s}"]
    for name, at in golden.meta["attention"].items():
        block, _, window = name.removeprefix("attn.").partition(".win")
        maps = cap[f"encoder.blocks.{blocks.index(block)}.attention"]
        if window:
            # The golden numbers tokens inside a window of the shifted grid, our maps on the whole unshifted grid.
            members = maps.grid.windows()[int(window)]
            seen[f"{name}.rows"] = maps.rows(members[at["rows"]])[..., members]
            seen[f"{name}.cols"] = maps.columns(members[at["cols"]])[..., members].mT
        else:
            seen[f"{name}.rows"] = maps.rows(at["rows"])
            seen[f"{name}.cols"] = maps.columns(at["cols"]).mT  # the golden's shape is (B, heads, query, 4)
    return seen


def block_names(config: dpt.Config) -> list[str]:
    """The goldens' names of the blocks: 00, 01, ... or, with stages, 0.00, 0.01, 1.00, ..."""
    if not isinstance(config, dpt.SwinV2Config):
        return [f"{i:02}" for i in range(config.depth)]
    return [f"{stage}.{i:02}" for stage, depth in enumerate(config.depths) for i in range(depth)]


@pytest.mark.parametrize("layout", ["original", "transformers"])
@pytest.mark.parametrize("case", CASES)
def test_every_tensor_equals_the_reference(case, layout, tmp_path):
    golden = oracle.load_golden(DATA / "goldens" / f"{case}.npz")
    if layout == "original":
        weights = oracle_weights(golden.meta["model"])
        assert oracle.digest({k: v.numpy() for k, v in weights.items()}) == golden.meta["weights_sha256"]
        model = dpt.load(weights, **CASES[case])
    else:
        transformers_folder(golden.meta["model"], tmp_path)
        model = dpt.load(tmp_path)  # config.json has the facts that the weights cannot tell
    x = torch.from_numpy(oracle.oracle_input(golden.case, *golden.input_hw))
    seen = run(model, x, golden)
    assert seen.keys() >= set(golden.names())
    comparisons = [oracle.compare(name, seen[name].numpy(), golden) for name in golden.names()]
    failed = [str(c) for c in comparisons if not c.ok]
    assert not failed, "\n".join(failed)


MUTATIONS: dict[str, Callable] = {
    "layer norm eps": lambda m: [setattr(b.norm1, "eps", 1e-5) for b in m.encoder.blocks],
    "a tap one block early": lambda m: setattr(m.encoder, "taps", (1, 5, 8, 11)),
    "no position offset": lambda m: setattr(m.encoder.positions, "_resized", lambda grid: _without_offset(m, grid)),
    "attention scale": lambda m: setattr(m.encoder.blocks[3].attention.attend, "scale", 0.124),
}


def _without_offset(model, grid):
    table = model.encoder.positions.table
    patches = table[:, 1:].mT.unflatten(2, (37, 37))
    patches = torch.nn.functional.interpolate(patches, (grid.rows, grid.cols), mode="bicubic")
    return torch.cat((table[:, :1], patches.flatten(2).mT), dim=1)


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_the_comparison_detects_a_slightly_wrong_model(mutation):
    golden = oracle.load_golden(DATA / "goldens" / "da_v2_vits_252x336.npz")
    model = dpt.load(oracle_weights("da_v2_vits"), version=2)
    MUTATIONS[mutation](model)
    x = torch.from_numpy(oracle.oracle_input(golden.case, *golden.input_hw))
    with torch.no_grad():
        assert not oracle.compare("depth", model(x).numpy(), golden).ok
