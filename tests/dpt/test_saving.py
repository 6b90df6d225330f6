"""dpt.load restores exactly what dpt.save wrote, and refuses a file that was changed."""

from __future__ import annotations

import json
import os
import zlib

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import dpt
from dpt import CheckpointError
from dpt.checkpoints import saving
from tests.models import OBLONG, TINY, pictures, tiny_model

CHANGES = {
    "v2": {},
    "v1": {"version": 1, "depth": 8},
    "metric": {"max_depth": 20.0},
    "metric, whole number": {"max_depth": 80},
    "giant's MLP": {"swiglu": True, "hidden": 96},
}


def read(path):
    """(metadata, tensors) of a saved file."""
    with safe_open(path, framework="pt") as file:
        return file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping


def rewrite(path, change, checksum=True):
    """Change the configuration of a saved file. checksum: also store the checksum that matches the change."""
    metadata, state = read(path)
    config = json.loads(metadata["config"])
    change(config)
    metadata["config"] = json.dumps(config)
    if checksum:
        metadata["checksum"] = saving._checksum(metadata["config"], state)
    save_file({key: tensor.clone() for key, tensor in state.items()}, path, metadata)


def assert_same(a: dpt.DPT, b: dpt.DPT):
    assert a.config == b.config
    assert type(a.config) is type(b.config)
    for (key, x), (other, y) in zip(a.state_dict().items(), b.state_dict().items(), strict=True):
        assert (key, x.dtype) == (other, y.dtype)
        assert torch.equal(x, y)


@pytest.mark.parametrize("changes", CHANGES)
def test_a_model_is_reloaded_exactly(changes, tmp_path):
    model = tiny_model(seed=3, **CHANGES[changes])
    dpt.save(model, tmp_path / "model.safetensors")
    again = dpt.load(tmp_path / "model.safetensors")
    assert_same(again, model)
    assert not again.training
    assert not any(p.requires_grad for p in again.parameters())
    dpt.save(again, tmp_path / "twice.safetensors")
    assert_same(dpt.load(tmp_path / "twice.safetensors"), model)
    (note,) = dpt.inspect(tmp_path / "twice.safetensors").notes
    assert (note.fact, note.assumed) == ("configuration", False)
    assert "dpt.save" in str(note)


@pytest.mark.parametrize("family", TINY)
def test_models_of_every_family_are_reloaded(family, tmp_path):
    model = TINY[family](seed=1)
    dpt.save(model, tmp_path / "model.safetensors")
    again = dpt.load(tmp_path)
    assert_same(again, model)
    x = pictures(1, *OBLONG[family])
    assert torch.equal(again(x), model(x))


def test_every_family_can_be_saved():
    configs = {cls for cls in vars(dpt).values() if isinstance(cls, type) and issubclass(cls, dpt.Config)}
    assert set(saving.CONFIGS.values()) == configs - {dpt.Config}
    assert {TINY[family]().config.family for family in TINY} == saving.CONFIGS.keys()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_dtype_is_kept_unless_another_is_requested(dtype, tmp_path):
    model = tiny_model().to(dtype)
    dpt.save(model, tmp_path / "model.safetensors")
    assert_same(dpt.load(tmp_path), model)
    assert {p.dtype for p in dpt.load(tmp_path, dtype=torch.float32).parameters()} == {torch.float32}


def test_the_header_states_format_and_configuration(tmp_path):
    model = tiny_model()
    dpt.save(model, tmp_path / "model.safetensors")
    metadata, state = read(tmp_path / "model.safetensors")
    assert metadata["format"] == "dpt-workbench model 1"
    config = json.loads(metadata["config"])
    assert (config["family"], config["version"], config["max_depth"]) == ("depth-anything", 2, None)
    assert config["preprocess"]["mean"] == [0.485, 0.456, 0.406]
    assert state.keys() == model.state_dict().keys()
    (tmp_path / "any").touch()
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "any").stat().st_mode


def test_a_failed_save_leaves_the_old_file_and_no_temporary(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    dpt.save(tiny_model(), path)
    before = path.read_bytes()

    def full(state, file, metadata):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        dpt.save(tiny_model(seed=1), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model.safetensors"]
    monkeypatch.undo()
    old = dpt.load(path)
    dpt.save(tiny_model(seed=1), path)  # control: without the fault the file is replaced
    assert path.read_bytes() != before
    assert_same(old, tiny_model())  # a loaded model does not depend on its file


def test_wrong_arguments_of_save_are_refused(tmp_path):
    with pytest.raises(TypeError, match=r"dpt.DPT, got OrderedDict"):
        dpt.save(tiny_model().state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"\.safetensors.* got .*model\.pth"):
        dpt.save(tiny_model(), tmp_path / "model.pth")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        dpt.save(tiny_model(), tmp_path / "nowhere" / "model.safetensors")


def test_arguments_must_not_contradict_the_file(tmp_path):
    dpt.save(tiny_model(max_depth=20.0), tmp_path / "model.safetensors")
    assert dpt.load(tmp_path, version=2, max_depth=20).config.max_depth == 20.0
    with pytest.raises(CheckpointError, match="saved with version=2, got version=1"):
        dpt.load(tmp_path, version=1)
    with pytest.raises(CheckpointError, match=r"saved with max_depth=20.0, got max_depth=80.0"):
        dpt.load(tmp_path, max_depth=80.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(family="vggt"), "family 'vggt', expected depth-anything"),
        (lambda c: c.pop("family"), "family None"),
        (lambda c: c.update(family=["beit"]), r"family \['beit'\]"),
        (lambda c: c.pop("taps"), "configuration lacks taps"),
        (lambda c: c.update(registers=4), "configuration .*registers"),
        (lambda c: c.update(width="128"), "width is '128', expected int"),
        (lambda c: c.update(width=True), "width is 'True', expected int"),
        (lambda c: c.update(depth=4.0), r"depth is '4.0', expected int"),
        (lambda c: c.update(swiglu=1), "swiglu is '1', expected bool"),
        (lambda c: c.update(max_depth="20"), "max_depth is '20', expected float"),
        (lambda c: c.update(max_depth=float("nan")), "not JSON .*NaN"),
        (lambda c: c.update(taps=[0, 1, 2]), r"taps is '\[0, 1, 2\]', expected"),
        (lambda c: c.update(taps=[0, 1, 2, "3"]), r"taps\[3\] is '3', expected int"),
        (lambda c: c.update(preprocess=None), "preprocess is a NoneType"),
        (lambda c: c["preprocess"].update(method="other"), "preprocess: method is 'other', expected"),
        (lambda c: c["preprocess"].update(std=[0, 0, 0]), "preprocess: std"),
        (lambda c: c.update(depth=10**9), "1000000000 blocks"),
        (lambda c: c.update(width=0), "no model .* its sizes"),
        (lambda c: c.update(width=10**18), "no model .* its sizes|wrong shape"),
        (lambda c: c.update(width=192), "tensors have the wrong shape"),
        (lambda c: c.update(depth=3), "tensors do not belong to it"),
    ],
)
def test_the_configuration_is_read_strictly(change, message, tmp_path):
    path = tmp_path / "model.safetensors"
    dpt.save(tiny_model(), path)
    rewrite(path, lambda config: None)
    dpt.load(path)  # control: rewritten without a change
    rewrite(path, change)
    with pytest.raises(CheckpointError, match=message) as caught:
        dpt.load(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_the_checksum_finds_a_changed_configuration(tmp_path):
    path = tmp_path / "model.safetensors"
    dpt.save(tiny_model(), path)
    rewrite(path, lambda c: c["preprocess"].update(mean=[0.485, 0.456, 0.407]), checksum=False)
    with pytest.raises(CheckpointError, match=r"is damaged: .*checksum"):
        dpt.load(path)


def test_the_checksum_finds_a_flipped_bit_in_a_weight(tmp_path):
    path = tmp_path / "model.safetensors"
    dpt.save(tiny_model(), path)
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"is damaged: .*checksum"):
        dpt.load(path)


def test_the_error_shows_the_format_of_a_newer_file(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"x": torch.zeros(1)}, path, {"format": "dpt-workbench model 2"})
    with pytest.raises(CheckpointError, match="'dpt-workbench model 2', expected 'dpt-workbench model 1'"):
        dpt.load(path)


def test_the_checksum_is_plain_crc32():
    """Other programs can compute it over the configuration, then key, dtype, shape and values of each tensor."""
    state = {"b": torch.arange(3.0), "a": torch.ones(1, 2, dtype=torch.float16)}
    text = b'{"family": 1}' + b"a torch.float16 (1, 2)" + state["a"].numpy().tobytes()
    text += b"b torch.float32 (3,)" + state["b"].numpy().tobytes()
    assert saving._checksum('{"family": 1}', state) == f"{zlib.crc32(text):08x}"
