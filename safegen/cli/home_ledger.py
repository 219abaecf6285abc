"""The ledger of a home as commands read it: an empty one where nothing was recorded so far."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import typer

if TYPE_CHECKING:
    from safegen.ledger import Ledger
    from safegen.settings import Home

_L = TypeVar("_L", bound="Ledger")


def none_yet(home: Home) -> bool:
    """Whether this home has recorded nothing so far: no ledger where it belongs, and no manifest kept for an entry.

    A ledger that was moved or deleted leaves manifests behind, and one at a URL of its own is not for us to make: there
    a missing ledger stays an error.
    """
    if home.ledger_url_override or (home.root / "ledger.db").exists():
        return False
    return not any(home.manifests.glob("*.c2pa"))


def read_ledger(kind: type[_L], home: Home) -> _L:
    """Open the home's ledger for reading. Where there is none yet, say so on standard error, and read an empty one."""
    if none_yet(home):
        typer.echo(f"No ledger yet: the first generate makes {home.root / 'ledger.db'}.", err=True)
        return kind.open("sqlite://")
    return kind.open(home.ledger_url, create=False, read_only=True)
