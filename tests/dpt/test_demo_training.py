"""A training run learns, resumes where it stopped, and never leaves a damaged file."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import dpt
from dpt.demo import batches, initialization, sample_images, train
from dpt.demo import evaluate as evaluation
from dpt.demo.batches import Source, unexplained
from dpt.demo.evaluate import Scores, align, delta1_and_absrel, evaluate, mean_map, normalise, r2
from dpt.demo.initialization import new_model
from dpt.demo.scenes import render
from dpt.demo.settings import Settings
from dpt.demo.train import DivergedError, Run, loss
from dpt.depth_anything import depth_anything
from dpt.terminal import guarded

TINY = depth_anything(
    variant="tiny", width=64, depth=4, reassembly_channels=(8, 8, 16, 16), fusion_channels=16, hidden=64
)
SMALL = ((1.0, ((28, 42), (42, 28))),)


def settings(out: Path, **changes) -> Settings:
    return replace(Settings(out, steps=6, batch=64, warmup=2, sizes=SMALL, config=TINY, bfloat16=False), **changes)


@pytest.fixture(autouse=True)
def _fewer_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 4 and a validation set of 4 images, instead of 40 and 64."""
    monkeypatch.setattr(batches, "PIXELS", 28 * 42 / 16)
    monkeypatch.setattr(train, "VALIDATION_SEEDS", range(10_000, 10_004))
    monkeypatch.setattr(train, "WHITENING_SEEDS", range(900_000, 900_004))


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_a_resumed_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    straight = Run(settings(tmp_path / "a"))
    straight.train()
    assert straight.source.hard  # the queue of hard scenes is part of the state
    stopped = Run(settings(tmp_path / "b"))
    for _ in range(3):
        stopped.train_step(stopped.source.size(stopped.step, stopped.progress))
    stopped.save()
    resumed = Run(settings(tmp_path / "b"))
    assert (resumed.step, resumed.images) == (3, 12)
    assert not same(resumed.model, straight.model)
    resumed.train()
    assert resumed.step == 6
    assert same(resumed.model, straight.model)
    assert same(resumed.average, straight.average)
    # control: without the state of the optimizers and the hard scenes, the run ends with other weights
    forgetful = Run(settings(tmp_path / "c"))
    forgetful.model.load_state_dict(stopped.model.state_dict())
    forgetful.step = 3
    forgetful.train()
    assert not same(forgetful.model, straight.model)


def test_a_run_starts_from_a_finished_model(tmp_path: Path) -> None:
    first = Run(settings(tmp_path / "first"))
    first.train()
    finished = tmp_path / "first" / "demo.safetensors"
    second = Run(settings(tmp_path / "second", initial=str(finished)))
    assert second.step == 0
    for name, value in second.model.state_dict().items():
        torch.testing.assert_close(value, first.average.state_dict()[name], rtol=1e-3, atol=1e-6)  # stored in fp16
    assert not second.model.encoder.positions.table.requires_grad
    before = {name: value.clone() for name, value in second.model.state_dict().items()}
    second.train()
    moved = [name for name, value in second.model.state_dict().items() if not torch.equal(value, before[name])]
    assert len(moved) == len(before) - 1  # all but the position table
    wider = depth_anything(variant="tiny", width=128, depth=4, reassembly_channels=(8, 8, 16, 16), fusion_channels=16)
    with pytest.raises(ValueError, match=r"initial .*\(128, 4, .*\(64, 4, "):
        Run(settings(tmp_path / "third", initial=str(finished), config=wider))


WORKER = """
import sys
from pathlib import Path
import torch
from dpt.demo import batches, initialization, sample_images, train
from dpt.demo import evaluate as evaluation
from tests.dpt.test_demo_training import settings

out, rank = Path(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
batches.PIXELS = 28 * 42 / 16
train.VALIDATION_SEEDS, train.WHITENING_SEEDS = range(10_000, 10_004), range(900_000, 900_004)
torch.distributed.init_process_group("gloo", init_method=f"file://{out}/meeting", rank=rank, world_size=2)
run = train.Run(settings(out))
run.train()
torch.save(run.model.state_dict(), out / f"rank{rank}.pt")
torch.distributed.destroy_process_group()
"""


def test_processes_share_the_work_and_end_with_the_same_weights(tmp_path: Path) -> None:
    started = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path), str(rank)], cwd=Path(__file__).parents[2])
        for rank in range(2)
    ]
    assert [process.wait(timeout=300) for process in started] == [0, 0]
    one, other = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
    # Each process holds the momenta of its own matrices. The checkpoint holds all, for any number of processes.
    stored = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert stored["pictures"] == 24
    assert all(momentum.abs().max() > 0 for momentum in stored["optimizers"]["momenta"])
    alone = Run(settings(tmp_path, steps=8))
    for loaded, momentum in zip(alone.optimizers._momenta(), stored["optimizers"]["momenta"], strict=True):
        assert torch.equal(loaded, momentum)
    alone.train()
    assert alone.step == 8


def test_a_run_writes_a_log_a_checkpoint_and_models_that_load(tmp_path: Path) -> None:
    run = Run(settings(tmp_path))
    run.train()
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["checkpoint.pt", "demo.safetensors", "half.safetensors", "log.md"]
    header, rule, last = (tmp_path / "log.md").read_text().splitlines()
    assert header.count("|") == rule.count("|") == last.count("|") == 8
    assert last.startswith("| 6 | 24 |")
    model = dpt.load(tmp_path / "demo.safetensors", version=2)
    assert isinstance(model.head.activation, nn.ReLU)
    x = normalise(render([1], 28, 42).image)
    expected = run.average.half().float()(x).relu()
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


def test_a_finished_run_is_not_trained_further(tmp_path: Path) -> None:
    Run(settings(tmp_path)).train()
    before = (tmp_path / "demo.safetensors").read_bytes()
    assert math.isnan(Run(settings(tmp_path)).train())
    assert (tmp_path / "demo.safetensors").read_bytes() == before


@pytest.mark.parametrize("file", ["checkpoint.pt", "demo.safetensors"])
def test_a_failed_write_leaves_the_old_file_and_no_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    run = Run(settings(tmp_path))
    run.save()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    run.step = 3  # a change that both files show
    run.average.encoder.class_token.data.add_(1.0)

    def half(path: str | os.PathLike[str]) -> None:
        Path(path).write_bytes(b"half of the new")
        raise OSError(28, "No space left on device")

    writer = {"checkpoint.pt": "torch.save", "demo.safetensors": "dpt.demo.train.save_file"}[file]
    with monkeypatch.context() as patch:
        patch.setattr(writer, lambda content, path, metadata=None: half(path))
        with pytest.raises(OSError, match=f"{tmp_path / file}.*No space left"):
            run.save()
    assert {path.name for path in tmp_path.iterdir()} == before.keys()
    assert (tmp_path / file).read_bytes() == before[file]
    run.save()  # control: without the fault the file is replaced
    assert (tmp_path / file).read_bytes() != before[file]


def test_a_checkpoint_is_flushed_to_disk_before_it_replaces_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(settings(tmp_path))
    calls: list[str] = []
    fsync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (calls.append("fsync"), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append(Path(b).name), rename(a, b)))
    run.save()
    # Before each rename the file is flushed, after it the folder.
    assert calls == ["fsync", "checkpoint.pt", "fsync", "fsync", "demo.safetensors", "fsync"]


@pytest.mark.parametrize("matrix_rate", [0.02, 0.0])
def test_the_loss_falls_on_a_repeated_batch(tmp_path: Path, matrix_rate: float) -> None:
    rendered = render(range(4), 28, 42)
    losses = {}
    for share in (1.0, 0.0):
        model = new_model(TINY, seed=0).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizers = train.Optimizers(model, settings(tmp_path, rate=2e-3, matrix_rate=matrix_rate))
        values = []
        for _ in range(25):
            value = loss(model(normalise(rendered.image)), rendered.inverse_depth)
            values.append(value.item())
            model.zero_grad()
            value.backward()
            optimizers.step(share)
        losses[share] = values
    assert losses[1.0][-1] < 0.6 * losses[1.0][0]
    assert losses[0.0][-1] == losses[0.0][0]  # control: at a rate of 0 nothing is learned


def test_whitened_patches_show_texture_as_well_as_brightness() -> None:
    def share_of_largest(model: dpt.DPT) -> float:
        """The share of the patch tokens' variance along its largest direction."""
        tokens = model.patch_embed(normalise(render(range(8, 16), 112, 168).image)).flatten(0, 1)
        variance = torch.linalg.eigvalsh(torch.cov(tokens.T))
        return (variance[-1] / variance.sum()).item()

    random, whitened = new_model(TINY, seed=0), new_model(TINY, seed=0)
    initialization.whiten(whitened, render(range(8), 112, 168).image)
    assert share_of_largest(random) > 0.5
    assert share_of_largest(whitened) < 0.1


def test_every_trained_tensor_gets_a_gradient() -> None:
    model = new_model(TINY, seed=0)
    rendered = render(range(2), 28, 42)
    loss(model(normalise(rendered.image)), rendered.inverse_depth).backward()
    silent = [name for name, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert silent == []
    assert not model.encoder.positions.table.requires_grad


@pytest.mark.parametrize(("rows", "cols"), [(8, 12), (20, 28), (25, 13), (50, 40)])
def test_positions_resize_smoothly_to_any_grid(rows: int, cols: int) -> None:
    """Bicubic resizing of the table reproduces the curve, so every grid reads the same positions."""
    width = 64
    model = new_model(TINY, seed=0)
    got = model.encoder.positions(model.token_grid(14 * rows, 14 * cols))[0, 1:].view(rows, cols, width)
    waves = torch.logspace(math.log10(0.25), math.log10(4.0), width // 4, dtype=torch.float64)
    for axis, n in ((0, rows), (1, cols)):
        place = (torch.arange(n, dtype=torch.float64) + 0.5) / (n + 0.1)  # DINOv2's offset
        phase = 2 * math.pi * place[:, None] * waves
        want = 0.7 * torch.cat([phase.sin(), phase.cos()], 1)
        half = got[:, 0, : width // 2] if axis == 0 else got[0, :, width // 2 :]
        inner = slice(1, -1)  # the outermost patches of a large grid lie beyond the table's last cell
        torch.testing.assert_close(half[inner].double(), want[inner], rtol=0, atol=0.05)


def test_jitter_is_repeatable_and_changes_the_image() -> None:
    image = render([3, 4], 28, 42).image
    one, two, other = (batches.jitter(image, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert one.min() >= 0
    assert one.max() <= 1


def test_batches_of_new_scenes_depend_on_the_step_alone(tmp_path: Path) -> None:
    source = Source(settings(tmp_path))
    for step in range(3):
        source.batch(step, (28, 42))
    again = Source(settings(tmp_path)).batch(2, (28, 42))  # as in a resumed run
    for one, other in zip(source.batch(2, (28, 42)), again, strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(source.batch(3, (28, 42))[1], again[1])


def test_a_hard_scene_is_shown_again_three_times(tmp_path: Path) -> None:
    source = Source(settings(tmp_path, batch=8 * 16))  # eight images
    times: Counter[int] = Counter()
    for step in range(100):
        source.batch(step, (28, 42))
        times.update(seed for seed, _ in source.step)
        assert len({seed for seed, _ in source.step}) == 8
        source.record([0.9 if seed % 5 == 0 else 0.05 for seed, _ in source.step])
    assert {n for seed, n in times.items() if seed % 5} == {1}
    bad = [n for seed, n in times.items() if seed % 5 == 0]
    assert set(bad) == {1, 2, 3, 1 + batches.MAX_REPEATS}
    assert sum(times.values()) - len(times) == pytest.approx(0.25 * 800, rel=0.1)  # a quarter of all images


def test_the_queue_of_hard_scenes_keeps_the_worst(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "QUEUE_LENGTH", 3)
    source = Source(settings(tmp_path))
    source.step = [(seed, 0) for seed in range(5)]
    source.record([0.3, 0.05, 0.9, 0.2, 0.5])
    assert [seed for _, seed, _ in source.hard] == [2, 4, 0]


def test_unexplained_is_one_minus_r2() -> None:
    truth = render([1, 3, 5], 28, 42).inverse_depth
    guess = truth + 0.05 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(unexplained(3 - guess, truth).double(), 1 - r2(guess, truth), rtol=1e-3, atol=1e-5)
    assert unexplained(torch.ones_like(truth), truth).tolist() == [1, 1, 1]


def test_mirroring_flips_image_and_depth_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "jitter", lambda image, generator: image)
    given = settings(tmp_path, batch=16 * 16)
    image, inverse_depth = Source(given).batch(0, (28, 42))
    plain = render(range(batches.TRAINING_SEEDS, batches.TRAINING_SEEDS + 16), 28, 42, indoors=batches.ROOMS)
    turned = [not torch.equal(a, b) for a, b in zip(inverse_depth, plain.inverse_depth, strict=True)]
    assert 2 < sum(turned) < 14
    for k, mirrored in enumerate(turned):
        assert torch.equal(image[k], plain.image[k].flip(-1) if mirrored else plain.image[k])
        assert torch.equal(inverse_depth[k], plain.inverse_depth[k].flip(-1) if mirrored else plain.inverse_depth[k])


def test_training_and_evaluation_seeds_are_disjoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dpt.demo import sample_images
    from dpt.demo.evaluate import EVALUATION_SEEDS

    seen: set[int] = set()

    def record(seeds, height, width, **keywords):
        seen.update(seeds)
        return render([0] * len(seeds), height, width)

    monkeypatch.setattr(batches, "render", record)
    source = Source(settings(tmp_path))
    for step in range(4):
        source.batch(step, (28, 42))
    assert min(seen) >= batches.TRAINING_SEEDS
    held_out = {*EVALUATION_SEEDS, *range(10_000, 10_064), *sample_images.SEEDS.values()}
    assert max(held_out) < batches.TRAINING_SEEDS


@pytest.mark.parametrize("progress", [0.0, 0.3, 0.99, 1.0, 1.3])
def test_the_rate_is_a_share_of_the_peak_that_falls(tmp_path: Path, progress: float) -> None:
    given = settings(tmp_path, warmup=10)
    assert train.rate(0, progress, given) == pytest.approx(train.rate(10, progress, given) / 10)
    assert 0.02 <= train.rate(10, progress, given) <= 1
    assert train.rate(10, 1.3, given) == pytest.approx(0.02)


def test_a_run_needs_a_length(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="steps or minutes"):
        Run(settings(tmp_path, steps=None))


def test_a_loss_of_nan_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "loss", lambda prediction, inverse_depth: prediction.sum() * math.nan)
    with pytest.raises(FloatingPointError, match="nan") as caught:
        Run(settings(tmp_path)).train()
    assert isinstance(caught.value, DivergedError)
    assert isinstance(caught.value, dpt.DPTError)
    assert caught.value.step == 1
    assert math.isnan(caught.value.loss)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_scores_ignore_only_scale_and_shift() -> None:
    truth = render([1, 3, 5], 28, 42).inverse_depth
    noise = 0.02 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(align(7 * truth + 3, truth), truth.double(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(r2(5 * (truth + noise) - 2, truth), r2(truth + noise, truth), rtol=1e-4, atol=1e-5)
    predictors = {"perfect": lambda x: 2 * truth - 1, "noisy": lambda x: truth + noise}
    found = evaluate(predictors, [1, 3, 5], 28, 42)
    assert found["perfect"] == pytest.approx(Scores(1.0, 1.0, 0.0), abs=1e-4)
    assert found["noisy"].r2 < found["perfect"].r2
    assert found["noisy"].delta1 < found["perfect"].delta1
    assert found["noisy"].absrel > found["perfect"].absrel
    assert r2(torch.ones_like(truth), truth).tolist() == pytest.approx([0, 0, 0], abs=1e-9)


def test_delta1_and_absrel_by_hand() -> None:
    # depths 1, 2, 4 and sky
    truth = torch.tensor([[[1.0, 0.5, 0.25, 0.0]]])
    delta, absrel = delta1_and_absrel(truth, truth)
    assert (delta.item(), absrel.item()) == (1.0, 0.0)
    guess = align(torch.tensor([[[1.0, 0.5, 0.0, 0.0]]]), truth)
    depth = 1 / guess[0, 0, :3]
    want = ((depth - torch.tensor([1.0, 2.0, 4.0])).abs() / torch.tensor([1.0, 2.0, 4.0])).mean().item()
    delta, absrel = delta1_and_absrel(torch.tensor([[[1.0, 0.5, 0.0, 0.0]]]), truth)
    assert absrel.item() == pytest.approx(want)
    assert delta.item() == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("main", "arguments", "value"),
    [
        (train.main, ["--minutes", "abc"], "abc"),
        (train.main, [], "neither"),
        (train.main, ["--steps", "0"], "0"),
        (train.main, ["--steps", "1", "--batch", "-1"], "-1"),
        (train.main, ["--steps", "1", "--rate", "nan"], "nan"),
        (train.main, ["--steps", "1", "--device", "gpu"], "gpu"),
        (train.main, ["--steps", "1", "--initial", "nowhere.pth"], "nowhere.pth"),
        (evaluation.main, ["--sizes", "10by20"], "10by20"),
        (evaluation.main, ["--scenes", "0"], "'0'"),
        (evaluation.main, ["--model", "nowhere.pth"], "nowhere.pth"),
    ],
)
def test_a_wrong_option_exits_with_2(
    main, arguments: list[str], value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "run")] if main is train.main else []
    with pytest.raises(SystemExit) as caught:
        main([*out, *arguments])
    assert caught.value.code == 2
    assert value in capsys.readouterr().err.splitlines()[-1]


def test_mean_map_is_darker_at_the_top() -> None:
    guess = mean_map(14, 21, seeds=range(2_000_000, 2_000_032))
    assert guess.mean().item() == pytest.approx(1, abs=1e-4)
    assert guess[-1].mean() > 1.5 * guess[0].mean()


@pytest.mark.parametrize("program", [train, sample_images])
def test_an_address_makes_no_folder(program, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    steps = ["--steps", "1"] if program is train else []
    with pytest.raises(SystemExit) as caught, guarded():
        program.main(["--out", "zip::s3://bucket/run", *steps])
    assert caught.value.code
    assert "zip::s3://bucket/run" in capsys.readouterr().err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []
