"""Tables and cryptography of personal fields (``safegen.ledger.subjects``): AES-256-GCM, a key per data subject."""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Column, Connection, Engine, Index, PrimaryKeyConstraint, Row, String, Table, Text, select

from safegen.errors import LedgerDamagedError
from safegen.keys import wrapping
from safegen.ledger.database import reading
from safegen.ledger.models import Big, metadata
from safegen.types import Json

AnyRow = Row[Any]

_NONCE: Final = 12
_AAD: Final = "safegen.personal/1"

subject_keys = Table(
    "subject_keys",
    metadata,
    Column("key_id", String(32), primary_key=True),
    Column("ref", String(64), nullable=False),
    Column("wrapping", String(16), nullable=False),
    Column("wrapped", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("created", String(32), nullable=False),
    Index("uq_subject_keys_ref", "ref", unique=True),
    Index("ix_subject_keys_wrapping", "wrapping"),
)
"""One live key per data subject. ``ref`` is a keyed hash of the subject's name; ``subject`` is the name, encrypted."""

personal_fields = Table(
    "personal_fields",
    metadata,
    Column("record", String(32), nullable=False),
    Column("field", String(64), nullable=False),
    Column("key_id", String(32)),
    Column("sealed", Text),
    Column("created", String(32), nullable=False),
    Column("entry", Big),
    Column("erasure", String(32)),
    PrimaryKeyConstraint("record", "field"),
    Index("ix_personal_fields_key", "key_id"),
    Index("ix_personal_fields_age", "field", "created"),
)
"""One row per field; what was erased keeps its row, empty, with the erasure that it fell to."""

erasures = Table(
    "erasures",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("ref", String(64), nullable=False),
    Column("body", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("entry", Big),
)
"""Erasures, done and under way (``safegen.ledger.erasure``)."""


def guard(connection: Connection) -> None:
    """Have SQLite overwrite with zeros what this connection deletes."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA secure_delete=ON")


@contextmanager
def reading_keys(engine: Engine) -> Iterator[Connection]:
    """A read transaction in which no erasure takes place."""
    with reading(engine, snapshot=True) as connection:
        hold_keys(connection)
        yield connection


def hold_keys(connection: Connection) -> None:
    """Let no erasure take place until the transaction ends.

    PostgreSQL shows a table that is emptied meanwhile as empty, unless it is locked before the first look at anything.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("LOCK TABLE subject_keys IN ACCESS SHARE MODE")


def now() -> str:
    """The time as entries write it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def commit_value(value: Json, opening: bytes) -> str:
    """Return the commitment to a field's value under an opening of 32 bytes, in hex."""
    return hmac.digest(opening, _canonical(value), "sha256").hex()


def reference(wrapping_key: bytes, subject: str) -> str:
    """Return what stands for a subject in the tables: found again by who has the name and the wrapping key."""
    return hmac.digest(wrapping_key, b"safegen subject\0" + subject.encode("utf-8", "surrogatepass"), "sha256").hex()


def seal(key: bytes, data: bytes, aad: bytes) -> str:
    """Encrypt with AES-256-GCM; hex of nonce and ciphertext."""
    nonce = secrets.token_bytes(_NONCE)
    return (nonce + AESGCM(key).encrypt(nonce, data, aad)).hex()


def unseal(key: bytes, sealed: object, aad: bytes, what: str) -> bytes:
    """Undo ``seal``; LedgerDamagedError naming ``what`` if it was altered, or is not under this key."""
    try:
        data = bytes.fromhex(str(sealed))
        return AESGCM(key).decrypt(data[:_NONCE], data[_NONCE:], aad)
    except (ValueError, InvalidTag) as error:
        raise LedgerDamagedError(f"{what} was altered, or is not under the key that it names") from error


def field_aad(record: str, field: str) -> bytes:
    """What a field's ciphertext is bound to."""
    return f"{_AAD}\0{record}\0{field}".encode()


def open_field(key: bytes, row: AnyRow) -> tuple[Json, str]:
    """Return (value, opening in hex) of a row of ``personal_fields``; LedgerDamagedError if it was altered."""
    what = f"the personal field {row.field!r} of record {row.record}"
    plain = json.loads(unseal(key, row.sealed, field_aad(str(row.record), str(row.field)), what))
    return plain["value"], str(plain["opening"])


def new_key(wrapping_key: bytes, subject: str) -> tuple[dict[str, str], bytes]:
    """Draw a key for a subject: its row, and the key."""
    key, key_id = secrets.token_bytes(32), secrets.token_hex(16)
    ref = reference(wrapping_key, subject)
    row = {
        "key_id": key_id, "ref": ref, "wrapping": wrapping.wrapping_id(wrapping_key),
        "wrapped": seal(wrapping_key, key, _key_aad(key_id)),
        "subject": seal(key, subject.encode("utf-8", "surrogatepass"), _key_aad(key_id)), "created": now(),
    }  # fmt: skip
    return row, key


def read_key(connection: Connection, wrapping_key: bytes, key_id: str) -> bytes:
    """Return a subject's key; LedgerDamagedError if it is gone or altered."""
    row = connection.execute(select(subject_keys).where(subject_keys.c.key_id == key_id)).one_or_none()
    if row is None:
        raise LedgerDamagedError(f"the key {key_id} of a data subject is missing")
    return unwrap(wrapping_key, row)


def unwrap(wrapping_key: bytes, row: AnyRow) -> bytes:
    """Return the key in a row of ``subject_keys``."""
    what = f"the key {row.key_id} of a data subject"
    return unseal(wrapping_key, row.wrapped, _key_aad(str(row.key_id)), what)


def subject_of(key: bytes, row: AnyRow) -> str:
    """Return the name in a row of ``subject_keys``."""
    what = f"the name under the key {row.key_id}"
    return unseal(key, row.subject, _key_aad(str(row.key_id)), what).decode("utf-8", "surrogatepass")


def _key_aad(key_id: str) -> bytes:
    return f"{_AAD}\0key\0{key_id}".encode()


def _canonical(value: Json) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def field_plaintext(value: Json, opening: bytes) -> bytes:
    """What is encrypted of a field."""
    return _canonical({"opening": opening.hex(), "value": value})
