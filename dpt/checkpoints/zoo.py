"""The zoo: which checkpoints are known, under which names, and where a name leads.

A name is looked up in the folders weights/ first (a file dropped there just works, under its own name or the zoo's),
then here, and then comes from the hub (`hub`), checked. Version and depth range, which Depth-Anything's files do not
tell, are known for everything in the table.

Licences are those of the weights, as stored copies of the named pages show them (2024 to 2026); the pages were not
read live. `licence_sure` is False where the authors' statements contradict each other, or where there is none.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..errors import InvalidValueError, MissingFileError
from . import hub

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")  # of checkpoints in weights/, the preferred first
COMMAND = "dpt-workbench models"

Source = str | os.PathLike[str] | Mapping[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """A known checkpoint: what it is called, where it is, and what its tensors do not tell."""

    name: str
    repository: str  # on the hub
    files: tuple[str, ...]  # in it, the weights last
    megabytes: int  # of 10**6 bytes
    licence: str  # of the weights
    licence_source: str
    licence_sure: bool = True
    version: int | None = None  # of Depth-Anything
    max_depth: float | None = None  # metres, of metric models
    layout: str = "original"  # of the keys: "original" or "transformers"
    release: str = ""  # the name of the released file, where it is called otherwise than on the hub
    url: str = ""  # another place to get it from, for putting it into weights/
    aliases: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        return self.files[-1]

    @property
    def names(self) -> tuple[str, ...]:
        """Everything that it answers to, its own name first."""
        stems = [Path(file).stem for file in (self.release, self.file) if file and not generic(file)]
        names = [self.name, *self.aliases, *stems, self.repository.split("/")[1], self.repository]
        spelt: dict[str, str] = {}
        for name in names:
            spelt.setdefault(_key(name), name)
        return tuple(spelt.values())


def generic(file: str) -> bool:
    """Whether a file's name says nothing about the model in it."""
    return Path(file).stem in ("model", "pytorch_model")


TRANSFORMERS = ("config.json", "model.safetensors")
SIZES = {"small": ("vits", 99), "base": ("vitb", 390), "large": ("vitl", 1341)}  # encoder, megabytes
README = "README of DepthAnything/Depth-Anything-V2"
METRIC = "; the question which holds for metric models is open in DepthAnything/Depth-Anything-V2#245"


def _v1(size: str) -> Iterator[Checkpoint]:
    encoder, megabytes = SIZES[size]
    converted = f"LiheYoung/depth-anything-{size}-hf"
    yield Checkpoint(
        name=f"depth-anything-v1-{size}",
        aliases=(f"depth-anything-{size}",),
        repository=f"LiheYoung/depth_anything_{encoder}14",
        files=("pytorch_model.bin",),
        release=f"depth_anything_{encoder}14.pth",
        megabytes=megabytes,
        licence="Apache-2.0",
        licence_source=f"tag of the card of {converted}, made from it; its own has none (LiheYoung/Depth-Anything#252)",
        licence_sure=False,
        version=1,
        url=f"https://huggingface.co/spaces/LiheYoung/Depth-Anything/blob/main/checkpoints/depth_anything_{encoder}14.pth",
    )
    yield Checkpoint(
        name=f"depth-anything-v1-{size}-hf",
        repository=converted,
        files=TRANSFORMERS,
        megabytes=megabytes,
        licence="Apache-2.0",
        licence_source=f"tag of the card of {converted}",
        version=1,
        layout="transformers",
    )


def _v2(size: str) -> Iterator[Checkpoint]:
    encoder, megabytes = SIZES[size]
    for suffix, files in (("", (f"depth_anything_v2_{encoder}.pth",)), ("-hf", TRANSFORMERS)):
        repository = f"depth-anything/Depth-Anything-V2-{size.capitalize()}{suffix}"
        yield Checkpoint(
            name=f"depth-anything-v2-{size}{suffix}",
            repository=repository,
            files=files,
            megabytes=megabytes,
            licence="Apache-2.0" if size == "small" else "CC-BY-NC-4.0",
            licence_source=f"{README}, and the tag of the card of {repository}",
            version=2,
            layout="transformers" if suffix else "original",
        )


def _metric(size: str, place: str, dataset: str, folder: str, max_depth: float) -> Iterator[Checkpoint]:
    encoder, megabytes = SIZES[size]
    repository = f"depth-anything/Depth-Anything-V2-Metric-{folder}-{size.capitalize()}"
    if size != "small":
        source = f"tag of the card of {repository}; but {README} has Base and Large under CC-BY-NC-4.0{METRIC}"
    elif dataset == "vkitti":
        source = f"tag of the card of {repository}, and {README} for Small"
    else:
        source = f"{README} for Small; the card of {repository} was not seen{METRIC}"
    yield Checkpoint(
        name=f"depth-anything-v2-metric-{dataset}-{size}",
        aliases=(f"depth-anything-v2-metric-{place}-{size}",),
        repository=repository,
        files=(f"depth_anything_v2_metric_{dataset}_{encoder}.pth",),
        megabytes=megabytes,
        licence="Apache-2.0",
        licence_source=source,
        licence_sure=(dataset, size) == ("vkitti", "small"),
        version=2,
        max_depth=max_depth,
    )
    repository = f"depth-anything/Depth-Anything-V2-Metric-{place.capitalize()}-{size.capitalize()}-hf"
    licence, source = "not stated", f"no tag on the card of {repository}"
    if size == "base":
        licence, source = "unknown", f"the card of {repository} was not seen"
    elif (place, size) == ("outdoor", "large"):
        licence, source = "Apache-2.0", f"tag of the card of {repository}; but {README} has Large under CC-BY-NC-4.0"
    yield Checkpoint(
        name=f"depth-anything-v2-metric-{dataset}-{size}-hf",
        repository=repository,
        files=TRANSFORMERS,
        megabytes=megabytes,
        licence=licence,
        licence_source=f"{source}{METRIC}",
        licence_sure=False,
        version=2,
        max_depth=max_depth,
        layout="transformers",
    )


def _midas(name: str, release: str, megabytes: int) -> Checkpoint:
    return Checkpoint(
        name=name,
        repository=f"Intel/{name}",
        files=TRANSFORMERS,
        release=f"{release}.pt",
        megabytes=megabytes,
        licence="MIT",
        licence_source=f"tag of the card of Intel/{name}, and README of isl-org/MiDaS",
        layout="transformers",
        url=f"https://github.com/isl-org/MiDaS/releases/download/v3_1/{release}.pt",
    )


# Repositories and files: READMEs of LiheYoung/Depth-Anything, DepthAnything/Depth-Anything-V2 (and its metric_depth)
# and isl-org/MiDaS, and the files' listings on the hub.
CHECKPOINTS: tuple[Checkpoint, ...] = (
    *(entry for size in SIZES for entry in _v2(size)),
    *(entry for size in SIZES for entry in _metric(size, "indoor", "hypersim", "Hypersim", 20.0)),
    *(entry for size in SIZES for entry in _metric(size, "outdoor", "vkitti", "VKITTI", 80.0)),
    *(entry for size in SIZES for entry in _v1(size)),
    _midas("dpt-beit-base-384", "dpt_beit_base_384", 443),
    _midas("dpt-beit-large-384", "dpt_beit_large_384", 1373),
    _midas("dpt-beit-large-512", "dpt_beit_large_512", 1376),
    _midas("dpt-swinv2-tiny-256", "dpt_swin2_tiny_256", 164),
    _midas("dpt-swinv2-base-384", "dpt_swin2_base_384", 405),
    _midas("dpt-swinv2-large-384", "dpt_swin2_large_384", 848),
)
UNRELEASED = ("depth-anything-v2-giant", "depth-anything-v2-vitg", "depth-anything/depth-anything-v2-giant")


def find(name: str) -> Checkpoint | None:
    """The checkpoint of this name or alias; upper and lower case, - and _ are the same."""
    return _BY_NAME.get(_key(name))


def _key(name: str) -> str:
    return name.lower().replace("_", "-")


_BY_NAME = {_key(name): entry for entry in CHECKPOINTS for name in entry.names}


# What a name leads to


def locate(
    source: Source, version: int | None, max_depth: float | None, revision: str | None
) -> tuple[Source, int | None, float | None]:
    """For a name: its file, downloaded if need be, and what the table knows of the model. Other sources as they are.

    version and max_depth as given outrank the table. Raises FileNotFoundError for a name that leads nowhere, and
    what `hub.fetch` raises.
    """
    if not isinstance(source, str) or source == "demo" or os.path.exists(os.path.expanduser(source)):
        if revision is not None:
            what = repr(source) if isinstance(source, str | os.PathLike) else f"a {type(source).__name__}"
            raise InvalidValueError(
                f"revision is {revision!r}, but only checkpoints of the hub have revisions, not {what}"
            )
        return source, version, max_depth
    path = None if revision else in_weights(source)  # a revision is the hub's
    entry = find(source)
    if path is not None:
        entry = entry or _entry_of(path)
    else:
        if entry is None:
            _check_reachable(source)
            raise MissingFileError(_nowhere(source))
        path = hub.fetch(entry.name, entry.repository, entry.files, revision)
    if entry:
        version = entry.version if version is None else version
        max_depth = entry.max_depth if max_depth is None else max_depth
    return path, version, max_depth


def _check_reachable(source: str) -> None:
    """PermissionError for what may be there, in a folder that may not be entered."""
    try:
        os.stat(os.path.expanduser(source))
    except PermissionError as error:
        raise PermissionError(error.errno, f"{source} cannot be reached: {error.strerror}") from error
    except (OSError, ValueError):  # not there
        pass


def weights_folders() -> list[Path]:
    """$DPT_WEIGHTS, then weights/ in the current folder and in those above it (so beside a folder of notebooks)."""
    folders = []
    if named := os.environ.get("DPT_WEIGHTS"):
        folders.append(Path(named).expanduser())
        if not folders[0].is_dir():
            raise MissingFileError(f"DPT_WEIGHTS is {named!r}, which is no folder; correct it, or unset it")
    here = Path.cwd()
    folders += [folder / "weights" for folder in (here, *here.parents)]
    # os.path.isdir: a folder above that may not be entered is none
    return [folder for folder in dict.fromkeys(folders) if os.path.isdir(folder)]


def weights_files() -> list[Path]:
    """The checkpoints in these folders and one folder down (as `hf download` leaves them), in the order of search."""
    files: list[Path] = []
    for folder in weights_folders():
        inside = [path for path in (*folder.glob("*"), *folder.glob("*/*")) if path.suffix in SUFFIXES]
        inside = [path for path in inside if path.is_file()]
        files += sorted(inside, key=lambda path: (len(path.parts), path.stem, SUFFIXES.index(path.suffix), path.name))
    return files


def in_weights(source: str) -> Path | None:
    """The file in weights/ that is called so, with or without suffix, or that is the zoo's checkpoint of this name."""
    files = weights_files()
    entry = find(source)
    tests = (
        lambda path: path.name == source,
        lambda path: not generic(path.name) and _key(path.stem) == _key(source),
        lambda path: generic(path.name) and _key(path.parent.name) == _key(source),
        lambda path: entry is not None and _entry_of(path) is entry,
    )
    return next((path for test in tests for path in files if test(path)), None)


def _entry_of(path: Path) -> Checkpoint | None:
    """The known checkpoint that a file is, by its name, or by its folder's if its own says nothing."""
    return find(path.parent.name if generic(path.name) else path.stem)


def _nowhere(source: str) -> str:
    if _key(source) in UNRELEASED:
        return (
            f"{source} was announced by its authors, but never released on the hub; with a file of it, "
            "give that file's path"
        )
    known = {key: entry.name for key, entry in _BY_NAME.items()}
    known |= {_key(path.name): path.name for path in weights_files() if not generic(path.name)}
    close = dict.fromkeys(known[key] for key in difflib.get_close_matches(_key(source), known, n=5, cutoff=0.7))
    meant = f"; did you mean {' or '.join(map(repr, list(close)[:3]))}?" if close else ""
    return (
        f"no checkpoint at {source!r}; give the path of a .safetensors, .pth or .pt file, the name of a file in a "
        f"folder weights/, a name that `{COMMAND}` lists, or 'demo' for the model that comes with the package{meant}"
    )


# What there is


@dataclass(frozen=True)
class Available:
    """Something that `load` takes: a checkpoint of the zoo, a file in weights/, or a file there that is in the zoo."""

    name: str
    path: Path | None  # of the file, if it is on this machine
    place: str  # "weights" (the folder), "cache" (of the hub) or "hub" (would be downloaded)
    checkpoint: Checkpoint | None  # what is known of it

    def __str__(self) -> str:
        entry = self.checkpoint
        licence = f"{entry.licence}{'' if entry.licence_sure else ' ?'}" if entry else ""
        megabytes = round(self.path.stat().st_size / 1e6) if self.path else entry.megabytes if entry else 0
        place = {"hub": "", "cache": "downloaded", "weights": str(self.path)}[self.place]
        return f"{self.name:<42} {megabytes:>5} MB  {licence:<14} {place}".rstrip()


class Listing(tuple[Available, ...]):
    """What is available, shown as lines of text."""

    def __repr__(self) -> str:
        return "\n".join(map(str, self)) or "none on this machine; available() lists those that can be downloaded, too"


def available(here: bool = False) -> Listing:
    """Every name that `load` takes besides "demo", files in weights/ first; print it, or go through it.

    here: only what is on this machine. Nothing is downloaded or read, so a damaged file is listed like any other.
    """
    found: dict[str, Available] = {}
    for path in weights_files():
        entry = _entry_of(path)
        # Of two files of one checkpoint the first has its name; a second one answers to its own.
        names = [entry.name] if entry else []
        names += [path.parent.name if generic(path.name) else path.name]
        if name := next((name for name in names if name not in found), None):
            found[name] = Available(name, path, "weights", entry)
    for entry in CHECKPOINTS:
        if entry.name not in found:
            copy = hub.cached(entry.repository, entry.files)
            found[entry.name] = Available(entry.name, copy, "cache" if copy else "hub", entry)
    return Listing(item for item in found.values() if item.path or not here)
