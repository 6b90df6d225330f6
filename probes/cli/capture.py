"""dpt-workbench capture and verify: many pictures into a run on disk, and checking one.

Exit codes: 0 all done; 1 nothing could be done; 2 a wrong command line; 3 the run went on to its end, but some of its
pictures failed (their number is said, failures.jsonl lists them); 4 verify found damage; 130 interrupted, to be gone on
with.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InvalidValueError
from .app import SOME_FAILED, Device, DeviceOption, MaxDepthOption, ModelOption, VersionOption, app, load_model

DAMAGED, INTERRUPTED = 4, 130


class Dtype(StrEnum):
    float16 = "float16"
    float32 = "float32"


ImagesArgument = Annotated[
    list[str],
    typer.Argument(
        help="Pictures, folders, globs in quotes, videos, or a .txt with a path a line.", show_default=False
    ),
]


@app.command()
def capture(
    images: ImagesArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of the run; one that is there is gone on with.")],
    probe: Annotated[
        list[str],
        typer.Option(
            "--probe",
            "-p",
            help="What to keep: norms, 'reassembly.*', depth, attention.entropy, ... Give it repeatedly.",
        ),
    ],
    model: ModelOption = "demo",
    token: Annotated[
        list[str] | None,
        typer.Option("--token", help="For attention.rows and .columns: a number (0: class token) or ROWxCOL, a patch."),
    ] = None,
    dtype: Annotated[
        Dtype | None, typer.Option("--dtype", help="Of what is stored. Default: the model's; attention in float16.")
    ] = None,
    size: Annotated[int | None, typer.Option(min=14, help="Base size of the model's input in pixels.")] = None,
    stretch: Annotated[bool, typer.Option("--stretch", help="Do not keep the aspect ratio.")] = False,
    keep_images: Annotated[
        bool, typer.Option("--keep-images", help="Also store pictures as the model saw them.")
    ] = False,
    frames: Annotated[str | None, typer.Option(help="Of videos: START:STOP:STEP; each may be left out.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Pictures through the model at once. Default: 4.")] = None,
    part: Annotated[int | None, typer.Option(min=1, help="Pictures committed at once. Default: up to 50.")] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that read pictures.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds that reading one picture may take.")] = 60.0,
    dask: Annotated[
        str | None, typer.Option("--dask", metavar="ADDRESS", help="Compute on the workers of this Dask scheduler.")
    ] = None,
    device: DeviceOption = Device.cpu,
    model_version: VersionOption = None,
    max_depth: MaxDepthOption = None,
    retry: Annotated[bool, typer.Option("--retry", help="Try pictures again that failed before.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Begin even if the disk seems too small.")] = False,
) -> None:
    """Capture probe points of many pictures. May be killed at any time: the same command goes on where it was.

    Exit code 3: it is done, but some pictures failed. `dpt-workbench inspect MODEL --points` lists what can be kept.
    """
    tokens = [_token(text) for text in token or ()]
    chosen = _frames(frames)
    import torch

    from ..runs.run import run

    network = load_model(model, model_version, max_depth, device)
    source = {
        "model": str(Path(model).resolve()) if Path(model).is_file() else model,
        "model_version": model_version,
        "max_depth": max_depth,
        "images": [os.path.abspath(image) for image in images],
        "frames": frames,
    }
    with _engine(dask) as where:
        report = run(
            network, images, out, *probe, tokens=tokens, dtype=getattr(torch, dtype.value) if dtype else None,
            size=size, keep_aspect=not stretch, keep_images=keep_images, frames=chosen, batch=batch, part=part,
            workers=workers, timeout=timeout, engine=where, retry=retry, yes=yes, source=source,
        )  # fmt: skip
    typer.echo(report)
    for name, reason in report.failures[:10]:
        typer.echo(f"dpt-workbench: {name}: {reason}", err=True)
    if len(report.failures) > 10:
        typer.echo(f"dpt-workbench: and {len(report.failures) - 10} more in {out / 'failures.jsonl'}", err=True)
    if report.interrupted:
        raise typer.Exit(INTERRUPTED)
    if report.failures:
        typer.echo(f"dpt-workbench: {len(report.failures)} pictures of the run failed", err=True)
        raise typer.Exit(SOME_FAILED)


@app.command()
def verify(
    run: Annotated[Path, typer.Argument(help="The folder of a run.", show_default=False)],
    images: Annotated[
        list[str] | None, typer.Argument(help="With --repair: the pictures, if they are elsewhere now.")
    ] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Compute damaged parts anew, and only those.")] = False,
    model: Annotated[
        str | None, typer.Option("--model", help="With --repair: the checkpoint, if it is elsewhere now.")
    ] = None,
    device: DeviceOption = Device.cpu,
) -> None:
    """Read all that a run has stored and list what is damaged. Exit code 4: there is damage that was not repaired."""
    from ..runs.verify import repair as repair_run
    from ..runs.verify import verify as verify_run

    found = verify_run(run)
    typer.echo(found)
    if not found.damage:
        return
    if not repair:
        raise typer.Exit(DAMAGED)
    from ..runs.store import read_settings

    source: dict[str, Any] = read_settings(run)["source"]
    given = model or source.get("model")
    pictures = images or source.get("images")
    if not given or not pictures:
        raise InvalidValueError(
            f"{run} does not say where its model and pictures came from, as it was made by a script; give them: "
            f"dpt-workbench verify {run} PICTURES --repair --model CHECKPOINT"
        )
    network = load_model(given, source.get("model_version"), source.get("max_depth"), device)
    repair_run(run, network, pictures, frames=_frames(source.get("frames")))
    again = verify_run(run)
    typer.echo(again)
    if again.damage:
        raise typer.Exit(DAMAGED)


@contextmanager
def _engine(address: str | None) -> Iterator[Any]:
    """What `probes.run` takes as engine."""
    if address is None:
        yield "local"
        return
    try:
        from ..runs.dask_engine import connected
    except ImportError as error:
        from ..runs.run import NO_DASK

        raise InvalidValueError(NO_DASK) from error
    with connected(address) as client:
        yield client


def _token(text: str) -> int | tuple[int, int]:
    numbers = text.lower().split("x")
    if len(numbers) <= 2 and all(number.isdecimal() for number in numbers):
        return int(text) if len(numbers) == 1 else (int(numbers[0]), int(numbers[1]))
    raise InvalidValueError(
        f"--token is {text!r}; expected a number, e.g. 0 for the class token, or a patch, e.g. 12x20"
    )


def _frames(text: str | None) -> slice | None:
    if text is None:
        return None
    parts = text.split(":")
    try:
        numbers = [int(part) if part.strip() else None for part in parts]
        if not 1 < len(parts) <= 3 or any(n is not None and n < 0 for n in numbers) or numbers[2:] == [0]:
            raise ValueError
    except ValueError:
        raise InvalidValueError(f"--frames is {text!r}; expected START:STOP:STEP, e.g. 0:100:5 or ::10") from None
    return slice(*numbers)
