"""Where a soft binding, or an id, leads among the manifests that are kept for others; each answer held to its entry."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select

from safegen.ledger.database import reading
from safegen.ledger.foreign_manifests import BOUND, MAX_ID, STORED, binding_key
from safegen.ledger.models import stored_bindings, stored_manifests
from safegen.ledger.proof import damaged
from safegen.ledger.store import Ledger


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest store that was taken in: its id (a URN), the entry that says so, and its SHA-256 (hex).

    ``owner`` and ``file`` are as the entry has them, "" in entries from before they were noted.
    """

    manifest_id: str
    entry: int
    sha256: str
    owner: str = ""
    file: str = ""


def find(ledger: Ledger, manifest_id: str) -> StoredManifest | None:
    """The stored manifest of this id; LedgerDamagedError if the index says what its entry does not."""
    if "\0" in manifest_id or len(manifest_id) > MAX_ID:
        return None
    query = select(stored_manifests).where(stored_manifests.c.manifest_id == manifest_id)
    with reading(ledger._engine) as connection:
        row = connection.execute(query).first()
    if row is None:
        return None
    event = ledger.get(row.entry).event
    if (event.kind, event.body.get("manifest_id"), event.manifest_sha256) != (STORED, manifest_id, row.sha256):
        raise damaged(f"the stored manifest of entry {row.entry} is not what the entry says")
    owner, file = (str(event.body.get(name) or "") for name in ("owner", "file"))
    return StoredManifest(manifest_id, row.entry, row.sha256, owner, file)


def find_bound(ledger: Ledger, alg: str, value: bytes, limit: int | None) -> list[str]:
    """The ids of the manifests that a binding leads to, first bound first; raises as ``find``."""
    table = stored_bindings
    query = (
        select(table)
        .where(table.c.alg == alg, table.c.value == binding_key(value))
        .order_by(table.c.entry)
        .limit(limit)
    )
    with reading(ledger._engine) as connection:
        rows = connection.execute(query).all()
    for row in rows:
        event = ledger.get(row.entry).event
        body = event.body
        said = (event.kind, body.get("alg"), body.get("value"), body.get("manifest_id"))
        if said != (BOUND, alg, value.hex(), row.manifest_id):
            raise damaged(f"the stored binding of entry {row.entry} is not what the entry says")
    return [row.manifest_id for row in rows]
