"""A run stores the values that `probes.capture` records, for every selector and family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray

import probes
from dpt import DPT
from probes.attention import AttentionMaps
from probes.errors import ProbeError
from probes.registry import names
from probes.runs.recording import FIGURES, REDUCTIONS, Arrivals, Recorder, stored_bytes
from tests.models import OBLONG, pictures, tiny_model

TOKENS: tuple[Any, ...] = (0, (1, 2), (0, 0))


def picture(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def capture_one(model: DPT, image: np.ndarray, root: Path, *selectors: str, **options: Any) -> Any:
    height, width = image.shape[:2]
    given = {"size": (height, width), "workers": 0, "progress": False} | options
    report = probes.run(model, [("one", image)], root, *selectors, **given)
    assert report.failures == []
    return probes.open_run(root)["one"]


@pytest.fixture
def image(family: str) -> np.ndarray:
    return picture(0, *OBLONG[family])


@pytest.fixture
def live(model: DPT, image: np.ndarray) -> Any:
    with probes.capture(model, "*") as cap:
        model(model.prepare(image, size=image.shape[:2]))
    return cap


def test_every_point_is_what_capture_shows(model, image, live, tmp_path):
    stored = capture_one(model, image, tmp_path / "run", "*")
    assert list(stored) == list(live)
    assert (stored.grid, stored.input_size, stored.batch) == (live.grid, live.input_size, 1)
    for name, value in live.items():
        assert stored.grid_of(name) == live.grid_of(name)
        if not isinstance(value, AttentionMaps):
            assert stored[name].dtype == value.dtype
            assert torch.equal(stored[name], value)


def test_attention_is_read_back_within_what_half_precision_allows(model, image, live, tmp_path):
    stored = capture_one(model, image, tmp_path / "run", "attention")
    for name, maps in stored.items():
        assert maps.q.dtype == torch.float16
        assert (maps.grid, maps.heads, maps.scale) == (live[name].grid, live[name].heads, live[name].scale)
        # Logits of these models reach 30; q and k are rounded to 11 bits.
        assert (maps.matrix() - live[name].matrix()).abs().max() < 0.02
        assert (maps.entropy() - live[name].entropy()).abs().max() < 0.02


def test_attention_in_float32_is_exact(model, image, live, tmp_path):
    stored = capture_one(model, image, tmp_path / "run", "attention", dtype=torch.float32)
    for name, maps in stored.items():
        assert torch.equal(maps.q, live[name].q)
        assert torch.equal(maps.k, live[name].k)
        assert torch.equal(maps.matrix(), live[name].matrix())
        assert torch.equal(maps.columns([0, 3]), live[name].columns([0, 3]))


def test_taking_off_the_mean_key_pays(tmp_path):
    """Exact rows do not depend on the mean key. Rounded rows are closer without it, if the keys share an offset."""
    model, image = tiny_model(), picture(0, 42, 70)
    with torch.no_grad():
        model.encoder.blocks[2].attention.qkv.bias[128:256] += 8.0
    with probes.capture(model, "encoder.blocks.2.attention") as live:
        model(model.prepare(image, size=(42, 70)))
    maps = live["encoder.blocks.2.attention"]
    stored = capture_one(model, image, tmp_path / "run", "encoder.blocks.2.attention")["encoder.blocks.2.attention"]
    plainly = maps.to(dtype=torch.float16).matrix()
    exact = maps.matrix()
    assert (stored.matrix() - exact).abs().max() < 0.5 * (plainly - exact).abs().max()


def test_reductions_are_those_of_the_attention(model, image, live, tmp_path):
    reductions = [f"attention.{reduction}" for reduction in REDUCTIONS]
    stored = capture_one(model, image, tmp_path / "run", *reductions, tokens=TOKENS)
    blocks = [name for name, point in names(model).items() if point.group == "attention"]
    assert list(stored) == [f"{name}.{reduction}" for name in blocks for reduction in REDUCTIONS]
    for name in blocks:
        maps = live[name]
        assert torch.equal(stored[f"{name}.entropy"], maps.entropy())
        assert torch.equal(stored[f"{name}.mean"], maps.mean())
        figures = maps.statistics()
        wanted = torch.stack([torch.from_numpy(figures[figure].values) for figure in FIGURES], -1)
        assert torch.equal(stored[f"{name}.statistics"], wanted)
        places = []
        for token in TOKENS:  # the patch of this block that contains the centre of the input's patch
            if token == 0 and maps.grid.prefix:
                places.append(0)
                continue
            row, col = (0, 0) if token == 0 else token
            coarse = live.grid.rows / maps.grid.rows
            places.append(maps.grid.token(int((row + 0.5) / coarse), int((col + 0.5) / coarse)))
        assert torch.equal(stored[f"{name}.rows"], maps.rows(places))
        assert torch.equal(stored[f"{name}.columns"], maps.columns(places))


def test_reductions_of_one_block_beside_its_attention(tmp_path):
    model, image = tiny_model(), picture(0, 42, 70)
    selectors = (
        "encoder.blocks.3.attention.mean",
        "encoder.blocks.[01].attention.entropy",
        "encoder.blocks.3.attention",
    )
    with pytest.raises(ProbeError, match=r"encoder.blocks.\[01\]"):  # brackets are literal
        capture_one(model, image, tmp_path / "run", *selectors)
    selectors = (selectors[0], "encoder.blocks.?.attention.entropy", selectors[2])
    stored = capture_one(model, image, tmp_path / "run", *selectors)
    assert list(stored) == [
        *(f"encoder.blocks.{i}.attention.entropy" for i in range(3)),
        "encoder.blocks.3.attention",
        *(f"encoder.blocks.3.attention.{reduction}" for reduction in ("mean", "entropy")),
    ]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_another_dtype_converts_everything(dtype, tmp_path):
    model, image = tiny_model(), picture(0, 42, 70)
    stored = capture_one(model, image, tmp_path / "run", "norms", "attention.rows", tokens=[1], dtype=dtype)
    plain = capture_one(model, image, tmp_path / "plain", "norms", "attention.rows", tokens=[1])
    for name in plain:
        assert stored[name].dtype == dtype
        assert torch.equal(stored[name], plain[name].to(dtype))


def test_what_half_precision_cannot_hold_stops_the_run(tmp_path):
    model = tiny_model()
    model.encoder.blocks[0].mlp[0].weight.mul_(1e5) if isinstance(
        model.encoder.blocks[0].mlp, torch.nn.Sequential
    ) else [parameter.mul_(1e5) for parameter in model.encoder.blocks[0].mlp.parameters()]
    with pytest.raises(ProbeError, match=r"reaches .*float16 cannot hold .*dtype=torch.float32"):
        capture_one(model, picture(0, 42, 70), tmp_path / "run", "tokens", dtype=torch.float16)
    assert len(probes.open_run(tmp_path / "run")) == 0


def test_a_half_precision_model_is_stored_as_what_it_computed(tmp_path):
    model = tiny_model().to(torch.bfloat16)
    stored = capture_one(model, picture(0, 42, 70), tmp_path / "run", "encoder.blocks.1.tokens")
    with probes.capture(model, "encoder.blocks.1.tokens") as live:
        model(model.prepare(picture(0, 42, 70), size=(42, 70)).to(torch.bfloat16))
    assert stored["encoder.blocks.1.tokens"].dtype == torch.float32
    assert torch.equal(stored["encoder.blocks.1.tokens"], live["encoder.blocks.1.tokens"].float())


def test_the_estimate_is_what_is_stored(model, image):
    everything = ["*", *(f"attention.{reduction}" for reduction in REDUCTIONS)]
    for dtype in (None, torch.float16, torch.float64):
        recorder = Recorder(model, everything, TOKENS, dtype)
        x = model.prepare(image, size=image.shape[:2])
        rows, _ = recorder(x)
        assert recorder.bytes_per_image(model.grid_of(x)) == stored_bytes(rows)


@pytest.mark.parametrize(
    ("selectors", "options", "error", "message"),
    [
        ((), {}, ProbeError, "no probe points"),
        (("normz",), {}, ProbeError, "'normz'.*norms"),
        (("attention.sum",), {}, ProbeError, "attention.sum"),
        (("norms.entropy",), {}, ProbeError, "'norms.entropy' reduces attention, but 'norms'"),
        (("attention.rows",), {}, ProbeError, r"need tokens=, e.g. tokens=\[0, \(12, 20\)\]"),
        (("norms",), {"tokens": [0]}, ProbeError, "tokens= is used by"),
        (("attention.rows",), {"tokens": [True]}, TypeError, "got True"),
        (("norms",), {"dtype": torch.bfloat16}, TypeError, "dtype must be torch.float16.*got torch.bfloat16"),
        (("norms",), {"batch": 0}, ValueError, "batch must be .* >= 1, got 0"),
        (("norms",), {"part": -2}, ValueError, "part must be .* got -2"),
    ],
)  # fmt: skip
def test_mistakes_are_said_before_anything_is_written(tmp_path, selectors, options, error, message):
    with pytest.raises(error, match=message):
        capture_one(tiny_model(), picture(0, 42, 70), tmp_path / "run", *selectors, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_token_beside_a_image_s_grid_fails_that_image_alone(tmp_path):
    images = [("wide", picture(0, 42, 98)), ("narrow", picture(1, 42, 42))]
    options: dict[str, Any] = {"tokens": [(0, 6)], "size": 42, "workers": 0, "progress": False}
    report = probes.run(tiny_model(), images, tmp_path / "run", "encoder.blocks.0.attention.rows", **options)
    assert (report.images, report.failed) == (1, 1)
    assert report.failures[0][0] == "narrow"
    assert "a token of tokens= is not on the grid" in report.failures[0][1]


def test_plain_xarray_reads_what_is_stored_with_names_and_axes(tmp_path):
    model, image = tiny_model(), picture(0, 42, 70)
    stored = capture_one(model, image, tmp_path / "run", "norms", "reassembly", "encoder.blocks.1.attention")
    (group,) = (tmp_path / "run" / "parts").glob("*/3x5")
    data = xarray.open_zarr(group, consolidated=False)
    assert list(data["image"].values) == ["one"]
    assert data["encoder.blocks.1.norms"].dims == ("image", "token_16")
    assert data["encoder.blocks.1.attention.q"].dims == ("image", "window_1", "head_2", "token_16", "channel_64")
    assert [dim.rpartition("_")[0] for dim in data["reassembly.0"].dims[1:]] == ["channel", "row", "col"]
    assert data.attrs["grid"] == {"rows": 3, "cols": 5, "prefix": 1} | {
        key: value for key, value in data.attrs["grid"].items() if key not in ("rows", "cols", "prefix")
    }
    for name in ("encoder.blocks.1.norms", "reassembly.0"):
        np.testing.assert_array_equal(data[name].values, stored[name].numpy())
        assert data[name].attrs["meaning"] == names(model)[name].meaning


def test_copies_from_a_gpu_are_waited_for_once_before_a_value_is_read(monkeypatch: pytest.MonkeyPatch):
    """A fake device: a copy arrives when its stream is synchronized."""
    under_way: list[tuple[torch.Tensor, torch.Tensor]] = []
    waits: list[object] = []

    def host(self: Arrivals, value: torch.Tensor) -> torch.Tensor:
        self._devices.add(value.device)
        place = torch.full(value.shape, -7, dtype=value.dtype)
        under_way.append((place, value))
        return place

    class Stream:
        def synchronize(self) -> None:
            waits.append(self)
            for place, value in under_way:
                place.copy_(value)

    model, selectors = tiny_model(), ("norms", "attention", "attention.entropy", "depth")
    x = pictures(2, 42, 70)
    plain, _ = Recorder(model, selectors)(x)
    monkeypatch.setattr(Arrivals, "_host", host)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())
    made, _ = Recorder(model, selectors)(x)
    assert len(waits) == 1
    assert len(under_way) == len(made)
    for place, _ in under_way:
        place.zero_()  # pinned memory is reused
    assert made.keys() == plain.keys()
    for name, array in plain.items():
        assert np.array_equal(made[name].values, array.values), name
        assert made[name].dims == array.dims
