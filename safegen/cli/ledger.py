"""``safegen ledger``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safegen.cli import ledger_privacy, ledger_proofs
from safegen.cli.home_ledger import read_ledger
from safegen.cli.shell import Bars, JsonFlag, command, counted, print_json
from safegen.errors import EXIT_DONE, EXIT_NOT_VERIFIED, InputError
from safegen.settings import Home
from safegen.types import Json

if TYPE_CHECKING:
    from safegen.ledger import Entry

app = typer.Typer(help="Read and check the ledger.", no_args_is_help=True)
ledger_proofs.add_to(app)
ledger_privacy.add_to(app)


@app.command("list")
def list_(
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many entries, the newest.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only entries of this kind, such as generated or blocked.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """List entries, oldest first; with --json one object per line."""
    with command(as_json=as_json):
        from safegen.ledger import Ledger

        count = 0
        with read_ledger(Ledger, Home.default()) as ledger:
            if limit is None:
                found = ledger.entries(kind=kind)
            else:
                found = iter(list(ledger.entries(limit, kind=kind, newest_first=True))[::-1])
            for count, entry in enumerate(found, 1):  # noqa: B007 - counted for what follows
                if as_json:
                    print_json("ledger.entry/1", entry.to_json())
                else:
                    damage = f"  DAMAGED: {entry.damage}" if entry.damage else ""
                    asset = (entry.event.asset_sha256 or "")[:12]
                    decided = entry.event.action or "-"
                    row = f"{entry.index:>6}  {entry.time:<20}  {entry.kind:<10}  {decided:<6}"
                    typer.echo(f"{row}  {entry.content_id or '-':<16}  {asset}".rstrip() + damage)
        if not count and not as_json:
            typer.echo("0 entries")


@app.command()
def show(
    entry: Annotated[str, typer.Argument(help="An entry's index, or a content id.")], as_json: JsonFlag = False
) -> None:
    """Show one entry (or all about one content id) with the proof that it lies under the signed checkpoint."""
    with command(as_json=as_json):
        from safegen.ledger import Ledger

        with read_ledger(Ledger, Home.default()) as ledger:
            for one in ledger_proofs.named(ledger, entry):
                body: dict[str, Json] = one.to_json() | {"proof": ledger.prove(one.index).to_text()}
                if kept := ledger_privacy.states_of(ledger, one):
                    body["personal"] = kept
                if as_json:
                    print_json("ledger.entry/1", body)
                else:
                    _print_entry(one, body)


def _print_entry(entry: Entry, body: Mapping[str, Any]) -> None:
    """Print an entry as rows: its fields, and what its body says, one level deep."""
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False)
    decision = body["decision"]
    rows = {name: body[name] for name in ("time", "kind", "content_id", "asset_sha256", "manifest_sha256", "model")}
    rows |= {"policy_sha256": body["policy_sha256"], "decision": None if decision is None else decision["action"]}
    rows |= {name: body[name] for name in ("leaf_hash", "damage", "personal") if name in body}
    rows |= {f"body.{name}": value for name, value in entry.body.items()}
    console.print(f"[bold]entry {entry.index}[/], proved to lie under the signed checkpoint (--json has the proof)")
    for name, value in rows.items():
        if value not in (None, "", [], {}):
            console.print(f"  [dim]{name:<24}[/] ", end="")
            plain = isinstance(value, str) and value.isprintable()  # nothing that steers a terminal
            console.print(str(value) if plain else json.dumps(value), markup=False)


@app.command()
def fsck(
    checkpoint: Annotated[
        list[Path] | None, typer.Option(help="A signed checkpoint kept elsewhere; reveals rewrites and roll-backs.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Recompute the whole ledger: rows, hashes, tree and every checkpoint's signature. Exit 1 if anything is wrong."""
    with command(as_json=as_json):
        from safegen.keys import KeyStore
        from safegen.ledger import Ledger

        home = Home.default()
        keys = KeyStore.load(home, purpose="verify")
        outside = [_read_note(path) for path in checkpoint or ()]
        with Bars() as bars, read_ledger(Ledger, home) as ledger:
            report = ledger.verify(
                keys.ledger_public_key, lambda done, total: bars("checking", done, total), outside=outside
            )
        size = counted(report.size, "entry", "entries")
        if as_json:
            problems = [{"entry": p.index, "column": p.column, "summary": p.summary} for p in report.problems]
            print_json("ledger.fsck/1", asdict(report) | {"problems": problems})
        elif report.ok:
            typer.echo(f"OK: {size}, root {report.root}")
        else:
            typer.echo(f"NOT OK: {size}, {counted(len(report.problems), 'problem')}")
            for problem in report.problems:
                where = "ledger" if problem.index is None else f"entry {problem.index}"
                typer.echo(f"  {where}, {problem.column}: {problem.summary}")
        raise typer.Exit(EXIT_DONE if report.ok else EXIT_NOT_VERIFIED)


def _read_note(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"Cannot read the checkpoint {path}: {error}", remedy="Give a signed checkpoint.") from error


@app.command()
def upgrade(as_json: JsonFlag = False) -> None:
    """Bring an older ledger's schema up to this version's. Entries, hashes and checkpoints stay as they are."""
    with command(as_json=as_json):
        from safegen.ledger import upgrade as migrate

        _moved(lambda url: migrate(url, "head"), as_json)


@app.command()
def downgrade(
    revision: Annotated[str, typer.Argument(help="A schema revision that `current` names, such as 0006.")],
    as_json: JsonFlag = False,
) -> None:
    """Take the schema back, for an older safegen. Entries stay; what only later revisions hold goes. Back up first."""
    with command(as_json=as_json):
        from safegen.ledger import downgrade as migrate
        from safegen.ledger.schema import REVISIONS

        if revision not in REVISIONS:  # base would remove the ledger
            raise InputError(f"There is no schema revision {revision}.", remedy=f"Give one of {', '.join(REVISIONS)}.")
        _moved(lambda url: migrate(url, revision), as_json)


@app.command()
def current(as_json: JsonFlag = False) -> None:
    """Say which schema revision the ledger has, and which one this version of safegen needs."""
    with command(as_json=as_json):
        from safegen.ledger import current_revision
        from safegen.ledger.schema import HEAD, REVISIONS

        found = current_revision(Home.default().ledger_url)
        if as_json:
            print_json("ledger.current/1", {"revision": found, "needed": HEAD, "revisions": list(REVISIONS)})
        else:
            need = "" if found == HEAD else f"; this version of safegen needs {HEAD}: safegen ledger upgrade"
            typer.echo(f"{found or 'no ledger'}{need}")


def _moved(move: Callable[[str], None], as_json: bool) -> None:
    """Move the schema, and say from where to where."""
    from safegen.ledger import current_revision

    url = Home.default().ledger_url
    before = current_revision(url)
    move(url)
    after = current_revision(url)
    if as_json:
        print_json("ledger.move/1", {"before": before, "after": after})
    else:
        typer.echo(f"Already at {after}." if before == after else f"Moved from {before or 'nothing'} to {after}.")
