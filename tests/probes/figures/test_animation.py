"""MP4 animations, decoded frame by frame. GIFs are tested in test_fusion_explorer.py."""

from __future__ import annotations

import io
import itertools
from typing import Any

import matplotlib
import numpy as np
import pytest

import probes
from probes.explorers import FusionExplorer
from probes.figures import animation
from tests.models import tiny_model
from tests.probes.explorers.wire import ask

av = pytest.importorskip("av", reason="MP4 needs the extra 'scale'")

IMAGE = np.random.default_rng(3).integers(0, 255, (61, 91, 3), dtype=np.uint8)
SIZE = (70, 98)
WAY = (0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25)  # there and back, without repeating either end


@pytest.fixture(scope="module")
def replay() -> probes.FusionReplay:
    return probes.FusionReplay(tiny_model(), IMAGE, SIZE, keep_aspect=False)


def frames_of(film: Any) -> tuple[Any, list[np.ndarray]]:
    """The video stream and its frames, in RGB."""
    with av.open(film) as container:
        return container.streams.video[0], [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def wanted(replay: probes.FusionReplay, part: float) -> np.ndarray:
    """The frame between no scales and fusion.2 at -2, cropped to even sides as the format requires."""
    table = matplotlib.colormaps["viridis"](np.arange(256), bytes=True)[:, :3]
    return table[animation.shade(replay({"fusion.2": 1.0 - 3 * part}))][:60, :90].astype(int)


def test_an_mp4_holds_every_frame_in_its_colours(replay, tmp_path):
    path = probes.animate(replay, {}, {"fusion.2": -2.0}, tmp_path / "walk.mp4", frames=5, rate=12, colormap="viridis")
    stream, frames = frames_of(str(path))
    assert (stream.codec_context.name, stream.average_rate) == ("h264", 12)
    assert [frame.shape for frame in frames] == [(60, 90, 3)] * len(WAY)
    # The format is lossy, more in colour than in brightness. Each frame must still be nearest to its own map.
    maps = [wanted(replay, part) for part in WAY[:5]]
    apart = np.array([[np.abs(frame - one).mean() for one in maps] for frame in frames])
    assert apart.argmin(1).tolist() == [0, 1, 2, 3, 4, 3, 2, 1]
    assert apart.min(1).max() < 8
    assert min(np.abs(a - b).mean() for a, b in itertools.pairwise(maps)) > 8  # control: the maps differ by more


def test_one_way_and_a_smaller_side(replay, tmp_path):
    path = probes.animate(replay, {}, {"fusion.3": 3.0}, tmp_path / "way.mp4", frames=3, side=40, there_and_back=False)
    _, frames = frames_of(str(path))
    assert [frame.shape for frame in frames] == [(26, 40, 3)] * 3


def test_the_widget_writes_the_same_film(replay, tmp_path):
    explorer = FusionExplorer(tiny_model(), IMAGE, size=SIZE, keep_aspect=False, colormap="viridis")
    ones = [1.0] * 7
    message, (content,) = ask(
        explorer, kind="animation", start=ones, end=[1.0, 1.0, -2.0, *ones[3:]], format="mp4", frames=5
    )
    stem = "depth_unscaled_to_depth_fusion2x-2"  # the view puts the names of image and model in front
    assert (message["type"], message["stem"], message["ending"]) == ("video/mp4", stem, ".mp4")
    stream, frames = frames_of(io.BytesIO(content))
    assert stream.average_rate == 20
    assert len(frames) == len(WAY)
    assert np.abs(frames[4] - wanted(replay, 1)).mean() < 8 < np.abs(frames[0] - wanted(replay, 1)).mean()
