"""Manifests of others that a resolution service keeps for them, and the bindings that lead there: indexes over entries.

Three kinds of entries record them, and none is ever taken for something that this home made: ``stored`` (a manifest
was taken in), ``bound`` (a soft binding leads to it) and ``unstored`` (it was given up). The tables follow from them.

Whose a manifest is, is said twice: by name in a personal field, which can be erased, and by a keyed hash in the entry
(``owner``), which tells holders apart and names nobody. Entries from before there were owners have the first alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, delete, insert, select

from safegen.ledger.append_results import RefusedError
from safegen.ledger.entry import Event
from safegen.ledger.models import stored_bindings, stored_manifests
from safegen.types import Json

STORED: Final = "stored"
BOUND: Final = "bound"
UNSTORED: Final = "unstored"
KINDS: Final = frozenset({STORED, BOUND, UNSTORED})
MAX_ID: Final = 255
MAX_ALG: Final = 128


def stored_event(manifest_id: str, sha256: str, size: int, *, owner: str, file: str) -> Event:
    """The entry of a manifest that was stored, as ``file`` of the home's folder.

    For whom is a personal field (``safegen.ledger.subjects``), here too; ``owner`` is its keyed hash.
    """
    body: dict[str, Json] = {"manifest_id": manifest_id, "bytes": size, "owner": owner, "file": file}
    return Event(STORED, body=body, manifest_sha256=sha256)


def bound_event(alg: str, value: bytes, manifest_id: str, *, replaces: Sequence[str] = ()) -> Event:
    """The entry of a soft binding; from now on it leads there, and no more to the manifests that it ``replaces``."""
    body: dict[str, Json] = {
        "alg": alg,
        "value": value.hex(),
        "manifest_id": manifest_id,
        "replaces": list(replaces),
    }
    return Event(BOUND, body=body)


def unstored_event(manifest_id: str) -> Event:
    """The entry of a manifest that was given up."""
    return Event(UNSTORED, body={"manifest_id": manifest_id})


def record(connection: Connection, index: int, event: Event) -> None:
    """Bring the tables up to an entry of one of KINDS. RefusedError if it contradicts them."""
    manifest_id = str(event.body.get("manifest_id"))
    held = connection.execute(select(stored_manifests).where(stored_manifests.c.manifest_id == manifest_id)).first()
    if event.kind == STORED:
        if held is not None:
            raise RefusedError(f"manifest {manifest_id} is stored already")
        row = {"manifest_id": manifest_id, "entry": index, "sha256": event.manifest_sha256}
        connection.execute(insert(stored_manifests), row)
        return
    if held is None:
        raise RefusedError(f"manifest {manifest_id} is not stored")
    if event.kind == UNSTORED:
        connection.execute(delete(stored_bindings).where(stored_bindings.c.manifest_id == manifest_id))
        connection.execute(delete(stored_manifests).where(stored_manifests.c.manifest_id == manifest_id))
        return
    alg, value = str(event.body.get("alg")), binding_key(bytes.fromhex(str(event.body.get("value"))))
    same = (stored_bindings.c.alg == alg) & (stored_bindings.c.value == value)
    if not event.body.get("replace"):  # entries from before there were owners replace all that is bound
        replaced: Any = event.body.get("replaces") or ()
        same &= stored_bindings.c.manifest_id.in_([manifest_id, *map(str, replaced)])
    connection.execute(delete(stored_bindings).where(same))
    row = {"alg": alg, "value": value, "manifest_id": manifest_id, "entry": index}
    connection.execute(insert(stored_bindings), row)


def binding_key(value: bytes) -> str:
    """What stands for a value of any length in the index."""
    return hashlib.sha256(value).hexdigest()
