"""Rows of entries as verification reads them: what a column says against what the leaf says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from json.encoder import encode_basestring
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Table, bindparam, select

from safegen.errors import LedgerError
from safegen.ledger.entry import COLUMNS, SCHEMA, Draft, decode_leaf, event_of, hash_leaf, split_leaf
from safegen.ledger.merkle import HASH_BYTES
from safegen.ledger.models import checkpoints, entries
from safegen.ledger.statements import Statement

_PAGE: Final = 1000
_DECODER: Final[Any] = json.JSONDecoder()
_SCAN: Final = _DECODER.scan_once
_QUOTE: Final = encode_basestring  # the standard library's own, in C


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


class Said(NamedTuple):
    """What a row's leaf says, as far as verification asks. ``key``: see ``Draft.key``."""

    body: dict[str, Any]
    key: str | None


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


def quick_look(row: EntryRow) -> Said | None:
    """Return what the leaf says if it is canonical and its columns agree with it; None if it takes a closer look.

    A leaf is written from its columns once more, around its body: where that gives the text that is there, and the
    body is one JSON object, reading the leaf can give nothing else.
    """
    idx, time, kind, content_id, asset, manifest, model, policy, action, leaf, _ = row
    try:
        before = (
            f'{{"action":{"null" if action is None else _QUOTE(action)},'
            f'"asset_sha256":{"null" if asset is None else _QUOTE(asset)},"body":'
        )
        content = f',"content_id":{"null" if content_id is None else _QUOTE(content_id)},"index":'
        between = (
            f',"kind":{_QUOTE(kind)},"manifest_sha256":{"null" if manifest is None else _QUOTE(manifest)},'
            f'"model":{"null" if model is None else _QUOTE(model)},'
            f'"policy_sha256":{"null" if policy is None else _QUOTE(policy)},"schema":"{SCHEMA}","time":'
        )
        after = f"{content}{idx}{between}{_QUOTE(time)}}}"
        end = len(leaf) - len(after)
        if type(idx) is not int or not leaf.startswith(before) or not leaf.endswith(after):
            return None
        body, stop = _SCAN(leaf, len(before))
    except (TypeError, ValueError, AttributeError, StopIteration, RecursionError):
        return None
    if stop != end or type(body) is not dict:
        return None
    if asset is None:
        return Said(body, None)
    said = f'{leaf[: end + len(content)]}{between}"'
    return Said(body, hashlib.sha256(said.encode("utf-8", "surrogateescape")).hexdigest())


def closer_look(row: EntryRow) -> Said | None:
    """Return what a leaf says that need not be canonical; None if it says nothing that can be read."""
    try:
        fields: dict[str, Any] = decode_leaf(row.leaf)
    except LedgerError:
        return None
    event, parts = event_of(fields), split_leaf(row.leaf, fields["index"], fields["time"])
    key = None
    if parts is not None:
        key = Draft(event, *(part.encode("utf-8", "surrogateescape") for part in parts)).key
    return Said(fields["body"], key)


def entry_rows(connection: Connection) -> Iterator[EntryRow]:
    """Yield the rows of ``entries`` in order, by pages: some drivers cannot stream."""
    return map(EntryRow._make, _pages(connection, entries, "idx"))


def note_rows(connection: Connection) -> Iterator[NoteRow]:
    """Yield the rows of ``checkpoints`` in order."""
    return map(NoteRow._make, _pages(connection, checkpoints, "size"))


def _pages(connection: Connection, table: Table, key: str) -> Iterator[tuple[Any, ...]]:
    column = table.c[key]
    first = Statement(select(table).order_by(column).limit(_PAGE), connection.dialect)
    after = Statement(select(table).where(column > bindparam("last")).order_by(column).limit(_PAGE), connection.dialect)
    rows = first.fetch_all(connection)
    place = list(table.c.keys()).index(key)
    while rows:
        yield from rows
        rows = after.fetch_all(connection, {"last": rows[-1][place]})


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
