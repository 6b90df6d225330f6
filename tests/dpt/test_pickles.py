"""Pickles are read as data: what they cost is bounded, and what they claim is compared with what is stored.

The bombs are small files that take gigabytes or forever with torch.load(weights_only=True).
"""

from __future__ import annotations

import io
import struct
import time
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

import dpt
from dpt import CheckpointError
from dpt.checkpoints import pickles
from dpt.checkpoints.pickle_values import Inert, RefusedError, View
from dpt.checkpoints.pickles import Reader
from tests.dpt.test_values import NAME, original, same
from tests.models import tiny_model

SECONDS = 20  # on a busy machine; each takes well below one


def pickled(instructions: bytes) -> bytes:
    return b"\x80\x02" + instructions + b"."


def text(value: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value


def archive(path: Path, data: bytes, **entries: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as target:
        target.writestr("archive/data.pkl", data)
        for name, content in entries.items():
            target.writestr(f"archive/data/{name.removeprefix('_')}", content)
    return path


def doubled(times: int) -> bytes:
    """A tuple of two references to a tuple of two references to ..."""
    steps = b"".join(b"h" + bytes([n]) + b"h" + bytes([n]) + b"\x86q" + bytes([n + 1]) for n in range(times))
    return b"(" + text(b"a") + b"q\x00" + steps + b"t"


def storage(elements: int, kind: bytes = b"FloatStorage", key: bytes = b"0") -> bytes:
    number = b"\x8a\x08" + struct.pack("<q", elements)
    return b"(" + text(b"storage") + b"ctorch\n" + kind + b"\n" + text(key) + text(b"cpu") + number + b"tQ"


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(b"\x8a\x08" + struct.pack("<q", value) for value in values) + b"t"


def tensor(shape: tuple[int, ...], stride: tuple[int, ...], elements: int, offset: int = 0) -> bytes:
    arguments = storage(elements) + numbers((offset,))[1:-1] + numbers(shape) + numbers(stride) + b"\x89N"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


def read(instructions: bytes) -> object:
    return Reader(io.BytesIO(pickled(instructions))).read()


BOMBS = {
    "a key that takes years to hash": b"}" + doubled(45) + b"K\x01s",
    "a value that takes years to print": b"}" + text(b"x") + doubled(45) + b"s",
    "a tuple that takes years to print": doubled(45),
    "a list as a key": b"}]K\x01s",
    "a tuple in a tuple as a key": b"}" + b"K\x01\x85\x85" + b"K\x01s",
    "nested lists": b"]" * 1_500_000 + b"a" * 1_499_999,
    "marks": b"(" * 1_500_000,
    "a list that is copied again and again": b"ccollections\nOrderedDict\nq\x00]q\x01("
    + b"K\x01K\x02\x86" * 1000
    + b"e"
    + b"h\x00h\x01\x85R" * 100_000,
    "text of 4 GB": b"}X\xff\xff\xff\xff",
    "30,000 tensors": b"}(" + b"".join(text(b"%d" % n) + tensor((1,), (1,), 1) for n in range(30_000)) + b"u",
}


@pytest.mark.parametrize("what", BOMBS)
@pytest.mark.parametrize("legacy", [False, True])
def test_a_bomb_is_refused_in_seconds(what, legacy, tmp_path):
    path = tmp_path / "bomb.pth"
    if legacy:
        torch.save({}, path, _use_new_zipfile_serialization=False)
        head = path.read_bytes()
        at = head.index(b"\x80\x02}q\x00.") if b"\x80\x02}q\x00." in head else head.rindex(b"\x80\x02}")
        path.write_bytes(head[:at] + pickled(BOMBS[what]) + pickled(b"]"))
    else:
        archive(path, pickled(BOMBS[what]), _0=bytes(4))
    start = time.monotonic()
    for function in (dpt.inspect, dpt.load):
        with pytest.raises(CheckpointError, match=str(path)) as caught:
            function(path)
        assert "\n" not in str(caught.value)
    assert time.monotonic() - start < SECONDS


def expanded(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.zeros(1, dtype=torch.float16).expand(shape)


CLAIMS = {
    "one number as a matrix": lambda s: expanded((40_000, 40_000)),
    "rows that overlap": lambda s: torch.arange(40_001.0).as_strided((20_000, 20_000), (1, 1)),
    "windows": lambda s: torch.zeros(100_000).unfold(0, 50_000, 1),
    "a row for all": lambda s: torch.zeros(1, 128).expand(500_000, 128),
}


@pytest.mark.parametrize("what", CLAIMS)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_tensor_must_not_claim_more_values_than_are_stored(what, zipped, tmp_path):
    path = tmp_path / f"{NAME}.pth"
    state = original(tiny_model())
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    dpt.load(path)  # control
    key = "pretrained.pos_embed"
    torch.save(state | {key: CLAIMS[what](state[key])}, path, _use_new_zipfile_serialization=zipped)
    for function in (dpt.inspect, dpt.load):
        with pytest.raises(CheckpointError, match=rf"{path}.*{key}.*more values than are stored"):
            function(path)


def test_expanded_weights_of_every_size_are_refused(tmp_path):
    """A file of 2 MB that claims a model of 600 million parameters."""
    sizes = {128: 16_384, 384: 3 * 16_384, 512: 4 * 16_384}
    wide = {
        key: expanded([sizes.get(size, size) for size in tensor.shape])
        for key, tensor in original(tiny_model()).items()
    }
    torch.save(wide, tmp_path / f"{NAME}.pth")
    with pytest.raises(CheckpointError, match="more values than are stored"):
        dpt.load(tmp_path / f"{NAME}.pth")


def test_many_tensors_of_one_storage_are_refused(tmp_path):
    """Each tensor is plausible. Together they claim many times what is stored."""
    state = original(tiny_model())
    shared = torch.randn(max(tensor.numel() for tensor in state.values()))
    torch.save({key: shared[: tensor.numel()].view(tensor.shape) for key, tensor in state.items()}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"claims \d+ bytes of weights, but only \d+ bytes are stored"):
        dpt.load(tmp_path / "a.pth", version=2)


def test_two_tensors_may_share_a_storage(tmp_path):
    model = tiny_model()
    state = original(model)
    state["pretrained.blocks.1.norm1.weight"] = state["pretrained.blocks.0.norm1.weight"]
    torch.save(state, tmp_path / f"{NAME}.pth")
    loaded = dpt.load(tmp_path / f"{NAME}.pth")
    first, second = (loaded.encoder.blocks[n].norm1.weight for n in (0, 1))
    assert torch.equal(first, second)
    assert first.data_ptr() != second.data_ptr()


@pytest.mark.parametrize("elements", [1, 3, 2**40, 2**59])
def test_a_storage_of_another_size_is_refused_before_it_is_allocated(elements, tmp_path):
    shape = (elements,)
    path = archive(tmp_path / "a.pth", pickled(b"}" + text(b"x") + tensor(shape, (1,), elements) + b"s"), _0=bytes(8))
    with pytest.raises(CheckpointError, match=rf"a tensor claims {4 * elements} bytes, and 8 are stored"):
        dpt.load(path)


@pytest.mark.parametrize("count", [-1, 2, 2**44, 2**62])
def test_the_older_format_must_not_claim_more_than_the_file_has(count, tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"x": torch.zeros(4)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    path.write_bytes(content[:-24] + struct.pack("<q", count) + content[-16:])
    with pytest.raises(CheckpointError, match=r"claims|is damaged"):
        dpt.load(path)


@pytest.mark.parametrize("shape", [(0, 2**61, 2**61), (2**61, 0), (2**61, 2**61), (1,) * 33])
def test_shapes_that_no_tensor_can_have_are_refused(shape, tmp_path):
    data = pickled(b"}" + text(b"pretrained.x") + tensor(shape, (1,) * len(shape), 1) + b"s")
    with pytest.raises(CheckpointError):
        dpt.load(archive(tmp_path / "a.pth", data, _0=bytes(4)))


# ----------------------------------------------------------------------------------------------- what is understood


def test_everything_that_torch_save_writes_is_read_without_its_values(tmp_path):
    content = {
        "dict": {"a": 1, 2: 2.5, True: None, (1, "x"): [1, (2, 3), "t"]},
        "ordered": OrderedDict(a=torch.zeros(2, 3), b=torch.ones(())),
        "parameter": torch.nn.Parameter(torch.zeros(4)),
        "half": torch.zeros(3, dtype=torch.float16),
        "unsigned": torch.zeros(3, dtype=torch.uint16),
        "big": 2**70,
        "negative": -5,
        "size": torch.Size([1, 2]),
        "device": torch.device("cpu"),
        "complex": 1 + 2j,
        "bytes": bytearray(b"x"),
        "set": {1, 2},
    }
    for zipped in (True, False):
        path = tmp_path / "a.pt"
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        if zipped:
            with zipfile.ZipFile(path) as source:
                data = io.BytesIO(source.read("a/data.pkl"))
        else:
            data = io.BytesIO(path.read_bytes())
            for _ in range(3):
                Reader(data).read()
        reader = Reader(data)
        found = reader.read()
        assert found["dict"] == content["dict"]
        assert (found["big"], found["negative"], found["size"]) == (2**70, -5, (1, 2))
        assert isinstance(found["ordered"], dict)
        for name, like in (("parameter", content["parameter"]), ("half", content["half"]), ("unsigned", None)):
            assert found[name].is_meta
            if like is not None:
                assert (found[name].shape, found[name].dtype) == (like.shape, like.dtype)
        assert found["ordered"]["a"].shape == (2, 3)
        assert {type(found[name]) for name in ("device", "complex", "bytes", "set")} == {Inert}
        places = [place for _, place in reader.tensors]
        assert len(places) == 5
        assert all(isinstance(place, View) for place in places)


def test_numpy_numbers_beside_the_weights_are_ignored(tmp_path):
    import numpy as np

    model = tiny_model()
    content = {"model": original(model), "best": np.float64(0.5), "epoch": np.int64(3), "curve": np.arange(3)}
    torch.save(content, tmp_path / f"{NAME}.pth")
    assert same(dpt.load(tmp_path / f"{NAME}.pth"), model.state_dict())


@pytest.mark.parametrize(
    ("instructions", "name"),
    [
        (b"cposix\nsystem\n" + text(b"true") + b"\x85R", "posix.system"),
        (b"c__builtin__\neval\n" + text(b"1") + b"\x85R", "eval"),
        (b"cbuiltins\ngetattr\n", "getattr"),
        (b"ctorch\nload\n", "torch.load"),
        (b"ctorch._utils\n_rebuild_tensor_v9\n", "torch._utils._rebuild_tensor_v9"),
        (b"cdpt.checkpoints.pickles\nReader\n", "dpt.checkpoints.pickles.Reader"),
        (b"c\x1b[31mred\nname\n", r"\x1b[31mred.name"),
    ],
)
def test_an_unknown_name_is_refused_by_name(instructions, name):
    with pytest.raises(RefusedError) as caught:
        read(instructions)
    assert name in str(caught.value)


def test_names_are_not_imported(monkeypatch):
    def fail(*arguments, **keywords):
        raise AssertionError("imported")

    monkeypatch.setattr("builtins.__import__", fail)
    with pytest.raises(RefusedError):
        read(b"cantigravity\nfly\n")


@pytest.mark.parametrize(
    "instructions",
    [
        b"",
        b"h\x07",
        b"R",
        b"K\x01R",
        b"s",
        b"}s",
        b"t",
        b"\x87",
        b"(",
        b"K\x01K\x02",
        b"K",
        b"}(K\x01u",
        b"K\x01b",
        b"0",
    ],
)
def test_a_damaged_pickle_raises_an_error(instructions):
    with pytest.raises((RefusedError, EOFError, ValueError, IndexError, KeyError, TypeError)):
        read(instructions)


def test_the_limits_leave_room_for_the_largest_training_file():
    """ViT-G has 741 tensors; with gradients' moments of AdamW it is saved with three times as many."""
    state = {f"pretrained.blocks.{n}.mlp.weight": torch.zeros(1) for n in range(741)}
    moments = {
        n: {"exp_avg": torch.zeros(1), "exp_avg_sq": torch.zeros(1), "step": torch.zeros(())} for n in range(741)
    }
    data = io.BytesIO()
    torch.save({"model": state, "optimizer": {"state": moments}, "losses": [0.5] * 100_000}, data)
    with zipfile.ZipFile(data) as source:
        content = source.read("archive/data.pkl")
    reader = Reader(io.BytesIO(content))
    reader.read()
    assert len(reader.tensors) == 4 * 741 < pickles.MOST_TENSORS / 5
    assert len(content) < pickles.LARGEST / 5


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_other_protocols_of_torch_save(protocol, tmp_path):
    saved = {
        "model": original(tiny_model()),
        "bytes": b"x",
        "set": {1, 2},
        "frozen": frozenset((3,)),
        "text": "é" * 300,
    }
    path = tmp_path / f"{NAME}.pth"
    torch.save(saved, path, pickle_protocol=protocol)
    assert same(dpt.load(path), tiny_model().state_dict())


def test_what_training_programs_log_beside_the_weights(tmp_path):
    """Long lists of numbers, and keys that are not restored."""
    log = {"losses": [0.37 * n for n in range(400_000)], "steps": list(range(70_000, 800_000))}
    log |= {"by": {np.int64(3): 1, b"k": 2, torch.float32: 3, (1, b"x"): 4, frozenset((5,)): 6}}
    path = tmp_path / f"{NAME}.pth"
    torch.save({"model": original(tiny_model()), "log": log}, path)
    assert same(dpt.load(path), tiny_model().state_dict())


def test_instructions_are_limited_by_the_bytes_that_they_have():
    with pytest.raises(RefusedError, match="1000000 instructions"):
        Reader(io.BytesIO(pickled(b"N" * 1_400_000))).read()
