"""``safegen trust``."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from safegen.cli.shell import JsonFlag, command, print_json
from safegen.errors import InputError
from safegen.settings import Home

if TYPE_CHECKING:
    from safegen.provenance.trust import TrustList

app = typer.Typer(help="Trust lists: whose signatures and time-stamps count in verification.", no_args_is_help=True)


@app.command()
def update(
    name: Annotated[str, typer.Argument(help="c2pa, c2pa-tsa, or all.")] = "all",
    url: Annotated[str, typer.Option(help="Fetch this one list from another https:// address.")] = "",
    file: Annotated[
        Path | None, typer.Option(help="Take this one list from a file that was fetched elsewhere.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Fetch the official C2PA lists. The only command that uses the network for verification's sake."""
    with command(as_json=as_json):
        from safegen.provenance import trust

        if (url or file) and name == "all":
            raise InputError("--url and --file go with one list", remedy="Name it: safegen trust update c2pa ...")
        names = tuple(trust.OFFICIAL) if name == "all" else (name,)
        now = dt.datetime.now(dt.UTC)
        _print([trust.update(Home.default(), each, url=url, file=file, now=now) for each in names], as_json=as_json)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="One list, with its anchors; all in short if not given.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Show the lists in force, with their dates."""
    with command(as_json=as_json):
        from safegen.provenance import trust

        lists = [entry for entry in trust.trust_lists(Home.default()) if name in ("", entry.name)]
        if not lists:
            raise InputError(f"there is no trust list {name!r}", remedy="`safegen trust show` names all.")
        _print(lists, as_json=as_json, anchors=bool(name))


@app.command()
def add(
    file: Annotated[Path, typer.Argument(help="Roots or issuing CAs as PEM.")],
    name: Annotated[str, typer.Option(help="What to call the list; the file's name if not given.")] = "",
    kind: Annotated[str, typer.Option(help="signer: who signs claims; tsa: whose time-stamps count.")] = "signer",
    force: Annotated[bool, typer.Option("--force", help="Replace a list of that name and kind.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Add a trust list of your own. Official lists are replaced by `trust update` alone."""
    with command(as_json=as_json):
        from safegen.provenance import trust

        try:
            content = file.read_bytes()
        except OSError as error:
            raise InputError(f"cannot read {file}: {error}", remedy="Give a file with certificates.") from error
        now = dt.datetime.now(dt.UTC)
        made = trust.add_list(
            Home.default(), name or file.stem.lower(), kind, content, source=str(file.absolute()), now=now,
            force=force,
        )  # fmt: skip
        _print([made], as_json=as_json)


def _print(lists: list[TrustList], *, as_json: bool, anchors: bool = False) -> None:
    described = [entry.describe() for entry in lists]
    if as_json:
        print_json("trust/1", {"lists": described})
        return
    for entry, said in zip(lists, described, strict=True):
        found = said["anchors"]
        count = len(found) if isinstance(found, list) else 0
        origin = "shipped with safegen" if entry.shipped else entry.source
        typer.echo(f"{entry.name}: {count} anchors ({entry.kind}), {entry.date[:10]}, {origin}")
        for anchor in found if anchors and isinstance(found, list) else []:
            typer.echo(f"  {anchor['subject']}" if isinstance(anchor, dict) else "")
