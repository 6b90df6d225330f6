"""Checkpoints are recognised from their tensors, loaded strictly, and never run code."""

from __future__ import annotations

import math
import pickle
import re
import warnings

import pytest
import torch
from safetensors.torch import save_file

import dpt
from dpt.checkpoints import depth_anything as keys
from dpt.checkpoints.files import CheckpointError
from tests import oracle
from tests.models import DATA, pictures, tiny_config, tiny_model

# variant: width, depth, heads, reassembly channels, fusion channels, taps of v1, taps of v2
FACTS = {
    "vits": (384, 12, 6, (48, 96, 192, 384), 64, (8, 9, 10, 11), (2, 5, 8, 11)),
    "vitb": (768, 12, 12, (96, 192, 384, 768), 128, (8, 9, 10, 11), (2, 5, 8, 11)),
    "vitl": (1024, 24, 16, (256, 512, 1024, 1024), 256, (20, 21, 22, 23), (4, 11, 17, 23)),
    "vitg": (1536, 40, 24, (1536, 1536, 1536, 1536), 384, (36, 37, 38, 39), (9, 19, 29, 39)),
}
MANIFESTS = sorted(path.stem for path in (DATA / "manifests").glob("da_*.json"))


def tiny_state(**changes) -> dict[str, torch.Tensor]:
    """A small checkpoint under the original keys."""
    model = tiny_model(**changes)
    return keys.to_original(model.state_dict(), model.config)


def meta_state(manifest: dict) -> dict[str, torch.Tensor]:
    return {k: torch.empty(t["shape"], device="meta") for k, t in manifest["tensors"].items()}


def test_every_released_size_is_here():
    assert len(MANIFESTS) == 10
    assert {m.split("_")[-1] for m in MANIFESTS} == set(FACTS)


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_are_recognised_from_tensors_alone_and_complete(name):
    manifest = oracle.load_manifest(DATA / "manifests" / f"{name}.json")
    width, depth, heads, channels, fusion, v1, v2 = FACTS[name.split("_")[-1]]
    for version, taps in ((1, v1), (2, v2)):
        found = dpt.inspect(meta_state(manifest), version=version)  # strict: raises for any key too many or too few
        c = found.config
        assert (c.family, c.variant) == ("depth-anything", name.split("_")[-1])
        assert (c.width, c.depth, c.heads, c.fusion_channels) == (width, depth, heads, fusion)
        assert c.reassembly_channels == channels
        assert c.taps == taps
        assert c.swiglu == (c.variant == "vitg")
        assert found.parameters == manifest["parameter_count"]
        assert found.tensors == len(manifest["tensors"])


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_load_strictly(name):
    manifest = oracle.load_manifest(DATA / "manifests" / f"{name}.json")
    # One zero, seen in every shape: a checkpoint of any size that takes no memory.
    state = {key: torch.zeros(()).expand(t["shape"]) for key, t in manifest["tensors"].items()}
    model = dpt.load(state, version=2)
    counts = [p.numel() for p in model.parameters()]
    counts += [math.prod(shape) for shape in keys.unused(model.config).values()]
    assert sum(counts) == manifest["parameter_count"]
    for key in (next(iter(state)), list(state)[-1]):
        with pytest.raises(CheckpointError, match=f"1 tensors are missing: {key}|{key}, which tells its sizes"):
            dpt.load({k: t for k, t in state.items() if k != key}, version=2)


@pytest.mark.parametrize("name", MANIFESTS)
def test_released_file_names_settle_version_and_range(name, tmp_path):
    # The names the files are published under, each around the same small set of tensors.
    manifest = oracle.load_manifest(DATA / "manifests" / f"{name}.json")
    for file, facts in manifest["files"].items():
        path = tmp_path / file
        save_file(tiny_state(), path)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            config = dpt.load(path).config
        assert config.version == (1 if "_v1_" in name else 2)
        assert config.max_depth == facts.get("max_depth")


def test_v1_and_v2_differ_in_taps_and_in_how_the_map_is_resized():
    one, two = (dpt.load(tiny_state(depth=8), version=v).config for v in (1, 2))
    assert (one.taps, two.taps) == ((4, 5, 6, 7), (1, 3, 5, 7))
    assert (one.preprocess.restore, two.preprocess.restore) == (("bilinear", False), ("bilinear", True))


def test_what_tensors_cannot_tell_is_assumed_aloud(tmp_path):
    save_file(tiny_state(), tmp_path / "weights.safetensors")
    with pytest.warns(UserWarning, match=r"weights.safetensors: assumed to be version 2.*say version=1 or version=2"):
        model = dpt.load(tmp_path / "weights.safetensors")
    assert (model.config.version, model.config.max_depth) == (2, None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert dpt.load(tmp_path / "weights.safetensors", version=1, max_depth=80.0).config.max_depth == 80.0


def test_arguments_outrank_the_name(tmp_path):
    path = tmp_path / "depth_anything_v2_metric_hypersim_vits.safetensors"
    save_file(tiny_state(), path)
    assert dpt.load(path).config.max_depth == 20.0
    config = dpt.load(path, version=1, max_depth=10.0).config
    assert (config.version, config.max_depth) == (1, 10.0)


@pytest.mark.parametrize(
    ("name", "version", "max_depth"),
    [
        ("depth_anything_vitl14.pth", 1, None),
        ("depth_anything_v1_vits.pth", 1, None),
        ("depth_anything_v2_vits.pth", 2, None),
        ("Depth-Anything-V2-Small.pth", 2, None),
        ("depth-anything-vitl-v2.pth", 2, None),
        ("depth_anything_vits_v2_finetuned.pth", 2, None),
        ("depth_anything_v2_vits_run_v1.pth", 2, None),
        ("depth_anything_v2_metric_vkitti_vits.pth", 2, 80.0),
        ("depth_anything_v2_biometric.pth", 2, None),
        ("depth_anything_v2_symmetric_loss.pth", 2, None),
        # a folder speaks for files that are called as in any folder
        ("depth_anything_v2_metric_hypersim/model.pth", 2, 20.0),
        ("depth_anything_vitb14/pytorch_model.bin", 1, None),
        # and not for others
        ("vkitti_runs/depth_anything_v2_vits.pth", 2, None),
        ("metrics/depth_anything_v2_vits.pth", 2, None),
        ("depth_anything_v1/depth_anything_v2_vits.pth", 2, None),
    ],
)
def test_names_are_read_as_people_give_them(name, version, max_depth, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    torch.save(tiny_state(), tmp_path / name)
    config = dpt.load(tmp_path / name).config  # a warning would be an error here
    assert (config.version, config.max_depth) == (version, max_depth)


@pytest.mark.parametrize("name", ["depth_anything_v2/mine.pth", "vkitti/mine.pth", "mine_v1.pth", "deep.pth"])
def test_names_that_say_nothing_are_not_read(name, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    torch.save(tiny_state(), tmp_path / name)
    with pytest.warns(UserWarning, match="assumed to be version 2"):
        assert dpt.load(tmp_path / name).config.max_depth is None


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"max_depth": "20"}, TypeError, "max_depth is '20'; expected metres, as in 20.0"),
        ({"version": "2"}, TypeError, "version is '2'; expected 1 or 2"),
        ({"version": True}, TypeError, "version is True; expected 1 or 2"),
        ({"dtype": torch.int8}, TypeError, 'dtype is torch.int8; give torch.float16, .* or "auto"'),
        ({"dtype": torch.complex64}, TypeError, "dtype is torch.complex64; give torch.float16"),
        ({"dtype": "float16"}, TypeError, "dtype is 'float16'; give torch.float16"),
        ({"device": "gpu"}, ValueError, "device is 'gpu'; here there are cpu"),
    ],
)
def test_arguments_of_the_wrong_kind_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        dpt.load(tiny_state(), **{"version": 2, **arguments})


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device is 'cuda'; here there are cpu"):
        dpt.load("demo", device="cuda", dtype="auto")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="device is 'cuda:1'; here there are 1, counted from 0"):
        dpt.load("demo", device="cuda:1")


def test_the_demo_model_is_what_it_is():
    assert dpt.load("demo", version=2).config.version == 2
    for wrong in ({"version": 1}, {"max_depth": 20.0}):
        with pytest.raises(CheckpointError, match=r"the demo model is relative and of version 2, but .*; leave .* out"):
            dpt.load("demo", **wrong)


def test_a_hub_folder_names_the_version(tmp_path):
    folder = tmp_path / "depth_anything_vitl14"
    folder.mkdir()
    torch.save(tiny_state(), folder / "pytorch_model.bin")
    assert dpt.load(folder / "pytorch_model.bin").config.version == 1


def test_a_metric_name_without_a_range_is_refused(tmp_path):
    path = tmp_path / "depth_anything_v2_metric_mine.safetensors"
    save_file(tiny_state(), path)
    with pytest.raises(CheckpointError, match=r"say max_depth=20.0 \(Hypersim, indoor\) or max_depth=80.0"):
        dpt.load(path)
    assert dpt.load(path, max_depth=35).config.max_depth == 35


@pytest.mark.parametrize(
    ("kind", "wrap"),
    [
        *((kind, wrap) for kind in ("pth", "mapping") for wrap in ("plain", "model", "state_dict", "module.", "both")),
        *(("safetensors", wrap) for wrap in ("plain", "module.")),  # these files hold tensors only, no wrappers
    ],
)
def test_every_way_of_giving_weights_gives_the_same_model(kind, wrap, tmp_path):
    expected, x = tiny_model(seed=3), pictures(1, 42, 56)
    state: dict = keys.to_original(expected.state_dict(), expected.config)
    if wrap in ("module.", "both"):
        state = {f"module.{k}": t for k, t in state.items()}
    if wrap in ("model", "state_dict", "both"):
        state = {"model" if wrap == "both" else wrap: state, "optimizer": {"state": {}}, "epoch": 3}
    path = tmp_path / f"depth_anything_v2_tiny.{kind}"
    source = path
    if kind == "pth":
        torch.save(state, path)
    elif kind == "safetensors":
        save_file(state, path)
    else:
        source = state
    model = dpt.load(source, version=2)
    assert torch.equal(model(x), expected(x))
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())


def test_the_format_is_told_by_the_contents_not_the_name(tmp_path):
    path = tmp_path / "depth_anything_v2_vits.pth"
    save_file(tiny_state(), path)
    assert dpt.load(path).config.width == 128
    torch.save(tiny_state(), path, _use_new_zipfile_serialization=False)  # the format before PyTorch 1.6
    assert dpt.load(path).config.width == 128


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_dtype(dtype):
    state = {k: t.half() for k, t in tiny_state().items()}
    model = dpt.load(state, version=2, dtype=dtype)
    assert {p.dtype for p in model.parameters()} == {dtype}
    image = torch.zeros(40, 50, 3, dtype=torch.uint8).numpy()
    assert model.predict(image, size=42).dtype == "float32"
    assert model.prepare(image).dtype == dtype


def test_weights_are_not_copied_when_they_need_not_be():
    state = tiny_state()
    model = dpt.load(state, version=2)
    assert model.encoder.class_token.data_ptr() == state["pretrained.cls_token"].data_ptr()


class Evil:
    def __reduce__(self):
        return (eval, ("__import__('pathlib').Path('evil').touch()",))


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_never_runs(zipped, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "depth_anything_v2_vits.pth"
    torch.save({**tiny_state(), "evil": Evil()}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="Files that need code to be run are never loaded"):
        dpt.load(path)
    assert not (tmp_path / "evil").exists()
    with open(path, "wb") as file:
        pickle.dump(Evil(), file, protocol=2)
    with pytest.raises(CheckpointError):
        dpt.load(path)
    assert not (tmp_path / "evil").exists()
    with open(path, "rb") as file:
        pickle.load(file)  # the control: the file does do harm to who lets it
    assert (tmp_path / "evil").exists()


def spoil(state: dict, how: str) -> dict:
    state = dict(state)
    if how == "missing":
        del state["pretrained.norm.bias"]
    elif how == "missing block":
        state = {k: t for k, t in state.items() if ".blocks.2." not in k}
    elif how == "extra":
        state["pretrained.surprise"] = torch.zeros(1)
    elif how == "shape":
        state["depth_head.scratch.output_conv1.weight"] = torch.zeros(8, 16, 1, 1)
    elif how == "nan":
        state["pretrained.blocks.1.mlp.fc1.bias"] = torch.full((512,), float("nan"))
    elif how == "integers":
        state["pretrained.norm.bias"] = torch.zeros(128, dtype=torch.int64)
    elif how == "size key":
        del state["pretrained.cls_token"]
    elif how == "width":
        state["pretrained.cls_token"] = torch.zeros(1, 1, 100)
    elif how == "unrelated":
        state = {"conv1.weight": torch.zeros(2, 2), "fc.bias": torch.zeros(2)}
    elif how == "empty":
        state = {}
    return state


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", r"recognised as depth-anything .*, but 1 tensors are missing: pretrained.norm.bias. Nothing was"),
        ("missing block", r"14 tensors are missing: pretrained.blocks.2.*and 9 more"),
        ("extra", r"1 tensors do not belong to it: pretrained.surprise"),
        ("shape", r"output_conv1.weight is \(8, 16, 1, 1\), expected \(8, 16, 3, 3\)"),
        ("nan", r"the weights of encoder.blocks.1.mlp.fc1.bias hold NaN or infinity"),
        ("integers", r"1 tensors are not floating point: pretrained.norm.bias"),
        ("size key", r"pretrained.cls_token, which tells its sizes, is missing"),
        ("width", r"width is 100; DINOv2 heads are 64 wide"),
        ("unrelated", r"2 tensors of no known model: conv1.weight, fc.bias"),
        ("empty", r"empty state dict"),
    ],
)
def test_a_wrong_state_is_never_loaded(how, message, tmp_path):
    state = tiny_state()
    dpt.load(state, version=2)  # the control: unspoilt, it loads
    with pytest.raises(CheckpointError, match=message):
        dpt.load(spoil(state, how), version=2)
    path = tmp_path / "depth_anything_v2_vits.pth"
    torch.save(spoil(state, how), path)
    with pytest.raises(CheckpointError, match=re.escape(str(path)) + ".*" + message):
        dpt.load(path)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "head only", "text", "page", "pointer"])
def test_a_damaged_file_gives_one_clear_error(suffix, damage, tmp_path):
    path = tmp_path / f"depth_anything_v2_vits.{suffix}"
    torch.save(tiny_state(), path) if suffix == "pth" else save_file(tiny_state(), path)
    whole = path.read_bytes()
    path.write_bytes(
        {
            "truncated": whole[: len(whole) * 2 // 3],
            "empty": b"",
            "head only": whole[:100],
            "text": b"404: not found",
            "page": b"<!DOCTYPE html><html>",
            "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        }[damage]
    )
    with pytest.raises(CheckpointError, match=re.escape(str(path))) as caught:
        dpt.load(path)
    assert "\n" not in str(caught.value)


def test_missing_files_folders_and_wrong_types(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at 'nowhere.pth'; give the path"):
        dpt.load("nowhere.pth")
    with pytest.raises(CheckpointError, match="is a folder"):
        dpt.load(tmp_path)
    with pytest.raises(TypeError, match="not a model that is loaded already; use it as it is"):
        dpt.load(tiny_model())
    with pytest.raises(TypeError, match="not a Linear; pass its state_dict"):
        dpt.load(torch.nn.Linear(1, 1))
    with pytest.raises(
        CheckpointError, match=r"without its configuration; write the model with dpt.save\(model, path\)"
    ):
        dpt.load(tiny_model().state_dict())
    with pytest.raises(TypeError, match="expected a path, 'demo' or a state dict, not int"):
        dpt.load(3)
    with pytest.raises(CheckpointError, match="version is 3"):
        dpt.load(tiny_state(), version=3)
    with pytest.raises(CheckpointError, match="max_depth is -1"):
        dpt.load(tiny_state(), version=2, max_depth=-1)


@pytest.mark.parametrize(
    ("name", "start", "said"),
    [
        ("a.png", b"\x89PNG\r\n\x1a\n", "is a PNG picture, no checkpoint; expected a safetensors file, or what torch"),
        ("a.h5", b"\x89HDF\r\n\x1a\n", "is an HDF5 file, perhaps of Keras, no checkpoint"),
        ("pyproject.toml", b"[project]\n", "is no checkpoint; expected"),
        ("a.pt", b"hello there", "is no checkpoint; expected"),
    ],
)
def test_other_files_are_told_from_checkpoints(name, start, said, tmp_path):
    (tmp_path / name).write_bytes(start + bytes(100))
    with pytest.raises(CheckpointError, match=said):
        dpt.load(tmp_path / name)


def test_what_torch_refuses_is_said_without_its_advice(tmp_path):
    torch.save(torch.nn.Linear(1, 1), tmp_path / "model.pth")
    with pytest.raises(
        CheckpointError, match=r"not a plain file of weights .*torch.nn.modules.linear.Linear"
    ) as caught:
        dpt.load(tmp_path / "model.pth")
    assert "weights_only" not in str(caught.value)
    assert "trust" not in str(caught.value)


def test_what_may_not_be_entered_is_not_called_missing(tmp_path, monkeypatch):
    def refuse(path, *arguments, **keywords):
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "locked").mkdir()
    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.iterdir", refuse)
        with pytest.raises(CheckpointError, match="locked is a folder that cannot be read: Permission denied"):
            dpt.load(tmp_path / "locked")
    path = str(tmp_path / "locked" / "model.pth")
    with monkeypatch.context() as patched:
        patched.setattr("os.stat", refuse)
        with pytest.raises(PermissionError, match=f"{path} cannot be reached: Permission denied"):
            dpt.load(path)


def test_our_own_keys_and_theirs_map_one_to_one():
    config = tiny_config()
    state = dpt.DPT(config).state_dict()
    mapped = keys.key_map(config)
    assert mapped.keys() == state.keys()
    assert len(set(mapped.values())) == len(mapped)
    assert not set(mapped.values()) & keys.unused(config).keys()


def test_inspect_reports_where_each_fact_came_from(tmp_path):
    path = tmp_path / "depth_anything_v2_metric_vkitti_vits.pth"
    torch.save(tiny_state(), path)
    found = dpt.inspect(path)
    assert found.notes == (
        "version 2: from the name depth_anything_v2_metric_vkitti_vits.pth",
        "metric, up to 80 m: from the name depth_anything_v2_metric_vkitti_vits.pth",
    )
    assert found.config.variant == "vit-128x4"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["da_v1_vitb", "da_v2_vitb", "da_v2_vitl", "da_v2_metric_vitl", "da_v2_vitg"])
def test_the_big_models_load_and_run(name):
    manifest = oracle.load_manifest(DATA / "manifests" / f"{name}.json")
    state = {k: 0.02 * torch.randn(t["shape"]) for k, t in manifest["tensors"].items()}
    model = dpt.load(state, version=1 if "v1" in name else 2)
    assert torch.isfinite(model(pictures(1, 98, 126))).all()
