"""dpt-workbench capture: stores probe points of many images in a run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dpt.terminal import echo

from ..errors import UnavailableError, UnknownPointError
from .app import (
    PROGRAM,
    Device,
    DeviceOption,
    ExitCode,
    MaxDepthOption,
    ModelOption,
    SizeOption,
    StretchOption,
    TakeOverOption,
    TimeoutOption,
    VersionOption,
    advise,
    app,
    load_model,
    local_folder,
    one_line,
    whole_number,
    wrong_option,
)

if TYPE_CHECKING:
    from distributed import Client

SHOWN_FAILURES = 10  # the rest is in failures.jsonl
NEEDS_TOKENS = ("rows", "columns")  # reductions of attention that store chosen tokens only


class Dtype(StrEnum):
    """Number formats of stored values."""

    float16 = "float16"
    float32 = "float32"


@app.command()
def capture(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGES",
            help="Image files, folders, quoted globs, videos, or a .txt file with one path per line.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            callback=local_folder,
            help="Folder of the run. An existing run is resumed.",
            show_default=False,
        ),
    ],
    probe: Annotated[
        list[str],
        typer.Option(
            "--probe",
            "-p",
            help="Probe points to store, e.g. norms, 'reassembly.*', depth or attention.entropy. Repeatable. "
            "`inspect MODEL --points` lists them.",
            show_default=False,
        ),
    ],
    model: ModelOption = "demo",
    token: Annotated[
        list[str] | None,
        typer.Option(
            "--token",
            metavar="TOKEN",
            help="Token to store for attention.rows and attention.columns: a number (0 is the class token), or a "
            "patch as ROWxCOL. Repeatable.",
        ),
    ] = None,
    dtype: Annotated[
        Dtype | None,
        typer.Option("--dtype", help="Number format of stored values. Default: the model's; float16 for attention."),
    ] = None,
    size: SizeOption = None,
    stretch: StretchOption = False,
    keep_images: Annotated[
        bool, typer.Option("--keep-images", help="Also store the images at the size of the model's input.")
    ] = False,
    frames: Annotated[
        str | None,
        typer.Option(
            metavar="START:STOP:STEP", help="Frames of videos, e.g. 0:100:5 or ::10. Each number may be empty."
        ),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(parser=whole_number(1), metavar="N", help="Images per forward pass. Default: 4.")
    ] = None,
    part: Annotated[
        int | None,
        typer.Option(parser=whole_number(1), metavar="N", help="Images per committed part. Default: up to 50."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            parser=whole_number(0),
            metavar="N",
            help="Processes that decode images. Default: chosen by the number of CPU cores.",
        ),
    ] = None,
    timeout: TimeoutOption = 60.0,
    dask: Annotated[
        str | None, typer.Option("--dask", metavar="ADDRESS", help="Run on the workers of this Dask scheduler.")
    ] = None,
    device: DeviceOption = Device.cpu,
    model_version: VersionOption = None,
    max_depth: MaxDepthOption = None,
    retry: Annotated[bool, typer.Option("--retry", help="Retry images that failed in an earlier call.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Start even if the disk seems too small.")] = False,
    take_over: TakeOverOption = False,
) -> None:
    """Capture probe points of many images into a folder.

    It can be killed at any time; the same command resumes it. Images that fail are skipped and listed in
    failures.jsonl: the exit code is then 3. Images that fail for lack of memory, descriptors or a disk are tried again
    by the next command.
    """
    tokens = [parse_token(text) for text in token or ()]
    chosen = parse_frames(frames)
    selected = [name for name in probe if name.rpartition(".")[2] in NEEDS_TOKENS]
    if bool(tokens) != bool(selected):
        given = f"{selected[0]!r} stores chosen tokens, but no --token is given" if selected else "no probe uses it"
        raise wrong_option("--token", f"{given}. Give both --token and -p attention.rows (or .columns), or neither")
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
    try:
        with _engine(dask) as where:
            report = run(
                network, images, out, *probe, tokens=tokens, dtype=getattr(torch, dtype.value) if dtype else None,
                size=size, keep_aspect=not stretch, keep_images=keep_images, frames=chosen, batch=batch, part=part,
                workers=workers, timeout=timeout, engine=where, retry=retry, yes=yes,
                take_over=take_over, source=source,
            )  # fmt: skip
    except UnknownPointError as error:
        raise wrong_option("--probe", one_line(error)) from error
    echo(*str(report).split("\n"))
    advise(network, _holds_photographs(out))
    for name, note in report.notes[:SHOWN_FAILURES]:
        echo(f"{PROGRAM}: {name} {note}", err=True)
    for name, reason in report.failures[:SHOWN_FAILURES]:
        echo(f"{PROGRAM}: {name}: {reason}", err=True)
    if len(report.failures) > SHOWN_FAILURES:
        hidden = len(report.failures) - SHOWN_FAILURES
        echo(f"{PROGRAM}: {hidden} more. {out / 'failures.jsonl'} lists all that failed", err=True)
    if report.interrupted:
        raise typer.Exit(ExitCode.INTERRUPTED)
    if report.failures:
        echo(f"{PROGRAM}: {len(report.failures)} images of the run failed", err=True)
        raise typer.Exit(ExitCode.SOME_FAILED)


@contextmanager
def _engine(address: str | None) -> Iterator[Client | str]:
    """The engine for `probes.run`: "local", or a client of the Dask scheduler at an address."""
    if address is None:
        yield "local"
        return
    try:
        from ..runs.dask_engine import connected
    except ImportError as error:
        from ..runs.run import NO_DASK

        raise UnavailableError(NO_DASK) from error
    with connected(address) as client:
        yield client


def parse_token(text: str) -> int | tuple[int, int]:
    """Parses --token: "7" is token 7, "12x20" the patch in row 12 and column 20."""
    numbers = text.lower().split("x")
    if len(numbers) > 2 or not all(number.isdecimal() for number in numbers):
        expected = "a number (0 is the class token) or a patch as ROWxCOL, e.g. 12x20"
        raise wrong_option("--token", f"got {text!r}, expected {expected}")
    return int(text) if len(numbers) == 1 else (int(numbers[0]), int(numbers[1]))


def parse_frames(text: str | None) -> slice | None:
    """Parses --frames, e.g. "0:100:5" or "::10"."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(":")]
    numbers = [int(part) if part.isdecimal() else None for part in parts]
    if (
        not 1 < len(parts) <= 3
        or any(p and n is None for p, n in zip(parts, numbers, strict=True))
        or numbers[2:] == [0]
    ):
        raise wrong_option("--frames", f"got {text!r}, expected START:STOP:STEP with STEP >= 1, e.g. 0:100:5 or ::10")
    return slice(*numbers)


def _holds_photographs(out: Path) -> bool:
    """Whether a run holds an image that is none of the package's samples."""
    from dpt.demo import sample_of, samples

    from .. import StoreError, open_run

    run = open_run(out)
    try:
        return any(sample_of(run[name].image()) is None for name in islice(run, len(samples()) + 1))
    except (StoreError, OSError, ValueError):
        return True  # an image that cannot be read again is none of ours
