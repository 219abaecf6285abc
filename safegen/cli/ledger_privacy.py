"""``safegen ledger subject``, ``erase`` and ``retain``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safegen.cli.shell import JsonFlag, command, counted, print_json
from safegen.errors import EXIT_DONE, EXIT_NOT_VERIFIED, InputError
from safegen.settings import Home
from safegen.types import Json

if TYPE_CHECKING:
    from safegen.ledger import Entry, Ledger

SubjectArgument = Annotated[
    str, typer.Argument(help="As `generate --subject` or `--by` named it; content:ID for a run that named nobody.")
]

_BACKUPS = "Backups of the ledger hold the wrapped key until they are deleted: docs/privacy.md."


def states_of(ledger: Ledger, entry: Entry) -> dict[str, Json]:
    """How the personal fields of an entry stand: ``held``, or ``erased (entry N)``."""
    from safegen.ledger.subjects import states

    found = states(ledger, entry).items()
    return {name: str(state) if by is None else f"{state} (entry {by})" for name, (state, by) in found}


def add_to(app: typer.Typer) -> None:
    """Add the commands to ``safegen ledger``."""
    app.command()(subject)
    app.command()(erase)
    app.command()(retain)


def subject(name: SubjectArgument, as_json: JsonFlag = False) -> None:
    """Show everything that the ledger holds about a person, decrypted. Exit 1 if a part of it was altered."""
    with command(as_json=as_json):
        from safegen.privacy.fields import export_subject

        said: dict[str, Any] = export_subject(Home.default(), name)
        if as_json:
            print_json("ledger.subject/1", said)
        else:
            for one in said["fields"]:
                where = "no entry" if one["entry"] is None else f"entry {one['entry']} ({one['kind']}, {one['time']})"
                typer.echo(f"{where}  {one['field']}: {one.get('problem') or one['value']}")
            for entry in said["erased_by"]:
                typer.echo(f"Erased: entry {entry}")
            if not said["fields"]:
                typer.echo("Nothing is held.")
        altered = any("problem" in one for one in said["fields"])
        raise typer.Exit(EXIT_NOT_VERIFIED if altered else EXIT_DONE)


def erase(
    name: SubjectArgument,
    reason: Annotated[
        str,
        typer.Option(help="request, consent_withdrawn, objection, unlawful, legal_duty or no_longer_needed."),
    ] = "request",
    manifests: Annotated[
        bool, typer.Option("--manifests", help="Delete the kept manifests of their clips too; recovery needs them.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Destroy the key to everything that the ledger holds about a person, and record that. It cannot be undone."""
    with command(as_json=as_json):
        from safegen.privacy.fields import erase as erase_subject

        if not yes:
            if as_json or not sys.stdin.isatty():
                raise InputError("Erasing cannot be undone.", remedy="Say --yes.")
            typer.confirm(f"Erase all that the ledger holds about {name!r} for good?", abort=True)
        done = erase_subject(Home.default(), name, ground=reason, manifests=manifests)
        if done.entry is None and not done.resumed:
            before = f" It was erased before: entry {done.earlier[-1]}." if done.earlier else ""
            raise InputError(
                f"The ledger holds nothing about {name!r}.{before}", remedy="See `safegen ledger subject`."
            )
        if as_json:
            print_json("ledger.erase/1", done.to_json())
            return
        for entry in done.resumed:
            typer.echo(f"Ended an erasure that had broken off (ledger entry {entry})")
        if done.entry is not None:
            kept = f" and {counted(done.manifests, 'kept manifest')}" if done.manifests else ""
            typer.echo(f"Erased {counted(done.fields, 'field')}{kept} (ledger entry {done.entry})")
        typer.echo(_BACKUPS)


def retain(
    policy: Annotated[Path | None, typer.Option(help="Retention file; the home's retention.yaml if not given.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is due, and leave it.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Erase personal fields and kept manifests whose time is over, and record how many."""
    with command(as_json=as_json):
        from safegen.privacy.retention import FILE, read_retention
        from safegen.privacy.retention import retain as retain_now

        home = Home.default()
        retention = read_retention(home.root / FILE if policy is None else policy.expanduser())
        done = retain_now(home, retention, dry_run=dry_run)
        if as_json:
            print_json("ledger.retain/1", done.to_json() | {"dry_run": dry_run})
            return
        for entry in done.resumed:
            typer.echo(f"Ended an erasure that had broken off (ledger entry {entry})")
        for field, count in sorted(done.fields.items()):
            typer.echo(f"{count:>8}  {field}")
        typer.echo(f"{done.manifests:>8}  kept manifests")
        if dry_run:
            typer.echo("Nothing was erased (--dry-run).")
        else:
            typer.echo("Nothing was due." if done.entry is None else f"Erased (ledger entry {done.entry})")
