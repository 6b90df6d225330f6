"""Models for tests: tiny ones that run in milliseconds, and released sizes with the oracle's weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from dpt import DPT, Config, DepthAnythingConfig
from dpt.beit import beit
from dpt.checkpoints import transformers
from dpt.depth_anything import depth_anything
from dpt.swinv2 import swinv2
from tests import oracle

DATA = Path(__file__).parent / "data"


def tiny_config(**changes) -> DepthAnythingConfig:
    """The configuration of `tiny_model`."""
    sizes = {
        "variant": "tiny",
        "width": 128,
        "depth": 4,
        "reassembly_channels": (8, 16, 24, 32),
        "fusion_channels": 16,
    }
    return depth_anything(**(sizes | changes))


def tiny_model(seed: int = 0, **changes) -> DPT:
    """A Depth-Anything model with 2 heads and 4 blocks; see `randomised`."""
    return randomised(tiny_config(**changes), seed)


def tiny_beit(seed: int = 0, **changes) -> DPT:
    """A BEiT model with 2 heads and 4 blocks. Its position tables fit 5 x 5 patches (80 pixels)."""
    sizes = {
        "variant": "tiny",
        "width": 128,
        "depth": 4,
        "table_side": 5,
        "reassembly_channels": (8, 16, 24, 32),
        "fusion_channels": 16,
    }
    return randomised(beit(**(sizes | changes)), seed)


def tiny_swinv2(seed: int = 0, **changes) -> DPT:
    """A SwinV2 model with 1, 2, 4, 8 heads and 2, 2, 2, 1 blocks. 64 pixels give grids of 16, 8, 4, 2; window 4."""
    sizes = {
        "variant": "tiny",
        "width": 32,
        "depths": (2, 2, 2, 1),
        "window": 4,
        "base": 64,
        "fusion_channels": 16,
    }
    return randomised(swinv2(**(sizes | changes)), seed)


TINY = {"depth-anything": tiny_model, "beit": tiny_beit, "swinv2": tiny_swinv2}
OBLONG = {"depth-anything": (42, 70), "beit": (48, 80), "swinv2": (64, 96)}  # an input size per family, in pixels


def randomised(config: Config, seed: int) -> DPT:
    """A model with random weights, whose attention is neither uniform nor one-hot and whose depth varies."""
    model = DPT(config)
    gen = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        if name.endswith("logit_scale"):
            torch.nn.init.normal_(p, mean=2.5, std=1.2, generator=gen)
        elif name.endswith("positions.table") and p.ndim == 2:
            torch.nn.init.normal_(p, generator=gen)
        elif p.ndim > 1 and "norm" not in name:
            fan_in = p.shape[0] if "resize.0" in name or "resize.1" in name else p[0].numel()
            gain = 2.0 if "qkv" in name else 1.0
            spread = 0.5 if p.ndim == 3 else gain / fan_in**0.5  # rank 3: class token and position table
            torch.nn.init.normal_(p, std=spread, generator=gen)
        elif name.endswith("bias"):
            torch.nn.init.normal_(p, std=0.02, generator=gen)
    torch.nn.init.constant_(model.head.conv3.bias, 1.0)
    return model.eval().requires_grad_(False)


def pictures(batch: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Normalised images (B, 3, h, w) of smoothed noise."""
    noise = torch.randn(batch, 3, height // 7, width // 7, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(noise, (height, width), mode="bilinear")


def oracle_weights(name: str) -> dict[str, torch.Tensor]:
    """A complete checkpoint of pseudo-random weights, under the original keys."""
    manifest = oracle.load_manifest(DATA / "manifests" / f"{name}.json")
    return {key: torch.from_numpy(value) for key, value in oracle.oracle_state_dict(manifest).items()}


def transformers_manifest(name: str) -> tuple[dict, dict]:
    """(manifest, config.json) in the transformers layout. name: of the original manifest."""
    for path in sorted((DATA / "manifests" / "hf").glob("*.json")):
        manifest = oracle.load_manifest(path)
        for repository in manifest["hub_repositories"].values():
            if repository["original_manifest"] == name:
                return manifest, repository["config"]
    raise KeyError(name)


def transformers_folder(name: str, folder: Path, shards: int = 1) -> dict[str, torch.Tensor]:
    """Write a checkpoint of pseudo-random weights with its config.json, as on the hub; returns its tensors."""
    manifest, config = transformers_manifest(name)
    original = oracle.load_manifest(DATA / "manifests" / f"{name}.json")
    state = {key: torch.from_numpy(value) for key, value in oracle.oracle_hf_state_dict(manifest, original).items()}
    (folder / "config.json").write_text(json.dumps(config))
    save_shards(state, folder, shards)
    return state


def save_shards(state: dict[str, torch.Tensor], folder: Path, shards: int) -> None:
    """Write model.safetensors, or several shards and their index."""
    if shards == 1:
        save_file(state, folder / "model.safetensors", {"format": "pt"})
        return
    index: dict[str, str] = {}
    for n in range(shards):
        part = dict(list(state.items())[n::shards])
        name = f"model-{n + 1:05}-of-{shards:05}.safetensors"
        save_file(part, folder / name, {"format": "pt"})
        index |= dict.fromkeys(part, name)
    size = sum(t.nbytes for t in state.values())
    written = {"metadata": {"total_size": size}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(written))


def to_transformers(state: dict[str, torch.Tensor], family: str) -> dict[str, torch.Tensor]:
    """An original state dict in the transformers layout. No two tensors share memory."""
    return {key: tensor.clone() for key, tensor in transformers.from_original(state, family).items()}
