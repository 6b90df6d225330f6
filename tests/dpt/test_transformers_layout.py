"""Checkpoints in the layout of transformers give the same models; config.json gives version and range."""

from __future__ import annotations

import json
import re
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

import dpt
from dpt import CheckpointError
from dpt.checkpoints import beit, depth_anything, files, recognition, transformers
from dpt.checkpoints.contents import Contents
from dpt.checkpoints.values import Values
from tests import oracle
from tests.models import (
    DATA,
    oracle_weights,
    pictures,
    save_shards,
    tiny_beit,
    tiny_model,
    to_transformers,
    transformers_folder,
    transformers_manifest,
)

MANIFESTS = sorted(path.stem for path in (DATA / "manifests" / "hf").glob("*.json"))
QUERY = "backbone.encoder.layer.2.attention.attention.query.weight"


def manifest_of(name: str) -> tuple[dict, dict]:
    """(manifest in the transformers layout, the original one)."""
    manifest = oracle.load_manifest(DATA / "manifests" / "hf" / f"{name}.json")
    original = next(iter(manifest["hub_repositories"].values()))["original_manifest"]
    return manifest, oracle.load_manifest(DATA / "manifests" / f"{original}.json")


def family_of(name: str) -> str:
    return next(f for f in transformers.DIALECTS if f.replace("-", "_") in name)


def describe(depth: int = 8, **changes) -> dict:
    """The config.json of a tiny model: version 2, relative."""
    backbone = {"model_type": "dinov2", "hidden_size": 128, "num_hidden_layers": depth}
    backbone["out_indices"] = [depth // 4, depth // 2, 3 * depth // 4, depth]
    return {"model_type": "depth_anything", "backbone_config": backbone, "depth_estimation_type": "relative"} | changes


def tiny_folder(folder, config=None, shards=1, **changes):
    """Write a tiny Depth-Anything model in the transformers layout; returns the model."""
    model = tiny_model(**({"depth": 8} | changes))
    state = depth_anything.to_original(model.state_dict(), model.config)
    save_shards(to_transformers(state, "depth-anything"), folder, shards)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return model


def test_the_manifests_cover_all_released_checkpoints():
    assert len(MANIFESTS) == 9
    assert {family_of(name) for name in MANIFESTS} == set(transformers.DIALECTS)


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_rules_translate_every_key_both_ways(name):
    manifest, original = manifest_of(name)
    # Each tensor holds the numbers of its rows, so a joined tensor shows the order of its parts.
    state = {}
    for key, entry in manifest["tensors"].items():
        rows = range(*entry["rows"]) if "rows" in entry else range(entry["shape"][0])
        state[key] = torch.tensor(rows, dtype=torch.float32).view(-1, *[1] * (len(entry["shape"]) - 1))
        state[key] = state[key].expand(entry["shape"])
    contents = Contents("it", state)
    found = transformers.to_original(contents)
    assert found.family == family_of(name)
    assert found.leftover == []
    assert found.tensors.keys() == original["tensors"].keys() - set(manifest["original_keys_without_counterpart"])
    for key, tensor in found.tensors.items():
        assert list(tensor.shape) == original["tensors"][key]["shape"]
        values = Values(contents).read(found.sources[key], None, torch.device("cpu"))
        assert torch.equal(values.flatten(1)[:, 0] if values.ndim > 1 else values, torch.arange(len(values)).float())
        assert set(found.names(key)) == {k for k, entry in manifest["tensors"].items() if entry["from"] == key}


@pytest.mark.parametrize("name", MANIFESTS)
def test_released_configurations_settle_everything(name, tmp_path):
    manifest, _ = manifest_of(name)
    # One zero, expanded to every shape: a checkpoint of any size without memory.
    state = {key: torch.zeros(()).expand(t["shape"]) for key, t in manifest["tensors"].items()}
    for repository in manifest["hub_repositories"].values():
        original = repository["original_manifest"]
        (tmp_path / "config.json").write_text(json.dumps(repository["config"]))
        contents = Contents("it", state, path=tmp_path / "it")
        recognised = recognition.recognise_published(contents, "", None, None).recognised
        config = recognised.config
        assert original.endswith(config.variant)
        assert config.max_depth == (repository["config"]["max_depth"] if "metric" in original else None)
        if config.family == "depth-anything":
            assert config.version == (1 if "_v1_" in original else 2)
        assert not any(note.assumed for note in recognised.notes)


def test_the_hidden_size_of_swinv2_is_that_of_its_last_stage(tmp_path):
    """transformers writes embed_dim and hidden_size, which differ."""
    manifest, config = transformers_manifest("swin2_tiny_256")
    state = {key: torch.zeros(()).expand(t["shape"]) for key, t in manifest["tensors"].items()}
    contents = Contents("it", state, path=tmp_path / "it")
    for embed_dim, hidden_size in ((96, 768), (128, 768)):
        backbone = config["backbone_config"] | {"embed_dim": embed_dim, "hidden_size": hidden_size}
        (tmp_path / "config.json").write_text(json.dumps(config | {"backbone_config": backbone}))
        if embed_dim == 96:
            assert recognition.recognise_published(contents, "", None, None).recognised.config.width == 96
        else:
            with pytest.raises(CheckpointError, match=r"width 96, but .* embed_dim 128"):
                recognition.recognise_published(contents, "", None, None)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("given", ["folder", "file"])
def test_one_file_or_shards_give_the_original_model(shards, given, tmp_path):
    transformers_folder("da_v2_vits", tmp_path, shards)
    source = tmp_path
    if given == "file":
        source = tmp_path / ("model.safetensors" if shards == 1 else "model.safetensors.index.json")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = dpt.load(source)
    expected = dpt.load(oracle_weights("da_v2_vits"), version=2)
    assert model.config == expected.config
    for (key, a), (other, b) in zip(model.state_dict().items(), expected.state_dict().items(), strict=True):
        assert key == other
        assert torch.equal(a, b)


@pytest.mark.parametrize("layout", ["torch", "prefixed"])
def test_torch_files_and_prefixed_keys_in_this_layout(layout, tmp_path):
    model = tiny_folder(tmp_path, describe())
    state = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    if layout == "torch":
        torch.save(state, tmp_path / "pytorch_model.bin")
    else:
        save_file({f"module.{key}": tensor.clone() for key, tensor in state.items()}, tmp_path / "a.safetensors")
    for key, tensor in dpt.load(tmp_path).state_dict().items():
        assert torch.equal(tensor, model.state_dict()[key])


def test_beit_in_this_layout_is_the_same_model_with_the_original_eps(tmp_path):
    model = tiny_beit()
    keys = beit.key_map(model.config)
    state = to_transformers({keys[key]: tensor for key, tensor in model.state_dict().items()}, "beit")
    save_file(state, tmp_path / "model.safetensors")
    backbone = {"model_type": "beit", "hidden_size": 128, "num_hidden_layers": 4, "layer_norm_eps": 1e-12}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "dpt", "backbone_config": backbone}))
    x = pictures(1, 48, 80)
    assert torch.equal(dpt.load(tmp_path)(x), model(x))
    with pytest.raises(CheckpointError, match=r"MiDaS BEiT, and version=2 .*Depth-Anything"):
        dpt.load(tmp_path, version=2)


@pytest.mark.parametrize(
    ("config", "version", "max_depth"),
    [
        (describe(), 2, None),
        (describe(backbone_config={"out_indices": [5, 6, 7, 8]}), 1, None),
        (describe(backbone_config={"out_features": ["stage5", "stage6", "stage7", "stage8"]}), 1, None),
        (describe(depth_estimation_type="metric", max_depth=20), 2, 20.0),
        ({"backbone_config": {"out_indices": [2, 4, 6, 8]}}, 2, None),
    ],
)
def test_config_json_gives_version_and_range(config, version, max_depth, tmp_path):
    tiny_folder(tmp_path, config)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = dpt.load(tmp_path).config
    assert (found.version, found.max_depth) == (version, max_depth)
    # Arguments that agree with it are accepted.
    assert dpt.load(tmp_path, version=version, max_depth=max_depth).config == found
    note = dpt.inspect(tmp_path).notes[0]
    assert (note.fact, note.assumed) == ("version", False)
    assert f"version {version}" in str(note)
    assert "config.json" in str(note)


def test_without_config_json_the_name_or_the_arguments_decide(tmp_path):
    tiny_folder(tmp_path)
    with pytest.warns(UserWarning, match="version 2"):
        assert dpt.load(tmp_path).config.version == 2
    assert dpt.load(tmp_path, version=1, max_depth=80.0).config.max_depth == 80.0
    named = tmp_path / "depth_anything_v2_metric_vkitti.safetensors"
    (tmp_path / "model.safetensors").rename(named)
    assert dpt.load(named).config.max_depth == 80.0


@pytest.mark.parametrize(
    ("config", "arguments", "message"),
    [
        (describe(), {"version": 1}, r"version 2 .*config.json.* \[2, 4, 6, 8\].*version=1"),
        (describe(), {"max_depth": 20.0}, r"relative model .*config.json.*max_depth=20.0"),
        (
            describe(depth_estimation_type="metric", max_depth=80),
            {"max_depth": 20.0},
            r"80 m .*config.json.*max_depth=20.0",
        ),
        (describe(depth_estimation_type="metric"), {}, r"metric model .*max_depth None"),
        (describe(depth_estimation_type="guessed"), {}, r"depth_estimation_type 'guessed'"),
        (describe(backbone_config={"out_indices": [1, 2, 3, 4]}), {}, r"taps .*\[1, 2, 3, 4\]"),
        (describe(backbone_config={"hidden_size": 384}), {}, r"width 128, but .* hidden_size 384"),
        (describe(backbone_config={"num_hidden_layers": 12}), {}, r"depth 8, but .* num_hidden_layers 12"),
        (describe(backbone_config=[]), {}, r"backbone_config .*config.json"),
        (describe(model_type="zoedepth"), {}, r"depth-anything, but .* model_type 'zoedepth'"),
        (describe(backbone_config={"num_attention_heads": 4}), {}, r"heads 2, but .* num_attention_heads 4"),
        (describe(backbone_config={"hidden_act": "relu"}), {}, r"hidden_act 'relu', .*'gelu'"),
        (describe(backbone_config={"apply_layernorm": False}), {}, r"apply_layernorm False, .*True"),
        (describe(backbone_config={"layer_norm_eps": 1e-12}), {}, r"layer_norm_eps 1e-12, .*1e-06"),
        (describe(reassemble_factors=[4, 2, 1, 1]), {}, r"reassemble_factors \[4, 2, 1, 1\], .*0\.5"),
        (describe(backbone_config=None, backbone_kwargs={"out_indices": [1, 2, 3, 4]}), {}, r"taps .*\[1, 2, 3, 4\]"),
    ],
)
def test_a_contradicting_config_json_is_refused(config, arguments, message, tmp_path):
    tiny_folder(tmp_path, config)
    with pytest.raises(CheckpointError, match=re.escape(str(tmp_path)) + ".*" + message):
        dpt.load(tmp_path, **arguments)


@pytest.mark.parametrize(
    "value", ["x" * 100_000, [10**400] * 4, "\x1b[2J\n", 10**400], ids=["long", "large", "escapes", "huge"]
)
@pytest.mark.parametrize(
    "field", ["depth_estimation_type", "fusion_hidden_size", "model_type", "out_indices", "max_depth"]
)
def test_a_message_about_config_json_is_one_short_line(field, value, tmp_path):
    config = describe(depth_estimation_type="metric")
    (config["backbone_config"] if field == "out_indices" else config)[field] = value
    tiny_folder(tmp_path, config)
    with pytest.raises(
        CheckpointError, match=f"config.json.* {'taps blocks' if field == 'out_indices' else field}"
    ) as c:
        dpt.load(tmp_path)
    assert len(str(c.value)) < 500
    assert str(c.value).isprintable()


def test_names_of_shards_that_no_file_can_have(tmp_path):
    tiny_folder(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "x" * 300}}))
    with pytest.raises(CheckpointError, match="1 of them missing: xxx"):
        dpt.load(index)


@pytest.mark.parametrize(
    "config",
    [
        describe(backbone_config=None, backbone="facebook/dinov2-small"),
        {key: value for key, value in describe().items() if key != "backbone_config"},
        describe(max_depth=None),
    ],
)
def test_a_config_json_without_the_facts_of_the_backbone_is_accepted(config, tmp_path):
    model = tiny_folder(tmp_path, config)
    x = pictures(1, 42, 56)
    assert torch.equal(dpt.load(tmp_path, version=2)(x), model(x))
    assert dpt.load(tmp_path, version=1).config.version == 1 if config.get("backbone_config") is None else True


def test_backbone_kwargs_state_the_version(tmp_path):
    tiny_folder(tmp_path, describe(backbone_config=None, backbone_kwargs={"out_indices": [5, 6, 7, 8]}))
    assert dpt.load(tmp_path).config.version == 1


@pytest.mark.parametrize("text", ["", "{", "[1]", "\xff", "[" * 100_000])
def test_a_config_json_that_is_not_a_json_object_is_refused(text, tmp_path):
    tiny_folder(tmp_path)
    (tmp_path / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointError, match=r"config.json .*(JSON|list)"):
        dpt.load(tmp_path)


def test_config_json_is_ignored_in_the_original_layout(tmp_path):
    model = tiny_model()
    save_file(depth_anything.to_original(model.state_dict(), model.config), tmp_path / "depth_anything_v2.safetensors")
    (tmp_path / "config.json").write_text('{"encoder": "vits"}')
    assert dpt.load(tmp_path).config.version == 2


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: s.pop(QUERY), f"1 tensors are missing: {QUERY}\\."),
        (lambda s: s.pop("neck.convs.3.weight"), r"1 tensors are missing: neck.convs.3.weight\."),
        (lambda s: s.pop("backbone.embeddings.cls_token"), "backbone.embeddings.cls_token,.* is missing"),
        (lambda s: s.update(surprise=torch.zeros(1)), r"1 tensors do not belong to it: surprise\."),
        (
            lambda s: s.update({QUERY: torch.zeros(128, 100)}),
            r"query.weight as \(128, 100\) float32 but .*key.weight as",
        ),
        (lambda s: s.update({QUERY: s[QUERY].half()}), r"query.weight as \(128, 128\) float16 but .*key.weight as"),
        (
            lambda s: s.update({QUERY.replace("query", p): torch.zeros(64, 128) for p in transformers.PARTS}),
            r"attention.\{query,key,value\}.weight is \(192, 128\), expected \(384, 128\)",
        ),
        (lambda s: s.update({"head.conv1.bias": torch.zeros(3)}), r"head.conv1.bias is \(3,\), expected \(8,\)"),
        (lambda s: s.update({"pretrained.cls_token": torch.zeros(1)}), "do not belong to it: pretrained.cls_token"),
    ],
)
def test_messages_use_the_keys_in_the_file(spoil, message, tmp_path):
    tiny_folder(tmp_path, describe())
    dpt.load(tmp_path)  # control: without the fault it loads
    state = load_file(tmp_path / "model.safetensors")
    spoil(state)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=message) as caught:
        dpt.load(tmp_path)
    assert str(tmp_path / "model.safetensors") in str(caught.value)
    if "surprise" not in message and "pretrained" not in message:
        assert "pretrained" not in str(caught.value)


def break_index(folder, how):
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    keys = index["weight_map"]
    first = next(iter(keys))
    shard = folder / keys[first]
    if how == "shard missing":
        shard.unlink()
    elif how == "shard elsewhere":
        (folder / "in").mkdir()
        shard.rename(folder / "in" / shard.name)
        index["weight_map"] = {key: f"in/{name}" if name == shard.name else name for key, name in keys.items()}
    elif how == "path traversal":
        keys[first] = "../outside.safetensors"
    elif how == "absolute path":
        keys[first] = str(shard)
    elif how == "tensor in index only":
        keys["neck.surprise"] = shard.name
    elif how == "tensor in shard only":
        del keys[first]
    elif how == "no map":
        del index["weight_map"]
    elif how == "map of numbers":
        keys[first] = 3
    elif how == "shard truncated":
        shard.write_bytes(shard.read_bytes()[:-100])
    path.write_text("{" if how == "no JSON" else json.dumps(index))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("shard missing", "3 shards, 1 .*: model-00001-of-00003.safetensors"),
        ("shard elsewhere", "outside its own folder.*: in/model-00001"),
        ("path traversal", r"outside its own folder.*: \.\./outside"),
        ("absolute path", "outside its own folder"),
        ("tensor in index only", "model-00001.* lacks 1 tensors: neck.surprise"),
        ("tensor in shard only", "model-00001.* also holds 1 tensors: backbone"),
        ("no map", "index.json .*weight_map"),
        ("map of numbers", "index.json .*weight_map"),
        ("shard truncated", "model-00001-of-00003.safetensors .*not a complete"),
        ("no JSON", "index.json .*JSON"),
    ],
)
def test_a_damaged_index_gives_one_clear_error(how, message, tmp_path):
    outside, folder = tmp_path / "outside.safetensors", tmp_path / "model"
    folder.mkdir()
    tiny_folder(folder, describe(), shards=3)
    save_file({"backbone.embeddings.cls_token": torch.zeros(1, 1, 128)}, outside)
    dpt.load(folder)  # control
    break_index(folder, how)
    with pytest.raises(CheckpointError, match=message) as caught:
        dpt.load(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folders_with_no_or_several_checkpoints(tmp_path):
    with pytest.raises(CheckpointError, match=r"is a folder.* found none"):
        dpt.load(tmp_path)
    for name in ("a", "b"):
        save_file({"x": torch.zeros(1)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(CheckpointError, match=r"found 2 .*\(a.safetensors, b.safetensors\)"):
        dpt.load(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"config.json .*weight_map"):
        dpt.load(tmp_path / "config.json")


def test_renaming_reads_no_values(tmp_path):
    """Query, key and value are read into the thirds of one parameter, when the model is built."""
    tiny_folder(tmp_path, describe())
    with files.read(tmp_path) as contents:
        found = transformers.to_original(contents)
        assert all(tensor.is_meta for tensor in found.tensors.values())
        parts = found.sources["pretrained.blocks.2.attn.qkv.weight"]
        assert parts == tuple(QUERY.replace("query", part) for part in transformers.PARTS)
        joined = Values(contents).read(parts, None, torch.device("cpu"))
    stored = load_file(tmp_path / "model.safetensors")
    assert torch.equal(joined, torch.cat([stored[key] for key in parts]))
    assert transformers_manifest("da_v1_vits")[1]["backbone_config"]["out_indices"] == [9, 10, 11, 12]
