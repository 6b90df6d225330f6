"""dpt-workbench export-onnx: writes a model as an ONNX file and compares it with PyTorch first."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from dpt.terminal import echo

from ..errors import ExistingFileError
from .app import (
    CHECKPOINT_HELP,
    Device,
    ForceOption,
    MaxDepthOption,
    VersionOption,
    app,
    checking,
    load_model,
    local_folder,
    whole_number,
    wrong_option,
)


@app.command("export-onnx")
def export_onnx(
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help=CHECKPOINT_HELP, show_default=False)],
    out: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", callback=local_folder, help="File to write, e.g. depth.onnx.", show_default=False
        ),
    ],
    probe: Annotated[
        list[str] | None,
        typer.Option(
            "--probe",
            "-p",
            help="Probe points that become outputs, e.g. norms or 'fusion.*'. 'encoder.blocks.7.attention[0,5]' "
            "outputs the attention rows of tokens 0 and 5; without brackets, the graph takes the tokens as an input. "
            "Repeatable.",
        ),
    ] = None,
    preprocess: Annotated[
        bool,
        typer.Option(
            "--preprocess", help="The graph takes uint8 images (B, H, W, 3), and resizes and normalises them itself."
        ),
    ] = False,
    verify: Annotated[
        Path | None, typer.Option("--verify", help="Image to compare on. Default: generated images.")
    ] = None,
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="Skip the comparison with PyTorch, which takes minutes.")
    ] = False,
    fixed: Annotated[
        bool, typer.Option("--fixed", help="Export for one image of one size. The graph is smaller and faster.")
    ] = False,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="HEIGHTxWIDTH",
            help="Input size with --fixed, or the size that --preprocess resizes to. One number means a square.",
        ),
    ] = None,
    fp16: Annotated[
        bool, typer.Option("--fp16", help="Compute in half precision. Inputs and outputs stay float32.")
    ] = False,
    opset: Annotated[int, typer.Option(parser=whole_number(18, 23), metavar="N", help="ONNX opset, 18 to 23.")] = 18,
    model_version: VersionOption = None,
    max_depth: MaxDepthOption = None,
    force: ForceOption = False,
) -> None:
    """Write a model as an ONNX file.

    By default the file accepts images of every size that the model accepts. The command compares onnxruntime with
    PyTorch and writes nothing if they differ too much.
    """
    if verify is not None and no_verify:
        raise wrong_option(["--verify", "--no-verify"], "they contradict each other. Give only one of them")
    side = None if size is None else parse_size(size)
    if side is not None and not (fixed or preprocess):
        raise wrong_option("--size", f"got {size}, but the file accepts every size. Add --fixed or --preprocess")
    import torch

    import dpt
    from dpt.export.outputs import chosen
    from dpt.image import network_size

    if out.exists() and not force:
        raise ExistingFileError(f"{out} already exists. Use --force to overwrite it")
    photo = None if verify is None else dpt.read_image(verify)
    model = load_model(checkpoint, model_version, max_depth, Device.cpu)
    if fixed and side is not None:
        with checking("--size"):
            height, width = side if isinstance(side, tuple) else (side, side)
            model.token_grid(*network_size(1, 1, model.config.preprocess, (height, width), keep_aspect=False))
    with checking("--probe"):
        chosen(model, probe or ())
    written = dpt.export_onnx(
        model,
        out,
        dynamic=not fixed,
        probes=probe or (),
        preprocess=preprocess,
        opset=opset,
        size=side,
        dtype=torch.float16 if fp16 else torch.float32,
        verify=not no_verify if photo is None else photo,
        say=echo,
    )
    for title, values in (("input", written.inputs), ("output", written.outputs)):
        for name, shape in values.items():
            echo(f"  {title:<6} {name}: {shape}")


def parse_size(text: str) -> int | tuple[int, int]:
    """Parses --size, e.g. "252x336" or "518"."""
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if match is None or any(int(side) < 1 for side in match.groups() if side is not None):
        raise wrong_option("--size", f"got {text!r}, expected HEIGHTxWIDTH in pixels >= 1, e.g. 252x336, or one number")
    return int(match[1]) if match[2] is None else (int(match[1]), int(match[2]))
