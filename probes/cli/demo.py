"""dpt-workbench demo: depth and attention of a sample image, for people without a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dpt.terminal import echo

from .app import Device, ModelOption, OutOption, app, load_model, make_folder, wrong_option


@app.command()
def demo(
    out: OutOption = Path("out"),
    sample: Annotated[str | None, typer.Option(help="Name of a sample image. Default: the first one.")] = None,
    model: ModelOption = "demo",
) -> None:
    """Write depth.png and attention.png of a sample image.

    Shows what the workbench does without a browser.
    """
    from dpt.demo import sample as read_sample
    from dpt.demo import samples

    name = samples()[0] if sample is None else sample
    if name not in samples():
        raise wrong_option("--sample", f"unknown sample image {name!r}. Available samples: {', '.join(samples())}")
    from .. import capture
    from ..figures import depth_files, plot

    image, _ = read_sample(name)
    network = load_model(model, None, None, Device.cpu)
    block = network.config.depth * 2 // 3  # deep enough for heads to follow objects rather than positions
    point = f"encoder.blocks.{block}.attention"
    with capture(network, point) as captured:
        depth_map = network.predict(image)
    maps = captured[point]
    sheet = plot.attention(image, maps.map(patch=(maps.grid.rows // 2, maps.grid.cols // 2)))
    make_folder(out)
    coloured = depth_files.colour_depth(depth_map, metric=network.config.metric)
    for file, writer in (("depth.png", depth_files.png(coloured)), ("attention.png", depth_files.figure_png(sheet))):
        depth_files.write(out / file, writer)
        echo(out / file)
