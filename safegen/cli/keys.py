"""``safegen keys``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from safegen.cli.shell import JsonFlag, command, print_json
from safegen.settings import Home

if TYPE_CHECKING:
    from safegen.keys import KeyStore

app = typer.Typer(help="Make and show the keys of this safegen home.", no_args_is_help=True)


@app.command()
def init(
    organisation: Annotated[str, typer.Option(help="Organisation named in the certificates.")] = "safegen development",
    force: Annotated[bool, typer.Option("--force", help="Make new keys; the old ones are kept aside.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Make a development CA and signing certificate, and the watermark, ledger and commitment keys."""
    with command(as_json=as_json):
        from safegen.keys import KeyStore

        _print(KeyStore.init(Home.default(), organisation=organisation, force=force), as_json=as_json)


@app.command()
def renew(as_json: JsonFlag = False) -> None:
    """Issue a new signing certificate when the old one expires; ledger, watermark and commitment keys stay."""
    with command(as_json=as_json):
        from safegen.keys import KeyStore

        _print(KeyStore.renew(Home.default()), as_json=as_json)


@app.command()
def show(as_json: JsonFlag = False) -> None:
    """Show certificates, key ids and the ledger's public key as auditors and witnesses want it (never key material)."""
    with command(as_json=as_json):
        from safegen.keys import KeyStore

        _print(KeyStore.load(Home.default(), purpose="verify"), as_json=as_json)


def _print(keys: KeyStore, *, as_json: bool) -> None:
    from safegen.ledger import VerifierKey

    description = keys.describe() | {"vkey": str(VerifierKey.of(keys.ledger_name, keys.ledger_public_key))}
    if as_json:
        print_json("keys/1", description)
        return
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False)
    for name, value in description.items():
        for part, text in value.items() if isinstance(value, dict) else (("", value),):
            label = f"{name} {part}".strip().replace("_", " ")
            console.print(f"  [dim]{label:<24}[/] ", end="")
            console.print(str(text), markup=False)
