"""What one transaction appends: entries, what is derived from them, one signed checkpoint over all, and the head."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, Dialect, bindparam, func, insert, select, text, update

from safegen.errors import LedgerError
from safegen.ledger import bindings, facts, likeness, merkle, stored, subjects
from safegen.ledger.checkpoint import Checkpoint, VerifierKey, default_origin, open_checkpoint, sign_checkpoint
from safegen.ledger.entry import COLUMNS, Draft, EventKind
from safegen.ledger.models import checkpoints, entries, head, nodes, submissions
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
_ANY: Final = {
    "sqlite": "IN (SELECT value FROM json_each(:names))",
    "postgresql": "= ANY(CAST(:names AS text[]))",
}
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
        locked = select(head.c.size, head.c.frontier, head.c.vkey).with_for_update()
        self._lock_head, self._ends, self._covering = (Statement(s, dialect) for s in (locked, _ENDS, _COVERING))
        # A failing INSERT takes the whole transaction back, not itself alone: otherwise SQLite keeps a journal for each
        # row of a table with triggers, which takes twice as long as the row.
        self._insert = {
            table.name: Statement(insert(table).prefix_with("OR ROLLBACK", dialect="sqlite"), dialect)
            for table in (entries, nodes, checkpoints, submissions)
        }
        self._bindings = Statement(bindings.INSERT, dialect)
        self._bands = Statement(likeness.INSERT, dialect)
        self._facts, self._counts = Statement(facts.INSERT, dialect), Statement(facts.COUNT, dialect)
        some = _ANY.get(dialect.name, "IN (:names)")
        self._known = Statement(text(f"SELECT key, entry FROM submissions WHERE key {some}"), dialect)  # noqa: S608
        same = f"SELECT content_id, idx FROM entries WHERE kind = 'generated' AND content_id {some}"  # noqa: S608
        self._generated = Statement(text(same), dialect)
        grown: dict[str, Any] = {name: bindparam(name) for name in ("size", "frontier", "vkey")}
        self._grow = Statement(update(head).where(head.c.id == 1).values(grown), dialect)

    def append(self, connection: Connection, drafts: Sequence[Draft]) -> list[Receipt]:
        """Append the events in their order, and sign one checkpoint over the ledger with them.

        An event that was recorded before (``Draft.key``) gets the receipt that it got then. Entries of one transaction
        bear one time, and no two transactions in a row the same: so the entries say where checkpoints must lie.
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
                self._insert["checkpoints"].run(connection, {"size": frontier.size, "note": note})
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
        keys = [draft.key for draft in drafts]
        known = dict(self._look_up(connection, self._known, (key for key in keys if key is not None)))
        fresh: list[Draft] = []
        places: list[int] = []
        for draft, key in zip(drafts, keys, strict=True):
            if key is not None and key in known:
                places.append(known[key])
                continue
            if key is not None:
                known[key] = size + len(fresh)
            places.append(size + len(fresh))
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
        seen = dict(self._look_up(connection, self._generated, (name for name, _ in named)))
        for name, index in named:
            if (earlier := seen.setdefault(name, index)) != index:
                raise RefusedError(
                    f"content id {name} was generated before (entry {earlier})", remedy="draw a new content id"
                )

    def _look_up(self, connection: Connection, query: Statement, names: Iterable[str]) -> Iterable[tuple[str, int]]:
        wanted = list(names)
        if not wanted:
            return []
        if self._dialect == "postgresql":
            return cast("list[tuple[str, int]]", query.run(connection, {"names": wanted}).fetchall())
        if self._dialect == "sqlite":
            listed = '["' + '","'.join(wanted) + '"]'  # hex digits all
            return cast("list[tuple[str, int]]", query.run(connection, {"names": listed}).fetchall())
        return [row for name in wanted for row in query.run(connection, {"names": name}).fetchall()]

    def _insert_entries(
        self, connection: Connection, fresh: Sequence[Draft], frontier: merkle.Frontier, time: str
    ) -> dict[int, str]:
        """Write the entries and the rows that follow from each alone; return their leaf hashes by index."""
        made: dict[int, str] = {}
        days: list[tuple[str, ...]] = []
        rows: dict[str, list[dict[str, object]]] = {name: [] for name in ("entries", "nodes", "submissions")}
        bound, alike, said = [], [], []
        for index, draft in enumerate(fresh, frontier.size):
            event, leaf = draft.event, draft.leaf(index, time)
            digest = merkle.leaf_hash(leaf)
            made[index] = hashed = digest.hex()
            columns = {name: _text(getattr(event, name)) for name in COLUMNS[1:]}
            rows["entries"].append({"idx": index, "time": time, **columns, "leaf": leaf.decode(), "leaf_hash": hashed})
            rows["nodes"] += [
                {"level": level, "position": position, "hash": node.hex()}
                for level, position, node in frontier.push(digest)
                if level % TILE_LEVELS == 0
            ]
            if (key := draft.key) is not None:
                rows["submissions"].append({"key": key, "entry": index})
            if event.kind not in stored.KINDS:
                binding = bindings.binding_of(index, event)
                bound += [] if binding is None else [binding.row()]
                alike += likeness.rows_of(index, event)
            said += facts.rows_of(index, event)
            days.append(facts.day_of(time, event))
        for name, table in rows.items():
            self._insert[name].run_many(connection, table)
        self._bindings.run_many(connection, bound)
        self._bands.run_many(connection, alike)
        self._facts.run_many(connection, said)
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
        known = parse_stored_key(stored_key)
        if known != VerifierKey.of(known.name, self._key):
            raise LedgerError(
                f"the ledger is signed by another key ({known})",
                remedy="use the key that the ledger was begun with, or begin a new ledger",
            )
        return known


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


def _text(value: object) -> str | None:
    return None if value is None else str(value)
