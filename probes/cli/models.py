"""dpt-workbench models: lists the checkpoints that have names."""

from __future__ import annotations

from typing import Annotated

import typer

from dpt.terminal import echo

from .app import app


@app.command()
def models(
    here: Annotated[bool, typer.Option("--here", help="List only models on this machine.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print all details as JSON, including where each licence was found.")
    ] = False,
) -> None:
    """List the models that can be loaded by name.

    These are the checkpoints in the folder weights/, and known models that are downloaded on first use.
    """
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
        rows.insert(0, {"name": "demo", "place": "package", "path": str(dpt.demo.weights())})
        echo(*json.dumps(rows, indent=1).split("\n"))
        return
    size = round(dpt.demo.weights().stat().st_size / 1e6)
    echo(f"{'demo':<42} {size:>5} MB  {'':<14} comes with the package; for its rendered scenes, not for photographs")
    for item in found:
        echo(item)
        if entry := item.checkpoint:
            echo(f"    {entry.repository}: {', '.join(entry.files)}")
            if len(entry.names) > 2:
                echo(f"    also called {', '.join(entry.names[1:-1])}")
            if entry.url:
                echo(f"    original file, to put into weights/: {entry.url}")
    if not found:
        echo("No other models on this machine. Omit --here to list models that can be downloaded.")
    elif any(item.checkpoint and not item.checkpoint.licence_sure for item in found):
        echo("", "?  The sources state no licence, or contradict each other. See --json for the sources.")
