"""``safegen recover``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from safegen.cli.shell import Bars, command, print_json
from safegen.errors import EXIT_COULD_NOT_RUN, EXIT_DONE, EXIT_NOT_VERIFIED

if TYPE_CHECKING:
    from safegen.recovery.recover import Recovery


def run(*, file: Path, output: Path, sidecar: bool, force: bool, as_json: bool) -> None:
    """Call ``safegen.recovery.recover``, print what came of it, and exit: 0 restored, 1 nothing to give, 4 open."""
    with command(as_json=as_json):
        from safegen.recovery.recover import Outcome, recover

        with Bars() as bars:
            done = recover(file, output, sidecar=sidecar, force=force, progress=bars)
        if as_json:
            print_json("recover/1", done.to_json())
        else:
            _print_for_people(file, done)
        open_ = dict.fromkeys((Outcome.UNPROVEN, Outcome.UNDECIDED), EXIT_COULD_NOT_RUN)
        codes = {Outcome.RESTORED: EXIT_DONE, **open_}
        raise typer.Exit(codes.get(done.outcome, EXIT_NOT_VERIFIED))


def _print_for_people(file: Path, done: Recovery) -> None:
    if done.output is None:
        typer.echo(f"{done.outcome.replace('_', ' ').upper()}  {file}: {done.summary}")
        if done.sidecar is not None:
            typer.echo(f"Wrote {done.sidecar}: the manifest kept for that clip, to look at. Nothing was signed.")
        return
    typer.echo(f"Wrote {done.output}" + ("" if done.sidecar is None else f" and {done.sidecar}"))
    typer.echo(f"  content id    {done.content_id}")
    typer.echo(f"  recovered     C2PA manifest {done.recovered}, now the parent of")
    typer.echo(f"  credential    C2PA manifest {done.manifest_id}")
    typer.echo(f"  ledger entry  {done.entry}")
