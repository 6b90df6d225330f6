"""dpt-workbench verify: checks a run for damage and repairs it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dpt.terminal import echo

from ..errors import InvalidValueError
from .app import PROGRAM, Device, DeviceOption, ExitCode, app, load_model, wrong_option
from .capture import parse_frames


@app.command()
def verify(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.", show_default=False)],
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGES", help="With --repair: the images, if they have moved.", show_default=False),
    ] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Recompute damaged parts, and only those.")] = False,
    model: Annotated[
        str | None, typer.Option("--model", help="With --repair: the checkpoint, if it has moved.")
    ] = None,
    device: DeviceOption = Device.cpu,
) -> None:
    """Check all stored data of a run and list the damage.

    The exit code is 4 if damage remains.
    """
    for option, value in (("IMAGES", images), ("--model", model)):
        if value and not repair:
            raise wrong_option(option, "it is used by --repair only. Add --repair, or omit it")
    from ..runs.verify import repair as repair_run
    from ..runs.verify import verify as verify_run

    found = verify_run(run)
    echo(*str(found).split("\n"))
    if not found.damage:
        return
    if not repair:
        raise typer.Exit(ExitCode.DAMAGED)
    from ..runs.store import read_settings

    source: dict[str, Any] = read_settings(run).source
    given = model or source.get("model")
    pictures = images or source.get("images")
    if not given or not pictures:
        raise InvalidValueError(
            f"{run} was written by a script and does not record its model and images. Name them: "
            f"{PROGRAM} verify {run} IMAGES --repair --model CHECKPOINT"
        )
    network = load_model(given, source.get("model_version"), source.get("max_depth"), device)
    repair_run(run, network, pictures, frames=parse_frames(source.get("frames")))
    again = verify_run(run)
    echo(*str(again).split("\n"))
    if again.damage:
        raise typer.Exit(ExitCode.DAMAGED)
