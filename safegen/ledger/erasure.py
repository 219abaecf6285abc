"""Erasing personal fields: the key is destroyed, what the file may still hold of it is overwritten, an entry says so.

Three steps, in this order, each of which may be repeated after a crash:

1. *destroyed*: in one transaction the key's row goes, the fields are emptied, and the erasure is noted;
2. *scrubbed*: the old pages leave SQLite's write-ahead log (PostgreSQL gave the table a new file in step 1);
3. *recorded*: an entry (``erased``, or ``expired`` for fields whose time was over) is appended.

No entry says that something was erased before it was: ``personal_records.note_entry`` refuses one whose erasure is not
scrubbed. An erasure that broke off is taken up by the next one; until then its fields are ``erasing``, and nothing
opens them.

Deleting a row leaves copies of it in a database file: a page that was split keeps its old cells, a deleted tuple stays
till it is vacuumed. So the whole table of keys, which is small, is emptied and written anew each time.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, and_, func, insert, or_, select, update

from safegen.errors import InputError, LedgerBusyError, LedgerError
from safegen.keys import commit_text
from safegen.ledger.database import reading, translate, writing
from safegen.ledger.entry import Event
from safegen.ledger.subject_encryption import (
    AnyRow,
    erasures,
    field_aad,
    field_plaintext,
    guard,
    new_key,
    open_field,
    personal_fields,
    reading_keys,
    reference,
    seal,
    subject_keys,
    subject_of,
    unwrap,
)
from safegen.ledger.subjects import check_subject
from safegen.types import Json

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from safegen.ledger.store import Ledger
    from safegen.ledger.subjects import Personal

GROUNDS: Final = ("request", "consent_withdrawn", "objection", "unlawful", "legal_duty", "no_longer_needed")
"""Why a subject is erased, after GDPR Art. 17 (1). A closed list: free words in an entry could not be erased again."""

_DESTROYED: Final = "destroyed"
_SCRUBBED: Final = "scrubbed"

PATIENCE: Final = 10.0
"""Seconds that readers of old pages are waited for."""


@dataclass(frozen=True, slots=True)
class Erasure:
    """An erasure whose key is destroyed. ``body`` is what its entry says; ``manifests`` are content ids whose kept
    manifests go with it. ``entry`` is None until it is recorded.
    """

    id: str
    kind: str
    body: Mapping[str, Json]
    manifests: tuple[str, ...] = ()
    entry: int | None = None


def begin_erasure(
    personal: Personal, subject: str, *, ground: str, commitment_key: bytes, manifests: Sequence[str] = ()
) -> Erasure | None:
    """Step 1 for all that is held about a subject; None if nothing is.

    The subject's name stands in the entry as a commitment under ``commitment_key`` alone. What is written about the
    subject from now on is under another key. KeyStoreError where the home's wrapping key is not this ledger's.
    """
    if ground not in GROUNDS:
        raise InputError(f"{ground!r} is no ground for an erasure.", remedy=f"One of {', '.join(GROUNDS)}.")
    check_subject(subject)
    engine = _engine(personal)
    with writing(engine) as connection:
        _lock(connection)
        wrapping_key = personal.wrapping_key(connection, create=False)
        if wrapping_key is None:
            return None
        ref = reference(wrapping_key, subject)
        key_id = connection.execute(select(subject_keys.c.key_id).where(subject_keys.c.ref == ref)).scalar()
        if key_id is None:
            return None
        mine = personal_fields.c.key_id == key_id
        count = connection.execute(select(func.count()).select_from(personal_fields).where(mine)).scalar_one()
        body: dict[str, Json] = {
            "ground": ground, "subject": dict(commit_text(subject, commitment_key)), "fields": int(count),
        }  # fmt: skip
        erasure = _note(connection, "erased", ref, body, manifests)
        connection.execute(update(personal_fields).where(mine).values(key_id=None, sealed=None, erasure=erasure.id))
        _rewrite(connection, gone={str(key_id)}, fresh=())
    return erasure


def begin_expiry(personal: Personal, cutoffs: Mapping[str, str], *, manifests: Sequence[str] = ()) -> Erasure | None:
    """Step 1 for the fields written before their cut-off (field -> time); None if nothing is due.

    What else is held about the same subjects is encrypted anew under fresh keys, for the old ones are destroyed.
    LedgerDamagedError if some of that was altered: then nothing is done.
    """
    with writing(_engine(personal)) as connection:
        _lock(connection)
        wrapping_key = personal.wrapping_key(connection, create=False)
        due = _due(connection, cutoffs) if wrapping_key is not None else []
        if not due and not manifests:
            return None
        counts: dict[str, Json] = {}
        for row in due:
            counts[row.field] = int(str(counts.get(row.field, 0))) + 1
        erasure = _note(connection, "expired", "", {"fields": counts}, manifests)
        over = {(row.record, row.field) for row in due}
        fresh = []
        for key_id in sorted({str(row.key_id) for row in due}):
            assert wrapping_key is not None  # noqa: S101 - nothing is due without one
            fresh += _renew(connection, wrapping_key, key_id, over)
        gone_fields = update(personal_fields).values(key_id=None, sealed=None, erasure=erasure.id)
        for record, field in over:
            connection.execute(gone_fields.where(personal_fields.c.record == record, personal_fields.c.field == field))
        _rewrite(connection, gone={str(row.key_id) for row in due}, fresh=fresh)
    return erasure


def due_fields(personal: Personal, cutoffs: Mapping[str, str]) -> dict[str, int]:
    """How many fields are due, by name."""
    with reading_keys(_engine(personal)) as connection:
        found: dict[str, int] = {}
        for row in _due(connection, cutoffs):
            found[row.field] = found.get(row.field, 0) + 1
    return found


def unfinished(ledger: Ledger) -> list[Erasure]:
    """The erasures that broke off after step 1: ``finish`` ends each."""
    with reading(ledger._engine) as connection:
        rows = connection.execute(select(erasures).where(erasures.c.state.in_((_DESTROYED, _SCRUBBED)))).all()
    return [_erasure(row) for row in rows]


def earlier(personal: Personal, subject: str) -> list[int]:
    """The entries that say that this subject was erased, oldest first."""
    with reading_keys(_engine(personal)) as connection:
        wrapping_key = personal.wrapping_key(connection, create=False)
        if wrapping_key is None:
            return []
        ref = reference(wrapping_key, subject)
        query = select(erasures.c.entry).where(erasures.c.ref == ref, erasures.c.entry.is_not(None))
        return sorted(int(str(entry)) for entry in connection.execute(query).scalars())


def scrub(ledger: Ledger, erasure: Erasure) -> None:
    """Step 2. LedgerBusyError where a reader keeps SQLite's old pages alive: then do it again."""
    engine = ledger._engine
    if engine.dialect.name == "sqlite":
        _empty_log(engine)
    with writing(engine) as connection:
        mine = and_(erasures.c.id == erasure.id, erasures.c.state == _DESTROYED)
        connection.execute(update(erasures).where(mine).values(state=_SCRUBBED))


def finish(ledger: Ledger, erasure: Erasure) -> int:
    """Step 3: append the entry and return its index; the one that is there if another process was quicker."""
    try:
        return ledger.append(Event(erasure.kind, body=erasure.body)).index
    except LedgerError:
        with reading(ledger._engine) as connection:
            entry = connection.execute(select(erasures.c.entry).where(erasures.c.id == erasure.id)).scalar()
        if entry is None:
            raise
        return int(entry)


# -- the tables --------------------------------------------------------------------------------------------------------


def _engine(personal: Personal) -> Engine:
    return personal.ledger._engine


def _lock(connection: Connection) -> None:
    """Let nobody else write or read keys until the transaction ends; on SQLite no other writer is there anyway."""
    guard(connection)
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("LOCK TABLE subject_keys IN ACCESS EXCLUSIVE MODE")


def _note(connection: Connection, kind: str, ref: str, body: Mapping[str, Json], manifests: Sequence[str]) -> Erasure:
    name = secrets.token_hex(16)
    said: dict[str, Json] = {"erasure": name, **body} | ({"manifests": len(manifests)} if manifests else {})
    row = {
        "id": name, "kind": kind, "ref": ref, "state": _DESTROYED, "entry": None,
        "body": json.dumps({"body": said, "manifests": list(manifests)}),
    }  # fmt: skip
    connection.execute(insert(erasures), row)
    return Erasure(name, kind, said, tuple(manifests))


def _erasure(row: AnyRow) -> Erasure:
    said = json.loads(str(row.body))
    return Erasure(str(row.id), str(row.kind), said["body"], tuple(said["manifests"]), row.entry)


def _rewrite(connection: Connection, *, gone: set[str], fresh: Iterable[Mapping[str, str]]) -> None:
    """Write the table of keys anew, without those that are gone and with fresh ones.

    SQLite clears the pages of a table that is emptied as a whole (secure_delete); PostgreSQL drops a truncated file.
    """
    kept = [dict(row._mapping) for row in connection.execute(select(subject_keys)) if row.key_id not in gone]
    empty = "TRUNCATE subject_keys" if connection.dialect.name == "postgresql" else "DELETE FROM subject_keys"
    connection.exec_driver_sql(empty)
    rows: list[Any] = [*kept, *fresh]
    if rows:
        connection.execute(insert(subject_keys), rows)


def _renew(
    connection: Connection, wrapping_key: bytes, key_id: str, over: set[tuple[str, str]]
) -> list[dict[str, str]]:
    """Encrypt what stays under a key anew, and return the new key's row; none where nothing stays."""
    query = select(personal_fields).where(personal_fields.c.key_id == key_id)
    stays = [row for row in connection.execute(query) if (row.record, row.field) not in over]
    if not stays:
        return []
    old = connection.execute(select(subject_keys).where(subject_keys.c.key_id == key_id)).one_or_none()
    if old is None:
        raise LedgerError(f"the key {key_id} of a data subject is missing")
    key = unwrap(wrapping_key, old)
    made, renewed = new_key(wrapping_key, subject_of(key, old))
    for row in stays:
        value, opening = open_field(key, row)
        plain = field_plaintext(value, bytes.fromhex(opening))
        sealed = seal(renewed, plain, field_aad(row.record, row.field))
        place = and_(personal_fields.c.record == row.record, personal_fields.c.field == row.field)
        connection.execute(update(personal_fields).where(place).values(key_id=made["key_id"], sealed=sealed))
    return [made]


def _due(connection: Connection, cutoffs: Mapping[str, str]) -> Sequence[Any]:
    table = personal_fields.c
    old = [and_(table.field == field, table.created < cutoff) for field, cutoff in cutoffs.items()]
    if not old:
        return []
    query = select(table.record, table.field, table.key_id).where(or_(*old), table.sealed.is_not(None))
    return connection.execute(query).all()


def _empty_log(engine: Engine) -> None:
    """Move SQLite's write-ahead log into the file and cut it to nothing: what it held of the old pages is gone."""
    until = time.monotonic() + PATIENCE
    while True:
        raw = engine.raw_connection()  # in no transaction: a checkpoint cannot run in one
        try:
            busy = raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        except sqlite3.Error as error:
            raise translate(error) from error
        finally:
            raw.close()
        if not busy:
            return
        if time.monotonic() > until:
            raise LedgerBusyError(
                "a reader holds on to the ledger's old pages: the key is destroyed, the erasure is not yet recorded",
                remedy="Erase again when it has ended; that takes up where this one broke off.",
            )
        time.sleep(0.1)
