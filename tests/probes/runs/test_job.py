"""A run stores what it can: the machine's trouble, missing memory and values that are not finite cost single images."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import dpt
import probes
from probes.runs import decode_worker, job
from probes.runs.decoding import Decoded, Decoders
from probes.runs.errors import MachineError, ModelChangedError
from probes.runs.model_state import ModelState, check_weights
from tests.models import tiny_model

SETTINGS = {"size": 28, "part": 4, "batch": 2, "workers": 0, "progress": False}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(6):
        Image.fromarray(random.integers(0, 256, (28, 42, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


def run(model: dpt.DPT, images, out: Path, *selectors: str, **changes) -> probes.Report:
    return probes.run(model, images, out, *(selectors or ("norms", "depth")), **SETTINGS | changes)


def stored(out: Path) -> list[str]:
    return sorted(probes.open_run(out))


# Memory ---------------------------------------------------------------------------------------------------------------


def short_of_memory(monkeypatch: pytest.MonkeyPatch, most: int, error: type[Exception] = RuntimeError) -> None:
    """Makes passes over more than so many pixels, of all images of a batch, run out of memory."""
    forward = dpt.DPT.forward

    def limited(self, x):
        if x.shape[0] * x.shape[2] * x.shape[3] > most:
            raise error("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried ...")
        return forward(self, x)

    monkeypatch.setattr(dpt.DPT, "forward", limited)


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, torch.OutOfMemoryError])
def test_memory_that_does_not_suffice_for_one_image_costs_that_image(photos, tmp_path, monkeypatch, error):
    Image.new("RGB", (28 * 8, 28)).save(photos / "2b panorama.png")
    plain = run(tiny_model(), photos, tmp_path / "plain")
    assert plain.images == 7
    short_of_memory(monkeypatch, 2 * 28 * 42, error)
    report = run(tiny_model(), photos, tmp_path / "run")
    assert (report.images, report.failed, report.left_out) == (6, 1, [])
    ((name, reason),) = report.failures
    assert name == "2b panorama.png"
    assert "28 x 224" in reason
    assert "memory" in reason
    assert probes.open_run(tmp_path / "run").failures == {name: reason}
    for image in stored(tmp_path / "run"):
        for point in ("depth", "encoder.blocks.2.norms"):
            expected = probes.open_run(tmp_path / "plain")[image][point]
            assert torch.equal(probes.open_run(tmp_path / "run")[image][point], expected)


def test_memory_for_one_image_but_not_for_a_batch_is_enough(photos, tmp_path, monkeypatch):
    short_of_memory(monkeypatch, 28 * 42)
    report = run(tiny_model(), photos, tmp_path / "run")
    assert (report.images, report.failures) == (6, [])


def test_a_machine_without_memory_is_no_image_s_fault(photos, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        short_of_memory(patch, 10)
        report = run(tiny_model(), photos, tmp_path / "run")
        assert (report.images, report.failed, len(report.left_out)) == (0, 0, 6)
        assert [name for name, _ in report.failures] == [f"{n}.png" for n in range(6)]
        assert "6 images" in str(report)
        assert probes.open_run(tmp_path / "run").failures == {}
    report = run(tiny_model(), photos, tmp_path / "run")
    assert (report.images, report.failures) == (6, [])
    assert stored(tmp_path / "run") == [f"{n}.png" for n in range(6)]


# Trouble while reading ------------------------------------------------------------------------------------------------


def failing(monkeypatch: pytest.MonkeyPatch, number: int, *names: str) -> None:
    """Makes these files, or all, fail to open with an error of the system."""
    opened = decode_worker.open_file

    def open_file(path, **settings):
        if not names or os.path.basename(path) in names:
            raise OSError(number, os.strerror(number))
        return opened(path, **settings)

    monkeypatch.setattr(decode_worker, "open_file", open_file)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.ENOMEM, errno.ESTALE])
def test_images_that_the_machine_cannot_read_are_tried_again_by_the_next_run(photos, tmp_path, monkeypatch, number):
    with monkeypatch.context() as patch:
        failing(patch, number, "1.png", "4.png")
        report = run(tiny_model(), photos, tmp_path / "run")
    assert (report.images, report.failed) == (4, 0)
    assert [name for name, _ in report.left_out] == ["1.png", "4.png"]
    assert all(os.strerror(number) in reason or "memory" in reason for _, reason in report.left_out)
    assert report.failures == report.left_out
    assert probes.open_run(tmp_path / "run").failures == {}
    again = run(tiny_model(), photos, tmp_path / "run")
    assert (again.already_stored, again.images, again.failures) == (4, 2, [])


def test_a_disk_that_went_away_leaves_out_what_it_held(photos, tmp_path, monkeypatch):
    """However many images in a row it held: those after them are captured, in this call and in the next."""
    for number in range(6, 60):
        (photos / f"a{number:02}.png").write_bytes((photos / "0.png").read_bytes())
    lost = [f"a{number:02}.png" for number in range(16, 56)]
    for _ in range(2):
        with monkeypatch.context() as patch:
            failing(patch, errno.EIO, *lost)
            report = run(tiny_model(), photos, tmp_path / "run")
        assert [name for name, _ in report.left_out] == lost
        assert report.images + report.already_stored == 20
        assert probes.open_run(tmp_path / "run").failures == {}
    report = run(tiny_model(), photos, tmp_path / "run")
    assert (report.already_stored, report.images, report.failures) == (20, 40, [])


def test_a_share_that_does_not_answer_ends_the_run_which_resumes(photos, tmp_path, monkeypatch):
    """Waiting for every file of a lost share would take days."""
    for number in range(6, 60):
        (photos / f"a{number:02}.png").write_bytes((photos / "0.png").read_bytes())
    submit = Decoders._submit

    def silent(self, item, measure=False):
        made = submit(self, item, measure)
        if item.name >= "a16" and not measure:
            made.decoded = Decoded(item, error=f"{item.name} was not read within 60 seconds", trouble=True, stuck=True)
        return made

    with monkeypatch.context() as patch:
        patch.setattr(Decoders, "_submit", silent)
        with pytest.raises(MachineError, match=r"a25\.png") as caught:
            run(tiny_model(), photos, tmp_path / "run")
    assert str(tmp_path / "run") in str(caught.value)
    assert len(stored(tmp_path / "run")) == 16, "all that could be read before"
    assert probes.open_run(tmp_path / "run").failures == {}
    report = run(tiny_model(), photos, tmp_path / "run")
    assert (report.already_stored, report.images, report.failures) == (16, 44, [])


# Values that are not finite -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "dtype"), [(float("nan"), None), (float("inf"), None), (7e4, torch.float16)])
def test_values_that_are_not_finite_cost_their_image(photos, tmp_path, value, dtype, monkeypatch):
    from probes.runs.recording import Recorder

    model = tiny_model()
    record = Recorder.record
    Image.new("RGB", (42, 28), (3, 3, 3)).save(photos / "3b dark.png")
    mean, std = model.config.preprocess.mean[0], model.config.preprocess.std[0]

    def spoilt(self, x):
        """As if the model computed this value for the dark image."""
        dark = (x[:, 0] * std + mean < 0.02).flatten(1).all(1)
        handle = model.head.register_forward_hook(
            lambda module, given, depth: torch.where(dark.view(-1, *[1] * (depth.ndim - 1)), value, depth)
        )
        try:
            return record(self, x)
        finally:
            handle.remove()

    monkeypatch.setattr(Recorder, "record", spoilt)
    report = run(model, photos, tmp_path / "run", dtype=dtype)
    assert (report.images, report.failed) == (6, 1)
    ((name, reason),) = report.failures
    assert name == "3b dark.png"
    assert reason.startswith("depth ")
    assert ("float32" in reason) == (dtype == torch.float16 or value != 7e4)
    captures = probes.open_run(tmp_path / "run")
    assert sorted(captures) == [f"{n}.png" for n in range(6)]
    assert all(torch.isfinite(captures[image]["depth"]).all() for image in captures)


def test_weights_that_are_nan_stop_the_run(photos, tmp_path):
    model = tiny_model()
    with torch.no_grad():
        next(model.head.parameters()).mul_(float("nan"))
    with pytest.raises(probes.ProbeError, match="depth has values that are NaN"):
        run(model, photos, tmp_path / "run")
    assert stored(tmp_path / "run") == []


# The model ------------------------------------------------------------------------------------------------------------


def in_place(model):
    with torch.no_grad():
        next(model.parameters()).add_(1e-3)


def through_data(model):
    next(model.parameters()).data.mul_(1 + 1e-6)


def there_and_back(model):
    with torch.no_grad():
        weight = next(model.parameters())
        weight.copy_(weight.clone())


def assigned(model):
    state = {name: value.clone() for name, value in model.state_dict().items()}
    first = next(iter(state))
    state[first] = state[first] * 2
    model.load_state_dict(state, assign=True)


def trained(model):
    model.train()


CHANGES = [in_place, through_data, there_and_back, assigned, trained]


@pytest.mark.parametrize("change", CHANGES)
def test_a_model_that_changes_during_the_run_is_noticed(photos, tmp_path, monkeypatch, change):
    """A training thread goes on, or the file of a mapped model is overwritten."""
    model = tiny_model().eval()
    passes = []
    record = job.Job._record

    def counted(self, images):
        passes.append(len(images))
        if len(passes) == 3:  # in the second part
            thread = threading.Thread(target=change, args=(model,))
            thread.start()
            thread.join()
        return record(self, images)

    monkeypatch.setattr(job.Job, "_record", counted)
    with pytest.raises(ModelChangedError, match="changed during the run"):
        run(model, photos, tmp_path / "run")
    monkeypatch.undo()
    assert stored(tmp_path / "run") == [f"{n}.png" for n in range(4)], "the part before is intact"


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_of_a_model_is_seen(change):
    model = tiny_model().eval()
    state = ModelState(model)
    state.check()
    change(model)
    with pytest.raises(ModelChangedError):
        state.check()


def test_a_pass_and_a_capture_change_no_model(photos):
    model = tiny_model().eval()
    state = ModelState(model)
    with probes.capture(model, "norms"):
        model.predict(dpt.read_image(photos / "0.png"), 28)
    state.check()


@pytest.mark.filterwarnings("ignore:.*quanti", "ignore::DeprecationWarning")  # PyTorch moves quantisation elsewhere
def test_a_quantised_model_runs_and_its_changes_are_seen(photos, tmp_path):
    model = torch.ao.quantization.quantize_dynamic(tiny_model().eval(), {torch.nn.Linear}, torch.qint8)
    other = torch.ao.quantization.quantize_dynamic(tiny_model(1).eval(), {torch.nn.Linear}, torch.qint8)
    assert run(model, photos, tmp_path / "run").images == 6
    assert run(model, photos, tmp_path / "run").already_stored == 6
    with pytest.raises(probes.StoreError, match="weights"):
        run(other, photos, tmp_path / "run")
    state = ModelState(model)
    state.check()
    model.encoder.blocks[0].mlp.fc1 = other.encoder.blocks[0].mlp.fc1
    with pytest.raises(ModelChangedError, match=r"1 tensors|encoder\.blocks\.0\.mlp\.fc1"):
        state.check()


def test_a_worker_with_other_weights_is_refused():
    model = tiny_model(0)
    check_weights(model, dpt.fingerprint.fingerprint(tiny_model(0)))
    with pytest.raises(ModelChangedError):
        check_weights(model, dpt.fingerprint.fingerprint(tiny_model(1)))


# Further frames -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1])
def test_an_animation_is_said_to_be_its_first_frame(photos, tmp_path, workers):
    frames = [Image.new("RGB", (42, 28), (level,) * 3) for level in (10, 90, 200)]
    frames[0].save(photos / "moving.webp", save_all=True, append_images=frames[1:], lossless=True)
    report = run(tiny_model(), photos, tmp_path / "run", workers=workers)
    assert report.images == 7
    ((name, note),) = report.notes
    assert name == "moving.webp"
    assert "3 frames" in note
    assert "3 frames" in str(report)
    assert (probes.open_run(tmp_path / "run")["moving.webp"].image() == 10).all()
