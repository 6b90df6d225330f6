"""Folders, globs, lists, videos and arrays give the expected images under the expected names."""

from __future__ import annotations

import errno
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from probes.runs.sources import PICTURES, VIDEOS, Item, SourceError, find

GREY = np.full((4, 6, 3), 90, np.uint8)
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows allows no such names")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """photos/ in the working folder, with empty files: `find` opens none of them."""
    for name in ("b.jpg", "a.PNG", "sub/deep/c.tiff", "sub/a.webp", "sub.jpg/x.jpg", "notes.txt", "thumbs.db"):
        touch(tmp_path / "photos" / name)
    for hidden in (".hidden.jpg", ".cache/x.jpg", "sub/._a.jpg"):
        touch(tmp_path / "photos" / hidden)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def names(images, **options) -> list[str]:
    return [item.name for item in find(images, **options)]


# Folders --------------------------------------------------------------------------------------------------------------

FOLDER = ["a.PNG", "b.jpg", "sub/a.webp", "sub/deep/c.tiff", "sub.jpg/x.jpg"]


@pytest.mark.parametrize(
    "given", ["photos", "photos/", Path("photos"), "./photos", "photos/sub/..", "photos/../photos"]
)
def test_a_folder_gives_its_images_sorted_and_named_from_there(photos, given):
    items = find(given)
    assert [item.name for item in items] == FOLDER
    assert list(items.names()) == FOLDER
    assert len(items) == items.count == 5
    assert all(item.path.is_absolute() and item.path.is_file() for item in items)
    assert [item.name for item in items] == FOLDER  # can be iterated again


def test_paths_keep_meaning_the_same_when_the_working_folder_changes(photos, tmp_path, monkeypatch):
    items = find("photos")
    monkeypatch.chdir(tmp_path / "photos" / "sub")
    assert next(item.path for item in items) == photos / "a.PNG"


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no links here")
def test_linked_folders_are_followed_and_each_is_listed_once(photos, tmp_path):
    touch(tmp_path / "elsewhere" / "far.jpg")
    (photos / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (photos / "twice").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (photos / "sub" / "loop").symlink_to(photos, target_is_directory=True)
    (photos / "self.jpg").symlink_to("self.jpg")
    (photos / "dangling.jpg").symlink_to("nowhere.jpg")
    (photos / "to-a.png").symlink_to("a.PNG")
    found = names("photos")
    assert found == sorted(
        [*FOLDER, "link/far.jpg", "self.jpg", "dangling.jpg", "to-a.png"], key=lambda n: n.split("/")
    )
    touch(tmp_path / "root" / "a.jpg")
    (tmp_path / "entry").symlink_to(tmp_path / "root", target_is_directory=True)
    assert names("entry") == ["a.jpg"]


def test_a_folder_without_images_says_what_it_holds(tmp_path):
    touch(tmp_path / "some" / "notes.md")
    with pytest.raises(SourceError, match=r"no image or video .* 1 other files, e.g. 'notes.md'"):
        find(tmp_path / "some")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="it holds no files"):
        find(tmp_path / "empty")


def test_a_subfolder_that_cannot_be_listed_stays_as_an_item(photos, monkeypatch):
    """Its images are unknown and must not be missing from the run silently."""
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert "sub/deep" in names("photos")
    with pytest.raises(SourceError, match=r"cannot list .*Permission denied"):
        find("photos/sub/deep")


def test_every_format_that_pillow_writes_is_found_by_its_suffix():
    drawings = {".eps", ".ps", ".pdf", ".emf", ".wmf"}
    rare = {
        *(".blp", ".bufr", ".bw", ".dds", ".grib", ".h5", ".hdf", ".icb", ".icns", ".ico", ".im", ".j2c", ".jpc"),
        *(".msp", ".palm", ".rgb", ".rgba", ".sgi", ".vda", ".vst", ".xbm", ".tif", ".tiff"),
    }
    written = {suffix for suffix, format in Image.registered_extensions().items() if format in Image.SAVE}
    written -= {suffix for suffix in written if Image.registered_extensions()[suffix] in ("MPEG",)}
    assert written - PICTURES <= drawings | rare
    assert {".jpg", ".jpeg", ".png", ".webp", ".tif", ".heic", ".avif"} <= PICTURES
    assert not PICTURES & VIDEOS


# Files, globs, lists --------------------------------------------------------------------------------------------------


def test_a_file_is_named_by_its_last_part_whatever_its_suffix(photos):
    assert names("photos/sub/a.webp") == ["a.webp"]
    assert names("photos/thumbs.db") == ["thumbs.db"]
    assert names(photos / ".hidden.jpg") == [".hidden.jpg"]


@pytest.mark.parametrize("missing", ["nowhere", "photos/c.jpg", "~/c.jpg", "https://example.org/c.jpg", ""])
def test_what_does_not_exist_is_an_error(photos, missing):
    with pytest.raises(SourceError, match=re.escape(repr(missing)) + ".* does not exist"):
        find(missing)
    with pytest.raises(SourceError, match="does not exist"):
        find(["photos", missing])


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("photos/*", [*FOLDER]),
        ("photos/*.jpg", ["b.jpg", "sub.jpg/x.jpg"]),
        ("photos/**/*.jpg", ["b.jpg", "sub.jpg/x.jpg"]),
        ("photos/**", FOLDER),
        ("photos/s*/[a-d]*", ["sub/a.webp", "sub/deep/c.tiff"]),
        ("photos/*.db", ["thumbs.db"]),
        ("photos/sub/?.webp", ["a.webp"]),
    ],
)
def test_globs(photos, pattern, expected):
    assert names(pattern) == expected


def test_a_glob_that_matches_nothing_is_an_error(photos):
    with pytest.raises(SourceError, match=r"no image matches 'photos/\*.gif'"):
        find("photos/*.gif")


def test_a_file_whose_name_looks_like_a_glob_is_that_file(photos):
    touch(photos / "c[1].jpg")
    touch(photos / "c1.jpg")
    assert names("photos/c[1].jpg") == ["c[1].jpg"]


def test_a_text_list(photos):
    lines = ["\ufeff# a comment", "b.jpg", "", "sub/a.webp\r", "   ", "./thumbs.db", "gone.jpg", "../photos/a.PNG"]
    (photos / "list.txt").write_text("\n".join(lines), newline="")
    items = find("photos/list.txt")
    assert [item.name for item in items] == ["b.jpg", "sub/a.webp", "thumbs.db", "gone.jpg", "a.PNG"]
    assert [item.path.exists() for item in items] == [True, True, True, False, True]


def test_a_list_that_leads_out_of_its_folder_names_from_the_common_parent(photos, tmp_path):
    touch(tmp_path / "other" / "x.jpg")
    (photos / "list.txt").write_text(f"b.jpg\n../other/x.jpg\n{photos / 'a.PNG'}\nsub/../../other/../other/./y.jpg\n")
    assert names("photos/list.txt") == ["photos/b.jpg", "other/x.jpg", "photos/a.PNG", "other/y.jpg"]


@pytest.mark.parametrize(
    ("text", "words"), [("# nothing\n\n", "names no images"), ("x.jpg\ny.jpg\n", "none of the 2 files .* exists")]
)
def test_lists_of_nothing(photos, text, words):
    (photos / "list.txt").write_text(text)
    with pytest.raises(SourceError, match=words):
        find("photos/list.txt")


def test_several_inputs_are_named_from_their_common_parent(photos, tmp_path):
    touch(tmp_path / "more" / "z.jpg")
    assert names(["photos/sub", "more", "photos/b.jpg"]) == [
        *("photos/sub/a.webp", "photos/sub/deep/c.tiff", "more/z.jpg", "photos/b.jpg")
    ]
    assert names(sorted(photos.glob("s*/*"))) == [*("sub/._a.jpg", "sub/a.webp", "sub/deep/c.tiff", "sub.jpg/x.jpg")]
    assert names(photos.glob("s*/*.webp")) == ["a.webp"]
    assert names(("photos", ("drawn", GREY))) == [*FOLDER, "drawn"]


@pytest.mark.parametrize("twice", [["photos", "photos/b.jpg"], ["photos/b.jpg", "photos/sub/../b.jpg"]])
def test_the_same_image_twice_is_an_error_that_names_both(photos, twice):
    with pytest.raises(SourceError, match=r"'b.jpg': .*b.jpg and .*b.jpg"):
        find(twice)


# Names ----------------------------------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"two words.jpg", "two words.jpg"),
        (b"new\nline.jpg", "new\nline.jpg"),
        (b'it\'s "quoted".jpg', 'it\'s "quoted".jpg'),
        ("größe 写真 🌊.jpg".encode(), "größe 写真 🌊.jpg"),
        (b"latin-\xe9\xff.jpg", r"latin-\xe9\xff.jpg"),
        (b"back\\slash.jpg", r"back\x5cslash.jpg"),
        (b"a\\..\\up.jpg", r"a\x5c..\x5cup.jpg"),
        (b"dots..jpg", "dots..jpg"),
        (b"#comment.jpg", "#comment.jpg"),
        (b" led by a space.jpg", " led by a space.jpg"),
        (b"-rf.jpg", "-rf.jpg"),
    ],
)
@pytest.mark.parametrize("how", ["folder", "file", "glob", "list", "mixed"])
def test_odd_names_are_valid_unicode_and_lead_to_their_file(tmp_path, raw, name, how):
    path = os.path.join(os.fsencode(tmp_path), b"in", raw)
    touch(Path(os.fsdecode(path)))
    if how == "list" and b"\n" in raw:  # a line cannot contain it: the list names two files that do not exist
        (tmp_path / "in" / "list.txt").write_bytes(raw + b"\n")
        with pytest.raises(SourceError, match="none of the 2 files"):
            find(tmp_path / "in" / "list.txt")
        return
    if how == "list":
        (tmp_path / "in" / "list.txt").write_bytes(b"./" + raw + b"\n")
    touch(tmp_path / "other" / "a.jpg")
    given = {
        "folder": tmp_path / "in",
        "file": os.fsdecode(path),
        "glob": str(tmp_path / "in" / "*.jpg"),
        "list": tmp_path / "in" / "list.txt",
        "mixed": [tmp_path / "in", tmp_path / "other"],
    }[how]
    item = next(iter(find(given)))
    assert item.name == ("in/" if how == "mixed" else "") + name
    item.name.encode()
    assert item.path.exists()
    assert os.fsencode(item.path) == path


@posix
def test_names_that_would_look_the_same_stay_apart(tmp_path):
    for raw in (b"a\xff.jpg", b"a\\xff.jpg", "a\ufffd.jpg".encode()):
        touch(Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), raw))))
    assert len(set(names(tmp_path))) == 3


# Arrays ---------------------------------------------------------------------------------------------------------------


def test_pairs_from_lists_mappings_and_one_alone():
    pairs = [("b", GREY), ("a/1", GREY + 1)]
    for given in (pairs, tuple(pairs), dict(pairs)):
        items = find(given)
        assert [(item.name, item.path, int(item.array[0, 0, 0])) for item in items] == [
            ("b", None, 90),
            ("a/1", None, 91),
        ]
        assert len(items) == 2
    assert names(("b", GREY)) == ["b"]


def test_a_generator_is_read_as_it_is_needed_and_once():
    pulled = []

    def camera():
        for number in range(1000):
            pulled.append(number)
            yield f"{number:04}", GREY

    items = find(camera())
    assert items.count is None
    with pytest.raises(TypeError, match="unknown until it ends"):
        len(items)
    source = iter(items)
    assert [next(source).name for _ in range(3)] == ["0000", "0001", "0002"]
    assert len(pulled) == 3
    with pytest.raises(SourceError, match="used up"):
        next(iter(items))


def test_a_generator_may_fill_one_buffer_again_and_again():
    buffer = np.zeros((4, 6, 3), np.uint8)

    def camera():
        for number in range(3):
            buffer[:] = number
            yield str(number), buffer

    assert [int(item.array.max()) for item in list(find(camera()))] == [0, 1, 2]


def test_an_iterable_with_a_length_can_be_read_again():
    class Dataset:
        def __len__(self):
            return 2

        def __iter__(self):
            return iter([("a", GREY), ("b", GREY)])

    items = find(Dataset())
    assert len(items) == 2
    assert [item.name for item in items] == [item.name for item in items] == ["a", "b"]


BAD_NAMES = ["", "/etc/passwd", "../up", "a/../../up", "a//b", "a/", ".", "C:\\x", "..\\up", "a\0b", 7, None]


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("way", [list, iter], ids=["list", "generator"])
def test_names_of_arrays_that_could_lead_anywhere_are_refused(name, way):
    with pytest.raises(SourceError, match=r"not a valid image name|expected \(name, array\) pairs"):
        list(find(way([("good", GREY), (name, GREY)])))


@pytest.mark.parametrize("way", [list, iter], ids=["list", "generator"])
def test_two_arrays_of_one_name_are_refused(way):
    with pytest.raises(SourceError, match="two images have the name 'a'"):
        list(find(way([("a", GREY), ("b", GREY), ("a", GREY)])))


@pytest.mark.parametrize(
    "given",
    [
        GREY,
        [GREY],
        iter([GREY]),
        7,
        None,
        b"photos",
        [],
        iter([]),
        {},
        [("a", "b.jpg")],
        iter([("a", GREY, 1)]),
        [None],
    ],
)
def test_what_is_no_image_is_refused(given):
    with pytest.raises(SourceError, match=r"expected|no images were given"):
        list(find(given))


# Videos ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def clip(tmp_path) -> Path:
    av = pytest.importorskip("av", reason="videos need the extra 'scale'")
    path = tmp_path / "films" / "clip.mp4"
    path.parent.mkdir()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for _ in range(12):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("frames", "numbers"),
    [
        (None, range(12)),
        (slice(3), range(3)),
        (slice(2, 9, 3), [2, 5, 8]),
        (slice(-2, None), [10, 11]),
        (slice(5, 1000, 5), [5, 10]),
    ],
)
def test_frames_of_a_video(clip, frames, numbers):
    items = find(clip, frames=frames)
    assert [item.name for item in items] == [f"clip.mp4#{number:06d}" for number in numbers]
    assert [(item.path, item.frame) for item in items] == [(clip, number) for number in numbers]
    assert len(items) == len(list(numbers))
    assert list(items.names()) == [item.name for item in items]


def test_videos_in_folders_stand_among_the_images(clip):
    touch(clip.parent / "a.jpg")
    touch(clip.parent / "z.jpg")
    found = names(clip.parent, frames=slice(0, 12, 6))
    assert found == ["a.jpg", "clip.mp4#000000", "clip.mp4#000006", "z.jpg"]


def test_a_broken_video_is_one_item(clip):
    touch(clip.parent / "broken.mkv")
    assert names(clip.parent, frames=slice(1)) == ["broken.mkv#000000", "clip.mp4#000000"]


def test_frames_that_choose_nothing_are_an_error(clip, tmp_path):
    with pytest.raises(SourceError, match="no frame of 1 videos"):
        find(clip, frames=slice(12, None))
    with pytest.raises(SourceError, match="no video was given"):
        find(touch(tmp_path / "a.jpg"), frames=slice(3))
    for wrong in (slice(None, None, -1), slice(0, 9, 0)):
        with pytest.raises(SourceError, match="frames must be a slice with a step >= 1"):
            find(clip, frames=wrong)


def test_without_pyav_a_video_says_what_to_install(clip, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(SourceError, match=r"PyAV is not installed.* pip install 'dpt-workbench\[scale\]'"):
        find(clip)


def test_items_travel_to_other_processes(photos):
    import pickle

    items = list(find("photos"))
    assert pickle.loads(pickle.dumps(items)) == items
    assert isinstance(items[0], Item)


# What is no file ------------------------------------------------------------------------------------------------------


@posix
@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["pipe.png", "clip.mp4", "link.png", "link.mp4"])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_pipe_or_device_among_images_fails_alone(tmp_path, name, workers):
    from probes.runs.decoding import Decoders
    from tests.models import tiny_model

    folder = tmp_path / "folder"
    folder.mkdir()
    Image.fromarray(GREY).save(folder / "good.jpg")
    if name.startswith("link"):
        (folder / name).symlink_to("/dev/zero")
    else:
        os.mkfifo(folder / name)
    with Decoders(tiny_model().config, 28, workers=workers, timeout=20.0) as decoders:
        results = {decoded.item.name.partition("#")[0]: decoded for decoded in decoders.decode(find(folder))}
    assert results.pop(name).error is not None
    assert results["good.jpg"].error is None


@posix
@pytest.mark.timeout(60)
def test_a_text_list_must_be_a_file_of_a_healthy_size(photos, tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "zero.txt").symlink_to("/dev/zero")
    for name in ("pipe.txt", "zero.txt"):
        with pytest.raises(SourceError, match=name):
            find(tmp_path / name)
    (tmp_path / "long.txt").write_text("a.jpg\n" * 100)
    monkeypatch.setattr("probes.runs.listing.LARGEST_LIST", 50)
    with pytest.raises(SourceError, match=r"long\.txt.* 50 bytes"):
        find(tmp_path / "long.txt")


def test_trouble_of_the_machine_while_listing_ends_the_call(photos, tmp_path, monkeypatch):
    """A folder or a video would otherwise be missing from the run without a word."""
    from probes.runs import listing, video

    scandir = os.scandir

    def busy(path):
        if str(path) != str(photos):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return scandir(path)

    (photos / "deeper").mkdir(exist_ok=True)
    with monkeypatch.context() as patch:
        patch.setattr(listing.os, "scandir", busy)
        with pytest.raises(SourceError, match=os.strerror(errno.EMFILE)):
            find(photos)
    (tmp_path / "clip.mp4").write_bytes(b"a video")

    def unreadable(path):
        raise video.VideoError("cannot open") from OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(video, "count", unreadable)
    with pytest.raises(SourceError, match=r"clip\.mp4"):
        find(tmp_path / "clip.mp4")
