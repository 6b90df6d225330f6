"""dpt-workbench depth: writes depth maps of images."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer
from typer.core import TyperCommand

from dpt.terminal import echo

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
    advise,
    app,
    checking,
    load_model,
    make_folder,
    positive_number,
    wrong_option,
)
from .depth_images import find_targets

if TYPE_CHECKING:
    from dpt import DPT
    from dpt.reading import Range

    from ..figures.cloud import Camera

Span: TypeAlias = "tuple[float, float]"


class DepthCommand(TyperCommand):
    """The command. Accepts the two numbers of --range also as two words."""

    # `Any` stands for click's Context, which recent versions of typer contain and earlier ones import.

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        joined = list(args)
        for place, (name, low, high) in enumerate(zip(args, args[1:], args[2:], strict=False)):
            if name == "--range" and _number(low) is not None and _number(high) is not None:
                joined[place + 1 : place + 3] = [f"{low},{high}"]
                break
        return super().parse_args(ctx, joined)


@app.command(cls=DepthCommand)
def depth(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGES",
            help="Image files, folders, quoted globs, or a .txt file with one path per line.",
            show_default=False,
        ),
    ],
    out: OutOption = Path("out"),
    model: ModelOption = "demo",
    colormap: Annotated[
        str, typer.Option(help="A matplotlib colormap. Near parts get the colours of its upper end.")
    ] = "inferno",
    span: Annotated[
        str,
        typer.Option(
            "--range",
            metavar="own|shared|LOW,HIGH",
            help="Depths at the two ends of colours and grey levels: of each image, one range for all images, or these "
            "numbers. 'shared' computes all maps before it writes the first.",
        ),
    ] = "own",
    bar: Annotated[
        bool,
        typer.Option("--bar", help="Also write a figure with a colour bar and a title: image, model and unit."),
    ] = False,
    npy: Annotated[bool, typer.Option("--npy", help="Also write the depth values: float32, height x width.")] = False,
    grey: Annotated[
        bool,
        typer.Option("--16bit", help="Also write a 16-bit grey PNG over the range, which its text chunks record."),
    ] = False,
    millimetres: Annotated[
        bool,
        typer.Option(
            "--millimetres",
            help="Also write distances as a 16-bit PNG in millimetres. Needs a metric model, or --near and --far.",
        ),
    ] = False,
    ply: Annotated[
        bool,
        typer.Option("--ply", help="Also write a coloured point cloud. Needs a metric model, or --near and --far."),
    ] = False,
    near: Annotated[
        float | None,
        typer.Option(
            parser=positive_number,
            metavar="METRES",
            help="Distance of the nearest pixel of every image, for a model of relative depth.",
        ),
    ] = None,
    far: Annotated[
        float | None,
        typer.Option(parser=positive_number, metavar="METRES", help="Distance of the farthest pixel."),
    ] = None,
    fov: Annotated[
        float | None,
        typer.Option(
            "--fov",
            parser=positive_number,
            metavar="DEGREES",
            help="Horizontal field of view of the camera, for --ply. Default: 60.",
        ),
    ] = None,
    camera: Annotated[
        str | None,
        typer.Option(
            "--camera",
            metavar="FX,FY,CX,CY",
            help="Focal lengths and principal point in pixels of the images, as OpenCV gives them, instead of --fov.",
        ),
    ] = None,
    input_range: Annotated[
        str,
        typer.Option(
            "--input-range",
            metavar="full|minmax|LOW,HIGH",
            help="Values of 16-bit grey images, e.g. thermal ones, that become black and white: of the format, of each "
            "image, or these numbers.",
        ),
    ] = "full",
    size: SizeOption = None,
    stretch: StretchOption = False,
    device: DeviceOption = Device.cpu,
    fast: Annotated[bool, typer.Option("--fast", help="Use half precision if it is faster on this machine.")] = False,
    model_version: VersionOption = None,
    max_depth: MaxDepthOption = None,
    force: ForceOption = False,
) -> None:
    """Write depth maps of images.

    Writes NAME_depth.png in colour, and on request NAME_depth_bar.png, NAME_depth.npy, NAME_depth16.png,
    NAME_depth_mm.png and NAME_depth.ply. The output folder keeps the tree of the images. Images that fail are
    reported and skipped: the exit code is 3 if some failed and 1 if all did. For videos, use `capture`.
    """
    limits = parse_range(span)
    read_range = parse_input_range(input_range)
    intrinsics = _camera(fov, camera, ply)
    if (near is None) != (far is None) or (near is not None and far is not None and not near < far):
        raise wrong_option(["--near", "--far"], f"expected both, with near < far, got {near} and {far}")
    if near is not None and not (millimetres or ply):
        raise wrong_option(["--near", "--far"], "they are used only with --millimetres or --ply. Add one, or omit them")
    from ..figures import depth_files

    with checking("--colormap"):
        depth_files.check_colormap(colormap)
    chosen = {
        "_depth.png": True,
        "_depth_bar.png": bar,
        "_depth.npy": npy,
        "_depth16.png": grey,
        "_depth_mm.png": millimetres,
    }
    endings = [ending for ending, wanted in {**chosen, "_depth.ply": ply}.items() if wanted]
    targets, skipped = find_targets(images, out, endings)
    if skipped:
        echo(f"note: {skipped} depth maps in {out} are not used as images", err=True)
    network = load_model(model, model_version, max_depth, device, fast)
    _check_metres(network, near, far, "--millimetres" if millimetres else "--ply" if ply else None)
    make_folder(out)

    distances = None if near is None or far is None else (near, far)
    from .depth_maps import DepthMaps

    maps = DepthMaps(network, size, not stretch, read_range, endings, colormap, distances, intrinsics, force)
    if limits == "shared":
        maps.write_with_shared_range(targets, out)
    else:
        maps.write_all(targets, None if isinstance(limits, str) else limits)
    advise(network, maps.photographs)
    for line in maps.failed:
        echo(f"{PROGRAM}: {line}", err=True)
    if maps.failed:
        echo(f"{PROGRAM}: {len(maps.failed)} of {len(targets)} images failed", err=True)
        raise typer.Exit(ExitCode.SOME_FAILED if len(maps.failed) < len(targets) else ExitCode.FAILED)


def parse_range(text: str) -> str | Span:
    """Parses --range: "own", "shared" or two numbers."""
    return text if text in ("own", "shared") else _pair("--range", text)


def parse_input_range(text: str) -> Range:
    """Parses --input-range: "full", "minmax" or two numbers."""
    match text:
        case "full" | "minmax":
            return text
    return _pair("--input-range", text)


def _pair(option: str, text: str) -> Span:
    """Parses LOW,HIGH."""
    numbers = [_number(part) for part in text.split(",")]
    if len(numbers) != 2 or None in numbers:
        words = "own, shared" if option == "--range" else "full, minmax"
        raise wrong_option(option, f"got {text!r}, expected {words} or two numbers as LOW,HIGH")
    low, high = (number for number in numbers if number is not None)
    if not low < high:
        raise wrong_option(option, f"got {text!r}, expected LOW < HIGH")
    return low, high


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _camera(fov: float | None, camera: str | None, ply: bool) -> Camera:
    """Parses --fov and --camera."""
    if not ply and (fov is not None or camera is not None):
        raise wrong_option(
            "--fov" if camera is None else "--camera", "it is used only with --ply. Add --ply, or omit it"
        )
    if fov is not None and camera is not None:
        raise wrong_option(["--fov", "--camera"], "both set the focal length. Give one of them")
    if camera is not None:
        numbers = [_number(part) for part in camera.split(",")]
        values = [number for number in numbers if number is not None]
        if len(numbers) != 4 or len(values) != 4 or min(values[:2]) <= 0:
            raise wrong_option("--camera", f"got {camera!r}, expected four numbers FX,FY,CX,CY with FX and FY > 0")
        fx, fy, cx, cy = values
        return {"fx": fx, "fy": fy, "cx": cx, "cy": cy}
    if fov is not None and fov >= 180:
        raise wrong_option("--fov", f"got {fov:g}, expected an angle in degrees > 0 and < 180")
    return {} if fov is None else {"fov": fov}


def _check_metres(network: DPT, near: float | None, far: float | None, option: str | None) -> None:
    """Raises typer.BadParameter if metres are needed and cannot be had, or are given to a model that has its own."""
    if network.config.metric and near is not None:
        raise wrong_option(["--near", "--far"], "the model predicts metres. Omit them")
    if option is not None and not network.config.metric and near is None:
        raise wrong_option(
            option,
            "the model predicts relative depth, not metres. Use a metric model (--model, --max-depth), or give the "
            "distances of the nearest and the farthest pixel of the images with --near and --far",
        )
