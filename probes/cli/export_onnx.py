"""dpt-workbench export-onnx: a model as an ONNX file, compared with torch before it is written.

Exit codes: 0 written; 1 nothing was written, with the reason; 2 a wrong command line.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InvalidValueError
from .app import Device, MaxDepthOption, VersionOption, app, load_model


@app.command("export-onnx")
def export_onnx(
    checkpoint: Annotated[
        str, typer.Argument(help="A checkpoint file, a name that `models` lists, or 'demo'.", show_default=False)
    ],
    out: Annotated[Path, typer.Argument(help="The file to write, e.g. depth.onnx.", show_default=False)],
    probe: Annotated[
        list[str] | None,
        typer.Option(
            "--probe",
            "-p",
            help="A point that becomes an output: norms, 'fusion.*', 'encoder.blocks.7.attention[0,5]' for the rows "
            "of tokens 0 and 5, without brackets for tokens given to the graph. Give it repeatedly.",
        ),
    ] = None,
    preprocess: Annotated[
        bool, typer.Option("--preprocess", help="Take uint8 pictures (B, H, W, 3); resize and normalise in the graph.")
    ] = False,
    verify: Annotated[
        Path | None, typer.Option("--verify", help="A photo to compare on; generated pictures without it.")
    ] = None,
    no_verify: Annotated[bool, typer.Option("--no-verify", help="Do not compare with torch; saves minutes.")] = False,
    fixed: Annotated[bool, typer.Option("--fixed", help="One picture of one size: a smaller, faster graph.")] = False,
    size: Annotated[
        str | None,
        typer.Option(help="HEIGHTxWIDTH, or one number for a square: of --fixed, or what --preprocess resizes to."),
    ] = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="Half precision inside; float32 outside.")] = False,
    opset: Annotated[int, typer.Option(help="ONNX opset, 18 to 23.")] = 18,
    model_version: VersionOption = None,
    max_depth: MaxDepthOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a model as ONNX, for pictures of every size it takes, and compare onnxruntime with torch."""
    import torch

    import dpt

    if verify is not None and no_verify:
        raise InvalidValueError("--verify and --no-verify contradict each other; give one of them")
    if out.exists() and not force:
        raise FileExistsError(f"{out} is there already; --force replaces it")
    photo = None if verify is None else dpt.read_image(verify)
    model = load_model(checkpoint, model_version, max_depth, Device.cpu)
    try:
        written = dpt.export_onnx(
            model,
            out,
            dynamic=not fixed,
            probes=probe or (),
            preprocess=preprocess,
            opset=opset,
            size=None if size is None else _size(size),
            dtype=torch.float16 if fp16 else torch.float32,
            verify=not no_verify if photo is None else photo,
            say=typer.echo,
        )
    except ImportError as error:  # the extra is missing; its message says how to install it
        raise InvalidValueError(str(error)) from error
    for title, values in (("takes", written.inputs), ("gives", written.outputs)):
        for name, shape in values.items():
            typer.echo(f"  {title} {name}: {shape}")


def _size(text: str) -> int | tuple[int, int]:
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if match is None:
        raise InvalidValueError(f"--size is {text!r}; expected HEIGHTxWIDTH in pixels, e.g. 252x336, or one number")
    return int(match[1]) if match[2] is None else (int(match[1]), int(match[2]))
