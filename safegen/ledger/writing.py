"""What one transaction appends: entries, what is derived from them, one signed checkpoint over all, and the head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, Dialect, bindparam, func, select, text, update

from safegen.errors import LedgerError
from safegen.ledger import bindings, facts, likeness, merkle, stored, subjects
from safegen.ledger.checkpoint import Checkpoint, VerifierKey, default_origin, open_checkpoint, sign_checkpoint
from safegen.ledger.entry import COLUMNS, Draft, EventKind, split_leaf
from safegen.ledger.inserts import Insert
from safegen.ledger.models import checkpoints, entries, hash_bands, head, nodes, soft_bindings
from safegen.ledger.proof import TILE_LEVELS, damaged
from safegen.ledger.statements import Statement, together

MOST_AT_ONCE: Final = 10_000
"""Events of one call at most: they are written in one transaction, which keeps other writers waiting."""

_ENDS: Final = select(
    select(func.max(entries.c.idx)).scalar_subquery(),
    select(entries.c.time).order_by(entries.c.idx.desc()).limit(1).scalar_subquery(),
    select(func.max(checkpoints.c.size)).scalar_subquery(),
    select(checkpoints.c.note).order_by(checkpoints.c.size.desc()).limit(1).scalar_subquery(),
)
_COVERING: Final = (
    select(entries.c.leaf_hash, checkpoints.c.note)
    .where(entries.c.idx == bindparam("entry"), checkpoints.c.size > bindparam("entry"))
    .order_by(checkpoints.c.size)
    .limit(1)
)
_NAMES: Final = {
    "sqlite": "(SELECT value AS name FROM json_each(:names)) AS wanted CROSS JOIN entries e",
    "postgresql": "unnest(CAST(:names AS text[])) AS wanted(name) JOIN entries e",
}
"""Joined in this order, so that each name is sought in its own index, whatever the database makes of the rest."""

_COLUMNS_OF: Final = attrgetter(*COLUMNS[1:])
_TIME: Final = "%Y-%m-%dT%H:%M:%S.%fZ"


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an append returns: the entry's index, its leaf hash (hex) and the signed checkpoint that first covers it."""

    index: int
    leaf_hash: str
    checkpoint: str


class RefusedError(LedgerError):
    """One event cannot be recorded; it says nothing of the others."""


class Appender:
    """Appends to the ledger of one database, inside transactions that the caller opens."""

    def __init__(self, dialect: Dialect, key: Ed25519PrivateKey, origin: str) -> None:
        self._dialect = dialect.name
        self._key = key
        self._origin = origin
        self._last_note = ""  # the newest checkpoint that this object signed or checked
        self._signers: dict[str, VerifierKey] = {}  # by the text that the head row has
        locked = select(head.c.size, head.c.frontier, head.c.vkey).with_for_update()
        self._lock_head, self._ends, self._covering = (Statement(s, dialect) for s in (locked, _ENDS, _COVERING))
        tables = (entries, nodes, checkpoints, soft_bindings, hash_bands, facts.entry_facts)
        self._insert = {table.name: Insert(table, dialect) for table in tables}
        self._counts = Statement(facts.COUNT, dialect)
        named = _NAMES.get(dialect.name, "(SELECT :names AS name) AS wanted JOIN entries e")
        known = f"SELECT e.idx, e.time, e.leaf FROM {named} ON e.asset_sha256 = wanted.name ORDER BY e.idx"  # noqa: S608
        same = f"SELECT e.content_id, e.idx FROM {named} ON e.content_id = wanted.name AND e.kind = 'generated'"  # noqa: S608
        self._known, self._generated = Statement(text(known), dialect), Statement(text(same), dialect)
        grown: dict[str, Any] = {name: bindparam(name) for name in ("size", "frontier", "vkey")}
        self._grow = Statement(update(head).where(head.c.id == 1).values(grown), dialect)

    def append(self, connection: Connection, drafts: Sequence[Draft]) -> list[Receipt]:
        """Append the events in their order, and sign one checkpoint over the ledger with them.

        An event about an asset that was recorded before, in the same words, gets the receipt that it got then. Entries
        of one transaction bear one time, and no two in a row the same: so the entries say where checkpoints must lie.
        RefusedError if one of the events cannot be recorded; then the transaction must be rolled back.
        """
        vkey, frontier, last_time = self._writable_head(connection)
        fresh, places = self._fresh(connection, drafts, frontier.size)
        made: dict[int, str] = {}
        note = ""
        if fresh:
            with together(connection):
                made = self._insert_entries(connection, fresh, frontier, _time_after(last_time))
                note = sign_checkpoint(Checkpoint(vkey.name, frontier.size, frontier.root()), self._key)
                self._insert["checkpoints"].run(connection, [(frontier.size, note)])
                peaks = " ".join(peak.hex() for peak in frontier.peaks)
                self._grow.run(connection, {"size": frontier.size, "frontier": peaks, "vkey": str(vkey)})
            for index, draft in zip(made, fresh, strict=True):  # these ask the database, and may refuse
                if draft.event.kind in stored.KINDS:
                    stored.record(connection, index, draft.event)
                subjects.placed(connection, index, draft.event)
            self._last_note = note  # checked again if this transaction comes to nothing: the table then has another
        return [Receipt(i, made[i], note) if i in made else self._first_receipt(connection, i) for i in places]

    def _fresh(self, connection: Connection, drafts: Sequence[Draft], size: int) -> tuple[list[Draft], list[int]]:
        """Return the drafts that are new, and the index at which each of all drafts stands or will stand."""
        assets = [draft.event.asset_sha256 for draft in drafts if draft.event.asset_sha256 is not None]
        known: dict[tuple[bytes, bytes], int] = {}
        for index, time, leaf in self._look_up(connection, self._known, assets):
            parts = split_leaf(leaf, index, time) if isinstance(leaf, str) else None  # somebody may have edited it
            if parts is not None:
                before, between = (part.encode("utf-8", "surrogateescape") for part in parts)
                known.setdefault((before, between), index)
        fresh: list[Draft] = []
        places: list[int] = []
        for draft in drafts:
            place = size + len(fresh)
            if draft.event.asset_sha256 is not None:
                place = known.setdefault((draft.before, draft.between), place)
            places.append(place)
            if place == size + len(fresh):
                fresh.append(draft)
        self._refuse_duplicates(connection, fresh, size)
        return fresh, places

    def _refuse_duplicates(self, connection: Connection, fresh: Sequence[Draft], size: int) -> None:
        """A content id is generated once, whatever else the two events say."""
        named = [
            (str(draft.event.content_id), size + place)
            for place, draft in enumerate(fresh)
            if draft.event.kind == EventKind.GENERATED and draft.event.content_id is not None
        ]
        seen = dict(self._look_up(connection, self._generated, [name for name, _ in named]))
        for name, index in named:
            if (earlier := seen.setdefault(name, index)) != index:
                raise RefusedError(
                    f"content id {name} was generated before (entry {earlier})", remedy="draw a new content id"
                )

    def _look_up(self, connection: Connection, query: Statement, names: Sequence[str]) -> list[tuple[Any, ...]]:
        if not names:
            return []
        if self._dialect == "postgresql":
            return query.fetch_all(connection, {"names": list(names)})
        if self._dialect == "sqlite":
            return query.fetch_all(connection, {"names": '["' + '","'.join(names) + '"]'})  # hex digits all
        return [row for name in names for row in query.fetch_all(connection, {"names": name})]

    def _insert_entries(
        self, connection: Connection, fresh: Sequence[Draft], frontier: merkle.Frontier, time: str
    ) -> dict[int, str]:
        """Write the entries and the rows that follow from each alone; return their leaf hashes by index."""
        made: dict[int, str] = {}
        digests: list[bytes] = []
        days: list[tuple[str, ...]] = []
        rows: dict[str, list[tuple[object, ...]]] = {name: [] for name in self._insert}
        for index, draft in enumerate(fresh, frontier.size):
            event, leaf = draft.event, draft.leaf(index, time)
            digests.append(digest := merkle.leaf_hash(leaf))
            made[index] = hashed = digest.hex()
            columns = [None if value is None else str(value) for value in _COLUMNS_OF(event)]
            rows["entries"].append((index, time, *columns, leaf.decode(), hashed))
            if event.kind == EventKind.GENERATED and "mark" in event.body:
                binding = bindings.binding_of(index, event)
                rows["soft_bindings"] += [] if binding is None else [binding.row()]
                rows["hash_bands"] += likeness.rows_of(index, event)
            rows["entry_facts"] += facts.rows_of(index, event)
            days.append(facts.day_of(time, event))
        completed = frontier.extend(digests, TILE_LEVELS)
        rows["nodes"] = [(level, position, node.hex()) for level, position, node in completed]
        for name, table in rows.items():
            self._insert[name].run(connection, table)
        self._counts.run_many(connection, facts.counts_of(days))
        return made

    def _first_receipt(self, connection: Connection, index: int) -> Receipt:
        row = self._covering.run(connection, {"entry": index}).fetchone()
        if row is None:
            raise damaged(f"no checkpoint covers entry {index}")
        return Receipt(index, str(row[0]), str(row[1]))

    # -- what is built upon -------------------------------------------------------------------------------------------

    def _writable_head(self, connection: Connection) -> tuple[VerifierKey, merkle.Frontier, str]:
        """Lock the head row and return what it says and the last entry's time, after comparing it with the signed end.

        A log must never sign what contradicts an earlier signature, so a head that was edited is not built upon.
        """
        row = self._lock_head.run(connection).fetchone()
        if row is None:
            raise damaged("its head row is missing")
        size, peaks, stored_key = row
        vkey, frontier = self._signer(stored_key), _frontier(size, peaks)
        # Not in one statement with the lock: PostgreSQL would answer from a snapshot older than the lock.
        last, time, covered, note = self._ends.run(connection).fetchone()
        if frontier.size == 0 and last is None and covered is None:
            return vkey, frontier, ""
        if covered != frontier.size or last != frontier.size - 1:
            raise damaged("its head, entries and checkpoints differ in number")
        note = str(note)
        try:
            # A note that this object signed or checked before need not be checked again.
            signed = Checkpoint.parse(note.rpartition("\n\n")[0] + "\n") if note == self._last_note else None
            signed = signed or open_checkpoint(note, vkey)
        except LedgerError as exc:
            raise damaged(f"checkpoint {covered}: {exc}") from exc
        if signed.size != frontier.size or signed.root != frontier.root():
            raise damaged("its head does not fit its last checkpoint")
        return vkey, frontier, str(time)

    def _signer(self, stored_key: object) -> VerifierKey:
        if not stored_key:
            return VerifierKey.of(self._origin or default_origin(self._key), self._key)
        if (checked := self._signers.get(str(stored_key))) is not None:
            return checked
        known = parse_stored_key(stored_key)
        if known != VerifierKey.of(known.name, self._key):
            raise LedgerError(
                f"the ledger is signed by another key ({known})",
                remedy="use the key that the ledger was begun with, or begin a new ledger",
            )
        return self._signers.setdefault(str(stored_key), known)


def parse_stored_key(stored_key: object) -> VerifierKey:
    """Return the verifier key that the head row names; LedgerDamagedError if it is none."""
    try:
        return VerifierKey.parse(str(stored_key))
    except LedgerError as exc:
        raise damaged(f"its head row: {exc}") from exc


def _frontier(size: object, peaks: object) -> merkle.Frontier:
    try:
        return merkle.Frontier(size, [bytes.fromhex(p) for p in peaks.split()])  # type: ignore[arg-type, attr-defined]
    except (ValueError, TypeError, AttributeError) as exc:
        raise damaged("its head row is malformed") from exc


def _time_after(last: str) -> str:
    """The clock's time, as it stands; a microsecond more if the last transaction bears just that."""
    now = datetime.now(UTC)
    time = now.strftime(_TIME)
    return time if time != last else (now + timedelta(microseconds=1)).strftime(_TIME)
