"""mmap=True uses the weights in place, and refuses to go on when the file was changed."""

from __future__ import annotations

import copy
import gc
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import dpt
from dpt import CheckpointError
from dpt.checkpoints.mapped import ChangedFileError, Guard
from dpt.checkpoints.values import Values
from dpt.fingerprint import fingerprint
from tests.dpt.test_values import FORMATS, original, same, truncated, write_own, zeroed
from tests.models import pictures, tiny_model

X = pictures(1, 42, 56)


@pytest.fixture
def path(tmp_path) -> Path:
    return write_own(tiny_model(), tmp_path)


def is_mapped(tensor: torch.Tensor, path: Path) -> bool:
    """Whether the address lies in a map of the file."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, _, end = line.split()[0].partition("-")
        if int(start, 16) <= tensor.data_ptr() < int(end, 16):
            return line.endswith(str(path))
    return False


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc")
def test_weights_are_used_in_place_only_on_request(path):
    mapped, owned, converted = dpt.load(path, mmap=True), dpt.load(path), dpt.load(path, mmap=True, dtype=torch.float16)
    assert all(is_mapped(tensor, path) for tensor in mapped.parameters())
    assert not any(is_mapped(tensor, path) for tensor in (*owned.parameters(), *converted.parameters()))


@pytest.mark.parametrize("name", FORMATS)
def test_a_mapped_model_has_the_same_weights(name, tmp_path):
    model = tiny_model()
    source = FORMATS[name](model, tmp_path)
    mapped = dpt.load(source, mmap=True)
    assert same(mapped, model.state_dict())
    assert torch.allclose(mapped(X), model(X), atol=1e-5)  # the alignment of a weight decides the order of its sums
    with torch.no_grad():
        mapped.head.conv3.bias.add_(1.0)  # changes this process's memory, not the file
    assert same(dpt.load(source), model.state_dict())


def test_a_mapped_state_dict_can_be_saved_by_others(path, tmp_path):
    model = dpt.load(path, mmap=True)
    torch.save(model.state_dict(), tmp_path / "a.pth")
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    assert (tmp_path / "a.pth").stat().st_size < 1.5 * path.stat().st_size
    assert same(model, load_file(tmp_path / "a.safetensors"))


USES = {
    "a pass": lambda model: model(X),
    "a part": lambda model: model.patch_embed(X),
    "its state dict": lambda model: model.state_dict(),
    "a copy": copy.deepcopy,
    "a pickle": pickle.dumps,
    "its fingerprint": fingerprint,
}


def with_its_old_time(path: Path) -> None:
    before = path.stat()
    zeroed(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("spoil", [zeroed, truncated, with_its_old_time])
@pytest.mark.parametrize("use", USES)
def test_a_changed_file_is_noticed_and_refused(use, spoil, path, tmp_path):
    model, owner = dpt.load(path, mmap=True), dpt.load(path)
    USES[use](model)  # control
    spoil(path)
    with pytest.raises(ChangedFileError, match=str(path)) as caught:
        USES[use](model)
    assert isinstance(caught.value, dpt.DPTError)
    with pytest.raises(ChangedFileError):
        dpt.save(model, tmp_path / "again.safetensors")
    USES[use](owner)  # a model that owns its memory does not notice
    assert same(owner, tiny_model().state_dict())


def test_a_file_that_changes_during_a_pass_is_noticed_at_its_end(path):
    model = dpt.load(path, mmap=True)
    handle = model.encoder.register_forward_hook(lambda *_: zeroed(path))
    with pytest.raises(ChangedFileError):
        model(X)
    handle.remove()


def replaced(path: Path) -> None:
    dpt.save(tiny_model(seed=5), path)


@pytest.mark.parametrize("touch", [replaced, Path.unlink, lambda p: p.chmod(0o400), lambda p: p.rename(f"{p}.moved")])
def test_a_file_whose_bytes_stay_is_not_refused(touch, path):
    model = dpt.load(path, mmap=True)
    before = model(X)
    touch(path)
    assert torch.equal(model(X), before)


def test_copies_and_conversions_own_their_memory(path):
    model = dpt.load(path, mmap=True)
    copied, unpickled = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    converted = copy.deepcopy(model)
    model.double()  # leaves the map
    zeroed(path)
    for each in (copied, unpickled, converted):
        each(X)
        assert same(each, tiny_model().state_dict())
    model(X.double())
    assert same(model, {key: tensor.double() for key, tensor in tiny_model().state_dict().items()})


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc")
def test_the_descriptor_is_closed_with_the_model(path):
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    model = dpt.load(path, mmap=True)
    assert len(os.listdir("/proc/self/fd")) > before
    del model
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc")
def test_loading_leaves_no_descriptor_open(path, tmp_path):
    torch.save(original(tiny_model()), tmp_path / "depth_anything_v2.pth")
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    models = [dpt.load(path), dpt.load(tmp_path / "depth_anything_v2.pth")]
    dpt.inspect(path)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(dpt.CheckpointError):
        dpt.load(damaged)
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(models) == 2


def test_a_model_that_owns_its_memory_has_no_hooks(path):
    model = dpt.load(path)
    hooks = [h for m in model.modules() for h in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]
    assert hooks == []
    mapped = dpt.load(path, mmap=True)
    assert any(isinstance(h, Guard) for h in mapped._forward_pre_hooks.values())


def test_mmap_is_true_or_false(path):
    with pytest.raises(TypeError, match="mmap must be True or False, got 'yes'"):
        dpt.load(path, mmap="yes")


@pytest.mark.parametrize("convert", [torch.nn.Module.half, torch.nn.Module.double, torch.nn.Module.share_memory])
def test_changed_weights_are_not_converted(convert, path):
    """A converted model no longer uses the file, so nothing would notice the change later."""
    model = dpt.load(path, mmap=True)
    zeroed(path)
    with pytest.raises(ChangedFileError, match=str(path)):
        convert(model)


def test_weights_that_were_converted_before_the_change_are_the_models_own(path):
    model = dpt.load(path, mmap=True).half()
    path.write_bytes(b"")
    assert same(model, tiny_model().half().state_dict())


def test_a_file_that_is_truncated_while_it_is_loaded_does_not_kill_the_process(path, monkeypatch):
    read = Values.read

    def truncate(self, *arguments):
        os.truncate(path, 5000)
        return read(self, *arguments)

    monkeypatch.setattr(Values, "read", truncate)
    with pytest.raises(CheckpointError, match="was changed while it was read"):
        dpt.load(path, mmap=True)
