"""Runs on a Dask cluster write the same bytes as local runs, and survive lost workers and schedulers."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster, as_completed
from PIL import Image

import dpt
import probes
from probes.runs.dask_engine import Task
from probes.runs.errors import EngineError, ModelChangedError, StoreError
from probes.runs.job import Report
from probes.runs.recording import Recorder
from probes.runs.verify import verify
from tests.models import tiny_beit, tiny_model

# distributed closes sockets and event loops of lost workers later than the garbage collector would like
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.skipif(os.name == "nt", reason="kills processes by signals"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50) as cluster:
        yield cluster


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    with Client(cluster) as client:
        yield client


def pictures(count: int) -> list[tuple[str, np.ndarray]]:
    random = np.random.default_rng(0)
    return [(f"{n:03d}", random.integers(0, 256, (28, 42, 3), dtype=np.uint8)) for n in range(count)]


def capture(out: Path, count: int = 24, model: dpt.DPT | None = None, **settings) -> Report:
    settings = {"size": 28, "part": 4, "workers": 0, "progress": False} | settings
    return probes.run(model or tiny_model(), pictures(count), out, "norms", "fusion.3", **settings)


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file() and p.name != "lock"}


def test_a_cluster_writes_the_same_bytes_as_this_process(client: Client, tmp_path: Path):
    there = capture(tmp_path / "there", engine=client)
    here = capture(tmp_path / "here")
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
    assert [(report.images, report.failed, report.already_stored) for report in (there, here)] == [(24, 0, 0)] * 2


def test_each_worker_holds_the_model_once_for_all_its_parts(client: Client, tmp_path: Path):
    def models() -> int:
        import gc

        return sum(isinstance(thing, dpt.DPT) for thing in gc.get_objects())

    report = capture(tmp_path / "run", engine=client)
    assert report.images == 24, "six parts"
    assert list(client.run(models).values()) == [1, 1]


def test_images_that_fail_on_a_worker_are_listed(client: Client, tmp_path: Path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for n in range(3):
        (folder / f"{n}.png").write_bytes(b"no picture")
    report = probes.run(
        tiny_model(), folder, tmp_path / "run", "norms", engine=client, size=28, workers=0, progress=False
    )
    assert report.failed == 3
    assert [name for name, _ in report.failures] == ["0.png", "1.png", "2.png"]


def test_a_run_begun_here_goes_on_there(client: Client, tmp_path: Path):
    capture(tmp_path / "run", 8)
    report = capture(tmp_path / "run", engine=client)
    assert (report.already_stored, report.images) == (8, 16)
    capture(tmp_path / "here")
    assert contents(tmp_path / "run") == contents(tmp_path / "here")


def test_only_a_window_of_parts_is_under_way(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    futures, most = [], 0
    submit = Client.submit

    def counted(self, function, *arguments, **settings):
        nonlocal most
        futures.append(submit(self, function, *arguments, **settings))
        most = max(most, sum(not future.done() for future in futures))
        return futures[-1]

    monkeypatch.setattr(Client, "submit", counted)
    capture(tmp_path / "run", 80, engine=client, part=2)
    assert 2 <= most <= 2 * 2, "two parts a worker, of forty"


def test_a_killed_worker_costs_nothing(tmp_path: Path):
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50) as cluster,
        Client(cluster) as client,
    ):
        first, _ = client.run(os.getpid).values()

        def kill():
            wait_for(tmp_path / "run", 2)
            # The files of a worker that is killed inside a part. This kill may miss that moment.
            (tmp_path / "run" / "parts" / ".tmp-000099-0123456789ab-1-01234567" / "2x3").mkdir(parents=True)
            (tmp_path / "run" / "parts" / ".tmp-000099-0123456789ab-1-01234567" / "2x3" / "zarr.json").write_text("{")
            os.kill(first, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        report = capture(tmp_path / "run", 120, engine=client)
        killer.join()
        assert first not in client.run(os.getpid).values(), "it was killed"
    assert report.images == 120
    capture(tmp_path / "here", 120)
    assert contents(tmp_path / "run") == contents(tmp_path / "here")


@pytest.mark.parametrize("moment", ["a part is waited for", "the cluster is asked for its workers"])
def test_a_lost_scheduler_ends_the_run_with_what_is_stored_and_the_next_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
):
    # On closing, the worker's nanny searches the lost scheduler for this time. The default is 30 s.
    patience = dask.config.set({"distributed.comm.timeouts.connect": "2s"})
    own = LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0", silence_logs=50)
    with patience, own as cluster:
        client = Client(cluster, timeout=5)
        owner, name = (as_completed, "__next__") if moment == "a part is waited for" else (Client, "nthreads")
        asked = getattr(owner, name)
        closed: list[bool] = []

        def lost(self, *arguments, **settings):
            if not closed and lines(tmp_path / "run") >= 2:
                closed.append(True)
                cluster.sync(cluster.scheduler.close)
            return asked(self, *arguments, **settings)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, lost)
            with pytest.raises(EngineError) as caught:
                capture(tmp_path / "run", 400, engine=client)
        client.close(timeout=1)
    assert closed, "the scheduler was lost during the run"
    for word in ("Dask cluster failed", str(tmp_path / "run"), "intact", "resume"):
        assert word in str(caught.value)
    stored = len(probes.open_run(tmp_path / "run"))
    assert 0 < stored < 400
    assert verify(tmp_path / "run").damage == []
    report = capture(tmp_path / "run", 400)
    assert report.already_stored >= stored
    assert len(probes.open_run(tmp_path / "run")) == 400


def lines(run: Path) -> int:
    """Number of parts in the manifest."""
    manifest = run / "manifest.jsonl"
    return manifest.read_bytes().count(b"\n") if manifest.exists() else 0


def wait_for(run: Path, parts: int):
    limit = time.monotonic() + 60
    while time.monotonic() < limit:
        if lines(run) >= parts:
            return
        time.sleep(0.005)
    raise TimeoutError("the run did not begin")


def test_two_runs_on_one_store_at_once(client: Client, tmp_path: Path):
    """The lock refuses the second run."""
    from probes.runs.store import Store

    capture(tmp_path / "run", 4)
    with Store.write(tmp_path / "run"), pytest.raises(StoreError, match="another process is writing"):
        capture(tmp_path / "run", engine=client)


def test_what_does_not_travel_is_refused(client: Client, tmp_path: Path):
    model = tiny_model()
    with (
        probes.edit(model, {"fusion.1": probes.scale(0.5)}),
        pytest.raises(probes.ProbeError, match="edits do not travel"),
    ):
        capture(tmp_path / "edited", model=model, engine=client)
    probes.registry.register("mine", model.fusion)
    with pytest.raises(probes.ProbeError, match="registered points"):
        probes.run(model, pictures(2), tmp_path / "own", "mine", engine=client, size=28, progress=False)
    with pytest.raises(TypeError, match="got str"):
        capture(tmp_path / "word", engine="dask")


def test_attention_with_biases_comes_from_workers_as_from_here(client: Client, tmp_path: Path):
    model = tiny_beit()
    for engine, out in ((client, "there"), ("local", "here")):
        probes.run(model, pictures(3), tmp_path / out, "attention", engine=engine, size=32, workers=0, progress=False)
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


def test_a_worker_with_other_weights_is_refused(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The file of the model was overwritten before it arrived on the worker."""
    reduce = Task.__reduce__

    def overwritten(self):
        kind, (job, *rest) = cast("tuple[object, tuple[Any, ...]]", reduce(self))
        other = Recorder(tiny_model(1), job.recorder.names, job.recorder.tokens, job.recorder.dtype)
        return kind, (replace(job, recorder=other), *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Task, "__reduce__", overwritten)
        with pytest.raises(ModelChangedError, match="other weights"):
            capture(tmp_path / "run", engine=client)
    assert len(probes.open_run(tmp_path / "run")) == 0
    assert capture(tmp_path / "run", engine=client).images == 24


def test_trouble_of_a_worker_s_machine_is_no_image_s_fault(client: Client, tmp_path: Path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, picture in pictures(5):
        Image.fromarray(picture).save(folder / f"{name}.png")
    Image.new("RGB", (42, 28)).save(
        folder / "moving.gif", save_all=True, append_images=[Image.new("RGB", (42, 28), "white")]
    )

    def trouble(broken: bool):
        from probes.runs import decode_worker

        if not broken:
            decode_worker.open_file = decode_worker.opened_file
            return
        decode_worker.opened_file = open_file = decode_worker.open_file

        def busy(path, **settings):
            if path.endswith("002.png"):
                raise OSError(24, "Too many open files")
            return open_file(path, **settings)

        decode_worker.open_file = busy

    settings = {"engine": client, "size": 28, "part": 2, "workers": 0, "progress": False}
    client.run(trouble, True)
    try:
        report = probes.run(tiny_model(), folder, tmp_path / "run", "norms", **settings)
    finally:
        client.run(trouble, False)
    assert (report.images, report.failed, [name for name, _ in report.left_out]) == (5, 0, ["002.png"])
    assert [name for name, _ in report.notes] == ["moving.gif"]
    assert probes.open_run(tmp_path / "run").failures == {}
    again = probes.run(tiny_model(), folder, tmp_path / "run", "norms", **settings)
    assert (again.images, again.failures) == (1, [])
