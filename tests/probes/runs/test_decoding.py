"""Decoding in processes yields the same inputs in order, whatever happens to the processes."""

from __future__ import annotations

import errno
import hashlib
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from itertools import count
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dpt
from dpt.image import Preprocess, prepare
from probes.runs import decode_worker as decoder
from probes.runs.decode_process import DecodeProcess, _has_answered
from probes.runs.decoding import DecoderError, Decoders
from probes.runs.sources import Item, find

ROOT = Path(__file__).parents[3]
SMALL = Preprocess(base=56, multiple=14, method="lower_bound", keep_aspect=True, mean=(0.5, 0.4, 0.3), std=(0.2,) * 3)
posix = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")

# A Pillow format whose images do to their decoder what the file says.
DEADLY = """
import ctypes, errno, os, signal, time
from PIL import Image, ImageFile

class DeadlyImage(ImageFile.ImageFile):
    format = "DEADLY"

    def _open(self):
        word, _, rest = self.fp.read().decode().removeprefix("DEADLY ").partition(" ")
        if word == "exit":
            os._exit(7)
        elif word == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif word == "hang":
            open(rest, "w").close() if rest else None
            time.sleep(600)
        elif word == "hold":  # C code that never releases Python's lock
            open(rest, "w").close()
            ctypes.PyDLL(None).sleep(600)
        elif word == "once" and not os.path.exists(rest):
            open(rest, "w").close()
            os._exit(9)
        elif word == "memory":
            raise MemoryError
        elif word == "killed":  # by the system, for lack of memory
            os.kill(os.getpid(), signal.SIGKILL)
        elif word == "descriptors" and not os.path.exists(rest):
            open(rest, "w").close()
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        elif word == "slow":
            time.sleep(0.4)
        elif word == "object":
            raise RuntimeError(f"bad {object()}\\nin two lines")
        os.write(1, b"a decoder that prints\\n" * 5000)
        self._mode, self._size = "L", (30, 20)
        self.tile = [ImageFile._Tile("raw", (0, 0, 30, 20), 0, ("L", 0, 1))]
        self.fp.seek(0)
        self.fp.read, self.fp.seek = None, None
        self.im = None

    def load(self):
        self._im = Image.new("L", (30, 20), 200).im
        self.tile = []
        return Image.Image.load(self)

def accepts(prefix):
    return prefix.startswith(b"DEADLY")

def register():
    Image.register_open("DEADLY", DeadlyImage, accepts)

def read(path):
    register()
    with Image.open(path) as picture:
        return picture.size
"""


@pytest.fixture
def deadly(tmp_path, monkeypatch) -> Iterator[None]:
    """Registers the format DEADLY in Pillow, from a module that other processes can import."""
    (tmp_path / "plugin").mkdir()
    (tmp_path / "plugin" / "deadly_format.py").write_text(DEADLY)
    monkeypatch.syspath_prepend(tmp_path / "plugin")
    importlib.import_module("deadly_format").register()
    yield
    Image.ID.remove("DEADLY")
    del Image.OPEN["DEADLY"], sys.modules["deadly_format"]


@pytest.fixture
def photos(tmp_path) -> Path:
    """Twelve small images of several sizes."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(12):
        noise = np.random.default_rng(number).integers(0, 256, (30 + number % 3, 40 + number % 5, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number:02}.{'jpg' if number % 2 else 'png'}")
    return folder


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    """One shared process, because starting one takes two seconds."""
    with Decoders(SMALL, workers=1, ahead=4, images=True) as decoders:
        yield decoders


def check(decoded, size=None) -> None:
    """Checks that the input equals the one that the model prepares from the file."""
    assert decoded.error is None
    assert np.array_equal(decoded.x, prepare(dpt.read_image(decoded.item.path), SMALL, size)[0].numpy())
    assert decoded.sha256 == hashlib.sha256(decoded.item.path.read_bytes()).hexdigest()
    with Image.open(decoded.item.path) as picture:
        assert decoded.size == (picture.height, picture.width)


# Same inputs as without processes--------------------------------------------------------------------------------------


@pytest.mark.parametrize("here", [True, False])
def test_images_come_in_order_as_the_model_would_prepare_them(photos, decoders, here):
    with Decoders(SMALL, workers=0, images=True) as in_this_process:
        everything = list((in_this_process if here else decoders).decode(find(photos)))
        again = list(decoders.decode(find(photos)))
    assert [decoded.item.name for decoded in everything] == list(find(photos).names())
    for decoded, twin in zip(everything, again, strict=True):
        check(decoded)
        assert np.array_equal(decoded.x, twin.x)
        assert decoded.x.dtype == np.float32
        assert decoded.x.flags.c_contiguous
        assert decoded.image.shape == (*decoded.x.shape[1:], 3)
        shown = decoded.x.transpose(1, 2, 0) * np.float32(SMALL.std) + np.float32(SMALL.mean)
        assert np.abs(decoded.image - 255 * shown.clip(0, 1)).max() <= 0.51


def test_a_model_s_configuration_and_sizes_are_followed(photos):
    model = dpt.load("demo")
    image = dpt.read_image(photos / "00.png")
    for size, keep_aspect in ((70, True), ((56, 84), False), (None, True)):
        with Decoders(model.config, size, keep_aspect, workers=0) as decoders:
            (decoded,) = decoders.decode(find(photos / "00.png"))
        assert np.array_equal(decoded.x, model.prepare(image, size, keep_aspect)[0].numpy())
        assert decoded.image is None
    with pytest.raises(ValueError, match="multiples of 14"):
        Decoders(model.config, (50, 50), keep_aspect=False)


def test_arrays(photos, decoders):
    array = dpt.read_image(photos / "00.png")
    odd = np.asfortranarray(array)[::-1]
    pairs = [("a", array), ("turned", odd), ("floats", array / 255), ("grey", array[..., 0]), ("none", array[:0])]
    a, turned, *wrong = decoders.decode(find(pairs))
    assert np.array_equal(a.x, prepare(array, SMALL)[0].numpy())
    assert np.array_equal(turned.x, prepare(np.ascontiguousarray(odd), SMALL)[0].numpy())
    assert a.size == array.shape[:2]
    assert a.sha256 == decoder.pixels_sha256(array.copy()) != turned.sha256
    assert decoder.pixels_sha256(np.zeros((2, 3, 3), np.uint8)) != decoder.pixels_sha256(np.zeros((3, 2, 3), np.uint8))
    assert [decoded.x for decoded in wrong] == [None] * 3
    assert all(decoded.error.startswith("expected an (H, W, 3) uint8 RGB array, got ") for decoded in wrong)


def test_frames_of_each_video_go_to_one_process(tmp_path):
    from tests.probes.runs.test_video import number_in, write

    for name in ("one.mp4", "two.mp4"):
        write(tmp_path / name, "libx264", "yuv420p", {"g": "10", "bf": "2", "crf": "18"})
    exact = Preprocess(base=32, multiple=8, method="lower_bound", keep_aspect=True, mean=(0, 0, 0), std=(1, 1, 1))
    items = [item for pair in zip(find(tmp_path / "one.mp4"), find(tmp_path / "two.mp4"), strict=True) for item in pair]
    with Decoders(exact, workers=2, images=True) as decoders:
        decoded = list(decoders.decode(items))
        assert sorted(str(child.video) for child in decoders._children) == sorted(map(str, tmp_path.glob("*.mp4")))
    assert [one.error for one in decoded] == [None] * 80
    assert [number_in(one.image) for one in decoded] == [number for number in range(40) for _ in range(2)]
    assert len({one.sha256 for one in decoded}) == 40
    gone = [Item("two.mp4#000040", tmp_path / "two.mp4", 40), Item("none", tmp_path / "no.mp4", 0)]
    with Decoders(exact, workers=0) as decoders:
        assert [one.error for one in decoders.decode(gone)] == [
            "two.mp4 has no frame 40: it has 40 frames, numbered from 0",
            "none is not a video that PyAV can read: No such file or directory",
        ]


def test_pillow_s_limit_and_plugins_reach_the_processes(photos, tmp_path, deadly, monkeypatch):
    (tmp_path / "plain.dead").write_text("DEADLY nothing")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 31 * 41)
    with Decoders(SMALL, workers=1) as decoders:
        plain, *rest = decoders.decode(find([tmp_path / "plain.dead", photos]))
    assert plain.error is None
    assert plain.size == (20, 30)
    assert np.allclose(plain.x[0], (200 / 255 - 0.5) / 0.2)
    assert {decoded.error is None for decoded in rest} == {True, False}
    for decoded in rest:
        height, width = 30 + int(decoded.item.path.stem) % 3, 40 + int(decoded.item.path.stem) % 5
        assert (decoded.error is None) == (height * width <= 31 * 41)


def test_a_plugin_that_cannot_be_taken_along_is_said_to_stay(monkeypatch):
    class Local:
        pass

    monkeypatch.setattr(Image, "ID", [*Image.ID, "LOCAL"])
    monkeypatch.setitem(Image.OPEN, "LOCAL", (Local, None))
    with pytest.warns(UserWarning, match="cannot read LOCAL"):
        Decoders(SMALL, workers=1).close()
    Decoders(SMALL, workers=0).close()


# Reading ahead --------------------------------------------------------------------------------------------------------


def test_items_are_taken_as_there_is_room_and_no_sooner(decoders):
    pulled = []

    def endless() -> Iterator[tuple[str, np.ndarray]]:
        for number in count():
            pulled.append(number)
            yield str(number), np.zeros((14, 14, 3), np.uint8)

    stream = decoders.decode(find(endless()))
    assert pulled == [0]  # `find` reads the first item
    assert [next(stream).item.name for _ in range(3)] == ["0", "1", "2"]
    assert len(pulled) == 3 + decoders.ahead - 1
    stream.close()
    assert not decoders._waiting
    (one,) = decoders.decode([Item("after", array=np.ones((14, 14, 3), np.uint8))])
    assert one.item.name == "after"


@pytest.mark.parametrize(("memory", "most"), [(4_000_000, 5), (1, 2), (10**9, 20)])
def test_large_images_do_not_pile_up(decoders, monkeypatch, memory, most):
    """The memory limit bounds how many of 20 arrays of 1 MB are alive, plus the one given and the one taken."""
    made: list[weakref.ref[np.ndarray]] = []
    peak = 0

    def large() -> Iterator[Item]:
        for number in range(20):
            array = np.full((1000, 334, 3), number, np.uint8)
            made.append(weakref.ref(array))
            item = Item(str(number), array=array)
            del array
            yield item
            del item

    with monkeypatch.context() as patch:
        patch.setattr(decoders, "memory", memory)
        patch.setattr(decoders, "ahead", 30)
        for decoded in decoders.decode(large()):
            peak = max(peak, sum(array() is not None for array in made))
            assert decoded.error is None
    assert most - 1 <= peak <= most


def test_an_input_of_absurd_size_is_that_image_s_error(tmp_path, photos):
    """1 x 60000 pixels become 56 x 3360000: 2 GB of floats."""
    Image.new("L", (60000, 1)).save(tmp_path / "line.png")
    with Decoders(SMALL, workers=0) as decoders:
        line, other = decoders.decode(find([tmp_path / "line.png", photos / "00.png"]))
    assert "1 x 60000 pixels become an input of 56 x 3360000" in line.error
    assert "Crop the image" in line.error
    assert not line.trouble
    check(other)


@pytest.mark.parametrize("here", [True, False])
def test_what_the_source_raises_comes_after_the_images_before_it(photos, decoders, here):
    def failing() -> Iterator[Item]:
        yield from list(find(photos))[:2]
        raise OSError("the camera was unplugged")

    with Decoders(SMALL, workers=0) as in_this_process:
        stream = (in_this_process if here else decoders).decode(failing())
        assert [next(stream).error, next(stream).error] == [None, None]
        with pytest.raises(OSError, match="unplugged"):
            next(stream)


# Images that kill, hang or confuse ------------------------------------------------------------------------------------


@posix
def test_a_image_that_kills_or_hangs_costs_itself_alone(photos, deadly, tmp_path):
    advice = "It may be damaged or too large: convert or shrink it"
    fates = {
        "03b.png": ("hang", f"was not decoded within 1.5 seconds. {advice}"),
        "03c.png": ("crash", f"crashed the process that decoded it (SIGSEGV), twice. {advice}"),
        "05b.png": ("memory", "needs more memory than is available"),
        "05c.png": ("object", "05c.png cannot be decoded: bad <object object at 0x...>\\nin two lines. It is damaged"),
        "07b.png": (f"once {tmp_path / 'marker'}", None),
        "09b.png": (f"descriptors {tmp_path / 'second marker'}", None),
        "09c.png": ("killed", "its process was killed (SIGKILL)"),
    }
    for name, (word, _) in fates.items():
        (photos / name).write_text(f"DEADLY {word}")
    before = set(threading.enumerate())
    with Decoders(SMALL, workers=2, timeout=1.5) as decoders:
        everything = list(decoders.decode(find(photos)))
        processes = [child._process for child in decoders._children]
    assert [decoded.item.name for decoded in everything] == sorted(os.listdir(photos))
    for decoded in everything:
        word, reason = fates.get(decoded.item.name, ("", ""))
        if reason:
            assert [decoded.x, decoded.size, decoded.sha256] == [None] * 3
            assert reason in decoded.error
            assert decoded.error.startswith(decoded.item.name)
            assert decoded.error.isprintable()
            assert decoded.trouble == (word in ("memory", "killed")), "the machine is to blame, not the image"
        elif word:  # the process was killed once, not because of the image
            assert decoded.error is None
            assert decoded.size == (20, 30)
        else:
            check(decoded)
    assert set(threading.enumerate()) == before
    assert all(process is None or process.poll() is not None for process in processes)


@posix
def test_control_a_plain_pool_loses_what_was_waiting_too(photos, deadly):
    read = importlib.import_module("deadly_format").read
    (photos / "01b.png").write_text("DEADLY exit")
    lost = []
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(read, str(path)) for path in sorted(photos.iterdir())]
        for future in futures:
            try:
                future.result(timeout=60)
            except BrokenProcessPool:
                lost.append(future)
    assert len(lost) > 5


@posix
def test_a_process_killed_from_outside_costs_nothing(photos, decoders):
    stream = decoders.decode(find(photos))
    got = [next(stream)]
    os.kill(decoders._children[0]._process.pid, signal.SIGKILL)
    got += stream
    assert len(got) == 12
    for decoded in got:
        check(decoded)


@posix
def test_ctrl_c_is_the_parent_s_affair(photos, decoders):
    stream = decoders.decode(find(photos))
    got = [next(stream)]
    child = decoders._children[0]._process
    assert os.getpgid(child.pid) != os.getpgid(0)  # a terminal sends SIGINT to the parent's group
    os.kill(child.pid, signal.SIGINT)
    got += stream
    assert decoders._children[0]._process is child
    assert len(got) == 12


# Trouble of the machine -----------------------------------------------------------------------------------------------

SUSPENDED = """
import json, sys
import deadly_format
from probes.runs.decoding import Decoders
from probes.runs.sources import find
from tests.probes.runs.test_decoding import SMALL

deadly_format.register()
with Decoders(SMALL, workers=2, timeout=2.0) as decoders:
    stream = decoders.decode(find(sys.argv[1]))
    errors = [next(stream).error]
    print(json.dumps([child._process.pid for child in decoders._children]), flush=True)
    print(json.dumps(errors + [decoded.error for decoded in stream]), flush=True)
"""


@posix
@pytest.mark.parametrize("who", ["parent", "children", "all"])
def test_processes_that_are_suspended_fail_no_image(tmp_path, deadly, who):
    """Ctrl-Z stops the parent, a batch scheduler all processes of a job. Longer than the timeout."""
    folder = tmp_path / "slow"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number:02}.png").write_text("DEADLY slow")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path / "plugin")])}
    command = [sys.executable, "-c", SUSPENDED, str(folder)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        children = json.loads(parent.stdout.readline())
        stopped = {"parent": [parent.pid], "children": children, "all": [parent.pid, *children]}[who]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(5.0)  # longer than the timeout, and than the alarm of a child
        for pid in reversed(stopped):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        assert json.loads(parent.stdout.readline()) == [None] * 12


@posix
def test_a_child_that_has_answered_is_not_overdue(photos):
    """The parent wakes up, and looks at the clock before it looks into the pipe."""
    with Decoders(SMALL, workers=1, timeout=0.8) as decoders:
        child = DecodeProcess(decoders._settings)
        child._started()
        child._set_clock(0.0)
        decoder.send(child._process.stdin, {"name": "a", "path": str(photos / "00.png"), "frame": None, "measure": 0})
        limit = time.monotonic() + 60
        while not _has_answered(child._process) and time.monotonic() < limit:
            time.sleep(0.01)
        time.sleep(0.05)
        child.check_time(10.0)
        answer, _ = decoder.receive(child._process.stdout)
        assert answer["error"] is None
        child._set_clock(0.0)
        time.sleep(0.05)
        child.check_time(10.0)
        assert child._process.wait(60) == -signal.SIGKILL, "a child that is silent is overdue"
        child.reap()


@posix
def test_a_process_that_cannot_start_for_a_moment_starts_later(photos, monkeypatch):
    starts = []

    def busy(*arguments, **settings):
        starts.append(1)
        if len(starts) == 1:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return popen(*arguments, **settings)

    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", busy)
    with Decoders(SMALL, workers=1) as decoders:
        (decoded,) = decoders.decode(find(photos / "00.png"))
    check(decoded)
    assert len(starts) == 2


@posix
def test_a_share_that_went_away_is_no_image_s_fault(photos, monkeypatch):
    """A child that waits for a file does not decode."""
    pipe = photos / "01b.png"
    os.mkfifo(pipe)  # stands for a file that does not answer
    with Decoders(SMALL, workers=1, timeout=1.0) as decoders:
        child = DecodeProcess(decoders._settings)
        child._started()
        child._reading, child._overdue = True, True
        died = child._death(EOFError())
        assert died.machine
        assert died.stuck
        assert "was not read within 1 seconds" in str(died)
        by_name = {decoded.item.name: decoded for decoded in decoders.decode(find(photos))}
    assert "pipe" in by_name.pop("01b.png").error
    for decoded in by_name.values():
        check(decoded)


# One read -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("large", [False, True])
def test_pixels_and_hash_are_of_the_same_bytes(tmp_path, monkeypatch, large):
    """Another program replaces or overwrites the file at any moment of the reading."""
    monkeypatch.setattr(decoder, "IN_MEMORY", 10 if large else 2**26)
    contents = []
    for level in (10, 200):
        Image.new("RGB", (40, 30), (level,) * 3).save(tmp_path / f"{level}.png")
        contents.append((tmp_path / f"{level}.png").read_bytes())
    path = tmp_path / "a.png"
    read, opened = decoder.read, decoder.open_file
    left: list[None] = []

    def replaced(*arguments):
        if left:
            left.pop()
            time.sleep(0.02)  # the clock of the file system has ticks
            path.write_bytes(contents[path.read_bytes() == contents[0]])

    for patched in ("read", "open_file"):
        for times in (1, 2):
            path.write_bytes(contents[0])
            left[:] = [None] * times
            with monkeypatch.context() as patch:
                if patched == "read":
                    patch.setattr(decoder, "read", lambda source: (replaced(), read(source))[1])
                else:
                    patch.setattr(decoder, "open_file", lambda path: (opened(path), replaced())[0])
                reading, sha256, stamp = decoder.read_once(str(path))
            shown = 10 if sha256 == hashlib.sha256(contents[0]).hexdigest() else 200
            assert sha256 == hashlib.sha256(contents[shown == 200]).hexdigest()
            assert (reading.pixels == shown).all()
            assert stamp[0] == len(contents[shown == 200])


def test_a_file_that_is_written_all_the_time_is_left_for_later(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.new("RGB", (4, 3)).save(path)
    opened = decoder.open_file

    def growing(path):
        file = opened(path)
        with Path(path).open("ab") as more:
            more.write(b"\0")
        return file

    monkeypatch.setattr(decoder, "open_file", growing)
    numbers = count()
    monkeypatch.setattr(decoder, "stamp", lambda status: (status.st_size, next(numbers), 0))
    with Decoders(SMALL, workers=0) as decoders:
        (decoded,) = decoders.decode(find(path))
    assert "another program is writing it" in decoded.error
    assert decoded.trouble


def test_sizes_come_from_headers(photos, decoders, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (50, 20)).save(tmp_path / "turned.jpg", exif=exif)
    (tmp_path / "cut.png").write_bytes((photos / "00.png").read_bytes()[:-200])  # enough for its size
    (tmp_path / "bad.png").write_bytes(b"no image")
    given = [
        tmp_path / "bad.png",
        tmp_path / "cut.png",
        tmp_path / "turned.jpg",
        ("array", np.zeros((5, 7, 3), np.uint8)),
    ]
    assert list(decoders.sizes(find(given))) == [None, (30, 40), (50, 20), (5, 7)]


# Frozen and embedded programs -----------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("how", ["frozen", "embedded"])
def test_a_program_that_is_not_python_is_never_started(photos, tmp_path, monkeypatch, how):
    program = tmp_path / "MyDepthApp"
    program.write_text(f"#!/bin/sh\necho started >> {tmp_path / 'starts'}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    if how == "frozen":
        monkeypatch.setattr(sys, "frozen", True, raising=False)
    with Decoders(SMALL) as decoders:
        assert decoders.workers == 0
        for decoded in decoders.decode(find(photos)):
            check(decoded)
    with Decoders(SMALL, workers=1) as decoders, pytest.raises(DecoderError, match="workers=0"):
        list(decoders.decode(find(photos)))
    assert not (tmp_path / "starts").exists()


# The life of the processes --------------------------------------------------------------------------------------------

ORPHANS = """
import subprocess, sys, time
from pathlib import Path
import deadly_format
from probes.runs.decoding import Decoders
from probes.runs.sources import find
from tests.probes.runs.test_decoding import SMALL

print("begun", flush=True)
print(subprocess.Popen(["sleep", "600"]).pid, flush=True)
deadly_format.register()
here = Path(sys.argv[1])
kept = []
for word in ("hang", "hold"):
    decoders = Decoders(SMALL, workers=1, timeout=300.0 if word == "hang" else 10.0)
    (here / word).write_text(f"DEADLY {word} {here / word}.began")
    decoders._submit(next(iter(find(here / word))))
    while not (here / f"{word}.began").exists():
        time.sleep(0.01)
    print(decoders._children[0]._process.pid, flush=True)
    kept.append(decoders)
time.sleep(600)
"""


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_the_processes_end_with_a_parent_that_is_killed(tmp_path, deadly):
    """One child sleeps in a decoder, one runs C code that holds Python's lock. The control, another
    process, stays.

    Their parent is a script without ``if __name__ == "__main__"``, which must not run again in a child.
    """
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(tmp_path / "plugin")])
    }
    script = tmp_path / "script.py"
    script.write_text(ORPHANS)
    command = [sys.executable, str(script), str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout.readline() == "begun\n"
        other, *children = [int(parent.stdout.readline()) for _ in range(3)]
        try:
            assert not any(map(gone, children))
            parent.kill()
            parent.wait()
            limit = time.monotonic() + 60
            while not all(map(gone, children)) and time.monotonic() < limit:
                time.sleep(0.05)
            assert [gone(pid) for pid in children] == [True] * 2
            assert not gone(other)
        finally:
            os.kill(other, signal.SIGKILL)
            parent.kill()


@posix
def test_processes_that_do_not_start_are_no_image_s_fault(photos, monkeypatch, tmp_path):
    (tmp_path / "python3").symlink_to("/bin/false")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python3"))
    with Decoders(SMALL, workers=1) as decoders, pytest.raises(DecoderError, match=r"does not start: .*exit code 1"):
        list(decoders.decode(find(photos)))
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with Decoders(SMALL, workers=1) as decoders, pytest.raises(DecoderError, match=r"No such file"):
        list(decoders.decode(find(photos)))
    monkeypatch.setattr(sys, "executable", "")
    with Decoders(SMALL, workers=1) as decoders, pytest.raises(DecoderError, match="workers=0"):
        list(decoders.decode(find(photos)))


def test_an_error_while_a_process_starts_is_shown(photos, monkeypatch):
    monkeypatch.setattr(decoder, "plugins", lambda: ([["ODD", "no_such_module:Opener", None]], []))
    with (
        Decoders(SMALL, workers=1) as decoders,
        pytest.raises(DecoderError, match="No module named 'no_such_module'"),
    ):
        list(decoders.decode(find(photos)))


def test_closed_decoders_say_so(photos):
    decoders = Decoders(SMALL, workers=1)
    decoders._submit(next(iter(find(photos))))  # its process is just starting
    stream = decoders.decode(find(photos))
    decoders.close()
    decoders.close()
    with pytest.raises(RuntimeError, match="pool is closed"):
        next(stream)


@pytest.mark.parametrize("wrong", [{"workers": -1}, {"ahead": 0}, {"timeout": 0.0}, {"timeout": float("nan")}])
def test_settings_that_make_no_sense(wrong):
    with pytest.raises(ValueError, match=">= "):
        Decoders(SMALL, **wrong)


def test_what_is_no_message_is_refused_before_memory_is_taken_for_it(tmp_path):
    array = np.eye(3)[:, ::2]
    with (tmp_path / "pipe").open("w+b", buffering=0) as pipe:
        decoder.send(pipe, {"size": [2, 3]}, [array])
        pipe.seek(0)
        message, (received,) = decoder.receive(pipe)
        assert message == {"size": [2, 3]}
        assert np.array_equal(received, array)
        with pytest.raises(EOFError):
            decoder.receive(pipe)
        pipe.write(b"a decoder that prints")
        pipe.seek(-21, os.SEEK_END)
        with pytest.raises(ValueError, match="something else wrote to the pipe"):
            decoder.receive(pipe)
