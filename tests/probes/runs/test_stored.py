"""Reading a run by image and by many images, without reading more than requested."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
import xarray
from PIL import Image

import dpt
import probes
from probes.captured import NotCaptured
from probes.errors import ProbeError
from probes.runs import stored_capture
from probes.runs.errors import StoreError, UnavailableImageError
from probes.runs.part_reader import PartReader
from probes.runs.stored import UnknownImageError
from tests import runs
from tests.models import TINY

NORMS = "encoder.blocks.1.norms"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirteen images of two grids in five parts, and a failure."""
    root = tmp_path_factory.mktemp("stored") / "run"
    runs.capture(root)
    return root


@pytest.fixture
def run(root: Path) -> Any:
    return probes.open_run(root)


def captured(name: str, *selectors: str) -> Any:
    (array,) = (array for given, array in runs.pictures() if given == name)
    model = runs.model()
    with probes.capture(model, *selectors) as cap:
        model(model.prepare(array, size=42))
    return cap


def test_a_run_is_a_mapping_of_images_in_their_order(run):
    wanted = [name for name, array in runs.pictures() if array.dtype == np.uint8]
    assert list(run) == wanted
    assert len(run) == 13
    assert wanted[0] in run
    assert "nobody" not in run
    assert run.points == list(runs.SELECTORS)
    assert run.grids == {(3, 3): 5, (3, 5): 8}
    assert list(run.failures) == ["%s {0} $HOME"]
    assert run.config == runs.model().config
    assert repr(run).startswith(f"Run({run.root}: 13 images, 1 failed of depth-anything tiny, 3 points, 5 parts, ")


def test_each_image_of_a_mixed_part_is_its_own(run):
    """Batches of two differ from single images in the last bits only."""
    for name in run:
        live = captured(name, NORMS, "depth")
        assert run[name].grid == live.grid
        for point in (NORMS, "depth"):
            torch.testing.assert_close(run[name][point], live[point], rtol=1e-4, atol=1e-4)


def test_nothing_is_read_before_it_is_asked_for(run, monkeypatch):
    read: list[str] = []
    whole = PartReader.read
    monkeypatch.setattr(PartReader, "read", lambda self, *args: (read.append(args[1]), whole(self, *args))[1])
    capture = run["plain/007"]
    assert list(capture) == run.points
    assert len(capture) == 3
    assert NORMS in capture
    assert "encoder.blocks.0.norms" not in capture
    assert capture.nbytes == 0
    assert "plain/007" in repr(capture)
    assert capture.grid_of(NORMS) == capture.grid
    assert read == []
    capture[NORMS], capture[NORMS]
    assert read == [NORMS]
    assert capture.nbytes == capture[NORMS].nbytes


@pytest.mark.parametrize(("family", "grids"), [("beit", 2), ("swinv2", 1)])
def test_other_families_in_parts_of_several_grids(family, grids, tmp_path):
    """SwinV2 has one grid, because it makes every image square unless a size is given."""
    model = TINY[family]()
    base = model.config.preprocess.base
    rng = np.random.default_rng(0)
    shapes = [(base, base), (base, 2 * base), (base, base)]
    images = [(f"{i}", rng.integers(0, 256, (*shape, 3), dtype=np.uint8)) for i, shape in enumerate(shapes)]
    selectors = ("encoder.blocks.1.attention", "norms", "depth")
    probes.run(model, images, tmp_path / "run", *selectors, workers=0, progress=False, dtype=torch.float32, batch=1)
    run = probes.open_run(tmp_path / "run")
    assert run.config == model.config
    assert len(run.grids) == grids
    for name, image in images:
        with probes.capture(model, *selectors) as live:
            model(model.prepare(image))
        for point in live:
            for mine, theirs in zip(runs.arrays(run[name][point]), runs.arrays(live[point]), strict=True):
                np.testing.assert_array_equal(mine, theirs)
        rows = run[name]["encoder.blocks.1.attention"].rows([0, 5])
        assert torch.equal(rows, live["encoder.blocks.1.attention"].rows([0, 5]))


def test_stack_has_the_images_of_one_grid_by_name(run):
    stacked = run.stack("norms", "depth", grid=(3, 5))
    assert stacked[NORMS].dims == ("image", "token")
    assert stacked["depth"].dims == ("image", "row", "col")
    assert len(stacked["image"]) == 8
    assert stacked.attrs["grid"] == (3, 5)
    for name in stacked["image"].values:
        for point in (NORMS, "depth"):
            np.testing.assert_array_equal(stacked[point].sel(image=name).values, run[str(name)][point][0].numpy())
    assert set(run.stack(grid=(3, 3)).data_vars) == {NORMS, "depth"}


def test_stack_takes_groups_as_selectors_do_elsewhere(tmp_path):
    pictures = [(str(n), np.full((42, 70, 3), n, np.uint8)) for n in range(2)]
    options = {"size": 42, "workers": 0, "progress": False}
    probes.run(TINY["depth-anything"](), pictures, tmp_path / "run", "reassembly", "norms", **options)
    run = probes.open_run(tmp_path / "run")
    assert list(run.stack("reassembly").data_vars) == [f"reassembly.{n}" for n in range(4)]
    assert list(run.stack("norms").data_vars) == [f"encoder.blocks.{n}.norms" for n in range(4)]
    with pytest.raises(FileNotFoundError, match="nowhere"):
        run.to_safetensors(tmp_path / "nowhere" / "norms.safetensors", "norms")


def test_a_registered_point_is_stacked_by_the_group_that_captured_it(tmp_path):
    model = TINY["depth-anything"]()
    probes.registry.register("mlp.1", model.encoder.blocks[1].mlp)
    pictures = [("only", np.full((42, 70, 3), 7, np.uint8))]
    options = {"size": 42, "workers": 0, "progress": False}
    probes.run(model, pictures, tmp_path / "run", "own", "norms", **options)
    run = probes.open_run(tmp_path / "run")
    assert list(run.stack("own").data_vars) == list(run.stack("mlp.1").data_vars) == ["mlp.1"]


def test_stack_takes_globs_and_names_of_images(run):
    assert list(run.stack(NORMS, images="plain/*7")["image"].values) == ["plain/007"]
    chosen = ["plain/010", "plain/008"]
    assert set(run.stack(NORMS, images=chosen)["image"].values) == set(chosen)


@pytest.mark.parametrize(
    ("selectors", "options", "message"),
    [
        ((NORMS,), {}, r"\(3, 3\) \(5 images\), \(3, 5\) \(8 images\)"),
        (("normz",), {"grid": (3, 3)}, "'normz' .*norms"),
        (("encoder.blocks.2.attention",), {"grid": (3, 3)}, "attention.entropy"),
        ((NORMS,), {"grid": (9, 9)}, r"grid=\(9, 9\).* 13 images; grids: 3 x 3, 3 x 5"),
        ((NORMS,), {"images": "x*"}, r"images='x\*'"),
        (("depth",), {"grid": (3, 3), "max_bytes": 100}, r"5 images .* 35,280 bytes, .*100"),
    ],
)  # fmt: skip
def test_what_cannot_be_stacked_is_said(run, selectors, options, message):
    with pytest.raises(ProbeError, match=message):
        run.stack(*selectors, **options)


def test_images_that_are_not_there_are_said_with_what_is_close(run):
    with pytest.raises(UnknownImageError, match=r"'plain/07'.*'plain/007'"):
        run["plain/07"]
    with pytest.raises(UnknownImageError, match="could not be captured: "):
        run["%s {0} $HOME"]
    with pytest.raises(UnknownImageError, match="'nobody'"):
        run.stack(NORMS, images=["nobody"])
    with pytest.raises(NotCaptured, match=r"'fusion.0'.*encoder.blocks.1.norms"):
        run["plain/007"]["fusion.0"]
    with pytest.raises(NotCaptured):
        run["plain/007"].grid_of("fusion.0")


def test_many_images_as_one_safetensors_file(run, tmp_path):
    path = run.to_safetensors(tmp_path / "norms.safetensors", "norms", grid=(3, 5))
    arrays = safetensors.numpy.load_file(path)
    stacked = run.stack("norms", grid=(3, 5))
    np.testing.assert_array_equal(arrays[NORMS], stacked[NORMS].values)
    with safetensors.safe_open(path, framework="numpy") as file:
        assert json.loads(file.metadata()["images"]) == list(stacked["image"].values)
    assert [p.name for p in tmp_path.iterdir()] == ["norms.safetensors"]


def test_one_image_with_everything_is_saved_and_loaded(run, tmp_path):
    stored = run["plain/007"]
    stored.save(tmp_path / "one.safetensors")
    loaded = probes.load(tmp_path / "one.safetensors")
    assert list(loaded) == list(stored)
    assert (loaded.grid, loaded.input_size) == (stored.grid, stored.input_size)
    for point in stored:
        for mine, theirs in zip(runs.arrays(loaded[point]), runs.arrays(stored[point]), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_every_part_is_read_by_xarray_alone(run, root):
    seen = []
    for group in sorted(root.glob("parts/*/*x*")):
        data = xarray.open_zarr(group, consolidated=False).load()
        for row, name in enumerate(data["image"].values):
            seen.append(str(name))
            np.testing.assert_array_equal(data["depth"].values[row], run[str(name)]["depth"][0].numpy())
    assert sorted(seen) == sorted(run)


@pytest.mark.parametrize("family", ["depth-anything", "beit"])
@pytest.mark.filterwarnings("ignore::FutureWarning")  # xarray announces new defaults
def test_parts_of_one_grid_concatenate_in_xarray_alone(family, tmp_path):
    rng = np.random.default_rng(0)
    images = [(f"p{n}", rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for n in range(5)]
    selectors = ("norms", "depth", "attention")
    probes.run(TINY[family](), images, tmp_path / "run", *selectors, part=2, workers=0, progress=False)
    paths = sorted(map(str, tmp_path.glob("run/parts/*/*x*")))
    with xarray.open_mfdataset(paths, engine="zarr", combine="nested", concat_dim="image", consolidated=False) as whole:
        assert list(whole["image"].values) == [name for name, _ in images]
        stacked = probes.open_run(tmp_path / "run").stack("norms", "depth")
        for name in stacked:
            np.testing.assert_array_equal(whole[name].values, stacked[name].values)


def test_the_bytes_that_are_decoded_are_those_that_were_captured(tmp_path, monkeypatch):
    """The file is replaced after its digest was compared."""
    photo = tmp_path / "photos" / "a.png"
    photo.parent.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (42, 70, 3), dtype=np.uint8)).save(photo)
    runs.capture(tmp_path / "run", photo.parent, "depth")
    stored = probes.open_run(tmp_path / "run")["a.png"]
    digest = stored_capture.file_sha256

    def replaced(path):
        found = digest(path)
        Image.new("RGB", (70, 42)).save(photo)
        return found

    monkeypatch.setattr(stored_capture, "file_sha256", replaced)
    with pytest.raises(UnavailableImageError, match=r"has changed since a\.png was captured"):
        stored.image()


def test_images_come_from_their_files_or_from_what_was_kept(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (42, 70, 3), dtype=np.uint8)
    photo = tmp_path / "photos" / "a.png"
    photo.parent.mkdir()
    Image.fromarray(pixels).save(photo)
    for name, keep in (("run", False), ("kept", True)):
        runs.capture(tmp_path / name, photo.parent, "depth", keep_images=keep)
    stored, kept = (probes.open_run(tmp_path / name)["a.png"] for name in ("run", "kept"))
    np.testing.assert_array_equal(stored.image(), pixels)
    np.testing.assert_array_equal(kept.image(), pixels)
    Image.new("RGB", (9, 9)).save(photo)
    with pytest.raises(UnavailableImageError, match=r"has changed since a.png was captured.*keep_images") as caught:
        stored.image()
    assert caught.value.image == "a.png"
    assert kept.image().shape == (*kept.input_size, 3)
    photo.unlink()
    with pytest.raises(StoreError, match=r"a.png is no longer at"):
        stored.image()
    assert kept.image().dtype == np.uint8
    runs.capture(tmp_path / "arrays", list(runs.pictures()[:1]), "depth")
    with pytest.raises(StoreError, match="array and is not stored"):
        probes.open_run(tmp_path / "arrays")[runs.pictures()[0][0]].image()


def test_an_empty_run_can_be_opened(tmp_path):
    runs.capture(tmp_path / "run", list(runs.pictures()[5:6]))  # it fails
    run = probes.open_run(tmp_path / "run")
    assert len(run) == 0
    assert run.grids == {}
    with pytest.raises(ProbeError, match="0 images; grids: none"):
        run.stack()


def test_a_pass_of_the_demo_model_is_what_predict_gives(tmp_path):
    """The complete path: a file, a decoding process, the model, the disk."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    model = dpt.load("demo")
    with runs.one_thread():
        probes.run(model, tmp_path / "a.png", tmp_path / "run", "depth", size=112, workers=1, progress=False)
        with probes.capture(model, "depth") as live:
            model.predict(pixels, size=112)
    assert torch.equal(probes.open_run(tmp_path / "run")["a.png"]["depth"], live["depth"])
