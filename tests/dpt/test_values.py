"""A loaded model owns its memory: what happens to the file later does not reach it, and loading takes no second copy.

Each format is written, loaded, and overwritten in place. A mapped file is the control that the overwriting reaches.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import dpt
from dpt import CheckpointError
from dpt.checkpoints import depth_anything
from dpt.checkpoints.stored import StoredFile
from dpt.checkpoints.values import PIECE, Values
from tests.models import pictures, save_shards, tiny_beit, tiny_model, tiny_swinv2, to_transformers

NAME = "depth_anything_v2_tiny"
State = dict[str, torch.Tensor]


def original(model: dpt.DPT) -> State:
    return depth_anything.to_original(model.state_dict(), model.config)


def write_zip(model: dpt.DPT, folder: Path) -> Path:
    torch.save(original(model), folder / f"{NAME}.pth")
    return folder / f"{NAME}.pth"


def write_legacy(model: dpt.DPT, folder: Path) -> Path:
    torch.save(original(model), folder / f"{NAME}.pt", _use_new_zipfile_serialization=False)
    return folder / f"{NAME}.pt"


def write_safetensors(model: dpt.DPT, folder: Path) -> Path:
    save_file(original(model), folder / f"{NAME}.safetensors")
    return folder / f"{NAME}.safetensors"


def write_shards(model: dpt.DPT, folder: Path) -> Path:
    save_shards(original(model), folder, 3)
    return (folder / "model.safetensors.index.json").rename(folder / f"{NAME}.safetensors.index.json")


def write_transformers(model: dpt.DPT, folder: Path) -> Path:
    path = folder / f"{NAME}_hf.safetensors"
    save_file(to_transformers(original(model), "depth-anything"), path)
    return path


def write_own(model: dpt.DPT, folder: Path) -> Path:
    dpt.save(model, folder / "own.safetensors")
    return folder / "own.safetensors"


FORMATS: dict[str, Callable[[dpt.DPT, Path], Path]] = {
    "zip": write_zip,
    "legacy": write_legacy,
    "safetensors": write_safetensors,
    "shards": write_shards,
    "transformers": write_transformers,
    "dpt.save": write_own,
}


def weights_in(path: Path) -> list[Path]:
    """The files with weights of a checkpoint."""
    return [file for file in path.parent.iterdir() if file.is_file() and file.suffix != ".json"]


def same(model: dpt.DPT, state: State) -> bool:
    return all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())


def zeroed(path: Path) -> None:
    """Writes zeros over a file, in place, as cp, rsync --inplace and torch.save write."""
    with open(path, "r+b") as file:
        file.write(bytes(path.stat().st_size))


def truncated(path: Path) -> None:
    os.truncate(path, 0)


@pytest.mark.parametrize("spoil", [zeroed, truncated])
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_loaded_model_keeps_its_weights_when_the_file_is_overwritten(name, dtype, spoil, tmp_path):
    model, x = tiny_model(), pictures(1, 42, 56)
    path = FORMATS[name](model, tmp_path)
    loaded = dpt.load(path, dtype=dtype)
    before = loaded(x.to(dtype))
    for file in weights_in(path):
        spoil(file)
    assert same(loaded, {key: tensor.to(dtype) for key, tensor in model.state_dict().items()})
    assert torch.equal(loaded(x.to(dtype)), before)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_depth_bit_by_bit(name, tmp_path):
    model, x = tiny_model(), pictures(1, 42, 56)
    assert torch.equal(dpt.load(FORMATS[name](model, tmp_path))(x), model(x))


@pytest.mark.parametrize("name", ["zip", "legacy", "safetensors"])
def test_weights_can_be_saved_over_the_file_they_came_from(name, tmp_path):
    path = FORMATS[name](tiny_model(), tmp_path)
    model = dpt.load(path)
    with torch.no_grad():
        model.head.conv3.bias.add_(1.0)
    expected = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    FORMATS[name](model, tmp_path)
    assert same(model, expected)
    assert same(dpt.load(path), expected)


@pytest.mark.parametrize("mmap", [False, True])
def test_a_model_can_be_saved_over_its_own_file(mmap, tmp_path):
    path = write_own(tiny_model(), tmp_path)
    model = dpt.load(path, mmap=mmap)
    with torch.no_grad():
        model.head.conv3.bias.add_(1.0)
    expected = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    dpt.save(model, path)
    assert same(model, expected)
    assert same(dpt.load(path), expected)
    model(pictures(1, 42, 56))  # the mapped file was replaced by a rename, not changed


MEASURED = """
import sys, torch, dpt
def status(field):
    (line,) = (line for line in open("/proc/self/status") if line.startswith(field))
    return int(line.split()[1]) * 1024
kept = [dpt.load("demo")]  # what is imported and made on first use; freed memory would be used again
for path in sys.argv[1:]:
    for dtype in (torch.float32, torch.float16, torch.float64):
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # resets the peak
        before = status("VmRSS")
        kept.append(dpt.load(path, dtype=dtype))
        weights = sum(tensor.nbytes for tensor in kept[-1].state_dict().values())
        print(path.split("/")[-2], dtype, round((status("VmHWM") - before) / weights, 3))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_loading_takes_hardly_more_memory_than_the_weights(tmp_path):
    model, paths = tiny_model(width=320, depth=8, hidden=1280), []
    for name, write in FORMATS.items():
        (tmp_path / name).mkdir()
        paths.append(str(write(model, tmp_path / name)))
    done = subprocess.run([sys.executable, "-c", MEASURED, *paths], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3 * len(FORMATS)
    assert all(0.8 < float(line.split()[-1]) < 1.15 for line in lines), done.stdout


# ------------------------------------------------------------------------------------ one descriptor, one content


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_is_replaced_after_it_was_opened_is_not_read(name, tmp_path, monkeypatch):
    """The weights come from the file whose header was checked."""
    model = tiny_model()
    path = FORMATS[name](model, tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    FORMATS[name](tiny_model(seed=5), other)
    read = Values.read

    def replace_first(self, *arguments):
        if other.exists():
            for file in weights_in(other / path.name):
                os.replace(file, path.parent / file.name)
            other.rename(tmp_path.parent / f"{tmp_path.name}-used")
        return read(self, *arguments)

    monkeypatch.setattr(Values, "read", replace_first)
    assert same(dpt.load(path), model.state_dict())
    monkeypatch.undo()
    assert same(dpt.load(path), tiny_model(seed=5).state_dict())  # control: the file was replaced


@pytest.mark.parametrize("moment", [1, 20])
@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_is_overwritten_while_it_is_read_is_refused(name, moment, tmp_path, monkeypatch):
    path = FORMATS[name](tiny_model(), tmp_path)
    files, calls = weights_in(path), []
    read_into = StoredFile.read_into

    def overwrite(self, start, target):
        read_into(self, start, target)
        if len(target) > 1000:
            calls.append(start)
            if len(calls) == moment:
                for file in files:
                    with open(file, "r+b") as handle:
                        handle.seek(-64, os.SEEK_END)
                        handle.write(bytes(64))
                    os.utime(file, ns=(1, file.stat().st_mtime_ns + 1_000_000_000))

    monkeypatch.setattr(StoredFile, "read_into", overwrite)
    with pytest.raises(CheckpointError, match=r"changed while it was read|checksum|is damaged"):
        dpt.load(path)


# ------------------------------------------------------------------------------------------- layouts of a tensor


def changed_layout(state: State, change: Callable[[torch.Tensor], torch.Tensor]) -> State:
    return {key: change(tensor) if tensor.ndim > 1 else tensor for key, tensor in state.items()}


def between_others(tensor: torch.Tensor) -> torch.Tensor:
    """A view of a larger storage."""
    whole = torch.full((tensor.shape[0] + 4, *tensor.shape[1:]), float("nan"))
    whole[2:-2] = tensor
    return whole[2:-2]


def every_second(tensor: torch.Tensor) -> torch.Tensor:
    return torch.stack([tensor, tensor + 1], dim=-1)[..., 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("change", [lambda t: t.mT.contiguous().mT, between_others, every_second])
def test_views_of_a_storage_are_read_as_they_are(change, dtype, tmp_path):
    model = tiny_model()
    path = tmp_path / f"{NAME}.pth"
    torch.save(changed_layout(original(model), change), path)
    assert same(dpt.load(path, dtype=dtype), {key: t.to(dtype) for key, t in model.state_dict().items()})


def test_parameters_of_one_flat_storage_are_read(tmp_path):
    model = tiny_model()
    state = original(model)
    flat = torch.cat([tensor.flatten() for tensor in state.values()])
    at, views = 0, {}
    for key, tensor in state.items():
        views[key] = flat[at : at + tensor.numel()].view(tensor.shape)
        at += tensor.numel()
    path = tmp_path / f"{NAME}.pth"
    torch.save(views, path)
    assert same(dpt.load(path), model.state_dict())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="checksum"):
        dpt.load(path)


def test_an_archive_of_a_big_endian_machine_is_read(tmp_path):
    import zipfile

    model = tiny_model()
    torch.save(original(model), tmp_path / "little.pth")
    path = tmp_path / f"{NAME}.pth"
    with zipfile.ZipFile(tmp_path / "little.pth") as source, zipfile.ZipFile(path, "w") as target:
        for entry in source.infolist():
            data = source.read(entry)
            if "/data/" in entry.filename:
                data = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(-1, 4).flip(1).numpy().tobytes()
            target.writestr(entry.filename, b"big" if entry.filename.endswith("byteorder") else data)
    assert same(dpt.load(path), model.state_dict())


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("wanted", [torch.float16, torch.bfloat16, torch.float32, torch.float64, None])
def test_values_are_converted_as_torch_converts_them(stored, wanted, tmp_path):
    state = {key: tensor.to(stored) for key, tensor in original(tiny_model()).items()}
    save_file(state, tmp_path / f"{NAME}.safetensors")
    found = dpt.load(tmp_path / f"{NAME}.safetensors", dtype=wanted)
    expected = dpt.load(state, version=2, dtype=wanted)
    assert same(found, expected.state_dict())
    assert {tensor.dtype for tensor in found.parameters()} == {wanted or torch.float32}


@pytest.mark.parametrize("where", [0, PIECE // 4 - 1, PIECE // 4, -1])
@pytest.mark.parametrize("name", ["zip", "legacy", "safetensors"])
def test_one_nan_is_found_in_every_piece_of_a_tensor(name, where, tmp_path):
    model = tiny_model(width=384, hidden=1536)
    weight = model.encoder.blocks[1].mlp.fc1.weight
    assert weight.nbytes > 2 * PIECE
    path = FORMATS[name](model, tmp_path)
    dpt.load(path)  # control
    with torch.no_grad():
        weight.view(-1)[where] = float("nan")
    FORMATS[name](model, tmp_path)
    with pytest.raises(CheckpointError, match=r"encoder.blocks.1.mlp.fc1.weight|blocks.1.mlp.fc1.weight"):
        dpt.load(path)


@pytest.mark.parametrize("make", [tiny_beit, tiny_swinv2])
def test_models_of_other_families_own_their_memory(make, tmp_path):
    model = make(seed=1)
    path = write_own(model, tmp_path)
    loaded = dpt.load(path)
    zeroed(path)
    assert same(loaded, model.state_dict())
