"""dpt-workbench depth: writes depth maps of images."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from dpt.terminal import echo

from ..errors import ExistingFileError
from .app import (
    PROGRAM,
    Device,
    DeviceOption,
    ExitCode,
    ForceOption,
    MaxDepthOption,
    ModelOption,
    OutOption,
    SizeOption,
    StretchOption,
    VersionOption,
    app,
    checking,
    load_model,
    one_line,
    show_tracebacks,
    wrong_option,
)


@app.command()
def depth(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES", help="Image files.", show_default=False)],
    out: OutOption = Path("out"),
    model: ModelOption = "demo",
    colormap: Annotated[
        str, typer.Option(help="A matplotlib colormap. Near parts get the colours of its upper end.")
    ] = "inferno",
    npy: Annotated[bool, typer.Option("--npy", help="Also write the depth values: float32, height x width.")] = False,
    grey: Annotated[
        bool,
        typer.Option(
            "--16bit",
            help="Also write a 16-bit grey PNG. It spans the range of the map, which its text chunks record.",
        ),
    ] = False,
    size: SizeOption = None,
    stretch: StretchOption = False,
    device: DeviceOption = Device.cpu,
    fast: Annotated[bool, typer.Option("--fast", help="Use half precision if it is faster on this machine.")] = False,
    model_version: VersionOption = None,
    max_depth: MaxDepthOption = None,
    force: ForceOption = False,
) -> None:
    """Write depth maps of images.

    Writes NAME_depth.png in colour, and on request NAME_depth.npy and NAME_depth16.png. Images that fail are reported
    and skipped: the exit code is 3 if some failed and 1 if all did.
    """
    suffixes = ["_depth.png", *(["_depth.npy"] if npy else []), *(["_depth16.png"] if grey else [])]
    targets = _targets(images, out, suffixes)
    from ..figures import depth_files

    with checking("--colormap"):
        depth_files.check_colormap(colormap)
    out.mkdir(parents=True, exist_ok=True)
    from tqdm import tqdm

    import dpt

    network = load_model(model, model_version, max_depth, device, fast)
    metric = network.config.metric
    failed: list[str] = []
    # disable=None: tqdm shows no bar if stderr is not a terminal
    with tqdm(targets.items(), unit="image", disable=None if len(targets) > 1 else True) as progress:
        for source, files in progress:
            try:
                if existing := [file for file in files if file.exists() and not force]:
                    raise ExistingFileError(f"{existing[0]} already exists. Use --force to overwrite it")
                depth_map = network.predict(dpt.read_image(source), size, keep_aspect=not stretch)
                writers = [depth_files.png(depth_files.colour_depth(depth_map, colormap, metric))]
                writers += [depth_files.npy(depth_map)] if npy else []
                writers += [depth_files.grey_png(depth_map, metric)] if grey else []
                for file, writer in zip(files, writers, strict=True):
                    depth_files.write(file, writer)
            # RuntimeError: torch raises it when memory runs out
            except (ValueError, OSError, MemoryError, RuntimeError) as error:
                if show_tracebacks.get():
                    raise
                failed.append(f"{source}: {one_line(error)}")
            else:
                with progress.external_write_mode(file=sys.stdout):
                    echo(*files)
    for line in failed:
        echo(f"{PROGRAM}: {line}", err=True)
    if failed:
        echo(f"{PROGRAM}: {len(failed)} of {len(targets)} images failed", err=True)
        raise typer.Exit(ExitCode.SOME_FAILED if len(failed) < len(targets) else ExitCode.FAILED)


def _targets(images: list[Path], out: Path, suffixes: list[str]) -> dict[Path, list[Path]]:
    """Returns the files to write for each image. Two images must not share a file."""
    targets: dict[Path, list[Path]] = {}
    claimed: dict[str, Path] = {}
    for image in dict.fromkeys(images):
        files = [out / f"{image.stem}{suffix}" for suffix in suffixes]
        # Folds case, because x.jpg and X.png share a file on most desktops.
        other = claimed.setdefault(files[0].name.casefold(), image)
        if other is not image:
            message = f"{other} and {image} would both be written to {files[0]}. Rename one, or use two commands"
            raise wrong_option("IMAGES", message)
        targets[image] = files
    return targets
