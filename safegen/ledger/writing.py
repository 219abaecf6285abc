"""What one transaction appends: entries, what is derived from them, one signed checkpoint over all, and the head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import ColumnElement, Connection, Dialect, bindparam, func, literal_column, select, text, update

from safegen.errors import LedgerError
from safegen.ledger import bindings, facts, foreign_manifests, likeness_index, merkle, personal_records
from safegen.ledger.append_results import Receipt, RefusedError
from safegen.ledger.checkpoint import Checkpoint, VerifierKey, default_origin, open_checkpoint, sign_checkpoint
from safegen.ledger.entry import COLUMNS, Draft, Event, EventKind, split_leaf
from safegen.ledger.head_row import parse_frontier, parse_head_key
from safegen.ledger.inserts import Insert
from safegen.ledger.models import checkpoints, entries, hash_bands, head, nodes, soft_bindings
from safegen.ledger.proof import TILE_LEVELS, damaged
from safegen.ledger.statements import Statement, settle, together

MOST_AT_ONCE: Final = 10_000
"""Events of one call at most: they are written in one transaction, which keeps other writers waiting."""

_ONE: Final[ColumnElement[int]] = literal_column("1")  # as a value it would have PostgreSQL plan every time anew
_ENDS: Final = select(
    select(func.max(entries.c.idx)).scalar_subquery(),
    select(entries.c.time).order_by(entries.c.idx.desc()).limit(_ONE).scalar_subquery(),
    select(func.max(checkpoints.c.size)).scalar_subquery(),
    select(checkpoints.c.note).order_by(checkpoints.c.size.desc()).limit(_ONE).scalar_subquery(),
)
_COVERING: Final = (
    select(entries.c.leaf_hash, checkpoints.c.note)
    .where(entries.c.idx == bindparam("entry"), checkpoints.c.size > bindparam("entry"))
    .order_by(checkpoints.c.size)
    .limit(1)
)
_ABOUT: Final = {
    "sqlite": "SELECT {0} FROM (SELECT value AS name FROM json_each(:names)) AS wanted CROSS JOIN entries e ON {1}",
    "postgresql": "SELECT {0} FROM (SELECT unnest(CAST(:names AS text[])){2}) AS wanted(name),"
    " LATERAL (SELECT * FROM entries WHERE {1} OFFSET 0) AS e",
}
"""Each name is sought in its own index, whatever the database makes of the rest."""

_ASKING: Final = frozenset({*foreign_manifests.KINDS, "erased", "expired"})

Row = tuple[Any, ...]
Rows = Callable[[], list[Row]]
LookUps = tuple[Statement, Statement]
Begun = tuple[Callable[[], Any], Callable[[], Any], Rows, Rows]
"""The head, the last rows, the entries about the same assets, the generated ones: each there when it is asked for."""

_COLUMNS_OF: Final = attrgetter(*COLUMNS[1:])
_TIME: Final = "%Y-%m-%dT%H:%M:%S.%fZ"


def look_ups(dialect: Dialect, more_assets: str = "", more_ids: str = "") -> LookUps:
    """Return what looks entries up by assets, and generated ones by content ids; the others are SQL for more names."""
    about = _ABOUT.get(dialect.name, "SELECT {0} FROM (SELECT :names AS name) AS wanted JOIN entries e ON {1}")
    known = about.format("e.idx, e.time, e.leaf", "asset_sha256 = wanted.name", more_assets) + " ORDER BY e.idx"
    same = about.format("e.content_id, e.idx", "content_id = wanted.name AND kind = 'generated'", more_ids)
    return Statement(text(known), dialect), Statement(text(same), dialect)


class Appender:
    """Appends to the ledger of one database, inside transactions that the caller opens."""

    def __init__(self, dialect: Dialect, key: Ed25519PrivateKey, origin: str) -> None:
        self._dialect = dialect.name
        self._key = key
        self._origin = origin
        self._last: tuple[Checkpoint | None, str] = None, ""  # the newest one that this object signed, and its note
        self._signers: dict[str, VerifierKey] = {}  # by the text that the head row has
        locked = select(head.c.size, head.c.frontier, head.c.vkey).with_for_update()
        self._lock_head, self._ends, self._covering = (Statement(s, dialect) for s in (locked, _ENDS, _COVERING))
        tables = (entries, nodes, checkpoints, soft_bindings, hash_bands, facts.entry_facts)
        self._insert = {table.name: Insert(table, dialect) for table in tables}
        self._counts = Statement(facts.COUNT, dialect)
        self._look_ups = look_ups(dialect)
        grown: dict[str, Any] = {name: bindparam(name) for name in ("size", "frontier", "vkey")}
        self._grow = Statement(update(head).where(head.c.id == 1).values(grown), dialect)

    def append(self, connection: Connection, drafts: Sequence[Draft]) -> list[Receipt]:
        """Append the events in their order, and sign one checkpoint over the ledger with them.

        An event about an asset that was recorded before, in the same words, gets the receipt that it got then. Entries
        of one transaction bear one time, and no two in a row the same: so the entries say where checkpoints must lie.
        RefusedError if one of the events cannot be recorded; then the transaction must be rolled back.
        """
        return self.append_to(connection, self.begin(connection, drafts), drafts)

    def begin(self, connection: Connection, drafts: Sequence[Draft], others: LookUps | None = None) -> Begun:
        """Lock the head, and read it and what there is about the drafts; ``others`` look up more than that."""
        events = [draft.event for draft in drafts]
        assets = [event.asset_sha256 for event in events if event.asset_sha256 is not None]
        ids = [str(e.content_id) for e in events if e.kind == EventKind.GENERATED and e.content_id is not None]
        known, generated = others or self._look_ups
        with nullcontext() if others else together(connection):
            locked = self._row(connection, self._lock_head)
            # Not in one statement with the lock: PostgreSQL would answer from a snapshot older than the lock.
            ends = self._row(connection, self._ends)
            found = [
                self._look_up(connection, query, names) if names or others else list
                for query, names in ((known, assets), (generated, ids))
            ]
        return locked, ends, found[0], found[1]

    def append_to(self, connection: Connection, begun: Begun, drafts: Sequence[Draft]) -> list[Receipt]:
        """Append as ``append`` does, after ``begin`` with these drafts."""
        locked, ends, known, generated = begun
        with together(connection):
            vkey, frontier, last_time = self._writable_head(locked(), ends())
            fresh, places = self._fresh(drafts, frontier.size, known())
            self._refuse_duplicates(fresh, frontier.size, generated())
            made: dict[int, str] = {}
            note = ""
            if fresh:
                made = self._insert_entries(connection, fresh, frontier, _time_after(last_time))
                signed = Checkpoint(vkey.name, frontier.size, frontier.root())
                note = sign_checkpoint(signed, self._key)
                self._insert["checkpoints"].run(connection, [(frontier.size, note)])
                peaks = " ".join(peak.hex() for peak in frontier.peaks)
                self._grow.run(connection, {"size": frontier.size, "frontier": peaks, "vkey": str(vkey)})
                self._last = signed, note  # checked again if this transaction comes to nothing: the table has another
        asking = [(index, draft.event) for index, draft in zip(made, fresh, strict=True) if _asks(draft.event)]
        if asking:
            settle(connection)
        for index, event in asking:  # these may refuse
            if event.kind in foreign_manifests.KINDS:
                foreign_manifests.record(connection, index, event)
            personal_records.note_entry(connection, index, event)
        return [Receipt(i, made[i], note) if i in made else self._first_receipt(connection, i) for i in places]

    def _fresh(self, drafts: Sequence[Draft], size: int, known_rows: Sequence[Row]) -> tuple[list[Draft], list[int]]:
        """Return the drafts that are new, and the index at which each of all drafts stands or will stand."""
        known: dict[tuple[bytes, bytes], int] = {}
        for index, time, leaf in known_rows:
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
        return fresh, places

    def _refuse_duplicates(self, fresh: Sequence[Draft], size: int, generated: Sequence[Row]) -> None:
        """A content id is generated once, whatever else the two events say."""
        seen: dict[str, int] = dict(generated)
        for index, draft in enumerate(fresh, size):
            name = draft.event.content_id
            if draft.event.kind != EventKind.GENERATED or name is None:
                continue
            if (earlier := seen.setdefault(str(name), index)) != index:
                raise RefusedError(
                    f"content id {name} was generated before (entry {earlier})", remedy="draw a new content id"
                )

    def _row(self, connection: Connection, query: Statement) -> Callable[[], Any]:
        """Run a query for one row; it is there when it is asked for.

        SQLite's is fetched at once: a query with rows left would keep its view of the database after a rollback.
        """
        found = query.run(connection)
        if self._dialect == "postgresql":
            return found.fetchone  # type: ignore[no-any-return]
        row = found.fetchone()
        return lambda: row

    def _look_up(self, connection: Connection, query: Statement, names: Sequence[str]) -> Rows:
        if self._dialect == "postgresql":
            return query.run(connection, {"names": list(names)}).fetchall  # type: ignore[no-any-return]
        if self._dialect == "sqlite":
            rows = query.fetch_all(connection, {"names": '["' + '","'.join(names) + '"]'})  # hex digits all
        else:
            rows = [row for name in names for row in query.fetch_all(connection, {"names": name})]
        return lambda: rows

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
                rows["hash_bands"] += likeness_index.rows_of(index, event)
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

    def _writable_head(self, row: Row | None, ends: Row) -> tuple[VerifierKey, merkle.Frontier, str]:
        """Return what the head row says and the last entry's time, after comparing it with the signed end.

        A log must never sign what contradicts an earlier signature, so a head that was edited is not built upon.
        """
        if row is None:
            raise damaged("its head row is missing")
        size, peaks, stored_key = row
        vkey, frontier = self._signer(stored_key), parse_frontier(size, peaks)
        last, time, covered, note = ends
        if frontier.size == 0 and last is None and covered is None:
            return vkey, frontier, ""
        if covered != frontier.size or last != frontier.size - 1:
            raise damaged("its head, entries and checkpoints differ in number")
        note, tree = str(note), Checkpoint(vkey.name, frontier.size, frontier.root())
        # Signing again tells whether this key signed it: Ed25519 signs alike every time, and quicker than it verifies.
        if (tree, note) != self._last and note != sign_checkpoint(tree, self._key):
            try:
                signed = open_checkpoint(note, vkey)
            except LedgerError as exc:
                raise damaged(f"checkpoint {covered}: {exc}") from exc
            if signed != tree:
                raise damaged("its head does not fit its last checkpoint")
        return vkey, frontier, str(time)

    def _signer(self, stored_key: object) -> VerifierKey:
        if not stored_key:
            return VerifierKey.of(self._origin or default_origin(self._key), self._key)
        if (checked := self._signers.get(str(stored_key))) is not None:
            return checked
        known = parse_head_key(stored_key)
        if known != VerifierKey.of(known.name, self._key):
            raise LedgerError(
                f"the ledger is signed by another key ({known})",
                remedy="use the key that the ledger was begun with, or begin a new ledger",
            )
        return self._signers.setdefault(str(stored_key), known)


def _asks(event: Event) -> bool:
    """Whether the database must be asked about an event when it is there."""
    return event.kind in _ASKING or personal_records.PERSONAL in event.body


def _time_after(last: str) -> str:
    """The clock's time, as it stands; a microsecond more if the last transaction bears just that."""
    now = datetime.now(UTC)
    time = now.strftime(_TIME)
    return time if time != last else (now + timedelta(microseconds=1)).strftime(_TIME)
