"""Hundreds of damaged checkpoints, drawn from a seed: each is refused in one line, or gives the saved model.

A mutation changes the file (bits, lengths, entries of archives) or the saved object (names, shapes, types, values).
Any other exception, a hang, or a model that differs from the saved one fails the test. One fault cannot be found and is
left out: a bit flipped inside a weight in formats without a checksum (plain safetensors and PyTorch's old format).
Loaders that are broken on purpose test the judge.
"""

from __future__ import annotations

import io
import json
import pickle
import random
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

import dpt
from dpt import CheckpointError
from dpt.checkpoints import beit, depth_anything, files, swinv2
from dpt.checkpoints.values import Values
from tests.models import save_shards, tiny_beit, tiny_model, tiny_swinv2, to_transformers

SEED = 20260101
NAME = "depth_anything_v2_tiny"  # gives version and range, which the tensors do not show
CONFIG = {
    "model_type": "depth_anything",
    "depth_estimation_type": "relative",
    "backbone_config": {"out_indices": [1, 2, 3, 4]},
}
CHECKED = ("zip", "ours")  # formats in which a checksum covers the weights
FAMILIES = {"depth-anything": depth_anything, "beit": beit, "swinv2": swinv2}
State = dict[str, torch.Tensor]


def control(family: str = "depth-anything") -> dpt.DPT:
    """The model that every case starts from."""
    if family == "beit":
        return tiny_beit(variant="128x4_80")
    if family == "swinv2":
        return tiny_swinv2(variant="32x7_64")
    return tiny_model(variant="vit-64x4", width=64, hidden=32, reassembly_channels=(4, 4, 4, 4), fusion_channels=8)


def original_state(family: str = "depth-anything") -> State:
    """The tensors of `control` under the original keys, including those that are never read."""
    model = control(family)
    keys = FAMILIES[family].key_map(model.config)
    unused = {key: torch.zeros(shape) for key, shape in FAMILIES[family].unused(model.config).items()}
    return {keys[key]: tensor for key, tensor in model.state_dict().items()} | unused


# ------------------------------------------------------------------------------------------------------- formats


def write_zip(state: State, folder: Path) -> Path:
    torch.save(state, folder / f"{NAME}.pth")
    return folder / f"{NAME}.pth"


def write_zip_without_checksums(state: State, folder: Path) -> Path:
    torch.serialization.set_crc32_options(False)
    try:
        return write_zip(state, folder)
    finally:
        torch.serialization.set_crc32_options(True)


def write_legacy(state: State, folder: Path) -> Path:
    torch.save(state, folder / f"{NAME}.pt", _use_new_zipfile_serialization=False)
    return folder / f"{NAME}.pt"


def write_safetensors(state: State, folder: Path) -> Path:
    save_file(state, folder / f"{NAME}.safetensors")
    return folder / f"{NAME}.safetensors"


def write_shards(state: State, folder: Path) -> Path:
    save_shards(state, folder, 3)
    renamed = folder / f"{NAME}.safetensors.index.json"
    (folder / "model.safetensors.index.json").rename(renamed)
    return renamed


def write_transformers(state: State, folder: Path) -> Path:
    save_file(to_transformers(state, "depth-anything"), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def write_ours(state: State, folder: Path) -> Path:
    dpt.save(control(), folder / f"{NAME}.safetensors")
    return folder / f"{NAME}.safetensors"


FORMATS: dict[str, Callable[[State, Path], Path]] = {
    "zip": write_zip,
    "zip without checksums": write_zip_without_checksums,
    "legacy": write_legacy,
    "safetensors": write_safetensors,
    "shards": write_shards,
    "transformers": write_transformers,
    "ours": write_ours,
}


# --------------------------------------------------------------------------------------------------------- judge


def judge(load: Callable[[Path], dpt.DPT], source: Path, model: dpt.DPT, expected: str) -> str | None:
    """What is wrong with the result of a load, or None. expected: "refused", "loaded" or "either"."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", ".*assumed to have been pretrained")  # for any unreleased SwinV2
            found = load(source)
    except CheckpointError as error:
        message = str(error)
        if expected == "loaded":
            return f"refused: {message}"
        if not re.search(rf"{re.escape(str(source.parent if source.is_file() else source))}\S*\w", message):
            return f"the message does not name the file: {message}"
        if "\n" in message or not message.isprintable() or len(message) > 2500:
            return f"the message is not one readable line: {message!r}"
        return None
    except BaseException as error:  # a panic in a Rust parser is not an Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        return f"{type(error).__name__}: {error}"
    if expected == "refused":
        return "loaded"
    if found.config != model.config:
        return f"loaded as another model: {found.config}"
    state = model.state_dict()
    if found.state_dict().keys() != state.keys():
        return "loaded with other tensors"
    wrong = [key for key, t in found.state_dict().items() if not torch.equal(t, state[key].float())]
    return f"loaded with other values in {wrong}" if wrong else None


# ------------------------------------------------------------------------------------------- mutations of a file


def structure(content: bytes, state: State) -> list[int]:
    """The positions of bytes that are not weights."""
    marks = bytearray(len(content))
    for tensor in state.values():
        raw = tensor.numpy().tobytes()
        at = content.find(raw)
        while at >= 0 and len(raw) > 8:  # shorter ones may match by chance
            marks[at : at + len(raw)] = b"\1" * len(raw)
            at = content.find(raw, at + len(raw))
    return [position for position, mark in enumerate(marks) if not mark]


def flip(content: bytes, at: int, random_: random.Random) -> bytes:
    changed = bytearray(content)
    changed[at] ^= 1 << random_.randrange(8)
    return bytes(changed)


def file_mutations(content: bytes, places: list[int], checked: bool, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """(description, damaged copy) of a file."""
    size = len(content)
    for cut in (0, 1, 7, 8, 9, rng.randrange(10, 200), *(rng.randrange(size) for _ in range(4)), size - 1):
        yield f"cut to {cut} of {size} bytes", content[:cut]
    for at in rng.sample(places, 16):
        yield f"bit flipped at {at}", flip(content, at, rng)
    for at in [p for p in range(16) if p in set(places)][::3]:
        yield f"bit flipped at {at}", flip(content, at, rng)
    for _ in range(3):
        at = rng.choice(places)
        noise = bytearray(content)
        for position in [p for p in places if at <= p < at + 40]:
            noise[position] = rng.randrange(256)
        yield f"noise at {at}", bytes(noise)
    at = rng.choice(places)
    yield f"a byte removed at {at}", content[:at] + content[at + 1 :]
    yield f"a byte inserted at {at}", content[:at] + b"\0" + content[at:]
    yield "zeros only", bytes(size)
    if checked:
        yield "zeros instead of its second half", content[: size // 2] + bytes(size - size // 2)
        for at in (rng.randrange(size) for _ in range(6)):
            yield f"bit flipped at {at}, possibly in a weight", flip(content, at, rng)


# -------------------------------------------------------------------------------- mutations of the saved object


@dataclass(frozen=True)
class Change:
    """A change of a state dict. The result is not always a state dict."""

    change: Callable[[State, str], object]
    expected: str = "refused"


def replaced(state: State, key: str, tensor: torch.Tensor) -> State:
    return state | {key: tensor}


def renamed(state: State, key: str, name: str) -> State:
    return {name if k == key else k: t for k, t in state.items()}


def quantised(tensor: torch.Tensor) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, but such files exist
        return torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)


CHANGES: dict[str, Change] = {
    "nothing": Change(lambda s, k: s, "loaded"),
    "another order": Change(lambda s, k: dict(reversed(s.items())), "loaded"),
    "dropped": Change(lambda s, k: {name: t for name, t in s.items() if name != k}),
    "half dropped": Change(lambda s, k: dict(list(s.items())[::2])),
    "renamed": Change(lambda s, k: renamed(s, k, k + "_")),
    "renamed to nonsense": Change(lambda s, k: renamed(s, k, "\x1b[31m\n\u202e" + "x" * 5000)),
    "renamed to an empty key": Change(lambda s, k: renamed(s, k, "")),
    "a huge number": Change(lambda s, k: s | {"pretrained.blocks.999999999999.norm1.bias": torch.zeros(1)}),
    "a number of many digits": Change(lambda s, k: s | {f"pretrained.blocks.{'9' * 5000}.x": torch.zeros(1)}),
    "added": Change(lambda s, k: s | {"pretrained.surprise": torch.zeros(3)}),
    "a longer tensor": Change(lambda s, k: replaced(s, k, torch.cat([s[k], s[k]]))),
    "an additional dimension": Change(lambda s, k: replaced(s, k, s[k][None].clone())),
    "flattened": Change(lambda s, k: replaced(s, k, s[k].flatten()[:-1].clone())),
    "empty": Change(lambda s, k: replaced(s, k, torch.zeros(0))),
    "a number": Change(lambda s, k: replaced(s, k, torch.zeros(()))),
    "integers": Change(lambda s, k: replaced(s, k, s[k].to(torch.int32))),
    "booleans": Change(lambda s, k: replaced(s, k, s[k] > 0)),
    "complex": Change(lambda s, k: replaced(s, k, s[k].to(torch.complex64))),
    "8-bit floats": Change(lambda s, k: replaced(s, k, s[k].to(torch.float8_e4m3fn))),
    "doubles": Change(lambda s, k: replaced(s, k, s[k].double()), "loaded"),
    "NaN": Change(lambda s, k: replaced(s, k, torch.full_like(s[k], float("nan")))),
    "one NaN": Change(lambda s, k: replaced(s, k, s[k].index_fill(0, torch.tensor([0]), float("nan")))),
    "infinity": Change(lambda s, k: replaced(s, k, s[k] / 0)),
    "unrelated": Change(lambda s, k: {"conv1.weight": torch.zeros(3, 3), "layer1.0.bn1.running_mean": torch.zeros(3)}),
    "an encoder alone": Change(lambda s, k: {name: t for name, t in s.items() if name.startswith("pretrained.")}),
    "prefix": Change(lambda s, k: {f"module.{name}": t for name, t in s.items()}, "loaded"),
    "prefixes": Change(lambda s, k: {f"_orig_mod.module.model.{name}": t for name, t in s.items()}, "loaded"),
    "prefix on some": Change(lambda s, k: {f"module.{n}" if i % 2 else n: t for i, (n, t) in enumerate(s.items())}),
}  # fmt: skip
PICKLED: dict[str, Change] = {
    "an empty dict": Change(lambda s, k: {}),
    "a list": Change(lambda s, k: list(s.values())),
    "a tensor": Change(lambda s, k: s[k]),
    "text": Change(lambda s, k: "weights"),
    "None": Change(lambda s, k: None),
    "with a number": Change(lambda s, k: s | {"epoch": 3}, "loaded"),  # it is no weight, and no name of one
    "with an integer key": Change(lambda s, k: s | {7: s[k]}),
    "under model": Change(lambda s, k: {"model": s, "optimizer": {"lr": 0.1}, "epoch": 3}, "loaded"),
    "under state_dict": Change(lambda s, k: {"state_dict": {f"model.{n}": t for n, t in s.items()}}, "loaded"),
    "twice wrapped": Change(lambda s, k: {"model": {"state_dict": s}}, "loaded"),
    "parameters": Change(lambda s, k: {n: torch.nn.Parameter(t) for n, t in s.items()}, "loaded"),
    "another model under model": Change(lambda s, k: {"model": {"fc.weight": torch.zeros(2, 2)}}),
    "sparse": Change(lambda s, k: replaced(s, k, s[k].flatten().to_sparse())),
    "quantised": Change(lambda s, k: replaced(s, k, quantised(s[k]))),
    "without values": Change(lambda s, k: replaced(s, k, s[k].to("meta"))),
    "strides": Change(lambda s, k: replaced(s, k, s[k].mT.contiguous().mT if s[k].ndim > 1 else s[k]), "loaded"),
    "a module": Change(lambda s, k: torch.nn.Linear(2, 2)),
    "with a module": Change(lambda s, k: s | {"model": torch.nn.Linear(2, 2)}),
}


# ------------------------------------------------------------------------------------------------ all of them


@dataclass(frozen=True)
class Case:
    """A damaged checkpoint and the allowed outcome."""

    what: str
    source: Path
    expected: str = "either"


def byte_cases(name: str, folder: Path) -> Iterator[Case]:
    rng = random.Random(f"{SEED} {name}")
    state = original_state()
    place = folder / "whole"
    place.mkdir()
    source = FORMATS[name](state, place)
    damaged = sorted(path for path in place.iterdir() if path.suffix != ".json")[0]
    content = damaged.read_bytes()
    places = structure(content, to_transformers(state, "depth-anything") | state | control().state_dict())
    for n, (what, changed) in enumerate(file_mutations(content, places, name in CHECKED, rng)):
        copy = folder / f"{n}"
        copy.mkdir()
        for path in place.iterdir():
            (copy / path.name).write_bytes(changed if path == damaged else path.read_bytes())
        yield Case(f"{name}: {what}", copy / source.relative_to(place))


def state_cases(name: str, folder: Path, family: str = "depth-anything") -> Iterator[Case]:
    rng = random.Random(f"{SEED} {name} {family}")
    state = original_state(family)
    used = sorted(FAMILIES[family].key_map(control(family).config).values())
    changes = CHANGES | (PICKLED if name in ("zip", "legacy") else {})
    for n, (what, change) in enumerate(changes.items()):
        key = rng.choice([key for key in used if state[key].numel() > 1])
        copy = folder / f"state-{n}"
        copy.mkdir()
        changed = change.change(state, key)
        # safetensors refuses tensors that share memory.
        if isinstance(changed, dict) and "safetensors" in name:
            changed = {k: t.contiguous().clone() for k, t in changed.items()}
        yield Case(f"{name}: {what}, {key}", FORMATS[name](changed, copy), change.expected)


def header_cases(folder: Path) -> Iterator[Case]:
    """safetensors files with wrong headers."""
    content = save(original_state())
    length = struct.unpack("<Q", content[:8])[0]
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    first, second = sorted(header, key=lambda key: header[key]["data_offsets"][0])[:2]

    def rebuilt(change: Callable[[dict], object]) -> bytes:
        changed = json.loads(json.dumps(header))
        change(changed)
        text = json.dumps(changed).encode()
        return struct.pack("<Q", len(text)) + text + data

    start, end = header[first]["data_offsets"]
    matrix = "pretrained.blocks.0.mlp.fc1.weight"
    raw: dict[str, bytes] = {
        "a huge header": struct.pack("<Q", 2**63) + content[8:],
        "the largest header": b"\xff" * 8 + content[8:],
        "a header as long as the file": struct.pack("<Q", len(content)) + content[8:],
        "no header": struct.pack("<Q", 0) + content[8:],
        "a header of spaces": struct.pack("<Q", length) + b" " * length + data,
        "a deep header": struct.pack("<Q", 200_000) + b'{"a":' + b"[" * 199_995 + data,
        "overlap": rebuilt(lambda h: h[second].update(data_offsets=header[first]["data_offsets"])),
        "shifted": rebuilt(lambda h: h[first].update(data_offsets=[start + 4, end + 4])),
        "a hole": rebuilt(lambda h: h.pop(first)),
        "beyond the end": rebuilt(lambda h: h[first].update(data_offsets=[len(data), len(data) + end - start])),
        "backwards": rebuilt(lambda h: h[first].update(data_offsets=[end, start])),
        "negative": rebuilt(lambda h: h[first].update(data_offsets=[-4, end - start - 4])),
        "endless": rebuilt(lambda h: h[first].update(data_offsets=[0, 2**64 - 1])),
        "negative shape": rebuilt(lambda h: h[first].update(shape=[-1, 2])),
        "endless shape": rebuilt(lambda h: h[first].update(shape=[2**40, 2**40])),
        "another shape": rebuilt(lambda h: h[matrix].update(shape=h[matrix]["shape"][::-1])),
        "another type": rebuilt(lambda h: h[first].update(dtype="I32")),
        "a narrower type": rebuilt(lambda h: h[first].update(dtype="F16")),
        "an unknown type": rebuilt(lambda h: h[first].update(dtype="F12")),
        "bytes after the end": content + b"\0" * 64,
        "a list": struct.pack("<Q", 2) + b"[]" + data,
    }
    for n, (what, changed) in enumerate(raw.items()):
        path = folder / f"header-{n}" / f"{NAME}.safetensors"
        path.parent.mkdir()
        path.write_bytes(changed)
        yield Case(f"safetensors: {what}", path, "refused")


def archive_cases(folder: Path) -> Iterator[Case]:
    """Zip archives with unusual entries."""
    buffer = io.BytesIO()
    torch.save(original_state(), buffer)
    with zipfile.ZipFile(buffer) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    root = next(iter(entries)).split("/")[0]
    biggest = max(entries, key=lambda entry: len(entries[entry]))

    def packed(content: dict[str, bytes], *more: tuple[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
        target = io.BytesIO()
        with warnings.catch_warnings(), zipfile.ZipFile(target, "w", how) as archive:
            warnings.simplefilter("ignore")  # about two entries with the same name
            for entry, data in [*content.items(), *more]:
                archive.writestr(entry, data)
        return target.getvalue()

    def without(*names: str) -> dict[str, bytes]:
        return {entry: data for entry, data in entries.items() if entry not in names}

    pickled = f"{root}/data.pkl"
    raw: dict[str, tuple[bytes, str]] = {
        "repacked": (packed(entries), "loaded"),
        "compressed": (packed(entries, how=zipfile.ZIP_DEFLATED), "refused"),
        "an additional file": (packed(entries, (f"{root}/code/evil.py", b"raise SystemExit")), "either"),
        "a path outside the archive": (packed(entries, ("../../evil", b"x")), "either"),
        "two pickles": (packed(entries, (pickled, entries[pickled])), "refused"),
        "no pickle": (packed(without(pickled)), "refused"),
        "an empty pickle": (packed(entries | {pickled: b""}), "refused"),
        "half a pickle": (packed(entries | {pickled: entries[pickled][: len(entries[pickled]) // 2]}), "refused"),
        "without a tensor": (packed(without(biggest)), "refused"),
        "a truncated tensor": (packed(entries | {biggest: entries[biggest][:-4]}), "refused"),
        "an empty tensor": (packed(entries | {biggest: b""}), "refused"),
        "an unknown byte order": (packed(entries | {f"{root}/byteorder": b"middle"}), "refused"),
        "no entries": (packed({}), "refused"),
        "images": (packed({"a.png": b"x" * 100}), "refused"),
        "an archive of numpy": (packed({"a.npy": b"\x93NUMPY" + bytes(100)}), "refused"),
        "garbage before it": (b"MZ" * 50 + buffer.getvalue(), "either"),
        "garbage after it": (buffer.getvalue() + b"x" * 50, "either"),
    }
    for n, (what, (changed, expected)) in enumerate(raw.items()):
        path = folder / f"archive-{n}" / f"{NAME}.pth"
        path.parent.mkdir()
        path.write_bytes(changed)
        yield Case(f"zip: {what}", path, expected)


class Runs:
    """An object whose pickle calls a function when it is loaded."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


def evil_cases(folder: Path, mark: Path) -> Iterator[Case]:
    """Pickles that would create the file `mark`, or do worse, in every place of a checkpoint that can hold one."""
    import os
    import subprocess

    touch = f"__import__('pathlib').Path({str(mark)!r}).touch()"
    calls = {
        "eval": Runs(eval, touch),
        "exec": Runs(exec, touch),
        "open": Runs(open, str(mark), "w"),
        "system": Runs(os.system, f"touch {mark}"),
        "process": Runs(subprocess.call, ["touch", str(mark)]),
        "torch.load": Runs(torch.load, str(mark)),
        "an import": Runs(__import__, "os"),
        "torch's own eval": Runs(torch.hub.load, "owner/repository", "model"),
    }
    state = original_state()
    for what, call in calls.items():
        key = next(iter(state))
        for place, content in (
            ("beside the weights", state | {"evil": call}),
            ("as a weight", state | {key: call}),
            ("beside a wrapper", {"model": state, "args": call}),
            ("alone", call),
        ):
            for name in ("zip", "legacy"):
                copy = folder / f"{what}-{place}-{name}".replace(" ", "_").replace("'", "")
                copy.mkdir()
                yield Case(f"{name}: {what} {place}", FORMATS[name](content, copy), "refused")
        plain = folder / f"{what}.pt".replace(" ", "_").replace("'", "")
        plain.write_bytes(pickle.dumps(call, protocol=2))
        yield Case(f"a pickle: {what}", plain, "refused")


def problems(
    load: Callable[[Path], dpt.DPT], cases: Iterator[Case], family: str = "depth-anything"
) -> tuple[list[str], int]:
    """(what went wrong, the number of cases)."""
    model = control(family)
    found = [(case, judge(load, case.source, model, case.expected)) for case in cases]
    return [f"{case.what}: {wrong}" for case, wrong in found if wrong], len(found)


@pytest.mark.timeout(120)  # a hang is a failure
@pytest.mark.parametrize("name", FORMATS)
def test_a_file_with_damaged_bytes_is_refused_or_gives_the_same_model(name, tmp_path):
    wrong, tried = problems(dpt.load, byte_cases(name, tmp_path))
    assert not wrong, "\n".join(wrong)
    assert tried >= 30  # for each of seven formats, more than 200 in total


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", ["zip", "zip without checksums", "legacy", "safetensors", "shards"])
def test_a_changed_state_is_refused_or_gives_the_same_model(name, tmp_path):
    wrong, tried = problems(dpt.load, state_cases(name, tmp_path))
    assert not wrong, "\n".join(wrong)
    assert tried >= 25


@pytest.mark.timeout(120)
@pytest.mark.parametrize("family", ["beit", "swinv2"])
def test_a_changed_state_of_another_family_is_refused_or_gives_the_same_model(family, tmp_path):
    wrong, tried = problems(dpt.load, state_cases("safetensors", tmp_path, family), family)
    assert not wrong, "\n".join(wrong)
    assert tried >= 25


@pytest.mark.timeout(120)
@pytest.mark.parametrize("cases", [header_cases, archive_cases])
def test_wrong_headers_and_archives_are_refused(cases, tmp_path):
    wrong, tried = problems(dpt.load, cases(tmp_path))
    assert not wrong, "\n".join(wrong)
    assert tried >= 15


@pytest.mark.timeout(120)
def test_code_in_a_pickle_never_runs(tmp_path):
    mark = tmp_path / "mark"
    wrong, tried = problems(dpt.load, evil_cases(tmp_path, mark))
    assert not wrong, "\n".join(wrong)
    assert tried >= 50
    assert not mark.exists()


# ------------------------------------------------------------------------------------- loaders broken on purpose


class LenientValues(Values):
    """Accepts NaN."""

    def _check_finite(self, key: str, values: torch.Tensor) -> None:
        pass


def lenient(path: Path) -> dpt.DPT:
    """Loads the tensors that fit, as load_state_dict(strict=False) does; the others stay random."""
    with files.read(path) as contents:
        content = {key: LenientValues(contents).read((key,), None, torch.device("cpu")) for key in contents.tensors}
    model = dpt.DPT(control().config)
    theirs = depth_anything.key_map(model.config)
    shapes = {key: tensor.shape for key, tensor in model.state_dict().items()}
    fitting = {key: content[theirs[key]] for key in shapes if theirs[key] in content}
    model.load_state_dict({k: t for k, t in fitting.items() if t.shape == shapes[k]}, strict=False)
    return model


def plain(path: Path) -> dpt.DPT:
    """Loads strictly, with torch's own errors."""
    state = torch.load(path, weights_only=True)
    model = dpt.DPT(control().config)
    model.load_state_dict({key: state[original] for key, original in depth_anything.key_map(model.config).items()})
    return model


def unsafe(path: Path) -> dpt.DPT:
    """Runs the code in a pickle before it loads the file."""
    torch.load(path, weights_only=False)
    return dpt.load(path)


@pytest.mark.parametrize(
    ("load", "cases", "caught"),
    [
        (lenient, state_cases, ["dropped, .*: loaded$", "renamed, .*: loaded$", "one NaN, .*: loaded$"]),
        (plain, state_cases, ["a list, .*: TypeError", "unrelated, .*: KeyError", "integers, .*: loaded$"]),
        (plain, byte_cases, ["cut to .*: RuntimeError", "bit flipped .*: loaded with other values"]),
    ],
)
def test_the_judge_finds_a_broken_loader(load, cases, caught, tmp_path):
    wrong, _ = problems(load, cases("zip", tmp_path))
    for pattern in caught:
        assert any(re.match(f"zip: {pattern}", line) for line in wrong), f"{pattern} is not in:\n" + "\n".join(wrong)


def test_the_judge_finds_a_loader_that_ignores_checksums(tmp_path, monkeypatch):
    monkeypatch.setattr(Values, "_compare", lambda self, key, place, crc: None)
    wrong, _ = problems(dpt.load, byte_cases("zip", tmp_path))
    assert any("loaded with other values" in line for line in wrong)


def test_the_judge_finds_a_loader_that_runs_code(tmp_path):
    mark = tmp_path / "mark"
    problems(unsafe, (case for case in evil_cases(tmp_path, mark) if "zip: eval" in case.what))
    assert mark.exists()
