"""dpt-workbench verify: checks a run for damage and repairs it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from msgspec import Struct

from dpt.terminal import echo

from ..errors import InvalidValueError
from .app import PROGRAM, Device, DeviceOption, ExitCode, TakeOverOption, app, load_model, wrong_option
from .capture import parse_frames


class Source(Struct):
    """What `dpt-workbench capture` notes about the origin of a run. Scripts may note something else."""

    model: str | None = None
    model_version: int | None = None
    max_depth: float | None = None
    images: list[str] | None = None
    frames: str | None = None

    @classmethod
    def of(cls, run: Path) -> Source:
        """Reads it from a run; empty if a script wrote something else."""
        from ..runs.records import from_json
        from ..runs.store import read_settings

        try:
            return from_json(read_settings(run).source, cls)
        except InvalidValueError:
            return cls()


@app.command()
def verify(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.", show_default=False)],
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGES", help="With --repair: the images, if they have moved.", show_default=False),
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Recompute damaged parts, and only those, and rebuild damaged lists.")
    ] = False,
    model: Annotated[
        str | None, typer.Option("--model", help="With --repair: the checkpoint, if it has moved.")
    ] = None,
    device: DeviceOption = Device.cpu,
    take_over: TakeOverOption = False,
) -> None:
    """Check all stored data of a run and list the damage.

    The exit code is 4 if damage remains.
    """
    for option, value in (("IMAGES", images), ("--model", model), ("--take-over", take_over)):
        if value and not repair:
            raise wrong_option(option, "it is used by --repair only. Add --repair, or omit it")
    from ..runs.verify import recomputed
    from ..runs.verify import repair as repair_run
    from ..runs.verify import verify as verify_run

    found = verify_run(run)
    echo(*str(found).split("\n"))
    if not found.damage:
        return
    if not repair:
        raise typer.Exit(ExitCode.DAMAGED)
    network = pictures = frames = None
    if recomputed(found):
        source = Source.of(run)
        given, pictures, frames = model or source.model, images or source.images, source.frames
        if not given or not pictures:
            raise InvalidValueError(
                f"{run} was written by a script and does not record its model and images. Name them: "
                f"{PROGRAM} verify {run} IMAGES --repair --model CHECKPOINT"
            )
        network = load_model(given, source.model_version, source.max_depth, device)
    repair_run(run, network, pictures, frames=parse_frames(frames), take_over=take_over)
    again = verify_run(run)
    echo(*str(again).split("\n"))
    if again.damage:
        raise typer.Exit(ExitCode.DAMAGED)
