"""Rows of entries as verification reads them: what a column says against what the leaf says."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from operator import itemgetter
from typing import Any, Final, NamedTuple, cast

import orjson
from sqlalchemy import Connection

from safegen.errors import LedgerError
from safegen.ledger.entry import COLUMNS, SCHEMA, decode_leaf, hash_leaf
from safegen.ledger.merkle import HASH_BYTES
from safegen.ledger.models import checkpoints, entries
from safegen.ledger.statements import pages

_FIELDS: Final = itemgetter("index", *COLUMNS)


class EntryRow(NamedTuple):
    """A row of ``entries``; whoever edits the file may have put anything into any column."""

    idx: Any
    time: Any
    kind: Any
    content_id: Any
    asset_sha256: Any
    manifest_sha256: Any
    model: Any
    policy_sha256: Any
    action: Any
    leaf: Any
    leaf_hash: Any


class NoteRow(NamedTuple):
    """A row of ``checkpoints``."""

    size: Any
    note: Any


def column_faults(row: Any) -> list[str]:
    """Return the names of an entry row's columns that contradict its leaf; ``leaf`` alone if it is not readable."""
    try:
        fields = decode_leaf(row.leaf)
    except LedgerError:
        return ["leaf"]
    faults = [name for name in COLUMNS if getattr(row, name) != fields[name]]
    if row.idx != fields["index"]:
        faults.insert(0, "idx")
    if row.leaf_hash != hash_leaf(row.leaf).hex():
        faults.append("leaf_hash")
    return faults


def quick_look(row: EntryRow) -> dict[str, Any] | None:
    """Return the body that a leaf states if the row's columns agree with the leaf; None if it takes a closer look."""
    try:
        fields = orjson.loads(row.leaf)
        agree = row[:9] == _FIELDS(fields) and type(row.idx) is int and fields["schema"] == SCHEMA
        body = fields["body"]
    except (ValueError, TypeError, KeyError):
        return None
    return body if agree and type(body) is dict else None


def closer_look(row: EntryRow) -> dict[str, Any] | None:
    """Return the body that a leaf states, whatever the columns say; None if it states nothing that can be read."""
    try:
        fields: dict[str, Any] = decode_leaf(row.leaf)
    except LedgerError:
        return None
    return cast("dict[str, Any]", fields["body"])


def entry_rows(connection: Connection) -> Iterator[EntryRow]:
    """Yield the rows of ``entries`` in order."""
    return map(EntryRow._make, chain.from_iterable(pages(connection, entries, "idx")))


def note_rows(connection: Connection) -> Iterator[NoteRow]:
    """Yield the rows of ``checkpoints`` in order."""
    return map(NoteRow._make, chain.from_iterable(pages(connection, checkpoints, "size")))


class Peekable:
    """An iterator over rows whose next one can be looked at."""

    def __init__(self, rows: Iterator[NoteRow]) -> None:
        self._rows = rows
        self._next = next(rows, None)

    def peek(self) -> NoteRow | None:
        """Return the next row and leave it there; None at the end."""
        return self._next

    def __iter__(self) -> Peekable:
        return self

    def __next__(self) -> NoteRow:
        row = self._next
        if row is None:
            raise StopIteration
        self._next = next(self._rows, None)
        return row


def is_whole(value: object) -> bool:
    """Whether a value is a whole number, and no boolean."""
    return type(value) is int


def index_or_none(value: object) -> int | None:
    """Return a value that can be an entry's index; None otherwise."""
    return value if isinstance(value, int) else None


def one_before(size: object) -> int | None:
    """Return the index of the last entry that a checkpoint of this size covers."""
    return size - 1 if isinstance(size, int) else None


def digest_or_none(value: object) -> bytes | None:
    """Return a stored leaf hash as bytes; None unless it is 64 lower-case hex digits."""
    try:
        digest = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        return None
    return digest if len(digest) == HASH_BYTES and digest.hex() == value else None
