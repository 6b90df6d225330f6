"""Checkpoints are recognised from their tensors and loaded strictly. Code in them never runs."""

from __future__ import annotations

import math
import pickle
import re
import warnings

import pytest
import torch
from safetensors.torch import save_file

import dpt
from dpt import CheckpointError
from dpt.checkpoints import depth_anything as keys
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


def test_the_manifests_cover_every_released_size():
    assert len(MANIFESTS) == 10
    assert {m.split("_")[-1] for m in MANIFESTS} == set(FACTS)


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_are_recognised_from_tensors_alone_and_complete(name):
    manifest = oracle.load_manifest(DATA / "manifests" / f"{name}.json")
    width, depth, heads, channels, fusion, v1, v2 = FACTS[name.split("_")[-1]]
    for version, taps in ((1, v1), (2, v2)):
        found = dpt.inspect(meta_state(manifest), version=version)  # strict: raises for any missing or unexpected key
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
    # One zero, expanded to every shape: a checkpoint of any size without memory.
    state = {key: torch.zeros(()).expand(t["shape"]) for key, t in manifest["tensors"].items()}
    model = dpt.load(state, version=2)
    counts = [p.numel() for p in model.parameters()]
    counts += [math.prod(shape) for shape in keys.unused(model.config).values()]
    assert sum(counts) == manifest["parameter_count"]
    for key in (next(iter(state)), list(state)[-1]):
        with pytest.raises(CheckpointError, match=f"{key}.* missing|missing: {key}"):
            dpt.load({k: t for k, t in state.items() if k != key}, version=2)


@pytest.mark.parametrize("name", MANIFESTS)
def test_released_file_names_settle_version_and_range(name, tmp_path):
    # Published file names, each for the same small set of tensors.
    manifest = oracle.load_manifest(DATA / "manifests" / f"{name}.json")
    for file, facts in manifest["files"].items():
        path = tmp_path / file
        save_file(tiny_state(), path)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            config = dpt.load(path).config
        assert config.version == (1 if "_v1_" in name else 2)
        assert config.max_depth == facts.get("max_depth")


def test_v1_and_v2_differ_in_taps_and_in_how_depth_is_resized():
    one, two = (dpt.load(tiny_state(depth=8), version=v).config for v in (1, 2))
    assert (one.taps, two.taps) == ((4, 5, 6, 7), (1, 3, 5, 7))
    assert (one.preprocess.restore, two.preprocess.restore) == (("bilinear", False), ("bilinear", True))


def test_an_assumed_version_is_marked_and_warned_about(tmp_path):
    save_file(tiny_state(), tmp_path / "weights.safetensors")
    version, max_depth = dpt.inspect(tmp_path / "weights.safetensors").notes
    assert (version.fact, version.assumed) == ("version", True)
    assert (max_depth.fact, max_depth.assumed) == ("max_depth", False)
    with pytest.warns(UserWarning, match="version 2") as caught:
        model = dpt.load(tmp_path / "weights.safetensors")
    assert [str(warning.message) for warning in caught] == [f"{tmp_path / 'weights.safetensors'}: {version}"]
    assert caught[0].filename == __file__  # the warning points to the caller
    assert (model.config.version, model.config.max_depth) == (2, None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert dpt.load(tmp_path / "weights.safetensors", version=1, max_depth=80.0).config.max_depth == 80.0


def test_arguments_take_precedence_over_the_name(tmp_path):
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
        # the folder names a file with a generic name
        ("depth_anything_v2_metric_hypersim/model.pth", 2, 20.0),
        ("depth_anything_vitb14/pytorch_model.bin", 1, None),
        # but no other file
        ("vkitti_runs/depth_anything_v2_vits.pth", 2, None),
        ("metrics/depth_anything_v2_vits.pth", 2, None),
        ("depth_anything_v1/depth_anything_v2_vits.pth", 2, None),
    ],
)
def test_version_and_range_are_read_from_names(name, version, max_depth, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    torch.save(tiny_state(), tmp_path / name)
    config = dpt.load(tmp_path / name).config  # a warning would be an error here
    assert (config.version, config.max_depth) == (version, max_depth)


@pytest.mark.parametrize("name", ["depth_anything_v2/mine.pth", "vkitti/mine.pth", "mine_v1.pth", "deep.pth"])
def test_names_without_the_model_say_nothing(name, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    torch.save(tiny_state(), tmp_path / name)
    with pytest.warns(UserWarning, match="version 2"):
        assert dpt.load(tmp_path / name).config.max_depth is None


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"max_depth": "20"}, TypeError, "max_depth .* 20.0, got '20'"),
        ({"version": "2"}, TypeError, "version .* 1 or 2, got '2'"),
        ({"version": True}, TypeError, "version .* 1 or 2, got True"),
        ({"dtype": torch.int8}, TypeError, 'dtype .*torch.float16, .*"auto".* got torch.int8'),
        ({"dtype": torch.complex64}, TypeError, "dtype .*torch.float16.* got torch.complex64"),
        ({"dtype": "float16"}, TypeError, "dtype .*torch.float16.* got 'float16'"),
        ({"device": "gpu"}, ValueError, "'gpu'"),
    ],
)
def test_arguments_of_the_wrong_kind_are_refused(arguments, error, message):
    with pytest.raises(error, match=message) as caught:
        dpt.load(tiny_state(), **{"version": 2, **arguments})
    assert isinstance(caught.value, dpt.DPTError)


def test_an_unavailable_device_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="cpu, got 'cuda'"):
        dpt.load("demo", device="cuda", dtype="auto")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="'cuda:1'"):
        dpt.load("demo", device="cuda:1")


def test_arguments_cannot_change_the_demo_model():
    assert dpt.load("demo", version=2).config.version == 2
    for wrong in ({"version": 1}, {"max_depth": 20.0}):
        ((argument, value),) = wrong.items()
        with pytest.raises(CheckpointError, match=f"demo model .* version 2, got {argument}={value}"):
            dpt.load("demo", **wrong)


def test_a_hub_folder_names_the_version(tmp_path):
    folder = tmp_path / "depth_anything_vitl14"
    folder.mkdir()
    torch.save(tiny_state(), folder / "pytorch_model.bin")
    assert dpt.load(folder / "pytorch_model.bin").config.version == 1


def test_a_metric_name_without_a_range_is_refused(tmp_path):
    path = tmp_path / "depth_anything_v2_metric_mine.safetensors"
    save_file(tiny_state(), path)
    with pytest.raises(CheckpointError, match=r"max_depth=20.0 \(Hypersim, indoor\) or max_depth=80.0"):
        dpt.load(path)
    assert dpt.load(path, max_depth=35).config.max_depth == 35


@pytest.mark.parametrize(
    ("kind", "wrap"),
    [
        *((kind, wrap) for kind in ("pth", "mapping") for wrap in ("plain", "model", "state_dict", "module.", "both")),
        *(("safetensors", wrap) for wrap in ("plain", "module.")),  # safetensors cannot store wrappers
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


def test_the_contents_decide_the_format_not_the_name(tmp_path):
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


def test_a_state_dict_of_the_requested_dtype_is_not_copied():
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
    with pytest.raises(CheckpointError, match="never loaded"):
        dpt.load(path)
    assert not (tmp_path / "evil").exists()
    with open(path, "wb") as file:
        pickle.dump(Evil(), file, protocol=2)
    with pytest.raises(CheckpointError):
        dpt.load(path)
    assert not (tmp_path / "evil").exists()
    with open(path, "rb") as file:
        pickle.load(file)  # control: the code in the file runs if the pickle is loaded unsafely
    assert (tmp_path / "evil").exists()


def spoil(state: dict, how: str) -> dict:
    """A copy of a state dict with one fault."""
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
        ("missing", r"depth-anything .* 1 tensors are missing: pretrained.norm.bias\."),
        ("missing block", r"14 tensors are missing: pretrained.blocks.2.*and 9 more"),
        ("extra", r"1 tensors .*: pretrained.surprise"),
        ("shape", r"output_conv1.weight is \(8, 16, 1, 1\), expected \(8, 16, 3, 3\)"),
        ("nan", r"blocks.1.mlp.fc1.bias .*NaN"),
        ("integers", r"1 tensors .*floating point: pretrained.norm.bias"),
        ("size key", r"pretrained.cls_token,.* is missing"),
        ("width", r"width.* 100"),
        ("unrelated", r"2 tensors .*: conv1.weight, fc.bias"),
        ("empty", r"empty state dict"),
    ],
)
def test_a_wrong_state_is_never_loaded(how, message, tmp_path):
    state = tiny_state()
    dpt.load(state, version=2)  # control: without the fault it loads
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


def test_errors_name_the_tensors_as_attributes():
    state = tiny_state()
    del state["pretrained.norm.bias"]
    state["pretrained.surprise"] = torch.zeros(1)
    state["depth_head.scratch.output_conv1.weight"] = torch.zeros(8, 16, 1, 1)
    state["pretrained.norm.weight"] = torch.zeros(128, dtype=torch.int64)
    with pytest.raises(CheckpointError) as caught:
        dpt.load(state, version=2)
    error = caught.value
    assert isinstance(error, dpt.DPTError)
    assert error.missing == ("pretrained.norm.bias",)
    assert error.unexpected == ("pretrained.surprise",)
    assert error.shapes == {"depth_head.scratch.output_conv1.weight": ((8, 16, 1, 1), (8, 16, 3, 3))}
    assert error.dtypes == {"pretrained.norm.weight": torch.int64}
    copied = pickle.loads(pickle.dumps(error))  # as on the way from a worker process
    assert (str(copied), vars(copied)) == (str(error), vars(error))


def test_missing_files_folders_and_wrong_types(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at 'nowhere.pth'"):
        dpt.load("nowhere.pth")
    with pytest.raises(CheckpointError, match="is a folder"):
        dpt.load(tmp_path)
    with pytest.raises(TypeError, match="got a loaded model"):
        dpt.load(tiny_model())
    with pytest.raises(TypeError, match=r"got a Linear.*state_dict\(\)"):
        dpt.load(torch.nn.Linear(1, 1))
    with pytest.raises(CheckpointError, match=r"without its configuration.*dpt.save\(model, path\)"):
        dpt.load(tiny_model().state_dict())
    with pytest.raises(TypeError, match="a path, 'demo' or a state dict, got int"):
        dpt.load(3)
    with pytest.raises(CheckpointError, match=r"version.* 3"):
        dpt.load(tiny_state(), version=3)
    with pytest.raises(CheckpointError, match=r"max_depth.* -1"):
        dpt.load(tiny_state(), version=2, max_depth=-1)


@pytest.mark.parametrize(
    ("name", "start", "kind"),
    [
        ("a.png", b"\x89PNG\r\n\x1a\n", "a PNG image"),
        ("a.h5", b"\x89HDF\r\n\x1a\n", "an HDF5 file, perhaps from Keras"),
        ("pyproject.toml", b"[project]\n", "not a checkpoint"),
        ("a.pt", b"hello there", "not a checkpoint"),
    ],
)
def test_files_that_are_not_checkpoints_are_named(name, start, kind, tmp_path):
    (tmp_path / name).write_bytes(start + bytes(100))
    with pytest.raises(CheckpointError, match=f"{name} is {kind}.*safetensors"):
        dpt.load(tmp_path / name)


def test_the_reason_of_a_refusal_is_shown_without_the_advice_of_torch(tmp_path):
    torch.save(torch.nn.Linear(1, 1), tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"torch.nn.modules.linear.Linear") as caught:
        dpt.load(tmp_path / "model.pth")
    assert "weights_only" not in str(caught.value)
    assert "trust" not in str(caught.value)


def test_a_folder_without_permission_is_not_called_missing(tmp_path, monkeypatch):
    def refuse(path, *arguments, **keywords):
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "locked").mkdir()
    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.iterdir", refuse)
        with pytest.raises(CheckpointError, match=r"locked .*Permission denied"):
            dpt.load(tmp_path / "locked")
    path = str(tmp_path / "locked" / "model.pth")
    with monkeypatch.context() as patched:
        patched.setattr("os.stat", refuse)
        with pytest.raises(PermissionError, match=f"{path} .*Permission denied") as caught:
            dpt.load(path)
    assert isinstance(caught.value, dpt.DPTError)


def test_our_own_keys_and_theirs_map_one_to_one():
    config = tiny_config()
    state = dpt.DPT(config).state_dict()
    mapped = keys.key_map(config)
    assert mapped.keys() == state.keys()
    assert len(set(mapped.values())) == len(mapped)
    assert not set(mapped.values()) & keys.unused(config).keys()


def test_inspect_reports_the_source_of_each_fact(tmp_path):
    path = tmp_path / "depth_anything_v2_metric_vkitti_vits.pth"
    torch.save(tiny_state(), path)
    found = dpt.inspect(path)
    assert [note.fact for note in found.notes] == ["version", "max_depth"]
    assert not any(note.assumed for note in found.notes)
    for note, value in zip(found.notes, ("version 2", "80 m"), strict=True):
        assert value in f"{note}"
        assert path.name in f"{note}"
    assert found.config.variant == "vit-128x4"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["da_v1_vitb", "da_v2_vitb", "da_v2_vitl", "da_v2_metric_vitl", "da_v2_vitg"])
def test_the_big_models_load_and_run(name):
    manifest = oracle.load_manifest(DATA / "manifests" / f"{name}.json")
    state = {k: 0.02 * torch.randn(t["shape"]) for k, t in manifest["tensors"].items()}
    model = dpt.load(state, version=1 if "v1" in name else 2)
    assert torch.isfinite(model(pictures(1, 98, 126))).all()
