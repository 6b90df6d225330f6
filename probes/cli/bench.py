"""dpt-workbench bench: measures speed and memory on this machine.

Each command prints a Markdown table, line by line. `bench` alone prints its help.
"""

from __future__ import annotations

import subprocess
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dpt.terminal import echo

from ..errors import UnavailableError
from ..interpreter import NO_PYTHON, python_program
from .app import Device, DeviceOption, app, check_device, checking, whole_number, whole_numbers, wrong_option

bench = typer.Typer(
    no_args_is_help=True,
    help="Measure speed and memory on this machine. Run it while the machine does nothing else.",
)
app.add_typer(bench, name="bench")


class Dtype(StrEnum):
    """Number formats of a model. auto: the fastest on the device."""

    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"
    auto = "auto"


ShapesOption = Annotated[
    str, typer.Option("--models", help="Model shapes, separated by commas: vits, vitb, vitl, vitg. Weights are random.")
]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", parser=whole_number(1), metavar="N", help="CPU threads. Default: chosen by PyTorch."),
]
RepeatsOption = Annotated[
    int,
    typer.Option(
        "--repeats", parser=whole_number(1), metavar="N", help="Timed rounds. Every round measures each way once."
    ),
]


@bench.command()
def forward(
    models: ShapesOption = "vits",
    sizes: Annotated[
        str, typer.Option(help="Sides of the square inputs in pixels, separated by commas. Multiples of 14.")
    ] = "518,1036",
    repeats: RepeatsOption = 7,
    threads: ThreadsOption = None,
    device: DeviceOption = Device.cpu,
    dtype: Annotated[
        Dtype, typer.Option(help="Number format of the model. auto is the fastest on the device.")
    ] = Dtype.float32,
) -> None:
    """Measure a forward pass with and without captured attention.

    Measures time and memory of three ways: plain, with all attention captured, and with explicit attention matrices.
    """
    sides, variants = whole_numbers("--sizes", sizes), _names(models)
    from dpt.machine import fast_dtype

    from ..bench import forward as benchmark
    from ..bench.measuring import check_shapes

    with checking("--models"):
        check_shapes(variants)
    with checking("--sizes"):
        benchmark.check(variants, sides)
    check_device(device)
    name = str(fast_dtype(device.value)).removeprefix("torch.") if dtype is Dtype.auto else dtype.value
    for line in benchmark.run(variants, sides, repeats, threads, device.value, name):
        echo(line)


@bench.command()
def captures(
    model: Annotated[
        str, typer.Option(help="A model shape with random weights (vits, vitb, vitl, vitg), or 'demo'.")
    ] = "vits",
    size: Annotated[
        int,
        typer.Option(
            parser=whole_number(14), metavar="PIXELS", help="Side of the square input in pixels, a multiple of 14."
        ),
    ] = 518,
    images: Annotated[
        int,
        typer.Option(
            parser=whole_number(4), metavar="N", help="Images of a short run. A long run has three times as many."
        ),
    ] = 24,
    repeats: RepeatsOption = 7,
    threads: ThreadsOption = None,
    dask: Annotated[
        str, typer.Option(metavar="WORKERS", help="Also measure Dask clusters with these numbers of workers, e.g. 1,2.")
    ] = "",
) -> None:
    """Measure the speed of probes.run beside the bare model.

    The table lists images per second, and the seconds that the processes take to start.
    """
    workers = whole_numbers("--dask", dask) if dask else []
    from ..bench import captures as benchmark
    from ..bench import forward as passes
    from ..bench.measuring import check_shapes

    variant = model.strip()
    with checking("--model"):
        check_shapes([variant] if variant != "demo" else [])
    with checking("--size"):
        passes.check([variant if variant != "demo" else "vits"], [size])
    for line in benchmark.run(variant, size, images, repeats, threads, tuple(workers)):
        echo(line)


@bench.command()
def memory(
    images: Annotated[
        str, typer.Option(help="Numbers of images, separated by commas. One run is measured for each.")
    ] = "1000,20000",
) -> None:
    """Measure the peak memory of probes.run.

    Uses a tiny model and tiny images, to show how the bookkeeping grows with the number of images.
    """
    counts = whole_numbers("--images", images, least=8)
    from ..bench import captures as benchmark

    for line in benchmark.memory(tuple(counts)):
        echo(line)


@bench.command()
def loading(
    models: ShapesOption = "vits",
    repeats: Annotated[
        int, typer.Option(parser=whole_number(1), metavar="N", help="Processes per way. Each one loads the file once.")
    ] = 7,
    threads: ThreadsOption = None,
) -> None:
    """Measure time and memory of loading a checkpoint.

    Compares dpt.load with the usual way, for every file format.
    """
    variants = _names(models)
    from ..bench import loading as benchmark
    from ..bench.measuring import check_shapes

    with checking("--models"):
        check_shapes(variants)
    for line in benchmark.run(variants, repeats, threads):
        echo(line)


@bench.command()
def suite(
    only: Annotated[
        str, typer.Option(help="First words of the parts to run, separated by commas, e.g. forward,accuracy.")
    ] = "",
    repeats: RepeatsOption = 5,
    threads: ThreadsOption = None,
    device: DeviceOption = Device.cpu,
) -> None:
    """Run the full benchmark suite. Needs the source tree.

    Compares the project with transformers and onnxruntime. The suite is tests/benchmarks of the source tree, which is
    not part of the installed package. It also needs the extras onnx and bench, and takes about half an hour. It prints
    its tables and changes no file.
    """
    if device is Device.mps:
        raise wrong_option("--device", "got 'mps', expected cpu or cuda")
    root = Path(__file__).parents[2]
    if not (root / "tests" / "benchmarks" / "__main__.py").is_file():
        raise UnavailableError(
            "'bench suite' needs the source tree: tests/benchmarks is not part of the installed package. Clone the "
            "repository, install it with: pip install -e '.[onnx,bench]', and run the command again"
        )
    python = python_program()
    if python is None:
        raise UnavailableError(f"Cannot start the benchmarks: {NO_PYTHON}. Run them with the Python of an environment")
    check_device(device)
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.md"
        command = [python, "-m", "tests.benchmarks", f"--device={device.value}", f"--repeats={repeats}"]
        command += [f"--out={results}", *([f"--only={only}"] if only else [])]
        command += [] if threads is None else [f"--threads={threads}"]
        code = subprocess.call(command, cwd=root)
        if results.exists():
            echo(*results.read_text(encoding="utf-8").split("\n"))
    raise typer.Exit(code)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]
