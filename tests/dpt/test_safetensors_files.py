"""Headers of safetensors files are read strictly, and as the library safetensors reads them."""

from __future__ import annotations

import json
import struct
import time

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import dpt
from dpt import CheckpointError
from dpt.checkpoints import safetensors_files
from dpt.checkpoints.safetensors_files import read_header
from dpt.checkpoints.stored import StoredFile
from dpt.checkpoints.values import Values
from tests.dpt.test_values import NAME, original, same
from tests.models import tiny_model

EMPTY = b'{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'


def written(path, header: bytes, data: bytes = b"", length: int | None = None):
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + data)
    return path


def test_the_header_agrees_with_the_library(tmp_path):
    dtypes = [d for d in safetensors_files.DTYPES.values() if d is not torch.complex64]
    state = {f"{n}": torch.arange(6).view(2, 3).to(dtype) for n, dtype in enumerate(dtypes)}
    state |= {"scalar": torch.tensor(1.0), "empty": torch.zeros(0, 3)}
    save_file(state, tmp_path / "a.safetensors", {"format": "pt", "note": "ü"})
    with StoredFile(tmp_path / "a.safetensors") as file, safe_open(tmp_path / "a.safetensors", "pt") as library:
        tensors, places, metadata = read_header(file)
        assert metadata == library.metadata()
        assert set(tensors) == set(library.keys())
        for key, tensor in tensors.items():
            expected = library.get_tensor(key)
            assert (tensor.shape, tensor.dtype, tensor.device.type) == (expected.shape, expected.dtype, "meta")
            place = places[id(tensor)]
            assert file.read(place.start, place.size) == expected.view(-1).view(torch.uint8).numpy().tobytes()


BOMBS = {
    "a header of 9 MB": b'{"__metadata__":{"a":"' + b"x" * 9_000_000 + b'"}}',
    "150,000 empty tensors": b"{" + b",".join(b'"%d":' % n + EMPTY for n in range(150_000)) + b"}",
    "a deep header": b'{"a":' * 400_000 + b"1" + b"}" * 400_000,
    "a product that overflows": b'{"a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,0]}}',
    "a product beside a size of 0": b'{"a":{"dtype":"F32","shape":[0,2305843009213693952,8],"data_offsets":[0,0]}}',
    "a number of 5,000 digits": b'{"a":{"dtype":"F32","shape":[1' + b"0" * 5000 + b'],"data_offsets":[0,0]}}',
    "a tensor of 10^15 numbers": b'{"a":{"dtype":"U8","shape":[1000000000000000],"data_offsets":[0,1000000000000000]}}',
    "a shape of 1,000 dimensions": b'{"a":{"dtype":"U8","shape":[' + b"0," * 999 + b'0],"data_offsets":[0,0]}}',
    "sizes that are not numbers": b'{"a":{"dtype":"F32","shape":[true],"data_offsets":[0,4]}}',
    "a dtype that is not text": b'{"a":{"dtype":[],"shape":[1],"data_offsets":[0,4]}}',
    "a name twice": b'{"a":' + EMPTY + b',"a":' + EMPTY + b"}",
}  # fmt: skip


@pytest.mark.parametrize("what", BOMBS)
def test_a_bomb_is_refused_in_seconds(what, tmp_path):
    path = written(tmp_path / f"{NAME}.safetensors", BOMBS[what])
    start = time.monotonic()
    for function in (dpt.inspect, dpt.load):
        with pytest.raises(CheckpointError, match=str(path)) as caught:
            function(path)
        assert "\n" not in str(caught.value)
    assert time.monotonic() - start < 15


@pytest.mark.parametrize("length", [0, 1, 2**24, 2**62, 2**64 - 1])
def test_a_wrong_length_of_the_header_is_refused(length, tmp_path):
    with pytest.raises(CheckpointError, match="not a complete safetensors file"):
        dpt.load(written(tmp_path / "a.safetensors", b"{}", length=length))


def test_a_model_of_many_empty_blocks_is_refused_in_seconds(tmp_path):
    """Each key is plausible. Describing a block takes a millisecond, and a header can name thousands."""
    state = original(tiny_model())
    block = [key for key in state if ".blocks.0." in key]
    for n in range(4, 1000):
        state |= {key.replace(".blocks.0.", f".blocks.{n}."): torch.zeros(0) for key in block}
    save_file(state, tmp_path / f"{NAME}.safetensors")
    start = time.monotonic()
    with pytest.raises(CheckpointError, match=r"blocks\.\d+"):
        dpt.load(tmp_path / f"{NAME}.safetensors")
    assert time.monotonic() - start < 15


def test_a_header_whose_length_reads_as_html_is_no_web_page(tmp_path):
    """15,392 bytes are 0x3c20 in little endian: a space and "<"."""
    model = tiny_model()
    save_file(original(model), tmp_path / "a.safetensors")
    content = (tmp_path / "a.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    assert length < 0x3C20
    padded = json.dumps(header, separators=(",", ":")).encode().ljust(0x3C20)
    path = written(tmp_path / f"{NAME}.safetensors", padded, content[8 + length :])
    assert path.read_bytes()[:2] == b" <"
    assert same(dpt.load(path), model.state_dict())


def test_a_page_of_a_server_is_named(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"<!DOCTYPE html><html>{")
    with pytest.raises(CheckpointError, match="web page"):
        dpt.load(tmp_path / "a.safetensors")


def test_values_end_where_the_header_says(tmp_path, monkeypatch):
    """A file that shrinks after its header was read is refused, with any method of reading. The reason is said."""
    path = tmp_path / f"{NAME}.safetensors"
    save_file(original(tiny_model()), path)
    read = Values.read

    def shrink(self, *arguments):
        path.write_bytes(path.read_bytes()[:2000]) if path.stat().st_size > 2000 else None
        return read(self, *arguments)

    monkeypatch.setattr(Values, "read", shrink)
    with pytest.raises(CheckpointError, match="was changed while it was read"):
        dpt.load(path)
