"""``safegen review``."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from safegen.cli.consent import ByOption, person
from safegen.cli.home_ledger import read_ledger
from safegen.cli.shell import JsonFlag, command, print_json
from safegen.errors import InputError
from safegen.settings import Home

if TYPE_CHECKING:
    from safegen.review.queue import Answer, Reviews

app = typer.Typer(help="The queue of runs that wait for a person: look, approve, deny.", no_args_is_help=True)

IdArgument = Annotated[int, typer.Argument(min=0, help="The ledger entry of the run that stopped.")]


@contextmanager
def _queue(*, write: bool) -> Iterator[Reviews]:
    from safegen.keys import KeyStore
    from safegen.ledger import Ledger
    from safegen.ledger.subjects import Personal
    from safegen.review.queue import Reviews

    home = Home.default()
    keys = KeyStore.load(home, purpose="sign" if write else "verify")
    if write:
        opened = Ledger.open(home.ledger_url, key=keys.ledger_key, origin=keys.ledger_name)
    else:
        opened = read_ledger(Ledger, home)
    with opened as ledger:
        yield Reviews(ledger, public_key=keys.ledger_public_key, personal=Personal(ledger, home))


@app.command("list")
def list_(
    every: Annotated[bool, typer.Option("--all", help="Also what was decided already.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """List runs that wait for a person, oldest first; with --json one object per line."""
    with command(as_json=as_json):
        now = dt.datetime.now(dt.UTC)
        with _queue(write=False) as reviews:
            for case in reviews.cases():
                state = case.state(now)
                if not every and state != "waiting":
                    continue
                said = case.to_json(now)
                if as_json:
                    print_json("review.case/1", said)
                else:
                    why = ", ".join(case.categories)
                    typer.echo(f"{case.entry.index:>6}  {case.entry.time:<20}  {state:<8}  {case.stage:<7}  {why}")


@app.command()
def show(index: IdArgument, as_json: JsonFlag = False) -> None:
    """Show one run: why it stopped, what was said about it; the texts only where the policy records them in clear."""
    with command(as_json=as_json):
        with _queue(write=False) as reviews:
            said = reviews.case(index).to_json(dt.datetime.now(dt.UTC))
        print_json("review.case/1", said, indent=None if as_json else 2)


@app.command()
def approve(
    index: IdArgument,
    reason: Annotated[str, typer.Option(help="Why it may go on.")],
    by: ByOption = "",
    days: Annotated[float, typer.Option(help="How long the approval counts.")] = 7.0,
    uses: Annotated[int, typer.Option(help="How many clips may be made under it.")] = 1,
    as_json: JsonFlag = False,
) -> None:
    """Let the same request pass review when it is made again. It lifts no block."""
    with command(as_json=as_json):
        if not reason.strip():
            raise InputError("An approval says why.", remedy="Give --reason.")
        with _queue(write=True) as reviews:
            receipt = reviews.approve(index, by=person(by), reason=reason, days=days, uses=uses)
        _said(index, "approve", receipt.index, as_json=as_json)


@app.command()
def deny(
    index: IdArgument,
    reason: Annotated[str, typer.Option(help="Why not.")] = "",
    by: ByOption = "",
    as_json: JsonFlag = False,
) -> None:
    """Refuse the request for good, under this policy; takes back an approval."""
    with command(as_json=as_json):
        with _queue(write=True) as reviews:
            receipt = reviews.deny(index, by=person(by), reason=reason)
        _said(index, "deny", receipt.index, as_json=as_json)


def _said(index: int, answer: Answer, entry: int, *, as_json: bool) -> None:
    if as_json:
        print_json("review.answer/1", {"entry": entry, "answer": answer, "of": index})
    else:
        typer.echo(f"Entry {index} {'approved' if answer == 'approve' else 'denied'} (ledger entry {entry})")
