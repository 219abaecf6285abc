"""What an entry says of its personal fields, and at which entry a record of them stands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import Connection

from safegen.errors import LedgerError
from safegen.ledger.entry import Entry, Event
from safegen.ledger.subject_encryption import erasures, personal_fields

PERSONAL: Final = "personal"
"""The member of an entry's body that commits to its personal fields."""


def committed_fields(entry: Entry) -> Mapping[str, str]:
    """Return the commitments of an entry to its personal fields, by the fields' names."""
    personal = entry.body.get(PERSONAL)
    fields = personal.get("fields") if isinstance(personal, Mapping) else None
    return {name: str(value) for name, value in fields.items()} if isinstance(fields, Mapping) else {}


def record_of(entry: Entry) -> str:
    """Return the name of the record that an entry commits to; empty if it does not."""
    personal = entry.body.get(PERSONAL)
    return str(personal.get("record")) if isinstance(personal, Mapping) else ""


def note_entry(connection: Connection, index: int, event: Event) -> None:
    """Note, in the transaction of an append, at which entry a record stands, or that an erasure is recorded.

    LedgerError for an event that says something was erased which was not: only ``safegen.ledger.erasure`` gets there.
    """
    personal = event.body.get(PERSONAL)
    if personal is not None and isinstance(personal, Mapping):
        table = personal_fields
        mine = (table.c.record == str(personal.get("record"))) & table.c.entry.is_(None)
        connection.execute(table.update().where(mine).values(entry=index))
    if event.kind in ("erased", "expired"):
        done = erasures.c.id == str(event.body.get("erasure"))
        done &= (erasures.c.state == "scrubbed") & (erasures.c.kind == str(event.kind))
        if connection.execute(erasures.update().where(done).values(state="recorded", entry=index)).rowcount != 1:
            raise LedgerError(f"nothing was {event.kind} that this entry could record")
