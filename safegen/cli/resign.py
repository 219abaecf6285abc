"""``safegen resign``."""

from __future__ import annotations

from pathlib import Path

import typer

from safegen.cli.shell import Bars, command, print_json


def run(*, file: Path, output: Path, force: bool, as_json: bool) -> None:
    """Call :func:`safegen.recovery.resign.resign` and print what it did."""
    with command(as_json=as_json):
        from safegen.recovery.resign import resign

        with Bars() as bars:
            done = resign(file, output, force=force, progress=bars)
        if as_json:
            print_json("resign/1", done.to_json())
            return
        typer.echo(f"Wrote {done.output}")
        typer.echo(f"  content id    {done.content_id}")
        typer.echo(f"  credential    C2PA manifest {done.manifest_id}, an update of")
        typer.echo(f"  previous      C2PA manifest {done.previous} (ledger entry {done.previous_entry})")
        typer.echo(f"  ledger entry  {done.entry}")
