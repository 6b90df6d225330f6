"""Lists image and video files: of folders, globs and text lists. Opens no file except text lists."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator

from dpt.opening import read_file
from dpt.trouble import is_machine_trouble

from ..errors import ProbeError
from .names import composed, decomposed, existing_path

# The formats that cameras, scanners and renderers write. HEIC and JPEG XL need a plugin of Pillow. They are listed
# anyway: such images then fail with the advice to install it, instead of missing from the run.
# fmt: off
PICTURES = frozenset({
    ".apng", ".avif", ".avifs", ".bmp", ".dib", ".gif", ".heic", ".heif", ".hif", ".j2c", ".j2k", ".jfif", ".jp2",
    ".jpc", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".jxl", ".mpo", ".pbm", ".pcx", ".pfm", ".pgm", ".png", ".pnm",
    ".ppm", ".psd", ".qoi", ".sgi", ".tga", ".tif", ".tiff", ".webp",
})
VIDEOS = frozenset({
    ".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mjpeg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts",
    ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv",
})
# fmt: on
_LISTED = PICTURES | VIDEOS
LARGEST_LIST = 2**30  # bytes of a text list: ten million paths


class SourceError(ProbeError, ValueError):
    """The given images cannot be used. The message says what was given and what to do."""


def suffix(path: str) -> str:
    """Suffix of a path in lower case, e.g. ".jpg"."""
    return os.path.splitext(path)[1].lower()


def look_up(given: str) -> tuple[list[str], list[str]]:
    """Finds the files of one path or glob.

    Args:
        given: A file, folder, glob or text list.

    Returns:
        (folders that names are relative to, absolute paths of files).

    Raises:
        SourceError: Nothing is found.
    """
    path = existing_path(os.path.join(os.getcwd(), given))
    lexical = os.path.normpath(path)  # used for names only: with links, a/../b can differ from b
    if given and os.path.isdir(path):
        return [lexical], _folder(path)
    if not os.path.lexists(path) and glob.has_magic(given):
        return _glob(given, path)
    if not given or not os.path.lexists(path):
        hint = "Use os.path.expanduser(path) for a leading ~" if given.startswith("~") else "Check the path"
        hint = "Download it first" if "://" in given else hint
        raise SourceError(f"{given!r} does not exist in {os.getcwd()}. {hint}")
    if suffix(path) == ".txt":
        return _text_list(path, os.path.dirname(lexical))
    return [os.path.dirname(lexical)], [path]


def _folder(folder: str) -> list[str]:
    others: list[str] = []
    found = list(_walk(folder, others))
    if not found:
        what = f"{len(others)} other files, e.g. {others[0]!r}" if others else "no files"
        raise SourceError(
            f"no image or video in the folder {folder!r}: it holds {what}. Suffixes such as .jpg, .png, .mp4 are "
            "taken; for other files use a glob with their suffix"
        )
    return found


def _walk(root: str, others: list[str]) -> Iterator[str]:
    """Yields the images and videos below a folder in the order of their names. Appends other files to `others`."""
    seen: set[tuple[int, int]] = set()
    stack = [(root, True)]
    while stack:
        path, is_folder = stack.pop()
        if not is_folder:
            yield path
            continue
        try:
            status = os.stat(path)
            if (status.st_dev, status.st_ino) in seen:  # a link to a folder that is already listed
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(path) as entries:
                listed = [(entry.name, _is_folder(entry)) for entry in entries if not entry.name.startswith(".")]
        except OSError as error:
            if path == root or is_machine_trouble(error):
                raise SourceError(f"cannot list the folder {path!r}: {error.strerror}") from error
            yield path  # decoding it fails with the reason, so the folder is not missed silently
            continue
        for name, folder in sorted(listed, reverse=True):
            if folder or suffix(name) in _LISTED:
                stack.append((os.path.join(path, name), folder))
            else:
                others.append(name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _glob(given: str, pattern: str) -> tuple[list[str], list[str]]:
    fixed = pattern
    while glob.has_magic(fixed):
        fixed = os.path.dirname(fixed)
    own_suffix = os.path.splitext(given)[1]
    chosen = bool(own_suffix) and not glob.has_magic(own_suffix)
    found: list[str] = []
    # The accents of the pattern are one character or two, those on disk may be the other.
    forms = {pattern, composed(pattern), decomposed(pattern)}
    matches = {path for form in forms for path in glob.iglob(form, recursive=True)}
    for path in sorted(matches, key=lambda path: path.split(os.sep)):
        if os.path.isdir(path):
            found += [] if "**" in given else _walk(path, [])
        elif chosen or suffix(path) in _LISTED:
            found.append(path)
    if not found:
        raise SourceError(f"no image matches {given!r} in {os.getcwd()}. Check the pattern; ** matches any folders")
    return [os.path.normpath(fixed)], found


def _text_list(path: str, folder: str) -> tuple[list[str], list[str]]:
    try:
        # File names are bytes. With surrogateescape, bytes that are not UTF-8 survive the way to os.open().
        text = read_file(path, LARGEST_LIST).decode(errors="surrogateescape").removeprefix("\ufeff")
        lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    except OSError as error:
        raise SourceError(f"cannot read the list {path!r}: {error.strerror}") from error
    lines = [line.removesuffix("\r") for line in lines]
    named = (line for line in lines if line.strip() and not line.lstrip().startswith("#"))
    found = [existing_path(os.path.join(folder, line)) for line in named]
    if not found:
        raise SourceError(f"the list {path!r} names no images. Write one path per line")
    if not any(map(os.path.lexists, found)):
        raise SourceError(
            f"none of the {len(found)} files in the list {path!r} exists, e.g. {found[0]!r}. Paths are relative to the "
            "folder of the list"
        )
    below = os.path.join(folder, "")
    outside = {os.path.dirname(lexical) for lexical in map(os.path.normpath, found) if not lexical.startswith(below)}
    return [folder, *sorted(outside)], found
