"""``safegen audit``: questions to the ledger, and the bundle for those who do not run safegen."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from safegen.cli.home_ledger import none_yet, read_ledger
from safegen.cli.shell import Bars, JsonFlag, command, counted, print_json
from safegen.errors import InputError
from safegen.files import replace_file
from safegen.settings import Home
from safegen.types import Action, Json

if TYPE_CHECKING:
    from safegen.ledger.audit_queries import AuditLedger, Query

app = typer.Typer(help="Ask the ledger, and hand over what it holds.", no_args_is_help=True)

From = Annotated[str, typer.Option("--from", help="Only entries of this time (or beginning of a day) and later.")]
To = Annotated[str, typer.Option("--to", help="Only entries before this time (or beginning of a day).")]
Limit = Annotated[int, typer.Option(min=0, help="At most so many entries; 0 for all.")]
After = Annotated[int, typer.Option(min=-1, help="Only entries that come after this one: the next page.")]
Csv = Annotated[bool, typer.Option("--csv", help="Print CSV with all columns.")]
Parquet = Annotated[Path | None, typer.Option(help="Write a Parquet file with all columns.")]


@dataclass(frozen=True, slots=True)
class _Form:
    """How an answer is given."""

    as_json: bool
    csv: bool
    parquet: Path | None

    def check(self) -> None:
        if self.as_json + self.csv + (self.parquet is not None) > 1:
            raise InputError("--json, --csv and --parquet exclude one another.", remedy="Choose one.")

    def give(self, columns: Sequence[str], rows: Iterable[Mapping[str, Json]], schema: str = "audit.row/1") -> None:
        from safegen.audit.questions import line_of, to_csv, write_parquet

        if self.parquet is not None:
            count = write_parquet(self.parquet, columns, rows)
            typer.echo(f"Wrote {self.parquet}: {counted(count, 'row')}.")
        elif self.csv:
            for line in to_csv(columns, rows):
                typer.echo(line, nl=False)
        else:
            count = 0
            for count, row in enumerate(rows, 1):  # noqa: B007 - counted for what follows
                print_json(schema, _as_json(row)) if self.as_json else typer.echo(line_of(row))
            if not count and not self.as_json:
                typer.echo("0 entries")


@app.command()
def asset(
    what: Annotated[str, typer.Argument(help="A file, or its SHA-256.")],
    begin: From = "", end: To = "", limit: Limit = 100, after: After = -1,
    as_json: JsonFlag = False, csv: Csv = False, parquet: Parquet = None,
) -> None:  # fmt: skip
    """List the entries about a file: when it was generated, recovered or signed again."""
    from safegen.audit.questions import by_asset

    with command(as_json=as_json), _open() as ledger:
        _tell(ledger, [by_asset(what)], (begin, end, limit, after), _Form(as_json, csv, parquet))


@app.command()
def mark(
    content_id: Annotated[str, typer.Argument(help="What the mark of a clip says: 16 hex digits.")],
    begin: From = "", end: To = "", limit: Limit = 100, after: After = -1,
    as_json: JsonFlag = False, csv: Csv = False, parquet: Parquet = None,
) -> None:  # fmt: skip
    """List the entries about the clip that a mark names."""
    from safegen.audit.questions import by_mark

    with command(as_json=as_json), _open() as ledger:
        _tell(ledger, [by_mark(content_id)], (begin, end, limit, after), _Form(as_json, csv, parquet))


@app.command()
def consent(
    who: Annotated[str, typer.Argument(help="A consent record or its id; with --records the person's name.")],
    records: Annotated[Path | None, typer.Option(help="Folder of consent records: the ledger holds no names.")] = None,
    begin: From = "", end: To = "", limit: Limit = 100, after: After = -1,
    as_json: JsonFlag = False, csv: Csv = False, parquet: Parquet = None,
) -> None:  # fmt: skip
    """List the entries that a person's consent stands in, its revocation included."""
    from safegen.audit.questions import by_consent

    with command(as_json=as_json), _open() as ledger:
        _tell(ledger, by_consent(who, records), (begin, end, limit, after), _Form(as_json, csv, parquet))


@app.command()
def subject(
    name: Annotated[str, typer.Argument(help="As `generate --subject` or `--by` named the person.")],
    begin: From = "", end: To = "", limit: Limit = 100, after: After = -1,
    as_json: JsonFlag = False, csv: Csv = False, parquet: Parquet = None,
) -> None:  # fmt: skip
    """List the entries that hold something about a person; `ledger subject` shows what they hold."""
    from safegen.audit.questions import by_subject

    with command(as_json=as_json), _open() as ledger:
        queries = by_subject(name, None if none_yet(Home.default()) else Home.default())
        _tell(ledger, queries, (begin, end, limit, after), _Form(as_json, csv, parquet))


@app.command()
def policy(
    name: Annotated[str, typer.Argument(help="A policy's id, or the SHA-256 of one of its versions.")],
    decision: Annotated[Action | None, typer.Option(help="Only what was decided so.")] = None,
    begin: From = "", end: To = "", limit: Limit = 100, after: After = -1,
    as_json: JsonFlag = False, csv: Csv = False, parquet: Parquet = None,
) -> None:  # fmt: skip
    """List the entries that were judged under a policy."""
    from safegen.audit.questions import by_policy

    with command(as_json=as_json), _open() as ledger:
        _tell(ledger, [by_policy(name, decision or "")], (begin, end, limit, after), _Form(as_json, csv, parquet))


@app.command()
def model(
    name: Annotated[str, typer.Argument(help="A model's id, as entries have it: tiny:safegen-tiny.")],
    begin: From = "", end: To = "", limit: Limit = 100, after: After = -1,
    as_json: JsonFlag = False, csv: Csv = False, parquet: Parquet = None,
) -> None:  # fmt: skip
    """List the entries about a model."""
    from safegen.audit.questions import by_model

    with command(as_json=as_json), _open() as ledger:
        _tell(ledger, [by_model(name)], (begin, end, limit, after), _Form(as_json, csv, parquet))


@app.command()
def time(
    begin: From = "", end: To = "", limit: Limit = 100, after: After = -1,
    as_json: JsonFlag = False, csv: Csv = False, parquet: Parquet = None,
) -> None:  # fmt: skip
    """List the entries of a range of times, in the order of their times."""
    from safegen.ledger.audit_queries import Query

    with command(as_json=as_json), _open() as ledger:
        _tell(ledger, [Query()], (begin, end, limit, after), _Form(as_json, csv, parquet))


@app.command()
def key(
    name: Annotated[str, typer.Argument(help="A certificate (PEM file or SHA-256), a signer's URI, a ledger's vkey.")],
    begin: From = "", end: To = "", limit: Limit = 100, after: After = -1,
    as_json: JsonFlag = False, csv: Csv = False, parquet: Parquet = None,
) -> None:  # fmt: skip
    """List the entries about files signed with a key, or all that lie under the ledger's own."""
    from safegen.audit.questions import by_key

    with command(as_json=as_json), _open() as ledger:
        query = by_key(name, ledger)
        queries = [] if query is None else [query]
        _tell(ledger, queries, (begin, end, limit, after), _Form(as_json, csv, parquet))


@app.command()
def unmarked(
    begin: From = "", end: To = "", limit: Limit = 100, after: After = -1,
    as_json: JsonFlag = False, csv: Csv = False, parquet: Parquet = None,
) -> None:  # fmt: skip
    """List files that left without a mark that was read back, and what was made of them since."""
    from safegen.ledger.audit_queries import Query

    with command(as_json=as_json), _open() as ledger:
        queries = [Query("audit_unmarked"), Query("audit_unmarked_copies")]
        _tell(ledger, queries, (begin, end, limit, after), _Form(as_json, csv, parquet))


@app.command()
def daily(
    begin: From = "", end: To = "",
    as_json: JsonFlag = False, csv: Csv = False, parquet: Parquet = None,
) -> None:  # fmt: skip
    """Count the entries of each day (UTC) by kind, model, policy and decision; without --from, of the last 31 days."""
    with command(as_json=as_json), _open() as ledger:
        from safegen.audit.questions import days, stamp
        from safegen.ledger.audit_queries import DAILY_COLUMNS

        form = _Form(as_json, csv, parquet)
        form.check()
        rows = ledger.daily(*days(stamp(begin, "--from"), stamp(end, "--to"), dt.datetime.now(dt.UTC)))
        if as_json or csv or parquet is not None:
            form.give(DAILY_COLUMNS, rows, "audit.daily/1")
        else:
            for row in rows:
                told = [row["kind"], row["decision"], row["model"], str(row["policy_sha256"])[:12]]
                typer.echo(f"{row['day']}  {row['entries']:>8}  {'  '.join(str(part) for part in told if part)}")
            if not rows:
                typer.echo("0 entries")


@app.command()
def chain(
    what: Annotated[str, typer.Argument(help="An entry's index, a content id, a file (an input too), or its SHA-256.")],
    svg: Annotated[Path | None, typer.Option(help="Draw it into this SVG file.")] = None,
    png: Annotated[Path | None, typer.Option(help="Draw it into this PNG file.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Follow at most so many entries.")] = 1000,
    as_json: JsonFlag = False,
) -> None:
    """Show what a file came from and what came from it: inputs, the clip, what was recovered and signed again."""
    with command(as_json=as_json), _open() as ledger:
        from safegen.audit.picture import picture_of, to_png, to_svg, tree_of
        from safegen.audit.questions import entries_named

        found = ledger.chain(entries_named(what, ledger), limit)
        for path, draw in ((svg, to_svg), (png, to_png)):
            if path is not None:
                _write(path, draw(picture_of(found)))
                if not as_json:
                    typer.echo(f"Wrote {path}", err=True)
        if as_json:
            rows, links = [_as_json(found.rows[n]) for n in sorted(found.rows)], [asdict(one) for one in found.links]
            print_json("audit.chain/1", {"entries": rows, "links": links, "whole": found.whole})
        else:
            from rich.console import Console

            console = Console(soft_wrap=True, highlight=False)
            for tree in tree_of(found):
                console.print(tree)
        if not found.whole:
            typer.echo(f"There is more: {limit} entries were followed (--limit).", err=True)


@app.command()
def export(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make, or .zip file.")],
    begin: From = "",
    end: To = "",
    content_id: Annotated[list[str] | None, typer.Option(help="Only entries about this clip. Can be repeated.")] = None,
    subject: Annotated[
        list[str] | None, typer.Option(help="Only entries that hold something about this person. Can be repeated.")
    ] = None,
    manifests: Annotated[bool, typer.Option("--manifests", help="With the C2PA manifests kept for the clips.")] = False,
    since: Annotated[
        Path | None, typer.Option(help="An earlier checkpoint: prove that what it covers is still there.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the output if it exists.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Write a bundle for an auditor: entries, proofs, keys, and a verifier that needs Python alone."""
    with command(as_json=as_json), _open() as ledger, Bars() as bars:
        from safegen.audit.bundle.export import Selection, read_since
        from safegen.audit.bundle.export import export as write_bundle
        from safegen.audit.questions import by_mark, by_subject, stamp
        from safegen.keys import KeyStore

        home = Home.default()
        clips = tuple(by_mark(one).equal["content_id"] for one in content_id or ())
        about = None if not subject else tuple(query for one in subject for query in by_subject(one, home))
        chosen = Selection(stamp(begin, "--from"), stamp(end, "--to"), clips, manifests, read_since(since), about)
        done = write_bundle(ledger, KeyStore.load(home), home, output, chosen, force=force, progress=bars)
        if as_json:
            told = asdict(done)
            del told["path"]
            print_json("audit.export/1", {"output": str(done.path), **told})
        else:
            typer.echo(
                f"Wrote {done.path}: {done.entries} of {done.size} entries. Its README.txt says how to check it."
            )


def _tell(ledger: AuditLedger, queries: Sequence[Query], page: tuple[str, str, int, int], form: _Form) -> None:
    """Give the answer to some queries, and say on standard error where its next page begins."""
    from safegen.audit.questions import answer, pages, stamp
    from safegen.ledger.audit_queries import Query

    begin, end, limit, after = page
    form.check()
    first, last_before = stamp(begin, "--from"), stamp(end, "--to")
    if first and last_before and first >= last_before:
        raise InputError(f"--from {begin} is not before --to {end}.", remedy="Exchange them: --to itself is left out.")
    asked = [pages(query, first, last_before, after) for query in queries]
    last: list[Json] = []

    def counted() -> Iterator[dict[str, Json]]:
        for row in answer(ledger, asked, limit + 1 if limit else None):
            if limit and len(last) == limit:
                typer.echo(f"There are more: --after {last[-1]}, or --limit 0 for all.", err=True)
                return
            last.append(row["entry"])
            yield row

    form.give((asked[0] if asked else Query()).columns, counted())


@contextmanager
def _open() -> Iterator[AuditLedger]:
    from safegen.ledger.audit_queries import AuditLedger

    with read_ledger(AuditLedger, Home.default()) as ledger:
        yield ledger


def _as_json(row: Mapping[str, Json]) -> dict[str, Json]:
    """Return a row with what was decided as the object that it is everywhere in JSON; a column holds its action."""
    decided = {name: row[name] for name in ("decision", "frames_decision") if name in row}
    return {**row, **{name: {"action": action} if action else None for name, action in decided.items()}}


def _write(path: Path, content: bytes) -> None:
    try:
        replace_file(path.expanduser(), content, private=False)
    except OSError as error:
        raise InputError(f"Cannot write {path}: {error.strerror}", remedy="Choose another place.") from error
