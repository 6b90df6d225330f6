"""dpt-workbench on the command line.

Whatever a user can cause (a file that is no picture, a checkpoint of another model, a full disk) ends in one line on
stderr; --debug shows the traceback. Commands import what they need when they run, so that --help need not wait for
matplotlib and the like.

Exit codes: 0 all done; 1 nothing could be done; 2 a wrong command line; 3 some pictures failed, the rest are done.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from ..errors import InvalidValueError, MissingFileError

if TYPE_CHECKING:
    from dpt import DPT

SOME_FAILED = 3
show_tracebacks = ContextVar("show_tracebacks", default=False)


class Commands(TyperGroup):
    """The one place where exceptions become messages."""

    def invoke(self, ctx: Any) -> Any:  # typer's own Context here, a subclass of what it exports
        try:
            return super().invoke(ctx)
        except (ValueError, OSError, MemoryError) as error:
            if show_tracebacks.get():
                raise
            typer.echo(f"dpt-workbench: {_one_line(error)}", err=True)
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # a fault of ours should look like one, whole
    rich_markup_mode=None,
    help="Look inside DPT monocular-depth models. Without a checkpoint of your own, 'demo' is the model to name.",
)


class Device(StrEnum):
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


ModelOption = Annotated[str, typer.Option("--model", help="A checkpoint file, a name that `models` lists, or 'demo'.")]
VersionOption = Annotated[
    int | None,
    typer.Option("--model-version", min=1, max=2, help="Depth-Anything 1 or 2, where the file's name does not tell."),
]
MaxDepthOption = Annotated[
    float | None,
    typer.Option("--max-depth", help="Range in metres of a metric model, where the file's name does not tell."),
]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="The folder to write to; made if it is not there.")]
DeviceOption = Annotated[Device, typer.Option("--device", help="Where to compute.")]


def _print_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"dpt-workbench {metadata.version('dpt-workbench')}")
        raise typer.Exit
    return wanted


@app.callback()
def settings(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    show_tracebacks.set(debug)


# Neither news nor updates: each would be a message to a server that nobody asked for.
QUIET = ("--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate")


def lab_environment() -> dict[str, str]:
    """The environment JupyterLab is started in: with our defaults of its settings, after the user's own folders.

    JupyterLab 4.6 asks whether it may fetch news, whatever QUIET says; its setting `fetchNews` keeps it from asking.
    """
    folders = [os.environ.get("JUPYTER_CONFIG_PATH"), str(Path(__file__).parents[1] / "jupyter")]
    return {**os.environ, "JUPYTER_CONFIG_PATH": os.pathsep.join(folder for folder in folders if folder)}


@app.command()
def lab(
    path: Annotated[
        Path | None,
        typer.Argument(help="A notebook to open, or a folder of them. Default: ./notebooks, else this project's."),
    ] = None,
    port: Annotated[int, typer.Option(help="The port to listen on; the next free one if it is taken.")] = 8888,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser window.")] = True,
    ip: Annotated[str, typer.Option(help="The address to listen on.")] = "localhost",
) -> None:
    """Open JupyterLab on the notebooks and print its address. The address holds the token that lets you in."""
    from importlib.util import find_spec

    if find_spec("jupyterlab") is None:
        raise InvalidValueError("JupyterLab is not installed here; install it with: pip install 'dpt-workbench[lab]'")
    root, start = _notebooks(path)
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={root}", f"--port={port}", f"--ip={ip}"]
    command += [
        f"--LabApp.default_url=/lab/tree/{start}" if start else "--LabApp.default_url=/lab",
        *QUIET,
    ]
    if not browser or _no_display():
        command.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # containers; the token protects root's server like any other
    sys.stdout.flush()
    if os.name == "nt":  # there, exec returns to the shell at once
        raise typer.Exit(subprocess.call(command, env=lab_environment()))
    os.execve(sys.executable, command, lab_environment())  # Ctrl-C and signals reach Jupyter itself


@app.command()
def depth(
    images: Annotated[list[Path], typer.Argument(help="Pictures.", show_default=False)],
    out: OutOption = Path("out"),
    model: ModelOption = "demo",
    colormap: Annotated[str, typer.Option(help="A matplotlib colormap; near is its upper end.")] = "inferno",
    npy: Annotated[bool, typer.Option("--npy", help="Also write the numbers: float32, height x width.")] = False,
    grey: Annotated[
        bool, typer.Option("--16bit", help="Also write 16-bit grey, spanning the map's range (in its text chunks).")
    ] = False,
    size: Annotated[int | None, typer.Option(min=14, help="Base size of the model's input in pixels.")] = None,
    stretch: Annotated[bool, typer.Option("--stretch", help="Do not keep the aspect ratio.")] = False,
    device: DeviceOption = Device.cpu,
    fast: Annotated[
        bool, typer.Option("--fast", help="Compute in half precision where this machine is faster so.")
    ] = False,
    model_version: VersionOption = None,
    max_depth: MaxDepthOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
) -> None:
    """Depth of pictures: NAME_depth.png in colour, and on request NAME_depth.npy and NAME_depth16.png.

    A picture that fails is listed and does not stop the others. Exit code 3: some failed; 1: all did.
    """
    suffixes = ["_depth.png", *(["_depth.npy"] if npy else []), *(["_depth16.png"] if grey else [])]
    targets = _targets(images, out, suffixes)
    from ..figures import depth_files as pictures

    pictures.check_colormap(colormap)
    out.mkdir(parents=True, exist_ok=True)
    from tqdm import tqdm

    import dpt

    network = load_model(model, model_version, max_depth, device, fast)
    metric = network.config.metric
    failed: list[str] = []
    # disable=None: no bar where stderr is not a terminal
    with tqdm(targets.items(), unit="picture", disable=None if len(targets) > 1 else True) as progress:
        for source, files in progress:
            try:
                if there := [file for file in files if file.exists() and not force]:
                    raise FileExistsError(f"{there[0]} is there already; --force replaces it")
                depth_map = network.predict(dpt.read_image(source), size, keep_aspect=not stretch)
                writers = [pictures.png(pictures.colour_depth(depth_map, colormap, metric))]
                writers += [pictures.npy(depth_map)] if npy else []
                writers += [pictures.grey_png(depth_map, metric)] if grey else []
                for file, writer in zip(files, writers, strict=True):
                    pictures.write(file, writer)
            # RuntimeError: how torch says that memory ran out
            except (ValueError, OSError, MemoryError, RuntimeError) as error:
                if show_tracebacks.get():
                    raise
                failed.append(f"{source}: {_one_line(error)}")
            else:
                progress.write("\n".join(map(str, files)), file=sys.stdout)
    for line in failed:
        typer.echo(f"dpt-workbench: {line}", err=True)
    if failed:
        typer.echo(f"dpt-workbench: {len(failed)} of {len(targets)} pictures failed", err=True)
        raise typer.Exit(SOME_FAILED if len(failed) < len(targets) else 1)


@app.command()
def inspect(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint file, a name that `models` lists, or 'demo'.")],
    points: Annotated[bool, typer.Option("--points", help="Also list every probe point of the model.")] = False,
    model_version: VersionOption = None,
    max_depth: MaxDepthOption = None,
) -> None:
    """Print what a checkpoint was recognised to be, and where what its tensors cannot tell was taken from."""
    import dpt

    found = dpt.inspect(checkpoint, version=model_version, max_depth=max_depth)
    config = found.config
    base = config.preprocess.base
    grid = config.token_grid(base, base)
    prefix = "no class token" if config.prefix == 0 else f"{config.prefix} token{'s' * (config.prefix > 1)} before them"
    ends = [config.stage_block(stage) for stage in range(4)]
    heads, widths = [config.block_heads(b) for b in ends], [config.block_width(b) for b in ends]
    rows = {
        "model": f"{config.family} {config.variant}",
        "output": f"metres, up to {config.max_depth:g}"
        if config.metric
        else "inverse depth, relative; larger is nearer",
        "encoder": f"{config.depth} blocks of {_range_of(heads)} heads, tokens {_range_of(widths)} wide",
        "stages": f"the outputs of blocks {', '.join(map(str, ends))} go to reassembly (counted from 0)",
        "patches": f"{config.patch_size} pixels; {grid.rows} x {grid.cols} of them at {base} x {base}, {prefix}",
        "input": f"base size {base}, sides in multiples of {config.multiple}",
        "decoder": f"{config.fusion_channels} channels",
        "parameters": f"{found.parameters:,} in {found.tensors} tensors, {found.bytes / 2**20:.1f} MiB",
    }
    typer.echo(found.source)
    for name, value in rows.items():
        typer.echo(f"  {name:<11} {value}")
    for note in found.notes:
        typer.echo(f"  {'settled':<11} {note}")
    if points:
        from .. import names

        typer.echo(f"\n{names(load_model(checkpoint, model_version, max_depth, Device.cpu))}")


def _range_of(values: list[int]) -> str:
    """One number, or what the four stages have."""
    return str(values[0]) if len(set(values)) == 1 else f"{', '.join(map(str, values[:3]))} and {values[3]}"


@app.command()
def models(
    here: Annotated[bool, typer.Option("--here", help="Only what is on this machine.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Everything that is known of them, for programs.")] = False,
) -> None:
    """List the checkpoints that can be named: those in a folder weights/, and known ones, downloaded on first use."""
    import json
    from dataclasses import asdict

    import dpt

    found = dpt.available(here)
    if as_json:
        rows = [
            (asdict(item.checkpoint) | {"aliases": item.checkpoint.names[1:]} if item.checkpoint else {})
            | {"name": item.name, "place": item.place, "path": item.path and str(item.path)}
            for item in found
        ]
        typer.echo(json.dumps(rows, indent=1))
        return
    for item in found:
        typer.echo(item)
        if entry := item.checkpoint:
            typer.echo(f"    {entry.repository}: {', '.join(entry.files)}")
            if len(entry.names) > 2:
                typer.echo(f"    also called {', '.join(entry.names[1:-1])}")
            if entry.url:
                typer.echo(f"    original file, to put into weights/: {entry.url}")
    if not found:
        typer.echo("none on this machine; without --here, those that can be downloaded are listed, too")
    elif any(item.checkpoint and not item.checkpoint.licence_sure for item in found):
        typer.echo("\n? The sources say nothing, or contradict each other; --json has them.")


@app.command()
def demo(
    out: OutOption = Path("out"),
    sample: Annotated[str | None, typer.Option(help="The name of a sample picture.")] = None,
    model: ModelOption = "demo",
) -> None:
    """Write depth.png and attention.png of a sample picture: the workbench for people without a browser."""
    from dpt.demo import sample as read_sample
    from dpt.demo import samples

    from .. import capture
    from ..figures import depth_files as pictures
    from ..figures import plot

    name = samples()[0] if sample is None else sample
    if name not in samples():
        raise InvalidValueError(f"no sample is called {name!r}; there are {', '.join(samples())}")
    image, _ = read_sample(name)
    network = load_model(model, None, None, Device.cpu)
    block = network.config.depth * 2 // 3  # deep enough for heads to follow things rather than places
    point = f"encoder.blocks.{block}.attention"
    with capture(network, point) as captured:
        depth_map = network.predict(image)
    maps = captured[point]
    sheet = plot.attention(image, maps.map(patch=(maps.grid.rows // 2, maps.grid.cols // 2)))
    out.mkdir(parents=True, exist_ok=True)
    coloured = pictures.colour_depth(depth_map, metric=network.config.metric)
    for file, writer in (("depth.png", pictures.png(coloured)), ("attention.png", pictures.figure_png(sheet))):
        pictures.write(out / file, writer)
        typer.echo(out / file)


@app.command()
def bench(
    models: Annotated[str, typer.Option(help="vits, vitb, vitl, vitg; several with commas.")] = "vits",
    sizes: Annotated[str, typer.Option(help="Sides of square inputs in pixels, multiples of 14.")] = "518,1036",
    repeats: Annotated[int, typer.Option(min=1, help="Timed rounds; every round runs every way once.")] = 7,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. Default: torch's own choice.")] = None,
    device: DeviceOption = Device.cpu,
    dtype: Annotated[str, typer.Option(help="float32, float16, bfloat16, or auto: the fastest here.")] = "float32",
    loading: Annotated[bool, typer.Option("--loading", help="Measure loading a checkpoint instead.")] = False,
    capturing: Annotated[
        bool,
        typer.Option("--capture", help="Measure probes.run on files instead, at the first of --models and --sizes."),
    ] = False,
    memory: Annotated[
        bool, typer.Option("--memory", help="With --capture: the memory of 1,000 and of 20,000 tiny pictures.")
    ] = False,
    pictures: Annotated[int, typer.Option(min=4, help="With --capture: how many.")] = 24,
    dask: Annotated[str, typer.Option(help="With --capture: also on Dask with so many workers, e.g. 1,2.")] = "",
    suite: Annotated[
        str,
        typer.Option(
            help="Parts of the whole suite instead, beside transformers and onnxruntime: all, or first words with "
            "commas, e.g. forward,accuracy. Needs the source tree and the extras onnx and bench. Writes nothing."
        ),
    ] = "",
) -> None:
    """Time and memory of running a model plain, with all attention captured, and with explicit attention matrices."""
    if suite:
        raise typer.Exit(_suite(suite, repeats, device.value, threads))
    if loading:
        from ..bench import loading as bench_loading

        for line in bench_loading.run(models.split(","), repeats, threads):
            typer.echo(line)
        return
    from ..bench import forward as benchmark

    sides = _numbers("--sizes", sizes)
    if capturing:
        from ..bench import captures as bench_capture

        workers = _numbers("--dask", dask) if dask else []
        variant = models.split(",")[0]
        lines = bench_capture.run(variant, sides[0], pictures, repeats, threads, workers)
        for line in bench_capture.memory() if memory else lines:
            typer.echo(line)
        return
    if dtype == "auto":
        from dpt.machine import fast_dtype

        dtype = str(fast_dtype(device.value)).removeprefix("torch.")
    for line in benchmark.run(models.split(","), sides, repeats, threads, device.value, dtype):
        typer.echo(line)


def _suite(parts: str, repeats: int, device: str, threads: int | None) -> int:
    """Run tests/benchmarks and print its tables. Returns its exit code."""
    root = Path(__file__).parents[2]
    if not (root / "tests" / "benchmarks" / "__main__.py").is_file():
        raise InvalidValueError(
            "--suite runs tests/benchmarks of the source tree, which is not installed with the package"
        )
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.md"
        command = [sys.executable, "-m", "tests.benchmarks", f"--device={device}", f"--repeats={repeats}"]
        command += [f"--out={results}", *([] if parts == "all" else [f"--only={parts}"])]
        command += [] if threads is None else [f"--threads={threads}"]
        code = subprocess.call(command, cwd=root)
        if results.exists():
            typer.echo(results.read_text(encoding="utf-8"))
    return code


def _numbers(option: str, text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise InvalidValueError(f"{option} is {text!r}; expected whole numbers with commas, e.g. 518,1036") from None


def load_model(source: str, version: int | None, max_depth: float | None, device: Device, fast: bool = False) -> DPT:
    """dpt.load, with its warnings as notes on stderr."""
    import torch

    import dpt

    if (device is Device.cuda and not torch.cuda.is_available()) or (
        device is Device.mps and not torch.backends.mps.is_available()
    ):
        raise InvalidValueError(f"torch finds no {device.value} device here; leave --device out to compute on the CPU")
    with _notes():
        return dpt.load(
            source, version=version, max_depth=max_depth, device=device.value, dtype="auto" if fast else None
        )


@contextmanager
def _notes() -> Iterator[None]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        typer.echo(f"note: {warning.message}", err=True)


def _targets(images: list[Path], out: Path, suffixes: list[str]) -> dict[Path, list[Path]]:
    """What each picture is written to; ValueError if two pictures claim one file."""
    targets: dict[Path, list[Path]] = {}
    claimed: dict[str, Path] = {}
    for image in dict.fromkeys(images):
        files = [out / f"{image.stem}{suffix}" for suffix in suffixes]
        # Case is folded: x.jpg and X.png share a file on most desktops.
        other = claimed.setdefault(files[0].name.casefold(), image)
        if other is not image:
            raise InvalidValueError(
                f"{other} and {image} would both be written to {files[0]}; rename one, or run them apart"
            )
        targets[image] = files
    return targets


def _notebooks(path: Path | None) -> tuple[Path, str]:
    """(folder to serve, notebook to open in it or '')."""
    if path is None:
        places = [Path("notebooks"), Path(__file__).parents[2] / "notebooks"]
        path = next((place for place in places if place.is_dir()), None)
        if path is None:
            raise InvalidValueError(
                "there is no folder notebooks here; name a notebook or a folder: dpt-workbench lab FOLDER"
            )
    if path.is_dir():
        return path.resolve(), ""
    if not path.is_file():
        raise MissingFileError(f"there is no notebook at {path}")
    return path.resolve().parent, path.name


def _no_display() -> bool:
    """Whether no window can be opened: then Jupyter would look for a browser in the terminal and take it over."""
    windows = ("DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME")
    return sys.platform == "linux" and not any(os.environ.get(name) for name in windows)


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__
