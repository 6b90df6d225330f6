"""Frames of a video by number. Every frame of these videos shows its own number as black and white stripes."""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from probes.runs.video import Video, VideoError, count, frame

av = pytest.importorskip("av", reason="videos need the extra 'scale'")

FRAMES, HEIGHT, WIDTH = 40, 32, 96
# file name -> codec, its pixel format and options: with B-frames, without times, one keyframe only, hidden frames
KINDS = {
    "b-frames.mp4": ("libx264", "yuv420p", {"g": "12", "bf": "3", "crf": "18"}),
    "b-frames.mkv": ("libx264", "yuv420p", {"g": "7", "bf": "2", "crf": "18"}),
    "open-gop.ts": ("libx264", "yuv420p", {"g": "10", "bf": "2", "x264-params": "open-gop=1:scenecut=0"}),
    "one-key.mp4": ("libx264", "yuv420p", {"g": "1000", "bf": "2", "crf": "18"}),
    "no-times.avi": ("mpeg4", "yuv420p", {"g": "10", "bf": "2", "qmax": "3"}),
    "hidden.webm": ("libvpx", "yuv420p", {"auto-alt-ref": "1", "lag-in-frames": "16", "crf": "4", "b": "2M"}),
    "raw.h264": ("libx264", "yuv420p", {"g": "10", "bf": "2", "crf": "18"}),
    "intra.mov": ("mjpeg", "yuvj420p", {"qmax": "3"}),
    "lossless.mkv": ("ffv1", "bgr0", {"g": "1"}),
}


def picture(number: int) -> np.ndarray:
    """(32, 96, 3) uint8: the number as 6 bits, 16 pixels each, the highest first."""
    bits = [(number >> bit) & 1 for bit in reversed(range(6))]
    row = np.repeat(np.array(bits, np.uint8) * 255, 16)
    return np.ascontiguousarray(np.broadcast_to(row[None, :, None], (HEIGHT, WIDTH, 3)))


def number_in(pixels: np.ndarray) -> int:
    bits = pixels[4:-4].mean((0, 2)).reshape(6, 16)[:, 4:12].mean(1) > 127
    return int("".join(str(int(bit)) for bit in bits), 2)


def write(path: Path, codec: str, pixel_format: str, options: dict[str, str], frames: int = FRAMES) -> Path:
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixel_format
        for number in range(frames):
            shown = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            container.mux(stream.encode(shown))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """A folder with a video of each kind."""
    folder = tmp_path_factory.mktemp("videos")
    for name, how in KINDS.items():
        write(folder / name, *how)
    return folder


@pytest.mark.parametrize("name", KINDS)
def test_frames_are_counted(videos, name):
    assert count(videos / name) == FRAMES


ORDERS = {
    "forwards": range(FRAMES),
    "in steps": range(3, FRAMES, 9),
    "backwards": range(FRAMES - 1, -1, -5),
    "anyhow": [17, 3, 3, 39, 0, 38, 21, 22, 24, 10],
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", KINDS)
def test_every_frame_is_the_one_asked_for(videos, name, order):
    with Video(videos / name) as video:
        assert [number_in(video.frame(number)) for number in ORDERS[order]] == list(ORDERS[order])


def test_a_seek_to_the_time_alone_would_not_do(videos):
    """Control: a seek of the container lands on a keyframe before the requested frame."""
    with av.open(str(videos / "b-frames.mp4")) as container:
        stream = container.streams.video[0]
        container.seek(int(17 / 25 / stream.time_base), stream=stream)
        assert number_in(next(container.decode(stream)).to_ndarray(format="rgb24")) != 17


def test_steps_over_keyframes_seek_and_forward_reading_does_not(videos, monkeypatch):
    seeks: list[int] = []
    sought = Video._seek
    monkeypatch.setattr(Video, "_seek", lambda video, key: (seeks.append(key), sought(video, key)))
    with Video(videos / "b-frames.mp4") as video:
        for number in range(FRAMES):
            video.frame(number)
        assert seeks == []
        keys = video._keys
        video.frame(5)
        video.frame(30)
    assert len(keys) >= 3
    assert seeks == [max(key for key in keys if key <= 5), max(key for key in keys if key <= 30)]


def test_a_lossless_video_gives_its_pixels(videos):
    assert np.array_equal(frame(videos / "lossless.mkv", 37), picture(37))


def test_frames_that_are_not_there(videos):
    with (
        Video(videos / "intra.mov") as video,
        pytest.raises(VideoError, match="no frame 40: it has 40 frames"),
    ):
        video.frame(40)


@pytest.mark.parametrize(
    ("name", "content"),
    [("text.mp4", b"no video"), ("empty.mkv", b""), ("list.mp4", b"#EXTM3U\n#EXTINF:1,\nhttp://localhost:1/a.ts\n")],
)
def test_what_is_no_video_is_named(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(VideoError, match=f"{name} is not a video"):
        Video(path)
    with pytest.raises(VideoError, match=r"not a video.*: No such file"):
        Video(tmp_path / "missing.mp4")


def test_sound_alone_is_no_video(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 44100
        container.mux([*stream.encode(sound), *stream.encode(None)])
    with pytest.raises(VideoError, match="no video stream"):
        Video(path)


def test_frames_over_pillows_limit_are_refused(videos, monkeypatch):
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", HEIGHT * WIDTH)
    count(videos / "intra.mov")
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", HEIGHT * WIDTH - 1)
    with pytest.raises(VideoError, match="too large"):
        count(videos / "intra.mov")


def test_a_phone_s_video_is_turned_upright(videos, tmp_path):
    """The matrix in the track header of an MP4 states the rotation: 90 degrees clockwise."""
    data = bytearray((videos / "b-frames.mp4").read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 5 * 4 + 8 + 8  # version and flags, times and ids, reserved, layer and volume
    assert data[at : at + 36] == struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    data[at : at + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, HEIGHT << 16, 0, 1 << 30)
    path = tmp_path / "phone.mp4"
    path.write_bytes(data)
    turned = frame(path, 11)
    assert turned.shape == (WIDTH, HEIGHT, 3)
    assert np.array_equal(turned, np.rot90(frame(videos / "b-frames.mp4", 11), -1))


def test_damage_costs_the_frames_it_hit_and_no_frame_is_wrong(videos, tmp_path):
    """After a packet is overwritten, all frames that depend on it are refused, up to the next keyframe."""
    path = tmp_path / "damaged.mp4"
    data = bytearray((videos / "b-frames.mp4").read_bytes())
    with av.open(str(videos / "b-frames.mp4")) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    keys = [at for at, packet in enumerate(packets) if packet.is_keyframe]
    hit = packets[keys[1]]
    data[hit.pos + 4 : hit.pos + hit.size] = bytes(byte ^ 0x5A for byte in data[hit.pos + 4 : hit.pos + hit.size])
    path.write_bytes(data)
    shown: dict[int, int] = {}
    with Video(path) as video:
        for number in range(len(video)):
            with suppress(VideoError):
                shown[number] = number_in(video.frame(number))
    assert {number: number for number in shown} == shown
    assert set(range(keys[1] - 3)) <= set(shown)
    assert set(range(keys[2] + 3, FRAMES)) <= set(shown)
    assert len(shown) < FRAMES


def test_a_container_cut_short_still_gives_its_beginning(videos, tmp_path):
    whole = (videos / "b-frames.mkv").read_bytes()
    path = tmp_path / "cut.mkv"
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with Video(path) as video:
        assert 8 < len(video) < FRAMES
        assert [number_in(video.frame(number)) for number in range(8)] == list(range(8))


@pytest.mark.parametrize("name", ["film \n'1'.mp4", "fi\udcfflm.mp4", "a:b.mp4"])
def test_odd_names(videos, tmp_path, name):
    path = tmp_path / name
    path.write_bytes((videos / "b-frames.mp4").read_bytes())
    assert number_in(frame(path, 9)) == 9


ALPHA = {
    "vp9.webm": ("libvpx-vp9", "yuva420p", {"auto-alt-ref": "0", "g": "10", "crf": "4", "b": "2M"}),
    "vp8.webm": ("libvpx", "yuva420p", {"auto-alt-ref": "0", "g": "10", "crf": "4", "b": "2M"}),
    "prores.mov": ("prores_ks", "yuva444p10le", {}),
    "animation.mov": ("qtrle", "argb", {}),
    "lossless.mkv": ("ffv1", "bgra", {"g": "1"}),
    "planes.avi": ("utvideo", "gbrap", {}),
    "png.mov": ("png", "rgba", {}),
}


def write_transparent(path: Path, codec: str, pixel_format: str, options: dict[str, str], opaque: bool = False) -> Path:
    """Black frames that are transparent where `picture` is white."""
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixel_format
        for number in range(FRAMES):
            rgba = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
            rgba[..., 3] = 255 if opaque else 255 - picture(number)[..., 0]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgba, format="rgba")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("name", ALPHA)
def test_transparent_pixels_of_every_frame_are_white(tmp_path, name):
    with Video(write_transparent(tmp_path / name, *ALPHA[name])) as video:
        assert len(video) == FRAMES
        for number in [0, 1, 2, 17, 3, 3, 39, 0, 38, 21, 22, 24, 10]:
            pixels = video.frame(number)
            assert number_in(pixels) == number


@pytest.mark.parametrize("name", ["vp9.webm", "lossless.mkv"])
def test_opaque_pixels_of_a_video_with_alpha_keep_their_colour(tmp_path, name):
    with Video(write_transparent(tmp_path / name, *ALPHA[name], opaque=True)) as video:
        assert video.frame(5).max() <= 2


def test_without_a_decoder_that_keeps_alpha_the_video_is_refused(tmp_path, monkeypatch):
    path = write_transparent(tmp_path / "vp9.webm", *ALPHA["vp9.webm"])
    monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"libvpx-vp9"})
    with pytest.raises(VideoError, match=r"vp9\.webm has transparency.* libvpx-vp9"):
        Video(path)
