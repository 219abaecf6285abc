"""Manifests of others that a resolution service keeps for them, and the bindings that lead there: indexes over entries.

Three kinds of entries record them, and none is ever taken for something that this home made: ``stored`` (a manifest
was taken in), ``bound`` (a soft binding leads to it) and ``unstored`` (it was given up). The tables follow from them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, delete, insert, select

from safegen.errors import LedgerError
from safegen.ledger.database import reading
from safegen.ledger.entry import Event
from safegen.ledger.models import stored_bindings, stored_manifests
from safegen.ledger.proof import damaged
from safegen.types import Json

if TYPE_CHECKING:
    from safegen.ledger.store import Ledger

STORED: Final = "stored"
BOUND: Final = "bound"
UNSTORED: Final = "unstored"
KINDS: Final = frozenset({STORED, BOUND, UNSTORED})
MAX_ID: Final = 255
MAX_ALG: Final = 128


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest store that was taken in: its id (a URN), the entry that says so, and its SHA-256 (hex)."""

    manifest_id: str
    entry: int
    sha256: str


def stored_event(manifest_id: str, sha256: str, size: int) -> Event:
    """The entry of a manifest that was stored. For whom is a personal field (``safegen.ledger.subjects``), here too."""
    return Event(STORED, body={"manifest_id": manifest_id, "bytes": size}, manifest_sha256=sha256)


def bound_event(alg: str, value: bytes, manifest_id: str, *, replace: bool) -> Event:
    """The entry of a soft binding; ``replace``: from now on it leads there and nowhere else."""
    body: dict[str, Json] = {
        "alg": alg,
        "value": value.hex(),
        "manifest_id": manifest_id,
        "replace": replace,
    }
    return Event(BOUND, body=body)


def unstored_event(manifest_id: str) -> Event:
    """The entry of a manifest that was given up."""
    return Event(UNSTORED, body={"manifest_id": manifest_id})


def record(connection: Connection, index: int, event: Event) -> None:
    """Bring the tables up to an entry of one of KINDS. LedgerError if it contradicts them."""
    manifest_id = str(event.body.get("manifest_id"))
    held = connection.execute(select(stored_manifests).where(stored_manifests.c.manifest_id == manifest_id)).first()
    if event.kind == STORED:
        if held is not None:
            raise LedgerError(f"manifest {manifest_id} is stored already")
        row = {"manifest_id": manifest_id, "entry": index, "sha256": event.manifest_sha256}
        connection.execute(insert(stored_manifests), row)
        return
    if held is None:
        raise LedgerError(f"manifest {manifest_id} is not stored")
    if event.kind == UNSTORED:
        connection.execute(delete(stored_bindings).where(stored_bindings.c.manifest_id == manifest_id))
        connection.execute(delete(stored_manifests).where(stored_manifests.c.manifest_id == manifest_id))
        return
    alg, value = str(event.body.get("alg")), _short(bytes.fromhex(str(event.body.get("value"))))
    same = (stored_bindings.c.alg == alg) & (stored_bindings.c.value == value)
    if not event.body.get("replace"):
        same &= stored_bindings.c.manifest_id == manifest_id
    connection.execute(delete(stored_bindings).where(same))
    row = {"alg": alg, "value": value, "manifest_id": manifest_id, "entry": index}
    connection.execute(insert(stored_bindings), row)


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
    return StoredManifest(manifest_id, row.entry, row.sha256)


def find_bound(ledger: Ledger, alg: str, value: bytes, limit: int) -> list[str]:
    """The ids of the manifests that a binding leads to, first bound first; raises as ``find``."""
    table = stored_bindings
    query = select(table).where(table.c.alg == alg, table.c.value == _short(value)).order_by(table.c.entry).limit(limit)
    with reading(ledger._engine) as connection:
        rows = connection.execute(query).all()
    for row in rows:
        body, kind = ledger.get(row.entry).event.body, ledger.get(row.entry).event.kind
        said = (kind, body.get("alg"), body.get("value"), body.get("manifest_id"))
        if said != (BOUND, alg, value.hex(), row.manifest_id):
            raise damaged(f"the stored binding of entry {row.entry} is not what the entry says")
    return [row.manifest_id for row in rows]


def _short(value: bytes) -> str:
    """What stands for a value of any length in the index."""
    return hashlib.sha256(value).hexdigest()
