"""dpt-workbench inspect: describes a checkpoint."""

from __future__ import annotations

from typing import Annotated

import typer

from dpt.terminal import echo

from .app import CHECKPOINT_HELP, Device, MaxDepthOption, VersionOption, app, load_model


@app.command()
def inspect(
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help=CHECKPOINT_HELP, show_default=False)],
    points: Annotated[bool, typer.Option("--points", help="Also list every probe point of the model.")] = False,
    model_version: VersionOption = None,
    max_depth: MaxDepthOption = None,
) -> None:
    """Describe a checkpoint: its architecture, size and output.

    Also says where the facts come from that the weights alone do not determine, e.g. the file name.
    """
    from tqdm import tqdm

    import dpt

    found = dpt.inspect(checkpoint, version=model_version, max_depth=max_depth)
    config = found.config
    base = config.preprocess.base
    grid = config.token_grid(base, base)
    prefix = "no class token" if config.prefix == 0 else f"preceded by {config.prefix} token{'s' * (config.prefix > 1)}"
    ends = [config.stage_block(stage) for stage in range(4)]
    heads, widths = [config.block_heads(b) for b in ends], [config.block_width(b) for b in ends]
    rows = {
        "model": f"{config.family} {config.variant}",
        "output": f"metres, up to {config.max_depth:g}"
        if config.metric
        else "inverse depth, relative; larger is nearer",
        "encoder": f"{config.depth} blocks of {_range_of(heads)} heads, tokens of width {_range_of(widths)}",
        "stages": f"reassembly reads the outputs of blocks {', '.join(map(str, ends))} (counted from 0)",
        "patches": f"{config.patch_size} pixels; {grid.rows} x {grid.cols} patches at {base} x {base}, {prefix}",
        "input": f"base size {base}, sides are multiples of {config.multiple}",
        "decoder": f"{config.fusion_channels} channels",
        "parameters": f"{found.parameters:,} in {found.tensors} tensors, {tqdm.format_sizeof(found.bytes, 'B')}",
    }
    echo(found.source)
    for name, value in rows.items():
        echo(f"  {name:<11} {value}")
    for note in found.notes:
        echo(f"  {'note':<11} {note}")
    if points:
        from .. import names

        listed = names(load_model(checkpoint, model_version, max_depth, Device.cpu))
        echo("", *str(listed).split("\n"))


def _range_of(values: list[int]) -> str:
    """One number if all stages agree, otherwise the four numbers."""
    return str(values[0]) if len(set(values)) == 1 else f"{', '.join(map(str, values[:3]))} and {values[3]}"
