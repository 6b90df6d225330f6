"""The zoo: the table of published checkpoints, with names, repositories, and the facts that their tensors do not show.

Licences are those of the weights, as stored copies of the named pages show them (2024 to 2026); the pages were not read
live. `licence_sure` is False where the authors' statements contradict each other, or where they state no licence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint: its names, its files on the hub, and facts about the model."""

    name: str
    repository: str  # on the hub
    files: tuple[str, ...]  # in the repository, the weights last
    megabytes: int  # of 10**6 bytes
    licence: str  # of the weights
    licence_source: str
    licence_sure: bool = True
    version: int | None = None  # of Depth-Anything
    max_depth: float | None = None  # metres, for metric models
    layout: str = "original"  # of the keys: "original" or "transformers"
    release: str = ""  # file name of the authors' release, if it differs from the name on the hub
    url: str = ""  # another source of the file, for users who put it into weights/ themselves
    aliases: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """The name of the file with the weights."""
        return self.files[-1]

    @property
    def names(self) -> tuple[str, ...]:
        """All names that `find` accepts, the checkpoint's own name first."""
        stems = [Path(file).stem for file in (self.release, self.file) if file and not generic(file)]
        names = [self.name, *self.aliases, *stems, self.repository.split("/")[1], self.repository]
        spelt: dict[str, str] = {}
        for name in names:
            spelt.setdefault(folded(name), name)
        return tuple(spelt.values())


def generic(file: str) -> bool:
    """Whether a file name says nothing about the model."""
    return Path(file).stem in ("model", "pytorch_model")


def folded(name: str) -> str:
    """A name in the form in which names are compared: without case, with - for _."""
    return name.lower().replace("_", "-")


TRANSFORMERS = ("config.json", "model.safetensors")
SIZES = {"small": ("vits", 99), "base": ("vitb", 390), "large": ("vitl", 1341)}  # encoder, megabytes
README = "README of DepthAnything/Depth-Anything-V2"
METRIC = "; DepthAnything/Depth-Anything-V2#245 asks which licence applies to metric models and is open"


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
        source = f"tag of the card of {repository}; but {README} puts Base and Large under CC-BY-NC-4.0{METRIC}"
    elif dataset == "vkitti":
        source = f"tag of the card of {repository}, and {README} for Small"
    else:
        source = f"{README} for Small; the card of {repository} was not available{METRIC}"
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
        licence, source = "unknown", f"the card of {repository} was not available"
    elif (place, size) == ("outdoor", "large"):
        licence, source = "Apache-2.0", f"tag of the card of {repository}; but {README} puts Large under CC-BY-NC-4.0"
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


# Sources of repositories and file names: the READMEs of LiheYoung/Depth-Anything, DepthAnything/Depth-Anything-V2 (and
# its metric_depth) and isl-org/MiDaS, and the file listings on the hub.
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
    """The checkpoint with this name or alias, ignoring case and the difference between - and _."""
    return BY_NAME.get(folded(name))


BY_NAME = {folded(name): entry for entry in CHECKPOINTS for name in entry.names}
