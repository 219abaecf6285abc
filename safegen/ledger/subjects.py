"""Personal fields of entries: beside the ledger, encrypted under a key per data subject; leaves hold commitments alone.

A leaf that has some says ``personal``: the name of a random *record* and, per field, HMAC-SHA-256 of the value (JSON,
ASCII, keys sorted) under an *opening* of 32 random bytes. Value and opening lie in ``personal_fields`` under
AES-256-GCM, with record and field as associated data. The subject's key lies in ``subject_keys``, wrapped by a key of
the home (``safegen.keys.wrapping``). Whoever is shown value and opening can check them against the leaf; without the
subject's key there is nothing left to check a guess with.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, func, insert, select
from sqlalchemy import text as sql

from safegen.errors import InputError, KeyStoreError, LedgerBusyError, LedgerDamagedError, LedgerError
from safegen.keys import wrapping
from safegen.ledger.append_results import Receipt, RefusedError
from safegen.ledger.database import reading, writing
from safegen.ledger.entry import Entry, Event
from safegen.ledger.personal_records import PERSONAL, committed_fields, record_of
from safegen.ledger.subject_encryption import (
    commit_value,
    erasures,
    field_aad,
    field_plaintext,
    guard,
    hold_keys,
    new_key,
    now,
    open_field,
    personal_fields,
    read_key,
    reading_keys,
    reference,
    seal,
    subject_keys,
    unwrap,
)
from safegen.types import Json

if TYPE_CHECKING:
    from safegen.ledger.store import Ledger
    from safegen.settings import Home

ALG: Final = "hmac-sha256"
MAX_SUBJECT: Final = 200
_INSERT_KEY: Final = sql(
    "INSERT INTO subject_keys (key_id, ref, wrapping, wrapped, subject, created)"
    " VALUES (:key_id, :ref, :wrapping, :wrapped, :subject, :created) ON CONFLICT (ref) DO NOTHING"
)
_WRAPPINGS: Final = select(func.min(subject_keys.c.wrapping), func.max(subject_keys.c.wrapping))


class State(StrEnum):
    """How a personal field stands."""

    HELD = "held"
    ERASED = "erased"  # an entry says so: its subject was erased, or its time was over
    ERASING = "erasing"  # its key is destroyed; the erasure was interrupted before it was recorded
    MISSING = "missing"  # neither held nor erased: its row was lost or removed behind our back


@dataclass(frozen=True, slots=True)
class PersonalField:
    """A personal field, opened. ``entry`` is None where its entry never came to be; ``problem`` says what is wrong."""

    record: str
    field: str
    entry: int | None
    created: str
    value: Json = None
    opening: str = ""
    problem: str = ""

    def to_json(self) -> dict[str, Json]:
        """Return the field as plain JSON values."""
        said: dict[str, Json] = {
            "entry": self.entry, "field": self.field, "value": self.value, "since": self.created, "record": self.record,
            "opening": self.opening,
        }  # fmt: skip
        return said | ({"problem": self.problem} if self.problem else {})


class Personal:
    """The personal fields of one ledger, under the wrapping key of one home."""

    def __init__(self, ledger: Ledger, home: Home) -> None:
        self._ledger = ledger
        self._home = home

    @property
    def ledger(self) -> Ledger:
        """The ledger whose fields these are."""
        return self._ledger

    # -- writing -----------------------------------------------------------------------------------------------------

    def ready(self) -> None:
        """Make sure that fields can be written: KeyStoreError where the wrapping key is not this ledger's."""
        with reading_keys(self._ledger._engine) as connection:
            self.wrapping_key(connection, create=True)

    def append(self, event: Event, subject: str, fields: Mapping[str, Json]) -> Receipt:
        """Append an event whose body commits to personal fields of ``subject``, and keep these encrypted.

        The fields are written first: an entry never names a record that was not there. Where the event was refused they
        are taken back; where nobody knows (a lost connection) they stay, without an entry. Raises as ``Ledger.append``;
        InputError for a subject without a name; KeyStoreError where the wrapping key is missing, or another one than
        this ledger's.
        """
        if not fields:
            return self._ledger.append(event)
        personal = self._deposit(check_subject(subject), fields)
        try:
            return self._ledger.append(replace(event, body={**event.body, PERSONAL: personal}))
        except (RefusedError, LedgerBusyError):
            with writing(self._ledger._engine) as connection:
                guard(connection)
                table = personal_fields.c
                connection.execute(
                    personal_fields.delete().where(table.record == personal["record"], table.entry.is_(None))
                )
            raise

    def _deposit(self, subject: str, fields: Mapping[str, Json]) -> dict[str, Json]:
        record, created, commitments = secrets.token_hex(16), now(), dict[str, Json]()
        with writing(self._ledger._engine) as connection:
            guard(connection)
            hold_keys(connection)
            if connection.dialect.name == "postgresql" and connection.execute(_WRAPPINGS).one()[0] is None:
                # Two homes that write the first fields at once must not take two wrapping keys.
                connection.exec_driver_sql("LOCK TABLE subject_keys IN SHARE ROW EXCLUSIVE MODE")
            wrapping_key = self.wrapping_key(connection, create=True)
            key_id, key = _key_to_write(connection, wrapping_key, subject)
            for name, value in fields.items():
                opening = secrets.token_bytes(32)
                sealed = seal(key, field_plaintext(value, opening), field_aad(record, name))
                row = {"record": record, "field": name, "key_id": key_id, "sealed": sealed, "created": created}
                connection.execute(insert(personal_fields), row)
                commitments[name] = commit_value(value, opening)
        return {"alg": ALG, "record": record, "fields": commitments}

    # -- reading -----------------------------------------------------------------------------------------------------

    def opened(self, entry: Entry) -> dict[str, Json]:
        """Return the personal fields of an entry that are held, by name; the others are not among them.

        KeyStoreError where the wrapping key is missing or another one; LedgerDamagedError for a field that was altered.
        """
        committed = committed_fields(entry)
        if not committed:
            return {}
        with reading_keys(self._ledger._engine) as connection:
            held = list(self._open(connection, personal_fields.c.record == record_of(entry)))
        for one in held:
            if one.problem:
                raise LedgerDamagedError(f"entry {entry.index}: {one.problem}")
            _check(one, committed)
        return {one.field: one.value for one in held}

    def text(self, entry: Entry, name: str) -> str:
        """Return a field as a text for people: what an entry of an older kind says in clear, else what is held, else
        how it stands, in brackets.
        """
        if name in entry.body:
            return str(entry.body[name])
        opened = self.opened(entry)
        if name in opened:
            return str(opened[name])
        state = states(self._ledger, entry).get(name)
        return f"({state[0]})" if state else ""

    def held(self, subject: str) -> list[PersonalField]:
        """Return everything that is held about a subject, oldest first, each field checked against its entry."""
        check_subject(subject)
        with reading_keys(self._ledger._engine) as connection:
            key = self.wrapping_key(connection, create=False)
            if key is None:
                return []
            query = select(subject_keys.c.key_id).where(subject_keys.c.ref == reference(key, subject))
            key_id = connection.execute(query).scalar()
            if key_id is None:
                return []
            found = list(self._open(connection, personal_fields.c.key_id == key_id))
        return [self._checked(one) for one in sorted(found, key=lambda h: (h.created, h.record, h.field))]

    def _open(self, connection: Connection, where: Any) -> Iterator[PersonalField]:
        """Open the fields that hold something; those that cannot be opened are yielded with what is wrong."""
        wrapping_key, keys = self.wrapping_key(connection, create=False), dict[str, bytes]()
        rows = connection.execute(select(personal_fields).where(where, personal_fields.c.sealed.is_not(None))).all()
        for row in rows:
            held = PersonalField(row.record, row.field, row.entry, row.created)
            if wrapping_key is None:
                raise wrapping.missing(self._home)
            try:
                if row.key_id not in keys:
                    keys[row.key_id] = read_key(connection, wrapping_key, row.key_id)
                value, opening = open_field(keys[row.key_id], row)
            except LedgerDamagedError as error:
                yield replace(held, problem=str(error))
            else:
                yield replace(held, value=value, opening=opening)

    def _checked(self, held: PersonalField) -> PersonalField:
        if held.problem or held.entry is None:
            return held
        try:
            _check(held, committed_fields(self._ledger.get(held.entry)))
        except LedgerError as error:
            return replace(held, problem=str(error))
        return held

    # -- keys --------------------------------------------------------------------------------------------------------

    def wrapping_key(self, connection: Connection, *, create: bool) -> bytes | None:
        """Return the home's wrapping key, made if there is none and nothing in the ledger needs another.

        None where there is none, and ``create`` is false, and the ledger holds no personal field. KeyStoreError where
        the ledger's keys are wrapped by a key that this home does not have.
        """
        lowest, highest = connection.execute(_WRAPPINGS).one()
        key = wrapping.read_wrapping_key(self._home)
        if key is None:
            if lowest is not None:
                raise wrapping.missing(self._home)
            return wrapping.make_wrapping_key(self._home) if create else None
        mine = wrapping.wrapping_id(key)
        if lowest is not None and (lowest, highest) != (mine, mine):
            other = lowest if lowest != mine else highest
            raise KeyStoreError(
                f"the ledger's personal fields are under another wrapping key ({other}) than this home's ({mine})",
                remedy=f"Copy {wrapping.FILE} from the keys folder of the home that wrote them; mode 0600.",
            )
        return key


def states(ledger: Ledger, entry: Entry) -> dict[str, tuple[State, int | None]]:
    """Return how each personal field of an entry stands, with the entry that says so where it was erased. No key."""
    committed = committed_fields(entry)
    if not committed:
        return {}
    query = (
        select(personal_fields.c.field, personal_fields.c.sealed, erasures.c.entry, erasures.c.id)
        .select_from(personal_fields.outerjoin(erasures, erasures.c.id == personal_fields.c.erasure))
        .where(personal_fields.c.record == record_of(entry))
    )
    with reading(ledger._engine) as connection:
        rows = {row.field: row for row in connection.execute(query)}
    return {name: _state(ledger, rows.get(name)) for name in committed}


def _state(ledger: Ledger, row: Any) -> tuple[State, int | None]:
    if row is None or (row.sealed is None and row.id is None):
        return State.MISSING, None
    if row.sealed is not None:
        return State.HELD, None
    if row.entry is None:
        return State.ERASING, None
    try:
        said = ledger.get(row.entry).body.get("erasure")  # the table is no evidence; the entry is
    except LedgerError:
        return State.MISSING, None
    return (State.ERASED, row.entry) if said == row.id else (State.MISSING, None)


def check_subject(subject: str) -> str:
    """Return a data subject's name; InputError if it is none."""
    if not subject.strip() or len(subject) > MAX_SUBJECT or not subject.isprintable():
        raise InputError(
            f"A data subject is named by 1 to {MAX_SUBJECT} printable characters.", remedy="An account's id, say."
        )
    return subject


def _key_to_write(connection: Connection, wrapping_key: bytes | None, subject: str) -> tuple[str, bytes]:
    """Return (id, key) of a subject, drawn if there is none; it stays until this transaction ends."""
    assert wrapping_key is not None  # noqa: S101 - it is made where it is missing
    query = select(subject_keys).where(subject_keys.c.ref == reference(wrapping_key, subject))
    query = query.with_for_update(read=True)
    while (row := connection.execute(query).one_or_none()) is None:  # again where another writer was quicker
        connection.execute(_INSERT_KEY, new_key(wrapping_key, subject)[0])
    return str(row.key_id), unwrap(wrapping_key, row)


def _check(held: PersonalField, committed: Mapping[str, str]) -> None:
    given = commit_value(held.value, bytes.fromhex(held.opening))
    if not hmac.compare_digest(given, committed.get(held.field, "")):
        raise LedgerDamagedError(f"entry {held.entry} commits to another {held.field!r} than the one that is kept")
