"""dpt-workbench models: lists the checkpoints that have names."""

from __future__ import annotations

from typing import Annotated

import typer

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
        typer.echo("No models on this machine. Omit --here to list models that can be downloaded.")
    elif any(item.checkpoint and not item.checkpoint.licence_sure for item in found):
        typer.echo("\n?  The sources state no licence, or contradict each other. See --json for the sources.")
