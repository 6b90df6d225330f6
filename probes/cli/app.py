"""The application: options that several commands share, exit codes, and how errors are shown.

Every error that a user can cause becomes one line on stderr; --debug shows its traceback instead. A wrong command line
is a `typer.BadParameter`, raised only in this package. Everything else comes from the library, as a `dpt.DPTError`, a
`probes.ProbeError` or a built-in exception.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from enum import IntEnum, StrEnum
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from dpt import DPT, DPTError
from dpt.demo import FOR_PHOTOGRAPHS, is_demo
from dpt.terminal import echo, guarded
from dpt.writing import local_path

from ..errors import ProbeError, UnavailableError

PROGRAM = "dpt-workbench"
UsageError: Any = typer.BadParameter.__mro__[1]  # click's class, which typer does not export


class ExitCode(IntEnum):
    """Exit codes of all commands."""

    DONE = 0
    FAILED = 1
    WRONG_USAGE = 2
    SOME_FAILED = 3
    DAMAGED = 4
    INTERRUPTED = 130


MEANINGS = {
    ExitCode.DONE: "everything is done",
    ExitCode.FAILED: "failed, e.g. a missing file or device, or no image could be processed",
    ExitCode.WRONG_USAGE: "wrong command line; nothing was done",
    ExitCode.SOME_FAILED: "done, but some images failed",
    ExitCode.DAMAGED: "verify found damage and did not repair it",
    ExitCode.INTERRUPTED: "interrupted; run `capture` again to resume it",
}

show_tracebacks = ContextVar("show_tracebacks", default=False)


class Commands(TyperGroup):
    """A group of commands that turns exceptions into messages and exit codes."""

    # `Any` stands for click's Context, which recent versions of typer contain and earlier ones import.

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        with reported():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: Any) -> Any:
        with reported(), warnings.catch_warnings():
            warnings.showwarning = _show_note
            return super().invoke(ctx)


class Application(typer.Typer):
    """The application as the shell starts it: nothing that it prints can control the terminal."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with guarded():
            return super().__call__(*args, **kwargs)


@contextmanager
def reported() -> Iterator[None]:
    """Prints an error that a user can cause as one line on stderr and exits with its code."""
    try:
        yield
    except UsageError as error:
        message = error.format_message()
        if error.ctx and message == error.ctx.get_help():  # a group without a command
            raise
        command = error.ctx.command_path.split()[1:] if error.ctx else []
        hint = f"Run '{' '.join([PROGRAM, *command])} --help' to see all options."
        echo(f"{PROGRAM}: {message.rstrip('.')}. {hint}", err=True)
        raise typer.Exit(ExitCode.WRONG_USAGE) from error
    except BrokenPipeError:
        raise  # typer exits quietly when the reader of stdout is gone
    except (DPTError, ProbeError, ValueError, OSError, MemoryError) as error:
        if show_tracebacks.get():
            raise
        echo(f"{PROGRAM}: {one_line(error)}", err=True)
        raise typer.Exit(ExitCode.FAILED) from error


def one_line(error: BaseException) -> str:
    """Returns the message of an exception as one line; the name of its class if it has none."""
    if isinstance(error, MemoryError) and not str(error):
        return "not enough memory. Close other programs, or use smaller images or a smaller model"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def wrong_option(option: str | Sequence[str], message: str) -> typer.BadParameter:
    """Returns the exception for an option with a wrong value. Its message says what was given and what is expected."""
    return typer.BadParameter(message, param_hint=[option] if isinstance(option, str) else list(option))


@contextmanager
def checking(option: str) -> Iterator[None]:
    """Turns the library's complaint about a value into one about the option. Put only the check into the block."""
    try:
        yield
    except (DPTError, ProbeError, ValueError) as error:
        raise wrong_option(option, one_line(error)) from error


def whole_number(least: int, most: int | None = None) -> Callable[[str | int], int]:
    """Returns a parser for an option that takes a whole number. Unlike typer's own, it says which value was given."""
    limits = f">= {least}" if most is None else f"from {least} to {most}"

    def parse(value: str | int) -> int:  # an int is the option's default
        text = str(value).strip()
        if not text.isdecimal() or not least <= int(text) <= (math.inf if most is None else most):
            raise typer.BadParameter(f"got {text!r}, expected a whole number {limits}")
        return int(text)

    return parse


def positive_number(value: str | float) -> float:
    """Parses an option that takes a number > 0."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise typer.BadParameter(f"got {str(value)!r}, expected a finite number > 0")
    return number


def local_folder(path: Path) -> Path:
    """Checks the value of --out: an address such as s3://bucket/run is a wrong option."""
    try:
        return local_path(path)
    except DPTError as error:
        raise typer.BadParameter(one_line(error)) from error


def make_folder(path: Path) -> None:
    """Creates the folder of --out and those above it; a file in its place is a wrong option."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise wrong_option("--out", f"{path} is a file or lies below one, expected a folder") from error


def whole_numbers(option: str, text: str, least: int = 1) -> list[int]:
    """Parses whole numbers that are separated by commas."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) >= least for part in parts):
        raise wrong_option(option, f"got {text!r}, expected whole numbers >= {least}, separated by commas")
    return [int(part) for part in parts]


class Device(StrEnum):
    """Devices that models run on."""

    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


CHECKPOINT_HELP = "A checkpoint file, a model name (see `models`), or 'demo'."
ModelOption = Annotated[str, typer.Option("--model", help=CHECKPOINT_HELP)]
VersionOption = Annotated[
    int | None,
    typer.Option(
        "--model-version",
        parser=whole_number(1, 2),
        metavar="1|2",
        help="Depth-Anything version, if the file name does not say it.",
    ),
]
MaxDepthOption = Annotated[
    float | None,
    typer.Option(
        "--max-depth",
        parser=positive_number,
        metavar="METRES",
        help="Largest distance of a metric model, if the file name does not say it.",
    ),
]
TimeoutOption = Annotated[
    float,
    typer.Option("--timeout", parser=positive_number, metavar="SECONDS", help="Time allowed for reading one image."),
]
OutOption = Annotated[
    Path,
    typer.Option("--out", "-o", callback=local_folder, help="Output folder. Created if it does not exist."),
]
DeviceOption = Annotated[Device, typer.Option("--device", help="Device to run the model on.")]
SizeOption = Annotated[
    int | None,
    typer.Option(
        "--size",
        parser=whole_number(14),
        metavar="PIXELS",
        help="Base size of the model's input. Default: the model's.",
    ),
]
StretchOption = Annotated[bool, typer.Option("--stretch", help="Do not keep the aspect ratio of the image.")]
TakeOverOption = Annotated[
    bool,
    typer.Option("--take-over", help="Take the run from another writer, e.g. on a machine that no longer answers."),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite existing files.")]


app = Application(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # a bug in the program shows its full traceback
    rich_markup_mode=None,
    help="Look inside DPT models for monocular depth. The model 'demo' is included.",
    epilog="\n".join(["\b", "Exit codes:", *(f"  {code.value:<3}  {meaning}" for code, meaning in MEANINGS.items())]),
)


def _print_version(wanted: bool) -> bool:
    if wanted:
        echo(f"{PROGRAM} {metadata.version('dpt-workbench')}")
        raise typer.Exit
    return wanted


@app.callback()
def settings(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Stores the options that precede the command."""
    show_tracebacks.set(debug)


def load_model(source: str, version: int | None, max_depth: float | None, device: Device, fast: bool = False) -> DPT:
    """Loads a model for a command. Warnings become notes on stderr.

    Args:
        source: A checkpoint file, a model name, or "demo".
        version: Depth-Anything version, if the file name does not say it.
        max_depth: Largest distance in metres of a metric model, if the file name does not say it.
        device: Device to run on.
        fast: Use the fastest dtype of the device that is accurate enough.

    Returns:
        The model in inference mode.

    Raises:
        UnavailableError: The device does not exist on this machine.
        dpt.DPTError: The checkpoint cannot be loaded.
    """
    import dpt

    check_device(device)
    with _warnings_as_notes():
        return dpt.load(
            source, version=version, max_depth=max_depth, device=device.value, dtype="auto" if fast else None
        )


def check_device(device: Device) -> None:
    """Raises UnavailableError unless this machine has the device."""
    import torch

    found = {Device.cpu: True, Device.cuda: torch.cuda.is_available(), Device.mps: torch.backends.mps.is_available()}
    if not found[device]:
        raise UnavailableError(f"No {device.value.upper()} device available. Omit --device to run on the CPU.")


@contextmanager
def _warnings_as_notes() -> Iterator[None]:
    """Shows all warnings of a block when it ends, also those that a filter of the caller turns into errors."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        _show_note(warning.message)


def _show_note(message: Warning | str, *_: object, **__: object) -> None:
    """Shows a warning, in place of `warnings.showwarning`."""
    echo(f"note: {one_line(message) if isinstance(message, Warning) else message}", err=True)


def advise(network: DPT, photographs: bool) -> None:
    """Prints one line if the results are those of the demo model for images that it was not made for.

    Args:
        network: The model of the results.
        photographs: Whether an image is none of the package's samples.
    """
    if photographs and is_demo(network):
        echo(
            f"note: this is the demo model, trained on rendered scenes. For photographs: --model {FOR_PHOTOGRAPHS}",
            err=True,
        )
